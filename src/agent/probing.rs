//! From what the probes saw to records, events and the status port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::events::{Event, Severity};
use super::pipeline::Pipeline;
use super::{parts, web_server};
use crate::clock::Now;
use crate::facts::{Counted, Facts, Part, Report};
use crate::insight::findings::{self, Change, Confidence, Dated, Finding, Findings, Knowledge};
use crate::insight::reconcile::{Circumstances, HaproxyReconciler, NginxReconciler, Reconciliation, Verdict};
use crate::record::{EpochMs, Loss, Reading};
use crate::sources::to_json;
use crate::status::Rendered;

/// Between two looks at nginx's configuration: what is mended there shows within this time.
const CONFIGURATION_INTERVAL: Duration = Duration::from_secs(15);

/// What is known from the probes and from nginx's configuration, and what was drawn from it.
pub(super) struct Insight {
    /// The latest report of each probe.
    reports: BTreeMap<&'static str, Report>,
    nginx: NginxReconciler,
    haproxy: HaproxyReconciler,
    findings: Findings,
    /// What nginx's configuration says of its logs, and when that was read.
    circumstances: Option<(Circumstances, EpochMs)>,
    configuration_due: Instant,
    /// Times that a log was found truncated or rewritten.
    pub(super) rewrites: u64,
    /// The verdict that was last said in an event, by comparison.
    said: BTreeMap<&'static str, Verdict>,
    /// When the report was made whose metrics were shipped last, by probe.
    shipped_at: BTreeMap<&'static str, EpochMs>,
}

impl Insight {
    pub(super) fn new(now: Now) -> Insight {
        Insight {
            reports: BTreeMap::new(),
            nginx: NginxReconciler::new(),
            haproxy: HaproxyReconciler::new(),
            findings: Findings::new(),
            circumstances: None,
            configuration_due: now.monotonic,
            rewrites: 0,
            said: BTreeMap::new(),
            shipped_at: BTreeMap::new(),
        }
    }

    /// The metrics of all probes, as each told them last.
    pub(super) fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.reports.values().flat_map(|report| &report.readings)
    }

    /// What is to be shipped, each as the head of a record and the rest of it: the metrics of the probes that told something
    /// since the last call, and the comparisons. Those of parts are of at most `bytes_max` bytes each.
    pub(super) fn take_records(&mut self, bytes_max: usize) -> Vec<(String, Map<String, Value>)> {
        let mut records = Vec::new();
        for report in self.reports.values() {
            let shipped = self.shipped_at.insert(report.probe, report.at);
            if shipped != Some(report.at) && !report.readings.is_empty() {
                let head = format!(
                    "{{\"timestamp\":{},\"record\":\"probe.metrics\",\"probe\":\"{}\"",
                    report.at, report.probe
                );
                records.push((head, to_json(&report.readings)));
            }
            if shipped != Some(report.at)
                && let Some(parts) = report.parts()
            {
                records.extend(parts::records(report, parts, bytes_max));
            }
        }
        for reconciliation in self.reconciliations() {
            let head = format!("{{\"timestamp\":{},\"record\":\"reconciliation\"", reconciliation.as_of);
            if let Value::Object(fields) = serde_json::to_value(&reconciliation).expect("numbers and texts") {
                records.push((head, fields));
            }
        }
        records
    }

    /// The same as JSON, by probe, with what the parts told; made when somebody asks.
    pub(super) fn metrics(&self) -> Rendered {
        let readings = |report: &Report| (report.probe.to_owned(), Value::Object(to_json(&report.readings)));
        let mut told: Map<String, Value> = self.reports.values().map(readings).collect();
        let parts = |report: &Report| Some((report.probe, Arc::clone(report.parts()?)));
        let parts: Vec<(&str, Arc<[Part]>)> = self.reports.values().filter_map(parts).collect();
        Rendered::later(move || {
            for (probe, parts) in &parts {
                if let Some(Value::Object(metrics)) = told.get_mut(*probe) {
                    metrics.append(&mut parts::json(parts));
                }
            }
            Value::Object(told)
        })
    }

    /// What the parts of all probes told last.
    pub(super) fn parts(&self) -> Vec<Arc<[Part]>> {
        self.reports.values().filter_map(|report| report.parts().cloned()).collect()
    }

    /// What stands.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.findings.standing().cloned().collect()
    }

    /// How the lines compare with what servers counted.
    pub(super) fn reconciliations(&self) -> Vec<Reconciliation> {
        let nothing = Circumstances::default();
        let circumstances = self.circumstances.as_ref().map_or(&nothing, |(circumstances, _)| circumstances);
        let comparisons = [self.nginx.reconciliation(circumstances), self.haproxy.reconciliation()];
        comparisons.into_iter().flatten().collect()
    }

    fn take(&mut self, report: Report) {
        match &report.facts {
            Facts::Nginx(facts) => self.nginx.take(facts, report.at),
            Facts::Haproxy(facts) => self.haproxy.take(facts, report.at),
            // The others count no requests.
            _ => {}
        }
        self.reports.insert(report.probe, report);
    }

    fn draw(&mut self, at: EpochMs) -> Vec<Change> {
        let mut known = Knowledge {
            logs: self.circumstances.as_ref().map(|(facts, at)| Dated { facts, at: *at }),
            ..Knowledge::default()
        };
        for report in self.reports.values() {
            match &report.facts {
                Facts::None | Facts::Parts(_) => {}
                Facts::Nginx(facts) => known.nginx = Some(Dated { facts, at: report.at }),
                Facts::Haproxy(facts) => known.haproxy = Some(Dated { facts, at: report.at }),
                Facts::Mysql(facts) => known.mysql = Some(Dated { facts, at: report.at }),
                Facts::Certificates(facts) => {
                    known.certificates = Some(Dated { facts, at: report.at });
                }
                Facts::Firewall(facts) => known.firewall = Some(Dated { facts, at: report.at }),
            }
        }
        self.findings.draw(&known, at)
    }
}

impl Pipeline {
    /// Answers a probe that asks for the count of lines, which was begun after the question came: every file was read to its
    /// end since.
    pub(super) fn answer_tally(&mut self, question: Option<u64>) {
        let Some(question) = question else { return };
        let view = self.windows.totals_view();
        let lost = self.account.lost().fold(Loss::default(), |sum, (_, loss)| Loss {
            lines: sum.lines + loss.lines,
            bytes: sum.bytes + loss.bytes,
        });
        let counted = Counted {
            lines: view.requests + view.unparsed,
            lost_lines: lost.lines,
            lost_bytes: lost.bytes,
            rewrites: self.insight.rewrites,
        };
        self.tally.answer(question, counted);
    }

    /// Takes what the probes saw since the last tick, and says what it means.
    pub(super) fn take_reports(&mut self, now: Now) {
        let reports = self.probes.take();
        let mut is_new = !reports.is_empty();
        for report in reports {
            self.insight.take(report);
        }
        if self.plan.is_discovered && now.monotonic >= self.insight.configuration_due {
            self.insight.configuration_due = now.monotonic + CONFIGURATION_INTERVAL;
            let found = web_server::circumstances(&self.config);
            self.insight.circumstances = found.map(|circumstances| (circumstances, now.wall));
            is_new = true;
        }
        if !is_new {
            return;
        }
        self.told = None;
        for change in self.insight.draw(now.wall) {
            self.event(now, finding_event(&change));
        }
        for reconciliation in self.insight.reconciliations() {
            self.say_verdict(now, &reconciliation);
        }
    }

    /// Says when requests begin to lack their lines, and when that is over.
    fn say_verdict(&mut self, now: Now, reconciliation: &Reconciliation) {
        let is = reconciliation.verdict;
        let was = self.insight.said.insert(reconciliation.with, is);
        if (was == Some(Verdict::Unaccounted)) == (is == Verdict::Unaccounted) {
            return;
        }
        let event = if is == Verdict::Unaccounted {
            let message = format!(
                "{}: {} requests are not accounted for: {}",
                reconciliation.with, reconciliation.unaccounted, reconciliation.cause
            );
            Event::new("watchpost.reconciliation", Severity::Warn, message)
        } else {
            let message = format!("{}: the counts agree again", reconciliation.with);
            Event::new("watchpost.reconciliation", Severity::Info, message)
        };
        let event = event
            .with("with", reconciliation.with)
            .with("verdict", is.name())
            .with("counted", reconciliation.counted)
            .with("reported", reconciliation.reported)
            .with("unaccounted", reconciliation.unaccounted)
            .with("cause", reconciliation.cause.as_str());
        self.event(now, event);
    }
}

/// A finding that appeared or was mended, as an event.
fn finding_event(change: &Change) -> Event {
    let (finding, severity, state) = match change {
        Change::Appeared(finding) => {
            let severity = match (finding.confidence, finding.severity) {
                (Confidence::Unknown, _) | (_, findings::Severity::Low) => Severity::Info,
                (_, findings::Severity::Medium) => Severity::Warn,
                (_, findings::Severity::High) => Severity::Error,
            };
            let state = if finding.confidence == Confidence::Unknown { "unknown" } else { "present" };
            (finding, severity, state)
        }
        Change::Cleared(finding) => (finding, Severity::Info, "cleared"),
    };
    let message = match change {
        Change::Appeared(finding) => finding.title.clone(),
        Change::Cleared(finding) => format!("no longer so: {}", finding.title),
    };
    let json = |value| serde_json::to_value(value).expect("names and texts");
    Event::new("watchpost.finding", severity, message)
        .with("id", finding.id)
        .with("state", state)
        .with("subject", finding.subject.as_str())
        .with("finding_severity", serde_json::to_value(finding.severity).expect("a name"))
        .with("confidence", serde_json::to_value(finding.confidence).expect("a name"))
        .with("evidence", json(&finding.evidence))
        .with("advice", finding.advice.as_str())
}
