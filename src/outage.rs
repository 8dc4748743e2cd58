//! What an outage does to a row's window: time in which its service was down does not count.
//!
//! The claim, the sweep and Explain go by it; scopes and statuses, which are expressions over the row's own
//! columns, do not (`docs/design.md`, Services and outages).

use std::time::Duration;

use crate::store::Moment;

/// A time in which a service was down or held; no end while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) since: Moment,
    pub(crate) until: Option<Moment>,
}

/// The instant from which on a submission is still within its window: `window` ago, not counting the
/// outages, which may overlap.
pub(crate) fn window_began(now: Moment, window: Duration, outages: &[Outage]) -> Moment {
    let mut outages: Vec<(Moment, Moment)> = outages
        .iter()
        .map(|outage| (outage.since, outage.until.unwrap_or(now).min(now)))
        .filter(|(since, until)| since < until)
        .collect();
    outages.sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
    let (mut at, mut left) = (now, window);
    for (since, until) in outages {
        let up = at.since(until);
        if up >= left {
            break;
        }
        left -= up;
        at = at.min(since);
    }
    at.minus(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone, Utc};
    use proptest::prelude::*;

    fn at(seconds: u64) -> Moment {
        let began = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().expect("an instant");
        Moment::at(began).plus(Duration::from_secs(seconds))
    }

    fn outage(since: u64, until: Option<u64>) -> Outage {
        Outage { since: at(since), until: until.map(at) }
    }

    fn began(outages: &[Outage]) -> Moment {
        window_began(at(1000), Duration::from_secs(100), outages)
    }

    #[test]
    fn without_an_outage_a_window_is_as_long_as_it_is() {
        assert_eq!(began(&[]), at(900));
        assert_eq!(began(&[outage(100, Some(899))]), at(900));
    }

    #[test]
    fn an_outage_that_lasts_makes_the_window_stand_still() {
        assert_eq!(began(&[outage(950, None)]), at(850));
        assert_eq!(began(&[outage(800, None)]), at(700));
    }

    #[test]
    fn outages_that_are_over_lengthen_the_window_by_their_time() {
        assert_eq!(began(&[outage(920, Some(950))]), at(870));
        assert_eq!(began(&[outage(920, Some(950)), outage(860, Some(880))]), at(850));
    }

    #[test]
    fn the_overlapping_outages_of_two_services_count_once() {
        assert_eq!(began(&[outage(920, Some(950)), outage(930, Some(960))]), at(860));
        assert_eq!(began(&[outage(920, Some(960)), outage(930, Some(940))]), at(860));
    }

    proptest! {
        #[test]
        fn a_window_began_so_long_ago_that_the_time_up_since_then_is_the_window(
            outages in proptest::collection::vec((0u64..1000, 0u64..100), 0..8),
        ) {
            let outages: Vec<(u64, u64)> =
                outages.into_iter().map(|(since, lasts)| (since, since + lasts)).collect();
            let given: Vec<Outage> =
                outages.iter().map(|(since, until)| outage(*since, Some(*until))).collect();
            let from = window_began(at(1000), Duration::from_secs(100), &given);
            let down = |second: u64| outages.iter().any(|(since, until)| (*since..*until).contains(&second));
            if from >= at(0) {
                let from = from.since(at(0)).as_secs();
                let up = (from..1000).filter(|second| !down(*second)).count();
                prop_assert_eq!(up, 100);
            }
        }
    }
}
