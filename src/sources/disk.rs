//! What block devices do: bytes, operations, time, queue.
//!
//! From `/proc/diskstats` in the form that procfs reads: sysinfo knows only the bytes of mounted
//! filesystems. The fields are described in the kernel's Documentation/admin-guide/iostats.rst.
//!
//! Whole devices only: what a partition does, its device does too, and sums must not count it twice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use procfs::DiskStat;

use super::proc_file::{self, ratio, round_to_4};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PATH: &str = "/proc/diskstats";
/// The kernel counts in sectors of this size whatever the device's own is.
const SECTOR_BYTES: f64 = 512.0;
const MS_PER_SECOND: f64 = 1000.0;
/// A share over less than this is noise: the kernel counts in ticks of up to 10 ms.
const SHARE_MS_MIN: u128 = 50;

const DIRECTED: &[&str] = &["system.device", "disk.io.direction"];
const DEVICE: &[&str] = &["system.device"];

static IO: Metric = Metric::counter(
    "system.disk.io",
    "By",
    "watchpost_disk_bytes_total",
    "Bytes read from and written to the device",
)
.by(DIRECTED, &["device", ""])
.named_by_value(&[("read", "node_disk_read_bytes_total"), ("write", "node_disk_written_bytes_total")]);
static OPERATIONS: Metric = Metric::counter(
    "system.disk.operations",
    "{operation}",
    "watchpost_disk_operations_total",
    "Reads and writes that the device completed",
)
.by(DIRECTED, &["device", ""])
.named_by_value(&[
    ("read", "node_disk_reads_completed_total"),
    ("write", "node_disk_writes_completed_total"),
]);
static OPERATION_TIME: Metric = Metric::counter(
    "system.disk.operation_time",
    "s",
    "watchpost_disk_operation_time_seconds_total",
    "Time that all reads and writes took together; over operations it is the mean latency",
)
.by(DIRECTED, &["device", ""])
.named_by_value(&[
    ("read", "node_disk_read_time_seconds_total"),
    ("write", "node_disk_write_time_seconds_total"),
]);
static MERGED: Metric = Metric::counter(
    "system.disk.merged",
    "{operation}",
    "watchpost_disk_merged_total",
    "Reads and writes that became part of a neighbouring one",
)
.by(DIRECTED, &["device", ""])
.named_by_value(&[("read", "node_disk_reads_merged_total"), ("write", "node_disk_writes_merged_total")]);
static IO_TIME: Metric = Metric::counter(
    "system.disk.io_time",
    "s",
    "node_disk_io_time_seconds_total",
    "Time in which the device had something to do",
)
.by(DEVICE, DEVICE_LABEL);
static WEIGHTED_TIME: Metric = Metric::counter(
    "watchpost.disk.weighted_io_time",
    "s",
    "node_disk_io_time_weighted_seconds_total",
    "Time that operations were under way, each for itself",
)
.by(DEVICE, DEVICE_LABEL);
static IN_FLIGHT: Metric = Metric::gauge(
    "watchpost.disk.in_flight",
    "{operation}",
    "node_disk_io_now",
    "Operations under way at this moment",
)
.by(DEVICE, DEVICE_LABEL);
static UTILIZATION: Metric = Metric::gauge(
    "watchpost.disk.utilization",
    "1",
    "watchpost_disk_utilization_ratio",
    "Share of the time since the last sample in which the device had something to do",
)
.by(DEVICE, DEVICE_LABEL);
static QUEUE: Metric = Metric::gauge(
    "watchpost.disk.queue.length",
    "{operation}",
    "watchpost_disk_queue_length",
    "Operations under way, averaged over the time since the last sample",
)
.by(DEVICE, DEVICE_LABEL);
const DEVICE_LABEL: &[&str] = &["device"];

pub(super) static SPEC: Spec = Spec {
    name: "disk",
    help: "Bytes, operations, latency, utilization and queue of block devices",
    metrics: &[
        &IO,
        &OPERATIONS,
        &OPERATION_TIME,
        &MERGED,
        &IO_TIME,
        &WEIGHTED_TIME,
        &IN_FLIGHT,
        &UTILIZATION,
        &QUEUE,
    ],
    make: || Box::new(Disk { before: None }),
};

struct Disk {
    before: Option<Before>,
}

/// What the shares are measured against.
struct Before {
    at: Instant,
    /// Milliseconds of I/O time and of weighted time, by device.
    times_ms: HashMap<String, (u64, u64)>,
}

impl Source for Disk {
    fn sample(&mut self, now: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let disks = parse(&proc_file::read(PATH)?);
        if disks.is_empty() {
            return Err(SourceError::NotAvailable("this host has no block devices of its own".to_owned()));
        }
        disks.iter().for_each(|disk| push_totals(disk, out));
        if let Some(before) = &self.before {
            let elapsed = now.since(before.at);
            if elapsed.as_millis() < SHARE_MS_MIN {
                return Ok(());
            }
            disks.iter().for_each(|disk| push_shares(disk, before, elapsed, out));
        }
        let times = disks.into_iter().map(|disk| {
            let times = (disk.time_in_progress, disk.weighted_time_in_progress);
            (disk.name, times)
        });
        self.before = Some(Before { at: now.monotonic, times_ms: times.collect() });
        Ok(())
    }
}

/// The whole devices; a line that cannot be read is left out, as newer kernels may add devices of
/// a kind that procfs does not know.
fn parse(text: &str) -> Vec<DiskStat> {
    let disks = text.lines().filter_map(|line| DiskStat::from_line(line).ok());
    disks.filter(|disk| is_whole_device(&disk.name)).collect()
}

/// Whether the name is that of a device itself: not of a partition, nor of memory or of a file
/// that poses as a device.
fn is_whole_device(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return true;
    }
    if ["loop", "ram", "zram", "fd", "sr"].contains(&stem) {
        return false;
    }
    // nvme0n1p2, mmcblk0p1, md0p1: a partition is `p` and a number after a number.
    let numbered_partition =
        stem.strip_suffix('p').is_some_and(|device| device.ends_with(|c: char| c.is_ascii_digit()));
    // sda1, vdb2: letters that name the device, then a number.
    let lettered_partition = ["sd", "hd", "vd", "xvd"].iter().any(|kind| {
        let letters = stem.strip_prefix(kind);
        letters.is_some_and(|letters| !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase()))
    });
    !numbered_partition && !lettered_partition
}

fn push_totals(disk: &DiskStat, out: &mut Vec<Reading>) {
    let seconds = |ms: u64| ms as f64 / MS_PER_SECOND;
    let directed = [
        (&IO, disk.sectors_read as f64 * SECTOR_BYTES, disk.sectors_written as f64 * SECTOR_BYTES),
        (&OPERATIONS, disk.reads as f64, disk.writes as f64),
        (&OPERATION_TIME, seconds(disk.time_reading), seconds(disk.time_writing)),
        (&MERGED, disk.merged as f64, disk.writes_merged as f64),
    ];
    for (metric, read, write) in directed {
        out.push(Reading::new(metric, [&disk.name, "read"], read));
        out.push(Reading::new(metric, [&disk.name, "write"], write));
    }
    out.push(Reading::new(&IO_TIME, [&disk.name], seconds(disk.time_in_progress)));
    out.push(Reading::new(&WEIGHTED_TIME, [&disk.name], seconds(disk.weighted_time_in_progress)));
    out.push(Reading::new(&IN_FLIGHT, [&disk.name], disk.in_progress as f64));
}

fn push_shares(disk: &DiskStat, before: &Before, elapsed: Duration, out: &mut Vec<Reading>) {
    let Some((io_ms, weighted_ms)) = before.times_ms.get(&disk.name) else { return };
    let elapsed_ms = elapsed.as_secs_f64() * MS_PER_SECOND;
    let busy_ms = disk.time_in_progress.saturating_sub(*io_ms) as f64;
    let queued_ms = disk.weighted_time_in_progress.saturating_sub(*weighted_ms) as f64;
    out.push(Reading::new(&UTILIZATION, [&disk.name], ratio(busy_ms, elapsed_ms)));
    out.push(Reading::new(&QUEUE, [&disk.name], round_to_4(queued_ms / elapsed_ms)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::value;

    const TEXT: &str = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
         254       0 vda 51412 9762 6450194 50143 8775 32742 10395584 39096 2 10908 89707 5367 81 368336 445 457 21\n\
         254       1 vda1 51000 9762 6450194 50143 8775 32742 10395584 39096 0 10908 89707\n\
         259       0 broken\n";

    #[test]
    fn sectors_and_milliseconds_become_bytes_and_seconds() {
        let disks = parse(TEXT);
        assert_eq!(disks.len(), 1);
        let mut out = Vec::new();
        push_totals(&disks[0], &mut out);
        assert_eq!(value(&out, "system.disk.io", &["vda", "read"]), Some(6_450_194.0 * 512.0));
        assert_eq!(value(&out, "system.disk.operations", &["vda", "write"]), Some(8775.0));
        assert_eq!(value(&out, "system.disk.operation_time", &["vda", "write"]), Some(39.096));
        assert_eq!(value(&out, "system.disk.merged", &["vda", "write"]), Some(32_742.0));
        assert_eq!(value(&out, "system.disk.io_time", &["vda"]), Some(10.908));
        assert_eq!(value(&out, "watchpost.disk.in_flight", &["vda"]), Some(2.0));
    }

    #[test]
    fn shares_are_of_the_time_between() {
        let disk = parse(TEXT).remove(0);
        let times_ms = HashMap::from([("vda".to_owned(), (10_408, 79_707))]);
        let before = Before { at: Instant::now(), times_ms };
        let mut out = Vec::new();
        push_shares(&disk, &before, Duration::from_secs(2), &mut out);
        assert_eq!(value(&out, "watchpost.disk.utilization", &["vda"]), Some(0.25));
        assert_eq!(value(&out, "watchpost.disk.queue.length", &["vda"]), Some(5.0));
    }

    #[test]
    fn partitions_and_mock_devices_are_left_out() {
        let whole = ["sda", "vdb", "xvda", "nvme0n1", "mmcblk0", "md127", "dm-3", "sdaa", "nbd0", "rbd1"];
        let parts =
            ["sda1", "sdaa12", "xvda1", "vdb3", "nvme0n1p2", "mmcblk0p1", "md0p1", "loop0", "zram0", "sr0"];
        assert_eq!(whole.iter().filter(|name| !is_whole_device(name)).count(), 0);
        assert_eq!(parts.iter().filter(|name| is_whole_device(name)).count(), 0);
    }
}
