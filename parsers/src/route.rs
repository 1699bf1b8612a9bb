//! A request as a route: `GET /users/17/orders/4711?x=1` becomes `GET /users/{id}/orders/{id}`.
//!
//! What it owns: which parts of a path are names and which are identifiers, so that a table of routes stays small and readable.
//! What it must never do: guess a route that a server configured (OpenTelemetry keeps `http.route` for those; this is a
//! `url.template`), depend on what it saw before, or write a control byte.

use crate::bytes::{find_either, hex_pair, part, rest, run_length};
use alloc::string::String;

/// The longest route, in bytes.
pub const ROUTE_BYTES_MAX: usize = 160;
/// Segments of a path that are kept; the rest becomes `{rest}`.
pub const SEGMENTS_MAX: usize = 8;
/// The longest segment that is kept, in bytes; a longer one becomes `{long}`.
pub const SEGMENT_BYTES_MAX: usize = 64;

/// Methods that are known by name: those of RFC 9110 and PATCH, as OpenTelemetry's HTTP conventions have it. Case matters.
pub const KNOWN_METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// What stands for any other method.
pub const OTHER_METHOD: &str = "_OTHER";

/// Decimal words inside a segment (`order-12345`) are identifiers from this many digits on; `2015` and `404` stay.
const DECIMAL_DIGITS_MIN: usize = 5;
/// Hexadecimal words with digits and letters are hashes from this length on.
const HASH_BYTES_MIN: usize = 8;
/// Hexadecimal words of letters only are hashes from this length on: `facade` and `deadbeef` are words.
const LETTER_HASH_BYTES_MIN: usize = 16;
/// Mixed words (`BxG7a9Kq`) are tokens from this length on.
const TOKEN_BYTES_MIN: usize = 8;
/// And from so many changes between small letters, capitals and digits on: `scale11x` has two.
const TOKEN_CHANGES_MIN: usize = 3;
/// Mixed segments with `-` and `_` in them (base64url) are tokens from this length on.
const LONG_TOKEN_BYTES_MIN: usize = 16;
/// Bytes of a UUID with its hyphens.
const UUID_BYTES: usize = 36;

/// The method as OpenTelemetry names it.
pub fn method_name(method: Option<&[u8]>) -> &'static str {
    let known = |name: &&&str| method == Some(name.as_bytes());
    KNOWN_METHODS.iter().find(known).copied().unwrap_or(OTHER_METHOD)
}

/// Appends the route of a request to `out`, which is not cleared. Without a target the route is the method alone.
pub fn route(method: Option<&[u8]>, target: Option<&[u8]>, out: &mut String) {
    let start = out.len();
    out.push_str(method_name(method));
    let Some(target) = target else { return };
    out.push(' ');
    write_path(path_of(target), start, out);
}

/// What kind of target it is (RFC 9112 section 3.2), reduced to its path.
enum Path<'a> {
    Absolute(&'a [u8]),
    Asterisk,
    Authority,
    Other,
}

fn path_of(target: &[u8]) -> Path<'_> {
    let end = find_either(target, b'?', b'#').unwrap_or(target.len());
    let target = part(target, 0, end);
    let scheme =
        run_length(target, 0, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    match target {
        b"*" => Path::Asterisk,
        [b'/', ..] => Path::Absolute(target),
        _ if scheme > 0 && part(target, scheme, scheme + 3) == b"://" => {
            let after = rest(target, scheme + 3);
            Path::Absolute(rest(after, memchr::memchr(b'/', after).unwrap_or(after.len())))
        }
        _ if scheme > 0 && target.get(scheme) == Some(&b':') => Path::Authority,
        _ => Path::Other,
    }
}

fn write_path(path: Path<'_>, start: usize, out: &mut String) {
    let path = match path {
        Path::Absolute(path) => path,
        Path::Asterisk => return out.push('*'),
        Path::Authority => return out.push_str("{authority}"),
        Path::Other => return out.push_str("{other}"),
    };
    let ends_with_slash = path.last() == Some(&b'/');
    let mut count = 0;
    for segment in path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()) {
        // Matrix parameters, such as `;jsessionid=...`, are a query in another place.
        let segment = part(segment, 0, memchr::memchr(b';', segment).unwrap_or(segment.len()));
        let before = out.len();
        out.push('/');
        if count < SEGMENTS_MAX {
            write_segment(segment, out);
        }
        if count == SEGMENTS_MAX || out.len() - start > ROUTE_BYTES_MAX - "/{rest}".len() {
            out.truncate(before);
            out.push_str("/{rest}");
            return;
        }
        count += 1;
    }
    if ends_with_slash || count == 0 {
        out.push('/');
    }
}

fn write_segment(segment: &[u8], out: &mut String) {
    match plain_words(segment) {
        Some(words) => out.push_str(words),
        None => write_any_segment(segment, out),
    }
}

/// A segment that is surely of words, as most are: small letters and the signs between them, and never so many letters of `a` to
/// `f` together that they could be a hash or a UUID.
fn plain_words(segment: &[u8]) -> Option<&str> {
    let mut hexadecimal = 0;
    for byte in segment {
        match byte {
            b'a'..=b'f' | b'-' => hexadecimal += 1,
            b'g'..=b'z' | b'.' | b'_' => hexadecimal = 0,
            _ => return None,
        }
        if hexadecimal == LETTER_HASH_BYTES_MIN {
            return None;
        }
    }
    let fits = !segment.is_empty() && segment.len() <= SEGMENT_BYTES_MAX;
    if fits { str::from_utf8(segment).ok() } else { None }
}

fn write_any_segment(segment: &[u8], out: &mut String) {
    match segment {
        _ if segment.iter().all(u8::is_ascii_digit) && !segment.is_empty() => out.push_str("{id}"),
        _ if is_uuid(segment) || is_address(segment) => out.push_str("{id}"),
        _ if is_date(segment) => out.push_str("{date}"),
        _ if is_email(segment) => out.push_str("{email}"),
        _ if is_hash(segment) || is_token(segment, LONG_TOKEN_BYTES_MIN) => out.push_str("{id}"),
        _ if segment.len() > SEGMENT_BYTES_MAX => out.push_str("{long}"),
        _ => write_words(segment, out),
    }
}

/// Writes a segment word by word, with identifiers inside it replaced: `app.3f2a9c1b.js`, `order-12345`, `4711.jpg`.
fn write_words(segment: &[u8], out: &mut String) {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric();
    // `2.0` is a version; `12.jpg` is file 12.
    let stem_is_id = segment.iter().any(u8::is_ascii_alphabetic);
    let mut at = 0;
    while at < segment.len() {
        let length = run_length(segment, at, is_word);
        let word = part(segment, at, at + length);
        let is_number = length > 0 && word.iter().all(u8::is_ascii_digit);
        let is_stem = at == 0 && segment.get(length) == Some(&b'.') && stem_is_id;
        if is_uuid(part(segment, at, at + UUID_BYTES))
            && segment.get(at + UUID_BYTES).is_none_or(|byte| !is_word(*byte))
        {
            out.push_str("{id}");
            at += UUID_BYTES;
        } else if length > 0 {
            match word {
                _ if is_number && (length >= DECIMAL_DIGITS_MIN || is_stem) => out.push_str("{id}"),
                _ if is_hash(word) || is_token(word, TOKEN_BYTES_MIN) => out.push_str("{hash}"),
                _ => word.iter().for_each(|byte| out.push(char::from(*byte))),
            }
            at += length;
        } else {
            at += write_other(segment, at, out);
        }
    }
}

/// Writes one byte that is no letter or digit, and returns how many were read. What is not printable ASCII, be it raw or logged as
/// `\xHH`, is percent-encoded: one request has one route in every escape mode. Percent-encoded bytes are taken whole, so that
/// their digits join no word.
fn write_other(segment: &[u8], at: usize, out: &mut String) -> usize {
    let (byte, length) = match (segment.get(at), segment.get(at + 1)) {
        (Some(b'%'), _) => match hex_pair(segment, at + 1) {
            Some(byte) => (Some(byte), 3),
            None => (Some(b'%'), 1),
        },
        (Some(b'\\'), Some(b'x')) => match hex_pair(segment, at + 2) {
            Some(byte) => (Some(byte), 4),
            None => (Some(b'\\'), 1),
        },
        (byte, _) => (byte.copied(), 1),
    };
    match byte {
        // Braces are the template's own.
        Some(byte @ b'!'..=b'~') if !matches!(byte, b'%' | b'{' | b'}' | b'\\' | b'"') => {
            out.push(char::from(byte))
        }
        Some(byte) => {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(digit), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
        None => {}
    }
    length
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == UUID_BYTES
        && text.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// IPv4.
fn is_address(text: &[u8]) -> bool {
    let dots = text.iter().filter(|byte| **byte == b'.').count();
    dots == 3 && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') && text.first() != Some(&b'.')
}

/// `2015-05-17`.
fn is_date(text: &[u8]) -> bool {
    text.len() == 10
        && text.iter().enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

fn is_email(text: &[u8]) -> bool {
    let (sign, domain) = match memchr::memchr2(b'@', b'%', text) {
        Some(at) if text.get(at) == Some(&b'@') => (at, at + 1),
        Some(at) if part(text, at, at + 3) == b"%40" => (at, at + 3),
        _ => return false,
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    let (name, domain) = (part(text, 0, sign), rest(text, domain));
    !name.is_empty() && domain.contains(&b'.') && name.iter().all(is_plain) && domain.iter().all(is_plain)
}

fn is_hash(word: &[u8]) -> bool {
    if word.len() < HASH_BYTES_MIN || !word.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    // Eight digits are a number or a date, which the caller judges by other rules.
    (digits > 0 && digits < word.len()) || word.len() >= LETTER_HASH_BYTES_MIN
}

/// Whether letters and digits alternate as they do in random text and hardly in names.
fn is_token(text: &[u8], bytes_min: usize) -> bool {
    #[derive(PartialEq, Clone, Copy)]
    enum Class {
        Lower,
        Upper,
        Digit,
        Sign,
    }
    if text.len() < bytes_min {
        return false;
    }
    let mut previous = Class::Sign;
    let (mut changes, mut digits) = (0, 0);
    for byte in text {
        let class = match byte {
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Digit,
            b'-' | b'_' | b'=' | b'+' | b'~' => Class::Sign,
            _ => return false,
        };
        digits += usize::from(class == Class::Digit);
        // A capital letter begins a name, and a sign parts two: neither is a change.
        let is_change = class != previous
            && class != Class::Sign
            && previous != Class::Sign
            && !(previous == Class::Upper && class == Class::Lower);
        changes += usize::from(is_change);
        previous = class;
    }
    // In a short text without digits capitals may still be a name's.
    changes >= TOKEN_CHANGES_MIN
        && changes * 4 >= text.len()
        && (digits > 0 || text.len() >= LONG_TOKEN_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn plain_words_are_written_as_any_segment_is(segment in "([a-g._-]|[a-f]{1,14}|[a-z0-9A-Z@%~]){0,12}") {
            let mut plain = String::new();
            write_any_segment(segment.as_bytes(), &mut plain);
            if let Some(words) = plain_words(segment.as_bytes()) {
                prop_assert_eq!(words, plain);
            }
        }
    }

    fn routed(method: &str, target: &[u8]) -> String {
        let mut out = String::new();
        route(Some(method.as_bytes()), Some(target), &mut out);
        out
    }

    fn check(target: &str, expected: &str) {
        assert_eq!(routed("GET", target.as_bytes()), std::format!("GET {expected}"), "{target}");
    }

    #[test]
    fn identifiers_become_templates() {
        check("/users/17/orders/4711?x=1", "/users/{id}/orders/{id}");
        check("/a/123e4567-e89b-12d3-a456-426614174000/b", "/a/{id}/b");
        check("/file-123e4567-e89b-12d3-a456-426614174000.pdf", "/file-{id}.pdf");
        check("/commit/9fceb02d0ae598e95dc970b74767f19372d61af8", "/commit/{id}");
        check("/x/dGhpcyBpcyBhIHRva2VuMTIz", "/x/{id}");
        check("/x/9s6XKzkNRiz8i3Qw", "/x/{id}");
        check("/u/jane.doe@example.org", "/u/{email}");
        check("/u/jane%40example.org", "/u/{email}");
        check("/day/2015-05-17/x", "/day/{date}/x");
        check("/host/10.0.0.1", "/host/{id}");
        check("/t/some-title-123456", "/t/some-title-{id}");
        check("/images/12.jpg", "/images/{id}.jpg");
        check("/a;jsessionid=ABC123/b;v=1?q", "/a/b");
    }

    #[test]
    fn names_stay() {
        for target in [
            "/",
            "/assets/app.js",
            "/api/v2/users",
            "/2.0/x",
            "/presentations/logstash-monitorama-2013/images/kibana-search.png",
            "/blog/tags/puppet",
            "/favicon.ico",
            "/jquery-1.11.3.min.js",
            "/wp-admin/admin-ajax.php",
            "/CamelCaseName/UserProfileSettings",
            "/errors/404-page.html",
            "/deadbeef/facade/",
            "/.well-known/acme-challenge",
            "/presentations/logstash-scale11x/",
            "/files/logstash/logstash-1.3.2-monolithic.jar",
        ] {
            check(target, target);
        }
        check("/assets/app.3f2a9c1b.js", "/assets/app.{hash}.js");
        check("/assets/index-BxG7a9Kq.js", "/assets/index-{hash}.js");
        check("//a//b", "/a/b");
    }

    #[test]
    fn other_forms_of_targets() {
        check("http://example.org/a/1?b", "/a/{id}");
        check("http://example.org", "/");
        check("*", "*");
        check("example.org:443", "{authority}");
        check("nonsense", "{other}");
        check("?a=b", "{other}");
        check("/a\u{7}b\\x22c{d}\"%41", "/a%07b%22c%7Bd%7D%22A");
        assert_eq!(routed("GET", b"/\xe4"), routed("GET", br"/\xE4"));
        assert_eq!(routed("get", b"/"), "_OTHER /");
        let mut out = String::from("kept ");
        route(None, None, &mut out);
        assert_eq!(out, "kept _OTHER");
    }

    #[test]
    fn length_and_depth_are_bounded() {
        check("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/g/h");
        check("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/{rest}");
        check(&std::format!("/x/{}", "long-name-".repeat(9)), "/x/{long}");
        let long = routed("GET", "/some-longer-name-of-a-part-in-it".repeat(30).as_bytes());
        assert!(long.ends_with("/{rest}") && long.len() <= ROUTE_BYTES_MAX, "{long}");
    }

    proptest! {
        #[test]
        fn any_target_gives_a_short_printable_route(target: Vec<u8>) {
            let route = routed("GET", &[b"/", &target[..]].concat());
            prop_assert!(route.len() <= ROUTE_BYTES_MAX);
            prop_assert!(route.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(route.bytes().filter(|byte| *byte == b' ').count(), 1);
            prop_assert_eq!(&route, &routed("GET", &[b"/", &target[..]].concat()));
        }

        #[test]
        fn the_value_of_an_identifier_does_not_matter(id: u64, hash: u128, name in "[a-z]{1,10}") {
            check(&std::format!("/{name}/{id}"), &std::format!("/{name}/{{id}}"));
            // A hash of decimal digits only is taken for the number that it also is.
            check(&std::format!("/{name}/{hash:032x}"), &std::format!("/{name}/{{id}}"));
        }
    }
}
