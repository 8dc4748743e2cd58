//! A model that does not say what it selects.

mod host;
use host::*;

#[derive(Queryable, Identifiable)]
#[diesel(table_name = reviews)]
struct Appeal {
    id: i64,
    file_number: String,
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
    //~ derive `Queryable`, `Selectable` and `Identifiable` on it
    //~ Selectable<diesel::sqlite::Sqlite>` is not implemented for `Appeal`
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(Hear));
}

fn submit(conn: &mut SqliteConnection) {
    //~ `Appeal` cannot be kept in this database
    //~ derive `Queryable`, `Selectable` and `Identifiable` on it
    //~ Selectable<diesel::sqlite::Sqlite>` is not implemented for `Appeal`
    drop(Appeal::submit(conn, 1));
}

fn main() {}
