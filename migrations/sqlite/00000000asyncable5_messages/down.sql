-- Loses what the users of rows were told, and whether they have read it.
DROP TABLE asyncable_messages;
