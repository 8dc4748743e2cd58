//! `type Id` is not what the primary key loads as.

mod host;
use host::*;

diesel::table! {
    appeals (id) {
        id -> BigInt,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i32;
    const COLUMNS: Columns<appeals::table> = columns!(appeals);
}

#[derive(Clone)]
struct Hear;

impl Processor for Hear {
    type Model = Appeal;

    async fn process(&self, _: &Appeal, _: &Attempt) -> Outcome {
        Ok(())
    }
}

fn supervise() {
    //~ `type Id = i32` is not what the primary key of `Appeal` loads as
    //~ it must be `i32` for Integer, `i64` for BigInt
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(Hear));
}

fn submit(conn: &mut SqliteConnection) {
    //~ `type Id = i32` is not what the primary key of `Appeal` loads as
    //~ it must be `i32` for Integer, `i64` for BigInt
    drop(Appeal::submit(conn, 1));
}

fn main() {}
