//! What is supervised is no processor.

mod host;
use host::*;

#[derive(Clone)]
struct EstablishClaim;

fn supervise() {
    //~ `EstablishClaim` is not a processor
    //~ implement `Processor` for it: `type Model` and `async fn process`
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(EstablishClaim));
}

fn main() {}
