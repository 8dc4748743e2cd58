//! The pages, as functions of what they show. Every text is escaped by the template library.

mod bulk;
mod hour;
mod mine;
mod model;
mod overview;
mod row;
mod rows;
mod service;

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Access, Role,
    answer::{Around, asset_version},
    words,
};
use crate::store::{
    explain::Line,
    page::{Entry, State},
};

pub(crate) use bulk::{bulk, bulk_address, bulk_preview};
pub(crate) use hour::{hour, hour_address};
pub(crate) use mine::{MyRow, mine};
pub(crate) use model::model;
pub(crate) use overview::overview;
pub(crate) use row::{gone, row};
pub(crate) use rows::{found, rows};
pub(crate) use service::service;

/// The shapes of states, drawn once a page.
const SHAPES: &str = include_str!("../shapes.svg");

pub(super) fn shape(name: &str, tint: &str) -> Markup {
    html! { svg class=(format!("g {tint}")) aria-hidden="true" { use href=(format!("#g-{name}")) {} } }
}

/// An instant to the minute. What is told of it stands for UTC; the script tells it in the reader's zone,
/// in the shape that `data-as` names.
pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) data-as="short" { (words::short(at)) } }
}

/// As `time`, by the day of the week alone: of what was lately.
pub(super) fn day_time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) data-as="day" { (at.format("%a %H:%M")) } }
}

/// As `time`, to the second and without its day: of what is now.
pub(super) fn clock_time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) data-as="second" { (at.format("%H:%M:%S")) } }
}

/// Marks the part of a page that changes with the clock alone.
const CLOCK: (&str, &str) = ("<!--clock-->", "<!--/clock-->");

/// A page without what changes with the clock alone, to tell whether anything else has.
pub(crate) fn without_clock(page: &str) -> String {
    let mut rest = page;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(CLOCK.0) {
        kept.push_str(before);
        rest = after.split_once(CLOCK.1).map_or("", |(_, after)| after);
    }
    kept + rest
}

pub(super) fn clock(text: &Markup) -> Markup {
    html! { (PreEscaped(CLOCK.0)) (text) (PreEscaped(CLOCK.1)) }
}

pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            // A dot alone would be a step up.
            b'.' if text.len() > 2 => out.push('.'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(crate) fn row_address(base: &str, model: &str, id: &str) -> String {
    format!("{base}/rows/{}/{}", encoded(model), encoded(id))
}

pub(crate) fn service_address(base: &str, name: &str) -> String {
    format!("{base}/services/{}", encoded(name))
}

pub(crate) fn model_address(base: &str, model: &str) -> String {
    format!("{base}/models/{}", encoded(model))
}

pub(super) fn rows_address(base: &str, model: &str, state: State, code: Option<&str>) -> String {
    let address = format!("{base}/rows?model={}&state={}", encoded(model), state.as_str());
    code.map_or_else(|| address.clone(), |code| format!("{address}&code={}", encoded(code)))
}

pub(super) fn frame(
    base: &str,
    title: &str,
    page: &str,
    access: Option<&Access>,
    who: &Markup,
    main: &Markup,
) -> Markup {
    let version = asset_version();
    let link = |name: &str, to: &str, words: &str| {
        let current = (page == name).then_some("page");
        html! { li { a href=(to) aria-current=[current] { (words) } } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href=(format!("{base}/style.css?{version}"));
                script src=(format!("{base}/script.js?{version}")) defer {}
            }
            body class=[(page == "mine").then_some("for-one")] {
                a class="skip" href="#main" { "Skip to the content" }
                (PreEscaped(SHAPES))
                header class="top" {
                    p class="brand" {
                        a class="brand" href=(format!("{base}/")) { (shape("rows", "")) "Background work" }
                    }
                    nav aria-label="Pages" {
                        ul {
                            @if access.is_none_or(|access| access.may(Role::View)) {
                                (link("overview", &format!("{base}/"), "Overview"))
                                (link("rows", &format!("{base}/rows"), "Rows"))
                            }
                            (link("mine", &format!("{base}/mine"), "My work"))
                        }
                    }
                    div class="who" { (who) }
                }
                main id="main" tabindex="-1" { (main) }
                p id="voice" class="vh" role="status" {}
                footer class="foot" id="zone" { "Times are UTC." }
            }
        }
    }
}

pub(super) fn page(around: &Around, title: &str, name: &str, main: &Markup) -> Markup {
    let now = around.house.now;
    // What is told by the clock alone is sent again once a minute.
    let main = html! {
        (main)
        span hidden data-minute=(now.timestamp() / 60) {}
    };
    let updated = clock(&html! { span id="updated" { "Updated " (clock_time(now)) } });
    around_main(around, title, name, &updated, &main)
}

/// The answer to a form, which does not bring itself up to date: its address is the form's.
pub(super) fn still_page(around: &Around, title: &str, name: &str, main: &Markup) -> Markup {
    let as_of = html! { span { "As of " (clock_time(around.house.now)) } };
    around_main(around, title, name, &as_of, main)
}

fn around_main(around: &Around, title: &str, name: &str, as_of: &Markup, main: &Markup) -> Markup {
    let who = html! {
        span { "Signed in as " (around.access.name) " (" (around.access.role.as_str()) ")" }
        " "
        (as_of)
    };
    frame(&around.base, title, name, Some(&around.access), &who, main)
}

/// A page that says why there is no other.
pub(crate) fn refusal(base: &str, access: Option<&Access>, title: &str, text: &str) -> Markup {
    let who = html! { @if let Some(access) = access { span { "Signed in as " (access.name) } } };
    let (to, words) = match access {
        Some(access) if !access.may(Role::View) => ("mine", "My work"),
        _ => ("", "Overview"),
    };
    let main = html! {
        div class="page-head" { h1 { (title) } }
        p class="why" role="alert" tabindex="-1" autofocus { (text) }
        p class="after" { a class="btn" href=(format!("{base}/{to}")) { (words) } }
    };
    frame(base, title, "", access, &who, &main)
}

pub(super) fn number(around: &Around, model: &str, state: State, count: u32) -> Markup {
    let class = if count == 0 { "zero" } else { "n" };
    html! { a class=(class) href=(rows_address(&around.base, model, state, None)) { (words::count(count)) } }
}

pub(super) fn lately(around: &Around, entries: &[Entry]) -> Markup {
    html! {
        section class="side" aria-labelledby="lately" {
            h2 id="lately" { "Lately" }
            @if entries.is_empty() { p class="muted" { "Nobody has done anything yet." } }
            ul class="log" {
                @for entry in entries {
                    li {
                        (day_time(entry.at))
                        span { (done(around, entry)) }
                    }
                }
            }
        }
    }
}

pub(super) fn done(around: &Around, entry: &Entry) -> Markup {
    let action = entry.action.as_deref().unwrap_or("noted");
    let word = words::action(action);
    let target = match &entry.row_id {
        Some(id) => {
            html! { a href=(row_address(&around.base, &entry.target, id)) { (around.row_name(&entry.target, id)) } }
        }
        None if action.starts_with("service_") => {
            html! { a href=(service_address(&around.base, &entry.target)) { (entry.target) } }
        }
        None => {
            html! { a href=(model_address(&around.base, &entry.target)) { (around.label(&entry.target)) } }
        }
    };
    html! {
        @if matches!(action, "service_down" | "service_up") { (target) " " (word) }
        @else {
            (entry.who) " " (word) " "
            @if let Some(count) = entry.count { (count) " " }
            (target)
        }
        @if let Some(text) = &entry.text {
            @if action == "service_down" { " (" code { (text) } ")" } @else { ": “" (text) "”" }
        }
    }
}

pub(super) fn subject(around: &Around, subject: Option<&str>) -> String {
    let subject = subject.unwrap_or_default();
    if subject.is_empty() || around.access.may(Role::Operate) {
        subject.to_owned()
    } else {
        words::last_three(subject)
    }
}

pub(super) fn state_of(line: &Line) -> Markup {
    let (name, tint, text) = words::state(&line.explanation);
    html! { span class=(format!("s {tint}")) { (shape(name, "")) span class="txt" { (text) } } }
}

/// What a form has just done, in words.
pub(super) fn outcome(done: Option<&str>) -> Option<(&'static str, &'static str)> {
    Some(match done? {
        "restarted" => ("ok", "Restarted. Steps that are done are not repeated."),
        "not-restarted" => ("warn", "Not restarted: it is processed, or was never submitted."),
        "canceled" => ("ok", "Canceled. What the services have done stays done."),
        "not-canceled" => ("warn", "Not canceled: it was processed or canceled before."),
        "noted" => ("ok", "Noted."),
        "sent" => ("ok", "Noted, and sent to the row's user."),
        "read" => ("ok", "Marked as read."),
        "paused" => ("ok", "Paused: each host follows with its next sweep."),
        "resumed" => ("ok", "Resumed: each host follows with its next sweep."),
        "held" => ("ok", "Held down."),
        "released" => ("ok", "Released: its rows run again."),
        "asked" => ("ok", "It is asked with the next row."),
        "nothing" => ("warn", "Nothing to do: it was so already."),
        _ => return None,
    })
}

pub(super) fn told(done: Option<&str>) -> Markup {
    html! {
        @if let Some((name, text)) = outcome(done) {
            p class="s lead" role="status" { (shape(name, if name == "ok" { "ok" } else { "failing" })) span class="txt" { (text) } }
        }
    }
}
