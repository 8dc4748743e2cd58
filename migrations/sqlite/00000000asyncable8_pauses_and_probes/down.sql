-- Forgets which models are paused: they run again. Forgets the tries of services that are down.
DROP INDEX asyncable_attempts_model;
DROP TABLE asyncable_probes;
DROP TABLE asyncable_pauses;
