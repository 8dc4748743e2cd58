//! Why a row is not running, told from the definitions that the claim goes by.

mod support;

use std::collections::BTreeSet;

use asyncable::{Asyncable, Columns, Explanation, Service, Status, columns, measure};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use support::on_each_backend;

mod schema {
    diesel::table! {
        visits (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::visits;

const DDL: &str = "CREATE TABLE visits (id {key}, submitted_at TIMESTAMP, last_submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
    CREATE INDEX visits_work ON visits (attempted_at, last_submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL;";

const VBMS: Service = Service::new("vbms");
const BGS: Service = Service::new("bgs");

#[derive(Queryable, Selectable, Identifiable)]
struct Visit {
    id: i64,
}

impl Asyncable for Visit {
    type Id = i64;
    const COLUMNS: Columns<visits::table> =
        columns!(visits, last_submitted_at = last_submitted_at, canceled_at = canceled_at);
}

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

/// An instant so many minutes after now, as SQL.
fn at(minutes: i64) -> String {
    format!("'{}'", (now() + TimeDelta::minutes(minutes)).format("%Y-%m-%d %H:%M:%S%.f"))
}

/// Small numbers without a pattern, the same ones for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// One of the instants around which rules change: intervals, windows, now.
    fn minutes(&mut self) -> i64 {
        const EDGES: [i64; 9] = [-7 * 1440, -4 * 1440, -1440, -180, -60, -1, 0, 1, 60];
        let edge = EDGES[self.roll(9) as usize];
        edge + self.roll(3) as i64 - 1
    }
}

/// A row in any state, possible or not, with what the library's tables say of it.
fn random_row(dice: &mut Dice, id: u64) -> String {
    let maybe = |dice: &mut Dice, one_in: u64, text: String| match dice.roll(one_in) {
        0 => "NULL".to_owned(),
        _ => text,
    };
    let last = dice.minutes();
    let last = maybe(dice, 10, at(last));
    let attempted = dice.minutes();
    let token = at(attempted);
    let attempted = if dice.roll(3) == 0 { "NULL".to_owned() } else { token.clone() };
    let processed = if dice.roll(10) == 0 { at(-5) } else { "NULL".to_owned() };
    let canceled = if dice.roll(10) == 0 { at(-5) } else { "NULL".to_owned() };
    let mut sql = format!(
        "INSERT INTO visits VALUES ({id}, {last}, {last}, {attempted}, {processed}, {canceled}, NULL); "
    );
    if dice.roll(2) == 0 {
        let expires = dice.minutes();
        let expires = maybe(dice, 3, at(expires));
        sql += &format!(
            "INSERT INTO asyncable_claims (model, claimed_at, host, expires_at) \
             VALUES ('visits', {token}, 'app-1', {expires}) ON CONFLICT DO NOTHING; "
        );
    }
    if dice.roll(2) == 0 && last != "NULL" {
        let of = if dice.roll(5) == 0 { at(-2) } else { last.clone() };
        let (kind, due) = match dice.roll(5) {
            0 => ("permanent", "NULL".to_owned()),
            1 => ("unknown", at(dice.minutes())),
            2 => ("unavailable", at(dice.minutes())),
            3 => ("transient", "NULL".to_owned()),
            _ => ("transient", at(dice.minutes())),
        };
        sql += &format!(
            "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
             due_at, kind, failures, code, first_failed_at, last_failed_at) VALUES ('visits', '{id}', \
             {token}, {of}, {of}, {due}, '{kind}', 1, 'code', {token}, {token}); "
        );
    }
    sql
}

fn random_service(dice: &mut Dice, name: &str) -> String {
    if dice.roll(2) == 0 {
        return String::new();
    }
    let open = dice.roll(2) == 0;
    let state = if open { "open" } else { "closed" };
    let next = if open { at(dice.minutes()) } else { "NULL".to_owned() };
    let held = match dice.roll(6) {
        0 => format!("{}, NULL", at(-30)),
        1 => format!("{}, {}", at(-30), at(dice.minutes())),
        _ => "NULL, NULL".to_owned(),
    };
    let mut sql = format!(
        "INSERT INTO asyncable_services (name, state, since, next_probe_at, held_since, held_until, \
         held_by, held_reason) VALUES ('{name}', '{state}', {}, {next}, {held}, 'Bo', 'why'); ",
        at(-120)
    );
    if open {
        sql += &format!(
            "INSERT INTO asyncable_outages (service, since) VALUES ('{name}', {}); ",
            at(-120)
        );
    }
    sql
}

on_each_backend! {
    fn explained(conn: &mut Conn, id: i64) -> Explanation {
        Visit::as_of(now()).explain(conn, id).expect("a row")
    }

    fn explain_one(row: &str) -> Explanation {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        conn.batch_execute(&alive()).expect("a host");
        conn.batch_execute(row).expect("a row");
        explained(conn, 1)
    }

    fn alive() -> String {
        format!(
            "INSERT INTO asyncable_hosts (host, model, services, seen_at) \
             VALUES ('app-1', 'visits', 'bgs,vbms', {});",
            at(0)
        )
    }

    /// The promise: what is said of a row is what a claim at that instant does with it.
    #[test]
    fn rows_that_are_said_to_be_due_are_those_that_a_claim_takes() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        let (mut due_rows, mut waiting_rows, mut others) = (0, 0, 0);
        for seed in 0..150 {
            let mut dice = Dice(seed);
            let empty = "DELETE FROM visits; DELETE FROM asyncable_claims; DELETE FROM asyncable_retries; \
                DELETE FROM asyncable_services; DELETE FROM asyncable_outages; DELETE FROM asyncable_hosts;";
            let mut rows = empty.to_owned() + &alive();
            rows += &random_service(&mut dice, "bgs");
            rows += &random_service(&mut dice, "vbms");
            (1..=25).for_each(|id| rows += &random_row(&mut dice, id));
            conn.batch_execute(&rows).expect("rows");
            let said: Vec<(i64, Explanation)> = (1..=25).map(|id| (id, explained(conn, id))).collect();
            let claimed = measure::claimable::<Visit, Conn>(conn, now(), 256, &[BGS, VBMS]).expect("a claim");
            let claimed: BTreeSet<i64> = claimed.iter().map(|id| id.parse().expect("an id")).collect();
            let ids = |which: fn(&Explanation) -> bool| -> BTreeSet<i64> {
                said.iter().filter(|(_, said)| which(said)).map(|(id, _)| *id).collect()
            };
            let due = ids(|said| matches!(said, Explanation::Due { .. }));
            let waiting = ids(|said| matches!(said, Explanation::WaitingForService { .. }));
            let held = ids(|said| matches!(said, Explanation::ServiceHeld { .. }));
            due_rows += due.len();
            waiting_rows += waiting.len() + held.len();
            others += said.len() - due.len() - waiting.len() - held.len();
            if waiting.is_empty() && held.is_empty() {
                let differ: Vec<_> = claimed.symmetric_difference(&due).collect();
                let differ: Vec<_> = said.iter().filter(|(id, _)| differ.contains(&id)).collect();
                assert_eq!(claimed, due, "seed {seed}: {differ:?}");
            } else {
                assert_eq!(due, BTreeSet::new(), "seed {seed}: the services are all rows'");
                // One of those that wait may ask. So may one that failed for the want of it, before its
                // time; nothing else.
                let failing = ids(|said| matches!(said, Explanation::Failing { .. }));
                assert!(claimed.len() <= usize::from(held.is_empty()), "seed {seed}");
                assert!(claimed.iter().all(|id| waiting.contains(id) || failing.contains(id)), "seed {seed}");
            }
            assert!(said.iter().all(|(_, said)| !said.to_string().is_empty()));
        }
        assert!(due_rows > 100 && waiting_rows > 100 && others > 1000, "{due_rows} {waiting_rows} {others}");
    }

    #[test]
    fn each_state_is_told_with_its_instants() {
        let (last, token) = (at(-60), at(-50));
        let instant = |minutes: i64| now() + TimeDelta::minutes(minutes);
        let row = |attempted: &str, processed: &str, canceled: &str| {
            format!("INSERT INTO visits VALUES (1, {last}, {last}, {attempted}, {processed}, {canceled}, NULL); ")
        };
        let entry = |kind: &str, due: &str| {
            format!(
                "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
                 due_at, kind, failures, code, first_failed_at, last_failed_at) VALUES ('visits', '1', \
                 {token}, {last}, {last}, {due}, '{kind}', 2, 'post.busy', {token}, {token}); "
            )
        };
        let failed = row(&token, "NULL", "NULL");
        assert_eq!(
            explain_one("INSERT INTO visits (id) VALUES (1)"),
            Explanation::NotSubmitted
        );
        assert_eq!(explain_one(&row("NULL", "NULL", "NULL")), Explanation::Due { ahead: 0 });
        assert_eq!(
            explain_one(&row("NULL", "NULL", "NULL").replace(&last, &at(5))),
            Explanation::Scheduled { due_at: instant(5) }
        );
        assert_eq!(
            explain_one(&(failed.clone() + &entry("transient", &at(130)))),
            Explanation::Failing {
                code: "post.busy".to_owned(),
                next_at: instant(130),
                failures: 2,
                since: instant(-50),
                window_ends: instant(4 * 1440 - 60),
            }
        );
        assert_eq!(
            explain_one(&(failed.clone() + &entry("unknown", &at(10)))),
            Explanation::Unknown { code: "post.busy".to_owned(), asked_at: instant(10), failures: 2 }
        );
        assert_eq!(
            explain_one(&(failed.clone() + &entry("permanent", "NULL"))),
            Explanation::Parked { code: "post.busy".to_owned(), since: instant(-50), failures: 2 }
        );
        let claim = |expires: &str| {
            format!("INSERT INTO asyncable_claims VALUES ('visits', {token}, 'app-1', {expires});")
        };
        assert_eq!(
            explain_one(&(failed.clone() + &claim(&at(1)))),
            Explanation::Running { host: "app-1".to_owned(), until: instant(1) }
        );
        assert_eq!(
            explain_one(&(failed.clone() + &claim(&at(-1)))),
            Explanation::Lapsed { host: "app-1".to_owned(), since: instant(-1) }
        );
        assert_eq!(explain_one(&failed), Explanation::Orphaned { due_at: instant(130) });
        assert_eq!(
            explain_one(&row(&token, &at(-40), "NULL")),
            Explanation::Processed { at: instant(-40) }
        );
        assert_eq!(
            explain_one(&row("NULL", "NULL", &at(-40))),
            Explanation::Canceled { at: instant(-40) }
        );
        assert_eq!(
            explain_one(&row("NULL", "NULL", "NULL").replace(&last, &at(-5 * 1440))),
            Explanation::Expired { at: instant(-1440) }
        );
    }

    #[test]
    fn a_due_row_that_nobody_may_run_says_so() {
        let due = format!("INSERT INTO visits VALUES (1, {0}, {0}, NULL, NULL, NULL, NULL); ", at(-60));
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        conn.batch_execute(&due).expect("a row");
        assert_eq!(explained(conn, 1), Explanation::NoProcessor);
        conn.batch_execute(&alive().replace(&at(0), &at(-5))).expect("a host that was");
        assert_eq!(explained(conn, 1), Explanation::NoProcessor);
        let set = format!("UPDATE asyncable_hosts SET seen_at = {}, paused = 1", at(0));
        conn.batch_execute(&set).expect("a host that is paused");
        assert_eq!(explained(conn, 1), Explanation::Paused { by: None, reason: None });
        let paused = format!(
            "INSERT INTO asyncable_actions (at, who, action, target, reason) \
             VALUES ({}, 'Bo Kim', 'paused', 'visits', 'a bug')",
            at(-1)
        );
        conn.batch_execute(&paused).expect("paused by somebody");
        assert_eq!(explained(conn, 1).to_string(), "due, but its model is paused by Bo Kim because of: a bug");
        conn.batch_execute("DELETE FROM asyncable_actions").expect("forgotten");
        conn.batch_execute("UPDATE asyncable_hosts SET paused = 0").expect("resumed");
        assert_eq!(explained(conn, 1), Explanation::Due { ahead: 0 });
        let down = format!(
            "INSERT INTO asyncable_services (name, state, since, next_probe_at) VALUES ('vbms', 'open', {}, {})",
            at(-30), at(2)
        );
        conn.batch_execute(&down).expect("an outage");
        assert_eq!(explained(conn, 1), Explanation::WaitingForService {
            service: "vbms".to_owned(),
            since: now() - TimeDelta::minutes(30),
            asked_at: Some(now() + TimeDelta::minutes(2)),
        });
        let held = format!("UPDATE asyncable_services SET held_since = {}, held_by = 'Bo Kim', held_reason = 'maintenance'", at(-10));
        conn.batch_execute(&held).expect("held");
        assert_eq!(explained(conn, 1), Explanation::ServiceHeld {
            service: "vbms".to_owned(),
            by: "Bo Kim".to_owned(),
            reason: "maintenance".to_owned(),
            until: None,
        });
        let status: Status = visits::table.find(1).select(Visit::status().at(now())).first(conn).expect("a status");
        assert_eq!(status, Status::Submitted);
    }

    #[test]
    fn an_outage_lengthens_the_window_in_what_is_told() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        let day = 1440;
        let old = format!("INSERT INTO visits VALUES (1, {0}, {0}, NULL, NULL, NULL, NULL); ", at(-4 * day - 60));
        conn.batch_execute(&(old + &alive())).expect("a row");
        assert_eq!(explained(conn, 1), Explanation::Expired { at: now() - TimeDelta::minutes(60) });
        let outage = format!(
            "INSERT INTO asyncable_services (name, state, since, closed_at) VALUES ('vbms', 'closed', {0}, {1}); \
             INSERT INTO asyncable_outages (service, since, until) VALUES ('vbms', {0}, {1});",
            at(-day), at(-day + 120)
        );
        conn.batch_execute(&outage).expect("an outage of two hours");
        assert_eq!(explained(conn, 1), Explanation::Due { ahead: 0 });
    }

    #[test]
    fn in_line_means_behind_those_that_were_submitted_before() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        conn.batch_execute(&alive()).expect("a host");
        for id in 1..=5 {
            let submitted = at(-100 + id);
            let row = format!("INSERT INTO visits VALUES ({id}, {submitted}, {submitted}, NULL, NULL, NULL, NULL)");
            conn.batch_execute(&row).expect("a row");
        }
        let ahead = (1..=5).map(|id| explained(conn, id));
        assert_eq!(ahead.collect::<Vec<_>>(), (0..5).map(|ahead| Explanation::Due { ahead }).collect::<Vec<_>>());
        assert!(matches!(Visit::explain(conn, 99), Err(diesel::result::Error::NotFound)));
    }
}
