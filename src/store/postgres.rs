//! PostgreSQL: several hosts, row locks, and a clock of its own.

use diesel::{
    QueryResult,
    connection::{Connection, SimpleConnection},
    deserialize::{self, FromSql},
    migration::{Migration, MigrationSource},
    pg::{Pg, PgConnection},
    query_builder::AstPass,
    result::Error::QueryBuilderError,
    sql_types,
};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::{
    actor::Access,
    cell::Cell,
    dialect::{Dialect, DialectParts, FoundColumn, StoreConnection, StoreSession},
    moment::Moment,
    trouble::within,
};
use crate::{asyncable::KeyType, columns::Zone};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Only one process migrates at a time; any number that no other program of the host is likely to
/// take: "asyncabl" in ASCII, cut to a positive 63-bit integer.
const MIGRATION_LOCK: i64 = 0x6173_796e_6361_626c;

impl Dialect for Pg {}

#[allow(private_interfaces)]
impl DialectParts for Pg {
    const NAME: &'static str = "PostgreSQL";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    const UNINDEXED: &'static str = ""; // it counts its rows by itself, and so finds the key
    // "prune" in ASCII; see `MIGRATION_LOCK`.
    const TRY_PRUNE: &'static str = "SELECT pg_try_advisory_xact_lock(482956635749)";
    const CONCURRENT_CLAIMS: bool = true;

    // Where few rows were open when the table was last analyzed, it would join by walking all that are.
    fn all_null(columns: &[String]) -> String {
        format!("num_nonnulls({}) = 0", columns.join(", "))
    }

    fn backend() -> Self {
        Pg
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
            Zone::Zoned => out.push_bind_param::<sql_types::Timestamptz, _>(&at.zoned),
        }
    }

    fn push_text<'b>(out: &mut AstPass<'_, 'b, Self>, text: &'b str) -> QueryResult<()> {
        out.push_bind_param::<sql_types::Text, _>(text)
    }

    fn cell(value: Option<Self::RawValue<'_>>) -> deserialize::Result<Cell> {
        // The types' numbers are fixed in PostgreSQL's catalog (pg_type.dat).
        const BOOL: u32 = 16;
        const INT8: u32 = 20;
        const INT4: u32 = 23;
        const TIMESTAMP: u32 = 1114;
        const TIMESTAMPTZ: u32 = 1184;
        let Some(value) = value else { return Ok(Cell::Null) };
        Ok(match value.get_oid().get() {
            BOOL => Cell::Int(<bool as FromSql<sql_types::Bool, Pg>>::from_sql(value)?.into()),
            INT4 => Cell::Int(<i32 as FromSql<sql_types::Integer, Pg>>::from_sql(value)?.into()),
            INT8 => Cell::Int(<i64 as FromSql<sql_types::BigInt, Pg>>::from_sql(value)?),
            TIMESTAMP => Cell::Time(FromSql::<sql_types::Timestamp, Pg>::from_sql(value)?),
            TIMESTAMPTZ => Cell::Time(FromSql::<sql_types::Timestamptz, Pg>::from_sql(value)?),
            _ => Cell::Text(<String as FromSql<sql_types::Text, Pg>>::from_sql(value)?),
        })
    }

    fn database_now(zone: Zone) -> Option<&'static str> {
        // The start of the statement, not of the host's transaction: that may be long ago.
        Some(match zone {
            Zone::Naive => "(statement_timestamp() AT TIME ZONE 'UTC')",
            Zone::Zoned => "statement_timestamp()",
        })
    }

    fn utc(column: &str, zone: Zone) -> String {
        match zone {
            Zone::Naive => column.to_owned(),
            // Never `timestamp = timestamptz`: that asks the session's zone.
            Zone::Zoned => format!("({column} AT TIME ZONE 'UTC')"),
        }
    }

    fn from_utc(value: &str, zone: Zone) -> String {
        Self::utc(value, zone) // the same words, the other way round
    }

    fn holds_instants(type_name: &str, zone: Zone) -> bool {
        let fits = match zone {
            Zone::Naive => ["timestamp without time zone", "timestamp(6) without time zone"],
            Zone::Zoned => ["timestamp with time zone", "timestamp(6) with time zone"],
        };
        fits.contains(&type_name)
    }

    fn spelled(column: &str) -> String {
        format!("CAST({column} AS TEXT)")
    }

    fn id_from_text(text: &str, key: KeyType) -> String {
        match key {
            KeyType::Integer => format!("CAST({text} AS INTEGER)"),
            KeyType::BigInt => format!("CAST({text} AS BIGINT)"),
            KeyType::Uuid => format!("CAST({text} AS UUID)"),
            KeyType::Text => text.to_owned(),
        }
    }

    fn later_of(a: &str, b: &str) -> String {
        format!("GREATEST({a}, {b})")
    }

    fn normalise<M, C>(_: &mut C, _: Moment) -> QueryResult<usize> {
        Ok(0) // the column's type leaves no room for spellings
    }

    fn migrations() -> QueryResult<Vec<Box<dyn Migration<Self>>>> {
        MIGRATIONS.migrations().map_err(QueryBuilderError)
    }
}

impl StoreConnection for PgConnection {}

#[allow(private_interfaces)]
impl StoreSession for PgConnection {
    fn open(url: &str) -> diesel::ConnectionResult<Self> {
        PgConnection::establish(url)
    }

    fn prepare(&mut self, access: Access) -> QueryResult<()> {
        // A frozen or cut-off host must not keep its row locks, and with them its rows, for hours; and
        // a host's long transaction must not stall the store for longer than this.
        self.batch_execute(
            "SET lock_timeout = '3s'; SET idle_in_transaction_session_timeout = '30s'; \
             SET tcp_user_timeout = '30s';",
        )?;
        match access {
            Access::Write => Ok(()),
            Access::Read => self.batch_execute("SET default_transaction_read_only = on"),
        }
    }

    fn write<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>,
    {
        within(self, f)
    }

    fn write_alone<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>,
    {
        self.transaction(|conn| {
            conn.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))?;
            f(conn)
        })
    }

    fn columns_of(&mut self, table: &str) -> QueryResult<Vec<FoundColumn>> {
        // A domain counts as what it is made of.
        let sql = "SELECT CAST(attname AS TEXT), CASE WHEN typtype = 'd' \
             THEN format_type(typbasetype, typtypmod) ELSE format_type(atttypid, atttypmod) END, \
             attnotnull FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid \
             WHERE attrelid = CAST($table AS regclass) AND attnum > 0 AND NOT attisdropped";
        let binds = vec![("table", table.into())];
        let found = super::statement::Statement::<Pg>::plain(sql, binds)?.load(self)?;
        let column = |row: &super::cell::Record| {
            Ok(FoundColumn { name: row.text(0)?, type_name: row.text(1)?, nullable: !row.flag(2)? })
        };
        found.iter().map(column).collect()
    }

    fn is_private(&mut self) -> QueryResult<bool> {
        Ok(false)
    }
}
