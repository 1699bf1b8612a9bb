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
fn no_line_of_two_megabytes_is_slow() {
    const BYTES: usize = 2_000_000;
    // A debug build reads some ten megabytes a second; what is quadratic takes hours.
    const LONGEST: Duration = Duration::from_secs(20);
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
    for format in formats() {
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
