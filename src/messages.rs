//! Messages to the users of rows: what a host reads of them.
//!
//! They are written by the store, each in the transaction that makes true what it says (`store::messages`);
//! `docs/messages.md` says when.

use std::fmt;

use chrono::{DateTime, Utc};
use diesel::{QueryResult, connection::LoadConnection};

use crate::store::{Dialect, Moment, messages};

/// What a message says of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageKind {
    /// It is not done 24 hours after its last submission or restart.
    Failing,
    /// It is done, after all: told only those who were told that it was failing.
    Done,
    /// It was given up.
    Canceled,
    /// Somebody wrote a note and sent it along.
    Note,
}

impl MessageKind {
    const ALL: [MessageKind; 4] =
        [MessageKind::Failing, MessageKind::Done, MessageKind::Canceled, MessageKind::Note];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageKind::Failing => "failing",
            MessageKind::Done => "done",
            MessageKind::Canceled => "canceled",
            MessageKind::Note => "note",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        MessageKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A message to the user of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserMessage {
    /// Names it, for [`Messages::mark_read`].
    pub id: i64,
    /// The name of the row's model.
    pub model: String,
    /// The row.
    pub row_id: String,
    /// Which submission of the row it speaks of: when that was asked for.
    pub submitted_at: DateTime<Utc>,
    /// Whom it is for: what the row's `user` column held, as text.
    pub user: String,
    /// What it says.
    pub kind: MessageKind,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// Who canceled the row, or wrote the note.
    pub who: Option<String>,
    /// The note, or why the row was canceled: a person's plain text, to be escaped where it is shown.
    pub note: Option<String>,
    /// When its user marked it as read.
    pub read_at: Option<DateTime<Utc>>,
}

/// The messages of one user, the newest first, read and marked on any connection of the host's.
///
/// ```
/// # include!("../tests/support/doc.rs");
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let conn = &mut doc_connection()?;
/// use asyncable::Messages;
///
/// let mut page = Messages::of("jdoe").unread().load(conn)?;
/// while let Some(last) = page.last() {
///     for message in &page {
///         println!("{} {}: {}", message.model, message.row_id, message.kind);
///     }
///     page = Messages::of("jdoe").unread().before(last).load(conn)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Messages {
    user: String,
    unread: bool,
    before: Option<(Moment, i64)>,
    limit: u32,
}

impl Messages {
    /// A page's length, unless [`limit`](Messages::limit) says otherwise.
    pub const PAGE: u32 = 50;

    /// Of this user, as the models' `user` columns name them. Read and unread ones.
    pub fn of(user: impl Into<String>) -> Self {
        Messages { user: user.into(), unread: false, before: None, limit: Self::PAGE }
    }

    /// Only those that are not marked as read.
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Only those older than this one: the next page, after its last message.
    pub fn before(self, message: &UserMessage) -> Self {
        self.older_than(message.at, message.id)
    }

    pub(crate) fn older_than(mut self, at: DateTime<Utc>, id: i64) -> Self {
        self.before = Some((Moment::at(at), id));
        self
    }

    /// So many at most; between 1 and 1000, by default [`PAGE`](Messages::PAGE).
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, 1000);
        self
    }

    /// Reads a page of them.
    ///
    /// # Errors
    /// What the database said.
    pub fn load<C>(&self, conn: &mut C) -> QueryResult<Vec<UserMessage>>
    where
        C: LoadConnection<Backend: Dialect>,
    {
        messages::of_user(conn, &self.user, self.unread, self.before, self.limit)
    }

    /// Marks a message as read; the first time is kept. Answers `false`, and changes nothing, where this user
    /// has no such message: it is somebody else's, or there is none.
    ///
    /// # Errors
    /// What the database said.
    pub fn mark_read<C>(&self, conn: &mut C, message: i64) -> QueryResult<bool>
    where
        C: LoadConnection<Backend: Dialect>,
    {
        messages::mark_read(conn, &self.user, message, Moment::at(Utc::now()))
    }
}
