//! Durable steps: a call to the outside that is begun once, and again only if it is not there.
//!
//! That a step was started is recorded before its call, and its result after it. A later attempt of the
//! same submission gets the result without a call. A step that was started and has no result may have
//! landed at the service: then [`find`](Step::find) is asked first, and the call is made again, under the
//! same key, only if it answers that there is nothing.
//!
//! Here is the order of things; the statements are `store::step`'s. A host's page is `docs/steps.md`.

use std::{collections::HashMap, fmt, panic::Location};

use futures_util::future::LocalBoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Attempt, Failure, Kind, Outcome,
    attempt::IdempotencyKey,
    store::{
        Moment,
        step::{Begun, Known},
    },
};

/// Where an attempt's steps are kept: the store, or a test's memory.
pub(crate) trait Steps {
    /// Records that a step is started.
    fn begin(&self, name: &str) -> LocalBoxFuture<'static, Result<Begin, Failure>>;
    /// Records that it is started once more, after `find` has said that there is nothing.
    fn again(&self, key: &str) -> LocalBoxFuture<'static, Result<Begin, Failure>>;
    /// Records its result. Not awaited: whatever the attempt records later is recorded after it.
    fn result(&self, key: &str, json: String);
    /// Records that its call has been answered, and is no longer under way.
    fn answered(&self, key: &str);
}

/// Whether a step may be begun.
pub(crate) enum Begin {
    Go(Begun),
    /// An earlier call may still be under way until then.
    Early(Moment),
}

/// A call to the outside; made by [`Attempt::step`].
#[must_use = "a step does nothing until it is run"]
pub struct Step<'a> {
    attempt: &'a Attempt,
    name: String,
    place: &'static Location<'static>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(attempt: &'a Attempt, name: &str, place: &'static Location<'static>) -> Self {
        Step { attempt, name: name.replace('\0', ""), place }
    }

    /// Tells like steps of one attempt apart: `step("upload").of(document.id)`. The item is part of the
    /// step's stored name, and of its key; NUL is left out, which PostgreSQL's text cannot hold.
    pub fn of(mut self, item: impl fmt::Display) -> Self {
        self.name = format!("{}/{item}", self.name).replace('\0', "");
        self
    }

    /// How to ask the service whether an earlier call has landed: `Ok(Some(result))` if it has,
    /// `Ok(None)` if not. Asked only where a call was started and its result is not known.
    ///
    /// For services that do not honour idempotency keys. One that does needs none: the same call under
    /// the same key is done once.
    pub fn find<T, F, Fut>(self, find: F) -> FindStep<'a, F>
    where
        F: FnOnce(IdempotencyKey) -> Fut,
        Fut: Future<Output = Outcome<Option<T>>>,
    {
        FindStep { step: self, find }
    }

    /// Makes the call, or answers what it answered in an earlier attempt.
    ///
    /// The result is stored as JSON. A step that may still be under way at its service
    /// ([`Service::settles_within`](crate::Service::settles_within)) is not begun again before it has
    /// settled: the attempt then ends, which does not count as a failure of the row.
    ///
    /// # Errors
    /// What the call answered; `permanent` if a step of this name was run in this attempt before, or if
    /// the stored result no longer fits `T`; and an error of its own, before any call, if the attempt
    /// has lost its row: to another host, a cancel, a restart or a newer submission.
    pub async fn run<T, F, Fut>(self, run: F) -> Outcome<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(IdempotencyKey) -> Fut,
        Fut: Future<Output = Outcome<T>>,
    {
        let never = |_| async { Ok(None::<T>) };
        self.find(never).go(run, false).await
    }

    async fn begin(&self) -> Outcome<Begun> {
        if !self.attempt.names_step(&self.name) {
            let twice =
                format!("step `{}` ran twice in one attempt: tell them apart by `of`", self.name);
            return Err(Failure::permanent(twice).with_code("step_twice").own());
        }
        self.go_on(self.attempt.steps().begin(&self.name).await?)
    }

    async fn again(&self, key: &str) -> Outcome<Begun> {
        self.go_on(self.attempt.steps().again(key).await?)
    }

    fn go_on(&self, begin: Begin) -> Outcome<Begun> {
        match begin {
            Begin::Go(begun) => Ok(begun),
            Begin::Early(until) => {
                self.attempt.step_started(&self.name, until);
                Err(Failure::unsettled(&self.name))
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, json: &str) -> Outcome<T> {
        serde_json::from_str(json).map_err(|error| {
            let unfit = format!("the stored result of step `{}` does not fit: {error}", self.name);
            Failure::permanent(unfit).with_code("step_result").own()
        })
    }

    fn keep<T: Serialize>(&self, key: &str, result: &T) -> Outcome {
        let json = serde_json::to_string(result).map_err(|error| {
            let unfit = format!("the result of step `{}` is no JSON: {error}", self.name);
            Failure::permanent(unfit).with_code("step_result").own()
        })?;
        self.attempt.steps().result(key, json);
        self.attempt.step_ended(&self.name);
        Ok(())
    }
}

/// A [`Step`] that asks first where an earlier call may have landed; made by [`Step::find`].
#[must_use = "a step does nothing until it is run"]
pub struct FindStep<'a, F> {
    step: Step<'a>,
    find: F,
}

impl<F> FindStep<'_, F> {
    /// See [`Step::run`].
    ///
    /// # Errors
    /// As there, and what `find` answered.
    pub async fn run<T, Found, R, Fut>(self, run: R) -> Outcome<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(IdempotencyKey) -> Found,
        Found: Future<Output = Outcome<Option<T>>>,
        R: FnOnce(IdempotencyKey) -> Fut,
        Fut: Future<Output = Outcome<T>>,
    {
        self.go(run, true).await
    }

    async fn go<T, Found, R, Fut>(self, run: R, finds: bool) -> Outcome<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(IdempotencyKey) -> Found,
        Found: Future<Output = Outcome<Option<T>>>,
        R: FnOnce(IdempotencyKey) -> Fut,
        Fut: Future<Output = Outcome<T>>,
    {
        let FindStep { step, find } = self;
        let placed = |failure: Failure| failure.at(step.place);
        let mut begun = step.begin().await.map_err(placed)?;
        let key = IdempotencyKey::of(&begun.key);
        match begun.known {
            Known::New => {}
            Known::Result(json) => {
                step.attempt.step_ended(&step.name);
                return step.read(&json).map_err(placed);
            }
            Known::Started => {
                if finds && let Some(found) = find(key.clone()).await? {
                    step.keep(&key, &found).map_err(placed)?;
                    return Ok(found);
                }
                begun = step.again(&key).await.map_err(placed)?;
            }
        }
        step.attempt.step_started(&step.name, begun.find_after);
        match run(key.clone()).await {
            Ok(result) => {
                step.keep(&key, &result).map_err(placed)?;
                Ok(result)
            }
            Err(failure) => {
                if is_answer(failure.kind()) {
                    step.attempt.steps().answered(&key);
                    step.attempt.step_ended(&step.name);
                }
                Err(failure)
            }
        }
    }
}

/// Whether a failure says that the call is no longer under way: the service has answered, or was never
/// reached. A transient one does not: `?` on a client's time-out makes one, too.
fn is_answer(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable(_) | Kind::RetryAfter(_) | Kind::Permanent)
}

/// How far an attempt has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The last step that was begun.
    pub(crate) step: Option<String>,
    /// Steps whose calls may still be under way, and until when.
    pub(crate) under_way: HashMap<String, Moment>,
}

impl Reached {
    /// When none of the calls can be under way any more.
    pub(crate) fn not_before(&self) -> Option<Moment> {
        self.under_way.values().max().copied()
    }
}
