//! A row: why it stands where it stands, what was tried, and what can be done.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{
    clock, day_time, page, row_address, rows_address, shape, state_of, subject, time, told,
};
use crate::{
    Explanation,
    dashboard::{
        Role,
        answer::Around,
        words::{self, Piece},
    },
    store::{
        explain::Line,
        page::{Entry, Past, RowPage, State},
        tries::Try,
    },
};

pub(crate) fn row(
    around: &Around,
    model: &str,
    row: &RowPage,
    link: Option<&str>,
    done: Option<&str>,
) -> Markup {
    let line = &row.line;
    let name = around.row_name(model, &line.id);
    let (_, _, state) = words::state(&line.explanation);
    let address = row_address(&around.base, model, &line.id);
    let operate = around.access.may(Role::Operate);
    let main = html! {
        div class="page-head" {
            p class="crumb" { a class="hit" href=(rows_address(&around.base, model, State::Parked, None)) { "Rows" } " / " (around.label(model)) }
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
                        p class="why" { (why(row)) }
                        dl class="kv" {
                            @if let Some(code) = &line.code {
                                div { dt { "cause" } dd { code { (code) }
                                    @if let Some(place) = last_try(row).and_then(|t| t.place.as_ref()) { ", at " code { (place) } }
                                } }
                            }
                            @if operate {
                                @if let Some(error) = last_try(row).and_then(|t| t.error.as_ref()) {
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
                        @if let Some(at) = line.expires_at {
                            div { dt { @if at > around.house.now { "Expires" } @else { "Expired" } } dd { (time(at))
                                @if at > around.house.now { " (in " (clock(&html! { (words::apart(around.house.now, at)) })) ")" } } }
                        }
                        div { dt { "Failures" } dd { (line.failures) } }
                        @if let Some(user) = &line.user { div { dt { "User" } dd { (user) } } }
                        @if line.subject.is_some() { div { dt { "About" } dd { (subject(around, line.subject.as_deref())) } } }
                    }
                }
                (steps(&row.past, around.access.may(Role::Admin)))
                (tries(&row.past, &name, &address))
                (notes(&row.past, &html! { @if operate { (note_form(line, &address)) } }))
            }
            aside {
                @if operate {
                    section class="side" aria-labelledby="acts" {
                        h2 id="acts" { "Do" }
                        (acts(line, &address))
                    }
                }
                (history(&row.past))
            }
        }
    };
    page(around, &format!("{name}, {state}"), "rows", &main)
}

/// What is kept of a row that the host has deleted.
pub(crate) fn gone(around: &Around, model: &str, id: &str, past: &Past) -> Markup {
    let name = around.row_name(model, id);
    let address = row_address(&around.base, model, id);
    let main = html! {
        div class="page-head" {
            p class="crumb" { a class="hit" href=(rows_address(&around.base, model, State::NeedsYou, None)) { "Rows" } " / " (around.label(model)) }
            h1 { (name) }
        }
        div class="split ruled" {
            div {
                section class="sec first" aria-labelledby="why" {
                    h2 id="why" { "Why" }
                    p class="why" { "There is no row " (id) " in " (around.label(model)) " any more. What was kept of it is here." }
                }
                (steps(past, around.access.may(Role::Admin)))
                (tries(past, &name, &address))
                (notes(past, &html! {}))
            }
            aside { (history(past)) }
        }
    };
    page(around, &format!("{name}, gone"), "rows", &main)
}

fn history(past: &Past) -> Markup {
    html! {
        section class="side" aria-labelledby="history" {
            h2 id="history" { "History" }
            @if past.actions.is_empty() { p class="muted" { "Nobody has done anything to it." } }
            ul class="log" {
                @for entry in &past.actions { li { (day_time(entry.at)) span { (done_to(entry)) } } }
            }
        }
    }
}

fn done_to(entry: &Entry) -> Markup {
    html! {
        (entry.who) " " (words::action(entry.action.as_deref().unwrap_or_default())) " it"
        @if let Some(text) = &entry.text { ": “" (text) "”" }
    }
}

/// Why it stands where it stands, what happens next, and what can be done.
fn why(row: &RowPage) -> Markup {
    let explanation = &row.line.explanation;
    html! {
        @for piece in words::why(explanation) {
            @match piece { Piece::Text(text) => (text), Piece::At(at) => (time(at)) }
        }
        " "
        @match explanation {
            Explanation::Processed { at } => (after_tries(row, *at)),
            Explanation::Canceled { .. } => (who_canceled(row)),
            _ => "",
        }
        (words::advice(explanation))
    }
}

fn last_try(row: &RowPage) -> Option<&Try> {
    row.past.tries.first().filter(|_| row.past.newest)
}

/// How long it took, where it was not done at once.
fn after_tries(row: &RowPage, done_at: DateTime<Utc>) -> Markup {
    let tries = last_try(row).map_or(0, |last| last.number);
    html! {
        @if let Some(submitted) = row.line.submitted_at.filter(|_| tries > 1) {
            "That took " (tries) " tries in " (words::apart(submitted, done_at)) ". "
        }
    }
}

fn who_canceled(row: &RowPage) -> Markup {
    let canceled =
        row.past.actions.iter().find(|entry| entry.action.as_deref() == Some("canceled"));
    html! {
        @if let Some(entry) = canceled {
            "By " (entry.who) @if let Some(text) = &entry.text { ": “" (text) "”" } ". "
        }
    }
}

fn steps(past: &Past, admin: bool) -> Markup {
    html! {
        @if !past.steps.is_empty() {
            section class="sec" aria-labelledby="steps" {
                h2 id="steps" { "Steps" }
                ul class="lines tight" {
                    @for step in &past.steps {
                        li {
                            @if let Some(result) = &step.result {
                                (shape("ok", "ok"))
                                span { code class="n" { (step.name) } " " b class="ok" { "done" }
                                    br; span class="muted" { "a restart does not call again" }
                                    @if admin { br; code { (result) } } }
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

fn tries(past: &Past, name: &str, address: &str) -> Markup {
    html! {
        section class="sec" aria-labelledby="tries" {
            h2 id="tries" { "Tries" }
            @if past.tries.is_empty() { p class="only muted" { "None has failed." } }
            @else {
                table {
                    caption class="vh" { "Tries of " (name) ", newest first" }
                    thead { tr {
                        th scope="col" { "Try" } th scope="col" { "Began" } th scope="col" { "Host" }
                        th scope="col" class="num" { "Took" } th scope="col" { "Outcome" } th scope="col" { "Step" } th scope="col" { "Cause" }
                    } }
                    tbody {
                        @for attempt in &past.tries {
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
                @if let Some(older) = past.older {
                    p class="after" { a class="hit" href=(format!("{address}?before={}", older.epoch_micros())) { "Older tries" } }
                }
            }
        }
    }
}

fn notes(past: &Past, form: &Markup) -> Markup {
    html! {
        section class="sec" aria-labelledby="notes" {
            h2 id="notes" { "Notes" }
            div class="stack" {
                @if past.notes.is_empty() { p class="only muted" { "None." } }
                ul class="log" {
                    @for note in &past.notes {
                        li { (day_time(note.at))
                            span { (note.who) ": " span class="said" { (note.text.as_deref().unwrap_or_default()) } } }
                    }
                }
                (form)
            }
        }
    }
}

fn note_form(line: &Line, address: &str) -> Markup {
    html! {
        form method="post" action=(format!("{address}/note")) {
            div class="field" { label for="note" { "Note, not edited or deleted later" }
                textarea id="note" name="why" rows="2" maxlength="4000" required {} }
            div class="bar mid after" {
                @if let Some(user) = line.user.as_ref().filter(|user| !user.is_empty()) {
                    label class="check" { input type="checkbox" name="send" value="1"; "also send to " (user) }
                }
                button { "Add note" }
            }
        }
    }
}

fn acts(line: &Line, address: &str) -> Markup {
    let (restart, cancel) = (line.may_restart(), line.may_cancel());
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
