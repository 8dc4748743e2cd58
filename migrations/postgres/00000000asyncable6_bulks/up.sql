-- What people do to many rows at once, in batches, by whichever host comes to it. Locks nothing of the host's.
CREATE TABLE asyncable_bulks (
  id           TEXT PRIMARY KEY,
  model        TEXT NOT NULL,
  action       TEXT NOT NULL,
  who          TEXT NOT NULL,
  reason       TEXT NOT NULL,
  -- Which rows: as they were seen, and how many were promised.
  selection    TEXT NOT NULL,
  seen_at      TIMESTAMP NOT NULL,
  promised     BIGINT NOT NULL,
  -- Rows a minute; 0 for no limit.
  pace         BIGINT NOT NULL,
  -- How far it has come.
  cursor       TEXT NOT NULL,
  done         BIGINT NOT NULL,
  left_alone   BIGINT NOT NULL,
  left_rows    TEXT NOT NULL,
  began_at     TIMESTAMP NOT NULL,
  next_at      TIMESTAMP NOT NULL,
  ended_at     TIMESTAMP,
  stopped_by   TEXT
);

-- Serves the search for one that goes on.
CREATE INDEX asyncable_bulks_open ON asyncable_bulks (model, next_at) WHERE ended_at IS NULL;
