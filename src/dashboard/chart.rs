//! The last day as a drawing, made here: bars from zero, a strip a measure, outages shaded.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::{pages::hour_address, words};
use crate::store::{buckets::Bucket, page::OutageLine};

/// What was done in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hour {
    finished: u64,
    failed: u64,
    /// The most that waited.
    waiting: u64,
}

/// Ten minutes of all models as the hours that end now.
fn hours(days: &[&[Bucket]]) -> Vec<Hour> {
    let mut hours = vec![Hour::default(); 24];
    for day in days {
        for (hour, buckets) in hours.iter_mut().zip(day.chunks(6)) {
            hour.finished += buckets.iter().map(|bucket| bucket.finished).sum::<u64>();
            hour.failed += buckets.iter().map(|bucket| bucket.failed).sum::<u64>();
            hour.waiting += buckets.iter().map(|bucket| bucket.waiting).max().unwrap_or(0);
        }
    }
    hours
}

/// One measure: its name, the words at its right, its values and which of them are outside the normal, the
/// class of its bars, where it stands and how high it is, and the least that its scale ends at, so that a
/// quiet day looks quiet.
struct Strip<'a> {
    name: &'static str,
    last: String,
    values: Vec<u64>,
    odd: &'a [bool],
    class: &'static str,
    top: f64,
    height: f64,
    least: u64,
}

fn strip(strip: &Strip<'_>) -> Markup {
    let most = strip.values.iter().copied().max().unwrap_or(0).max(strip.least).max(1) as f64;
    let base = strip.top + strip.height;
    let bar = |index: usize, value: u64| {
        let height = (value as f64 / most * strip.height).max(1.0);
        let class = if strip.odd.get(index) == Some(&true) { " now" } else { "" };
        html! {
            @if value > 0 {
                rect class=(format!("{}{class}", strip.class)) x=(percent(index as f64 + 0.08)) y=(format!("{:.1}", base - height))
                    width="3.47%" height=(format!("{height:.1}")) {}
            }
        }
    };
    html! {
        text class="name" x="0" y=(strip.top - 6.0) { (strip.name) }
        text x="100%" y=(strip.top - 6.0) text-anchor="end" { (strip.last) }
        @for (index, value) in strip.values.iter().enumerate() { (bar(index, *value)) }
        line class="base" x1="0" x2="100%" y1=(base + 0.5) y2=(base + 0.5) {}
    }
}

/// An hour of the day as a place on the axis.
fn percent(hour: f64) -> String {
    format!("{:.2}%", hour / 24.0 * 100.0)
}

/// The last 24 hours of all models, with the services' outages.
pub(crate) fn day(
    base: &str,
    days: &[&[Bucket]],
    outages: &[OutageLine],
    now: DateTime<Utc>,
) -> Markup {
    let hours = hours(days);
    let began = end(now) - TimeDelta::hours(24);
    let place = |at: DateTime<Utc>| (at - began).num_seconds().clamp(0, 86_400) as f64 / 3600.0;
    let last = hours.last().copied().unwrap_or_default();
    let of = |value: fn(&Hour) -> u64| hours.iter().map(value).collect::<Vec<u64>>();
    // What lasts is shaded to the edge: the drawing then stays the same for ten minutes.
    let until = |outage: &OutageLine| outage.until.map_or(24.0, place);
    let is_odd = |hour: usize| {
        let (begins, ends) = (hour as f64, hour as f64 + 1.0);
        outages.iter().any(|outage| place(outage.since) < ends && until(outage) > begins)
    };
    let odd: Vec<bool> = (0..hours.len()).map(is_odd).collect();
    let strips = [
        Strip {
            name: "Finished",
            last: format!("{} last hour", last.finished),
            values: of(|hour| hour.finished),
            odd: &odd,
            class: "fin",
            top: 34.0,
            height: 40.0,
            least: 100,
        },
        Strip {
            name: "Failed",
            last: format!("{} last hour", last.failed),
            values: of(|hour| hour.failed),
            odd: &odd,
            class: "bad",
            top: 96.0,
            height: 22.0,
            least: 25,
        },
        Strip {
            name: "Waiting",
            last: format!("{} at most, last hour", last.waiting),
            values: of(|hour| hour.waiting),
            odd: &odd,
            class: "wai",
            top: 140.0,
            height: 40.0,
            least: 100,
        },
    ];
    let told = said(&hours, outages);
    html! {
        figure {
            svg class="chart" role="img" aria-label=(told) {
                @for outage in outages {
                    // Wide enough to be seen, and within the drawing.
                    @let from = place(outage.since).min(23.9);
                    rect class="out" x=(percent(from)) y="16" width=(percent((until(outage) - from).max(0.1))) height="170" {}
                }
                text class="out-name" x="100%" y="11" text-anchor="end" { (named(outages)) }
                @for drawn in &strips { (strip(drawn)) }
                @for hour in [0, 6, 12, 18] {
                    @let at = began + TimeDelta::hours(i64::from(hour));
                    text x=(percent(f64::from(hour))) y="200" datetime=(at.to_rfc3339()) data-as="minute" { (at.format("%H:%M")) }
                }
                text x="100%" y="200" text-anchor="end" { "now" }
            }
            // The table has the same links, for those who do not point.
            div class="over" aria-hidden="true" {
                @for (index, hour) in hours.iter().enumerate() {
                    @let from = hour_from(began, index);
                    a href=(hour_address(base, from)) tabindex="-1"
                        title=(format!("{}: {} finished, {} failed, {} waiting", words::short(from), hour.finished, hour.failed, hour.waiting)) {}
                }
            }
            (numbers(base, &hours, began))
        }
    }
}

/// What is shaded: what lasts, or else what was last.
fn named(outages: &[OutageLine]) -> String {
    let lasting: Vec<&OutageLine> = outages.iter().filter(|o| o.until.is_none()).collect();
    let since = |outage: &OutageLine| format!("since {}", outage.since.format("%H:%M"));
    match (lasting.as_slice(), outages) {
        ([], []) => String::new(),
        ([], [last, ..]) => format!("{} was down", last.service),
        ([one], _) => format!("{} down {}", one.service, since(one)),
        (several, _) => {
            let named =
                several.iter().map(|outage| format!("{} {}", outage.service, since(outage)));
            format!("down: {}", named.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The end of the ten minutes that this instant is in, which the last hour ends with.
fn end(now: DateTime<Utc>) -> DateTime<Utc> {
    now + TimeDelta::seconds(600 - now.timestamp().rem_euclid(600))
        - TimeDelta::nanoseconds(now.timestamp_subsec_nanos().into())
}

fn hour_from(began: DateTime<Utc>, index: usize) -> DateTime<Utc> {
    began + TimeDelta::hours(i64::try_from(index).unwrap_or(0))
}

/// The same as numbers, for whoever asks for them.
fn numbers(base: &str, hours: &[Hour], began: DateTime<Utc>) -> Markup {
    html! {
        details class="hours" {
            summary { "The same in numbers" }
            table {
                caption class="vh" { "Rows finished, attempts failed and rows waiting at most, by the hour, the last one first" }
                thead { tr {
                    th scope="col" { "Hour from" } th scope="col" class="num" { "Finished" }
                    th scope="col" class="num" { "Failed" } th scope="col" class="num" { "Waiting" }
                } }
                tbody {
                    @for (index, hour) in hours.iter().enumerate().rev() {
                        tr {
                            @let from = hour_from(began, index);
                            th scope="row" { a href=(hour_address(base, from)) { time datetime=(from.to_rfc3339()) data-as="short" { (words::short(from)) } } }
                            td class="num" data-l="Finished" { (hour.finished) }
                            td class="num" data-l="Failed" { (hour.failed) }
                            td class="num" data-l="Waiting" { (hour.waiting) }
                        }
                    }
                }
            }
        }
    }
}

/// What the eye would see.
fn said(hours: &[Hour], outages: &[OutageLine]) -> String {
    let range = |of: fn(&Hour) -> u64| {
        let values = hours.iter().map(of);
        let (least, most) = (values.clone().min().unwrap_or(0), values.max().unwrap_or(0));
        format!("{least} to {most}")
    };
    let mut said = format!(
        "By the hour, the last 24 hours. Finished: {} an hour. Failed: {}. Waiting: {}.",
        range(|hour| hour.finished),
        range(|hour| hour.failed),
        range(|hour| hour.waiting)
    );
    for outage in outages {
        let until = outage.until.map_or("now".to_owned(), words::short);
        said += &format!(
            " {} was down from {} to {until}.",
            outage.service,
            words::short(outage.since)
        );
    }
    said
}

/// What a model finished in each ten minutes of the last three hours.
pub(crate) fn spark(model: &str, day: &[Bucket]) -> Markup {
    let last = &day[day.len().saturating_sub(18)..];
    let most = last.iter().map(|bucket| bucket.finished).max().unwrap_or(0).max(10) as f64;
    let total: u64 = last.iter().map(|bucket| bucket.finished).sum();
    html! {
        svg class="spark" role="img" aria-label=(format!("{model}: {total} finished in the last 3 hours")) {
            line class="base" x1="0" x2="107" y1="19.5" y2="19.5" {}
            @for (index, bucket) in last.iter().enumerate() {
                @let height = (bucket.finished as f64 / most * 19.0).max(1.0);
                // An empty place where nothing was to be done, a mark where rows waited.
                @if bucket.finished > 0 || bucket.waiting > 0 {
                    rect class=(if bucket.finished == 0 { "wai now" } else if index + 1 == last.len() { "fin now" } else { "fin" })
                        x=(index * 6) y=(format!("{:.1}", 20.0 - height)) width="5" height=(format!("{height:.1}")) {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn the_last_hour_ends_with_the_ten_minutes_that_are_under_way() {
        let at = |hour, minute, second| {
            let at = Utc.with_ymd_and_hms(2026, 11, 24, hour, minute, second);
            at.single().expect("an instant")
        };
        assert_eq!(end(at(12, 4, 31)), at(12, 10, 0));
        assert_eq!(end(at(12, 10, 0) + TimeDelta::milliseconds(1)), at(12, 20, 0));
    }

    #[test]
    fn outages_that_last_are_named_and_so_is_the_last_one() {
        let at =
            |hour| Utc.with_ymd_and_hms(2026, 11, 24, hour, 12, 0).single().expect("an instant");
        let outage = |service: &str, hour, until: Option<u32>| OutageLine {
            service: service.to_owned(),
            since: at(hour),
            until: until.map(at),
            probes: 1,
        };
        let (down, held, over) =
            (outage("bgs", 9, None), outage("mail", 11, None), outage("vbms", 2, Some(3)));
        assert_eq!(named(&[]), "");
        assert_eq!(named(std::slice::from_ref(&over)), "vbms was down");
        assert_eq!(named(&[over.clone(), down.clone()]), "bgs down since 09:12");
        assert_eq!(named(&[held, down, over]), "down: mail since 11:12, bgs since 09:12");
    }

    #[test]
    fn the_buckets_of_all_models_add_up_to_hours() {
        let mut day = vec![Bucket::default(); 144];
        day[143] = Bucket { finished: 5, failed: 1, waiting: 7 };
        day[138] = Bucket { finished: 2, failed: 0, waiting: 9 };
        day[0] = Bucket { finished: 1, failed: 0, waiting: 0 };
        let hours = hours(&[&day, &day]);
        assert_eq!(hours.len(), 24);
        assert_eq!(hours[23], Hour { finished: 14, failed: 2, waiting: 18 });
        assert_eq!(hours[0], Hour { finished: 2, failed: 0, waiting: 0 });
    }
}
