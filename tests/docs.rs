//! What the documentation says of the code: the tests it names exist, its links lead somewhere, its queries
//! run.

mod support;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use diesel::connection::SimpleConnection;

use support::on_each_backend;

/// The pages that a host reads, with their places.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).expect("the docs");
    let docs = docs.map(|file| file.expect("a file").path());
    let pages = [root.join("README.md"), root.join("CHANGELOG.md")].into_iter().chain(docs);
    let read = |place: PathBuf| {
        let text = std::fs::read_to_string(&place).expect("a page");
        (place, text)
    };
    pages.filter(|place| place.extension().is_some_and(|end| end == "md")).map(read).collect()
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    page.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// `[text](target)`: both, of all of a page's.
fn links(page: &str) -> Vec<(&str, &str)> {
    let ends = page.match_indices("](");
    let link = |(middle, _): (usize, &str)| {
        let text = &page[page[..middle].rfind('[')? + 1..middle];
        let target = page[middle + 2..].split(')').next()?;
        Some((text, target))
    };
    ends.filter_map(link).collect()
}

/// The name that a heading is linked by: as most renderers make it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn code_span(text: &str) -> Option<&str> {
    text.strip_prefix('`')?.strip_suffix('`')
}

/// The functions of all test files and unit tests.
fn functions() -> BTreeSet<String> {
    fn collect(folder: &Path, found: &mut BTreeSet<String>) {
        for file in std::fs::read_dir(folder).expect("a folder") {
            let place = file.expect("a file").path();
            if place.is_dir() {
                collect(&place, found);
            } else if place.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&place).expect("a source");
                let names =
                    text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    let mut found = BTreeSet::new();
    for folder in ["tests", "src", "benches"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (place, page) in pages() {
        for (_, target) in links(&prose(&page)) {
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let to = match file {
                "" => place.clone(),
                file => place.parent().expect("a folder").join(file),
            };
            let found = to.exists()
                && (heading.is_empty()
                    || std::fs::read_to_string(&to).is_ok_and(|page| {
                        page.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
                    }));
            if !found {
                broken.push(format!("{}: {target}", place.display()));
            }
        }
    }
    assert_eq!(broken, [] as [String; 0]);
}

#[test]
fn every_test_that_is_linked_to_is_in_the_file_that_the_link_names() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (place, page) in pages() {
        for (text, target) in links(&prose(&page)) {
            let Some(name) = code_span(text).filter(|_| target.ends_with(".rs")) else { continue };
            let file = place.parent().expect("a folder").join(target);
            if name.contains('_') && !name.contains(['/', '.', ':']) {
                checked += 1;
                let source = std::fs::read_to_string(&file).unwrap_or_default();
                if !source.contains(&format!("fn {name}(")) {
                    wrong.push(format!("{}: {name} is not in {target}", place.display()));
                }
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
    assert!(checked > 30, "the pages link to many tests: {checked}");
}

/// A name of so many words in a page is a test's.
#[test]
fn every_sentence_that_reads_like_a_test_is_one() {
    let functions = functions();
    let mut unknown = Vec::new();
    for (place, page) in pages() {
        for span in prose(&page).split('`').skip(1).step_by(2) {
            let is_name =
                span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_name && span.matches('_').count() > 4 && !functions.contains(span) {
                unknown.push(format!("{}: {span}", place.display()));
            }
        }
    }
    assert_eq!(unknown, [] as [String; 0]);
}

on_each_backend! {
    #[test]
    fn every_query_of_the_operations_page_runs() {
        let db = Db::migrated(
            "CREATE TABLE reviews (id {key}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
             processed_at TIMESTAMP, error TEXT)",
        );
        let conn = &mut db.conn();
        let page = include_str!("../docs/operations.md");
        let blocks = page.split("\n```sql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        let mut ran = 0;
        for query in blocks {
            if let Err(error) = conn.batch_execute(query) {
                panic!("{error}, of: {query}");
            }
            ran += 1;
        }
        assert!(ran >= 9, "{ran} queries");
    }

    /// The migration that the README prints, and its status, on a table that has all columns.
    #[test]
    fn the_sql_of_the_readme_runs() {
        let db = Db::migrated("CREATE TABLE reviews (id {key}, file_number TEXT NOT NULL)");
        let conn = &mut db.conn();
        let readme = include_str!("../README.md");
        let mut blocks = readme.split("\n```sql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        let (migration, status) = (blocks.next().expect("a migration"), blocks.next().expect("a status"));
        conn.batch_execute(migration).expect("the migration");
        conn.batch_execute("ALTER TABLE reviews ADD COLUMN last_submitted_at TIMESTAMP; \
            ALTER TABLE reviews ADD COLUMN canceled_at TIMESTAMP").expect("the optional columns");
        let held_equal = status.replace("now() - interval '4 days'", "{four days ago}");
        assert!(include_str!("scopes.rs").contains(&held_equal), "tests/scopes.rs holds this text equal to status()");
        // SQLite spells the instant otherwise.
        let status = match BACKEND {
            "SQLite" => status.replace("now() - interval '4 days'", "datetime('now', '-4 days')"),
            _ => status.to_owned(),
        };
        conn.batch_execute(&format!("SELECT {status} FROM reviews")).expect("the status");
    }
}
