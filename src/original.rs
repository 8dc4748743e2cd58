//! The original's own questions, for those who share a table with it.
//!
//! The names and meanings here are those of the `Asyncable` concern that this library is modelled on, to
//! the microsecond, and `tests/conformance.rs` holds them equal to the original's recorded answers. Some
//! mislead: a row that was submitted for a later day is not `processable`, and a canceled row can be
//! `expired_without_processing`. A host of its own does better with the scopes of
//! [`Asyncable`].

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    QueryResult,
    deserialize::{self, FromSql, FromSqlRow, FromStaticSqlRow, Queryable},
    expression::{
        AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
    },
    query_builder::{AstPass, QueryFragment, QueryId},
    query_source::Table,
    sql_types,
};

use crate::{
    asyncable::Asyncable,
    retry::RetryPolicy,
    scope::{Instants, Scope, expression_over_the_model, walk},
    store::{Dialect, Moment},
};

/// How long before the end of its window the original calls a row expired: 1 hour.
pub const EXPIRATION_BUFFER: Duration = Duration::from_secs(3600);

const UNEXPIRED: &str = "({L} > $expiry:L)";
const PROCESSABLE: &str = "({open} AND {L} <= $now:L)";
const NEVER_ATTEMPTED: &str = "({A} IS NULL AND {L} <= $retry:L)";
const READY_FOR_RETRY: &str = "({A} < $retry:A)";
const ATTEMPTABLE: &str =
    "({not canceled} AND (({A} IS NULL AND {L} <= $retry:L) OR {A} < $retry:A))";
const REQUIRES_PROCESSING: &str = "({open} AND {L} <= $now:L AND {L} > $expiry:L \
     AND (({A} IS NULL AND {L} <= $retry:L) OR {A} < $retry:A))";
const EXPIRED_WITHOUT_PROCESSING: &str = "({P} IS NULL AND {L} <= $expiry:L)";
const ATTEMPTED_WITHOUT_BEING_SUBMITTED: &str = "({L} IS NULL AND {A} <= $now:A)";
const WITH_ERROR: &str = "({E} IS NOT NULL)";
const POTENTIALLY_STUCK: &str = "({not canceled} AND (({P} IS NULL AND {L} <= $now:L) \
     OR {E} IS NOT NULL OR ({L} IS NULL AND {A} <= $now:A)))";
const PROCESSED_OR_CANCELED: &str = "(NOT ({open}))";

/// The original's scopes, under its names. Every [`Asyncable`] has them once this is imported.
///
/// They are [`Scope`]s: they go wherever Diesel takes a predicate, and [`Scope::at`] and
/// [`Scope::with_policy`] ask of another instant or under another policy. Of the policy only the retry
/// interval and the window count: in the original a new row, too, waits one retry interval for its first
/// attempt. `processed` and `canceled` are [`Asyncable`]'s own and mean the same.
///
/// ```
/// # include!("../tests/support/doc.rs");
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let conn = &mut doc_connection()?;
/// use asyncable::original::Scopes;
/// use chrono::{TimeDelta, Utc};
///
/// Review::submit(conn, 1)?;
/// let waiting = reviews::table.filter(Review::requires_processing());
/// assert_eq!(waiting.count().get_result::<i64>(conn)?, 0);
///
/// let in_four_hours = Utc::now() + TimeDelta::hours(4);
/// let waiting = reviews::table.filter(Review::requires_processing().at(in_four_hours));
/// assert_eq!(waiting.count().get_result::<i64>(conn)?, 1);
/// # Ok(()) }
/// ```
pub trait Scopes: Asyncable {
    /// Last submitted within the window: up to now, or for a later instant. A row exactly as old as the
    /// window is out of it.
    fn unexpired() -> Scope<Self> {
        Scope::of(UNEXPIRED)
    }

    /// Last submitted at some instant up to now, and neither processed nor canceled, however long ago.
    fn processable() -> Scope<Self> {
        Scope::of(PROCESSABLE)
    }

    /// Not attempted, and last submitted at least one retry interval ago.
    fn never_attempted() -> Scope<Self> {
        Scope::of(NEVER_ATTEMPTED)
    }

    /// Attempted more than one retry interval ago, whatever has become of the row.
    fn previously_attempted_ready_for_retry() -> Scope<Self> {
        Scope::of(READY_FOR_RETRY)
    }

    /// Not canceled, and `never_attempted` or `previously_attempted_ready_for_retry`; it may be processed.
    fn attemptable() -> Scope<Self> {
        Scope::of(ATTEMPTABLE)
    }

    /// What the original attempts next: `processable`, `attemptable` and `unexpired`. It takes them in the
    /// order of [`Asyncable::oldest_first`].
    fn requires_processing() -> Scope<Self> {
        Scope::of(REQUIRES_PROCESSING)
    }

    /// Not processed, and last submitted at least the window ago; it may be canceled. The predicate of
    /// this name asks something else: [`RowState::expired_without_processing`].
    fn expired_without_processing() -> Scope<Self> {
        Scope::of(EXPIRED_WITHOUT_PROCESSING)
    }

    /// Attempted up to now without a last submission, whatever has become of the row.
    fn attempted_without_being_submitted() -> Scope<Self> {
        Scope::of(ATTEMPTED_WITHOUT_BEING_SUBMITTED)
    }

    /// Has an error, whatever has become of the row.
    fn with_error() -> Scope<Self> {
        Scope::of(WITH_ERROR)
    }

    /// Not canceled, and `processable`, `with_error` or `attempted_without_being_submitted`; the latter two
    /// may be processed. The original lists them in the order of [`Asyncable::oldest_first`].
    fn potentially_stuck() -> Scope<Self> {
        Scope::of(POTENTIALLY_STUCK)
    }

    /// Processed, canceled, or both.
    fn processed_or_canceled() -> Scope<Self> {
        Scope::of(PROCESSED_OR_CANCELED)
    }

    /// Where the row stands, as an SQL expression: selects as text, loads as [`Status`].
    fn original_status() -> StatusOf<Self> {
        StatusOf { instants: unasked::<Self>(), model: std::marker::PhantomData }
    }

    /// The row's six values, as an SQL expression: goes into `.select(..)`, loads as [`RowState`].
    fn row_state() -> RowStateOf<Self> {
        RowStateOf { instants: unasked::<Self>(), model: std::marker::PhantomData }
    }
}

impl<M: Asyncable> Scopes for M {}

/// The instants of an expression that compares with none.
fn unasked<M: Asyncable>() -> Instants {
    Instants::new(Moment::at(DateTime::UNIX_EPOCH), &M::POLICY)
}

/// Where the original says that a row stands. It knows no expiry here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromSqlRow, AsExpression)]
#[diesel(sql_type = sql_types::Text)]
pub enum Status {
    /// Processed; it may be canceled too.
    Processed,
    /// Canceled.
    Canceled,
    /// Attempted; it need not have been submitted.
    Attempted,
    /// Submitted.
    Submitted,
    /// None of these.
    NotYetSubmitted,
}

impl Status {
    /// As the original spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Processed => "processed",
            Status::Canceled => "canceled",
            Status::Attempted => "attempted",
            Status::Submitted => "submitted",
            Status::NotYetSubmitted => "not_yet_submitted",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<DB> FromSql<sql_types::Text, DB> for Status
where
    DB: Dialect,
    String: FromSql<sql_types::Text, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        const ALL: [Status; 5] = [
            Status::Processed,
            Status::Canceled,
            Status::Attempted,
            Status::Submitted,
            Status::NotYetSubmitted,
        ];
        let text = String::from_sql(value)?;
        let status = ALL.into_iter().find(|status| status.as_str() == text);
        status.ok_or_else(|| format!("`{text}` is no status of the original's").into())
    }
}

/// The original's status as SQL. Made by [`Scopes::original_status`].
#[derive(Debug)]
pub struct StatusOf<M> {
    instants: Instants,
    model: std::marker::PhantomData<fn() -> M>,
}

expression_over_the_model!(StatusOf, sql_types::Text);

impl<M, DB> QueryFragment<DB> for StatusOf<M>
where
    M: Asyncable<Table: QueryFragment<DB>>,
    DB: Dialect,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        const STATUS: &str = "CASE WHEN {P} IS NOT NULL THEN 'processed' \
             WHEN NOT ({not canceled}) THEN 'canceled' WHEN {A} IS NOT NULL THEN 'attempted' \
             WHEN {S} IS NOT NULL THEN 'submitted' ELSE 'not_yet_submitted' END";
        walk::<M, DB>(STATUS, &self.instants, &mut out)
    }
}

type Time = sql_types::Nullable<sql_types::Timestamp>;
type RowStateSql = (Time, Time, Time, Time, Time, sql_types::Nullable<sql_types::Text>);

/// A row's six values as SQL. Made by [`Scopes::row_state`].
#[derive(Debug)]
pub struct RowStateOf<M> {
    instants: Instants,
    model: std::marker::PhantomData<fn() -> M>,
}

expression_over_the_model!(RowStateOf, RowStateSql);

impl<M, DB> QueryFragment<DB> for RowStateOf<M>
where
    M: Asyncable<Table: QueryFragment<DB>>,
    DB: Dialect,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        const WITH_CANCELED: &str = "{utc S}, {utc L}, {utc A}, {utc P}, {utc X}, {E}";
        const WITHOUT: &str = "{utc S}, {utc L}, {utc A}, {utc P}, CAST(NULL AS TIMESTAMP), {E}";
        let text = if M::COLUMNS.canceled_at.is_some() { WITH_CANCELED } else { WITHOUT };
        walk::<M, DB>(text, &self.instants, &mut out)
    }
}

/// A row's six values, and what the original answers about a row that is loaded.
///
/// ```
/// # include!("../tests/support/doc.rs");
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let conn = &mut doc_connection()?;
/// use asyncable::original::{RowState, Scopes};
/// use chrono::Utc;
///
/// Review::submit(conn, 1)?;
/// let state: RowState = reviews::table.find(1).select(Review::row_state()).first(conn)?;
/// assert!(state.submitted_and_ready(Utc::now()));
/// assert_eq!(state.sanitized_error(), "none");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowState {
    /// When the work was asked for.
    pub submitted_at: Option<DateTime<Utc>>,
    /// From when the row counts as waiting.
    pub last_submitted_at: Option<DateTime<Utc>>,
    /// When it was last attempted.
    pub attempted_at: Option<DateTime<Utc>>,
    /// When it was done.
    pub processed_at: Option<DateTime<Utc>>,
    /// When it was given up; nothing where the model names no such column.
    pub canceled_at: Option<DateTime<Utc>>,
    /// The last failure.
    pub error: Option<String>,
}

impl RowState {
    /// Whether the row is processed.
    pub fn processed(&self) -> bool {
        self.processed_at.is_some()
    }

    /// Whether the row was attempted.
    pub fn attempted(&self) -> bool {
        self.attempted_at.is_some()
    }

    /// Whether the row was submitted, for now or for later.
    pub fn submitted(&self) -> bool {
        self.submitted_at.is_some()
    }

    /// Whether the row is canceled.
    pub fn canceled(&self) -> bool {
        self.canceled_at.is_some()
    }

    /// Not processed, and its window is over or will be within `buffer` ([`EXPIRATION_BUFFER`] in the
    /// original). The scope of this name has no buffer: [`Scopes::expired_without_processing`].
    pub fn expired_without_processing(
        &self,
        now: DateTime<Utc>,
        policy: &RetryPolicy,
        buffer: Duration,
    ) -> bool {
        let expires = Moment::at(now).minus(policy.open_for()).plus(buffer).zoned;
        !self.processed() && self.last_submitted_at.is_some_and(|at| at < expires)
    }

    /// Submitted, and last submitted at some instant up to now, whatever has become of the row since.
    ///
    /// The original raises where the row has no last submission; here the answer is no.
    pub fn submitted_and_ready(&self, now: DateTime<Utc>) -> bool {
        self.submitted() && self.last_submitted_at.is_some_and(|at| at <= now)
    }

    /// Submitted and not processed; it may be canceled.
    pub fn submitted_not_processed(&self) -> bool {
        self.submitted() && !self.processed()
    }

    /// Whether the row was restarted or delayed: the last submission is not the first. The name is the
    /// original's; whether an attempt was made does not count.
    pub fn previously_attempted(&self) -> bool {
        self.submitted_at != self.last_submitted_at
    }

    /// The error's first word, by which the original's report counts; `none` where there is no error.
    ///
    /// The text is cut at the first of the six white-space characters (space, tab, line feed, vertical tab,
    /// form feed, carriage return) unless that is the text's last character. Other Unicode spaces are kept.
    pub fn sanitized_error(&self) -> &str {
        const WHITE: [char; 6] = [' ', '\t', '\n', '\x0b', '\x0c', '\r'];
        let Some(error) = &self.error else { return "none" };
        match error.find(WHITE) {
            Some(end) if end + 1 < error.len() => &error[..end],
            _ => error,
        }
    }

    /// What the original's list sorts by: the last submission, and now where there is none.
    pub fn sort_by_last_submitted_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.last_submitted_at.unwrap_or(now)
    }
}

type Values = (
    Option<NaiveDateTime>,
    Option<NaiveDateTime>,
    Option<NaiveDateTime>,
    Option<NaiveDateTime>,
    Option<NaiveDateTime>,
    Option<String>,
);

impl<DB> Queryable<RowStateSql, DB> for RowState
where
    DB: Dialect,
    Values: FromStaticSqlRow<RowStateSql, DB>,
{
    type Row = Values;

    fn build(values: Values) -> deserialize::Result<Self> {
        let (submitted, last_submitted, attempted, processed, canceled, error) = values;
        let utc = |at: Option<NaiveDateTime>| at.map(|at| at.and_utc());
        Ok(RowState {
            submitted_at: utc(submitted),
            last_submitted_at: utc(last_submitted),
            attempted_at: utc(attempted),
            processed_at: utc(processed),
            canceled_at: utc(canceled),
            error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_an_error_ends_at_one_of_six_characters_that_is_not_the_last() {
        let first_words = [
            ("bad problem", "bad"),
            ("dos\r\nline end", "dos"),
            ("ends\n", "ends\n"),
            ("ends\n\n", "ends"),
            (" leading", ""),
            ("\n", "\n"),
            ("", ""),
            ("em\u{2003}space kept", "em\u{2003}space"),
            ("next\u{85}line", "next\u{85}line"),
        ];
        for (error, first_word) in first_words {
            let state = RowState { error: Some(error.to_owned()), ..RowState::default() };
            assert_eq!(state.sanitized_error(), first_word, "of {error:?}");
        }
    }
}
