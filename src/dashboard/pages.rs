//! The pages, as functions of what they show. Every text is escaped by the template library.

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Role, chart,
    handlers::{Around, asset_version},
    words,
};
use crate::{
    Explanation, Restarted,
    store::{
        explain::Line,
        page::{Entry, List, ModelOverview, RowPage, State},
        service::ServiceState,
    },
};

/// The shapes of states, drawn once a page.
const SHAPES: &str = r#"<svg width="0" height="0" class="sprite" aria-hidden="true">
<symbol id="rows" viewBox="0 0 16 16"><path d="M1.5 3.5h13M1.5 8h7M1.5 12.5h13"/><circle class="full" cx="12.8" cy="8" r="1.2"/></symbol>
<symbol id="down" viewBox="0 0 16 16"><path class="full" d="M5.2 1.2h5.6l4 4v5.6l-4 4H5.2l-4-4V5.2z"/><path class="cut" d="M8 4.4v4M8 11.3v.1"/></symbol>
<symbol id="ok" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.25"/><path d="m5.3 8.2 2 2 3.5-4.3"/></symbol>
<symbol id="expired" viewBox="0 0 16 16"><path d="M4 1.8h8M4 14.2h8M4.8 1.8v2.4L8 8l3.2-3.8V1.8M4.8 14.2v-2.4L8 8l3.2 3.8v2.4"/></symbol>
<symbol id="held" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.25"/><path d="M6.4 5.8v4.4M9.6 5.8v4.4"/></symbol>
<symbol id="host" viewBox="0 0 16 16"><path d="M1 8.5h3l2-5 3.5 9L11.5 8.5H15"/></symbol>
<symbol id="parked" viewBox="0 0 16 16"><path d="M8 1.2 14.8 8 8 14.8 1.2 8zM8 5v3.4M8 10.9v.1"/></symbol>
<symbol id="running" viewBox="0 0 16 16"><path class="full" d="M4.5 3v10L13 8z"/></symbol>
<symbol id="wait" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.25"/><path d="M8 4.5V8l2.4 1.6"/></symbol>
<symbol id="due" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.25"/><circle class="full" cx="8" cy="8" r="1.6"/></symbol>
<symbol id="failing" viewBox="0 0 16 16"><path d="M13.4 8A5.4 5.4 0 1 1 11.6 4M12 1.3v3H9"/></symbol>
<symbol id="unknown" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.25" stroke-dasharray="2.4 2.4"/><path d="M6.4 6.4A1.7 1.7 0 1 1 8 8.3v.5M8 11v.1"/></symbol>
<symbol id="refused" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.25"/><path d="m5.8 5.8 4.4 4.4M10.2 5.8l-4.4 4.4"/></symbol>
<symbol id="warn" viewBox="0 0 16 16"><path d="M8 1.8 15 14H1zM8 6v3.6M8 11.8v.1"/></symbol>
</svg>"#;

fn shape(name: &str, tint: &str) -> Markup {
    html! { svg class=(format!("g {tint}")) aria-hidden="true" { use href=(format!("#{name}")) {} } }
}

fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) { (words::short(at)) } }
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

fn clock(text: &Markup) -> Markup {
    html! { (PreEscaped(CLOCK.0)) (text) (PreEscaped(CLOCK.1)) }
}

fn encoded(text: &str) -> String {
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

fn rows_address(base: &str, model: &str, state: State, code: Option<&str>) -> String {
    let address = format!("{base}/rows?model={}&state={}", encoded(model), state.as_str());
    code.map_or_else(|| address.clone(), |code| format!("{address}&code={}", encoded(code)))
}

fn frame(base: &str, title: &str, page: &str, who: &Markup, main: &Markup) -> Markup {
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
            body {
                a class="skip" href="#main" { "Skip to the content" }
                (PreEscaped(SHAPES))
                header class="top" {
                    p class="brand" {
                        a class="brand" href=(format!("{base}/")) { (shape("rows", "")) "Background work" }
                    }
                    nav aria-label="Pages" {
                        ul {
                            (link("overview", &format!("{base}/"), "Overview"))
                            (link("rows", &format!("{base}/rows"), "Rows"))
                        }
                    }
                    div class="who" { (who) }
                }
                main id="main" tabindex="-1" { (main) }
                footer class="foot" { "Times are UTC." }
            }
        }
    }
}

fn page(around: &Around, title: &str, name: &str, main: &Markup) -> Markup {
    let now = around.house.now;
    let who = html! {
        span { "Signed in as " (around.access.name) " (" (around.access.role.as_str()) ")" }
        " "
        (clock(&html! { span id="updated" { "Updated " (now.format("%H:%M:%S")) } }))
    };
    frame(&around.base, title, name, &who, main)
}

/// A page that says why there is no other.
pub(crate) fn refusal(base: &str, name: &str, title: &str, text: &str) -> Markup {
    let who = html! { @if !name.is_empty() { span { "Signed in as " (name) } } };
    let main = html! {
        div class="page-head" { h1 { (title) } }
        p class="why" role="alert" { (text) }
        p class="after" { a class="btn" href=(format!("{base}/")) { "Overview" } }
    };
    frame(base, title, "", &who, &main)
}

fn needs(model: &ModelOverview) -> u32 {
    model.counts.parked + model.counts.expired
}

pub(crate) fn overview(around: &Around, models: &[ModelOverview]) -> Markup {
    let needing: u32 = models.iter().map(needs).sum();
    let title = match needing {
        0 => "Background work".to_owned(),
        count => format!("({} need you) Background work", words::count(count)),
    };
    let main = html! {
        h1 class="vh" { "Background work" }
        (banner(around, models, needing))
        div class="split" {
            div {
                (flowing(around, models))
                (needs_you(around, models, needing))
                (day(around, models))
                (all_rows(around, models))
            }
            aside { (lately(around, &around.house.lately)) }
        }
    };
    page(around, &title, "overview", &main)
}

fn banner(around: &Around, models: &[ModelOverview], needing: u32) -> Markup {
    let house = &around.house;
    let (now, base) = (house.now, &around.base);
    let troubled: Vec<&ServiceState> =
        house.services.iter().filter(|service| service.open || service.held.is_some()).collect();
    let waits = |service: &str| {
        let names = around
            .names
            .models
            .iter()
            .filter(|(_, services)| services.iter().any(|name| name == service));
        let names: Vec<&str> = names.map(|(model, _)| *model).collect();
        let of = models.iter().filter(|model| names.contains(&model.model));
        of.map(|model| model.counts.due + model.counts.failing).sum::<u32>()
    };
    let calm = troubled.is_empty() && !house.hosts.is_empty();
    html! {
        section class=(if calm { "banner well" } else { "banner" }) aria-label="What is so now" {
            div class="facts" {
                @if house.hosts.is_empty() {
                    p { (shape("down", "down")) span class="lead" {
                        strong { "Nothing is being processed: " } "no host has been heard of for a while."
                    } }
                }
                @for service in &troubled {
                    @if let Some(held) = &service.held {
                        p { (shape("held", "held")) span class="lead" {
                            strong { a href=(service_address(base, &service.name)) { (service.name) }
                                " is held down by " (held.by) }
                            @if let Some(until) = held.until { " until " (time(until.zoned)) }
                            ": “" (held.reason) "”."
                        } }
                    } @else {
                        p { (shape("down", "down")) span class="lead" {
                            strong {
                                a href=(service_address(base, &service.name)) { (service.name) } " is down"
                                @if let Some(since) = service.since {
                                    " since " (time(since.zoned)) " ("
                                    (clock(&html! { (words::apart(since.zoned, now)) })) ")"
                                }
                                "."
                            }
                            " " span class="n" { (words::count(waits(&service.name))) } " rows wait for it. "
                            @if service.asked { "It is being asked now, with one row." }
                            @else if let Some(at) = service.next_probe_at {
                                span class="nb" { "Next try " (at.zoned.format("%H:%M:%S")) "," } " with one row."
                            }
                        } }
                    }
                }
                @if needing == 0 {
                    p { (shape("ok", "ok")) span {
                        strong { @if calm { "Nothing needs you." } @else { "Nothing needs doing:" } }
                        @if !calm { " the rows run by themselves once it answers." }
                        @else { " " (words::counted(house.hosts.len(), "host is alive.", "hosts are alive.")) }
                    } }
                } @else {
                    p { (shape("warn", "failing")) span {
                        strong { (words::count(needing)) " rows need you." }
                        " They do not run by themselves."
                    } }
                }
                @let expiring: u32 = models.iter().map(|model| model.counts.expiring).sum();
                @if expiring > 0 {
                    p { (shape("expired", "muted")) span { (words::count(expiring)) " rows expire soon." } }
                }
            }
        }
    }
}

fn number(around: &Around, model: &str, state: State, count: u32) -> Markup {
    let class = if count == 0 { "zero" } else { "n" };
    html! { a class=(class) href=(rows_address(&around.base, model, state, None)) { (words::count(count)) } }
}

fn flowing(around: &Around, models: &[ModelOverview]) -> Markup {
    let house = &around.house;
    let is_down = |service: &String| {
        let of = house.services.iter().filter(|state| &state.name == service);
        of.into_iter().any(|state| state.open || state.held.is_some())
    };
    html! {
        section class="sec" aria-labelledby="flowing" {
            h2 id="flowing" { "Flowing?" }
            div {
                @if models.is_empty() {
                    p class="only" { "No model is registered: give the supervisor a processor." }
                } @else {
                    table class="flow" {
                        caption class="vh" { "Models, and whether their rows are worked on" }
                        thead { tr {
                            th scope="col" { "Model" } th scope="col" { "Last 3 hours" }
                            th scope="col" { "Running" } th scope="col" { "Due" }
                            th scope="col" { "Oldest due" } th scope="col" { "State" }
                        } }
                        tbody {
                            @for model in models {
                                @let services = around.names.models.iter().find(|(name, _)| *name == model.model);
                                @let down = services.and_then(|(_, s)| s.iter().find(|name| is_down(name)));
                                tr {
                                    th scope="row" { a href=(rows_address(&around.base, model.model, State::Due, None)) { (model.model) } }
                                    td data-l="Last 3 hours" { (chart::spark(model.model, &model.day)) }
                                    td data-l="Running" { (number(around, model.model, State::Running, model.counts.in_flight)) }
                                    td data-l="Due" { (number(around, model.model, State::Due, model.counts.due)) }
                                    td data-l="Oldest due" {
                                        @if let Some(at) = model.oldest_due {
                                            (clock(&html! { (words::apart(at, house.now)) }))
                                        } @else { span class="zero" { "none" } }
                                    }
                                    td data-l="State" {
                                        @match down {
                                            Some(service) => span class="s held" { (shape("held", "")) "waiting for " (service) },
                                            None if house.hosts.is_empty() => span class="s down" { (shape("down", "")) "no host" },
                                            None => span class="s ok" { (shape("ok", "")) "ok" },
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                p class="s hosts" { (shape("host", "")) span {
                    @if house.hosts.is_empty() { "No host is alive." }
                    @else {
                        (words::counted(house.hosts.len(), "host alive: ", "hosts alive: "))
                        (clock(&html! { @for (index, host) in house.hosts.iter().enumerate() {
                            @if index > 0 { ", " }
                            (words::host(&host.host)) " (" (words::apart(host.seen_at, house.now)) " ago)"
                        } }))
                    }
                } }
            }
        }
    }
}

fn needs_you(around: &Around, models: &[ModelOverview], needing: u32) -> Markup {
    html! {
        section class="sec" aria-labelledby="needs" {
            h2 id="needs" { "Needs you: " (words::count(needing)) }
            div {
                @if needing == 0 {
                    p class="only muted" { "No row is parked or expired." }
                } @else {
                    table class="needs" {
                        caption class="vh" { "Rows that need a person, by model and cause" }
                        thead { tr {
                            th scope="col" { "Model" } th scope="col" { "Cause" }
                            th scope="col" class="num" { "Rows" } th scope="col" { "Oldest" }
                        } }
                        tbody {
                            @for model in models {
                                @for cause in &model.causes {
                                    tr {
                                        th scope="row" { (model.model) }
                                        td data-l="Cause" { span class="s parked" { (shape("parked", "")) code class="txt" { (cause.code) } } }
                                        td class="num" data-l="Rows" {
                                            a class="n" href=(rows_address(&around.base, model.model, State::Parked, Some(&cause.code))) { (words::count(cause.rows)) }
                                        }
                                        td data-l="Oldest" { @if let Some(at) = cause.oldest { (clock(&html! { (words::apart(at, around.house.now)) })) } }
                                    }
                                }
                                @if model.counts.expired > 0 {
                                    tr {
                                        th scope="row" { (model.model) }
                                        td data-l="Cause" { span class="s expired" { (shape("expired", "")) span class="txt" { "expired without being done" } } }
                                        td class="num" data-l="Rows" {
                                            a class="n" href=(rows_address(&around.base, model.model, State::Expired, None)) { (words::count(model.counts.expired)) }
                                        }
                                        td {}
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn day(around: &Around, models: &[ModelOverview]) -> Markup {
    let days: Vec<&[_]> = models.iter().map(|model| model.day.as_slice()).collect();
    html! {
        section class="sec" aria-labelledby="day" {
            h2 id="day" { "Last 24 hours" }
            (chart::day(&days, &around.house.outages, around.house.now))
        }
    }
}

fn all_rows(around: &Around, models: &[ModelOverview]) -> Markup {
    let counts = |model: &ModelOverview| {
        let counts = &model.counts;
        [
            (State::Scheduled, counts.scheduled),
            (State::Due, counts.due),
            (State::Running, counts.in_flight),
            (State::Failing, counts.failing),
            (State::Parked, counts.parked),
            (State::Expired, counts.expired),
        ]
    };
    html! {
        section class="sec" aria-labelledby="all" {
            h2 id="all" { "All rows" }
            table class="counts" {
                caption class="vh" { "Rows that are not done, by model and state" }
                thead { tr {
                    th scope="col" { "Model" }
                    @for state in State::ALL { th scope="col" class="num" { (state.as_str()) } }
                } }
                tbody {
                    @for model in models {
                        tr {
                            th scope="row" { (model.model) }
                            @for (state, count) in counts(model) {
                                td class="num" data-l=(state.as_str()) { (number(around, model.model, state, count)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn lately(around: &Around, entries: &[Entry]) -> Markup {
    html! {
        section class="side" aria-labelledby="lately" {
            h2 id="lately" { "Lately" }
            @if entries.is_empty() { p class="muted" { "Nobody has done anything yet." } }
            ul class="log" {
                @for entry in entries {
                    li {
                        time datetime=(entry.at.to_rfc3339()) { (entry.at.format("%a %H:%M")) }
                        span { (done(around, entry)) }
                    }
                }
            }
        }
    }
}

fn done(around: &Around, entry: &Entry) -> Markup {
    let action = entry.action.as_deref().unwrap_or("noted");
    let word = words::action(action);
    let target = match &entry.row_id {
        Some(id) => {
            html! { a href=(row_address(&around.base, &entry.target, id)) { (entry.target) " " (id) } }
        }
        None if action.starts_with("service_") => {
            html! { a href=(service_address(&around.base, &entry.target)) { (entry.target) } }
        }
        None => html! { (entry.target) },
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

fn subject(around: &Around, subject: Option<&str>) -> String {
    let subject = subject.unwrap_or_default();
    if subject.is_empty() || around.access.may(Role::Operate) {
        subject.to_owned()
    } else {
        words::last_three(subject)
    }
}

fn state_of(line: &Line) -> Markup {
    let (name, tint, text) = words::state(&line.explanation);
    html! { span class=(format!("s {tint}")) { (shape(name, "")) span class="txt" { (text) } } }
}

pub(crate) fn rows(
    around: &Around,
    model: &str,
    state: State,
    code: Option<&str>,
    list: &List,
) -> Markup {
    let base = &around.base;
    let title = format!("Rows: {model}, {}", state.as_str());
    let may = around.access.may(Role::Operate);
    let next = list.next.as_ref().map(|(at, id)| {
        let place = encoded(&format!("{}.{id}", at.epoch_micros()));
        format!("{}&after={place}", rows_address(base, model, state, code))
    });
    let main = html! {
        div class="page-head" { h1 { (title) } }
        form class="bar filters" method="get" action=(format!("{base}/rows")) {
            div class="field" { label for="model" { "Model" }
                select id="model" name="model" {
                    @for (name, _) in &around.names.models { option selected[*name == model] { (name) } }
                }
            }
            div class="field" { label for="state" { "State" }
                select id="state" name="state" {
                    @for known in State::ALL { option selected[known == state] { (known.as_str()) } }
                }
            }
            div class="field" { label for="code" { "Cause" }
                input id="code" name="code" value=(code.unwrap_or_default()) autocomplete="off";
            }
            button { "Filter" }
        }
        @if list.lines.is_empty() {
            p class="only" {
                "No rows: " (model) ", " (state.as_str())
                @if let Some(code) = code {
                    ", cause " code { (code) } ". "
                    a href=(rows_address(base, model, state, None)) { "Remove the cause" }
                } @else { "." }
            }
        } @else {
            form method="post" action=(format!("{base}/rows/{}/restart", encoded(model))) {
                table class="rows" {
                    caption class="vh" { (title) }
                    thead { tr {
                        @if may { th scope="col" { span class="vh" { "Tick" } } }
                        th scope="col" { "Row" } th scope="col" { "State" } th scope="col" { "Submitted" }
                        th scope="col" { "Last try" } th scope="col" class="num" { "Failures" }
                        th scope="col" { "User" } th scope="col" { "About" } th scope="col" { "Cause" }
                    } }
                    tbody { @for line in &list.lines { (row_line(around, model, line, may)) } }
                }
                div class="bar stick" {
                    @if may { button class="go" { "Restart ticked" } }
                    span class="end muted" { (words::counted(list.lines.len(), "row", "rows")) " on this page" }
                    @if let Some(next) = next { a class="btn" href=(next) { "Next page" } }
                }
            }
        }
    };
    page(around, &title, "rows", &main)
}

fn row_line(around: &Around, model: &str, line: &Line, may: bool) -> Markup {
    html! {
        tr {
            @if may {
                td {
                    @if words::may_restart(&line.explanation) {
                        label class="tick" {
                            input type="checkbox" name="row" value=(line.id);
                            span class="vh" { "Tick " (model) " " (line.id) }
                        }
                    }
                }
            }
            th scope="row" { a href=(row_address(&around.base, model, &line.id)) { (model) " " (line.id) } }
            td data-l="State" { (state_of(line)) }
            td data-l="Submitted" { @if let Some(at) = line.submitted_at { (time(at)) } }
            td data-l="Last try" { @if let Some(at) = line.attempted_at { (time(at)) } }
            td class="num" data-l="Failures" { (line.failures) }
            td data-l="User" { (line.user.as_deref().unwrap_or_default()) }
            td data-l="About" { (subject(around, line.subject.as_deref())) }
            td data-l="Cause" { @if let Some(code) = &line.code { code { (code) } } }
        }
    }
}

/// What a form has just done, in words.
fn outcome(done: Option<&str>) -> Option<(&'static str, &'static str)> {
    Some(match done? {
        "restarted" => ("ok", "Restarted. Steps that are done are not repeated."),
        "not-restarted" => ("warn", "Not restarted: it is processed, or was never submitted."),
        "canceled" => ("ok", "Canceled. What the services have done stays done."),
        "not-canceled" => ("warn", "Not canceled: it was processed or canceled before."),
        "noted" => ("ok", "Noted."),
        "held" => ("ok", "Held down."),
        "released" => ("ok", "Released: its rows run again."),
        "asked" => ("ok", "It is asked with the next row."),
        "nothing" => ("warn", "Nothing to do: it was so already."),
        _ => return None,
    })
}

fn told(done: Option<&str>) -> Markup {
    html! {
        @if let Some((name, text)) = outcome(done) {
            p class="s lead" role="status" { (shape(name, if name == "ok" { "ok" } else { "failing" })) span class="txt" { (text) } }
        }
    }
}

pub(crate) fn row(
    around: &Around,
    model: &str,
    row: &RowPage,
    link: Option<&str>,
    done: Option<&str>,
) -> Markup {
    let line = &row.line;
    let name = format!("{model} {}", line.id);
    let (_, _, state) = words::state(&line.explanation);
    let address = row_address(&around.base, model, &line.id);
    let operate = around.access.may(Role::Operate);
    let main = html! {
        div class="page-head" {
            p class="crumb" { a class="hit" href=(rows_address(&around.base, model, State::Parked, None)) { "Rows" } " / " (model) }
            h1 { (name) }
            (state_of(line))
            @if let Some(link) = link { a class="btn end" href=(link) { "Open in the application" } }
        }
        (told(done))
        div class="split ruled" {
            div {
                section class="sec first" aria-labelledby="why" {
                    h2 id="why" { "Why" }
                    div class="stack" {
                        p class="why" { (sentence(&line.explanation)) " " (words::advice(&line.explanation)) }
                        dl class="kv" {
                            @if let Some(code) = &line.code {
                                div { dt { "cause" } dd { code { (code) }
                                    @if let Some(place) = row.tries.first().and_then(|t| t.place.as_ref()) { ", at " code { (place) } }
                                } }
                            }
                            @if operate {
                                @if let Some(error) = row.tries.first().and_then(|t| t.error.as_ref()) {
                                    div { dt { "message" } dd { "“" (error) "”" } }
                                }
                            }
                        }
                    }
                }
                section class="sec" aria-labelledby="when" {
                    h2 id="when" { "When" }
                    dl class="pairs" {
                        div { dt { "Submitted" } dd { @if let Some(at) = line.submitted_at { (time(at)) } @else { "never" } } }
                        div { dt { "Last try" } dd { @if let Some(at) = line.attempted_at { (time(at)) } @else { "none" } } }
                        div { dt { "Failures" } dd { (line.failures) } }
                        @if let Some(user) = &line.user { div { dt { "User" } dd { (user) } } }
                        @if line.subject.is_some() { div { dt { "About" } dd { (subject(around, line.subject.as_deref())) } } }
                    }
                }
                (steps(row))
                (tries(row, &name))
                (notes(row, &address, operate))
            }
            aside {
                @if operate {
                    section class="side" aria-labelledby="acts" {
                        h2 id="acts" { "Do" }
                        (acts(&line.explanation, &address))
                    }
                }
                section class="side" aria-labelledby="history" {
                    h2 id="history" { "History" }
                    @if row.actions.is_empty() { p class="muted" { "Nobody has done anything to it." } }
                    ul class="log" {
                        @for entry in &row.actions {
                            li { time datetime=(entry.at.to_rfc3339()) { (entry.at.format("%a %H:%M")) } span { (done_to(entry)) } }
                        }
                    }
                }
            }
        }
    };
    page(around, &format!("{name}, {state}"), "rows", &main)
}

fn done_to(entry: &Entry) -> Markup {
    html! {
        (entry.who) " " (words::action(entry.action.as_deref().unwrap_or_default())) " it"
        @if let Some(text) = &entry.text { ": “" (text) "”" }
    }
}

/// An explanation as a sentence of its own.
fn sentence(explanation: &Explanation) -> String {
    let text = explanation.to_string();
    let mut chars = text.chars();
    let first: String =
        chars.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

fn steps(row: &RowPage) -> Markup {
    html! {
        @if !row.steps.is_empty() {
            section class="sec" aria-labelledby="steps" {
                h2 id="steps" { "Steps" }
                ul class="lines tight" {
                    @for step in &row.steps {
                        li {
                            @if step.done {
                                (shape("ok", "ok"))
                                span { code class="n" { (step.name) } " " b class="ok" { "done" }
                                    br; span class="muted" { "a restart does not call again" } }
                            } @else {
                                (shape("unknown", "unknown"))
                                span { code class="n" { (step.name) } " " b class="unknown" { "no result" }
                                    br; span class="muted" { "begun by " (words::counted(usize::try_from(step.tries).unwrap_or(usize::MAX), "attempt", "attempts")) "; asked about, if it can be, before it is called again" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn tries(row: &RowPage, name: &str) -> Markup {
    html! {
        section class="sec" aria-labelledby="tries" {
            h2 id="tries" { "Tries" }
            @if row.tries.is_empty() { p class="only muted" { "None has failed." } }
            @else {
                table {
                    caption class="vh" { "Tries of " (name) ", newest first" }
                    thead { tr {
                        th scope="col" { "Try" } th scope="col" { "Began" } th scope="col" { "Host" }
                        th scope="col" class="num" { "Took" } th scope="col" { "Outcome" } th scope="col" { "Step" } th scope="col" { "Cause" }
                    } }
                    tbody {
                        @for attempt in &row.tries {
                            tr {
                                th scope="row" { "#" (attempt.number) }
                                td data-l="Began" { (time(attempt.started_at)) }
                                td data-l="Host" { (words::host(&attempt.host)) }
                                td class="num" data-l="Took" { (words::apart(attempt.started_at, attempt.ended_at)) }
                                td data-l="Outcome" { (attempt.outcome) }
                                td data-l="Step" { @if let Some(step) = &attempt.step { code { (step) } } }
                                td data-l="Cause" { @if let Some(code) = &attempt.code { code { (code) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn notes(row: &RowPage, address: &str, operate: bool) -> Markup {
    html! {
        section class="sec" aria-labelledby="notes" {
            h2 id="notes" { "Notes" }
            div class="stack" {
                @if row.notes.is_empty() { p class="only muted" { "None." } }
                ul class="log" {
                    @for note in &row.notes {
                        li { time datetime=(note.at.to_rfc3339()) { (note.at.format("%a %H:%M")) }
                            span { (note.who) ": " (note.text.as_deref().unwrap_or_default()) } }
                    }
                }
                @if operate {
                    form method="post" action=(format!("{address}/note")) {
                        div class="field" { label for="note" { "Note, not edited or deleted later" }
                            textarea id="note" name="why" rows="2" maxlength="4000" required {} }
                        p class="after" { button { "Add note" } }
                    }
                }
            }
        }
    }
}

fn acts(explanation: &Explanation, address: &str) -> Markup {
    let (restart, cancel) = (words::may_restart(explanation), words::may_cancel(explanation));
    html! {
        @if restart {
            form class="stack" method="post" action=(format!("{address}/restart")) {
                div class="field" { label for="restart-why" { "Why (kept in the history)" }
                    input id="restart-why" name="why" autocomplete="off"; }
                p { button class="go" { "Restart" } }
                p class="muted small" { "Steps that are done are not repeated." }
            }
        }
        @if cancel {
            form class="stack after" method="post" action=(format!("{address}/cancel")) {
                div class="field" { label for="cancel-why" { "Why it is given up" }
                    input id="cancel-why" name="why" autocomplete="off" required; }
                p { button class="risk" { "Cancel" } }
                p class="muted small" { "Does not undo what the services have done." }
            }
        }
        @if !restart && !cancel { p class="muted" { "There is nothing to do." } }
    }
}

pub(crate) fn restart_preview(around: &Around, model: &str, ids: &[String]) -> Markup {
    let count = ids.len();
    let title = format!("Restart {count} of {model}?");
    let main = html! {
        div class="page-head" { h1 { (title) } }
        form class="ask" method="post" action=(format!("{}/rows/{}/restart", around.base, encoded(model))) {
            input type="hidden" name="confirmed" value="1";
            @for id in ids { input type="hidden" name="row" value=(id); }
            ul class="lines" {
                li { (shape("rows", "muted")) span {
                    @for (index, id) in ids.iter().take(20).enumerate() {
                        @if index > 0 { ", " }
                        a href=(row_address(&around.base, model, id)) { (id) }
                    }
                    @if count > 20 { " and " (count - 20) " more" }
                } }
                li { (shape("wait", "muted")) span { "Steps that are done are not repeated. Rows that are processed meanwhile are left alone." } }
            }
            div class="field" { label for="reason" { "Why (kept in the history)" }
                textarea id="reason" name="why" rows="2" required {} }
            div class="bar" {
                button class="go" { "Restart " (count) }
                a class="btn" href=(rows_address(&around.base, model, State::Parked, None)) { "Back" }
            }
        }
    };
    page(around, &title, "rows", &main)
}

pub(crate) fn restarted(around: &Around, model: &str, asked: usize, done: &Restarted) -> Markup {
    let title = format!("Restarted {} of {asked}", done.restarted);
    let main = html! {
        div class="page-head" { h1 { (title) } }
        ul class="lines" {
            li { (shape("ok", "ok")) span { (done.restarted) " are due again." } }
            @if done.left_alone > 0 {
                li { (shape("warn", "failing")) span { (done.left_alone) " had changed meanwhile and were left alone." } }
            }
            @let gone = asked.saturating_sub(done.restarted + done.left_alone);
            @if gone > 0 { li { (shape("refused", "muted")) span { (gone) " are no rows, or were named twice." } } }
        }
        p class="after" { a class="btn" href=(rows_address(&around.base, model, State::Parked, None)) { "Back to the rows" } }
    };
    page(around, &title, "rows", &main)
}

pub(crate) fn service(
    around: &Around,
    name: &str,
    waiting: &[ModelOverview],
    done: Option<&str>,
) -> Markup {
    let house = &around.house;
    let state = house.services.iter().find(|state| state.name == name);
    let open = state.filter(|state| state.open);
    let held = state.and_then(|state| state.held.as_ref());
    let (symbol, tint, word) = match (&open, &held) {
        (_, Some(_)) => ("held", "held", "held down"),
        (Some(_), None) => ("down", "down", "down"),
        (None, None) => ("ok", "ok", "up"),
    };
    let address = service_address(&around.base, name);
    let operate = around.access.may(Role::Operate);
    let main = html! {
        div class="page-head" {
            h1 { (name) }
            span class=(format!("s {tint} lead")) { (shape(symbol, "")) span class="txt" { b { (word) }
                @if let Some(since) = open.and_then(|state| state.since) { " since " (time(since.zoned)) }
            } }
        }
        (told(done))
        div class="split ruled" {
            div {
                section class="sec first" aria-labelledby="now" {
                    h2 id="now" { "Now" }
                    dl class="pairs three" {
                        @if let Some(state) = open {
                            div { dt { "By" } dd { code { (state.code.as_deref().unwrap_or_default()) } } }
                            div { dt { "Next try" } dd {
                                @if state.asked { "now, with one row" }
                                @else if let Some(at) = state.next_probe_at { (at.zoned.format("%H:%M:%S")) }
                                small { (state.probes) " tries were not answered" }
                            } }
                        }
                        @if let Some(held) = held {
                            div { dt { "Held by" } dd { (held.by) small { "“" (held.reason) "”" } } }
                            div { dt { "Until" } dd { @if let Some(until) = held.until { (time(until.zoned)) } @else { "somebody releases it" } } }
                        }
                        div { dt { "Rows that need it" } dd {
                            @for (index, model) in waiting.iter().enumerate() {
                                @if index > 0 { ", " }
                                (model.model) " " (number(around, model.model, State::Due, model.counts.due)) " due, "
                                (number(around, model.model, State::Failing, model.counts.failing)) " failing"
                            }
                        } }
                    }
                }
                section class="sec" aria-labelledby="past" {
                    h2 id="past" { "Outages" }
                    @if house.outages.is_empty() { p class="only muted" { "None is known." } }
                    @else {
                        table {
                            caption class="vh" { "Outages of " (name) ", newest first" }
                            thead { tr { th scope="col" { "Since" } th scope="col" { "Until" } th scope="col" { "Lasted" } th scope="col" class="num" { "Tries" } } }
                            tbody {
                                @for outage in &house.outages {
                                    tr {
                                        th scope="row" { (time(outage.since)) }
                                        td data-l="Until" { @if let Some(until) = outage.until { (time(until)) } @else { "it lasts" } }
                                        td data-l="Lasted" { (clock(&html! { (words::apart(outage.since, outage.until.unwrap_or(house.now))) })) }
                                        td class="num" data-l="Tries" { (outage.probes) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            aside {
                @if operate {
                    section class="side" aria-labelledby="acts" {
                        h2 id="acts" { "Do" }
                        @if open.is_some() {
                            form method="post" action=(format!("{address}/ask")) { p { button class="go" { "Ask now" } } }
                        }
                        @if held.is_some() {
                            form class="after" method="post" action=(format!("{address}/release")) { p { button class="go" { "Release" } } }
                        } @else {
                            form class="stack after" method="post" action=(format!("{address}/hold")) {
                                div class="field" { label for="hold-why" { "Because" } input id="hold-why" name="why" autocomplete="off" required; }
                                div class="field" { label for="hours" { "For how many hours (empty: until released)" }
                                    input id="hours" name="hours" inputmode="numeric" pattern="[0-9]*" autocomplete="off"; }
                                p { button class="risk" { "Hold down" } }
                            }
                        }
                    }
                }
                (lately(around, &house.lately))
            }
        }
    };
    page(around, &format!("{name}, {word}"), "", &main)
}
