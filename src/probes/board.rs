//! What the probes saw last, and how each fares: written by the probes, read by the pipeline.
//!
//! A report that nobody took is replaced by the next of its probe: one is kept each, however slow the reader is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ProbeError, Spec};
use crate::clock::Now;
use crate::facts::{ProbeState, ProbeStatus, Report};

/// The latest of every probe that runs.
#[derive(Debug, Default)]
pub struct ProbeBoard {
    entries: Mutex<BTreeMap<&'static str, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    state: Option<ProbeState>,
    runs: u64,
    failures: u64,
    took: Duration,
    last_error: Option<String>,
    last_success: Option<Instant>,
    /// What nobody took yet.
    report: Option<Report>,
}

impl ProbeBoard {
    /// A board without a probe.
    pub fn new() -> ProbeBoard {
        ProbeBoard::default()
    }

    /// Says that a probe will run.
    pub(super) fn expect(&self, spec: &'static Spec) {
        self.lock().entry(spec.name).or_default();
    }

    /// Takes what one run gave, which may be a report and an error for what is lacking in it.
    pub(super) fn put(
        &self,
        spec: &'static Spec,
        took: Duration,
        (report, error): (Option<Report>, Option<ProbeError>),
        now: Now,
    ) {
        let mut entries = self.lock();
        let entry = entries.entry(spec.name).or_default();
        entry.runs += 1;
        entry.took = took;
        if report.is_some() {
            entry.state = Some(ProbeState::Ok);
            entry.last_success = Some(now.monotonic);
            entry.report = report;
        }
        if let Some(error) = error {
            entry.state = Some(match error {
                ProbeError::Absent(_) => ProbeState::Absent,
                ProbeError::Denied { .. } => ProbeState::Denied,
                ProbeError::Failed(_) => ProbeState::Failing,
            });
            entry.failures += u64::from(entry.state != Some(ProbeState::Absent));
            entry.last_error = Some(error.to_string());
        }
    }

    /// The reports that came since the last call, at most one a probe.
    pub fn take(&self) -> Vec<Report> {
        self.lock().values_mut().filter_map(|entry| entry.report.take()).collect()
    }

    /// How every probe fares, in the order of the names.
    pub fn statuses(&self, now: Now) -> Vec<ProbeStatus> {
        let status = |(name, entry): (&&'static str, &Entry)| ProbeStatus {
            name,
            state: entry.state.unwrap_or(ProbeState::Starting),
            runs: entry.runs,
            failures: entry.failures,
            duration_ms: entry.took.as_micros() as f64 / 1000.0,
            last_error: entry.last_error.clone(),
            last_success_age_s: entry.last_success.map(|at| now.since(at).as_secs()),
        };
        self.lock().iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
