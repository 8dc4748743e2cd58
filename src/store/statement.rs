//! A statement written as SQL with names in it, as a Diesel query.
//!
//! The store's statements are long and exact; they are written as text that reads like the protocol's,
//! with `{A}` for a model's column and `$now` for a bind. Diesel prepares, caches and binds them like
//! any other query. Only this module turns names into SQL, and only constants of the program and
//! quoted identifiers go into the text: every value is bound.
//!
//! In the text:
//!
//! - `{m}` is the model's table, `{of}` its name without a schema, `{model}` the model's name as a literal;
//!   `{row}` is what the model selects;
//! - `{id}` is its key, `{id text}` that as the library's tables keep it, `{id from x}` the other way round;
//! - `{S}`, `{L}`, `{A}`, `{P}`, `{X}`, `{E}` are the columns submitted_at, last_submitted_at, attempted_at,
//!   processed_at, canceled_at and error, qualified; `{=A}` the bare name, for `SET`;
//! - `{utc A}` is a column as the library's tables keep it, `{A from x}` the other way round; `{spelled L}` its
//!   text; `{plain A}` the column where an index on it would mislead;
//! - `{open}` is not processed and not canceled, `{not canceled}` the latter alone; `{open by key}` is the former
//!   of rows that are joined by their key, said so that no planner walks the index of open rows for each;
//! - `{skip locked}`, `{of m skip locked}`, `{share of m skip locked}` and `{for update}` are the row locks,
//!   and nothing on SQLite;
//! - `$now` binds in the library's own type for instants, `$now:L` in the type of that column. `$ids` may be a
//!   list, `$rows` a list of tuples: both are padded to a power of two by repeating the last, so that few
//!   distinct statements exist and each is prepared once.

use std::{marker::PhantomData, rc::Rc};

use diesel::{
    QueryResult,
    connection::LoadConnection,
    query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId},
    query_source::{Column, Table},
    result::Error::QueryBuilderError,
    row::{Field, Row},
    sql_types::Untyped,
};

use super::{cell::Record, dialect::Dialect, moment::Moment};
use crate::{
    asyncable::{Asyncable, Key, Stored},
    columns::{TimeColumn, Zone},
};

/// What a name in a statement stands for.
pub(crate) enum Value<DB: Dialect> {
    Time(Moment),
    /// This instant, or the database's own clock where the database is another machine.
    Now(Moment),
    Text(String),
    Id(Rc<dyn QueryFragment<DB>>),
    List(Vec<Value<DB>>),
    /// The bind types of a tuple's instants are those of the columns named here, by position.
    Rows(&'static [&'static str], Vec<Vec<Value<DB>>>),
}

impl<DB: Dialect> Clone for Value<DB> {
    fn clone(&self) -> Self {
        match self {
            Value::Time(at) => Value::Time(*at),
            Value::Now(at) => Value::Now(*at),
            Value::Text(text) => Value::Text(text.clone()),
            Value::Id(id) => Value::Id(id.clone()),
            Value::List(items) => Value::List(items.clone()),
            Value::Rows(roles, rows) => Value::Rows(roles, rows.clone()),
        }
    }
}

impl<DB: Dialect> From<&str> for Value<DB> {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl<DB: Dialect> From<Moment> for Value<DB> {
    fn from(at: Moment) -> Self {
        Value::Time(at)
    }
}

enum Piece<DB: Dialect> {
    Sql(String),
    Time(Zone, Moment),
    Text(String),
    Fragment(Rc<dyn QueryFragment<DB>>),
}

/// SQL and its binds, ready to run.
pub(crate) struct Statement<DB: Dialect> {
    pieces: Vec<Piece<DB>>,
}

impl<DB: Dialect> Statement<DB> {
    /// A statement over the library's own tables.
    pub(crate) fn plain(text: &str, binds: Vec<(&str, Value<DB>)>) -> QueryResult<Self> {
        Self::render(text, &binds, |_| None, |_| None)
    }

    /// A statement over the model's table, and the library's own.
    pub(crate) fn of<M: Stored<DB>>(
        text: &str,
        binds: Vec<(&str, Value<DB>)>,
    ) -> QueryResult<Self> {
        let names = Names::<M, DB>::of(M::table_sql()?);
        let name = |name: &str| match name {
            "row" => Some(Piece::Fragment(M::row_fragment())),
            name => names.sql(name).map(Piece::Sql),
        };
        Self::render(text, &binds, name, |role| Some(time_column::<M>(role)?.zone))
    }

    fn render(
        text: &str,
        binds: &[(&str, Value<DB>)],
        names: impl Fn(&str) -> Option<Piece<DB>>,
        zones: impl Fn(&str) -> Option<Zone>,
    ) -> QueryResult<Self> {
        let mut out = Statement { pieces: Vec::new() };
        for part in parts(text) {
            match part {
                Part::Sql(sql) => out.sql(sql),
                Part::Name(name) => match names(name).ok_or_else(|| wrong(name, text))? {
                    Piece::Sql(sql) => out.sql(&sql),
                    other => out.pieces.push(other),
                },
                Part::Bind { name, role } => {
                    let zone = match role {
                        "" => Zone::Naive,
                        role => zones(role).ok_or_else(|| wrong(role, text))?,
                    };
                    let bind = binds.iter().find(|bind| bind.0 == name);
                    let value = &bind.ok_or_else(|| wrong(name, text))?.1;
                    out.bind(value, zone, &zones);
                }
            }
        }
        Ok(out)
    }

    fn sql(&mut self, sql: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Sql(last)) => last.push_str(sql),
            _ => self.pieces.push(Piece::Sql(sql.to_owned())),
        }
    }

    fn bind(&mut self, value: &Value<DB>, zone: Zone, zones: &impl Fn(&str) -> Option<Zone>) {
        match value {
            Value::Time(at) => self.pieces.push(Piece::Time(zone, *at)),
            Value::Now(at) => match DB::database_now(zone) {
                Some(sql) => self.sql(sql),
                None => self.pieces.push(Piece::Time(zone, *at)),
            },
            Value::Text(text) => self.pieces.push(Piece::Text(text.clone())),
            Value::Id(id) => self.pieces.push(Piece::Fragment(id.clone())),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.sql(", ");
                    }
                    self.bind(item, zone, zones);
                }
            }
            Value::Rows(roles, rows) => {
                for (index, row) in rows.iter().enumerate() {
                    self.sql(if index > 0 { ", (" } else { "(" });
                    for (column, item) in row.iter().enumerate() {
                        if column > 0 {
                            self.sql(", ");
                        }
                        let role = roles.get(column).copied().unwrap_or("");
                        let zone = zones(role).unwrap_or(Zone::Naive);
                        self.bind(item, zone, zones);
                    }
                    self.sql(")");
                }
            }
        }
    }

    /// Runs it and answers how many rows it wrote.
    pub(crate) fn execute<C>(self, conn: &mut C) -> QueryResult<usize>
    where
        C: LoadConnection<Backend = DB>,
    {
        conn.execute_returning_count(&self)
    }

    /// Runs it and answers its rows.
    pub(crate) fn load<C>(self, conn: &mut C) -> QueryResult<Vec<Record>>
    where
        C: LoadConnection<Backend = DB>,
    {
        self.load_with(conn, usize::MAX, &mut Whole)
    }

    /// The one row it answers.
    pub(crate) fn first<C>(self, conn: &mut C) -> QueryResult<Option<Record>>
    where
        C: LoadConnection<Backend = DB>,
    {
        Ok(self.load(conn)?.into_iter().next())
    }

    /// Runs it, reads the first `own` values of each row, and hands the rest to `read`.
    pub(crate) fn load_with<C, R>(
        self,
        conn: &mut C,
        own: usize,
        reader: &mut R,
    ) -> QueryResult<Vec<R::Out>>
    where
        C: LoadConnection<Backend = DB>,
        R: ReadRow<DB>,
    {
        let mut out = Vec::new();
        for row in LoadConnection::load(conn, self)? {
            let row = row?;
            let mut cells = Vec::new();
            for index in 0..row.field_count().min(own) {
                let field = row.get(index).ok_or(diesel::result::Error::NotFound)?;
                let cell = DB::cell(field.value());
                cells.push(cell.map_err(diesel::result::Error::DeserializationError)?);
            }
            out.push(reader.read(Record(cells), &row)?);
        }
        Ok(out)
    }
}

/// Reads what follows the library's own values in a row.
pub(crate) trait ReadRow<DB: Dialect> {
    type Out;
    fn read<'a>(&mut self, own: Record, row: &impl Row<'a, DB>) -> QueryResult<Self::Out>;
}

struct Whole;

impl<DB: Dialect> ReadRow<DB> for Whole {
    type Out = Record;
    fn read<'a>(&mut self, own: Record, _: &impl Row<'a, DB>) -> QueryResult<Record> {
        Ok(own)
    }
}

impl<DB: Dialect> Query for Statement<DB> {
    type SqlType = Untyped;
}

impl<DB: Dialect> QueryId for Statement<DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Dialect> QueryFragment<DB> for Statement<DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Sql(sql) => out.push_sql(sql),
                Piece::Time(zone, at) => DB::push_time(&mut out, *zone, at)?,
                Piece::Text(text) => DB::push_text(&mut out, text)?,
                Piece::Fragment(fragment) => fragment.walk_ast(out.reborrow())?,
            }
        }
        Ok(())
    }
}

/// A part of a statement's text.
pub(crate) enum Part<'t> {
    Sql(&'t str),
    /// `{A}`, `{utc A}`, `{open}`.
    Name(&'t str),
    /// `$now`, or `$now:L` with a role.
    Bind {
        name: &'t str,
        role: &'t str,
    },
}

/// Cuts a statement's text at its names and binds.
pub(crate) fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if let Some(marked) = rest.strip_prefix('{') {
            let (name, after) = marked.split_once('}')?;
            rest = after;
            return Some(Part::Name(name));
        }
        if let Some(marked) = rest.strip_prefix('$') {
            let of_name = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
            let end = marked.find(of_name).unwrap_or(marked.len());
            let (name, role) = marked[..end].split_once(':').unwrap_or((&marked[..end], ""));
            rest = &marked[end..];
            return Some(Part::Bind { name, role });
        }
        let end = rest.find(['{', '$']).unwrap_or(rest.len());
        let (sql, after) = rest.split_at(end);
        rest = after;
        (!sql.is_empty()).then_some(Part::Sql(sql))
    })
}

/// The column that a role's letter names.
pub(crate) fn time_column<M: Asyncable>(role: &str) -> Option<TimeColumn> {
    let columns = M::COLUMNS;
    match role {
        "S" => Some(columns.submitted_at),
        "L" => Some(columns.last_submitted_at),
        "A" => Some(columns.attempted_at),
        "P" => Some(columns.processed_at),
        "X" => columns.canceled_at,
        _ => None,
    }
}

/// A model's names as SQL.
pub(crate) struct Names<M, DB> {
    table: String,
    model: PhantomData<fn() -> (M, DB)>,
}

impl<M: Asyncable, DB: Dialect> Names<M, DB> {
    pub(crate) fn of(table: String) -> Self {
        Names { table, model: PhantomData }
    }

    fn qualified(&self, column: &str) -> String {
        format!("{}.{}", self.table, quoted::<DB>(column))
    }

    /// What a name in a statement stands for; nothing if it is not a name.
    pub(crate) fn sql(&self, name: &str) -> Option<String> {
        let columns = M::COLUMNS;
        let id = <<M::Table as Table>::PrimaryKey as Column>::NAME;
        Some(match name {
            "m" => self.table.clone(),
            // In `FOR UPDATE OF` a table's name stands without its schema.
            "of" => self.table.rsplit('.').next().unwrap_or_default().to_owned(),
            "id" => self.qualified(id),
            "=id" => quoted::<DB>(id),
            "id text" => format!("CAST({} AS TEXT)", self.qualified(id)),
            "E" => self.qualified(columns.error),
            "=E" => quoted::<DB>(columns.error),
            "model" => literal(columns.name),
            // Whose row it is, as text; nobody's, where the model does not say.
            "user" => match columns.user {
                Some(user) => format!("CAST({} AS TEXT)", self.qualified(user)),
                None => "NULL".to_owned(),
            },
            "open" => {
                let processed = self.qualified(columns.processed_at.name);
                match columns.canceled_at {
                    Some(canceled) => {
                        let canceled = self.qualified(canceled.name);
                        format!("{processed} IS NULL AND {canceled} IS NULL")
                    }
                    None => format!("{processed} IS NULL"),
                }
            }
            "open by key" => {
                let columns = [Some(columns.processed_at), columns.canceled_at];
                let columns = columns.iter().flatten();
                let columns: Vec<String> =
                    columns.map(|column| self.qualified(column.name)).collect();
                DB::all_null(&columns)
            }
            "not canceled" => match columns.canceled_at {
                Some(canceled) => format!("{} IS NULL", self.qualified(canceled.name)),
                None => "1 = 1".to_owned(),
            },
            "skip locked" => DB::SKIP_LOCKED.to_owned(),
            "for update" => DB::FOR_UPDATE.to_owned(),
            "of m skip locked" if DB::SKIP_LOCKED.is_empty() => String::new(),
            "of m skip locked" => {
                format!(" FOR UPDATE OF {} SKIP LOCKED", self.sql("of")?)
            }
            "share of m skip locked" if DB::SKIP_LOCKED.is_empty() => String::new(),
            "share of m skip locked" => {
                format!(" FOR SHARE OF {} SKIP LOCKED", self.sql("of")?)
            }
            _ => match name.split_once(' ') {
                Some(("utc", role)) => {
                    let column = time_column::<M>(role)?;
                    DB::utc(&self.qualified(column.name), column.zone)
                }
                Some(("plain", role)) => {
                    format!("{}{}", DB::UNINDEXED, self.qualified(time_column::<M>(role)?.name))
                }
                Some(("spelled", role)) => {
                    DB::spelled(&self.qualified(time_column::<M>(role)?.name))
                }
                // `{A from claimed_at}`: the library's spelling of an instant in the column's own.
                Some((role, text)) if time_column::<M>(role).is_some() => {
                    let zone = time_column::<M>(role)?.zone;
                    DB::from_utc(text.strip_prefix("from ")?, zone)
                }
                // `{id from row_id}`: the key that a text in the library's tables names.
                Some(("id", text)) => DB::id_from_text(text.strip_prefix("from ")?, M::Id::TYPE),
                Some(_) => return None,
                None => match name.strip_prefix('=') {
                    Some(role) => quoted::<DB>(time_column::<M>(role)?.name),
                    None => self.qualified(time_column::<M>(name)?.name),
                },
            },
        })
    }
}

/// Repeats the last item up to a power of two.
pub(crate) fn padded<T: Clone>(mut items: Vec<T>) -> Vec<T> {
    if let Some(last) = items.last().cloned() {
        items.resize(items.len().next_power_of_two(), last);
    }
    items
}

pub(crate) fn quoted<DB: Dialect>(identifier: &str) -> String {
    let mut builder = DB::builder();
    // Neither backend's builder can fail here; an unquoted name would be refused by the database.
    match builder.push_identifier(identifier) {
        Ok(()) => builder.finish(),
        Err(_) => identifier.to_owned(),
    }
}

/// A table's name as SQL, with its schema if it has one.
pub(crate) fn table_sql<T, DB>(table: T) -> QueryResult<String>
where
    T: QueryFragment<DB>,
    DB: Dialect,
{
    let mut builder = DB::builder();
    table.to_sql(&mut builder, &DB::backend())?;
    Ok(builder.finish())
}

fn wrong(what: &str, text: &str) -> diesel::result::Error {
    QueryBuilderError(format!("asyncable's own statement is wrong at `{what}`: {text}").into())
}

/// A text as an SQL literal. Only for names that are constants of the program.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
