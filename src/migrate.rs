//! The library's own tables, beside the host's migrations.
//!
//! The versions are `00000000asyncableN`, before any dated one, so that neither set of migrations
//! stands in the other's way. `migrate` and `revert` name their own and leave the host's alone. See
//! `docs/migrations.md`.

use diesel::{
    QueryResult,
    migration::{Migration, MigrationVersion},
    result::{DatabaseErrorKind::UniqueViolation, Error as DieselError},
};
use diesel_migrations::MigrationHarness;

use crate::store::{DialectParts, StoreConnection};

/// Why the library's tables could not be made, brought up to date or taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The database could not be reached or refused to begin a transaction. Nothing has changed.
    #[error("the database refused to begin a migration of asyncable's tables")]
    Database(#[from] DieselError),
    /// A migration failed; all of this run is undone.
    #[error("asyncable's migration {version} failed")]
    Failed {
        /// Its version.
        version: String,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Creates the library's own tables, or brings them up to date; answers how many migrations ran.
///
/// Call it beside the host's own `run_pending_migrations`, before or after, and not in a transaction. It
/// runs in one transaction that first takes the write lock, so several hosts may do it at once. `start`
/// never migrates: the role that runs in production often may not.
///
/// # Errors
/// [`MigrateError`]; then nothing has changed.
pub fn migrate<C>(conn: &mut C) -> Result<usize, MigrateError>
where
    C: StoreConnection + MigrationHarness<C::Backend>,
{
    make_list(conn)?;
    conn.write_alone(|conn| {
        let applied = applied(conn)?;
        let mut ran = 0;
        for migration in sorted(C::Backend::migrations()?) {
            let version = migration.name().version().as_owned();
            if !applied.contains(&version) {
                conn.run_migration(&migration).map_err(|source| MigrateError::Failed {
                    version: version.to_string(),
                    source,
                })?;
                ran += 1;
            }
        }
        Ok(ran)
    })
}

/// Takes the library's own tables away, newest migration first; answers how many were reverted.
///
/// Call it before `diesel migration revert --all`, which does not know these versions and stops there.
///
/// # Errors
/// [`MigrateError`]; then nothing has changed.
pub fn revert<C>(conn: &mut C) -> Result<usize, MigrateError>
where
    C: StoreConnection + MigrationHarness<C::Backend>,
{
    make_list(conn)?;
    conn.write_alone(|conn| {
        let applied = applied(conn)?;
        let mut reverted = 0;
        for migration in sorted(C::Backend::migrations()?).iter().rev() {
            let version = migration.name().version().as_owned();
            if applied.contains(&version) {
                conn.revert_migration(migration).map_err(|source| MigrateError::Failed {
                    version: version.to_string(),
                    source,
                })?;
                reverted += 1;
            }
        }
        Ok(reverted)
    })
}

/// Makes Diesel's list of the migrations that have run, which the host's own share.
///
/// In a short transaction of its own: a host's `run_pending_migrations` that makes the list at the same
/// time takes none of our locks, and PostgreSQL lets only one of two `CREATE TABLE IF NOT EXISTS` hold.
fn make_list<C: StoreConnection>(conn: &mut C) -> QueryResult<()> {
    let made = match conn.write_alone(|conn| conn.setup()) {
        // Whoever made it has committed, so that it is there the second time.
        Err(DieselError::DatabaseError(UniqueViolation, _)) => conn.setup(),
        made => made,
    };
    made.map(drop)
}

fn sorted<DB: diesel::backend::Backend>(
    mut migrations: Vec<Box<dyn Migration<DB>>>,
) -> Vec<Box<dyn Migration<DB>>> {
    migrations.sort_by_key(|migration| migration.name().version().as_owned());
    migrations
}

fn applied<C>(conn: &mut C) -> Result<Vec<MigrationVersion<'static>>, MigrateError>
where
    C: StoreConnection + MigrationHarness<C::Backend>,
{
    conn.applied_migrations()
        .map_err(|source| MigrateError::Failed { version: "list".to_owned(), source })
}
