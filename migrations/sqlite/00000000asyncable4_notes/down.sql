-- Loses the notes, and what the page draws.
DROP TABLE asyncable_buckets;
DROP INDEX asyncable_retries_parked;
CREATE INDEX asyncable_retries_parked ON asyncable_retries (model, row_id) WHERE kind = 'permanent';
DROP TABLE asyncable_notes;
