//! Reports: the original's where its meaning is kept, and nothing that somebody may not read.
//!
//! `report_summary.json` of the conformance data has the original's own report on the rows in it
//! (`CONFORMANCE_DIR` names another folder with data in the same format). What ours says otherwise is said
//! in `docs/dashboard.md`, and by [`chosen`].
#![cfg(feature = "dashboard")]

mod support;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use actix_web::{
    App, HttpRequest,
    test::{TestRequest, call_service, init_service, read_body},
    web,
};
use asyncable::{
    Access, Asyncable, Attempt, Clock, Columns, Dashboard, Handle, Outcome, Processor, RetryPolicy,
    Service as Outside, Supervisor, columns,
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use serde_json::Value;

use schema::*;
use support::on_each_backend;

/// The service that everything here needs. A person holds it down, so that nothing begins.
const OUTSIDE: Outside = Outside::new("outside");

mod schema {
    macro_rules! queue_table {
        ($t:ident, $s:ident, $l:ident, $a:ident, $p:ident, $x:ident, $e:ident) => {
            diesel::table! {
                $t (id) {
                    id -> BigInt,
                    $s -> Nullable<Timestamp>,
                    $l -> Nullable<Timestamp>,
                    $a -> Nullable<Timestamp>,
                    $p -> Nullable<Timestamp>,
                    $x -> Nullable<Timestamp>,
                    $e -> Nullable<Text>,
                }
            }
        };
    }
    macro_rules! establishment {
        ($t:ident) => {
            queue_table!(
                $t,
                establishment_submitted_at,
                establishment_last_submitted_at,
                establishment_attempted_at,
                establishment_processed_at,
                establishment_canceled_at,
                establishment_error
            );
        };
    }
    establishment!(higher_level_reviews);
    establishment!(supplemental_claims);
    queue_table!(
        request_issues,
        decision_sync_submitted_at,
        decision_sync_last_submitted_at,
        decision_sync_attempted_at,
        decision_sync_processed_at,
        decision_sync_canceled_at,
        decision_sync_error
    );
    queue_table!(
        request_issues_updates,
        submitted_at,
        last_submitted_at,
        attempted_at,
        processed_at,
        canceled_at,
        error
    );
}

/// A model of the data's, and a processor for it that is never called.
macro_rules! model {
    ($model:ident, $processor:ident, $table:ident, $hours:literal, $days:literal,
     $s:ident, $l:ident, $a:ident, $p:ident, $x:ident, $e:ident) => {
        #[derive(Queryable, Selectable, Identifiable)]
        #[diesel(table_name = $table)]
        struct $model {
            id: i64,
        }

        impl Asyncable for $model {
            type Id = i64;
            const COLUMNS: Columns<$table::table> =
                columns!($table, $s, $a, $p, $e, last_submitted_at = $l, canceled_at = $x)
                    .name(stringify!($model));
            const POLICY: RetryPolicy = RetryPolicy::DEFAULT
                .every(Duration::from_secs($hours * 3600))
                .window(Duration::from_secs($days * 86_400));
        }

        #[derive(Clone)]
        struct $processor;

        impl Processor for $processor {
            type Model = $model;
            const SERVICES: &'static [Outside] = &[OUTSIDE];

            async fn process(&self, _: &$model, _: &Attempt) -> Outcome {
                panic!("nothing is to be attempted here")
            }
        }
    };
}
model!(
    HigherLevelReview,
    Review,
    higher_level_reviews,
    3,
    4,
    establishment_submitted_at,
    establishment_last_submitted_at,
    establishment_attempted_at,
    establishment_processed_at,
    establishment_canceled_at,
    establishment_error
);
model!(
    SupplementalClaim,
    Claim,
    supplemental_claims,
    3,
    4,
    establishment_submitted_at,
    establishment_last_submitted_at,
    establishment_attempted_at,
    establishment_processed_at,
    establishment_canceled_at,
    establishment_error
);
model!(
    RequestIssue,
    Issue,
    request_issues,
    12,
    30,
    decision_sync_submitted_at,
    decision_sync_last_submitted_at,
    decision_sync_attempted_at,
    decision_sync_processed_at,
    decision_sync_canceled_at,
    decision_sync_error
);
model!(
    RequestIssuesUpdate,
    Update,
    request_issues_updates,
    3,
    4,
    submitted_at,
    last_submitted_at,
    attempted_at,
    processed_at,
    canceled_at,
    error
);

/// The tables of the data's models, with what their columns begin with.
const TABLES: [(&str, &str, &str); 4] = [
    ("HigherLevelReview", "higher_level_reviews", "establishment_"),
    ("SupplementalClaim", "supplemental_claims", "establishment_"),
    ("RequestIssue", "request_issues", "decision_sync_"),
    ("RequestIssuesUpdate", "request_issues_updates", ""),
];

const ROLES: [&str; 6] =
    ["submitted_at", "last_submitted_at", "attempted_at", "processed_at", "canceled_at", "error"];

fn recorded() -> Value {
    let folder = std::env::var_os("CONFORMANCE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conformance")
    });
    let file = std::fs::read(folder.join("report_summary.json")).expect("report_summary.json");
    serde_json::from_slice(&file).expect("JSON")
}

fn instant(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").expect("an instant").and_utc()
}

/// A last submission as it is put into the table. The supervisor's clock runs, so one that is within a
/// second of a whole day's age is put minutes from it, on the same side; to the microsecond ages are held by
/// `an_age_is_rounded_up_to_days_as_in_the_original`.
fn settled(last: &str, now: DateTime<Utc>) -> String {
    const DAY: i64 = 86_400_000_000;
    const SECOND: i64 = 1_000_000;
    let last = instant(last);
    let over = (now - last).num_microseconds().expect("some years").rem_euclid(DAY);
    let by = match over {
        1..SECOND => -10,
        over if over == 0 || over > DAY - SECOND => 10,
        _ => 0,
    };
    (last + TimeDelta::minutes(by)).format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// The data's tables and rows as SQL.
fn tables(recorded: &Value) -> String {
    let table = |(_, table, prefix): &(&str, &str, &str)| {
        let columns = ROLES.map(|role| {
            format!(", {prefix}{role} {}", if role == "error" { "TEXT" } else { "TIMESTAMP" })
        });
        format!("CREATE TABLE {table} (id {{key}}{});", columns.concat())
    };
    let literal = |value: &Value| match value.as_str() {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "NULL".to_owned(),
    };
    let now = instant(recorded["now"].as_str().expect("now"));
    let row = |row: &Value| {
        let mut row = row.clone();
        if let Some(last) = row["last_submitted"].as_str() {
            row["last_submitted"] = settled(last, now).into();
        }
        let (_, table, _) = TABLES.iter().find(|known| row["type"] == known.0).expect("a table");
        let values = ROLES.map(|role| literal(&row[role.trim_end_matches("_at")]));
        format!("INSERT INTO {table} VALUES ({}, {});", row["id"], values.join(", "))
    };
    let rows = recorded["rows"].as_array().expect("rows");
    TABLES.iter().map(table).chain(rows.iter().map(row)).collect()
}

type Summary = BTreeMap<(String, i64, String), u64>;

/// The original's summary: model, age and cause, to rows.
fn original(recorded: &Value) -> Summary {
    let mut summary = Summary::new();
    for (model, ages) in recorded["summary"].as_object().expect("a summary") {
        for (age, causes) in ages.as_object().expect("ages") {
            for (cause, rows) in causes.as_object().expect("causes") {
                let key = (model.clone(), age.parse().expect("an age"), cause.clone());
                summary.insert(key, rows.as_u64().expect("a count"));
            }
        }
    }
    summary
}

/// What ours says of the same rows: the original's, but for the differences that were chosen.
fn chosen(original: Summary, recorded: &Value) -> Summary {
    let mut summary = original;
    let now = instant(recorded["now"].as_str().expect("now"));
    for row in recorded["rows"].as_array().expect("rows") {
        let model = row["type"].as_str().expect("a type").to_owned();
        let last = row["last_submitted"].as_str().map(instant);
        let age = last.map_or(0, |last| {
            -(last - now).num_microseconds().expect("short").div_euclid(86_400_000_000)
        });
        let first_word = |error: &Value| {
            error.as_str().map(|error| error.split(' ').next().unwrap_or_default().to_owned())
        };
        // A row that is processed is done, whatever its error column still says. The original lists it.
        if row["processed"].is_string() && row["error"].is_string() {
            let key = (model, age, first_word(&row["error"]).expect("an error"));
            *summary.get_mut(&key).expect("the original's") -= 1;
            summary.retain(|_, rows| *rows > 0);
        } else if row["processed"].is_null()
            && row["canceled"].is_null()
            && row["error"].is_null()
            && last.is_some_and(|last| last > now)
        {
            // One that is submitted for later is not done. The original leaves it out until then.
            *summary.entry((model, age, "none".to_owned())).or_default() += 1;
        }
    }
    summary
}

/// The records of a CSV file, as RFC 4180 has them.
fn records(file: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, file.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted => {
                assert_eq!(chars.next(), Some('\n'), "a line's end");
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    assert!(!quoted && field.is_empty() && record.is_empty(), "the file is whole");
    records
}

async fn who(request: HttpRequest) -> Result<Access, actix_web::Error> {
    match request.headers().contains_key("x-view") {
        true => Ok(Access::view("Vi View")),
        false => Ok(Access::operate("Ann Lee")),
    }
}

/// What the page of `handle` answers at an address.
async fn read(handle: &Handle, address: &str, views: bool) -> String {
    read_with_link(handle, address, views).await.0
}

/// As `read`, with the address that the answer links to.
async fn read_with_link(handle: &Handle, address: &str, views: bool) -> (String, Option<String>) {
    let app = init_service(
        App::new().service(web::scope("/ops").service(Dashboard::new(handle.clone(), who))),
    )
    .await;
    let mut request = TestRequest::get().uri(&format!("/ops{address}"));
    if views {
        request = request.insert_header(("x-view", "1"));
    }
    let response = call_service(&app, request.to_request()).await;
    assert_eq!(response.status().as_u16(), 200, "{address}");
    let link = response.headers().get("link").map(|link| link.to_str().expect("ASCII").to_owned());
    let text = String::from_utf8(read_body(response).await.to_vec()).expect("UTF-8");
    (text, link)
}

on_each_backend! {
    /// A supervisor of the data's rows whose clock begins at the data's instant and hardly moves.
    fn start(recorded: &Value) -> (Db, Handle) {
        let db = Db::migrated(&tables(recorded));
        db.conn().batch_execute(
            "INSERT INTO asyncable_services (name, state, held_since, held_by, held_reason) \
             VALUES ('outside', 'closed', '2024-03-13 00:00:00', 'a test', 'nothing is to begin')",
        ).expect("a held service");
        let now = instant(recorded["now"].as_str().expect("now"));
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(1e-3, now))
            .processor(Review)
            .processor(Claim)
            .processor(Issue)
            .processor(Update)
            .start()
            .expect("it starts");
        (db, handle)
    }

    #[actix_rt::test]
    async fn the_report_is_the_originals_but_for_the_chosen_differences() {
        let recorded = recorded();
        let (_db, handle) = start(&recorded);
        let file = records(&read(&handle, "/report.csv", false).await);
        assert_eq!(file[0], ["model", "state", "age_days", "cause", "rows", "counted"]);
        let mut ours = Summary::new();
        for line in &file[1..] {
            let key = (line[0].clone(), line[2].parse().expect("an age"), line[3].clone());
            *ours.entry(key).or_default() += line[4].parse::<u64>().expect("a count");
            assert_eq!(line[5], "all");
        }
        let (original, expected) = (original(&recorded), chosen(original(&recorded), &recorded));
        assert_eq!(ours, expected);
        let same = original.iter().filter(|known| ours.get(known.0) == Some(known.1)).count();
        assert!(same + 1 >= original.len(), "{same} of the original's {} groups", original.len());
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn the_report_as_text_says_the_same_a_line_a_group_and_one_for_each_model() {
        let recorded = recorded();
        let (_db, handle) = start(&recorded);
        let file = records(&read(&handle, "/report.csv", false).await);
        let text = read(&handle, "/report.txt", false).await;
        let mut expected = Vec::new();
        for lines in file[1..].chunk_by(|a, b| a[0] == b[0]) {
            let mut total = 0;
            for line in lines {
                let rows: u64 = line[4].parse().expect("a count");
                let word = if rows == 1 { "row" } else { "rows" };
                let days = if line[2] == "1" { "day" } else { "days" };
                let cause = line[3].replace('\n', " ");
                expected.push(format!("{} has {rows} {word} {}, {} {days} old, with cause {cause}", line[0], line[1], line[2]));
                total += rows;
            }
            expected.push(format!("{} has {total} rows that are not done", lines[0][0]));
        }
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        // As many as the original's, but for the differences.
        let chosen: u64 = chosen(original(&recorded), &recorded).values().sum();
        assert_eq!(file[1..].iter().map(|line| line[4].parse::<u64>().expect("a count")).sum::<u64>(), chosen);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn the_first_word_of_a_text_that_is_not_the_librarys_is_for_operators() {
        let recorded = recorded();
        let (_db, handle) = start(&recorded);
        for address in ["/report.txt", "/report.csv"] {
            let (seen, operated) = (read(&handle, address, true).await, read(&handle, address, false).await);
            for word in ["bad", "Timeout", "VBMS", "problem"] {
                assert!(!seen.contains(word) && operated.contains(word), "{word} in {seen}");
            }
            assert!(seen.contains("other"));
        }
        handle.shutdown(Duration::ZERO).await;
    }

    /// Rows of one model that are due: more than a report counts or a file has.
    fn many(db: &Db) {
        db.conn().batch_execute(
            "DELETE FROM higher_level_reviews; \
             INSERT INTO higher_level_reviews (id, establishment_submitted_at, establishment_last_submitted_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050) \
             SELECT i, '2024-03-13 12:00:00', '2024-03-13 12:00:00' FROM n",
        ).expect("rows");
    }

    #[actix_rt::test]
    async fn a_list_as_csv_ends_at_ten_thousand_rows_and_links_to_the_rest() {
        let (db, handle) = start(&recorded());
        many(&db);
        let address = "/rows.csv?model=HigherLevelReview&state=due";
        let (first, link) = read_with_link(&handle, address, true).await;
        let link = link.expect("a link to the rest");
        let next = link.strip_prefix("</ops").and_then(|link| link.strip_suffix(">; rel=\"next\""));
        let (rest, none) = read_with_link(&handle, next.expect("an address below the page's"), true).await;
        assert_eq!(none, None);
        let id = |line: Vec<String>| line[1].parse::<i64>().expect("an id");
        let mut ids: Vec<i64> = Vec::new();
        for (file, rows) in [(first, 10_000), (rest, 50)] {
            let lines = records(&file);
            assert_eq!(lines.len(), 1 + rows);
            ids.extend(lines.into_iter().skip(1).map(id));
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=10_050).collect::<Vec<_>>());
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_report_counts_ten_thousand_rows_of_a_state_and_says_that_there_are_more() {
        let (db, handle) = start(&recorded());
many(&db);
        let csv = read(&handle, "/report.csv", false).await;
        assert!(csv.contains("HigherLevelReview,due,1,none,10000,the oldest\r\n"), "{csv}");
        let text = read(&handle, "/report.txt", false).await;
        let more = "HigherLevelReview has more rows due than the 10000 oldest, which are counted here\n";
        assert!(text.contains(more), "{text}");
        handle.shutdown(Duration::ZERO).await;
    }
}
