//! The counts as a report: the JSON object that `--json` prints, field by field.
//!
//! What is not known is null or absent, never zero. Every name in it is safe for a terminal already.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::tally::{Rejected, Tally};
use super::top::{Ranked, Top};
use crate::record::EpochMs;
use crate::window::Sketch;

/// Names of each table that are shown; the rest is one row.
const ROWS_SHOWN_MAX: usize = 50;

/// Digits behind the point of a share or a rate.
const ROUNDING: f64 = 1e6;

/// One finished report over all files.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Lines read: `requests` and `unparsed` together.
    pub(super) lines: u64,
    /// Lines that parsed.
    pub(super) requests: u64,
    /// Lines that did not.
    pub(super) unparsed: u64,
    /// Those by reason.
    pub(super) unparsed_reasons: BTreeMap<&'static str, u64>,
    /// The first line of each reason.
    pub(super) unparsed_examples: Vec<ExampleReport>,
    /// Lines that were longer than what is looked at, 64 KiB.
    pub(super) truncated_lines: u64,
    /// Bytes sent to clients: bodies where the format gives them, else all.
    pub(super) bytes_sent: u64,
    /// The earliest request, RFC 3339 in UTC.
    pub(super) first: Option<String>,
    /// The latest.
    pub(super) last: Option<String>,
    /// Seconds from the first to the last, both included.
    pub(super) span_s: Option<i64>,
    /// Requests with a time, over that span.
    pub(super) qps_mean: Option<f64>,
    /// The most requests of any one second.
    pub(super) qps_peak_1s: Option<u64>,
    /// That second; the first of equal ones.
    pub(super) qps_peak_at: Option<String>,
    /// False where more seconds had requests than are kept: the peak is then at least so high.
    pub(super) qps_peak_exact: bool,
    /// Requests answered with 5xx.
    pub(super) errors: u64,
    /// Those over all requests.
    pub(super) error_rate: Option<f64>,
    /// Requests by status, three digits each.
    pub(super) status: BTreeMap<String, u64>,
    /// Requests whose line has no status.
    pub(super) without_status: u64,
    /// Requests whose line has no time, or one before 1970 or after 9999.
    pub(super) without_time: u64,
    /// Requests by method; `_OTHER` is what HTTP does not know.
    pub(super) methods: BTreeMap<&'static str, u64>,
    /// Request times, where the log has them; without those of switched protocols.
    pub(super) latency_s: Option<LatencyReport>,
    /// Empty where the log names none.
    pub(super) vhosts: Vec<RowReport>,
    pub(super) routes: Vec<RowReport>,
    /// User agents.
    pub(super) agents: Vec<RowReport>,
    /// Referers without their query.
    pub(super) referers: Vec<RowReport>,
    /// Client addresses.
    pub(super) clients: Vec<RowReport>,
    /// Seconds of one point of the series.
    pub(super) series_width_s: i64,
    /// Requests over time; times without requests are left out.
    pub(super) series: Vec<PointReport>,
    pub(super) files: Vec<FileReport>,
}

/// The first line that did not parse for one reason.
#[derive(Debug, Serialize)]
pub(super) struct ExampleReport {
    pub(super) reason: &'static str,
    pub(super) file: String,
    /// Number of the line in it, from 1.
    pub(super) line: u64,
    pub(super) message: String,
}

/// Quantiles in seconds, each within 0.55 % of the true value; the greatest is exact.
#[derive(Debug, Serialize)]
pub(super) struct LatencyReport {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: Option<f64>,
    pub(super) p90: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: f64,
}

/// One name of a table. `_other` is the exact remainder.
#[derive(Debug, Serialize)]
pub(super) struct RowReport {
    pub(super) name: String,
    pub(super) requests: u64,
    /// Of all requests.
    pub(super) share: f64,
    /// Answers with 5xx.
    pub(super) errors: u64,
    pub(super) error_rate: f64,
    pub(super) bytes_sent: u64,
    pub(super) latency_mean_s: Option<f64>,
    pub(super) latency_max_s: Option<f64>,
    /// There for a row that is not exact: so many requests more may be counted in `_other`.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) missed_max: u64,
}

/// Requests within one width of the series.
#[derive(Debug, Serialize)]
pub(super) struct PointReport {
    pub(super) start: String,
    pub(super) seconds: i64,
    pub(super) requests: u64,
    pub(super) errors: u64,
    #[serde(skip)]
    pub(super) start_s: i64,
}

/// One file.
#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    pub(super) path: String,
    pub(super) format: String,
    /// As they lie on the disk, packed or not.
    pub(super) bytes: u64,
    pub(super) lines: u64,
    /// Why it was not read, or not to its end.
    pub(super) error: Option<String>,
}

impl Report {
    /// Puts the counts into words.
    pub(super) fn new(tally: &Tally, files: Vec<FileReport>) -> Report {
        let timed = tally.requests - tally.without_time;
        let span_s = tally.first_last_ms.map(|(first, last)| last / 1_000 - first / 1_000 + 1);
        let peak = Some(tally.seconds.peak()).filter(|peak| peak.requests > 0);
        let rows = |top: &Top| rows(top, tally.requests);
        let width_s = tally.series.width_s();
        Report {
            lines: tally.lines,
            requests: tally.requests,
            unparsed: tally.unparsed(),
            unparsed_reasons: tally.rejected.iter().map(|known| (known.reason.name(), known.lines)).collect(),
            unparsed_examples: tally.rejected.iter().map(|known| example(known, &files)).collect(),
            truncated_lines: tally.truncated,
            bytes_sent: tally.bytes_sent,
            first: tally.first_last_ms.and_then(|(first, _)| rfc3339(first)),
            last: tally.first_last_ms.and_then(|(_, last)| rfc3339(last)),
            span_s,
            qps_mean: span_s.map(|span_s| ratio(timed, span_s.unsigned_abs())),
            qps_peak_1s: peak.map(|peak| peak.requests),
            qps_peak_at: peak.and_then(|peak| rfc3339(peak.second * 1_000)),
            qps_peak_exact: tally.seconds.is_exact(),
            errors: tally.errors,
            error_rate: (tally.requests > 0).then(|| ratio(tally.errors, tally.requests)),
            status: tally.status().map(|(status, count)| (format!("{status:03}"), count)).collect(),
            without_status: tally.without_status,
            without_time: tally.without_time,
            methods: tally.methods().collect(),
            latency_s: latency(&tally.latency),
            vhosts: rows(&tally.vhosts).named(),
            routes: rows(&tally.routes),
            agents: rows(&tally.agents).named(),
            referers: rows(&tally.referers).named(),
            clients: rows(&tally.clients).named(),
            series_width_s: width_s,
            series: series(tally),
            files,
        }
    }
}

/// A table in which the only name is that of a missing value says nothing.
trait Named {
    fn named(self) -> Self;
}

impl Named for Vec<RowReport> {
    fn named(self) -> Self {
        if matches!(self.as_slice(), [only] if only.name == "-") { Vec::new() } else { self }
    }
}

fn example(rejected: &Rejected, files: &[FileReport]) -> ExampleReport {
    ExampleReport {
        reason: rejected.reason.name(),
        file: files.get(rejected.first.file).map(|file| file.path.clone()).unwrap_or_default(),
        line: rejected.first.line,
        message: rejected.reason.to_string(),
    }
}

fn latency(sketch: &Sketch) -> Option<LatencyReport> {
    (sketch.count() > 0).then(|| LatencyReport {
        count: sketch.count(),
        mean: rounded(sketch.sum_s() / sketch.count() as f64),
        p50: sketch.quantile_s(0.5),
        p90: sketch.quantile_s(0.9),
        p95: sketch.quantile_s(0.95),
        p99: sketch.quantile_s(0.99),
        max: sketch.max_s(),
    })
}

fn rows(top: &Top, requests: u64) -> Vec<RowReport> {
    top.ranked(ROWS_SHOWN_MAX).into_iter().map(|ranked| row(ranked, requests)).collect()
}

fn row(ranked: Ranked, requests: u64) -> RowReport {
    let counts = ranked.counts;
    let has_latency = counts.latency_count > 0;
    RowReport {
        name: ranked.name,
        requests: counts.requests,
        share: ratio(counts.requests, requests),
        errors: counts.errors,
        error_rate: ratio(counts.errors, counts.requests),
        bytes_sent: counts.bytes_sent,
        latency_mean_s: has_latency.then(|| ratio(counts.latency_sum_ms, counts.latency_count * 1_000)),
        latency_max_s: has_latency.then(|| ratio(counts.latency_max_ms, 1_000)),
        missed_max: ranked.missed_max,
    }
}

fn series(tally: &Tally) -> Vec<PointReport> {
    let seconds = tally.series.width_s();
    let points = tally.series.points().into_iter();
    points
        .map(|(start_s, point)| PointReport {
            start: rfc3339(start_s * 1_000).unwrap_or_default(),
            seconds,
            requests: point.requests,
            errors: point.errors,
            start_s,
        })
        .collect()
}

/// A moment as RFC 3339 in UTC; `None` where no calendar has it.
pub(in crate::cli) fn rfc3339(time_ms: EpochMs) -> Option<String> {
    Timestamp::from_millisecond(time_ms).ok().map(|time| time.to_string())
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { rounded(part as f64 / whole as f64) }
}

fn rounded(value: f64) -> f64 {
    (value * ROUNDING).round() / ROUNDING
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
