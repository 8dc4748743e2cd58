//! What an HTTP answer means for a row (feature `http`): for clients of any kind.

use std::time::{Duration, SystemTime};

use crate::{Failure, Outcome, Service};

/// Whether a service's answer says that the call was done; otherwise what should come of it.
///
/// | status | failure |
/// |---|---|
/// | 2xx | none |
/// | 429, 503 with `Retry-After` | come back then |
/// | 401, 403, 407, 429, 503 | the service is unavailable: it serves nobody with these credentials, or now |
/// | 408, 425, 500, 501, other 5xx and 3xx | transient |
/// | 502, 504 | unknown: the call may have landed behind the gateway |
/// | other 4xx | permanent: the row is parked |
///
/// `retry_after` is the header of that name: seconds, or a date of RFC 9110, section 5.6.7. One that is
/// neither is as good as none, and a date in the past is a second from now. The code of a failure is
/// `vbms.http_503`, its message the status; the answer's body may hold personal data and is left out.
///
/// ```
/// use asyncable::{Kind, Outcome, Service, http};
/// use std::time::Duration;
///
/// const VBMS: Service = Service::new("vbms");
///
/// async fn establish(client: &awc::Client) -> Outcome {
///     let response = client.post("http://vbms.example/claims").send().await?;
///     let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
///     http::answer(VBMS, response.status().as_u16(), retry_after)
/// }
/// let busy = http::answer(VBMS, 503, Some("120")).unwrap_err();
/// assert_eq!(busy.kind(), Kind::RetryAfter(Duration::from_secs(120)));
/// assert_eq!(busy.code(), "vbms.http_503");
/// assert_eq!(http::answer(VBMS, 422, None).unwrap_err().kind(), Kind::Permanent);
/// assert!(http::answer(VBMS, 201, None).is_ok());
/// ```
///
/// # Errors
/// The failure; its place is the caller's.
#[track_caller]
pub fn answer(service: Service, status: u16, retry_after: Option<&str>) -> Outcome {
    let message = format!("{} answered {status}", service.name());
    let after = retry_after.and_then(|header| parse_retry_after(header, SystemTime::now()));
    let failure = match (status, after) {
        (200..=299, _) => return Ok(()),
        (429 | 503, Some(after)) => Failure::retry_after(after, message),
        (401 | 403 | 407 | 429 | 503, _) => Failure::unavailable(service, message),
        (502 | 504, _) => Failure::unknown(message),
        (408 | 425, _) => Failure::transient(message),
        (400..=499, _) => Failure::permanent(message),
        _ => Failure::transient(message),
    };
    Err(failure.coded(format!("{}.http_{status}", service.name())))
}

/// A `Retry-After` header as a wait from `now`.
fn parse_retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds.max(1)));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(now).unwrap_or_default().max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const BGS: Service = Service::new("bgs");

    fn kind(status: u16) -> Option<Kind> {
        answer(BGS, status, None).err().map(|failure| failure.kind())
    }

    #[test]
    fn each_status_says_what_should_come_of_the_row() {
        for done in [200, 201, 204, 299] {
            assert_eq!(kind(done), None, "{done}");
        }
        for nobody in [401, 403, 407, 429, 503] {
            assert_eq!(kind(nobody), Some(Kind::Unavailable(BGS)), "{nobody}");
        }
        for again in [301, 304, 408, 425, 500, 501, 507, 599, 100, 999] {
            assert_eq!(kind(again), Some(Kind::Transient), "{again}");
        }
        for perhaps_done in [502, 504] {
            assert_eq!(kind(perhaps_done), Some(Kind::Unknown), "{perhaps_done}");
        }
        for wrong in [400, 404, 409, 410, 413, 422, 451] {
            assert_eq!(kind(wrong), Some(Kind::Permanent), "{wrong}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_less_than_a_second() {
        let now = httpdate::parse_http_date("Thu, 01 Jan 2026 12:00:00 GMT").expect("a date");
        let read = |header| parse_retry_after(header, now).map(|wait| wait.as_secs());
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 0 "), Some(1));
        assert_eq!(read("Thu, 01 Jan 2026 13:00:00 GMT"), Some(3600));
        assert_eq!(read("Thursday, 01-Jan-26 13:00:00 GMT"), Some(3600));
        assert_eq!(read("Thu Jan  1 13:00:00 2026"), Some(3600));
        assert_eq!(read("Wed, 31 Dec 2025 12:00:00 GMT"), Some(1));
        for neither in ["", "soon", "-5", "1.5", "99999999999999999999999"] {
            assert_eq!(read(neither), None, "{neither}");
        }
    }
}
