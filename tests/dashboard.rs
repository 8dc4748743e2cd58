//! The operator's page: what it shows, to whom, and what it refuses.
#![cfg(feature = "dashboard")]

#[path = "support/page.rs"]
mod page;
mod support;

use std::time::Duration;

use actix_web::{
    App,
    body::MessageBody,
    dev::{Service, ServiceResponse},
    http::StatusCode,
    test, web,
};
use asyncable::{
    Asyncable, Attempt, Clock, Columns, Dashboard, Failure, GetCounts, Handle, Outcome, Processor,
    RetryPolicy, Service as Outside, Status, Submit, SubmitAll, Supervisor, columns,
};
use chrono::{DateTime, TimeZone, Utc};
use diesel::prelude::*;

use page::{send, send_request, until, who};
use support::on_each_backend;

mod schema {
    diesel::table! {
        appeals (id) {
            id -> BigInt,
            file_number -> Text,
            created_by -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
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
use schema::{appeals, asyncable_actions, letters};

const DDL: &str = "CREATE TABLE appeals (id {key}, file_number TEXT NOT NULL DEFAULT '796104437', \
    created_by TEXT NOT NULL DEFAULT '<i>jdoe</i>', submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
    CREATE INDEX appeals_work ON appeals (attempted_at, submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL;";

const LETTERS: &str = "CREATE TABLE letters (id {key}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, error TEXT); CREATE INDEX letters_work ON letters \
    (attempted_at, submitted_at) WHERE processed_at IS NULL;";

const VBMS: Outside = Outside::new("vbms");

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i64;
    const COLUMNS: Columns<appeals::table> =
        columns!(appeals, canceled_at = canceled_at, user = created_by, subject = file_number);
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

/// Refuses each row at its first attempt, with markup in everything that may be shown.
#[derive(Clone)]
struct Refuse;

impl Processor for Refuse {
    type Model = Appeal;
    const SERVICES: &'static [Outside] = &[VBMS];

    async fn process(&self, _: &Appeal, attempt: &Attempt) -> Outcome {
        attempt.step("<u>look</u>").run(async |_| Ok(7)).await?;
        let secret = "the file of <script>alert(1)</script> is closed";
        Err(Failure::permanent(secret).with_code("vbms.<b>refused</b>"))
    }
}

/// With the four columns that every model has.
#[derive(Queryable, Selectable, Identifiable)]
struct Letter {
    id: i64,
}

impl Asyncable for Letter {
    type Id = i64;
    const COLUMNS: Columns<letters::table> = columns!(letters);
}

#[derive(Clone)]
struct Lose;

impl Processor for Lose {
    type Model = Letter;

    async fn process(&self, letter: &Letter, _: &Attempt) -> Outcome {
        Err(Failure::permanent(format!("letter {} has no stamp", letter.id)))
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

/// Waits until the host has said that it is alive, which it does as it starts; answers what is told then.
async fn until_alive<S, B>(app: &S) -> String
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let health = "/ops/background/health.json";
    until(app, "nobody", health, |shown| shown.status == StatusCode::OK).await.body
}

/// Waits until as many rows are parked.
async fn parked(handle: &Handle, rows: u32) {
    let parked = async {
        while handle.send(GetCounts::<Appeal>::new()).await.expect("counts").parked != rows {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), parked).await.expect("they are parked");
}

macro_rules! app {
    ($handle:expr) => {
        test::init_service(
            App::new().service(
                web::scope("/ops/background").service(Dashboard::new($handle.clone(), who)),
            ),
        )
        .await
    };
}

on_each_backend! {
    fn start(rows: i64) -> (Db, Handle) {
        let db = Db::migrated(DDL);
        let ids: Vec<_> = (1..=rows).map(|id| appeals::id.eq(id)).collect();
        diesel::insert_into(appeals::table).values(ids).execute(&mut db.conn()).expect("appeals");
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(1e-3, began()))
            .named("app-1")
            .processor(Refuse)
            .start()
            .expect("it starts");
        (db, handle)
    }

    fn actions(db: &Db) -> Vec<(String, String, Option<String>, Option<String>)> {
        let columns = (asyncable_actions::who, asyncable_actions::action, asyncable_actions::row_id, asyncable_actions::reason);
        asyncable_actions::table.order(asyncable_actions::id).select(columns).load(&mut db.conn()).expect("actions")
    }

    #[actix_rt::test]
    async fn the_overview_says_what_needs_a_person_and_why_and_links_to_the_rows() {
        let (_db, handle) = start(3);
        let app = app!(handle);
        until_alive(&app).await;
        let calm = send(&app, "view", "/ops/background/", None).await;
        assert_eq!(calm.status, StatusCode::OK);
        assert!(calm.body.contains("Nothing needs you.") && calm.body.contains("1 host alive: "), "{}", calm.body);
        handle.send(SubmitAll::<Appeal>::new(1..=3)).await.expect("submitted");
        parked(&handle, 3).await;
        let shown = send(&app, "view", "/ops/background/", None).await;
        assert!(shown.body.contains("<title>(3 need you) Background work</title>"), "{}", shown.body);
        assert!(shown.body.contains("vbms.&lt;b&gt;refused&lt;/b&gt;"));
        let link = "/ops/background/rows?model=appeals&amp;state=parked&amp;code=vbms%2E%3Cb%3Erefused%3C%2Fb%3E";
        let link = link.replace("%2E", ".");
        assert!(shown.body.contains(&link), "{}", shown.body);
        let rows = send(&app, "view", &link.replace("&amp;", "&"), None).await;
        assert_eq!(rows.body.matches("parked: a person must act").count(), 3);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn an_operator_restarts_cancels_and_notes_and_it_is_kept_who_did() {
        let (db, handle) = start(2);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=2)).await.expect("submitted");
        parked(&handle, 2).await;
        let row = "/ops/background/rows/appeals/1";
        let noted = send(&app, "operate", &format!("{row}/note"), Some("why=asked+the+%3Cb%3Eoffice%3C%2Fb%3E")).await;
        assert_eq!(noted.status, StatusCode::SEE_OTHER);
        assert_eq!(noted.location.as_deref(), Some("/ops/background/rows/appeals/1?done=noted"));
        let restarted = send(&app, "operate", &format!("{row}/restart"), Some("why=mended")).await;
        assert_eq!(restarted.location.as_deref(), Some("/ops/background/rows/appeals/1?done=restarted"));
        parked(&handle, 2).await; // refused again
        let canceled = send(&app, "operate", &format!("{row}/cancel"), Some("why=duplicate")).await;
        assert_eq!(canceled.location.as_deref(), Some("/ops/background/rows/appeals/1?done=canceled"));
        let shown = send(&app, "operate", &format!("{row}?done=canceled"), None).await;
        for part in ["Canceled. What the services have done stays done.", "asked the &lt;b&gt;office&lt;/b&gt;", "duplicate", "mended"] {
            assert!(shown.body.contains(part), "{part}: {}", shown.body);
        }
        let ann = "Ann <em>Lee</em>".to_owned();
        let of_row = |action: &str, reason: &str| (ann.clone(), action.to_owned(), Some("1".to_owned()), Some(reason.to_owned()));
        assert_eq!(actions(&db), [of_row("restarted", "mended"), of_row("canceled", "duplicate")]);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn rows_of_a_model_that_names_no_column_for_it_cannot_be_canceled() {
        let db = Db::migrated(LETTERS);
        diesel::insert_into(letters::table).values(letters::id.eq(1)).execute(&mut db.conn()).expect("a letter");
        let handle = Supervisor::<Conn>::new(db.url()).processor(Lose).start().expect("it starts");
        let app = app!(handle);
        handle.send(Submit::<Letter>::new(1)).await.expect("submitted");
        let is_parked = async {
            while handle.send(GetCounts::<Letter>::new()).await.expect("counts").parked != 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_parked).await.expect("it is parked");
        let (row, list) = ("/ops/background/rows/letters/1", "/ops/background/rows?model=letters");
        for page in [row, list] {
            let shown = send(&app, "admin", page, None).await;
            assert!(shown.body.contains(">Restart") && !shown.body.contains(">Cancel"), "{}", shown.body);
        }
        let refused = send(&app, "admin", &format!("{row}/cancel"), Some("why=x")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("Rows of this model cannot be canceled"), "{}", refused.body);
        let nothing = send(&app, "admin", "/ops/background/bulk/letters", Some("do=cancel&all=1&state=parked")).await;
        assert!(nothing.body.contains("Nothing to cancel in letters"), "{}", nothing.body);
        assert_eq!(actions(&db), []);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_service_is_held_down_released_and_asked_from_its_page() {
        let (db, handle) = start(1);
        let app = app!(handle);
        let service = "/ops/background/services/vbms";
        let empty = send(&app, "operate", &format!("{service}/hold"), Some("why=+")).await;
        assert_eq!(empty.status, StatusCode::BAD_REQUEST);
        let held = send(&app, "operate", &format!("{service}/hold"), Some("why=%3Cb%3Ework%3C%2Fb%3E&hours=2")).await;
        assert_eq!(held.location.as_deref(), Some("/ops/background/services/vbms?done=held"));
        let shown = send(&app, "view", service, None).await;
        assert!(shown.body.contains("held down") && shown.body.contains("&lt;b&gt;work&lt;/b&gt;"), "{}", shown.body);
        assert!(!shown.body.contains("Release"), "a viewer has no buttons");
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        let overview = send(&app, "view", "/ops/background", None).await;
        assert!(overview.body.contains("is held down by Ann &lt;em&gt;Lee&lt;/em&gt;"), "{}", overview.body);
        let nothing = send(&app, "operate", &format!("{service}/ask"), Some("")).await;
        assert_eq!(nothing.location.as_deref(), Some("/ops/background/services/vbms?done=nothing"));
        let released = send(&app, "operate", &format!("{service}/release"), Some("")).await;
        assert_eq!(released.location.as_deref(), Some("/ops/background/services/vbms?done=released"));
        parked(&handle, 1).await;
        assert_eq!(actions(&db).len(), 2);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn an_admin_pauses_a_model_for_all_hosts_and_resumes_it_from_its_page() {
        let (db, handle) = start(1);
        let app = app!(handle);
        let model = "/ops/background/models/appeals";
        until_alive(&app).await;
        let shown = send(&app, "admin", model, None).await;
        assert!(shown.body.contains("worked on") && shown.body.contains("works on it"), "{}", shown.body);
        let operator = send(&app, "operate", &format!("{model}/pause"), Some("why=x")).await;
        assert_eq!(operator.status, StatusCode::FORBIDDEN);
        let empty = send(&app, "admin", &format!("{model}/pause"), Some("why=+")).await;
        assert_eq!(empty.status, StatusCode::BAD_REQUEST);
        let paused = send(&app, "admin", &format!("{model}/pause"), Some("why=%3Cb%3Ebug%3C%2Fb%3E")).await;
        assert_eq!(paused.location.as_deref(), Some("/ops/background/models/appeals?done=paused"));
        let again = send(&app, "admin", &format!("{model}/pause"), Some("why=bug")).await;
        assert_eq!(again.location.as_deref(), Some("/ops/background/models/appeals?done=nothing"));
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        let shown = until(&app, "operate", model, |shown| shown.body.contains("claims nothing of it")).await;
        assert!(shown.body.contains("Paused by") && shown.body.contains("&lt;b&gt;bug&lt;/b&gt;"), "{}", shown.body);
        assert!(!shown.body.contains("Resume"), "an operator has no button for it");
        let overview = send(&app, "admin", "/ops/background", None).await;
        assert!(overview.body.contains("is paused by Ad Min") && overview.body.contains("Resume"), "{}", overview.body);
        let row = send(&app, "view", "/ops/background/rows/appeals/1", None).await;
        assert!(row.body.contains("its model is paused by Ad Min"), "{}", row.body);
        let resumed = send(&app, "admin", &format!("{model}/resume"), Some("why=mended")).await;
        assert_eq!(resumed.location.as_deref(), Some("/ops/background/models/appeals?done=resumed"));
        parked(&handle, 1).await;
        let done: Vec<String> = actions(&db).into_iter().map(|action| action.1).collect();
        assert_eq!(done, ["paused", "resumed"]);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_model_that_only_others_work_on_is_named_and_whoever_may_releases_from_the_overview() {
        let (db, handle) = start(1);
        let app = app!(handle);
        until_alive(&app).await;
        diesel::sql_query(
            "INSERT INTO asyncable_hosts (host, model, services, paused, seen_at) VALUES \
             ('app-2-1-a', 'faxes', '', 0, '2026-11-24 11:59:59')",
        ).execute(&mut db.conn()).expect("another version");
        let overview = send(&app, "operate", "/ops/background", None).await;
        assert!(overview.body.contains("no processor here: perhaps another version runs it"), "{}", overview.body);
        let held = send(&app, "operate", "/ops/background/services/vbms/hold", Some("why=work")).await;
        assert_eq!(held.status, StatusCode::SEE_OTHER);
        let release = "action=\"/ops/background/services/vbms/release\"";
        for (role, may) in [("view", false), ("operate", true)] {
            let overview = send(&app, role, "/ops/background", None).await;
            assert_eq!(overview.body.contains(release), may, "{role}: {}", overview.body);
        }
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn each_hour_of_the_chart_leads_to_the_rows_that_failed_in_it() {
        let (db, handle) = start(1);
        let app = app!(handle);
        let mut tries = String::new();
        // Sixty in the hour from 9:10 on, and one before and after it.
        for (id, at) in (1..=60).map(|id| (id, format!("09:{:02}:00", 10 + id % 50))).chain([(61, "09:09:59".into()), (62, "10:10:00".into())]) {
            tries += &format!("('appeals', '{id}', '2026-11-24 09:00:00', 1, 'app-1', '2026-11-24 09:00:00', '2026-11-24 {at}', 'failed', 'vbms.busy&amp;'),");
        }
        let tries = format!(
            "INSERT INTO asyncable_attempts (model, row_id, attempted_at, number, host, started_at, ended_at, outcome, code) VALUES {}",
            tries.trim_end_matches(',')
        );
        diesel::sql_query(tries).execute(&mut db.conn()).expect("attempts");
        diesel::sql_query("INSERT INTO asyncable_buckets (model, at, finished, failed, waiting) VALUES \
            ('appeals', '2026-11-24 09:10:00', 7, 60, 3), ('appeals', '2026-11-24 10:00:00', 5, 0, 9), \
            ('appeals', '2026-11-24 10:10:00', 100, 0, 100)").execute(&mut db.conn()).expect("ten minutes");
        let overview = send(&app, "view", "/ops/background", None).await;
        let hour = "/ops/background/hours/2026-11-24T09%3A10%3A00Z";
        assert!(overview.body.contains(hour), "{}", overview.body);
        let shown = send(&app, "view", hour, None).await;
        let cell = |name: &str, count: u32| format!("data-l=\"{name}\">{count}</td>");
        for (name, count) in [("Finished", 12), ("Failed", 60), ("Waiting", 9)] {
            assert!(shown.body.contains(&cell(name, count)), "{name}: {}", shown.body);
        }
        assert!(shown.body.contains("vbms.busy&amp;amp;"), "as text");
        let rows = |body: &str| {
            let parts = body.split("/ops/background/rows/appeals/").skip(1);
            parts.map(|part| part.split('"').next().expect("an id").parse().expect("a number")).collect::<Vec<i64>>()
        };
        let mut listed = rows(&shown.body);
        assert_eq!(listed.len(), 50);
        let next = shown.body.split("rel=\"next\" href=\"").nth(1).expect("a next page");
        let next = next.split('"').next().expect("its address").replace("&amp;", "&");
        let rest = send(&app, "view", &next, None).await;
        listed.extend(rows(&rest.body));
        listed.sort_unstable();
        assert_eq!(listed, (1..=60).collect::<Vec<i64>>());
        assert!(!rest.body.contains("rel=\"next\""));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_service_shows_the_rows_that_it_was_asked_with_in_vain() {
        let (db, handle) = start(1);
        let app = app!(handle);
        diesel::sql_query("INSERT INTO asyncable_probes (service, at, model, row_id, code) VALUES \
            ('vbms', '2026-11-24 11:00:00', 'appeals', '12', 'vbms.<b>busy</b>'), ('bgs', '2026-11-24 11:00:00', 'appeals', '13', '')")
            .execute(&mut db.conn()).expect("tries");
        let shown = send(&app, "view", "/ops/background/services/vbms", None).await;
        assert!(shown.body.contains("/rows/appeals/12") && shown.body.contains("vbms.&lt;b&gt;busy"), "{}", shown.body);
        assert!(!shown.body.contains("/rows/appeals/13"), "another service's");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_row_says_when_it_expires_and_its_older_tries_are_a_page_further() {
        let (db, handle) = start(1);
        let app = app!(handle);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        parked(&handle, 1).await;
        let mut tries = String::new();
        for number in 2..=60 {
            tries += &format!("('appeals', '1', '2026-11-20 10:{number:02}:00', {number}, 'app-1', '2026-11-20 10:{number:02}:00', '2026-11-20 10:{number:02}:01', 'failed', 'older'),");
        }
        let tries = format!(
            "INSERT INTO asyncable_attempts (model, row_id, attempted_at, number, host, started_at, ended_at, outcome, code) VALUES {}",
            tries.replace("10:60:", "11:00:").trim_end_matches(',')
        );
        diesel::sql_query(tries).execute(&mut db.conn()).expect("attempts");
        let shown = send(&app, "operate", "/ops/background/rows/appeals/1", None).await;
        assert!(shown.body.contains("It has been parked since <time") && shown.body.contains("Expires"), "{}", shown.body);
        let count = |body: &str| body.matches("<th scope=\"row\">#").count();
        assert_eq!(count(&shown.body), 50);
        let (_, older) = shown.body.split_once("/ops/background/rows/appeals/1?before=").expect("a link to older ones");
        let older = format!("/ops/background/rows/appeals/1?before={}", older.split('"').next().expect("a number"));
        let rest = send(&app, "operate", &older, None).await;
        assert_eq!(count(&rest.body), 10);
        assert!(!rest.body.contains("message</dt>"), "what the last try said is no older one's");
        let odd = send(&app, "operate", "/ops/background/rows/appeals/1?before=9223372036854775807", None).await;
        assert_eq!((odd.status, count(&odd.body)), (StatusCode::OK, 50));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_is_kept_of_a_deleted_row_is_shown_and_what_steps_came_to_is_for_admins() {
        let (db, handle) = start(1);
        let app = app!(handle);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        parked(&handle, 1).await;
        diesel::sql_query("INSERT INTO asyncable_steps (model, row_id, generation, name, key, attempted_at, tries, find_after, result) VALUES \
            ('appeals', '1', 9223372036854775807, 'establish', 'k', '2026-11-24 12:00:00', 1, '2026-11-24 12:00:00', '{\"claim\":\"<b>600</b>\"}')")
            .execute(&mut db.conn()).expect("a step");
        let row = "/ops/background/rows/appeals/1";
        let noted = send(&app, "operate", &format!("{row}/note"), Some("why=asked")).await;
        assert_eq!(noted.status, StatusCode::SEE_OTHER);
        for (role, sees) in [("view", false), ("operate", false), ("admin", true)] {
            let shown = send(&app, role, row, None).await;
            assert_eq!(shown.body.contains("&lt;b&gt;600&lt;/b&gt;"), sees, "{role}: {}", shown.body);
        }
        diesel::delete(appeals::table.find(1)).execute(&mut db.conn()).expect("deleted");
        let shown = send(&app, "view", row, None).await;
        assert_eq!(shown.status, StatusCode::NOT_FOUND);
        assert!(shown.body.contains("There is no row 1 in appeals any more.") && shown.body.contains("asked"), "{}", shown.body);
        assert!(!shown.body.contains("<form"), "there is nothing to do");
        let never = send(&app, "view", "/ops/background/rows/appeals/2", None).await;
        assert!(never.body.contains("There is no such row"), "{}", never.body);
        let unknown = send(&app, "view", "/ops/background/rows/faxes/2", None).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        assert!(unknown.body.contains("Those that there are: appeals."), "{}", unknown.body);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn nobody_sees_or_does_what_their_role_does_not_allow() {
        let (db, handle) = start(1);
        let app = app!(handle);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        parked(&handle, 1).await;
        let base = "/ops/background";
        for address in ["", "/", "/rows", "/rows/appeals/1", "/models/appeals", "/services/vbms", "/nothing"] {
            let shown = send(&app, "nobody", &format!("{base}{address}"), None).await;
            assert_eq!(shown.status, StatusCode::UNAUTHORIZED, "{address}");
        }
        let forms = [
            "/rows/appeals/1/restart", "/rows/appeals/1/cancel", "/rows/appeals/1/note",
            "/bulk/appeals", "/bulk/appeals/begin", "/bulk/appeals/1/stop", "/services/vbms/hold", "/services/vbms/release", "/services/vbms/ask",
            "/models/appeals/pause", "/models/appeals/resume",
        ];
        for form in forms {
            let nobody = send(&app, "nobody", &format!("{base}{form}"), Some("why=x&row=1&do=restart")).await;
            assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{form}");
            let viewer = send(&app, "view", &format!("{base}{form}"), Some("why=x&row=1&do=restart")).await;
            assert_eq!(viewer.status, StatusCode::FORBIDDEN, "{form}");
            let role = if form.starts_with("/models/") { "admin" } else { "operate" };
            assert!(viewer.body.contains(&format!("This needs the role `{role}`.")), "{form}");
            // From elsewhere, or from nobody knows where: by no role.
            let strangers = [
                vec![("sec-fetch-site", "cross-site")],
                vec![("sec-fetch-site", "same-site")],
                vec![("sec-fetch-site", "none")],
                vec![("origin", "https://evil.example"), ("host", "localhost:8080")],
                vec![("origin", "null"), ("host", "localhost:8080")],
                vec![("host", "localhost:8080")],
                vec![],
            ];
            for headers in strangers {
                let mut request = test::TestRequest::post()
                    .insert_header(("x-role", "admin"))
                    .insert_header(("content-type", "application/x-www-form-urlencoded"))
                    .set_payload("why=x&row=1&do=restart")
                    .uri(&format!("{base}{form}"));
                for header in &headers {
                    request = request.insert_header(*header);
                }
                let stranger = send_request(&app, request).await;
                assert_eq!(stranger.status, StatusCode::FORBIDDEN, "{form} {headers:?}");
            }
        }
        assert_eq!(actions(&db), []);
        let status: Status = appeals::table.find(1).select(Appeal::status().at(began())).first(&mut db.conn()).expect("a status");
        assert_eq!(status, Status::Attempted, "still parked");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_subject_and_an_errors_text_are_for_operators_and_no_text_is_markup() {
        let (_db, handle) = start(1);
        let app = app!(handle);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        parked(&handle, 1).await;
        let row = "/ops/background/rows/appeals/1";
        let list = "/ops/background/rows?model=appeals&state=parked";
        let viewer = send(&app, "view", row, None).await.body + &send(&app, "view", list, None).await.body;
        assert!(viewer.contains("..437") && !viewer.contains("796104437") && !viewer.contains("is closed"));
        assert!(!viewer.contains("<form method=\"post\" action=\"/ops/background/rows/appeals/1"), "no buttons");
        let operator = send(&app, "operate", row, None).await;
        assert!(operator.body.contains("796104437") && operator.body.contains("is closed"));
        for page in [&viewer, &operator.body] {
            for markup in ["<script>alert", "<i>jdoe", "<b>refused", "<u>look", "<em>Lee"] {
                assert!(!page.contains(markup), "{markup}");
            }
        }
        assert!(operator.policy.starts_with("default-src 'none'") && !operator.policy.contains("unsafe"));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn addresses_that_name_nothing_are_answered_and_do_nothing() {
        let (db, handle) = start(1);
        let app = app!(handle);
        let base = "/ops/background";
        let gone = [
            "/rows/appeals/99", "/rows/appeals/abc", "/rows/appeals/-1", "/rows/appeals/01", "/rows/appeals/+1",
            "/rows/appeals/9223372036854775808", "/rows/appeals/1%00", "/rows/appeals/1'--", "/rows/appeals/1%20OR%201=1",
            "/rows/nothing/1", "/models/nothing", "/models/appeals%00", "/hours/nothing", "/hours/2026-13-01T00:00:00Z", "/hours/-999999-01-01T00:00:00Z", "/services/nothing", "/services/vbms%00", "/nothing", "/rows/appeals/1/nothing",
            "/rows?model=nothing", "/rows/..%2F..%2Fetc/passwd",
        ];
        for address in gone {
            let shown = send(&app, "admin", &format!("{base}{address}"), None).await;
            assert_eq!(shown.status, StatusCode::NOT_FOUND, "{address}");
        }
        let wrong = ["/rows?model=appeals&state=x'--", "/rows?model=appeals&after=x", "/rows?model=appeals&after=%5B%5B99999999999999999999,%22%22%5D%5D", "/rows?model=appeals&age=-1", "/hours/2026-11-24T09:00:00Z?after=x", "/rows?model=appeals&age=x"];
        for address in wrong {
            let shown = send(&app, "admin", &format!("{base}{address}"), None).await;
            assert_eq!(shown.status, StatusCode::BAD_REQUEST, "{address}");
        }
        let odd = ["/rows?model=appeals&state=parked&code='%20OR%201=1--", "/rows?model=appeals&user='%3B--", "/rows?model=appeals&after=%5B%5B0,%22'%3B--%22%5D%5D", "/rows?model=appeals&after=%5B%5B0,%22%5Cu0000%22%5D%5D", "/rows?model=appeals&age=4294967295"];
        for address in odd {
            let shown = send(&app, "admin", &format!("{base}{address}"), None).await;
            assert!(shown.status == StatusCode::OK && shown.body.contains("No rows"), "{address}");
        }
        for form in ["/rows/appeals/99/restart", "/rows/appeals/x/cancel", "/rows/appeals/99/note", "/services/nothing/hold", "/services/vbms/nothing", "/models/nothing/pause", "/models/appeals/nothing"] {
            let shown = send(&app, "admin", &format!("{base}{form}"), Some("why=x")).await;
            assert_eq!(shown.status, StatusCode::NOT_FOUND, "{form}");
        }
        assert_eq!(actions(&db), []);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_long_list_goes_on_from_its_last_row_and_shows_each_once() {
        let (_db, handle) = start(120);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=120)).await.expect("submitted");
        parked(&handle, 120).await;
        let mut next = Some("/ops/background/rows?model=appeals&state=parked".to_owned());
        let (mut pages, mut seen) = (0, Vec::new());
        while let Some(address) = next {
            let shown = send(&app, "view", &address, None).await;
            assert_eq!(shown.status, StatusCode::OK);
            let links = shown.body.split("href=\"/ops/background/rows/appeals/").skip(1);
            seen.extend(links.filter_map(|link| link.split('"').next()?.parse::<i64>().ok()));
            next = shown.body.split("\" rel=\"next\"").next().filter(|before| before.len() < shown.body.len())
                .and_then(|before| before.rsplit('"').next()).map(|link| link.replace("&amp;", "&"));
            pages += 1;
            assert!(pages < 10);
        }
        seen.sort_unstable();
        assert_eq!((pages, seen), (3, (1..=120).collect::<Vec<_>>()));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn machines_ask_whether_anybody_is_alive_without_a_login() {
        let (_db, handle) = start(1);
        let app = app!(handle);
        let alive = until_alive(&app).await;
        assert_eq!(alive, r#"{"ok":true,"hosts":1,"services_down":0}"#);
        handle.shutdown(Duration::ZERO).await;
        let stopped = send(&app, "nobody", "/ops/background/health.json", None).await;
        assert_eq!(stopped.status, StatusCode::SERVICE_UNAVAILABLE);
        let silent = send(&app, "view", "/ops/background/", None).await;
        assert_eq!(silent.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(silent.body.contains("The database does not answer"));
    }

    #[actix_rt::test]
    async fn an_unchanged_page_is_not_sent_again() {
        let (_db, handle) = start(1);
        let app = app!(handle);
        let get = |etag: Option<String>| {
            let mut request = test::TestRequest::get().insert_header(("x-role", "view")).uri("/ops/background/rows");
            if let Some(etag) = etag {
                request = request.insert_header(("if-none-match", etag));
            }
            request.to_request()
        };
        let first = app.call(get(None)).await.expect("a page");
        let etag = first.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(ToOwned::to_owned);
        let again = app.call(get(etag)).await.expect("an answer");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        handle.shutdown(Duration::ZERO).await;
    }
}
