//! The rows of a model in a state.

use maud::{Markup, html};

use super::{encoded, page, row_address, rows_address, state_of, subject, time};
use crate::{
    dashboard::{Role, answer::Around, words},
    store::{
        explain::Line,
        page::{List, State},
    },
};

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
                    a class="hit" href=(csv_address(base, model, state, code)) { "CSV" }
                }
            }
        }
    };
    page(around, &title, "rows", &main)
}

/// The whole list as a file.
fn csv_address(base: &str, model: &str, state: State, code: Option<&str>) -> String {
    rows_address(base, model, state, code).replacen("/rows?", "/rows.csv?", 1)
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
