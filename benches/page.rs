//! What the operator's page costs on big tables: `cargo bench --bench page`, `-- --quick` for a smaller run.
//! PostgreSQL as in `drain`.
//!
//! A million rows wait (four tenths due, three failing, two parked, one expired) and ten million are
//! processed. Their service is held down, so that they stay as they are. One line a page: the median and the
//! 95th percentile of its requests, handled in this process without a network.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, not a library")]

#[path = "support.rs"]
mod support;

use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, http::StatusCode, test, web};
use asyncable::{
    Access, Asyncable, Attempt, Columns, Dashboard, HoldService, Outcome, Processor, Service,
    Supervisor, columns,
};
use chrono::{DateTime, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use support::{Job, Measured};

mod schema {
    diesel::table! {
        claims (id) {
            id -> BigInt,
            file_number -> Text,
            created_by -> Text,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::claims;

const TABLE: &str = "CREATE TABLE claims (id BIGINT PRIMARY KEY, file_number TEXT NOT NULL, \
    created_by TEXT NOT NULL, submitted_at TIMESTAMP, last_submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT)";

/// As `cargo run --example migration` prints it, and the host's own of what people look for.
const INDEXES: &str = "CREATE INDEX claims_asyncable ON claims (attempted_at, last_submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL; \
    CREATE INDEX claims_file_number ON claims (file_number); \
    CREATE INDEX claims_user ON claims (created_by, last_submitted_at)";

const VBMS: Service = Service::new("vbms");

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = claims)]
struct Claim {
    id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(
        claims,
        last_submitted_at = last_submitted_at,
        canceled_at = canceled_at,
        user = created_by,
        subject = file_number
    );
}

#[derive(Clone)]
struct Never;

impl Processor for Never {
    type Model = Claim;
    const SERVICES: &'static [Service] = &[VBMS];

    async fn process(&self, claim: &Claim, _: &Attempt) -> Outcome {
        unreachable!("the service of claim {} is held down", claim.id)
    }
}

/// SQL for so many seconds before an instant.
trait Past {
    fn before(now: DateTime<Utc>, seconds: &str) -> String;
}

#[cfg(feature = "sqlite")]
impl Past for SqliteConnection {
    fn before(now: DateTime<Utc>, seconds: &str) -> String {
        format!("datetime('{}', printf('%+d seconds', -({seconds})))", now.format("%F %T"))
    }
}

#[cfg(feature = "postgres")]
impl Past for PgConnection {
    fn before(now: DateTime<Utc>, seconds: &str) -> String {
        format!("timestamp '{}' - ({seconds}) * interval '1 second'", now.format("%F %T"))
    }
}

/// Rows `from` to `to`, submitted `age` seconds ago and attempted `tried` seconds ago, both SQL over `n`.
struct Rows<'a> {
    from: u64,
    to: u64,
    age: &'a str,
    tried: Option<&'a str>,
    processed: bool,
    /// An entry's kind, cause, and wait in seconds: SQL over `n`.
    entry: Option<(&'a str, &'a str, Option<&'a str>)>,
}

fn add<C: Measured + Past>(conn: &mut C, now: DateTime<Utc>, rows: &Rows<'_>)
where
    Job: asyncable::Stored<C::Backend>,
{
    let Rows { from, to, age, tried, processed, entry } = rows;
    let numbers = C::numbers(to - from);
    let submitted = C::before(now, age);
    let attempted = tried.map_or("NULL".to_owned(), |tried| C::before(now, tried));
    let done = if *processed { attempted.clone() } else { "NULL".to_owned() };
    let sql = format!(
        "INSERT INTO claims SELECT n, CAST(100000000 + n AS TEXT), 'user' || (n % 1000), {submitted}, \
         {submitted}, {attempted}, {done}, NULL, NULL FROM (SELECT n + {from} AS n FROM {numbers}) x"
    );
    conn.batch_execute(&sql).expect("rows");
    if let Some((kind, code, wait)) = entry {
        let due = wait.map_or("NULL".to_owned(), |wait| C::before(now, &format!("-({wait})")));
        let sql = format!(
            "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
             due_at, kind, failures, code, place, first_failed_at, last_failed_at) SELECT 'claims', \
             CAST(n AS TEXT), {attempted}, {submitted}, {submitted}, {due}, '{kind}', 1, {code}, \
             'src/vbms.rs:72:41', {attempted}, {attempted} FROM (SELECT n + {from} AS n FROM {numbers}) x"
        );
        conn.batch_execute(&sql).expect("entries");
        let sql = format!(
            "INSERT INTO asyncable_attempts (model, row_id, attempted_at, submitted_at, number, host, \
             started_at, ended_at, outcome, kind, code, place) SELECT 'claims', CAST(n AS TEXT), {attempted}, \
             {submitted}, 1, 'app-1', {attempted}, {attempted}, 'failed', '{kind}', {code}, 'src/vbms.rs:72:41' \
             FROM (SELECT n + {from} AS n FROM {numbers}) x"
        );
        conn.batch_execute(&sql).expect("attempts");
    }
}

/// `waiting` rows that are not processed, and ten times as many that are.
fn populate<C: Measured + Past>(conn: &mut C, waiting: u64)
where
    Job: asyncable::Stored<C::Backend>,
{
    let now = Utc::now();
    let tenth = waiting / 10;
    let hour_by_hour = "86400 + n % 3600";
    let plain =
        Rows { from: 0, to: 0, age: "60 + n % 86400", tried: None, processed: false, entry: None };
    add(conn, now, &Rows { to: 4 * tenth, ..plain });
    let codes = "'vbms.http_' || (500 + n % 20)";
    let failing = Some(("transient", codes, Some("60 + n % 9000")));
    add(
        conn,
        now,
        &Rows {
            from: 4 * tenth,
            to: 7 * tenth,
            age: hour_by_hour,
            tried: Some("3600"),
            entry: failing,
            ..plain
        },
    );
    let refused = "CASE n % 1000 WHEN 0 THEN 'vbms.rare' ELSE 'vbms.refused_' || (n % 7) END";
    let parked = Some(("permanent", refused, None));
    add(
        conn,
        now,
        &Rows {
            from: 7 * tenth,
            to: 9 * tenth,
            age: hour_by_hour,
            tried: Some("3600 + n % 60"),
            entry: parked,
            ..plain
        },
    );
    let expired = Some(("expired", codes, None));
    add(
        conn,
        now,
        &Rows {
            from: 9 * tenth,
            to: 10 * tenth,
            age: "864000 + n % 86400",
            tried: Some("432000"),
            entry: expired,
            ..plain
        },
    );
    let years = "1000000 + n % 30000000";
    let done = Rows {
        from: 10 * tenth,
        to: 110 * tenth,
        age: years,
        tried: Some(years),
        processed: true,
        ..plain
    };
    add(conn, now, &done);
    conn.batch_execute(INDEXES).expect("the host's indexes");
    conn.batch_execute(C::ANALYZE).expect("analyzed");
}

async fn who(_: HttpRequest) -> Result<Access, actix_web::Error> {
    // Somebody who is the user of one row in a thousand.
    Ok(Access::admin("Ad Min").user("user7"))
}

/// The next page's address, as a list's page has it.
fn next(page: &str) -> Option<String> {
    let (before, _) = page.split_once("\" rel=\"next\"")?;
    Some(before.rsplit('"').next()?.replace("&amp;", "&"))
}

fn measure<C: Measured + Past>(backend: &str, conn: &mut C, url: &str, quick: bool)
where
    Job: asyncable::Stored<C::Backend>,
    Claim: asyncable::Stored<C::Backend>,
{
    asyncable::migrate(conn).expect("the library's tables");
    conn.batch_execute(TABLE).expect("the table of claims");
    let (waiting, times) = if quick { (10_000, 20) } else { (1_000_000, 100) };
    actix_rt::System::new().block_on(async {
        let handle = Supervisor::<C>::new(url).processor(Never).start().expect("it starts");
        handle.send(HoldService::new(VBMS, "Ad Min", "measured")).await.expect("held");
        populate(conn, waiting);
        let app =
            App::new().service(web::scope("/ops").service(Dashboard::new(handle.clone(), who)));
        let app = test::init_service(app).await;
        let get = async |address: &str| {
            let request = test::TestRequest::get().uri(address).to_request();
            let answer = test::call_service(&app, request).await;
            assert_eq!(answer.status(), StatusCode::OK, "{address}");
            String::from_utf8_lossy(&test::read_body(answer).await).into_owned()
        };
        let service = get("/ops/services/vbms").await;
        assert!(!service.contains(">0</a>"), "rows are due, and rows fail");
        let mut deep = "/ops/rows?model=claims&state=parked".to_owned();
        for _ in 0..10 {
            deep = next(&get(&deep).await).unwrap_or(deep);
        }
        let row = format!("/ops/rows/claims/{}", 7 * waiting / 10 + 1);
        // All that fail have failed in it.
        let hour = (Utc::now() - chrono::TimeDelta::minutes(90)).format("/ops/hours/%FT%TZ");
        let hour = hour.to_string();
        let pages = [
            ("overview", "/ops/"),
            ("rows-that-need-somebody", "/ops/rows?model=claims"),
            ("rows-not-done", "/ops/rows?model=claims&state=not-done"),
            ("rows-due", "/ops/rows?model=claims&state=due"),
            ("rows-failing", "/ops/rows?model=claims&state=failing"),
            ("rows-on-page-ten", &deep),
            ("rows-of-a-rare-cause", "/ops/rows?model=claims&state=parked&code=vbms.rare"),
            ("rows-of-no-cause", "/ops/rows?model=claims&state=not-done&code=nothing"),
            ("rows-of-a-user", "/ops/rows?model=claims&state=not-done&user=user7"),
            ("rows-of-an-age", "/ops/rows?model=claims&state=needs-you&age=24"),
            ("row", &row),
            ("service", "/ops/services/vbms"),
            ("model", "/ops/models/claims"),
            ("hour", &hour),
            ("mine", "/ops/mine"),
            ("report", "/ops/report.txt"),
            ("api-overview", "/ops/api/overview"),
            ("api-rows", "/ops/api/rows?model=claims&state=needs-you"),
            ("api-mine", "/ops/api/mine"),
        ];
        for (name, address) in pages {
            let mut took = Vec::new();
            for _ in 0..times {
                let began = Instant::now();
                get(address).await;
                took.push(began.elapsed());
            }
            tell(backend, name, waiting, took);
        }
        let forms = [
            ("find", "/ops/find", format!("model=claims&what={}", 100_000_000 + waiting / 2)),
            ("bulk-preview", "/ops/bulk/claims", "do=restart&all=1&state=needs-you".to_owned()),
        ];
        for (name, address, form) in forms {
            let mut took = Vec::new();
            for _ in 0..times {
                let request = test::TestRequest::post()
                    .insert_header(("sec-fetch-site", "same-origin"))
                    .insert_header(("content-type", "application/x-www-form-urlencoded"))
                    .set_payload(form.clone())
                    .uri(address);
                let began = Instant::now();
                let answer = test::call_service(&app, request.to_request()).await;
                assert_eq!(answer.status(), StatusCode::OK, "{address}");
                test::read_body(answer).await;
                took.push(began.elapsed());
            }
            tell(backend, name, waiting, took);
        }
        handle.shutdown(Duration::ZERO).await;
    });
}

fn tell(backend: &str, name: &str, waiting: u64, mut took: Vec<Duration>) {
    took.sort_unstable();
    let ms = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    println!(
        "page backend={backend} page={name} waiting={waiting} processed={} p50_ms={:.1} p95_ms={:.1}",
        10 * waiting,
        ms(50),
        ms(95)
    );
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    #[cfg(feature = "sqlite")]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bench.db").display().to_string();
        let mut conn = SqliteConnection::establish(&file).expect("a connection");
        let pragmas =
            "PRAGMA busy_timeout = 60000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL";
        conn.batch_execute(pragmas).expect("pragmas");
        measure("sqlite", &mut conn, &file, quick);
    }
    #[cfg(feature = "postgres")]
    match support::Server::start("page") {
        None => println!("# postgres: skipped; it needs `./scripts/test` in front"),
        Some(server) => {
            let mut conn = PgConnection::establish(&server.url).expect("a connection");
            measure("postgres", &mut conn, &server.url, quick);
        }
    }
}
