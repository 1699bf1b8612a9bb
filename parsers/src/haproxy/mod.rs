//! HAProxy's answers on its stats socket: `show stat`, `show info` and `show servers state`.
//!
//! What it owns: the text of HAProxy 2.2 to 3.x (its management guide, chapter 9; stats.c, stats-proxy.c, proxy.c). Columns and
//! lines are found by name: a version that lacks one gives None, one that adds some is read without them. What it must never do:
//! take a part for the whole. [`is_whole`] says whether the socket came to its end.
//!
//! `csv` parts fields, `stat`, `info` and `servers` read an answer each. The level `user` of the socket is enough for all three.

mod binds;
mod csv;
mod info;
mod servers;
mod stat;

pub use binds::{TlsBind, tls_binds};
pub use info::{INFO_LINES_MAX, Info, info};
pub use servers::{Admin, Operation, Server, Servers, servers_state};
pub use stat::{COLUMNS_MAX, Kind, Numbers, Stat, StatRow, stat};

use crate::Snippet;
use core::fmt;

/// Whether an answer of the socket is whole: HAProxy ends each with an empty line. `;csv` over HTTP ends without one.
pub fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\n\n")
}

/// Why a text is not the answer that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnswer {
    /// Nothing at all.
    Empty,
    /// The text ends in the middle of a line that is needed.
    CutShort,
    /// It begins with something else, such as `Permission denied` or `Unknown command`.
    Other {
        /// What it should begin with.
        expected: &'static str,
        /// What stands there.
        found: Snippet,
    },
    /// A column without which no row has a meaning is not there.
    Missing {
        /// Its name.
        column: &'static str,
    },
    /// A column or line that is read stands there more than once, so it is not known which one counts.
    Twice {
        /// Its name.
        column: &'static str,
    },
    /// More columns than [`COLUMNS_MAX`].
    TooManyColumns,
    /// A value of `show info` is no whole number below 2^64.
    BadNumber {
        /// The name of its line.
        column: &'static str,
        /// What stands there.
        found: Snippet,
    },
}

impl NotAnswer {
    /// The reason as a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            NotAnswer::Empty => "empty",
            NotAnswer::CutShort => "cut_short",
            NotAnswer::Other { .. } => "other",
            NotAnswer::Missing { .. } => "missing",
            NotAnswer::Twice { .. } => "twice",
            NotAnswer::TooManyColumns => "too_many_columns",
            NotAnswer::BadNumber { .. } => "bad_number",
        }
    }

    /// Why `text`, which should begin with `expected`, does not.
    fn at_start(expected: &'static str, text: &[u8]) -> NotAnswer {
        if text.trim_ascii().is_empty() {
            return NotAnswer::Empty;
        }
        if expected.as_bytes().starts_with(text) {
            return NotAnswer::CutShort;
        }
        NotAnswer::Other { expected, found: Snippet::new(text) }
    }
}

impl fmt::Display for NotAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAnswer::Empty => f.write_str("the answer is empty"),
            NotAnswer::CutShort => f.write_str("the answer ends in the middle of a line"),
            NotAnswer::Other { expected, found } => {
                write!(
                    f,
                    "expected an answer that begins with `{}`, found `{found}`",
                    expected.escape_debug()
                )
            }
            NotAnswer::Missing { column } => write!(f, "the answer has no {column}"),
            NotAnswer::Twice { column } => write!(f, "the answer has {column} more than once"),
            NotAnswer::TooManyColumns => write!(f, "the answer has more than {COLUMNS_MAX} columns"),
            NotAnswer::BadNumber { column, found } => {
                write!(f, "expected a number for {column}, found `{found}`")
            }
        }
    }
}

impl core::error::Error for NotAnswer {}

/// A row that could not be read; the rows after it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The line on which it begins, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: RowReason,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowReason {
    /// The text ends before the row does.
    CutShort,
    /// A quote stands inside a field, or a quoted field goes on after its closing quote.
    StrayQuote,
    /// It has another number of fields than the header.
    Fields {
        /// The fields of the header.
        expected: usize,
        /// The fields of the row, or as many as were looked at.
        found: usize,
    },
    /// A field that names what the row is about is empty.
    Missing {
        /// Its column.
        column: &'static str,
    },
    /// A field is no whole number that the column can have.
    BadNumber {
        /// Its column.
        column: &'static str,
        /// What stands there.
        found: Snippet,
    },
    /// A text is not UTF-8.
    NotText {
        /// Its column.
        column: &'static str,
    },
}

impl RowReason {
    /// The reason as a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            RowReason::CutShort => "cut_short",
            RowReason::StrayQuote => "stray_quote",
            RowReason::Fields { .. } => "fields",
            RowReason::Missing { .. } => "missing",
            RowReason::BadNumber { .. } => "bad_number",
            RowReason::NotText { .. } => "not_text",
        }
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.reason {
            RowReason::CutShort => f.write_str("the text ends in the middle of the row"),
            RowReason::StrayQuote => f.write_str("a quote stands where none can"),
            RowReason::Fields { expected, found } => {
                write!(f, "the row has {found} fields, the header {expected}")
            }
            RowReason::Missing { column } => write!(f, "the row has no {column}"),
            RowReason::BadNumber { column, found } => {
                write!(f, "expected a number that {column} can have, found `{found}`")
            }
            RowReason::NotText { column } => write!(f, "the {column} is not UTF-8"),
        }
    }
}

impl core::error::Error for BadRow {}

#[cfg(test)]
mod tests;
