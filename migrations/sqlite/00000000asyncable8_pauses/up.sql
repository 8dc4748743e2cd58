-- Models that a person has paused, in all processes. Creates an empty table: locks nothing of the host's.

-- One row per paused model: who paused it, since when and why.
CREATE TABLE asyncable_pauses (
  model  TEXT NOT NULL PRIMARY KEY,
  since  TIMESTAMP NOT NULL,
  who    TEXT NOT NULL,
  reason TEXT NOT NULL
) WITHOUT ROWID;
