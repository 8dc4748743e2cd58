-- Who holds which batch of rows, and which rows have failed and what is to come of it.
-- Both are small: one row per claimed batch that has not ended, one row per row that failed and is
-- not done. Instants are UTC text as Diesel writes it, so they order and compare as text.
-- Creates two empty tables: locks nothing of the host's.

-- One row per claimed batch. `expires_at` NULL: the batch has ended; the row stays until a later
-- claim, so that no token is used twice.
CREATE TABLE asyncable_claims (
  model      TEXT NOT NULL,
  claimed_at TIMESTAMP NOT NULL,
  host       TEXT NOT NULL,
  expires_at TIMESTAMP,
  PRIMARY KEY (model, claimed_at)
) WITHOUT ROWID;

-- Serves the rescue: the lapsed batches of a model, oldest first.
CREATE INDEX asyncable_claims_lapsed ON asyncable_claims (model, expires_at) WHERE expires_at IS NOT NULL;

-- One row per row that has failed and is not done. It speaks of one attempt of one submission:
-- once the row's attempted_at or last_submitted_at has moved on, it says nothing.
CREATE TABLE asyncable_retries (
  model             TEXT NOT NULL,
  row_id            TEXT NOT NULL,
  attempted_at      TIMESTAMP NOT NULL,
  last_submitted_at TIMESTAMP NOT NULL,
  submitted_at      TIMESTAMP,
  due_at            TIMESTAMP,
  kind              TEXT NOT NULL,
  failures          INTEGER NOT NULL,
  code              TEXT NOT NULL,
  place             TEXT,
  first_failed_at   TIMESTAMP NOT NULL,
  last_failed_at    TIMESTAMP NOT NULL,
  PRIMARY KEY (model, row_id)
) WITHOUT ROWID;

-- Serves the claim of due retries: the earliest due first.
CREATE INDEX asyncable_retries_due ON asyncable_retries (model, due_at) WHERE due_at IS NOT NULL;

-- Serves the list and count of rows that wait for a person.
CREATE INDEX asyncable_retries_parked ON asyncable_retries (model, row_id) WHERE kind = 'permanent';
