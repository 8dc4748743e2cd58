//! The store actor: a thread that owns a Diesel connection, and opens a new one when it fails.
//!
//! The host's own code runs here too (what opens its connections, its reads, its `when_done`), so a panic is
//! caught, and what it was part of is taken once more without the write that panicked.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Handler, Message, SyncArbiter, SyncContext};
use chrono::Utc;
use diesel::{ConnectionResult, QueryResult};

use super::{Moment, StoreConnection, dialect::DialectParts, statement::Statement};
use crate::{clock::Clock, columns::Zone};

/// Opens a connection.
pub(crate) type Connect<C> = Arc<dyn Fn() -> ConnectionResult<C> + Send + Sync>;

/// See the module.
pub(crate) struct Store<C: StoreConnection> {
    connect: Connect<C>,
    clock: Clock,
    access: Access,
    conn: Option<C>,
    /// When the database's clock was last looked at, in wall time.
    looked: Instant,
}

/// How often the database's clock is looked at: this machine's may be set at any time.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What a store's connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    /// The database refuses writes.
    Read,
}

impl<C: StoreConnection> Store<C> {
    /// Starts `threads` of them behind one address.
    pub(crate) fn start(
        threads: usize,
        access: Access,
        connect: &Connect<C>,
        clock: &Clock,
    ) -> Addr<Self> {
        let (connect, clock) = (connect.clone(), clock.clone());
        SyncArbiter::start(threads, move || Store {
            connect: connect.clone(),
            clock: clock.clone(),
            access,
            conn: None,
            looked: Instant::now(),
        })
    }

    fn open(&mut self) -> Result<C, String> {
        let mut conn = (self.connect)().map_err(|error| error.to_string())?;
        self.prepare(&mut conn).map_err(|error| error.to_string())?;
        Ok(conn)
    }

    fn prepare(&mut self, conn: &mut C) -> QueryResult<()> {
        conn.prepare(self.access)?;
        self.look(conn)
    }

    fn look(&mut self, conn: &mut C) -> QueryResult<()> {
        self.looked = Instant::now();
        if let Some(now) = C::Backend::database_now(Zone::Naive) {
            let ask = Statement::plain(&format!("SELECT {now}"), vec![])?;
            let asked_at = Utc::now();
            if let Some(row) = ask.first(conn)? {
                self.clock.correct(row.time(0)?, asked_at);
            }
        }
        Ok(())
    }

    /// Does the work; answers nothing if it panicked.
    fn run<T>(&mut self, work: &mut Work<C, T>) -> Result<Option<T>, String> {
        let open = self.conn.take();
        // A panicked `SyncArbiter` thread is never replaced, and the host's code runs here too: what
        // opens its connections, its reads and its writes.
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut conn = match open {
                Some(mut conn) => {
                    if self.looked.elapsed() > LOOK_EVERY {
                        self.look(&mut conn).map_err(|error| error.to_string())?;
                    }
                    conn
                }
                None => self.open()?,
            };
            let done = work(&mut conn, self.clock.moment()).map_err(|error| error.to_string())?;
            Ok::<_, String>((conn, done))
        }));
        let Ok(done) = done else { return Ok(None) };
        // After any error a new connection: it may be the connection that is at fault.
        let (conn, done) = done?;
        self.conn = Some(conn);
        Ok(Some(done))
    }
}

impl<C: StoreConnection> Actor for Store<C> {
    type Context = SyncContext<Self>;
}

/// Something to be done on the store's connection.
pub(crate) struct Ask<C, T>(pub(crate) Work<C, T>);

type Work<C, T> = Box<dyn FnMut(&mut C, Moment) -> QueryResult<T> + Send>;

impl<C: 'static, T: Send + 'static> Message for Ask<C, T> {
    type Result = Result<T, String>;
}

impl<C: StoreConnection, T: Send + 'static> Handler<Ask<C, T>> for Store<C> {
    type Result = Result<T, String>;

    fn handle(&mut self, mut ask: Ask<C, T>, _: &mut SyncContext<Self>) -> Self::Result {
        /// How many of the host's writes may panic in one turn before the turn counts as failed; it is
        /// then sent again, and the next ones are found.
        const PANICS: usize = 16;

        // Again, and on a new connection, since a panic inside a transaction of the host's own leaves
        // Diesel's count of them wrong. The write that panicked is not run again: its lock is poisoned.
        (0..PANICS)
            .find_map(|_| self.run(&mut ask.0).transpose())
            .unwrap_or_else(|| Err("the host's code panicked on the store's connection".to_owned()))
    }
}
