//! JSON lines as nginx and others write them: one object, its known keys found, everything else skipped.
//!
//! What it owns: the grammar, with what nginx gets wrong: raw bytes that are not UTF-8, numbers that are absent (`"rt":,`), `-`,
//! with leading zeros (`009`) or an unquoted list (`0.1, 0.2 : 0.3`), and `\xHH` escapes. What it must never do: recurse, or
//! build a tree. Values are left where they lie; the parser decodes those that hold a backslash.

use super::unparsed::Unparsed;
use super::variable::{Captures, Kind, Names, Slot};
use crate::bytes::{part, rest, run_length};

/// Finds the values of the known keys of `line`. Of a variable that stands twice the last counts, as in JavaScript.
pub(crate) fn scan(names: &Names, line: &[u8], captures: &mut Captures) -> Result<(), Unparsed> {
    let mut at = skip_blanks(line, 0);
    if line.get(at) != Some(&b'{') {
        return Err(not_json(at));
    }
    at = skip_blanks(line, at + 1);
    loop {
        match line.get(at) {
            Some(b'}') => break,
            Some(b'"') => {}
            _ => return Err(not_json(at)),
        }
        let key_end = string_end(line, at + 1)?;
        let name = names.find(part(line, at + 1, key_end));
        // Of two names for one thing nginx's own counts: `client` may stand beside `remote_addr`.
        let slot = name
            .map(|name| name.slot)
            .filter(|slot| name.is_some_and(|name| name.nginx) || captures.get(*slot).is_none());
        at = skip_blanks(line, key_end + 1);
        if line.get(at) != Some(&b':') {
            return Err(not_json(at));
        }
        at = value(slot, line, skip_blanks(line, at + 1), captures)?;
        at = skip_blanks(line, at);
        match line.get(at) {
            Some(b',') => at = skip_blanks(line, at + 1),
            Some(b'}') => break,
            _ => return Err(not_json(at)),
        }
    }
    let end = skip_blanks(line, at + 1);
    if end == line.len() { Ok(()) } else { Err(not_json(end)) }
}

fn not_json(at: usize) -> Unparsed {
    Unparsed::NotJson { column: at + 1 }
}

fn skip_blanks(line: &[u8], at: usize) -> usize {
    at + run_length(line, at, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Where the string that begins at `at`, behind its quote, ends.
fn string_end(line: &[u8], at: usize) -> Result<usize, Unparsed> {
    let mut end = at;
    while let Some(found) = memchr::memchr2(b'"', b'\\', rest(line, end)) {
        end += found;
        if line.get(end) == Some(&b'"') {
            return Ok(end);
        }
        end += 2;
    }
    Err(not_json(line.len()))
}

/// Reads the value at `at` and returns where it ends.
fn value(slot: Option<Slot>, line: &[u8], at: usize, captures: &mut Captures) -> Result<usize, Unparsed> {
    match line.get(at) {
        Some(b'"') => {
            let end = string_end(line, at + 1)?;
            if let Some(slot) = slot {
                captures.set(slot, at + 1, end);
            }
            Ok(end + 1)
        }
        Some(b'{' | b'[') => match slot {
            Some(slot) => Err(wrong_type(slot, at)),
            None => nested_end(line, at),
        },
        _ => {
            let end = bare_end(line, at)?;
            if let Some(slot) = slot {
                keep_bare(slot, line, at, end, captures)?;
            }
            Ok(end)
        }
    }
}

fn wrong_type(slot: Slot, at: usize) -> Unparsed {
    Unparsed::WrongType { column: at + 1, variable: slot.name() }
}

/// Where the object or array at `at` ends. Kinds of brackets are not matched against each other: nothing in it is wanted.
fn nested_end(line: &[u8], at: usize) -> Result<usize, Unparsed> {
    let mut depth = 0usize;
    let mut end = at;
    while let Some(byte) = line.get(end) {
        match byte {
            b'"' => end = string_end(line, end + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        end += 1;
        if depth == 0 {
            return Ok(end);
        }
    }
    Err(not_json(line.len()))
}

/// Where a value without quotes ends: before `}`, or before a comma behind which a key follows, since an unquoted upstream list
/// has commas of its own.
fn bare_end(line: &[u8], at: usize) -> Result<usize, Unparsed> {
    let mut end = at;
    loop {
        end += run_length(line, end, |byte| byte.is_ascii_alphanumeric() || b"+-.: ".contains(&byte));
        match line.get(end) {
            Some(b'}') => return Ok(end),
            Some(b',') if matches!(line.get(skip_blanks(line, end + 1)), Some(b'"' | b'}')) => {
                return Ok(end);
            }
            Some(b',') => end += 1,
            Some(b'\t' | b'\r') => end += 1,
            _ => return Err(not_json(end)),
        }
    }
}

fn keep_bare(
    slot: Slot,
    line: &[u8],
    start: usize,
    end: usize,
    captures: &mut Captures,
) -> Result<(), Unparsed> {
    let text = part(line, start, end).trim_ascii_end();
    let is_number = matches!(text.first(), Some(b'0'..=b'9' | b'-'));
    match text {
        b"null" | b"" => Ok(()),
        b"true" | b"false" if slot.kind() == Kind::Flag => {
            captures.set(slot, start, start + text.len());
            Ok(())
        }
        _ if is_number && (slot.kind() != Kind::Text || slot == Slot::Protocol) => {
            captures.set(slot, start, start + text.len());
            Ok(())
        }
        // An unquoted value that nginx had not.
        b"-" => Ok(()),
        _ => Err(wrong_type(slot, start)),
    }
}
