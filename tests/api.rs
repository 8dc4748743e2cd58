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
use diesel::{connection::SimpleConnection, prelude::*};
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

const VBMS: Outside = Outside::new("vbms").at_once(4);

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
            App::new().service(
                web::scope(BASE).service(
                    Dashboard::new($handle.clone(), who)
                        .label("appeals", "Appeal", "Appeals")
                        .link(|model, id| Some(format!("/{model}/{id}"))),
                ),
            ),
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

/// A bulk's number, as a program may choose one.
const BULK: &str = "0123456789abcdef0123456789ABCDEF";

/// What is begun without having been shown: a restart of the third row.
fn begin() -> Value {
    let shown = json!({"id": BULK, "do": "restart", "state": "parked", "seen_at": began()});
    with(&shown, json!({"rows": ["3"], "why": "mended"}))
}

/// A body with other fields.
fn with(body: &Value, more: Value) -> Value {
    let mut body = body.as_object().expect("an object").clone();
    body.extend(more.as_object().expect("an object").clone());
    Value::Object(body)
}

/// A call of each operation that is granted; those that change rows one by one name the first two. The second
/// is jdoe's.
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
        post("find", "/api/find", json!({"model": "appeals", "what": "796104437"})),
        post("find", "/api/find", json!({"model": "appeals", "what": "2"})).by("view"),
        post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "all": true})),
        post(
            "show_bulk",
            "/api/bulk/appeals",
            json!({"do": "cancel", "state": "not-done", "age": 0, "user": null, "rows": ["3", "x"]}),
        )
        .by("admin"),
        post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "rows": ["99"]})),
        post("begin_bulk", "/api/bulk/appeals/begin", begin()),
        get("bulk", &format!("/api/bulk/appeals/{BULK}")).by("view"),
        post("stop_bulk", &format!("/api/bulk/appeals/{BULK}/stop"), json!({})),
        get("hour", "/api/hours/2026-11-24T12:00:00Z").by("view"),
        get("hour", "/api/hours/2026-11-24T12:00:00Z?model=appeals&after="),
        get("row", "/api/rows/appeals/3?before=2026-11-24T11:00:00Z"),
        get("model", "/api/models/appeals").by("view"),
        post("pause", "/api/models/appeals/pause", json!({"why": "a bug"})).by("admin"),
        get("overview", "/api/overview").by("view"),
        get("model", "/api/models/appeals"),
        post("resume", "/api/models/appeals/resume", json!({"why": "mended"})).by("admin"),
        post("resume", "/api/models/appeals/resume", json!({})).by("admin"),
        get("mine", "/api/mine"),
        get("mine", "/api/mine").by("own"),
        post("read_message", "/api/mine/messages/1/read", json!({})).by("own"),
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

/// A role that is too low for an operation, if there is one.
fn too_low(operation: &str) -> Option<&'static str> {
    match operation {
        "mine" | "read_message" | "row" => None,
        "find" => Some("own"),
        "pause" | "resume" => Some("operate"),
        _ => Some("view"),
    }
}

fn refused_bulks() -> Vec<(u16, Call)> {
    let show = |body| post("show_bulk", "/api/bulk/appeals", body);
    let start = |more| post("begin_bulk", "/api/bulk/appeals/begin", with(&begin(), more));
    let cancel = json!({"do": "cancel", "typed": 1});
    let mut calls = vec![
        (404, post("show_bulk", "/api/bulk/nothing", json!({"do": "restart", "all": true}))),
        (403, show(json!({"do": "cancel", "all": true}))),
        (404, post("begin_bulk", "/api/bulk/nothing/begin", begin())),
        (403, start(cancel.clone())),
        (403, start(json!({"rows": null, "promised": 1001}))),
        (403, start(json!({"rows": null, "promised": u32::MAX}))),
        (404, get("bulk", "/api/bulk/appeals/x")),
        (404, get("bulk", &format!("/api/bulk/nothing/{BULK}"))),
        (404, get("bulk", &format!("/api/bulk/appeals/{BULK}%00"))),
        (404, post("stop_bulk", "/api/bulk/appeals/x/stop", json!({}))),
        (404, post("stop_bulk", "/api/bulk/appeals/%00/stop", json!({}))),
        (404, post("stop_bulk", &format!("/api/bulk/nothing/{BULK}/stop"), json!({}))),
        // Of that number is another's, or another thing.
        (400, start(json!({"rows": ["2"]}))),
        (400, start(json!({})).by("admin")),
    ];
    let shows = [
        json!({"do": "restart"}),
        json!({"do": "drop", "all": true}),
        json!({"do": "restart", "all": true, "rows": ["1"]}),
        json!({"do": "restart", "rows": []}),
        json!({"do": "restart", "rows": vec!["1"; 501]}),
        json!({"do": "restart", "rows": [1]}),
        json!({"do": "restart", "all": true, "state": "x'--"}),
        json!({"do": "restart", "all": true, "age": -1}),
        json!({"do": "restart", "all": true, "state": "failing", "leave_parked": true}),
    ];
    calls.extend(shows.map(|body| (400, show(body))));
    let starts = [
        json!({"why": " "}),
        json!({"do": "drop"}),
        json!({"id": "1"}),
        json!({"id": "'".repeat(32)}),
        json!({"seen_at": "yesterday"}),
        json!({"state": "x"}),
        json!({"state": null}),
        json!({"rows": null}),
        json!({"rows": []}),
        json!({"rows": vec!["1"; 501]}),
        json!({"promised": 1}),
        json!({"rows": null, "promised": 0}),
        json!({"rows": null, "promised": -1}),
        json!({"pace": -1}),
        json!({"pace": 4_294_967_296_u64}),
        with(&cancel, json!({"typed": null})),
        with(&cancel, json!({"typed": 2})),
        with(&cancel, json!({"typed": "1"})),
    ];
    calls.extend(starts.map(|more| (400, start(more).by("admin"))));
    calls
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
        (404, get("model", "/api/models/nothing")),
        (404, get("hour", "/api/hours/noon")),
        (404, get("hour", "/api/hours/-1000-01-01T00:00:00Z")),
        (404, get("hour", "/api/hours/2026-11-24T12:00:00Z?model=nothing")),
        (400, get("hour", "/api/hours/2026-11-24T12:00:00Z?after=1'--")),
        (400, get("row", "/api/rows/appeals/1?before=yesterday")),
        (404, post("pause", "/api/models/nothing/pause", json!({"why": "x"})).by("admin")),
        (400, post("pause", "/api/models/appeals/pause", json!({"why": " "})).by("admin")),
        (404, post("resume", "/api/models/appeals%00/resume", json!({})).by("admin")),
        (404, post("find", "/api/find", json!({"model": "nothing", "what": "1"}))),
        (400, post("find", "/api/find", json!({"model": "appeals", "what": " \u{0}"}))),
        (400, get("mine", "/api/mine?before=1'--")),
        // It is jdoe's.
        (404, post("read_message", "/api/mine/messages/1/read", json!({})).by("admin")),
        (404, post("read_message", "/api/mine/messages/99/read", json!({})).by("own")),
        (404, post("read_message", "/api/mine/messages/x/read", json!({})).by("own")),
        (404, get("row", "/api/rows/appeals/1").by("own")),
        (404, get("row", "/api/rows/appeals/2").by("own")),
    ];
    calls.extend(refused_bulks());
    let open = ["description", "health", "live", "ready", "progressing"];
    let theirs = ["mine", "read_message", "row"];
    let closed = granted()
        .into_iter()
        .filter(|call| !open.contains(&call.operation) && !theirs.contains(&call.operation));
    calls.extend(closed.map(|call| (403, call.by("own"))));
    for call in granted().into_iter().filter(|call| call.body.is_some()) {
        let unknown = Call { body: Some(json!({"unknown": 1})), ..call.clone() };
        let long = json!({"why": "x".repeat(300 * 1024)});
        calls.push((400, unknown));
        calls.push((413, Call { body: Some(long), ..call.clone() }));
        let plain = call.clone().with("content-type", "text/plain");
        calls.push((415, plain.with("sec-fetch-site", "same-origin")));
        calls.push((403, call.clone().with("sec-fetch-site", "cross-site")));
        calls.extend(too_low(call.operation).map(|role| (403, call.by(role))));
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
        let (db, handle) = start(3);
        let theirs = diesel::update(appeals::table.find(2)).set(appeals::created_by.eq("jdoe"));
        theirs.execute(&mut db.conn()).expect("it is theirs");
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
            if let Some(role) = too_low(call.operation) {
                assert_eq!(send(&app, &unread.by(role)).await.status, 403, "{call:?}");
            }
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

    /// A bulk, once it stands so.
    async fn bulk_until<S, B>(app: &S, id: &str, stands: impl Fn(&Value) -> bool) -> Value
    where
        S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
        B: MessageBody,
    {
        let call = get("bulk", &format!("/api/bulk/appeals/{id}")).by("view");
        let until = async {
            loop {
                let shown = send(app, &call).await;
                assert_eq!(shown.status, 200, "{}", shown.body);
                let bulk = shown.json();
                if stands(&bulk) {
                    return bulk;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), until).await.expect("within a minute")
    }

    #[actix_rt::test]
    async fn what_a_program_was_shown_is_done_to_many_rows_once_however_often_it_is_sent() {
        let (db, handle) = start(6);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=6)).await.expect("submitted");
        parked(&handle, 6).await;
        let show = post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "state": "parked", "all": true}));
        let shown = send(&app, &show).await.json();
        assert_eq!((&shown["rows"], &shown["may_begin"]), (&json!(6), &json!(true)), "{shown}");
        let cause = &shown["causes"][0];
        assert_eq!((&cause["code"], &cause["services"], &cause["rows"]), (&json!("vbms.refused"), &json!(["vbms"]), &json!(6)));
        let few = post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "rows": ["5", "99", "x'--", "\u{0}"]}));
        let few = send(&app, &few).await.json();
        assert_eq!((&few["rows"], &few["begin"]["rows"]), (&json!(1), &json!(["5"])), "{few}");
        let none = post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "all": true, "leave_parked": true}));
        let none = send(&app, &none).await.json();
        assert_eq!((&none["rows"], &none["state"], &none["begin"]), (&json!(0), &json!("expired"), &Value::Null));
        assert_eq!(actions(&db), [], "what is shown is not done");
        let mut begun = Vec::new();
        for _ in 0..3 {
            let begin = post("begin_bulk", "/api/bulk/appeals/begin", with(&shown["begin"], json!({"why": " mended "})));
            let answered = send(&app, &begin).await;
            assert_eq!(answered.status, 200, "{}", answered.body);
            begun.push(answered.json()["id"].clone());
        }
        let id = begun[0].as_str().expect("an id");
        assert!(begun.iter().all(|known| known == id) && shown["begin"]["id"] == id, "{begun:?}");
        let done = bulk_until(&app, id, |bulk| bulk["ended_at"].is_string()).await;
        for (property, value) in [
            ("do", json!("restart")), ("by", json!("Ann Lee")), ("why", json!("mended")), ("state", json!("parked")), ("named", json!(6)),
            ("promised", json!(6)), ("done", json!(6)), ("left_alone", json!(0)), ("left", json!([])), ("stopped_by", Value::Null),
        ] {
            assert_eq!(done[property], value, "{property}: {done}");
        }
        assert_eq!(actions(&db), [("Ann Lee".to_owned(), "restarted".to_owned(), Some("mended".to_owned()))]);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_has_changed_since_a_program_was_shown_it_is_left_alone_and_told() {
        let (_db, handle) = start(4);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=4)).await.expect("submitted");
        parked(&handle, 4).await;
        let show = post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "rows": ["1", "2", "3"]}));
        let shown = send(&app, &show).await.json();
        let cancel = post("cancel", "/api/rows/appeals/2/cancel", json!({"why": "duplicate"}));
        assert_eq!(send(&app, &cancel).await.json(), json!({"canceled": true}));
        let begin = post("begin_bulk", "/api/bulk/appeals/begin", with(&shown["begin"], json!({"why": "mended"})));
        let begun = send(&app, &begin).await.json();
        let done = bulk_until(&app, begun["id"].as_str().expect("an id"), |bulk| bulk["ended_at"].is_string()).await;
        assert_eq!((&done["done"], &done["left_alone"]), (&json!(2), &json!(1)), "{done}");
        let left = done["left"].as_array().expect("rows");
        assert_eq!((left.len(), &left[0]["id"], &left[0]["explanation"]["kind"]), (1, &json!("2"), &json!("canceled")));
        assert_eq!(left[0]["subject"], "..437", "for who may only look");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_cancels_many_rows_for_an_admin_who_has_typed_their_number() {
        let (db, handle) = start(3);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=3)).await.expect("submitted");
        parked(&handle, 3).await;
        let show = post("show_bulk", "/api/bulk/appeals", json!({"do": "cancel", "user": "=HYPERLINK(\"x\")", "all": true}));
        assert_eq!(send(&app, &show).await.status, 403);
        let shown = send(&app, &show.by("admin")).await.json();
        let begin = |more| post("begin_bulk", "/api/bulk/appeals/begin", with(&shown["begin"], more)).by("admin");
        for wrong in [json!({"why": "x"}), json!({"why": "x", "typed": 4}), json!({"why": "", "typed": 3}), json!({"typed": 3})] {
            assert_eq!(send(&app, &begin(wrong.clone())).await.status, 400, "{wrong}");
        }
        let right = begin(json!({"why": "duplicates", "typed": 3}));
        assert_eq!(send(&app, &right.clone().by("operate")).await.status, 403);
        assert_eq!(send(&app, &right.clone().with("sec-fetch-site", "cross-site")).await.status, 403);
        assert_eq!(actions(&db), []);
        let begun = send(&app, &right).await.json();
        let done = bulk_until(&app, begun["id"].as_str().expect("an id"), |bulk| bulk["ended_at"].is_string()).await;
        assert_eq!((&done["do"], &done["done"]), (&json!("cancel"), &json!(3)), "{done}");
        let canceled = appeals::table.filter(appeals::canceled_at.is_not_null()).count();
        assert_eq!(canceled.get_result(&mut db.conn()), Ok(3_i64));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_goes_slowly_is_stopped_by_a_program_once() {
        let (_db, handle) = start(3);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=3)).await.expect("submitted");
        parked(&handle, 3).await;
        let show = post("show_bulk", "/api/bulk/appeals", json!({"do": "restart", "state": "parked", "all": true}));
        let shown = send(&app, &show).await.json();
        // The clock hardly goes: a minute does not pass.
        let slowly = with(&shown["begin"], json!({"why": "mended", "pace": 1}));
        let begun = send(&app, &post("begin_bulk", "/api/bulk/appeals/begin", slowly)).await.json();
        let id = begun["id"].as_str().expect("an id");
        let one = bulk_until(&app, id, |bulk| bulk["done"] == 1).await;
        assert_eq!((&one["pace"], &one["ended_at"]), (&json!(1), &Value::Null));
        let stop = post("stop_bulk", &format!("/api/bulk/appeals/{id}/stop"), json!({}));
        assert_eq!(send(&app, &stop.clone().by("view")).await.status, 403);
        for role in ["operate", "admin"] {
            let stopped = send(&app, &stop.clone().by(role)).await.json();
            assert_eq!((&stopped["stopped_by"], &stopped["done"], &stopped["promised"]), (&json!("Ann Lee"), &json!(1), &json!(3)));
            assert!(stopped["ended_at"].is_string(), "{stopped}");
        }
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_row_is_found_by_its_id_or_what_it_is_about_which_stands_in_no_address() {
        let (_db, handle) = start(2);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=2)).await.expect("submitted");
        parked(&handle, 2).await;
        let find = |what: &str| post("find", "/api/find", json!({"model": "appeals", "what": what}));
        let ids = |found: &Value| -> Vec<String> {
            let rows = found["rows"].as_array().expect("rows").iter();
            rows.map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
        };
        let found = send(&app, &find(" 796104437 ")).await.json();
        assert_eq!((ids(&found), &found["rows"][0]["subject"]), (vec!["1".to_owned(), "2".to_owned()], &json!("796104437")));
        assert_eq!(ids(&send(&app, &find("2")).await.json()), ["2"]);
        assert_eq!(ids(&send(&app, &find("x' OR '1'='1")).await.json()), [""; 0]);
        let viewed = send(&app, &find("796104437").by("view")).await;
        assert!(!viewed.body.contains("796104437") && viewed.body.contains("..437"), "{}", viewed.body);
        let asked = get("find", "/api/find?model=appeals&what=796104437");
        assert_eq!(send(&app, &asked).await.status, 404);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_is_told_of_its_users_rows_and_messages_and_of_nobody_elses() {
        let (db, handle) = start(4);
        let theirs = diesel::update(appeals::table.filter(appeals::id.le(2))).set(appeals::created_by.eq("jdoe"));
        theirs.execute(&mut db.conn()).expect("they are theirs");
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=4)).await.expect("submitted");
        parked(&handle, 4).await;
        for row in [2, 3] {
            let cancel = post("cancel", &format!("/api/rows/appeals/{row}/cancel"), json!({"why": "filed twice"}));
            assert_eq!(send(&app, &cancel).await.json(), json!({"canceled": true}));
        }
        let mine = get("mine", "/api/mine").by("own");
        let told = send(&app, &mine).await;
        for nothing in ["796104437", "vbms", "Jane Doe", "Appeal 3", "Appeal 4", "HYPERLINK", "attempt"] {
            assert!(!told.body.contains(nothing), "{nothing}: {}", told.body);
        }
        let told = told.json();
        assert_eq!(told["access"], json!({"name": "jdoe", "role": "own"}));
        let mut rows = told["rows"].as_array().expect("rows").clone();
        rows.sort_by_key(|row| row["id"].to_string());
        let row = |index: usize, property: &str| rows[index][property].clone();
        assert_eq!((rows.len(), row(0, "name"), row(0, "link")), (2, json!("Appeal 1"), json!("/appeals/1")));
        assert_eq!((row(0, "standing"), row(0, "note")), (json!("not_yet"), Value::Null));
        assert_eq!(row(0, "sentence"), "Could not be finished yet. Support has been told. We tell you here once it is done.");
        assert_eq!((row(1, "standing"), row(1, "sentence"), row(1, "note")), (json!("canceled"), json!("Canceled."), json!("filed twice")));
        assert_eq!(row(1, "subject"), "..437");
        let message = &told["messages"][0];
        let said = ["row", "name", "kind", "who", "note", "read_at"].map(|property| message[property].clone());
        assert_eq!(said, [json!("2"), json!("Appeal 2"), json!("canceled"), json!("Ann Lee"), json!("filed twice"), Value::Null]);
        // As if it were not there: a message, a row of their own, of somebody else's, and one that is none.
        let read = post("read_message", &format!("/api/mine/messages/{}/read", message["id"].as_str().expect("an id")), json!({}));
        for role in ["view", "operate", "admin"] {
            assert_eq!(send(&app, &read.clone().by(role)).await.status, 404, "{role}");
        }
        let mut answers = Vec::new();
        for row in ["1", "3", "99", "x"] {
            let answered = send(&app, &get("row", &format!("/api/rows/appeals/{row}")).by("own")).await;
            assert_eq!(answered.status, 404, "{row}");
            answers.push(answered.body);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        let again = send(&app, &mine).await.json();
        assert_eq!(again["messages"][0]["read_at"], Value::Null);
        assert_eq!(send(&app, &read.by("own")).await.json(), json!({"read": true}));
        assert!(send(&app, &mine).await.json()["messages"][0]["read_at"].is_string());
        let nobody = send(&app, &mine.by("operate")).await.json();
        assert_eq!((&nobody["rows"], &nobody["messages"], &nobody["older"]), (&json!([]), &json!([]), &Value::Null));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_reads_all_messages_of_its_user_a_page_after_the_other() {
        let (db, handle) = start(1);
        let message = |id: i64| {
            let at = format!("2026-11-24 10:{:02}:00", id % 7);
            format!("INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) \
                VALUES ('appeals', '{id}', '{at}', '{}', 'done', '{at}');", if id % 10 == 0 { "asmith" } else { "jdoe" })
        };
        db.conn().batch_execute(&(1..=50).map(message).collect::<String>()).expect("messages");
        let app = app!(handle);
        let (mut pages, mut seen, mut before) = (Vec::new(), BTreeSet::new(), String::new());
        loop {
            let told = send(&app, &get("mine", &format!("/api/mine?before={before}")).by("own")).await.json();
            let messages = told["messages"].as_array().expect("messages");
            seen.extend(messages.iter().map(|told| told["row"].as_str().expect("an id").to_owned()));
            pages.push(messages.len());
            match told["older"].as_str() {
                Some(older) => before = older.to_owned(),
                None => break,
            }
        }
        assert_eq!((pages, seen.len()), (vec![20, 20, 5], 45));
        assert!(!seen.contains("10"));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_reads_an_hour_a_rows_attempts_and_a_services_tries_to_their_end() {
        let (db, handle) = start(1);
        let attempt = |number: i64| {
            let at = format!("2026-11-24 10:{:02}:{:02}", number / 60, number % 60);
            format!("INSERT INTO asyncable_attempts (model, row_id, attempted_at, submitted_at, number, host, \
                started_at, ended_at, outcome, code) VALUES ('appeals', '1', '{at}', '{at}', {number}, 'app-1', '{at}', '{at}', 'failed', 'vbms.slow');")
        };
        db.conn().batch_execute(&(1..=120).map(attempt).collect::<String>()).expect("attempts");
        let sql = "INSERT INTO asyncable_probes (service, at, model, row_id, code) VALUES ('vbms', '2026-11-24 10:00:00', 'appeals', '1', ''), \
            ('vbms', '2026-11-24 10:05:00', 'appeals', '1', 'vbms.slow'), ('bgs', '2026-11-24 10:06:00', 'appeals', '1', '');";
        db.conn().batch_execute(sql).expect("tries");
        let app = app!(handle);
        let place = |place: &str| place.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let hour = get("hour", &format!("/api/hours/2026-11-24T10:00:00Z?model=appeals&after={after}")).by("view");
            let hour = send(&app, &hour).await.json();
            let model = &hour["models"][0];
            assert_eq!(model["outcomes"], json!([{"outcome": "failed", "code": "vbms.slow", "attempts": 120}]));
            pages.push(model["ended"].as_array().expect("attempts").len());
            match model["next"].as_str() {
                Some(next) => after = place(next),
                None => break,
            }
        }
        assert_eq!(pages, [50, 50, 20]);
        let (mut numbers, mut before) = (Vec::new(), String::new());
        loop {
            let row = send(&app, &get("row", &format!("/api/rows/appeals/1?{before}")).by("view")).await.json();
            let attempts = row["attempts"].as_array().expect("attempts").iter();
            numbers.extend(attempts.map(|attempt| attempt["number"].as_i64().expect("a number")));
            match row["older"].as_str() {
                Some(older) => before = format!("before={}", place(older)),
                None => break,
            }
        }
        assert_eq!(numbers, (1..=120).rev().collect::<Vec<_>>());
        let service = send(&app, &get("service", "/api/services/vbms").by("view")).await.json();
        assert_eq!(service["tries"], json!([
            {"at": "2026-11-24T10:05:00Z", "model": "appeals", "row": "1", "code": "vbms.slow"},
            {"at": "2026-11-24T10:00:00Z", "model": "appeals", "row": "1", "code": null},
        ]));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_pauses_a_model_in_all_processes_for_an_admin_and_resumes_it() {
        let (db, handle) = start(1);
        let app = app!(handle);
        let sql = "INSERT INTO asyncable_hosts (host, model, services, paused, seen_at) VALUES \
            ('app-2-1-a', 'faxes', '', 0, '2026-11-24 11:59:59')";
        db.conn().batch_execute(sql).expect("another version");
        let pause = post("pause", "/api/models/appeals/pause", json!({"why": "a bug"})).by("admin");
        for done in [true, false] {
            assert_eq!(send(&app, &pause).await.json(), json!({"done": done}));
        }
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        let overview = send(&app, &get("overview", "/api/overview").by("view")).await.json();
        let model = &overview["models"][0];
        assert_eq!((&model["paused"]["by"], &model["paused"]["reason"]), (&json!("Ad Min"), &json!("a bug")));
        assert_eq!((&overview["elsewhere"], &model["counts"]["due"]), (&json!(["faxes"]), &json!(1)));
        let works_on_it = async {
            loop {
                let model = send(&app, &get("model", "/api/models/appeals")).await.json();
                if model["model"]["hosts"].as_array().is_some_and(|hosts| !hosts.is_empty()) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), works_on_it).await.expect("it says that it is alive");
        let row = send(&app, &get("row", "/api/rows/appeals/1")).await.json();
        assert_eq!(row["row"]["explanation"]["kind"], "paused", "{row}");
        let resume = post("resume", "/api/models/appeals/resume", json!({"why": "mended"})).by("admin");
        assert_eq!(send(&app, &resume.clone().by("operate")).await.status, 403);
        for done in [true, false] {
            assert_eq!(send(&app, &resume).await.json(), json!({"done": done}));
        }
        parked(&handle, 1).await;
        let model = send(&app, &get("model", "/api/models/appeals").by("view")).await.json();
        assert_eq!((&model["model"]["paused"], &model["lately"][0]["action"]), (&Value::Null, &json!("resumed")));
        assert_eq!(actions(&db), [("paused", "a bug"), ("resumed", "mended")].map(|(action, why)| {
            ("Ad Min".to_owned(), action.to_owned(), Some(why.to_owned()))
        }));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_program_is_told_what_people_call_rows_and_what_bounds_a_service() {
        let (_db, handle) = start(2);
        let app = app!(handle);
        handle.send(SubmitAll::<Appeal>::new(1..=2)).await.expect("submitted");
        parked(&handle, 2).await;
        let overview = send(&app, &get("overview", "/api/overview").by("view")).await.json();
        let model = &overview["models"][0];
        assert_eq!((&model["one"], &model["many"]), (&json!("Appeal"), &json!("Appeals")));
        assert_eq!((&model["parked"][0]["services"], &model["first_expires_at"]), (&json!(["vbms"]), &Value::Null), "none waits");
        let service = send(&app, &get("service", "/api/services/vbms").by("view")).await.json();
        assert_eq!(service["limits"], json!({"starts_per_second": null, "at_once": 4}));
        let row = send(&app, &get("row", "/api/rows/appeals/1").by("view")).await.json();
        assert_eq!(row["row"]["explanation"]["advice"], "Trying again changes nothing until somebody mends the cause. Then restart it.");
        let hold = post("hold", "/api/services/vbms/hold", json!({"why": "work"}));
        assert_eq!(send(&app, &hold).await.status, 200);
        handle.send(Submit::<Appeal>::new(1)).await.expect("submitted");
        let overview = send(&app, &get("overview", "/api/overview").by("view")).await.json();
        assert_eq!(overview["models"][0]["first_expires_at"].as_str().map(|at| &at[..10]), Some("2026-11-28"));
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
