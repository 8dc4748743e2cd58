//! A processor that not every thread can have a copy of.

mod host;
use host::*;

struct NotClone;

impl Processor for NotClone {
    type Model = Review;

    async fn process(&self, _: &Review, _: &Attempt) -> Outcome {
        Ok(())
    }
}

#[derive(Clone)]
struct NotSend(std::rc::Rc<String>);

impl Processor for NotSend {
    type Model = Review;

    async fn process(&self, _: &Review, _: &Attempt) -> Outcome {
        Err(Failure::permanent(&self.0))
    }
}

fn supervise() {
    //~ `NotClone` cannot be copied to the threads that attempts run on
    //~ derive `Clone` on it, and hold nothing that is not `Send`
    //~ `.processor_with(|| ..)`
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(NotClone));
    //~ `NotSend` cannot be copied to the threads that attempts run on
    //~ derive `Clone` on it, and hold nothing that is not `Send`
    //~ `.processor_with(|| ..)`
    drop(Supervisor::<SqliteConnection>::new("app.db").processor(NotSend(Default::default())));
}

fn main() {}
