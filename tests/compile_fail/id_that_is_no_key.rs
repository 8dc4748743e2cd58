//! `type Id` is nothing that a key may be.

mod host;
use host::*;

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = reviews)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    //~ `u64` cannot be an asyncable row's id
    //~ use `i32`, `i64`, `String`, or `uuid::Uuid` on PostgreSQL
    type Id = u64;
    const COLUMNS: Columns<reviews::table> = columns!(reviews);
}

fn main() {}
