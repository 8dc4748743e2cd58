//! Prints the migrations that make a host's table carry work: `cargo run --example migration -- --help`.

use std::{io::Write, process::ExitCode};

use asyncable::host_table::{Backend, HostTable, HostTableError, Role};

const HELP: &str = "\
Prints the migrations that make a table carry work: the columns that asyncable writes, and the index that
its claims read.

Usage: migration [SCHEMA.]TABLE [OPTIONS]

  --backend sqlite|postgres  whose SQL it is; sqlite unless said otherwise. On PostgreSQL there are two
                             migrations: its index is made without stopping writers, which cannot be
                             done in a transaction
  --schema SCHEMA            the table's schema; TABLE is then taken as it is, a dot included
  --prefix PREFIX            what the columns' usual names begin with. Two works on one table need two
  --column ROLE=NAME         the name of a column, without the prefix; also adds it if it is optional
  --with ROLE                adds an optional column with its usual name
  --with-time-zone           TIMESTAMPTZ instead of TIMESTAMP
  --index NAME               the name of the index; TABLE_PREFIXwork unless said otherwise
  --help                     this

Roles, which are also the usual names: submitted_at, attempted_at, processed_at, error, and the optional
last_submitted_at (keeps when it was asked for apart from when it is due), canceled_at (without it a row
cannot be canceled) and user (a column that is there already and says whose row it is: --column
user=created_by gives it the index that serves people's own rows).
";

fn main() -> ExitCode {
    match answer(std::env::args().skip(1)) {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            // Nobody reads on: `| head`.
            Err(_) => ExitCode::FAILURE,
        },
        Err(message) => {
            // Nobody to tell if standard error is closed; the exit code still says it.
            let _told_or_not = writeln!(std::io::stderr(), "migration: {message}");
            ExitCode::from(2)
        }
    }
}

/// What is printed for these arguments, or the one line that says what is wrong with them.
pub(crate) fn answer(mut args: impl Iterator<Item = String>) -> Result<String, String> {
    let mut table = None;
    let mut backend = Backend::Sqlite;
    let mut schema = None;
    let mut options: Vec<Box<dyn FnOnce(HostTable) -> HostTable>> = Vec::new();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value; see --help"));
        let role = |name: &str| name.parse::<Role>().map_err(text);
        match arg.as_str() {
            "--help" | "-h" => return Ok(HELP.to_owned()),
            "--backend" => backend = value()?.parse().map_err(text)?,
            "--schema" => schema = Some(value()?),
            "--prefix" => {
                let prefix = value()?;
                options.push(Box::new(|table| table.prefix(prefix)));
            }
            "--column" => {
                let value = value()?;
                let (named, name) = value
                    .split_once('=')
                    .ok_or_else(|| format!("--column takes ROLE=NAME, not {value:?}"))?;
                let (role, name) = (role(named)?, name.to_owned());
                options.push(Box::new(move |table| table.column(role, name)));
            }
            "--with" => {
                let role = role(&value()?)?;
                options.push(Box::new(move |table| table.with(role)));
            }
            "--with-time-zone" => options.push(Box::new(HostTable::with_time_zone)),
            "--index" => {
                let index = value()?;
                options.push(Box::new(|table| table.index(index)));
            }
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}; see --help"));
            }
            _ if table.is_some() => {
                return Err(format!("one table at a time, {arg:?} is a second; see --help"));
            }
            _ => table = Some(arg),
        }
    }
    let mut table = table.ok_or("which table? see --help")?;
    if schema.is_none()
        && let Some((before, after)) = table.split_once('.')
    {
        (schema, table) = (Some(before.to_owned()), after.to_owned());
    }
    let mut host_table = HostTable::new(table, backend);
    if let Some(schema) = schema {
        host_table = host_table.schema(schema);
    }
    let host_table = options.into_iter().fold(host_table, |table, option| option(table));
    Ok(printed(&host_table.migrations().map_err(text)?))
}

fn text(error: HostTableError) -> String {
    error.to_string()
}

/// Each file under its place among the host's migrations.
fn printed(migrations: &[asyncable::host_table::HostMigration]) -> String {
    let mut out = String::new();
    for migration in migrations {
        let files = [("up.sql", &*migration.up_sql), ("down.sql", &*migration.down_sql)];
        let metadata = migration.metadata_toml.map(|text| ("metadata.toml", text));
        for (file, text) in files.into_iter().chain(metadata) {
            let comment = if file.ends_with(".toml") { "#" } else { "--" };
            out += &format!("{comment} ==== {}/{file}\n{text}\n", migration.name);
        }
    }
    out
}
