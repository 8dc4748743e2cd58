-- Outside services and their outages, who is alive, and what people did.
-- Creates empty tables, a column and an index: locks nothing of the host's.

-- One row per service that was ever down or held. `state` is closed or open (as of a breaker: closed
-- lets calls through). Open: `probe_model` and `probe_token` name the claim that asks the service now,
-- `probes` counts those that were not answered. `held_since` NULL: nobody holds it down.
CREATE TABLE asyncable_services (
  name          TEXT NOT NULL PRIMARY KEY,
  state         TEXT NOT NULL,
  since         TIMESTAMP,
  closed_at     TIMESTAMP,
  next_probe_at TIMESTAMP,
  probe_model   TEXT,
  probe_token   TIMESTAMP,
  probes        INTEGER NOT NULL DEFAULT 0,
  code          TEXT,
  held_since    TIMESTAMP,
  held_until    TIMESTAMP,
  held_by       TEXT,
  held_reason   TEXT
) WITHOUT ROWID;

-- One row per outage, and per time that somebody held a service down. `until` NULL: it lasts.
CREATE TABLE asyncable_outages (
  service TEXT NOT NULL,
  since   TIMESTAMP NOT NULL,
  until   TIMESTAMP,
  probes  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (service, since)
) WITHOUT ROWID;

-- One row per host process that has been seen, and per model it works on, with the services it calls,
-- separated by commas.
CREATE TABLE asyncable_hosts (
  host     TEXT NOT NULL,
  model    TEXT NOT NULL,
  services TEXT NOT NULL,
  paused   INTEGER NOT NULL DEFAULT 0,
  seen_at  TIMESTAMP NOT NULL,
  PRIMARY KEY (host, model)
) WITHOUT ROWID;

-- What people did, and what the library did on its own account: never edited or deleted.
CREATE TABLE asyncable_actions (
  id      INTEGER PRIMARY KEY,
  at      TIMESTAMP NOT NULL,
  who     TEXT NOT NULL,
  action  TEXT NOT NULL,
  target  TEXT NOT NULL,
  row_id  TEXT,
  count   INTEGER,
  reason  TEXT
);

-- Serve what happened lately, and what was done to a row or a service.
CREATE INDEX asyncable_actions_at ON asyncable_actions (at);
CREATE INDEX asyncable_actions_target ON asyncable_actions (target, row_id, at);

-- Whether somebody was told that the row's window is nearly over.
ALTER TABLE asyncable_retries ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
CREATE INDEX asyncable_retries_unwarned ON asyncable_retries (model, last_submitted_at) WHERE warned = 0;
