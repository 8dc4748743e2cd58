//! Why an attempt failed, and what should come of it.
//!
//! A failure's code and place are safe to show, log and send on; its messages may hold personal data and go
//! to the row's `error` column and the history only. What follows from its kind the pump decides
//! (`supervisor::pump`, `judge`), and the gates, which count it for or against a service.

use std::{error::Error, fmt, panic::Location, time::Duration};

use crate::service::Service;

/// What an attempt ends with, and what a call inside it answers.
pub type Outcome<T = ()> = Result<T, Failure>;

/// What should come of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Try again by the retry policy.
    Transient,
    /// The service did not serve anybody: try again by the retry policy.
    Unavailable(Service),
    /// The service said when to come back: try again then, whatever the policy says.
    RetryAfter(Duration),
    /// The call may have landed (a time-out, a reset after sending): try again by the retry policy, but
    /// not before the processor's services have settled ([`Service::settles_within`]).
    Unknown,
    /// Trying again changes nothing: the row is parked until a person restarts or submits it.
    Permanent,
    /// Made by [`Step::run`](crate::Step::run) alone: the attempt has lost its row, to another host, a
    /// cancel, a restart or a newer submission. It ends, and nothing of it is recorded.
    Lost,
    /// Made by [`Step::run`](crate::Step::run) alone: an earlier call may still be under way. The row is
    /// tried again when it is not, and this does not count as a failure.
    Unsettled,
}

impl Kind {
    /// As `asyncable_retries.kind` stores it.
    pub(crate) fn stored(self) -> &'static str {
        match self {
            Kind::Transient => "transient",
            Kind::Unavailable(_) => "unavailable",
            Kind::RetryAfter(_) => "retry_after",
            Kind::Unknown => "unknown",
            Kind::Permanent => "permanent",
            Kind::Lost => "lost",
            Kind::Unsettled => "unsettled",
        }
    }
}

/// The code of an attempt in which the host's code panicked.
pub(crate) const PANIC: &str = "panic";

/// The code of a row that is parked since its attempts end their processes or panic.
pub(crate) const POISON: &str = "poison";

/// Why an attempt failed.
///
/// `?` on any `std::error::Error` makes a transient one, and keeps the place of the `?`, the chain of
/// sources as text, and a code from the error's type. What is none, such as a `String` or a
/// `Box<dyn Error>`, goes through `.map_err(Failure::transient)?`. The other kinds are made beside the
/// client:
///
/// ```
/// use asyncable::{Failure, Kind, Outcome, Service};
///
/// const VBMS: Service = Service::new("vbms");
///
/// fn answered(status: u16) -> Outcome {
///     match status {
///         200..=299 => Ok(()),
///         400..=499 => Err(Failure::permanent("file number refused").with_code("vbms.refused")),
///         _ => Err(Failure::unavailable(VBMS, format!("http {status}"))),
///     }
/// }
/// assert_eq!(answered(503).unwrap_err().kind(), Kind::Unavailable(VBMS));
/// assert_eq!(answered(422).unwrap_err().code(), "vbms.refused");
///
/// fn parsed(text: &str) -> Outcome<i64> {
///     Ok(text.parse()?)
/// }
/// assert_eq!(parsed("twelve").unwrap_err().code(), "core::num::ParseIntError");
/// ```
///
/// Its `Debug` text can be logged, and with it an [`Event`](crate::Event)'s: it has the kind, the code and the
/// place. The messages, which may hold personal data, are in [`chain`](Failure::chain) only.
#[derive(Clone)]
pub struct Failure(Box<Inner>); // boxed: it is every `Outcome`'s other half

#[derive(Clone)]
struct Inner {
    kind: Kind,
    code: String,
    chain: Vec<String>,
    location: &'static Location<'static>,
    /// The library's or the host's own doing: it says nothing about a service.
    own: bool,
}

impl Failure {
    /// It may work another time.
    #[track_caller]
    pub fn transient(message: impl fmt::Display) -> Self {
        Self::new(Kind::Transient, "transient", message)
    }

    /// A person must act before it can work.
    #[track_caller]
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self::new(Kind::Permanent, "permanent", message)
    }

    /// The call may have landed at the service.
    #[track_caller]
    pub fn unknown(message: impl fmt::Display) -> Self {
        Self::new(Kind::Unknown, "unknown", message)
    }

    /// The service serves nobody now.
    #[track_caller]
    pub fn unavailable(service: Service, message: impl fmt::Display) -> Self {
        let mut failure = Self::new(Kind::Unavailable(service), "", message);
        failure.0.code = format!("{}_unavailable", service.name());
        failure
    }

    /// The service said when to come back. Less than a second counts as one.
    #[track_caller]
    pub fn retry_after(after: Duration, message: impl fmt::Display) -> Self {
        Self::new(Kind::RetryAfter(after), "retry_after", message)
    }

    /// A panic of the host's code.
    #[track_caller]
    pub(crate) fn panicked() -> Self {
        Self::new(Kind::Transient, PANIC, "the host's code panicked").own()
    }

    /// The last of so many attempts in a row that ended their process or panicked.
    pub(crate) fn poison(mut self, crashes: u32) -> Self {
        self.0.kind = Kind::Permanent;
        POISON.clone_into(&mut self.0.code);
        let message = format!("{crashes} attempts in a row ended their process or panicked");
        self.0.chain.insert(0, message);
        self
    }

    /// The attempt no longer holds its row.
    #[track_caller]
    pub(crate) fn lost() -> Self {
        Self::new(
            Kind::Lost,
            "lost",
            "the row is another attempt's, or was canceled or resubmitted",
        )
    }

    /// A step's earlier call may still be under way.
    #[track_caller]
    pub(crate) fn unsettled(step: &str) -> Self {
        let message = format!("an earlier call of step `{step}` may still be under way");
        Self::new(Kind::Unsettled, "unsettled", message)
    }

    #[track_caller]
    fn new(kind: Kind, code: &str, message: impl fmt::Display) -> Self {
        let chain = vec![format!("{message:#}")];
        let (code, location) = (code.to_owned(), Location::caller());
        Failure(Box::new(Inner { kind, code, chain, location, own: false }))
    }

    /// The same failure, which says nothing about a service.
    pub(crate) fn own(mut self) -> Self {
        self.0.own = true;
        self
    }

    pub(crate) fn is_own(&self) -> bool {
        self.0.own
    }

    /// The same failure, of another kind.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same failure under a code of the host's: short, stable, without personal data. It is shown,
    /// logged and counted by.
    pub fn with_code(mut self, code: &'static str) -> Self {
        code.clone_into(&mut self.0.code);
        self
    }

    #[cfg(feature = "http")]
    pub(crate) fn coded(mut self, code: String) -> Self {
        self.0.code = code;
        self
    }

    /// What should come of it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// A short name that is safe to show, log and send on.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The message, and those of its sources. They may hold personal data: not for logs.
    pub fn chain(&self) -> &[String] {
        &self.0.chain
    }

    /// Where in the host's code it was made. Safe to show.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }

    /// The same failure, made elsewhere.
    pub(crate) fn at(mut self, location: &'static Location<'static>) -> Self {
        self.0.location = location;
        self
    }

    /// The same failure without its messages.
    pub(crate) fn shortened(mut self) -> Self {
        self.0.chain.clear();
        self
    }

    /// The code without NUL, which PostgreSQL's text cannot hold.
    pub(crate) fn stored_code(&self) -> String {
        self.0.code.replace('\0', "")
    }

    /// For the row's `error` column: the code, then the chain. NUL is left out, and the text ends after
    /// 16 KiB.
    pub(crate) fn error_text(&self) -> String {
        const LONGEST: usize = 16 * 1024;
        let mut text = format!("{} {}", self.0.code, self.0.chain.join(": ")).replace('\0', "");
        text.truncate(text.trim_end().len());
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
        }
        text
    }

    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.0.location.file(), self.0.location.line())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({}, {} at {})", self.0.kind.stored(), self.0.code, self.place())
    }
}

impl<E: Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push(cause.to_string());
            source = cause.source();
        }
        let code = code_of::<E>();
        let (kind, location) = (Kind::Transient, Location::caller());
        Failure(Box::new(Inner { kind, code, chain, location, own: false }))
    }
}

/// A type's path without its parameters and without `error` modules: `reqwest::Error`.
fn code_of<E>() -> String {
    let path = std::any::type_name::<E>();
    let path = path.split('<').next().unwrap_or(path);
    let parts = path.split("::").filter(|part| !matches!(*part, "error" | "errors"));
    parts.collect::<Vec<_>>().join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_text_has_no_nul_and_ends_at_a_whole_character() {
        let failure = Failure::transient(format!("a\0b{}", "é".repeat(1 << 20)));
        let text = failure.error_text();
        assert!(text.starts_with("transient abéé"));
        assert!(text.len() <= 16 * 1024 && text.len() > 16 * 1024 - 4);
    }
}
