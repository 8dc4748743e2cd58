//! The host's queries: filing a claim, and where the rows' work stands.

use asyncable::{Asyncable, Scope, StatusOf};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use diesel::{dsl::not, prelude::*};

use super::Conn;
use crate::{
    args::Import,
    claim::{Claim, Kind},
    models::{HigherLevelReview, RequestIssue, SupplementalClaim, TaskTimer},
    report::{self, Counts, Row, Work},
    schema::*,
};

/// Writes a claim and submits its work, in one transaction. Answers the claim's name.
pub fn file(conn: &mut Conn, now: DateTime<Utc>, claim: &Claim, by: &str) -> QueryResult<String> {
    let Claim { veteran_name, file_number, .. } = claim;
    conn.transaction(|conn| {
        let name = match claim.kind {
            Kind::HigherLevelReview => {
                use higher_level_reviews as reviews;
                let id: i64 = diesel::insert_into(reviews::table)
                    .values((
                        reviews::veteran_name.eq(veteran_name),
                        reviews::file_number.eq(file_number),
                        reviews::created_by.eq(by),
                    ))
                    .returning(reviews::id)
                    .get_result(conn)?;
                HigherLevelReview::as_of(now).submit(conn, id)?;
                format!("hlr-{id}")
            }
            Kind::SupplementalClaim => {
                use supplemental_claims as claims;
                let id: i64 = diesel::insert_into(claims::table)
                    .values((
                        claims::veteran_name.eq(veteran_name),
                        claims::file_number.eq(file_number),
                        claims::created_by.eq(by),
                    ))
                    .returning(claims::id)
                    .get_result(conn)?;
                SupplementalClaim::as_of(now).submit(conn, id)?;
                format!("sc-{id}")
            }
        };
        for issue in &claim.issues {
            use request_issues as issues;
            let id: i64 = diesel::insert_into(issues::table)
                .values((
                    issues::claim.eq(&name),
                    issues::file_number.eq(file_number),
                    issues::issue.eq(issue),
                    issues::created_by.eq(by),
                ))
                .returning(issues::id)
                .get_result(conn)?;
            RequestIssue::as_of(now).submit(conn, id)?;
        }
        let id: i64 = diesel::insert_into(task_timers::table)
            .values(task_timers::claim.eq(&name))
            .returning(task_timers::id)
            .get_result(conn)?;
        TaskTimer::as_of(now).submit_at(conn, id, now + TimeDelta::days(1))?;
        Ok(name)
    })
}

/// Files the next hundred claims of an import, in one transaction with the note of how many are filed.
/// Answers how many are still to come.
pub fn import(conn: &mut Conn, now: DateTime<Utc>, import: &Import) -> QueryResult<usize> {
    conn.transaction(|conn| {
        // It writes first: an SQLite transaction that read first cannot wait for another writer.
        diesel::insert_into(imports::table)
            .values((imports::source.eq(&import.source), imports::filed.eq(0)))
            .on_conflict_do_nothing()
            .execute(conn)?;
        let this = imports::table.find(&import.source);
        let filed: i32 = this.select(imports::filed).first(conn)?;
        let left = import.count.saturating_sub(filed.unsigned_abs() as usize);
        let next = import.claims.iter().cycle().skip(filed.unsigned_abs() as usize);
        for claim in next.take(left.min(100)) {
            file(conn, now, claim, "import")?;
        }
        diesel::update(this).set(imports::filed.eq(filed + left.min(100) as i32)).execute(conn)?;
        Ok(left.saturating_sub(100))
    })
}

/// What is asked of a row's work: one instant for all of it.
fn work<M: Asyncable>(now: DateTime<Utc>) -> (StatusOf<M>, Scope<M>, Scope<M>) {
    (M::status().at(now), M::parked().at(now), M::failing().at(now))
}

/// Of a row: what it is, when it was submitted and processed, and where its work stands.
type Loaded = ((i64, String, String), (Option<NaiveDateTime>, Option<NaiveDateTime>), Work);

pub fn is_empty(conn: &mut Conn) -> QueryResult<bool> {
    let reviews: i64 = higher_level_reviews::table.count().get_result(conn)?;
    let claims: i64 = supplemental_claims::table.count().get_result(conn)?;
    Ok(reviews + claims == 0)
}

/// Which claims to load.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    All,
    /// The fifty filed last.
    Latest,
    /// The one of this name.
    Named(&'a str),
}

pub fn claims(conn: &mut Conn, now: DateTime<Utc>, which: Which<'_>) -> QueryResult<Vec<Row>> {
    let mut rows = Vec::new();
    // Two tables with the same columns: the same query, written once.
    macro_rules! load {
        ($table:ident, $model:ty, $prefix:literal) => {
            let (status, parked, failing) = work::<$model>(now);
            let query = $table::table
                .select((
                    ($table::id, $table::veteran_name, $table::file_number),
                    ($table::establishment_submitted_at, $table::establishment_processed_at),
                    (status, parked, failing, $table::establishment_error),
                ))
                .order($table::id.desc())
                .into_boxed();
            let query = match which {
                Which::All => Some(query),
                Which::Latest => Some(query.limit(50)),
                Which::Named(name) => {
                    let id = name.strip_prefix($prefix).and_then(|id| id.parse::<i64>().ok());
                    id.map(|id| query.filter($table::id.eq(id)))
                }
            };
            for ((id, veteran_name, file_number), (submitted_at, processed_at), work) in
                query.map_or(Ok(Vec::new()), |query| query.load::<Loaded>(conn))?
            {
                let name = format!("{}{id}", $prefix);
                let row = Row::new(stringify!($table), id, name, work);
                rows.push(Row { veteran_name, file_number, submitted_at, processed_at, ..row });
            }
        };
    }
    load!(higher_level_reviews, HigherLevelReview, "hlr-");
    load!(supplemental_claims, SupplementalClaim, "sc-");
    if matches!(which, Which::Latest) {
        rows.sort_by_key(|row| std::cmp::Reverse((row.submitted_at, row.id)));
        rows.truncate(50);
    }
    Ok(rows)
}

/// The issues of these claims, or all.
pub fn issues(conn: &mut Conn, now: DateTime<Utc>, of: Option<Vec<&str>>) -> QueryResult<Vec<Row>> {
    use request_issues::*;
    let (status, parked, failing) = work::<RequestIssue>(now);
    let query = table
        .select((
            (id, claim, file_number),
            (decision_sync_submitted_at, decision_sync_processed_at),
            (status, parked, failing, decision_sync_error),
        ))
        .order(id)
        .into_boxed();
    let query = match of {
        None => query,
        Some(claims) => query.filter(claim.eq_any(claims)),
    };
    let rows = query.load::<Loaded>(conn)?.into_iter();
    Ok(rows
        .map(|((row_id, name, number), (submitted_at, processed_at), work)| {
            let row = Row::new("request_issues", row_id, name, work);
            Row { file_number: number, submitted_at, processed_at, ..row }
        })
        .collect())
}

fn timers(conn: &mut Conn, now: DateTime<Utc>) -> QueryResult<Vec<Row>> {
    use task_timers::*;
    let (status, parked, failing) = work::<TaskTimer>(now);
    let rows: Vec<(i64, String, i32, Work)> =
        table.select((id, claim, fired, (status, parked, failing, error))).load(conn)?;
    Ok(rows
        .into_iter()
        .map(|(row_id, name, times, work)| {
            let row = Row::new("task_timers", row_id, name, work);
            Row { own_effects: Some(times), ..row }
        })
        .collect())
}

/// All of it, for the end.
pub fn all(conn: &mut Conn, now: DateTime<Utc>) -> QueryResult<Vec<Row>> {
    let mut rows = claims(conn, now, Which::All)?;
    rows.extend(issues(conn, now, None)?);
    rows.extend(timers(conn, now)?);
    Ok(rows)
}

/// How many rows are in each state.
pub fn counts(conn: &mut Conn, now: DateTime<Utc>) -> QueryResult<Counts> {
    let mut counts = Counts::new();
    macro_rules! count {
        ($table:ident, $model:ty) => {
            let processed = $table::table.filter(<$model>::processed()).count();
            let open = $table::table.filter(not(<$model>::processed()));
            let states = counts.entry(stringify!($table)).or_default();
            states.insert("processed", processed.get_result(conn)?);
            for (status, parked, failing) in open.select(work::<$model>(now)).load(conn)? {
                *states.entry(report::state(status, parked, failing)).or_default() += 1;
            }
        };
    }
    count!(higher_level_reviews, HigherLevelReview);
    count!(supplemental_claims, SupplementalClaim);
    count!(request_issues, RequestIssue);
    count!(task_timers, TaskTimer);
    Ok(counts)
}
