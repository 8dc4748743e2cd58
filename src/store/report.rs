//! The report: a model's rows that are not done, by state, age and cause.
//!
//! Each part reads one range of an index and stops at [`Counts::MOST`] rows, the oldest ones, so that the
//! report costs the same however bad things are. It is the original's report where that keeps its meaning;
//! `docs/dashboard.md` says what differs.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    cell::Record,
    counts::Counts,
    explain::Around,
    statement::{Statement, Value},
};
use crate::{
    asyncable::Stored,
    original::RowState,
    scope::{CLAIMS_ROW, ENTRYS_ROW, EXPIRED_FRESH, FRESH, SCHEDULED},
};

/// What a row failed of last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// It has no error.
    None,
    /// The code of its last failure: safe to show.
    Code(String),
    /// The first word of an error that no failure known here speaks of. May be anything.
    Word(String),
}

/// Rows that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) state: &'static str,
    /// Since the last submission, rounded up; below 1 for one that lies ahead.
    pub(crate) age_days: i64,
    pub(crate) cause: Cause,
    pub(crate) rows: u32,
}

/// A model's part of the report.
#[derive(Clone, Debug)]
pub(crate) struct ModelReport {
    pub(crate) model: &'static str,
    /// By state, then the oldest first, then by cause.
    pub(crate) groups: Vec<Group>,
    /// States of which only the oldest [`Counts::MOST`] rows were counted.
    pub(crate) cut: Vec<&'static str>,
}

/// The states of a report, in its order, each with what is read for it.
const PARTS: [(&str, Part); 9] = [
    ("scheduled", Part::Unattempted(SCHEDULED)),
    ("due", Part::Unattempted(FRESH)),
    ("due", Part::Entries("due_at <= $now ORDER BY due_at", UNEXPIRED)),
    ("running", Part::Running),
    ("failing", Part::Entries("due_at > $now ORDER BY due_at", UNEXPIRED)),
    (
        "parked",
        Part::Entries(
            "kind = 'permanent' AND last_submitted_at > $expiry ORDER BY last_submitted_at",
            "",
        ),
    ),
    ("expired", Part::Unattempted(EXPIRED_FRESH)),
    ("expired", Part::Entries("last_submitted_at <= $expiry ORDER BY last_submitted_at", "")),
    ("orphaned", Part::Orphaned),
];

const UNEXPIRED: &str = " AND {L} > $expiry:L";

/// Where rows of a state are found.
#[derive(Clone, Copy)]
enum Part {
    /// Never attempted since their last submission.
    Unattempted(&'static str),
    /// Those that an entry speaks of: which entries, and what more is asked.
    Entries(&'static str, &'static str),
    Running,
    /// Attempted by something that left no word of it, or whose host has not been heard of.
    Orphaned,
}

/// Of an error's text: enough for its first word.
const WORD: &str = "substr({E}, 1, 200)";

impl Part {
    fn sql(self) -> String {
        let most = Counts::MOST;
        match self {
            Part::Unattempted(rows) => format!(
                "SELECT {{L}}, NULL, {WORD} FROM {{m}} WHERE {rows} ORDER BY {{A}}, {{L}} LIMIT {most}"
            ),
            Part::Entries(entries, and) => format!(
                "SELECT {{L}}, r.code, NULL FROM (SELECT row_id, attempted_at, last_submitted_at, kind, code \
                 FROM asyncable_retries WHERE model = {{model}} AND {entries} LIMIT {most}) r \
                 {ENTRYS_ROW}{and}"
            ),
            Part::Running => format!(
                "SELECT {{L}}, NULL, {WORD} FROM asyncable_claims c {CLAIMS_ROW} \
                 WHERE c.model = {{model}} AND c.expires_at > $now LIMIT {most}"
            ),
            // The limit is on what is looked at, not on what is found: those that have an entry or a lease
            // are in the other parts.
            Part::Orphaned => format!(
                "SELECT {{L}}, NULL, {WORD}, CASE WHEN {{L}} <= $expiry:L THEN 1 ELSE 0 END FROM (SELECT {{id}} AS id FROM {{m}} WHERE {{open}} \
                 AND {{A}} IS NOT NULL ORDER BY {{A}}, {{L}} LIMIT {most}) o JOIN {{m}} ON {{id}} = o.id \
                 WHERE NOT EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = {{model}} \
                 AND r.row_id = {{id text}} AND r.attempted_at = {{utc A}} AND r.last_submitted_at = {{utc L}}) \
                 AND NOT EXISTS (SELECT 1 FROM asyncable_claims c WHERE c.model = {{model}} \
                 AND c.claimed_at = {{utc A}} AND c.expires_at > $now)"
            ),
        }
    }
}

/// Rows that are alike, by the place of their state, by age with the oldest first, and by cause.
type Alike = BTreeMap<(usize, i64, Cause), u32>;

/// Half of a report: what one connection reads while another reads the rest.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    groups: Alike,
    cut: Vec<&'static str>,
}

/// Where the second half of the parts begins: with what needs somebody.
const SECOND: usize = 5;

pub(crate) fn first_half<M, C>(conn: &mut C, now: Moment) -> QueryResult<Half>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    half::<M, C>(conn, now, &PARTS[..SECOND])
}

pub(crate) fn second_half<M, C>(conn: &mut C, now: Moment) -> QueryResult<Half>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    half::<M, C>(conn, now, &PARTS[SECOND..])
}

fn half<M, C>(conn: &mut C, now: Moment, parts: &[(&'static str, Part)]) -> QueryResult<Half>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, Duration::ZERO)?;
    let instants = around.instants();
    let most = usize::try_from(Counts::MOST).unwrap_or(usize::MAX);
    let mut groups = Alike::new();
    let mut cut = Vec::new();
    for (state, part) in parts {
        let binds = vec![
            ("now", Value::Time(instants.now)),
            ("fresh", Value::Time(instants.fresh)),
            ("expiry", Value::Time(instants.expiry)),
        ];
        let rows = Statement::of::<M>(&part.sql(), binds)?.load(conn)?;
        if rows.len() >= most && cut.last() != Some(state) {
            cut.push(*state);
        }
        for row in &rows {
            let (age, cause) = read(row, now)?;
            // Of the orphans, those whose window is over.
            let state = if row.flag(3).unwrap_or(false) { "expired" } else { state };
            *groups.entry((place(state), -age, cause)).or_default() += 1;
        }
    }
    Ok(Half { groups, cut })
}

impl ModelReport {
    pub(crate) fn of(model: &'static str, mut first: Half, second: Half) -> Self {
        for (alike, rows) in second.groups {
            *first.groups.entry(alike).or_default() += rows;
        }
        let group = |((place, age, cause), rows): ((usize, i64, Cause), u32)| {
            let state = PARTS.get(place).map_or("", |(state, _)| state);
            Group { state, age_days: -age, cause, rows }
        };
        let groups = first.groups.into_iter().map(group).collect();
        ModelReport { model, groups, cut: [first.cut, second.cut].concat() }
    }
}

/// Where a state stands among all.
fn place(state: &str) -> usize {
    PARTS.iter().position(|(known, _)| *known == state).unwrap_or_default()
}

fn read(row: &Record, now: Moment) -> QueryResult<(i64, Cause)> {
    // An instant that nobody can read is as good as none.
    let last = row.maybe_time(0).unwrap_or(None);
    let age = last.map_or(0, |last| age_days(last.zoned, now.zoned));
    let cause = match (row.maybe_text(1)?, row.maybe_text(2)?) {
        (Some(code), _) => Cause::Code(code),
        (None, None) => Cause::None,
        (None, error) => {
            let state = RowState { error, ..RowState::default() };
            Cause::Word(state.sanitized_error().to_owned())
        }
    };
    Ok((age, cause))
}

/// Days from one instant to another, rounded up, as the original counts them.
fn age_days(from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
    let micros = (from - to).num_microseconds().unwrap_or(0);
    let day = TimeDelta::days(1).num_microseconds().unwrap_or(i64::MAX);
    -micros.div_euclid(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_rounded_up_to_days_as_in_the_original() {
        let now = DateTime::UNIX_EPOCH;
        let age = |micros| age_days(now - TimeDelta::microseconds(micros), now);
        let day = 86_400_000_000;
        assert_eq!([age(0), age(1), age(day), age(day + 1)], [0, 1, 1, 2]);
        assert_eq!([age(-1), age(1 - day), age(-day), age(-5 * day + 1)], [0, 0, -1, -4]);
    }
}
