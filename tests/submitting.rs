//! Submit, submit at, submit all, cancel and restart, on a connection of the host's.
//!
//! A claim and a failure of another process are written by hand, as it would have left them.

mod support;

use asyncable::{
    Asyncable, Columns, Status, columns,
    original::{RowState, Scopes},
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{ConnectionManager, Pool},
    result::Error,
};
use schema::*;
use support::*;

mod schema {
    diesel::table! {
        reviews (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    // One column is `submitted_at` and `last_submitted_at`, and none says canceled.
    diesel::table! {
        letters (id) {
            id -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        asyncable_retries (model, row_id) {
            model -> Text,
            row_id -> Text,
        }
    }
}

const DDL: &str = "
    CREATE TABLE reviews (id {key}, submitted_at TIMESTAMP, last_submitted_at TIMESTAMP,
      attempted_at TIMESTAMP, processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT);
    CREATE TABLE letters (id TEXT PRIMARY KEY, submitted_at TIMESTAMP, attempted_at TIMESTAMP,
      processed_at TIMESTAMP, error TEXT);";

#[derive(Debug, Queryable, Selectable, Identifiable)]
#[diesel(table_name = reviews)]
struct Review {
    id: i64,
}

impl Asyncable for Review {
    type Id = i64;
    const COLUMNS: Columns<reviews::table> = columns!(
        reviews,
        submitted_at,
        attempted_at,
        processed_at,
        error,
        last_submitted_at = last_submitted_at,
        canceled_at = canceled_at
    );
}

#[derive(Debug, Queryable, Selectable, Identifiable)]
#[diesel(table_name = letters)]
struct Letter {
    id: String,
}

impl Asyncable for Letter {
    type Id = String;
    const COLUMNS: Columns<letters::table> = columns!(letters);
}

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 13, 12, 0, 0).single().expect("an instant")
}

fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    now() - TimeDelta::minutes(minutes)
}

fn micros(micros: i64) -> TimeDelta {
    TimeDelta::microseconds(micros)
}

/// A row submitted at one instant, and nothing since.
fn submitted(at: DateTime<Utc>) -> RowState {
    RowState { submitted_at: Some(at), last_submitted_at: Some(at), ..RowState::default() }
}

/// A row that was submitted an hour ago and attempted five minutes ago.
fn attempted() -> RowState {
    RowState {
        attempted_at: Some(minutes_ago(5)),
        error: Some("io no answer".to_owned()),
        ..submitted(minutes_ago(60))
    }
}

on_each_backend! {
    /// Puts review 1 there as it is given.
    fn stage(state: &RowState) -> (Db, Conn) {
        let db = Db::migrated(DDL);
        let mut conn = db.conn();
        put(&mut conn, 1, state);
        (db, conn)
    }

    pub(super) fn put(conn: &mut Conn, id: i64, state: &RowState) {
        let naive = |at: Option<DateTime<Utc>>| at.map(|at| at.naive_utc());
        diesel::insert_into(reviews::table)
            .values((
                reviews::id.eq(id),
                reviews::submitted_at.eq(naive(state.submitted_at)),
                reviews::last_submitted_at.eq(naive(state.last_submitted_at)),
                reviews::attempted_at.eq(naive(state.attempted_at)),
                reviews::processed_at.eq(naive(state.processed_at)),
                reviews::canceled_at.eq(naive(state.canceled_at)),
                reviews::error.eq(&state.error),
            ))
            .execute(conn)
            .expect("a review");
    }

    pub(super) fn review(conn: &mut Conn, id: i64) -> RowState {
        reviews::table.find(id).select(Review::row_state()).first(conn).expect("the review")
    }

    fn letter(conn: &mut Conn, id: &str) -> RowState {
        letters::table.find(id).select(Letter::row_state()).first(conn).expect("the letter")
    }

    /// The claim of an attempt that began five minutes ago; its lease ends so many minutes from now.
    fn claim(conn: &mut Conn, model: &str, minutes: i64) {
        conn.batch_execute(&format!(
            "INSERT INTO asyncable_claims (model, claimed_at, host, expires_at) \
             VALUES ('{model}', '{}', 'another host', '{}')",
            minutes_ago(5).naive_utc(),
            minutes_ago(-minutes).naive_utc(),
        ))
        .expect("a claim");
    }

    /// The entry of an attempt that began five minutes ago and failed.
    fn failure(conn: &mut Conn, model: &str, row_id: &str) {
        let (at, submitted) = (minutes_ago(5).naive_utc(), minutes_ago(60).naive_utc());
        conn.batch_execute(&format!(
            "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, \
             kind, failures, code, first_failed_at, last_failed_at) VALUES \
             ('{model}', '{row_id}', '{at}', '{submitted}', 'permanent', 1, 'io', '{at}', '{at}')"
        ))
        .expect("an entry");
    }

    #[test]
    fn submitting_a_new_row_makes_it_due_at_once() {
        let (_db, mut conn) = stage(&RowState::default());
        Review::as_of(now()).submit(&mut conn, 1).expect("submit");
        assert_eq!(review(&mut conn, 1), submitted(now()));
    }

    #[test]
    fn submitting_by_the_clock_sets_both_instants_to_the_same() {
        let (_db, mut conn) = stage(&RowState::default());
        Review::submit(&mut conn, 1).expect("submit");
        let state = review(&mut conn, 1);
        let asked = state.submitted_at.expect("submitted_at");
        assert_eq!(state, submitted(asked));
    }

    #[test]
    fn submitting_again_leaves_nothing_of_the_earlier_submission() {
        let earlier = RowState {
            processed_at: Some(minutes_ago(1)),
            canceled_at: Some(minutes_ago(1)),
            ..attempted()
        };
        let (_db, mut conn) = stage(&earlier);
        Review::as_of(now()).submit(&mut conn, 1).expect("submit");
        assert_eq!(review(&mut conn, 1), submitted(now()));
    }

    #[test]
    fn a_delay_moves_only_the_last_submission_and_to_the_microsecond() {
        let (_db, mut conn) = stage(&RowState::default());
        let tomorrow = now() + TimeDelta::days(1) + TimeDelta::nanoseconds(123_456_789);
        Review::as_of(now()).submit_at(&mut conn, 1, tomorrow).expect("submit_at");
        let kept = now() + TimeDelta::days(1) + micros(123_456);
        let expected = RowState { last_submitted_at: Some(kept), ..submitted(now()) };
        assert_eq!(review(&mut conn, 1), expected);
    }

    #[test]
    fn a_delay_to_the_end_of_time_is_neither_due_nor_expired() {
        let (_db, mut conn) = stage(&RowState::default());
        Review::as_of(now()).submit_at(&mut conn, 1, DateTime::<Utc>::MAX_UTC).expect("submit_at");
        let (due, expired) = (Review::due().at(now()), Review::expired().at(now()));
        let said: (Option<bool>, Option<bool>, Status) = reviews::table
            .find(1)
            .select((due, expired, Review::status().at(now())))
            .first(&mut conn)
            .expect("a row");
        assert_eq!(said, (Some(false), Some(false), Status::Submitted));
    }

    #[test]
    fn a_delay_into_the_past_is_none() {
        let (_db, mut conn) = stage(&RowState::default());
        Review::as_of(now()).submit_at(&mut conn, 1, minutes_ago(60)).expect("submit_at");
        assert_eq!(review(&mut conn, 1), submitted(now()));
    }

    #[test]
    fn a_generation_never_comes_back_even_if_the_clock_does() {
        let (_db, mut conn) = stage(&RowState::default());
        let mut generations = Vec::new();
        for attempt in [false, true] {
            for at in [now(), now(), minutes_ago(90)] {
                if attempt {
                    diesel::update(reviews::table)
                        .set(reviews::attempted_at.eq(minutes_ago(5).naive_utc()))
                        .execute(&mut conn)
                        .expect("an attempt");
                }
                Review::as_of(at).submit(&mut conn, 1).expect("submit");
                generations.push(review(&mut conn, 1).submitted_at);
            }
        }
        assert_eq!(generations, (0..6).map(|n| Some(now() + micros(n))).collect::<Vec<_>>());
    }

    #[test]
    fn a_running_row_keeps_its_attempt_and_is_due_once_that_ends() {
        let (_db, mut conn) = stage(&attempted());
        claim(&mut conn, "reviews", 1);
        Review::as_of(now()).submit(&mut conn, 1).expect("submit");
        let expected = RowState { attempted_at: Some(minutes_ago(5)), ..submitted(now()) };
        assert_eq!(review(&mut conn, 1), expected);
    }

    #[test]
    fn no_submission_can_be_mistaken_for_the_one_that_a_running_attempt_has_seen() {
        // The claim's clock is ahead of the submitter's.
        let ahead = RowState { attempted_at: Some(minutes_ago(5)), ..submitted(minutes_ago(5)) };
        let (_db, mut conn) = stage(&ahead);
        claim(&mut conn, "reviews", 1);
        Review::as_of(minutes_ago(7)).submit(&mut conn, 1).expect("submit");
        let next = Some(minutes_ago(5) + micros(1));
        let expected = RowState { submitted_at: next, last_submitted_at: next, ..ahead };
        assert_eq!(review(&mut conn, 1), expected);
    }

    #[test]
    fn an_attempt_that_is_over_is_cleared() {
        // Lapsed; failed, with a batch-mate still running; processed and canceled under a live lease.
        let gone = [
            (attempted(), -1, false),
            (attempted(), 1, true),
            (RowState { processed_at: Some(now()), ..attempted() }, 1, false),
            (RowState { canceled_at: Some(now()), ..attempted() }, 1, false),
        ];
        for (state, lease, failed) in gone {
            let (_db, mut conn) = stage(&state);
            claim(&mut conn, "reviews", lease);
            if failed {
                failure(&mut conn, "reviews", "1");
            }
            Review::as_of(now()).submit(&mut conn, 1).expect("submit");
            assert_eq!(review(&mut conn, 1), submitted(now()), "{state:?}, {lease}, {failed}");
        }
    }

    #[test]
    fn another_models_lease_says_nothing() {
        let (_db, mut conn) = stage(&attempted());
        claim(&mut conn, "letters", 1);
        Review::as_of(now()).submit(&mut conn, 1).expect("submit");
        assert_eq!(review(&mut conn, 1), submitted(now()));
    }

    #[test]
    fn a_submission_lives_and_dies_with_the_hosts_transaction() {
        let (_db, mut conn) = stage(&RowState::default());
        put(&mut conn, 2, &attempted());
        let act = |conn: &mut Conn| {
            Review::as_of(now()).submit(conn, 1)?;
            Review::as_of(now()).submit(conn, 2)
        };

        let undone = conn.transaction(|conn| {
            act(conn)?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        let after_rollback = (review(&mut conn, 1), review(&mut conn, 2));
        conn.transaction(act).expect("commit");
        let after_commit = (review(&mut conn, 1), review(&mut conn, 2));

        assert_eq!(undone, Err(Error::RollbackTransaction));
        assert_eq!(after_rollback, (RowState::default(), attempted()));
        assert_eq!(after_commit, (submitted(now()), submitted(now())));
    }

    #[test]
    fn every_operation_takes_a_pooled_connection() {
        let db = Db::migrated(DDL);
        put(&mut db.conn(), 1, &RowState::default());
        let pool = Pool::builder().max_size(1).build(ConnectionManager::<Conn>::new(db.url()));
        let mut conn = pool.expect("a pool").get().expect("a pooled connection");
        let then = Review::as_of(now());

        then.submit(&mut conn, 1).expect("submit");
        then.submit_at(&mut conn, 1, minutes_ago(-1)).expect("submit_at");
        let found = then.submit_all(&mut conn, &[1]).expect("submit_all");
        let canceled = then.cancel(&mut conn, 1).expect("cancel");
        let restarted = then.restart(&mut conn, 1).expect("restart");

        let expected = RowState { last_submitted_at: Some(now()), ..submitted(now() + micros(2)) };
        assert_eq!((found, canceled, restarted, review(&mut conn, 1)), (1, true, true, expected));
    }

    #[test]
    fn a_row_that_is_not_there_is_not_found() {
        let (_db, mut conn) = stage(&RowState::default());
        let conn = &mut conn;
        let answers = [
            Review::submit(conn, 9),
            Review::submit_at(conn, 9, now()),
            Review::cancel(conn, 9).map(drop),
            Review::restart(conn, 9).map(drop),
        ];
        let none = Review::submit_all(conn, &[9]);
        assert_eq!((answers, none), ([const { Err(Error::NotFound) }; 4], Ok(0)));
    }

    #[test]
    fn submitting_many_answers_how_many_of_them_there_are() {
        let (_db, mut conn) = stage(&attempted());
        // More than one statement names, some attempted, one named twice, two not there.
        for id in 2..=300 {
            put(&mut conn, id, &if id % 3 == 0 { attempted() } else { RowState::default() });
        }
        let ids: Vec<i64> = (1..=302).chain([7]).collect();

        let found = Review::as_of(now()).submit_all(&mut conn, &ids).expect("submit_all");

        let states: Vec<RowState> = reviews::table
            .filter(reviews::id.ne(7))
            .select(Review::row_state())
            .load(&mut conn)
            .expect("states");
        assert_eq!((found, states.len()), (300, 299));
        assert!(states.iter().all(|state| *state == submitted(now())), "{states:?}");
    }

    #[test]
    fn submitting_none_does_nothing() {
        let (_db, mut conn) = stage(&attempted());
        let found = Review::submit_all(&mut conn, &[]).expect("submit_all");
        assert_eq!((found, review(&mut conn, 1)), (0, attempted()));
    }

    #[test]
    fn canceling_keeps_all_but_says_when() {
        let (_db, mut conn) = stage(&attempted());
        claim(&mut conn, "reviews", 1);
        let done = Review::as_of(now()).cancel(&mut conn, 1).expect("cancel");
        let expected = RowState { canceled_at: Some(now()), ..attempted() };
        assert_eq!((done, review(&mut conn, 1)), (true, expected));
    }

    #[test]
    fn canceling_twice_keeps_the_first_time() {
        let (_db, mut conn) = stage(&RowState { canceled_at: Some(minutes_ago(1)), ..attempted() });
        let done = Review::as_of(now()).cancel(&mut conn, 1).expect("cancel");
        let expected = RowState { canceled_at: Some(minutes_ago(1)), ..attempted() };
        assert_eq!((done, review(&mut conn, 1)), (false, expected));
    }

    #[test]
    fn a_processed_row_is_neither_canceled_nor_restarted() {
        let processed = RowState { processed_at: Some(minutes_ago(1)), ..attempted() };
        let (_db, mut conn) = stage(&processed);
        let canceled = Review::as_of(now()).cancel(&mut conn, 1).expect("cancel");
        let restarted = Review::as_of(now()).restart(&mut conn, 1).expect("restart");
        assert_eq!((canceled, restarted, review(&mut conn, 1)), (false, false, processed));
    }

    #[test]
    fn a_model_without_the_column_refuses_to_cancel() {
        let (_db, mut conn) = stage(&RowState::default());
        conn.batch_execute("INSERT INTO letters (id) VALUES ('a')").expect("a letter");
        let refused = Letter::cancel(&mut conn, "a").expect_err("canceled");
        assert_eq!(refused.to_string(), "letters names no canceled_at column");
    }

    #[test]
    fn restarting_begins_the_same_submission_again() {
        let (_db, mut conn) = stage(&RowState { canceled_at: Some(now()), ..attempted() });
        failure(&mut conn, "reviews", "1");
        failure(&mut conn, "reviews", "2");
        let restarted = Review::as_of(now()).restart(&mut conn, 1).expect("restart");
        let entries: Vec<String> = asyncable_retries::table
            .select(asyncable_retries::row_id)
            .load(&mut conn)
            .expect("entries");
        let expected = RowState { last_submitted_at: Some(now()), ..submitted(minutes_ago(60)) };
        assert_eq!(
            (restarted, review(&mut conn, 1), entries),
            (true, expected, vec!["2".to_owned()])
        );
    }

    #[test]
    fn restarting_a_running_row_keeps_its_attempt() {
        let (_db, mut conn) = stage(&attempted());
        claim(&mut conn, "reviews", 1);
        Review::as_of(minutes_ago(7)).restart(&mut conn, 1).expect("restart");
        let expected = RowState {
            last_submitted_at: Some(minutes_ago(5) + micros(1)),
            attempted_at: Some(minutes_ago(5)),
            ..submitted(minutes_ago(60))
        };
        assert_eq!(review(&mut conn, 1), expected);
    }

    #[test]
    fn a_row_that_was_never_submitted_is_not_restarted() {
        let foreign = RowState { attempted_at: Some(minutes_ago(5)), ..RowState::default() };
        let (_db, mut conn) = stage(&foreign);
        let restarted = Review::as_of(now()).restart(&mut conn, 1).expect("restart");
        assert_eq!((restarted, review(&mut conn, 1)), (false, foreign));
    }

    #[test]
    fn where_one_column_is_both_it_moves_with_the_delay_and_above_the_attempt() {
        let (_db, mut conn) = stage(&RowState::default());
        conn.batch_execute("INSERT INTO letters (id) VALUES ('a')").expect("a letter");
        let mut seen = Vec::new();
        Letter::as_of(now()).submit(&mut conn, "a").expect("submit");
        seen.push(letter(&mut conn, "a"));
        Letter::as_of(now()).submit_at(&mut conn, "a", minutes_ago(-9)).expect("submit_at");
        seen.push(letter(&mut conn, "a"));
        diesel::update(letters::table)
            .set(letters::attempted_at.eq(minutes_ago(5).naive_utc()))
            .execute(&mut conn)
            .expect("an attempt");
        claim(&mut conn, "letters", 1);
        Letter::as_of(minutes_ago(6)).submit(&mut conn, "a").expect("submit");
        seen.push(letter(&mut conn, "a"));
        Letter::as_of(now()).restart(&mut conn, "a").expect("restart");
        seen.push(letter(&mut conn, "a"));

        let running = |state| RowState { attempted_at: Some(minutes_ago(5)), ..state };
        let expected = [
            submitted(now()),
            submitted(minutes_ago(-9)),
            running(submitted(minutes_ago(5) + micros(1))),
            running(submitted(now())),
        ];
        assert_eq!(seen, expected);
    }

    mod zoned {
        use super::Zoned;
        diesel::table! {
            use diesel::sql_types::*;
            use super::Zoned;

            visits (id) {
                id -> Integer,
                asked_at -> Nullable<Zoned>,
                submitted_at -> Nullable<Zoned>,
                attempted_at -> Nullable<Zoned>,
                processed_at -> Nullable<Zoned>,
                canceled_at -> Nullable<Zoned>,
                error -> Nullable<Text>,
            }
        }
    }
    use zoned::visits;

    #[derive(Debug, Queryable, Selectable, Identifiable)]
    #[diesel(table_name = visits)]
    struct Visit {
        id: i32,
    }

    impl Asyncable for Visit {
        type Id = i32;
        const COLUMNS: Columns<visits::table> = columns!(
            visits, asked_at, attempted_at, processed_at, error,
            last_submitted_at = submitted_at, canceled_at = canceled_at
        );
    }

    #[test]
    fn instants_with_a_zone_are_written_as_the_same_instants() {
        let db = Db::migrated(
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, asked_at TIMESTAMPTZ, \
             submitted_at TIMESTAMPTZ, attempted_at TIMESTAMPTZ, processed_at TIMESTAMPTZ, \
             canceled_at TIMESTAMPTZ, error TEXT)",
        );
        let mut conn = db.conn();
        if BACKEND == "PostgreSQL" {
            conn.batch_execute("SET TIME ZONE 'America/New_York'").expect("a zone");
        }
        diesel::insert_into(visits::table)
            .values((visits::id.eq(1), visits::attempted_at.eq(Some(minutes_ago(5)))))
            .execute(&mut conn)
            .expect("a visit");
        claim(&mut conn, "visits", 1);

        Visit::as_of(now()).submit(&mut conn, 1).expect("submit");
        Visit::as_of(now() + micros(1)).submit_at(&mut conn, 1, minutes_ago(-9)).expect("later");
        Visit::as_of(now() + micros(2)).cancel(&mut conn, 1).expect("cancel");

        let found: RowState =
            visits::table.find(1).select(Visit::row_state()).first(&mut conn).expect("a visit");
        let expected = RowState {
            submitted_at: Some(now() + micros(1)),
            last_submitted_at: Some(minutes_ago(-9)),
            attempted_at: Some(minutes_ago(5)),
            canceled_at: Some(now() + micros(2)),
            ..RowState::default()
        };
        assert_eq!(found, expected);
    }
}

/// SQLite keeps an instant as the text that its writer chose.
#[cfg(feature = "sqlite")]
mod odd_spellings {
    use super::*;
    use diesel::SqliteConnection;

    #[test]
    fn a_generation_rises_above_one_that_another_program_spelled() {
        let spellings = [
            "2026-03-13T12:00:00Z",
            "2026-03-13 12:00:00.000000",
            "2026-03-13T12:00:00.000Z",
            "2026-03-13 12:00:00+00:00",
        ];
        for spelling in spellings {
            let db = TestDb::<SqliteConnection>::migrated(DDL);
            let mut conn = db.conn();
            conn.batch_execute(&format!(
                "INSERT INTO reviews (id, submitted_at, last_submitted_at) \
                 VALUES (1, '{spelling}', '{spelling}')"
            ))
            .expect("a review");
            Review::as_of(now()).submit(&mut conn, 1).expect("submit");
            let state: RowState =
                reviews::table.find(1).select(Review::row_state()).first(&mut conn).expect("row");
            let expected =
                RowState { last_submitted_at: Some(now()), ..submitted(now() + micros(1)) };
            assert_eq!(state, expected, "{spelling}");
        }
    }

    #[test]
    fn an_attempt_that_another_program_spelled_does_not_stop_a_submission_or_a_restart() {
        for spelling in ["2026-03-13T11:55:00Z", "2026-03-13 11:55:00.500000", "not an instant"] {
            let db = TestDb::<SqliteConnection>::migrated(DDL);
            let mut conn = db.conn();
            conn.batch_execute(&format!(
                "INSERT INTO reviews (id, submitted_at, last_submitted_at, attempted_at) \
                 VALUES (1, '2026-03-13 11:00:00', '2026-03-13 11:00:00', '{spelling}'), \
                        (2, '2026-03-13 11:00:00', '2026-03-13 11:00:00', '{spelling}')"
            ))
            .expect("reviews");
            Review::as_of(now()).submit(&mut conn, 1).expect("submit");
            Review::as_of(now()).restart(&mut conn, 2).expect("restart");
            let states: Vec<RowState> = reviews::table
                .order(reviews::id)
                .select(Review::row_state())
                .load(&mut conn)
                .expect("rows");
            let restarted =
                RowState { last_submitted_at: Some(now()), ..submitted(minutes_ago(60)) };
            assert_eq!(states, [submitted(now()), restarted], "{spelling}");
        }
    }
}

/// Between a claim and a submission of the same row, on a database that has row locks.
#[cfg(feature = "postgres")]
mod races {
    use super::*;
    use diesel::{
        PgConnection, dsl,
        sql_types::{Bool, Integer},
    };
    use std::time::{Duration, Instant};

    /// Until the backend waits for a lock that another holds.
    fn await_lock(conn: &mut PgConnection, backend: i32) {
        let began = Instant::now();
        let waits = format!("cardinality(pg_blocking_pids({backend})) > 0");
        while !diesel::select(dsl::sql::<Bool>(&waits)).get_result::<bool>(conn).expect("waits") {
            assert!(began.elapsed() < Duration::from_secs(30), "the submission never waited");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_submission_that_waited_for_a_claim_finds_its_lease() {
        for state in [submitted(minutes_ago(60)), attempted()] {
            let db = TestDb::<PgConnection>::migrated(DDL);
            let (mut claimer, mut submitter) = (db.conn(), db.conn());
            let mut watcher = db.conn();
            postgres::put(&mut claimer, 1, &state);
            let backend = diesel::select(dsl::sql::<Integer>("pg_backend_pid()"));
            let backend: i32 = backend.get_result(&mut submitter).expect("a backend");
            let token = minutes_ago(2);

            std::thread::scope(|scope| {
                claimer
                    .transaction(|claimer| {
                        claimer.batch_execute(&format!(
                            "INSERT INTO asyncable_claims VALUES \
                             ('reviews', '{0}', 'another host', '{1}'); \
                             UPDATE reviews SET attempted_at = '{0}'",
                            token.naive_utc(),
                            minutes_ago(-1).naive_utc(),
                        ))?;
                        scope.spawn(|| Review::as_of(now()).submit(&mut submitter, 1));
                        await_lock(&mut watcher, backend);
                        QueryResult::Ok(())
                    })
                    .expect("a claim");
            });

            let expected = RowState { attempted_at: Some(token), ..submitted(now()) };
            assert_eq!(postgres::review(&mut claimer, 1), expected);
        }
    }
}
