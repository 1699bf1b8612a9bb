//! The fast way against the plain one, which knows nothing of it: any format, lines of it, and lines that nearly are.

use super::generated::{entries, line_of};
use super::lines::REAL;
use crate::access::format::Reader;
use crate::escape::Escape;
use crate::time::LastSecond;
use crate::{AccessLine, Format, Parser};
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

/// Formats that the generator does not make: literal text around, one field in two places, joined variables, nginx's own.
const FORMATS: [&str; 6] = [
    r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#,
    r#"{$time_iso8601} $host$request_uri $status"#,
    r#"[$time_local] $msec "$request" $request_method $status $bytes_sent $body_bytes_sent"#,
    r#"$status "$request" $scheme $https $ssl_protocol"#,
    r#"<$server_name|$http_host> $uri$is_args$args "$request_time" ($upstream_response_time) $upstream_status;"#,
    r#"$remote_addr $foo $msec"#,
];

/// What is done to a line so that it may be none of its format any more.
#[derive(Clone, Debug)]
enum Change {
    Replace(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Double(prop::sample::Index, prop::sample::Index),
    Cut(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<prop::sample::Index>;
    let byte = || prop::sample::select(b"\" -[]\\:/.,0a5x\x00\xe9\n\r".to_vec());
    prop::collection::vec(
        prop_oneof![
            (index(), byte()).prop_map(|(at, byte)| Change::Replace(at, byte)),
            index().prop_map(Change::Remove),
            (index(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
            (index(), index()).prop_map(|(from, to)| Change::Double(from, to)),
            index().prop_map(Change::Cut),
        ],
        0..4,
    )
}

fn changed(mut line: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if line.is_empty() {
            return line;
        }
        let length = line.len();
        match change {
            Change::Replace(at, byte) => line[at.index(length)] = *byte,
            Change::Remove(at) => {
                line.remove(at.index(length));
            }
            Change::Insert(at, byte) => line.insert(at.index(length), *byte),
            Change::Double(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = line[from.min(to)..from.max(to)].to_vec();
                line.splice(from..from, piece);
            }
            Change::Cut(at) => line.truncate(at.index(length)),
        }
    }
    line
}

/// Reads a line both ways.
fn both_ways_agree(format: &Format, line: &[u8]) {
    let (mut fast, mut plain) = (Parser::new(format.clone()), Parser::new(format.clone()));
    assert_eq!(fast.parse(line), plain.parse_plainly(line), "{}", line.escape_ascii());
}

/// How many of the lines take the fast way.
fn straight_of(format: &Format, lines: &[Vec<u8>]) -> usize {
    let Reader::Literal(program, Some(straight)) = &format.reader else { return 0 };
    let mut last_second = LastSecond::default();
    let mut read = |line: &[u8]| {
        let mut parsed = AccessLine::default();
        straight.read(program, line, &mut parsed, &mut last_second).is_some()
    };
    lines.iter().filter(|line| read(line)).count()
}

#[test]
fn real_traffic_takes_the_fast_way_and_reads_the_same() {
    let lines: Vec<Vec<u8>> = REAL.lines().map(|line| line.as_bytes().to_vec()).collect();
    let format = Format::combined();
    assert_eq!(straight_of(&format, &lines), lines.len());
    let mut fast = Parser::new(format.clone());
    let mut plain = Parser::new(format);
    for line in &lines {
        assert_eq!(fast.parse(line), plain.parse_plainly(line));
    }
}

#[test]
fn a_format_that_gives_a_field_twice_is_left_to_the_plain_way() {
    let taken: Vec<bool> = FORMATS
        .iter()
        .map(|text| Format::from_log_format(text).expect("is a format"))
        .map(|format| matches!(format.reader, Reader::Literal(_, Some(_))))
        .collect();
    assert_eq!(taken, [true, false, false, true, false, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_line_of_any_format_reads_the_same_both_ways(
        (escape, entries) in proptest::sample::select(std::vec![Escape::Default, Escape::Json, Escape::None])
            .prop_flat_map(|escape| (Just(escape), entries(escape))),
        changes in changes(),
    ) {
        let (format, line, _) = line_of(&entries, escape);
        let format = Format::from_log_format(&format).expect("is a format");
        both_ways_agree(&format, &changed(line, &changes));
    }

    #[test]
    fn near_misses_of_formats_written_by_hand_read_the_same_both_ways(
        number in 0..FORMATS.len(),
        values in prop::collection::vec("-|[0-9]{1,4}|[0-9]{10}\\.[0-9]{3}|[a-z.]{1,8}|/[a-z/?=%]{0,9}|GET /[a-z]{0,5} HTTP/1\\.1|https|on|17/May/2015:10:05:03 \\+0000|2015-05-17T10:05:03\\+00:00", 8),
        changes in changes(),
    ) {
        let line = filled(FORMATS[number], &values);
        let format = Format::from_log_format(FORMATS[number]).expect("is a format");
        both_ways_agree(&format, &changed(line.into_bytes(), &changes));
    }
}

/// The format with each variable replaced: a time by a time mostly, the others by the values in turn.
fn filled(format: &str, values: &[String]) -> String {
    let mut line = String::new();
    let mut values = values.iter().cycle();
    for (index, piece) in format.split('$').enumerate() {
        if index == 0 {
            line.push_str(piece);
            continue;
        }
        let end = piece
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(piece.len());
        let value = values.next().expect("they are repeated");
        line.push_str(match &piece[..end] {
            "time_local" if value != "-" => "17/May/2015:10:05:03 +0000",
            "time_iso8601" if value != "-" => "2015-05-17T10:05:03+00:00",
            _ => value,
        });
        line.push_str(&piece[end..]);
    }
    line
}
