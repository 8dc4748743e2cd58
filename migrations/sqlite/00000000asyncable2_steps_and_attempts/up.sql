-- What attempts have done: the steps of rows that are not done, and the history of failures.
-- Creates two empty tables and an index on asyncable_retries: locks nothing of the host's.

-- One row per step of one submission. `generation` is submitted_at in microseconds since 1970,
-- `attempted_at` the token of the attempt that started it last, `tries` how many have.
-- `result` NULL: started, and not known to have ended; `find_after` says from when the service can be
-- asked. The key stays as it was at the first start, whatever becomes of the rest.
CREATE TABLE asyncable_steps (
  model        TEXT NOT NULL,
  row_id       TEXT NOT NULL,
  generation   BIGINT NOT NULL,
  name         TEXT NOT NULL,
  key          TEXT NOT NULL UNIQUE,
  attempted_at TIMESTAMP NOT NULL,
  tries        INTEGER NOT NULL,
  find_after   TIMESTAMP NOT NULL,
  result       TEXT,
  PRIMARY KEY (model, row_id, generation, name)
) WITHOUT ROWID;

-- One row per attempt that failed, and per success that ended failures. Appended to, and pruned.
CREATE TABLE asyncable_attempts (
  model        TEXT NOT NULL,
  row_id       TEXT NOT NULL,
  attempted_at TIMESTAMP NOT NULL,
  submitted_at TIMESTAMP,
  number       INTEGER NOT NULL,
  host         TEXT NOT NULL,
  started_at   TIMESTAMP NOT NULL,
  ended_at     TIMESTAMP NOT NULL,
  outcome      TEXT NOT NULL,
  kind         TEXT,
  code         TEXT,
  place        TEXT,
  step         TEXT,
  error        TEXT,
  PRIMARY KEY (model, row_id, attempted_at)
);

-- Serve pruning, of the row and of its text: the oldest first.
CREATE INDEX asyncable_attempts_ended ON asyncable_attempts (ended_at);
CREATE INDEX asyncable_attempts_text ON asyncable_attempts (ended_at) WHERE error IS NOT NULL;

-- How many attempts on a row, in a row, ended their process or panicked.
ALTER TABLE asyncable_retries ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;

-- Serves the list and count of expired rows, and pruning.
CREATE INDEX asyncable_retries_submitted ON asyncable_retries (model, last_submitted_at);
