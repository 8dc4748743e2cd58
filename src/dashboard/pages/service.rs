//! A service: whether it answers, what waits for it, and what can be done.

use maud::{Markup, html};

use super::{
    clock, clock_time, lately, number, page, row_address, service_address, shape, time, told,
};
use crate::{
    dashboard::{Role, answer::Around, words},
    store::page::State,
    supervisor::page::{Waits, limits_of},
};

pub(crate) fn service(
    around: &Around,
    name: &str,
    waiting: &[Waits],
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
                                @else if let Some(at) = state.next_probe_at { (clock_time(at.zoned)) }
                                small { (state.probes) " tries were not answered" }
                            } }
                        }
                        @if let Some(held) = held {
                            div { dt { "Held by" } dd { (held.by) small { "“" (held.reason) "”" } } }
                            div { dt { "Until" } dd { @if let Some(until) = held.until { (time(until.zoned)) } @else { "somebody releases it" } } }
                        }
                        div { dt { "Rows that need it" } dd {
                            @for (index, Waits { model, counts, .. }) in waiting.iter().enumerate() {
                                @if index > 0 { ", " }
                                (around.label(model)) " " (number(around, model, State::Due, counts.due)) " due, "
                                (number(around, model, State::Failing, counts.failing)) " failing"
                            }
                        } }
                        div { dt { "In each process" } dd { (limits(name, waiting)) } }
                    }
                }
                (tries(around, open.is_some()))
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

/// What it was asked with while it was down: each try takes another row.
fn tries(around: &Around, is_open: bool) -> Markup {
    let probes = &around.house.probes;
    html! {
        @if is_open || !probes.is_empty() {
            section class="sec" aria-labelledby="tries" {
                h2 id="tries" { "Tries" }
                @if probes.is_empty() { p class="only muted" { "None was left unanswered yet." } }
                @else {
                    table {
                        caption class="vh" { "The last tries that were not answered, newest first" }
                        thead { tr { th scope="col" { "When" } th scope="col" { "With" } th scope="col" { "Cause" } } }
                        tbody {
                            @for probe in probes {
                                tr {
                                    th scope="row" { (time(probe.at)) }
                                    td data-l="With" { a href=(row_address(&around.base, &probe.model, &probe.row_id)) { (around.row_name(&probe.model, &probe.row_id)) } }
                                    td data-l="Cause" { @if probe.code.is_empty() { "no answer" } @else { code { (probe.code) } } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How hard it may be called, in words.
fn limits(name: &str, waiting: &[Waits]) -> String {
    match limits_of(name, waiting) {
        (None, None) => "no limit but the models' own".to_owned(),
        (Some(starts), None) => format!("at most {starts} starts a second"),
        (None, Some(at_once)) => format!("at most {at_once} at once"),
        (Some(starts), Some(at_once)) => {
            format!("at most {starts} starts a second, {at_once} at once")
        }
    }
}
