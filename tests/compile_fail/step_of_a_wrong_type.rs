//! A step's closure that hands on the client's own error, a look-up that answers no `Option`, and a result
//! that cannot be kept.

mod host;
use host::*;

struct Vbms;

struct Claim;

impl Vbms {
    async fn establish(&self, _: &str) -> Result<i64, std::io::Error> {
        Ok(1)
    }
}

struct EstablishClaim {
    vbms: Vbms,
}

impl Processor for EstablishClaim {
    type Model = Review;

    async fn process(&self, review: &Review, attempt: &Attempt) -> Outcome {
        let step = attempt.step("establish");
        //~ expected `Failure`, found `std::io::Error`
        step.run(async |key| self.vbms.establish(&key).await).await?;

        let step = attempt.step("look");
        //~ expected `Option<_>`, found `i64`
        step.find(async |key| Ok(self.vbms.establish(&key).await?)).run(async |_| Ok(2)).await?;

        let step = attempt.step("keep");
        //~ consider adding `#[derive(serde::Serialize)]` to your `Claim` type
        step.run(async |_| Ok(Claim)).await?;
        Ok(())
    }
}

fn main() {}
