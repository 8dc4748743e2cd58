//! What SQLite and PostgreSQL disagree on, and nothing else.

use diesel::{
    QueryResult,
    backend::Backend,
    connection::{Connection, LoadConnection},
    deserialize,
    migration::{Migration, MigrationConnection},
    query_builder::AstPass,
    sql_types::HasSqlType,
};

use super::{actor::Access, cell::Cell, moment::Moment};
use crate::columns::Zone;

/// A database this library speaks: `Sqlite` or `Pg`. Closed: implemented here only.
#[diagnostic::on_unimplemented(
    message = "asyncable does not speak `{Self}`",
    note = "enable the feature `sqlite` or `postgres`"
)]
pub trait Dialect: Backend + DialectParts {}

/// What the store asks of a [`Dialect`]. Hidden: not for hosts.
#[doc(hidden)]
#[allow(private_interfaces)]
pub trait DialectParts:
    Backend
    + HasSqlType<diesel::sql_types::Text>
    + HasSqlType<diesel::sql_types::BigInt>
    + HasSqlType<diesel::sql_types::Timestamp>
    + Send
    + Sized
    + 'static
{
    /// For messages.
    const NAME: &'static str;
    /// Follows a sub-select of rows about to be written: take only what nobody else is writing.
    const SKIP_LOCKED: &'static str;
    /// Follows a sub-select whose rows must not change until the transaction ends.
    const FOR_UPDATE: &'static str;
    /// Goes before a column to keep the planner from looking rows up by it.
    const UNINDEXED: &'static str;
    /// Answers, within a transaction, whether this host is the one to prune until it ends.
    const TRY_PRUNE: &'static str;
    /// Several hosts may claim at once; their tokens must be reserved before rows are looked for.
    const CONCURRENT_CLAIMS: bool;

    /// Whether columns are all NULL, said so that a partial index of such rows is not thought of.
    fn all_null(columns: &[String]) -> String;

    /// The backend's value, which Diesel's query builder asks for.
    fn backend() -> Self;
    fn builder() -> Self::QueryBuilder;
    fn push_time<'b>(
        out: &mut AstPass<'_, 'b, Self>,
        zone: Zone,
        at: &'b Moment,
    ) -> QueryResult<()>;
    fn push_text<'b>(out: &mut AstPass<'_, 'b, Self>, text: &'b str) -> QueryResult<()>;
    /// Reads one value of a result, whatever its type.
    fn cell(value: Option<Self::RawValue<'_>>) -> deserialize::Result<Cell>;
    /// The database's own clock as an expression, where it is not this machine's.
    fn database_now(zone: Zone) -> Option<&'static str>;
    /// A column as the library's own tables keep instants: naive UTC.
    fn utc(column: &str, zone: Zone) -> String;
    /// An instant of the library's own tables in the type of such a column.
    fn from_utc(value: &str, zone: Zone) -> String;
    /// Whether a column of this type keeps instants, to the microsecond, as the model says.
    fn holds_instants(type_name: &str, zone: Zone) -> bool;
    /// A column's instant as text: the same text for the same stored value, within one session.
    fn spelled(column: &str) -> String;
    /// Casts a row's id, kept as text in the library's tables, back to the key's type.
    fn id_from_text(text: &str, key: crate::asyncable::KeyType) -> String;
    /// The larger of two instants, neither of them NULL.
    fn later_of(a: &str, b: &str) -> String;
    /// Mends instants that another program wrote so that they do not sort among ours.
    fn normalise<M, C>(conn: &mut C, now: Moment) -> QueryResult<usize>
    where
        C: LoadConnection<Backend = Self>,
        M: crate::Stored<Self>,
        Self: Dialect;
    /// The library's own migrations.
    fn migrations() -> QueryResult<Vec<Box<dyn Migration<Self>>>>;
}

/// A column as the database describes it.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct FoundColumn {
    pub(crate) name: String,
    /// In the database's own words; empty where a column has none.
    pub(crate) type_name: String,
    pub(crate) nullable: bool,
}

/// A connection that a supervisor can own: Diesel's own `SqliteConnection` and `PgConnection`.
#[diagnostic::on_unimplemented(
    message = "a supervisor cannot own a `{Self}`",
    note = "name Diesel's own `SqliteConnection` or `PgConnection` (features `sqlite` and `postgres`): a supervisor opens its connections itself, `Supervisor::connecting` as the host says, and needs no pool"
)]
pub trait StoreConnection:
    Connection<Backend: Dialect>
    + LoadConnection
    + MigrationConnection
    + StoreSession
    + Send
    + Unpin
    + 'static
{
}

/// What a store asks of its connection. Hidden: not for hosts.
#[doc(hidden)]
#[allow(private_interfaces)]
pub trait StoreSession: Connection {
    /// Opens what [`Supervisor::new`](crate::Supervisor::new) was given.
    fn open(url: &str) -> diesel::ConnectionResult<Self>;
    /// Sets what the store needs of every connection, the host's own makers' included.
    fn prepare(&mut self, access: Access) -> QueryResult<()>;
    /// A transaction that writes: on SQLite it takes the write lock first.
    fn write<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>;
    /// As `write`, for `migrate`: only one process at a time gets in.
    fn write_alone<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>;
    /// The columns of a table whose name is spelled as in SQL.
    fn columns_of(&mut self, table: &str) -> QueryResult<Vec<FoundColumn>>;
    /// Whether each connection of this maker would have a database of its own.
    fn is_private(&mut self) -> QueryResult<bool>;
}
