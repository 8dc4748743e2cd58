//! The migrations that a host writes for its own table: the columns, and the index that claims read.
//!
//! Tables are the host's, so the library runs none of this: [`HostTable`] gives the text of `up.sql` and
//! `down.sql` to put among the host's migrations, where it is read, changed and kept like any other. Each
//! file opens with why it is there and what it locks. `cargo run --example migration -- --help`, in a clone
//! of this repository, prints the same.
//!
//! On PostgreSQL there are two migrations, since `CREATE INDEX CONCURRENTLY` runs neither in a transaction
//! nor beside another statement of its file.

use std::{collections::HashMap, fmt, str::FromStr};

/// Bytes of a name that PostgreSQL keeps; it cuts off the rest without an error (`NAMEDATALEN` - 1).
const POSTGRES_NAME: usize = 63;

/// A host's table that is to carry work.
///
/// ```
/// use asyncable::host_table::{Backend, HostTable, Role};
///
/// let migrations = HostTable::new("reviews", Backend::Sqlite)
///     .prefix("est_")
///     .column(Role::Error, "what_failed")
///     .with(Role::CanceledAt)
///     .migrations()?;
///
/// let statements: Vec<&str> = migrations[0]
///     .up_sql
///     .lines()
///     .filter(|line| !line.is_empty() && !line.starts_with("--"))
///     .collect();
/// assert_eq!(
///     statements,
///     [
///         r#"ALTER TABLE "reviews" ADD COLUMN "est_submitted_at" TIMESTAMP;"#,
///         r#"ALTER TABLE "reviews" ADD COLUMN "est_attempted_at" TIMESTAMP;"#,
///         r#"ALTER TABLE "reviews" ADD COLUMN "est_processed_at" TIMESTAMP;"#,
///         r#"ALTER TABLE "reviews" ADD COLUMN "what_failed" TEXT;"#,
///         r#"ALTER TABLE "reviews" ADD COLUMN "est_canceled_at" TIMESTAMP;"#,
///         r#"CREATE INDEX "reviews_est_work" ON "reviews" ("est_attempted_at", "est_submitted_at")"#,
///         r#"  WHERE "est_processed_at" IS NULL AND "est_canceled_at" IS NULL;"#,
///     ]
/// );
/// # Ok::<(), asyncable::host_table::HostTableError>(())
/// ```
#[derive(Clone, Debug)]
pub struct HostTable {
    backend: Backend,
    schema: Option<String>,
    table: String,
    prefix: String,
    names: HashMap<Role, String>,
    optional: Vec<Role>,
    index: Option<String>,
    time: &'static str,
}

impl HostTable {
    /// A table by its name, as it is: neither quoted nor with a schema. Four columns with their usual
    /// names are added to it, without a time zone.
    pub fn new(table: impl Into<String>, backend: Backend) -> Self {
        HostTable {
            backend,
            schema: None,
            table: table.into(),
            prefix: String::new(),
            names: HashMap::new(),
            optional: Vec::new(),
            index: None,
            time: "TIMESTAMP",
        }
    }

    /// The schema that the table is in; on SQLite the attached database. By default none is named.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// What every usual name begins with: `est_` makes `est_submitted_at`. Empty by default. Two works on
    /// one table need two.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Names the column of a role, without the prefix. An optional role is added by this.
    pub fn column(mut self, role: Role, name: impl Into<String>) -> Self {
        self.names.insert(role, name.into());
        self.with(role)
    }

    /// Adds the column of an optional role. The four others are there anyway.
    pub fn with(mut self, role: Role) -> Self {
        if !Role::NEEDED.contains(&role) && !self.optional.contains(&role) {
            self.optional.push(role);
        }
        self
    }

    /// Keeps instants with a time zone: `TIMESTAMPTZ`, Diesel's `Timestamptz` (`TimestamptzSqlite` on
    /// SQLite). By default `TIMESTAMP`, in UTC.
    pub fn with_time_zone(mut self) -> Self {
        self.time = "TIMESTAMPTZ";
        self
    }

    /// Names the index. By default it is the table's name, the prefix and `work`: `reviews_work`.
    pub fn index(mut self, name: impl Into<String>) -> Self {
        self.index = Some(name.into());
        self
    }

    /// The migrations, in the order in which they are to run.
    ///
    /// # Errors
    /// [`HostTableError`], for a name that the database would refuse, cut off or meet twice.
    pub fn migrations(&self) -> Result<Vec<HostMigration>, HostTableError> {
        self.check()?;
        Ok(match self.backend {
            Backend::Sqlite => vec![self.sqlite()],
            Backend::Postgres => {
                let mut migrations = vec![self.postgres_columns(), self.postgres_index()];
                migrations.extend(self.has(Role::User).then(|| self.postgres_user_index()));
                migrations
            }
        })
    }

    fn check(&self) -> Result<(), HostTableError> {
        let mut named = vec![("table", self.table.clone()), ("index", self.index_name())];
        named.extend(self.has(Role::User).then(|| ("index of the user", self.user_index_name())));
        named.extend(self.schema.clone().map(|schema| ("schema", schema)));
        named.extend(self.roles().map(|role| (role.name(), self.name_of(role))));
        for (what, name) in named {
            if name.is_empty() {
                return Err(HostTableError::Empty { what });
            }
            if name.contains('\0') {
                return Err(HostTableError::Nul { what });
            }
            if self.backend == Backend::Postgres && name.len() > POSTGRES_NAME {
                return Err(HostTableError::TooLong { what, bytes: name.len(), name });
            }
        }
        let mut seen = HashMap::new();
        for role in self.roles() {
            // SQLite's column names are the same in either case, and so are PostgreSQL's to most eyes.
            let name = self.name_of(role);
            if let Some(first) = seen.insert(name.to_ascii_lowercase(), role) {
                return Err(HostTableError::Twice { first, second: role, name });
            }
        }
        Ok(())
    }

    fn sqlite(&self) -> HostMigration {
        let table = self.qualified(&self.table);
        let add: String = self
            .columns()
            .map(|(role, column, kind)| {
                format!("-- {}\nALTER TABLE {table} ADD COLUMN {column} {kind};\n", role.says())
            })
            .collect();
        let drop: String = self
            .columns()
            .map(|(_, column, _)| format!("ALTER TABLE {table} DROP COLUMN {column};\n"))
            .collect();
        let index = self.qualified(&self.index_name());
        let (mut user_index, mut no_user_index) = (String::new(), String::new());
        if self.has(Role::User) {
            let index = self.qualified(&self.user_index_name());
            let (table, indexed) = (quoted(&self.table), self.indexed_user());
            user_index = format!("\n{WHY_USER_INDEX}CREATE INDEX {index} ON {table} {indexed};\n");
            no_user_index = format!("DROP INDEX {index};\n");
        }
        HostMigration {
            name: "add_asyncable_work",
            up_sql: format!(
                "{WHY_COLUMNS}\
                 -- Locks: the database's write lock. The columns change the schema alone; each index reads \
                 the\n-- whole table once.\n\n\
                 {add}\n{WHY_INDEX}\
                 CREATE INDEX {index} ON {} {};\n{user_index}",
                quoted(&self.table),
                self.indexed()
            ),
            down_sql: format!(
                "{WHY_NOT_COLUMNS}\
                 -- Locks: the database's write lock, while the table is written anew once a column.\n\n\
                 -- First: SQLite drops no column that an index names.\n\
                 DROP INDEX {index};\n{no_user_index}\n{drop}"
            ),
            metadata_toml: None,
        }
    }

    fn postgres_columns(&self) -> HostMigration {
        let table = self.qualified(&self.table);
        let add: Vec<String> = self
            .columns()
            .map(|(role, column, kind)| {
                format!("  -- {}\n  ADD COLUMN {column} {kind}", role.says())
            })
            .collect();
        let drop: Vec<String> =
            self.columns().map(|(_, column, _)| format!("  DROP COLUMN {column}")).collect();
        HostMigration {
            name: "add_asyncable_columns",
            up_sql: format!(
                "{WHY_COLUMNS}{LOCKS_A_MOMENT}\n\
                 ALTER TABLE {table}\n{};\n",
                add.join(",\n")
            ),
            down_sql: format!(
                "{WHY_NOT_COLUMNS}{LOCKS_A_MOMENT}\n\
                 ALTER TABLE {table}\n{};\n",
                drop.join(",\n")
            ),
            metadata_toml: None,
        }
    }

    fn postgres_index(&self) -> HostMigration {
        HostMigration {
            name: "index_asyncable_work",
            up_sql: format!(
                "{WHY_INDEX}{LOCKS_NOBODY}\
                 -- If it fails it leaves an invalid index behind: run down.sql, then this again.\n\n\
                 CREATE INDEX CONCURRENTLY {} ON {} {};\n",
                quoted(&self.index_name()),
                self.qualified(&self.table),
                self.indexed()
            ),
            down_sql: format!(
                "-- Takes away the index that asyncable's claims read: each sweep then reads the whole table.\n\
                 {LOCKS_NOBODY}\n\
                 DROP INDEX CONCURRENTLY IF EXISTS {};\n",
                self.qualified(&self.index_name())
            ),
            metadata_toml: Some(
                "# CREATE INDEX CONCURRENTLY and DROP INDEX CONCURRENTLY refuse to run in a transaction.\n\
                 run_in_transaction = false\n",
            ),
        }
    }

    fn postgres_user_index(&self) -> HostMigration {
        let work = self.postgres_index();
        HostMigration {
            name: "index_asyncable_user",
            up_sql: format!(
                "{WHY_USER_INDEX}{LOCKS_NOBODY}\
                 -- If it fails it leaves an invalid index behind: run down.sql, then this again.\n\n\
                 CREATE INDEX CONCURRENTLY {} ON {} {};\n",
                quoted(&self.user_index_name()),
                self.qualified(&self.table),
                self.indexed_user()
            ),
            down_sql: format!(
                "-- Takes away the index that serves people's own rows: each look at them then reads the whole table.\n\
                 {LOCKS_NOBODY}\n\
                 DROP INDEX CONCURRENTLY IF EXISTS {};\n",
                self.qualified(&self.user_index_name())
            ),
            metadata_toml: work.metadata_toml,
        }
    }

    /// The user's index's columns.
    fn indexed_user(&self) -> String {
        let column = |role| quoted(&self.name_of(role));
        format!("({}, {})", column(Role::User), column(self.last_submitted()))
    }

    /// The column from whose instant on a row counts as waiting.
    fn last_submitted(&self) -> Role {
        match self.has(Role::LastSubmittedAt) {
            true => Role::LastSubmittedAt,
            false => Role::SubmittedAt,
        }
    }

    /// The index's columns and condition.
    fn indexed(&self) -> String {
        let column = |role| quoted(&self.name_of(role));
        let submitted = self.last_submitted();
        let canceled = match self.has(Role::CanceledAt) {
            true => format!(" AND {} IS NULL", column(Role::CanceledAt)),
            false => String::new(),
        };
        format!(
            "({}, {})\n  WHERE {} IS NULL{canceled}",
            column(Role::AttemptedAt),
            column(submitted),
            column(Role::ProcessedAt)
        )
    }

    fn has(&self, role: Role) -> bool {
        Role::NEEDED.contains(&role) || self.optional.contains(&role)
    }

    fn roles(&self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(|role| self.has(*role))
    }

    /// The role, quoted name and type of each column to add.
    fn columns(&self) -> impl Iterator<Item = (Role, String, &'static str)> {
        self.roles().filter(|role| *role != Role::User).map(|role| {
            let kind = if role == Role::Error { "TEXT" } else { self.time };
            (role, quoted(&self.name_of(role)), kind)
        })
    }

    fn name_of(&self, role: Role) -> String {
        let usual = || match role {
            Role::User => role.name().to_owned(),
            role => format!("{}{}", self.prefix, role.name()),
        };
        self.names.get(&role).cloned().unwrap_or_else(usual)
    }

    fn index_name(&self) -> String {
        let usual = || format!("{}_{}work", self.table, self.prefix);
        self.index.clone().unwrap_or_else(usual)
    }

    fn user_index_name(&self) -> String {
        format!("{}_{}user", self.table, self.prefix)
    }

    fn qualified(&self, name: &str) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(name)),
            None => quoted(name),
        }
    }
}

const WHY_COLUMNS: &str = "\
-- Where the work of each row stands: asyncable writes these columns, anybody may read them.
-- Rows that are there already stay as they are: never submitted, so never due.
";

const WHY_NOT_COLUMNS: &str = "\
-- Takes away the columns that asyncable writes, and with them where the work of each row stands:
-- what is not processed by now is not done, and nothing here can tell which rows those were.
";

const WHY_INDEX: &str = "\
-- Serves asyncable's claim of rows never attempted, the earliest submitted first; by its first column
-- also the rescue of a lost host's rows and the search for attempts that nobody vouches for. It leaves
-- out what has ended.
";

const WHY_USER_INDEX: &str = "\
-- Serves the page `mine`, where people see where their own rows stand: those of a user, the last submitted
-- first.
";

const LOCKS_A_MOMENT: &str = "\
-- Locks: ACCESS EXCLUSIVE on the table, for a moment: only the catalog changes, no row is written. But
-- it waits for every transaction that has touched the table, and whoever comes later waits behind it. So
-- it gives up after a while, having changed nothing; run it again then.
SET LOCAL lock_timeout = '5s';
";

const LOCKS_NOBODY: &str = "\
-- Locks: SHARE UPDATE EXCLUSIVE on the table, which stops neither readers nor writers; it waits for the
-- transactions that run now. Not in a transaction (metadata.toml says so), and alone in its file: the
-- statements of one file are sent together, which is a transaction too.
";

/// One migration, as Diesel keeps it: a folder of these files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostMigration {
    /// What the folder may be called, after the date: `2026-11-24-060000_add_asyncable_columns`.
    pub name: &'static str,
    /// `up.sql`.
    pub up_sql: String,
    /// `down.sql`.
    pub down_sql: String,
    /// `metadata.toml`, where there is one to write.
    pub metadata_toml: Option<&'static str>,
}

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// SQLite, 3.35 or newer: `DROP COLUMN` came with it.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl FromStr for Backend {
    type Err = HostTableError;

    /// `sqlite` or `postgres`.
    fn from_str(name: &str) -> Result<Self, HostTableError> {
        match name {
            "sqlite" => Ok(Backend::Sqlite),
            "postgres" => Ok(Backend::Postgres),
            _ => Err(HostTableError::UnknownBackend { name: name.to_owned() }),
        }
    }
}

/// What a column says of its row. Its name is also the column's usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// `submitted_at`.
    SubmittedAt,
    /// `last_submitted_at`, optional: keeps the instant of asking apart from that of being due.
    LastSubmittedAt,
    /// `attempted_at`.
    AttemptedAt,
    /// `processed_at`.
    ProcessedAt,
    /// `error`.
    Error,
    /// `canceled_at`, optional: without it a row cannot be canceled.
    CanceledAt,
    /// `user`, optional: whose row it is. A column that the table has already, so it is not added; the index is
    /// that serves people's own rows. Its usual name has no prefix.
    User,
}

impl Role {
    /// Every role, in the order of the columns.
    pub const ALL: [Role; 7] = [
        Role::SubmittedAt,
        Role::LastSubmittedAt,
        Role::AttemptedAt,
        Role::ProcessedAt,
        Role::Error,
        Role::CanceledAt,
        Role::User,
    ];

    const NEEDED: [Role; 4] =
        [Role::SubmittedAt, Role::AttemptedAt, Role::ProcessedAt, Role::Error];

    fn name(self) -> &'static str {
        match self {
            Role::SubmittedAt => "submitted_at",
            Role::LastSubmittedAt => "last_submitted_at",
            Role::AttemptedAt => "attempted_at",
            Role::ProcessedAt => "processed_at",
            Role::Error => "error",
            Role::CanceledAt => "canceled_at",
            Role::User => "user",
        }
    }

    fn says(self) -> &'static str {
        match self {
            Role::SubmittedAt => "When the work was asked for.",
            Role::LastSubmittedAt => "From when it is due, and from when it counts as waiting.",
            Role::AttemptedAt => "When the last attempt was claimed; while one runs, its token.",
            Role::ProcessedAt => "When it was done.",
            Role::Error => "What the last attempt failed with.",
            Role::CanceledAt => "When somebody gave it up.",
            Role::User => "Whose it is.",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = HostTableError;

    /// By its name: `submitted_at`, `last_submitted_at`, `attempted_at`, `processed_at`, `error`,
    /// `canceled_at` or `user`.
    fn from_str(name: &str) -> Result<Self, HostTableError> {
        let named = Role::ALL.into_iter().find(|role| role.name() == name);
        named.ok_or_else(|| HostTableError::UnknownRole { name: name.to_owned() })
    }
}

/// Why there is no migration for a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostTableError {
    /// No such backend.
    #[error("unknown backend {name:?}; it must be sqlite or postgres")]
    UnknownBackend {
        /// What was asked for.
        name: String,
    },
    /// No such role.
    #[error(
        "unknown role {name:?}; it must be submitted_at, last_submitted_at, attempted_at, \
         processed_at, error, canceled_at or user"
    )]
    UnknownRole {
        /// What was asked for.
        name: String,
    },
    /// A name is empty.
    #[error("the name of the {what} is empty")]
    Empty {
        /// `table`, `schema`, `index`, or the column's role.
        what: &'static str,
    },
    /// A name holds a NUL, which no database takes.
    #[error("the name of the {what} holds a NUL character")]
    Nul {
        /// `table`, `schema`, `index`, or the column's role.
        what: &'static str,
    },
    /// PostgreSQL would cut the name off, and may then take another's for it.
    #[error("the name of the {what}, {name:?}, is {bytes} bytes long; PostgreSQL keeps 63")]
    TooLong {
        /// `table`, `schema`, `index`, or the column's role.
        what: &'static str,
        /// The name.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// Two roles have one column.
    #[error("{first} and {second} are both named {name:?}")]
    Twice {
        /// One of them.
        first: Role,
        /// The other.
        second: Role,
        /// The name.
        name: String,
    },
}

/// An identifier, as standard SQL and both databases spell it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
