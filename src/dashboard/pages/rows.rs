//! The rows of a model in a state, and those found by what they are about.

use maud::{Markup, html};

use super::{encoded, page, row_address, rows_address, shape, state_of, still_page, subject, time};
use crate::{
    dashboard::{Role, answer::Around, handlers::rows::Filter, words},
    store::{
        bulk,
        explain::Line,
        page::{List, State},
    },
};

/// Ages to choose from, in hours.
const AGES: [(&str, &str); 6] = [
    ("1", "over an hour"),
    ("6", "over 6 hours"),
    ("24", "over a day"),
    ("72", "over 3 days"),
    ("168", "over a week"),
    ("720", "over 30 days"),
];

/// The filter's fields that say something, but for the model and the place.
fn fields(filter: &Filter) -> impl Iterator<Item = (&'static str, &str)> {
    let Filter { state, code, user, age, .. } = filter;
    let fields = [("state", state), ("code", code), ("user", user), ("age", age)];
    fields.into_iter().filter_map(|(name, value)| {
        Some((name, value.as_deref().filter(|value| !value.is_empty())?))
    })
}

/// The address of a filter's rows, without one of its fields.
pub(super) fn filter_address(base: &str, model: &str, filter: &Filter, without: &str) -> String {
    let mut address = format!("{base}/rows?model={}", encoded(model));
    for (name, value) in fields(filter).filter(|(name, _)| *name != without) {
        address += &format!("&{name}={}", encoded(value));
    }
    address
}

/// The filter's fields, for a form that goes on from it.
pub(super) fn hidden(filter: &Filter) -> Markup {
    html! { @for (name, value) in fields(filter) { input type="hidden" name=(name) value=(value); } }
}

fn state(filter: &Filter) -> State {
    filter.state.as_deref().and_then(State::parse).unwrap_or(State::NeedsYou)
}

pub(crate) fn rows(around: &Around, model: &str, filter: &Filter, list: &List) -> Markup {
    let base = &around.base;
    let state = state(filter);
    let name = around.label(model);
    let title = format!("Rows: {name}, {}", words::state_name(state));
    let next = list.next.as_ref().map(|cursor| {
        let place = encoded(&bulk::place(cursor));
        format!("{}&after={place}", filter_address(base, model, filter, ""))
    });
    let main = html! {
        div class="page-head" { h1 { (title) } }
        (form(around, model, filter))
        @if list.lines.is_empty() {
            (nothing(around, model, filter, next.is_some()))
        } @else {
            (table(around, model, filter, &title, &list.lines))
        }
        div class="bar" {
            @if filter.after.is_some() { a class="btn" href=(filter_address(base, model, filter, "")) { "First page" } }
            span class="end muted" {
                @if list.next.is_none() && filter.after.is_none() { (words::counted(list.lines.len(), "row", "rows")) }
                @else { (words::counted(list.lines.len(), "row", "rows")) " on this page" }
            }
            @if let Some(next) = next { a class="btn" href=(next) rel="next" { "Next page" } }
            a class="hit" href=(csv_address(base, model, filter)) { "CSV" }
        }
    };
    page(around, &title, "rows", &main)
}

/// The whole list as a file.
fn csv_address(base: &str, model: &str, filter: &Filter) -> String {
    filter_address(base, model, filter, "").replacen("/rows?", "/rows.csv?", 1)
}

/// What is looked for, and what is filtered by.
fn form(around: &Around, model: &str, filter: &Filter) -> Markup {
    let base = &around.base;
    let state = state(filter);
    let value = |field: &Option<String>| field.clone().unwrap_or_default();
    html! {
        div class="filters" {
            form class="bar" method="get" action=(format!("{base}/rows")) aria-label="Filter" {
                div class="field" { label for="model" { "Model" }
                    select id="model" name="model" {
                        @for (name, _) in &around.names.models { option value=(name) selected[*name == model] { (around.label(name)) } }
                    }
                }
                div class="field" { label for="state" { "State" }
                    select id="state" name="state" {
                        @for known in State::ALL { option value=(known.as_str()) selected[known == state] { (words::state_name(known)) } }
                    }
                }
                div class="field" { label for="code" { "Cause" }
                    input id="code" name="code" value=(value(&filter.code)) autocomplete="off";
                }
                div class="field" { label for="user" { "User" }
                    input id="user" name="user" value=(value(&filter.user)) autocomplete="off";
                }
                div class="field" { label for="age" { "Age" }
                    select id="age" name="age" {
                        option value="" { "any" }
                        @for (hours, words) in AGES { option value=(hours) selected[filter.age.as_deref() == Some(hours)] { (words) } }
                    }
                }
                button { "Filter" }
            }
            form class="bar" method="post" action=(format!("{base}/find")) aria-label="Find" {
                input type="hidden" name="model" value=(model);
                div class="field" { label for="what" { "Find by id or what it is about" }
                    input id="what" name="what" autocomplete="off" required;
                }
                button { "Find" }
            }
        }
    }
}

fn nothing(around: &Around, model: &str, filter: &Filter, more: bool) -> Markup {
    let base = &around.base;
    let names = [("code", "cause"), ("user", "user"), ("age", "age")];
    let narrow: Vec<(&str, &str)> = fields(filter).filter(|(name, _)| *name != "state").collect();
    html! {
        p class="only" {
            "No rows: " (around.label(model)) ", " (words::state_name(state(filter)))
            @for (name, value) in &narrow {
                @let word = names.iter().find(|(field, _)| field == name).map_or(*name, |(_, word)| word);
                ", " (word) " "
                @if *name == "age" { (AGES.iter().find(|(hours, _)| hours == value).map_or(*value, |(_, words)| words)) } @else { code { (value) } }
            }
            "."
            @if more { " Only the first 10,000 rows were looked at; the next page goes on." }
            @for (name, _) in &narrow {
                @let word = names.iter().find(|(field, _)| field == name).map_or(*name, |(_, word)| word);
                " " a href=(filter_address(base, model, filter, name)) { "Remove the " (word) "." }
            }
            @if narrow.len() > 1 { " " a href=(rows_address(base, model, state(filter), None)) { "Remove all." } }
        }
    }
}

fn table(around: &Around, model: &str, filter: &Filter, title: &str, lines: &[Line]) -> Markup {
    let base = &around.base;
    let (operate, admin) = (around.access.may(Role::Operate), around.access.may(Role::Admin));
    let restarts = operate && lines.iter().any(Line::may_restart);
    let cancels = admin && lines.iter().any(Line::may_cancel);
    let ticks = restarts || cancels;
    html! {
        form method="post" action=(format!("{base}/bulk/{}", encoded(model))) aria-label="Rows" {
            (hidden(filter))
            (lines_table(around, model, title, lines, ticks))
            @if ticks {
                div class="bar stick" {
                    @if restarts { button class="go" name="do" value="restart" { "Restart ticked" } }
                    @if cancels { button class="risk" name="do" value="cancel" { "Cancel ticked" } }
                    span class="end" {
                        label class="check" { input type="checkbox" name="all" value="1"; span { "All of this list, not only this page" } }
                    }
                }
            }
        }
    }
}

fn lines_table(around: &Around, model: &str, title: &str, lines: &[Line], ticks: bool) -> Markup {
    html! {
        table class="rows" {
            caption class="vh" { (title) }
            thead { tr {
                @if ticks { th scope="col" { span class="vh" { "Tick" } } }
                th scope="col" { "Row" } th scope="col" { "State" } th scope="col" { "Submitted" }
                th scope="col" { "Last try" } th scope="col" class="num" { "Failures" }
                th scope="col" { "User" } th scope="col" { "About" } th scope="col" { "Cause" }
            } }
            tbody data-lines { @for line in lines { (row_line(around, model, line, ticks)) } }
        }
    }
}

fn row_line(around: &Around, model: &str, line: &Line, ticks: bool) -> Markup {
    let name = around.row_name(model, &line.id);
    let may = line.may_restart() || around.access.may(Role::Admin) && line.may_cancel();
    html! {
        tr data-key=(line.id) {
            @if ticks {
                td class="ticks" {
                    @if may {
                        label class="tick" {
                            input type="checkbox" name="row" value=(line.id);
                            span class="vh" { "Tick " (name) }
                        }
                    }
                }
            }
            th scope="row" { a href=(row_address(&around.base, model, &line.id)) { (name) } }
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

/// Rows that were left alone, as they stand now.
pub(super) fn left(around: &Around, model: &str, lines: &[Line]) -> Markup {
    lines_table(around, model, "Rows that were left alone, as they are now", lines, false)
}

pub(crate) fn found(around: &Around, model: &str, list: &List) -> Markup {
    let title = match list.lines.len() {
        0 => "Nothing found".to_owned(),
        count => format!("Found {}", words::counted(count, "row", "rows")),
    };
    let main = html! {
        div class="page-head" { h1 { (title) } }
        (form(around, model, &Filter::default()))
        @if list.lines.is_empty() {
            p class="only" { (shape("unknown", "muted")) " No row of " (around.label(model)) " has that number, and none is about it." }
        } @else {
            (lines_table(around, model, &title, &list.lines, false))
        }
    };
    still_page(around, &title, "rows", &main)
}
