//! Somebody's own rows: no causes, no tries, no services, and nobody else's.

use maud::{Markup, html};

use super::{page, row_address, shape, time, told};
use crate::{
    MessageKind, UserMessage,
    dashboard::{Role, answer::Around, words},
    store::mine::{Mine, Standing},
};

/// A row of somebody's, with the host's own page of it.
pub(crate) struct MyRow {
    pub(crate) model: &'static str,
    pub(crate) row: Mine,
    pub(crate) link: Option<String>,
}

/// `older`: where older messages begin, if there are any.
pub(crate) fn mine(
    around: &Around,
    rows: &[MyRow],
    messages: &[UserMessage],
    older: Option<&str>,
    done: Option<&str>,
) -> Markup {
    let unread = messages.iter().filter(|message| message.read_at.is_none()).count();
    let title = match unread {
        0 => words::MINE.to_owned(),
        count => format!("({count} unread) {}", words::MINE),
    };
    let main = html! {
        div class="mine" {
            div class="page-head" { h1 { (words::MINE) } }
            (told(done))
            @if rows.is_empty() { p class="only" { "Nothing of yours has been submitted yet." } }
            @else { ul class="lines" { @for row in rows { (my_row(around, row)) } } }
            section class="msgs" aria-labelledby="messages" {
                h2 id="messages" { "Messages" }
                @if messages.is_empty() { p class="only muted" { "There are none." } }
                @else { ul class="lines" { @for message in messages { (my_message(around, message)) } } }
                @if let Some(older) = older {
                    p { a class="btn" href=(format!("{}/mine?before={older}", around.base)) { "Older messages" } }
                }
            }
        }
    };
    page(around, &title, "mine", &main)
}

fn my_row(around: &Around, MyRow { model, row, link }: &MyRow) -> Markup {
    let line = &row.line;
    let name = around.row_name(model, &line.id);
    let address = match link {
        Some(link) => Some(link.clone()),
        None if around.access.may(Role::View) => Some(row_address(&around.base, model, &line.id)),
        None => None,
    };
    let (symbol, tint, standing, then) = words::mine(row.standing());
    html! {
        li {
            (shape(symbol, tint))
            div {
                h2 {
                    @if let Some(address) = address { a href=(address) { (name) } } @else { (name) }
                    @if let Some(subject) = line.subject.as_deref().filter(|subject| !subject.is_empty()) {
                        " " span class="muted file" { "(" (words::last_three(subject)) ")" }
                    }
                }
                p {
                    b class=(tint) { (standing) }
                    @if let Some(at) = line.submitted_at { " Submitted " (time(at)) "." }
                    @if !then.is_empty() { " " (then) }
                    @if let Some(note) = row.note.as_ref().filter(|_| row.standing() == Standing::Canceled) {
                        " " span class="said" { "“" (note) "”" }
                    }
                }
            }
        }
    }
}

fn my_message(around: &Around, message: &UserMessage) -> Markup {
    let name = around.row_name(&message.model, &message.row_id);
    let who = message.who.as_deref().unwrap_or("Support");
    html! {
        li {
            (shape("note", "muted"))
            div class="with" {
                p {
                    (time(message.at)) " "
                    @match message.kind {
                        MessageKind::Failing => { (name) " " (words::MESSAGE_FAILING) }
                        MessageKind::Done => { (name) " " (words::MESSAGE_DONE) }
                        MessageKind::Canceled => { (who) " canceled " (name) }
                        MessageKind::Note => { (who) " about " (name) }
                    }
                    @if let Some(note) = &message.note { ": " span class="said" { "“" (note) "”" } }
                    @else if message.kind == MessageKind::Canceled { "." }
                }
                @if message.read_at.is_none() {
                    form method="post" action=(format!("{}/mine/messages/{}/read", around.base, message.id)) {
                        button { "Mark as read" span class="vh" { ": " (name) ", " (words::short(message.at)) } }
                    }
                } @else { span class="muted small" { "read" } }
            }
        }
    }
}
