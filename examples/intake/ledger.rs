//! What is outside the host and outlives it: the time on this example's fast clock, and what the services
//! did. One text file beside the database, a line an event, written before the event is answered; a run
//! after a kill reads on from it. `tail -f intake.db.ledger` shows the services at work.
//!
//! ```text
//! 2026-11-24T09:12:00.000000Z call vbms 500 did 17 supplemental_claims/7/1795511520000000/establish_claim
//! ```
//! A call that was answered with 500 after its work was done, as the 17th of all.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use asyncable::{Attempt, Clock, Outcome, Processor, Service};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

pub struct Ledger {
    pub clock: Clock,
    /// When the services first started, which their daily outages count from.
    pub began: DateTime<Utc>,
    /// Nothing was written before: this is the first run.
    pub is_new: bool,
    ahead: TimeDelta,
    book: Mutex<Book>,
}

struct Book {
    file: File,
    entries: Entries,
}

/// What the lines add up to.
#[derive(Default)]
struct Entries {
    times: Option<(DateTime<Utc>, DateTime<Utc>)>,
    attempts: BTreeMap<String, u64>,
    services: BTreeMap<String, HashMap<String, Calls>>,
    /// When each call came, by service.
    called_at: BTreeMap<String, Vec<DateTime<Utc>>>,
    effects: u64,
}

/// The calls under one idempotency key.
#[derive(Clone, Copy, Default)]
pub struct Calls {
    pub calls: u64,
    /// How often the service was asked whether it did it.
    pub asked: u64,
    /// How often the work was done. Twice is what must not be.
    pub effects: u64,
    /// The number of what was done first.
    pub id: Option<u64>,
}

impl Ledger {
    /// Goes on where the file ends; `anew` begins it again, for a database that holds nothing yet.
    pub fn open(path: &Path, anew: bool, speed: f64) -> io::Result<Ledger> {
        if !anew && !path.exists() {
            let why = "is missing, and the database has rows; to begin anew, delete that too";
            return Err(io::Error::other(why));
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(|_| io::Error::other("another intake is running on it"))?;
        if anew {
            file.set_len(0)?;
        }
        let (mut text, mut entries) = (String::new(), Entries::default());
        file.read_to_string(&mut text)?;
        // A kill can tear the line that was being written; nobody was answered then.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        file.set_len(text.len() as u64)?;
        for (index, line) in text.lines().enumerate() {
            let wrong = || io::Error::other(format!("line {}: not a ledger's", index + 1));
            entries.add(line).ok_or_else(wrong)?;
        }
        let (began, last) = entries.times.unwrap_or_else(|| (Utc::now(), Utc::now()));
        let ledger = Ledger {
            clock: Clock::fast(speed, last),
            began,
            is_new: text.is_empty(),
            ahead: TimeDelta::milliseconds((speed * 1000.0) as i64),
            book: Mutex::new(Book { file, entries }),
        };
        if text.is_empty() {
            ledger.write(began, "began")?;
        }
        Ok(ledger)
    }

    /// Notes the time, every half second. A second ahead, so that a run after a kill never begins before
    /// an instant that this one wrote somewhere.
    pub fn keep_time(&self) -> io::Result<()> {
        self.write(self.clock.now() + self.ahead, "clock")
    }

    /// An attempt on a row of `model` begins.
    pub fn attempt(&self, model: &str) -> io::Result<()> {
        self.write(self.clock.now(), &format!("attempt {model}"))
    }

    /// A call has come to `service`, and is answered so, or not at all. Where the service knows keys, work
    /// already done under this one is not done again. Answers the number of what is done under the key.
    pub fn call(
        &self,
        service: &str,
        key: &str,
        (works, knows_keys, answer): (bool, bool, Option<u16>),
    ) -> io::Result<Option<u64>> {
        let mut book = self.book();
        let known = knows_keys && book.entries.calls(service, key).effects > 0;
        let next = book.entries.effects + 1;
        let did = if works && !known { next.to_string() } else { "nothing".to_owned() };
        let answer = answer.map_or("unanswered".to_owned(), |status| status.to_string());
        book.write(self.clock.now(), &format!("call {service} {answer} did {did} {key}"))?;
        Ok(book.entries.calls(service, key).id)
    }

    /// `service` was asked what is done under this key.
    pub fn ask(&self, service: &str, key: &str) -> io::Result<Option<u64>> {
        let mut book = self.book();
        book.write(self.clock.now(), &format!("asked {service} {key}"))?;
        Ok(book.entries.calls(service, key).id)
    }

    pub fn calls(&self, service: &str, key: &str) -> Calls {
        self.book().entries.calls(service, key)
    }

    /// The calls at a service by key.
    pub fn service(&self, service: &str) -> HashMap<String, Calls> {
        self.book().entries.services.get(service).cloned().unwrap_or_default()
    }

    /// How many calls came to a service in this time, both ends included.
    pub fn calls_between(&self, service: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> usize {
        let book = self.book();
        let calls = book.entries.called_at.get(service).into_iter().flatten();
        calls.filter(|at| (from..=to).contains(*at)).count()
    }

    /// The attempts by model.
    pub fn attempts(&self) -> BTreeMap<String, u64> {
        self.book().entries.attempts.clone()
    }

    fn write(&self, at: DateTime<Utc>, what: &str) -> io::Result<()> {
        self.book().write(at, what)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn write(&mut self, at: DateTime<Utc>, what: &str) -> io::Result<()> {
        let line = format!("{} {what}\n", at.to_rfc3339_opts(SecondsFormat::Micros, true));
        self.file.write_all(line.as_bytes())?;
        self.entries.add(&line).ok_or_else(|| io::Error::other(format!("not an entry: {line}")))
    }
}

impl Entries {
    fn add(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (at, what) = words.split_first()?;
        let at = DateTime::parse_from_rfc3339(at).ok()?.to_utc();
        let (_, last) = self.times.get_or_insert((at, at));
        *last = at.max(*last);
        if let ["call", service, ..] = what {
            self.called_at.entry((*service).to_owned()).or_default().push(at);
        }
        match what {
            ["began" | "clock"] => {}
            ["attempt", model] => *self.attempts.entry((*model).to_owned()).or_default() += 1,
            ["asked", service, key] => self.under(service, key).asked += 1,
            ["call", service, _answer, "did", "nothing", key] => {
                self.under(service, key).calls += 1
            }
            ["call", service, _answer, "did", id, key] => {
                let id: u64 = id.parse().ok()?;
                let calls = self.under(service, key);
                calls.calls += 1;
                calls.effects += 1;
                calls.id.get_or_insert(id);
                self.effects = id;
            }
            _ => return None,
        }
        Some(())
    }

    fn under(&mut self, service: &str, key: &str) -> &mut Calls {
        let service = self.services.entry(service.to_owned()).or_default();
        service.entry(key.to_owned()).or_default()
    }

    fn calls(&self, service: &str, key: &str) -> Calls {
        let service = self.services.get(service);
        service.and_then(|keys| keys.get(key)).copied().unwrap_or_default()
    }
}

/// Notes each attempt of another processor, for the table at the end.
pub struct Counted<P> {
    processor: P,
    ledger: Arc<Ledger>,
}

pub fn counted<P, F: Fn() -> P>(
    ledger: &Arc<Ledger>,
    make: F,
) -> impl Fn() -> Counted<P> + use<P, F> {
    let ledger = ledger.clone();
    move || Counted { processor: make(), ledger: ledger.clone() }
}

impl<P: Processor> Processor for Counted<P> {
    type Model = P::Model;
    const SERVICES: &'static [Service] = P::SERVICES;
    const AT_ONCE: usize = P::AT_ONCE;
    const TIMEOUT: Duration = P::TIMEOUT;

    async fn process(&self, row: &P::Model, attempt: &Attempt) -> Outcome {
        let key = attempt.idempotency_key();
        self.ledger.attempt(key.split('/').next().unwrap_or_default())?;
        self.processor.process(row, attempt).await
    }
}
