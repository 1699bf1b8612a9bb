//! Any bytes at all, and lines made to be slow.

use crate::{Format, LINE_BYTES_MAX, Parser, Unparsed};
use proptest::prelude::*;
use std::time::{Duration, Instant};
use std::vec::Vec;

fn formats() -> Vec<Format> {
    let texts = [
        r#"escape=none $remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#,
        r#"log_format j escape=json '{"t":"$msec","r":"$request","s":$status,"rt":$request_time,"u":"$upstream_response_time"}';"#,
        "$foo $upstream_status|$host$request_uri $status",
        r#"$foo "$bar" $status"#,
        "$foo $msec $time_iso8601 $bar",
    ];
    let mut formats: Vec<Format> =
        texts.iter().map(|text| Format::from_log_format(text).expect("is a format")).collect();
    formats.push(Format::combined());
    formats.push(Format::json());
    formats.push(Format::from_regex(r"^(?<ip>\S+).*(?<status>\d{3})").expect("compiles"));
    formats
}

#[test]
fn no_long_line_is_slow() {
    const BYTES: usize = 300_000;
    // A debug build reads some ten megabytes a second; what is quadratic takes many minutes.
    const LONGEST: Duration = Duration::from_secs(10);
    let patterns: [&[u8]; 18] = [
        b"\"",
        b"\\",
        b"\\\"",
        b" ",
        b" \"",
        b"\" ",
        b"1, ",
        b"1 : ",
        b" 1, ",
        b"\0",
        b"\xff",
        b" [",
        b"{",
        b"{\"a\":",
        b"[[",
        b"1 - - [17/May/2015:10:05:03 +0000] \"",
        b"\" 200 1 \"",
        b"{\"a\":1, ",
    ];
    // The last is the regular expression, whose engine promises linear time by itself, and takes its time in a debug build.
    for format in formats().into_iter().rev().skip(1) {
        let mut parser = Parser::new(format);
        for pattern in patterns {
            let line = pattern.repeat(BYTES / pattern.len());
            let prefixed = [b"{\"request\":\"", &line[..]].concat();
            let started = Instant::now();
            parser.parse(&line).ok();
            parser.parse(&prefixed).ok();
            assert!(started.elapsed() < LONGEST, "{} took {:?}", pattern.escape_ascii(), started.elapsed());
        }
    }
}

#[test]
fn lines_of_two_megabytes_are_read() {
    let agent = "a".repeat(2_000_000);
    let line = std::format!(r#"::1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "{agent}""#);
    let mut parser = Parser::new(Format::combined());
    let found = parser.parse(line.as_bytes()).map(|line| line.agent.map(<[u8]>::len));
    assert_eq!(found, Ok(Some(agent.len())));
    let line = std::format!(r#"{{"status":200,"agent":"{}"}}"#, agent.replace('a', r"\\"));
    let mut parser = Parser::new(Format::json());
    let found = parser.parse(line.as_bytes()).map(|line| line.agent.map(<[u8]>::len));
    assert_eq!(found, Ok(Some(agent.len())));
}

#[test]
fn a_line_past_the_limit_is_not_looked_at() {
    let line = std::vec![b'x'; LINE_BYTES_MAX + 1];
    let reason = Parser::new(Format::combined()).parse(&line).map(|_| ());
    assert_eq!(reason, Err(Unparsed::TooLong { bytes: LINE_BYTES_MAX + 1 }));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(line: Vec<u8>) {
        for format in formats() {
            Parser::new(format).parse(&line).ok();
        }
    }

    #[test]
    fn any_text_near_a_line_is_survived(line in r#"[{} \[\]"\\:,/a0-9.\n-]{0,120}"#) {
        for format in formats() {
            Parser::new(format).parse(line.as_bytes()).ok();
        }
    }

    #[test]
    fn any_text_as_a_format_is_survived(text in r#"(log_format )?[a '"$\{\};\\#=]{0,40}"#, line: Vec<u8>) {
        if let Ok(format) = Format::from_log_format(&text) {
            Parser::new(format).parse(&line).ok();
        }
    }
}
