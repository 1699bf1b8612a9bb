//! A view of the board as Prometheus text, exposition format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! The host's part comes ready-made; this renders the agent's own. What a snapshot does not hold is left out, never
//! written as zero. Must never write a series twice or a label unescaped: one bad line makes a scraper drop them all.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use serde_json::Value;

use super::board::View;
use super::health;
use super::parts;
use super::snapshot::Snapshot;
use crate::facts::{PartStatus, ProbeState};
use crate::insight::findings::Severity;
use crate::insight::reconcile::{Reconciliation, Verdict};

/// The type of the answer.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Bytes of the host's part; a host with more devices than that loses whole lines at the end.
const HOST_BYTES_MAX: usize = 1024 * 1024;
/// Series of one family.
const SERIES_MAX: usize = 1_000;
/// The windows, shortest first.
const WINDOWS: [&str; 5] = ["1s", "10s", "1m", "5m", "15m"];
/// Quantiles of latency: their name in JSON and their label.
const QUANTILES: [(&str, &str); 4] = [("p50", "0.5"), ("p90", "0.9"), ("p95", "0.95"), ("p99", "0.99")];

/// The answer of `/metrics`.
pub(super) fn render(view: &View) -> String {
    let snapshot = &*view.snapshot;
    let mut text = Text::new(host_part(&snapshot.host_prometheus));
    agent(&mut text, view);
    ledger(&mut text, snapshot);
    files(&mut text, snapshot);
    sources(&mut text, snapshot);
    probes(&mut text, snapshot);
    reconciliation(&mut text, snapshot);
    findings(&mut text, snapshot);
    spool(&mut text, snapshot);
    delivery(&mut text, &snapshot.delivery);
    web_totals(&mut text, &snapshot.web);
    web_windows(&mut text, &snapshot.web);
    web_parts(&mut text, &snapshot.web);
    parts::render(&snapshot.probe_parts, &mut text.out);
    text.out
}

fn host_part(rendered: &str) -> &str {
    if rendered.len() <= HOST_BYTES_MAX {
        return rendered;
    }
    let cut = rendered.floor_char_boundary(HOST_BYTES_MAX);
    rendered.get(..cut).and_then(|kept| kept.rsplit_once('\n')).map_or("", |(kept, _)| kept)
}

fn agent(text: &mut Text, view: &View) {
    let agent = &view.snapshot.agent;
    let labels: [(&str, &str); 3] = [("version", &agent.version), ("host", &agent.host), ("id", &agent.id)];
    text.family("watchpost_build_info", GAUGE, "The release and the agent that answers; always 1")
        .add(&labels, 1.0);
    text.one("watchpost_uptime_seconds", GAUGE, "Time since the agent started", count(agent.uptime_s));
    let healthy = health::reasons(&view.snapshot, view.ages).is_empty();
    text.one("watchpost_up", GAUGE, "Whether the agent answers; always 1", 1.0);
    text.one("watchpost_healthy", GAUGE, "Whether /healthz is good", truth(healthy));
    text.one(
        "watchpost_snapshot_age_seconds",
        GAUGE,
        "Time since the last tick was through",
        view.ages.snapshot.as_secs_f64(),
    );
}

fn ledger(text: &mut Text, snapshot: &Snapshot) {
    let lines = snapshot.ledger.lines;
    text.family(
        "watchpost_ledger_lines_total",
        COUNTER,
        "Log lines by what became of them; held ones are a gauge",
    )
    .add(&[("state", "read")], count(lines.read))
    .add(&[("state", "shipped")], count(lines.shipped))
    .add(&[("state", "filtered")], count(lines.filtered))
    .add(&[("state", "lost")], count(lines.lost));
    text.one("watchpost_ledger_lines_held", GAUGE, "Log lines read and not yet accepted", count(lines.held));
    text.one(
        "watchpost_ledger_balanced",
        GAUGE,
        "Whether read = shipped + held + filtered + lost",
        truth(snapshot.ledger.balanced),
    );
    let lost = &snapshot.ledger.lost;
    let mut family = text.family("watchpost_lost_lines_total", COUNTER, "Log lines lost, by reason");
    for loss in lost {
        family = family.add(&[("reason", loss.reason.name())], count(loss.lines));
    }
    let mut family = text.family("watchpost_lost_bytes_total", COUNTER, "Bytes lost, by reason");
    for loss in lost {
        family = family.add(&[("reason", loss.reason.name())], count(loss.bytes));
    }
}

fn files(text: &mut Text, snapshot: &Snapshot) {
    // A rotated file and its successor share a path until the old one is read to its end.
    let mut by_path: BTreeMap<(&str, &str), [u64; 3]> = BTreeMap::new();
    for file in &snapshot.files {
        let sums = by_path.entry((&file.path, file.kind)).or_default();
        let unreadable = u64::from(file.state == health::FILE_UNREADABLE);
        for (sum, value) in sums.iter_mut().zip([file.lag_bytes, file.unparsed, unreadable]) {
            *sum = sum.saturating_add(value);
        }
    }
    let families = [
        ("watchpost_file_lag_bytes", GAUGE, "Bytes of a followed file still to be read"),
        (
            "watchpost_file_unparsed_lines_total",
            COUNTER,
            "Lines of a followed file that its format did not fit",
        ),
        ("watchpost_file_unreadable", GAUGE, "Files at this path that cannot be read"),
    ];
    for (index, (name, kind, help)) in families.into_iter().enumerate() {
        let mut family = text.family(name, kind, help);
        for ((path, file_kind), sums) in &by_path {
            family = family.add(&[("path", path), ("kind", file_kind)], count(sums[index]));
        }
    }
}

fn probes(text: &mut Text, snapshot: &Snapshot) {
    let mut family =
        text.family("watchpost_probe_up", GAUGE, "Whether a probe's last run saw what it asks for");
    for probe in snapshot.probes.iter().filter(|probe| probe.state != ProbeState::Absent) {
        family = family.add(&[("probe", probe.name)], truth(probe.state == ProbeState::Ok));
    }
    let mut family = text.family("watchpost_probe_duration_seconds", GAUGE, "Length of a probe's last run");
    for probe in &snapshot.probes {
        family = family.add(&[("probe", probe.name)], probe.duration_ms / 1000.0);
    }
    type Pick = fn(&PartStatus) -> f64;
    let families: [(&str, &str, Pick); 4] = [
        ("watchpost_probe_part_up", "Whether one of several that a probe asks gave what it should", |part| {
            truth(part.state == ProbeState::Ok)
        }),
        ("watchpost_probe_part_samples", "Samples that it gave", |part| part.samples as f64),
        ("watchpost_probe_part_left_out", "Samples over a limit that were left out", |part| {
            count(part.left_out)
        }),
        ("watchpost_probe_part_unread", "Lines or values of it that could not be read", |part| {
            count(part.unread)
        }),
    ];
    for (name, help, pick) in families {
        let mut family = text.family(name, GAUGE, help);
        for probe in &snapshot.probes {
            for part in probe.parts.iter().filter(|part| part.state != ProbeState::Absent) {
                family = family.add(&[("probe", probe.name), ("part", &part.name)], pick(part));
            }
        }
    }
}

fn reconciliation(text: &mut Text, snapshot: &Snapshot) {
    type Pick = fn(&Reconciliation) -> f64;
    let families: [(&str, &str, &str, Pick); 4] = [
        ("watchpost_reconciliation_counted_total", COUNTER, "Lines since a comparison began", |one| {
            count(one.counted)
        }),
        (
            "watchpost_reconciliation_reported_total",
            COUNTER,
            "Requests that the server reports for the same time",
            |one| count(one.reported),
        ),
        (
            "watchpost_reconciliation_unaccounted",
            GAUGE,
            "Requests without a line; negative for lines without a request",
            |one| one.unaccounted as f64,
        ),
        ("watchpost_reconciliation_agrees", GAUGE, "Whether lines and requests agree", |one| {
            truth(matches!(one.verdict, Verdict::Equal | Verdict::WithinBracket))
        }),
    ];
    for (name, kind, help, pick) in families {
        let mut family = text.family(name, kind, help);
        for one in snapshot.reconciliation.iter() {
            family = family.add(&[("with", one.with)], pick(one));
        }
    }
}

fn findings(text: &mut Text, snapshot: &Snapshot) {
    let mut family = text.family("watchpost_finding", GAUGE, "Weaknesses that stand; always 1");
    for finding in snapshot.findings.iter() {
        let severity = match finding.severity {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
        };
        let labels = [("id", finding.id), ("subject", finding.subject.as_str()), ("severity", severity)];
        family = family.add(&labels, 1.0);
    }
}

fn sources(text: &mut Text, snapshot: &Snapshot) {
    let mut family =
        text.family("watchpost_source_up", GAUGE, "Whether a host source's last run gave its readings");
    for source in &snapshot.sources {
        family = family.add(&[("source", &source.name)], truth(source.ok));
    }
    let mut family =
        text.family("watchpost_source_duration_seconds", GAUGE, "Length of a host source's last run");
    for source in &snapshot.sources {
        family = family.add(&[("source", &source.name)], source.duration_ms / 1_000.0);
    }
}

fn spool(text: &mut Text, snapshot: &Snapshot) {
    let spool = &snapshot.spool;
    text.one("watchpost_spool_batches", GAUGE, "Batches that wait for the destination", count(spool.batches));
    text.one("watchpost_spool_bytes", GAUGE, "Bytes of the disk buffer", count(spool.bytes));
    text.one("watchpost_spool_bytes_max", GAUGE, "Cap of the disk buffer", count(spool.bytes_max));
    text.one(
        "watchpost_spool_oldest_age_seconds",
        GAUGE,
        "Age of the oldest batch that waits",
        spool.oldest_age_s,
    );
    text.state("watchpost_spool_state", "State of the disk buffer; the one that is 1", &spool.state);
}

fn delivery(text: &mut Text, delivery: &Value) {
    for (name, kind, member, help) in [
        ("watchpost_delivery_batches_total", COUNTER, "/delivered_batches", "Batches that were accepted"),
        ("watchpost_delivery_sent_bytes_total", COUNTER, "/sent_bytes", "Bytes of accepted batches as sent"),
        (
            "watchpost_delivery_failures_total",
            COUNTER,
            "/failures",
            "Requests that did not end in acceptance",
        ),
        ("watchpost_delivery_last_status", GAUGE, "/last_status", "HTTP status of the last answer"),
        (
            "watchpost_delivery_last_success_age_seconds",
            GAUGE,
            "/last_success_age_s",
            "Time since a batch was accepted",
        ),
        (
            "watchpost_delivery_next_try_seconds",
            GAUGE,
            "/next_try_in_s",
            "Time until the next request is tried",
        ),
    ] {
        text.at(name, kind, help, delivery, member);
    }
    let state = delivery["state"].as_str().unwrap_or_default();
    text.state("watchpost_delivery_state", "State of the sender; the one that is 1", state);
}

fn web_totals(text: &mut Text, web: &Value) {
    let classes = web.pointer("/totals/status").and_then(Value::as_object);
    let mut family =
        text.family("watchpost_http_requests_total", COUNTER, "Requests counted, by class of status");
    for (class, requests) in classes.into_iter().flatten() {
        family = family.add_value(&[("status_class", class)], requests);
    }
    for (name, kind, pointer, help) in [
        (
            "watchpost_http_unparsed_total",
            COUNTER,
            "/totals/unparsed",
            "Access lines that the format did not fit",
        ),
        ("watchpost_http_late_total", COUNTER, "/totals/late", "Requests logged too late for the windows"),
        (
            "watchpost_http_skewed_total",
            COUNTER,
            "/totals/skewed",
            "Requests logged with a time in the future",
        ),
        ("watchpost_http_response_bytes_total", COUNTER, "/totals/bytes_sent", "Bytes sent to clients"),
        ("watchpost_http_lateness_seconds", GAUGE, "/lateness_s", "How far the windows end behind the clock"),
    ] {
        text.at(name, kind, help, web, pointer);
    }
}

fn web_windows(text: &mut Text, web: &Value) {
    for (name, member, help) in [
        ("watchpost_http_request_rate", "qps", "Requests a second over a rolling window"),
        ("watchpost_http_error_ratio", "error_rate", "Share of 5xx over a rolling window"),
        ("watchpost_http_window_coverage_ratio", "coverage", "Share of the window that was observed"),
        ("watchpost_http_window_complete", "complete", "Whether the whole window was observed"),
    ] {
        let mut family = text.family(name, GAUGE, help);
        for window in WINDOWS {
            if let Some(value) = web.pointer(&format!("/windows/{window}/{member}")) {
                family = family.add_value(&[("window", window)], value);
            }
        }
    }
}

fn web_parts(text: &mut Text, web: &Value) {
    let latency = &web["latency_s"];
    let mut family =
        text.family("http_server_request_duration_seconds", SUMMARY, "Time that requests took, by quantile");
    for (member, label) in QUANTILES {
        family = family.add_value(&[("quantile", label)], &latency[member]);
    }
    text.at(
        "watchpost_http_request_duration_max_seconds",
        GAUGE,
        "Time that the slowest request took",
        latency,
        "/max",
    );
    let vhosts = web["vhosts"].as_array();
    for (name, member, help) in [
        ("watchpost_vhost_request_rate", "qps", "Requests a second of a virtual host"),
        ("watchpost_vhost_error_ratio", "error_rate", "Share of 5xx of a virtual host"),
    ] {
        let mut family = text.family(name, GAUGE, help);
        for vhost in vhosts.into_iter().flatten() {
            let Some(vhost_name) = vhost["name"].as_str() else { continue };
            family = family.add_value(&[("vhost", vhost_name)], &vhost[member]);
        }
    }
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";
const SUMMARY: &str = "summary";

/// The text so far.
struct Text {
    out: String,
}

/// One metric with its series; the head is written with the first of them.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    written: HashSet<String>,
}

impl Text {
    fn new(host: &str) -> Text {
        let mut out = host.to_owned();
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        Text { out }
    }

    fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) -> Family<'_> {
        Family { out: &mut self.out, name, kind, help, written: HashSet::new() }
    }

    fn one(&mut self, name: &'static str, kind: &'static str, help: &'static str, value: f64) {
        self.family(name, kind, help).add(&[], value);
    }

    fn at(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        value: &Value,
        pointer: &str,
    ) {
        if let Some(value) = value.pointer(pointer) {
            self.family(name, kind, help).add_value(&[], value);
        }
    }

    fn state(&mut self, name: &'static str, help: &'static str, state: &str) {
        if !state.is_empty() {
            self.family(name, GAUGE, help).add(&[("state", state)], 1.0);
        }
    }
}

impl Family<'_> {
    fn add_value(self, labels: &[(&str, &str)], value: &Value) -> Self {
        match value {
            Value::Number(number) => match number.as_f64() {
                Some(number) => self.add(labels, number),
                None => self,
            },
            Value::Bool(is_so) => self.add(labels, truth(*is_so)),
            _ => self,
        }
    }

    fn add(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        let mut series = String::new();
        for (index, (label, text)) in labels.iter().enumerate() {
            series.push(if index == 0 { '{' } else { ',' });
            series.push_str(label);
            series.push_str("=\"");
            escape(text, &mut series);
            series.push('"');
        }
        if !labels.is_empty() {
            series.push('}');
        }
        if self.written.len() >= SERIES_MAX || self.written.contains(&series) {
            return self;
        }
        let Family { name, kind, help, .. } = self;
        if self.written.is_empty() {
            push(self.out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        push(self.out, format_args!("{name}{series} {value}\n"));
        self.written.insert(series);
        self
    }
}

pub(super) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes all that is written to it");
}

/// Label values escape backslash, quote and line feed, and nothing else.
pub(super) fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Exact up to 2^53, as every number of Prometheus is.
fn count(value: u64) -> f64 {
    value as f64
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[cfg(test)]
pub(super) mod tests;
