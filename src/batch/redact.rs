//! Masks the values of secret-looking query parameters in a line before it is shipped.
//!
//! Only what is shipped is masked; counting reads the line as it stands. A value runs from the `=` behind a
//! listed name to the next `&`, `;`, blank, quote or `#`, in the request as well as in the referer.

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

/// Longest name that is looked up; longer ones are no parameter names that anybody listed.
const NAME_BYTES_MAX: usize = 64;

/// Masks by a list of names.
#[derive(Clone, Debug)]
pub struct Redactor {
    names: Vec<Vec<u8>>,
}

impl Redactor {
    /// The default names and these.
    pub fn new(extra: &[String]) -> Redactor {
        let defaults = DEFAULT_NAMES.iter().map(|name| (*name).to_owned());
        let mut names: Vec<Vec<u8>> =
            defaults.chain(extra.iter().cloned()).map(|name| normalize(name.as_bytes())).collect();
        names.sort();
        names.dedup();
        Redactor { names }
    }

    /// The line with every listed value masked, written to `out`; `None` when there was nothing to mask and
    /// `out` was not touched.
    pub fn mask<'a>(&self, line: &[u8], out: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let mut copied = 0;
        for equals in memchr::memchr_iter(b'=', line) {
            if equals < copied || !self.is_listed(name_before(line, equals)) {
                continue;
            }
            let value = equals + 1;
            let length = value_length(&line[value..]);
            if length == 0 {
                continue;
            }
            if copied == 0 {
                out.clear();
            }
            out.extend_from_slice(&line[copied..value]);
            out.extend_from_slice(MASK);
            copied = value + length;
        }
        if copied == 0 {
            return None;
        }
        out.extend_from_slice(&line[copied..]);
        Some(out)
    }

    fn is_listed(&self, name: Option<&[u8]>) -> bool {
        name.is_some_and(|name| self.names.binary_search(&normalize(name)).is_ok())
    }
}

/// The parameter name that ends at `equals`, if one begins behind `?`, `&` or `;`.
fn name_before(line: &[u8], equals: usize) -> Option<&[u8]> {
    let from = equals.saturating_sub(NAME_BYTES_MAX);
    let before = &line[from..equals];
    let start = before.iter().rposition(|byte| !is_name(*byte))?;
    let name = &before[start + 1..];
    (matches!(before[start], b'?' | b'&' | b';') && !name.is_empty()).then_some(name)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// How long a value is. A backslash is a part of it (nginx writes unusual bytes as `\xNN`) but before a quote,
/// where both are the end of a JSON string within a JSON string.
fn value_length(text: &[u8]) -> usize {
    let ends = |at: usize| match text[at] {
        b'&' | b';' | b' ' | b'"' | b'\'' | b'#' => true,
        b'\\' => text.get(at + 1) == Some(&b'"'),
        _ => false,
    };
    (0..text.len()).find(|at| ends(*at)).unwrap_or(text.len())
}

fn normalize(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
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
        check("\"GET /a?x=1&API-Key=a%20b;pin=1\"", "\"GET /a?x=1&API-Key=***;pin=***\"");
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
}
