//! A read that borrows the row: it runs on another thread, so what it needs is copied first.

mod host;
use host::*;

struct EstablishClaim;

impl Processor for EstablishClaim {
    type Model = Review;

    async fn process(&self, review: &Review, attempt: &Attempt) -> Outcome {
        //~ `review` escapes the method body here
        //~ argument requires that `'1` must outlive `'static`
        let veterans = attempt.read(move |conn: &mut SqliteConnection| {
            reviews::table.find(review.id).select(Veteran::as_select()).load(conn)
        });
        drop(veterans.await?);
        Ok(())
    }
}

fn main() {}
