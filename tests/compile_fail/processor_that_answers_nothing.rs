//! `process` does not answer with an outcome.

mod host;
use host::*;

struct EstablishClaim;

impl Processor for EstablishClaim {
    type Model = Review;

    //~ expected `Result<(), Failure>`, found `()`
    async fn process(&self, _: &Review, _: &Attempt) {}
}

fn main() {}
