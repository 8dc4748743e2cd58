//! Reports: rows that are not done by model, state, age and cause, as text and as CSV; and a list as CSV.
//!
//! The original's report where its meaning is kept: `docs/dashboard.md` says what differs.

use std::fmt::Write;

use actix_web::{
    HttpRequest,
    http::{StatusCode, header},
    web::{Data, Query},
};
use serde::Deserialize;

use super::{sent, types::Explained};
use crate::{
    Counts,
    dashboard::{
        Access, Role,
        answer::{Answer, Page, Refusal, base},
        handlers::rows::Filter,
        pages,
    },
    store::{
        bulk,
        explain::Line,
        report::{Cause, Group, ModelReport},
    },
    supervisor::page::{GetHouse, GetNames, PageAsk, PageFact},
};

/// Rows in one CSV file at most; the next one begins where this one ends.
const MOST: usize = 10_000;

/// Rows that are read at once for it.
const AT_ONCE: usize = 500;

const PLAIN: &str = "text/plain; charset=utf-8";
const CSV: &str = "text/csv; charset=utf-8; header=present";

async fn report(page: &Page) -> Result<Vec<ModelReport>, Refusal> {
    let mut models = Vec::new();
    for (model, _) in page.ask(GetNames).await?.models {
        if let PageFact::Report(report) = page.model(model, PageAsk::Report).await? {
            models.push(report);
        }
    }
    Ok(models)
}

/// A cause as somebody may read it: the first word of a text that is not this library's may be anything.
fn cause<'c>(cause: &'c Cause, access: &Access) -> &'c str {
    match cause {
        Cause::None => "none",
        Cause::Code(code) => code,
        Cause::Word(word) if access.may(Role::Operate) => word,
        Cause::Word(_) => "other",
    }
}

/// The groups of a model as somebody may read them: causes that look the same to them are one.
fn groups<'g>(report: &'g ModelReport, access: &Access) -> Vec<(&'g Group, &'g str, u32)> {
    let mut groups: Vec<(&Group, &str, u32)> = Vec::new();
    for group in &report.groups {
        let cause = cause(&group.cause, access);
        let alike = |known: &&mut (&Group, &str, u32)| {
            (known.0.state, known.0.age_days, known.1) == (group.state, group.age_days, cause)
        };
        match groups.iter_mut().find(alike) {
            Some(known) => known.2 += group.rows,
            None => groups.push((group, cause, group.rows)),
        }
    }
    groups
}

pub(super) async fn text(page: Data<Page>, request: HttpRequest) -> Answer {
    let access = page.access(&request).await?;
    let mut text = String::new();
    for report in report(&page).await? {
        told(&mut text, &report, &access);
    }
    Ok(sent(StatusCode::OK, PLAIN, text))
}

fn told(text: &mut String, report: &ModelReport, access: &Access) {
    let model = line(report.model);
    let rows = |count: u32| if count == 1 { "row" } else { "rows" };
    // Writing to a text cannot fail.
    for (group, cause, count) in groups(report, access) {
        let Group { state, age_days, .. } = group;
        let (rows, cause) = (rows(count), line(cause));
        let days = if *age_days == 1 { "day" } else { "days" };
        let _ = writeln!(
            text,
            "{model} has {count} {rows} {state}, {age_days} {days} old, with cause {cause}"
        );
    }
    for state in &report.cut {
        let most = Counts::MOST;
        let _ = writeln!(
            text,
            "{model} has more rows {state} than the {most} oldest, which are counted here"
        );
    }
    let total: u32 = report.groups.iter().map(|group| group.rows).sum();
    let _ = writeln!(text, "{model} has {total} {} that are not done", rows(total));
}

/// A text on one line: what is not from here may break lines, and with them what reads the report.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) async fn table(page: Data<Page>, request: HttpRequest) -> Answer {
    let access = page.access(&request).await?;
    let header = ["model", "state", "age_days", "cause", "rows", "counted"];
    let mut lines = vec![header.map(Cell::from).to_vec()];
    for report in &report(&page).await? {
        for (group, cause, count) in groups(report, &access) {
            let counted = if report.cut.contains(&group.state) { "the oldest" } else { "all" };
            lines.push(vec![
                report.model.into(),
                group.state.into(),
                Cell::Number(group.age_days),
                cause.into(),
                Cell::Number(count.into()),
                counted.into(),
            ]);
        }
    }
    Ok(sent(StatusCode::OK, CSV, csv(&lines)))
}

/// Whether the file holds what rows are about: asked for on purpose, since a file travels.
#[derive(Default, Deserialize)]
pub(super) struct Subjects {
    #[serde(default)]
    subjects: String,
}

pub(super) async fn rows(
    page: Data<Page>,
    request: HttpRequest,
    filter: actix_web::Result<Query<Filter>>,
    subjects: actix_web::Result<Query<Subjects>>,
) -> Answer {
    let access = page.access(&request).await?;
    let (filter, with_subjects) = (filter?.into_inner(), subjects?.subjects == "yes");
    if with_subjects && !access.may(Role::Operate) {
        return Err(Refusal::Needs(Role::Operate).into());
    }
    let (names, now) = (page.ask(GetNames).await?, page.ask(GetHouse(None)).await?.now);
    let (model, selection) = (filter.model(&names)?, filter.selection(now)?);
    let mut after = filter.place()?;
    let mut lines = vec![columns(with_subjects)];
    // A page may look at many rows and find few.
    for _ in 0..MOST / AT_ONCE {
        let ask = PageAsk::List { selection: selection.clone(), after, most: AT_ONCE };
        let PageFact::List(list) = page.model(&model, ask).await? else {
            return Err(Refusal::Silent.into());
        };
        lines.extend(list.lines.iter().map(|line| cells(&model, line, with_subjects)));
        after = list.next;
        if after.is_none() {
            break;
        }
    }
    let mut response = sent(StatusCode::OK, CSV, csv(&lines));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_DISPOSITION,
        header::HeaderValue::from_static("attachment; filename=\"rows.csv\""),
    );
    if let Some(after) = &after {
        // As it was asked, but for the place.
        let pairs = request.query_string().split('&');
        let pairs = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
        let place = format!("after={}", pages::encoded(&bulk::place(after)));
        let query = pairs.map(ToOwned::to_owned).chain([place]).collect::<Vec<_>>().join("&");
        let next = format!("<{}/rows.csv?{query}>; rel=\"next\"", base(&request));
        if let Ok(link) = header::HeaderValue::from_str(&next) {
            headers.insert(header::LINK, link);
        }
    }
    Ok(response)
}

fn columns(with_subjects: bool) -> Vec<Cell> {
    let columns =
        ["model", "id", "state", "last_submitted_at", "attempted_at", "failures", "cause", "user"];
    let subject = with_subjects.then_some("subject");
    columns.into_iter().chain(subject).map(Cell::from).collect()
}

fn cells(model: &str, line: &Line, with_subjects: bool) -> Vec<Cell> {
    let at = |at: Option<chrono::DateTime<chrono::Utc>>| {
        at.map_or_else(String::new, |at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    };
    let text = |text: &Option<String>| Cell::Text(text.clone().unwrap_or_default());
    let mut cells = vec![
        model.into(),
        line.id.as_str().into(),
        Explained::from(&line.explanation).kind.into(),
        Cell::Text(at(line.submitted_at)),
        Cell::Text(at(line.attempted_at)),
        Cell::Number(line.failures.into()),
        text(&line.code),
        text(&line.user),
    ];
    if with_subjects {
        cells.push(text(&line.subject));
    }
    cells
}

/// A cell of a CSV file.
#[derive(Clone, Debug)]
enum Cell {
    Number(i64),
    Text(String),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

/// Lines as CSV, by RFC 4180.
fn csv(lines: &[Vec<Cell>]) -> String {
    let mut out = String::new();
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            match cell {
                Cell::Number(number) => out.push_str(&number.to_string()),
                Cell::Text(text) => out.push_str(&quoted(&harmless(text))),
            }
        }
        out.push_str("\r\n");
    }
    out
}

/// A text that no spreadsheet takes for a formula: what begins like one gets an apostrophe in front.
fn harmless(text: &str) -> String {
    // The wide forms too, which some spreadsheets read alike.
    const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let begins = text.starts_with(|c: char| c.is_control())
        || text.trim_start().starts_with(|c: char| FORMULA.contains(&c));
    if begins && !is_number { format!("'{text}") } else { text.to_owned() }
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_is_never_a_formula() {
        let line = ["plain", "a,b", "say \"hi\"", "two\r\nlines", "", "ä"].map(Cell::from);
        let expected = "plain,\"a,b\",\"say \"\"hi\"\"\",\"two\r\nlines\",,ä\r\n";
        assert_eq!(csv(&[line.to_vec()]), expected);
        for formula in
            ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u{ff1d}1", "\u{1}x"]
        {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        for harmless_text in ["-5", "5", "a=1", "vbms.refused", "1-2", ""] {
            assert_eq!(harmless(harmless_text), harmless_text);
        }
        assert_eq!(csv(&[vec![Cell::Number(-4)]]), "-4\r\n");
    }
}
