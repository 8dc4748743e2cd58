//! What is right in a host of which one thing is wrong.

pub use asyncable::{
    Asyncable, Attempt, Columns, Failure, Handle, Outcome, Processor, Submit, Supervisor, columns,
};
pub use diesel::prelude::*;

diesel::table! {
    reviews (id) {
        id -> BigInt,
        file_number -> Text,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable, Identifiable)]
pub struct Review {
    pub id: i64,
    pub file_number: String,
}

impl Asyncable for Review {
    type Id = i64;
    const COLUMNS: Columns<reviews::table> = columns!(reviews);
}

/// A model with no work of its own.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = reviews)]
pub struct Veteran {
    pub id: i64,
}
