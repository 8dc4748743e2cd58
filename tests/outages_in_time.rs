//! Outages to the second: one host in virtual time, on the same pump, gates and turns that a supervisor
//! runs. What several hosts and models do to each other is in `outages.rs`.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use asyncable::{
    AskService, Asyncable, Columns, Failure, HoldService, Outcome, RetryPolicy, Service, columns,
    measure::Simulation,
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use support::on_each_backend;

mod schema {
    diesel::table! {
        claims (id) {
            id -> BigInt,
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
            kind -> Text,
            failures -> Integer,
        }
    }
    diesel::table! {
        asyncable_services (name) {
            name -> Text,
            state -> Text,
        }
    }
}
use schema::{asyncable_retries, asyncable_services, claims};

const DDL: &str = "CREATE TABLE claims (id {key}, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX claims_work ON claims (attempted_at, submitted_at) WHERE processed_at IS NULL;";

const VBMS: Service = Service::new("vbms").open_at_percent(0);
const BGS: Service = Service::new("bgs").open_at_percent(0);

#[derive(Queryable, Selectable, Identifiable)]
struct Claim {
    id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(claims);
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

/// The same rows, to be done within half an hour, in which an outage does not count.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = claims)]
struct Urgent {
    id: i64,
}

const HALF_AN_HOUR: RetryPolicy =
    RetryPolicy::DEFAULT.every(Duration::from_secs(600)).window(Duration::from_secs(1800));

impl Asyncable for Urgent {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(claims).name("urgent");
    const POLICY: RetryPolicy = HALF_AN_HOUR;
}

/// The same, but an outage does count.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = claims)]
struct Strict {
    id: i64,
}

impl Asyncable for Strict {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(claims).name("strict");
    const POLICY: RetryPolicy = HALF_AN_HOUR.outages_count(true);
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 5, 22, 0, 0).single().expect("an instant")
}

fn at(seconds: i64) -> DateTime<Utc> {
    began() + TimeDelta::seconds(seconds)
}

/// What the service was asked: about which row, and in which second after the beginning.
type Calls = Vec<(i64, i64)>;

/// How a call ends, and after how long.
type Answer = (Outcome, Duration);

const QUICKLY: Duration = Duration::from_millis(100);

fn answered() -> Answer {
    (Ok(()), QUICKLY)
}

fn unavailable() -> Answer {
    (Err(Failure::unavailable(VBMS, "503")), QUICKLY)
}

/// Notes each call.
fn noted<'a>(
    calls: &'a mut Calls,
    mut answer: impl FnMut(i64, i64) -> Answer + 'a,
) -> impl FnMut(&Claim, DateTime<Utc>) -> Answer + 'a {
    move |claim, now| {
        let second = (now - began()).num_seconds();
        calls.push((claim.id, second));
        answer(claim.id, second)
    }
}

fn ids(calls: &[(i64, i64)]) -> Vec<i64> {
    calls.iter().map(|(id, _)| *id).collect()
}

fn seconds(calls: &[(i64, i64)]) -> Vec<i64> {
    calls.iter().map(|(_, second)| *second).collect()
}

on_each_backend! {
    /// Rows that were submitted shortly after one another, the one with the highest id first.
    fn db_of(rows: i64) -> Db {
        let db = Db::migrated(DDL);
        let apart = |id: i64| TimeDelta::milliseconds(10 * (id - rows - 1));
        let submitted = |id: i64| claims::submitted_at.eq((began() + apart(id)).naive_utc());
        let rows: Vec<_> = (1..=rows).map(|id| (claims::id.eq(rows + 1 - id), submitted(id))).collect();
        for rows in rows.chunks(1000) {
            diesel::insert_into(claims::table).values(rows).execute(&mut db.conn()).expect("claims");
        }
        db
    }

    fn host(db: &Db, services: &[Service]) -> Simulation<Claim, Conn> {
        Simulation::new(db.conn(), began(), services)
    }

    fn open_rows(conn: &mut Conn) -> i64 {
        claims::table.filter(claims::processed_at.is_null()).count().get_result(conn).expect("a count")
    }

    fn is_down(conn: &mut Conn) -> bool {
        let state = asyncable_services::table.find("vbms").select(asyncable_services::state);
        state.first::<String>(conn).expect("a service") == "open"
    }

    #[test]
    fn a_service_that_is_down_is_asked_after_half_a_minute_and_more_and_more_rarely() {
        let db = db_of(50);
        let mut calls = Calls::new();
        host(&db, &[VBMS]).run(at(1800), noted(&mut calls, |_, _| unavailable())).expect("it runs");
        // As many as ran when it was found out, with one that was claimed then, and after that one at a time.
        let found_out = calls.iter().filter(|(_, second)| *second == 0).count();
        assert!((16..=17).contains(&found_out), "{calls:?}");
        assert_eq!(seconds(&calls[found_out..]), [30, 90, 210, 450, 750, 1050, 1350, 1650]);
    }

    #[test]
    fn each_time_another_row_asks_and_when_all_have_the_one_that_waits_longest() {
        let db = db_of(20);
        let mut calls = Calls::new();
        host(&db, &[VBMS]).run(at(7200), noted(&mut calls, |_, _| unavailable())).expect("it runs");
        let mut asked = ids(&calls);
        assert_eq!(asked[..20], (1..=20).rev().collect::<Vec<_>>(), "the oldest submission first");
        // Those that failed in one turn wait since the same instant.
        asked[20..40].sort_unstable();
        assert_eq!(asked[20..40], (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn the_only_row_asks_again_and_again_whatever_it_fails_with() {
        let transient = || (Err(Failure::transient("connection refused")), QUICKLY);
        for answer in [unavailable as fn() -> Answer, transient] {
            let db = db_of(1);
            let mut calls = Calls::new();
            let service = VBMS.open_after(1);
            let mut host = host(&db, &[service]);
            host.run(at(1000), noted(&mut calls, |_, second| if second < 700 { answer() } else { answered() })).expect("it runs");
            assert_eq!(seconds(&calls), [0, 30, 90, 210, 450, 750]);
            assert_eq!(open_rows(host.conn()), 0);
        }
    }

    #[test]
    fn entries_that_speak_of_no_row_any_more_do_not_hide_the_one_that_can_ask() {
        let db = db_of(1);
        let mut calls = Calls::new();
        let mut host = host(&db, &[VBMS.open_after(1)]);
        host.run(at(5), noted(&mut calls, |_, _| unavailable())).expect("it runs");
        // Rows that failed in the outage and are gone since, all of them due before the one that is left.
        let gone: Vec<String> = (1000..1300)
            .map(|id| {
                format!(
                    "('claims', '{id}', '2026-01-05 22:00:00', '2026-01-05 22:00:00', \
                     '2026-01-05 23:00:00', 'unavailable', 1, 'x', '2026-01-05 22:00:00', \
                     '2026-01-05 22:00:00')"
                )
            })
            .collect();
        let sql = format!(
            "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, due_at, \
             kind, failures, code, first_failed_at, last_failed_at) VALUES {}",
            gone.join(", ")
        );
        host.conn().batch_execute(&sql).expect("entries");
        let before = host.turns();
        host.run(at(1000), noted(&mut calls, |_, second| if second < 200 { unavailable() } else { answered() })).expect("it runs");
        assert_eq!(seconds(&calls), [0, 30, 90, 210]);
        assert_eq!(open_rows(host.conn()), 0);
        // One for each sweep, a few for each probe, and one for each page of what was gone.
        assert!(host.turns() - before <= 100 + 4 * 3 + 5, "{} turns", host.turns() - before);
    }

    #[test]
    fn a_row_whose_call_may_have_landed_asks_when_that_has_settled() {
        let db = db_of(1);
        let mut calls = Calls::new();
        let service = VBMS.open_after(1).settles_within(Duration::from_secs(600));
        let unknown = |_, _| (Err(Failure::unknown("time-out")), QUICKLY);
        host(&db, &[service]).run(at(1400), noted(&mut calls, unknown)).expect("it runs");
        // It could be asked after 30 seconds, and after 600 there is somebody to ask; a sweep finds it.
        assert_eq!(seconds(&calls), [0, 610, 1220]);
    }

    #[test]
    fn a_refusal_says_that_the_service_is_back_and_parks_its_row() {
        let db = db_of(20);
        let mut calls = Calls::new();
        let mut host = host(&db, &[VBMS]);
        host.run(at(29), noted(&mut calls, |_, _| unavailable())).expect("it runs");
        assert!(is_down(host.conn()));
        let asks = calls.len();
        let mut refusals = (0..1).map(|_| (Err(Failure::permanent("no such file number")), QUICKLY));
        let answer = |_, _| refusals.next().unwrap_or_else(answered);
        host.run(at(60), noted(&mut calls, answer)).expect("it runs");
        assert!(!is_down(host.conn()));
        let parked: Vec<String> = asyncable_retries::table
            .filter(asyncable_retries::kind.eq("permanent"))
            .select(asyncable_retries::row_id)
            .load(host.conn())
            .expect("rows");
        assert_eq!(parked, [calls[asks].0.to_string()]);
        assert_eq!(open_rows(host.conn()), 1);
    }

    #[test]
    fn a_wait_that_the_service_asks_for_says_that_it_is_back_and_its_row_expires_in_its_time() {
        let db = db_of(1);
        let mut calls = Calls::new();
        let mut host = Simulation::<Urgent, Conn>::new(db.conn(), began(), &[VBMS.open_after(1)]);
        let hour = Duration::from_secs(3600);
        let mut call = |_: &Urgent, now: DateTime<Utc>| {
            calls.push((1, (now - began()).num_seconds()));
            match now < at(200) {
                true => unavailable(),
                false => (Err(Failure::retry_after(hour, "this file is in use")), QUICKLY),
            }
        };
        host.run(at(300), &mut call).expect("it runs");
        assert!(!is_down(host.conn()));
        host.run(at(4 * 3600), &mut call).expect("it runs");
        assert_eq!(seconds(&calls)[..4], [0, 30, 90, 210]);
        // Half an hour, and the time in which it was down: perhaps one attempt as it ends, and none after that.
        assert!(seconds(&calls)[4..].iter().all(|second| (2000..=2011).contains(second)), "{calls:?}");
        assert!(calls.len() <= 5, "{calls:?}");
    }

    #[test]
    fn an_outage_spends_the_attempts_by_which_it_is_found_out_and_no_others() {
        let db = db_of(30);
        let mut host = host(&db, &[VBMS]);
        let mut calls = Calls::new();
        host.run(at(2 * 3600), noted(&mut calls, |_, _| unavailable())).expect("it runs");
        assert!(calls.len() > 35, "{}", calls.len());
        let spent: i64 = asyncable_retries::table
            .filter(asyncable_retries::failures.gt(0))
            .count()
            .get_result(host.conn())
            .expect("a count");
        assert_eq!(spent, 4);
    }

    #[test]
    fn an_outage_costs_the_database_as_little_with_rows_as_without() {
        for rows in [0, 1, 100] {
            let db = db_of(rows);
            let mut host = host(&db, &[VBMS.open_after(1)]);
            let call = |_: &Claim, _| unavailable();
            host.run(at(60), call).expect("it runs");
            if rows == 0 {
                // Found down by another model.
                let down = "INSERT INTO asyncable_services (name, state, since, next_probe_at) \
                            VALUES ('vbms', 'open', '2026-01-05 22:00:00', '2026-01-05 22:00:30')";
                diesel::sql_query(down).execute(host.conn()).expect("down");
            }
            let before = host.turns();
            host.run(at(60 + 3600), call).expect("it runs");
            // One for each sweep, and two or three for each probe.
            let turns = host.turns() - before;
            assert!(turns <= 360 + 3 * 15, "{rows} rows: {turns} turns");
        }
    }

    #[test]
    fn an_attempt_that_hangs_while_it_asks_costs_the_database_nothing_more() {
        let db = db_of(10);
        let mut host = host(&db, &[VBMS.open_after(1)]);
        let hangs = |_: &Claim, _| (Err(Failure::unavailable(VBMS, "time-out")), Duration::from_secs(290));
        host.run(at(330), hangs).expect("it runs");
        let before = host.turns();
        host.run(at(330 + 280), hangs).expect("it runs");
        assert!(host.turns() - before <= 30, "{} turns in 280 seconds", host.turns() - before);
    }

    #[test]
    fn rows_that_failed_in_the_outage_run_when_it_ends_the_oldest_submission_first() {
        let db = db_of(40);
        let mut calls = Calls::new();
        let mut host = host(&db, &[VBMS.at_once(1).starts_per_second(20)]);
        let answer = |_, second| if second < 3000 { unavailable() } else { answered() };
        host.run(at(3600), noted(&mut calls, answer)).expect("it runs");
        assert_eq!(open_rows(host.conn()), 0);
        let up: Vec<(i64, i64)> = calls.iter().filter(|(_, second)| *second >= 3000).copied().collect();
        let failed: Vec<i64> = ids(&calls[..calls.len() - up.len()]);
        // After the one that saw it: new rows and failed ones by turns, each in their order.
        let (failed_before, fresh): (Vec<i64>, Vec<i64>) = ids(&up[1..]).into_iter().partition(|id| failed.contains(id));
        assert!(failed_before.len() >= 14 && fresh.len() >= 14, "{failed_before:?} {fresh:?}");
        assert!(failed_before.is_sorted_by(|a, b| a > b), "{failed_before:?}");
        assert!(fresh.is_sorted_by(|a, b| a > b), "{fresh:?}");
        assert!(seconds(&up).last().expect("a call") - seconds(&up)[0] < 60, "{up:?}");
    }

    #[test]
    fn parked_rows_stay_and_those_whose_calls_may_have_landed_wait_until_that_has_settled() {
        let db = db_of(5);
        let mut calls = Calls::new();
        let service = VBMS.open_after(4).at_once(1).settles_within(Duration::from_secs(900));
        let mut host = host(&db, &[service]);
        // 5 is refused; 4, 3, 2 and 1 fail for the outage, and 4 in a row make one.
        let answer = |id, second| match (id, second) {
            (5, _) => (Err(Failure::permanent("no such file number")), QUICKLY),
            (4, 0..600) => (Err(Failure::unknown("time-out")), QUICKLY),
            (_, 0..600) => unavailable(),
            _ => answered(),
        };
        host.run(at(3600), noted(&mut calls, answer)).expect("it runs");
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        last.extend(calls.iter().copied());
        // 750: the fourth time that it is asked.
        assert_eq!(last[&5], 0, "a person must act");
        assert_eq!((last[&3], last[&2], last[&1]), (750, 750, 750));
        assert!((900..=1660).contains(&last[&4]), "{calls:?}");
        assert_eq!(open_rows(host.conn()), 1);
    }

    /// Rows processed in an hour, of which the service is down the first forty minutes.
    fn processed_after_forty_minutes<M: asyncable::Stored<<Conn as Connection>::Backend>>() -> i64 {
        let db = db_of(3);
        let mut host = Simulation::<M, Conn>::new(db.conn(), began(), &[VBMS.open_after(1)]);
        let answer = |_: &M, now| if now < at(2400) { unavailable() } else { answered() };
        host.run(at(3600), answer).expect("it runs");
        3 - open_rows(host.conn())
    }

    #[test]
    fn time_in_which_the_service_is_down_does_not_count_against_a_window() {
        assert_eq!(processed_after_forty_minutes::<Urgent>(), 3);
    }

    #[test]
    fn time_in_which_the_service_is_down_counts_against_a_window_if_the_policy_says_so() {
        assert_eq!(processed_after_forty_minutes::<Strict>(), 0);
    }

    #[test]
    fn a_hold_with_an_end_ends_by_itself() {
        let db = db_of(3);
        let mut calls = Calls::new();
        let mut host = host(&db, &[VBMS.at_once(1)]);
        host.hold(HoldService::new(VBMS, "Bo Kim", "maintenance").until(at(1234))).expect("held");
        host.run(at(1300), noted(&mut calls, |_, _| answered())).expect("it runs");
        assert_eq!(seconds(&calls), [1234; 3]);
        assert_eq!(open_rows(host.conn()), 0);
    }

    #[test]
    fn a_service_that_is_down_is_asked_at_once_when_a_person_says_so() {
        let db = db_of(30);
        let mut calls = Calls::new();
        let mut host = host(&db, &[VBMS]);
        let ask = || AskService { service: VBMS, by: "Ann Lee".to_owned() };
        assert!(!host.ask(ask()).expect("asked"), "it is not down");
        host.run(at(500), noted(&mut calls, |_, _| unavailable())).expect("it runs");
        assert!(host.ask(ask()).expect("asked"));
        host.run(at(501), noted(&mut calls, |_, _| answered())).expect("it runs");
        let asked = seconds(&calls).into_iter().find(|second| *second > 450);
        assert_eq!(asked, Some(500));
        assert!(!is_down(host.conn()));
    }

    #[test]
    fn when_it_comes_back_one_attempt_runs_and_twice_as_many_after_each_full_round() {
        let db = db_of(60);
        let mut starts: Vec<DateTime<Utc>> = Vec::new();
        let mut host = host(&db, &[VBMS]);
        let second = Duration::from_secs(1);
        let answer = |_: &Claim, now| {
            if now < at(60) {
                return unavailable();
            }
            starts.push(now);
            (Ok(()), second)
        };
        host.run(at(150), answer).expect("it runs");
        // Each round lasts a second, and a few milliseconds for the database.
        let rounds: BTreeMap<i64, usize> = starts.iter().fold(BTreeMap::new(), |mut rounds, start| {
            *rounds.entry((*start - starts[0]).num_milliseconds() / 1000).or_default() += 1;
            rounds
        });
        let rounds: Vec<usize> = rounds.into_values().collect();
        assert_eq!(rounds[..6], [1, 1, 2, 4, 8, 16], "the first is the one that asked");
    }

    #[test]
    fn of_two_services_that_are_down_the_one_that_is_back_does_not_wait_for_the_other() {
        let db = db_of(40);
        let mut calls = Calls::new();
        let mut host = host(&db, &[VBMS, BGS]);
        // Each row calls vbms, and then bgs.
        let answer = |_, second| match second {
            0..2000 => unavailable(),
            2000..4000 => (Err(Failure::unavailable(BGS, "503")), QUICKLY),
            _ => answered(),
        };
        host.run(at(5000), noted(&mut calls, answer)).expect("it runs");
        assert_eq!(open_rows(host.conn()), 0);
        let news: Vec<&str> = host.news().iter().map(|(_, news)| news.as_str()).collect();
        assert_eq!(news[0], "vbms down");
        assert_eq!(news[news.len() - 1], "vbms up");
        let again = seconds(&calls).into_iter().find(|second| *second >= 4000).expect("a call");
        assert!(again <= 4300, "{again}");
    }

    #[test]
    fn nothing_is_left_behind_of_thousands_of_rows() {
        let db = db_of(5000);
        let mut host = Simulation::<Urgent, Conn>::new(db.conn(), began(), &[VBMS]);
        // Up for a minute and down for five, again and again; a tenth of the rows fails once besides.
        let (mut failed, mut in_vain) = (BTreeSet::new(), 0);
        let answer = |claim: &Urgent, now: DateTime<Utc>| {
            if (now - began()).num_seconds() % 360 >= 60 && now < at(2400) {
                in_vain += 1;
                return unavailable();
            }
            match claim.id % 10 == 0 && failed.insert(claim.id) {
                true => (Err(Failure::unavailable(VBMS, "502")), Duration::from_millis(900)),
                false => (Ok(()), Duration::from_millis(900)),
            }
        };
        host.run(at(2 * 3600), answer).expect("it runs");
        assert_eq!(open_rows(host.conn()), 0);
        assert!((50..500).contains(&in_vain), "{in_vain} calls in vain");
        assert_eq!(failed.len(), 500);
    }
}
