//! When the agent is not well, in sentences: the reasons behind `/healthz`.
//!
//! Pure: a snapshot and ages in, reasons out. Must never show a destination, a token or the text of a remote's error.

use std::time::Duration;

use serde_json::Value;

use super::snapshot::Snapshot;

/// States of `delivery` that count as failing; longer than [`DELIVERY_BAD_MAX`] they make `/healthz` bad.
pub const DELIVERY_BAD_STATES: [&str; 2] = ["held", "retrying"];
/// States of `spool` that make `/healthz` bad at once.
pub const SPOOL_BAD_STATES: [&str; 2] = ["full", "degraded"];
/// The state of a file that should be read and cannot be.
pub const FILE_UNREADABLE: &str = "unreadable";

/// A retry or two is how delivery works; a minute of them is an outage.
const DELIVERY_BAD_MAX: Duration = Duration::from_secs(60);
/// A tick takes a second; the pipeline that has not ended one in this time hangs.
const TICK_AGE_MAX: Duration = Duration::from_secs(30);
/// Unreadable files that are named one by one; more are only counted.
const FILES_NAMED_MAX: usize = 10;

/// What only the board knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ages {
    /// Since the snapshot was taken.
    pub(super) snapshot: Duration,
    /// Since the last tick was through.
    pub(super) tick: Duration,
    /// Since delivery began to fail without a break.
    pub(super) delivery_bad: Duration,
}

/// Whether the sender says that it cannot deliver.
pub(super) fn delivery_is_bad(delivery: &Value) -> bool {
    delivery["state"].as_str().is_some_and(|state| DELIVERY_BAD_STATES.contains(&state))
}

/// Why the agent is not well; empty when it is.
pub(super) fn reasons(snapshot: &Snapshot, ages: Ages) -> Vec<String> {
    let mut reasons = Vec::new();
    if ages.tick > TICK_AGE_MAX {
        reasons.push(format!("pipeline: no tick for {} s", ages.tick.as_secs()));
    }
    if ages.delivery_bad > DELIVERY_BAD_MAX {
        let state = snapshot.delivery["state"].as_str().unwrap_or("failing");
        reasons.push(format!("delivery: {state} for {} s", ages.delivery_bad.as_secs()));
    }
    if SPOOL_BAD_STATES.contains(&snapshot.spool.state.as_str()) {
        reasons.push(format!("spool: {}", snapshot.spool.state));
    }
    let unreadable: Vec<_> = snapshot.files.iter().filter(|file| file.state == FILE_UNREADABLE).collect();
    reasons.extend(
        unreadable.iter().take(FILES_NAMED_MAX).map(|file| format!("file: cannot read {}", file.path)),
    );
    if unreadable.len() > FILES_NAMED_MAX {
        reasons.push(format!("file: cannot read {} more", unreadable.len() - FILES_NAMED_MAX));
    }
    if !snapshot.ledger.balanced {
        let lines = snapshot.ledger.lines;
        reasons.push(format!(
            "ledger: read {} is not shipped {} + held {} + filtered {} + lost {}",
            lines.read, lines.shipped, lines.held, lines.filtered, lines.lost
        ));
    }
    reasons.extend(snapshot.problems.iter().cloned());
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::snapshot::{FileStatus, Ledger};
    use super::*;

    fn check(change: impl FnOnce(&mut Snapshot, &mut Ages), expected: &[&str]) {
        let (mut snapshot, mut ages) = (Snapshot::default(), Ages::default());
        change(&mut snapshot, &mut ages);
        assert_eq!(reasons(&snapshot, ages), expected);
    }

    #[test]
    fn each_reason_alone() {
        check(|_, _| {}, &[]);
        check(|_, ages| ages.tick = Duration::from_secs(30), &[]);
        check(|_, ages| ages.tick = Duration::from_secs(31), &["pipeline: no tick for 31 s"]);
        let retrying = |seconds: u64| {
            move |snapshot: &mut Snapshot, ages: &mut Ages| {
                snapshot.delivery = json!({"state": "retrying", "last_error": "https://secret.example/x"});
                ages.delivery_bad = Duration::from_secs(seconds);
            }
        };
        check(retrying(60), &[]);
        check(retrying(75), &["delivery: retrying for 75 s"]);
        for state in SPOOL_BAD_STATES {
            check(|snapshot, _| snapshot.spool.state = state.to_owned(), &[&format!("spool: {state}")]);
        }
        check(|snapshot, _| snapshot.spool.state = "ok".to_owned(), &[]);
        check(
            |snapshot, _| snapshot.ledger = Ledger::new(5, 1, 1, 1, &[]),
            &["ledger: read 5 is not shipped 1 + held 1 + filtered 1 + lost 0"],
        );
        check(|snapshot, _| snapshot.problems.push("clock: stepped".to_owned()), &["clock: stepped"]);
    }

    #[test]
    fn unreadable_files_are_named_up_to_a_limit() {
        let files = |count: usize| {
            move |snapshot: &mut Snapshot, _: &mut Ages| {
                let file = FileStatus { path: "/l".into(), state: FILE_UNREADABLE, ..FileStatus::default() };
                snapshot.files = vec![file; count];
                snapshot.files.push(FileStatus { state: "following", ..FileStatus::default() });
            }
        };
        check(files(1), &["file: cannot read /l"]);
        let mut expected = vec!["file: cannot read /l"; FILES_NAMED_MAX];
        expected.push("file: cannot read 5 more");
        check(files(FILES_NAMED_MAX + 5), &expected);
    }
}
