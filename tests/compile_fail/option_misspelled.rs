//! An option of `columns!` that there is not.

mod host;
use host::*;

diesel::table! {
    appeals (id) {
        id -> BigInt,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        cancelled_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

//~ no method named `cancelled_at` found
//~ there is a method `canceled_at` with a similar name
const A: Columns<appeals::table> = columns!(appeals, cancelled_at = cancelled_at);

fn main() {}
