//! What the probes saw last, and how each fares: written by the probes, read by the pipeline.
//!
//! A report that nobody took is replaced by the next of its probe: one is kept each, however slow the reader is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ProbeError, Spec};
use crate::clock::Now;
use crate::facts::{Facts, Part, PartStatus, ProbeState, ProbeStatus, Report};

/// The latest of every probe that runs.
#[derive(Debug, Default)]
pub struct ProbeBoard {
    entries: Mutex<BTreeMap<&'static str, Entry>>,
}

/// Parts that a probe's own error names; the others are counted.
const NAMED_MAX: usize = 5;

#[derive(Debug, Default)]
struct Entry {
    state: Option<ProbeState>,
    runs: u64,
    failures: u64,
    took: Duration,
    last_error: Option<String>,
    last_success: Option<Instant>,
    /// How the parts fared in the last run.
    parts: Vec<PartStatus>,
    /// What nobody took yet.
    report: Option<Report>,
}

impl Entry {
    /// A run that saw something; its parts may fare differently.
    fn take_report(&mut self, report: Report) {
        let parts = report.parts().map_or(&[][..], |parts| parts);
        let state = state_of(parts);
        if self.state == Some(ProbeState::Absent) {
            // What was not there is there now; that it was absent was no error.
            self.last_error = None;
        }
        self.state = Some(state);
        self.failures += u64::from(state != ProbeState::Ok);
        self.last_error = error_of(parts).or(self.last_error.take());
        self.parts = parts.iter().map(PartStatus::from).collect();
        self.report = Some(report);
    }
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
        if let Some(report) = report {
            entry.take_report(report);
            if matches!(entry.state, Some(ProbeState::Ok | ProbeState::Partial)) {
                entry.last_success = Some(now.monotonic);
            }
        } else if !std::mem::take(&mut entry.parts).is_empty() {
            // What parts told earlier holds no longer once they cannot be asked.
            let facts = Facts::Parts([].into());
            entry.report = Some(Report { probe: spec.name, at: now.wall, readings: Vec::new(), facts });
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
            parts: entry.parts.clone(),
        };
        self.lock().iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_bad(part: &&Part) -> bool {
    !matches!(part.state, ProbeState::Ok | ProbeState::Absent)
}

/// How a probe fares by its parts; one without parts saw what there is.
fn state_of(parts: &[Part]) -> ProbeState {
    let asked = parts.iter().filter(|part| part.state != ProbeState::Absent).count();
    let bad = parts.iter().filter(is_bad).count();
    match bad {
        0 => ProbeState::Ok,
        _ if bad < asked => ProbeState::Partial,
        _ if parts.iter().filter(is_bad).all(|part| part.state == ProbeState::Denied) => ProbeState::Denied,
        _ => ProbeState::Failing,
    }
}

/// Which parts are not well, and why.
fn error_of(parts: &[Part]) -> Option<String> {
    let mut bad = parts.iter().filter(is_bad).map(|part| {
        let error = part.error.as_deref().unwrap_or("no reason is known");
        format!("{}: {error}", part.name)
    });
    let mut said: Vec<String> = bad.by_ref().take(NAMED_MAX).collect();
    match bad.count() {
        0 => {}
        more => said.push(format!("and {more} more")),
    }
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::facts::PartKind;

    static SPEC: Spec = Spec {
        name: "many",
        help: "Many",
        setting: "WATCHPOST_MANY",
        metrics: &[],
        interval: Duration::from_secs(1),
        deadline: Duration::from_secs(1),
        make: |_| None,
    };

    fn part(name: &str, state: ProbeState) -> Part {
        let error = (state != ProbeState::Ok).then(|| "broken".to_owned());
        let (name, took) = (name.to_owned(), Duration::from_millis(2));
        Part { kind: PartKind::Script, name, state, error, took, samples: Vec::new(), left_out: 0, unread: 0 }
    }

    /// What the board says after a run with these parts, from a fresh start.
    fn said(parts: &[ProbeState]) -> (ProbeState, u64, Option<String>) {
        let board = ProbeBoard::new();
        let parts: Arc<[Part]> =
            parts.iter().enumerate().map(|(n, state)| part(&format!("p{n}"), *state)).collect();
        let report = Report { probe: "many", at: 1, readings: Vec::new(), facts: Facts::Parts(parts) };
        board.put(&SPEC, Duration::ZERO, (Some(report), None), Now::read());
        let status = board.statuses(Now::read()).remove(0);
        assert_eq!(board.take().len(), 1, "the parts that answered are told in any case");
        (status.state, status.failures, status.last_error)
    }

    #[test]
    fn one_bad_part_costs_only_itself_and_is_named() {
        use ProbeState::{Absent, Denied, Failing, Ok};
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(said(&[]), (Ok, 0, None));
        assert_eq!(said(&[Ok, Absent]), (Ok, 0, None));
        assert_eq!(said(&[Ok, Failing, Absent]), (ProbeState::Partial, 1, text("p1: broken")));
        assert_eq!(said(&[Denied, Absent]), (Denied, 1, text("p0: broken")));
        assert_eq!(said(&[Denied, Failing]), (Failing, 1, text("p0: broken; p1: broken")));
        let many = said(&[Failing; NAMED_MAX + 2]).2.unwrap_or_default();
        assert!(many.ends_with("p4: broken; and 2 more"), "{many}");
    }

    #[test]
    fn what_parts_told_goes_when_they_cannot_be_asked() {
        let board = ProbeBoard::new();
        let facts = Facts::Parts([part("a", ProbeState::Ok)].into());
        let report = Report { probe: "many", at: 1, readings: Vec::new(), facts };
        board.put(&SPEC, Duration::ZERO, (Some(report), None), Now::read());
        assert_eq!(board.take().len(), 1);
        for expected in [1, 0] {
            let gone = (None, Some(ProbeError::Absent("no directory".to_owned())));
            board.put(&SPEC, Duration::ZERO, gone, Now::read());
            let taken = board.take();
            assert_eq!(taken.len(), expected);
            assert!(taken.iter().all(|report| report.facts == Facts::Parts([].into())));
        }
    }
}
