//! One run of the host's code on one row.

use std::{
    any::Any, cell::RefCell, fmt, ops::Deref, sync::Arc, sync::Mutex, time::Duration, time::Instant,
};

use diesel::QueryResult;

use crate::store::settle::WhenDone;

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
    when_done: RefCell<Vec<WhenDone>>,
}

impl Attempt {
    pub(crate) fn new(
        model: &str,
        id: &str,
        generation: i64,
        number: u32,
        timeout: Duration,
    ) -> Self {
        let key = IdempotencyKey(format!("{model}/{id}/{generation}").into());
        Attempt { key, number, deadline: Instant::now() + timeout, when_done: RefCell::default() }
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
