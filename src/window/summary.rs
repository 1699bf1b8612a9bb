//! One shipped web summary: the counts and the latency sketch of one vhost, or of all, in one
//! interval. It is what fleet-wide numbers are made of, so it carries parts that add up (counts,
//! sketch buckets) beside the figures for reading.

use serde::{Serialize, Serializer};

use super::counts::{Counts, StatusCounts};
use super::sketch::Sketch;
use crate::record::EpochMs;

/// The requests of one vhost in one interval. Summaries of the same vhost and interval add up;
/// those of all vhosts of an interval (with `_other`) sum to `_all`.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The end of the interval, exclusive.
    pub end_ms: EpochMs,
    /// Its length in seconds. A multiple of the set one only where closed intervals had to be
    /// folded together because nobody took them.
    pub interval_s: u64,
    /// `_all`, the name of a vhost, or `_other`.
    pub vhost: String,
    /// A summary of this interval was handed out before: this one adds to it.
    pub correction: bool,
    /// The interval began before the log was watched.
    pub partial: bool,
    /// Parsed lines.
    pub requests: u64,
    /// Of them, ended in 5xx.
    pub errors: u64,
    /// Requests by status class; the classes sum to `requests`.
    pub status: StatusCounts,
    /// Requests that ended in 101.
    pub switched: u64,
    /// Requests that ended in 499.
    pub client_closed: u64,
    /// Bytes sent to clients.
    pub bytes_sent: u64,
    /// Lines that could not be parsed; told in `_all` only, because they have no vhost.
    pub unparsed: Option<u64>,
    /// Request times, without those of 101.
    pub latency: Sketch,
}

impl Summary {
    /// A summary of the given counts.
    pub(super) fn new(span: &Span, vhost: &str, counts: &Counts, latency: Sketch) -> Summary {
        Summary {
            end_ms: span.end_s * 1000,
            interval_s: (span.end_s - span.start_s).unsigned_abs(),
            vhost: vhost.to_owned(),
            correction: span.correction,
            partial: false,
            requests: counts.requests(),
            errors: counts.errors(),
            status: counts.status(),
            switched: counts.switched(),
            client_closed: counts.client_closed(),
            bytes_sent: counts.bytes_sent(),
            unparsed: None,
            latency,
        }
    }

    /// The record `web.summary`, on one line, beginning with `timestamp`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always serialize")
    }
}

/// The seconds an interval covers, and whether it was handed out before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start_s: i64,
    pub(super) end_s: i64,
    pub(super) correction: bool,
}

/// The record, in the order of its fields.
#[derive(Serialize)]
struct Record<'a> {
    timestamp: EpochMs,
    record: &'static str,
    interval_s: u64,
    vhost: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    correction: bool,
    #[serde(skip_serializing_if = "is_false")]
    partial: bool,
    requests: u64,
    qps: f64,
    error_rate: Option<f64>,
    errors: u64,
    status: StatusCounts,
    #[serde(rename = "101")]
    switched: u64,
    #[serde(rename = "499")]
    client_closed: u64,
    bytes_sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unparsed: Option<u64>,
    latency_s: Option<Latency<'a>>,
}

#[derive(Serialize)]
struct Latency<'a> {
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: f64,
    min: f64,
    sum: f64,
    count: u64,
    sketch: &'a Sketch,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let latency = &self.latency;
        Record {
            timestamp: self.end_ms,
            record: "web.summary",
            interval_s: self.interval_s,
            vhost: &self.vhost,
            correction: self.correction,
            partial: self.partial,
            requests: self.requests,
            qps: self.requests as f64 / self.interval_s.max(1) as f64,
            error_rate: (self.requests > 0).then(|| self.errors as f64 / self.requests as f64),
            errors: self.errors,
            status: self.status,
            switched: self.switched,
            client_closed: self.client_closed,
            bytes_sent: self.bytes_sent,
            unparsed: self.unparsed,
            latency_s: (latency.count() > 0).then(|| Latency {
                p50: latency.quantile_s(0.5),
                p90: latency.quantile_s(0.9),
                p95: latency.quantile_s(0.95),
                p99: latency.quantile_s(0.99),
                max: latency.max_s(),
                min: latency.min_s(),
                sum: latency.sum_s(),
                count: latency.count(),
                sketch: latency,
            }),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed expectation is a failed test
mod tests {
    use super::*;

    #[test]
    fn the_record_is_as_promised() {
        let mut counts = Counts::default();
        let mut latency = Sketch::default();
        for (status, request_time_ms) in [(200, 1000), (502, 1000)] {
            counts.add(status, 50);
            latency.add(request_time_ms);
        }
        let span = Span { start_s: 1_700_000_000, end_s: 1_700_000_010, correction: false };
        let mut summary = Summary::new(&span, "_all", &counts, latency);
        summary.unparsed = Some(1);
        assert_eq!(
            summary.to_json(),
            concat!(
                r#"{"timestamp":1700000010000,"record":"web.summary","interval_s":10,"vhost":"_all","#,
                r#""requests":2,"qps":0.2,"error_rate":0.5,"errors":1,"#,
                r#""status":{"1xx":0,"2xx":1,"3xx":0,"4xx":0,"5xx":1,"other":0},"101":0,"499":0,"#,
                r#""bytes_sent":100,"unparsed":1,"latency_s":{"p50":1.0,"p90":1.0,"p95":1.0,"p99":1.0,"#,
                r#""max":1.0,"min":1.0,"sum":2.0,"count":2,"#,
                r#""sketch":{"scale":6,"zero_count":0,"offset":-1,"counts":[2]}}}"#
            )
        );
        let span = Span { correction: true, ..span };
        let idle = Summary::new(&span, "a", &Counts::default(), Sketch::default());
        let json = idle.to_json();
        assert!(json.contains(r#""correction":true,"requests":0,"qps":0.0,"error_rate":null"#), "{json}");
        assert!(json.ends_with(r#""latency_s":null}"#), "{json}");
    }
}
