//! Everything that is counted of lines, in memory that no input makes larger.
//!
//! Invariant: `lines` is `requests` and the unparsed together, and every table sums to the requests. What it must
//! never do: allocate for a line like the ones before it.

use watchpost_parsers::routes::Routes;
use watchpost_parsers::{AccessLine, Unparsed, route};

use super::rates::{Seconds, Series};
use super::top::{Hit, Top};
use crate::agent::line_reader::LineReader;
use crate::record::EpochMs;
use crate::window::Sketch;

/// Names of a table in memory. Only the busiest are shown; the more are counted, the later a flood of names
/// (scanners, tokens in paths) can make a row a lower bound.
const ROWS_MAX: usize = 16_384;
// The place of a row is noted with its route.
const _: () = assert!(ROWS_MAX <= u16::MAX as usize);

/// Bytes of a name that are kept; longer ones with the same beginning are one.
const NAME_BYTES_MAX: usize = 256;

/// One place for each status: three digits.
const STATUS_CODES: usize = 1_000;

/// The year 9999: times beyond it, or before 1970, are broken numbers.
const EPOCH_MS_MAX: EpochMs = 253_402_300_799_999;

/// What a missing value is called, as in the log.
const NONE: &[u8] = b"-";

/// Switching protocols: the line of a WebSocket, whose request time is the length of its whole session.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Methods by name, and every other.
const METHODS: usize = route::KNOWN_METHODS.len() + 1;

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the file, in the order given.
    pub(super) file: usize,
    /// Number of the line in it, from 1.
    pub(super) line: u64,
}

/// Lines that did not parse for one reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejected {
    /// The first of them.
    pub(super) reason: Unparsed,
    pub(super) first: Place,
    pub(super) lines: u64,
}

/// Where the names of a client's last request likely stand: a visitor keeps its browser, and asks for several things from one page.
#[derive(Clone, Copy, Default)]
struct Visit {
    agent: u32,
    referer: u32,
}

/// The counts.
pub(super) struct Tally {
    pub(super) lines: u64,
    pub(super) requests: u64,
    pub(super) truncated: u64,
    pub(super) rejected: Vec<Rejected>,
    pub(super) bytes_sent: u64,
    pub(super) errors: u64,
    status: Box<[u64; STATUS_CODES]>,
    pub(super) without_status: u64,
    pub(super) without_time: u64,
    pub(super) first_last_ms: Option<(EpochMs, EpochMs)>,
    methods: [u64; METHODS],
    pub(super) latency: Sketch,
    pub(super) seconds: Seconds,
    pub(super) series: Series,
    pub(super) vhosts: Top,
    pub(super) routes: Top,
    pub(super) agents: Top,
    pub(super) referers: Top,
    pub(super) clients: Top,
    /// By the client's place: of another client after a prune, which costs a look-up.
    visits: Vec<Visit>,
    known_routes: Routes,
    /// The virtual host of the last request, as it was spelled and as it is counted.
    vhost: (Vec<u8>, Vec<u8>),
}

impl Tally {
    /// Nothing counted.
    pub(super) fn new() -> Tally {
        let top = || Top::new(ROWS_MAX);
        Tally {
            lines: 0,
            requests: 0,
            truncated: 0,
            rejected: Vec::new(),
            bytes_sent: 0,
            errors: 0,
            status: Box::new([0; STATUS_CODES]),
            without_status: 0,
            without_time: 0,
            first_last_ms: None,
            methods: [0; METHODS],
            latency: Sketch::default(),
            seconds: Seconds::new(),
            series: Series::new(),
            vhosts: top(),
            routes: top(),
            agents: top(),
            referers: top(),
            clients: top(),
            visits: Vec::new(),
            known_routes: Routes::new(),
            // A log of one host may name it so.
            vhost: (Vec::new(), NONE.to_vec()),
        }
    }

    /// Counts one line; `cut` says that it is the beginning of a longer one.
    pub(super) fn take(&mut self, reader: &mut LineReader, line: &[u8], cut: bool, place: Place) {
        self.lines += 1;
        self.truncated += u64::from(cut);
        let mut parsed = AccessLine::default();
        match reader.parse(line, &mut parsed) {
            Ok(()) => self.request(&parsed),
            Err(reason) => self.reject(reason, place),
        }
    }

    fn reject(&mut self, reason: Unparsed, place: Place) {
        match self.rejected.iter_mut().find(|known| known.reason.name() == reason.name()) {
            Some(known) => known.lines += 1,
            None => self.rejected.push(Rejected { reason, first: place, lines: 1 }),
        }
    }

    fn request(&mut self, parsed: &AccessLine<'_>) {
        self.requests += 1;
        let bytes_sent = parsed.bytes_sent.unwrap_or(0);
        self.bytes_sent = self.bytes_sent.saturating_add(bytes_sent);
        match parsed.status.and_then(|status| self.status.get_mut(usize::from(status))) {
            Some(count) => *count += 1,
            None => self.without_status += 1,
        }
        let error = parsed.status.is_some_and(|status| status / 100 == 5);
        self.errors += u64::from(error);
        let latency_ms = parsed.request_time_ms.filter(|_| parsed.status != Some(SWITCHING_PROTOCOLS));
        if let Some(latency_ms) = latency_ms {
            self.latency.add(latency_ms);
        }
        self.time(parsed.time_ms, error);
        self.methods[method_index(parsed.method)] += 1;
        self.names(parsed, Hit { error, bytes_sent, latency_ms });
    }

    fn time(&mut self, time_ms: Option<EpochMs>, error: bool) {
        let Some(time_ms) = time_ms.filter(|time_ms| (0..=EPOCH_MS_MAX).contains(time_ms)) else {
            self.without_time += 1;
            return;
        };
        let (first, last) = self.first_last_ms.unwrap_or((time_ms, time_ms));
        self.first_last_ms = Some((first.min(time_ms), last.max(time_ms)));
        let second = time_ms / 1_000;
        self.seconds.add(second);
        self.series.add(second, error);
    }

    fn names(&mut self, parsed: &AccessLine<'_>, hit: Hit) {
        let known = self.known_routes.of(parsed.method, parsed.target);
        *known.note = self.routes.add_at(usize::from(*known.note), known.route, hit) as u16;
        let (spelled, name) = &mut self.vhost;
        let raw = parsed.vhost.unwrap_or(NONE);
        if *spelled != raw {
            vhost_name(raw, name);
            spelled.clear();
            spelled.extend_from_slice(raw);
        }
        self.vhosts.add(name, hit);
        let client = self.clients.add(beginning(parsed.remote_addr.unwrap_or(NONE)), hit);
        if self.visits.len() <= client {
            self.visits.resize(client + 1, Visit::default());
        }
        let visit = &mut self.visits[client];
        let agent = beginning(parsed.agent.unwrap_or(NONE));
        visit.agent = self.agents.add_at(visit.agent as usize, agent, hit) as u32;
        let referer = parsed.referer.map_or(NONE, |referer| beginning(without_query(referer)));
        visit.referer = self.referers.add_at(visit.referer as usize, referer, hit) as u32;
    }

    /// Lines that did not parse.
    pub(super) fn unparsed(&self) -> u64 {
        self.rejected.iter().map(|rejected| rejected.lines).sum()
    }

    /// Each status that was seen, and how often.
    pub(super) fn status(&self) -> impl Iterator<Item = (u16, u64)> {
        (0u16..).zip(self.status.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Each method that was seen, and how often.
    pub(super) fn methods(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = route::KNOWN_METHODS.into_iter().chain([route::OTHER_METHOD]);
        names.zip(self.methods).filter(|(_, count)| *count > 0)
    }
}

fn method_index(method: Option<&[u8]>) -> usize {
    let known = |name: &&str| method == Some(name.as_bytes());
    route::KNOWN_METHODS.iter().position(known).unwrap_or(METHODS - 1)
}

fn beginning(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES_MAX)]
}

/// A referer without what tells visits apart and may be secret.
fn without_query(referer: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', referer).unwrap_or(referer.len());
    &referer[..end]
}

/// `Example.COM:443` and `example.com.` are one vhost.
fn vhost_name(raw: &[u8], name: &mut Vec<u8>) {
    let colon = raw.iter().rposition(|byte| *byte == b':').filter(|colon| {
        let (host, port) = (&raw[..*colon], &raw[*colon + 1..]);
        port.iter().all(u8::is_ascii_digit) && (!host.contains(&b':') || host.ends_with(b"]"))
    });
    let host = colon.map_or(raw, |colon| &raw[..colon]);
    let host = host.strip_suffix(b".").unwrap_or(host);
    name.clear();
    name.extend_from_slice(beginning(if host.is_empty() { NONE } else { host }));
    name.make_ascii_lowercase();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vhosts_are_spelled_one_way() {
        let check = |raw: &str, expected: &str| {
            let mut name = Vec::new();
            vhost_name(raw.as_bytes(), &mut name);
            assert_eq!(String::from_utf8_lossy(&name), expected);
        };
        check("Example.COM:443", "example.com");
        check("example.com.:80", "example.com");
        check("[::1]:8080", "[::1]");
        check("::1", "::1");
        check(":80", "-");
    }

    #[test]
    fn referers_lose_their_query() {
        assert_eq!(without_query(b"https://a.example/b?token=c#d"), b"https://a.example/b");
        assert_eq!(without_query(b"-"), b"-");
    }
}
