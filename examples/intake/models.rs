//! The host's tables and models.

use std::time::Duration;

use asyncable::{Asyncable, Columns, RetryPolicy, columns};
use diesel::prelude::*;

pub mod schema {
    macro_rules! claims {
        ($table:ident) => {
            diesel::table! {
                $table (id) {
                    id -> BigInt,
                    veteran_name -> Text,
                    file_number -> Text,
                    establishment_submitted_at -> Nullable<Timestamp>,
                    establishment_last_submitted_at -> Nullable<Timestamp>,
                    establishment_attempted_at -> Nullable<Timestamp>,
                    establishment_processed_at -> Nullable<Timestamp>,
                    establishment_canceled_at -> Nullable<Timestamp>,
                    establishment_error -> Nullable<Text>,
                }
            }
        };
    }
    claims!(higher_level_reviews);
    claims!(supplemental_claims);
    diesel::table! {
        request_issues (id) {
            id -> BigInt,
            claim -> Text,
            file_number -> Text,
            issue -> Text,
            decision_sync_submitted_at -> Nullable<Timestamp>,
            decision_sync_last_submitted_at -> Nullable<Timestamp>,
            decision_sync_attempted_at -> Nullable<Timestamp>,
            decision_sync_processed_at -> Nullable<Timestamp>,
            decision_sync_canceled_at -> Nullable<Timestamp>,
            decision_sync_error -> Nullable<Text>,
        }
    }
    diesel::table! {
        task_timers (id) {
            id -> BigInt,
            claim -> Text,
            fired -> Integer,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! { intake_clock (id) { id -> BigInt, now -> Timestamp, } }
}
use schema::*;

fn work(table: &str, prefix: &str) -> String {
    let column = |name: &str, kind: &str| format!("{prefix}{name} {kind}");
    let columns =
        ["submitted_at", "last_submitted_at", "attempted_at", "processed_at", "canceled_at"];
    let columns = columns.map(|name| column(name, "TIMESTAMP")).join(", ");
    format!(
        "{columns}, {}); CREATE INDEX IF NOT EXISTS {table}_work ON {table} \
         ({prefix}attempted_at, {prefix}last_submitted_at) WHERE {prefix}processed_at IS NULL \
         AND {prefix}canceled_at IS NULL;",
        column("error", "TEXT")
    )
}

/// The host's own tables; `{key}` is the backend's whole-number key.
pub fn ddl() -> String {
    let claims = |table: &str| {
        let rest = work(table, "establishment_");
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (id {{key}}, veteran_name TEXT NOT NULL, \
             file_number TEXT NOT NULL, {rest}"
        )
    };
    format!(
        "{} {} CREATE TABLE IF NOT EXISTS request_issues (id {{key}}, claim TEXT NOT NULL, \
         file_number TEXT NOT NULL, issue TEXT NOT NULL, {} \
         CREATE TABLE IF NOT EXISTS task_timers (id {{key}}, claim TEXT NOT NULL, \
         fired INTEGER NOT NULL DEFAULT 0, {} \
         CREATE TABLE IF NOT EXISTS intake_clock (id {{key}}, now TIMESTAMP NOT NULL);",
        claims("higher_level_reviews"),
        claims("supplemental_claims"),
        work("request_issues", "decision_sync_"),
        work("task_timers", ""),
    )
}

#[derive(Queryable, Selectable, Identifiable)]
pub struct HigherLevelReview {
    pub id: i64,
    pub file_number: String,
}

impl Asyncable for HigherLevelReview {
    type Id = i64;
    const COLUMNS: Columns<higher_level_reviews::table> = columns!(
        higher_level_reviews,
        establishment_submitted_at,
        establishment_attempted_at,
        establishment_processed_at,
        establishment_error,
        last_submitted_at = establishment_last_submitted_at,
        canceled_at = establishment_canceled_at,
        subject = file_number
    );
}

#[derive(Queryable, Selectable, Identifiable)]
pub struct SupplementalClaim {
    pub id: i64,
    pub file_number: String,
}

impl Asyncable for SupplementalClaim {
    type Id = i64;
    const COLUMNS: Columns<supplemental_claims::table> = columns!(
        supplemental_claims,
        establishment_submitted_at,
        establishment_attempted_at,
        establishment_processed_at,
        establishment_error,
        last_submitted_at = establishment_last_submitted_at,
        canceled_at = establishment_canceled_at,
        subject = file_number
    );
}

#[derive(Queryable, Selectable, Identifiable)]
pub struct RequestIssue {
    pub id: i64,
    pub file_number: String,
}

impl Asyncable for RequestIssue {
    type Id = i64;
    const COLUMNS: Columns<request_issues::table> = columns!(
        request_issues,
        decision_sync_submitted_at,
        decision_sync_attempted_at,
        decision_sync_processed_at,
        decision_sync_error,
        last_submitted_at = decision_sync_last_submitted_at,
        canceled_at = decision_sync_canceled_at,
        subject = file_number
    );
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT
        .every(Duration::from_secs(12 * 3600))
        .window(Duration::from_secs(30 * 86_400));
}

#[derive(Queryable, Selectable, Identifiable)]
pub struct TaskTimer {
    pub id: i64,
}

impl Asyncable for TaskTimer {
    type Id = i64;
    const COLUMNS: Columns<task_timers::table> =
        columns!(task_timers, last_submitted_at = last_submitted_at);
}
