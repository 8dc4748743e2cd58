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
    Messages, UserMessage,
    dashboard::{
        Access, Role,
        answer::{Answer, Around, Page, Refusal, base, found, respond},
        orders::NO_MESSAGE,
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
pub(crate) struct Older {
    /// `<microseconds since 1970>.<id>` of the last message of the page before.
    before: Option<String>,
}

impl Older {
    /// Somebody's messages from there on, one more than are shown.
    pub(crate) fn than(&self, access: &Access) -> Result<Messages, Refusal> {
        let messages = Messages::of(access.as_user()).limit(MESSAGES as u32 + 1);
        let Some(before) = self.before.as_deref().filter(|before| !before.is_empty()) else {
            return Ok(messages);
        };
        let place = || {
            let (micros, id) = before.split_once('.')?;
            Some((DateTime::from_timestamp_micros(micros.parse().ok()?)?, id.parse().ok()?))
        };
        let (at, id) = place().ok_or(Refusal::Wrong("That is no place in a list."))?;
        Ok(messages.older_than(at, id))
    }
}

/// What is somebody's.
pub(crate) struct Things {
    pub(crate) rows: Vec<MyRow>,
    pub(crate) messages: Vec<UserMessage>,
    /// There are older messages.
    more: bool,
}

impl Things {
    /// `before` of the next messages, if there are any.
    pub(crate) fn older(&self) -> Option<String> {
        let last = self.messages.last().filter(|_| self.more)?;
        Some(format!("{}.{}", last.at.timestamp_micros(), last.id))
    }
}

/// Somebody's rows, those submitted last first, and a page of their messages.
pub(crate) async fn things_of(
    page: &Page,
    around: &Around,
    messages: Messages,
) -> Result<Things, Refusal> {
    let mut rows = Vec::new();
    for (model, _) in &around.names.models {
        let ask = PageAsk::Mine { user: around.access.as_user().to_owned() };
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
    Ok(Things { rows, messages, more })
}

/// Marks a message as read, if it is theirs. Somebody else's is not there.
pub(crate) async fn mark_read(page: &Page, access: &Access, message: &str) -> Result<(), Refusal> {
    let Ok(message) = message.parse() else { return Err(NO_MESSAGE) };
    let user = access.as_user().to_owned();
    if page.ask(MarkRead { user, message }).await? { Ok(()) } else { Err(NO_MESSAGE) }
}

pub(super) async fn mine(
    page: Data<Page>,
    request: HttpRequest,
    older: Query<Older>,
    done: Query<After303>,
) -> Answer {
    let access = page.somebody(&request).await?;
    let messages = older.than(&access)?;
    let around = page.around(&request, access, None).await?;
    let mine = things_of(&page, &around, messages).await?;
    let older = mine.older();
    let shown =
        pages::mine(&around, &mine.rows, &mine.messages, older.as_deref(), done.done.as_deref());
    Ok(respond(StatusCode::OK, &request, &shown))
}

pub(super) async fn read(page: Data<Page>, request: HttpRequest, path: Path<String>) -> Answer {
    let access = page.actor(&request, Role::Own).await?;
    mark_read(&page, &access, &path).await?;
    Ok(found(&format!("{}/mine?done=read", base(&request))))
}
