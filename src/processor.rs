//! `Processor`: what the host's code does with a row.
//!
//! The rule to hold in mind: it may be called again for the same row, after any failure or crash. What must
//! not be doubled outside is a step (`docs/steps.md`), what must not be doubled inside is `when_done`.

use std::time::Duration;

use crate::{Asyncable, Attempt, Outcome, Service};

/// The work of one model's rows, and the clients it needs as fields. One processor a model.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a processor",
    note = "implement `Processor` for it: `type Model` and `async fn process`"
)]
pub trait Processor: 'static {
    /// The model whose rows it works on.
    type Model: Asyncable;
    /// The outside services it calls.
    const SERVICES: &'static [Service] = &[];
    /// Attempts at once in this process. Default 16, at least 1.
    const AT_ONCE: usize = 16;
    /// The longest one attempt may take, in wall time. Default 5 minutes; below the retry interval. An
    /// attempt that takes longer is dropped, and counts as failed with an unknown outcome.
    const TIMEOUT: Duration = Duration::from_secs(300);

    /// Does the row's work. It may be called again for the same row, after any failure or crash.
    fn process(&self, row: &Self::Model, attempt: &Attempt) -> impl Future<Output = Outcome>;
}

/// A processor of which every thread that attempts run on can have a copy. Implemented for all that are
/// `Clone` and `Send`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be copied to the threads that attempts run on",
    note = "derive `Clone` on it, and hold nothing that is not `Send`, such as an `Rc`",
    note = "or make one on each thread: `.processor_with(|| ..)`"
)]
pub trait Copied: Clone + Send {}

#[diagnostic::do_not_recommend]
impl<P: Clone + Send> Copied for P {}
