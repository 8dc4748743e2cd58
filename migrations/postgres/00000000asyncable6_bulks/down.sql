DROP TABLE asyncable_bulks;
