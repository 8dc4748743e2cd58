//! The host's models: which columns say where a row's work stands, and for how long it is tried.

use std::time::Duration;

use asyncable::{Asyncable, Columns, RetryPolicy, columns};
use diesel::prelude::*;

use crate::schema::*;

const HOUR: u64 = 3600;

/// A claim that VBMS has to establish. By the default policy: every 3 hours, for 4 days.
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
        user = created_by,
        subject = file_number
    );
}

/// The other kind of claim, established by VBMS too.
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
        user = created_by,
        subject = file_number
    );
}

/// An issue of a claim, whose decision is synchronised with BGS: every 12 hours, for 30 days.
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
        user = created_by,
        subject = file_number
    );
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT
        .every(Duration::from_secs(12 * HOUR))
        .window(Duration::from_secs(30 * 24 * HOUR));
}

/// Something to do a day after a claim was filed. It calls nobody: it writes in the host's own tables.
#[derive(Queryable, Selectable, Identifiable)]
pub struct TaskTimer {
    pub id: i64,
}

impl Asyncable for TaskTimer {
    type Id = i64;
    const COLUMNS: Columns<task_timers::table> =
        columns!(task_timers, last_submitted_at = last_submitted_at);
}
