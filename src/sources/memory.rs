//! Memory by state, what is available, the kernel's slabs and the pages to be written.
//!
//! From the text of `/proc/meminfo` alone: sysinfo lacks buffers, cache, slab and dirty pages, and
//! states that were read at two moments do not add up to the limit.
//!
//! `used` is what is neither free nor buffer nor page cache, so that the four states sum to the
//! limit; it holds reclaimable slabs. What a new process could get is `system.memory.linux.available`.

use super::proc_file;
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PATH: &str = "/proc/meminfo";
/// The file's `kB` are units of 1 024 bytes.
const KIBIBYTE: f64 = 1024.0;

static USAGE: Metric =
    Metric::gauge("system.memory.usage", "By", "watchpost_memory_usage_bytes", "Memory in each state")
        .by(&["system.memory.state"], &[""])
        .named_by_value(&[
            ("used", "watchpost_memory_used_bytes"),
            ("free", "node_memory_MemFree_bytes"),
            ("cached", "node_memory_Cached_bytes"),
            ("buffers", "node_memory_Buffers_bytes"),
        ]);
static LIMIT: Metric = Metric::gauge(
    "system.memory.limit",
    "By",
    "node_memory_MemTotal_bytes",
    "Memory that the kernel can use at all",
);
static AVAILABLE: Metric = Metric::gauge(
    "system.memory.linux.available",
    "By",
    "node_memory_MemAvailable_bytes",
    "Memory that new work could get without swapping, as the kernel estimates it",
);
static SLAB: Metric = Metric::gauge(
    "system.memory.linux.slab.usage",
    "By",
    "watchpost_memory_slab_bytes",
    "Memory in the kernel's own structures",
)
.by(&["linux.memory.slab.state"], &[""])
.named_by_value(&[
    ("reclaimable", "node_memory_SReclaimable_bytes"),
    ("unreclaimable", "node_memory_SUnreclaim_bytes"),
]);
static SHARED: Metric = Metric::gauge(
    "system.memory.linux.shared",
    "By",
    "node_memory_Shmem_bytes",
    "Memory in shared segments and in tmpfs; it is within cached",
);
static DIRTY: Metric = Metric::gauge(
    "watchpost.memory.dirty",
    "By",
    "node_memory_Dirty_bytes",
    "Memory that waits to be written to disk",
);
static WRITEBACK: Metric = Metric::gauge(
    "watchpost.memory.writeback",
    "By",
    "node_memory_Writeback_bytes",
    "Memory that is being written to disk",
);

pub(super) static SPEC: Spec = Spec {
    name: "memory",
    help: "Memory by state, available memory, slabs, dirty pages",
    metrics: &[&USAGE, &LIMIT, &AVAILABLE, &SLAB, &SHARED, &DIRTY, &WRITEBACK],
    make: || Box::new(Memory),
};

struct Memory;

impl Source for Memory {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        convert(&proc_file::read(PATH)?, out)
    }
}

fn convert(text: &str, out: &mut Vec<Reading>) -> Result<(), SourceError> {
    let bytes = |key: &str| proc_file::number(text, key).map(|kibibytes| kibibytes as f64 * KIBIBYTE);
    let required = |key, what| bytes(key).ok_or(SourceError::Format { path: PATH, what });

    let total = required("MemTotal:", "the total")?;
    let free = required("MemFree:", "what is free")?;
    // A kernel or container without these has none, as far as can be known.
    let buffers = bytes("Buffers:").unwrap_or(0.0);
    let cached = bytes("Cached:").unwrap_or(0.0);
    let used = (total - free - buffers - cached).max(0.0);
    for (state, value) in [("used", used), ("free", free), ("cached", cached), ("buffers", buffers)] {
        out.push(Reading::new(&USAGE, [state], value));
    }
    out.push(Reading::new(&LIMIT, [], total));
    for (state, key) in [("reclaimable", "SReclaimable:"), ("unreclaimable", "SUnreclaim:")] {
        out.extend(bytes(key).map(|value| Reading::new(&SLAB, [state], value)));
    }
    let plain =
        [(&AVAILABLE, "MemAvailable:"), (&SHARED, "Shmem:"), (&DIRTY, "Dirty:"), (&WRITEBACK, "Writeback:")];
    for (metric, key) in plain {
        out.extend(bytes(key).map(|value| Reading::new(metric, [], value)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::{value, values};

    const TEXT: &str = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n\
        Buffers:          50 kB\nCached:          450 kB\nSwapCached:        9 kB\nDirty:             7 kB\n\
        Writeback:         0 kB\nShmem:            11 kB\nSlab:             30 kB\nSReclaimable:     20 kB\n\
        SUnreclaim:       10 kB\nHugePages_Total:   0\n";

    #[test]
    fn the_states_sum_to_the_limit() {
        let mut out = Vec::new();
        convert(TEXT, &mut out).expect("whole text");
        assert_eq!(value(&out, "system.memory.usage", &["used"]), Some(400.0 * 1024.0));
        assert_eq!(values(&out, "system.memory.usage").iter().sum::<f64>(), 1000.0 * 1024.0);
        assert_eq!(value(&out, "system.memory.linux.available", &[]), Some(600.0 * 1024.0));
        assert_eq!(value(&out, "system.memory.linux.slab.usage", &["unreclaimable"]), Some(10.0 * 1024.0));
        assert_eq!(value(&out, "watchpost.memory.dirty", &[]), Some(7.0 * 1024.0));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_left_out() {
        let mut out = Vec::new();
        convert("MemTotal: 10 kB\nMemFree: 4 kB\n", &mut out).expect("whole text");
        assert_eq!(value(&out, "system.memory.usage", &["used"]), Some(6.0 * 1024.0));
        assert_eq!(value(&out, "system.memory.linux.available", &[]), None);
        assert!(convert("MemFree: 4 kB\n", &mut out).is_err());
    }
}
