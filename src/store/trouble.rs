//! Whose fault an error is: one row's, which must not stop the others, or the database's, which stops
//! the whole turn until it is over.
//!
//! Taken for a row's, a full disk would cost every outcome that was reached meanwhile: each would count
//! as refused, one by one.

use diesel::{
    Connection, QueryResult,
    result::{DatabaseErrorKind, Error},
};

/// A file that has become read-only, a disk that is full or fails, memory that is short. Diesel passes on no
/// code for these. SQLite's texts are always English; PostgreSQL's are where its `lc_messages` says so.
const TEXTS: [&str; 6] = [
    "attempt to write a readonly database",
    "database or disk is full",
    "No space left on device",
    "disk I/O error",
    "Input/output error",
    "out of memory",
];

/// Whether an error says that the database or the connection, not the statement, is at fault.
pub(crate) fn is_broken(error: &Error) -> bool {
    match error {
        Error::BrokenTransactionManager
        | Error::NotInTransaction
        | Error::RollbackErrorOnCommit { .. } => true,
        Error::DatabaseError(kind, said) => match kind {
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => true,
            // A server that has become a replica, and a transaction that another one came before: neither
            // is a row's doing, and the turn is taken again as it is.
            DatabaseErrorKind::ReadOnlyTransaction | DatabaseErrorKind::SerializationFailure => {
                true
            }
            _ => TEXTS.iter().any(|text| said.message().contains(text)),
        },
        _ => false,
    }
}

/// Runs `f` in a transaction, or in a savepoint of the one that is open. If it fails, the error is its
/// own.
///
/// After some errors, a full disk for one, SQLite ends the whole transaction by itself. To roll back then
/// fails as well, and Diesel answers that second error, which says nothing about the first.
pub(crate) fn within<C, T, E>(conn: &mut C, f: impl FnOnce(&mut C) -> Result<T, E>) -> Result<T, E>
where
    C: Connection,
    E: From<Error>,
{
    own_error(f, |f| conn.transaction(f))
}

/// As [`within`], for any way to begin a transaction.
pub(crate) fn own_error<C, T, E>(
    f: impl FnOnce(&mut C) -> Result<T, E>,
    transact: impl FnOnce(&mut dyn FnMut(&mut C) -> QueryResult<T>) -> QueryResult<T>,
) -> Result<T, E>
where
    E: From<Error>,
{
    let (mut f, mut own) = (Some(f), None);
    let done = transact(&mut |conn| {
        let f = f.take().ok_or(Error::RollbackTransaction)?;
        f(conn).map_err(|error| {
            own = Some(error);
            Error::RollbackTransaction
        })
    });
    done.map_err(|error| own.unwrap_or_else(|| error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_database_is_told_from_what_is_wrong_with_a_row() {
        use DatabaseErrorKind::*;
        let error = |kind, said: &str| Error::DatabaseError(kind, Box::new(said.to_owned()));
        let databases = [
            error(ClosedConnection, "server closed the connection unexpectedly"),
            error(ReadOnlyTransaction, "cannot execute UPDATE in a read-only transaction"),
            error(SerializationFailure, "could not serialize access due to concurrent update"),
            error(Unknown, "database or disk is full"),
            error(Unknown, "attempt to write a readonly database"),
        ];
        let rows = [
            error(CheckViolation, "CHECK constraint failed: no_errors"),
            error(UniqueViolation, "UNIQUE constraint failed: letters.text"),
            error(Unknown, "not this one"),
            error(Unknown, "value too long for type character varying(100)"),
            Error::NotFound,
        ];
        assert_eq!(databases.each_ref().map(is_broken), [true; 5], "{databases:?}");
        assert_eq!(rows.each_ref().map(is_broken), [false; 5], "{rows:?}");
    }
}
