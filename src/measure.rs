//! For the benches, and for the test that compares what is said of rows with what a claim takes: the
//! store's statements without the actors. Not for hosts, and no part of the public API.

mod simulation;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{QueryResult, result::Error};

use crate::{
    Asyncable, Service, StoreConnection, Stored,
    scope::Instants,
    store::{
        Moment,
        claim::{Age, Claiming, claim, claim_orphans},
        service::{Permit, Standing},
        settle::{Settle, Verdict},
        turn::{Turn, take},
    },
};

pub use simulation::Simulation;

const LEASE: Duration = Duration::from_secs(60);

/// Claims and settles due rows in turns of at most `batch` until none is left; answers how many.
///
/// # Errors
/// What the database said.
pub fn drain<M, C>(conn: &mut C, batch: usize) -> QueryResult<usize>
where
    C: StoreConnection,
    M: Asyncable + Stored<C::Backend>,
{
    let host: Arc<str> = "bench".into();
    let (mut settle, mut ends, mut drained) = (Vec::new(), Vec::new(), 0);
    loop {
        let turn = Turn {
            requests: Vec::new(),
            steps: Arc::default(),
            settles_within: Duration::ZERO,
            services: Arc::default(),
            release: Vec::new(),
            calls: Arc::default(),
            settle: Arc::new(std::mem::take(&mut settle)),
            ends: std::mem::take(&mut ends),
            claim: Some((batch, false)),
            shunned: Arc::default(),
        };
        let now = Moment::at(Utc::now());
        let turned = take::<M, C>(conn, now, now.plus(LEASE), &host, &turn)?;
        drained += turn.settle.len();
        if turned.claims.claimed.is_empty() {
            return Ok(drained);
        }
        for claimed in turned.claims.claimed {
            ends.push(claimed.hold.token);
            settle.push(Settle {
                hold: claimed.hold,
                verdict: Verdict::Done(Vec::new()),
                ran: None,
            });
        }
        ends.dedup();
    }
}

/// Claims up to `limit` rows and takes it back; answers how many there were.
///
/// # Errors
/// What the database said.
pub fn claim_and_undo<M, C>(conn: &mut C, now: DateTime<Utc>, limit: usize) -> QueryResult<usize>
where
    C: StoreConnection,
    M: Asyncable + Stored<C::Backend>,
{
    claimable::<M, C>(conn, now, limit, &[]).map(|ids| ids.len())
}

/// The rows that a claim at `now` takes, and with room for more what the search for orphans takes; then
/// undoes both.
///
/// # Errors
/// What the database said.
pub fn claimable<M, C>(
    conn: &mut C,
    now: DateTime<Utc>,
    limit: usize,
    services: &[Service],
) -> QueryResult<Vec<String>>
where
    C: StoreConnection,
    M: Asyncable + Stored<C::Backend>,
{
    let now = Moment::at(now);
    let claiming = Claiming {
        now,
        expires_at: now.plus(LEASE),
        host: "bench".into(),
        limit,
        retries_first: true,
        services: services.into(),
        shunned: Arc::default(),
        careful: false,
    };
    let mut ids = Vec::new();
    let undone = conn.write(|conn| {
        let claims = claim::<M, C>(conn, &claiming)?;
        ids.extend(claims.claimed.iter().map(|claimed| claimed.hold.id.to_string()));
        let standing = claims.standing.unwrap_or_else(Standing::clear);
        if ids.len() < limit && standing.permit == Permit::All {
            let instants = Instants::with_outages(now, &M::POLICY, &standing.outages);
            for age in [Age::Recent, Age::Old] {
                let orphans = claim_orphans::<M, C>(conn, &claiming, &mut None, &instants, age)?;
                ids.extend(orphans.claimed.iter().map(|claimed| claimed.hold.id.to_string()));
            }
        }
        Err::<(), Error>(Error::RollbackTransaction)
    });
    match undone {
        Err(Error::RollbackTransaction) | Ok(()) => Ok(ids),
        Err(error) => Err(error),
    }
}
