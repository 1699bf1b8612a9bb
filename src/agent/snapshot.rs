//! What the status port shows: every number of one moment, taken together.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::pipeline::Pipeline;
use super::probing::Insight;
use crate::clock::Now;
use crate::facts::Part;
use crate::follow::Tracked;
use crate::insight::findings::Finding;
use crate::insight::reconcile::Reconciliation;
use crate::record::{Loss, LossReason, Reading};
use crate::ship::DeliveryState;
use crate::sources::{prometheus_text, to_json};
use crate::spool::SpoolState;
use crate::status::{AgentStatus, FileStatus, Ledger, Rendered, Snapshot, SourceStatus, SpoolStatus};

/// What kind of log a file is.
const ACCESS_LOG: &str = "access_log";

/// What changes with a sample of the host or a report of a probe only, and is shown at every tick in between.
#[derive(Clone)]
pub(super) struct Told {
    host: Rendered,
    prometheus: Arc<str>,
    probe_metrics: Rendered,
    probe_parts: Vec<Arc<[Part]>>,
    reconciliation: Arc<[Reconciliation]>,
    findings: Arc<[Finding]>,
}

impl Told {
    fn new(sample: &[Reading], insight: &Insight) -> Told {
        let mut prometheus = String::new();
        prometheus_text(sample.iter().chain(insight.readings()), &mut prometheus);
        Told {
            host: Value::Object(to_json(sample)).into(),
            prometheus: prometheus.into(),
            probe_metrics: insight.metrics(),
            probe_parts: insight.parts(),
            reconciliation: insight.reconciliations().into(),
            findings: insight.findings().into(),
        }
    }
}

impl Pipeline {
    /// Shows the state of this moment to whoever asked for it.
    pub(super) fn show(&mut self, now: Now) {
        if self.board.is_asked() {
            self.publish(now);
        } else {
            let is_bad = matches!(self.delivery_state(), DeliveryState::Retrying | DeliveryState::Held);
            self.board.tick_is_through(is_bad);
        }
    }

    fn publish(&mut self, now: Now) {
        let spool = self.spool.status();
        let held = spool.lines + self.lines_before_spool();
        let mut losses: BTreeMap<LossReason, Loss> = spool.lost.clone();
        for (reason, loss) in self.account.lost() {
            let total = losses.entry(reason).or_default();
            total.lines += loss.lines;
            total.bytes += loss.bytes;
        }
        let losses: Vec<(LossReason, Loss)> = losses.into_iter().collect();
        let told = self.told.get_or_insert_with(|| Told::new(&self.sample.readings, &self.insight)).clone();
        let (web, counted_lines) = self.web();
        let snapshot = Snapshot {
            agent: AgentStatus {
                name: "watchpost".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                host: self.host_name.clone(),
                id: self.spool.agent_id().to_string(),
                pid: std::process::id(),
                uptime_s: now.since(self.started.monotonic).as_secs(),
            },
            web,
            counted_lines,
            host: told.host,
            host_prometheus: told.prometheus,
            sources: self.source_statuses(),
            probes: self.probes.statuses(now),
            probe_metrics: told.probe_metrics,
            probe_parts: told.probe_parts,
            reconciliation: told.reconciliation,
            findings: told.findings,
            files: self.file_statuses(),
            ledger: Ledger::new(
                self.account.read,
                spool.delivered.lines,
                held,
                self.account.filtered,
                &losses,
            ),
            spool: SpoolStatus {
                batches: spool.batches,
                bytes: spool.bytes,
                bytes_max: spool.bytes_max,
                oldest_age_s: spool
                    .oldest_created_ms
                    .map_or(0.0, |created| (now.wall - created).max(0) as f64 / 1000.0),
                state: match &spool.state {
                    SpoolState::Ok if self.is_blocked() => "full".to_owned(),
                    SpoolState::Ok => "ok".to_owned(),
                    SpoolState::Full => "full".to_owned(),
                    SpoolState::Degraded(_) => "degraded".to_owned(),
                },
            },
            delivery: self.delivery_value(),
            problems: self.problems(&spool.state),
        };
        self.board.publish(snapshot);
    }

    /// The windows, with what the reader knows of the lines that did not parse, and how many lines they count. The
    /// numbers are taken now, and become JSON when somebody asks.
    fn web(&self) -> (Rendered, u64) {
        let view = self.windows.view_unsorted();
        let counted_lines = view.totals.requests + view.totals.unparsed;
        let (unparsed, redacted, cut) =
            (self.account.unparsed.clone(), self.account.redacted, self.account.cut);
        let web = Rendered::later(move || {
            let mut web = serde_json::to_value(view.sorted()).expect("numbers and names are always JSON");
            if let Some(totals) = web.get_mut("totals").and_then(Value::as_object_mut) {
                let reasons = serde_json::to_value(unparsed).expect("names and counts");
                totals.insert("unparsed_reasons".to_owned(), reasons);
                totals.insert("redacted".to_owned(), redacted.into());
                totals.insert("cut".to_owned(), cut.into());
            }
            web
        });
        (web, counted_lines)
    }

    fn source_statuses(&self) -> Vec<SourceStatus> {
        let state = |source: &crate::sources::SourceState| SourceStatus {
            name: source.name.to_owned(),
            ok: source.ok,
            duration_ms: source.duration_ms,
            last_error: source.last_error.clone().or_else(|| source.not_available.clone()),
            dropped: source.dropped,
        };
        self.sample.sources.iter().map(state).collect()
    }

    fn file_statuses(&self) -> Vec<FileStatus> {
        let open = self.follower.files().map(|file| self.file_status(file));
        let blocked = self.follower.blocked().iter().map(|(path, blocked)| FileStatus {
            path: path.display().to_string(),
            kind: ACCESS_LOG,
            state: blocked.state,
            last_error: Some(blocked.message.clone()),
            ..FileStatus::default()
        });
        open.chain(blocked).collect()
    }

    fn file_status(&self, file: &Tracked) -> FileStatus {
        FileStatus {
            path: file.path.display().to_string(),
            kind: ACCESS_LOG,
            state: file.state(),
            position: file.offset(),
            counted: file.counted_offset(),
            size: file.size(),
            lag_bytes: file.size().saturating_sub(file.offset()),
            unparsed: self.readers.get(&file.id).map_or(0, |reader| reader.unparsed),
            last_error: file.error().map(str::to_owned),
        }
    }

    /// What an operator should look at, beside what the port finds by itself.
    fn problems(&self, state: &SpoolState) -> Vec<String> {
        let mut problems = Vec::new();
        if let SpoolState::Degraded(reason) = state {
            problems.push(format!("spool: {reason}; lines wait in their logs, counting goes on"));
        }
        for (path, blocked) in self.follower.blocked() {
            problems.push(format!("{}: {}", path.display(), blocked.message));
        }
        for file in self.follower.files() {
            if let Some(error) = file.error() {
                problems.push(format!("{}: {error}", file.path.display()));
            }
        }
        problems
    }
}
