//! What programs ask of the page: each operation of `openapi.json` is called, and answers as described.
#![cfg(feature = "dashboard")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actix_web::{
    App, HttpRequest,
    body::MessageBody,
    dev::{Service, ServiceResponse},
    test::{TestRequest, init_service, read_body},
    web,
};
use asyncable::{
    Access, Asyncable, Attempt, Clock, Columns, Dashboard, Failure, GetCounts, Handle, Outcome,
    Processor, Service as Outside, Submit, SubmitAll, Supervisor, columns,
};
use chrono::{DateTime, TimeZone, Utc};
use diesel::prelude::*;
use serde_json::{Value, json};

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
        asyncable_actions (id) { id -> BigInt, who -> Text, action -> Text, reason -> Nullable<Text>, }
    }
}
use schema::{appeals, asyncable_actions};

const DDL: &str = "CREATE TABLE appeals (id {key}, file_number TEXT NOT NULL DEFAULT '796104437', \
    created_by TEXT NOT NULL DEFAULT '=HYPERLINK(\"x\")', submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
    CREATE INDEX appeals_work ON appeals (attempted_at, submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL;";

const VBMS: Outside = Outside::new("vbms");

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i64;
    const COLUMNS: Columns<appeals::table> =
        columns!(appeals, canceled_at = canceled_at, user = created_by, subject = file_number);
}

/// Refuses each row at its first attempt.
#[derive(Clone)]
struct Refuse;

impl Processor for Refuse {
    type Model = Appeal;
    const SERVICES: &'static [Outside] = &[VBMS];

    async fn process(&self, _: &Appeal, attempt: &Attempt) -> Outcome {
        attempt.step("look").run(async |_| Ok(7)).await?;
        Err(Failure::permanent("the file of Jane Doe is closed").with_code("vbms.refused"))
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

async fn who(request: HttpRequest) -> Result<Access, actix_web::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    match header("x-role") {
        Some("own") => Ok(Access::own("jdoe")),
        Some("view") => Ok(Access::view("Vi View")),
        Some("operate") => Ok(Access::operate("Ann Lee")),
        Some("admin") => Ok(Access::admin("Ad Min")),
        _ => Err(actix_web::error::ErrorUnauthorized("log in first")),
    }
}

/// Where the page is mounted.
const BASE: &str = "/ops/background";

/// A request of a program's.
#[derive(Clone, Debug)]
struct Call {
    /// As the description names it.
    operation: &'static str,
    address: String,
    role: &'static str,
    /// Sent as JSON, by a program that says nothing of where it comes from.
    body: Option<Value>,
    /// Other headers.
    headers: Vec<(&'static str, String)>,
}

fn get(operation: &'static str, address: &str) -> Call {
    let address = address.to_owned();
    Call { operation, address, role: "operate", body: None, headers: Vec::new() }
}

fn post(operation: &'static str, address: &str, body: Value) -> Call {
    Call { body: Some(body), ..get(operation, address) }
}

impl Call {
    fn by(self, role: &'static str) -> Self {
        Call { role, ..self }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Debug)]
struct Answered {
    status: u16,
    kind: String,
    link: Option<String>,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn send<S, B>(app: &S, call: &Call) -> Answered
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let mut request = match &call.body {
        None => TestRequest::get(),
        Some(body) => TestRequest::post()
            .insert_header(("content-type", "application/json"))
            .set_payload(body.to_string()),
    };
    request = request.insert_header(("x-role", call.role));
    for (name, value) in &call.headers {
        request = request.insert_header((*name, value.as_str()));
    }
    let request = request.uri(&format!("{BASE}{}", call.address)).to_request();
    let response = match app.call(request).await {
        Ok(response) => response,
        Err(error) => {
            let status = error.as_response_error().status_code().as_u16();
            return Answered { status, kind: String::new(), link: None, body: String::new() };
        }
    };
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
    };
    let status = response.status().as_u16();
    let (kind, link) = (header("content-type").unwrap_or_default(), header("link"));
    let body = String::from_utf8_lossy(&read_body(response).await).into_owned();
    Answered { status, kind, link, body }
}

macro_rules! app {
    ($handle:expr) => {
        init_service(
            App::new().service(web::scope(BASE).service(Dashboard::new($handle.clone(), who))),
        )
        .await
    };
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

/// What the description says.
struct Description {
    file: Value,
    /// By operation and status, what was called.
    called: BTreeSet<(String, String)>,
}

impl Description {
    fn read() -> Self {
        let file = include_str!("../src/dashboard/openapi.json");
        Description { file: serde_json::from_str(file).expect("JSON"), called: BTreeSet::new() }
    }

    fn operations(&self) -> BTreeMap<String, &Value> {
        let methods = |path: &'_ Value| {
            let path = path.as_object().expect("a path").clone();
            path.into_iter()
                .filter(|(method, _)| method != "parameters")
                .map(|(m, _)| m)
                .collect::<Vec<_>>()
        };
        let paths = self.file["paths"].as_object().expect("paths").values();
        let all = paths.flat_map(|path| methods(path).into_iter().map(move |m| &path[m]));
        all.map(|known| (known["operationId"].as_str().expect("an id").to_owned(), known)).collect()
    }

    /// What the reference leads to.
    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(to) => self.file.pointer(to.trim_start_matches('#')).expect("a reference"),
            None => value,
        }
    }

    /// All pairs of an operation and a status that are described.
    fn described(&self) -> BTreeSet<(String, String)> {
        let statuses = |(id, known): (String, &Value)| {
            let statuses = known["responses"].as_object().expect("responses").keys();
            statuses.map(|status| (id.clone(), status.clone())).collect::<Vec<_>>()
        };
        self.operations().into_iter().flat_map(statuses).collect()
    }

    fn validates(&self, schema: &Value, value: &Value) -> Result<(), String> {
        // References in a schema lead into the whole file.
        let whole = json!({ "allOf": [schema], "components": self.file["components"] });
        let validator = jsonschema::options().should_validate_formats(true).build(&whole);
        let validator = validator.map_err(|error| format!("the schema: {error}"))?;
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Holds an answer against the description, and a body that was granted too.
    fn holds(&mut self, call: &Call, answered: &Answered) {
        let id = call.operation;
        let known = self.operations()[id].clone();
        let status = answered.status.to_string();
        let response = &known["responses"][&status];
        assert!(response.is_object(), "{id} may not answer {status}: {}", answered.body);
        let response = self.resolved(response).clone();
        for (kind, content) in response["content"].as_object().into_iter().flatten() {
            assert!(answered.kind.starts_with(kind), "{id}: {} is no {kind}", answered.kind);
            let value = match kind.as_str() {
                "application/json" => answered.json(),
                _ => Value::String(answered.body.clone()),
            };
            if let Err(wrong) = self.validates(&content["schema"], &value) {
                panic!("{id} {status}: {wrong}: {value}");
            }
        }
        if answered.status == 200
            && let Some(body) = &call.body
        {
            let schema = &known["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(self.validates(schema, body), Ok(()), "{id}: what was granted is described");
        }
        self.called.insert((id.to_owned(), status));
    }
}

#[test]
fn a_property_that_is_not_described_is_found_out() {
    let description = Description::read();
    let noted = json!({ "$ref": "#/components/schemas/Noted" });
    assert_eq!(description.validates(&noted, &json!({"noted": true, "sent": false})), Ok(()));
    let wrongs = [
        json!({"noted": true, "sent": true, "more": 1}),
        json!({}),
        json!({"noted": false, "sent": true}),
    ];
    for wrong in wrongs {
        assert!(description.validates(&noted, &wrong).is_err(), "{wrong}");
    }
    let objects = description.file["components"]["schemas"].as_object().expect("schemas");
    for (name, schema) in objects.iter().filter(|(_, schema)| schema["type"] == "object") {
        assert_eq!(schema["additionalProperties"], json!(false), "{name}");
    }
}

/// A call of each operation that is granted; those that change rows name the first two.
fn granted() -> Vec<Call> {
    vec![
        get("description", "/api/openapi.json"),
        get("overview", "/api/overview"),
        get("rows", "/api/rows?model=appeals&state=parked&code=vbms.refused"),
        get("rows", "/api/rows"),
        get("row", "/api/rows/appeals/1"),
        get("service", "/api/services/vbms"),
        post(
            "hold",
            "/api/services/vbms/hold",
            json!({"why": "work", "until": "2026-11-24T18:00:00Z"}),
        ),
        get("overview", "/api/overview"),
        get("service", "/api/services/vbms"),
        post("restart", "/api/rows/appeals/1/restart", json!({"why": "mended"})),
        get("row", "/api/rows/appeals/1"),
        get("rows", "/api/rows?state=due"),
        post("ask", "/api/services/vbms/ask", json!({})),
        post(
            "note",
            "/api/rows/appeals/2/notes",
            json!({"text": "asked the office", "send": true}),
        ),
        post(
            "restart_many",
            "/api/rows/appeals/restart",
            json!({"ids": ["1", "2", "99", "x"], "why": "mended"}),
        ),
        post("release", "/api/services/vbms/release", json!({})),
        post("cancel", "/api/rows/appeals/2/cancel", json!({"why": "duplicate"})),
        get("row", "/api/rows/appeals/2"),
        get("row", "/api/rows/appeals/2").by("view"),
        get("rows", "/api/rows?state=parked").by("view"),
        get("report_text", "/report.txt"),
        get("report_csv", "/report.csv"),
        get("rows_csv", "/rows.csv?model=appeals&state=parked&subjects=yes"),
        get("health", "/health.json").by("nobody"),
        get("live", "/health/live").by("nobody"),
        get("ready", "/health/ready").by("nobody"),
        get("progressing", "/health/progressing").by("nobody"),
    ]
}

/// Calls that cannot be granted, by the status that they are answered with.
fn refused() -> Vec<(u16, Call)> {
    let mut calls = vec![
        (400, get("rows", "/api/rows?state=x'--")),
        (400, get("rows", "/api/rows?after=99999999999999999999.1")),
        (404, get("rows", "/api/rows?model=nothing")),
        (404, get("row", "/api/rows/appeals/99")),
        (404, get("row", "/api/rows/appeals/1%00")),
        (404, get("row", "/api/rows/appeals/restart")),
        (404, get("row", "/api/rows/nothing/1")),
        (404, get("service", "/api/services/nothing")),
        (400, get("rows_csv", "/rows.csv?state=x")),
        (403, get("rows_csv", "/rows.csv?subjects=yes").by("view")),
        (404, get("rows_csv", "/rows.csv?model=nothing")),
        (404, post("restart_many", "/api/rows/nothing/restart", json!({"ids": ["1"]}))),
        (400, post("restart_many", "/api/rows/appeals/restart", json!({"ids": []}))),
        (400, post("restart_many", "/api/rows/appeals/restart", json!({"ids": vec!["1"; 501]}))),
        (404, post("restart", "/api/rows/appeals/99/restart", json!({}))),
        (404, post("cancel", "/api/rows/appeals/-1/cancel", json!({"why": "x"}))),
        (400, post("cancel", "/api/rows/appeals/1/cancel", json!({"why": " "}))),
        (404, post("note", "/api/rows/appeals/1'--/notes", json!({"text": "x"}))),
        (400, post("note", "/api/rows/appeals/1/notes", json!({"text": "\u{0}"}))),
        (404, post("hold", "/api/services/nothing/hold", json!({"why": "x"}))),
        (400, post("hold", "/api/services/vbms/hold", json!({"why": ""}))),
        (
            400,
            post(
                "hold",
                "/api/services/vbms/hold",
                json!({"why": "x", "until": "2020-01-01T00:00:00Z"}),
            ),
        ),
        (400, post("hold", "/api/services/vbms/hold", json!({"why": "x", "until": "tomorrow"}))),
        (404, post("release", "/api/services/vbms%00/release", json!({}))),
        (404, post("ask", "/api/services/nothing/ask", json!({}))),
    ];
    let open = ["description", "health", "live", "ready", "progressing"];
    let closed = granted().into_iter().filter(|call| !open.contains(&call.operation));
    calls.extend(closed.map(|call| (403, call.by("own"))));
    for call in granted().into_iter().filter(|call| call.body.is_some()) {
        let unknown = Call { body: Some(json!({"unknown": 1})), ..call.clone() };
        let long = json!({"why": "x".repeat(300 * 1024)});
        calls.push((400, unknown));
        calls.push((413, Call { body: Some(long), ..call.clone() }));
        let plain = call.clone().with("content-type", "text/plain");
        calls.push((415, plain.with("sec-fetch-site", "same-origin")));
        calls.push((403, call.by("view")));
    }
    calls
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

    fn actions(db: &Db) -> Vec<(String, String, Option<String>)> {
        let columns = (asyncable_actions::who, asyncable_actions::action, asyncable_actions::reason);
        asyncable_actions::table.order(asyncable_actions::id).select(columns).load(&mut db.conn()).expect("actions")
    }

    #[actix_rt::test]
    async fn every_operation_is_called_and_each_answer_is_as_the_description_says() {
        let (_db, handle) = start(3);
        let app = app!(handle);
        let mut description = Description::read();
        handle.send(SubmitAll::<Appeal>::new(1..=3)).await.expect("submitted");
        parked(&handle, 3).await;
        for call in granted() {
            let answered = send(&app, &call).await;
            assert_eq!(answered.status, 200, "{call:?}: {}", answered.body);
            description.holds(&call, &answered);
        }
        for (status, call) in refused() {
            let answered = send(&app, &call).await;
            assert_eq!(answered.status, status, "{call:?}: {}", answered.body);
            description.holds(&call, &answered);
        }
        handle.shutdown(Duration::ZERO).await;
        let always = ["description", "live"];
        for call in granted().into_iter().filter(|call| !always.contains(&call.operation)) {
            let answered = send(&app, &call).await;
            assert_eq!(answered.status, 503, "{call:?}: {}", answered.body);
            description.holds(&call, &answered);
        }
        let mut described = description.described();
        // An unwell process does not answer at all.
        described.remove(&("live".to_owned(), "503".to_owned()));
        assert_eq!(description.called, described);
    }

    #[actix_rt::test]
    async fn a_program_does_what_a_person_does_and_it_is_kept_who_did() {
        let (db, handle) = start(2);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=2)).await.expect("submitted");
        parked(&handle, 2).await;
        let row = "/api/rows/appeals/1";
        let hold = post("hold", "/api/services/vbms/hold", json!({"why": "work"}));
        assert_eq!(send(&app, &hold).await.json(), json!({"done": true}));
        let many = post("restart_many", "/api/rows/appeals/restart", json!({"ids": ["1", "2", "99"], "why": "mended"}));
        assert_eq!(send(&app, &many).await.json(), json!({"restarted": 2, "left_alone": 0, "not_found": 1}));
        let waits = send(&app, &get("row", row)).await.json();
        assert_eq!(waits["row"]["explanation"]["kind"], "service_held");
        assert_eq!(waits["row"]["explanation"]["by"], "Ann Lee");
        let note = post("note", &format!("{row}/notes"), json!({"text": " <b>asked</b> "}));
        assert_eq!(send(&app, &note).await.json(), json!({"noted": true, "sent": false}));
        let cancel = post("cancel", &format!("{row}/cancel"), json!({"why": "duplicate"}));
        assert_eq!(send(&app, &cancel).await.json(), json!({"canceled": true}));
        assert_eq!(send(&app, &cancel).await.json(), json!({"canceled": false}));
        let shown = send(&app, &get("row", row)).await.json();
        assert_eq!(shown["notes"][0]["text"], "<b>asked</b>");
        assert_eq!(shown["steps"], json!([{"name": "look", "done": true, "attempts": 1}]));
        let release = post("release", "/api/services/vbms/release", json!({}));
        assert_eq!(send(&app, &release).await.json(), json!({"done": true}));
        assert_eq!(send(&app, &release).await.json(), json!({"done": false}));
        let kept = |action: &str, why: Option<&str>| ("Ann Lee".to_owned(), action.to_owned(), why.map(ToOwned::to_owned));
        assert_eq!(actions(&db), [
            kept("service_held", Some("work")), kept("restarted", Some("mended")),
            kept("canceled", Some("duplicate")), kept("service_released", None),
        ]);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_without_a_login_or_role_or_of_another_site_is_refused() {
        let (db, handle) = start(1);
        let app = app!(handle);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        parked(&handle, 1).await;
        for call in granted() {
            let open = ["description", "health", "live", "ready", "progressing"];
            let nobody = send(&app, &call.clone().by("nobody")).await;
            assert_eq!(nobody.status, if open.contains(&call.operation) { 200 } else { 401 }, "{call:?}");
            if call.body.is_none() {
                continue;
            }
            // A body that nobody can read says no more.
            let unread = Call { body: Some(json!("x")), ..call.clone() };
            assert_eq!(send(&app, &unread.clone().by("nobody")).await.status, 401);
            assert_eq!(send(&app, &unread.by("view")).await.status, 403);
            let strangers = [
                call.clone().with("sec-fetch-site", "cross-site"),
                call.clone().with("sec-fetch-site", "none"),
                call.clone().with("origin", "https://evil.example").with("host", "localhost:8080"),
                call.clone().with("origin", "null"),
                // What a form of another site's can send without being asked back.
                call.clone().with("content-type", "text/plain"),
                call.clone().with("content-type", "application/x-www-form-urlencoded"),
                call.clone().with("content-type", "multipart/form-data; boundary=x"),
                call.clone().with("content-type", "application/jsonp"),
            ];
            for stranger in strangers {
                let answered = send(&app, &stranger.clone().by("admin")).await;
                assert_eq!(answered.status, 403, "{stranger:?}");
                assert!(answered.json()["error"].is_string());
            }
        }
        assert_eq!(actions(&db), []);
        let own = post("restart", "/api/rows/appeals/1/restart", json!({}));
        let own = own.with("origin", "http://localhost:8080").with("host", "localhost:8080");
        assert_eq!(send(&app, &own).await.status, 200, "the page's own script may");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_sees_of_subjects_and_errors_what_its_role_does() {
        let (_db, handle) = start(1);
        let app = app!(handle);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        parked(&handle, 1).await;
        let readable = ["/api/overview", "/api/rows", "/api/rows/appeals/1", "/api/services/vbms", "/report.txt", "/report.csv", "/rows.csv"];
        for address in readable {
            let seen = send(&app, &get("", address).by("view")).await;
            assert_eq!(seen.status, 200, "{address}");
            assert!(!seen.body.contains("796104437") && !seen.body.contains("Jane Doe"), "{}", seen.body);
        }
        let row = get("row", "/api/rows/appeals/1");
        let (viewed, operated) = (send(&app, &row.clone().by("view")).await.json(), send(&app, &row).await.json());
        assert_eq!((&viewed["row"]["subject"], &viewed["attempts"][0]["error"]), (&json!("..437"), &Value::Null));
        assert_eq!(viewed["row"]["may_restart"], json!(false));
        assert_eq!(operated["row"]["subject"], "796104437");
        assert_eq!(operated["row"]["may_restart"], json!(true));
        assert!(operated["attempts"][0]["error"].as_str().is_some_and(|error| error.contains("Jane Doe")));
        // Not in lists, whoever asks.
        for address in ["/api/rows", "/rows.csv", "/report.txt", "/report.csv"] {
            assert!(!send(&app, &get("", address).by("admin")).await.body.contains("Jane Doe"), "{address}");
        }
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_list_for_programs_goes_on_from_its_last_row_and_has_each_once() {
        let (_db, handle) = start(120);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=120)).await.expect("submitted");
        parked(&handle, 120).await;
        let (mut pages, mut seen, mut after) = (0, Vec::new(), String::new());
        loop {
            let page = send(&app, &get("rows", &format!("/api/rows?model=appeals&after={after}"))).await.json();
            let ids = page["rows"].as_array().expect("rows").iter();
            seen.extend(ids.map(|row| row["id"].as_str().expect("an id").parse::<i64>().expect("a number")));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = next.bytes().map(|byte| format!("%{byte:02X}")).collect(),
                None => break,
            }
        }
        seen.sort_unstable();
        assert_eq!((pages, seen), (3, (1..=120).collect::<Vec<_>>()));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_list_as_csv_has_all_of_its_rows_and_no_formula() {
        let (_db, handle) = start(60);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=60)).await.expect("submitted");
        parked(&handle, 60).await;
        let csv = send(&app, &get("rows_csv", "/rows.csv?model=appeals&state=parked").by("view")).await;
        assert_eq!((csv.kind.as_str(), csv.link), ("text/csv; charset=utf-8; header=present", None));
        let lines: Vec<&str> = csv.body.split("\r\n").collect();
        assert_eq!(lines[0], "model,id,state,last_submitted_at,attempted_at,failures,cause,user");
        assert_eq!((lines.len(), lines[61]), (62, ""));
        let first = "appeals,1,parked,2026-11-24T12:00:00Z,2026-11-24T12:00:00Z,1,vbms.refused,\"'=HYPERLINK(\"\"x\"\")\"";
        assert_eq!(lines[1], first);
        let whole = send(&app, &get("rows_csv", "/rows.csv?subjects=yes")).await;
        assert_eq!(whole.body.lines().next(), Some("model,id,state,last_submitted_at,attempted_at,failures,cause,user,subject"));
        assert_eq!(whole.body.matches(",796104437\r\n").count(), 60);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn the_report_has_the_codes_of_failures_by_state_and_age() {
        let (_db, handle) = start(3);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=2)).await.expect("submitted");
        handle.send(Submit::<Appeal>::new(3).after(Duration::from_secs(86_400))).await.expect("submitted");
        parked(&handle, 2).await;
        let csv = send(&app, &get("report_csv", "/report.csv").by("view")).await.body;
        let lines = "appeals,scheduled,0,none,1,all\r\nappeals,parked,1,vbms.refused,2,all\r\n";
        assert_eq!(csv, format!("model,state,age_days,cause,rows,counted\r\n{lines}"));
        let text = send(&app, &get("report_text", "/report.txt").by("view")).await.body;
        assert_eq!(text, "appeals has 1 row scheduled, 0 days old, with cause none\n\
            appeals has 2 rows parked, 1 day old, with cause vbms.refused\n\
            appeals has 3 rows that are not done\n");
        handle.shutdown(Duration::ZERO).await;
    }
}
