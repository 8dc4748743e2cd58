//! For a host's own tests: attempts without a database and without a supervisor, steps included.
//!
//! ```
//! # include!("../tests/support/doc.rs");
//! use asyncable::{Attempt, Failure, Outcome, Processor};
//! use std::{cell::Cell, rc::Rc};
//!
//! /// A service that answers an error after it has done the work, once.
//! #[derive(Default)]
//! struct Fake { claims: Cell<u32>, broken: Cell<bool> }
//!
//! struct Establish { vbms: Rc<Fake> }
//!
//! impl Processor for Establish {
//!     type Model = Review;
//!     async fn process(&self, _: &Review, attempt: &Attempt) -> Outcome {
//!         attempt
//!             .step("establish_claim")
//!             .find(async |_| Ok((self.vbms.claims.get() > 0).then_some(600)))
//!             .run(async |_| {
//!                 self.vbms.claims.set(self.vbms.claims.get() + 1);
//!                 if self.vbms.broken.take() { Err(Failure::unknown("no answer")) } else { Ok(600) }
//!             })
//!             .await
//!             .map(drop)
//!     }
//! }
//!
//! # fn main() {
//! # actix_rt::System::new().block_on(async {
//! let vbms = Rc::new(Fake::default());
//! let establish = Establish { vbms: vbms.clone() };
//! let review = Review { id: 5, file_number: "123".to_owned() };
//! vbms.broken.set(true);
//!
//! let attempt = asyncable::testing::attempt::<Review>(5);
//! assert!(establish.process(&review, &attempt).await.is_err());
//! let attempt = attempt.again();
//! assert!(establish.process(&review, &attempt).await.is_ok());
//! assert_eq!(vbms.claims.get(), 1);
//! # }); }
//! ```

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::{
    Asyncable, Attempt, Failure,
    step::{Begin, Steps},
    store::{
        Moment,
        step::{Begun, Known},
    },
};

/// The first attempt on a row of `M`, whose steps are kept in memory.
///
/// Its time-out is an hour of wall time. [`read`](Attempt::read) answers an error, since there is no
/// database; what is given to [`when_done`](Attempt::when_done) is not run.
pub fn attempt<M: Asyncable>(id: impl Into<M::Id>) -> Attempt {
    let (name, id) = (M::COLUMNS.name, id.into().to_string());
    let generation = Moment::at(DateTime::<Utc>::UNIX_EPOCH).epoch_micros();
    let hour = Duration::from_secs(3600);
    Attempt::new(name, &id, generation, 1, hour, Rc::new(()), |key| {
        Rc::new(Memory { key: key.to_string(), steps: Rc::default() })
    })
}

impl Attempt {
    /// For tests: the next attempt of the same submission. It knows what became of this one's steps, and
    /// that their calls, if they did not end, have settled at their service.
    pub fn again(&self) -> Attempt {
        self.next()
    }
}

/// A step's result, once it has one; by key.
type Kept = Rc<RefCell<BTreeMap<String, Option<String>>>>;

struct Memory {
    key: String,
    steps: Kept,
}

impl Memory {
    fn go(&self, key: String, known: Known) -> LocalBoxFuture<'static, Result<Begin, Failure>> {
        let find_after = Moment::at(Utc::now());
        std::future::ready(Ok(Begin::Go(Begun { key, find_after, known }))).boxed_local()
    }
}

impl Steps for Memory {
    fn begin(&self, name: &str) -> LocalBoxFuture<'static, Result<Begin, Failure>> {
        let key = format!("{}/{name}", self.key);
        let known = match self.steps.borrow().get(&key) {
            None => Known::New,
            Some(None) => Known::Started,
            Some(Some(json)) => Known::Result(json.clone()),
        };
        self.steps.borrow_mut().entry(key.clone()).or_default();
        self.go(key, known)
    }

    fn again(&self, key: &str) -> LocalBoxFuture<'static, Result<Begin, Failure>> {
        self.go(key.to_owned(), Known::Started)
    }

    fn result(&self, key: &str, json: String) {
        self.steps.borrow_mut().insert(key.to_owned(), Some(json));
    }

    fn answered(&self, _: &str) {}
}
