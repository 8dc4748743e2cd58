//! The host's client of an outside service, and what each of its answers means for the row.

use std::time::Duration;

use asyncable::{Failure, IdempotencyKey, Outcome, Service};
use awc::{Client, error::SendRequestError};
use serde_json::json;

pub const VBMS: Service = Service::new("vbms");

/// BGS may go on with a call for hours after it was given up; before that it cannot say whether it did it.
pub const BGS: Service = Service::new("bgs").settles_within(Duration::from_secs(6 * 3600));

/// Not `Send`, as awc's client is not: made anew on each of the supervisor's threads.
pub struct Outside {
    service: Service,
    calls: String,
    http: Client,
}

impl Outside {
    pub fn new(service: Service, url: &str) -> Self {
        let http = Client::builder().timeout(Duration::from_secs(2)).finish();
        Outside { service, calls: format!("{url}/calls"), http }
    }

    /// Has the work done. A service that honours keys does it once under each.
    pub async fn call(&self, file_number: &str, key: &IdempotencyKey) -> Outcome {
        let call = self.http.post(&self.calls).insert_header(("idempotency-key", &**key));
        let sent = call.send_json(&json!({ "file_number": file_number })).await;
        let answer = sent.map_err(|error| self.unsent(error))?;
        let retry_after = answer.headers().get("retry-after").and_then(|after| after.to_str().ok());
        match (answer.status().as_u16(), retry_after.and_then(|after| after.parse().ok())) {
            (200..=299, _) => Ok(()),
            (422, _) => Err(Failure::permanent("the service refuses this file number")
                .with_code("vbms.refused_file_number")),
            (429, Some(after)) => {
                Err(Failure::retry_after(Duration::from_secs(after), "asked to come back later"))
            }
            (503, _) => Err(Failure::unavailable(self.service, "http 503")),
            (status, _) => Err(Failure::transient(format!("http {status}")).with_code("http_5xx")),
        }
    }

    /// Whether the work was done under this key.
    pub async fn has(&self, key: &IdempotencyKey) -> Outcome<bool> {
        let ask = self.http.get(&self.calls).insert_header(("idempotency-key", &**key));
        match ask.send().await?.status().as_u16() {
            200..=299 => Ok(true),
            404 => Ok(false),
            status => Err(Failure::unavailable(self.service, format!("http {status}"))),
        }
    }

    /// A call that was not answered may have landed, unless there was no connection to send it on.
    fn unsent(&self, error: SendRequestError) -> Failure {
        match error {
            SendRequestError::Connect(error) => Failure::unavailable(self.service, error),
            error => Failure::unknown(error).with_code("no_answer"),
        }
    }
}
