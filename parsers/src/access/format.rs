//! A format, compiled once from what a user or nginx.conf says.
//!
//! What it owns: the choice between literal text, JSON and a regular expression, and which fields a format can give. What it must
//! never do: change once made; what parsing needs to change lives in the parser.

use super::literal::Program;
use super::log_format::{self, FORMAT_BYTES_MAX};
use super::straight::Straight;
use super::variable::{NAMES, Names, Slot, slot_of_name};
use super::{Field, FieldSet};
use crate::escape::Escape;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// nginx's predefined format (ngx_http_log_module.c).
const COMBINED: &str = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#;

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// Longer than any real format.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// No `$variable` in it, so that every line would look alike.
    NoVariable,
    /// A `$` that begins no name.
    Variable {
        /// Where it stands in the format without its quotes, in bytes from 1.
        column: usize,
    },
    /// Quotes that do not close.
    Quotes,
    /// `escape=` with something else than `default`, `json` or `none`.
    Escape,
    /// A regular expression that does not compile, with what is wrong.
    Pattern(String),
    /// No named group of the regular expression is known.
    NoKnownGroup,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::TooLong { bytes } => write!(f, "the format has {bytes} bytes, more than {FORMAT_BYTES_MAX}"),
            FormatError::NoVariable => f.write_str("the format names no $variable"),
            FormatError::Variable { column } => write!(f, "the `$` at column {column} of the format begins no name"),
            FormatError::Quotes => f.write_str("the quotes of the format do not close"),
            FormatError::Escape => f.write_str("escape= takes default, json or none"),
            FormatError::Pattern(reason) => write!(f, "the regular expression does not compile: {reason}"),
            FormatError::NoKnownGroup => {
                f.write_str("the regular expression has no named group such as (?<status>...), (?<request>...), (?<time_local>...)")
            }
        }
    }
}

impl core::error::Error for FormatError {}

/// How the lines of a log look. Immutable; cloning is cheap next to compiling.
#[derive(Clone, Debug)]
pub struct Format {
    pub(crate) reader: Reader,
    escape: Escape,
    fields: FieldSet,
}

/// The three ways to find the raw values of a line.
#[derive(Clone, Debug)]
pub(crate) enum Reader {
    /// By its text; and straight, where nothing in the format forbids it.
    Literal(Program, Option<Straight>),
    Json(Names),
    Pattern {
        regex: regex::bytes::Regex,
        groups: Box<[(usize, Slot)]>,
    },
}

impl Format {
    /// nginx's `combined`, the format of an `access_log` that names none.
    pub fn combined() -> Format {
        Format::from_log_format(COMBINED).expect("combined is a format")
    }

    /// Compiles a format written as in nginx.conf: a whole `log_format NAME [escape=..] '..' '..';`, only its arguments, or the
    /// bare string. A format of a JSON object is read by its literal text too: nginx writes the keys in the order given.
    pub fn from_log_format(text: &str) -> Result<Format, FormatError> {
        let pieces = log_format::read(text)?;
        let program = Program::new(&pieces);
        let fields = program.slots().flat_map(|slot| slot.gives().iter().copied()).collect();
        let straight = Straight::new(&program);
        Ok(Format { reader: Reader::Literal(program, straight), escape: pieces.escape, fields })
    }

    /// JSON lines with the usual keys, in any order: the names of nginx's variables and the common ones (`method`, `path`,
    /// `bytes`, `timestamp`, ...).
    pub fn json() -> Format {
        let fields = NAMES.iter().flat_map(|known| known.slot.gives().iter().copied()).collect();
        Format { reader: Reader::Json(Names::new()), escape: Escape::Json, fields }
    }

    /// Compiles a regular expression over bytes whose named groups are named as the variables, or shorter (`method`, `bytes`).
    pub fn from_regex(pattern: &str) -> Result<Format, FormatError> {
        if pattern.len() > FORMAT_BYTES_MAX {
            return Err(FormatError::TooLong { bytes: pattern.len() });
        }
        // Lines are bytes: without Unicode `.` and `\S` match any of them, which is what is meant, and faster.
        // A pattern that needs Unicode (`\p{L}`) gets it.
        let build = |unicode| regex::bytes::RegexBuilder::new(pattern).unicode(unicode).build();
        let regex =
            build(false).or_else(|_| build(true)).map_err(|error| FormatError::Pattern(error.to_string()))?;
        let groups: Vec<(usize, Slot)> = regex
            .capture_names()
            .enumerate()
            .filter_map(|(index, name)| Some((index, slot_of_name(name?)?)))
            .collect();
        if groups.is_empty() {
            return Err(FormatError::NoKnownGroup);
        }
        let fields = groups.iter().flat_map(|(_, slot)| slot.gives().iter().copied()).collect();
        Ok(Format { reader: Reader::Pattern { regex, groups: groups.into() }, escape: Escape::None, fields })
    }

    /// The fields that lines of this format can give; for [`Format::json`] all, since its lines choose.
    pub fn fields(&self) -> FieldSet {
        self.fields
    }

    /// Whether lines of this format can give `field`.
    pub fn gives(&self, field: Field) -> bool {
        self.fields.contains(field)
    }

    /// How the lines are escaped.
    pub fn line_escape(&self) -> Escape {
        self.escape
    }

    /// How the values in an [`super::AccessLine`] still are escaped: JSON is decoded while parsing, `\xHH` stays as logged.
    pub fn value_escape(&self) -> Escape {
        if self.escape == Escape::Default { Escape::Default } else { Escape::None }
    }
}
