//! A model that says nothing of its work.

mod host;
use host::*;

#[derive(Clone)]
struct Greet;

impl Processor for Greet {
    //~ Veteran` has no work to do: it is not `Asyncable`
    //~ implement `Asyncable` for it: `type Id` and `const COLUMNS`
    type Model = Veteran;

    async fn process(&self, _: &Veteran, _: &Attempt) -> Outcome {
        Ok(())
    }
}

async fn submit(handle: Handle) {
    //~ Veteran` has no work to do: it is not `Asyncable`
    //~ implement `Asyncable` for it: `type Id` and `const COLUMNS`
    drop(handle.send(Submit::<Veteran>::new(1)).await);
}

fn main() {}
