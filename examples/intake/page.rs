//! The host's page. The claims stand in a frame that loads itself anew, so that what somebody types in the
//! form beside it stays.

use std::{collections::HashMap, fmt};

use crate::{
    claim::Form,
    ledger::Ledger,
    report::{Counts, Row, STATES, State, in_state},
    services::{BGS, Service, VBMS},
};

pub const HTML: &str = "text/html; charset=utf-8";

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
    <meta name=viewport content='width=device-width, initial-scale=1'>\
    <title>Claims intake</title><link rel=stylesheet href=/style.css>\
    <link rel=icon href='data:,'>";

const REFRESH: &str = "<meta http-equiv=refresh content=2>";

/// Text from anywhere, as HTML shows it and never runs it.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            char => write!(f, "{char}"),
        })
    }
}

/// The form, as it was filled in and with what is wrong with it; the claims beside it.
pub fn home(form: &Form, wrong: Option<&str>) -> String {
    let wrong = wrong.map_or(String::new(), |why| {
        format!("<p class=wrong role=alert>Not filed: {}.</p>", Text(why))
    });
    let supplemental = if form.kind == "supplemental_claim" { " selected" } else { "" };
    format!(
        r#"{HEAD}<body class=home>
<header><h1>Claims intake</h1><p>Claims are sent to two outside services that fail, and are down for hours
each day. Each is tried again until it is done, refused or too old.
<a href=/asyncable/>The operator's page</a> says what is stuck, and why.</p></header>
<main>
<form method=post action=/claims>
<h2>File a claim</h2>
{wrong}
<label>Veteran<input name=veteran_name value="{}" maxlength=100 required autocomplete=off></label>
<label>File number<input name=file_number value="{}" inputmode=numeric pattern="[0-9]{{8,9}}" required
 autocomplete=off title="8 or 9 digits" aria-describedby=script></label>
<label>Kind<select name=kind><option value=higher_level_review>Higher level review</option>
<option value=supplemental_claim{supplemental}>Supplemental claim</option></select></label>
<label>Issue<input name=issue value="{}" maxlength=100 autocomplete=off></label>
<button>File it</button>
<p id=script>The file number says how it goes: one that begins with <code>000</code> fails every time, until the
claim expires after 4 days; with <code>666</code> it is refused, and the claim is parked.</p>
</form>
<iframe src=/claims title="The claims and where they stand"></iframe>
</main>"#,
        Text(&form.veteran_name),
        Text(&form.file_number),
        Text(&form.issue),
    )
}

/// Who wants to see the operator's page.
pub fn login() -> String {
    let button = |role: &str, may: &str| {
        format!(
            "<form method=post action=/login/{role}><button>Log in as {role}</button> <span>{may}</span></form>"
        )
    };
    format!(
        "{HEAD}<body class=home><header><h1>Log in</h1><p>A real host asks for a password.</p></header>\
         <main class=login>{}{}{}{}</main>",
        button(
            "clerk",
            "sees the claims filed here, each in one sentence, and messages about them"
        ),
        button("viewer", "sees what is stuck, but no file number in full"),
        button("operator", "restarts, cancels, writes notes, holds services down"),
        button("admin", "does everything"),
    )
}

/// What the list shows.
pub struct Seen<'a> {
    pub ledger: &'a Ledger,
    pub counts: Counts,
    pub claims: Vec<Row>,
    pub issues: Vec<Row>,
}

pub fn list(seen: &Seen<'_>) -> String {
    let now = seen.ledger.clock.now().format("%a %d %b %Y, %H:%M");
    let services = [VBMS, BGS].map(|script| match Service::down_until(&script, seen.ledger) {
        None => format!("<span class=up>{} is up</span>", name(script.name)),
        Some(until) => {
            let until = until.format("%H:%M");
            format!("<span class=down>{} is down until {until}</span>", name(script.name))
        }
    });
    format!(
        "{HEAD}{REFRESH}<body class=list><p class=now><time>{now}</time> {}</p>{}{}",
        services.join(" "),
        counts_table(&seen.counts),
        claims_table(&seen.claims, &seen.issues),
    )
}

/// Instead of the list, until there is one again.
pub fn notice(text: &str) -> String {
    format!(
        "{HEAD}{REFRESH}<body class=list><p role=alert class=down>This list waits: {}.",
        Text(text)
    )
}

fn counts_table(counts: &Counts) -> String {
    let shown =
        STATES.into_iter().filter(|state| *state != "canceled" || in_state(counts, state) > 0);
    let shown: Vec<State> = shown.collect();
    let heads: String = shown.iter().map(|state| format!("<th scope=col>{state}")).collect();
    let mut rows = String::new();
    for (model, states) in counts {
        rows += &format!("<tr><th scope=row>{}", name(model));
        for state in &shown {
            let count = states.get(state).copied().unwrap_or(0);
            let class = if count == 0 { "zero" } else { state };
            rows += &format!("<td class={class} data-label={state}>{count}");
        }
    }
    format!(
        "<table class=counts><caption>All rows</caption>\
         <thead><tr><th scope=col>Model{heads}<tbody>{rows}</table>"
    )
}

fn claims_table(claims: &[Row], issues: &[Row]) -> String {
    if claims.is_empty() {
        return "<p class=none>No claim has been filed yet.</p>".to_owned();
    }
    let mut issues_of: HashMap<&str, Vec<&Row>> = HashMap::new();
    for issue in issues {
        issues_of.entry(&issue.claim).or_default().push(issue);
    }
    let mut rows = String::new();
    for claim in claims {
        let issues = issues_of.remove(claim.claim.as_str()).unwrap_or_default();
        let issues: Vec<String> = issues.into_iter().map(state).collect();
        rows += &format!(
            "<tr><th scope=row><a href=/claims/{0} target=_top>{0}</a>\
             <td data-label=Veteran>{1}<td data-label='File number'>{2}\
             <td data-label=Establishment>{3}<td data-label='Decision sync'><div>{4}</div>",
            Text(&claim.claim),
            Text(&claim.veteran_name),
            Text(&claim.file_number),
            state(claim),
            if issues.is_empty() { "no issue".to_owned() } else { issues.concat() },
        );
    }
    format!(
        "<table class=claims><caption>The claims filed last</caption><thead><tr><th scope=col>Claim\
         <th scope=col>Veteran<th scope=col>File number<th scope=col>Establishment\
         <th scope=col>Decision sync<tbody>{rows}</table>"
    )
}

/// A row's state, and the code of its last error where that is why it is in it.
fn state(row: &Row) -> String {
    let code = row.code.as_deref().filter(|_| row.state != "processed");
    let code = code.map_or(String::new(), |code| {
        // Where a narrow screen may break it.
        format!(" <code>{}</code>", Text(code)).replace('_', "_<wbr>").replace('.', ".<wbr>")
    });
    format!("<span class='state {0}'>{0}{code}</span>", row.state)
}

/// `higher_level_reviews` as people read it.
fn name(stored: &str) -> String {
    match stored {
        "vbms" | "bgs" => stored.to_uppercase(),
        model => {
            let mut words = model.replace('_', " ");
            words[..1].make_ascii_uppercase();
            words
        }
    }
}
