//! SQLite: one writer at a time, instants as text, no row locks.

use std::time::Duration;

use diesel::{
    ConnectionError, QueryResult,
    connection::{Connection, SimpleConnection},
    deserialize::{self, FromSql},
    migration::{Migration, MigrationSource},
    query_builder::AstPass,
    result::Error::QueryBuilderError,
    sql_types,
    sqlite::{Sqlite, SqliteConnection, SqliteType},
};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::{
    actor::Access,
    cell::Cell,
    dialect::{Dialect, DialectParts, FoundColumn, StoreConnection, StoreSession},
    moment::Moment,
    trouble::own_error,
};
use crate::{asyncable::KeyType, columns::Zone};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// How long a statement waits for another process's write lock before it is refused: above the time
/// a backup or a large transaction of the host takes, below a lease.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Dialect for Sqlite {}

#[allow(private_interfaces)]
impl DialectParts for Sqlite {
    const NAME: &'static str = "SQLite";
    const SKIP_LOCKED: &'static str = "";
    const FOR_UPDATE: &'static str = "";
    const UNINDEXED: &'static str = "+";
    const TRY_PRUNE: &'static str = "SELECT 1"; // nobody else writes
    const CONCURRENT_CLAIMS: bool = false;

    // It finds one row by its key whatever else it is asked.
    fn all_null(columns: &[String]) -> String {
        let null = columns.iter().map(|column| format!("{column} IS NULL"));
        null.collect::<Vec<_>>().join(" AND ")
    }

    fn backend() -> Self {
        Sqlite
    }

    fn builder() -> Self::QueryBuilder {
        Default::default()
    }

    fn push_time<'b>(
        out: &mut AstPass<'_, 'b, Self>,
        zone: Zone,
        at: &'b Moment,
    ) -> QueryResult<()> {
        match zone {
            Zone::Naive => out.push_bind_param::<sql_types::Timestamp, _>(&at.naive),
            Zone::Zoned => out.push_bind_param::<sql_types::TimestamptzSqlite, _>(&at.zoned),
        }
    }

    fn push_text<'b>(out: &mut AstPass<'_, 'b, Self>, text: &'b str) -> QueryResult<()> {
        out.push_bind_param::<sql_types::Text, _>(text)
    }

    fn cell(value: Option<Self::RawValue<'_>>) -> deserialize::Result<Cell> {
        let Some(value) = value else { return Ok(Cell::Null) };
        Ok(match value.value_type() {
            None => Cell::Null,
            Some(SqliteType::Integer | SqliteType::SmallInt | SqliteType::Long) => {
                Cell::Int(<i64 as FromSql<sql_types::BigInt, Sqlite>>::from_sql(value)?)
            }
            // Whatever stands where an instant belongs is one row's trouble, not the statement's.
            Some(SqliteType::Binary) => {
                let bytes = <Vec<u8> as FromSql<sql_types::Binary, Sqlite>>::from_sql(value)?;
                Cell::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            Some(_) => Cell::Text(<String as FromSql<sql_types::Text, Sqlite>>::from_sql(value)?),
        })
    }

    fn database_now(_: Zone) -> Option<&'static str> {
        None // the file is on this machine, and so is its clock
    }

    fn utc(column: &str, zone: Zone) -> String {
        match zone {
            // Rows are never looked up by it: without statistics SQLite would, and read a whole batch
            // for each of its rows.
            Zone::Naive => format!("+{column}"),
            // Diesel writes zoned instants in UTC, with this suffix.
            Zone::Zoned => format!("replace({column}, '+00:00', '')"),
        }
    }

    fn from_utc(value: &str, zone: Zone) -> String {
        match zone {
            Zone::Naive => value.to_owned(),
            Zone::Zoned => format!("({value} || '+00:00')"),
        }
    }

    fn holds_instants(_: &str, _: Zone) -> bool {
        true // a column of SQLite's takes any value, whatever its declared type
    }

    fn spelled(column: &str) -> String {
        format!("CAST({column} AS TEXT)")
    }

    fn id_from_text(text: &str, key: KeyType) -> String {
        match key {
            KeyType::Integer | KeyType::BigInt => format!("CAST({text} AS INTEGER)"),
            KeyType::Text | KeyType::Uuid => text.to_owned(),
        }
    }

    fn later_of(a: &str, b: &str) -> String {
        format!("max({a}, {b})")
    }

    fn normalise<M, C>(conn: &mut C, now: Moment) -> QueryResult<usize>
    where
        C: diesel::connection::LoadConnection<Backend = Self>,
        M: crate::Stored<Self>,
    {
        // `2026-01-01T12:00` sorts after the whole of `2026-01-01 ..`, so a row submitted in this
        // spelling would be due only at midnight. Today's are one range of the index; those of other
        // days stand on the right side of now as they are.
        let day = now.zoned.format("%Y-%m-%dT").to_string();
        let next = now.zoned.format("%Y-%m-%dU").to_string();
        let sql = "UPDATE {m} SET {=L} = strftime('%Y-%m-%d %H:%M:%f', {L}) WHERE {open} \
                   AND {A} IS NULL AND {L} >= $day AND {L} < $next AND strftime('%s', {L}) IS NOT NULL";
        let binds = vec![
            ("day", super::statement::Value::Text(day)),
            ("next", super::statement::Value::Text(next)),
        ];
        super::statement::Statement::of::<M>(sql, binds)?.execute(conn)
    }

    fn migrations() -> QueryResult<Vec<Box<dyn Migration<Self>>>> {
        MIGRATIONS.migrations().map_err(QueryBuilderError)
    }
}

impl StoreConnection for SqliteConnection {}

#[allow(private_interfaces)]
impl StoreSession for SqliteConnection {
    fn open(url: &str) -> diesel::ConnectionResult<Self> {
        let mut conn = SqliteConnection::establish(url)?;
        // WAL, so that the host's readers and the store do not wait for each other. FULL, SQLite's own
        // default, so that "submitted" is still true after a power cut.
        conn.batch_execute(&format!(
            "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            BUSY_TIMEOUT.as_millis()
        ))
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }

    fn prepare(&mut self, access: Access) -> QueryResult<()> {
        // The host's own maker may have set a wait; without any, each lock held elsewhere is an error.
        let waits = super::statement::Statement::<Sqlite>::plain("PRAGMA busy_timeout", vec![])?;
        if waits.first(self)?.is_some_and(|row| row.int(0) == Ok(0)) {
            self.batch_execute(&format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis()))?;
        }
        match access {
            Access::Write => Ok(()),
            Access::Read => self.batch_execute("PRAGMA query_only = ON"),
        }
    }

    fn write<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>,
    {
        own_error(f, |f| self.immediate_transaction(f))
    }

    fn write_alone<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>,
    {
        self.prepare(Access::Write)?; // without a wait, the second of two would be refused at once
        self.immediate_transaction(f)
    }

    fn columns_of(&mut self, table: &str) -> QueryResult<Vec<FoundColumn>> {
        let parts: Vec<String> = table.split('.').map(|part| part.replace('`', "")).collect();
        let schema = if parts.len() > 1 { parts[0].as_str() } else { "main" };
        let table = parts.last().map_or("", String::as_str);
        let sql = "SELECT name, type, \"notnull\" FROM pragma_table_info($table, $schema)";
        let binds = vec![("table", table.into()), ("schema", schema.into())];
        let found = super::statement::Statement::<Sqlite>::plain(sql, binds)?.load(self)?;
        let column = |row: &super::cell::Record| {
            Ok(FoundColumn { name: row.text(0)?, type_name: row.text(1)?, nullable: !row.flag(2)? })
        };
        found.iter().map(column).collect()
    }

    fn is_private(&mut self) -> QueryResult<bool> {
        // The main database's file; empty for `:memory:` and temporary databases.
        let file = super::statement::Statement::<Sqlite>::plain(
            "SELECT file FROM pragma_database_list WHERE name = 'main'",
            vec![],
        )?;
        Ok(file.first(self)?.is_none_or(|row| row.text(0).unwrap_or_default().is_empty()))
    }
}
