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
use super::parser::{Request, https, milliseconds, read_time, split_request, status_code};
use super::variable::{Slot, TIMES};
use super::{AccessLine, Field};
use crate::bytes::{part, rest, seconds_as_ms, stands_at, whole_number};
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

    /// Puts the line into `parsed`, which is empty, as the plain way reads it; or None: the plain way has to.
    pub(crate) fn read<'a>(
        self,
        program: &Program,
        line: &'a [u8],
        parsed: &mut AccessLine<'a>,
        last_second: &mut LastSecond,
    ) -> Option<()> {
        let has_escapes = || memchr::memchr(b'\\', line).is_some();
        if !stands_at(line, 0, &program.head) || (program.decodes() && has_escapes()) {
            return None;
        }
        let (at, done) = match self.begins_as_combined {
            true => (self.beginning(program, line, parsed, last_second)?, combined::STEPS),
            false => (program.head.len(), 0),
        };
        let end = match program.steps.get(done..) {
            Some(steps @ [_, ..]) => self.steps(steps, line, at, parsed, last_second)?,
            _ => at,
        };
        (end == line.len()).then_some(())
    }

    /// Reads the values of a line that begins as `combined`; answers where the next step begins.
    #[inline]
    fn beginning<'a>(
        self,
        program: &Program,
        line: &'a [u8],
        parsed: &mut AccessLine<'a>,
        last_second: &mut LastSecond,
    ) -> Option<usize> {
        let values: Beginning<'a> = combined::read(line)?;
        let after = &program.steps.get(combined::STEPS - 1)?.after;
        if !stands_at(values.rest, 0, after) {
            return None;
        }
        parsed.time_ms = match self.time {
            Some(Slot::TimeLocal) => Some(read_time(Slot::TimeLocal, values.time, last_second)?),
            _ if local_shape(values.time) => None,
            _ => return None,
        };
        if let Some(text) = given(values.request) {
            (parsed.method, parsed.target, parsed.protocol) = request(text);
        }
        parsed.remote_addr = given(values.remote_addr);
        parsed.status = Some(values.status);
        parsed.bytes_sent = Some(values.bytes_sent);
        parsed.referer = given(values.referer);
        parsed.agent = given(values.agent);
        Some(line.len() - values.rest.len() + after.len())
    }

    /// Reads the values of `steps`, the last ones of the format; answers where the line has to end.
    fn steps<'a>(
        self,
        steps: &[Step],
        line: &'a [u8],
        mut at: usize,
        parsed: &mut AccessLine<'a>,
        last_second: &mut LastSecond,
    ) -> Option<usize> {
        let mut tls = Tls::default();
        let last = steps.len() - 1;
        for (index, step) in steps.iter().enumerate() {
            let end = end_of(step, line, at, index == last)?;
            if let Use::One(slot) = step.usage {
                self.give(slot, part(line, at, end), parsed, &mut tls, last_second)?;
            }
            at = end + step.after.len();
        }
        parsed.https = https(tls.flag, parsed.scheme, tls.protocol);
        Some(at)
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
                (parsed.method, parsed.target, parsed.protocol) = text.map_or((None, None, None), request);
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

/// Splits a request; of what nearly all of them are, only the ends are looked at.
#[inline]
fn request(text: &[u8]) -> Request<'_> {
    usual_request(text).unwrap_or_else(|| split_request(text))
}

/// The usual protocols, each as one number.
const PROTOCOLS: [u64; 3] =
    [u64::from_le_bytes(*b"HTTP/1.1"), u64::from_le_bytes(*b"HTTP/1.0"), u64::from_le_bytes(*b"HTTP/2.0")];

#[inline]
fn usual_request(text: &[u8]) -> Option<Request<'_>> {
    let (before, [b' ', protocol @ ..]) = text.split_last_chunk::<9>()? else { return None };
    if !PROTOCOLS.contains(&u64::from_le_bytes(*protocol)) {
        return None;
    }
    let method_bytes = match before {
        [b'G', b'E', b'T', b' ', _, ..] => 3,
        [b'P', b'O', b'S', b'T', b' ', _, ..] | [b'H', b'E', b'A', b'D', b' ', _, ..] => 4,
        _ => return None,
    };
    let (method, target) = (part(before, 0, method_bytes), rest(before, method_bytes + 1));
    Some((Some(method), Some(target), Some(rest(text, before.len() + 1))))
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
