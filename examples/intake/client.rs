//! The host's clients of the two outside services, and what each of their answers means for the row.

use std::time::Duration;

use asyncable::{Clock, Failure, Outcome, Service};
use awc::{Client, ClientResponse, error::SendRequestError};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

/// When a call is given up, on the clock: half a second at `--speed 7200`.
pub const GIVE_UP: Duration = HOUR;

/// A call has ended by then, given up or not: only then does a step's `find` tell the truth, and only then
/// is the call made again. The services of this example keep to it: see `services::LATEST`.
pub const VBMS: Service = fails_at_times("vbms").settles_within(Duration::from_secs(3 * 3600));

/// Longer, since BGS would do again what is called again.
pub const BGS: Service = fails_at_times("bgs").settles_within(Duration::from_secs(6 * 3600));

/// These services fail on their good days too, up to half of their calls (`--faults`), and hundreds of
/// calls are made in a minute of the fast clock. Five in a row, or ten of twenty, do not say that one is
/// down: they come by chance, all the time.
const fn fails_at_times(name: &'static str) -> Service {
    Service::new(name).open_after(20).open_at_percent(90)
}

/// VBMS honours idempotency keys: under one key it does the work once, and answers the same each time.
pub trait Vbms: 'static {
    /// Answers the claim's number at VBMS.
    async fn establish_claim(&self, file_number: &str, key: &str) -> Outcome<i64>;
    async fn create_contention(&self, claim: i64, issue: &str, key: &str) -> Outcome<i64>;
}

/// BGS does the work as often as it is called. But it can be asked.
pub trait Bgs: 'static {
    async fn sync_decision(&self, file_number: &str, key: &str) -> Outcome<i64>;
    async fn find_decision(&self, key: &str) -> Outcome<Option<i64>>;
}

impl Vbms for Outside {
    async fn establish_claim(&self, file_number: &str, key: &str) -> Outcome<i64> {
        self.call("claims", json!({ "file_number": file_number }), key).await
    }

    async fn create_contention(&self, claim: i64, issue: &str, key: &str) -> Outcome<i64> {
        self.call("contentions", json!({ "claim": claim, "text": issue }), key).await
    }
}

impl Bgs for Outside {
    async fn sync_decision(&self, file_number: &str, key: &str) -> Outcome<i64> {
        self.call("decisions", json!({ "file_number": file_number }), key).await
    }

    async fn find_decision(&self, key: &str) -> Outcome<Option<i64>> {
        self.find("decisions", key).await
    }
}

/// A service by HTTP. Not `Send`, as awc's client is not: made anew on each of the supervisor's threads.
pub struct Outside {
    service: Service,
    url: String,
    http: Client,
}

#[derive(serde::Deserialize)]
struct Done {
    id: i64,
}

impl Outside {
    pub fn new(service: Service, url: &str, clock: &Clock) -> Self {
        let give_up = clock.real(GIVE_UP).min(Duration::from_secs(30));
        let http = Client::builder().timeout(give_up).finish();
        Outside { service, url: url.to_owned(), http }
    }

    async fn call(&self, what: &str, body: Value, key: &str) -> Outcome<i64> {
        let call = self.http.post(format!("{}/{what}", self.url));
        let sent = call.insert_header(("idempotency-key", key)).send_json(&body).await;
        let mut answer = sent.map_err(|error| self.unanswered(error))?;
        answered(self.service, &answer)?;
        // Half an answer does not say what was done.
        let done: Done = answer.json().await.map_err(Failure::unknown)?;
        Ok(done.id)
    }

    async fn find(&self, what: &str, key: &str) -> Outcome<Option<i64>> {
        let ask = self.http.get(format!("{}/{what}", self.url));
        let mut answer = ask.insert_header(("idempotency-key", key)).send().await?;
        if answer.status().as_u16() == 404 {
            return Ok(None);
        }
        answered(self.service, &answer)?;
        Ok(Some(answer.json::<Done>().await?.id))
    }

    /// A call that was not answered may have landed, unless there was no connection to send it on.
    fn unanswered(&self, error: SendRequestError) -> Failure {
        match error {
            SendRequestError::Connect(error) => Failure::unavailable(self.service, error),
            error => Failure::unknown(error).with_code("no_answer"),
        }
    }
}

/// Whether it was done; otherwise what should come of it. A host may leave this to the feature `http`:
/// `asyncable::http::answer`. Here it is written out.
fn answered<S>(service: Service, answer: &ClientResponse<S>) -> Outcome {
    let header = answer.headers().get("retry-after").and_then(|after| after.to_str().ok());
    let retry_after = header.and_then(|after| after.parse().ok()).map(Duration::from_secs);
    let status = answer.status().as_u16();
    let said = format!("http {status}");
    Err(match (status, retry_after) {
        (200..=299, _) => return Ok(()),
        (422, _) => Failure::permanent("the service refuses this file number")
            .with_code("vbms.refused_file_number"),
        (423 | 429 | 503, Some(after)) => Failure::retry_after(after, said),
        (503, None) => Failure::unavailable(service, said),
        // Perhaps after the work was done: a step then waits until its service has settled.
        _ => Failure::transient(said).with_code("http_5xx"),
    })
}
