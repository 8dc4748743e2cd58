//! Something is sent that a supervisor does not answer, or not with a `Result`.

mod host;
use host::*;

struct Hurry;

async fn ask(handle: Handle) {
    //~ `Hurry` is no message that a supervisor answers with a `Result`
    //~ send `Submit::<Model>::new(id)`, or another of asyncable's messages
    drop(handle.send(Hurry).await);
}

async fn sweep(handle: Handle) {
    //~ `Sweep` is no message that a supervisor answers with a `Result`
    //~ messages that cannot fail, such as `Sweep`, go to `handle.addr()`
    drop(handle.send(asyncable::Sweep).await);
}

fn main() {}
