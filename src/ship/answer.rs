//! What an answer of the destination means, and what to do about it. Pure tables.
//!
//! Sources: Sumo Logic's troubleshooting page of the HTTP source (200, 401, 408, 429, 503, 504) and what
//! Sumo's own senders do (opentelemetry exporter, fluentd output): 2xx with an empty body is accepted, 2xx with
//! `{"status","id","code","message"}` is accepted with a warning, 400 is permanent. Where Sumo is silent the rule
//! is: never destroy data because of an answer that a person can change.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::backoff::Backoff;
use super::delivery::DeliveryState;
use super::mailbox::Verdict;
use crate::mutant::{Mutant, is_on};

/// After this many answers of 400 to the same bytes the batch is refused for good.
pub const REFUSALS_MAX: u32 = 3;

/// What one attempt came to. Texts are as the destination wrote them: not yet shortened, not yet redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The destination has the batch.
    Accepted {
        /// What it complained about all the same (dropped fields, for example).
        warning: Option<String>,
    },
    /// 400: these bytes are not wanted. Believed only after [`REFUSALS_MAX`] times.
    Refused {
        /// The status code.
        status: u16,
        /// Status and reason in words.
        message: String,
    },
    /// 413: the batch must be split.
    TooLarge {
        /// The status code.
        status: u16,
    },
    /// Only a person can change this answer; the data is kept and tried again slowly.
    Hold {
        /// Status, reason and what to do.
        message: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// 429: the destination wants less than it gets. This will pass, and sooner when everybody sends more slowly.
    Limited {
        /// What it said.
        message: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// This will pass.
    Retry {
        /// What happened.
        message: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
}

impl Answer {
    /// The same answer with every text passed through `clean`.
    pub(super) fn map_text(self, clean: impl Fn(&str) -> String) -> Answer {
        match self {
            Answer::Accepted { warning } => Answer::Accepted { warning: warning.map(|text| clean(&text)) },
            Answer::Refused { status, message } => Answer::Refused { status, message: clean(&message) },
            Answer::TooLarge { status } => Answer::TooLarge { status },
            Answer::Hold { message, retry_after } => Answer::Hold { message: clean(&message), retry_after },
            Answer::Limited { message, retry_after } => {
                Answer::Limited { message: clean(&message), retry_after }
            }
            Answer::Retry { message, retry_after } => Answer::Retry { message: clean(&message), retry_after },
        }
    }

    /// What to show as the last error; `None` for an accepted batch.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Answer::Accepted { .. } => None,
            Answer::Refused { message, .. }
            | Answer::Hold { message, .. }
            | Answer::Limited { message, .. }
            | Answer::Retry { message, .. } => Some(message.clone()),
            Answer::TooLarge { status } => {
                Some(format!("{status} payload too large: the batch will be split"))
            }
        }
    }
}

/// What to do next with the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing more: tell the pipeline.
    Done(Verdict),
    /// The same bytes with the same key again.
    Again {
        /// [`DeliveryState::Retrying`] or [`DeliveryState::Held`].
        state: DeliveryState,
        /// How long to wait first.
        wait: Duration,
    },
}

/// Reads an answer whose status line has arrived.
///
/// The status decides; the body (its beginning, which may be cut or empty) only lends the words. So a 200 whose body
/// never ends is accepted: that is the destination's contract, and asking again would store the batch twice.
pub fn classify(status: u16, headers: &HeaderMap, body_prefix: &[u8], now: SystemTime) -> Answer {
    let retry_after = retry_after(headers, now);
    // A proxy that asks for credentials may quote those that it got, in whatever form.
    let told = if status == 407 { None } else { told(body_prefix) };
    let message = |advice: Option<&str>| {
        let reason = StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
        let mut text = format!("{status} {}", reason.unwrap_or("without a known meaning").to_lowercase());
        for part in advice.into_iter().chain(told.as_deref()) {
            text.push_str(": ");
            text.push_str(part);
        }
        text
    };
    match status {
        200..=299 => Answer::Accepted { warning: told },
        400 => Answer::Refused { status, message: message(None) },
        413 => Answer::TooLarge { status },
        429 => Answer::Limited { message: message(None), retry_after },
        408 | 500..=599 => Answer::Retry { message: message(None), retry_after },
        300..=499 => Answer::Hold { message: message(Some(advice(status))), retry_after },
        _ => Answer::Retry { message: message(None), retry_after },
    }
}

/// What a person should do about an answer that will not change by itself.
fn advice(status: u16) -> &'static str {
    match status {
        300..=399 => {
            "redirects are not followed, as the address is a credential; set WATCHPOST_SUMO_URL to the final address; \
             the data is kept"
        }
        401 | 403 => "the token in WATCHPOST_SUMO_URL is not accepted; correct it; the data is kept",
        404 | 410 => "there is no HTTP source at WATCHPOST_SUMO_URL; correct it; the data is kept",
        405 => "WATCHPOST_SUMO_URL takes no POST, so it is no HTTP source; correct it; the data is kept",
        407 => "the proxy asks for credentials; correct HTTPS_PROXY; the data is kept",
        _ => {
            "this answer will not change by itself; check WATCHPOST_SUMO_URL and the source; the data is kept"
        }
    }
}

/// The words of a body: `code: message` of Sumo's JSON, else the text itself; `None` when there are none.
fn told(body_prefix: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body_prefix);
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let json: Option<Value> = serde_json::from_str(text).ok();
    let said = json.as_ref().and_then(|json| {
        let first_error = json.get("errors").and_then(|errors| errors.get(0));
        let within = first_error.unwrap_or(json);
        let words: Vec<&str> =
            ["code", "message"].iter().filter_map(|key| within.get(*key).and_then(Value::as_str)).collect();
        (!words.is_empty()).then(|| words.join(": "))
    });
    Some(said.unwrap_or_else(|| text.to_owned()))
}

/// `Retry-After` as seconds or as a date (RFC 9110, section 10.2.3). A date in the past is zero; nonsense is `None`.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits for a number still mean "long"; the backoff caps it.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// What follows from an answer. `refusals_before` counts the 400s to this batch before this answer.
pub fn decide(answer: &Answer, refusals_before: u32, backoff: &mut Backoff) -> Decision {
    let gives_up = match answer {
        Answer::Hold { .. } => is_on(Mutant::GivesUpOnHold),
        Answer::Retry { .. } | Answer::Limited { .. } => {
            is_on(Mutant::GivesUpOnRetry) && backoff.retries() >= 3
        }
        _ => false,
    };
    let verdict = match answer {
        _ if gives_up => Verdict::Refused { status: 0, message: String::new() },
        Answer::Accepted { warning } => Verdict::Accepted { warning: warning.clone() },
        Answer::TooLarge { status } => Verdict::TooLarge { status: *status },
        Answer::Refused { status, message } if refusals_before + 1 >= REFUSALS_MAX => {
            Verdict::Refused { status: *status, message: message.clone() }
        }
        Answer::Refused { .. } => {
            return Decision::Again { state: DeliveryState::Retrying, wait: backoff.retry(None) };
        }
        Answer::Limited { retry_after, .. } => {
            return Decision::Again { state: DeliveryState::Retrying, wait: backoff.limited(*retry_after) };
        }
        Answer::Retry { retry_after, .. } => {
            return Decision::Again { state: DeliveryState::Retrying, wait: backoff.retry(*retry_after) };
        }
        Answer::Hold { retry_after, .. } => {
            return Decision::Again { state: DeliveryState::Held, wait: backoff.hold(*retry_after) };
        }
    };
    match &verdict {
        Verdict::Accepted { .. } => backoff.accepted(),
        Verdict::Refused { .. } | Verdict::TooLarge { .. } => backoff.reset(),
    }
    Decision::Done(verdict)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::super::backoff::BackoffLimits;
    use super::*;

    /// 2026-11-22T10:00:00Z.
    const NOW_S: u64 = 1_795_341_600;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S)
    }

    fn kind(status: u16) -> &'static str {
        match classify(status, &HeaderMap::new(), b"", now()) {
            Answer::Accepted { .. } => "accepted",
            Answer::Refused { .. } => "refused",
            Answer::TooLarge { .. } => "too large",
            Answer::Hold { .. } => "hold",
            Answer::Limited { .. } => "limited",
            Answer::Retry { .. } => "retry",
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in 100..=999 {
            let expected = match status {
                200..=299 => "accepted",
                400 => "refused",
                413 => "too large",
                429 => "limited",
                408 => "retry",
                300..=499 => "hold",
                _ => "retry",
            };
            assert_eq!(kind(status), expected, "{status}");
        }
    }

    #[test]
    fn bodies_lend_their_words() {
        let check = |status, body: &str, expected: &str| {
            let answer = classify(status, &HeaderMap::new(), body.as_bytes(), now());
            let text = match &answer {
                Answer::Accepted { warning } => warning.clone().unwrap_or_default(),
                _ => answer.error().unwrap_or_default(),
            };
            assert_eq!(text, expected);
        };
        check(200, "", "");
        check(200, " \r\n", "");
        check(
            200,
            r#"{"status":200,"id":"AB","code":"bad.http.header.fields","message":"14 pairs are dropped"}"#,
            "bad.http.header.fields: 14 pairs are dropped",
        );
        check(200, "<html>sign in</html>", "<html>sign in</html>");
        check(200, r#"{"code":"cut of"#, r#"{"code":"cut of"#);
        check(
            503,
            r#"{"id":"1TIRY-KGIVX-TPQRJ","errors":[{"code":"internal.error","message":"Internal server error."}]}"#,
            "503 service unavailable: internal.error: Internal server error.",
        );
        check(429, "You have exceeded", "429 too many requests: You have exceeded");
        check(400, "", "400 bad request");
        check(413, "", "413 payload too large: the batch will be split");
        check(799, "", "799 without a known meaning");
        check(
            401,
            "",
            "401 unauthorized: the token in WATCHPOST_SUMO_URL is not accepted; correct it; the data is kept",
        );
        let binary = classify(500, &HeaderMap::new(), b"\xff\xfe\x00", now());
        assert!(binary.error().is_some_and(|text| text.starts_with("500 internal server error: ")));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let check = |text: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("a valid header"));
            assert_eq!(retry_after(&headers, now()), expected.map(Duration::from_secs), "{text}");
        };
        check("0", Some(0));
        check("120", Some(120));
        check(" 7 ", Some(7));
        check("99999999999999999999999", Some(u64::MAX));
        check("Sun, 22 Nov 2026 10:01:30 GMT", Some(90));
        check("Sunday, 22-Nov-26 10:01:30 GMT", Some(90));
        check("Sun, 22 Nov 2026 09:00:00 GMT", Some(0));
        check("-5", None);
        check("1.5", None);
        check("soon", None);
        check("", None);
        assert_eq!(retry_after(&HeaderMap::new(), now()), None);
    }

    #[test]
    fn decisions_follow_from_answers() {
        let mut backoff = Backoff::new(BackoffLimits::default(), 1);
        let retry = Answer::Retry { message: "x".to_owned(), retry_after: Some(Duration::from_secs(20)) };
        let limited = Answer::Limited { message: "x".to_owned(), retry_after: None };
        let hold = Answer::Hold { message: "x".to_owned(), retry_after: None };
        let refused = Answer::Refused { status: 400, message: "x".to_owned() };
        let again = |decision: Decision| match decision {
            Decision::Again { state, wait } => (state, wait.as_secs()),
            Decision::Done(verdict) => panic!("{verdict:?}"),
        };
        assert_eq!(again(decide(&retry, 0, &mut backoff)), (DeliveryState::Retrying, 20));
        let (state, wait_s) = again(decide(&hold, 0, &mut backoff));
        assert!(state == DeliveryState::Held && (12..=15).contains(&wait_s), "{wait_s}");
        assert_eq!(again(decide(&refused, 0, &mut backoff)).0, DeliveryState::Retrying);
        assert_eq!(again(decide(&refused, 1, &mut backoff)).0, DeliveryState::Retrying);
        assert_eq!(
            decide(&refused, 2, &mut backoff),
            Decision::Done(Verdict::Refused { status: 400, message: "x".to_owned() })
        );
        assert_eq!(
            decide(&Answer::TooLarge { status: 413 }, 0, &mut backoff),
            Decision::Done(Verdict::TooLarge { status: 413 })
        );
        assert_eq!(
            decide(&Answer::Accepted { warning: None }, 2, &mut backoff),
            Decision::Done(Verdict::Accepted { warning: None })
        );
        assert_eq!(backoff.pause(), Duration::ZERO, "nothing asked for less");
        assert_eq!(again(decide(&limited, 0, &mut backoff)).0, DeliveryState::Retrying);
        decide(&Answer::Accepted { warning: None }, 0, &mut backoff);
        let pause = backoff.pause();
        assert!((400..1_500).contains(&pause.as_millis()), "{pause:?}");
    }
}
