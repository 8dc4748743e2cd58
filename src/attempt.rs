//! One run of the host's code on one row.

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    ops::Deref,
    panic::Location,
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix::Addr;
use diesel::{QueryResult, result::Error};

use crate::{
    Failure, Outcome, StoreConnection,
    store::{
        actor::{Ask, Store},
        settle::WhenDone,
    },
};

/// The same text on every attempt of one submission, and new for a new submission:
/// `model/id/generation`, where the generation is `submitted_at` in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl Deref for IdempotencyKey {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of [`Processor::process`](crate::Processor::process) on one row.
pub struct Attempt {
    key: IdempotencyKey,
    number: u32,
    deadline: Instant,
    /// An `Addr<Store<C>>`, whose `C` the host names again when it reads.
    reads: Rc<dyn Any>,
    when_done: RefCell<Vec<WhenDone>>,
}

impl Attempt {
    pub(crate) fn new(
        model: &str,
        id: &str,
        generation: i64,
        number: u32,
        timeout: Duration,
        reads: Rc<dyn Any>,
    ) -> Self {
        let key = IdempotencyKey(format!("{model}/{id}/{generation}").into());
        let deadline = Instant::now() + timeout;
        Attempt { key, number, deadline, reads, when_done: RefCell::default() }
    }

    /// Which attempt of this submission this is, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Wall time left until the attempt's time-out.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// For services that honour one: the same call under the same key is done once.
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.key.clone()
    }

    /// Asks the database: for related rows, say. On connections that only read, shared by all attempts
    /// of the supervisor, so that a slow query delays no claim and no settling. What it writes is not
    /// part of anything; see [`when_done`](Attempt::when_done) for that.
    ///
    /// ```no_run
    /// # include!("../tests/support/doc.rs");
    /// # async fn process(review: &Review, attempt: &asyncable::Attempt) -> asyncable::Outcome {
    /// let id = review.id; // the closure runs on another thread
    /// let file_number: String = attempt
    ///     .read(move |conn: &mut SqliteConnection| {
    ///         reviews::table.find(id).select(reviews::file_number).first(conn)
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// What the query said, or that the database is away: transient, with the place of this call.
    #[track_caller]
    pub fn read<C, T>(
        &self,
        ask: impl FnOnce(&mut C) -> QueryResult<T> + Send + 'static,
    ) -> impl Future<Output = Outcome<T>>
    where
        C: StoreConnection,
        T: Send + 'static,
    {
        let place = Location::caller();
        let mut ask = Some(ask);
        let asked = self.reads.downcast_ref::<Addr<Store<C>>>().map(|reads| {
            reads.send(Ask(Box::new(move |conn: &mut C, _| {
                // The store runs what panicked again.
                let panicked = || Error::QueryBuilderError("the host's code panicked".into());
                match ask.take().ok_or_else(panicked)?(conn) {
                    // Not the connection's fault: it is kept.
                    Err(Error::NotFound) => Ok(Err(Error::NotFound)),
                    answer => answer.map(Ok),
                }
            })))
        });
        async move {
            let Some(asked) = asked else {
                let wrong = "read names another connection type than the supervisor's";
                return Err(Failure::permanent(wrong).with_code("read").at(place));
            };
            match asked.await {
                Ok(Ok(answer)) => answer.map_err(|error| Failure::from(error).at(place)),
                Ok(Err(error)) => Err(Failure::transient(error).with_code("read").at(place)),
                Err(error) => Err(Failure::from(error).at(place)),
            }
        }
    }

    /// Writes in the transaction that records the row as processed, or not at all. If it fails, the
    /// attempt has failed. It must bear being run again: a transaction whose commit failed is repeated.
    pub fn when_done<C: 'static>(
        &self,
        write: impl Fn(&mut C) -> QueryResult<()> + Send + 'static,
    ) {
        let write = move |conn: &mut dyn Any| match conn.downcast_mut::<C>() {
            Some(conn) => write(conn),
            None => Err(diesel::result::Error::QueryBuilderError(
                "when_done names another connection type than the supervisor's".into(),
            )),
        };
        self.when_done.borrow_mut().push(Mutex::new(Box::new(write)));
    }

    pub(crate) fn into_writes(self) -> Vec<WhenDone> {
        self.when_done.into_inner()
    }
}
