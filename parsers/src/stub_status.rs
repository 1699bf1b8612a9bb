//! nginx's page of counters: `stub_status`.
//!
//! What it owns: the page as ngx_http_stub_status_module.c prints it, byte for byte. What it must never do: guess. A page that is
//! cut, reordered or of another server is an error, for a number from it would be believed.

use crate::Snippet;
use crate::bytes::{part, rest, run_length, stands_at, whole_number};
use core::fmt;

/// The counters and gauges of one nginx: all its workers together, since the master was started. A reload keeps them, a restart
/// does not. They are read one after the other while requests go on, so sums over them may be off by what happened meanwhile.
///
/// nginx prints a gauge that fell below zero as 2^64 less its amount; it is given here as printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StubStatus {
    /// Client connections that are open, waiting ones included.
    pub active: u64,
    /// Client connections accepted so far.
    pub accepted: u64,
    /// Of these, the ones that were not dropped for want of a resource such as `worker_connections`.
    pub handled: u64,
    /// Client requests so far, the one for this page included.
    pub requests: u64,
    /// Connections whose request header is being read.
    pub reading: u64,
    /// Connections whose request is worked on or answered, the one for this page included.
    pub writing: u64,
    /// Idle keep-alive connections.
    pub waiting: u64,
}

/// What the page has at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This text.
    Text(&'static str),
    /// A decimal number without sign and leading zeros: the field of [`StubStatus`] of this name.
    Number(&'static str),
    /// The end of the page.
    End,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Text(text) => write!(f, "`{}`", text.escape_debug()),
            Wanted::Number(field) => write!(f, "the number of {field}"),
            Wanted::End => f.write_str("the end of the page"),
        }
    }
}

/// Why a text is not the page. Offsets are bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStubStatus {
    /// Nothing at all: HEAD was asked, or the connection broke.
    Empty,
    /// The text ends where the page goes on.
    CutShort {
        /// The length of the text.
        offset: usize,
        /// What should have come.
        expected: Wanted,
    },
    /// Something else stands there, such as a page of HTML.
    NoMatch {
        /// Where the text departs from the page.
        offset: usize,
        /// What should have stood there.
        expected: Wanted,
        /// What stands there.
        found: Snippet,
    },
    /// A number past 2^64, or with zeros in front, which nginx does not print.
    BadNumber {
        /// Where it stands.
        offset: usize,
        /// The field that it should give.
        field: &'static str,
    },
}

impl NotStubStatus {
    /// The reason as a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            NotStubStatus::Empty => "empty",
            NotStubStatus::CutShort { .. } => "cut_short",
            NotStubStatus::NoMatch { .. } => "no_match",
            NotStubStatus::BadNumber { .. } => "bad_number",
        }
    }
}

impl fmt::Display for NotStubStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotStubStatus::Empty => f.write_str("the page is empty"),
            NotStubStatus::CutShort { offset, expected } => {
                write!(f, "the page ends after {offset} bytes, where {expected} is expected")
            }
            NotStubStatus::NoMatch { offset, expected, found } => {
                write!(f, "expected {expected} after {offset} bytes, found `{found}`")
            }
            NotStubStatus::BadNumber { offset, field } => {
                write!(f, "the number of {field} after {offset} bytes is none that nginx prints")
            }
        }
    }
}

impl core::error::Error for NotStubStatus {}

/// Reads the body of an answer of `stub_status`. Whatever reads is exactly what nginx prints for these numbers.
pub fn stub_status(page: &[u8]) -> Result<StubStatus, NotStubStatus> {
    if page.is_empty() {
        return Err(NotStubStatus::Empty);
    }
    let mut page = Page { text: page, at: 0 };
    let mut found = StubStatus::default();
    page.text("Active connections: ")?;
    found.active = page.number("active")?;
    page.text(" \nserver accepts handled requests\n ")?;
    found.accepted = page.number("accepted")?;
    page.text(" ")?;
    found.handled = page.number("handled")?;
    page.text(" ")?;
    found.requests = page.number("requests")?;
    page.text(" \nReading: ")?;
    found.reading = page.number("reading")?;
    page.text(" Writing: ")?;
    found.writing = page.number("writing")?;
    page.text(" Waiting: ")?;
    found.waiting = page.number("waiting")?;
    page.text(" \n")?;
    page.end()?;
    Ok(found)
}

/// The page and how far it was read.
struct Page<'a> {
    text: &'a [u8],
    at: usize,
}

impl Page<'_> {
    fn text(&mut self, wanted: &'static str) -> Result<(), NotStubStatus> {
        if stands_at(self.text, self.at, wanted.as_bytes()) {
            self.at += wanted.len();
            return Ok(());
        }
        let left = rest(self.text, self.at);
        let same = left.iter().zip(wanted.as_bytes()).take_while(|(found, wanted)| found == wanted).count();
        self.at += same;
        // What is still wanted: the text may be cut in the middle of a word.
        Err(self.departs(Wanted::Text(wanted.get(same..).unwrap_or(wanted))))
    }

    fn number(&mut self, field: &'static str) -> Result<u64, NotStubStatus> {
        let length = run_length(self.text, self.at, |byte| byte.is_ascii_digit());
        if length == 0 {
            return Err(self.departs(Wanted::Number(field)));
        }
        let digits = part(self.text, self.at, self.at + length);
        let padded = length > 1 && digits.first() == Some(&b'0');
        let Some(value) = whole_number(digits).filter(|_| !padded) else {
            return Err(NotStubStatus::BadNumber { offset: self.at, field });
        };
        self.at += length;
        Ok(value)
    }

    fn end(&self) -> Result<(), NotStubStatus> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.departs(Wanted::End)) }
    }

    fn departs(&self, expected: Wanted) -> NotStubStatus {
        let left = rest(self.text, self.at);
        if left.is_empty() {
            return NotStubStatus::CutShort { offset: self.at, expected };
        }
        NotStubStatus::NoMatch { offset: self.at, expected, found: Snippet::new(left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    /// The format string of nginx 1.22, ngx_http_stub_status_handler.
    fn printed(page: &StubStatus) -> String {
        let StubStatus { active, accepted, handled, requests, reading, writing, waiting } = page;
        format!(
            "Active connections: {active} \nserver accepts handled requests\n {accepted} {handled} {requests} \n\
             Reading: {reading} Writing: {writing} Waiting: {waiting} \n"
        )
    }

    /// What nginx 1.22.1 answered; the second with three clients that were in the middle of their headers.
    #[test]
    fn pages_of_nginx() {
        let page = include_bytes!("../tests/data/nginx/stub-status-busy.txt");
        let busy = StubStatus {
            active: 6,
            accepted: 266,
            handled: 266,
            requests: 215,
            reading: 3,
            writing: 1,
            waiting: 2,
        };
        assert_eq!(stub_status(page), Ok(busy));
        let page = include_bytes!("../tests/data/nginx/stub-status.txt");
        let found = stub_status(page).expect("a page");
        assert_eq!(printed(&found).as_bytes(), page);
    }

    #[test]
    fn what_is_not_the_page_says_what_was_expected() {
        let check = |page: &str, name: &str, words: &str| {
            let reason = stub_status(page.as_bytes()).expect_err(page);
            assert_eq!((reason.name(), reason.to_string().as_str()), (name, words), "{page}");
        };
        check("", "empty", "the page is empty");
        check(
            "<html>\r\n<head><title>404 Not Found</title></head>",
            "no_match",
            "expected `Active connections: ` after 0 bytes, found `<html>\\r\\n<head><t`",
        );
        check(
            "Active connections: 12",
            "cut_short",
            "the page ends after 22 bytes, where ` \\nserver accepts handled requests\\n ` is expected",
        );
        check(
            "Active connections: ",
            "cut_short",
            "the page ends after 20 bytes, where the number of active is expected",
        );
        check(
            "Active connections: -1 \n",
            "no_match",
            "expected the number of active after 20 bytes, found `-1 \\n`",
        );
        check(
            "Active connections: 007 \n",
            "bad_number",
            "the number of active after 20 bytes is none that nginx prints",
        );
        check(
            "Active connections: 18446744073709551616 \n",
            "bad_number",
            "the number of active after 20 bytes is none that nginx prints",
        );
        check(
            "Reading: 0 Writing: 1 Waiting: 2 \nActive connections: 3 \n",
            "no_match",
            "expected `Active connections: ` after 0 bytes, found `Reading: 0 Writi`",
        );
        // Another server of the family has a fourth column.
        check(
            "Active connections: 1 \nserver accepts handled requests request_time\n 1 1 1 5\n",
            "no_match",
            "expected `\\n ` after 54 bytes, found ` request_time\\n 1`",
        );
        let mut twice = printed(&StubStatus::default());
        twice.push_str("Active");
        check(&twice, "no_match", "expected the end of the page after 97 bytes, found `Active`");
    }

    prop_compose! {
        fn any_page()(numbers in proptest::array::uniform7(prop_oneof![0u64..100, any::<u64>()])) -> StubStatus {
            let [active, accepted, handled, requests, reading, writing, waiting] = numbers;
            StubStatus { active, accepted, handled, requests, reading, writing, waiting }
        }
    }

    proptest! {
        #[test]
        fn what_nginx_prints_is_read_back_and_no_part_of_it_is(page in any_page()) {
            let text = printed(&page);
            prop_assert_eq!(stub_status(text.as_bytes()), Ok(page));
            for length in 0..text.len() {
                let reason = stub_status(&text.as_bytes()[..length]);
                let is_cut = matches!(reason, Err(NotStubStatus::Empty | NotStubStatus::CutShort { .. }));
                prop_assert!(is_cut, "{length}: {reason:?}");
            }
        }

        /// One byte changed: it is not read, or it is the page of what it gives.
        #[test]
        fn what_is_read_is_what_nginx_prints(page in any_page(), at: prop::sample::Index, byte: u8) {
            let mut text = printed(&page).into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(found) = stub_status(&text) {
                prop_assert_eq!(printed(&found).into_bytes(), text);
            }
        }

        #[test]
        fn any_bytes_are_survived(page: Vec<u8>) {
            prop_assert!(stub_status(&page).is_err());
        }
    }
}
