// The set-up of the doctests, which include this file in hidden lines: a host with one model, `Review`,
// in an SQLite database in memory.
#[allow(unused_imports)]
mod doc_support {
    pub use asyncable::{Asyncable, Columns, columns};
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

    #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
    pub struct Review {
        pub id: i64,
        pub file_number: String,
    }

    impl Asyncable for Review {
        type Id = i64;
        const COLUMNS: Columns<reviews::table> = columns!(reviews);
    }

    /// A database with the library's tables and three reviews, 1 to 3, none of them submitted.
    #[allow(dead_code)]
    pub fn doc_connection() -> Result<SqliteConnection, Box<dyn std::error::Error>> {
        use diesel::connection::SimpleConnection;
        let mut conn = SqliteConnection::establish(":memory:")?;
        asyncable::migrate(&mut conn)?;
        conn.batch_execute(
            "CREATE TABLE reviews (id INTEGER PRIMARY KEY, file_number TEXT NOT NULL, \
             submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
             INSERT INTO reviews (id, file_number) VALUES (1, '796104437'), (2, '796104438'), \
             (3, '796104439');",
        )?;
        Ok(conn)
    }
}
#[allow(unused_imports)]
use doc_support::*;
