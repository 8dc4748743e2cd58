//! The host on SQLite.

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub type Conn = diesel::SqliteConnection;

/// For each connection: wait while another one writes.
const SETUP: &str = "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000;";
const MIGRATIONS: EmbeddedMigrations = embed_migrations!("examples/intake/migrations/sqlite");

#[path = "host/mod.rs"]
mod host;

pub use host::run;
