//! Keeps the destination's credential out of every text that came from outside.
//!
//! A proxy's error page or a server's message may quote the address that was asked for. The host is no secret and
//! helps the operator; user, password, path and query are, and none of them may be shown. Nor may the credentials of a
//! header that is quoted: those of a proxy are not in the address.

use reqwest::Url;

/// The longest text that is kept of an answer or an error, in characters.
const TEXT_CHARACTERS_MAX: usize = 300;
/// Shorter parts of a path are words (`v1`), not credentials; replacing them would garble every text.
/// The last part is taken whatever its length, down to [`TOKEN_BYTES_MIN`].
const SEGMENT_BYTES_MIN: usize = 8;
/// Below this even the last part is no credential worth the name.
const TOKEN_BYTES_MIN: usize = 4;
/// Base64 of less than this names nobody with a password.
const CREDENTIAL_BYTES_MIN: usize = 8;
/// Parts of Sumo's own address that are the same for everyone.
const PUBLIC_SEGMENTS: [&str; 5] = ["receiver", "http", "events", "collector", "v1"];

/// Replaces the secret parts of one address by stars.
pub(super) struct Redactor {
    needles: Vec<String>,
}

impl Redactor {
    pub(super) fn new(url: &Url) -> Redactor {
        let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
        let last = segments.iter().rposition(|segment| !segment.is_empty());
        let secret_segments = segments.iter().enumerate().filter(|(index, segment)| {
            let least = if Some(*index) == last { TOKEN_BYTES_MIN } else { SEGMENT_BYTES_MIN };
            segment.len() >= least && !PUBLIC_SEGMENTS.contains(segment)
        });
        let mut needles: Vec<String> = Vec::new();
        let parts = secret_segments
            .map(|(_, segment)| *segment)
            .chain(url.query())
            .chain(url.password())
            .chain(Some(url.username()))
            .chain(Some(url.as_str()));
        for part in parts {
            for form in [part.to_owned(), percent_decoded(part)] {
                // JSON writers may escape the padding of base64, so the token is also sought without it.
                needles.push(form.trim_end_matches('=').to_owned());
                needles.push(form);
            }
        }
        needles.retain(|needle| needle.len() >= TOKEN_BYTES_MIN);
        // Longest first, or a part would break the whole that contains it.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        needles.dedup();
        Redactor { needles }
    }

    /// One line of bounded length, without control characters and without the credential.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for needle in &self.needles {
            if text.contains(needle.as_str()) {
                text = text.replace(needle.as_str(), "***");
            }
        }
        let text = without_credentials(&text);
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(TEXT_CHARACTERS_MAX) {
            Some((cut, _)) => format!("{}...", &line[..cut]),
            None => line,
        }
    }
}

/// Replaces what follows `Basic` or `Bearer`, as in a quoted `Authorization` or `Proxy-Authorization`.
fn without_credentials(text: &str) -> String {
    const SCHEMES: [&str; 2] = ["basic ", "bearer "];
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(end) = SCHEMES
        .iter()
        .filter_map(|scheme| lower[at..].find(scheme).map(|found| at + found + scheme.len()))
        .min()
    {
        out.push_str(&text[at..end]);
        let rest = &text[end..];
        let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let token = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        // Shorter ones are words, as in "basic auth".
        let shown = if token >= CREDENTIAL_BYTES_MIN { "***" } else { &rest[..token] };
        out.push_str(shown);
        at = end + token;
    }
    out.push_str(&text[at..]);
    out
}

/// A text without the credential of an address, as the fuzz target asks for it.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn cleaned(url: &str, text: &str) -> String {
    Redactor::new(&Url::parse(url).expect("the target's own address")).clean(text)
}

/// `%41` as `A`. Bytes that are not UTF-8 become the replacement character; a broken escape stays.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, text: &str, expected: &str) {
        let url: Url = url.parse().expect("a valid address");
        assert_eq!(Redactor::new(&url).clean(text), expected);
    }

    #[test]
    fn every_form_of_the_credential_is_starred() {
        let url = "https://endpoint4.collection.sumologic.com/receiver/v1/http/ZaVnC4dhaV2GGCXm==";
        check(url, "no source ZaVnC4dhaV2GGCXm==", "no source ***");
        check(
            url,
            r"Cannot POST \/receiver\/v1\/http\/ZaVnC4dhaV2GGCXm\u003d\u003d",
            r"Cannot POST \/receiver\/v1\/http\/***\u003d\u003d",
        );
        check(url, &format!("asked {url} and failed"), "asked *** and failed");
        check("http://localhost:1/a%3Db%3Dcdefg", "at /a=b=cdefg", "at /***");
        check("http://agent:hunter22@localhost:1/x?token=quiet", "agent:hunter22 token=quiet", "***:*** ***");
        check("http://localhost:1/tokenlong/in/the/middle/x1", "GET /tokenlong/in/the", "GET /***/in/the");
        check("http://localhost:1/receiver/v1/http", "receiver over http", "receiver over http");
        check("http://localhost:1", "plain text", "plain text");
    }

    #[test]
    fn quoted_headers_lose_their_credentials() {
        let url = "http://localhost";
        check(url, "Proxy-Authorization: Basic cHg6c2VjcmV0 x", "Proxy-Authorization: Basic *** x");
        check(url, r#"{"authorization":"bearer abc.def-12345=="}"#, r#"{"authorization":"bearer ***"}"#);
        check(url, "BASIC cHg6c2VjcmV0 Bearer 12345678", "BASIC *** Bearer ***");
        check(url, "basic auth is needed; basic ", "basic auth is needed; basic");
        check(url, "é basic é", "é basic é");
    }

    #[test]
    fn texts_are_one_short_line() {
        check("http://localhost", "a\r\n\tb\u{1b}[31m \0c", "a b [31m c");
        check("http://localhost", &"é".repeat(400), &format!("{}...", "é".repeat(300)));
        check("http://localhost", "%zz %4", "%zz %4");
    }
}
