//! Lines made from a random log_format and random values, written as nginx writes them, have to give the values back.

use crate::escape::Escape;
use crate::{AccessLine, Format, Parser};
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

/// A variable, how it stands in the format, and the value that nginx has for it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    variable: &'static str,
    quoted: bool,
    value: Option<Vec<u8>>,
    separator: &'static str,
}

fn value_of(variable: &'static str, quoted: bool, escape: Escape) -> BoxedStrategy<Option<Vec<u8>>> {
    let text = |pattern: &'static str| pattern.prop_map(String::into_bytes).boxed();
    let free = match (quoted, escape) {
        (true, Escape::None) => text("[ !#-~]{1,20}"),
        (true, _) => proptest::collection::vec(any::<u8>(), 1..20).boxed(),
        (false, _) => text("[a-z0-9./]{1,12}"),
    };
    let some = match variable {
        "status" => text("[0-9]{3}"),
        "body_bytes_sent" => text("[0-9]{1,9}"),
        "request_time" => text("[0-9]{1,3}\\.[0-9]{3}"),
        "time_local" => text("[0-2][1-8]/(Jan|Dec)/20[0-9]{2}:[01][0-9]:[0-5][0-9]:[0-5][0-9] [+-]0[0-9]30"),
        "time_iso8601" => text("20[0-9]{2}-0[1-9]-[0-2][1-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9][+-]0[0-9]:30"),
        "msec" => text("1[0-9]{9}\\.[0-9]{3}"),
        "upstream_response_time" => text("([0-9]\\.[0-9]{3}|-)(( : |, )([0-9]\\.[0-9]{3}|-)){0,3}"),
        "upstream_status" => text("([0-9]{3}|-)(( : |, )([0-9]{3}|-)){0,3}"),
        "request" if quoted => text("[A-Z]{1,7} /[!#-~]{0,20} HTTP/[0-9.]{1,3}"),
        _ => free,
    };
    let can_be_missing = !matches!(variable, "time_local" | "time_iso8601" | "msec" | "status");
    proptest::option::weighted(if can_be_missing { 0.9 } else { 0.999_999 }, some).boxed()
}

const VARIABLES: [&str; 15] = [
    "remote_addr",
    "request",
    "status",
    "body_bytes_sent",
    "http_referer",
    "http_user_agent",
    "request_time",
    "time_local",
    "time_iso8601",
    "msec",
    "upstream_response_time",
    "upstream_status",
    "host",
    "http_x_anything",
    "scheme",
];

pub(super) fn entries(escape: Escape) -> impl Strategy<Value = Vec<Entry>> {
    let chosen = proptest::sample::subsequence(VARIABLES.to_vec(), 1..VARIABLES.len()).prop_shuffle();
    chosen.prop_flat_map(move |variables| {
        let each: Vec<_> = variables
            .into_iter()
            .map(move |variable| {
                let quoted = any::<bool>().prop_map(move |quoted| quoted || matches!(variable, "request"));
                let separator = proptest::sample::select(std::vec![
                    " ", " - ", "|", "\t", " [", "] ", ";a=", " = ", "] \t"
                ]);
                (quoted, separator).prop_flat_map(move |(quoted, separator)| {
                    value_of(variable, quoted, escape).prop_map(move |value| Entry {
                        variable,
                        quoted,
                        value,
                        separator,
                    })
                })
            })
            .collect();
        each
    })
}

fn written(value: &Option<Vec<u8>>, escape: Escape, out: &mut Vec<u8>) {
    let Some(value) = value else {
        return if escape == Escape::Default {
            out.push(b'-')
        };
    };
    for byte in value {
        match (escape, *byte) {
            (Escape::Default, b'"' | b'\\' | 0..=0x1f | 0x7f..) => {
                out.extend_from_slice(std::format!("\\x{byte:02X}").as_bytes());
            }
            (Escape::Json, b'"' | b'\\') => out.extend_from_slice(&[b'\\', *byte]),
            (Escape::Json, 0..=0x1f) => out.extend_from_slice(std::format!("\\u{byte:04X}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// A variable and the value that the parser has to give for it.
pub(super) type Given = (&'static str, Option<Vec<u8>>);

/// The format as a directive, a line of it, and each variable's value as the parser has to give it.
pub(super) fn line_of(entries: &[Entry], escape: Escape) -> (String, Vec<u8>, Vec<Given>) {
    let name = ["default", "json", "none"][escape as usize];
    let mut format = std::format!("log_format x escape={name} '");
    let mut line = Vec::new();
    let mut values = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let quote = if entry.quoted { "\"" } else { "" };
        let separator = if index + 1 == entries.len() { "" } else { entry.separator };
        format.push_str(&std::format!("{quote}${{{}}}{quote}{separator}", entry.variable));
        let mut raw = Vec::new();
        written(&entry.value, escape, &mut raw);
        line.extend_from_slice(quote.as_bytes());
        line.extend_from_slice(&raw);
        line.extend_from_slice(quote.as_bytes());
        line.extend_from_slice(separator.as_bytes());
        let given = if escape == Escape::Default { Some(raw) } else { entry.value.clone() };
        values.push((entry.variable, given.filter(|value| !value.is_empty() && value != b"-")));
    }
    format.push_str("';");
    (format, line, values)
}

fn compare(found: &AccessLine<'_>, values: &[Given]) {
    let text = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let number = |value: &Option<Vec<u8>>| {
        value.as_ref().map(|digits| {
            String::from_utf8_lossy(digits).replace('.', "").parse::<u64>().expect("made of digits")
        })
    };
    let exactest = ["msec", "time_iso8601", "time_local"]
        .into_iter()
        .find(|name| values.iter().any(|(other, _)| other == name));
    for (variable, value) in values {
        match *variable {
            "remote_addr" => assert_eq!(text(found.remote_addr), *value),
            "request" => {
                let parts = [found.method, found.target, found.protocol].map(|part| part.unwrap_or_default());
                assert_eq!(parts.join(&b' '), value.clone().unwrap_or(b"  ".to_vec()));
            }
            "status" => assert_eq!(found.status.map(u64::from), number(value)),
            "body_bytes_sent" => assert_eq!(found.bytes_sent, number(value)),
            "http_referer" => assert_eq!(text(found.referer), *value),
            "http_user_agent" => assert_eq!(text(found.agent), *value),
            "request_time" => assert_eq!(found.request_time_ms, number(value)),
            "upstream_response_time" => assert_eq!(text(found.upstream_response_time), *value),
            "upstream_status" => assert_eq!(text(found.upstream_status), *value),
            "host" => assert_eq!(text(found.vhost), *value),
            "scheme" => assert_eq!(text(found.scheme), *value),
            name if exactest == Some(name) => {
                let expected = value.as_deref().and_then(crate::time::any_ms);
                assert!(expected.is_some());
                assert_eq!(found.time_ms, expected);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn values_come_back(
        (escape, entries) in proptest::sample::select(std::vec![Escape::Default, Escape::Json, Escape::None])
            .prop_flat_map(|escape| (Just(escape), entries(escape)))
    ) {
        let (format, line, values) = line_of(&entries, escape);
        let mut parser = Parser::new(Format::from_log_format(&format).expect("is a format"));
        let found = parser.parse(&line);
        match found {
            Ok(found) => compare(&found, &values),
            // A line of nothing but blanks and missing values says nothing.
            Err(crate::Unparsed::Empty) => prop_assert!(line.trim_ascii().is_empty()),
            Err(reason) => prop_assert!(false, "{}: {reason}\n{}", format, line.escape_ascii()),
        }
    }
}
