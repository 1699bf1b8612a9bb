//! Pressure: how long work stood still for want of CPU, memory or disk.
//!
//! From `/proc/pressure`, each line in the form that procfs reads; sysinfo has none of it.
//! `some` is time in which at least one task waited, `full` time in which all did.
//! The format is in the kernel's Documentation/accounting/psi.rst.

use procfs::parse_pressure_record;

use super::proc_file::{self, round_to_4};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const US_PER_SECOND: f64 = 1_000_000.0;
const PERCENT: f64 = 100.0;

const EXTENT: &[&str] = &["extent"];

static CPU_TIME: Metric = Metric::counter(
    "watchpost.pressure.cpu.time",
    "s",
    "watchpost_pressure_cpu_seconds_total",
    "Time in which tasks waited for a core",
)
.by(EXTENT, &[""])
.named_by_value(&[("some", "node_pressure_cpu_waiting_seconds_total")]);
static MEMORY_TIME: Metric = Metric::counter(
    "watchpost.pressure.memory.time",
    "s",
    "watchpost_pressure_memory_seconds_total",
    "Time in which tasks waited for memory: some of them, or all",
)
.by(EXTENT, &[""])
.named_by_value(&[
    ("some", "node_pressure_memory_waiting_seconds_total"),
    ("full", "node_pressure_memory_stalled_seconds_total"),
]);
static IO_TIME: Metric = Metric::counter(
    "watchpost.pressure.io.time",
    "s",
    "watchpost_pressure_io_seconds_total",
    "Time in which tasks waited for disks: some of them, or all",
)
.by(EXTENT, &[""])
.named_by_value(&[
    ("some", "node_pressure_io_waiting_seconds_total"),
    ("full", "node_pressure_io_stalled_seconds_total"),
]);
static UTILIZATION: Metric = Metric::gauge(
    "watchpost.pressure.utilization",
    "1",
    "watchpost_pressure_ratio",
    "Share of time in which some or all tasks waited for the resource, averaged over 10 s",
)
.by(&["resource", "extent"], &["resource", "extent"]);

pub(super) static SPEC: Spec = Spec {
    name: "pressure",
    help: "Time that work stood still for want of CPU, memory or disk",
    metrics: &[&CPU_TIME, &MEMORY_TIME, &IO_TIME, &UTILIZATION],
    make: || Box::new(Pressure),
};

/// The resources, their files and metrics, and what of them has a meaning: for the whole host no
/// time exists in which all tasks wait for a core, and the kernel writes zeros.
const RESOURCES: [(&str, &str, &Metric, &[&str]); 3] = [
    ("cpu", "/proc/pressure/cpu", &CPU_TIME, &["some"]),
    ("memory", "/proc/pressure/memory", &MEMORY_TIME, &["some", "full"]),
    ("io", "/proc/pressure/io", &IO_TIME, &["some", "full"]),
];

struct Pressure;

impl Source for Pressure {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        for (resource, path, metric, extents) in RESOURCES {
            let text = proc_file::read(path)?;
            for extent in extents {
                push(&text, resource, extent, metric, out);
            }
        }
        Ok(())
    }
}

fn push(text: &str, resource: &str, extent: &str, metric: &'static Metric, out: &mut Vec<Reading>) {
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(extent));
    let Some(record) = line.and_then(|line| parse_pressure_record(line).ok()) else { return };
    out.push(Reading::new(metric, [extent], record.total as f64 / US_PER_SECOND));
    // A percentage with two decimals, so that four are all there are.
    let share = round_to_4(f64::from(record.avg10) / PERCENT);
    out.push(Reading::new(&UTILIZATION, [resource, extent], share));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::value;

    const TEXT: &str = "some avg10=1.59 avg60=0.36 avg300=0.29 total=6122698\n\
        full avg10=1.41 avg60=0.32 avg300=0.27 total=5778328\n";

    #[test]
    fn microseconds_and_percents_become_seconds_and_shares() {
        let mut out = Vec::new();
        push(TEXT, "io", "full", &IO_TIME, &mut out);
        assert_eq!(value(&out, "watchpost.pressure.io.time", &["full"]), Some(5.778328));
        assert_eq!(value(&out, "watchpost.pressure.utilization", &["io", "full"]), Some(0.0141));
        assert_eq!(out[0].prometheus_name(), "node_pressure_io_stalled_seconds_total");
    }

    #[test]
    fn an_old_kernel_has_no_full_line_for_cpu() {
        let mut out = Vec::new();
        push("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n", "cpu", "full", &CPU_TIME, &mut out);
        push("full what\n", "cpu", "full", &CPU_TIME, &mut out);
        assert!(out.is_empty());
    }
}
