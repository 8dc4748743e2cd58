//! The tests' own database, on each backend.

mod support;

use diesel::{connection::SimpleConnection, prelude::*};
use schema::notes;
use support::*;

mod schema {
    diesel::table! {
        notes (id) {
            id -> BigInt,
            text -> Text,
        }
    }
}

on_each_backend! {
    #[test]
    fn each_test_has_a_database_of_its_own_and_keys_count_from_one() {
        let one = Db::migrated("CREATE TABLE notes (id {key}, text TEXT NOT NULL)");
        let other = Db::migrated("CREATE TABLE notes (id {key}, text TEXT NOT NULL)");
        let insert = "INSERT INTO notes (text) VALUES ('a'), ('b')";
        one.conn().batch_execute(insert).expect("insert");

        let ids = |conn: &mut Conn| {
            notes::table.select(notes::id).order(notes::id).load::<i64>(conn).expect("load")
        };

        assert_eq!((ids(&mut one.conn()), ids(&mut other.conn())), (vec![1, 2], vec![]));
    }
}
