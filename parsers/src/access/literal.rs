//! Formats as literal text with fields between: a program of steps, run over a line without any regular expression.
//!
//! What it owns: where each field ends. A field whose variable tells its form (a number, a time, a list), or that stands in
//! quotes which its escape mode protects, ends where that form ends: it is rigid. Any other field is free and ends at the first
//! place from which the following text and the rigid fields after it match.
//!
//! What it must never do: go back further than the last free field. As with a glob's `*`, the leftmost match of what follows a
//! free field leaves the most room to the rest, so going back further could not help; hence the time is linear.

use super::log_format::{Piece, Pieces};
use super::unparsed::{Expected, Snippet, Unparsed};
use super::variable::{Captures, Kind, Slot, slot_of_variable};
use crate::bytes::{find_byte, is_escaped, part, rest, run_length, stands_at};
use crate::escape::Escape;
use crate::time::{ISO8601_BYTES, LOCAL_BYTES, iso8601_shape, local_shape};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Retries may look at this many bytes for each byte of the line, so that a hostile line cannot make them quadratic.
const RETRY_BYTES_PER_LINE_BYTE: usize = 16;
/// And at this many in any case, so that short lines are never cut off.
const RETRY_BYTES_MIN: usize = 4096;

/// How a field's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// At the next place where the following text stands; to the end of the line when there is none.
    Free,
    /// At the next quote that is not escaped.
    Quoted,
    /// After its digits, or a `-`.
    Digits,
    /// After its digits and dots, or a `-`.
    Decimal,
    /// After the last item of an upstream list.
    List,
    /// After 26 bytes.
    Local,
    /// After 25 bytes.
    Iso8601,
}

/// How the text of one field is parted among the variables that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Nobody asks for it.
    Skip,
    /// All of it is one variable's value, or a path and its arguments.
    One(Slot),
    /// `$host$request_uri`: the second begins at the first slash.
    SplitAtSlash(Slot, Slot),
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) usage: Use,
    pub(super) class: Class,
    /// The text after the field.
    pub(super) after: Box<[u8]>,
}

/// A compiled format.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(super) head: Box<[u8]>,
    pub(super) steps: Box<[Step]>,
    /// Whether values are to be decoded where they hold a backslash.
    decode: bool,
}

/// Where a line departed from the format.
#[derive(Clone, Copy)]
struct Miss {
    at: usize,
    step: usize,
    expected: Expected,
    line_ended: bool,
}

impl Program {
    pub(crate) fn new(format: &Pieces) -> Program {
        let mut head = Vec::new();
        let mut groups: Vec<(Vec<&str>, Vec<u8>)> = Vec::new();
        for piece in &format.pieces {
            match (piece, groups.last_mut()) {
                (Piece::Literal(text), None) => head.extend_from_slice(text),
                (Piece::Literal(text), Some((_, after))) => after.extend_from_slice(text),
                (Piece::Variable(name), Some((names, after))) if after.is_empty() => names.push(name),
                (Piece::Variable(name), _) => groups.push((Vec::from([name.as_str()]), Vec::new())),
            }
        }
        let last = groups.len().saturating_sub(1);
        let steps = groups
            .into_iter()
            .enumerate()
            .map(|(index, (names, after))| step(&names, after, format.escape, index == last))
            .collect();
        Program { head: head.into(), steps, decode: format.escape == Escape::Json }
    }

    /// The slots that lines of this format fill.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.steps
            .iter()
            .flat_map(|step| match step.usage {
                Use::Skip => [None, None],
                Use::One(slot) => [Some(slot), None],
                Use::SplitAtSlash(first, second) => [Some(first), Some(second)],
            })
            .flatten()
    }

    /// Whether values are to be decoded where they hold a backslash.
    pub(crate) fn decodes(&self) -> bool {
        self.decode
    }

    /// Finds the fields of `line`.
    pub(crate) fn run(&self, line: &[u8], captures: &mut Captures) -> Result<(), Unparsed> {
        if !stands_at(line, 0, &self.head) {
            return Err(self.head_miss(line));
        }
        let mut at = self.head.len();
        let mut index = 0;
        // The last free field: its step, where it starts, and from where its end is to be sought next.
        let mut free: Option<(usize, usize, usize)> = None;
        let mut worst: Option<Miss> = None;
        let mut budget = line.len().saturating_mul(RETRY_BYTES_PER_LINE_BYTE).max(RETRY_BYTES_MIN);
        while let Some(step) = self.steps.get(index) {
            let sought = match free {
                Some((free_index, start, from)) if free_index == index => {
                    self.free_end(step, line, start, from, index)
                }
                _ if step.class == Class::Free => self.free_end(step, line, at, at, index),
                _ => self.rigid_end(step, line, at, index),
            };
            match sought {
                Ok(end) => {
                    if step.class == Class::Free {
                        at = free
                            .filter(|(free_index, ..)| *free_index == index)
                            .map_or(at, |(_, start, _)| start);
                        free = Some((index, at, end + 1));
                    }
                    capture(step.usage, line, at, end, captures);
                    at = end + step.after.len();
                    index += 1;
                }
                Err(miss) => {
                    let deeper = worst.is_none_or(|seen| (miss.step, miss.at) > (seen.step, seen.at));
                    if deeper {
                        worst = Some(miss);
                    }
                    // The text after a free field stands nowhere: less of the line, further right, has no more of it.
                    let Some((free_index, _, from)) = free.filter(|_| step.class != Class::Free) else {
                        return Err(reason(worst.unwrap_or(miss)));
                    };
                    budget = budget.saturating_sub(miss.at.saturating_sub(from) + 1);
                    if budget == 0 {
                        return Err(reason(worst.unwrap_or(miss)));
                    }
                    index = free_index;
                }
            }
        }
        Ok(())
    }

    fn head_miss(&self, line: &[u8]) -> Unparsed {
        let same = line.iter().zip(self.head.iter()).take_while(|(left, right)| left == right).count();
        reason(Miss {
            at: same,
            step: 0,
            expected: Expected::Literal(Snippet::new(rest(&self.head, same))),
            line_ended: same == line.len(),
        })
    }

    /// The end of a free field: the first place from `from` on where the text after it stands.
    fn free_end(
        &self,
        step: &Step,
        line: &[u8],
        start: usize,
        from: usize,
        index: usize,
    ) -> Result<usize, Miss> {
        let is_last = index + 1 == self.steps.len();
        let found = if is_last {
            // What follows the last field has to be the end of the line, so there is one place only.
            line.len().checked_sub(step.after.len()).filter(|end| *end >= from && line.ends_with(&step.after))
        } else {
            find(line, from, &step.after)
        };
        found.ok_or_else(|| Miss {
            at: if start > 0 { line.len() } else { start },
            step: index,
            expected: if step.after.is_empty() {
                Expected::LineEnd
            } else {
                Expected::Literal(Snippet::new(&step.after))
            },
            line_ended: start > 0,
        })
    }

    /// The end of a field of a known form, behind which the text after it has to stand.
    fn rigid_end(&self, step: &Step, line: &[u8], at: usize, index: usize) -> Result<usize, Miss> {
        let Some(end) = extent(step, line, at) else { return Err(no_extent(step, line, at, index)) };
        if !stands_at(line, end, &step.after) {
            let follows = rest(line, end);
            let same =
                follows.iter().zip(step.after.iter()).take_while(|(left, right)| left == right).count();
            let no_value = end == at && same == 0 && matches!(step.class, Class::Digits | Class::Decimal);
            let expected = match step.usage.name() {
                name if no_value && !name.is_empty() => Expected::Value(name),
                _ => Expected::Literal(Snippet::new(rest(&step.after, same))),
            };
            return Err(Miss { at: end + same, step: index, expected, line_ended: end + same == line.len() });
        }
        let past = end + step.after.len();
        if index + 1 == self.steps.len() && past != line.len() {
            return Err(Miss { at: past, step: index, expected: Expected::LineEnd, line_ended: false });
        }
        Ok(end)
    }
}

fn reason(miss: Miss) -> Unparsed {
    let column = miss.at + 1;
    match miss.expected {
        // A line that ends before anything of it matched was not cut, it is another text.
        expected if miss.line_ended && miss.at > 0 => Unparsed::CutShort { column, expected },
        Expected::Value(variable) if variable == Slot::Status.name() => Unparsed::BadStatus { column },
        Expected::Value(variable) if variable.starts_with("time_") => Unparsed::BadTime { column, variable },
        Expected::Value(variable) if !variable.is_empty() => Unparsed::BadNumber { column, variable },
        expected => Unparsed::NoMatch { column, expected },
    }
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Skip => "",
            Use::One(slot) | Use::SplitAtSlash(slot, _) => slot.name(),
        }
    }
}

/// One step for the variables `names`, which stand together, and the text `after` them.
fn step(names: &[&str], after: Vec<u8>, escape: Escape, is_last: bool) -> Step {
    let usage = usage(names);
    let kind = match (usage, names) {
        (Use::One(slot), [_]) => slot.kind(),
        (Use::Skip, [name]) if name.starts_with("upstream_") => Kind::List,
        _ => Kind::Text,
    };
    let quoted = after.first() == Some(&b'"') && escape != Escape::None;
    let class = match kind {
        Kind::Digits => Class::Digits,
        Kind::Decimal => Class::Decimal,
        Kind::Local => Class::Local,
        Kind::Iso8601 => Class::Iso8601,
        _ if quoted => Class::Quoted,
        // A list ends where its items end, unless the text after it looks like a further item.
        Kind::List
            if !is_last && !matches!(after.first(), Some(b',' | b':')) && !after.starts_with(b" :") =>
        {
            Class::List
        }
        _ => Class::Free,
    };
    Step { usage, class, after: after.into() }
}

/// What the text of variables that stand together gives.
fn usage(names: &[&str]) -> Use {
    let slots: Vec<Option<Slot>> = names.iter().map(|name| slot_of_variable(name)).collect();
    match (slots.as_slice(), names) {
        ([Some(slot)], _) => Use::One(*slot),
        // `$uri$is_args$args` is a target.
        ([Some(slot @ (Slot::Uri | Slot::RequestUri)), ..], [_, tail @ ..]) if is_arguments(tail) => {
            Use::One(*slot)
        }
        ([Some(first), Some(second @ (Slot::Uri | Slot::RequestUri)), ..], [_, _, tail @ ..])
            if is_arguments(tail) =>
        {
            Use::SplitAtSlash(*first, *second)
        }
        _ => Use::Skip,
    }
}

fn is_arguments(names: &[&str]) -> bool {
    names.iter().all(|name| matches!(*name, "is_args" | "args" | "query_string"))
}

fn capture(usage: Use, line: &[u8], start: usize, end: usize, captures: &mut Captures) {
    match usage {
        Use::Skip => {}
        Use::One(slot) => captures.set(slot, start, end),
        Use::SplitAtSlash(first, second) => {
            let slash = memchr::memchr(b'/', part(line, start, end)).map_or(end, |found| start + found);
            captures.set(first, start, slash);
            captures.set(second, slash, end);
        }
    }
}

/// The first place from `from` on where `text` stands.
pub(super) fn find(line: &[u8], from: usize, text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    let mut at = from;
    loop {
        at += find_byte(line.get(at..)?, first)?;
        if stands_at(line, at, text) {
            return Some(at);
        }
        at += 1;
    }
}

/// Where the value of a rigid step that begins at `at` ends.
pub(super) fn extent(step: &Step, line: &[u8], at: usize) -> Option<usize> {
    match step.class {
        Class::Free => None,
        Class::Quoted => {
            let mut end = at;
            loop {
                end += find_byte(rest(line, end), b'"')?;
                if !is_escaped(line, at, end) {
                    return Some(end);
                }
                end += 1;
            }
        }
        Class::Digits => Some(at + number_length(line, at, |byte| byte.is_ascii_digit())),
        Class::Decimal => Some(at + number_length(line, at, |byte| byte.is_ascii_digit() || byte == b'.')),
        Class::List => Some(list_end(line, at, step.after.first().copied())),
        Class::Local => local_shape(rest(line, at)).then_some(at + LOCAL_BYTES),
        Class::Iso8601 => iso8601_shape(rest(line, at)).then_some(at + ISO8601_BYTES),
    }
}

/// A missing value is `-` or nothing, by the escape mode.
fn number_length(line: &[u8], at: usize, wanted: impl Fn(u8) -> bool) -> usize {
    if line.get(at) == Some(&b'-') { 1 } else { run_length(line, at, wanted) }
}

/// Bytes of an address, a time, a status or a length, each at its bit.
const ITEM_BYTES: u128 = {
    let (mut bytes, mut byte) = (0, 0);
    while byte < 128u8 {
        let is_item = matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
            || matches!(byte, b'-' | b'.' | b':' | b'/' | b'[' | b']' | b'_' | b'@');
        bytes |= (is_item as u128) << byte;
        byte += 1;
    }
    bytes
};

/// Items end before the byte `stop` that begins the text after the list, unless that byte is common in times.
fn list_end(line: &[u8], at: usize, stop: Option<u8>) -> usize {
    let stop = stop.filter(|byte| !matches!(byte, b'-' | b'.'));
    let is_item = |byte: u8| byte.is_ascii() && ITEM_BYTES >> byte & 1 == 1 && Some(byte) != stop;
    let mut end = at;
    loop {
        end += run_length(line, end, is_item);
        let separator = match (part(line, end, end + 2), part(line, end, end + 3)) {
            (b", ", _) => 2,
            (_, b" : ") => 3,
            _ => return end,
        };
        end += separator;
    }
}

/// A value that does not end, or does not begin: without its closing quote, or no time.
fn no_extent(step: &Step, line: &[u8], at: usize, index: usize) -> Miss {
    let needed = match step.class {
        Class::Local => LOCAL_BYTES,
        Class::Iso8601 => ISO8601_BYTES,
        _ => {
            let expected = Expected::Literal(Snippet::new(&step.after));
            return Miss { at: line.len(), step: index, expected, line_ended: true };
        }
    };
    let line_ended = line.len().saturating_sub(at) < needed;
    Miss {
        at: if line_ended { line.len() } else { at },
        step: index,
        expected: Expected::Value(step.usage.name()),
        line_ended,
    }
}
