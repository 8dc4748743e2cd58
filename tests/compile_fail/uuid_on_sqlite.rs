//! A UUID as a key on SQLite, which keeps none.

mod host;
use host::*;

diesel::table! {
    appeals (id) {
        id -> Binary,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: Vec<u8>,
}

impl Asyncable for Appeal {
    type Id = uuid::Uuid;
    const COLUMNS: Columns<appeals::table> = columns!(appeals);
}

fn submit(conn: &mut SqliteConnection) {
    //~ `type Id = Uuid` is not what the primary key of `Appeal` loads as
    //~ on PostgreSQL `uuid::Uuid` for Uuid
    drop(Appeal::submit(conn, uuid::Uuid::nil()));
}

fn main() {}
