//! Somebody's own rows and the messages about them, for programs: what their page shows them, and no more.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Path, Query},
};
use serde::Serialize;

use super::{
    handlers::Body,
    json,
    types::{Instant, Plain, Who},
};
use crate::{
    UserMessage,
    dashboard::{
        Role,
        answer::{Answer, Around, Page},
        handlers::mine::{Older, mark_read, things_of},
        pages::MyRow,
        words,
    },
    store::mine::Standing,
};

#[derive(Serialize)]
struct MyThings {
    now: Instant,
    access: Who,
    rows: Vec<MyRowTold>,
    messages: Vec<MyMessage>,
    /// `before` of the next messages, if there are any.
    older: Option<String>,
}

#[derive(Serialize)]
struct MyRowTold {
    model: &'static str,
    id: String,
    name: String,
    standing: &'static str,
    sentence: String,
    submitted_at: Option<Instant>,
    subject: Option<String>,
    /// Why it was given up.
    note: Option<String>,
    /// The host's own page of it.
    link: Option<String>,
}

impl MyRowTold {
    fn of(around: &Around, MyRow { model, row, link }: MyRow) -> Self {
        let standing = row.standing();
        let (_, _, stands, then) = words::mine(standing);
        MyRowTold {
            model,
            name: around.row_name(model, &row.line.id),
            standing: standing.as_str(),
            sentence: format!("{stands} {then}").trim_end().to_owned(),
            submitted_at: row.line.submitted_at,
            // For everybody: it is what the rows are told apart by.
            subject: row.line.subject.as_deref().filter(|s| !s.is_empty()).map(words::last_three),
            note: row.note.filter(|_| standing == Standing::Canceled),
            link,
            id: row.line.id,
        }
    }
}

#[derive(Serialize)]
struct MyMessage {
    id: String,
    model: String,
    row: String,
    name: String,
    kind: &'static str,
    at: Instant,
    who: Option<String>,
    note: Option<String>,
    read_at: Option<Instant>,
}

impl MyMessage {
    fn of(around: &Around, message: UserMessage) -> Self {
        let UserMessage { id, model, row_id, kind, at, who, note, read_at, .. } = message;
        MyMessage {
            id: id.to_string(),
            name: around.row_name(&model, &row_id),
            model,
            row: row_id,
            kind: kind.as_str(),
            at,
            who,
            note,
            read_at,
        }
    }
}

#[derive(Serialize)]
struct Read {
    read: bool,
}

pub(super) async fn mine(
    page: Data<Page>,
    request: HttpRequest,
    older: actix_web::Result<Query<Older>>,
) -> Answer {
    let access = page.somebody(&request).await?;
    let messages = older?.than(&access)?;
    let around = page.around(&request, access, None).await?;
    let mine = things_of(&page, &around, messages).await?;
    let things = MyThings {
        now: around.house.now,
        access: (&around.access).into(),
        older: mine.older(),
        rows: mine.rows.into_iter().map(|row| MyRowTold::of(&around, row)).collect(),
        messages: mine.messages.into_iter().map(|told| MyMessage::of(&around, told)).collect(),
    };
    Ok(json(StatusCode::OK, &things))
}

pub(super) async fn read(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Plain>,
) -> Answer {
    let access = page.program(&request, Role::Own).await?;
    let Plain {} = body?.into_inner();
    mark_read(&page, &access, &path).await?;
    Ok(json(StatusCode::OK, &Read { read: true }))
}
