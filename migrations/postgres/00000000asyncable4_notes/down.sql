-- Loses the notes.
DROP INDEX asyncable_retries_parked;
CREATE INDEX asyncable_retries_parked ON asyncable_retries (model, row_id) WHERE kind = 'permanent';
DROP TABLE asyncable_notes;
