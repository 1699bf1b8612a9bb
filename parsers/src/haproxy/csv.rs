//! Fields of a row of CSV as HAProxy writes it.
//!
//! What it owns: `csv_enc_append` of tools.c: a field with a comma, a quote or a line end stands in quotes, and a quote in it is
//! doubled. What it must never do: guess. What HAProxy would not have written is an error.

use super::RowReason;
use crate::bytes::{part, rest};
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// A field as it stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawField<'a> {
    /// Without the quotes around it.
    raw: &'a [u8],
    /// Whether quotes in it are doubled.
    doubled: bool,
}

impl<'a> RawField<'a> {
    /// The bytes that were meant.
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        if !self.doubled {
            return Cow::Borrowed(self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        let mut at = 0;
        while let Some(found) = memchr::memchr(b'"', rest(self.raw, at)) {
            out.extend_from_slice(part(self.raw, at, at + found + 1));
            at += found + 2;
        }
        out.extend_from_slice(rest(self.raw, at));
        Cow::Owned(out)
    }

    /// The text that was meant; None when it is not UTF-8.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self.bytes() {
            Cow::Borrowed(bytes) => core::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => alloc::string::String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }
}

/// The fields of the row that begins at `at`, one after the other.
pub(super) struct Fields<'a> {
    text: &'a [u8],
    at: usize,
    /// The line end was read.
    is_ended: bool,
    /// There is no field to come: the row is at its end, or broken.
    is_over: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(text: &'a [u8], at: usize) -> Fields<'a> {
        Fields { text, at, is_ended: false, is_over: false }
    }

    /// Where the next row begins, once this one was read to its end.
    pub(super) fn row_end(&self) -> Option<usize> {
        self.is_ended.then_some(self.at)
    }

    /// The next field, None after the last. A line end that no quotes hold ends the row.
    pub(super) fn next(&mut self) -> Option<Result<RawField<'a>, RowReason>> {
        if self.is_over {
            return None;
        }
        let field = if self.text.get(self.at) == Some(&b'"') { self.quoted() } else { self.bare() };
        self.is_over = self.is_ended || field.is_err();
        Some(field)
    }

    fn bare(&mut self) -> Result<RawField<'a>, RowReason> {
        let length =
            memchr::memchr3(b',', b'\n', b'"', rest(self.text, self.at)).ok_or(RowReason::CutShort)?;
        let raw = part(self.text, self.at, self.at + length);
        self.at += length;
        self.separator()?;
        Ok(RawField { raw, doubled: false })
    }

    fn quoted(&mut self) -> Result<RawField<'a>, RowReason> {
        let start = self.at + 1;
        let (mut end, mut doubled) = (start, false);
        loop {
            end += memchr::memchr(b'"', rest(self.text, end)).ok_or(RowReason::CutShort)?;
            if self.text.get(end + 1) != Some(&b'"') {
                break;
            }
            doubled = true;
            end += 2;
        }
        self.at = end + 1;
        self.separator()?;
        Ok(RawField { raw: part(self.text, start, end), doubled })
    }

    fn separator(&mut self) -> Result<(), RowReason> {
        match self.text.get(self.at) {
            Some(b',') => {}
            Some(b'\n') => self.is_ended = true,
            Some(_) => return Err(RowReason::StrayQuote),
            None => return Err(RowReason::CutShort),
        }
        self.at += 1;
        Ok(())
    }
}
