-- Models that a person has paused, and the tries of services that are down. Creates two empty tables, and an
-- index on a table of the library's own: locks nothing of the host's.

-- One row per paused model: who paused it, since when and why.
CREATE TABLE asyncable_pauses (
  model  TEXT NOT NULL PRIMARY KEY,
  since  TIMESTAMP NOT NULL,
  who    TEXT NOT NULL,
  reason TEXT NOT NULL
) WITHOUT ROWID;

-- One row per try of a service that was down and did not answer: the row that was taken for it, and what came
-- of it.
CREATE TABLE asyncable_probes (
  id      INTEGER PRIMARY KEY,
  service TEXT NOT NULL,
  at      TIMESTAMP NOT NULL,
  model   TEXT NOT NULL,
  row_id  TEXT NOT NULL,
  code    TEXT NOT NULL
);

-- Serve a service's last tries, and pruning.
CREATE INDEX asyncable_probes_service ON asyncable_probes (service, at);
CREATE INDEX asyncable_probes_at ON asyncable_probes (at);

-- Serves what failed in an hour.
CREATE INDEX asyncable_attempts_model ON asyncable_attempts (model, ended_at, row_id);
