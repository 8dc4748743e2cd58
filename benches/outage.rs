//! What an outage costs, and how soon it is over: `cargo bench --bench outage`, `-- --quick` for a smaller
//! run. The pump, the gates and the store's turns on a real SQLite, in virtual time.
//!
//! 100,000 rows are due when the service goes down for 6 hours. Beside it the same hours without a breaker,
//! each row tried every 3 hours.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, not a library")]

#[path = "support.rs"]
mod support;

#[cfg(feature = "sqlite")]
fn main() {
    outage::main();
}

#[cfg(not(feature = "sqlite"))]
fn main() {
    println!("# outage: skipped; it needs the feature `sqlite`");
}

#[cfg(feature = "sqlite")]
mod outage {
    use std::{collections::VecDeque, time::Duration};

    use asyncable::{Failure, Service, measure::Simulation};
    use chrono::{DateTime, TimeDelta, TimeZone, Utc};
    use diesel::{connection::SimpleConnection, prelude::*, sql_types};

    use super::support::{Job, Measured};

    /// Starts a second.
    const LIMIT: usize = 20;

    const SERVICE: Service = Service::new("vbms").starts_per_second(LIMIT as u32);
    const PLAIN: Service = SERVICE.open_after(0).open_at_percent(0);

    const DOWN_FOR: TimeDelta = TimeDelta::hours(6);

    /// A call that is refused, and one that is answered.
    const REFUSED: Duration = Duration::from_millis(50);
    const ANSWERED: Duration = Duration::from_millis(300);

    /// What the service has seen.
    #[derive(Default)]
    struct Seen {
        calls_while_down: usize,
        first_success: Option<DateTime<Utc>>,
        last_success: Option<DateTime<Utc>>,
        successes: usize,
        /// Starts of the last second.
        recent: VecDeque<DateTime<Utc>>,
        most_in_a_second: usize,
    }

    impl Seen {
        fn started(&mut self, now: DateTime<Utc>) {
            self.recent.push_back(now);
            while self.recent.front().is_some_and(|at| now - at >= TimeDelta::seconds(1)) {
                self.recent.pop_front();
            }
            self.most_in_a_second = self.most_in_a_second.max(self.recent.len());
        }

        fn answered(&mut self, at: DateTime<Utc>) {
            self.successes += 1;
            self.first_success.get_or_insert(at);
            self.last_success = self.last_success.max(Some(at));
        }
    }

    struct Figures {
        calls_while_down: usize,
        attempts_spent: i64,
        first_success_s: f64,
        last_success_s: f64,
        max_starts_per_s: usize,
        turns: usize,
    }

    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = sql_types::BigInt)]
        number: i64,
    }

    fn number(conn: &mut SqliteConnection, sql: &str) -> i64 {
        diesel::sql_query(sql).get_result::<Number>(conn).expect("a number").number
    }

    fn measure(service: Service, rows: u64) -> Figures {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bench.db").display().to_string();
        let mut conn = SqliteConnection::establish(&file).expect("a connection");
        let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF";
        conn.batch_execute(pragmas).expect("pragmas");
        conn.make_tables();
        conn.add(0, rows, "'2026-01-01 00:00:00', '2026-01-01 00:00:00', NULL, NULL, NULL, NULL");

        let began = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 1).single().expect("an instant");
        let up_at = began + DOWN_FOR;
        let mut seen = Seen::default();
        let mut simulation = Simulation::<Job, _>::new(conn, began, &[service]);
        // As long as the rows take at the limit, and then until the last retry has come.
        let until =
            up_at + TimeDelta::seconds((rows / LIMIT as u64).cast_signed()) + TimeDelta::hours(4);
        let mut call = |_: &Job, now: DateTime<Utc>| {
            seen.started(now);
            if now < up_at {
                seen.calls_while_down += 1;
                return (Err(Failure::unavailable(service, "503")), REFUSED);
            }
            seen.answered(now + ANSWERED);
            (Ok(()), ANSWERED)
        };
        simulation.run(up_at, &mut call).expect("it runs");
        // What rows count as failed attempts until now is the outage's doing.
        let spent = "SELECT COALESCE(sum(failures), 0) AS number FROM asyncable_retries";
        let attempts_spent = number(simulation.conn(), spent);
        simulation.run(until, &mut call).expect("it runs");
        assert_eq!(simulation.conn().open_jobs(), 0, "rows were left behind");
        let since = |at: Option<DateTime<Utc>>| {
            let at = at.expect("a row was processed");
            (at - up_at).as_seconds_f64()
        };
        Figures {
            calls_while_down: seen.calls_while_down,
            attempts_spent,
            first_success_s: since(seen.first_success),
            last_success_s: since(seen.last_success),
            max_starts_per_s: seen.most_in_a_second,
            turns: simulation.turns(),
        }
    }

    /// What is promised of the breaker.
    fn check(figures: &Figures, rows: u64) {
        let Figures { first_success_s, last_success_s, .. } = figures;
        assert!(figures.calls_while_down <= 150, "calls while down: {}", figures.calls_while_down);
        assert!(figures.attempts_spent <= 20, "attempts spent: {}", figures.attempts_spent);
        assert!(figures.max_starts_per_s <= LIMIT, "in a second: {}", figures.max_starts_per_s);
        assert!(
            *first_success_s <= 300.0 + ANSWERED.as_secs_f64(),
            "first after {first_success_s} s"
        );
        // As the pace allows, but for a few seconds in which it begins with one at a time.
        let allowed = first_success_s + rows as f64 / LIMIT as f64 + 5.0;
        assert!(*last_success_s <= allowed, "last after {last_success_s} s of {allowed} s");
    }

    pub(super) fn main() {
        let quick = std::env::args().any(|argument| argument == "--quick");
        let rows: u64 = if quick { 2_000 } else { 100_000 };
        let plain = std::thread::spawn(move || measure(PLAIN, rows));
        let breaker = measure(SERVICE, rows);
        let plain = plain.join().expect("it runs");
        println!("{rows} rows, {LIMIT} starts a second at most, the service down for 6 hours");
        let columns = [
            "calls while down",
            "attempts spent",
            "first success s",
            "last success s",
            "most in 1 s",
            "turns",
        ];
        println!("{:<16}{}", "", columns.map(|column| format!("{column:>18}")).concat());
        for (name, figures) in [("every 3 hours", &plain), ("with a breaker", &breaker)] {
            let Figures { calls_while_down, attempts_spent, max_starts_per_s, turns, .. } = figures;
            println!(
                "{name:<16}{calls_while_down:>18}{attempts_spent:>18}{:>18.1}{:>18.1}{max_starts_per_s:>18}{turns:>18}",
                figures.first_success_s, figures.last_success_s
            );
        }
        println!(
            "# every 3 hours: 6 hours are two of its waits, so its rows come just as the service does"
        );
        check(&breaker, rows);
        println!(
            "outage calls_while_down={} attempts_spent={} first_success_s={:.1} last_success_s={:.1} \
             max_starts_per_s={}",
            breaker.calls_while_down,
            breaker.attempts_spent,
            breaker.first_success_s,
            breaker.last_success_s,
            breaker.max_starts_per_s
        );
    }
}
