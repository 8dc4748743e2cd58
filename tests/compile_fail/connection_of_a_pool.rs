//! A supervisor on a connection that it cannot open itself.

mod host;
use host::*;
use diesel::r2d2::{ConnectionManager, PooledConnection};

fn supervise() {
    //~ a supervisor cannot own a `PooledConnection<ConnectionManager<diesel::SqliteConnection>>`
    //~ a supervisor opens its connections itself
    drop(Supervisor::<PooledConnection<ConnectionManager<SqliteConnection>>>::new("app.db"));
}

fn main() {}
