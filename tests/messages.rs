//! Messages to the users of rows: written with the state they speak of, each once per row and submission.
//!
//! Nothing here waits for a day to pass: each supervisor is told what time it is when it starts, and the
//! next one begins later.

mod support;

use std::{collections::BTreeSet, marker::PhantomData, time::Duration};

use asyncable::{
    Asyncable, Attempt, Cancel, Clock, Columns, Event, Failure, Handle, HoldService, MessageKind,
    Messages, Outcome, Processor, Restart, Service, StoreConnection, Stored, Submit, SubmitAll,
    Supervisor, UserMessage, columns,
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        claims (id) {
            id -> BigInt,
            created_by -> Nullable<Text>,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        faxes (id) {
            id -> BigInt,
            sender -> Integer,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::{claims, faxes};

const DDL: &str = "CREATE TABLE claims (id {key}, created_by TEXT DEFAULT 'jdoe', \
    submitted_at TIMESTAMP, last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
    CREATE INDEX claims_work ON claims (attempted_at, last_submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL; \
    CREATE TABLE faxes (id {key}, sender INTEGER NOT NULL DEFAULT 7, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
    INSERT INTO claims (error) VALUES (NULL), (NULL), (NULL), (NULL); \
    INSERT INTO faxes (error) VALUES (NULL), (NULL), (NULL), (NULL);";

const BGS: Service = Service::new("bgs");

/// With a column for each instant.
#[derive(Queryable, Selectable, Identifiable)]
struct Claim {
    id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(
        claims,
        last_submitted_at = last_submitted_at,
        canceled_at = canceled_at,
        user = created_by
    );
}

/// With one column for when it was submitted, first and last, and users that are numbers.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = faxes)]
struct Fax {
    id: i64,
}

impl Asyncable for Fax {
    type Id = i64;
    const COLUMNS: Columns<faxes::table> =
        columns!(faxes, canceled_at = canceled_at, user = sender);
}

/// The same table, of whose rows nobody is the user.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = faxes)]
struct Nobodys {
    id: i64,
}

impl Asyncable for Nobodys {
    type Id = i64;
    const COLUMNS: Columns<faxes::table> =
        columns!(faxes, canceled_at = canceled_at).name("nobodys");
}

/// What comes of each attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Nothing,
    Refused,
    Done,
    /// Done, but for a write of the host's own.
    Undone,
}

struct Work<M, C>(Comes, PhantomData<fn() -> (M, C)>);

impl<M, C> Clone for Work<M, C> {
    fn clone(&self) -> Self {
        Work(self.0, PhantomData)
    }
}

impl<M: Asyncable, C: StoreConnection> Processor for Work<M, C> {
    type Model = M;
    const SERVICES: &'static [Service] = &[BGS];

    async fn process(&self, _: &M, attempt: &Attempt) -> Outcome {
        match self.0 {
            Comes::Nothing => Err(Failure::transient("not yet")),
            Comes::Refused => Err(Failure::permanent("never")),
            Comes::Done => Ok(()),
            Comes::Undone => {
                attempt.when_done(|_: &mut C| Err(diesel::result::Error::NotFound));
                Ok(())
            }
        }
    }
}

fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).single().expect("an instant")
}

fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}

/// A process that works on `M` from `at` on.
struct Host {
    handle: Handle,
    events: mpsc::UnboundedReceiver<Event>,
}

/// Whether a host looks for what has become late, or only does what is due as it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sweeps {
    Often,
    Never,
}

impl Host {
    fn start<M, C>(url: String, at: DateTime<Utc>, comes: Comes, sweeps: Sweeps) -> Host
    where
        C: StoreConnection,
        M: Stored<C::Backend>,
    {
        let (tell, events) = mpsc::unbounded_channel();
        let handle = Supervisor::<C>::new(url)
            .clock(Clock::fast(1.0, at))
            .sweep_every(match sweeps {
                Sweeps::Often => Duration::from_millis(20),
                Sweeps::Never => Duration::from_secs(3600),
            })
            .on_event(move |event| drop(tell.send(event.clone())))
            .processor(Work::<M, C>(comes, PhantomData))
            .start()
            .expect("it starts");
        Host { handle, events }
    }

    /// The next event of which `what` makes something.
    async fn hears<T>(&mut self, what: impl Fn(&Event) -> Option<T>) -> T {
        let heard = async {
            loop {
                let event = self.events.recv().await.expect("a supervisor");
                if let Some(heard) = what(&event) {
                    return heard;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.expect("within a minute")
    }

    /// Waits until somebody is sent a message; answers the row, and whom.
    async fn sends(&mut self, which: MessageKind) -> (String, String) {
        self.hears(|event| match event {
            Event::MessageSent { id, kind, user, .. } if *kind == which => {
                Some((id.clone(), user.clone()))
            }
            _ => None,
        })
        .await
    }

    async fn fails(&mut self) {
        self.hears(|event| matches!(event, Event::AttemptFailed { .. }).then_some(())).await;
    }

    async fn stop(self) {
        self.handle.shutdown(Duration::from_secs(10)).await;
    }
}

/// What is said, the oldest first.
fn said(messages: &[UserMessage]) -> Vec<(String, MessageKind)> {
    messages.iter().rev().map(|message| (message.row_id.clone(), message.kind)).collect()
}

fn of(row: i64, kind: MessageKind) -> (String, MessageKind) {
    (row.to_string(), kind)
}

use MessageKind::{Canceled, Done, Failing};

on_each_backend! {
    fn told(db: &Db, user: &str) -> Vec<UserMessage> {
        Messages::of(user).limit(1000).load(&mut db.conn()).expect("messages")
    }

    /// Rows of both models, as they are named, with their users.
    macro_rules! on_both_models {
        ($test:ident) => {{
            $test::<Claim>("jdoe").await;
            $test::<Fax>("7").await;
        }};
    }

    type Backend = <Conn as diesel::Connection>::Backend;

    async fn day_and_done<M: Stored<Backend> + Asyncable<Id = i64>>(user: &str) {
        let db = Db::migrated(DDL);
        let start = |at, comes| Host::start::<M, Conn>(db.url(), noon() + hours(at), comes, Sweeps::Never);
        let mut first = start(0, Comes::Nothing);
        first.handle.send(SubmitAll::<M>::new([1, 2])).await.expect("submitted");
        for _ in 0..2 {
            first.fails().await;
        }
        first.stop().await;
        let mut before_a_day = start(23, Comes::Nothing);
        for _ in 0..2 {
            before_a_day.fails().await;
        }
        before_a_day.stop().await;
        assert_eq!(said(&told(&db, user)), []);
        let mut after_a_day = start(27, Comes::Nothing);
        let mut sent = [after_a_day.sends(Failing).await, after_a_day.sends(Failing).await];
        sent.sort();
        assert_eq!(sent, [("1".to_owned(), user.to_owned()), ("2".to_owned(), user.to_owned())]);
        after_a_day.stop().await;
        let mut again = start(31, Comes::Nothing);
        for _ in 0..2 {
            again.fails().await;
        }
        again.stop().await;
        assert_eq!(told(&db, user).len(), 2, "once");
        let mut last = start(35, Comes::Done);
        last.sends(Done).await;
        last.sends(Done).await;
        last.stop().await;
        let mut all = said(&told(&db, user));
        all.sort_by_key(|(row, kind)| (row.clone(), kind.as_str()));
        assert_eq!(all, [of(1, Done), of(1, Failing), of(2, Done), of(2, Failing)]);
    }

    #[actix_rt::test]
    async fn a_user_is_told_once_that_a_row_still_fails_after_a_day_and_then_that_it_is_done() {
        on_both_models!(day_and_done);
    }

    #[actix_rt::test]
    async fn a_row_that_is_done_within_a_day_says_nothing() {
        let db = Db::migrated(DDL);
        let mut host = Host::start::<Claim, Conn>(db.url(), noon(), Comes::Nothing, Sweeps::Often);
        host.handle.send(Submit::<Claim>::new(1)).await.expect("submitted");
        host.fails().await;
        host.stop().await;
        let host = Host::start::<Claim, Conn>(db.url(), noon() + hours(23), Comes::Done, Sweeps::Often);
        let processed = async {
            while host.handle.send(asyncable::GetStatus::<Claim>::new(1)).await.expect("a status") != asyncable::Status::Processed {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), processed).await.expect("processed");
        host.stop().await;
        assert_eq!(told(&db, "jdoe"), []);
    }

    /// More rows than a sweep looks at: some submitted at one instant, as by one statement of a host's, and some
    /// each at its own.
    #[actix_rt::test]
    async fn each_row_that_waits_in_an_outage_for_a_day_is_told_of_once() {
        let db = Db::migrated(DDL);
        let host = Host::start::<Claim, Conn>(db.url(), noon() - hours(3), Comes::Done, Sweeps::Never);
        host.handle.send(HoldService::new(BGS, "Bo Kim", "an outage")).await.expect("held");
        host.stop().await;
        let mut sql = String::from("DELETE FROM claims;");
        for id in 1..=1802 {
            let at = match id {
                1..=1200 => noon(),
                _ => noon() + TimeDelta::seconds(id),
            };
            let at = at.format("%Y-%m-%d %H:%M:%S");
            let at = if id <= 1800 { format!("'{at}'") } else { "NULL".to_owned() };
            sql += &format!("INSERT INTO claims (id, submitted_at, last_submitted_at) VALUES ({id}, {at}, {at});");
        }
        db.conn().batch_execute(&sql).expect("claims");
        // An older one shows that a host has looked.
        Claim::as_of(noon() - hours(2)).submit(&mut db.conn(), 1801).expect("submitted");
        let mut early = Host::start::<Claim, Conn>(db.url(), noon() + hours(23), Comes::Done, Sweeps::Often);
        assert_eq!(early.sends(Failing).await.0, "1801");
        early.stop().await;
        assert_eq!(told(&db, "jdoe").len(), 1);
        let mut late = Host::start::<Claim, Conn>(db.url(), noon() + hours(25), Comes::Done, Sweeps::Often);
        let mut sent = BTreeSet::new();
        for _ in 0..1800 {
            sent.insert(late.sends(Failing).await.0);
        }
        assert_eq!(sent.len(), 1800);
        late.stop().await;
        // A later one, which comes last, shows that a host has looked at all of them again.
        Claim::as_of(noon() + hours(5)).submit(&mut db.conn(), 1802).expect("submitted");
        let mut again = Host::start::<Claim, Conn>(db.url(), noon() + hours(30), Comes::Done, Sweeps::Often);
        assert_eq!(again.sends(Failing).await.0, "1802");
        again.stop().await;
        let count: i64 = diesel::sql_query("SELECT count(*) AS n FROM asyncable_messages")
            .get_result::<Number>(&mut db.conn()).expect("a count").n;
        assert_eq!(count, 1802);
    }

    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }

    #[actix_rt::test]
    async fn a_parked_row_is_told_of_after_a_day_although_nothing_happens_to_it() {
        let db = Db::migrated(DDL);
        let mut host = Host::start::<Claim, Conn>(db.url(), noon(), Comes::Refused, Sweeps::Often);
        host.handle.send(Submit::<Claim>::new(1)).await.expect("submitted");
        host.hears(|event| matches!(event, Event::Parked { .. }).then_some(())).await;
        host.stop().await;
        assert_eq!(said(&told(&db, "jdoe")), []);
        let mut late = Host::start::<Claim, Conn>(db.url(), noon() + hours(25), Comes::Done, Sweeps::Often);
        assert_eq!(late.sends(Failing).await, ("1".to_owned(), "jdoe".to_owned()));
        late.handle.send(Restart::<Claim>::new(1)).await.expect("restarted");
        late.sends(Done).await;
        late.stop().await;
        assert_eq!(said(&told(&db, "jdoe")), [of(1, Failing), of(1, Done)]);
    }

    async fn restarted_and_submitted<M: Stored<Backend> + Asyncable<Id = i64>>(user: &str) {
        let db = Db::migrated(DDL);
        let start = |at, comes| Host::start::<M, Conn>(db.url(), noon() + hours(at), comes, Sweeps::Never);
        M::as_of(noon()).submit(&mut db.conn(), 1).expect("submitted");
        let mut late = start(25, Comes::Nothing);
        late.sends(Failing).await;
        late.handle.send(Restart::<M>::new(1)).await.expect("restarted");
        late.fails().await;
        late.stop().await;
        // A day after the restart: of the same submission, so it was told.
        let mut again = start(50, Comes::Nothing);
        again.fails().await;
        again.handle.send(Restart::<M>::new(1)).await.expect("restarted");
        again.fails().await;
        again.stop().await;
        assert_eq!(said(&told(&db, user)), [of(1, Failing)]);
        let mut done = start(54, Comes::Done);
        done.sends(Done).await;
        done.stop().await;
        // Another submission is told of anew.
        M::as_of(noon() + hours(60)).submit(&mut db.conn(), 1).expect("submitted");
        let mut late = start(90, Comes::Nothing);
        late.sends(Failing).await;
        late.stop().await;
        let messages = told(&db, user);
        assert_eq!(said(&messages), [of(1, Failing), of(1, Done), of(1, Failing)]);
        assert_eq!(messages[0].submitted_at, noon() + hours(60));
        assert_eq!(messages[1].submitted_at, messages[2].submitted_at);
    }

    #[actix_rt::test]
    async fn a_restart_is_of_the_same_submission_and_a_new_submission_is_told_of_anew() {
        on_both_models!(restarted_and_submitted);
    }

    #[actix_rt::test]
    async fn done_is_not_said_of_a_row_that_could_not_become_processed() {
        let db = Db::migrated(DDL);
        Claim::as_of(noon()).submit(&mut db.conn(), 1).expect("submitted");
        let mut late = Host::start::<Claim, Conn>(db.url(), noon() + hours(25), Comes::Nothing, Sweeps::Never);
        late.sends(Failing).await;
        late.stop().await;
        let mut undone = Host::start::<Claim, Conn>(db.url(), noon() + hours(29), Comes::Undone, Sweeps::Never);
        let heard = undone.hears(|event| match event {
            Event::AttemptFailed { failure, .. } => Some(failure.code().to_owned()),
            Event::MessageSent { kind, .. } => Some(kind.to_string()),
            _ => None,
        });
        assert_eq!(heard.await, "when_done");
        undone.stop().await;
        assert_eq!(said(&told(&db, "jdoe")), [of(1, Failing)]);
    }

    #[actix_rt::test]
    async fn a_cancel_is_said_with_its_reason_in_the_transaction_that_cancels() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        let mut host = Host::start::<Claim, Conn>(db.url(), noon(), Comes::Nothing, Sweeps::Never);
        host.handle.send(SubmitAll::<Claim>::new([1, 2, 3])).await.expect("submitted");
        let reason = "filed twice:\nsee 12";
        host.handle.send(Cancel::<Claim>::new(1).by("Bo Kim", reason)).await.expect("canceled");
        assert_eq!(host.sends(Canceled).await, ("1".to_owned(), "jdoe".to_owned()));
        host.handle.send(Cancel::<Claim>::new(1).by("Ann Lee", "again")).await.expect("before");
        host.stop().await;
        Claim::as_of(noon() + hours(1)).cancel(conn, 2).expect("canceled");
        let undone: QueryResult<()> = conn.transaction(|conn| {
            Claim::as_of(noon()).cancel(conn, 3)?;
            Err(diesel::result::Error::RollbackTransaction)
        });
        assert_eq!(undone, Err(diesel::result::Error::RollbackTransaction));
        let messages = told(&db, "jdoe");
        assert_eq!(said(&messages), [of(1, Canceled), of(2, Canceled)]);
        let by = |message: &UserMessage| (message.who.clone(), message.note.clone());
        assert_eq!(by(&messages[1]), (Some("Bo Kim".to_owned()), Some(reason.to_owned())));
        assert_eq!(by(&messages[0]), (None, None));
    }

    #[actix_rt::test]
    async fn rows_that_are_nobodys_say_nothing() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        conn.batch_execute("UPDATE claims SET created_by = NULL WHERE id = 1; UPDATE claims SET created_by = '' WHERE id = 2").expect("set");
        Claim::as_of(noon()).submit_all(conn, &[1, 2, 3]).expect("submitted");
        let mut late = Host::start::<Claim, Conn>(db.url(), noon() + hours(25), Comes::Nothing, Sweeps::Often);
        assert_eq!(late.sends(Failing).await.0, "3");
        late.stop().await;
        for id in [1, 2] {
            Claim::cancel(conn, id).expect("canceled");
        }
        Nobodys::as_of(noon()).submit(conn, 1).expect("submitted");
        let mut late = Host::start::<Nobodys, Conn>(db.url(), noon() + hours(25), Comes::Nothing, Sweeps::Often);
        late.fails().await;
        late.stop().await;
        Nobodys::cancel(conn, 1).expect("canceled");
        let count: i64 = diesel::sql_query("SELECT count(*) AS n FROM asyncable_messages")
            .get_result::<Number>(conn).expect("a count").n;
        assert_eq!(count, 1);
    }

    #[test]
    fn a_users_messages_are_read_in_pages_and_marked_by_nobody_else() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        let mut sql = String::new();
        for id in 1..=7 {
            // Some at the same instant.
            let at = (noon() + TimeDelta::seconds(id / 2)).format("%Y-%m-%d %H:%M:%S");
            let user = if id == 4 { "asmith" } else { "jdoe" };
            sql += &format!(
                "INSERT INTO asyncable_messages (id, model, row_id, submitted_at, user_name, kind, at, who, note) \
                 VALUES ({id}, 'claims', '{id}', '2026-01-01 09:00:00', '{user}', 'note', '{at}', 'Bo Kim', 'x');"
            );
        }
        conn.batch_execute(&sql).expect("messages");
        let ids = |page: &[UserMessage]| page.iter().map(|message| message.id).collect::<Vec<_>>();
        let first = Messages::of("jdoe").limit(4).load(conn).expect("a page");
        let second = Messages::of("jdoe").limit(4).before(&first[3]).load(conn).expect("a page");
        assert_eq!((ids(&first), ids(&second)), (vec![7, 6, 5, 3], vec![2, 1]));

        let marked = [
            Messages::of("asmith").mark_read(conn, 7), Messages::of("jdoe").mark_read(conn, 4),
            Messages::of("").mark_read(conn, 7), Messages::of("jdoe\0").mark_read(conn, 7),
            Messages::of("jdoe").mark_read(conn, 99), Messages::of("jdoe' OR 1=1 --").mark_read(conn, 7),
        ];
        assert_eq!(marked, [Ok(false), Ok(false), Ok(false), Ok(false), Ok(false), Ok(false)]);
        assert_eq!(Messages::of("jdoe").mark_read(conn, 7), Ok(true));
        let read = told(&db, "jdoe")[0].read_at.expect("read");
        assert_eq!(Messages::of("jdoe").mark_read(conn, 7), Ok(true), "again");
        assert_eq!(told(&db, "jdoe")[0].read_at, Some(read), "the first time is kept");
        let unread = Messages::of("jdoe").unread().load(conn).expect("a page");
        assert_eq!(ids(&unread), [6, 5, 3, 2, 1]);
        assert_eq!(told(&db, "asmith")[0].read_at, None);
        assert_eq!(told(&db, "nobody\0"), []);
    }

    #[actix_rt::test]
    async fn messages_are_kept_for_120_days() {
        let db = Db::migrated(DDL);
        let sql = "INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) \
            VALUES ('gone', '1', '2026-01-01 09:00:00', 'jdoe', 'failing', '2026-01-01 12:00:00'), \
            ('gone', '2', '2026-01-01 09:00:00', 'jdoe', 'failing', '2026-01-03 12:00:00')";
        db.conn().batch_execute(sql).expect("messages");
        // One of nobody's, older than both, shows that a host has looked.
        let marker = "INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) \
            VALUES ('gone', '3', '2000-01-01 09:00:00', 'nobody', 'failing', '2000-01-01 09:00:00')";
        db.conn().batch_execute(marker).expect("a marker");
        for (user, day, left) in [("nobody", 119, 2), ("jdoe", 121, 1)] {
            let before = told(&db, user).len();
            let host = Host::start::<Claim, Conn>(db.url(), noon() + TimeDelta::days(day), Comes::Done, Sweeps::Often);
            let pruned = async {
                while told(&db, user).len() == before {
                    tokio::task::yield_now().await;
                }
            };
            // Another test's host on this server may be at it; a host then looks again a minute later.
            tokio::time::timeout(Duration::from_secs(180), pruned).await.expect("pruned in a while");
            host.stop().await;
            assert_eq!(told(&db, "jdoe").len(), left, "{day}");
        }
        assert_eq!(said(&told(&db, "jdoe")), [of(2, Failing)]);
    }
}
