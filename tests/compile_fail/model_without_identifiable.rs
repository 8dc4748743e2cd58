//! A model that does not say which table it is of.

mod host;
use host::*;

#[derive(Queryable, Selectable)]
#[diesel(table_name = reviews)]
struct Appeal {
    id: i64,
    file_number: String,
}

//~ `Appeal` is no model of a table
//~ derive `Identifiable` on it, with `#[diesel(table_name = ..)]`
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
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(Hear));
}

fn submit(conn: &mut SqliteConnection) {
    drop(Appeal::submit(conn, 1));
}

fn main() {}
