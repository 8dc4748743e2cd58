//! `Processor`: what the host's code does with a row.

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
