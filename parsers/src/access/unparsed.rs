//! Why a line is not an access line, as a small value.
//!
//! What it owns: the reasons, their names in metrics, and their words for people. What it must never do: hold the line.

use crate::bytes::part;
use core::fmt;

/// The longest piece of a format that a reason quotes.
const SNIPPET_BYTES_MAX: usize = 16;

/// A few bytes by value, so that a reason stays `Copy`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Snippet {
    bytes: [u8; SNIPPET_BYTES_MAX],
    length: u8,
}

impl Snippet {
    /// The first bytes of `text`.
    pub fn new(text: &[u8]) -> Snippet {
        let mut bytes = [0; SNIPPET_BYTES_MAX];
        let mut length = 0;
        for (kept, byte) in bytes.iter_mut().zip(text) {
            *kept = *byte;
            length += 1;
        }
        Snippet { bytes, length }
    }

    /// The bytes kept.
    pub fn as_bytes(&self) -> &[u8] {
        part(&self.bytes, 0, usize::from(self.length))
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snippet({self})")
    }
}

/// What a format would have wanted where a line departs from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This text of the format.
    Literal(Snippet),
    /// A value of this variable.
    Value(&'static str),
    /// The end of the line.
    LineEnd,
    /// What the user's regular expression says.
    Pattern,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Literal(text) => write!(f, "`{text}`"),
            Expected::Value(name) => write!(f, "a value of ${name}"),
            Expected::LineEnd => f.write_str("the end of the line"),
            Expected::Pattern => f.write_str("a match of the regular expression"),
        }
    }
}

/// Why a line could not be read. Columns are bytes, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// Nothing but blanks.
    Empty,
    /// Longer than [`super::LINE_BYTES_MAX`].
    TooLong {
        /// The length of the line in bytes.
        bytes: usize,
    },
    /// The line begins with bytes that no text has, such as NULs or a TLS handshake.
    Binary,
    /// The line ends where the format goes on: it was written or read in part.
    CutShort {
        /// Where the line ends.
        column: usize,
        /// What should have come.
        expected: Expected,
    },
    /// The line has another format.
    NoMatch {
        /// Where it departs from the format.
        column: usize,
        /// What should have stood there.
        expected: Expected,
    },
    /// The status is no number of up to three digits.
    BadStatus {
        /// Where it stands.
        column: usize,
    },
    /// A number is none, or too large.
    BadNumber {
        /// Where it stands.
        column: usize,
        /// The variable that it should give.
        variable: &'static str,
    },
    /// No time of the form that the variable has, or no such day.
    BadTime {
        /// Where it stands.
        column: usize,
        /// The variable that it should give.
        variable: &'static str,
    },
    /// Not a JSON object.
    NotJson {
        /// Where it stops being one.
        column: usize,
    },
    /// A JSON value is of a type that the key cannot have.
    WrongType {
        /// Where the value stands.
        column: usize,
        /// The variable that it should give.
        variable: &'static str,
    },
}

impl Unparsed {
    /// The reason as a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Unparsed::Empty => "empty",
            Unparsed::TooLong { .. } => "too_long",
            Unparsed::Binary => "binary",
            Unparsed::CutShort { .. } => "cut_short",
            Unparsed::NoMatch { .. } => "no_match",
            Unparsed::BadStatus { .. } => "bad_status",
            Unparsed::BadNumber { .. } => "bad_number",
            Unparsed::BadTime { .. } => "bad_time",
            Unparsed::NotJson { .. } => "not_json",
            Unparsed::WrongType { .. } => "wrong_type",
        }
    }
}

impl fmt::Display for Unparsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unparsed::Empty => f.write_str("the line is empty"),
            Unparsed::TooLong { bytes } => {
                write!(f, "the line has {bytes} bytes, more than {}", super::LINE_BYTES_MAX)
            }
            Unparsed::Binary => f.write_str("the line begins with bytes that are no text"),
            Unparsed::CutShort { column, expected } => {
                write!(f, "the line ends at column {column}, where {expected} is expected")
            }
            Unparsed::NoMatch { column, expected } => {
                write!(f, "expected {expected} at or after column {column}")
            }
            Unparsed::BadStatus { column } => {
                write!(f, "expected a status of three digits at column {column}")
            }
            Unparsed::BadNumber { column, variable } => {
                write!(f, "expected a number for ${variable} at column {column}")
            }
            Unparsed::BadTime { column, variable } => {
                write!(f, "expected a time for ${variable} at column {column}")
            }
            Unparsed::NotJson { column } => {
                write!(f, "expected a JSON object, which breaks off at column {column}")
            }
            Unparsed::WrongType { column, variable } => {
                write!(f, "the JSON value for {variable} at column {column} has a type that it cannot have")
            }
        }
    }
}

impl core::error::Error for Unparsed {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn reasons_speak() {
        let reason = Unparsed::NoMatch { column: 7, expected: Expected::Literal(Snippet::new(b"] \"")) };
        assert_eq!(reason.to_string(), "expected `] \\\"` at or after column 7");
        assert_eq!(reason.name(), "no_match");
        let snippet = Snippet::new(b"a text that is longer than sixteen");
        assert_eq!(snippet.as_bytes(), b"a text that is l");
    }
}
