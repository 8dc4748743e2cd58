//! Somebody's own page: their rows and messages, and nothing of anybody else's.
#![cfg(feature = "dashboard")]

#[path = "support/page.rs"]
mod page;
mod support;

use std::time::Duration;

use actix_web::{App, HttpRequest, http::StatusCode, test, web};
use asyncable::{
    Access, Asyncable, Attempt, Cancel, Clock, Columns, Dashboard, Event, Failure, GetCounts,
    Handle, MessageKind, Messages, Outcome, Processor, Submit, SubmitAll, Supervisor, columns,
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::mpsc;

use page::{send, send_request};
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
        faxes (id) {
            id -> BigInt,
            sender -> Integer,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::{appeals, faxes};

/// The first five of each are jdoe's, who is number 7; the others are asmith's, who is number 8.
const DDL: &str = "CREATE TABLE appeals (id {key}, file_number TEXT NOT NULL DEFAULT '796104437', \
    created_by TEXT NOT NULL, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, canceled_at TIMESTAMP, error TEXT); \
    CREATE INDEX appeals_work ON appeals (attempted_at, submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL; \
    CREATE INDEX appeals_user ON appeals (created_by, submitted_at); \
    INSERT INTO appeals (id, created_by) VALUES (1, 'jdoe'), (2, 'jdoe'), (3, 'jdoe'), (4, 'jdoe'), \
    (5, 'jdoe'), (6, 'asmith'), (7, 'asmith'); \
    CREATE TABLE faxes (id {key}, sender INTEGER NOT NULL, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    INSERT INTO faxes (id, sender) VALUES (1, 7), (2, 8);";

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i64;
    const COLUMNS: Columns<appeals::table> =
        columns!(appeals, canceled_at = canceled_at, user = created_by, subject = file_number);
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = faxes)]
struct Fax {
    id: i64,
}

impl Asyncable for Fax {
    type Id = i64;
    const COLUMNS: Columns<faxes::table> = columns!(faxes, user = sender);
}

/// Does the even rows, refuses the first and fails at the others.
#[derive(Clone)]
struct Decide;

impl Processor for Decide {
    type Model = Appeal;

    async fn process(&self, appeal: &Appeal, _: &Attempt) -> Outcome {
        match appeal.id {
            1 => Err(Failure::permanent("the file is closed").with_code("vbms.refused")),
            id if id % 2 == 0 => Ok(()),
            _ => Err(Failure::transient("nobody there")),
        }
    }
}

#[derive(Clone)]
struct Send;

impl Processor for Send {
    type Model = Fax;

    async fn process(&self, _: &Fax, _: &Attempt) -> Outcome {
        Ok(())
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

/// Says who somebody is by a header, as a host does by its session.
async fn who(request: HttpRequest) -> Result<Access, actix_web::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    match header("x-role") {
        Some("jdoe") => Ok(Access::own("jdoe")),
        Some("asmith") => Ok(Access::own("Al Smith").user("asmith")),
        Some("seven") => Ok(Access::own("Sev En").user("7")),
        Some("odd") => Ok(Access::own("07' OR '1'='1").user("07' OR '1'='1")),
        Some("view") => Ok(Access::view("Vi View").user("jdoe")),
        Some("operate") => Ok(Access::operate("Bo <em>Kim</em>")),
        Some("admin") => Ok(Access::admin("Ad Min")),
        _ => Err(actix_web::error::ErrorUnauthorized("log in first")),
    }
}

macro_rules! app {
    ($handle:expr) => {
        test::init_service(
            App::new().service(
                web::scope("/ops/background").service(
                    Dashboard::new($handle.clone(), who)
                        .label("appeals", "Appeal", "Appeals of <b>all</b>")
                        .link(|model, id| (model == "appeals").then(|| format!("/appeals/{id}"))),
                ),
            ),
        )
        .await
    };
}

const MINE: &str = "/ops/background/mine";

on_each_backend! {
    fn start(db: &Db, at: DateTime<Utc>) -> (Handle, mpsc::UnboundedReceiver<Event>) {
        let (tell, events) = mpsc::unbounded_channel();
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(1e-3, at))
            .on_event(move |event| drop(tell.send(event.clone())))
            .processor(Decide)
            .processor(Send)
            .start()
            .expect("it starts");
        (handle, events)
    }

    /// Waits until all that was submitted has been attempted.
    async fn settled(handle: &Handle) {
        let settled = async {
            loop {
                let counts = handle.send(GetCounts::<Appeal>::new()).await.expect("counts");
                if counts.due + counts.in_flight == 0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), settled).await.expect("within a minute");
    }

    /// Jdoe's rows: parked, done, failing, canceled and never submitted; asmith's: done and failing.
    async fn decided() -> (Db, Handle) {
        let db = Db::migrated(DDL);
        let (handle, _) = start(&db, began());
        handle.send(SubmitAll::<Appeal>::new([1, 2, 3, 4, 6, 7])).await.expect("submitted");
        settled(&handle).await;
        handle.send(Submit::<Appeal>::new(4).after(Duration::from_secs(3600))).await.expect("submitted");
        handle.send(Cancel::<Appeal>::new(4).by("Bo Kim", "filed <u>twice</u>")).await.expect("canceled");
        (db, handle)
    }

    #[actix_rt::test]
    async fn somebody_sees_their_own_rows_in_four_sentences_and_nothing_of_anybody_elses() {
        let (db, handle) = decided().await;
        let app = app!(handle);
        let shown = send(&app, "jdoe", MINE, None).await;
        assert_eq!(shown.status, StatusCode::OK);
        let row = |id: i64| {
            let begin = format!("<a href=\"/appeals/{id}\">Appeal {id}</a>");
            shown.body.split(&begin).nth(1).and_then(|rest| rest.split("</li>").next()).unwrap_or_else(|| panic!("{id} in {}", shown.body))
        };
        assert!(row(1).contains("Could not be finished yet.</b>") && row(1).contains("Support has been told. We tell you here once it is done."));
        assert!(row(2).contains("Done.</b>"), "{}", row(2));
        assert!(row(3).contains("Being worked on.</b>") && row(3).contains("We keep trying; you need do nothing."));
        assert!(row(4).contains("Canceled.</b>") && row(4).contains("“filed &lt;u&gt;twice&lt;/u&gt;”"), "{}", row(4));
        assert_eq!(shown.body.matches("(..437)").count(), 4);
        for nothing in ["796104437", "Appeal 5", "Appeal 6", "Appeal 7", "asmith", "vbms.refused", "file is closed", "Tries", "Restart"] {
            assert!(!shown.body.contains(nothing), "{nothing}: {}", shown.body);
        }
        // Everybody has a page of their own, by the name that rows know them by.
        let smith = send(&app, "asmith", MINE, None).await.body;
        assert!(smith.contains("Appeal 6") && smith.contains("Appeal 7") && !smith.contains("Appeal 1<"), "{smith}");
        let viewer = send(&app, "view", MINE, None).await.body;
        assert!(viewer.contains("Appeal 1<") && viewer.contains("(..437)"));
        for nobody in ["operate", "odd"] {
            let none = send(&app, nobody, MINE, None).await.body;
            assert!(none.contains("Nothing of yours has been submitted yet."), "{none}");
        }
        // Users that are numbers.
        handle.send(SubmitAll::<Fax>::new([1, 2])).await.expect("submitted");
        let seven = send(&app, "seven", MINE, None).await.body;
        assert!(seven.contains("faxes 1") && !seven.contains("faxes 2") && !seven.contains("Appeal"), "{seven}");
        handle.shutdown(Duration::ZERO).await;
        drop(db);
    }

    #[actix_rt::test]
    async fn a_row_is_not_finished_yet_after_a_day_and_its_messages_are_marked_as_read() {
        let (db, handle) = decided().await;
        handle.shutdown(Duration::ZERO).await;
        let (handle, mut events) = start(&db, began() + TimeDelta::hours(25));
        let failing = async {
            let mut sent = Vec::new();
            while sent.len() < 2 {
                if let Some(Event::MessageSent { id, user, kind: MessageKind::Failing, .. }) = events.recv().await {
                    sent.push((id, user));
                }
            }
            sent
        };
        let mut sent = tokio::time::timeout(Duration::from_secs(60), failing).await.expect("within a minute");
        sent.sort();
        assert_eq!(sent, [("3".to_owned(), "jdoe".to_owned()), ("7".to_owned(), "asmith".to_owned())]);
        let app = app!(handle);
        let shown = send(&app, "jdoe", MINE, None).await.body;
        assert!(shown.contains("(2 unread)") && !shown.contains("Being worked on."), "{shown}");
        assert!(shown.contains("Appeal 3 could not be finished yet.") && shown.contains("Bo Kim canceled Appeal 4: "), "{shown}");
        let conn = &mut db.conn();
        for message in Messages::of("jdoe").load(conn).expect("messages") {
            let address = format!("{MINE}/messages/{}/read", message.id);
            assert!(shown.contains(&format!("action=\"{address}\"")));
            let read = send(&app, "jdoe", &address, Some("")).await;
            assert_eq!((read.status, read.location.as_deref()), (StatusCode::SEE_OTHER, Some("/ops/background/mine?done=read")));
        }
        assert_eq!(Messages::of("jdoe").unread().load(conn), Ok(vec![]));
        let shown = send(&app, "jdoe", MINE, None).await.body;
        assert!(!shown.contains("unread") && !shown.contains("Mark as read"), "{shown}");
        assert_eq!(Messages::of("asmith").unread().load(conn).expect("messages").len(), 1);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_note_is_sent_along_if_it_is_ticked_with_its_lines_and_without_its_markup() {
        let (db, handle) = decided().await;
        let app = app!(handle);
        let row = "/ops/background/rows/appeals/1";
        let page = send(&app, "operate", row, None).await.body;
        assert!(page.contains("also send to jdoe"), "{page}");
        let kept = send(&app, "operate", &format!("{row}/note"), Some("why=for+us+alone")).await;
        assert_eq!(kept.location.as_deref(), Some("/ops/background/rows/appeals/1?done=noted"));
        let text = "why=asked+the%0D%0A%3Cscript%3Ealert(1)%3C%2Fscript%3E+office&send=1";
        let sent = send(&app, "operate", &format!("{row}/note"), Some(text)).await;
        assert_eq!(sent.location.as_deref(), Some("/ops/background/rows/appeals/1?done=sent"));
        let shown = send(&app, "jdoe", MINE, None).await.body;
        let note = "<span class=\"said\">“asked the\n&lt;script&gt;alert(1)&lt;/script&gt; office”</span>";
        assert!(shown.contains("Bo &lt;em&gt;Kim&lt;/em&gt; about Appeal 1") && shown.contains(note), "{shown}");
        assert!(!shown.contains("for us alone"));
        let page = send(&app, "operate", row, None).await.body;
        assert!(page.contains("for us alone") && page.contains("asked the\n&lt;script&gt;"), "{page}");
        assert_eq!(send(&app, "asmith", MINE, None).await.body.matches("Bo ").count(), 0);
        handle.shutdown(Duration::ZERO).await;
        drop(db);
    }

    #[actix_rt::test]
    async fn who_may_see_their_own_alone_sees_and_does_nothing_else() {
        let (db, handle) = decided().await;
        let app = app!(handle);
        let base = "/ops/background";
        // The beginning leads to what they may see.
        for address in ["", "/"] {
            let shown = send(&app, "jdoe", &format!("{base}{address}"), None).await;
            assert_eq!((shown.status, shown.location.as_deref()), (StatusCode::SEE_OTHER, Some(MINE)), "{address}");
        }
        let shown = send(&app, "jdoe", MINE, None).await.body;
        assert!(!shown.contains("/ops/background/rows") && !shown.contains("/ops/background/services"), "{shown}");
        // A row of somebody else's, their own, one that is not there: the same answer.
        let mut answers = Vec::new();
        for row in ["1", "6", "99", "x"] {
            let shown = send(&app, "jdoe", &format!("{base}/rows/appeals/{row}"), None).await;
            assert_eq!(shown.status, StatusCode::NOT_FOUND, "{row}");
            answers.push(shown.body);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
        for address in ["/rows", "/rows?model=appeals&state=parked", "/bulk/appeals/1", "/services/vbms"] {
            let shown = send(&app, "jdoe", &format!("{base}{address}"), None).await;
            assert_eq!(shown.status, StatusCode::FORBIDDEN, "{address}");
            assert!(!shown.body.contains("Appeal") && !shown.body.contains("appeals"), "{}", shown.body);
        }
        let forms = [
            "/rows/appeals/1/restart", "/rows/appeals/1/cancel", "/rows/appeals/1/note", "/rows/appeals/6/restart",
            "/rows/appeals/99/restart", "/find", "/bulk/appeals", "/bulk/appeals/begin", "/bulk/appeals/1/stop", "/services/vbms/hold", "/services/vbms/ask",
        ];
        for form in forms {
            let shown = send(&app, "jdoe", &format!("{base}{form}"), Some("why=x&row=1&confirmed=1&send=1")).await;
            assert_eq!(shown.status, StatusCode::FORBIDDEN, "{form}");
        }
        assert_eq!(Messages::of("jdoe").load(&mut db.conn()).expect("messages").len(), 1, "no note");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_message_is_marked_by_nobody_but_whose_it_is_and_from_this_page_alone() {
        let (db, handle) = decided().await;
        let app = app!(handle);
        let conn = &mut db.conn();
        let message = Messages::of("jdoe").load(conn).expect("messages")[0].id;
        let address = format!("{MINE}/messages/{message}/read");
        assert_eq!(send(&app, "nobody", MINE, None).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(send(&app, "nobody", &address, Some("")).await.status, StatusCode::UNAUTHORIZED);
        for other in ["asmith", "odd", "operate", "admin"] {
            let shown = send(&app, other, &address, Some("")).await;
            assert_eq!(shown.status, StatusCode::NOT_FOUND, "{other}");
        }
        let (theirs, nobodys) = (send(&app, "asmith", &address, Some("")).await, send(&app, "asmith", &format!("{MINE}/messages/99/read"), Some("")).await);
        assert_eq!(theirs.body, nobodys.body);
        for id in ["0", "-1", "x", "9223372036854775808", "1%00", "1'--", "%20"] {
            let shown = send(&app, "jdoe", &format!("{MINE}/messages/{id}/read"), Some("")).await;
            assert_eq!(shown.status, StatusCode::NOT_FOUND, "{id}");
        }
        let strangers = [
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site")],
            vec![("origin", "https://evil.example"), ("host", "localhost:8080")],
            vec![("host", "localhost:8080")],
            vec![],
        ];
        for headers in strangers {
            let mut request = test::TestRequest::post().insert_header(("x-role", "jdoe")).uri(&address);
            for header in &headers {
                request = request.insert_header(*header);
            }
            assert_eq!(send_request(&app, request).await.status, StatusCode::FORBIDDEN, "{headers:?}");
        }
        assert_eq!(send(&app, "jdoe", &address, None).await.status, StatusCode::NOT_FOUND, "a link does nothing");
        assert_eq!(Messages::of("jdoe").unread().load(conn).expect("messages").len(), 1);
        for place in ["x", "1", "99999999999999999999.1", "1.x"] {
            let shown = send(&app, "jdoe", &format!("{MINE}?before={place}"), None).await;
            assert_eq!(shown.status, StatusCode::BAD_REQUEST, "{place}");
        }
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn the_rows_submitted_last_and_pages_of_messages_are_shown() {
        let db = Db::migrated(DDL);
        let mut sql = String::new();
        for id in 101..=180 {
            let at = (began() - TimeDelta::seconds(id)).format("%Y-%m-%d %H:%M:%S");
            sql += &format!("INSERT INTO appeals (id, created_by, submitted_at, processed_at) VALUES ({id}, 'jdoe', '{at}', '{at}'); \
                INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) VALUES ('appeals', '{id}', '{at}', 'jdoe', 'done', '{at}');");
        }
        db.conn().batch_execute(&sql).expect("rows");
        let (handle, _) = start(&db, began());
        let app = app!(handle);
        let mut next = Some(MINE.to_owned());
        let (mut pages, mut seen) = (0, Vec::new());
        while let Some(address) = next {
            let shown = send(&app, "jdoe", &address, None).await.body;
            assert_eq!(shown.matches("<h2><a").count(), 50);
            assert!(shown.contains("Appeal 101</a>") && shown.contains("Appeal 150</a>") && !shown.contains("Appeal 151</a>"));
            seen.extend(shown.split("Appeal ").skip(1).filter_map(|rest| rest.strip_suffix("").and_then(|rest| rest.split_once(" is done.")).filter(|(id, _)| id.len() == 3).map(|(id, _)| id.to_owned())));
            next = shown.split("href=\"").find_map(|link| link.split_once('"').filter(|(link, _)| link.contains("before=")).map(|(link, _)| link.to_owned()));
            pages += 1;
            assert!(pages < 10);
        }
        assert_eq!((pages, seen), (4, (101..=180).map(|id| id.to_string()).collect()));
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_the_hosts_people_call_a_model_and_its_rows_stands_on_all_pages() {
        let (db, handle) = decided().await;
        let app = app!(handle);
        let base = "/ops/background";
        let many = "Appeals of &lt;b&gt;all&lt;/b&gt;";
        for (address, name) in [
            ("", many), ("/rows?model=appeals&state=parked", many), ("/rows?model=appeals&state=parked", "Appeal 1<"),
            ("/rows/appeals/1", "<h1>Appeal 1</h1>"), ("/rows/appeals/1", many), ("", "canceled <a href=\"/ops/background/rows/appeals/4\">Appeal 4</a>"),
        ] {
            let shown = send(&app, "operate", &format!("{base}{address}"), None).await.body;
            assert!(shown.contains(name), "{address} says {name}: {shown}");
            assert!(!shown.contains("of <b>all") && !shown.contains(">appeals"), "{address}: {shown}");
        }
        handle.shutdown(Duration::ZERO).await;
        drop(db);
    }

    /// As `cargo run --example migration -- appeals --column user=created_by` prints it.
    #[actix_rt::test]
    async fn the_rows_of_a_user_are_a_range_of_their_index() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        let search = "SELECT id FROM appeals WHERE created_by = 'jdoe' AND submitted_at IS NOT NULL \
            ORDER BY submitted_at DESC LIMIT 50";
        let plan: Vec<String> = match BACKEND {
            "SQLite" => {
                #[derive(QueryableByName)]
                struct Step {
                    #[diesel(sql_type = diesel::sql_types::Text)]
                    detail: String,
                }
                let steps: Vec<Step> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {search}")).load(conn).expect("plan");
                steps.into_iter().map(|step| step.detail).collect()
            }
            _ => {
                #[derive(QueryableByName)]
                struct Step {
                    #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
                    detail: String,
                }
                // An empty table is read whole, whatever its indexes.
                conn.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").expect("set");
                let steps: Vec<Step> = diesel::sql_query(format!("EXPLAIN (COSTS off) {search}")).load(conn).expect("plan");
                steps.into_iter().map(|step| step.detail).collect()
            }
        };
        let plan = plan.join("; ");
        assert!(plan.contains("appeals_user") && !plan.to_lowercase().contains("sort") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
