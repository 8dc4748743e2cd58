-- The host's own tables. The columns of each table's work and its indexes are those that
-- `cargo run --example migration -- TABLE --column user=created_by` prints for a table that is there already.

CREATE TABLE higher_level_reviews (
  id INTEGER PRIMARY KEY,
  veteran_name TEXT NOT NULL,
  file_number TEXT NOT NULL,
  created_by TEXT NOT NULL,
  establishment_submitted_at TIMESTAMP,
  establishment_last_submitted_at TIMESTAMP,
  establishment_attempted_at TIMESTAMP,
  establishment_processed_at TIMESTAMP,
  establishment_canceled_at TIMESTAMP,
  establishment_error TEXT
);
CREATE INDEX higher_level_reviews_establishment_work ON higher_level_reviews (establishment_attempted_at, establishment_last_submitted_at)
  WHERE establishment_processed_at IS NULL AND establishment_canceled_at IS NULL;
CREATE INDEX higher_level_reviews_establishment_user ON higher_level_reviews (created_by, establishment_last_submitted_at);

CREATE TABLE supplemental_claims (
  id INTEGER PRIMARY KEY,
  veteran_name TEXT NOT NULL,
  file_number TEXT NOT NULL,
  created_by TEXT NOT NULL,
  establishment_submitted_at TIMESTAMP,
  establishment_last_submitted_at TIMESTAMP,
  establishment_attempted_at TIMESTAMP,
  establishment_processed_at TIMESTAMP,
  establishment_canceled_at TIMESTAMP,
  establishment_error TEXT
);
CREATE INDEX supplemental_claims_establishment_work ON supplemental_claims (establishment_attempted_at, establishment_last_submitted_at)
  WHERE establishment_processed_at IS NULL AND establishment_canceled_at IS NULL;
CREATE INDEX supplemental_claims_establishment_user ON supplemental_claims (created_by, establishment_last_submitted_at);

CREATE TABLE request_issues (
  id INTEGER PRIMARY KEY,
  claim TEXT NOT NULL,
  file_number TEXT NOT NULL,
  issue TEXT NOT NULL,
  created_by TEXT NOT NULL,
  decision_sync_submitted_at TIMESTAMP,
  decision_sync_last_submitted_at TIMESTAMP,
  decision_sync_attempted_at TIMESTAMP,
  decision_sync_processed_at TIMESTAMP,
  decision_sync_canceled_at TIMESTAMP,
  decision_sync_error TEXT
);
CREATE INDEX request_issues_decision_sync_work ON request_issues (decision_sync_attempted_at, decision_sync_last_submitted_at)
  WHERE decision_sync_processed_at IS NULL AND decision_sync_canceled_at IS NULL;
CREATE INDEX request_issues_decision_sync_user ON request_issues (created_by, decision_sync_last_submitted_at);
CREATE INDEX request_issues_claim ON request_issues (claim);

CREATE TABLE task_timers (
  id INTEGER PRIMARY KEY,
  claim TEXT NOT NULL,
  fired INTEGER NOT NULL DEFAULT 0,
  submitted_at TIMESTAMP,
  last_submitted_at TIMESTAMP,
  attempted_at TIMESTAMP,
  processed_at TIMESTAMP,
  error TEXT
);
CREATE INDEX task_timers_work ON task_timers (attempted_at, last_submitted_at)
  WHERE processed_at IS NULL;

-- How many claims of a file are filed: written with them, so that a killed import goes on where it was.
CREATE TABLE imports (
  source TEXT PRIMARY KEY,
  filed INTEGER NOT NULL
);
