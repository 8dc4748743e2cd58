//! Many rows at once: what would be done, and what was.

use maud::{Markup, html};

use super::{encoded, page, row_address, rows_address, shape};
use crate::{Restarted, dashboard::answer::Around, store::page::State};

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
