//! No marker: this one must compile.

mod host;
use host::*;

#[derive(Clone)]
struct EstablishClaim;

impl Processor for EstablishClaim {
    type Model = Review;

    async fn process(&self, review: &Review, attempt: &Attempt) -> Outcome {
        let id = review.id;
        attempt.when_done(move |conn: &mut SqliteConnection| {
            diesel::update(reviews::table.find(id)).set(reviews::file_number.eq("")).execute(conn).map(drop)
        });
        let found = attempt.step("look").run(async |key| Ok(key.len() as i64)).await?;
        attempt
            .step("establish")
            .of(found)
            .find(async |_| Ok(None))
            .run(async |_| Ok(review.file_number.parse::<i64>()?))
            .await?;
        review.file_number.parse::<i64>()?;
        std::fs::remove_file(&*attempt.idempotency_key())?;
        Err("busy").map_err(Failure::transient)
    }
}

async fn host() -> Result<(), Box<dyn std::error::Error>> {
    let handle = Supervisor::<SqliteConnection>::new("app.db").processor(EstablishClaim).start()?;
    handle.send(Submit::<Review>::new(1)).await?;
    Ok(())
}

fn main() {
    drop(host());
}
