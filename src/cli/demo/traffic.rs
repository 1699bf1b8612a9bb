//! A seeded stream of log lines in the recommended format: the same seed gives the same shop, day after day.
//!
//! It writes nothing and reads no clock; the writer says at which moment a line stands.

use std::f64::consts::TAU;
use std::fmt::Write;
use std::time::Duration;

use super::sites::{
    BACKENDS, DEFAULT_HOST, REFERERS, RESET_TARGET, ROUTES, Route, SHOP_REFERER, TLS_BYTES_HEAD, USER_AGENTS,
    WORDS,
};
use crate::record::EpochMs;

/// Where the recommended format stands; the demo reads it as any user would paste it.
const RECOMMENDED: &str = include_str!("../../../config/nginx-log-format.conf");
/// Where the format begins in it.
const FORMAT_BEGIN: &str = "log_format watchpost";

/// Length of a pretended day, in seconds: noon and night both fit into a short demo.
const DAY_S: f64 = 40.0;
/// Requests a second at night.
const NIGHT_PER_S: f64 = 60.0;
/// Requests a second at noon, without a burst.
const NOON_PER_S: f64 = 150.0;
/// The demo begins in the morning, with the traffic rising.
const MORNING_S: f64 = 9.0;
/// A burst begins this often, in seconds.
const BURST_EVERY_S: f64 = 13.0;
/// How long it lasts, in seconds.
const BURST_S: f64 = 2.0;
/// How many times more requests it brings.
const BURST_FACTOR: f64 = 4.0 / 3.0;

/// One of so many lines carries a secret; all three numbers are primes, so that they rarely meet.
const SECRET_EVERY: u64 = 149;
/// One of so many is TLS on the port for plain HTTP.
const TLS_EVERY: u64 = 211;
/// One of so many is torn, as after a full disk: the only lines that cannot be parsed.
const TORN_EVERY: u64 = 397;

/// Spread of latencies and sizes: the sigma of a log-normal distribution.
const SPREAD: f64 = 0.55;
/// nginx's own answer to a malformed request, in bytes.
const BAD_REQUEST_BYTES: u32 = 157;
/// nginx's own page for a 502, in bytes.
const BAD_GATEWAY_BYTES: u32 = 552;
/// Of a thousand requests to a backend, how many need a second one on an ordinary day.
const RETRIED_PER_MILLE: u32 = 4;
/// Of a thousand, how many meet the failing backend.
const FAILING_PER_MILLE: u32 = 340;

/// What a line is meant to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ordinary request.
    Request,
    /// One with a secret in its target.
    Secret,
    /// TLS bytes where HTTP was expected; parses, with a request that is none.
    TlsBytes,
    /// The first part of a line; does not parse.
    Torn,
}

/// One line of the log, without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// The `log_format` that the lines are written in, as it stands in nginx.conf, to its semicolon.
pub(super) fn log_format() -> &'static str {
    let begin = RECOMMENDED.find(FORMAT_BEGIN).expect("the file that ships names the format");
    let text = &RECOMMENDED[begin..];
    let end = text.find(';').expect("a directive ends in a semicolon");
    &text[..=end]
}

/// Requests a second, so long after the start: a day's curve with bursts on it, 60 to 200.
pub(super) fn rate_per_s(after_s: f64) -> f64 {
    let height = (1.0 - ((after_s + MORNING_S) / DAY_S * TAU).cos()) / 2.0;
    let burst = if after_s % BURST_EVERY_S >= BURST_EVERY_S - BURST_S { BURST_FACTOR } else { 1.0 };
    (NIGHT_PER_S + (NOON_PER_S - NIGHT_PER_S) * height) * burst
}

/// The visitors, one request after another.
#[derive(Debug)]
pub(super) struct Traffic {
    random: fastrand::Rng,
    number: u64,
    due_s: f64,
}

impl Traffic {
    pub(super) fn new(seed: u64) -> Traffic {
        Traffic { random: fastrand::Rng::with_seed(seed), number: 0, due_s: 0.0 }
    }

    /// When the next request ends, from the start.
    pub(super) fn due(&self) -> Duration {
        Duration::from_secs_f64(self.due_s)
    }

    /// The next line, as nginx writes it when the demo began at `begun_ms`. While `failing`, one backend
    /// answers with errors.
    pub(super) fn next(&mut self, begun_ms: EpochMs, failing: bool) -> Entry {
        let at_ms = begun_ms + self.due().as_millis() as EpochMs;
        let kind = match self.number {
            number if number % SECRET_EVERY == SECRET_EVERY / 2 => Kind::Secret,
            number if number % TLS_EVERY == TLS_EVERY / 2 => Kind::TlsBytes,
            number if number % TORN_EVERY == TORN_EVERY / 2 => Kind::Torn,
            _ => Kind::Request,
        };
        let mut text = match kind {
            Kind::TlsBytes => self.tls_bytes(at_ms),
            _ => self.request(at_ms, kind == Kind::Secret, failing),
        };
        if kind == Kind::Torn {
            text.truncate(text.len() * 2 / 5);
        }
        self.number += 1;
        // The gaps of independent visitors are exponential.
        self.due_s -= (1.0 - self.random.f64()).ln() / rate_per_s(self.due_s);
        Entry { kind, text }
    }

    fn request(&mut self, at_ms: EpochMs, secret: bool, failing: bool) -> String {
        let route = self.route();
        let target = if secret { self.reset_target() } else { self.fill(route.target) };
        let ending = self.ending(route, failing);
        let agent = self.choose(&USER_AGENTS);
        let referer = match route.host {
            DEFAULT_HOST => self.choose(&REFERERS),
            _ => SHOP_REFERER,
        };
        let tls = if self.random.u32(..1000) < 930 { "TLSv1.3" } else { "TLSv1.2" };
        let method = if secret { "GET" } else { route.method };
        Fields {
            client: &self.client(),
            at_ms,
            request: &format!("{method} {target} HTTP/2.0"),
            status: ending.status,
            bytes: ending.bytes,
            referer,
            agent,
            host: if secret { DEFAULT_HOST } else { route.host },
            scheme: "https",
            seconds: ending.seconds,
            upstream: &ending.upstream,
            tls,
        }
        .line()
    }

    fn tls_bytes(&mut self, at_ms: EpochMs) -> String {
        let mut request = TLS_BYTES_HEAD.to_owned();
        for _ in 0..12 {
            // Below 0x20 and above 0x7e nginx escapes; the others would stand as they are.
            let _ = write!(request, "\\x{:02X}", self.random.u8(0x80..));
        }
        Fields {
            client: &self.client(),
            at_ms,
            request: &request,
            status: 400,
            bytes: BAD_REQUEST_BYTES,
            referer: "-",
            agent: "-",
            host: DEFAULT_HOST,
            scheme: "http",
            seconds: 0.09,
            upstream: &Upstream::none(),
            tls: "-",
        }
        .line()
    }

    fn route(&mut self) -> &'static Route {
        let total: u32 = ROUTES.iter().map(|route| route.weight).sum();
        let mut drawn = self.random.u32(..total);
        for route in &ROUTES {
            match drawn.checked_sub(route.weight) {
                Some(rest) => drawn = rest,
                None => return route,
            }
        }
        unreachable!("a number below the sum of the weights falls on one of them")
    }

    /// How a request ends: status, size, time, and who answered.
    fn ending(&mut self, route: &Route, failing: bool) -> Ending {
        let seconds = self.around(route.seconds);
        let status = self.status(route);
        if !route.backend {
            return Ending { status, bytes: self.size(route, status), seconds, upstream: Upstream::none() };
        }
        let first = self.random.usize(..BACKENDS.len());
        let per_mille = if failing { FAILING_PER_MILLE } else { RETRIED_PER_MILLE };
        if self.random.u32(..1000) >= per_mille {
            // A client that closed the connection never let the backend say its status.
            let said = if status == 499 { "-".to_owned() } else { status.to_string() };
            let upstream = Upstream {
                address: BACKENDS[first].to_owned(),
                status: said,
                seconds: format!("{seconds:.3}"),
            };
            return Ending { status, bytes: self.size(route, status), seconds: seconds + 0.001, upstream };
        }
        // proxy_next_upstream: the first backend fails, another is asked, and on a bad day fails as well.
        let second = (first + 1) % BACKENDS.len();
        let gives_up = failing && self.random.u32(..3) > 0;
        let status = if gives_up { 502 } else { status };
        let (failed, bytes) = (self.around(0.004), self.size(route, status));
        let said = if status == 499 { "-".to_owned() } else { status.to_string() };
        let upstream = Upstream {
            address: format!("{}, {}", BACKENDS[first], BACKENDS[second]),
            status: format!("502, {said}"),
            seconds: format!("{failed:.3}, {seconds:.3}"),
        };
        let bytes = if gives_up { BAD_GATEWAY_BYTES } else { bytes };
        Ending { status, bytes, seconds: failed + seconds + 0.001, upstream }
    }

    fn status(&mut self, route: &Route) -> u16 {
        let mut drawn = self.random.u32(..1000);
        for (status, per_mille) in route.rare {
            match drawn.checked_sub(*per_mille) {
                Some(rest) => drawn = rest,
                None => return *status,
            }
        }
        route.status
    }

    fn size(&mut self, route: &Route, status: u16) -> u32 {
        match status {
            204 | 304 | 499 => 0,
            400.. => BAD_GATEWAY_BYTES,
            _ => self.around(f64::from(route.bytes)) as u32,
        }
    }

    /// A draw from a log-normal distribution with this median (Box and Muller 1958).
    fn around(&mut self, median: f64) -> f64 {
        let (radius, angle) = (1.0 - self.random.f64(), self.random.f64());
        let normal = (-2.0 * radius.ln()).sqrt() * (angle * TAU).cos();
        median * (SPREAD * normal).exp()
    }

    /// Few clients come often, many rarely.
    fn client(&mut self) -> String {
        let often = self.random.f64().powi(3);
        let number = (often * 250.0) as u8 + 1;
        match self.random.u8(..8) {
            0 => format!("2001:db8:{:x}::{number:x}", self.random.u16(1..200)),
            1..4 => format!("198.51.100.{number}"),
            _ => format!("203.0.113.{number}"),
        }
    }

    fn reset_target(&mut self) -> String {
        format!("{RESET_TARGET}{:016x}&lang=en", self.random.u64(..))
    }

    /// A target with its placeholders filled in.
    fn fill(&mut self, pattern: &str) -> String {
        let mut out = String::new();
        let mut rest = pattern;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').expect("the table closes its braces");
            out.push_str(before);
            let _ = match name {
                "id" => write!(out, "{}", self.random.u32(10_000..99_999)),
                "page" => write!(out, "{}", self.random.u32(1..12)),
                "word" => write!(out, "{}", self.choose(&WORDS)),
                "hash" => write!(out, "{:08x}", [0x3fa9_10c2_u32, 0x77b0_4e1d][self.random.usize(..2)]),
                _ => {
                    let (high, low) = (self.random.u64(..), self.random.u64(..));
                    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xfff);
                    write!(out, "{a:08x}-{b:04x}-4{c:03x}-a{:03x}-{:012x}", low >> 52, low & 0xffff_ffff_ffff)
                }
            };
            rest = after;
        }
        out + rest
    }

    fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.usize(..from.len())]
    }
}

/// How a request ended.
struct Ending {
    status: u16,
    bytes: u32,
    seconds: f64,
    upstream: Upstream,
}

/// The three `$upstream_*` variables, each a list.
struct Upstream {
    address: String,
    status: String,
    seconds: String,
}

impl Upstream {
    /// nginx answered by itself.
    fn none() -> Upstream {
        let dash = || "-".to_owned();
        Upstream { address: dash(), status: dash(), seconds: dash() }
    }
}

/// The variables of the recommended format.
struct Fields<'a> {
    client: &'a str,
    at_ms: EpochMs,
    request: &'a str,
    status: u16,
    bytes: u32,
    referer: &'a str,
    agent: &'a str,
    host: &'a str,
    scheme: &'a str,
    seconds: f64,
    upstream: &'a Upstream,
    tls: &'a str,
}

impl Fields<'_> {
    fn line(&self) -> String {
        let Fields { client, request, status, bytes, referer, agent, host, scheme, tls, .. } = self;
        let Upstream { address, status: answered, seconds } = self.upstream;
        let time = jiff::Timestamp::from_millisecond(self.at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let time = time.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let (at_s, at_ms) = (self.at_ms.div_euclid(1000), self.at_ms.rem_euclid(1000));
        format!(
            "{client} - - [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\" \
             msec={at_s}.{at_ms:03} host=\"{host}\" scheme={scheme} request_time={:.3} \
             upstream_addr=\"{address}\" upstream_status=\"{answered}\" \
             upstream_response_time=\"{seconds}\" ssl_protocol={tls}",
            self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use watchpost_parsers::{Format, Parser, route};

    use super::*;

    const BEGUN_MS: EpochMs = 1_790_000_000_123;

    fn entries(seed: u64, number: usize, failing: bool) -> Vec<Entry> {
        let mut traffic = Traffic::new(seed);
        (0..number).map(|_| traffic.next(BEGUN_MS, failing)).collect()
    }

    #[test]
    fn a_seed_replays_the_day() {
        assert_eq!(entries(7, 500, false), entries(7, 500, false));
        assert_ne!(entries(7, 500, false), entries(8, 500, false));
    }

    #[test]
    fn every_line_parses_but_the_torn_ones() {
        let mut parser = Parser::new(Format::from_log_format(log_format()).expect("the shipped format"));
        let mut traffic = Traffic::new(1);
        let mut kinds = BTreeMap::new();
        let (mut hosts, mut statuses, mut routes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for number in 0..20_000 {
            let at_ms = BEGUN_MS + traffic.due().as_millis() as EpochMs;
            let Entry { kind, text } = traffic.next(BEGUN_MS, number >= 15_000);
            assert!(text.is_ascii() && !text.contains('\n'), "{text:?}");
            *kinds.entry(format!("{kind:?}")).or_insert(0) += 1;
            let parsed = parser.parse(text.as_bytes());
            if kind == Kind::Torn {
                assert!(parsed.is_err(), "{text}");
                continue;
            }
            let line = parsed.unwrap_or_else(|reason| panic!("{reason}: {text}"));
            assert_eq!(line.time_ms, Some(at_ms), "{text}");
            assert!(line.request_time_ms.is_some() && line.bytes_sent.is_some(), "{text}");
            statuses.insert(line.status.expect("a status"));
            if kind == Kind::TlsBytes {
                assert_eq!((line.status, line.method), (Some(400), None), "{text}");
                continue;
            }
            hosts.insert(String::from_utf8_lossy(line.vhost.expect("a host")).into_owned());
            let mut name = String::new();
            route::route(line.method, line.target, &mut name);
            routes.insert(name);
        }
        assert_eq!(kinds.keys().collect::<Vec<_>>(), ["Request", "Secret", "TlsBytes", "Torn"]);
        assert_eq!(hosts.len(), 3, "{hosts:?}");
        assert!((12..40).contains(&routes.len()), "{routes:?}");
        let expected = [200, 204, 206, 301, 304, 400, 404, 499, 500, 502];
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn secrets_are_such_as_are_masked() {
        let redactor = crate::batch::redact::Redactor::new(&[]);
        for Entry { kind, text } in entries(3, 2_000, false) {
            let masked = redactor.mask(text.as_bytes(), &mut Vec::new()).is_some();
            assert_eq!(masked, kind == Kind::Secret, "{text}");
        }
    }

    #[test]
    fn a_failing_backend_is_seen_and_passes() {
        let share = |failing| {
            let entries = entries(5, 4_000, failing);
            let bad = entries.iter().filter(|entry| entry.text.contains(" 502 552 ")).count();
            bad as f64 / entries.len() as f64
        };
        assert!(share(false) < 0.005 && share(true) > 0.1, "{} {}", share(false), share(true));
    }

    #[test]
    fn the_rate_follows_the_plan() {
        let rates: Vec<f64> = (0..4_000).map(|tenth| rate_per_s(f64::from(tenth) / 10.0)).collect();
        let (least, most) =
            rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
        assert!((59.9..65.0).contains(&least) && (190.0..200.1).contains(&most), "{least} {most}");
        let mut traffic = Traffic::new(11);
        let mut counts = [0_u32; 40];
        while let Some(count) = counts.get_mut(traffic.due().as_secs() as usize) {
            traffic.next(BEGUN_MS, false);
            *count += 1;
        }
        for (second, count) in counts.iter().enumerate() {
            let expected: f64 =
                (0..10).map(|tenth| rate_per_s(second as f64 + f64::from(tenth) / 10.0)).sum::<f64>() / 10.0;
            // Five standard deviations of a Poisson count.
            let tolerance = 5.0 * expected.sqrt();
            assert!(
                (f64::from(*count) - expected).abs() < tolerance,
                "second {second}: {count}, not {expected}"
            );
        }
    }
}
