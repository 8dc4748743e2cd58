//! What people order by a form and programs by a request, about one row or one service: checked here, once
//! for both.

use chrono::{DateTime, Utc};

use super::{Access, answer::Refusal};
use crate::{
    store::{Moment, service::Order, turn::By},
    supervisor::page::PageAsk,
};

/// The longest note or reason, in characters.
const LONGEST: usize = 4000;

pub(crate) const NO_ROW: Refusal = Refusal::Nothing("There is no such row, or not any more.");
pub(crate) const NO_SERVICE: Refusal =
    Refusal::Nothing("No processor here names a service of that name.");
pub(crate) const NO_MESSAGE: Refusal =
    Refusal::Nothing("There is no such message, or not any more.");
pub(crate) const NOT_CANCELED: Refusal =
    Refusal::Wrong("Rows of this model cannot be canceled: it names no column for it.");

/// Somebody's name as it is kept: NUL is in no text of PostgreSQL's.
pub(crate) fn name(access: &Access) -> String {
    access.name.replace('\0', "")
}

/// Somebody and why they do it, as it is kept.
pub(crate) fn by(access: &Access, why: &str) -> By {
    // Forms end their lines as mails do.
    let why = why.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n");
    By { who: name(access), reason: why.trim().chars().take(LONGEST).collect() }
}

/// As [`by`], of something that is not done without a word.
pub(crate) fn because(access: &Access, why: &str, otherwise: &'static str) -> Result<By, Refusal> {
    let by = by(access, why);
    if by.reason.is_empty() { Err(Refusal::Wrong(otherwise)) } else { Ok(by) }
}

pub(crate) fn restart(access: &Access, ids: Vec<String>, why: &str) -> PageAsk {
    PageAsk::Restart { ids, by: by(access, why) }
}

pub(crate) fn cancel(access: &Access, id: String, why: &str) -> Result<PageAsk, Refusal> {
    let by = because(access, why, "Say why it is canceled: it is kept in the history.")?;
    Ok(PageAsk::Cancel { id, by })
}

/// `send`: also to the row's user.
pub(crate) fn note(
    access: &Access,
    id: String,
    text: &str,
    send: bool,
) -> Result<PageAsk, Refusal> {
    let By { who, reason: text } = because(access, text, "The note is empty.")?;
    Ok(PageAsk::Note { id, who, text, send })
}

/// Looks for rows by their id or by what they are about.
pub(crate) fn find(what: &str) -> Result<PageAsk, Refusal> {
    let what = what.replace('\0', "").trim().to_owned();
    if what.is_empty() {
        return Err(Refusal::Wrong("Say what to look for."));
    }
    Ok(PageAsk::Find { what })
}

/// Holds a service down until then, or until somebody releases it.
pub(crate) fn hold(
    access: &Access,
    why: &str,
    until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Order, Refusal> {
    let otherwise = "Say why it is held down: it is shown to everybody.";
    let By { reason, .. } = because(access, why, otherwise)?;
    if until.is_some_and(|until| until <= now) {
        return Err(Refusal::Wrong("That instant is past."));
    }
    Ok(Order::Hold { reason, until: until.map(Moment::at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_kept_without_its_ends_and_without_what_no_database_keeps() {
        let access = Access::operate("Ann\0 Lee");
        let kept = by(&access, " \0 two\r\nlines\0 ");
        assert_eq!((kept.who.as_str(), kept.reason.as_str()), ("Ann Lee", "two\nlines"));
        assert_eq!(by(&access, &"é".repeat(4001)).reason.chars().count(), 4000);
        for nothing in ["", " \n", "\0", "\r\n"] {
            assert!(because(&access, nothing, "say why").is_err(), "{nothing:?}");
        }
    }
}
