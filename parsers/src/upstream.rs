//! nginx's lists of upstream attempts: `0.001, 0.002 : -`.
//!
//! What it owns: `$upstream_response_time`, `$upstream_status` and their kind (ngx_http_upstream.c): attempts are parted by `, `,
//! servers after an internal redirect by ` : `, and an attempt without a value is `-`. What it must never do: split at a bare
//! colon, for an address may be `unix:/path` or IPv6.

use crate::bytes::{part, rest, seconds_as_ms, whole_number};

/// The items of a raw list as they were logged, blanks taken off.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    left: Option<&'a [u8]>,
}

/// The items of a raw list. An empty list has none.
pub fn items(raw: &[u8]) -> Items<'_> {
    Items { left: (!raw.trim_ascii().is_empty()).then_some(raw) }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let left = self.left?;
        let mut from = 0;
        loop {
            let Some(found) = memchr::memchr2(b',', b':', rest(left, from)) else {
                self.left = None;
                return Some(left.trim_ascii());
            };
            let at = from + found;
            let before = at.checked_sub(1).and_then(|index| left.get(index));
            let blank_after = left.get(at + 1) == Some(&b' ');
            if left.get(at) == Some(&b',') || (before == Some(&b' ') && blank_after) {
                self.left = Some(rest(left, at + 1));
                return Some(part(left, 0, at).trim_ascii());
            }
            from = at + 1;
        }
    }
}

/// The times of a list in milliseconds; None for an attempt without one (`-`, or what is no number).
#[derive(Clone, Debug)]
pub struct Times<'a>(Items<'a>);

impl<'a> Times<'a> {
    /// Reads `$upstream_response_time`, `$upstream_connect_time` or `$upstream_header_time`.
    pub fn new(raw: &'a [u8]) -> Times<'a> {
        Times(items(raw))
    }
}

impl Iterator for Times<'_> {
    type Item = Option<u64>;

    fn next(&mut self) -> Option<Option<u64>> {
        self.0.next().map(seconds_as_ms)
    }
}

/// The status codes of a list; None for an attempt without one.
#[derive(Clone, Debug)]
pub struct Statuses<'a>(Items<'a>);

impl<'a> Statuses<'a> {
    /// Reads `$upstream_status`.
    pub fn new(raw: &'a [u8]) -> Statuses<'a> {
        Statuses(items(raw))
    }
}

impl Iterator for Statuses<'_> {
    type Item = Option<u16>;

    fn next(&mut self) -> Option<Option<u16>> {
        self.0.next().map(|item| {
            whole_number(item).and_then(|code| u16::try_from(code).ok()).filter(|code| *code <= 999)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn times_of_retries_and_redirects() {
        let check = |raw: &str, expected: &[Option<u64>]| {
            assert_eq!(Times::new(raw.as_bytes()).collect::<Vec<_>>(), expected, "{raw}");
        };
        check("0.001", &[Some(1)]);
        check("0.1, 0.2 : 0.3", &[Some(100), Some(200), Some(300)]);
        check("0.001, - : 2", &[Some(1), None, Some(2000)]);
        check("-", &[None]);
        check("", &[]);
        check("1, x, ", &[Some(1000), None, None]);
    }

    #[test]
    fn statuses_of_retries_and_redirects() {
        let check = |raw: &str, expected: &[Option<u16>]| {
            assert_eq!(Statuses::new(raw.as_bytes()).collect::<Vec<_>>(), expected, "{raw}");
        };
        check("502, 200", &[Some(502), Some(200)]);
        check("504 : -, 000", &[Some(504), None, Some(0)]);
        check("70000", &[None]);
    }

    #[test]
    fn addresses_keep_their_colons() {
        let raw = b"unix:/run/a.sock, [::1]:8080 : 10.0.0.1:80";
        let found: Vec<&[u8]> = items(raw).collect();
        assert_eq!(found, [&b"unix:/run/a.sock"[..], b"[::1]:8080", b"10.0.0.1:80"]);
    }

    proptest! {
        #[test]
        fn any_list_is_parted_at_its_separators(values in proptest::collection::vec("[0-9]{1,3}|-", 1..9), colons: u16) {
            let mut raw = Vec::new();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    raw.extend_from_slice(if colons >> index & 1 == 1 { b" : " } else { b", " });
                }
                raw.extend_from_slice(value.as_bytes());
            }
            let found: Vec<Option<u16>> = Statuses::new(&raw).collect();
            let expected: Vec<Option<u16>> = values.iter().map(|value| value.parse().ok()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_survived(raw: Vec<u8>) {
            Times::new(&raw).count();
            Statuses::new(&raw).count();
        }
    }
}
