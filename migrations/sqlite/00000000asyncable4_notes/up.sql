-- Notes that people write on rows: never edited or deleted. Locks nothing of the host's.
CREATE TABLE asyncable_notes (
  id     INTEGER PRIMARY KEY,
  model  TEXT NOT NULL,
  row_id TEXT NOT NULL,
  at     TIMESTAMP NOT NULL,
  who    TEXT NOT NULL,
  note   TEXT NOT NULL
);

CREATE INDEX asyncable_notes_row ON asyncable_notes (model, row_id, at);

-- Serves the list and count of rows that wait for a person, the oldest submission first.
DROP INDEX asyncable_retries_parked;
CREATE INDEX asyncable_retries_parked ON asyncable_retries (model, last_submitted_at, row_id) WHERE kind = 'permanent';

-- What was done in each ten minutes, by model: for the page's drawings. Written once a sweep.
CREATE TABLE asyncable_buckets (
  model    TEXT NOT NULL,
  at       TIMESTAMP NOT NULL,
  finished BIGINT NOT NULL,
  failed   BIGINT NOT NULL,
  waiting  BIGINT NOT NULL,
  PRIMARY KEY (model, at)
) WITHOUT ROWID;
