//! The work of each model.

use asyncable::{Attempt, Outcome, Processor, Service};
use diesel::prelude::*;

use super::Conn;
use crate::{
    client::{BGS, Outside, VBMS},
    models::{HigherLevelReview, RequestIssue, SupplementalClaim, TaskTimer},
    schema::task_timers,
};

/// VBMS honours idempotency keys: a call may simply be repeated.
pub struct EstablishReview {
    pub vbms: Outside,
}

impl Processor for EstablishReview {
    type Model = HigherLevelReview;
    const SERVICES: &'static [Service] = &[VBMS];

    async fn process(&self, review: &HigherLevelReview, attempt: &Attempt) -> Outcome {
        self.vbms.call(&review.file_number, &attempt.idempotency_key()).await
    }
}

pub struct EstablishClaim {
    pub vbms: Outside,
}

impl Processor for EstablishClaim {
    type Model = SupplementalClaim;
    const SERVICES: &'static [Service] = &[VBMS];

    async fn process(&self, claim: &SupplementalClaim, attempt: &Attempt) -> Outcome {
        self.vbms.call(&claim.file_number, &attempt.idempotency_key()).await
    }
}

/// BGS does not honour keys: it does the work as often as it is called. But it can be asked.
pub struct SyncDecision {
    pub bgs: Outside,
}

impl Processor for SyncDecision {
    type Model = RequestIssue;
    const SERVICES: &'static [Service] = &[BGS];

    async fn process(&self, issue: &RequestIssue, attempt: &Attempt) -> Outcome {
        let key = attempt.idempotency_key();
        // Asked each time, not only from the second attempt on: one that a graceful stop cut off is not
        // counted, and its call may have landed all the same.
        if self.bgs.has(&key).await? {
            return Ok(());
        }
        self.bgs.call(&issue.file_number, &key).await
    }
}

/// The work is a write in the host's own database: in the transaction that records the row as processed.
pub struct FireTimer;

impl Processor for FireTimer {
    type Model = TaskTimer;

    async fn process(&self, timer: &TaskTimer, attempt: &Attempt) -> Outcome {
        let id = timer.id;
        attempt.when_done(move |conn: &mut Conn| {
            let timer = diesel::update(task_timers::table.find(id));
            timer.set(task_timers::fired.eq(task_timers::fired + 1)).execute(conn).map(drop)
        });
        Ok(())
    }
}
