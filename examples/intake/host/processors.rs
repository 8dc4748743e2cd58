//! The work of each model. A call to the outside is a step: begun once, and again only if it did not land.

use asyncable::{Attempt, Outcome, Processor, Service};
use diesel::prelude::*;

use super::Conn;
use crate::{
    client::{BGS, Bgs, VBMS, Vbms},
    models::{HigherLevelReview, RequestIssue, SupplementalClaim, TaskTimer},
    schema::{request_issues, task_timers},
};

/// Attempts at once, of each model. Most of them only wait: for an answer, or for none.
const AT_ONCE: usize = 64;

pub struct EstablishReview<V> {
    pub vbms: V,
}

impl<V: Vbms> Processor for EstablishReview<V> {
    type Model = HigherLevelReview;
    const SERVICES: &'static [Service] = &[VBMS];
    const AT_ONCE: usize = AT_ONCE;

    async fn process(&self, review: &HigherLevelReview, attempt: &Attempt) -> Outcome {
        let issues = issues_of(format!("hlr-{}", review.id), attempt).await?;
        establish(&self.vbms, &review.file_number, &issues, attempt).await
    }
}

pub struct EstablishClaim<V> {
    pub vbms: V,
}

impl<V: Vbms> Processor for EstablishClaim<V> {
    type Model = SupplementalClaim;
    const SERVICES: &'static [Service] = &[VBMS];
    const AT_ONCE: usize = AT_ONCE;

    async fn process(&self, claim: &SupplementalClaim, attempt: &Attempt) -> Outcome {
        let issues = issues_of(format!("sc-{}", claim.id), attempt).await?;
        establish(&self.vbms, &claim.file_number, &issues, attempt).await
    }
}

async fn issues_of(claim: String, attempt: &Attempt) -> Outcome<Vec<(i64, String)>> {
    let issues = attempt.read(move |conn: &mut Conn| {
        let issues = request_issues::table.filter(request_issues::claim.eq(claim));
        let issues = issues.select((request_issues::id, request_issues::issue));
        issues.order(request_issues::id).load(conn)
    });
    issues.await
}

/// VBMS honours keys: where a call may have landed, the same call under the same key is made again.
async fn establish(
    vbms: &impl Vbms,
    file_number: &str,
    issues: &[(i64, String)],
    attempt: &Attempt,
) -> Outcome {
    let claim = attempt
        .step("establish_claim")
        .run(async |key| vbms.establish_claim(file_number, &key).await)
        .await?;
    for (id, issue) in issues {
        attempt
            .step("create_contention")
            .of(id)
            .run(async |key| vbms.create_contention(claim, issue, &key).await)
            .await?;
    }
    Ok(())
}

/// BGS does not honour keys: where a call may have landed, it is asked first.
pub struct SyncDecision<B> {
    pub bgs: B,
}

impl<B: Bgs> Processor for SyncDecision<B> {
    type Model = RequestIssue;
    const SERVICES: &'static [Service] = &[BGS];
    const AT_ONCE: usize = AT_ONCE;

    async fn process(&self, issue: &RequestIssue, attempt: &Attempt) -> Outcome {
        let decision = attempt
            .step("sync_decision")
            .find(async |key| self.bgs.find_decision(&key).await)
            .run(async |key| self.bgs.sync_decision(&issue.file_number, &key).await);
        decision.await.map(drop)
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use asyncable::{Failure, Kind, testing};

    use super::*;

    /// Both services, which answer only every other call.
    #[derive(Default)]
    struct Fake {
        calls: Cell<usize>,
        /// What was done: under which key, and what.
        done: RefCell<Vec<(String, String)>>,
    }

    impl Fake {
        fn answer<T>(&self, answer: T) -> Outcome<T> {
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() % 2 == 1 { Err(Failure::unknown("no answer")) } else { Ok(answer) }
        }

        fn known(&self, key: &str) -> Option<i64> {
            let at = self.done.borrow().iter().position(|(done, _)| done == key);
            at.map(|index| 600 + index as i64)
        }

        fn work(&self, what: String, key: &str) -> i64 {
            self.done.borrow_mut().push((key.to_owned(), what));
            599 + self.done.borrow().len() as i64
        }

        fn done(&self) -> Vec<String> {
            self.done.borrow().iter().map(|(_, what)| what.clone()).collect()
        }
    }

    impl Vbms for Fake {
        async fn establish_claim(&self, file_number: &str, key: &str) -> Outcome<i64> {
            let claim = || self.work(format!("claim of {file_number}"), key);
            self.answer(self.known(key).unwrap_or_else(claim))
        }

        async fn create_contention(&self, claim: i64, issue: &str, key: &str) -> Outcome<i64> {
            let contention = || self.work(format!("{issue} of claim {claim}"), key);
            self.answer(self.known(key).unwrap_or_else(contention))
        }
    }

    impl Bgs for Fake {
        async fn sync_decision(&self, file_number: &str, key: &str) -> Outcome<i64> {
            self.answer(self.work(format!("decision of {file_number}"), key))
        }

        async fn find_decision(&self, key: &str) -> Outcome<Option<i64>> {
            Ok(self.known(key))
        }
    }

    #[actix_web::test]
    async fn each_call_at_vbms_is_made_until_it_is_answered_and_done_once() {
        let vbms = Fake::default();
        let issues = [(8, "back pain".to_owned()), (9, "migraine".to_owned())];
        let mut attempt = testing::attempt::<HigherLevelReview>(5);
        for _unanswered in 0..3 {
            let failure = establish(&vbms, "12345678", &issues, &attempt).await.unwrap_err();
            assert_eq!(failure.kind(), Kind::Unknown);
            attempt = attempt.again();
        }
        assert!(establish(&vbms, "12345678", &issues, &attempt).await.is_ok());
        let done = ["claim of 12345678", "back pain of claim 600", "migraine of claim 600"];
        assert_eq!((vbms.done(), vbms.calls.get()), (done.map(str::to_owned).into(), 6));
    }

    #[actix_web::test]
    async fn a_decision_that_landed_without_an_answer_is_found_and_not_sent_again() {
        let sync = SyncDecision { bgs: Fake::default() };
        let issue = RequestIssue { id: 8, file_number: "12345678".to_owned() };
        let attempt = testing::attempt::<RequestIssue>(8);
        assert!(sync.process(&issue, &attempt).await.is_err());
        assert!(sync.process(&issue, &attempt.again()).await.is_ok());
        assert_eq!(sync.bgs.done(), ["decision of 12345678"]);
    }
}
