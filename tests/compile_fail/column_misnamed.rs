//! `columns!` names a column that the table does not have.

mod host;
use host::*;

diesel::table! {
    appeals (id) {
        id -> BigInt,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        finished_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i64;
    //~ cannot find value `processed_at` in module `appeals`
    const COLUMNS: Columns<appeals::table> = columns!(appeals);
}

const RENAMED: Columns<appeals::table> = columns!(
    appeals,
    submitted_at,
    attempted_at,
    //~ cannot find value `finnished_at` in module `appeals`
    //~ a unit struct with a similar name exists
    finnished_at,
    error,
    //~ cannot find value `canceled_at` in module `appeals`
    canceled_at = canceled_at
);

fn main() {}
