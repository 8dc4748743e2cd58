-- What the users of rows are told. Creates an empty table: locks nothing of the host's.

-- One row per message. `submitted_at` says of which submission of its row it speaks, `kind` what it says:
-- failing, done, canceled or note. `who` and `note`: who canceled the row and why, or wrote the note.
-- `read_at` NULL: unread.
CREATE TABLE asyncable_messages (
  id           INTEGER PRIMARY KEY,
  model        TEXT NOT NULL,
  row_id       TEXT NOT NULL,
  submitted_at TIMESTAMP NOT NULL,
  user_name    TEXT NOT NULL,
  kind         TEXT NOT NULL,
  at           TIMESTAMP NOT NULL,
  who          TEXT,
  note         TEXT,
  read_at      TIMESTAMP
);

-- Each once per row and submission, but for notes. Also serves what was said of a row.
CREATE UNIQUE INDEX asyncable_messages_once ON asyncable_messages (model, row_id, submitted_at, kind) WHERE kind <> 'note';

-- Serve a user's messages and unread ones, the newest first, and pruning.
CREATE INDEX asyncable_messages_user ON asyncable_messages (user_name, at, id);
CREATE INDEX asyncable_messages_unread ON asyncable_messages (user_name, at, id) WHERE read_at IS NULL;
CREATE INDEX asyncable_messages_at ON asyncable_messages (at);
