//! The vocabulary: streams, metrics with their units, readings, and the cause of a loss.
//!
//! Plain data that every stage may name. This module does no I/O and imports nothing of the project.

use serde::Serialize;

/// Milliseconds since the Unix epoch, as every shipped record carries it.
pub type EpochMs = i64;

/// One kind of record. A request to the destination carries one stream only, since Sumo's
/// headers (category, name, host) hold for a whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Lines of access logs, as they stand.
    AccessLines,
    /// Summaries of the requests in an interval, by virtual host.
    WebSummary,
    /// Samples of this host.
    HostMetrics,
    /// What happened to the agent: start, stop, losses, warnings of the destination.
    Events,
}

impl Stream {
    /// Every stream, in the order of its code.
    pub const ALL: [Stream; 4] =
        [Stream::AccessLines, Stream::WebSummary, Stream::HostMetrics, Stream::Events];

    /// The number that stands for the stream on disk. Never renumber: spools outlive releases.
    pub fn code(self) -> u8 {
        match self {
            Stream::AccessLines => 1,
            Stream::WebSummary => 2,
            Stream::HostMetrics => 3,
            Stream::Events => 4,
        }
    }

    /// The stream of a code, or `None` for one that a newer release wrote.
    pub fn from_code(code: u8) -> Option<Stream> {
        Stream::ALL.into_iter().find(|stream| stream.code() == code)
    }

    /// `X-Sumo-Category` where the operator sets none.
    pub fn default_category(self) -> &'static str {
        match self {
            Stream::AccessLines => "watchpost/nginx/access",
            Stream::WebSummary => "watchpost/web",
            Stream::HostMetrics => "watchpost/host",
            Stream::Events => "watchpost/events",
        }
    }

    /// `X-Sumo-Name` where the operator sets none.
    pub fn default_source_name(self) -> &'static str {
        match self {
            Stream::AccessLines => "nginx-access",
            Stream::WebSummary => "web-summary",
            Stream::HostMetrics => "host-metrics",
            Stream::Events => "events",
        }
    }
}

/// Whether a metric only rises (until a restart of what it counts) or may take any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Rises; a lower value means that the counted thing started anew.
    Counter,
    /// A state at one moment.
    Gauge,
}

/// The definition of one host metric: the single place its names, unit and meaning are written.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// OpenTelemetry's name (semantic conventions 1.44), or `watchpost.` where there is none.
    pub name: &'static str,
    /// Unit in UCUM: `By`, `s`, `1` (a ratio), `{request}`.
    pub unit: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// Attribute names, in the order of the values in [`Reading::attributes`].
    pub attributes: &'static [&'static str],
    /// The name on `/metrics`: node_exporter's where it has one.
    pub prometheus: &'static str,
    /// Label names on `/metrics`, one for each attribute, in the same order. The empty label marks
    /// the attribute whose value chooses the name, see [`Metric::prometheus_by_value`].
    pub labels: &'static [&'static str],
    /// Where `/metrics` by custom has a name for each value of one attribute (node_exporter's
    /// `receive` and `transmit`): the values with their names. Empty for most metrics.
    pub prometheus_by_value: &'static [(&'static str, &'static str)],
    /// One sentence, without a full stop.
    pub help: &'static str,
}

impl Metric {
    /// A counter without attributes.
    pub const fn counter(
        name: &'static str,
        unit: &'static str,
        prometheus: &'static str,
        help: &'static str,
    ) -> Metric {
        let kind = MetricKind::Counter;
        Metric { name, unit, kind, attributes: &[], prometheus, labels: &[], prometheus_by_value: &[], help }
    }

    /// A gauge without attributes.
    pub const fn gauge(
        name: &'static str,
        unit: &'static str,
        prometheus: &'static str,
        help: &'static str,
    ) -> Metric {
        Metric { kind: MetricKind::Gauge, ..Metric::counter(name, unit, prometheus, help) }
    }

    /// The same metric with attributes and their labels. A count that differs does not compile
    /// where the metric is a `static`.
    pub const fn by(self, attributes: &'static [&'static str], labels: &'static [&'static str]) -> Metric {
        assert!(attributes.len() == labels.len(), "one label for each attribute");
        Metric { attributes, labels, ..self }
    }

    /// The same metric with a name on `/metrics` for each value of the attribute whose label is `""`.
    pub const fn named_by_value(self, names: &'static [(&'static str, &'static str)]) -> Metric {
        Metric { prometheus_by_value: names, ..self }
    }
}

/// One value of one metric at the moment of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What was read.
    pub metric: &'static Metric,
    /// Values of the metric's attributes, in its order; nested in this order in the JSON record.
    pub attributes: Vec<String>,
    /// The value, in the metric's unit.
    pub value: f64,
}

impl Reading {
    /// A reading with the given attribute values, in the order of the metric's attributes.
    pub fn new<const N: usize>(metric: &'static Metric, attributes: [&str; N], value: f64) -> Reading {
        debug_assert_eq!(metric.attributes.len(), N, "{} needs its attributes", metric.name);
        Reading { metric, attributes: attributes.iter().map(|a| (*a).to_owned()).collect(), value }
    }

    /// The reading's name on `/metrics`: the metric's, or the one that an attribute's value chooses.
    pub fn prometheus_name(&self) -> &'static str {
        self.name_by_value().unwrap_or(self.metric.prometheus)
    }

    /// Label names and values on `/metrics`, not yet escaped. An attribute that chose the name has
    /// none; one that should have, but whose value has no name, keeps its own name as the label.
    pub fn prometheus_labels(&self) -> Vec<(String, &str)> {
        let is_in_name = self.name_by_value().is_some();
        let metric = self.metric;
        let names = metric.labels.iter().zip(metric.attributes);
        let pairs = names.zip(&self.attributes).filter_map(|((label, attribute), value)| {
            match (label.is_empty(), is_in_name) {
                (false, _) => Some(((*label).to_owned(), value.as_str())),
                (true, true) => None,
                (true, false) => Some((attribute.replace('.', "_"), value.as_str())),
            }
        });
        pairs.collect()
    }

    fn name_by_value(&self) -> Option<&'static str> {
        let chooser = self.metric.labels.iter().position(|label| label.is_empty())?;
        let value = self.attributes.get(chooser)?;
        let names = self.metric.prometheus_by_value;
        names.iter().find(|(of, _)| of == value).map(|(_, name)| *name)
    }
}

/// One value of a metric that somebody else named: an exporter that is scraped, a script of the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignSample {
    /// A name that Prometheus takes: letters, digits, `_` and `:`, no digit first.
    pub name: String,
    /// Counter or gauge, where whoever named it says so.
    pub kind: Option<MetricKind>,
    /// Label names and values, sorted by name, no name twice.
    pub labels: Vec<(String, String)>,
    /// The value; it may be no number.
    pub value: f64,
}

/// Why lines or records will not reach the destination. Counted by name, shown on `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The file was truncated before its end was read.
    Truncated,
    /// The file was gone, with bytes that had not been read.
    Removed,
    /// The destination refused the batch for good (HTTP 400, three times).
    Refused,
    /// One record alone was over what the destination takes (HTTP 413).
    TooLarge,
    /// A record of the spool was damaged on disk.
    Corrupted,
    /// The spool was full; only samples and events, never lines, are lost to this.
    SpoolFull,
}

impl LossReason {
    /// Every reason, in the order of its code.
    pub const ALL: [LossReason; 6] = [
        LossReason::Truncated,
        LossReason::Removed,
        LossReason::Refused,
        LossReason::TooLarge,
        LossReason::Corrupted,
        LossReason::SpoolFull,
    ];

    /// The number that stands for the reason on disk. Never renumber.
    pub fn code(self) -> u8 {
        match self {
            LossReason::Truncated => 1,
            LossReason::Removed => 2,
            LossReason::Refused => 3,
            LossReason::TooLarge => 4,
            LossReason::Corrupted => 5,
            LossReason::SpoolFull => 6,
        }
    }

    /// The reason of a code, or `None` for one that a newer release wrote.
    pub fn from_code(code: u8) -> Option<LossReason> {
        LossReason::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The name in JSON and on `/metrics`.
    pub fn name(self) -> &'static str {
        match self {
            LossReason::Truncated => "truncated",
            LossReason::Removed => "removed",
            LossReason::Refused => "refused",
            LossReason::TooLarge => "too_large",
            LossReason::Corrupted => "corrupted",
            LossReason::SpoolFull => "spool_full",
        }
    }
}

/// What one cause has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Complete log lines, as far as they are known. Zero where the bytes were never seen.
    pub lines: u64,
    /// Bytes of log, or of batches.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::{Metric, Reading};

    static BYTES: Metric = Metric::counter("net.io", "By", "net_bytes_total", "Bytes")
        .by(&["if", "io.direction"], &["device", ""])
        .named_by_value(&[("receive", "net_receive_bytes_total")]);

    fn check(direction: &str, name: &str, labels: &[(&str, &str)]) {
        let reading = Reading::new(&BYTES, ["eth0", direction], 1.0);
        let got = reading.prometheus_labels();
        assert_eq!(reading.prometheus_name(), name);
        assert_eq!(got.iter().map(|(l, v)| (l.as_str(), *v)).collect::<Vec<_>>(), labels);
    }

    #[test]
    fn a_value_chooses_the_name_or_stays_a_label() {
        check("receive", "net_receive_bytes_total", &[("device", "eth0")]);
        check("sideways", "net_bytes_total", &[("device", "eth0"), ("io_direction", "sideways")]);
    }
}
