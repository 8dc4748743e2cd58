//! Somebody's own rows, and the messages about them.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Path, Query},
};
use chrono::DateTime;
use serde::Deserialize;

use super::After303;
use crate::{
    Messages,
    dashboard::{
        Role,
        answer::{Answer, Page, Refusal, base, found, respond},
        pages::{self, MyRow},
    },
    store::mine::MOST,
    supervisor::{
        mine::{GetMessages, MarkRead},
        page::{PageAsk, PageFact},
    },
};

/// Messages on a page.
const MESSAGES: usize = 20;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Older {
    /// `<microseconds since 1970>.<id>` of the last message of the page before.
    before: Option<String>,
}

impl Older {
    fn than(&self, messages: Messages) -> Option<Messages> {
        let Some(before) = self.before.as_deref().filter(|before| !before.is_empty()) else {
            return Some(messages);
        };
        let (micros, id) = before.split_once('.')?;
        let at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        Some(messages.older_than(at, id.parse().ok()?))
    }
}

pub(super) async fn mine(
    page: Data<Page>,
    request: HttpRequest,
    older: Query<Older>,
    done: Query<After303>,
) -> Answer {
    let access = page.somebody(&request).await?;
    let user = access.as_user().to_owned();
    let messages = Messages::of(&user).limit(MESSAGES as u32 + 1);
    let messages = older.than(messages).ok_or(Refusal::Wrong("That is no place in a list."))?;
    let around = page.around(&request, access, None).await?;
    let mut rows = Vec::new();
    for (model, _) in &around.names.models {
        let ask = PageAsk::Mine { user: user.clone() };
        if let PageFact::Mine(mine) = page.model(model, ask).await? {
            rows.extend(mine.into_iter().map(|row| {
                let link = page.0.link.as_ref().and_then(|link| link(model, &row.line.id));
                MyRow { model, row, link }
            }));
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.row.line.submitted_at));
    rows.truncate(MOST);
    let mut messages = page.ask(GetMessages(messages)).await?;
    let more = messages.len() > MESSAGES;
    messages.truncate(MESSAGES);
    let shown = pages::mine(&around, &rows, &messages, more, done.done.as_deref());
    Ok(respond(StatusCode::OK, &request, &shown))
}

/// Marks a message as read, if it is theirs. Somebody else's is not there.
pub(super) async fn read(page: Data<Page>, request: HttpRequest, path: Path<String>) -> Answer {
    let access = page.actor(&request, Role::Own).await?;
    let nothing = Refusal::Nothing("There is no such message, or not any more.");
    let Ok(message) = path.parse() else { return Err(nothing.into()) };
    let mark = MarkRead { user: access.as_user().to_owned(), message };
    match page.ask(mark).await? {
        true => Ok(found(&format!("{}/mine?done=read", base(&request)))),
        false => Err(nothing.into()),
    }
}
