//! Masks the values of secret-looking query parameters in a line before it is shipped.
//!
//! Only what is shipped is masked; counting reads the line as it stands. A value runs from the `=` behind a
//! listed name to the next `&`, blank, double quote or `#`, in the request as well as in the referer. A `;` or an
//! apostrophe may be a part of a password, so neither ends it: rather too much is masked than a letter too little.

/// Names whose values are masked by default, compared without case and with `-` as `_`.
pub const DEFAULT_NAMES: [&str; 22] = [
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "client_secret",
    "credential",
    "id_token",
    "jwt",
    "key",
    "pass",
    "passwd",
    "password",
    "pwd",
    "refresh_token",
    "secret",
    "session",
    "sessionid",
    "sig",
    "signature",
    "token",
];

/// What stands in the place of a value.
const MASK: &[u8] = b"***";

/// Masks by a list of names.
#[derive(Clone, Debug)]
pub struct Redactor {
    names: Vec<Vec<u8>>,
}

impl Redactor {
    /// The default names and these.
    pub fn new(extra: &[String]) -> Redactor {
        let defaults = DEFAULT_NAMES.iter().map(|name| (*name).to_owned());
        let mut names: Vec<Vec<u8>> = defaults
            .chain(extra.iter().cloned())
            .map(|name| name.bytes().map(normalized).collect())
            .collect();
        names.sort();
        names.dedup();
        Redactor { names }
    }

    /// The line with every listed value masked, written to `out`; `None` when there was nothing to mask and
    /// `out` was not touched.
    pub fn mask<'a>(&self, line: &[u8], out: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        // Most lines have no query, and one look for this byte is cheaper than many for the three below.
        memchr::memchr(b'=', line)?;
        let (mut copied, mut at) = (0, 0);
        while let Some(found) = memchr::memchr3(b'?', b'&', b';', &line[at..]) {
            let start = at + found + 1;
            at = start + run_length(&line[start..], is_name);
            if line.get(at) != Some(&b'=') || !self.is_listed(&line[start..at]) {
                continue;
            }
            let value = at + 1;
            at = value + value_length(&line[value..]);
            if at == value {
                continue;
            }
            if copied == 0 {
                out.clear();
            }
            out.extend_from_slice(&line[copied..value]);
            out.extend_from_slice(MASK);
            copied = at;
        }
        if copied == 0 {
            return None;
        }
        out.extend_from_slice(&line[copied..]);
        Some(out)
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        let compare = |known: &Vec<u8>| known.iter().copied().cmp(name.iter().map(|byte| normalized(*byte)));
        self.names.binary_search_by(compare).is_ok()
    }
}

/// How many bytes `text` begins with that are `wanted`.
fn run_length(text: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !wanted(*byte)).unwrap_or(text.len())
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// How long a value is. A backslash is a part of it (nginx writes unusual bytes as `\xNN`) but before a quote,
/// where both are the end of a JSON string within a JSON string.
fn value_length(text: &[u8]) -> usize {
    let ends = |at: usize| match text[at] {
        b'&' | b' ' | b'"' | b'#' => true,
        b'\\' => text.get(at + 1) == Some(&b'"'),
        _ => false,
    };
    (0..text.len()).find(|at| ends(*at)).unwrap_or(text.len())
}

fn normalized(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: &str) {
        let redactor = Redactor::new(&["pin".to_owned()]);
        let mut out = Vec::new();
        let masked = redactor.mask(line.as_bytes(), &mut out).unwrap_or(line.as_bytes());
        assert_eq!(String::from_utf8_lossy(masked), expected);
    }

    #[test]
    fn masks_the_listed_and_leaves_the_rest() {
        check("\"GET /a?token=abc&x=1 HTTP/1.1\"", "\"GET /a?token=***&x=1 HTTP/1.1\"");
        check("\"GET /a?x=1&API-Key=a%20b&x=1;pin=1\"", "\"GET /a?x=1&API-Key=***&x=1;pin=***\"");
        check("\"GET /?password=it's;mine HTTP/1.1\"", "\"GET /?password=*** HTTP/1.1\"");
        check(
            "\"GET /?token=a\" \"https://r.example/?password=p#frag\"",
            "\"GET /?token=***\" \"https://r.example/?password=***#frag\"",
        );
        check("\"GET /?tokens=a&monkey=b&token=\"", "\"GET /?tokens=a&monkey=b&token=\"");
        check("rt=0.1 token=abc", "rt=0.1 token=abc");
        check("GET /?token=abc", "GET /?token=***");
        check(r#""GET /?password=p\xC3\xA4ss&x=1""#, r#""GET /?password=***&x=1""#);
        check(r#"{"r":"GET \"/?token=a\" x"}"#, r#"{"r":"GET \"/?token=***\" x"}"#);
        check("?token=a=b&secret=c", "?token=***&secret=***");
    }

    /// What is masked by the rule read backwards: at each `=`, whose name it is.
    fn backwards(redactor: &Redactor, line: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < line.len() {
            out.push(line[at]);
            at += 1;
            let before = &line[..at - 1];
            let start = before.iter().rposition(|byte| !is_name(*byte));
            let is_masked = line[at - 1] == b'='
                && start.is_some_and(|start| {
                    matches!(before[start], b'?' | b'&' | b';') && redactor.is_listed(&before[start + 1..])
                });
            let length = if is_masked { value_length(&line[at..]) } else { 0 };
            if length > 0 {
                out.extend_from_slice(MASK);
                at += length;
            }
        }
        out
    }

    proptest! {
        #[test]
        fn both_ways_of_reading_mask_the_same(parts in proptest::collection::vec(PARTS, 0..20)) {
            let line = parts.concat();
            let redactor = Redactor::new(&[]);
            let mut out = vec![b'x'];
            let masked = redactor.mask(line.as_bytes(), &mut out).unwrap_or(line.as_bytes()).to_vec();
            prop_assert_eq!(masked, backwards(&redactor, line.as_bytes()));
        }
    }

    const PARTS: &str = "token|KEY|api-key|monkey|[?&; =#\"a.]|\\\\x22|=[a-c]{1,3}|[?&;](pwd|sig)=";
}
