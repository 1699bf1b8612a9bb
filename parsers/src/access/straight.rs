//! The fast way through a line of a known format: each step once, from left to right, each value read where it is found.
//!
//! Reason: nearly every line of a log is one that its format describes at the first try. The plain way (`literal`, then `parser`)
//! notes where each value lies, can go back, remembers what a message would need, and asks for every value that any format could
//! give; it took twice the time.
//!
//! What it must never do: differ. It answers what the plain way would, or nothing, and then the plain way decides: for a line that
//! does not match at once, for a value that is none, for formats that give one field twice. The tests hold the two to each other.

use super::combined::{self, Beginning};
use super::literal::{Class, Program, Step, Use, extent, find};
use super::parser::{https, milliseconds, read_time, split_request, status_code};
use super::variable::{Slot, TIMES};
use super::{AccessLine, Field};
use crate::bytes::{part, seconds_as_ms, stands_at, whole_number};
use crate::time::{LastSecond, local_shape};
use alloc::vec::Vec;

/// What a format needs to be read so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Straight {
    /// The most exact time that the format has.
    time: Option<Slot>,
    /// The first steps are those of nginx's `combined`.
    begins_as_combined: bool,
}

/// What `https` is concluded from, as it stands in the line.
#[derive(Default)]
struct Tls<'a> {
    flag: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
}

impl Straight {
    /// None where a format gives one field in two places: which of them counts depends on the line.
    pub(crate) fn new(program: &Program) -> Option<Straight> {
        let slots: Vec<Slot> = program.slots().collect();
        let givers = |field: &Field| slots.iter().filter(|slot| slot.gives().contains(field)).count();
        let is_plain = |field: &Field| matches!(field, Field::Time | Field::Https) || givers(field) <= 1;
        let parted = program.steps.iter().any(|step| matches!(step.usage, Use::SplitAtSlash(..)));
        let time = TIMES.into_iter().find(|time| slots.contains(time));
        let begins_as_combined = program.head.is_empty() && combined::begins(&program.steps);
        (!parted && Field::ALL.iter().all(is_plain)).then_some(Straight { time, begins_as_combined })
    }

    /// The line as the plain way reads it, or None: the plain way has to.
    pub(crate) fn read<'a>(
        self,
        program: &Program,
        line: &'a [u8],
        last_second: &mut LastSecond,
    ) -> Option<AccessLine<'a>> {
        let has_escapes = || memchr::memchr(b'\\', line).is_some();
        if !stands_at(line, 0, &program.head) || (program.decodes() && has_escapes()) {
            return None;
        }
        let (mut parsed, mut at, done) = match self.begins_as_combined {
            true => self.beginning(program, combined::read(line)?, line.len(), last_second)?,
            false => (AccessLine::default(), program.head.len(), 0),
        };
        let mut tls = Tls::default();
        let last = program.steps.len().checked_sub(1)?;
        for (index, step) in program.steps.iter().enumerate().skip(done) {
            let end = end_of(step, line, at, index == last)?;
            if let Use::One(slot) = step.usage {
                self.give(slot, part(line, at, end), &mut parsed, &mut tls, last_second)?;
            }
            at = end + step.after.len();
        }
        parsed.https = https(tls.flag, parsed.scheme, tls.protocol);
        (at == line.len()).then_some(parsed)
    }

    /// The line so far, where its next step begins, and how many steps are done.
    fn beginning<'a>(
        self,
        program: &Program,
        values: Beginning<'a>,
        line_bytes: usize,
        last_second: &mut LastSecond,
    ) -> Option<(AccessLine<'a>, usize, usize)> {
        let after = &program.steps.get(combined::STEPS - 1)?.after;
        if !values.rest.starts_with(after) {
            return None;
        }
        let time_ms = match self.time {
            Some(Slot::TimeLocal) => Some(read_time(Slot::TimeLocal, values.time, last_second)?),
            _ if local_shape(values.time) => None,
            _ => return None,
        };
        let (method, target, protocol) = given(values.request).map_or((None, None, None), split_request);
        let parsed = AccessLine {
            time_ms,
            remote_addr: given(values.remote_addr),
            method,
            target,
            protocol,
            status: Some(values.status),
            bytes_sent: Some(values.bytes_sent),
            referer: given(values.referer),
            agent: given(values.agent),
            ..AccessLine::default()
        };
        Some((parsed, line_bytes - values.rest.len() + after.len(), combined::STEPS))
    }

    /// Puts a value into its field; None where it is not one.
    fn give<'a>(
        self,
        slot: Slot,
        raw: &'a [u8],
        parsed: &mut AccessLine<'a>,
        tls: &mut Tls<'a>,
        last_second: &mut LastSecond,
    ) -> Option<()> {
        let text = given(raw);
        let number = |read: fn(&[u8]) -> Option<u64>| match text {
            None => Some(None),
            Some(text) => read(text).map(Some),
        };
        match slot {
            Slot::RemoteAddr => parsed.remote_addr = text,
            Slot::Request => {
                (parsed.method, parsed.target, parsed.protocol) =
                    text.map_or((None, None, None), split_request);
            }
            Slot::Method => parsed.method = text,
            Slot::RequestUri | Slot::Uri => parsed.target = text,
            Slot::Protocol => parsed.protocol = text,
            Slot::Status => {
                parsed.status = match text {
                    None => None,
                    Some(text) => Some(status_code(text)?),
                };
            }
            Slot::BodyBytes | Slot::Bytes => parsed.bytes_sent = number(whole_number)?,
            Slot::Referer => parsed.referer = text,
            Slot::Agent => parsed.agent = text,
            Slot::RequestTime => parsed.request_time_ms = number(seconds_as_ms)?,
            Slot::RequestTimeMs => parsed.request_time_ms = number(milliseconds)?,
            Slot::UpstreamTime => parsed.upstream_response_time = text,
            Slot::UpstreamStatus => parsed.upstream_status = text,
            Slot::Host | Slot::ServerName | Slot::HttpHost => parsed.vhost = text,
            Slot::Scheme => parsed.scheme = text,
            Slot::Https => tls.flag = Some(raw),
            Slot::SslProtocol => (parsed.ssl_protocol, tls.protocol) = (text, Some(raw)),
            // A missing time leaves the choice to the next exact one.
            time if Some(time) == self.time => parsed.time_ms = Some(read_time(time, text?, last_second)?),
            _ => {}
        }
        Some(())
    }
}

/// A value, unless nginx says that there is none.
#[inline]
fn given(raw: &[u8]) -> Option<&[u8]> {
    (!matches!(raw, [] | [b'-'])).then_some(raw)
}

/// Where the value of a step ends, if the text after it stands there.
fn end_of(step: &Step, line: &[u8], at: usize, is_last: bool) -> Option<usize> {
    if step.class == Class::Free && !is_last {
        return find(line, at, &step.after);
    }
    let end = match step.class {
        Class::Free => line.len().checked_sub(step.after.len()).filter(|end| *end >= at)?,
        _ => extent(step, line, at)?,
    };
    stands_at(line, end, &step.after).then_some(end)
}
