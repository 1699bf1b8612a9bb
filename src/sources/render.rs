//! Readings as the JSON of a record and as Prometheus text.
//!
//! Both derive from the metrics' definitions alone; no source has a say in how it is written.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Number, Value};

use crate::record::{MetricKind, Reading};

/// Beyond this a double does not hold every whole number, so it is not written as one.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53

/// The readings as JSON: a metric without attributes is a number, any other is an object nested by
/// the values of its attributes, in their order.
///
/// `{"system.uptime":12,"system.network.io":{"eth0":{"receive":1,"transmit":2}}}`. Whole values
/// are written without a decimal point; what is not a number is left out.
pub fn to_json(readings: &[Reading]) -> Map<String, Value> {
    let mut root = Map::new();
    for reading in readings {
        if let Some(value) = json_number(reading.value) {
            insert(&mut root, reading, value);
        }
    }
    root
}

fn insert(root: &mut Map<String, Value>, reading: &Reading, value: Value) {
    let Some((last, path)) = reading.attributes.split_last() else {
        root.insert(reading.metric.name.to_owned(), value);
        return;
    };
    let mut at = root;
    for key in std::iter::once(reading.metric.name).chain(path.iter().map(String::as_str)) {
        let child = at.entry(key).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(object) = child else {
            unreachable!("all readings of {} have as many attributes", reading.metric.name)
        };
        at = object;
    }
    at.insert(last.clone(), value);
}

/// A number as JSON; `None` where JSON has none for it.
pub fn json_number(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// Appends the readings in the Prometheus text format, version 0.0.4: sorted by name, each name once
/// with its help and type above its values.
///
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
pub fn prometheus_text<'a>(readings: impl IntoIterator<Item = &'a Reading>, out: &mut String) {
    let mut by_name: BTreeMap<&str, Vec<&Reading>> = BTreeMap::new();
    for reading in readings {
        by_name.entry(reading.prometheus_name()).or_default().push(reading);
    }
    for (name, readings) in by_name {
        let metric = readings[0].metric; // a name is entered with its first reading
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        push_line(out, format_args!("# HELP {name} {}", escaped(metric.help, false)));
        push_line(out, format_args!("# TYPE {name} {kind}"));
        for reading in readings {
            push_line(out, format_args!("{name}{} {}", labels_text(reading), number_text(reading.value)));
        }
    }
}

fn push_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a string does not fail");
}

fn labels_text(reading: &Reading) -> String {
    let pairs = reading.prometheus_labels();
    if pairs.is_empty() {
        return String::new();
    }
    let pairs = pairs.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

fn number_text(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Metric;

    static UPTIME: Metric = Metric::gauge("system.uptime", "s", "up_seconds", "Time\nup \\ on");
    static SHARE: Metric = Metric::gauge("cpu.share", "1", "cpu_ratio", "Share").by(&["mode"], &["mode"]);
    static BYTES: Metric = Metric::counter("net.io", "By", "net_bytes_total", "Bytes")
        .by(&["interface", "direction"], &["device", ""])
        .named_by_value(&[("receive", "net_receive_bytes_total"), ("transmit", "net_transmit_bytes_total")]);

    fn readings() -> Vec<Reading> {
        vec![
            Reading::new(&BYTES, ["eth0", "receive"], 10.0),
            Reading::new(&BYTES, ["eth0", "transmit"], 20.0),
            Reading::new(&UPTIME, [], 12.0),
            Reading::new(&BYTES, ["a\"b\\c\nd", "receive"], 1e15),
            Reading::new(&SHARE, ["user"], 0.125),
            Reading::new(&SHARE, ["idle"], f64::NAN),
        ]
    }

    #[test]
    fn json_is_nested_by_attributes() {
        let expected = concat!(
            r#"{"cpu.share":{"user":0.125},"net.io":{"a\"b\\c\nd":{"receive":1000000000000000},"#,
            r#""eth0":{"receive":10,"transmit":20}},"system.uptime":12}"#
        );
        assert_eq!(Value::Object(to_json(&readings())).to_string(), expected);
    }

    #[test]
    fn prometheus_text_is_grouped_and_escaped() {
        let mut text = String::from("before\n");
        prometheus_text(&readings(), &mut text);
        let expected = r#"before
# HELP cpu_ratio Share
# TYPE cpu_ratio gauge
cpu_ratio{mode="user"} 0.125
cpu_ratio{mode="idle"} NaN
# HELP net_receive_bytes_total Bytes
# TYPE net_receive_bytes_total counter
net_receive_bytes_total{device="eth0"} 10
net_receive_bytes_total{device="a\"b\\c\nd"} 1000000000000000
# HELP net_transmit_bytes_total Bytes
# TYPE net_transmit_bytes_total counter
net_transmit_bytes_total{device="eth0"} 20
# HELP up_seconds Time\nup \\ on
# TYPE up_seconds gauge
up_seconds 12
"#;
        assert_eq!(text, expected);
    }
}
