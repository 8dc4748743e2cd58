//! Scopes: where a row's work stands, as predicates for a host's own queries.
//!
//! A [`Scope`] goes wherever Diesel takes a boolean expression over the model's table, on both backends:
//! `.filter`, `.and`, `.or`, `not`, joins, sub-selects, `update`, `into_boxed`. It is true to the instant
//! it was made ([`Scope::at`] asks of another) and to the model's policy ([`Scope::with_policy`]).
//!
//! The definitions are the claim's own (see `docs/protocol.md`), so that what `due()` selects is what a
//! claim at that instant takes while its services are up. Of services scopes know nothing: not that one is
//! down, and not that an outage has lengthened a window.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    backend::Backend,
    deserialize::{self, FromSql, FromSqlRow},
    expression::{
        AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
    },
    query_builder::{AstPass, QueryFragment, QueryId},
    query_source::Table,
    serialize::{self, Output, ToSql},
    sql_types::{self, Bool, Nullable},
};

use crate::{
    asyncable::Asyncable,
    columns::Zone,
    outage::{Outage, window_began},
    retry::RetryPolicy,
    store::{
        Dialect, Moment,
        statement::{Names, Part, parts, table_sql, time_column},
    },
};

/// The instants that a predicate compares a row's with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instants {
    pub(crate) now: Moment,
    /// A submission from before this has had its first wait.
    pub(crate) fresh: Moment,
    /// An attempt from before this is a retry interval ago.
    pub(crate) retry: Moment,
    /// A submission from before this, or at it, is expired.
    pub(crate) expiry: Moment,
}

impl Instants {
    pub(crate) fn new(now: Moment, policy: &RetryPolicy) -> Self {
        Instants {
            now,
            fresh: now.minus(policy.first_wait()),
            retry: now.minus(policy.interval()),
            expiry: now.minus(policy.open_for()),
        }
    }

    /// As `new`, with a window that is longer by what it has of outages.
    pub(crate) fn with_outages(now: Moment, policy: &RetryPolicy, outages: &[Outage]) -> Self {
        let mut instants = Self::new(now, policy);
        if !policy.counts_outages() {
            instants.expiry = window_began(now, policy.open_for(), outages);
        }
        instants
    }

    /// As they were then, as far as a window's end goes.
    #[cfg(feature = "dashboard")]
    pub(crate) fn seen_at(&self, then: Moment) -> Instants {
        let back = self.now.since(then);
        let (fresh, retry) = (self.fresh.minus(back), self.retry.minus(back));
        Instants { now: then, fresh, retry, expiry: self.expiry.minus(back) }
    }

    fn named(&self, name: &str) -> Option<&Moment> {
        Some(match name {
            "now" => &self.now,
            "fresh" => &self.fresh,
            "retry" => &self.retry,
            "expiry" => &self.expiry,
            _ => return None,
        })
    }
}

/// Rows never attempted since their last submission, whose first wait is over.
pub(crate) const FRESH: &str = "{open} AND {A} IS NULL AND {L} <= $fresh:L AND {L} > $expiry:L";

/// Rows never attempted since their last submission, whose first wait goes on.
pub(crate) const SCHEDULED: &str = "{open} AND {A} IS NULL AND {L} > $fresh:L";

/// Rows never attempted since their last submission, whose window is over.
pub(crate) const EXPIRED_FRESH: &str = "{open} AND {A} IS NULL AND {L} <= $expiry:L";

/// Joins entries `r` with the rows that they still speak of.
pub(crate) const ENTRYS_ROW: &str = "JOIN {m} ON {id} = {id from r.row_id} \
    AND {utc A} = r.attempted_at AND {utc L} = r.last_submitted_at AND {open by key}";

/// Joins claims `c` with the rows that their attempts have not ended for.
pub(crate) const CLAIMS_ROW: &str = "JOIN {m} ON {A} = {A from c.claimed_at} AND {open} \
    AND NOT EXISTS (SELECT 1 FROM asyncable_retries e WHERE e.model = {model} \
    AND e.row_id = {id text} AND e.attempted_at = {utc A})";

/// The row's entry in `asyncable_retries` that speaks of its last attempt.
macro_rules! entry {
    ($more:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = {model} ",
            "AND r.row_id = {id text} AND r.attempted_at = {utc A} ",
            "AND r.last_submitted_at = {utc L}",
            $more,
            ")"
        )
    };
}

/// A lease on the row's last attempt.
macro_rules! lease {
    ($more:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM asyncable_claims c WHERE c.model = {model} ",
            "AND c.claimed_at = {utc A} AND ",
            $more,
            ")"
        )
    };
}

pub(crate) const DUE: &str = concat!(
    "({open} AND {L} > $expiry:L AND (",
    "({A} IS NULL AND {L} <= $fresh:L) OR ",
    entry!(" AND r.due_at <= $now"),
    " OR ({A} < $retry:A AND {L} <= $now:L AND NOT ",
    entry!(" AND (r.due_at IS NOT NULL OR r.kind = 'permanent')"),
    " AND NOT ",
    lease!("c.expires_at IS NOT NULL"),
    ")))"
);

pub(crate) const IN_FLIGHT: &str = concat!(
    "({open} AND ",
    lease!("c.expires_at > $now"),
    " AND NOT EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = {model} ",
    "AND r.row_id = {id text} AND r.attempted_at = {utc A}))"
);

const FAILING: &str =
    concat!("({open} AND {L} > $expiry:L AND ", entry!(" AND r.due_at IS NOT NULL"), ")");

const PARKED: &str = concat!("({open} AND ", entry!(" AND r.kind = 'permanent'"), ")");

const EXPIRED: &str = "({open} AND {L} <= $expiry:L)";

const NEEDS_ATTENTION: &str =
    concat!("({open} AND ({L} <= $expiry:L OR ", entry!(" AND r.kind = 'permanent'"), "))");

const PROCESSED: &str = "({P} IS NOT NULL)";

/// A predicate of a model's rows, for `.filter(..)` and wherever Diesel takes one.
///
/// Its SQL type is `Nullable<Bool>`: a comparison with a column that is NULL is NULL, as in SQL.
#[derive(Debug)]
pub struct Scope<M> {
    text: &'static str,
    instants: Instants,
    policy: RetryPolicy,
    model: PhantomData<fn() -> M>,
}

impl<M> Clone for Scope<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Scope<M> {}

impl<M: Asyncable> Scope<M> {
    pub(crate) fn of(text: &'static str) -> Self {
        let instants = Instants::new(Moment::at(Utc::now()), &M::POLICY);
        Scope { text, instants, policy: M::POLICY, model: PhantomData }
    }

    pub(crate) fn due() -> Self {
        Self::of(DUE)
    }

    pub(crate) fn in_flight() -> Self {
        Self::of(IN_FLIGHT)
    }

    pub(crate) fn failing() -> Self {
        Self::of(FAILING)
    }

    pub(crate) fn parked() -> Self {
        Self::of(PARKED)
    }

    pub(crate) fn expired() -> Self {
        Self::of(EXPIRED)
    }

    pub(crate) fn needs_attention() -> Self {
        Self::of(NEEDS_ATTENTION)
    }

    pub(crate) fn processed() -> Self {
        Self::of(PROCESSED)
    }

    pub(crate) fn canceled() -> Self {
        // Without the column no row was ever canceled.
        if M::COLUMNS.canceled_at.is_some() {
            Self::of("({X} IS NOT NULL)")
        } else {
            Self::of("(1 = 0)")
        }
    }

    /// The same question asked of another instant.
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        self.instants = Instants::new(Moment::at(now), &self.policy);
        self
    }

    /// The same question under another policy than the model's.
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self.instants = Instants::new(self.instants.now, &policy);
        self
    }
}

/// Writes a text with names in it; its binds are borrowed from the expression.
pub(crate) fn walk<'b, M, DB>(
    text: &str,
    instants: &'b Instants,
    out: &mut AstPass<'_, 'b, DB>,
) -> QueryResult<()>
where
    M: Asyncable<Table: QueryFragment<DB>>,
    DB: Dialect,
{
    let names = Names::<M, DB>::of(table_sql::<_, DB>(M::table())?);
    for part in parts(text) {
        let known = match part {
            Part::Sql(sql) => {
                out.push_sql(sql);
                Some(())
            }
            Part::Name(name) => names.sql(name).map(|sql| out.push_sql(&sql)),
            Part::Bind { name, role } => {
                let zone = time_column::<M>(role).map_or(Zone::Naive, |column| column.zone);
                match instants.named(name) {
                    Some(at) => Some(DB::push_time(out, zone, at)?),
                    None => None,
                }
            }
        };
        known.ok_or_else(|| diesel::result::Error::QueryBuilderError(text.into()))?;
    }
    Ok(())
}

macro_rules! expression_over_the_model {
    ($type:ident, $sql:ty) => {
        impl<M> Expression for $type<M> {
            type SqlType = $sql;
        }

        impl<M> QueryId for $type<M> {
            type QueryId = ();
            const HAS_STATIC_QUERY_ID: bool = false;
        }

        impl<M> ValidGrouping<()> for $type<M> {
            type IsAggregate = is_aggregate::No;
        }

        // It may stand wherever the model's primary key may.
        impl<M, QS> AppearsOnTable<QS> for $type<M>
        where
            M: Asyncable,
            <M::Table as Table>::PrimaryKey: AppearsOnTable<QS>,
        {
        }

        impl<M, QS> SelectableExpression<QS> for $type<M>
        where
            M: Asyncable,
            <M::Table as Table>::PrimaryKey: SelectableExpression<QS>,
            Self: AppearsOnTable<QS>,
        {
        }
    };
}

pub(crate) use expression_over_the_model;

expression_over_the_model!(Scope, Nullable<Bool>);
expression_over_the_model!(StatusOf, sql_types::Text);
expression_over_the_model!(OldestFirst, diesel::expression::expression_types::NotSelectable);

impl<M, DB> QueryFragment<DB> for Scope<M>
where
    M: Asyncable<Table: QueryFragment<DB>>,
    DB: Dialect,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        walk::<M, DB>(self.text, &self.instants, &mut out)
    }
}

/// Where a row's work stands, by its own columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromSqlRow, AsExpression)]
#[diesel(sql_type = sql_types::Text)]
#[non_exhaustive]
pub enum Status {
    /// Nobody has asked for its work.
    NotSubmitted,
    /// Asked for, and not attempted since.
    Submitted,
    /// Attempted: it runs now, waits for its next attempt, or is parked.
    Attempted,
    /// Done.
    Processed,
    /// Given up.
    Canceled,
    /// Its window is over; it is not attempted until it is submitted or restarted.
    Expired,
}

impl Status {
    /// As it reads in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::NotSubmitted => "not_submitted",
            Status::Submitted => "submitted",
            Status::Attempted => "attempted",
            Status::Processed => "processed",
            Status::Canceled => "canceled",
            Status::Expired => "expired",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALL: [Status; 6] = [
            Status::NotSubmitted,
            Status::Submitted,
            Status::Attempted,
            Status::Processed,
            Status::Canceled,
            Status::Expired,
        ];
        let status = ALL.into_iter().find(|status| status.as_str() == text);
        status.ok_or_else(|| format!("`{text}` is no status"))
    }
}

impl<DB> FromSql<sql_types::Text, DB> for Status
where
    DB: Backend,
    String: FromSql<sql_types::Text, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(String::from_sql(value)?.parse()?)
    }
}

impl<DB> ToSql<sql_types::Text, DB> for Status
where
    DB: Backend,
    str: ToSql<sql_types::Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        self.as_str().to_sql(out)
    }
}

/// Where a row's work stands, as SQL: selects as text, loads as [`Status`], and is compared with one. Made
/// by [`Asyncable::status`].
#[derive(Debug)]
pub struct StatusOf<M> {
    instants: Instants,
    policy: RetryPolicy,
    model: PhantomData<fn() -> M>,
}

impl<M: Asyncable> StatusOf<M> {
    pub(crate) fn now() -> Self {
        let instants = Instants::new(Moment::at(Utc::now()), &M::POLICY);
        StatusOf { instants, policy: M::POLICY, model: PhantomData }
    }

    /// The same question asked of another instant.
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        self.instants = Instants::new(Moment::at(now), &self.policy);
        self
    }

    /// The same question under another policy than the model's.
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self.instants = Instants::new(self.instants.now, &policy);
        self
    }
}

impl<M, DB> QueryFragment<DB> for StatusOf<M>
where
    M: Asyncable<Table: QueryFragment<DB>>,
    DB: Dialect,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        walk::<M, DB>(&status_text::<M>(), &self.instants, &mut out)
    }
}

pub(crate) fn status_text<M: Asyncable>() -> String {
    let canceled = match M::COLUMNS.canceled_at {
        Some(_) => "WHEN {X} IS NOT NULL THEN 'canceled' ",
        None => "",
    };
    format!(
        "CASE WHEN {{P}} IS NOT NULL THEN 'processed' {canceled}\
         WHEN {{L}} <= $expiry:L THEN 'expired' WHEN {{A}} IS NOT NULL THEN 'attempted' \
         WHEN {{S}} IS NOT NULL THEN 'submitted' ELSE 'not_submitted' END"
    )
}

/// The oldest last submission first, rows never submitted last, ties by id. Made by
/// [`Asyncable::oldest_first`].
#[derive(Debug)]
pub struct OldestFirst<M> {
    instants: Instants,
    model: PhantomData<fn() -> M>,
}

impl<M: Asyncable> OldestFirst<M> {
    pub(crate) fn new() -> Self {
        let instants = Instants::new(Moment::at(Utc::now()), &M::POLICY);
        OldestFirst { instants, model: PhantomData }
    }
}

impl<M, DB> QueryFragment<DB> for OldestFirst<M>
where
    M: Asyncable<Table: QueryFragment<DB>>,
    DB: Dialect,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        // SQLite puts NULLs first unless told otherwise.
        walk::<M, DB>("{L} ASC NULLS LAST, {id} ASC", &self.instants, &mut out)
    }
}
