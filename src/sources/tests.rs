//! The table and a sample of the host that runs the tests: relations that hold on any host.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{Host, SOURCES, Sample, prometheus_text, to_json};
use crate::clock::Now;
use crate::record::Reading;

/// The value of the reading with this name and these attribute values.
pub(super) fn value(readings: &[Reading], name: &str, attributes: &[&str]) -> Option<f64> {
    let found = readings.iter().find(|r| r.metric.name == name && r.attributes == attributes);
    found.map(|reading| reading.value)
}

/// The values of all readings with this name.
pub(super) fn values(readings: &[Reading], name: &str) -> Vec<f64> {
    readings.iter().filter(|reading| reading.metric.name == name).map(|reading| reading.value).collect()
}

/// Two samples of this host, far enough apart that the second has shares.
fn live() -> (Host, Sample) {
    let mut host = Host::new(|_| true);
    host.sample(Now::read());
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let sample = host.sample(Now::read());
        if !values(&sample.readings, "system.cpu.utilization").is_empty() {
            return (host, sample);
        }
        assert!(Instant::now() < deadline, "no share of the CPU's time");
        std::thread::yield_now();
    }
}

#[test]
fn names_are_unique_and_definitions_whole() {
    let (mut names, mut prometheus, mut sources) = (HashSet::new(), HashSet::new(), HashSet::new());
    for spec in SOURCES {
        assert!(sources.insert(spec.name), "two sources are called {}", spec.name);
        assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
        for metric in spec.metrics {
            assert!(names.insert(metric.name), "two metrics are called {}", metric.name);
            let by_value = metric.prometheus_by_value.iter().map(|(_, name)| *name);
            for name in by_value.chain([metric.prometheus]) {
                assert!(prometheus.insert(name), "two metrics are {name} on /metrics");
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
            }
            assert_eq!(metric.attributes.len(), metric.labels.len(), "{}", metric.name);
            let choosers = metric.labels.iter().filter(|label| label.is_empty()).count();
            let expected = usize::from(!metric.prometheus_by_value.is_empty());
            assert_eq!(choosers, expected, "{}: one empty label, for the names by value", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}

#[test]
fn every_source_emits_only_what_it_declares_and_no_series_twice() {
    for spec in SOURCES {
        let mut source = (spec.make)();
        let mut seen = HashMap::new();
        for _ in 0..2 {
            let mut out = Vec::new();
            let outcome = source.sample(Now::read(), &mut out);
            assert!(outcome.is_ok() || out.is_empty() || spec.name == "tcp", "{}: {outcome:?}", spec.name);
            for reading in &out {
                let declared = spec.metrics.iter().any(|metric| std::ptr::eq(*metric, reading.metric));
                assert!(declared, "{} does not declare {}", spec.name, reading.metric.name);
                assert_eq!(reading.attributes.len(), reading.metric.attributes.len());
                assert!(reading.value.is_finite(), "{reading:?}");
                assert!(reading.value >= 0.0 || reading.metric.unit != "1", "{reading:?}");
            }
            let series: HashSet<_> = out.iter().map(|r| (r.metric.name, r.attributes.clone())).collect();
            assert_eq!(series.len(), out.len(), "{} emits a series twice", spec.name);
            seen.extend(series);
        }
    }
}

#[test]
fn the_numbers_of_this_host_agree_with_one_another() {
    let (_, sample) = live();
    let readings = &sample.readings;
    let sum = |name| values(readings, name).iter().sum::<f64>();
    let one = |name| value(readings, name, &[]).unwrap_or_else(|| panic!("no {name}"));

    assert!((sum("system.cpu.utilization") - 1.0).abs() < 0.001);
    let cores = sum("watchpost.cpu.core.time");
    assert!((cores / sum("system.cpu.time") - 1.0).abs() < 0.05, "{cores} s of all cores");
    assert!(one("system.cpu.logical.count") >= 1.0 && one("watchpost.process.running") >= 1.0);
    assert_eq!(sum("system.memory.usage"), one("system.memory.limit"));
    assert!(one("system.memory.linux.available") <= one("system.memory.limit"));
    assert!(sum("system.paging.usage") <= one("watchpost.paging.limit"));
    let limits = sum("system.filesystem.limit");
    assert!(limits > 0.0 && sum("system.filesystem.usage") <= limits);
    assert_eq!(sum("watchpost.filesystem.hung"), 0.0);
    assert!(value(readings, "system.network.io", &["lo", "receive"]).is_some());
    assert!(one("watchpost.process.count") >= 1.0 && one("system.process.created") > 1.0);
    assert!(one("watchpost.file_descriptor.count") <= one("watchpost.file_descriptor.limit"));
    assert!(one("process.memory.usage") < one("system.memory.limit"));
    for reading in readings.iter().filter(|reading| reading.metric.unit == "1") {
        assert!((0.0..=1.0).contains(&reading.value), "{reading:?}");
    }
}

#[test]
fn every_source_reports_how_it_fared() {
    let (_, sample) = live();
    let names: Vec<_> = sample.sources.iter().map(|state| state.name).collect();
    assert_eq!(names, SOURCES.iter().map(|spec| spec.name).collect::<Vec<_>>());
    for state in &sample.sources {
        assert!(state.ok, "{state:?}");
        assert!(state.readings > 0 || state.not_available.is_some(), "{state:?}");
        assert!(state.duration_ms > 0.0 && state.duration_ms < 1000.0, "{state:?}");
    }
    let sum: usize = sample.sources.iter().map(|state| state.readings).sum();
    assert_eq!(sum, sample.readings.len());
}

#[test]
fn the_sample_is_whole_as_json_and_as_prometheus_text() {
    let (_, sample) = live();
    let json = to_json(&sample.readings);
    let names: HashSet<_> = sample.readings.iter().map(|reading| reading.metric.name).collect();
    assert_eq!(json.keys().map(String::as_str).collect::<HashSet<_>>(), names);
    assert!(json["system.cpu.utilization"]["user"].is_number());
    assert!(json["system.network.io"]["lo"]["receive"].is_u64());

    let mut text = String::new();
    prometheus_text(&sample.readings, &mut text);
    let values = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(values.clone().count(), sample.readings.len());
    assert_eq!(values.collect::<HashSet<_>>().len(), sample.readings.len(), "two lines are alike");
    assert!(
        text.contains("\nnode_load1 ") && text.contains("node_network_receive_bytes_total{device=\"lo\"} ")
    );
    assert!(text.contains("node_cpu_seconds_total{cpu=\"0\",mode=\"softirq\"} "));
}
