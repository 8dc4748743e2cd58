//! One run of the host's code on one row: its number and key, its steps, and its ways to the database.
//!
//! Nothing here is stored by itself. What an attempt comes to counts only if it still holds its row when it
//! is settled (`docs/protocol.md`, Settle); [`Attempt::when_done`] is part of that, [`Attempt::read`] of
//! nothing.

use std::{
    any::Any,
    cell::RefCell,
    collections::HashSet,
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
    step::{Reached, Step, Steps},
    store::{
        Moment,
        actor::{Ask, Store},
        settle::WhenDone,
    },
};

/// The same text on every attempt of one submission, and new for a new submission:
/// `model/id/generation`, where the generation is `submitted_at` in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    pub(crate) fn of(key: &str) -> Self {
        IdempotencyKey(key.into())
    }
}

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
    steps: Rc<dyn Steps>,
    /// Steps of this attempt so far.
    named: RefCell<HashSet<String>>,
    reached: RefCell<Reached>,
}

impl Attempt {
    pub(crate) fn new(
        model: &str,
        id: &str,
        generation: i64,
        number: u32,
        timeout: Duration,
        reads: Rc<dyn Any>,
        steps: impl FnOnce(&IdempotencyKey) -> Rc<dyn Steps>,
    ) -> Self {
        let key = IdempotencyKey(format!("{model}/{id}/{generation}").into());
        Attempt {
            number,
            deadline: Instant::now() + timeout,
            reads,
            when_done: RefCell::default(),
            steps: steps(&key),
            named: RefCell::default(),
            reached: RefCell::default(),
            key,
        }
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

    /// A call to the outside that must not be doubled, under a name that is its own in this processor.
    /// See [`Step`] and `docs/steps.md`.
    ///
    /// The name is stored: renaming a step while rows are open runs it again.
    ///
    /// ```
    /// # use asyncable::{Attempt, Failure, IdempotencyKey, Outcome};
    /// # struct Vbms;
    /// # impl Vbms {
    /// #     async fn find_claim(&self, _: &str) -> Result<Option<i64>, std::io::Error> { Ok(None) }
    /// #     async fn establish(&self, _: &str, _: &str) -> Result<i64, std::io::Error> { Ok(600) }
    /// # }
    /// async fn establish(vbms: &Vbms, file_number: &str, attempt: &Attempt) -> Outcome<i64> {
    ///     attempt
    ///         .step("establish_claim")
    ///         .find(async |key| Ok(vbms.find_claim(&key).await?))
    ///         .run(async |key| Ok(vbms.establish(file_number, &key).await?))
    ///         .await
    /// }
    /// ```
    #[track_caller]
    pub fn step<'a>(&'a self, name: &'static str) -> Step<'a> {
        Step::new(self, name, Location::caller())
    }

    pub(crate) fn steps(&self) -> &dyn Steps {
        &*self.steps
    }

    /// Notes that a step is begun; false if one of this name was before.
    pub(crate) fn names_step(&self, name: &str) -> bool {
        let new = self.named.borrow_mut().insert(name.to_owned());
        if new {
            self.reached.borrow_mut().step = Some(name.to_owned());
        }
        new
    }

    /// A step's call may be under way until then.
    pub(crate) fn step_started(&self, name: &str, until: Moment) {
        self.reached.borrow_mut().under_way.insert(name.to_owned(), until);
    }

    /// It is not any more.
    pub(crate) fn step_ended(&self, name: &str) {
        self.reached.borrow_mut().under_way.remove(name);
    }

    /// Asks the database: for related rows, say. On connections that only read, shared by all attempts
    /// of the supervisor, so that a slow query delays no claim and no settling. The database refuses what
    /// it would write; see [`when_done`](Attempt::when_done) for that.
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
                match ask.take().map(|ask| ask(conn)) {
                    // Not the connection's fault: it is kept.
                    Some(Err(Error::NotFound)) => Ok(Err(Error::NotFound)),
                    Some(answer) => answer.map(Ok),
                    None => Err(Error::QueryBuilderError("the host's code panicked".into())),
                }
            })))
        });
        async move {
            let Some(asked) = asked else {
                let wrong = "read names another connection type than the supervisor's";
                return Err(Failure::permanent(wrong).with_code("read").at(place).own());
            };
            match asked.await {
                Ok(Ok(answer)) => answer.map_err(|error| Failure::from(error).at(place).own()),
                Ok(Err(error)) => Err(Failure::transient(error).with_code("read").at(place).own()),
                Err(error) => Err(Failure::from(error).at(place).own()),
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

    pub(crate) fn into_parts(self) -> (Vec<WhenDone>, Reached) {
        (self.when_done.into_inner(), self.reached.into_inner())
    }

    /// The next attempt of the same submission, which knows this one's steps.
    pub(crate) fn next(&self) -> Attempt {
        Attempt {
            key: self.key.clone(),
            number: self.number.saturating_add(1),
            deadline: self.deadline,
            reads: self.reads.clone(),
            when_done: RefCell::default(),
            steps: self.steps.clone(),
            named: RefCell::default(),
            reached: RefCell::default(),
        }
    }
}
