//! Is work flowing, what is down, what needs a person?

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{
    clock, clock_time, lately, model_address, number, page, rows_address, service_address, shape,
    time,
};
use crate::{
    Counts,
    dashboard::{Role, answer::Around, chart, words},
    store::{
        page::{Group, ModelOverview, State},
        service::ServiceState,
    },
};

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
                (failing(around, models))
                (day(around, models))
                (all_rows(around, models))
                p class="after" {
                    "Report: "
                    a class="hit" href=(format!("{}/report.txt", around.base)) { "text" } " | "
                    a class="hit" href=(format!("{}/report.csv", around.base)) { "CSV" }
                }
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
    let calls = |model: &ModelOverview, service: &str| {
        around.services_of(model.model).iter().any(|name| name == service)
    };
    let waits = |service: &str| {
        let of = models.iter().filter(|model| calls(model, service));
        of.map(|model| model.counts.due + model.counts.failing).sum::<u32>()
    };
    let waiting = |model: &&ModelOverview| troubled.iter().any(|state| calls(model, &state.name));
    let first = models.iter().filter(waiting).filter_map(|model| model.first_expires_at).min();
    let calm = troubled.is_empty() && house.pauses.is_empty() && !house.hosts.is_empty();
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
                            @if around.access.may(Role::Operate) {
                                " " (order(&format!("{}/release", service_address(base, &service.name)), "Release"))
                            }
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
                                span class="nb" { "Next try " (clock_time(at.zoned)) "," } " with one row."
                            }
                        } }
                    }
                }
                @for (model, paused) in &house.pauses {
                    p { (shape("held", "held")) span class="lead" {
                        strong { a href=(model_address(base, model)) { (around.label(model)) } " is paused"
                            @if let Some(who) = &paused.who { " by " (who) } }
                        " since " (time(paused.since.zoned))
                        @if let Some(reason) = &paused.reason { ": “" (reason) "”" } "."
                        @if around.access.may(Role::Admin) {
                            " " (order(&format!("{}/resume", model_address(base, model)), "Resume"))
                        }
                    } }
                }
                @if needing == 0 && calm {
                    p { (shape("ok", "ok")) span class="lead" {
                        strong { "Nothing needs you." } " "
                        (words::counted(house.hosts.len(), "host is alive.", "hosts are alive."))
                    } }
                } @else if needing == 0 {
                    p { (shape("ok", "ok")) span {
                        @if troubled.iter().any(|service| service.held.is_none()) {
                            strong { "Nothing needs doing:" } " the rows run by themselves once it answers."
                        } @else { strong { "No row is parked or expired." } }
                        (first_to_expire(first, now))
                    } }
                } @else {
                    p { (shape("warn", "failing")) span {
                        strong { (words::count(needing)) " rows need you." }
                        " They do not run by themselves." @if !calm { (first_to_expire(first, now)) }
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

/// A button that says all that there is to say.
fn order(address: &str, words: &str) -> Markup {
    html! { form class="in-line" method="post" action=(address) { button class="slim" { (words) } } }
}

/// What waits for a service is not lost before then.
fn first_to_expire(first: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Markup {
    html! {
        @if let Some(at) = first {
            " The first one that waits expires " (time(at)) " (in " (clock(&html! { (words::apart(now, at)) })) ")."
        }
    }
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
                                @let down = around.services_of(model.model).iter().find(|name| is_down(name));
                                tr data-key=(model.model) {
                                    th scope="row" { a href=(model_address(&around.base, model.model)) { (around.label(model.model)) } }
                                    td data-l="Last 3 hours" { (chart::spark(around.label(model.model), &model.day)) }
                                    td data-l="Running" { (number(around, model.model, State::Running, model.counts.in_flight)) }
                                    td data-l="Due" { (number(around, model.model, State::Due, model.counts.due)) }
                                    td data-l="Oldest due" {
                                        @if let Some(at) = model.oldest_due {
                                            (clock(&html! { (words::apart(at, house.now)) }))
                                        } @else { span class="zero" { "none" } }
                                    }
                                    td data-l="State" {
                                        @match down {
                                            _ if around.paused(model.model).is_some() => span class="s held" { (shape("held", "")) "paused" },
                                            Some(service) => span class="s held" { (shape("held", "")) "waiting for " (service) },
                                            None if house.hosts.is_empty() => span class="s down" { (shape("down", "")) "no host" },
                                            None => span class="s ok" { (shape("ok", "")) "ok" },
                                        }
                                    }
                                }
                            }
                            @for model in around.elsewhere() {
                                tr class="muted" {
                                    th scope="row" { (around.label(model)) }
                                    td data-l="State" colspan="5" { "no processor here: perhaps another version runs it" }
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
                        (causes_head())
                        tbody {
                            @for model in models {
                                @for group in model.parked.iter().take(MOST_CAUSES) {
                                    (cause(around, model.model, State::Parked, group, "parked"))
                                }
                                @if model.counts.expired > 0 {
                                    tr data-key=(format!("{} expired", model.model)) {
                                        th scope="row" { (around.label(model.model)) }
                                        td data-l="Service" { (services(around, around.names.services_of(model.model))) }
                                        td data-l="Cause" { span class="s expired" { (shape("expired", "")) span class="txt" { "expired without being done" } } }
                                        td class="num" data-l="Rows" {
                                            a class="n" href=(rows_address(&around.base, model.model, State::Expired, None)) { (words::count(model.counts.expired)) }
                                        }
                                        td class="empty" {}
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

/// What is failing and tried again by itself: what may need somebody tomorrow.
fn failing(around: &Around, models: &[ModelOverview]) -> Markup {
    let failing: u32 = models.iter().map(|model| model.counts.failing).sum();
    html! {
        @if failing > 0 {
            section class="sec" aria-labelledby="failing" {
                h2 id="failing" { "Failing: " (words::count(failing)) }
                table class="needs" {
                    caption class="vh" { "Rows that have failed and are tried again by themselves, by model and cause" }
                    (causes_head())
                    tbody {
                        @for model in models {
                            @for group in model.failing.iter().take(MOST_CAUSES) {
                                (cause(around, model.model, State::Failing, group, "failing"))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Causes of a model that are listed; its rows of others are in its list.
const MOST_CAUSES: usize = 20;

fn causes_head() -> Markup {
    html! {
        thead { tr {
            th scope="col" { "Model" } th scope="col" { "Service" } th scope="col" { "Cause" }
            th scope="col" class="num" { "Rows" } th scope="col" { "Oldest" }
        } }
    }
}

fn cause(around: &Around, model: &str, state: State, group: &Group, name: &str) -> Markup {
    let code = group.code.as_deref();
    html! {
        tr data-key=(format!("{model} {}", code.unwrap_or_default())) {
            th scope="row" { (around.label(model)) }
            td data-l="Service" { (services(around, around.names.services_named(model, group))) }
            td data-l="Cause" { span class=(format!("s {name}")) { (shape(name, "")) code class="txt" { (code.unwrap_or_default()) } } }
            td class="num" data-l="Rows" {
                a class="n" href=(rows_address(&around.base, model, state, code)) { (words::count(group.rows)) }
            }
            td data-l="Oldest" { @if let Some(at) = group.oldest { (clock(&html! { (words::apart(at, around.house.now)) })) } }
        }
    }
}

fn services(around: &Around, names: &[String]) -> Markup {
    html! {
        @for (index, name) in names.iter().enumerate() {
            @if index > 0 { ", " }
            a href=(service_address(&around.base, name)) { (name) }
        }
    }
}

fn day(around: &Around, models: &[ModelOverview]) -> Markup {
    let days: Vec<&[_]> = models.iter().map(|model| model.day.as_slice()).collect();
    html! {
        section class="sec" aria-labelledby="day" {
            h2 id="day" { "Last 24 hours" }
            (chart::day(&around.base, &days, &around.house.outages, around.house.now))
        }
    }
}

fn counts_of(counts: &Counts) -> [(State, u32); 6] {
    [
        (State::Scheduled, counts.scheduled),
        (State::Due, counts.due),
        (State::Running, counts.in_flight),
        (State::Failing, counts.failing),
        (State::Parked, counts.parked),
        (State::Expired, counts.expired),
    ]
}

fn all_rows(around: &Around, models: &[ModelOverview]) -> Markup {
    html! {
        section class="sec" aria-labelledby="all" {
            h2 id="all" { "All rows" }
            table class="counts" {
                caption class="vh" { "Rows that are not done, by model and state" }
                thead { tr {
                    th scope="col" { "Model" }
                    @for (state, _) in counts_of(&Counts::default()) { th scope="col" class="num" { (words::state_name(state)) } }
                } }
                tbody {
                    @for model in models {
                        tr {
                            th scope="row" { (around.label(model.model)) }
                            @for (state, count) in counts_of(&model.counts) {
                                td class="num" data-l=(words::state_name(state)) { (number(around, model.model, state, count)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
