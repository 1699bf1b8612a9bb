//! How many processes there are, in which state, and how fast new ones come.
//!
//! By listing `/proc`: a refresh of all processes costs sysinfo 30 us each, where all that is wanted
//! is the one letter in `stat`. Even that is read of some processes a sample only, so that a host with
//! thousands costs no more; the states then are of the last round through all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;

use super::proc_file;
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PROC: &str = "/proc";
const STAT_PATH: &str = "/proc/stat";
/// Processes whose state is read in one sample; 10 to 20 us each.
const STATES_PER_SAMPLE_MAX: usize = 150;
/// The state stands behind the number and the name, of 63 bytes at most.
const STAT_BYTES_READ: usize = 256;

static STATES: Metric = Metric::gauge(
    "system.process.count",
    "{process}",
    "watchpost_processes",
    "Processes in each state, of the last round through all",
)
.by(&["process.state"], &["state"]);
static COUNT: Metric = Metric::gauge(
    "watchpost.process.count",
    "{process}",
    "node_processes_pids",
    "Processes that there are at this moment",
);
static CREATED: Metric = Metric::counter(
    "system.process.created",
    "{process}",
    "node_forks_total",
    "Processes and threads that were begun since boot",
);

pub(super) static SPEC: Spec = Spec {
    name: "processes",
    help: "Processes by state, and how many were created",
    metrics: &[&STATES, &COUNT, &CREATED],
    make: || Box::new(Processes { round: Round::default() }),
};

struct Processes {
    round: Round,
}

impl Source for Processes {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let pids = list()?;
        out.push(Reading::new(&COUNT, [], pids.len() as f64));
        self.round.advance(pids, stat_of);
        if let Some(counts) = &self.round.finished {
            out.extend(counts.iter().map(|(state, count)| Reading::new(&STATES, [state], *count as f64)));
        }
        let created = proc_file::number(&proc_file::read(STAT_PATH)?, "processes");
        out.extend(created.map(|created| Reading::new(&CREATED, [], created as f64)));
        Ok(())
    }
}

/// The beginning of the text of `/proc/PID/stat`, by one read: its length need not be asked, nor its end seen.
fn stat_of(pid: u32) -> Option<String> {
    let mut text = [0; STAT_BYTES_READ];
    let count = File::open(format!("{PROC}/{pid}/stat")).and_then(|mut file| file.read(&mut text)).ok()?;
    Some(String::from_utf8_lossy(&text[..count]).into_owned())
}

fn list() -> Result<Vec<u32>, SourceError> {
    let entries = fs::read_dir(PROC).map_err(|source| SourceError::Read { path: PROC.to_owned(), source })?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// States that are always told, so that zero is seen as zero.
const STATES_ALWAYS: [&str; 5] = ["running", "sleeping", "blocked", "stopped", "defunct"];

/// A pass through all processes that may take several samples.
#[derive(Default)]
struct Round {
    pending: Vec<u32>,
    counts: BTreeMap<&'static str, u64>,
    /// The counts of the last pass that is complete.
    finished: Option<BTreeMap<&'static str, u64>>,
}

impl Round {
    /// Reads the state of the next processes; a new pass goes through `pids`. A process that is gone
    /// when its turn comes counts nowhere.
    fn advance(&mut self, pids: Vec<u32>, read: impl Fn(u32) -> Option<String>) {
        if self.pending.is_empty() {
            self.pending = pids;
            self.counts = STATES_ALWAYS.map(|state| (state, 0)).into();
        }
        for _ in 0..STATES_PER_SAMPLE_MAX {
            let Some(pid) = self.pending.pop() else { break };
            if let Some(state) = read(pid).as_deref().and_then(state) {
                *self.counts.entry(state).or_default() += 1;
            }
        }
        if self.pending.is_empty() {
            self.finished = Some(std::mem::take(&mut self.counts));
        }
    }
}

/// The state in `/proc/PID/stat`, in OpenTelemetry's words; `blocked` (in a disk wait that no
/// signal ends) and `idle` (a thread of the kernel without work) are words of its collector.
fn state(stat: &str) -> Option<&'static str> {
    // The name of the program stands in parentheses and may itself have spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    match rest.trim_start().chars().next()? {
        'R' => Some("running"),
        'S' => Some("sleeping"),
        'D' => Some("blocked"),
        'I' => Some("idle"),
        'T' | 't' => Some("stopped"),
        'Z' | 'X' => Some("defunct"),
        _ => Some("other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_the_name_whatever_it_is() {
        assert_eq!(state("12 (nginx) S 1 12"), Some("sleeping"));
        assert_eq!(state("12 (a) Z (b) R) D 1"), Some("blocked"));
        assert_eq!(state("12 (x) Z"), Some("defunct"));
        assert_eq!(state("12 (x) "), None);
        assert_eq!(state(""), None);
    }

    #[test]
    fn a_round_over_many_processes_takes_several_samples() {
        let mut round = Round::default();
        let pids: Vec<u32> = (0..250).collect();
        let read = |pid: u32| (pid != 7).then(|| format!("{pid} (x) {} 1", if pid < 10 { 'Z' } else { 'S' }));
        round.advance(pids.clone(), read);
        assert_eq!(round.finished, None);
        round.advance(pids.clone(), read);
        let finished = round.finished.clone().expect("a finished round");
        assert_eq!((finished["defunct"], finished["sleeping"], finished["running"]), (9, 240, 0));
        // The next round begins anew; until it is through, the counts of the last stand.
        round.advance(pids, read);
        assert_eq!(round.finished, Some(finished));
    }
}
