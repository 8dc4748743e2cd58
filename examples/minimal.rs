//! The smallest whole host: `cargo run --example minimal`.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{error::Error, time::Duration};

use asyncable::{Asyncable, Attempt, Columns, Outcome, Processor, Submit, Supervisor, columns};
use diesel::{connection::SimpleConnection, prelude::*};

mod schema {
    diesel::table! {
        letters (id) {
            id -> BigInt,
            text -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::letters;

#[derive(Queryable, Selectable, Identifiable)]
struct Letter {
    id: i64,
    text: String,
}

impl Asyncable for Letter {
    type Id = i64;
    const COLUMNS: Columns<letters::table> = columns!(letters);
}

#[derive(Clone)]
struct Send(tokio::sync::mpsc::UnboundedSender<i64>);

impl Processor for Send {
    type Model = Letter;

    async fn process(&self, letter: &Letter, attempt: &Attempt) -> Outcome {
        println!(
            "attempt {} under {}: {}",
            attempt.number(),
            attempt.idempotency_key(),
            letter.text
        );
        Ok(self.0.send(letter.id)?)
    }
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = tempfile::NamedTempFile::new()?;
    let url = file.path().to_string_lossy().into_owned();
    let conn = &mut SqliteConnection::establish(&url)?;
    asyncable::migrate(conn)?;
    conn.batch_execute(
        "CREATE TABLE letters (id INTEGER PRIMARY KEY, text TEXT NOT NULL, submitted_at TIMESTAMP,
         attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT);
         INSERT INTO letters (id, text) VALUES (1, 'hello');",
    )?;
    let (sender, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let supervisor = Supervisor::<SqliteConnection>::new(url).processor(Send(sender)).start()?;
    supervisor.send(Submit::<Letter>::new(1)).await?;
    sent.recv().await;
    supervisor.shutdown(Duration::from_secs(5)).await;
    println!(
        "{}",
        letters::table.find(1).select(Letter::status()).first::<asyncable::Status>(conn)?
    );
    Ok(())
}
