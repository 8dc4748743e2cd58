//! A model with a field that its column does not load as.

mod host;
use host::*;

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = reviews)]
struct Appeal {
    id: i64,
    file_number: i32,
}

impl Asyncable for Appeal {
    type Id = i64;
    const COLUMNS: Columns<reviews::table> = columns!(reviews);
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
    //~ `Appeal` cannot be kept in this database
    //~ its fields must have the types that their columns load as
    //~ check_for_backend(diesel::sqlite::Sqlite)
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(Hear));
}

fn submit(conn: &mut SqliteConnection) {
    //~ `Appeal` cannot be kept in this database
    //~ its fields must have the types that their columns load as
    //~ check_for_backend(diesel::sqlite::Sqlite)
    drop(Appeal::submit(conn, 1));
}

fn main() {}
