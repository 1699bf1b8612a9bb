//! The words of `/status`: one struct a part, whose field names are the names of the JSON.
//!
//! Owns the shape of the answer and the ledger's sum. Must never read a clock, a file or the network.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::facts::{Part, ProbeStatus};
use crate::insight::findings::Finding;
use crate::insight::reconcile::Reconciliation;
use crate::record::{Loss, LossReason};

/// Everything the agent says about itself at the end of one tick.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Who answers.
    pub agent: AgentStatus,
    /// Rates, totals and latency of the web server, as the windows render them.
    pub web: Rendered,
    /// Requests and unparsed lines that `web.totals` counts, together.
    #[serde(skip)]
    pub counted_lines: u64,
    /// The latest host sample, by metric name.
    pub host: Rendered,
    /// The same sample, and what the probes told, as Prometheus text with its `HELP` and `TYPE` lines; it goes to `/metrics` as it stands.
    #[serde(skip)]
    pub host_prometheus: Arc<str>,
    /// The host sources, each with how its last run went.
    pub sources: Vec<SourceStatus>,
    /// The probes, each with how its last run went.
    pub probes: Vec<ProbeStatus>,
    /// What the probes told last, by probe and metric name; of those that ask several by part and metric name.
    pub probe_metrics: Rendered,
    /// What those several told, for `/metrics`.
    #[serde(skip)]
    pub probe_parts: Vec<Arc<[Part]>>,
    /// The files that are followed.
    pub files: Vec<FileStatus>,
    /// Where every line went.
    pub ledger: Ledger,
    /// The disk buffer.
    pub spool: SpoolStatus,
    /// The sender, as it renders itself: `state`, `delivered_batches`, `sent_bytes`, `failures`, `last_status`,
    /// `last_error`, `last_success_age_s`, `next_try_in_s`.
    pub delivery: Value,
    /// How the lines compare with what servers counted.
    pub reconciliation: Arc<[Reconciliation]>,
    /// What is weak about this host and what it guards.
    pub findings: Arc<[Finding]>,
    /// What is wrong beyond what the other parts show; each one makes `/healthz` bad.
    pub problems: Vec<String>,
}

/// A part of the answer that becomes JSON when somebody reads it first: a snapshot is taken at every tick, and few are
/// asked for.
#[derive(Clone)]
pub struct Rendered(Arc<LazyLock<Value, Render>>);

type Render = Box<dyn FnOnce() -> Value + Send>;

impl Rendered {
    /// What `render` says, which is called once at most.
    pub fn later(render: impl FnOnce() -> Value + Send + 'static) -> Rendered {
        Rendered(Arc::new(LazyLock::new(Box::new(render))))
    }
}

impl Deref for Rendered {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl From<Value> for Rendered {
    fn from(value: Value) -> Rendered {
        Rendered::later(|| value)
    }
}

impl Default for Rendered {
    fn default() -> Rendered {
        Value::Null.into()
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for Rendered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

/// Who answers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentStatus {
    /// `watchpost`.
    pub name: String,
    /// The release.
    pub version: String,
    /// The host name that shipped records carry.
    pub host: String,
    /// The agent id, made at the first start.
    pub id: String,
    /// Process id.
    pub pid: u32,
    /// Whole seconds since the agent started.
    pub uptime_s: u64,
}

/// How the last run of one host source went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceStatus {
    /// The source's name in the table of sources.
    pub name: String,
    /// Whether the last run gave its readings.
    pub ok: bool,
    /// Length of the last run in milliseconds.
    pub duration_ms: f64,
    /// What went wrong when it last did; it may stay after a run that went well.
    pub last_error: Option<String>,
    /// Readings over the limit of a source that were left out of the last sample.
    pub dropped: u64,
}

/// One followed file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileStatus {
    /// The path; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What kind of log it is, such as `access`.
    pub kind: &'static str,
    /// How the follower stands to it; [`super::FILE_UNREADABLE`] makes `/healthz` bad.
    pub state: &'static str,
    /// Bytes taken for shipping so far.
    pub position: u64,
    /// Bytes counted so far; more than `position` while the spool is full and lines wait in their files.
    pub counted: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Bytes still to be taken for shipping.
    pub lag_bytes: u64,
    /// Lines that the format did not fit.
    pub unparsed: u64,
    /// Why it cannot be read, while it cannot.
    pub last_error: Option<String>,
}

/// Where every line went: `read = shipped + held + filtered + lost`.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// Lines by what became of them.
    pub lines: LedgerLines,
    /// What was lost, by cause, in the order of the cause's code; causes that cost nothing are left out.
    pub lost: Vec<LossStatus>,
    /// Whether the sum holds. Computed from the lines, never asserted.
    pub balanced: bool,
}

/// Lines by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerLines {
    /// Complete lines of all followed files.
    pub read: u64,
    /// Those whose batch was accepted.
    pub shipped: u64,
    /// Those read and not yet accepted.
    pub held: u64,
    /// Those that a setting keeps from being shipped.
    pub filtered: u64,
    /// Those that will never arrive.
    pub lost: u64,
}

/// What one cause has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LossStatus {
    /// The cause.
    pub reason: LossReason,
    /// Complete lines, as far as they are known.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Ledger {
    /// Draws up the balance; the lost lines are the sum over the causes.
    pub fn new(read: u64, shipped: u64, held: u64, filtered: u64, lost: &[(LossReason, Loss)]) -> Ledger {
        let mut by_reason: Vec<LossStatus> = lost
            .iter()
            .filter(|(_, loss)| *loss != Loss::default())
            .map(|(reason, loss)| LossStatus { reason: *reason, lines: loss.lines, bytes: loss.bytes })
            .collect();
        by_reason.sort_by_key(|loss| loss.reason.code());
        let lost_lines: u128 = by_reason.iter().map(|loss| u128::from(loss.lines)).sum();
        let accounted = u128::from(shipped) + u128::from(held) + u128::from(filtered) + lost_lines;
        let lines = LedgerLines {
            read,
            shipped,
            held,
            filtered,
            lost: u64::try_from(lost_lines).unwrap_or(u64::MAX),
        };
        Ledger { lines, lost: by_reason, balanced: u128::from(read) == accounted }
    }
}

impl Default for Ledger {
    /// Nothing read, nothing owed.
    fn default() -> Ledger {
        Ledger::new(0, 0, 0, 0, &[])
    }
}

/// The disk buffer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpoolStatus {
    /// Batches that wait for the destination.
    pub batches: u64,
    /// Bytes on disk, with everything that belongs to them.
    pub bytes: u64,
    /// The cap.
    pub bytes_max: u64,
    /// Age of the oldest batch that waits, in seconds; zero when none does.
    pub oldest_age_s: f64,
    /// How the spool stands; one of [`super::SPOOL_BAD_STATES`] makes `/healthz` bad.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_balance_is_computed() {
        let lost = [
            (LossReason::Refused, Loss { lines: 3, bytes: 300 }),
            (LossReason::Truncated, Loss { lines: 0, bytes: 12 }),
            (LossReason::Corrupted, Loss::default()),
        ];
        let ledger = Ledger::new(100, 80, 10, 7, &lost);
        assert!(ledger.balanced);
        assert_eq!(ledger.lines.lost, 3);
        let reasons: Vec<_> = ledger.lost.iter().map(|loss| loss.reason).collect();
        assert_eq!(reasons, [LossReason::Truncated, LossReason::Refused]);
        assert!(!Ledger::new(101, 80, 10, 7, &lost).balanced);
        assert!(!Ledger::new(u64::MAX, u64::MAX, u64::MAX, 1, &[]).balanced);
    }

    #[test]
    fn the_names_are_those_of_the_contract() {
        let mut snapshot = Snapshot::default();
        snapshot.files.push(FileStatus::default());
        snapshot.ledger = Ledger::new(2, 1, 0, 0, &[(LossReason::TooLarge, Loss { lines: 1, bytes: 9 })]);
        let value = serde_json::to_value(&snapshot).expect("plain data");
        let expected = serde_json::json!({
            "lines": {"read": 2, "shipped": 1, "held": 0, "filtered": 0, "lost": 1},
            "lost": [{"reason": "too_large", "lines": 1, "bytes": 9}],
            "balanced": true
        });
        assert_eq!(value["ledger"], expected);
        for (part, names) in [
            ("/agent", &["name", "version", "host", "id", "pid", "uptime_s"][..]),
            (
                "/files/0",
                &[
                    "path",
                    "kind",
                    "state",
                    "position",
                    "counted",
                    "size",
                    "lag_bytes",
                    "unparsed",
                    "last_error",
                ],
            ),
            ("/spool", &["batches", "bytes", "bytes_max", "oldest_age_s", "state"]),
        ] {
            let object = value.pointer(part).and_then(Value::as_object).expect(part);
            assert_eq!(object.len(), names.len(), "{part}");
            assert!(names.iter().all(|name| object.contains_key(*name)), "{part}: {object:?}");
        }
        assert!(value.get("host_prometheus").is_none());
    }

    proptest! {
        #[test]
        fn balanced_means_the_sum_holds(
            shipped in 0..1_000_u64, held in 0..1_000_u64, filtered in 0..1_000_u64, lost in 0..1_000_u64, off in 0..2_u64,
        ) {
            let read = shipped + held + filtered + lost + off;
            let losses = [(LossReason::Removed, Loss { lines: lost, bytes: lost })];
            prop_assert_eq!(Ledger::new(read, shipped, held, filtered, &losses).balanced, off == 0);
        }
    }
}
