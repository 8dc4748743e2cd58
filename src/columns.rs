//! Which columns of a model say where its work stands: checked by the compiler, kept as names.
//!
//! A [`Columns`] is a `const` of the model. The builder takes Diesel's column types, checks that each
//! belongs to the model's table and has the right SQL type, and keeps only the names. So a mistake is
//! an error where the host wrote it, and the store needs no type parameter per column.

use std::marker::PhantomData;

use diesel::{query_source::Column, sql_types};

use crate::asyncable::KeyType;

/// How a column keeps an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// `Timestamp`: UTC without saying so.
    Naive,
    /// `Timestamptz` (`TimestamptzSqlite` on SQLite).
    Zoned,
}

/// A column that holds an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeColumn {
    pub(crate) name: &'static str,
    pub(crate) zone: Zone,
}

/// A column that can keep an instant. Closed.
#[diagnostic::on_unimplemented(
    message = "the column `{Self}` cannot keep an instant",
    note = "its type must be `Nullable<Timestamp>`, or `Nullable<Timestamptz>` (`TimestamptzSqlite` on SQLite)"
)]
pub trait InstantColumn: Column + Copy {
    #[doc(hidden)]
    const ZONED: bool;
}

// What is wrong is the host's column: the trait of its SQL type would be one step too far.
#[diagnostic::do_not_recommend]
impl<C: Column<SqlType: Time> + Copy> InstantColumn for C {
    const ZONED: bool = <C::SqlType as Time>::ZONED;
}

/// The SQL types an instant may have.
#[doc(hidden)]
pub trait Time {
    const ZONED: bool;
}

impl Time for sql_types::Nullable<sql_types::Timestamp> {
    const ZONED: bool = false;
}

#[cfg(feature = "postgres")]
impl Time for sql_types::Nullable<sql_types::Timestamptz> {
    const ZONED: bool = true;
}

#[cfg(feature = "sqlite")]
impl Time for sql_types::Nullable<sql_types::TimestamptzSqlite> {
    const ZONED: bool = true;
}

/// A column that can keep a row's last error. Closed.
#[diagnostic::on_unimplemented(
    message = "the column `{Self}` cannot keep a row's last error",
    note = "its type must be `Nullable<Text>`"
)]
pub trait ErrorColumn: Column + Copy {}

#[diagnostic::do_not_recommend]
impl<C: Column<SqlType = sql_types::Nullable<sql_types::Text>> + Copy> ErrorColumn for C {}

/// A column that can say whose row it is, or what it is about. Closed.
#[diagnostic::on_unimplemented(
    message = "the column `{Self}` cannot name a user or a subject",
    note = "its type must be Text, Integer, BigInt, on PostgreSQL Uuid, or `Nullable` of one of them"
)]
pub trait NameColumn: Column + Copy {
    #[doc(hidden)]
    const TYPE: KeyType;
}

#[diagnostic::do_not_recommend]
impl<C: Column<SqlType: Shown> + Copy> NameColumn for C {
    const TYPE: KeyType = <C::SqlType as Shown>::TYPE;
}

/// The SQL types of columns that name something.
#[doc(hidden)]
pub trait Shown {
    const TYPE: KeyType;
}

impl Shown for sql_types::Text {
    const TYPE: KeyType = KeyType::Text;
}
impl Shown for sql_types::Integer {
    const TYPE: KeyType = KeyType::Integer;
}
impl Shown for sql_types::BigInt {
    const TYPE: KeyType = KeyType::BigInt;
}
#[cfg(all(feature = "uuid", feature = "postgres"))]
impl Shown for sql_types::Uuid {
    const TYPE: KeyType = KeyType::Uuid;
}
impl<T> Shown for sql_types::Nullable<T>
where
    T: Shown + sql_types::SqlType<IsNull = sql_types::is_nullable::NotNull>,
{
    const TYPE: KeyType = T::TYPE;
}

/// The columns of one model's work, made by [`columns!`](macro@crate::columns).
///
/// Four are needed: when the row was submitted, attempted and processed, and the last error. Two are
/// optional: `last_submitted_at` (from when the row counts as waiting; without it `submitted_at` is
/// both) and `canceled_at` (without it a row cannot be canceled). `user` and `subject` name the columns
/// that say whose row it is and what it is about.
pub struct Columns<Table> {
    pub(crate) name: &'static str,
    pub(crate) submitted_at: TimeColumn,
    pub(crate) last_submitted_at: TimeColumn,
    pub(crate) attempted_at: TimeColumn,
    pub(crate) processed_at: TimeColumn,
    pub(crate) error: &'static str,
    pub(crate) canceled_at: Option<TimeColumn>,
    pub(crate) user: Option<&'static str>,
    /// What the column of the user keeps.
    pub(crate) user_type: KeyType,
    pub(crate) subject: Option<&'static str>,
    /// What the column of the subject keeps.
    pub(crate) subject_type: KeyType,
    table: PhantomData<fn() -> Table>,
}

const fn time<C: InstantColumn>(_: C) -> TimeColumn {
    let zone = if C::ZONED { Zone::Zoned } else { Zone::Naive };
    TimeColumn { name: C::NAME, zone }
}

impl<T> Columns<T> {
    /// Names the four columns that every model has. [`columns!`](macro@crate::columns) is the short way.
    ///
    /// `name` is what the library's own tables store for this work; it must be unique among the
    /// processors of one database and, once rows exist, stay as it is.
    pub const fn new<S, A, P, E>(
        name: &'static str,
        submitted_at: S,
        attempted_at: A,
        processed_at: P,
        _error: E,
    ) -> Self
    where
        S: InstantColumn + Column<Table = T>,
        A: InstantColumn + Column<Table = T>,
        P: InstantColumn + Column<Table = T>,
        E: ErrorColumn + Column<Table = T>,
    {
        Columns {
            name,
            submitted_at: time(submitted_at),
            last_submitted_at: time(submitted_at),
            attempted_at: time(attempted_at),
            processed_at: time(processed_at),
            error: E::NAME,
            canceled_at: None,
            user: None,
            user_type: KeyType::Text,
            subject: None,
            subject_type: KeyType::Text,
            table: PhantomData,
        }
    }

    /// The name that the library's tables store for this work. The table's name by default; two works
    /// on one table are two structs with two names.
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// A column of its own for the instant from which a row counts as waiting.
    ///
    /// With it a delayed submission keeps `submitted_at` as the instant it was asked for, and restarting
    /// keeps it too. Without it `submitted_at` moves.
    pub const fn last_submitted_at<C: InstantColumn + Column<Table = T>>(
        mut self,
        column: C,
    ) -> Self {
        self.last_submitted_at = time(column);
        self
    }

    /// The column that says when a row was given up. Without it, canceling is refused.
    pub const fn canceled_at<C: InstantColumn + Column<Table = T>>(mut self, column: C) -> Self {
        self.canceled_at = Some(time(column));
        self
    }

    /// The column that says whose row it is: text or integer. With it the row's user is sent
    /// [`Messages`](crate::Messages) about it.
    pub const fn user<C: NameColumn + Column<Table = T>>(mut self, _: C) -> Self {
        self.user = Some(C::NAME);
        self.user_type = C::TYPE;
        self
    }

    /// The column that says what the row is about (a file number, an order): text or integer.
    pub const fn subject<C: NameColumn + Column<Table = T>>(mut self, _: C) -> Self {
        self.subject = Some(C::NAME);
        self.subject_type = C::TYPE;
        self
    }

    /// Whether one column serves as `submitted_at` and `last_submitted_at`.
    pub(crate) fn one_column(&self) -> bool {
        self.submitted_at.name == self.last_submitted_at.name
    }
}

/// Names the columns of a model's work, for [`Asyncable::COLUMNS`](crate::Asyncable::COLUMNS).
///
/// ```
/// # diesel::table! { reviews (id) { id -> BigInt, created_by -> Text,
/// #   submitted_at -> Nullable<Timestamp>, attempted_at -> Nullable<Timestamp>,
/// #   processed_at -> Nullable<Timestamp>, error -> Nullable<Text>,
/// #   est_submitted_at -> Nullable<Timestamp>, est_last_submitted_at -> Nullable<Timestamp>,
/// #   est_attempted_at -> Nullable<Timestamp>, est_processed_at -> Nullable<Timestamp>,
/// #   est_error -> Nullable<Text>, est_canceled_at -> Nullable<Timestamp>, } }
/// use asyncable::{Columns, columns};
///
/// // the usual names
/// const PLAIN: Columns<reviews::table> = columns!(reviews);
/// // other names, in the order submitted, attempted, processed, error; then the optional ones by name
/// const RENAMED: Columns<reviews::table> = columns!(
///     reviews, est_submitted_at, est_attempted_at, est_processed_at, est_error,
///     last_submitted_at = est_last_submitted_at, canceled_at = est_canceled_at, user = created_by
/// )
/// .name("establishments");
/// ```
#[macro_export]
macro_rules! columns {
    ($t:ident $(, $opt:ident = $c:ident)* $(,)?) => {
        $crate::columns!($t, submitted_at, attempted_at, processed_at, error $(, $opt = $c)*)
    };
    ($t:ident, $s:ident, $a:ident, $p:ident, $e:ident $(, $opt:ident = $c:ident)* $(,)?) => {
        $crate::Columns::new(stringify!($t), $t::$s, $t::$a, $t::$p, $t::$e)$(.$opt($t::$c))*
    };
}
