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

/// A piece of a sentence: instants are told in the reader's zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    At(DateTime<Utc>),
}

/// Why a row stands where it stands, and what happens next, in sentences.
pub(crate) fn why(explanation: &Explanation) -> Vec<Piece> {
    let text = |text: &str| Piece::Text(text.to_owned());
    let at = |before: String, at: DateTime<Utc>, after: &str| {
        vec![Piece::Text(before), Piece::At(at), text(after)]
    };
    let because = |reason: &str| match reason {
        "" => String::new(),
        reason => format!(": “{reason}”"),
    };
    match explanation {
        Explanation::NotSubmitted => vec![text("It was never submitted.")],
        Explanation::Scheduled { due_at } => at("It is submitted for ".into(), *due_at, "."),
        Explanation::Due { ahead: 0 } => vec![text("It is due, and next in line.")],
        Explanation::Due { ahead } => {
            vec![Piece::Text(format!("It is due, and in line behind {}.", count(*ahead)))]
        }
        Explanation::WaitingForService { service, since, asked_at } => {
            let mut said =
                at(format!("It waits for {service}, which has been down since "), *since, ". ");
            match asked_at {
                Some(asked_at) => said.extend(at("That is asked again ".into(), *asked_at, ".")),
                None => said.push(text("That is being asked now.")),
            }
            said
        }
        Explanation::ServiceHeld { service, by, reason, until } => {
            let because = because(reason);
            let held = format!("It waits for {service}, which {by} holds down{because}");
            match until {
                Some(until) => at(format!("{held}, until "), *until, "."),
                None => vec![Piece::Text(format!("{held}."))],
            }
        }
        Explanation::Paused { by, reason } => {
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let because = because(reason.as_deref().unwrap_or_default());
            vec![Piece::Text(format!("It is due, but its model is paused{by}{because}."))]
        }
        Explanation::NoProcessor => {
            vec![text("It is due, but no host that is alive works on its model.")]
        }
        Explanation::Running { host: name, until } => {
            at(format!("{} is at it, and holds it until ", host(name)), *until, ".")
        }
        Explanation::Lapsed { host: name, since } => {
            at(format!("{} had it, and has not been heard of since ", host(name)), *since, ".")
        }
        Explanation::Failing { next_at, failures, since, window_ends, .. } => {
            let failures =
                counted(usize::try_from(*failures).unwrap_or(usize::MAX), "failure", "failures");
            let mut said = at(format!("{failures} since "), *since, ". ");
            said.extend(at("It is tried again ".into(), *next_at, ", and "));
            said.extend(at("given up ".into(), *window_ends, "."));
            said
        }
        Explanation::Unknown { asked_at, .. } => at(
            "Its last call may have landed. The service is asked about it ".into(),
            *asked_at,
            ", before it is made again.",
        ),
        Explanation::Orphaned { due_at } => at(
            "Something that left no word of it has attempted it. It is due again ".into(),
            *due_at,
            ".",
        ),
        Explanation::Parked { since, .. } => at("It has been parked since ".into(), *since, "."),
        Explanation::Expired { at: over } => at("Its time was over ".into(), *over, "."),
        Explanation::Canceled { at: done } => at("It was canceled ".into(), *done, "."),
        Explanation::Processed { at: done } => at("It was processed ".into(), *done, "."),
    }
}

/// What can be done about it, or happens by itself.
pub(crate) fn advice(explanation: &Explanation) -> &'static str {
    match explanation {
        Explanation::Parked { .. } => {
            "Trying again changes nothing until somebody mends the cause. Then restart it."
        }
        Explanation::Expired { .. } => {
            "It is not tried again by itself. A restart gives it as much time again."
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
        Explanation::NotSubmitted => "The application submits it.",
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
    fn each_state_is_told_in_sentences_of_its_own() {
        let at = Utc.with_ymd_and_hms(2026, 11, 24, 9, 12, 3).single().expect("an instant");
        let told = |explanation: &Explanation| {
            let pieces = why(explanation).into_iter().map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::At(at) => short(at),
            });
            pieces.collect::<String>() + " " + advice(explanation)
        };
        let text = |text: &str| text.to_owned();
        let (service, code, failures) = (text("vbms"), text("vbms.http_500"), 5);
        let (by, reason) = (text("Bo Kim"), text("maintenance"));
        let down = |asked_at| Explanation::WaitingForService {
            service: service.clone(),
            since: at,
            asked_at,
        };
        let held = |until| Explanation::ServiceHeld {
            service: service.clone(),
            by: by.clone(),
            reason: reason.clone(),
            until,
        };
        let sentences = [
            (Explanation::NotSubmitted, "It was never submitted. The application submits it."),
            (
                Explanation::Scheduled { due_at: at },
                "It is submitted for Tue 24 Nov 09:12. Nothing needs doing: it runs by itself.",
            ),
            (
                Explanation::Due { ahead: 0 },
                "It is due, and next in line. Nothing needs doing: it runs by itself.",
            ),
            (
                Explanation::Due { ahead: 10_000 },
                "It is due, and in line behind 10,000+. Nothing needs doing: it runs by itself.",
            ),
            (
                down(Some(at)),
                "It waits for vbms, which has been down since Tue 24 Nov 09:12. That is asked again Tue 24 Nov 09:12. Nothing needs doing: it runs by itself once the service answers.",
            ),
            (
                down(None),
                "It waits for vbms, which has been down since Tue 24 Nov 09:12. That is being asked now. Nothing needs doing: it runs by itself once the service answers.",
            ),
            (
                held(None),
                "It waits for vbms, which Bo Kim holds down: “maintenance”. It runs once the service is released.",
            ),
            (
                held(Some(at)),
                "It waits for vbms, which Bo Kim holds down: “maintenance”, until Tue 24 Nov 09:12. It runs once the service is released.",
            ),
            (
                Explanation::Paused { by: None, reason: None },
                "It is due, but its model is paused. It runs once the model is resumed.",
            ),
            (
                Explanation::Paused { by: Some(by.clone()), reason: Some(reason.clone()) },
                "It is due, but its model is paused by Bo Kim: “maintenance”. It runs once the model is resumed.",
            ),
            (
                Explanation::NoProcessor,
                "It is due, but no host that is alive works on its model. Start a host that works on this model.",
            ),
            (
                Explanation::Running { host: text("app-1-1552-18ea"), until: at },
                "app-1 is at it, and holds it until Tue 24 Nov 09:12. Nothing needs doing: it runs by itself.",
            ),
            (
                Explanation::Lapsed { host: text("app-1-1552-18ea"), since: at },
                "app-1 had it, and has not been heard of since Tue 24 Nov 09:12. Nothing needs doing: another host takes it over.",
            ),
            (
                Explanation::Failing {
                    code: code.clone(),
                    next_at: at,
                    failures,
                    since: at,
                    window_ends: at,
                },
                "5 failures since Tue 24 Nov 09:12. It is tried again Tue 24 Nov 09:12, and given up Tue 24 Nov 09:12. Nothing needs doing: it is tried again by itself. A restart tries it now.",
            ),
            (
                Explanation::Unknown { code: code.clone(), asked_at: at, failures },
                "Its last call may have landed. The service is asked about it Tue 24 Nov 09:12, before it is made again. Nothing needs doing: it is tried again by itself. A restart tries it now.",
            ),
            (
                Explanation::Orphaned { due_at: at },
                "Something that left no word of it has attempted it. It is due again Tue 24 Nov 09:12. Nothing needs doing: it runs by itself.",
            ),
            (
                Explanation::Parked { code, since: at, failures },
                "It has been parked since Tue 24 Nov 09:12. Trying again changes nothing until somebody mends the cause. Then restart it.",
            ),
            (
                Explanation::Expired { at },
                "Its time was over Tue 24 Nov 09:12. It is not tried again by itself. A restart gives it as much time again.",
            ),
            (
                Explanation::Canceled { at },
                "It was canceled Tue 24 Nov 09:12. A restart takes it up again.",
            ),
            (
                Explanation::Processed { at },
                "It was processed Tue 24 Nov 09:12. Nothing needs doing.",
            ),
        ];
        for (explanation, sentence) in sentences {
            assert_eq!(told(&explanation), sentence);
        }
    }

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
