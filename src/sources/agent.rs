//! What the agent itself costs: memory, CPU, files, threads.
//!
//! Memory, CPU and files from sysinfo, which has them for one process at 40 us; threads by counting
//! `/proc/self/task`, since sysinfo would refresh each of them as a process of its own.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const TASKS_PATH: &str = "/proc/self/task";
const MS_PER_SECOND: f64 = 1000.0;

static MEMORY: Metric = Metric::gauge(
    "process.memory.usage",
    "By",
    "process_resident_memory_bytes",
    "Memory of the agent that is in RAM",
);
static CPU_TIME: Metric = Metric::counter(
    "process.cpu.time",
    "s",
    "process_cpu_seconds_total",
    "CPU time that the agent took, in user and in system mode",
);
static OPEN_FILES: Metric = Metric::gauge(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "process_open_fds",
    "Files that the agent has open",
);
static THREADS: Metric =
    Metric::gauge("process.thread.count", "{thread}", "process_threads", "Threads of the agent");

pub(super) static SPEC: Spec = Spec {
    name: "agent",
    help: "Memory, CPU time, open files and threads of the agent itself",
    metrics: &[&MEMORY, &CPU_TIME, &OPEN_FILES, &THREADS],
    make: || Box::new(Agent { system: None }),
};

struct Agent {
    /// Made at the first sample, where an error can be told.
    system: Option<(System, Pid)>,
}

impl Source for Agent {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let tasks = std::fs::read_dir(TASKS_PATH)
            .map_err(|source| SourceError::Read { path: TASKS_PATH.to_owned(), source })?;
        out.push(Reading::new(&THREADS, [], tasks.count() as f64));

        if self.system.is_none() {
            let made = System::new().map_err(|error| error.to_string());
            let pid = sysinfo::get_current_pid().map_err(|error| error.to_string());
            let both = made.and_then(|system| pid.map(|pid| (system, pid)));
            self.system = Some(both.map_err(SourceError::NotAvailable)?);
        }
        let Some((system, pid)) = &mut self.system else { return Ok(()) };
        let what = ProcessRefreshKind::nothing().without_tasks().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[*pid]), true, what);
        let Some(process) = system.process(*pid) else {
            return Err(SourceError::Format { path: "/proc/self", what: "this process" });
        };
        out.push(Reading::new(&MEMORY, [], process.memory() as f64));
        out.push(Reading::new(&CPU_TIME, [], process.accumulated_cpu_time() as f64 / MS_PER_SECOND));
        out.extend(process.open_files().map(|files| Reading::new(&OPEN_FILES, [], files as f64)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sources::tests::value;

    #[test]
    fn work_shows_in_cpu_time_and_an_open_file_among_files() {
        let mut agent = Agent { system: None };
        let mut seconds = || {
            let mut out = Vec::new();
            agent.sample(Now::read(), &mut out).expect("of this process");
            assert!(value(&out, "process.memory.usage", &[]).expect("of this process") > 500_000.0);
            assert!(value(&out, "process.unix.file_descriptor.count", &[]).expect("of this process") >= 3.0);
            assert!(value(&out, "process.thread.count", &[]).expect("of this process") >= 1.0);
            value(&out, "process.cpu.time", &[]).expect("of this process")
        };
        let before = seconds();
        let deadline = Instant::now() + Duration::from_secs(10);
        while seconds() <= before {
            assert!(Instant::now() < deadline, "CPU time does not pass");
        }
    }
}
