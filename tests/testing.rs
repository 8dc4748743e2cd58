//! `asyncable::testing`: a host tests its processor without a database and without a supervisor.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncable::{
    Asyncable, Attempt, Columns, Failure, Kind, Outcome, Processor, Service, columns, testing,
};
use diesel::prelude::*;

mod schema {
    diesel::table! {
        claims (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::claims;

#[derive(Queryable, Selectable, Identifiable)]
struct Claim {
    id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(claims);
}

const BGS: Service = Service::new("bgs");

/// What a host's client offers; the real one and the test's are behind it.
trait Bgs {
    async fn find(&self, key: &str) -> Result<Option<i64>, std::io::Error>;
    async fn establish(&self, claim: i64, key: &str) -> Result<i64, std::io::Error>;
}

/// A host's processor, over any client.
struct Establish<B>(B);

impl<B: Bgs + 'static> Processor for Establish<B> {
    type Model = Claim;

    async fn process(&self, claim: &Claim, attempt: &Attempt) -> Outcome {
        let established = attempt
            .step("establish")
            .find(async |key| Ok(self.0.find(&key).await?))
            .run(async |key| Ok(self.0.establish(claim.id, &key).await?))
            .await?;
        for page in 1..=2 {
            attempt
                .step("upload")
                .of(page)
                .run(async |key| Ok(self.0.establish(established, &key).await?))
                .await?;
        }
        Ok(())
    }
}

/// A service in the test's memory, which does its work and then may not answer. Not `Send`.
#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Ledger>>);

#[derive(Default)]
struct Ledger {
    keys: Vec<String>,
    finds: usize,
    /// How many calls are answered.
    answers: usize,
}

impl Bgs for Fake {
    async fn find(&self, key: &str) -> Result<Option<i64>, std::io::Error> {
        let mut ledger = self.0.borrow_mut();
        ledger.finds += 1;
        let there = ledger.keys.iter().position(|known| known == key);
        Ok(there.and_then(|at| i64::try_from(at).ok()))
    }

    async fn establish(&self, _: i64, key: &str) -> Result<i64, std::io::Error> {
        let mut ledger = self.0.borrow_mut();
        ledger.keys.push(key.to_owned());
        if ledger.keys.len() > ledger.answers {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        Ok(i64::try_from(ledger.keys.len()).expect("few"))
    }
}

const ROW: Claim = Claim { id: 5 };

#[actix_rt::test]
async fn a_processor_that_is_generic_over_its_client_runs_against_a_fake() {
    let fake = Fake::default();
    fake.0.borrow_mut().answers = 9;
    let attempt = testing::attempt::<Claim>(5);
    let done = Establish(fake.clone()).process(&ROW, &attempt).await;
    assert!(done.is_ok(), "{done:?}");
    let keys = fake.0.borrow().keys.clone();
    let generation = attempt.idempotency_key().to_string();
    assert_eq!(
        keys,
        ["establish", "upload/1", "upload/2"].map(|step| format!("{generation}/{step}"))
    );
    assert_eq!(fake.0.borrow().finds, 0, "nothing was called before");
}

#[actix_rt::test]
async fn the_next_attempt_knows_results_and_looks_for_what_was_not_answered() {
    let fake = Fake::default();
    let establish = Establish(fake.clone());
    let attempt = testing::attempt::<Claim>(5);

    let failure = establish.process(&ROW, &attempt).await.expect_err("no answer");
    assert_eq!((failure.kind(), failure.code()), (Kind::Transient, "std::io::Error"));
    fake.0.borrow_mut().answers = 2;
    let attempt = attempt.again();
    establish.process(&ROW, &attempt).await.expect_err("the second page is not answered");
    // The service cannot be asked for pages: the same call, under the same key.
    fake.0.borrow_mut().answers = 9;
    let attempt = attempt.again();
    let done = establish.process(&ROW, &attempt).await;

    assert!(done.is_ok(), "{done:?}");
    assert_eq!(attempt.number(), 3);
    let ledger = fake.0.borrow();
    let steps: Vec<&str> =
        ledger.keys.iter().map(|key| key.splitn(4, '/').nth(3).expect("a step")).collect();
    assert_eq!(steps, ["establish", "upload/1", "upload/2", "upload/2"]);
    assert_eq!(ledger.finds, 1, "it was found, and not looked for again");
}

#[actix_rt::test]
async fn a_call_is_made_again_only_if_it_is_not_there() {
    let attempt = testing::attempt::<Claim>(5);
    let log = RefCell::new(Vec::new());
    let once = async |attempt: &Attempt, there: Option<i64>, answer: Outcome<i64>| {
        let step = attempt.step("establish").find(async |_| {
            log.borrow_mut().push("find");
            Ok(there)
        });
        step.run(async |_| {
            log.borrow_mut().push("call");
            answer
        })
        .await
    };
    once(&attempt, None, Err(Failure::unknown("no answer"))).await.expect_err("no answer");
    let attempt = attempt.again();
    once(&attempt, None, Err(Failure::unavailable(BGS, "down"))).await.expect_err("down");
    let attempt = attempt.again();
    let found = once(&attempt, Some(600), Ok(1)).await.expect("it is found");
    let attempt = attempt.again();
    let kept = once(&attempt, None, Ok(2)).await.expect("its result is known");
    assert_eq!((found, kept), (600, 600));
    assert_eq!(*log.borrow(), ["call", "find", "call", "find"]);
}

#[actix_rt::test]
async fn the_hosts_mistakes_are_the_failures_that_a_supervisor_would_see() {
    let attempt = testing::attempt::<Claim>(5);
    attempt.step("upload").run(async |_| Ok("a page".to_owned())).await.expect("the first");
    let twice = attempt
        .step("upload")
        .run(async |_| Ok("a page".to_owned()))
        .await
        .expect_err("a name twice");
    assert_eq!((twice.kind(), twice.code()), (Kind::Permanent, "step_twice"));
    let (unfit, line) = (attempt.again().step("upload").run(async |_| Ok(1)).await, line!());
    let unfit = unfit.expect_err("no number");
    assert_eq!((unfit.kind(), unfit.code()), (Kind::Permanent, "step_result"));
    assert_eq!((unfit.location().file(), unfit.location().line()), (file!(), line));
}

#[actix_rt::test]
async fn every_attempt_has_steps_of_its_own_and_the_same_key() {
    let (one, other) = (testing::attempt::<Claim>(5), testing::attempt::<Claim>(5));
    for attempt in [&one, &other] {
        let mut called = false;
        attempt
            .step("establish")
            .run(async |_| {
                called = true;
                Ok(())
            })
            .await
            .expect("called");
        assert!(called);
    }
    assert_eq!(one.idempotency_key(), other.idempotency_key());
    assert_ne!(one.idempotency_key(), testing::attempt::<Claim>(6).idempotency_key());
    assert_eq!(one.idempotency_key(), one.again().idempotency_key());
}

#[cfg(feature = "sqlite")]
#[actix_rt::test]
async fn there_is_no_database_to_read_from_and_what_is_to_be_written_is_not() {
    let attempt = testing::attempt::<Claim>(5);
    let read = attempt.read(|_: &mut diesel::SqliteConnection| Ok(1)).await;
    assert_eq!(read.expect_err("no database").code(), "read");
    attempt.when_done(|_: &mut diesel::SqliteConnection| panic!("it is run"));
    assert_eq!(attempt.number(), 1);
    assert!(attempt.remaining() > Duration::from_secs(3000), "{:?}", attempt.remaining());
}
