//! Rolling rates, quantiles, top lists and summaries of web requests, by event time.
//!
//! A request belongs to the second in which it was logged. Windows end at the watermark, the
//! second before which every followed file has been read; late lines correct their second; what
//! is too old or from the future is counted apart; and whatever happens, parts sum to totals.
//! This module owns those numbers and their durable form. It never reads a clock, a file or the
//! environment: times come in with the lines.
//!
//! `ring` holds seconds, `recent` ten-second slots, `top` the bounded tables, `candidates` who
//! waits for a row of theirs, `spellings` where hosts lately stood in them, `intervals` what will
//! be shipped, `watermark` decides how far all of it is complete, `state` makes it durable.

mod answer;
mod candidates;
mod counts;
mod durable;
mod intervals;
mod names;
mod recent;
mod ring;
mod sketch;
mod spellings;
mod state;
mod summary;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed expectation is a failed test
mod tests;
mod top;
mod view;
mod watermark;

pub use counts::StatusCounts;
pub use sketch::Sketch;
pub use summary::Summary;
pub use view::{
    HistoryView, LatencyView, RouteLatencyView, RouteView, TotalsView, VhostView, WebView, WindowView,
    WindowsView,
};

use crate::record::EpochMs;
use counts::{Counts, SWITCHING_PROTOCOLS};
use intervals::Intervals;
use recent::{Recent, slot_of};
use ring::Ring;
use sketch::Measured;
use spellings::Spellings;
use state::{Journal, Key, Level, Mark, RecentKind};
use top::{Hit, Table};
use watermark::Watermark;

/// Length of a shipped summary where the settings say nothing, in seconds.
pub const SUMMARY_INTERVAL_S: u32 = 10;
/// Vhosts with a row of their own; the others share `_other`.
pub const VHOSTS_MAX: usize = 100;
/// Routes with a row of their own; the others share `_other`.
pub const ROUTES_MAX: usize = 200;
/// A line may be this far ahead of the moment it was read at (clocks of containers, rounding).
pub const FUTURE_TOLERANCE_MS: EpochMs = 2_000;

/// Ten-second slots of latency kept: five minutes, the longest lateness, and room for the newest.
const LATENCY_SLOTS: usize = 40;
/// Statuses counted one by one; nginx prints three digits.
const CODES_MAX: usize = 1000;
/// Rows of the tables lose half of their standing each time the watermark has moved this far.
const STANDING_HALVES_S: i64 = 300;
/// Changed keys that may wait while nobody asks for changes, before those gone are dropped.
const PENDING_MAX: usize = 32_768;
/// The year 9999: times beyond it, or before 1970, are broken numbers.
const EPOCH_MS_MAX: EpochMs = 253_402_300_799_999;

/// How much to keep and how often to summarize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Length of a shipped summary, in seconds; at least one.
    pub summary_interval_s: u32,
    /// Vhosts with a row of their own.
    pub vhosts_max: usize,
    /// Routes with a row of their own.
    pub routes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { summary_interval_s: SUMMARY_INTERVAL_S, vhosts_max: VHOSTS_MAX, routes_max: ROUTES_MAX }
    }
}

/// One parsed line, as far as the windows look at it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// When it was logged; `None` where the format tells no time, and then the moment of reading stands.
    pub time_ms: Option<EpochMs>,
    /// The status as printed; 0 and 9 occur.
    pub status: u16,
    /// Bytes sent to the client.
    pub bytes_sent: u64,
    /// Request time; `None` where the format tells none.
    pub request_time_ms: Option<u64>,
    /// The virtual host as the client spelled it.
    pub vhost: Option<&'a [u8]>,
    /// The route, of any bytes.
    pub route: &'a [u8],
    /// What [`Windows::observe`] answered for this route before; any number where it was not asked yet. It saves looking the
    /// route up, and is checked.
    pub route_row: u16,
}

/// How far a readable followed file was read at this tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileProgress {
    /// The file's number, as in [`Windows::observe`].
    pub file: u32,
    /// It was read to its end.
    pub caught_up: bool,
}

/// Cumulative counts since the first start.
#[derive(Debug)]
struct Totals {
    counts: Counts,
    unparsed: u64,
    late: u64,
    skewed: u64,
    codes: Box<[u64; CODES_MAX]>,
    mark: Mark,
}

/// All windows of one agent.
#[derive(Debug)]
pub struct Windows {
    watermark: Watermark,
    ring: Ring,
    latency: Recent<Sketch>,
    vhosts: Table,
    routes: Table,
    spellings: Spellings,
    intervals: Intervals,
    totals: Totals,
    /// The first second that is wholly observed.
    observed_from: i64,
    /// History read from the beginning of a file may move `observed_from` back to here only.
    observed_floor: i64,
    unknown: Option<String>,
    halved_at: i64,
    damaged: u64,
    meta_mark: Mark,
    journal: Journal,
    scratch: String,
}

/// The first whole second from a moment on.
fn next_second(moment: EpochMs) -> i64 {
    moment.clamp(0, EPOCH_MS_MAX).div_euclid(1000) + i64::from(moment.rem_euclid(1000) != 0)
}

fn second_of(moment: EpochMs) -> i64 {
    moment.clamp(0, EPOCH_MS_MAX).div_euclid(1000)
}

impl Windows {
    /// Windows of an agent that never ran before.
    ///
    /// Files are taken to be read from their beginning: observation reaches back to their first
    /// event. Call [`Windows::gap`] where one starts at its end.
    pub fn new(options: Options, started_ms: EpochMs) -> Windows {
        let vhosts = Table::new(Level::Vhost, options.vhosts_max);
        let other = options.vhosts_max.min(usize::from(u16::MAX) - 1) as u16;
        Windows {
            watermark: Watermark::default(),
            ring: Ring::default(),
            latency: Recent::new(RecentKind::Latency, LATENCY_SLOTS),
            vhosts,
            routes: Table::new(Level::Route, options.routes_max),
            spellings: Spellings::default(),
            intervals: Intervals::new(options.summary_interval_s, other),
            totals: Totals {
                counts: Counts::default(),
                unparsed: 0,
                late: 0,
                skewed: 0,
                codes: Box::new([0; CODES_MAX]),
                mark: Mark::default(),
            },
            observed_from: next_second(started_ms),
            observed_floor: 0,
            unknown: None,
            halved_at: 0,
            damaged: 0,
            meta_mark: Mark::default(),
            journal: Journal::default(),
            scratch: String::new(),
        }
    }

    /// Announces a file. `flush_ms_hint` is `flush=` of its `access_log`: its lines may be that late.
    pub fn set_file(&mut self, file: u32, flush_ms_hint: Option<u64>) {
        self.watermark.set_file(file, flush_ms_hint);
    }

    /// The file is no longer followed; what it told stays.
    pub fn forget_file(&mut self, file: u32) {
        self.watermark.forget_file(file, &mut self.journal);
    }

    /// Lines before `from` were not seen: a file starts at its end, or could not be resumed.
    /// Coverage begins there.
    pub fn gap(&mut self, from: EpochMs) {
        self.observed_from = next_second(from);
        self.observed_floor = self.observed_from;
        self.journal.touch(&mut self.meta_mark, Key::Meta);
    }

    /// Says that no access log can be read, and why; rates are then null, not zero. `None` takes
    /// it back.
    pub fn set_unknown(&mut self, reason: Option<String>) {
        self.unknown = reason;
    }

    /// Counts a parsed line of `file` that was read at `read_at`. Answers where its route stands, for [`Request::route_row`].
    pub fn observe(&mut self, file: u32, read_at: EpochMs, request: &Request<'_>) -> u16 {
        let read_at = read_at.clamp(0, EPOCH_MS_MAX);
        let told = request.time_ms.map(|time| time.max(0));
        let skewed = told.is_some_and(|time| time > read_at + FUTURE_TOLERANCE_MS);
        let time = told.filter(|_| !skewed).unwrap_or(read_at);
        let second = second_of(time);
        let history = !skewed && self.watermark.note(file, read_at, time, &mut self.journal);

        self.total(request, skewed);
        let kept = !skewed && self.count_second(second, request);
        if kept && history && second < self.observed_from && second >= self.observed_floor {
            self.observed_from = second;
            self.journal.touch(&mut self.meta_mark, Key::Meta);
        }
        if !kept && !skewed {
            self.totals.late += 1;
        }
        let latency_ms = request.request_time_ms.filter(|_| request.status != SWITCHING_PROTOCOLS);
        let latency = latency_ms.map(Measured::new);
        let slot = kept.then(|| slot_of(second));
        if let (Some(latency), Some(slot)) = (latency, slot)
            && let Some(sketch) = self.latency.slot(slot, &mut self.journal)
        {
            sketch.add_measured(latency);
        }
        let hit = Hit { slot, error: counts::is_error(request.status), latency_ms };
        let route_row = self.route_row(request);
        self.routes.count(route_row, hit, &mut self.journal);
        let row = self.vhost_row(request.vhost);
        self.vhosts.count(row, hit, &mut self.journal);
        let measured = (request.status, request.bytes_sent, latency);
        self.intervals.add(second, (row, self.vhosts.name(row)), measured, &mut self.journal);
        route_row
    }

    fn route_row(&mut self, request: &Request<'_>) -> u16 {
        if self.routes.is_row_of(request.route_row, request.route) {
            return request.route_row;
        }
        let route = names::route(request.route, &mut self.scratch);
        self.routes.row_of(route, &mut self.journal)
    }

    fn vhost_row(&mut self, raw: Option<&[u8]>) -> u16 {
        let raw = raw.unwrap_or_default();
        if let Some(row) = self.spellings.row(raw, &self.vhosts) {
            return row;
        }
        let vhost = names::vhost(raw, &mut self.scratch);
        let row = self.vhosts.row_of(vhost, &mut self.journal);
        self.spellings.keep(raw, row, self.vhosts.name(row));
        row
    }

    /// Counts a line that could not be parsed, in the second in which it was read.
    pub fn observe_unparsed(&mut self, read_at: EpochMs) {
        let second = second_of(read_at);
        self.totals.unparsed += 1;
        self.journal.touch(&mut self.totals.mark, Key::Totals);
        self.intervals.add_unparsed(second, &mut self.journal);
        // While history is read, `read_at` lies far ahead of it and must not pull the ring along.
        let newest = self.ring.newest().or(self.watermark.second);
        let near = newest.is_none_or(|newest| second - newest <= ring::AHEAD_S_MAX);
        let second = if near { second } else { newest.unwrap_or(second) };
        let floor = self.ring_floor();
        if let Some(bucket) = self.ring.bucket(second, floor, &mut self.journal) {
            bucket.unparsed += 1;
        }
    }

    fn total(&mut self, request: &Request<'_>, skewed: bool) {
        let totals = &mut self.totals;
        totals.counts.add(request.status, request.bytes_sent);
        totals.skewed += u64::from(skewed);
        if let Some(code) = totals.codes.get_mut(usize::from(request.status)) {
            *code += 1;
        }
        self.journal.touch(&mut totals.mark, Key::Totals);
    }

    /// Answers whether the ring still holds the second.
    fn count_second(&mut self, second: i64, request: &Request<'_>) -> bool {
        let floor = self.ring_floor();
        let bucket = self.ring.bucket(second, floor, &mut self.journal);
        bucket.map(|bucket| bucket.counts.add(request.status, request.bytes_sent)).is_some()
    }

    fn ring_floor(&self) -> i64 {
        self.watermark.second.map_or(0, |second| second - ring::BEHIND_S_MAX)
    }

    /// Moves the watermark to what is complete at `now`: the least, over the readable followed
    /// files, of `now` (read to its end) or its newest event, less its lateness. Call it once a
    /// tick, after the lines of the tick.
    ///
    /// The watermark never goes back, but for one case: a wall clock that steps back by more than
    /// a minute. Its seconds occur twice, so the windows begin anew from `now` (coverage says
    /// so); totals and summaries stand. After a step forward the seconds stepped over count as
    /// idle, as they are in the log.
    pub fn advance(&mut self, now: EpochMs, files: &[FileProgress]) {
        let now = now.clamp(0, EPOCH_MS_MAX);
        if self.watermark.stepped_back(now, self.observed_from) {
            self.watermark.restart(now);
            self.ring.clear(&mut self.journal);
            self.latency.clear(&mut self.journal);
            self.vhosts.forget_recent(&mut self.journal);
            self.routes.forget_recent(&mut self.journal);
            self.intervals.retire_all(&mut self.journal);
            self.halved_at = 0;
            self.gap(now);
        }
        let before = self.watermark.second;
        self.watermark.advance(now, files, self.ring.newest(), &mut self.journal);
        let after = self.watermark.second;
        if before != after {
            self.journal.touch(&mut self.meta_mark, Key::Meta);
        }
        if let Some(second) = after {
            self.ring.trim_before(second - ring::BEHIND_S_MAX, &mut self.journal);
            if second - self.halved_at >= STANDING_HALVES_S {
                self.halved_at = second;
                self.vhosts.decay();
                self.routes.decay();
            }
        }
        if self.journal.pending() > PENDING_MAX {
            let mut journal = std::mem::take(&mut self.journal);
            journal.retain(|key| self.value(key).is_some());
            self.journal = journal;
        }
    }

    /// Whether [`Windows::close_summaries`] would give any now. Asked first, so that what must become
    /// durable before they are taken can be.
    pub fn summaries_are_due(&self, all: bool) -> bool {
        let fill = self.watermark.live && self.unknown.is_none();
        self.intervals.is_due(self.watermark.second, all, fill, self.observed_from)
    }

    /// Takes the summaries of every interval that ends at the watermark or before, and every
    /// correction of one taken earlier; with `all` (at shut-down) the open ones too, whose later
    /// lines become corrections. Each request is in exactly one `_all` summary and in exactly one
    /// of its vhosts', ever. An idle interval that was watched gives an `_all` of zero.
    ///
    /// Sorted by the end of the interval; an interval's `_all` comes before its vhosts.
    pub fn close_summaries(&mut self, all: bool) -> Vec<Summary> {
        let fill = self.watermark.live && self.unknown.is_none();
        let summaries =
            self.intervals.close(self.watermark.second, all, fill, self.observed_from, &mut self.journal);
        self.journal.touch(&mut self.meta_mark, Key::Meta);
        summaries
    }
}
