//! Workers: one actor a model and arbiter, which owns a copy of the host's processor and runs attempts.
//!
//! The host's code runs here, under `catch_unwind` and its time-out. Whatever becomes of it, an answer is
//! given: [`Owed`] answers by being dropped where a thread dies.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, Recipient};
use futures_util::{
    FutureExt,
    future::{AbortRegistration, Abortable, LocalBoxFuture},
};

use super::pump::Ended;
use crate::{
    Asyncable, Attempt, Failure, Processor,
    step::{Begin, Reached, Steps},
    store::{
        Moment, StoreConnection,
        actor::Store,
        claim::Hold,
        step::{StepAnswer, StepWork},
    },
};

/// Owns a copy of the host's processor, which need not be `Send`, on one arbiter.
pub(crate) struct Worker<P: Processor> {
    make: Make<P>,
    processor: Option<Rc<P>>,
    reads: Rc<dyn Any>,
}

/// Makes the host's processor, on the arbiter it stays on.
pub(crate) type Make<P> = Arc<dyn Fn() -> P + Send + Sync>;

impl<P: Processor> Worker<P> {
    /// Made for the first row, and for the next one if the host's code panicked.
    fn processor(&mut self) -> Option<Rc<P>> {
        if self.processor.is_none() {
            let make = self.make.clone();
            self.processor = catch_unwind(AssertUnwindSafe(|| Rc::new(make()))).ok();
        }
        self.processor.clone()
    }
}

impl<P: Processor> Actor for Worker<P> {
    type Context = Context<Self>;
}

/// A row to work on.
pub(crate) struct Perform<M: Asyncable> {
    pub(crate) hold: Hold<M::Id>,
    pub(crate) row: M,
    pub(crate) timeout: Duration,
    pub(crate) owed: Owed<M>,
    pub(crate) steps: Recipient<StepAsked<M>>,
    pub(crate) abort: AbortRegistration,
}

impl<M: Asyncable> Message for Perform<M> {
    type Result = ();
}

/// What became of it.
pub(crate) struct Finished<M: Asyncable> {
    pub(crate) id: M::Id,
    pub(crate) token: Moment,
    pub(crate) ended: Ended,
    pub(crate) reached: Reached,
    pub(crate) took: Duration,
}

impl<M: Asyncable> Message for Finished<M> {
    type Result = ();
}

/// The answer that a worker owes for a row: given also where the worker or its thread dies, by being
/// dropped.
pub(crate) struct Owed<M: Asyncable> {
    id: M::Id,
    token: Moment,
    since: Instant,
    began: Option<Instant>,
    reply: Option<Recipient<Finished<M>>>,
}

impl<M: Asyncable> Owed<M> {
    pub(crate) fn new(hold: &Hold<M::Id>, reply: Recipient<Finished<M>>) -> Self {
        let (id, token) = (hold.id.clone(), hold.token);
        Owed { id, token, since: Instant::now(), began: None, reply: Some(reply) }
    }

    fn answer(&mut self, ended: Ended, reached: Reached) {
        let Some(reply) = self.reply.take() else { return };
        let took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        // Ignores the mailbox's limit: a result is never dropped.
        let (id, token) = (self.id.clone(), self.token);
        reply.do_send(Finished { id, token, ended, reached, took });
    }
}

impl<M: Asyncable> Drop for Owed<M> {
    fn drop(&mut self) {
        let ended = match self.began {
            None => Ended::NotBegun,
            Some(_) => {
                let failure = Failure::unknown("the attempt's thread ended before it did");
                Ended::Failed(failure.with_code("worker").own())
            }
        };
        self.answer(ended, Reached::default());
    }
}

impl<P: Processor> Handler<Perform<P::Model>> for Worker<P> {
    type Result = ();

    fn handle(&mut self, perform: Perform<P::Model>, _: &mut Context<Self>) {
        let Perform { hold, row, timeout, mut owed, abort, steps } = perform;
        if owed.since.elapsed() > timeout {
            return; // the host's code has blocked this thread for so long that the row is stale
        }
        owed.began = Some(Instant::now());
        let Some(processor) = self.processor() else {
            return owed.answer(Ended::Failed(Failure::panicked()), Reached::default());
        };
        let generation = hold.generation();
        let number = hold.failures.saturating_add(1);
        let (name, reads) = (P::Model::COLUMNS.name, self.reads.clone());
        let attempt = async move {
            let id = hold.id.to_string();
            let attempt = Attempt::new(name, &id, generation, number, timeout, reads, |key| {
                let key = key.to_string();
                Rc::new(StoredSteps { to: steps, hold, key })
            });
            let process = async { processor.process(&row, &attempt).await };
            // A panic ends this attempt, not the worker.
            let process = AssertUnwindSafe(actix_rt::time::timeout(timeout, process));
            let outcome = process.catch_unwind().await;
            let (writes, reached) = attempt.into_parts();
            let ended = match outcome {
                Ok(Ok(Ok(()))) => Ended::Done(writes),
                Ok(Ok(Err(failure))) => Ended::Failed(failure),
                Ok(Err(_)) => {
                    let late = Failure::unknown("the attempt took longer than its time-out");
                    Ended::Failed(late.with_code("timeout"))
                }
                Err(_) => Ended::Failed(Failure::panicked()),
            };
            owed.answer(ended, reached);
        };
        actix_rt::spawn(Abortable::new(attempt, abort).map(drop));
    }
}

/// What an attempt records of its steps, on its way to its processor.
pub(crate) struct StepAsked<M: Asyncable>(pub(crate) StepWork<M::Id>);

impl<M: Asyncable> Message for StepAsked<M> {
    type Result = Option<StepAnswer>;
}

/// The steps of an attempt that runs under a supervisor.
struct StoredSteps<M: Asyncable> {
    to: Recipient<StepAsked<M>>,
    hold: Hold<M::Id>,
    key: String,
}

impl<M: Asyncable> StoredSteps<M> {
    fn ask(&self, work: StepWork<M::Id>) -> LocalBoxFuture<'static, Result<Begin, Failure>> {
        let asked = self.to.send(StepAsked(work));
        Box::pin(async move {
            match asked.await {
                Ok(Some(StepAnswer::Begun(begun))) => Ok(Begin::Go(begun)),
                Ok(Some(StepAnswer::Early(until))) => Ok(Begin::Early(until)),
                Ok(Some(StepAnswer::Refused(why))) => {
                    Err(Failure::transient(why).with_code("step_refused").own())
                }
                _ => Err(Failure::lost()),
            }
        })
    }
}

impl<M: Asyncable> Steps for StoredSteps<M> {
    fn begin(&self, name: &str) -> LocalBoxFuture<'static, Result<Begin, Failure>> {
        let (hold, name) = (self.hold.clone(), name.to_owned());
        let key = format!("{}/{name}", self.key);
        self.ask(StepWork::Begin { hold, name, key })
    }

    fn again(&self, key: &str) -> LocalBoxFuture<'static, Result<Begin, Failure>> {
        self.ask(StepWork::Again { hold: self.hold.clone(), key: key.to_owned() })
    }

    fn result(&self, key: &str, json: String) {
        self.to.do_send(StepAsked(StepWork::Result { key: key.to_owned(), json }));
    }

    fn answered(&self, key: &str) {
        self.to.do_send(StepAsked(StepWork::Answered { key: key.to_owned() }));
    }
}

/// The threads that attempts run on; one that has ended is replaced.
#[derive(Clone)]
pub(crate) struct Arbiters(Rc<RefCell<Vec<Arbiter>>>);

impl Arbiters {
    pub(crate) fn start(count: usize) -> Self {
        Arbiters(Rc::new(RefCell::new((0..count).map(|_| Arbiter::new()).collect())))
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// A handle to a living one.
    fn get(&self, index: usize) -> actix::ArbiterHandle {
        let mut arbiters = self.0.borrow_mut();
        if !arbiters[index].spawn(std::future::ready(())) {
            log::error!("a thread that attempts run on had ended and is replaced");
            arbiters[index] = Arbiter::new();
        }
        arbiters[index].handle()
    }
}

/// Starts a worker on an arbiter.
type Start<P> = Box<dyn Fn(&actix::ArbiterHandle) -> Addr<Worker<P>>>;

/// The workers of one model, one an arbiter.
pub(crate) struct Workers<P: Processor> {
    addrs: Vec<Addr<Worker<P>>>,
    next: usize,
    arbiters: Arbiters,
    start: Start<P>,
}

impl<P: Processor> Workers<P> {
    pub(crate) fn start<C: StoreConnection>(
        arbiters: Arbiters,
        reads: Addr<Store<C>>,
        make: Make<P>,
    ) -> Self {
        let start = move |arbiter: &actix::ArbiterHandle| {
            let (make, reads) = (make.clone(), reads.clone());
            Worker::start_in_arbiter(arbiter, move |_| Worker {
                make,
                processor: None,
                reads: Rc::new(reads),
            })
        };
        let addrs = (0..arbiters.count()).map(|index| start(&arbiters.get(index))).collect();
        Workers { addrs, next: 0, arbiters, start: Box::new(start) }
    }

    /// Gives a row to the next of them.
    pub(crate) fn perform(&mut self, perform: Perform<P::Model>) {
        self.next = (self.next + 1) % self.addrs.len();
        let worker = &mut self.addrs[self.next];
        if !worker.connected() {
            *worker = (self.start)(&self.arbiters.get(self.next));
        }
        worker.do_send(perform);
    }
}
