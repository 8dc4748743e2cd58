//! A model: whether its rows are worked on and by whom, and pausing it.

use maud::{Markup, html};

use super::{clock, lately, model_address, number, page, service_address, shape, time, told};
use crate::{
    dashboard::{Role, answer::Around, words},
    store::{
        page::{ModelOverview, State},
        pause::Paused,
    },
};

pub(crate) fn model(around: &Around, model: &ModelOverview, done: Option<&str>) -> Markup {
    let name = model.model;
    let label = around.label(name);
    let paused = around.paused(name);
    let (symbol, tint, word) = match paused {
        Some(_) => ("held", "held", "paused"),
        None if around.house.hosts.is_empty() => ("down", "down", "no host is alive"),
        None => ("ok", "ok", "worked on"),
    };
    let main = html! {
        div class="page-head" {
            h1 { (label) }
            span class=(format!("s {tint} lead")) { (shape(symbol, "")) span class="txt" { b { (word) }
                @if let Some(paused) = paused { " since " (time(paused.since.zoned)) }
            } }
        }
        (told(done))
        div class="split ruled" {
            div {
                (now(around, model, paused))
                (hosts(around, model, paused.is_some()))
            }
            aside {
                @if around.access.may(Role::Admin) {
                    section class="side" aria-labelledby="acts" {
                        h2 id="acts" { "Do" }
                        (acts(&model_address(&around.base, name), label, paused.is_some()))
                    }
                }
                (lately(around, &around.house.lately))
            }
        }
    };
    page(around, &format!("{label}, {word}"), "", &main)
}

fn now(around: &Around, model: &ModelOverview, paused: Option<&Paused>) -> Markup {
    let name = model.model;
    let counts = [
        (State::Due, model.counts.due),
        (State::Running, model.counts.in_flight),
        (State::Failing, model.counts.failing),
        (State::Parked, model.counts.parked),
        (State::Expired, model.counts.expired),
    ];
    let services = around.services_of(name);
    html! {
        section class="sec first" aria-labelledby="now" {
            h2 id="now" { "Now" }
            dl class="pairs three" {
                @if let Some(paused) = paused {
                    div { dt { "Paused by" } dd { (paused.who.as_deref().unwrap_or("a message of the host's"))
                        @if let Some(reason) = &paused.reason { small { "“" (reason) "”" } } } }
                }
                div { dt { "Its rows" } dd {
                    @for (index, (state, count)) in counts.into_iter().enumerate() {
                        @if index > 0 { ", " }
                        (number(around, name, state, count)) " " (words::state_name(state))
                    }
                } }
                div { dt { "Services it calls" } dd {
                    @if services.is_empty() { "none is named" }
                    @for (index, service) in services.iter().enumerate() {
                        @if index > 0 { ", " }
                        a href=(service_address(&around.base, service)) { (service) }
                    }
                } }
                div { dt { "First to expire" } dd {
                    @match model.first_expires_at { Some(at) => (time(at)), None => "none of those that wait" }
                } }
            }
        }
    }
}

fn hosts(around: &Around, model: &ModelOverview, paused: bool) -> Markup {
    html! {
        section class="sec" aria-labelledby="hosts" {
            h2 id="hosts" { "Hosts" }
            @if model.hosts.is_empty() { p class="only muted" { "No host that is alive works on it." } }
            @else {
                table {
                    caption class="vh" { "Hosts that work on " (around.label(model.model)) }
                    thead { tr { th scope="col" { "Host" } th scope="col" { "Heard of" } th scope="col" { "State" } } }
                    tbody {
                        @for host in &model.hosts {
                            tr {
                                th scope="row" { (words::host(&host.host)) }
                                td data-l="Heard of" { (clock(&html! { (words::apart(host.seen_at, around.house.now)) " ago" })) }
                                td data-l="State" {
                                    @if host.paused { span class="s held" { (shape("held", "")) "claims nothing of it" } }
                                    @else if paused { span class="s muted" { (shape("wait", "")) "hears of it with its next sweep" } }
                                    @else { span class="s ok" { (shape("ok", "")) "works on it" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn acts(address: &str, label: &str, paused: bool) -> Markup {
    let (order, words, class) =
        if paused { ("resume", "Resume", "go") } else { ("pause", "Pause", "risk") };
    html! {
        form class="stack" method="post" action=(format!("{address}/{order}")) {
            div class="field" { label for="pause-why" { "Because" }
                input id="pause-why" name="why" autocomplete="off" required[!paused]; }
            p { button class=(class) { (words) " " (label) } }
            @if paused { p class="muted small" { "All hosts go on with it." } }
            @else { p class="muted small" { "No host begins any of its rows until somebody resumes it. What runs ends. Rows may expire meanwhile." } }
        }
    }
}
