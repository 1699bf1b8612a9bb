//! The report over fixtures, through the same calls as the command.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::agent::plan::{LogPlan, Reading};
use watchpost_parsers::Format;

/// Combined lines, one of them of line noise, one of a WebSocket, and two that are no access lines.
const LOG: &str = r#"203.0.113.9 - - [24/Nov/2025:16:00:00 +0000] "GET /users/17?token=a HTTP/1.1" 200 100 "https://a.example/?q=1" "curl/8.5.0"
203.0.113.9 - - [24/Nov/2025:16:00:00 +0000] "GET /users/18 HTTP/1.1" 200 50 "-" "curl/8.5.0"
203.0.113.7 - - [24/Nov/2025:15:59:58 +0000] "POST /login HTTP/1.1" 502 0 "-" "Mozilla/5.0 \x1B[31m"
203.0.113.8 - - [24/Nov/2025:16:00:01 +0000] "\x16\x03\x01" 000 0 "-" "-"

not an access line
"#;

fn reader(reading: Reading) -> LineReader {
    LineReader::new(&LogPlan {
        pattern: String::new(),
        reading,
        format_name: "test".to_owned(),
        vhost: Some(b"Shop.Example:443".to_vec()),
        flush_ms: None,
    })
}

fn report_of(log: &[u8], reading: Reading) -> Report {
    let mut tally = Tally::new();
    let mut lines = reader(reading);
    let mut number = 0;
    let read = input::for_each_line(&mut &log[..], &mut vec![0; BLOCK_BYTES], |line, cut| {
        number += 1;
        tally.take(&mut lines, line, cut, tally::Place { file: 0, line: number });
    });
    read.expect("memory can be read");
    let file = FileReport {
        path: "access.log".to_owned(),
        format: "test".to_owned(),
        bytes: log.len() as u64,
        lines: tally.lines,
        error: None,
    };
    Report::new(&tally, vec![file])
}

fn json_of(log: &[u8], reading: Reading) -> Value {
    serde_json::to_value(report_of(log, reading)).expect("a report")
}

#[test]
fn every_line_is_a_request_or_unparsed_with_a_reason() {
    let report = json_of(LOG.as_bytes(), Reading::Detect);
    assert_eq!(
        (&report["lines"], &report["requests"], &report["unparsed"]),
        (&6.into(), &4.into(), &2.into())
    );
    assert_eq!(report["unparsed_reasons"], serde_json::json!({"empty": 1, "no_match": 1}));
    assert_eq!(report["unparsed_examples"][1]["line"], 6);
    assert_eq!(report["status"], serde_json::json!({"000": 1, "200": 2, "502": 1}));
    assert_eq!(report["methods"], serde_json::json!({"GET": 2, "POST": 1, "_OTHER": 1}));
    assert_eq!(
        (&report["bytes_sent"], &report["errors"], &report["error_rate"]),
        (&150.into(), &1.into(), &0.25.into())
    );
    assert_eq!(report["latency_s"], Value::Null, "what is not in the log is not zero");
}

#[test]
fn times_come_in_any_order() {
    let report = json_of(LOG.as_bytes(), Reading::Detect);
    assert_eq!(
        (&report["first"], &report["last"]),
        (&"2025-11-24T15:59:58Z".into(), &"2025-11-24T16:00:01Z".into())
    );
    assert_eq!((&report["qps_peak_1s"], &report["qps_peak_at"]), (&2.into(), &"2025-11-24T16:00:00Z".into()));
    assert_eq!((&report["span_s"], &report["qps_mean"]), (&4.into(), &1.0.into()));
    let series: Vec<_> =
        report["series"].as_array().expect("points").iter().map(|point| &point["requests"]).collect();
    assert_eq!(series, [1, 2, 1]);
}

#[test]
fn names_are_ranked_and_harmless() {
    let report = json_of(LOG.as_bytes(), Reading::Detect);
    assert_eq!(report["routes"][0]["name"], "GET /users/{id}");
    assert_eq!(report["routes"][0]["requests"], 2);
    assert_eq!(report["vhosts"][0]["name"], "shop.example");
    assert_eq!(report["clients"][0]["name"], "203.0.113.9");
    assert_eq!(report["referers"][1]["name"], "https://a.example/", "without its query");
    let text = text::render(&report_of(LOG.as_bytes(), Reading::Detect));
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn json_lines_are_told_by_their_brace_and_escapes_stay_text() {
    let log = b"{\"status\":200,\"request_time\":0.25,\"host\":\"a\",\"user_agent\":\"x\\u001b[31m\"}\n{\"status\":101,\"request_time\":3600}\n";
    let report = json_of(log, Reading::Detect);
    assert_eq!((&report["requests"], &report["without_time"]), (&2.into(), &2.into()));
    assert_eq!(
        (&report["latency_s"]["count"], &report["latency_s"]["max"]),
        (&1.into(), &0.25.into()),
        "a session is no latency"
    );
    assert_eq!(report["first"], Value::Null);
    assert_eq!(report["agents"][1]["name"], "x\\u{1b}[31m");
    assert!(!text::render(&report_of(log, Reading::Detect)).contains('\x1b'));
}

#[test]
fn another_format_is_said_with_what_to_do() {
    let log = b"a b c\nd e f\n";
    let text = text::render(&report_of(log, Reading::Format(Format::combined().into())));
    assert!(text.contains("WATCHPOST_ACCESS_LOG_FORMAT") && text.contains("watchpost explain"), "{text}");
    let empty = text::render(&report_of(b"", Reading::Detect));
    assert!(empty.contains("0 requests"), "{empty}");
}

#[test]
fn lines_that_are_cut_are_counted_and_named() {
    let mut log = LOG.lines().next().expect("a line").replace("/users/17", &"a".repeat(70_000)).into_bytes();
    log.push(b'\n');
    let report = json_of(&log, Reading::Detect);
    assert_eq!((&report["lines"], &report["truncated_lines"]), (&1.into(), &1.into()));
}

#[test]
fn missing_rights_alone_have_a_code_of_their_own() {
    let failure = |kind: io::ErrorKind| explained(&PathBuf::from("a.log"), &io::Error::from(kind), 0);
    let code = |kinds: &[io::ErrorKind]| {
        together(kinds.iter().copied().map(failure).collect()).expect_err("a failure").code
    };
    assert_eq!(code(&[io::ErrorKind::PermissionDenied]), exit::PERMISSION);
    assert_eq!(code(&[io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound]), exit::IO);
    assert!(together(Vec::new()).is_ok());
    let damaged = explained(&PathBuf::from("a.gz"), &io::Error::from(io::ErrorKind::UnexpectedEof), 1_234);
    assert!(damaged.message.contains("a.gz: damaged gzip") && damaged.message.contains("1,234"), "{damaged}");
}
