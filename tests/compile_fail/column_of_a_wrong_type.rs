//! `columns!` names columns whose types do not do.

mod host;
use host::*;

diesel::table! {
    appeals (id) {
        id -> BigInt,
        number -> Integer,
        day -> Nullable<Date>,
        text -> Text,
        written -> Nullable<Text>,
        at -> Timestamp,
        submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

const A: Columns<appeals::table> =
    //~ the column `appeals::columns::number` cannot keep a row's last error
    //~ its type must be `Nullable<Text>`
    columns!(appeals, submitted_at, attempted_at, processed_at, number);

const B: Columns<appeals::table> =
    //~ the column `appeals::columns::text` cannot keep a row's last error
    columns!(appeals, submitted_at, attempted_at, processed_at, text);

const C: Columns<appeals::table> =
    //~ the column `appeals::columns::written` cannot keep an instant
    //~ its type must be `Nullable<Timestamp>`, or `Nullable<Timestamptz>`
    columns!(appeals, written, attempted_at, processed_at, error);

const D: Columns<appeals::table> =
    //~ the column `appeals::columns::at` cannot keep an instant
    columns!(appeals, submitted_at, at, processed_at, error);

const E: Columns<appeals::table> =
    //~ the column `appeals::columns::day` cannot keep an instant
    columns!(appeals, submitted_at, attempted_at, day, error);

const F: Columns<appeals::table> =
    //~ the column `appeals::columns::at` cannot keep an instant
    columns!(appeals, canceled_at = at);

const G: Columns<appeals::table> =
    //~ the column `appeals::columns::day` cannot name a user or a subject
    //~ its type must be Text, Integer, BigInt
    columns!(appeals, subject = day);

fn main() {}
