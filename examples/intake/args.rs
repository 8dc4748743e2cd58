//! The command line.

use std::path::PathBuf;

use crate::claim::{self, Claim};

pub const HELP: &str = "\
Claims are filed and sent to two outside services that fail and are down for hours; time runs fast, so that
days of retries pass in a minute. Open the address it prints. Ctrl-C stops it, the same command goes on.

Usage: cargo run --example intake -- [OPTIONS]

  --speed N           clock seconds a second, 1 to 20000 (3600: an hour a second)
  --claims N          file claims at the start until N of the 200 samples, taken again and again, are filed
  --from FILE         take them from this CSV instead: veteran_name,file_number,kind,issue
                      (several issues are parted by ;)
  --faults PERCENT    how many calls meet a fault, 0 to 50 (17): errors before and after the work was done,
                      no answer, answers that come too late
  --until-idle        end when nothing is pending; exit code 1 if a row is not as its script says, if what
                      the services did is not each step of each row, once, or if a row has expired of
                      which no event said so. Prints what each outage cost
  --database-url URL  a file (intake.db), or postgres://.. (cargo run --features postgres)
  --port N            of the page and the JSON API (8080); 0 takes any free one
  --seed N            another course of the services' failures (1)

A claim's file number says what becomes of it:
  000......  VBMS has the file in use every time: the claim expires after 4 days
  666......  VBMS refuses it: the claim is parked, a person must act
  any other  done once, through time-outs, random failures and outages (VBMS is down from 0:30 to 7:00 of
             each 24 hours since the first start, BGS from 1:00 to 5:00)

What a run leaves: the database and, beside it, a .ledger: the time and what the services did. Delete both
to begin anew. RUST_LOG=debug shows every attempt.
";

pub struct Args {
    pub url: String,
    pub speed: f64,
    pub port: u16,
    pub seed: u64,
    /// How many calls of a hundred meet a fault. Half at most: with more, a claim that has to make two calls
    /// can run out of its 4 days.
    pub faults: u64,
    pub import: Option<Import>,
    pub until_idle: bool,
}

/// Claims to file at the start. A second run files only those that an earlier one did not.
#[derive(Clone)]
pub struct Import {
    /// Which file, as the database remembers it.
    pub source: String,
    pub claims: Vec<Claim>,
    /// How many; more than there are, and they are taken again.
    pub count: usize,
}

impl Args {
    /// Nothing, if help is asked for.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
        let mut args = Args {
            url: "intake.db".to_owned(),
            speed: 3600.0,
            port: 8080,
            seed: 1,
            faults: 17,
            import: None,
            until_idle: false,
        };
        let (mut count, mut from) = (None, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value; see --help"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--until-idle" => args.until_idle = true,
                "--database-url" => args.url = value()?,
                "--from" => from = Some(value()?),
                "--claims" => count = Some(whole(&word, &value()?, 1_000_000)?),
                "--port" => args.port = whole(&word, &value()?, u16::MAX)?,
                "--faults" => args.faults = whole(&word, &value()?, 50)?,
                "--seed" => args.seed = whole(&word, &value()?, u64::MAX)?,
                "--speed" => {
                    let value = value()?;
                    let speed = value.parse().ok().filter(|speed| (1.0..=20_000.0).contains(speed));
                    args.speed = speed.ok_or(format!("--speed takes 1 to 20000, not {value:?}"))?;
                }
                _ => return Err(format!("unknown option {word}; see --help")),
            }
        }
        args.url = database(&args.url)?;
        args.import = import(from, count)?;
        Ok(Some(args))
    }

    pub fn is_postgres(&self) -> bool {
        self.url.contains("://")
    }

    /// The database's name for people: without user and password.
    pub fn database(&self) -> String {
        match self.url.split_once("://") {
            None => self.url.clone(),
            Some((scheme, rest)) => {
                let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                format!("{scheme}://{}", place.split('?').next().unwrap_or(place))
            }
        }
    }

    /// Beside the database; for PostgreSQL in the working folder, named after it.
    pub fn ledger(&self) -> PathBuf {
        let mut name = self.url.clone();
        if self.is_postgres() {
            let place = self.database();
            let words = place.split(|c: char| !c.is_alphanumeric()).skip(1);
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            name = format!("intake-{}", words.join("-"));
        }
        format!("{name}.ledger").into()
    }
}

fn whole<N: std::str::FromStr + PartialOrd + std::fmt::Display>(
    option: &str,
    value: &str,
    most: N,
) -> Result<N, String> {
    let number = value.parse().ok().filter(|number| *number <= most);
    number.ok_or(format!("{option} takes a whole number up to {most}, not {value:?}"))
}

fn database(url: &str) -> Result<String, String> {
    match url.split_once("://") {
        None if url.is_empty() || url == ":memory:" => {
            Err("--database-url takes a file or postgres://.., and a file is what stays".to_owned())
        }
        None | Some(("postgres" | "postgresql", _)) => Ok(url.to_owned()),
        Some(("sqlite", file)) => Ok(file.to_owned()),
        Some((scheme, _)) => {
            Err(format!("--database-url takes a file or postgres://.., not {scheme}://"))
        }
    }
}

fn import(from: Option<String>, count: Option<usize>) -> Result<Option<Import>, String> {
    let (source, claims) = match from {
        Some(file) => {
            let place = std::fs::canonicalize(&file).map_err(|error| format!("{file}: {error}"))?;
            let text = std::fs::read(&place).map_err(|error| format!("{file}: {error}"))?;
            let claims = claim::read_csv(&text).map_err(|why| format!("{file}, {why}"))?;
            (place.to_string_lossy().into_owned(), claims)
        }
        None if count.is_none() => return Ok(None),
        None => {
            let claims = claim::read_csv(include_bytes!("../data/claims.csv"))?;
            ("the samples".to_owned(), claims)
        }
    };
    let count = count.unwrap_or(claims.len());
    Ok(Some(Import { source, claims, count }))
}
