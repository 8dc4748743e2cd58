-- Forgets which models are paused: they run again.
DROP TABLE asyncable_pauses;
