//! Many rows at once: what would be done, how far it has come, and what was done.

use maud::{Markup, html};

use super::{
    clock, clock_time, encoded, page, row_address,
    rows::{filter_address, hidden, left},
    shape, still_page, time,
};
use crate::{
    dashboard::{Role, answer::Around, bulk::MOST_FOR_OPERATE, handlers::rows::Filter, words},
    store::{
        Moment,
        bulk::{Bulk, Deed, Preview},
        explain::Line,
        page::State,
    },
};

pub(crate) fn bulk_address(base: &str, model: &str, id: &str) -> String {
    format!("{base}/bulk/{}/{}", encoded(model), encoded(id))
}

/// A deed as an order, while it is done, and once it is.
fn verbs(deed: Deed) -> (&'static str, &'static str, &'static str) {
    match deed {
        Deed::Restart => ("Restart", "Restarting", "Restarted"),
        Deed::Cancel => ("Cancel", "Canceling", "Canceled"),
    }
}

pub(crate) fn bulk_preview(
    around: &Around,
    model: &str,
    filter: &Filter,
    deed: Deed,
    preview: &Preview,
    token: &str,
) -> Markup {
    let (order, ..) = verbs(deed);
    let (name, count) = (around.label(model), words::count(preview.rows));
    let title = match preview.rows {
        0 => format!("Nothing to {} in {name}", order.to_lowercase()),
        _ => format!("{order} {count} of {name}?"),
    };
    let back = filter_address(&around.base, model, filter, "");
    let too_many = preview.rows > MOST_FOR_OPERATE && !around.access.may(Role::Admin);
    let main = html! {
        div class="page-head" { h1 { (title) } }
        @if preview.rows == 0 {
            p class="only" { "None of these rows stands so that it can be done: they run, are due, or are processed." }
            p class="after" { a class="btn" href=(back) { "Back" } }
        } @else {
            div class="ask" {
                ul class="lines" {
                    @for group in &preview.groups {
                        li { (shape(if group.code.is_some() { "parked" } else { "expired" }, "muted")) span {
                            span class="n" { (words::count(group.rows)) } " "
                            @match &group.code { Some(code) => code { (code) }, None => "without a failure" }
                            @if let Some(at) = group.oldest { ", the oldest submitted " (time(at)) }
                        } }
                    }
                    (advice(deed, preview))
                    @if let Some(named) = &preview.named { (named_rows(around, model, named)) }
                }
                @if too_many {
                    p class="why" role="alert" { "More than " (words::count(MOST_FOR_OPERATE)) " rows at once need the role `admin`." }
                    p { a class="btn" href=(back) { "Back" } }
                } @else {
                    (confirm(around, model, filter, deed, preview, token, &back))
                }
            }
            (leave_parked(around, model, filter, deed, preview))
        }
    };
    still_page(around, &title, "rows", &main)
}

fn advice(deed: Deed, preview: &Preview) -> Markup {
    let parked = matches!(preview.selection.state, State::Parked | State::NeedsYou);
    html! {
        @if deed == Deed::Restart {
            @if parked {
                li { (shape("warn", "failing")) span {
                    "Rows that are parked because of their data will most likely be refused again, until somebody mends it."
                } }
            }
            li { (shape("wait", "muted")) span { "Steps that are done are not repeated. Each service starts no more at once than it allows." } }
        } @else {
            li { (shape("warn", "failing")) span { "Canceling does not undo what the services have done. A restart takes a row up again." } }
        }
        li { (shape("rows", "muted")) span {
            "Rows that have changed since " (clock_time(preview.now)) " are left alone, and so are those that come later."
        } }
    }
}

fn named_rows(around: &Around, model: &str, named: &[String]) -> Markup {
    const SHOWN: usize = 20;
    html! {
        li { (shape("rows", "muted")) span {
            @for (index, id) in named.iter().take(SHOWN).enumerate() {
                @if index > 0 { ", " }
                a href=(row_address(&around.base, model, id)) { (id) }
            }
            @if named.len() > SHOWN { " and " (named.len() - SHOWN) " more" }
        } }
    }
}

fn confirm(
    around: &Around,
    model: &str,
    filter: &Filter,
    deed: Deed,
    preview: &Preview,
    token: &str,
    back: &str,
) -> Markup {
    let (order, ..) = verbs(deed);
    let seen = Moment::at(preview.now).epoch_micros();
    let kept =
        Filter { state: Some(preview.selection.state.as_str().to_owned()), ..filter.clone() };
    html! {
        form method="post" action=(format!("{}/bulk/{}/begin", around.base, encoded(model))) {
            input type="hidden" name="do" value=(deed.as_str());
            input type="hidden" name="id" value=(token);
            input type="hidden" name="seen" value=(seen);
            (hidden(&kept))
            @match &preview.named {
                Some(named) => { @for id in named { input type="hidden" name="row" value=(id); } },
                None => { input type="hidden" name="promised" value=(preview.rows); },
            }
            div class="field" { label for="why" { "Why (kept in the history)" }
                textarea id="why" name="why" rows="2" maxlength="4000" required {} }
            @if deed == Deed::Restart {
                div class="field" { label for="pace" { "How many a minute (empty: as fast as the services allow)" }
                    input id="pace" name="pace" inputmode="numeric" pattern="[0-9]*" autocomplete="off"; }
            } @else {
                div class="field" { label for="typed" { "Type " (preview.rows) " to confirm" }
                    input id="typed" name="typed" inputmode="numeric" pattern="[0-9]*" autocomplete="off" required; }
            }
            div class="bar" {
                button class=(if deed == Deed::Restart { "go" } else { "risk" }) { (order) " " (words::count(preview.rows)) }
                a class="btn" href=(back) { "Back" }
            }
        }
    }
}

/// Another preview, without the rows that are parked.
fn leave_parked(
    around: &Around,
    model: &str,
    filter: &Filter,
    deed: Deed,
    preview: &Preview,
) -> Markup {
    html! {
        @if preview.selection.state == State::NeedsYou {
            form class="ask" method="post" action=(format!("{}/bulk/{}", around.base, encoded(model))) {
                input type="hidden" name="do" value=(deed.as_str());
                input type="hidden" name="leave_parked" value="1";
                (hidden(filter))
                @match &preview.named {
                    Some(named) => { @for id in named { input type="hidden" name="row" value=(id); } },
                    None => { input type="hidden" name="all" value="1"; },
                }
                p { button { "Leave the parked ones out" } }
            }
        }
    }
}

pub(crate) fn bulk(around: &Around, model: &str, bulk: &Bulk, left_alone: &[Line]) -> Markup {
    let (_, doing, done) = verbs(bulk.deed);
    let name = around.label(model);
    let promised = match bulk.promised {
        u32::MAX => "more than 10,000".to_owned(),
        promised => words::count(promised),
    };
    let title = match bulk.ended_at {
        None => format!("{doing} {promised} of {name}"),
        Some(_) => format!("{done} {} of {promised} of {name}", words::whole(bulk.done)),
    };
    let goes_on = bulk.ended_at.is_none();
    let main = html! {
        div class="page-head" { h1 { (title) } }
        div class="ask" data-every=[goes_on.then_some("2")] {
            @if goes_on {
                noscript { p class="muted" { a href=(bulk_address(&around.base, model, &bulk.id)) { "Show how far it has come" } } }
                p role="status" {
                    @if bulk.promised != u32::MAX {
                        progress max=(bulk.promised) value=(bulk.done + bulk.left_alone) aria-label="How far it has come" {}
                        " "
                    }
                    span class="n" { (words::whole(bulk.done)) } " of " (promised) " are done. This page may be closed: it goes on."
                }
            }
            dl class="kv" {
                div { dt { "by" } dd { (bulk.who) ": “" (bulk.reason) "”" } }
                div { dt { "since" } dd { (time(bulk.began_at))
                    @if goes_on { " (" (clock(&html! { (words::apart(bulk.began_at, around.house.now)) })) ")" }
                } }
                @if let Some(at) = bulk.ended_at { div { dt { "ended" } dd { (time(at)) } } }
                @if let Some(who) = &bulk.stopped_by { div { dt { "stopped by" } dd { (who) } } }
                @if bulk.pace > 0 { div { dt { "pace" } dd { (bulk.pace) " a minute" } } }
                div { dt { "rows" } dd { (chosen(bulk)) } }
            }
            (left_words(bulk))
            @if goes_on && around.access.may(Role::Operate) {
                form method="post" action=(format!("{}/stop", bulk_address(&around.base, model, &bulk.id))) {
                    p { button class="risk" { "Stop" } " " span class="muted small" { "What is done stays done." } }
                }
            }
        }
        @if !left_alone.is_empty() {
            section class="sec" aria-labelledby="left" {
                h2 id="left" { "Left alone" }
                (left(around, model, left_alone))
            }
        }
        p class="after" { a class="btn" href=(back(around, model, bulk)) { "Back to the rows" } }
    };
    page(around, &title, "rows", &main)
}

/// Which rows it is about, in words.
fn chosen(bulk: &Bulk) -> Markup {
    let chosen = &bulk.chosen;
    let state = State::parse(&chosen.state).map_or("", words::state_name);
    html! {
        @match &chosen.rows {
            Some(rows) => (words::counted(rows.len(), "row", "rows")),
            None => "all",
        }
        ", " (state)
        @if let Some(code) = &chosen.code { ", cause " code { (code) } }
        @if let Some(user) = &chosen.user { ", of " (user) }
        @if chosen.before.is_some() { ", of some age" }
    }
}

fn left_words(bulk: &Bulk) -> Markup {
    let left = bulk.left();
    html! {
        @if left > 0 {
            p class="s failing" { (shape("warn", "")) span class="txt" {
                (words::whole(left)) " had changed meanwhile and were left alone."
            } }
        }
    }
}

fn back(around: &Around, model: &str, bulk: &Bulk) -> String {
    let chosen = &bulk.chosen;
    let filter = Filter {
        state: Some(chosen.state.clone()),
        code: chosen.code.clone(),
        user: chosen.user.clone(),
        ..Filter::default()
    };
    filter_address(&around.base, model, &filter, "")
}
