//! Results of the library's own statements: rows of typed values.
//!
//! Every statement of the store is generic over the backend. Naming each result's Diesel type there
//! costs a bound per statement on every function above it, so results are read by what the database
//! says they are instead.

use chrono::NaiveDateTime;
use diesel::{QueryResult, result::Error::DeserializationError};

use super::moment::Moment;

/// One value of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    #[doc(hidden)]
    Null,
    #[doc(hidden)]
    Int(i64),
    #[doc(hidden)]
    Text(String),
    #[doc(hidden)]
    Time(NaiveDateTime),
}

/// One row of a result.
#[derive(Debug)]
pub(crate) struct Record(pub(crate) Vec<Cell>);

impl Record {
    pub(crate) fn text(&self, index: usize) -> QueryResult<String> {
        match self.0.get(index) {
            Some(Cell::Text(text)) => Ok(text.clone()),
            Some(Cell::Int(int)) => Ok(int.to_string()),
            other => Err(unexpected("text", other)),
        }
    }

    pub(crate) fn maybe_text(&self, index: usize) -> QueryResult<Option<String>> {
        match self.0.get(index) {
            Some(Cell::Null) => Ok(None),
            _ => self.text(index).map(Some),
        }
    }

    pub(crate) fn int(&self, index: usize) -> QueryResult<i64> {
        match self.0.get(index) {
            Some(Cell::Int(int)) => Ok(*int),
            other => Err(unexpected("an integer", other)),
        }
    }

    pub(crate) fn maybe_int(&self, index: usize) -> QueryResult<Option<i64>> {
        match self.0.get(index) {
            Some(Cell::Null) => Ok(None),
            _ => self.int(index).map(Some),
        }
    }

    pub(crate) fn flag(&self, index: usize) -> QueryResult<bool> {
        self.int(index).map(|int| int != 0)
    }

    /// An instant; SQLite keeps it as text, in whichever spelling its writer used.
    pub(crate) fn maybe_time(&self, index: usize) -> QueryResult<Option<Moment>> {
        match self.0.get(index) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Time(at)) => Ok(Some(Moment::from_naive(*at))),
            Some(Cell::Text(text)) => match parse_time(text) {
                Some(at) => Ok(Some(at)),
                None => Err(unexpected("an instant", self.0.get(index))),
            },
            other => Err(unexpected("an instant", other)),
        }
    }

    pub(crate) fn time(&self, index: usize) -> QueryResult<Moment> {
        self.maybe_time(index)?.ok_or_else(|| unexpected("an instant", Some(&Cell::Null)))
    }
}

/// Reads an instant that Diesel, Rails, SQLite's own functions or an ISO 8601 writer put into a text.
pub(crate) fn parse_time(text: &str) -> Option<Moment> {
    const NAIVE: [&str; 4] =
        ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let naive = text.strip_suffix('Z').unwrap_or(text);
    if let Some(at) = NAIVE.iter().find_map(|f| NaiveDateTime::parse_from_str(naive, f).ok()) {
        return Some(Moment::from_naive(at));
    }
    const ZONED: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f%:z"];
    let zoned = ZONED.iter().find_map(|f| chrono::DateTime::parse_from_str(text, f).ok());
    zoned.map(|at| Moment::at(at.to_utc()))
}

fn unexpected(wanted: &str, found: Option<&Cell>) -> diesel::result::Error {
    // The value itself may be a row's content, which belongs in no error text.
    let found = match found {
        None => "nothing",
        Some(Cell::Null) => "NULL",
        Some(Cell::Int(_)) => "an integer",
        Some(Cell::Text(_)) => "a text",
        Some(Cell::Time(_)) => "an instant",
    };
    DeserializationError(format!("expected {wanted}, found {found}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_every_spelling_that_programs_write_into_sqlite() {
        let spellings = [
            "2026-01-01 12:00:00.5",
            "2026-01-01 12:00:00.500000",
            "2026-01-01T12:00:00.500Z",
            "2026-01-01 12:00:00.500+00:00",
            "2026-01-01T14:00:00.500+02:00",
        ];
        let read: Vec<_> =
            spellings.iter().map(|s| parse_time(s).map(|m| m.epoch_micros())).collect();
        assert_eq!(read, [Some(1_767_268_800_500_000); 5]);
        assert_eq!(parse_time("soon"), None);
    }
}
