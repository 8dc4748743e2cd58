//! A table whose primary key is two columns.

mod host;
use host::*;

diesel::table! {
    appeals (year, number) {
        year -> Integer,
        number -> Integer,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(primary_key(year, number))]
struct Appeal {
    year: i32,
    number: i32,
}

//~ `Appeal` is no model of a table whose primary key is one column
//~ a table whose primary key has several columns cannot carry work
impl Asyncable for Appeal {
    type Id = i32;
    const COLUMNS: Columns<appeals::table> = columns!(appeals);
}

fn main() {}
