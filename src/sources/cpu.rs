//! CPU time by mode, the share of each mode, and what the scheduler does.
//!
//! From the text of `/proc/stat`: sysinfo gives one number a core, without modes (it counts iowait as
//! idle and steal as busy), and refuses to look more often than every 200 ms.
//! The format is in proc_stat(5); times are in ticks, of which the kernel says how many make a second.

use std::time::Instant;

use super::proc_file::{self, ratio};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PATH: &str = "/proc/stat";
/// Cores beyond this are in the totals and in the count, and not told by themselves.
const CORES_MAX: usize = 256;
/// A share over less than this is noise: a tick is mostly 10 ms.
const SHARE_MS_MIN: u128 = 50;

static TIME: Metric = Metric::counter(
    "system.cpu.time",
    "s",
    "watchpost_cpu_seconds_total",
    "Time that all cores spent in each mode; guests are in user and nice",
)
.by(&["cpu.mode"], &["mode"]);
static UTILIZATION: Metric = Metric::gauge(
    "system.cpu.utilization",
    "1",
    "watchpost_cpu_utilization_ratio",
    "Share of the time of all cores in each mode since the last sample",
)
.by(&["cpu.mode"], &["mode"]);
static CORE_TIME: Metric = Metric::counter(
    "watchpost.cpu.core.time",
    "s",
    "node_cpu_seconds_total",
    "Time that a core spent in each mode, in the kernel's own words for modes",
)
.by(&["cpu.logical_number", "cpu.mode"], &["cpu", "mode"]);
static CORE_UTILIZATION: Metric = Metric::gauge(
    "watchpost.cpu.core.utilization",
    "1",
    "watchpost_cpu_core_utilization_ratio",
    "Share of a core's time that was neither idle nor iowait since the last sample",
)
.by(&["cpu.logical_number"], &["cpu"]);
static CORES: Metric = Metric::gauge(
    "system.cpu.logical.count",
    "{cpu}",
    "watchpost_cpu_logical_count",
    "Logical cores that are online",
);
static CONTEXT_SWITCHES: Metric = Metric::counter(
    "watchpost.cpu.context_switches",
    "{switch}",
    "node_context_switches_total",
    "Context switches of all cores since boot",
);
static INTERRUPTS: Metric = Metric::counter(
    "watchpost.cpu.interrupts",
    "{interrupt}",
    "node_intr_total",
    "Interrupts that were served since boot",
);
static RUNNING: Metric = Metric::gauge(
    "watchpost.process.running",
    "{process}",
    "node_procs_running",
    "Tasks that run or are ready to run",
);
static BLOCKED: Metric = Metric::gauge(
    "watchpost.process.blocked",
    "{process}",
    "node_procs_blocked",
    "Tasks that wait for input or output to complete",
);

pub(super) static SPEC: Spec = Spec {
    name: "cpu",
    help: "CPU time and shares by mode and by core, context switches, interrupts, the run queue",
    metrics: &[
        &TIME,
        &UTILIZATION,
        &CORE_TIME,
        &CORE_UTILIZATION,
        &CORES,
        &CONTEXT_SWITCHES,
        &INTERRUPTS,
        &RUNNING,
        &BLOCKED,
    ],
    make: || Box::new(Cpu { before: None }),
};

struct Cpu {
    before: Option<(Instant, Stat)>,
}

impl Source for Cpu {
    fn sample(&mut self, now: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let text = proc_file::read(PATH)?;
        let stat = parse(&text)?;
        push_totals(&stat, &text, out);
        if let Some((at, before)) = &self.before {
            if now.since(*at).as_millis() < SHARE_MS_MIN {
                return Ok(()); // the next sample looks back further
            }
            push_shares(before, &stat, out);
        }
        self.before = Some((now.monotonic, stat));
        Ok(())
    }
}

/// Ticks in each mode, in the order of the columns of `/proc/stat`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks([u64; 8]);

/// The columns, in the kernel's (and node_exporter's) words. The two after them, guest and
/// guest_nice, are already in user and nice.
const COLUMNS: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const IDLE: usize = 3;
const IOWAIT: usize = 4;

/// OpenTelemetry's modes: those of the kernel, with both kinds of interrupt as one.
const MODES: [(&str, &[usize]); 7] = [
    ("user", &[0]),
    ("nice", &[1]),
    ("system", &[2]),
    ("idle", &[IDLE]),
    ("iowait", &[IOWAIT]),
    ("interrupt", &[5, 6]),
    ("steal", &[7]),
];

impl Ticks {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Option<Ticks> {
        let mut ticks = [0; 8];
        let mut count = 0;
        for (tick, word) in ticks.iter_mut().zip(words) {
            *tick = word.parse().ok()?;
            count += 1;
        }
        (count > IDLE).then_some(Ticks(ticks)) // kernels of old have fewer columns, none has fewer than four
    }

    fn of(&self, columns: &[usize]) -> u64 {
        columns.iter().map(|column| self.0[*column]).sum()
    }

    /// Ticks since `before`. Idle and iowait may step back (the kernel says so); that counts as none.
    fn since(&self, before: &Ticks) -> Ticks {
        Ticks(std::array::from_fn(|column| self.0[column].saturating_sub(before.0[column])))
    }

    fn sum(&self) -> f64 {
        self.0.iter().sum::<u64>() as f64
    }
}

#[derive(Debug)]
struct Stat {
    total: Ticks,
    /// By the core's number; a core that is offline has no line.
    cores: Vec<(String, Ticks)>,
}

fn parse(text: &str) -> Result<Stat, SourceError> {
    let mut total = None;
    let mut cores = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(number) = words.next().and_then(|word| word.strip_prefix("cpu")) else { continue };
        let Some(ticks) = Ticks::parse(words) else { continue };
        if number.is_empty() {
            total = Some(ticks);
        } else {
            cores.push((number.to_owned(), ticks));
        }
    }
    let total = total.ok_or(SourceError::Format { path: PATH, what: "the time of all cores" })?;
    Ok(Stat { total, cores })
}

fn push_totals(stat: &Stat, text: &str, out: &mut Vec<Reading>) {
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    for (mode, columns) in MODES {
        out.push(Reading::new(&TIME, [mode], seconds(stat.total.of(columns))));
    }
    for (core, ticks) in stat.cores.iter().take(CORES_MAX) {
        for (mode, ticks) in COLUMNS.iter().zip(ticks.0) {
            out.push(Reading::new(&CORE_TIME, [core, mode], seconds(ticks)));
        }
    }
    out.push(Reading::new(&CORES, [], stat.cores.len() as f64));
    let lines = [
        (&CONTEXT_SWITCHES, "ctxt"),
        (&INTERRUPTS, "intr"),
        (&RUNNING, "procs_running"),
        (&BLOCKED, "procs_blocked"),
    ];
    for (metric, key) in lines {
        out.extend(proc_file::number(text, key).map(|value| Reading::new(metric, [], value as f64)));
    }
}

fn push_shares(before: &Stat, stat: &Stat, out: &mut Vec<Reading>) {
    let ticks = stat.total.since(&before.total);
    for (mode, columns) in MODES {
        out.push(Reading::new(&UTILIZATION, [mode], ratio(ticks.of(columns) as f64, ticks.sum())));
    }
    for (core, after) in stat.cores.iter().take(CORES_MAX) {
        // Found by number: cores come and go.
        let Some((_, before)) = before.cores.iter().find(|(number, _)| number == core) else { continue };
        let ticks = after.since(before);
        let busy = ticks.sum() - ticks.of(&[IDLE, IOWAIT]) as f64;
        out.push(Reading::new(&CORE_UTILIZATION, [core], ratio(busy, ticks.sum())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::{value, values};

    const BEFORE: &str = "cpu  100 0 50 800 40 1 2 7 30 0\ncpu0 100 0 50 800 40 1 2 7 30 0\n\
        intr 246418 0 0\nctxt 347435\nbtime 1795412313\nprocesses 9439\nprocs_running 3\nprocs_blocked 1\n";
    const AFTER: &str = "cpu  150 0 60 820 39 3 4 21 60 0\ncpu0 150 0 60 820 39 3 4 21 60 0\n\
        cpu7 1 2 3 4\n";

    #[test]
    fn totals_are_seconds_by_mode() {
        let mut out = Vec::new();
        push_totals(&parse(BEFORE).expect("whole text"), BEFORE, &mut out);
        assert_eq!(value(&out, "system.cpu.time", &["interrupt"]), Some(0.03));
        assert_eq!(value(&out, "watchpost.cpu.core.time", &["0", "softirq"]), Some(0.02));
        assert_eq!(value(&out, "system.cpu.logical.count", &[]), Some(1.0));
        assert_eq!(value(&out, "watchpost.cpu.interrupts", &[]), Some(246_418.0));
        assert_eq!(value(&out, "watchpost.process.blocked", &[]), Some(1.0));
    }

    #[test]
    fn shares_are_of_the_ticks_between() {
        let mut out = Vec::new();
        push_shares(&parse(BEFORE).expect("whole text"), &parse(AFTER).expect("whole text"), &mut out);
        // 98 ticks passed: user 50, system 10, idle 20, both interrupts 4, steal 14; iowait stepped back.
        assert_eq!(value(&out, "system.cpu.utilization", &["user"]), Some(0.5102));
        assert_eq!(value(&out, "system.cpu.utilization", &["iowait"]), Some(0.0));
        assert_eq!(value(&out, "system.cpu.utilization", &["steal"]), Some(0.1429));
        let sum: f64 = values(&out, "system.cpu.utilization").iter().sum();
        assert!((sum - 1.0).abs() < 0.001, "{sum}");
        // The core that came since has no share yet.
        assert_eq!(values(&out, "watchpost.cpu.core.utilization"), [0.7959]);
    }

    #[test]
    fn text_without_totals_is_an_error() {
        assert!(parse("intr 5\ncpu0 1 2 3 4\n").is_err());
        assert!(parse("cpu x y\n").is_err());
    }
}
