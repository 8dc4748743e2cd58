//! `COLUMNS` is of a table that is not the model's.

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
    type Id = i64;
    //~ expected `appeals::table`, found `host::reviews::table`
    const COLUMNS: Columns<appeals::table> = columns!(reviews);
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = appeals)]
struct Copied {
    id: i64,
}

impl Asyncable for Copied {
    type Id = i64;
    //~ implemented const `COLUMNS` has an incompatible type for trait
    //~ expected `appeals::table`, found `host::reviews::table`
    const COLUMNS: Columns<reviews::table> = columns!(reviews);
}

fn main() {}
