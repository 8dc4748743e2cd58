//! A model that is paused everywhere is claimed by no process, also by those that start later, until somebody
//! resumes it.

mod support;

use std::time::Duration;

use asyncable::{
    Asyncable, Attempt, Columns, Explain, Explanation, GetStatus, Handle, Outcome, Pause,
    Processor, RequestError, Resume, Status, StoreConnection, Stored, Submit, Supervisor, Sweep,
    columns,
};
use diesel::{connection::SimpleConnection, prelude::*};

use support::on_each_backend;

mod schema {
    diesel::table! {
        letters (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        parcels (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        asyncable_hosts (host, model) {
            host -> Text,
            model -> Text,
            paused -> Integer,
        }
    }
    diesel::table! {
        asyncable_actions (id) {
            id -> BigInt,
            who -> Text,
            action -> Text,
            target -> Text,
            reason -> Nullable<Text>,
        }
    }
}
use schema::{asyncable_actions, asyncable_hosts, letters, parcels};

const DDL: &str = "CREATE TABLE letters (id {key}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, error TEXT); INSERT INTO letters (id) VALUES (1), (2), (3); \
    CREATE TABLE parcels (id {key}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, error TEXT); INSERT INTO parcels (id) VALUES (1), (2), (3);";

#[derive(Queryable, Selectable, Identifiable)]
struct Letter {
    id: i64,
}

impl Asyncable for Letter {
    type Id = i64;
    const COLUMNS: Columns<letters::table> = columns!(letters);
}

#[derive(Queryable, Selectable, Identifiable)]
struct Parcel {
    id: i64,
}

impl Asyncable for Parcel {
    type Id = i64;
    const COLUMNS: Columns<parcels::table> = columns!(parcels);
}

#[derive(Clone)]
struct SendLetter;

impl Processor for SendLetter {
    type Model = Letter;

    async fn process(&self, _: &Letter, _: &Attempt) -> Outcome {
        Ok(())
    }
}

#[derive(Clone)]
struct SendParcel;

impl Processor for SendParcel {
    type Model = Parcel;

    async fn process(&self, _: &Parcel, _: &Attempt) -> Outcome {
        Ok(())
    }
}

/// A process that sweeps only when it is told to.
fn start<C>(url: String) -> Handle
where
    C: StoreConnection,
    Letter: Stored<C::Backend>,
    Parcel: Stored<C::Backend>,
{
    Supervisor::<C>::new(url)
        .sweep_every(Duration::from_secs(3600))
        .processor(SendLetter)
        .processor(SendParcel)
        .start()
        .expect("it starts")
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let mut look = actix_rt::time::interval(Duration::from_millis(20));
    let so = async {
        while !so().await {
            look.tick().await;
        }
    };
    let so = tokio::time::timeout(Duration::from_secs(60), so).await;
    so.unwrap_or_else(|_| panic!("{what} within a minute"));
}

async fn is_processed<M: Asyncable<Id = i64>>(handle: &Handle, id: i64) {
    let status = async || handle.send(GetStatus::<M>::new(id)).await.expect("a status");
    until("it is processed", async || status().await == Status::Processed).await;
}

/// Submits a letter and a parcel. The parcel is processed; then the letter would have been as well.
async fn is_left_alone(handle: &Handle, id: i64) {
    handle.send(Submit::<Letter>::new(id)).await.expect("durable");
    handle.addr().send(Sweep).await.expect("swept");
    handle.send(Submit::<Parcel>::new(id)).await.expect("durable");
    is_processed::<Parcel>(handle, id).await;
    handle.addr().send(Sweep).await.expect("swept");
    let letter = handle.send(GetStatus::<Letter>::new(id)).await.expect("a status");
    assert_eq!(letter, Status::Submitted, "claimed although it is paused");
}

fn paused() -> Pause<Letter> {
    Pause::new().everywhere().by("Ann Lee", "a bug in the address")
}

fn resumed() -> Resume<Letter> {
    Resume::new().everywhere().by("Bo Kim", "mended")
}

on_each_backend! {
    /// Waits until as many processes say that letters are paused in them.
    async fn is_paused_in(processes: i64, db: &Db) {
        let say = asyncable_hosts::model.eq("letters").and(asyncable_hosts::paused.eq(1));
        let say = || asyncable_hosts::table.filter(say).count().get_result::<i64>(&mut db.conn());
        until("they say so", async || say().expect("counted") == processes).await;
    }

    fn attempted(db: &Db) -> i64 {
        let attempted = letters::table.filter(letters::attempted_at.is_not_null()).count();
        attempted.get_result(&mut db.conn()).expect("counted")
    }

    #[actix_rt::test]
    async fn every_process_stops_claiming_a_model_and_goes_on_when_it_is_resumed() {
        let db = Db::migrated(DDL);
        let (one, two) = (start::<Conn>(db.url()), start::<Conn>(db.url()));
        one.send(paused()).await.expect("paused");
        two.addr().send(Sweep).await.expect("swept"); // so it hears of it
        is_paused_in(2, &db).await;
        is_left_alone(&one, 1).await;
        is_left_alone(&two, 2).await;
        assert_eq!(attempted(&db), 0);
        let why = two.send(Explain::<Letter>::new(1)).await.expect("explained");
        assert_eq!(why, Explanation::Paused {
            by: Some("Ann Lee".to_owned()),
            reason: Some("a bug in the address".to_owned()),
        });
        two.send(resumed()).await.expect("resumed");
        is_processed::<Letter>(&two, 1).await;
        one.addr().send(Sweep).await.expect("swept");
        is_paused_in(0, &db).await;
        one.send(Submit::<Letter>::new(3)).await.expect("durable");
        is_processed::<Letter>(&one, 3).await;
        one.shutdown(Duration::ZERO).await;
        two.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_process_that_starts_later_claims_nothing_of_it_from_the_beginning() {
        let db = Db::migrated(DDL);
        let first = start::<Conn>(db.url());
        first.send(paused()).await.expect("paused");
        first.send(Submit::<Letter>::new(1)).await.expect("durable");
        first.shutdown(Duration::ZERO).await;
        let later = start::<Conn>(db.url());
        is_left_alone(&later, 2).await;
        assert_eq!(attempted(&db), 0);
        later.send(resumed()).await.expect("resumed");
        is_processed::<Letter>(&later, 1).await;
        is_processed::<Letter>(&later, 2).await;
        later.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_is_paused_in_one_process_stays_so_when_it_is_resumed_everywhere() {
        let db = Db::migrated(DDL);
        let handle = start::<Conn>(db.url());
        handle.send(Pause::<Letter>::new()).await.expect("paused here");
        handle.send(paused()).await.expect("paused everywhere");
        handle.send(resumed()).await.expect("resumed everywhere");
        is_left_alone(&handle, 1).await;
        handle.send(Resume::<Letter>::new()).await.expect("resumed here");
        is_processed::<Letter>(&handle, 1).await;
        handle.send(paused()).await.expect("paused everywhere");
        handle.send(Resume::<Letter>::new()).await.expect("resumed here, where it is not paused");
        is_left_alone(&handle, 2).await;
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn who_paused_and_resumed_it_is_kept_once_each_however_often_it_is_said() {
        let db = Db::migrated(DDL);
        let handle = start::<Conn>(db.url());
        for _ in 0..2 {
            handle.send(paused()).await.expect("paused");
        }
        for _ in 0..2 {
            handle.send(resumed()).await.expect("resumed");
        }
        // Nobody says who: it is done, and nothing is kept of it.
        handle.send(Pause::<Letter>::new().everywhere()).await.expect("paused");
        let why = handle.send(Explain::<Letter>::new(1)).await.expect("explained");
        assert_eq!(why, Explanation::NotSubmitted);
        handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        let why = handle.send(Explain::<Letter>::new(1)).await.expect("explained");
        assert_eq!(why, Explanation::Paused { by: None, reason: None });
        handle.shutdown(Duration::ZERO).await;
        let (who, action, reason) =
            (asyncable_actions::who, asyncable_actions::action, asyncable_actions::reason);
        let kept: Vec<(String, String, String, Option<String>)> = asyncable_actions::table
            .select((who, action, asyncable_actions::target, reason))
            .order(asyncable_actions::id)
            .load(&mut db.conn())
            .expect("actions");
        let said = |who: &str, action: &str, why: &str| {
            (who.to_owned(), action.to_owned(), "letters".to_owned(), Some(why.to_owned()))
        };
        let expected = [said("Ann Lee", "paused", "a bug in the address"), said("Bo Kim", "resumed", "mended")];
        assert_eq!(kept, expected);
    }

    #[actix_rt::test]
    async fn a_pause_that_the_database_does_not_take_is_an_error_and_pauses_nothing() {
        let db = Db::migrated(DDL);
        let handle = start::<Conn>(db.url());
        db.conn().batch_execute("ALTER TABLE asyncable_pauses RENAME TO away").expect("hidden");
        let refused = handle.send(paused()).await;
        assert!(matches!(refused, Err(RequestError::Database(_))), "{refused:?}");
        handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        is_processed::<Letter>(&handle, 1).await;
        handle.shutdown(Duration::ZERO).await;
    }
}
