//! Raw values to an access line.
//!
//! What it owns: numbers, times, the split of `$request`, which variable wins where several give one field, and the scratch that
//! makes this free of allocation. What it must never do: drop a line for what the client sent; a request that is no HTTP is one
//! that nginx answered and logged.

use super::format::{Format, Reader};
use super::unparsed::{Expected, Unparsed};
use super::variable::{Captures, Slot, TIMES};
use super::{AccessLine, json};
use crate::bytes::{part, rest, seconds_as_ms, whole_number};
use crate::escape::{Escape, unescape};
use crate::time::{LastSecond, any_ms, epoch_ms, iso8601_ms};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The longest line that is looked at, in bytes. nginx's own limit is far lower: a request line has to fit into
/// `large_client_header_buffers` (8 KiB unless set), and escaping makes at most four bytes of one.
pub const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What decoding may keep in memory between two lines, in bytes.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;

/// Reads the lines of one format. It is mutable for its scratch and for the last second's time only; no line changes how another
/// one is read.
#[derive(Debug)]
pub struct Parser {
    /// Shared by the parsers of all files of that format.
    format: Arc<Format>,
    /// Decoded values of the current line.
    scratch: Vec<u8>,
    groups: Option<regex::bytes::CaptureLocations>,
    last_second: LastSecond,
}

impl Parser {
    /// A parser for lines of `format`.
    pub fn new(format: impl Into<Arc<Format>>) -> Parser {
        let format = format.into();
        let groups = match &format.reader {
            Reader::Pattern { regex, .. } => Some(regex.capture_locations()),
            _ => None,
        };
        Parser { format, scratch: Vec::new(), groups, last_second: LastSecond::default() }
    }

    /// The format that lines are read as.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Reads one line, with or without its line end.
    ///
    /// # Errors
    /// Why the line is not one of this format. A line of any bytes and any length is survived, in time linear in its length.
    pub fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<AccessLine<'a>, Unparsed> {
        let mut parsed = AccessLine::default();
        match self.parse_straight(line, &mut parsed) {
            Some(()) => Ok(parsed),
            None => self.parse_plainly(line),
        }
    }

    /// The fast way: puts into `parsed`, which is empty, what [`Parser::parse`] answers. Nothing where that takes a second look;
    /// then `parsed` is worth nothing.
    ///
    /// Its fields are many, and whoever is given them by value pays for a copy with each line.
    #[inline]
    pub fn parse_straight<'a>(&mut self, line: &'a [u8], parsed: &mut AccessLine<'a>) -> Option<()> {
        let Reader::Literal(program, Some(straight)) = &self.format.reader else { return None };
        let line = without_end(line);
        if line.len() > LINE_BYTES_MAX || line.first()?.is_ascii_whitespace() {
            return None;
        }
        straight.read(program, line, parsed, &mut self.last_second)
    }

    /// The plain way, which the fast one has to agree with: it knows every format, and why a line is none of it.
    ///
    /// # Errors
    /// As [`Parser::parse`].
    pub fn parse_plainly<'a>(&'a mut self, line: &'a [u8]) -> Result<AccessLine<'a>, Unparsed> {
        let line = without_end(line);
        if line.len() > LINE_BYTES_MAX {
            return Err(Unparsed::TooLong { bytes: line.len() });
        }
        if line.trim_ascii_start().is_empty() {
            return Err(Unparsed::Empty);
        }
        let mut captures = Captures::new();
        if let Err(reason) = self.capture(line, &mut captures) {
            return Err(plainer(line, reason));
        }
        let values = Values { line, scratch: &self.scratch, captures: &captures };
        assemble(&values, &mut self.last_second)
    }

    /// Finds the raw values, decoded where the format is JSON.
    fn capture(&mut self, line: &[u8], captures: &mut Captures) -> Result<(), Unparsed> {
        self.scratch.clear();
        if self.scratch.capacity() > SCRATCH_KEPT_BYTES {
            self.scratch.shrink_to(SCRATCH_KEPT_BYTES);
        }
        let decodes = match &self.format.reader {
            Reader::Literal(program, _) => {
                program.run(line, captures)?;
                program.decodes()
            }
            Reader::Json(names) => {
                json::scan(names, line, captures)?;
                true
            }
            Reader::Pattern { regex, groups } => {
                let no_match = Unparsed::NoMatch { column: 1, expected: Expected::Pattern };
                let locations = self.groups.as_mut().ok_or(no_match)?;
                regex.captures_read(locations, line).ok_or(no_match)?;
                for (index, slot) in groups {
                    if let Some((start, end)) = locations.get(*index) {
                        captures.set(*slot, start, end);
                    }
                }
                false
            }
        };
        if decodes && memchr::memchr(b'\\', line).is_some() {
            self.decode(line, captures);
        }
        Ok(())
    }

    fn decode(&mut self, line: &[u8], captures: &mut Captures) {
        for span in captures.spans_mut() {
            let raw = part(line, span.start as usize, span.end as usize);
            if memchr::memchr(b'\\', raw).is_some() {
                let start = self.scratch.len();
                unescape(raw, Escape::Json, &mut self.scratch);
                span.start = start as u32;
                span.end = self.scratch.len() as u32;
                span.decoded = true;
            }
        }
    }
}

#[inline]
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A reason that says more where the line is no text at all.
fn plainer(line: &[u8], reason: Unparsed) -> Unparsed {
    match line.first() {
        Some(0..=0x08 | 0x0e..=0x1f | 0x7f) => Unparsed::Binary,
        _ => reason,
    }
}

/// The raw values of a line, wherever they lie.
struct Values<'a, 'c> {
    line: &'a [u8],
    scratch: &'a [u8],
    captures: &'c Captures,
}

impl<'a> Values<'a, '_> {
    /// The value as it stands, `-` and empty included; None when the line has no place for it.
    fn raw(&self, slot: Slot) -> Option<(&'a [u8], usize)> {
        let span = self.captures.get(slot)?;
        let text = if span.decoded { self.scratch } else { self.line };
        Some((part(text, span.start as usize, span.end as usize), span.column as usize))
    }

    fn raw_text(&self, slot: Slot) -> Option<&'a [u8]> {
        self.raw(slot).map(|(text, _)| text)
    }

    fn with_column(&self, slot: Slot) -> Option<(&'a [u8], usize)> {
        self.raw(slot).filter(|(text, _)| !text.is_empty() && *text != b"-")
    }

    fn text(&self, slot: Slot) -> Option<&'a [u8]> {
        self.with_column(slot).map(|(text, _)| text)
    }

    fn number(&self, slot: Slot, read: fn(&[u8]) -> Option<u64>) -> Result<Option<u64>, Unparsed> {
        let Some((text, column)) = self.with_column(slot) else { return Ok(None) };
        read(text).map(Some).ok_or(Unparsed::BadNumber { column, variable: slot.name() })
    }

    fn status(&self) -> Result<Option<u16>, Unparsed> {
        let Some((text, column)) = self.with_column(Slot::Status) else { return Ok(None) };
        status_code(text).map(Some).ok_or(Unparsed::BadStatus { column })
    }
}

fn assemble<'a>(values: &Values<'a, '_>, last_second: &mut LastSecond) -> Result<AccessLine<'a>, Unparsed> {
    let (method, target, protocol) = values.text(Slot::Request).map_or((None, None, None), split_request);
    let bytes_sent = match values.number(Slot::BodyBytes, whole_number)? {
        None => values.number(Slot::Bytes, whole_number)?,
        given => given,
    };
    let request_time_ms = match values.number(Slot::RequestTime, seconds_as_ms)? {
        None => values.number(Slot::RequestTimeMs, milliseconds)?,
        given => given,
    };
    Ok(AccessLine {
        time_ms: time(values, last_second)?,
        remote_addr: values.text(Slot::RemoteAddr),
        method: method.or_else(|| values.text(Slot::Method)),
        target: target.or_else(|| values.text(Slot::RequestUri)).or_else(|| values.text(Slot::Uri)),
        protocol: protocol.or_else(|| values.text(Slot::Protocol)),
        status: values.status()?,
        bytes_sent,
        referer: values.text(Slot::Referer),
        agent: values.text(Slot::Agent),
        request_time_ms,
        upstream_response_time: values.text(Slot::UpstreamTime),
        upstream_status: values.text(Slot::UpstreamStatus),
        vhost: values
            .text(Slot::Host)
            .or_else(|| values.text(Slot::ServerName))
            .or_else(|| values.text(Slot::HttpHost)),
        scheme: values.text(Slot::Scheme),
        https: https(
            values.raw_text(Slot::Https),
            values.text(Slot::Scheme),
            values.raw_text(Slot::SslProtocol),
        ),
        ssl_protocol: values.text(Slot::SslProtocol),
    })
}

/// Milliseconds with or without a fraction, which is cut off.
pub(super) fn milliseconds(text: &[u8]) -> Option<u64> {
    seconds_as_ms(text).map(|thousandths| thousandths / 1000)
}

/// The most exact time wins: `$msec` has milliseconds, the others seconds.
fn time(values: &Values<'_, '_>, last_second: &mut LastSecond) -> Result<Option<i64>, Unparsed> {
    for slot in TIMES {
        if let Some((text, column)) = values.with_column(slot) {
            let ms = read_time(slot, text, last_second);
            return ms.map(Some).ok_or(Unparsed::BadTime { column, variable: slot.name() });
        }
    }
    Ok(None)
}

/// A time in the form of its slot, one of [`TIMES`].
#[inline]
pub(super) fn read_time(slot: Slot, text: &[u8], last_second: &mut LastSecond) -> Option<i64> {
    match slot {
        Slot::Msec => epoch_ms(text),
        Slot::TimeLocal => last_second.local(text).or_else(|| last_second.get(text, other_ms)),
        _ => last_second.get(text, any_ms),
    }
}

/// In JSON a key is sometimes named `time_local` and holds another form.
fn other_ms(text: &[u8]) -> Option<i64> {
    iso8601_ms(text).or_else(|| epoch_ms(text))
}

/// Whether the client spoke TLS, from `$https` as it stands, else from the value of `$scheme`, else from `$ssl_protocol` as it
/// stands.
pub(super) fn https(flag: Option<&[u8]>, scheme: Option<&[u8]>, protocol: Option<&[u8]>) -> Option<bool> {
    if let Some(flag) = flag {
        return Some(matches!(flag, b"on" | b"1" | b"true"));
    }
    if let Some(scheme) = scheme {
        return Some(scheme.eq_ignore_ascii_case(b"https"));
    }
    protocol.map(|protocol| !protocol.is_empty() && protocol != b"-")
}

/// A status of at most three digits.
pub(super) fn status_code(text: &[u8]) -> Option<u16> {
    let code = if text.len() <= 3 { whole_number(text) } else { None };
    code.map(|code| code as u16)
}

pub(super) type Request<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, Option<&'a [u8]>);

/// `$request` as method, target and protocol. What is no request (a TLS handshake on a plain port, line noise) has none of them;
/// HTTP/0.9 has no protocol.
pub(super) fn split_request(request: &[u8]) -> Request<'_> {
    if request.first() == Some(&b'/') {
        // Some JSON formats name the path so.
        return (None, Some(request), None);
    }
    let Some(blank) = memchr::memchr(b' ', request) else { return (None, None, None) };
    let method = part(request, 0, blank);
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return (None, None, None);
    }
    let after = rest(request, blank + 1);
    let (target, protocol) = match memchr::memrchr(b' ', after) {
        Some(last) if rest(after, last + 1).starts_with(b"HTTP/") => {
            (part(after, 0, last), Some(rest(after, last + 1)))
        }
        _ => (after, None),
    };
    (Some(method), (!target.is_empty()).then_some(target), protocol)
}

/// The characters of a method (`tchar`, RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
