//! What the compiler says to a host that gets something wrong: its message must name the host's own type or
//! column, and say what to do.
//!
//! Each file in `tests/compile_fail` is a host. A comment `//~ text` says that an error at the line below
//! has this text in its message, labels, notes or help. A file without any must compile. All are checked by
//! one run of cargo, in a package of its own that depends on this one as a host would.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

/// A line of `cargo check --message-format=json`.
#[derive(Deserialize)]
struct Line {
    target: Option<Target>,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// A message of the compiler's, or a note below one.
#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    spans: Vec<Span>,
    #[serde(default)]
    children: Vec<Diagnostic>,
    rendered: Option<String>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    line_start: usize,
    line_end: usize,
    label: Option<String>,
    expansion: Option<Box<Expansion>>,
}

#[derive(Deserialize)]
struct Expansion {
    span: Span,
}

impl Diagnostic {
    fn has(&self, text: &str) -> bool {
        let labels = self.spans.iter().filter_map(|span| span.label.as_ref());
        labels.chain([&self.message]).any(|said| said.contains(text))
            || self.children.iter().any(|note| note.has(text))
    }

    fn is_at(&self, file: &str, line: usize) -> bool {
        self.spans.iter().any(|span| span.is_at(file, line))
    }
}

impl Span {
    /// Whether the compiler points at the line, or at a macro that was called there.
    fn is_at(&self, file: &str, line: usize) -> bool {
        let here = (self.line_start..=self.line_end).contains(&line);
        here && Path::new(&self.file_name).ends_with(file)
            || self.expansion.as_ref().is_some_and(|from| from.span.is_at(file, line))
    }
}

/// What a file says that the compiler will say.
struct Expected {
    line: usize,
    text: String,
}

fn expected(source: &str) -> Vec<Expected> {
    let mut expected = Vec::new();
    let mut above = Vec::new();
    for (line, text) in (1..).zip(source.lines()) {
        match text.trim().strip_prefix("//~") {
            Some(said) => above.push(said.trim().to_owned()),
            None => {
                let said = above.drain(..);
                expected.extend(said.map(|text| Expected { line, text }));
            }
        }
    }
    expected
}

/// One host, by the name of its file.
struct Case {
    file: PathBuf,
    expected: Vec<Expected>,
}

fn cases() -> BTreeMap<String, Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let files = fs::read_dir(folder).expect("the cases").map(|entry| entry.expect("a file").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let cases = files.map(|file| {
        let source = fs::read_to_string(&file).expect("a case");
        let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        (name, Case { file, expected: expected(&source) })
    });
    // `uuid` is there to depend on only where the tests are built with it.
    cases.filter(|(name, _)| cfg!(feature = "uuid") || !name.contains("uuid")).collect()
}

/// A package with each case as a program.
fn package(cases: &BTreeMap<String, Case>) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let uuid = cfg!(feature = "uuid");
    // Not `bundled`: checking needs no SQLite, and compiling it takes longer than all the rest.
    let features = if uuid { r#""sqlite", "uuid""# } else { r#""sqlite""# };
    let mut manifest = format!(
        "[package]\nname = \"host\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\n\
         asyncable = {{ path = {root:?}, default-features = false, features = [{features}] }}\n\
         diesel = {{ version = \"2.3\", default-features = false, features = [\"sqlite\", \"r2d2\"] }}\n"
    );
    if uuid {
        manifest.push_str("uuid = \"1\"\n");
    }
    for (name, case) in cases {
        write!(manifest, "[[bin]]\nname = {name:?}\npath = {:?}\n", case.file).expect("a text");
    }
    let package = tempfile::tempdir().expect("a temporary folder");
    fs::write(package.path().join("Cargo.toml"), manifest).expect("a manifest");
    // The same versions, which are on this machine already.
    fs::copy(root.join("Cargo.lock"), package.path().join("Cargo.lock")).expect("a lock file");
    package
}

/// The errors in each case.
fn check(package: &Path) -> BTreeMap<String, Vec<Diagnostic>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(package)
        .args(["check", "--offline", "--keep-going", "--message-format=json", "--quiet"])
        // Kept from run to run, so that only the first one compiles Diesel and actix.
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail"))
        .output()
        .expect("cargo runs");
    let mut errors: BTreeMap<String, Vec<Diagnostic>> = BTreeMap::new();
    let mut checked = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(Line { target: Some(Target { name }), message }) = serde_json::from_str(line) else {
            continue;
        };
        checked.insert(name.clone());
        let message = message.filter(|message| message.level == "error");
        errors.entry(name).or_default().extend(message);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(checked.contains("asyncable"), "cargo did not come to the cases:\n{complaint}");
    errors
}

/// What is not as the case says.
fn wrong(case: &Case, errors: &[Diagnostic]) -> Vec<String> {
    let file = case.file.file_name().and_then(|name| name.to_str()).expect("a name");
    let mut wrong: Vec<String> = Vec::new();
    if case.expected.is_empty() && !errors.is_empty() {
        wrong.push("it must compile".to_owned());
    }
    for Expected { line, text } in &case.expected {
        if !errors.iter().any(|error| error.has(text) && error.is_at(file, *line)) {
            wrong.push(format!("no error at line {line} says: {text}"));
        }
    }
    wrong
}

#[test]
fn the_compiler_tells_a_host_what_is_wrong_and_what_to_do() {
    let cases = cases();
    let package = package(&cases);
    let errors = check(package.path());
    let mut report = String::new();
    for (name, case) in &cases {
        // A case that was not checked at all has no entry, and is no success.
        let Some(errors) = errors.get(name) else {
            write!(report, "\n== {name}: it was not compiled\n").expect("a text");
            continue;
        };
        let wrong = wrong(case, errors);
        if !wrong.is_empty() {
            let said = errors.iter().filter_map(|error| error.rendered.as_deref());
            let said: Vec<&str> = said.collect();
            write!(report, "\n== {name}: {}\n{}", wrong.join("; "), said.join("\n"))
                .expect("a text");
        }
    }
    assert!(report.is_empty(), "{report}");
    assert!(cases.len() > 15, "the cases are gone");
}
