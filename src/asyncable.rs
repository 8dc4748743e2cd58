//! `Asyncable`: what makes a Diesel model's rows do their work later, and again until it is done.
//!
//! This is the row's side only (its columns, how long it is tried, where it stands, submitting it) and
//! knows no outside service, so it can live in a host's data crate. The work is a
//! [`Processor`](crate::Processor). The statements are `store::submit`'s; what they promise beside running
//! attempts is in `docs/protocol.md`, "Submit, restart, cancel".

use std::{fmt, hash::Hash, rc::Rc, str::FromStr};

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    associations::HasTable,
    connection::LoadConnection,
    deserialize::FromSqlRow,
    expression::{Expression, Selectable},
    query_builder::{AstPass, QueryFragment},
    query_source::{Column, Table},
    result::Error::DeserializationError,
    row::Row,
    serialize::ToSql,
    sql_types::HasSqlType,
};

use crate::{
    Explanation,
    columns::Columns,
    retry::RetryPolicy,
    scope::{OldestFirst, Scope, StatusOf},
    store::{Dialect, Moment, explain, statement, submit},
    supervisor::ALIVE_FOR,
};

/// What a row's id is stored as.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Integer,
    BigInt,
    Text,
    Uuid,
}

/// What may name a row: `i32`, `i64`, `String`, and `uuid::Uuid` on PostgreSQL. Closed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an asyncable row's id",
    note = "use `i32`, `i64`, `String`, or `uuid::Uuid` on PostgreSQL (feature `uuid`)"
)]
pub trait Key:
    Clone + Eq + Hash + fmt::Debug + fmt::Display + FromStr + Send + Sync + Unpin + 'static
{
    #[doc(hidden)]
    const TYPE: KeyType;
}

impl Key for i32 {
    const TYPE: KeyType = KeyType::Integer;
}

impl Key for i64 {
    const TYPE: KeyType = KeyType::BigInt;
}

impl Key for String {
    const TYPE: KeyType = KeyType::Text;
}

#[cfg(feature = "uuid")]
impl Key for uuid::Uuid {
    const TYPE: KeyType = KeyType::Uuid;
}

/// A model of a table whose primary key is one column. Implemented for all that derive `Identifiable`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no model of a table whose primary key is one column",
    note = "derive `Identifiable` on it, with `#[diesel(table_name = ..)]` where the table's name does not follow from its own",
    note = "a table whose primary key has several columns cannot carry work"
)]
pub trait Keyed {
    /// The table it is a row of.
    type Table: Table<PrimaryKey: Column> + Send;

    #[doc(hidden)]
    fn table() -> Self::Table;
}

// Of what is not met, Diesel's own words would say less.
#[diagnostic::do_not_recommend]
impl<M> Keyed for M
where
    M: HasTable,
    <M as HasTable>::Table: Table<PrimaryKey: Column> + Send,
{
    type Table = <M as HasTable>::Table;

    fn table() -> Self::Table {
        <M as HasTable>::table()
    }
}

/// A Diesel model whose work happens later, and again until it is done.
///
/// The operations below run on the host's own connection, in the host's own transaction if there is
/// one. A supervisor in another process finds the row at its next sweep; one in this process at once if
/// it is woken ([`Handle::wake`](crate::Handle::wake)) after the commit.
///
/// The methods that ask the time ask the machine's clock, or PostgreSQL's where the database is
/// PostgreSQL. [`as_of`](Asyncable::as_of) does the same at an instant of the caller's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no work to do: it is not `Asyncable`",
    note = "implement `Asyncable` for it: `type Id` and `const COLUMNS`"
)]
pub trait Asyncable: Keyed + Send + Sized + Unpin + 'static {
    /// What the primary key loads as.
    type Id: Key;

    /// The columns that say where a row's work stands.
    const COLUMNS: Columns<Self::Table>;

    /// How often and for how long a failing row is tried. [`RetryPolicy::DEFAULT`] by default.
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;

    /// Asks for a row's work, at once: a new submission, whatever became of an earlier one.
    ///
    /// Clears what an earlier submission left (attempted, processed, canceled, error). A row that is
    /// being worked on is due again when that attempt ends.
    ///
    /// # Errors
    /// `NotFound` if there is no such row; otherwise what the database said.
    fn submit<C>(conn: &mut C, id: impl Into<Self::Id>) -> QueryResult<()>
    where
        C: LoadConnection<Backend: Dialect>,
        Self: Stored<C::Backend>,
    {
        submit::one::<Self, C>(conn, id.into(), submit::When::now())
    }

    /// As [`submit`](Asyncable::submit), but the row is due at `at`. An instant in the past is now.
    ///
    /// # Errors
    /// `NotFound` if there is no such row; otherwise what the database said.
    fn submit_at<C>(conn: &mut C, id: impl Into<Self::Id>, at: DateTime<Utc>) -> QueryResult<()>
    where
        C: LoadConnection<Backend: Dialect>,
        Self: Stored<C::Backend>,
    {
        submit::one::<Self, C>(conn, id.into(), submit::When::now().due_at(at))
    }

    /// Submits many rows; answers how many of the ids there are.
    ///
    /// # Errors
    /// What the database said; then none of them is submitted.
    fn submit_all<C>(conn: &mut C, ids: &[Self::Id]) -> QueryResult<usize>
    where
        C: LoadConnection<Backend: Dialect>,
        Self: Stored<C::Backend>,
    {
        submit::submit::<Self, C>(conn, ids, &submit::When::now()).map(|found| found.len())
    }

    /// Gives a row up: it is not attempted again until it is submitted or restarted. What its services
    /// have already done stays done.
    ///
    /// Answers `false`, and changes nothing, where the row is processed or canceled already.
    ///
    /// # Errors
    /// `NotFound` if there is no such row; `QueryBuilderError` if the model names no `canceled_at`
    /// column; otherwise what the database said.
    fn cancel<C>(conn: &mut C, id: impl Into<Self::Id>) -> QueryResult<bool>
    where
        C: LoadConnection<Backend: Dialect>,
        Self: Stored<C::Backend>,
    {
        let (canceled, _) = submit::cancel::<Self, C>(conn, id.into(), &submit::When::now(), None)?;
        Ok(canceled.done())
    }

    /// Begins a submission again, at once: a failing, parked, expired or canceled row is due, with a new
    /// window. Keeps `submitted_at`, and with it the idempotency key.
    ///
    /// Answers `false`, and changes nothing, where the row is processed or was never submitted.
    ///
    /// # Errors
    /// `NotFound` if there is no such row; otherwise what the database said.
    fn restart<C>(conn: &mut C, id: impl Into<Self::Id>) -> QueryResult<bool>
    where
        C: LoadConnection<Backend: Dialect>,
        Self: Stored<C::Backend>,
    {
        let restarted = submit::restart::<Self, C>(conn, &[id.into()], &submit::When::now())?;
        restarted.one()
    }

    /// Why a row is not running: see [`Explanation`]. By the machine's clock; ask a supervisor whose clock
    /// is another one by [`Explain`](crate::Explain).
    ///
    /// # Errors
    /// `NotFound` if there is no such row; otherwise what the database said.
    fn explain<C>(conn: &mut C, id: impl Into<Self::Id>) -> QueryResult<Explanation>
    where
        C: LoadConnection<Backend: Dialect>,
        Self: Stored<C::Backend>,
    {
        Self::as_of(Utc::now()).explain(conn, id)
    }

    /// The same operations at an instant of the caller's: for tests, and for hosts whose time is not the
    /// machine's.
    fn as_of(now: DateTime<Utc>) -> AsOf<Self> {
        AsOf { now: Moment::at(now), model: std::marker::PhantomData }
    }

    /// Where a row's work stands, as an SQL expression: selects as text, loads as
    /// [`Status`](crate::Status).
    fn status() -> StatusOf<Self> {
        StatusOf::now()
    }

    /// Rows that an attempt could start on now: new ones, retries whose wait is over, and attempts that
    /// nobody owns.
    fn due() -> Scope<Self> {
        Scope::due()
    }

    /// Rows that are being worked on: claimed, under a lease that has not lapsed.
    fn in_flight() -> Scope<Self> {
        Scope::in_flight()
    }

    /// Rows whose last attempt failed and that are tried again by themselves.
    fn failing() -> Scope<Self> {
        Scope::failing()
    }

    /// Rows that are not tried again until a person restarts or submits them.
    fn parked() -> Scope<Self> {
        Scope::parked()
    }

    /// Rows whose window is over without their being processed or canceled.
    fn expired() -> Scope<Self> {
        Scope::expired()
    }

    /// Parked and expired rows: a person must act.
    fn needs_attention() -> Scope<Self> {
        Scope::needs_attention()
    }

    /// Rows whose work is done.
    fn processed() -> Scope<Self> {
        Scope::processed()
    }

    /// Rows that were given up. None, where the model names no `canceled_at` column.
    fn canceled() -> Scope<Self> {
        Scope::canceled()
    }

    /// For `.order(..)`: the oldest last submission first, rows never submitted last, ties by id. The same
    /// order on both backends.
    fn oldest_first() -> OldestFirst<Self> {
        OldestFirst::new()
    }
}

/// [`Asyncable`]'s operations at a given instant; made by [`Asyncable::as_of`].
///
/// ```
/// # include!("../tests/support/doc.rs");
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let conn = &mut doc_connection()?;
/// use chrono::{TimeDelta, Utc};
///
/// let tomorrow = Utc::now() + TimeDelta::days(1);
/// Review::as_of(tomorrow).submit(conn, 1)?;
/// let due: i64 = reviews::table.filter(Review::due()).count().get_result(conn)?;
/// assert_eq!(due, 0);
/// let due: i64 = reviews::table.filter(Review::due().at(tomorrow)).count().get_result(conn)?;
/// assert_eq!(due, 1);
/// # Ok(()) }
/// ```
pub struct AsOf<M> {
    now: Moment,
    model: std::marker::PhantomData<fn() -> M>,
}

impl<M: Asyncable> AsOf<M> {
    /// See [`Asyncable::submit`].
    ///
    /// # Errors
    /// As there.
    pub fn submit<C>(&self, conn: &mut C, id: impl Into<M::Id>) -> QueryResult<()>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        submit::one::<M, C>(conn, id.into(), submit::When::given(self.now))
    }

    /// See [`Asyncable::submit_at`].
    ///
    /// # Errors
    /// As there.
    pub fn submit_at<C>(
        &self,
        conn: &mut C,
        id: impl Into<M::Id>,
        at: DateTime<Utc>,
    ) -> QueryResult<()>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        submit::one::<M, C>(conn, id.into(), submit::When::given(self.now).due_at(at))
    }

    /// See [`Asyncable::submit_all`].
    ///
    /// # Errors
    /// As there.
    pub fn submit_all<C>(&self, conn: &mut C, ids: &[M::Id]) -> QueryResult<usize>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        submit::submit::<M, C>(conn, ids, &submit::When::given(self.now)).map(|found| found.len())
    }

    /// See [`Asyncable::cancel`].
    ///
    /// # Errors
    /// As there.
    pub fn cancel<C>(&self, conn: &mut C, id: impl Into<M::Id>) -> QueryResult<bool>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        let when = submit::When::given(self.now);
        let (canceled, _) = submit::cancel::<M, C>(conn, id.into(), &when, None)?;
        Ok(canceled.done())
    }

    /// See [`Asyncable::explain`].
    ///
    /// # Errors
    /// As there.
    pub fn explain<C>(&self, conn: &mut C, id: impl Into<M::Id>) -> QueryResult<Explanation>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        let explained = explain::explain::<M, C>(conn, &id.into(), self.now, ALIVE_FOR)?;
        explained.ok_or(diesel::result::Error::NotFound)
    }

    /// See [`Asyncable::restart`].
    ///
    /// # Errors
    /// As there.
    pub fn restart<C>(&self, conn: &mut C, id: impl Into<M::Id>) -> QueryResult<bool>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        submit::restart::<M, C>(conn, &[id.into()], &submit::When::given(self.now))?.one()
    }
}

type PkOf<M> = <<M as Keyed>::Table as Table>::PrimaryKey;
type PkSql<M> = <PkOf<M> as Expression>::SqlType;
type RowOf<M, DB> = <M as Selectable<DB>>::SelectExpression;
type RowSql<M, DB> = <RowOf<M, DB> as Expression>::SqlType;

/// A model that the database `DB` can keep: every [`Asyncable`] that derives `Queryable`, `Selectable`
/// and `Identifiable`. With the two traits below it, the one place that spells Diesel's bounds;
/// implemented for all that meet them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in this database",
    note = "derive `Queryable`, `Selectable` and `Identifiable` on it",
    note = "its fields must have the types that their columns load as: beside the derives, `#[diesel(check_for_backend(diesel::sqlite::Sqlite))]` or `diesel::pg::Pg` points at one that has not"
)]
pub trait Stored<DB: Dialect>: Asyncable {
    #[doc(hidden)]
    fn table_sql() -> QueryResult<String>;
    #[doc(hidden)]
    fn id_fragment(id: &Self::Id) -> Rc<dyn QueryFragment<DB>>;
    #[doc(hidden)]
    fn row_fragment() -> Rc<dyn QueryFragment<DB>>;
    /// Reads the model from the values that follow the first `skip` of a row.
    #[doc(hidden)]
    fn read_row<'a>(row: &impl Row<'a, DB>, skip: usize) -> QueryResult<Self>;
}

impl<M, DB> Stored<DB> for M
where
    DB: Dialect,
    M: Asyncable<Id: IdOf<M, DB>> + Selectable<DB> + Loaded<DB>,
    M::Table: QueryFragment<DB>,
    RowOf<M, DB>: QueryFragment<DB> + 'static,
{
    fn table_sql() -> QueryResult<String> {
        statement::table_sql::<_, DB>(M::table())
    }

    fn id_fragment(id: &M::Id) -> Rc<dyn QueryFragment<DB>> {
        id.fragment()
    }

    fn row_fragment() -> Rc<dyn QueryFragment<DB>> {
        Rc::new(M::construct_selection())
    }

    fn read_row<'a>(row: &impl Row<'a, DB>, skip: usize) -> QueryResult<M> {
        let own = row.partial_row(skip..row.field_count());
        M::loaded(&own)
    }
}

/// What the primary key of `M` loads as, in the database `DB`.
#[diagnostic::on_unimplemented(
    message = "`type Id = {Self}` is not what the primary key of `{M}` loads as",
    note = "it must be `i32` for Integer, `i64` for BigInt, `String` for Text, and on PostgreSQL `uuid::Uuid` for Uuid"
)]
pub trait IdOf<M, DB: Dialect> {
    #[doc(hidden)]
    fn fragment(&self) -> Rc<dyn QueryFragment<DB>>;
}

#[diagnostic::do_not_recommend]
impl<M, DB> IdOf<M, DB> for <M as Asyncable>::Id
where
    M: Asyncable<Id: ToSql<PkSql<M>, DB>>,
    DB: Dialect + HasSqlType<PkSql<M>>,
    PkSql<M>: 'static,
{
    fn fragment(&self) -> Rc<dyn QueryFragment<DB>> {
        Rc::new(IdBind::<M>(self.clone()))
    }
}

/// A model that loads from what it selects.
#[doc(hidden)]
pub trait Loaded<DB: Dialect>: Sized {
    fn loaded<'a>(row: &impl Row<'a, DB>) -> QueryResult<Self>;
}

#[diagnostic::do_not_recommend]
impl<M, DB> Loaded<DB> for M
where
    DB: Dialect,
    M: Selectable<DB> + FromSqlRow<RowSql<M, DB>, DB>,
{
    fn loaded<'a>(row: &impl Row<'a, DB>) -> QueryResult<M> {
        M::build_from_row(row).map_err(DeserializationError)
    }
}

/// A row's id as a bind of the key's own SQL type.
struct IdBind<M: Asyncable>(M::Id);

impl<M, DB> QueryFragment<DB> for IdBind<M>
where
    M: Asyncable<Id: ToSql<PkSql<M>, DB>>,
    DB: Dialect + HasSqlType<PkSql<M>>,
    PkSql<M>: 'static,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param::<PkSql<M>, _>(&self.0)
    }
}
