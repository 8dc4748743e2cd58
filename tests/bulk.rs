//! Many rows at once from the operator's page: shown first, done once, stopped between batches.
#![cfg(feature = "dashboard")]

#[path = "support/page.rs"]
mod page;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{App, http::StatusCode, test, web};
use asyncable::{
    Asyncable, Attempt, Clock, Columns, Counts, Dashboard, Failure, GetCounts, Handle, Outcome,
    Processor, SubmitAll, Supervisor, columns,
};
use chrono::{DateTime, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use page::{Shown, send, until, who};
use support::on_each_backend;

mod schema {
    diesel::table! {
        appeals (id) {
            id -> BigInt,
            created_by -> Text,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        asyncable_actions (id) {
            id -> BigInt,
            who -> Text,
            action -> Text,
            target -> Text,
            count -> Nullable<Integer>,
            reason -> Nullable<Text>,
        }
    }
}
use schema::{appeals, asyncable_actions};

const DDL: &str = "CREATE TABLE appeals (id {key}, created_by TEXT NOT NULL DEFAULT 'jdoe', \
    submitted_at TIMESTAMP, last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT, \
    frozen INTEGER NOT NULL DEFAULT 0 CHECK (frozen = 0 OR attempted_at IS NOT NULL)); \
    CREATE INDEX appeals_work ON appeals (attempted_at, last_submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL;";

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i64;
    const COLUMNS: Columns<appeals::table> = columns!(
        appeals,
        last_submitted_at = last_submitted_at,
        canceled_at = canceled_at,
        user = created_by
    );
}

/// Refuses every row until somebody mends the cause; every tenth for another reason.
#[derive(Clone)]
struct Refuse(Arc<AtomicBool>);

impl Processor for Refuse {
    type Model = Appeal;

    async fn process(&self, appeal: &Appeal, _: &Attempt) -> Outcome {
        match (self.0.load(Ordering::Relaxed), appeal.id % 10) {
            (true, _) => Ok(()),
            (false, 0) => Err(Failure::permanent("no").with_code("vbms.other")),
            (false, _) => Err(Failure::permanent("no").with_code("vbms.refused")),
        }
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

const BASE: &str = "/ops/background";
const LIST: &str = "state=parked&code=&user=&age=";

macro_rules! app {
    ($handle:expr) => {
        test::init_service(
            App::new().service(web::scope(BASE).service(Dashboard::new($handle.clone(), who))),
        )
        .await
    };
}

async fn counts(handle: &Handle, stand: impl Fn(Counts) -> bool) {
    let stands = async {
        while !stand(handle.send(GetCounts::<Appeal>::new()).await.expect("counts")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stands).await.expect("within a minute");
}

/// The form that a preview would send, with what is typed into it.
fn confirmed(preview: &Shown, typed: &str) -> String {
    let values = ["do", "id", "seen", "state", "code", "user", "age", "promised"];
    let values = values.iter().filter_map(|name| Some(format!("{name}={}", preview.field(name)?)));
    let rows = preview.body.split("name=\"row\" value=\"").skip(1);
    let rows = rows.filter_map(|row| Some(format!("row={}", row.split('"').next()?)));
    values.chain(rows).chain([typed.to_owned()]).collect::<Vec<_>>().join("&")
}

on_each_backend! {
    struct Host {
        db: Db,
        handle: Handle,
        mended: Arc<AtomicBool>,
        clock: Clock,
    }

    /// A host whose rows, from 1 on, are all parked.
    async fn parked(rows: i64, speed: f64) -> Host {
        let db = Db::migrated(DDL);
        for chunk in (1..=rows).collect::<Vec<_>>().chunks(500) {
            let ids: Vec<_> = chunk.iter().map(|id| appeals::id.eq(id)).collect();
            diesel::insert_into(appeals::table).values(ids).execute(&mut db.conn()).expect("appeals");
        }
        let mended = Arc::new(AtomicBool::new(false));
        let clock = Clock::fast(speed, began());
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(clock.clone())
            .processor(Refuse(mended.clone()))
            .sweep_every(Duration::from_millis(50))
            .start()
            .expect("it starts");
        handle.send(SubmitAll::<Appeal>::new(1..=rows)).await.expect("submitted");
        counts(&handle, |counts| i64::from(counts.parked) == rows).await;
        Host { db, handle, mended, clock }
    }

    fn actions(db: &Db) -> Vec<(String, String, Option<i32>, Option<String>)> {
        use asyncable_actions as a;
        let columns = (a::who, a::action, a::count, a::reason);
        a::table.order(a::id).select(columns).load(&mut db.conn()).expect("actions")
    }

    fn entry(who: &str, action: &str, count: i32, why: &str) -> (String, String, Option<i32>, Option<String>) {
        (who.to_owned(), action.to_owned(), Some(count), Some(why.to_owned()))
    }

    #[actix_rt::test]
    async fn all_rows_of_a_filter_are_shown_by_cause_and_restarted_once_however_often_the_form_is_sent() {
        let Host { db, handle, mended, .. } = parked(1_200, 1e-3).await;
        let app = app!(handle);
        let list = format!("do=restart&all=1&{LIST}");
        let preview = send(&app, "admin", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        assert_eq!(preview.status, StatusCode::OK);
        for part in ["Restart 1,200 of appeals?", "<code>vbms.refused</code>", ">1,080</span>", "<code>vbms.other</code>", ">120</span>"] {
            assert!(preview.body.contains(part), "{part}: {}", preview.body);
        }
        assert_eq!(actions(&db), [], "a preview does nothing");
        mended.store(true, Ordering::Relaxed);
        let form = confirmed(&preview, "why=mended");
        let mut places = Vec::new();
        for _ in 0..2 {
            let begun = send(&app, "admin", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
            assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.body);
            places.extend(begun.location);
        }
        assert_eq!(places[0], places[1]);
        let done = until(&app, "view", &places[0], |shown| shown.body.contains("Restarted 1,200 of 1,200")).await;
        assert!(!done.body.contains("left alone") && done.body.contains("mended"), "{}", done.body);
        counts(&handle, |counts| counts == Counts::default()).await;
        assert_eq!(actions(&db), [entry("Ad Min", "restarted", 1_200, "mended")]);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn rows_that_change_after_the_preview_are_left_alone_and_named() {
        let Host { db, handle, mended, .. } = parked(6, 1e-3).await;
        let app = app!(handle);
        let list = format!("do=restart&{LIST}&row=1&row=2&row=3&row=4");
        let preview = send(&app, "operate", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        assert!(preview.body.contains("Restart 4 of appeals?"), "{}", preview.body);
        mended.store(true, Ordering::Relaxed);
        // One was processed meanwhile, and one submitted anew and refused again: both are others now.
        handle.send(SubmitAll::<Appeal>::new([1])).await.expect("submitted");
        counts(&handle, |counts| counts.parked == 5 && counts.due + counts.in_flight == 0).await;
        mended.store(false, Ordering::Relaxed);
        handle.send(SubmitAll::<Appeal>::new([2])).await.expect("submitted");
        counts(&handle, |counts| counts.parked == 5 && counts.due + counts.in_flight == 0).await;
        mended.store(true, Ordering::Relaxed);
        let form = confirmed(&preview, "why=mended");
        let begun = send(&app, "operate", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
        let place = begun.location.expect("its page");
        let done = until(&app, "operate", &place, |shown| shown.body.contains("Restarted 2 of 4")).await;
        assert!(done.body.contains("2 had changed meanwhile and were left alone."), "{}", done.body);
        for row in ["appeals 1", "processed", "appeals 2", "parked"] {
            assert!(done.body.contains(row), "{row}: {}", done.body);
        }
        counts(&handle, |counts| counts.parked == 3 && counts.due + counts.in_flight == 0).await;
        let processed = appeals::table.filter(appeals::processed_at.is_not_null()).select(appeals::id).order(appeals::id);
        assert_eq!(processed.load::<i64>(&mut db.conn()).expect("ids"), [1, 3, 4], "not 2, 5 and 6");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_row_that_the_database_does_not_let_go_is_left_alone_and_stops_no_other() {
        let Host { db, handle, mended, .. } = parked(6, 1e-3).await;
        let app = app!(handle);
        db.conn().batch_execute("UPDATE appeals SET frozen = 1 WHERE id = 2").expect("frozen");
        let list = format!("do=restart&all=1&{LIST}");
        let preview = send(&app, "operate", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        mended.store(true, Ordering::Relaxed);
        let form = confirmed(&preview, "why=mended");
        let begun = send(&app, "operate", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
        let place = begun.location.expect("its page");
        let done = until(&app, "operate", &place, |shown| shown.body.contains("Restarted 5 of 6")).await;
        assert!(done.body.contains("appeals 2") && !done.body.contains("appeals 3"), "{}", done.body);
        counts(&handle, |counts| counts == { let mut one = Counts::default(); one.parked = 1; one }).await;
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_comes_to_a_filter_after_the_preview_is_not_touched() {
        let Host { db, handle, mended, .. } = parked(700, 1e-3).await;
        let app = app!(handle);
        let list = format!("do=restart&all=1&{LIST}");
        let preview = send(&app, "operate", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        assert!(preview.body.contains("Restart 700 of appeals?"), "{}", preview.body);
        diesel::insert_into(appeals::table).values(appeals::id.eq(701)).execute(&mut db.conn()).expect("an appeal");
        handle.send(SubmitAll::<Appeal>::new([701])).await.expect("submitted");
        counts(&handle, |counts| counts.parked == 701).await;
        mended.store(true, Ordering::Relaxed);
        let form = confirmed(&preview, "why=mended");
        let begun = send(&app, "operate", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
        let place = begun.location.expect("its page");
        until(&app, "operate", &place, |shown| shown.body.contains("Restarted 700 of 700")).await;
        counts(&handle, |counts| counts == { let mut one = Counts::default(); one.parked = 1; one }).await;
        handle.shutdown(Duration::ZERO).await;
    }

    /// How many of so many are done, by the page of a bulk that goes on.
    fn done_of(shown: &Shown, of: &str) -> Option<u32> {
        let (before, _) = shown.body.split_once(&format!("</span> of {of} are done"))?;
        before.rsplit('>').next()?.parse().ok()
    }

    #[actix_rt::test]
    async fn a_paced_restart_goes_on_in_batches_and_is_stopped_between_two() {
        let Host { db, handle, mended, .. } = parked(1_000, 20.0).await;
        let app = app!(handle);
        let list = format!("do=restart&all=1&{LIST}");
        let preview = send(&app, "operate", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        mended.store(true, Ordering::Relaxed);
        let form = confirmed(&preview, "why=slowly&pace=60");
        let begun = send(&app, "operate", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
        let place = begun.location.expect("its page");
        let shown = until(&app, "view", &place, |shown| done_of(shown, "1,000").is_some_and(|done| done > 10)).await;
        assert!(shown.body.contains("60 a minute") && !shown.body.contains(">Stop<"), "{}", shown.body);
        assert_eq!(done_of(&shown, "1,000").map(|done| done % 10), Some(0), "ten rows each ten seconds");
        let stopped = send(&app, "operate", &format!("{place}/stop"), Some("")).await;
        assert_eq!(stopped.status, StatusCode::SEE_OTHER);
        let again = send(&app, "operate", &format!("{place}/stop"), Some("")).await;
        assert_eq!(again.status, StatusCode::SEE_OTHER, "stopped already");
        let [(who, action, Some(done), _)] = &actions(&db)[..] else { panic!("one entry: {:?}", actions(&db)) };
        assert_eq!((who.as_str(), action.as_str()), ("Ann <em>Lee</em>", "restarted"));
        let shown = send(&app, "operate", &place, None).await;
        assert!(shown.body.contains(&format!("Restarted {done} of 1,000")) && shown.body.contains("stopped by"), "{}", shown.body);
        let left = u32::try_from(1_000 - done).expect("a count");
        counts(&handle, |counts| counts.parked == left && counts.due + counts.in_flight == 0).await;
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_one_host_has_begun_another_goes_on_with_when_it_is_gone() {
        let Host { db, handle, mended, clock } = parked(40, 20.0).await;
        let app = app!(handle);
        let list = format!("do=restart&all=1&{LIST}");
        let preview = send(&app, "operate", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        mended.store(true, Ordering::Relaxed);
        let form = confirmed(&preview, "why=slowly&pace=60");
        let begun = send(&app, "operate", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
        let place = begun.location.expect("its page");
        until(&app, "view", &place, |shown| done_of(shown, "40").is_some_and(|done| done > 0)).await;
        handle.shutdown(Duration::ZERO).await;
        let second = Supervisor::<Conn>::new(db.url())
            .clock(clock)
            .processor(Refuse(mended))
            .sweep_every(Duration::from_millis(50))
            .start()
            .expect("it starts");
        let app = app!(second);
        until(&app, "view", &place, |shown| shown.body.contains("Restarted 40 of 40")).await;
        counts(&second, |counts| counts == Counts::default()).await;
        assert_eq!(actions(&db), [entry("Ann <em>Lee</em>", "restarted", 40, "slowly")]);
        second.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn only_an_admin_cancels_many_and_only_with_their_number_typed() {
        let Host { db, handle, .. } = parked(3, 1e-3).await;
        let app = app!(handle);
        let list = format!("do=cancel&all=1&{LIST}");
        let refused = send(&app, "operate", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let preview = send(&app, "admin", &format!("{BASE}/bulk/appeals"), Some(&list)).await;
        assert!(preview.body.contains("Type 3 to confirm"), "{}", preview.body);
        let begin = format!("{BASE}/bulk/appeals/begin");
        for typed in ["why=x", "why=x&typed=2", "why=x&typed=3x", "why=&typed=3"] {
            let wrong = send(&app, "admin", &begin, Some(&confirmed(&preview, typed))).await;
            assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{typed}");
        }
        let form = confirmed(&preview, "why=duplicates&typed=3");
        assert_eq!(send(&app, "operate", &begin, Some(&form)).await.status, StatusCode::FORBIDDEN);
        let begun = send(&app, "admin", &begin, Some(&form)).await;
        let place = begun.location.expect("its page");
        until(&app, "admin", &place, |shown| shown.body.contains("Canceled 3 of 3")).await;
        assert_eq!(actions(&db), [entry("Ad Min", "canceled", 3, "duplicates")]);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_form_that_cannot_be_right_does_nothing() {
        let Host { db, handle, .. } = parked(3, 1e-3).await;
        let app = app!(handle);
        let id = "0123456789abcdef0123456789abcdef";
        let good = format!("do=restart&id={id}&seen=1&state=parked&promised=3&why=x");
        let more_than_operate_may = good.replace("promised=3", "promised=1001");
        let refused = send(&app, "operate", &format!("{BASE}/bulk/appeals/begin"), Some(&more_than_operate_may)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let rows: String = (0..501).map(|row| format!("&row={row}")).collect();
        let wrong = [
            good.replace("do=restart", "do=drop"), good.replace(id, "1"), good.replace("seen=1", "seen=x"),
            good.replace("seen=1", "seen=9223372036854775807"), good.replace("state=parked", "state=x'--"),
            good.replace("promised=3", "promised=0"), good.replace("promised=3", "promised=-1"), good.replace("why=x", "why=+"),
            good.clone() + "&pace=-1", good.clone() + "&pace=99999999999", good.clone() + "&age=x", good.replace("&promised=3", "") + &rows,
        ];
        for form in wrong {
            let shown = send(&app, "admin", &format!("{BASE}/bulk/appeals/begin"), Some(&form)).await;
            assert_eq!(shown.status, StatusCode::BAD_REQUEST, "{form}");
        }
        for (address, form) in [("/bulk/nothing/begin", good.as_str()), ("/bulk/nothing", "do=restart&row=1")] {
            let shown = send(&app, "admin", &format!("{BASE}{address}"), Some(form)).await;
            assert_eq!(shown.status, StatusCode::NOT_FOUND, "{address}");
        }
        let none = send(&app, "admin", &format!("{BASE}/bulk/appeals"), Some("do=restart&state=parked")).await;
        assert_eq!((none.status, none.body.contains("No row is ticked.")), (StatusCode::BAD_REQUEST, true));
        // Rows that are none, or of another model's keys, are nothing to act on.
        let gone = send(&app, "admin", &format!("{BASE}/bulk/appeals"), Some("do=restart&state=parked&row=99&row=x&row='--")).await;
        assert!(gone.body.contains("Nothing to restart in appeals"), "{}", gone.body);
        assert_eq!(send(&app, "view", &format!("{BASE}/bulk/appeals/{id}"), None).await.status, StatusCode::NOT_FOUND);
        assert_eq!(actions(&db), []);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_list_is_narrowed_by_user_cause_and_age_and_says_what_to_remove() {
        let Host { db, handle, .. } = parked(30, 1e-3).await;
        let app = app!(handle);
        db.conn().batch_execute("UPDATE appeals SET created_by = '<b>asmit' WHERE id > 25").expect("theirs");
        let list = |more: &str| format!("{BASE}/rows?model=appeals&state=not-done{more}");
        let ticks = |shown: &Shown| shown.body.matches("name=\"row\"").count();
        for (more, rows) in [("", 30), ("&user=%3Cb%3Easmit", 5), ("&code=vbms.other", 3), ("&user=%3Cb%3Easmit&code=vbms.other", 1), ("&user=jdoe&age=0", 25)] {
            let shown = send(&app, "operate", &list(more), None).await;
            assert_eq!((shown.status, ticks(&shown)), (StatusCode::OK, rows), "{more}");
        }
        let none = send(&app, "operate", &list("&user=%3Cb%3Easmit&age=24"), None).await;
        for part in ["No rows: appeals, not done, user <code>&lt;b&gt;asmit</code>, age over a day.", "Remove the user.", "Remove the age.", "Remove all."] {
            assert!(none.body.contains(part), "{part}: {}", none.body);
        }
        let needs = send(&app, "operate", &format!("{BASE}/rows"), None).await;
        assert_eq!(ticks(&needs), 30, "at first, what needs a person");
        handle.shutdown(Duration::ZERO).await;
    }
}
