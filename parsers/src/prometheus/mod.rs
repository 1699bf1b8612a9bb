//! What exporters answer: the Prometheus text format 0.0.4, and OpenMetrics 1.0 as far as a scraper meets it.
//!
//! What it owns: lines to samples (prometheus.io, "Exposition formats"; OpenMetrics, "Text format"). What it must never do: let
//! one line decide over another, but for `# TYPE`, which holds for the samples of its family that follow.
//!
//! Samples come one by one, and a bad line is an item with its number and reason. Of the comments only `# TYPE` and `# EOF` mean
//! something; exemplars are passed over. Names in quotes (UTF-8 names, which a scraper must ask for) are bad names here.

mod line;

use crate::Snippet;
use crate::bytes::{part, rest};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

/// The most labels that a sample can have; Prometheus itself commonly refuses more than 30.
pub const LABELS_MAX: usize = 64;

/// Integers up to here are exact in a value, which is an f64 in this format.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Which of the two formats a text is in: the `Content-Type` says it, the text does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `text/plain; version=0.0.4`: timestamps are whole milliseconds.
    Prometheus,
    /// `application/openmetrics-text`: timestamps are seconds, counters end in `_total`, and `# EOF` ends the text.
    OpenMetrics,
}

/// What a family of samples is, by its `# TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `untyped`, `unknown`, or no `# TYPE` before the sample.
    Untyped,
    /// Only grows, and begins anew at zero.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counters for ranges: `_bucket` with the label `le`, `_sum`, `_count`.
    Histogram,
    /// Quantiles, which no sum can be made of, and `_sum` and `_count`.
    Summary,
    /// OpenMetrics: a histogram whose buckets go up and down.
    GaugeHistogram,
    /// OpenMetrics: 1, and labels that say something about the process.
    Info,
    /// OpenMetrics: 0 or 1 for each state.
    StateSet,
}

impl Kind {
    fn named(name: &[u8]) -> Option<Kind> {
        Some(match name {
            b"untyped" | b"unknown" => Kind::Untyped,
            b"counter" => Kind::Counter,
            b"gauge" => Kind::Gauge,
            b"histogram" => Kind::Histogram,
            b"summary" => Kind::Summary,
            b"gaugehistogram" => Kind::GaugeHistogram,
            b"info" => Kind::Info,
            b"stateset" => Kind::StateSet,
            _ => return None,
        })
    }

    /// Whether a sample whose name goes on with `suffix` after the name of the family belongs to it.
    fn has(self, suffix: &str, dialect: Dialect) -> bool {
        let open = dialect == Dialect::OpenMetrics;
        match (self, suffix) {
            (Kind::Counter, "_total") | (Kind::Counter | Kind::Histogram | Kind::Summary, "_created") => open,
            (Kind::Histogram, "_bucket") | (Kind::Histogram | Kind::Summary, "_sum" | "_count") => true,
            (Kind::GaugeHistogram, "_bucket" | "_gsum" | "_gcount") | (Kind::Info, "_info") => open,
            (_, suffix) => suffix.is_empty(),
        }
    }
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name of the metric, such as `http_requests_total`.
    pub name: &'a str,
    /// What the name has beyond the family that `# TYPE` names: `_bucket`, `_sum` and the like; often empty.
    pub suffix: &'a str,
    /// What the family is.
    pub kind: Kind,
    /// Names and values in their order, the values without escapes. No name stands there twice.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// In the unit that the name ends in, by convention. NaN means that there is nothing to say.
    pub value: f64,
    /// When the value was taken, in milliseconds since 1970; few exporters say it.
    pub timestamp_ms: Option<i64>,
}

impl Sample<'_> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_ref())
    }

    /// Whether the value only grows until the process starts anew, so that a difference of two has a meaning.
    pub fn is_cumulative(&self) -> bool {
        match self.kind {
            Kind::Counter => self.suffix != "_created",
            Kind::Histogram => matches!(self.suffix, "_bucket" | "_sum" | "_count"),
            Kind::Summary => matches!(self.suffix, "_sum" | "_count"),
            _ => false,
        }
    }

    /// The value as a count; None for fractions, what is below zero, and from 2^53 on, where an f64 leaves numbers out.
    pub fn count(&self) -> Option<u64> {
        let whole = self.value as u64;
        (self.value >= 0.0 && self.value < EXACT_MAX && whole as f64 == self.value).then_some(whole)
    }
}

/// A line that could not be read; the lines after it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: LineReason,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineReason {
    /// The text ends before the line does, so a number may be cut.
    CutShort,
    /// Not UTF-8.
    NotText,
    /// No name of a metric where one is expected.
    BadName {
        /// What stands there.
        found: Snippet,
    },
    /// No `name="value"`, comma or closing brace where one is expected.
    BadLabel {
        /// What stands there.
        found: Snippet,
    },
    /// More labels than [`LABELS_MAX`].
    TooManyLabels,
    /// A label stands there twice.
    LabelTwice {
        /// The start of its name.
        name: Snippet,
    },
    /// No number, or one past f64.
    BadValue {
        /// What stands there.
        found: Snippet,
    },
    /// No time of this dialect, or something else after the value.
    BadTimestamp {
        /// What stands there.
        found: Snippet,
    },
    /// `# TYPE` with a type that is none.
    BadType {
        /// What stands there.
        found: Snippet,
    },
    /// OpenMetrics: the line follows `# EOF`.
    AfterEnd,
}

impl LineReason {
    /// The reason as a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            LineReason::CutShort => "cut_short",
            LineReason::NotText => "not_text",
            LineReason::BadName { .. } => "bad_name",
            LineReason::BadLabel { .. } => "bad_label",
            LineReason::TooManyLabels => "too_many_labels",
            LineReason::LabelTwice { .. } => "label_twice",
            LineReason::BadValue { .. } => "bad_value",
            LineReason::BadTimestamp { .. } => "bad_timestamp",
            LineReason::BadType { .. } => "bad_type",
            LineReason::AfterEnd => "after_end",
        }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.reason {
            LineReason::CutShort => f.write_str("the text ends in the middle of the line"),
            LineReason::NotText => f.write_str("the line is not UTF-8"),
            LineReason::BadName { found } => write!(f, "expected the name of a metric, found `{found}`"),
            LineReason::BadLabel { found } => {
                write!(f, "expected a label or the end of the labels, found `{found}`")
            }
            LineReason::TooManyLabels => write!(f, "the line has more than {LABELS_MAX} labels"),
            LineReason::LabelTwice { name } => write!(f, "the label `{name}` stands there twice"),
            LineReason::BadValue { found } => write!(f, "expected a number, found `{found}`"),
            LineReason::BadTimestamp { found } => {
                write!(f, "expected a time or the end of the line, found `{found}`")
            }
            LineReason::BadType { found } => write!(f, "expected a type of metric, found `{found}`"),
            LineReason::AfterEnd => f.write_str("the line follows `# EOF`"),
        }
    }
}

impl core::error::Error for BadLine {}

/// The samples of an answer, in its order, and its bad lines between them.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
    dialect: Dialect,
    family: Option<(&'a str, Kind)>,
    is_ended: bool,
}

impl<'a> Samples<'a> {
    /// Reads the body of an answer.
    pub fn new(text: &'a [u8], dialect: Dialect) -> Samples<'a> {
        Samples { text, at: 0, line: 0, dialect, family: None, is_ended: false }
    }

    /// Whether `# EOF` was met so far. An OpenMetrics answer without it is not whole; the other format has no such sign.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What a line gives; None for a comment or nothing.
    fn read(&mut self, line: &'a [u8], is_whole: bool) -> Result<Option<Sample<'a>>, LineReason> {
        let line = line::trim_blanks(line);
        if line.is_empty() {
            return Ok(None);
        }
        if self.is_ended && self.dialect == Dialect::OpenMetrics {
            return Err(LineReason::AfterEnd);
        }
        if let Some(comment) = line.strip_prefix(b"#") {
            self.comment(comment, is_whole)?;
            return Ok(None);
        }
        if !is_whole {
            return Err(LineReason::CutShort);
        }
        let text = core::str::from_utf8(line).map_err(|_| LineReason::NotText)?;
        let mut sample = line::sample(text, self.dialect)?;
        if let Some((family, kind)) = self.family
            && let Some(suffix) = sample.name.strip_prefix(family)
            && kind.has(suffix, self.dialect)
        {
            (sample.kind, sample.suffix) = (kind, suffix);
        }
        Ok(Some(sample))
    }

    fn comment(&mut self, comment: &'a [u8], is_whole: bool) -> Result<(), LineReason> {
        let (keyword, left) = line::token(line::trim_blanks(comment));
        let (name, left) = line::token(left);
        match keyword {
            b"EOF" => self.is_ended |= name.is_empty(),
            b"TYPE" => {
                // Whatever this line gives: the family before it is over.
                self.family = None;
                if !is_whole {
                    return Err(LineReason::CutShort);
                }
                let name =
                    line::metric_name(name).ok_or(LineReason::BadName { found: Snippet::new(name) })?;
                let kind = Kind::named(left).ok_or(LineReason::BadType { found: Snippet::new(left) })?;
                self.family = Some((name, kind));
            }
            // So is it with the first line about another one, which need not have a type.
            b"HELP" | b"UNIT" => self.family = self.family.filter(|(family, _)| family.as_bytes() == name),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Iterator for Samples<'a> {
    type Item = Result<Sample<'a>, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.text.len() {
            let left = rest(self.text, self.at);
            let end = memchr::memchr(b'\n', left);
            let line = part(left, 0, end.unwrap_or(left.len()));
            self.at += line.len() + 1;
            self.line += 1;
            match self.read(line, end.is_some()) {
                Ok(None) => {}
                Ok(Some(sample)) => return Some(Ok(sample)),
                Err(reason) => return Some(Err(BadLine { line: self.line, reason })),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
