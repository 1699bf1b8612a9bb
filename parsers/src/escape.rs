//! nginx's three ways of escaping a logged value, undone.
//!
//! What it owns: `escape=default`, `json` and `none` of the `log_format` directive (ngx_http_log_module.c, `ngx_http_log_escape`
//! and `ngx_escape_json`). What it must never do: fail. What is no escape stays as it stands.

use crate::bytes::{hex_digit, hex_pair, part, rest};
use alloc::vec::Vec;

/// How values are escaped in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `escape=default`: `"`, `\`, control bytes and bytes from 0x7f on are `\xHH`; a missing value is `-`.
    #[default]
    Default,
    /// `escape=json`: `\"`, `\\`, `\n`, `\u00XX`; bytes from 0x80 on are raw, be they UTF-8 or not; a missing value is empty.
    Json,
    /// `escape=none`: nothing is escaped, so a value may hold quotes and control bytes; a missing value is empty.
    None,
}

/// Appends `raw` with its escapes undone to `out`. For people: a parser compares values as they were logged.
pub fn unescape(raw: &[u8], mode: Escape, out: &mut Vec<u8>) {
    if mode == Escape::None {
        out.extend_from_slice(raw);
        return;
    }
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', rest(raw, at)) {
        out.extend_from_slice(part(raw, at, at + found));
        at += found;
        let used = match mode {
            Escape::Json => json_escape(raw, at, out),
            _ => default_escape(raw, at, out),
        };
        if used == 0 {
            out.push(b'\\');
        }
        at += used.max(1);
    }
    out.extend_from_slice(rest(raw, at));
}

/// `\xHH` as nginx writes it, and `\"` and `\\`, which Apache writes in the same format. Returns the bytes read, 0 for no escape.
fn default_escape(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    match raw.get(at + 1) {
        Some(b'x') => match hex_pair(raw, at + 2) {
            Some(byte) => {
                out.push(byte);
                4
            }
            None => 0,
        },
        Some(byte @ (b'"' | b'\\')) => {
            out.push(*byte);
            2
        }
        _ => 0,
    }
}

/// A JSON escape (RFC 8259 section 7), or `\xHH`, which a JSON-looking format without `escape=json` produces.
fn json_escape(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let simple = match raw.get(at + 1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'u') => return unicode_escape(raw, at, out),
        Some(b'x') => return default_escape(raw, at, out),
        _ => return 0,
    };
    out.push(simple);
    2
}

/// `\uXXXX`, with its second half when it is a surrogate; a half alone becomes U+FFFD.
fn unicode_escape(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let Some(first) = four_digits(raw, at + 2) else { return 0 };
    let mut used = 6;
    let mut scalar = u32::from(first);
    if (0xd800..0xdc00).contains(&first) && part(raw, at + 6, at + 8) == b"\\u" {
        match four_digits(raw, at + 8) {
            Some(second) if (0xdc00..0xe000).contains(&second) => {
                scalar = 0x1_0000 + ((u32::from(first) - 0xd800) << 10) + (u32::from(second) - 0xdc00);
                used = 12;
            }
            _ => {}
        }
    }
    let character = char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    used
}

fn four_digits(raw: &[u8], at: usize) -> Option<u16> {
    part(raw, at, at + 4)
        .iter()
        .try_fold((0u16, 0), |(value, count), byte| {
            Some((value * 16 + u16::from(hex_digit(*byte)?), count + 1))
        })
        .filter(|(_, count)| *count == 4)
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(mode: Escape, raw: &[u8], expected: &[u8]) {
        let mut out = Vec::new();
        unescape(raw, mode, &mut out);
        assert_eq!(out, expected, "{}", std::string::String::from_utf8_lossy(raw));
    }

    #[test]
    fn every_mode_gives_back_what_was_sent() {
        check(Escape::Default, br"a\x22b\x5Cc\xE4", b"a\"b\\c\xe4");
        check(Escape::Default, br#"\"\\"#, b"\"\\");
        check(Escape::Default, br"\xZZ \x1", br"\xZZ \x1");
        check(Escape::Json, br#"\"\\\/\n\t\r\b\f\u0000"#, b"\"\\/\n\t\r\x08\x0c\0");
        check(Escape::Json, br"\u20ac \ud83d\ude00 \ud83d \ud83dx", "€ 😀 \u{fffd} \u{fffd}x".as_bytes());
        check(Escape::Json, b"\xff\\u12", b"\xff\\u12");
        check(Escape::None, br"\x22", br"\x22");
        check(Escape::Json, br"ends\", br"ends\");
    }

    /// nginx's own escaping, written from its source.
    fn escape_as_nginx(value: &[u8], mode: Escape) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in value {
            match (mode, *byte) {
                (Escape::Default, b'"' | b'\\' | 0..=0x1f | 0x7f..) => {
                    out.extend_from_slice(std::format!("\\x{byte:02X}").as_bytes());
                }
                (Escape::Json, b'"' | b'\\') => out.extend_from_slice(&[b'\\', *byte]),
                (Escape::Json, b'\n') => out.extend_from_slice(b"\\n"),
                (Escape::Json, 0..=0x1f) => out.extend_from_slice(std::format!("\\u{byte:04X}").as_bytes()),
                _ => out.push(*byte),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn unescape_undoes_what_nginx_does(value: Vec<u8>) {
            for mode in [Escape::Default, Escape::Json, Escape::None] {
                let mut out = Vec::new();
                unescape(&escape_as_nginx(&value, mode), mode, &mut out);
                prop_assert_eq!(&out, &value);
            }
        }

        #[test]
        fn any_bytes_are_survived(raw: Vec<u8>) {
            let mut out = Vec::new();
            unescape(&raw, Escape::Default, &mut out);
            unescape(&raw, Escape::Json, &mut out);
        }
    }
}
