//! What a supervisor looks at before it starts, and what it says if it does not.

use std::time::Duration;

use crate::{
    RetryPolicy, Service, Stored,
    columns::TimeColumn,
    store::{
        DialectParts, StoreConnection,
        statement::{Statement, literal},
    },
};

/// Why a supervisor did not start. Nothing runs then, and nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database could not be opened.
    #[error("could not connect to the database")]
    Connect(#[source] diesel::ConnectionError),
    /// Each connection would have a database of its own, as with `:memory:`.
    #[error("the database is private to one connection (`:memory:`): use a file")]
    Private,
    /// The library's own tables are missing or old.
    #[error("the tables of asyncable are missing or old: call asyncable::migrate(conn) first")]
    Migrations(#[source] diesel::result::Error),
    /// A model's table is missing, or one of its columns.
    #[error("the table of {model} does not have the columns that COLUMNS names: {source}")]
    Columns {
        /// The model's name.
        model: &'static str,
        /// What the database said.
        source: diesel::result::Error,
    },
    /// A column cannot hold what it is to hold.
    #[error("the column {column} of {model} is {found}; it must be {needed}")]
    Column {
        /// The model's name.
        model: &'static str,
        /// The column's name.
        column: &'static str,
        /// What it is.
        found: String,
        /// What would do.
        needed: &'static str,
    },
    /// A setting that cannot work.
    #[error("{setting} of {model} is {value}; it must be {accepted}")]
    Setting {
        /// The model's name.
        model: &'static str,
        /// Which setting.
        setting: &'static str,
        /// What it was.
        value: String,
        /// What would do.
        accepted: &'static str,
    },
    /// Two processors name a service with other numbers.
    #[error("the service {0} is named with different settings by two processors")]
    Service(&'static str),
    /// Two processors work on models of one name.
    #[error("two processors are registered for {0}")]
    Twice(&'static str),
    /// The supervisor's thread could not be started.
    #[error("the supervisor's thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// What may be configured of a processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) at_once: usize,
    pub(crate) timeout: Duration,
}

impl Settings {
    pub(crate) fn check(
        &self,
        model: &'static str,
        policy: &RetryPolicy,
        services: &[Service],
    ) -> Result<(), StartError> {
        let wrong = |setting, value: &dyn std::fmt::Debug, accepted| {
            Err(StartError::Setting { model, setting, value: format!("{value:?}"), accepted })
        };
        if self.at_once == 0 {
            return wrong("AT_ONCE", &self.at_once, "at least 1");
        }
        if let Some(service) = services.iter().find(|service| service.most_at_once() == 0) {
            let setting = "the at_once of a service";
            return wrong(setting, &service.name(), "at least 1");
        }
        // Their names are kept in lists, and nothing is no service.
        let unfit = |service: &&Service| service.name().is_empty() || service.name().contains(',');
        if let Some(service) = services.iter().find(unfit) {
            let setting = "the name of a service";
            return wrong(setting, &service.name(), "not empty, and without a comma");
        }
        if policy.interval().is_zero() {
            return wrong("the retry interval", &policy.interval(), "above zero");
        }
        if policy.open_for() < policy.interval() {
            return wrong("the retry window", &policy.open_for(), "at least the retry interval");
        }
        if self.timeout.is_zero() || self.timeout >= policy.interval() {
            let accepted = "above zero and below the retry interval";
            return wrong("the time-out", &self.timeout, accepted);
        }
        Ok(())
    }
}

/// Looks at the library's own tables.
pub(crate) fn check_own<C: StoreConnection>(conn: &mut C) -> Result<(), StartError> {
    for (table, column) in [
        ("asyncable_claims", "expires_at"),
        ("asyncable_retries", "last_failed_at"),
        ("asyncable_attempts", "outcome"),
        ("asyncable_steps", "result"),
        ("asyncable_services", "held_reason"),
        ("asyncable_hosts", "seen_at"),
        ("asyncable_actions", "reason"),
        ("asyncable_notes", "note"),
        ("asyncable_buckets", "waiting"),
        ("asyncable_messages", "read_at"),
        ("asyncable_bulks", "stopped_by"),
        ("asyncable_pauses", "reason"),
    ] {
        let look = format!("SELECT {column} FROM {table} WHERE 1 = 0");
        let look = Statement::<C::Backend>::plain(&look, vec![]);
        look.and_then(|look| look.execute(conn)).map_err(StartError::Migrations)?;
    }
    Ok(())
}

/// Looks at a model's table.
pub(crate) fn check_model<M, C>(conn: &mut C) -> Result<(), StartError>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let columns = M::COLUMNS;
    let model = columns.name;
    let wrong = |source| StartError::Columns { model, source };
    let look = "SELECT {id}, {S}, {L}, {A}, {P}, {E}, {row} FROM {m} WHERE {open} AND 1 = 0";
    let look = Statement::of::<M>(look, vec![]).and_then(|look| look.execute(conn));
    look.map_err(wrong)?;
    let found = M::table_sql().and_then(|table| conn.columns_of(&table)).map_err(wrong)?;
    let described = |name: &str| found.iter().find(|column| column.name == name);
    let times = [
        Some(columns.submitted_at),
        Some(columns.last_submitted_at),
        Some(columns.attempted_at),
        Some(columns.processed_at),
        columns.canceled_at,
    ];
    for TimeColumn { name: column, zone } in times.into_iter().flatten() {
        if let Some(described) = described(column)
            && !C::Backend::holds_instants(&described.type_name, zone)
        {
            let found = described.type_name.clone();
            let needed = "an instant to the microsecond, as its `table!` says";
            return Err(StartError::Column { model, column, found, needed });
        }
    }
    let names = times.into_iter().flatten().map(|column| column.name).chain([columns.error]);
    for column in names {
        if described(column).is_some_and(|described| !described.nullable) {
            let (found, needed) = ("NOT NULL".to_owned(), "nullable");
            return Err(StartError::Column { model, column, found, needed });
        }
    }
    if columns.name.is_empty() || literal(columns.name).contains('\0') {
        let (setting, value) = ("the name", format!("{:?}", columns.name));
        let accepted = "a text that is not empty";
        return Err(StartError::Setting { model, setting, value, accepted });
    }
    Ok(())
}
