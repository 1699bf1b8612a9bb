//! One line of a sample: name, labels, value, timestamp.
//!
//! What it owns: the grammar of a line. Tokens are parted by blanks and tabs; a label value may hold anything, a backslash before
//! what is no escape included, which then stands as it is. What it must never do: know the lines before.

use super::{Dialect, Kind, LABELS_MAX, LineReason, Sample};
use crate::Snippet;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// A time beyond it does not go into an i64: it lies 292 million years ahead.
const MS_MAX: f64 = 9.2e18;

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Without blanks and tabs at both ends. Other white space is no blank of this format.
pub(super) fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t', left)) = text.split_first() {
        text = left;
    }
    while let Some((b' ' | b'\t', left)) = text.split_last() {
        text = left;
    }
    text
}

/// The bytes up to the first blank, and what comes after it without blanks in front.
pub(super) fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let length = text.iter().position(|byte| is_blank(*byte)).unwrap_or(text.len());
    let (token, left) = text.split_at_checked(length).unwrap_or((text, &[]));
    (token, trim_blanks(left))
}

/// How many bytes of the name of a metric (with colons) or a label (without) `text` begins with.
fn name_length(text: &[u8], with_colons: bool) -> usize {
    let is_first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_' || (with_colons && *byte == b':');
    if !text.first().is_some_and(is_first) {
        return 0;
    }
    text.iter().take_while(|byte| is_first(byte) || byte.is_ascii_digit()).count()
}

/// The name of a metric, if all of `text` is one.
pub(super) fn metric_name(text: &[u8]) -> Option<&str> {
    let is_name = !text.is_empty() && name_length(text, true) == text.len();
    core::str::from_utf8(text).ok().filter(|_| is_name)
}

/// A sample, without what the lines before say of it. `line` has no blanks at its ends.
pub(super) fn sample(line: &str, dialect: Dialect) -> Result<Sample<'_>, LineReason> {
    let bad_name = LineReason::BadName { found: Snippet::new(line.as_bytes()) };
    let (name, left) = line.split_at_checked(name_length(line.as_bytes(), true)).ok_or(bad_name)?;
    let is_parted = left.starts_with([' ', '\t', '{']);
    if name.is_empty() || !(is_parted || left.is_empty()) {
        return Err(bad_name);
    }
    let mut labels = Vec::new();
    let mut left = skip_blanks(left);
    if let Some(inside) = left.strip_prefix('{') {
        left = skip_blanks(read_labels(inside, &mut labels)?);
    }
    let (found, left) = split_token(left);
    let value = value(found).ok_or(LineReason::BadValue { found: Snippet::new(found.as_bytes()) })?;
    let mut timestamp_ms = None;
    // A sharp begins an exemplar, which tells of one event and counts nothing.
    if !left.is_empty() && !left.starts_with('#') {
        let (found, left) = split_token(left);
        let time = timestamp(found, dialect).filter(|_| left.is_empty() || left.starts_with('#'));
        let bad = || LineReason::BadTimestamp { found: Snippet::new(found.as_bytes()) };
        timestamp_ms = Some(time.ok_or_else(bad)?);
    }
    Ok(Sample { name, suffix: "", kind: Kind::Untyped, labels, value, timestamp_ms })
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn split_token(text: &str) -> (&str, &str) {
    let length = text.find([' ', '\t']).unwrap_or(text.len());
    let (token, left) = text.split_at_checked(length).unwrap_or((text, ""));
    (token, skip_blanks(left))
}

/// Reads what stands in braces; returns what comes after them.
fn read_labels<'a>(text: &'a str, labels: &mut Vec<(&'a str, Cow<'a, str>)>) -> Result<&'a str, LineReason> {
    let mut left = skip_blanks(text);
    loop {
        if let Some(left) = left.strip_prefix('}') {
            return Ok(left);
        }
        let bad = || LineReason::BadLabel { found: Snippet::new(left.as_bytes()) };
        let (name, after) = left.split_at_checked(name_length(left.as_bytes(), false)).ok_or_else(bad)?;
        let after = skip_blanks(after).strip_prefix('=').filter(|_| !name.is_empty()).ok_or_else(bad)?;
        let after = skip_blanks(after).strip_prefix('"').ok_or_else(bad)?;
        let (value, after) = quoted(after).ok_or_else(bad)?;
        if labels.iter().any(|(known, _)| *known == name) {
            return Err(LineReason::LabelTwice { name: Snippet::new(name.as_bytes()) });
        }
        if labels.len() == LABELS_MAX {
            return Err(LineReason::TooManyLabels);
        }
        labels.push((name, value));
        left = skip_blanks(after);
        match left.strip_prefix(',') {
            Some(after) => left = skip_blanks(after),
            None if left.starts_with('}') => {}
            None => return Err(LineReason::BadLabel { found: Snippet::new(left.as_bytes()) }),
        }
    }
}

/// A value up to its closing quote, and what comes after that; None when it is not closed.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut value = String::new();
    let mut kept = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            let (tail, after) = (text.get(kept..at)?, text.get(at + 1..)?);
            if kept == 0 {
                return Some((Cow::Borrowed(tail), after));
            }
            value.push_str(tail);
            return Some((Cow::Owned(value), after));
        }
        let escaped = match bytes.get(at + 1)? {
            b'n' => Some('\n'),
            b'"' => Some('"'),
            b'\\' => Some('\\'),
            _ => None,
        };
        if let Some(escaped) = escaped {
            value.push_str(text.get(kept..at)?);
            value.push(escaped);
            kept = at + 2;
        }
        // The byte after a backslash that escapes nothing is no quote and no backslash: it is passed as well.
        at += 2;
    }
}

/// A decimal number, or NaN or infinity in any spelling. None for what is none, and for a number past f64.
fn value(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit());
    (value.is_finite() || !is_number).then_some(value)
}

fn timestamp(text: &str, dialect: Dialect) -> Option<i64> {
    if dialect == Dialect::Prometheus {
        return text.parse().ok();
    }
    let ms = value(text)? * 1000.0;
    // Rounds half away from zero: there is no `round` without std.
    let rounded = if ms < 0.0 { ms - 0.5 } else { ms + 0.5 };
    (rounded.is_finite() && rounded.abs() < MS_MAX).then_some(rounded as i64)
}
