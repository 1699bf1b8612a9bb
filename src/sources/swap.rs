//! Swap, paging and what follows from too little memory.
//!
//! Sizes from sysinfo, which has them whole; movements and faults from the text of `/proc/vmstat`,
//! which sysinfo does not read. Kills for want of memory stand here because that file counts them.

use sysinfo::{MemoryRefreshKind, System};

use super::proc_file;
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PATH: &str = "/proc/vmstat";

static USAGE: Metric =
    Metric::gauge("system.paging.usage", "By", "watchpost_swap_usage_bytes", "Swap space in each state")
        .by(&["system.paging.state"], &[""])
        .named_by_value(&[("used", "watchpost_swap_used_bytes"), ("free", "node_memory_SwapFree_bytes")]);
static LIMIT: Metric = Metric::gauge(
    "watchpost.paging.limit",
    "By",
    "node_memory_SwapTotal_bytes",
    "Swap space in all; zero where there is none",
);
static OPERATIONS: Metric = Metric::counter(
    "system.paging.operations",
    "{operation}",
    "watchpost_paging_operations_total",
    "Pages moved between memory and swap since boot",
)
.by(&["system.paging.direction"], &[""])
.named_by_value(&[("in", "node_vmstat_pswpin"), ("out", "node_vmstat_pswpout")]);
static FAULTS: Metric = Metric::counter(
    "system.paging.faults",
    "{fault}",
    "watchpost_paging_faults_total",
    "Page faults since boot; a major one had to read from disk",
)
.by(&["system.paging.fault.type"], &[""])
.named_by_value(&[("major", "node_vmstat_pgmajfault"), ("minor", "watchpost_paging_minor_faults_total")]);
static OOM_KILLS: Metric = Metric::counter(
    "watchpost.memory.oom_kills",
    "{process}",
    "node_vmstat_oom_kill",
    "Processes that the kernel killed for want of memory since boot",
);

pub(super) static SPEC: Spec = Spec {
    name: "swap",
    help: "Swap space, pages moved to and from it, page faults, kills for want of memory",
    metrics: &[&USAGE, &LIMIT, &OPERATIONS, &FAULTS, &OOM_KILLS],
    make: || Box::new(Swap { system: None }),
};

struct Swap {
    /// Made at the first sample, where an error can be told.
    system: Option<System>,
}

impl Source for Swap {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        if self.system.is_none() {
            let system = System::new();
            self.system =
                Some(system.map_err(|error| SourceError::NotAvailable(format!("no swap size: {error}")))?);
        }
        if let Some(system) = &mut self.system {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_swap());
            out.push(Reading::new(&USAGE, ["used"], system.used_swap() as f64));
            out.push(Reading::new(&USAGE, ["free"], system.free_swap() as f64));
            out.push(Reading::new(&LIMIT, [], system.total_swap() as f64));
        }
        push_movements(&proc_file::read(PATH)?, out);
        Ok(())
    }
}

fn push_movements(text: &str, out: &mut Vec<Reading>) {
    let count = |key: &str| proc_file::number(text, key).map(|value| value as f64);
    out.extend(count("pswpin").map(|pages| Reading::new(&OPERATIONS, ["in"], pages)));
    out.extend(count("pswpout").map(|pages| Reading::new(&OPERATIONS, ["out"], pages)));
    if let (Some(all), Some(major)) = (count("pgfault"), count("pgmajfault")) {
        out.push(Reading::new(&FAULTS, ["major"], major));
        out.push(Reading::new(&FAULTS, ["minor"], (all - major).max(0.0)));
    }
    out.extend(count("oom_kill").map(|kills| Reading::new(&OOM_KILLS, [], kills)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::value;

    #[test]
    fn minor_faults_are_all_but_the_major() {
        let mut out = Vec::new();
        push_movements("pgfault 100\npgmajfault 3\npswpin 1\npswpout 2\noom_kill 4\n", &mut out);
        assert_eq!(value(&out, "system.paging.faults", &["minor"]), Some(97.0));
        assert_eq!(value(&out, "system.paging.operations", &["out"]), Some(2.0));
        assert_eq!(value(&out, "watchpost.memory.oom_kills", &[]), Some(4.0));
        push_movements("", &mut Vec::new());
    }
}
