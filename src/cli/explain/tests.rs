//! What is said of a line under given settings, through the same call as the command.

use std::collections::BTreeMap;

use super::*;
use crate::config::{self, Layered, Surroundings};

const READ_AT: EpochMs = 1_764_000_000_123;

const LINE: &str = r#"203.0.113.9 - - [24/Nov/2025:16:00:00 +0000] "GET /page/7?token=abc HTTP/1.1" 404 2048 "-" "curl/8 \x22q\x22""#;

fn config(settings: &[(&str, &str)]) -> Config {
    let text = |(name, value): &(&str, &str)| (format!("WATCHPOST_{name}"), (*value).to_owned());
    let defaults = [("STATE_DIR", "/nowhere"), ("NGINX_CONF", "/nowhere/nginx.conf")];
    let flags: BTreeMap<String, String> = defaults.iter().chain(settings).map(text).collect();
    let surroundings = Surroundings { is_root: false, host_source_names: &[] };
    config::load(&Layered { flags: &flags, environment: &BTreeMap::new() }, &surroundings).expect("settings")
}

fn explain(line: &[u8], settings: &[(&str, &str)]) -> String {
    let config = config(settings);
    explained(line, &config, &Plan::new(&config).expect("a plan"), READ_AT)
}

/// Asserts that a row says this; columns are not part of it.
#[track_caller]
fn check(text: &str, label: &str, expected: &str) {
    let found = text.lines().find_map(|line| line.strip_prefix(label).filter(|rest| rest.starts_with(' ')));
    assert_eq!(found.map(str::trim), Some(expected), "{label} in\n{text}");
}

#[test]
fn each_field_has_its_row() {
    let text = explain(LINE.as_bytes(), &[]);
    check(&text, "time", "2025-11-24T16:00:00Z");
    check(&text, "method", "GET");
    check(&text, "target", "/page/7?token=abc");
    check(&text, "status", "404   not found");
    check(&text, "bytes_sent", "2,048 B   2.0 KiB");
    check(&text, "referer", "-");
    check(&text, "agent", r#"curl/8 \x22q\x22   which is curl/8 "q""#);
    check(&text, "route", "GET /page/{id}");
    check(&text, "format", "combined, main or JSON, by the line: here combined");
    assert!(text.contains("$request_time") && text.contains("log_format watchpost"), "{text}");
}

#[test]
fn the_record_is_the_one_that_goes_out() {
    let record = |text: &str| -> serde_json::Value {
        serde_json::from_str(text.lines().last().expect("a record")).expect("JSON")
    };
    let text = explain(LINE.as_bytes(), &[]);
    let masked = record(&text);
    assert_eq!(masked["timestamp"], 1_764_000_000_000_i64);
    assert_eq!(masked["log"], LINE.replace("abc", "***"));
    let text = explain(LINE.as_bytes(), &[("REDACT", "off")]);
    assert_eq!(record(&text)["log"], LINE);
    check(&text, "redacted", "no: WATCHPOST_REDACT=off");
    let noise = "no line \u{9b}31m \u{202e}x";
    let text = explain(noise.as_bytes(), &[]);
    assert_eq!((&record(&text)["timestamp"], &record(&text)["log"]), (&READ_AT.into(), &noise.into()));
    assert!(!text.contains('\u{9b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn what_is_shipped_follows_the_setting() {
    let line = |status: &str| LINE.replace("404", status).into_bytes();
    let check = |line: &[u8], which: &str, expected: &str| {
        let text = explain(line, &[("SHIP_LINES", which), ("SUMO_URL", "https://a.example/x")]);
        let shipped = text.lines().find(|line| line.starts_with("shipped")).expect("the verdict");
        let verdict = shipped.trim_start_matches("shipped").trim_start();
        assert!(verdict.starts_with(expected), "{which}: {shipped}");
    };
    check(&line("200"), "all", "yes");
    check(&line("500"), "none", "no");
    check(&line("399"), "errors", "no");
    check(&line("400"), "errors", "yes");
    check(b"noise", "errors", "yes");
    check(&line("200"), "sample:0.1", "perhaps");
    check(&line("502"), "sample:0.1", "yes");
    assert!(explain(&line("200"), &[]).contains("WATCHPOST_SUMO_URL is unset"));
}

#[test]
fn a_line_that_does_not_parse_says_where_and_why() {
    let text = explain(b"no such \x1b[31mline \xff", &[]);
    assert!(text.contains("unparsed: ") && text.contains("column"), "{text}");
    assert!(text.contains("--access-log-format"), "{text}");
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    let text = explain(LINE.replace("404", "4x4").as_bytes(), &[]);
    let caret = text.lines().find(|line| line.trim() == "^").expect("a caret").len();
    let excerpt = text.lines().find(|line| line.contains("4x4") && line.starts_with("  ")).expect("the line");
    assert!(excerpt[caret - 1..].starts_with("4x4") || excerpt[caret - 1..].starts_with("x4"), "{text}");
    check(&text, "counted", "as unparsed, with its reason; never silently dropped");
}

#[test]
fn another_format_that_fits_is_named() {
    let text = explain(LINE.as_bytes(), &[("ACCESS_LOG_FORMAT", "json")]);
    assert!(text.contains("WATCHPOST_ACCESS_LOG_FORMAT=combined"), "{text}");
    let text = explain(br#"{"status":200}"#, &[]);
    assert!(text.contains("here JSON") && text.contains("not in this line"), "{text}");
    check(&text, "counted", "as a request of the moment when it is read: it has no time");
}

#[test]
fn lines_of_any_length_and_number() {
    let text = explain(&vec![b'a'; LINE_BYTES_MAX + 10], &[]);
    assert!(text.contains("\"truncated\":true,\"original_bytes\":65547"), "it counts its newline");
    let text = explain(format!("{LINE}\r\nsecond\n").as_bytes(), &[]);
    assert!(text.starts_with("Only the first line") && text.contains("/page/{id}"), "{text}");
    assert!(explain(b"", &[]).contains("unparsed: the line is empty"));
}
