//! What strangers send: answers of a destination, requests at the status port, packed logs, text for a terminal,
//! lines with secrets.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Request, header};
use watchpost::batch::{line, redact as masking};
use watchpost::cli::printable;
use watchpost::ship::{Answer, Backoff, BackoffLimits, Decision, REFUSALS_MAX, Verdict, classify, decide};

use super::{Input, assert_plain};

const CANARY: &str = "Zq7Canary9x";
const TOKEN: &str = "0123456789abcdef";
/// `watchpost:0123456789abcdef` in base64.
const BASIC: &str = "d2F0Y2hwb3N0OjAxMjM0NTY3ODlhYmNkZWY=";
/// The longest text that is kept of an answer, in characters, and its dots.
const TEXT_CHARACTERS_MAX: usize = 303;
/// No wait is longer: the longest `Retry-After` and the jitter on top.
const WAIT_MAX: Duration = Duration::from_secs(361);

/// Status, `Retry-After`, and the body.
pub fn answer(data: &[u8]) {
    let mut input = Input(data);
    let status = u16::from_le_bytes([input.byte(), input.byte()]) % 1000;
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(input.short()) {
        headers.insert(header::RETRY_AFTER, value);
    }
    let body = input.0;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_341_600);
    let answer = classify(status, &headers, body, now);
    let accepted = matches!(answer, Answer::Accepted { .. });
    assert_eq!(accepted, (200..300).contains(&status), "{answer:?}");
    if let Answer::Refused { message, .. }
    | Answer::Hold { message, .. }
    | Answer::Limited { message, .. }
    | Answer::Retry { message, .. } = &answer
    {
        let url = format!("https://host.example/receiver/v1/http/{CANARY}");
        let cleaned = watchpost::ship::cleaned(&url, &format!("{message} {url} {CANARY}"));
        assert_plain(&cleaned);
        assert!(!cleaned.contains(CANARY) && cleaned.chars().count() <= TEXT_CHARACTERS_MAX, "{cleaned:?}");
    }
    let mut backoff = Backoff::new(BackoffLimits::default(), 1);
    for refusals in 0..REFUSALS_MAX {
        match decide(&answer, refusals, &mut backoff) {
            Decision::Again { wait, .. } => assert!(wait <= WAIT_MAX && !accepted, "{wait:?}"),
            Decision::Done(Verdict::Accepted { .. }) => assert!(accepted),
            Decision::Done(Verdict::Refused { .. }) => {
                assert!(status == 400 && refusals + 1 == REFUSALS_MAX);
            }
            Decision::Done(_) => assert_eq!(status, 413),
        }
    }
}

/// A choice of method, path and token, then headers, a line each.
pub fn guard(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let method = ["GET", "HEAD", "POST", "OPTIONS"][usize::from(choice & 3)];
    let path = ["/status", "/healthz", "http://localhost:9100/status", "/"][usize::from(choice >> 2 & 3)];
    let token = (choice & 16 != 0).then_some(TOKEN);
    let local: SocketAddr =
        if choice & 32 == 0 { "127.0.0.1:9100" } else { "192.0.2.7:9100" }.parse().expect("an address");
    let mut request = Request::builder().method(method).uri(path).body(()).expect("a request");
    for line in rest.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = header::HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            request.headers_mut().append(name, value);
        }
    }
    if !watchpost::status::admits(&request, local, Some("web-1"), token) {
        return;
    }
    assert!(matches!(method, "GET" | "HEAD"));
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_told = value.is_some_and(|value| value.ends_with(TOKEN) || value.ends_with(BASIC));
    if token.is_some() && is_told {
        // Who knows the token may ask under any name.
        return;
    }
    assert!(token.is_none() || path == "/healthz", "{value:?}");
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    let [host] = hosts[..] else { panic!("{} Host headers", hosts.len()) };
    let (name, port) = host.to_str().expect("a name").rsplit_once(':').expect("a port");
    assert_eq!(port.parse(), Ok(9100u16));
    let address = name.trim_matches(['[', ']']);
    let is_own =
        ["localhost", "127.0.0.1", "::1", "192.0.2.7"].iter().any(|own| own.eq_ignore_ascii_case(address));
    let is_ip = address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical() == local.ip());
    assert!(is_own || is_ip || (choice & 32 != 0 && name.eq_ignore_ascii_case("web-1")), "{name}");
}

/// A log, packed or not: read as it is, and packed here as one member and as two.
pub fn gz(data: &[u8]) {
    let (lines, whole) = watchpost::cli::analyze::lines_of(data.to_vec());
    if data.starts_with(&[0x1f, 0x8b]) {
        return;
    }
    assert!(whole, "memory cannot fail");
    let mut joined = lines.join(&b'\n');
    if data.ends_with(b"\n") {
        joined.push(b'\n');
    }
    assert_eq!(joined, data);
    let half = data.len() / 2;
    for packed in [pack(data), [pack(&data[..half]), pack(&data[half..])].concat()] {
        assert_eq!(watchpost::cli::analyze::lines_of(packed.clone()), (lines.clone(), true));
        let (begun, whole) = watchpost::cli::analyze::lines_of(packed[..packed.len() - 1].to_vec());
        assert!(!whole, "a cut file passed for whole");
        assert!(begun.len() <= lines.len());
    }
}

fn pack(raw: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(raw).expect("memory");
    encoder.finish().expect("memory")
}

/// A text of strangers.
pub fn terminal(data: &[u8]) {
    let shown = printable(data);
    assert_plain(&shown);
    let marks = ['\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'];
    assert!(!shown.contains(marks), "{shown:?}");
    assert_eq!(printable(shown.as_bytes()), shown, "what is printable stays");
    let status = serde_json::from_slice(data).unwrap_or_else(|_| {
        let name = String::from_utf8_lossy(data);
        serde_json::json!({
            "host": name, "agent": {"host": name, "version": name},
            "files": [{"path": name, "state": name, "reason": name}],
            "web": {"vhosts": [{"name": name, "requests": 1}], "routes": [{"name": name, "requests": 1}]},
            "spool": {"state": name}, "delivery": {"state": name, "last_error": name},
        })
    });
    let view = watchpost::cli::status::rendered(&status);
    assert!(view.chars().all(|c| c == '\n' || !c.is_control()), "{view:?}");
}

/// What stands before a secret, 0xFF, and what stands behind it.
pub fn redact(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0xFF).unwrap_or(data.len());
    let (before, behind) = (&data[..at], data.get(at + 1..).unwrap_or(b""));
    let masking = masking::Redactor::new(&[]);
    let text = [before, b"?Token=", CANARY.as_bytes(), behind].concat();
    let count = |bytes: &[u8]| bytes.windows(CANARY.len()).filter(|part| *part == CANARY.as_bytes()).count();
    let mut out = Vec::new();
    let masked = masking.mask(&text, &mut out).expect("there is one to mask").to_vec();
    assert!(count(&masked) < count(&text), "{}", masked.escape_ascii());
    let mut again = Vec::new();
    assert_eq!(masking.mask(&masked, &mut again).unwrap_or(&masked), masked, "masked once is masked");
    record(&masked, usize::from(data.first().copied().unwrap_or(0)) * 4 + 200);
}

/// A line as a record: JSON, within its limit, and the same line where it says nothing else.
fn record(text: &[u8], limit: usize) {
    let mut out = Vec::new();
    let cut = line::write(&mut out, 1_700_000_000_000, text, line::Marks::default(), limit);
    assert!(out.len() <= limit, "{} of {limit}", out.len());
    let value: serde_json::Value = serde_json::from_slice(&out).expect("a record is JSON");
    assert_eq!(value.get("truncated").is_some(), cut);
    let log = value["log"].as_str().expect("the text");
    match std::str::from_utf8(text) {
        Ok(text) if !cut => assert_eq!(log, text),
        Ok(text) => assert!(text.starts_with(log)),
        Err(_) => {}
    }
}
