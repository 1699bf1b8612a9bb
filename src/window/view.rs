//! What the status port tells of the windows: the `web` object of `/status`, as plain data.
//! Its names are a contract; it is never read back.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::counts::StatusCounts;
use super::names::OTHER;
use super::ring::WindowSum;
use crate::record::EpochMs;

/// The rolling windows by name, with their lengths in seconds.
pub(super) const WINDOWS_S: [i64; 5] = [1, 10, 60, 300, 900];

/// The `web` object of `/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WebView {
    /// The watermark: every window ends here (epoch milliseconds). Null until there is one.
    pub as_of: Option<EpochMs>,
    /// How long after its second a line is still waited for: the largest of all files, in seconds.
    pub lateness_s: f64,
    /// Rates over the last 1 s, 10 s, 1 m, 5 m and 15 m before `as_of`.
    pub windows: WindowsView,
    /// The last ten minutes before `as_of` in steps, for charts.
    pub history: HistoryView,
    /// Everything since the first start.
    pub totals: TotalsView,
    /// Quantiles of the request time; null where no request of the window had one.
    pub latency_s: Option<LatencyView>,
    /// The busiest vhosts, then `_other`: their requests sum to those of `totals`.
    pub vhosts: Vec<VhostView>,
    /// The busiest routes, then `_other`: their requests sum to those of `totals`.
    pub routes: Vec<RouteView>,
    /// Saved entries that were damaged or unknown at the last start, and were left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub state_damaged: u64,
}

/// Steps of equal length, oldest first, the last of them ending at `as_of`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryView {
    /// Length of a step, in seconds.
    pub step_s: i64,
    /// Requests in each step; null where it was not wholly observed.
    pub requests: Vec<Option<u64>>,
    /// Those among them with a status of 500 or more.
    pub errors: Vec<Option<u64>>,
}

/// The rolling windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowsView {
    /// One second.
    #[serde(rename = "1s")]
    pub second: WindowView,
    /// Ten seconds.
    #[serde(rename = "10s")]
    pub ten_seconds: WindowView,
    /// One minute.
    #[serde(rename = "1m")]
    pub minute: WindowView,
    /// Five minutes.
    #[serde(rename = "5m")]
    pub five_minutes: WindowView,
    /// Fifteen minutes.
    #[serde(rename = "15m")]
    pub quarter: WindowView,
}

/// One rolling window. Null means unknown, and `reason` says why; zero means zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WindowView {
    /// Requests logged in the observed seconds of the window.
    pub requests: Option<u64>,
    /// `requests` by the observed seconds of the window: all of them where `coverage` is 1.
    pub qps: Option<f64>,
    /// `errors / requests`; null where there were no requests.
    pub error_rate: Option<f64>,
    /// Requests that ended in 5xx.
    pub errors: Option<u64>,
    /// Observed seconds / length of the window.
    pub coverage: f64,
    /// The whole window was observed, and no file may still hold lines of it.
    pub complete: bool,
    /// Requests of the busiest second.
    pub qps_peak_1s: Option<u64>,
    /// Requests that ended in 4xx (499 among them).
    #[serde(rename = "4xx")]
    pub client_errors: Option<u64>,
    /// Requests that ended in 499: the client closed the connection.
    #[serde(rename = "499")]
    pub client_closed: Option<u64>,
    /// Requests that ended in 101: switched to another protocol.
    #[serde(rename = "101")]
    pub switched: Option<u64>,
    /// Lines that could not be parsed, by the second they were read in.
    pub unparsed: Option<u64>,
    /// Bytes sent to clients.
    pub bytes_sent: Option<u64>,
    /// Why the numbers are null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Everything since the first start, through restarts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TotalsView {
    /// Parsed lines.
    pub requests: u64,
    /// Lines that could not be parsed.
    pub unparsed: u64,
    /// Of `requests`: too old for their second, so in no window.
    pub late: u64,
    /// Of `requests`: with a time in the future, so in no window.
    pub skewed: u64,
    /// `requests` by class.
    pub status: StatusCounts,
    /// `requests` by status below 1000.
    pub codes: BTreeMap<u16, u64>,
    /// Bytes sent to clients.
    pub bytes_sent: u64,
}

/// Quantiles of the request time, in seconds, at most 1 % off. 101 is not among them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyView {
    /// Half of the requests took at most this.
    pub p50: Option<f64>,
    /// Nine in ten.
    pub p90: Option<f64>,
    /// Nineteen in twenty.
    pub p95: Option<f64>,
    /// Ninety-nine in a hundred.
    pub p99: Option<f64>,
    /// The slowest, exactly.
    pub max: f64,
    /// Requests with a request time.
    pub count: u64,
    /// The sum of all, for a mean.
    pub sum: f64,
    /// Over what: the last five minutes.
    pub window: &'static str,
}

/// One vhost, or `_other`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VhostView {
    /// Lower case, without port; `-` where the log tells none.
    #[serde(serialize_with = "as_text")]
    pub name: Arc<str>,
    /// Since the first start, or since it took its row.
    pub requests: u64,
    /// Over the last minute of whole ten-second slots; null where unknown.
    pub qps: Option<f64>,
    /// 5xx / all over the same minute; null where there were no requests.
    pub error_rate: Option<f64>,
}

/// One route, or `_other`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteView {
    /// As the source of lines names it.
    #[serde(serialize_with = "as_text")]
    pub name: Arc<str>,
    /// Since the first start, or since it took its row.
    pub requests: u64,
    /// Over the last minute of whole ten-second slots; null where unknown.
    pub qps: Option<f64>,
    /// 5xx / all over the same minute; null where there were no requests.
    pub error_rate: Option<f64>,
    /// Over the same minute; null where no request had a request time.
    pub latency_s: Option<RouteLatencyView>,
}

/// The request times of a route in the last minute, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteLatencyView {
    /// The sum by the count.
    pub mean: f64,
    /// The slowest.
    pub max: f64,
    /// Requests with a request time.
    pub count: u64,
}

impl WebView {
    /// Puts the busiest vhosts and routes first, and `_other` last.
    pub fn sorted(mut self) -> WebView {
        self.vhosts.sort_by(|a, b| busiest_first((&a.name, a.requests), (&b.name, b.requests)));
        self.routes.sort_by(|a, b| busiest_first((&a.name, a.requests), (&b.name, b.requests)));
        self
    }
}

fn busiest_first(a: (&str, u64), b: (&str, u64)) -> Ordering {
    let is_other = |name: &str| name == OTHER;
    is_other(a.0).cmp(&is_other(b.0)).then(b.1.cmp(&a.1)).then_with(|| a.0.cmp(b.0))
}

impl WindowView {
    /// A window of `length_s` seconds, of which `observed_s` were observed.
    pub(super) fn new(sum: &WindowSum, length_s: i64, observed_s: i64, behind: bool) -> WindowView {
        let coverage = observed_s as f64 / length_s as f64;
        if observed_s <= 0 {
            let reason = "no second of it was observed yet".to_owned();
            return WindowView { reason: Some(reason), ..WindowView::default() };
        }
        let (requests, errors) = (sum.counts.requests(), sum.counts.errors());
        WindowView {
            requests: Some(requests),
            qps: Some(requests as f64 / observed_s as f64),
            error_rate: ratio(errors, requests),
            errors: Some(errors),
            coverage,
            complete: observed_s == length_s && !behind,
            qps_peak_1s: Some(sum.peak),
            client_errors: Some(sum.counts.status().client_error),
            client_closed: Some(sum.counts.client_closed()),
            switched: Some(sum.counts.switched()),
            unparsed: Some(sum.unparsed),
            bytes_sent: Some(sum.counts.bytes_sent()),
            reason: None,
        }
    }

    /// A window of which nothing can be said.
    pub(super) fn unknown(reason: &str) -> WindowView {
        WindowView { reason: Some(reason.to_owned()), ..WindowView::default() }
    }
}

/// `part / whole`, or nothing of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn as_text<S: Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
