//! A host on a bad day, for those who look at its page with a browser: three models, a service that has been
//! down since the morning, and rows in every state. Its clock stands still at four minutes past noon.

use std::{marker::PhantomData, net::TcpListener};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, error::ErrorUnauthorized, web,
};
use asyncable::{
    Access, Asyncable, Attempt, Clock, Columns, Dashboard, GetCounts, Handle, Outcome, Processor,
    Service, Supervisor, columns,
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{SqliteConnection, connection::SimpleConnection, prelude::*};
use tokio::sync::watch;

use crate::support::TestDb;

mod schema {
    /// The tables of all models are alike.
    macro_rules! tables {
        ($($table:ident)*) => {$(
            diesel::table! {
                $table (id) {
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
        )*};
    }
    tables!(reviews decisions letters);

    diesel::table! {
        asyncable_actions (id) {
            id -> BigInt,
            who -> Text,
            action -> Text,
            target -> Text,
            row_id -> Nullable<Text>,
            reason -> Nullable<Text>,
        }
    }
}
pub(crate) use schema::{asyncable_actions, decisions, letters, reviews};

/// Answers.
const VBMS: Service = Service::new("vbms");
/// Down.
const BGS: Service = Service::new("bgs");
/// Answers, and has little to do.
const MAIL: Service = Service::new("mail");

/// Rows whose work is done as soon as the test lets it.
struct Work<M>(watch::Receiver<bool>, PhantomData<fn(M)>);

impl<M> Clone for Work<M> {
    fn clone(&self) -> Self {
        Work(self.0.clone(), PhantomData)
    }
}

macro_rules! models {
    ($($model:ident $table:ident $service:ident)*) => {$(
        #[derive(Queryable, Selectable, Identifiable)]
        pub(crate) struct $model {
            id: i64,
        }

        impl Asyncable for $model {
            type Id = i64;
            const COLUMNS: Columns<$table::table> = columns!(
                $table,
                last_submitted_at = last_submitted_at,
                canceled_at = canceled_at,
                user = created_by,
                subject = file_number
            );
        }

        impl Processor for Work<$model> {
            type Model = $model;
            const SERVICES: &'static [Service] = &[$service];

            async fn process(&self, _: &$model, _: &Attempt) -> Outcome {
                let mut may = self.0.clone();
                may.wait_for(|may| *may).await?;
                Ok(())
            }
        }
    )*};
}
models!(Review reviews VBMS  Decision decisions BGS  Letter letters MAIL);

/// Where the page is mounted.
const PREFIX: &str = "/ops/background";

/// The host. Its server ends with the test's runtime.
pub(crate) struct Office {
    pub(crate) db: TestDb<SqliteConnection>,
    pub(crate) handle: Handle,
    address: String,
    may_work: watch::Sender<bool>,
    server: ServerHandle,
}

impl Office {
    /// On its bad day.
    pub(crate) fn open() -> Self {
        Self::with(&bad_day())
    }

    /// On a day on which nothing has happened yet.
    pub(crate) fn calm() -> Self {
        Self::with("")
    }

    fn with(day: &str) -> Self {
        let db = TestDb::<SqliteConnection>::migrated(&tables());
        db.conn().batch_execute(day).expect("the day so far");
        let (may_work, may) = watch::channel(false);
        let handle = Supervisor::<SqliteConnection>::new(db.url())
            // Slow enough that no second passes while a test looks.
            .clock(Clock::fast(1e-3, noon()))
            .named("app-1")
            .processor(Work::<Review>(may.clone(), PhantomData))
            .processor(Work::<Decision>(may.clone(), PhantomData))
            .processor(Work::<Letter>(may, PhantomData))
            .start()
            .expect("it starts");
        let page = Dashboard::new(handle.clone(), who)
            .link(|model, id| Some(format!("/intake/{model}/{id}")));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let app = move || {
            App::new()
                .route("/login/{role}", web::get().to(log_in))
                .route("/favicon.ico", web::get().to(HttpResponse::NoContent))
                .service(web::scope(PREFIX).service(page.clone()))
        };
        let server = HttpServer::new(app).workers(1).disable_signals();
        let server = server.listen(listener).expect("it listens").run();
        let stop = server.handle();
        actix_rt::spawn(server);
        Office { db, handle, address, may_work, server: stop }
    }

    /// The address of one of the page's own pages.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{PREFIX}{path}", self.address)
    }

    /// Where a browser becomes somebody, who then sees the overview.
    pub(crate) fn login(&self, role: &str) -> String {
        format!("{}/login/{role}", self.address)
    }

    /// From now on whatever is due is done.
    pub(crate) fn let_work(&self) {
        self.may_work.send(true).expect("the processors are there");
    }

    /// What waits has waited too long: it has expired.
    pub(crate) fn let_decisions_expire(&self) {
        let sql = format!(
            "UPDATE decisions SET submitted_at = {0}, last_submitted_at = {0} WHERE attempted_at IS NULL",
            minutes(14_500)
        );
        self.db.conn().batch_execute(&sql).expect("expired decisions");
    }

    /// How many decisions have expired.
    pub(crate) async fn expired(&self) -> u32 {
        self.handle.send(GetCounts::<Decision>::new()).await.expect("counts").expired
    }

    /// Parks a review with this text in everything of it that a page may show.
    pub(crate) fn make_odd(&self, review: i64, text: &str) {
        let text = text.replace('\'', "''");
        let (submitted, attempted) = (minutes(300), minutes(299));
        let sql = format!(
            "UPDATE reviews SET file_number = '{text}', created_by = '{text}', submitted_at = {submitted}, \
             last_submitted_at = {submitted}, attempted_at = {attempted}, processed_at = NULL, \
             canceled_at = NULL, error = '{text}' WHERE id = {review}; \
             DELETE FROM asyncable_claims WHERE model = 'reviews'; \
             INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, kind, \
             failures, code, place, first_failed_at, last_failed_at) VALUES ('reviews', '{review}', {attempted}, \
             {submitted}, {submitted}, 'permanent', 1, '{text}', '{text}', {attempted}, {attempted}) \
             ON CONFLICT DO UPDATE SET attempted_at = {attempted}, last_submitted_at = {submitted}, \
             kind = 'permanent', due_at = NULL, code = excluded.code, place = excluded.place; \
             UPDATE asyncable_attempts SET host = '{text}', code = '{text}', place = '{text}', step = '{text}', \
             error = '{text}' WHERE model = 'reviews' AND row_id = '{review}'; \
             UPDATE asyncable_steps SET name = '{text}' WHERE result IS NULL;"
        );
        self.db.conn().batch_execute(&sql).expect("an odd row");
    }

    /// Who did what to which row, and why, since the day that was made up.
    pub(crate) fn actions(&self) -> Vec<(String, String, Option<String>, Option<String>)> {
        use asyncable_actions::{action, id, reason, row_id, table, who};
        let since = table.filter(id.ge(1000)).order(id);
        since.select((who, action, row_id, reason)).load(&mut self.db.conn()).expect("the actions")
    }

    pub(crate) async fn close(self) {
        self.server.stop(false).await;
        self.handle.shutdown(std::time::Duration::ZERO).await;
    }
}

/// Believes the cookie.
async fn who(request: HttpRequest) -> Result<Access, actix_web::Error> {
    let cookies = request.headers().get("cookie").and_then(|value| value.to_str().ok());
    let role = cookies
        .and_then(|cookies| cookies.split("; ").find_map(|cookie| cookie.strip_prefix("role=")));
    match role {
        Some("own") => Ok(Access::own("Alma Smith").user("asmith")),
        Some("view") => Ok(Access::view("Vic Ward")),
        Some("operate") => Ok(Access::operate("Ann Lee")),
        Some("admin") => Ok(Access::admin("Bo Kim")),
        _ => Err(ErrorUnauthorized("log in first")),
    }
}

async fn log_in(role: web::Path<String>) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header(("set-cookie", format!("role={role}; Path=/; HttpOnly")))
        .insert_header(("location", format!("{PREFIX}/")))
        .finish()
}

pub(crate) fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 4, 31).single().expect("an instant")
}

/// An instant before noon, as Diesel writes it for SQLite.
fn before(ago: TimeDelta) -> String {
    format!("'{}'", (noon() - ago).naive_utc().format("%F %T"))
}

fn minutes(ago: i64) -> String {
    before(TimeDelta::minutes(ago))
}

fn at(day: u32, hour: u32, minute: u32, second: u32) -> String {
    let at = Utc.with_ymd_and_hms(2026, 11, day, hour, minute, second).single();
    before(noon() - at.expect("an instant"))
}

fn tables() -> String {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id {{key}}, file_number TEXT NOT NULL, created_by TEXT NOT NULL, \
             submitted_at TIMESTAMP, last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
             processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
             CREATE INDEX {name}_work ON {name} (attempted_at, last_submitted_at) \
             WHERE processed_at IS NULL AND canceled_at IS NULL;"
        )
    };
    ["reviews", "decisions", "letters"].map(table).concat()
}

const USERS: [&str; 5] = ["jdoe", "asmith", "mgarcia", "kwong", "tbauer"];

/// A row of the host's.
fn row(model: &str, id: i64, submitted: &str, attempted: &str, processed: &str) -> String {
    let user = USERS[usize::try_from(id).unwrap_or(0) % USERS.len()];
    // Few are hers, so that she sees all of them.
    let user = if user == "asmith" && model == "decisions" { "nlopez" } else { user };
    let file = 796_000_000 + id * 7919 % 999_983;
    format!(
        "INSERT INTO {model} (id, file_number, created_by, submitted_at, last_submitted_at, attempted_at, \
         processed_at) VALUES ({id}, '{file}', '{user}', {submitted}, {submitted}, {attempted}, {processed});"
    )
}

/// A row that has failed, with its entry and its last try.
struct Failed {
    model: &'static str,
    id: i64,
    submitted: String,
    attempted: String,
    due: String,
    kind: &'static str,
    failures: i64,
    code: &'static str,
    place: &'static str,
    error: String,
}

impl Failed {
    fn sql(&self) -> String {
        let Failed { model, id, submitted, attempted, due, kind, failures, code, place, error } =
            self;
        let outcome = if *kind == "permanent" { "parked" } else { "failed" };
        row(model, *id, submitted, attempted, "NULL")
            + &format!(
                "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
                 due_at, kind, failures, code, place, first_failed_at, last_failed_at) VALUES ('{model}', \
                 '{id}', {attempted}, {submitted}, {submitted}, {due}, '{kind}', {failures}, '{code}', \
                 '{place}', {attempted}, {attempted}); \
                 INSERT INTO asyncable_attempts (model, row_id, attempted_at, submitted_at, number, host, \
                 started_at, ended_at, outcome, kind, code, place, step, error) VALUES ('{model}', '{id}', \
                 {attempted}, {submitted}, {failures}, 'app-1-4242-0a1b', {attempted}, \
                 datetime({attempted}, '+3 seconds'), '{outcome}', '{kind}', '{code}', '{place}', \
                 'create_contentions', '{error}');"
            )
    }
}

/// A day by its ten minutes: what a model has finished, its failures, and what waited.
fn buckets(model: &str, of: impl Fn(i64) -> (i64, i64, i64)) -> String {
    // The last ones are also written by the host, with what waits then.
    let now = if model == "decisions" { 407 } else { 0 };
    let bucket = |ago: i64| {
        let (finished, failed, waiting) = of(ago);
        let waiting = if ago == 0 { now } else { waiting };
        let begin = before(TimeDelta::seconds(4 * 60 + 31 + ago * 600));
        format!(
            "INSERT INTO asyncable_buckets VALUES ('{model}', {begin}, {finished}, {failed}, {waiting});"
        )
    };
    (0..144).map(bucket).collect()
}

/// Fewer at night.
fn by_day(ago: i64, most: i64) -> i64 {
    let hour = (36 - (ago + 5) / 6) % 24;
    let busy = if (7..19).contains(&hour) { most } else { most / 6 };
    busy * (6 + ago * 37 % 5) / 8
}

fn bad_day() -> String {
    let mut day = String::new();
    // Reviews: most are done, some wait for a person, some are tried again by themselves.
    for id in 4000..4060 {
        let ago = (4060 - id) * 9;
        day += &row("reviews", id, &minutes(ago + 2), &minutes(ago + 1), &minutes(ago));
    }
    for id in 4711..4717 {
        let ago = 4200 - (id - 4711) * 310;
        day += &Failed {
            model: "reviews",
            id,
            submitted: minutes(ago),
            attempted: minutes(ago - 1),
            due: "NULL".to_owned(),
            kind: "permanent",
            failures: 1,
            code: "vbms.refused_file_number",
            place: "src/vbms.rs:72:41",
            error: format!("the file {} is not known", 796_000_000 + id * 7919 % 999_983),
        }
        .sql();
    }
    for id in 4698..4702 {
        day += &Failed {
            model: "reviews",
            id,
            submitted: minutes(1100 - (id - 4698) * 40),
            attempted: minutes(101 - (id - 4698)),
            due: minutes(-76 - (id - 4698) * 3),
            kind: "transient",
            failures: 5,
            code: "reqwest::Error",
            place: "src/vbms.rs:118:20",
            error: "connection reset by peer".to_owned(),
        }
        .sql();
    }
    for id in 4720..4722 {
        day += &row("reviews", id, &at(25, 8, 0, 0), "NULL", "NULL");
    }
    // Another host is at three of them.
    let token = before(TimeDelta::seconds(40));
    for id in 4717..4720 {
        day += &row("reviews", id, &minutes(1), &token, "NULL");
    }
    day += &format!(
        "INSERT INTO asyncable_claims VALUES ('reviews', {token}, 'app-2-4243-0c2d', {});",
        before(TimeDelta::seconds(-20))
    );
    for model in ["reviews", "decisions", "letters"] {
        let service = if model == "reviews" {
            "vbms"
        } else if model == "decisions" {
            "bgs"
        } else {
            "mail"
        };
        day += &format!(
            "INSERT INTO asyncable_hosts (host, model, services, seen_at) \
             VALUES ('app-2-4243-0c2d', '{model}', '{service}', {});",
            minutes(-60)
        );
    }
    day += &format!(
        "INSERT INTO asyncable_steps VALUES \
         ('reviews', '4711', 1, 'establish_claim', 'k1', {0}, 1, {0}, '7781'), \
         ('reviews', '4711', 1, 'create_contentions', 'k2', {0}, 2, {0}, NULL); \
         INSERT INTO asyncable_notes (model, row_id, at, who, note) VALUES \
         ('reviews', '4711', {1}, 'Bo Kim', 'Asked the regional office for the right number.');",
        minutes(4199),
        at(23, 10, 15, 0)
    );

    // Decisions: their service has been down since the morning.
    for id in 9006..9413 {
        let ago = TimeDelta::seconds((9413 - id) * 25);
        day += &row("decisions", id, &before(ago), "NULL", "NULL");
    }
    for id in 9001..9006 {
        day += &Failed {
            model: "decisions",
            id,
            submitted: at(24, 9, 11, 50),
            attempted: at(24, 9, 12, u32::try_from(id - 8998).unwrap_or(0)),
            due: minutes(-8),
            kind: "unavailable",
            failures: 1,
            code: "bgs_unavailable",
            place: "src/bgs.rs:31:17",
            error: "503 Service Unavailable".to_owned(),
        }
        .sql();
    }
    for id in 8801..8804 {
        day += &row("decisions", id, &minutes(14_400 - (id - 8801) * 25), "NULL", "NULL");
    }
    day += &format!(
        "INSERT INTO asyncable_services (name, state, since, next_probe_at, probes, code) \
         VALUES ('bgs', 'open', {}, {}, 35, 'bgs_unavailable');",
        at(24, 9, 12, 3),
        at(24, 12, 5, 10)
    );
    day += &format!(
        "INSERT INTO asyncable_outages VALUES ('bgs', {}, NULL, 35), ('bgs', {}, {}, 391), \
         ('bgs', {}, {}, 4);",
        at(24, 9, 12, 3),
        at(21, 3, 10, 0),
        at(22, 11, 55, 0),
        at(18, 14, 2, 0),
        at(18, 14, 9, 0)
    );

    for (id, minute, second) in [(31, 55, 9), (87, 50, 10), (12, 45, 8)] {
        day += &format!(
            "INSERT INTO asyncable_probes (service, at, model, row_id, code) VALUES \
             ('bgs', {}, 'decisions', '{id}', 'bgs_unavailable');",
            at(24, 11, minute, second)
        );
    }

    // Letters are sent at once.
    for id in 1..31 {
        let ago = id * 37;
        day += &row("letters", id, &minutes(ago + 1), &minutes(ago), &minutes(ago));
    }

    day += &buckets("reviews", |ago| (by_day(ago, 14), i64::from(ago % 31 == 7), by_day(ago, 4)));
    day += &buckets("decisions", |ago| match ago {
        0..=16 => (0, 0, (17 - ago) * 24),
        17 => (3, 5, 9),
        _ => (by_day(ago, 9), i64::from(ago % 47 == 11), by_day(ago, 2)),
    });
    day += &buckets("letters", |ago| (by_day(ago, 3), 0, 0));

    let actions = [
        (at(23, 10, 15, 0), "Bo Kim", "restarted", "letters", "'17'", "NULL", "'wrong printer'"),
        (at(23, 16, 40, 0), "Ann Lee", "canceled", "reviews", "'4600'", "NULL", "'filed twice'"),
        (
            at(24, 9, 12, 12),
            "asyncable",
            "service_down",
            "bgs",
            "NULL",
            "NULL",
            "'bgs_unavailable'",
        ),
        (at(24, 11, 40, 0), "Bo Kim", "restarted", "decisions", "NULL", "3", "'token renewed'"),
    ];
    for (id, (at, who, action, target, row_id, count, reason)) in actions.into_iter().enumerate() {
        day += &format!(
            "INSERT INTO asyncable_actions (id, at, who, action, target, row_id, count, reason) VALUES \
             ({}, {at}, '{who}', '{action}', '{target}', {row_id}, {count}, {reason});",
            id + 996
        );
    }
    // What comes from here on is the test's.
    day
}
