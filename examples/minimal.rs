//! The smallest whole host: `cargo run --example minimal`, then `curl -d 'Dear Ada' 127.0.0.1:8080/letters`.
#![expect(missing_docs, clippy::print_stdout, reason = "an example is read, and prints")]
use actix_web::{App, HttpServer, error::ErrorServiceUnavailable, post, web::Data};
use asyncable::{Asyncable, Attempt, Columns, Handle, Outcome, Processor, Supervisor, columns};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::Mutex;
type Conn = Data<Mutex<SqliteConnection>>;

diesel::table! { letters (id) {
    id -> BigInt, text -> Text, submitted_at -> Nullable<Timestamp>, attempted_at -> Nullable<Timestamp>,
    processed_at -> Nullable<Timestamp>, error -> Nullable<Text>,
} }
const SETUP: &str = "PRAGMA busy_timeout = 5000; CREATE TABLE IF NOT EXISTS letters (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL, submitted_at TIMESTAMP, attempted_at TIMESTAMP,
    processed_at TIMESTAMP, error TEXT); CREATE INDEX IF NOT EXISTS letters_work
    ON letters (attempted_at, submitted_at) WHERE processed_at IS NULL";
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
struct Post;
impl Processor for Post {
    type Model = Letter;
    async fn process(&self, letter: &Letter, attempt: &Attempt) -> Outcome {
        println!("letter {}, attempt {}: {}", letter.id, attempt.number(), letter.text);
        Ok(()) // an error, by `?` from your client, is tried again every 3 hours for 4 days
    }
}

#[post("/letters")]
async fn write(text: String, conn: Conn, asyncable: Data<Handle>) -> actix_web::Result<String> {
    let written = conn.lock().await.transaction(|conn| {
        let letter = diesel::insert_into(letters::table).values(letters::text.eq(text));
        let id: i64 = letter.returning(letters::id).get_result(conn)?;
        Letter::submit(conn, id)
    });
    written.map_err(ErrorServiceUnavailable)?;
    asyncable.wake::<Letter>();
    Ok("written, and will be sent\n".to_owned())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut conn = SqliteConnection::establish("letters.db")?;
    conn.batch_execute(SETUP)?;
    asyncable::migrate(&mut conn)?;
    let asyncable = Supervisor::<SqliteConnection>::new("letters.db").processor(Post).start()?;
    let (handle, conn) = (Data::new(asyncable.clone()), Data::new(Mutex::new(conn)));
    let app = move || App::new().app_data(handle.clone()).app_data(conn.clone()).service(write);
    HttpServer::new(app).bind("127.0.0.1:8080")?.run().await?;
    asyncable.shutdown(std::time::Duration::from_secs(30)).await; // Ctrl-C has ended the web server
    Ok(())
}
