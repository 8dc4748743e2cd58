//! The host on PostgreSQL: the same files, compiled with this connection.

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub type Conn = diesel::PgConnection;

const SETUP: &str = "SET lock_timeout = '5s'";
const MIGRATIONS: EmbeddedMigrations = embed_migrations!("examples/intake/migrations/postgres");

#[path = "host/mod.rs"]
mod host;

pub use host::run;
