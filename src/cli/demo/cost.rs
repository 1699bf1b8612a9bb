//! What the demo cost this machine, from `/proc/self`: the agent's threads told from the demo's own.

use std::time::Duration;

use procfs::process::{Process, Stat};

use super::{peer, writer};

/// CPU time and memory so far; `None` where `/proc` does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// CPU time of the agent's threads.
    pub(super) agent_cpu: Option<Duration>,
    /// The most memory that the whole process had in RAM, in bytes.
    pub(super) peak_bytes: Option<u64>,
}

impl Cost {
    /// Reads it. The demo's threads must still run, or their time would count as the agent's.
    pub(super) fn read() -> Cost {
        let Ok(process) = Process::myself() else { return Cost::default() };
        let peak_kib = process.status().ok().and_then(|status| status.vmhwm);
        Cost { agent_cpu: agent_cpu(&process), peak_bytes: peak_kib.map(|kib| kib * 1024) }
    }
}

/// The whole process without its first thread, the writer and the receiver.
fn agent_cpu(process: &Process) -> Option<Duration> {
    let ticks = |stat: &Stat| stat.utime + stat.stime;
    let whole = ticks(&process.stat().ok()?);
    let mut others = 0;
    for task in process.tasks().ok()?.flatten() {
        let Ok(stat) = task.stat() else { continue };
        let is_ours =
            task.tid == process.pid || [peer::THREAD_NAME, writer::THREAD_NAME].contains(&stat.comm.as_str());
        if is_ours {
            others += ticks(&stat);
        }
    }
    let agent = whole.saturating_sub(others);
    Some(Duration::from_secs_f64(agent as f64 / procfs::ticks_per_second() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_fit_into_the_kernels_field() {
        // TASK_COMM_LEN of linux/sched.h, with its zero.
        for name in [peer::THREAD_NAME, writer::THREAD_NAME] {
            assert!(name.len() < 16, "{name} would be cut and not be found");
        }
    }

    #[test]
    fn this_process_has_a_cost() {
        let cost = Cost::read();
        assert!(cost.agent_cpu.is_some() && cost.peak_bytes.is_some_and(|bytes| bytes > 100_000), "{cost:?}");
    }
}
