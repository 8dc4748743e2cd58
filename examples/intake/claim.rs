//! What somebody files: as JSON, by the page's form, or in a CSV file.

use serde::Deserialize;

/// A claim that has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub veteran_name: String,
    pub file_number: String,
    pub kind: Kind,
    pub issues: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    HigherLevelReview,
    SupplementalClaim,
}

/// The body of `POST /claims`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    veteran_name: String,
    file_number: String,
    kind: Kind,
    #[serde(default)]
    issues: Vec<String>,
}

/// The page's form, which shows again what was typed where it is refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Form {
    pub veteran_name: String,
    pub file_number: String,
    pub kind: String,
    /// Several are parted by semicolons.
    pub issue: String,
}

impl Claim {
    pub fn from_json(body: &[u8]) -> Result<Claim, String> {
        let body: Body =
            serde_json::from_slice(body).map_err(|error| format!("not a claim: {error}"))?;
        let Body { veteran_name, file_number, kind, issues } = body;
        Claim { veteran_name, file_number, kind, issues }.checked()
    }

    pub fn from_form(form: &Form) -> Result<Claim, String> {
        let kind = match form.kind.trim() {
            "higher_level_review" => Kind::HigherLevelReview,
            "supplemental_claim" => Kind::SupplementalClaim,
            _ => return Err("kind must be higher_level_review or supplemental_claim".to_owned()),
        };
        let issues = form.issue.split(';').filter(|issue| !issue.trim().is_empty());
        let (veteran_name, file_number) = (form.veteran_name.clone(), form.file_number.clone());
        Claim { veteran_name, file_number, kind, issues: issues.map(str::to_owned).collect() }
            .checked()
    }

    fn checked(mut self) -> Result<Claim, String> {
        self.file_number = self.file_number.trim().to_owned();
        let digits = self.file_number.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !(8..=9).contains(&self.file_number.len()) {
            return Err("file_number must be 8 or 9 digits".to_owned());
        }
        self.veteran_name = text("veteran_name", &self.veteran_name)?;
        if self.issues.len() > 20 {
            return Err("issues must be 20 at most".to_owned());
        }
        for issue in &mut self.issues {
            *issue = text("an issue", issue)?;
        }
        Ok(self)
    }
}

/// Text as the tables keep it. PostgreSQL's cannot hold NUL.
fn text(name: &str, value: &str) -> Result<String, String> {
    let value = value.trim();
    match value.chars().count() {
        0 => Err(format!("{name} is missing")),
        101.. => Err(format!("{name} must be 100 characters at most")),
        _ if value.chars().any(char::is_control) => {
            Err(format!("{name} must not hold control characters"))
        }
        _ => Ok(value.to_owned()),
    }
}

/// Reads claims from CSV; an error begins with its line.
pub fn read_csv(text: &[u8]) -> Result<Vec<Claim>, String> {
    const HEADER: [&str; 4] = ["veteran_name", "file_number", "kind", "issue"];
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text); // a spreadsheet's mark
    let mut lines = text.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| {
        let at_line = move |why: String| format!("line {}: {why}", index + 1);
        let line = std::str::from_utf8(line).map_err(|_| at_line("not UTF-8".to_owned()))?;
        let fields = csv_fields(line.trim_end_matches('\r')).map_err(at_line)?;
        Ok::<_, String>((index + 1, fields))
    });
    let header = lines.next().transpose()?.map(|(_, fields)| fields).unwrap_or_default();
    if header.iter().map(|field| field.trim()).ne(HEADER) {
        return Err(format!("line 1: the first line must be {}", HEADER.join(",")));
    }
    let mut claims = Vec::new();
    for line in lines {
        let (number, fields) = line?;
        if fields.iter().all(|field| field.trim().is_empty()) {
            continue;
        }
        let [veteran_name, file_number, kind, issue] = <[String; 4]>::try_from(fields)
            .map_err(|fields| format!("line {number}: {} fields, not 4", fields.len()))?;
        let form = Form { veteran_name, file_number, kind, issue };
        claims.push(Claim::from_form(&form).map_err(|why| format!("line {number}: {why}"))?);
    }
    if claims.is_empty() { Err("line 2: there is no claim in it".to_owned()) } else { Ok(claims) }
}

/// One line's fields. A field in quotes may hold commas, and quotes twice.
fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            char => field.push(char),
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(fields) }
}
