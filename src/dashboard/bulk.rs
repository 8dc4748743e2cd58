//! Many rows at once, by a form or by a program's request: who may ask for what, checked here once for both.
//!
//! Nothing is done that was not shown before: [`ToShow`] changes nothing, and [`ToBegin`] says which rows were
//! shown, how many, and when.

use std::hash::{BuildHasher, Hasher};

use chrono::{DateTime, Utc};

use super::{Access, Role, answer::Refusal, handlers::rows::Filter, orders};
use crate::{
    Counts,
    store::{
        bulk::{BATCH, Chosen, Deed, NewBulk},
        page::State,
    },
    supervisor::page::PageAsk,
};

/// Rows that only an admin may act on at once: more than this.
pub(crate) const MOST_FOR_OPERATE: u32 = 1000;

pub(crate) const NOTHING_BEGUN: Refusal = Refusal::Nothing("Nothing of that number was begun.");

/// A deed by its name.
pub(crate) fn deed(name: &str) -> Result<Deed, Refusal> {
    Deed::parse(name)
        .ok_or(Refusal::Wrong("It is not said what to do: it is `restart` or `cancel`."))
}

/// Refuses what somebody's role does not let them do to so many rows.
pub(crate) fn may(access: &Access, deed: Deed, rows: u32) -> Result<(), Refusal> {
    let needs = match deed {
        Deed::Cancel => Role::Admin,
        Deed::Restart if rows > MOST_FOR_OPERATE => Role::Admin,
        Deed::Restart => Role::Operate,
    };
    if access.may(needs) { Ok(()) } else { Err(Refusal::Needs(needs)) }
}

/// Names a bulk. Nobody else's: what is sent twice names the same one.
pub(crate) fn token() -> String {
    let part = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part())
}

/// Ids as they may be looked for, not too many of them.
fn rows(ids: Vec<String>) -> Result<Vec<String>, Refusal> {
    if ids.len() > BATCH {
        return Err(Refusal::Wrong("These are too many rows to name: 500 at most."));
    }
    // NUL is in no text of PostgreSQL's.
    Ok(ids.into_iter().map(|id| id.replace('\0', "")).collect())
}

/// What somebody would do, to be shown first.
#[derive(Clone, Debug)]
pub(crate) struct ToShow {
    pub(crate) deed: Deed,
    pub(crate) filter: Filter,
    /// These rows, as far as they are the filter's; or all of it.
    pub(crate) named: Option<Vec<String>>,
    /// Of the rows that need somebody only the expired ones.
    pub(crate) leave_parked: bool,
}

impl ToShow {
    pub(crate) fn ask(self, access: &Access, now: DateTime<Utc>) -> Result<PageAsk, Refusal> {
        let ToShow { deed, filter, named, leave_parked } = self;
        may(access, deed, 0)?;
        let mut selection = filter.selection(now)?;
        if leave_parked {
            if selection.state != State::NeedsYou {
                return Err(Refusal::Wrong("Parked rows are left out of `needs-you` alone."));
            }
            selection.state = State::Expired;
        }
        let named = named.map(rows).transpose()?;
        if named.as_ref().is_some_and(Vec::is_empty) {
            return Err(Refusal::Wrong("No row is named."));
        }
        Ok(PageAsk::Preview { selection, named, deed })
    }
}

/// Which rows of a filter were shown.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Named(Vec<String>),
    /// All of it, which were so many: [`Counts::MOST`] is that or more.
    Counted(u32),
}

/// What somebody does, as it was shown to them.
#[derive(Clone, Debug)]
pub(crate) struct ToBegin {
    /// The [`token`] that it was shown with.
    pub(crate) id: String,
    pub(crate) deed: Deed,
    /// As it was shown: without the parked ones, if they are left out.
    pub(crate) filter: Filter,
    pub(crate) seen: DateTime<Utc>,
    pub(crate) shown: Shown,
    pub(crate) why: String,
    /// Rows a minute; 0 for no limit.
    pub(crate) pace: u32,
    /// How many rows they are, as somebody has typed it to confirm a cancel.
    pub(crate) typed: Option<u32>,
}

impl ToBegin {
    pub(crate) fn checked(self, access: &Access) -> Result<NewBulk, Refusal> {
        let wrong = Refusal::Wrong;
        let ToBegin { id, deed, filter, seen, shown, why, pace, typed } = self;
        let by = orders::because(access, &why, "Say why: it is kept in the history.")?;
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong("It has no number of its own: have it shown again."));
        }
        let selection = filter.selection(seen)?;
        let (rows, promised) = match shown {
            Shown::Named(ids) => {
                let ids = rows(ids)?;
                let count = ids.len().try_into().unwrap_or(u32::MAX);
                (Some(ids), count)
            }
            // Where the count stopped, all of them are meant.
            Shown::Counted(Counts::MOST..) => (None, u32::MAX),
            Shown::Counted(count) => (None, count),
        };
        if promised == 0 {
            return Err(wrong("There is no row to act on."));
        }
        may(access, deed, promised)?;
        if deed == Deed::Cancel && typed != Some(promised.min(Counts::MOST)) {
            return Err(wrong(
                "The number that you typed is not the number of rows. Nothing was canceled.",
            ));
        }
        let chosen = Chosen::of(&selection, rows);
        Ok(NewBulk { id, deed, by, chosen, seen, promised, pace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_begin(deed: Deed, shown: Shown, typed: Option<u32>) -> ToBegin {
        let (id, filter, seen) = (token(), Filter::default(), DateTime::UNIX_EPOCH);
        ToBegin { id, deed, filter, seen, shown, why: "mended".to_owned(), pace: 0, typed }
    }

    fn promised(access: &Access, deed: Deed, shown: u32, typed: Option<u32>) -> Option<u32> {
        let begun = to_begin(deed, Shown::Counted(shown), typed).checked(access);
        begun.ok().map(|new| new.promised)
    }

    #[test]
    fn more_than_a_thousand_rows_are_an_admins_and_where_the_count_stopped_all_are_meant() {
        let (operate, admin) = (Access::operate("Ann Lee"), Access::admin("Ad Min"));
        assert_eq!(promised(&operate, Deed::Restart, 1000, None), Some(1000));
        assert_eq!(promised(&operate, Deed::Restart, 1001, None), None);
        assert_eq!(promised(&admin, Deed::Restart, 1001, None), Some(1001));
        assert_eq!(promised(&admin, Deed::Restart, 9_999, None), Some(9_999));
        assert_eq!(promised(&admin, Deed::Restart, 10_000, None), Some(u32::MAX));
        assert_eq!(promised(&operate, Deed::Restart, u32::MAX, None), None);
        assert_eq!(promised(&admin, Deed::Restart, 0, None), None);
    }

    #[test]
    fn a_cancel_of_many_is_an_admins_who_typed_how_many() {
        let (operate, admin) = (Access::operate("Ann Lee"), Access::admin("Ad Min"));
        assert_eq!(promised(&operate, Deed::Cancel, 3, Some(3)), None);
        assert_eq!(promised(&admin, Deed::Cancel, 3, Some(3)), Some(3));
        for typed in [None, Some(0), Some(2), Some(30)] {
            assert_eq!(promised(&admin, Deed::Cancel, 3, typed), None, "{typed:?}");
        }
        assert_eq!(promised(&admin, Deed::Cancel, 10_000, Some(10_000)), Some(u32::MAX));
    }

    #[test]
    fn rows_that_are_named_are_few_and_of_no_text_that_the_database_refuses() {
        let admin = Access::admin("Ad Min");
        let named = |ids: Vec<String>| {
            to_begin(Deed::Restart, Shown::Named(ids), None).checked(&admin).ok()
        };
        let kept = named(vec!["1\0".to_owned()]).and_then(|new| new.chosen.rows);
        assert_eq!(kept, Some(vec!["1".to_owned()]));
        assert!(named(vec!["1".to_owned(); 501]).is_none() && named(Vec::new()).is_none());
        for id in ["", "1", &"'".repeat(32), &"é".repeat(16)] {
            let begin = to_begin(Deed::Restart, Shown::Counted(1), None);
            assert!(ToBegin { id: id.to_owned(), ..begin }.checked(&admin).is_err(), "{id}");
        }
    }
}
