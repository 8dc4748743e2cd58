//! The page's words, all in one place.

use chrono::{DateTime, Utc};

use crate::{
    Explanation,
    store::{mine::Standing, page::State},
};

/// A state's shape, the class that tints it, and its words.
pub(crate) fn state(explanation: &Explanation) -> (&'static str, &'static str, String) {
    match explanation {
        Explanation::NotSubmitted => ("held", "muted", "never submitted".to_owned()),
        Explanation::Scheduled { due_at } => {
            ("wait", "muted", format!("waiting until {}", short(*due_at)))
        }
        Explanation::Due { .. } => ("due", "running", "due".to_owned()),
        Explanation::WaitingForService { service, .. } => {
            ("held", "held", format!("waiting for {service}, which is down"))
        }
        Explanation::ServiceHeld { service, .. } => {
            ("held", "held", format!("waiting for {service}, which is held down"))
        }
        Explanation::Paused { .. } => ("held", "held", "due, but the model is paused".to_owned()),
        Explanation::NoProcessor => ("held", "held", "due, but no host works on it".to_owned()),
        Explanation::Running { .. } => ("running", "running", "running".to_owned()),
        Explanation::Lapsed { .. } => ("unknown", "unknown", "lost by its host".to_owned()),
        Explanation::Failing { next_at, .. } => {
            ("failing", "failing", format!("failing: next try {}", short(*next_at)))
        }
        Explanation::Unknown { asked_at, .. } => (
            "unknown",
            "unknown",
            format!("not known whether it landed: asked {}", short(*asked_at)),
        ),
        Explanation::Orphaned { due_at } => {
            ("unknown", "unknown", format!("attempted by something else: due {}", short(*due_at)))
        }
        Explanation::Parked { .. } => ("parked", "parked", "parked: a person must act".to_owned()),
        Explanation::Expired { .. } => {
            ("expired", "expired", "expired without being done".to_owned())
        }
        Explanation::Canceled { .. } => ("refused", "muted", "canceled".to_owned()),
        Explanation::Processed { .. } => ("ok", "ok", "processed".to_owned()),
    }
}

/// A list's name.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::NeedsYou => "needs you",
        State::NotDone => "not done",
        State::Scheduled => "waiting",
        State::Due => "due",
        State::Running => "running",
        State::Failing => "failing",
        State::Parked => "parked",
        State::Expired => "expired",
    }
}

/// What can be done about it, or happens by itself.
pub(crate) fn advice(explanation: &Explanation) -> &'static str {
    match explanation {
        Explanation::Parked { .. } => {
            "Trying again changes nothing until somebody mends the cause. Then restart it."
        }
        Explanation::Expired { .. } => {
            "It is not tried again by itself. A restart gives it another window."
        }
        Explanation::Failing { .. } | Explanation::Unknown { .. } => {
            "Nothing needs doing: it is tried again by itself. A restart tries it now."
        }
        Explanation::WaitingForService { .. } => {
            "Nothing needs doing: it runs by itself once the service answers."
        }
        Explanation::ServiceHeld { .. } => "It runs once the service is released.",
        Explanation::Paused { .. } => "It runs once the model is resumed.",
        Explanation::NoProcessor => "Start a host that works on this model.",
        Explanation::Lapsed { .. } => "Nothing needs doing: another host takes it over.",
        Explanation::NotSubmitted => "Nobody has asked for its work.",
        Explanation::Canceled { .. } => "A restart takes it up again.",
        Explanation::Processed { .. } => "Nothing needs doing.",
        Explanation::Scheduled { .. }
        | Explanation::Due { .. }
        | Explanation::Running { .. }
        | Explanation::Orphaned { .. } => "Nothing needs doing: it runs by itself.",
    }
}

/// The heading of somebody's own page.
pub(crate) const MINE: &str = "Your work with outside services";

/// A row as its user sees it: one of four sentences, with its shape and tint, and what comes of it.
pub(crate) fn mine(standing: Standing) -> (&'static str, &'static str, &'static str, &'static str) {
    match standing {
        Standing::Done => ("ok", "ok", "Done.", ""),
        Standing::Canceled => ("refused", "muted", "Canceled.", ""),
        Standing::Working => {
            ("running", "running", "Being worked on.", "We keep trying; you need do nothing.")
        }
        Standing::NotYet => (
            "held",
            "held",
            "Could not be finished yet.",
            "Support has been told. We tell you here once it is done.",
        ),
    }
}

/// Said of a row in a message.
pub(crate) const MESSAGE_FAILING: &str =
    "could not be finished yet. Support has been told. We tell you here once it is done.";
pub(crate) const MESSAGE_DONE: &str = "is done.";

/// What was done, in the past tense, as `asyncable_actions` names it.
pub(crate) fn action(action: &str) -> &str {
    match action {
        "service_down" => "went down",
        "service_up" => "came back",
        "service_held" => "held down",
        "service_released" => "released",
        "service_asked" => "asked now",
        other => other,
    }
}

/// An instant as text, to the minute, in UTC.
pub(crate) fn short(at: DateTime<Utc>) -> String {
    at.format("%a %-d %b %H:%M").to_string()
}

/// How long ago, or how long until, in the two largest units.
pub(crate) fn apart(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let seconds = (to - from).num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (1, hours, _) => format!("1 day {hours} h"),
        (days, _, _) => format!("{days} days"),
    }
}

/// A count that stops somewhere.
pub(crate) fn count(count: u32) -> String {
    if count >= crate::Counts::MOST { "10,000+".to_owned() } else { whole(count) }
}

/// A number with its thousands apart.
pub(crate) fn whole(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", whole(number / 1000), number % 1000),
    }
}

/// A number of things.
pub(crate) fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// A process as people know it: without what tells it from others of the same name.
pub(crate) fn host(host: &str) -> &str {
    host.rsplitn(3, '-').nth(2).unwrap_or(host)
}

/// A subject for those who may not see all of it.
pub(crate) fn last_three(subject: &str) -> String {
    let count = subject.chars().count();
    let last: String = subject.chars().skip(count.saturating_sub(3)).collect();
    format!("..{last}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, TimeZone};

    #[test]
    fn times_and_counts_are_told_as_people_say_them() {
        let at = Utc.with_ymd_and_hms(2026, 11, 24, 9, 12, 3).single().expect("an instant");
        let after = |seconds| apart(at, at + TimeDelta::seconds(seconds));
        assert_eq!(after(8), "8 s");
        assert_eq!(after(600), "10 min");
        assert_eq!(after(3 * 3600 + 60), "3 h 1 min");
        assert_eq!(after(86_400 + 7200), "1 day 2 h");
        assert_eq!(after(3 * 86_400), "3 days");
        assert_eq!(after(-5), "0 s");
        assert_eq!(
            (count(0), count(1412), count(10_000)),
            ("0".into(), "1,412".into(), "10,000+".into())
        );
        assert_eq!(whole(1_234_567), "1,234,567");
        assert_eq!((host("app-1-15520-18eaeeea"), host("odd")), ("app-1", "odd"));
        assert_eq!(counted(1, "host", "hosts"), "1 host");
        assert_eq!(last_three("796104437"), "..437");
        assert_eq!(last_three("é"), "..é");
    }
}
