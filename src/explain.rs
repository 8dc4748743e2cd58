//! Why a row is not running: one typed answer, and one sentence.
//!
//! The answer only; `store::explain` reads it, in the claim's own words. [`Status`](crate::Status) is the
//! other question, what the row's own columns say (`docs/design.md`, Status and Explain).

use std::fmt;

use chrono::{DateTime, Utc};

/// Where a row's work stands and what happens next, in one sentence if it is printed.
///
/// By message ([`Explain`](crate::Explain)) or on a connection
/// ([`Asyncable::explain`](crate::Asyncable::explain)); from the definitions that the claim goes by.
/// Codes and names only, never a row's content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// Nobody has asked for its work.
    NotSubmitted,
    /// Submitted for later.
    Scheduled {
        /// When it is due.
        due_at: DateTime<Utc>,
    },
    /// An attempt may begin at any moment.
    Due {
        /// Rows of the model that come first, at most [`Counts::MOST`](crate::Counts::MOST).
        ahead: u32,
    },
    /// It is due, and a service that it needs is down.
    WaitingForService {
        /// Which.
        service: String,
        /// Since when it is down.
        since: DateTime<Utc>,
        /// When it is asked again, with some row; nothing while it is being asked.
        asked_at: Option<DateTime<Utc>>,
    },
    /// It is due, and a person holds a service down that it needs.
    ServiceHeld {
        /// Which.
        service: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Until when, if that is known.
        until: Option<DateTime<Utc>>,
    },
    /// It is due, and its model is paused in every process that works on it.
    Paused {
        /// Who did it last, if they have said so.
        by: Option<String>,
        /// Why.
        reason: Option<String>,
    },
    /// It is due, and no process that is alive works on its model.
    NoProcessor,
    /// An attempt is at it.
    Running {
        /// In which process.
        host: String,
        /// Until when that process holds it, if it is not heard of again.
        until: DateTime<Utc>,
    },
    /// The process that was at it has not been heard of; it is due again at the next sweep.
    Lapsed {
        /// Which process.
        host: String,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// It failed, and is tried again by itself.
    Failing {
        /// The failure's code.
        code: String,
        /// When it is tried again.
        next_at: DateTime<Utc>,
        /// How many attempts of this submission have failed.
        failures: u32,
        /// When the first of them did.
        since: DateTime<Utc>,
        /// When it is given up.
        window_ends: DateTime<Utc>,
    },
    /// A call may have landed at its service, which is asked before it is made again.
    Unknown {
        /// The failure's code.
        code: String,
        /// When it is tried again, and asked.
        asked_at: DateTime<Utc>,
        /// How many attempts of this submission have failed.
        failures: u32,
    },
    /// Something that is not this library has attempted it, or the library's tables were lost.
    Orphaned {
        /// When it is due.
        due_at: DateTime<Utc>,
    },
    /// A person must act.
    Parked {
        /// Why.
        code: String,
        /// Since when.
        since: DateTime<Utc>,
        /// How many attempts of this submission have failed.
        failures: u32,
    },
    /// Its window is over; a restart or submission opens another.
    Expired {
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Given up by a person.
    Canceled {
        /// When.
        at: DateTime<Utc>,
    },
    /// Done.
    Processed {
        /// When.
        at: DateTime<Utc>,
    },
}

/// An instant as people read it: to the second, in UTC.
struct At(DateTime<Utc>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// "1 failure", "2 failures".
struct Failures(u32);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failure{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

impl Explanation {
    /// Whether [`restart`](crate::Asyncable::restart) does anything for the row: it has to wait, or is not
    /// worked on any more, and is not processed.
    pub fn may_restart(&self) -> bool {
        matches!(
            self,
            Explanation::Failing { .. }
                | Explanation::Unknown { .. }
                | Explanation::Orphaned { .. }
                | Explanation::Parked { .. }
                | Explanation::Expired { .. }
                | Explanation::Canceled { .. }
                | Explanation::Scheduled { .. }
        )
    }

    /// Whether [`cancel`](crate::Asyncable::cancel) does anything for the row: it is submitted, and neither
    /// processed nor canceled.
    pub fn may_cancel(&self) -> bool {
        !matches!(
            self,
            Explanation::Processed { .. }
                | Explanation::Canceled { .. }
                | Explanation::NotSubmitted
        )
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Explanation::NotSubmitted => f.write_str("never submitted"),
            Explanation::Scheduled { due_at } => write!(f, "submitted for {}", At(*due_at)),
            Explanation::Due { ahead: 0 } => f.write_str("due, and next in line"),
            Explanation::Due { ahead } => write!(f, "due, and in line behind {ahead} others"),
            Explanation::WaitingForService { service, since, asked_at: Some(asked_at) } => write!(
                f,
                "waiting for {service}, down since {}, which is asked again at {}",
                At(*since),
                At(*asked_at)
            ),
            Explanation::WaitingForService { service, since, asked_at: None } => write!(
                f,
                "waiting for {service}, down since {}, which is being asked now",
                At(*since)
            ),
            Explanation::ServiceHeld { service, by, reason, until } => {
                write!(f, "waiting for {service}, held down by {by} because of: {reason}")?;
                until.map_or(Ok(()), |until| write!(f, "; until {}", At(until)))
            }
            Explanation::Paused { by, reason } => {
                f.write_str("due, but its model is paused")?;
                by.as_ref().map_or(Ok(()), |by| write!(f, " by {by}"))?;
                let reason = reason.as_ref().filter(|reason| !reason.is_empty());
                reason.map_or(Ok(()), |reason| write!(f, " because of: {reason}"))
            }
            Explanation::NoProcessor => {
                f.write_str("due, but no process that is alive works on its model")
            }
            Explanation::Running { host, until } => {
                write!(f, "being worked on by {host}, which holds it until {}", At(*until))
            }
            Explanation::Lapsed { host, since } => write!(
                f,
                "lost by {host}, not heard of since {}; due again at the next sweep",
                At(*since)
            ),
            Explanation::Failing { code, next_at, failures, since, window_ends } => write!(
                f,
                "tried again at {} after {} since {} ({code}); given up at {}",
                At(*next_at),
                Failures(*failures),
                At(*since),
                At(*window_ends)
            ),
            Explanation::Unknown { code, asked_at, failures } => write!(
                f,
                "its last call may have landed ({code}); asked about at {}, before it is made \
                 again, after {}",
                At(*asked_at),
                Failures(*failures)
            ),
            Explanation::Orphaned { due_at } => write!(
                f,
                "attempted by something that left no word of it; due again at {}",
                At(*due_at)
            ),
            Explanation::Parked { code, since, .. } => {
                write!(f, "parked since {} ({code}): a person must act", At(*since))
            }
            Explanation::Expired { at } => {
                write!(f, "expired at {}: a restart gives it another window", At(*at))
            }
            Explanation::Canceled { at } => write!(f, "canceled at {}", At(*at)),
            Explanation::Processed { at } => write!(f, "processed at {}", At(*at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn each_explanation_is_one_sentence() {
        let at = Utc.with_ymd_and_hms(2026, 11, 24, 9, 12, 3).single().expect("an instant");
        let text = |text: &str| text.to_owned();
        let told = [
            (Explanation::NotSubmitted, "never submitted"),
            (Explanation::Scheduled { due_at: at }, "submitted for 2026-11-24 09:12:03 UTC"),
            (Explanation::Due { ahead: 0 }, "due, and next in line"),
            (Explanation::Due { ahead: 12 }, "due, and in line behind 12 others"),
            (
                Explanation::WaitingForService {
                    service: text("vbms"),
                    since: at,
                    asked_at: Some(at),
                },
                "waiting for vbms, down since 2026-11-24 09:12:03 UTC, which is asked again at \
                 2026-11-24 09:12:03 UTC",
            ),
            (
                Explanation::ServiceHeld {
                    service: text("vbms"),
                    by: text("Bo Kim"),
                    reason: text("maintenance"),
                    until: None,
                },
                "waiting for vbms, held down by Bo Kim because of: maintenance",
            ),
            (
                Explanation::Failing {
                    code: text("vbms.http_500"),
                    next_at: at,
                    failures: 1,
                    since: at,
                    window_ends: at,
                },
                "tried again at 2026-11-24 09:12:03 UTC after 1 failure since 2026-11-24 09:12:03 UTC \
                 (vbms.http_500); given up at 2026-11-24 09:12:03 UTC",
            ),
            (
                Explanation::Parked { code: text("poison"), since: at, failures: 5 },
                "parked since 2026-11-24 09:12:03 UTC (poison): a person must act",
            ),
        ];
        for (explanation, sentence) in told {
            assert_eq!(explanation.to_string(), sentence);
        }
    }
}
