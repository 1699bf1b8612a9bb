//! What all agents together say: the hosts, what each serves, what is weak, and what only their join can tell.
//!
//! Reads the records that agents ship and nothing else, as a query over a collector would (docs/fleet.md). Everything kept is
//! bounded; names and texts come from agents and are shown as text.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// Hosts that are known; further ones are not shown.
const HOSTS_MAX: usize = 1_000;
/// Findings of one host that are kept.
const FINDINGS_MAX: usize = 200;
/// A record that tells of the agent: `{"timestamp":...,"record":"`.
const RECORD_HEAD: &[u8] = b",\"record\":\"";
/// Bytes of a record before its kind: the time.
const HEAD_BYTES_MAX: usize = 40;
/// The finding that one host cannot be sure of.
const SINGLE_WRITER: &str = "mysql.single-writer";
/// Hosts that were not heard of for so long count as silent.
const SILENT_AFTER_MS: i64 = 60_000;

/// All hosts.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    hosts: BTreeMap<String, Host>,
}

/// One host as its agent tells it.
#[derive(Clone, Debug, Default)]
struct Host {
    seen_at: i64,
    requests: u64,
    lines: u64,
    qps: Option<f64>,
    error_rate: Option<f64>,
    /// The latest record of each comparison, by what it is with.
    comparisons: BTreeMap<String, Value>,
    /// What comparisons reported that have ended since, by what they were with: a server that starts anew counts from zero.
    reported_before: BTreeMap<String, u64>,
    /// What HAProxy's frontends had answered when they last told, for the rate since.
    answered: Option<Answered>,
    /// The latest metrics of each probe.
    probes: BTreeMap<String, Value>,
    /// What stands, by id and subject.
    findings: BTreeMap<(String, String), Value>,
}

/// Answers of HAProxy's frontends, as a record has them.
#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    at: i64,
    all: u64,
    errors: u64,
}

impl Answered {
    /// Of a record of the probe of HAProxy; `None` where it tells of no frontend.
    fn of(record: &Value) -> Option<Answered> {
        let mut answered = Answered { at: record["timestamp"].as_i64()?, ..Answered::default() };
        for rows in record["haproxy.requests.total"].as_object()?.values() {
            for (code, count) in rows["FRONTEND"].as_object().into_iter().flatten() {
                answered.all += count.as_u64().unwrap_or(0);
                answered.errors += count.as_u64().filter(|_| code == "5xx").unwrap_or(0);
            }
        }
        Some(answered)
    }
}

/// A conclusion over several hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FleetFinding {
    id: &'static str,
    host: String,
    title: String,
    evidence: String,
}

impl Fleet {
    /// Takes the records of one batch, which came under this host's name.
    pub(super) fn take(&mut self, host: &str, decoded: &[u8]) {
        if !self.hosts.contains_key(host) && self.hosts.len() >= HOSTS_MAX {
            return;
        }
        let host = self.hosts.entry(host.to_owned()).or_default();
        for line in decoded.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let head = line.get(..HEAD_BYTES_MAX.min(line.len())).unwrap_or_default();
            if memchr::memmem::find(head, RECORD_HEAD).is_none() {
                host.lines += 1;
            } else if let Ok(record) = serde_json::from_slice(line) {
                host.take(&record);
            }
        }
    }

    /// Everything, as JSON.
    pub(super) fn to_json(&self, now: i64) -> Value {
        let hosts: Vec<Value> = self.hosts.iter().map(|(name, host)| host.to_json(name, now)).collect();
        let sum = |of: fn(&Host) -> u64| self.hosts.values().map(of).sum::<u64>();
        json!({
            "hosts": hosts,
            "findings": self.findings(),
            "totals": {
                "load_balancer_requests": self.reported_by("haproxy"),
                "web_requests": sum(|host| host.requests),
                "access_lines": sum(|host| host.lines),
            },
        })
    }

    /// What the comparisons of this kind report, over all hosts.
    fn reported_by(&self, with: &str) -> u64 {
        let of = |host: &Host| {
            let now = host.comparisons.get(with).and_then(|one| one["reported"].as_u64());
            host.reported_before.get(with).unwrap_or(&0) + now.unwrap_or(0)
        };
        self.hosts.values().map(of).sum()
    }

    /// What no host can see alone.
    fn findings(&self) -> Vec<FleetFinding> {
        let writers: Vec<&String> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.findings.keys().any(|(id, _)| id == SINGLE_WRITER))
            .map(|(name, _)| name)
            .collect();
        let databases: Vec<&str> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.probes.contains_key("mysql"))
            .map(|(name, _)| name.as_str())
            .collect();
        match writers.as_slice() {
            [only] => vec![FleetFinding {
                id: "fleet.no-other-writer",
                host: (*only).clone(),
                title: format!("{only} is the only database server of the fleet that takes writes"),
                evidence: format!("databases that tell of themselves: {}", databases.join(", ")),
            }],
            _ => Vec::new(),
        }
    }

    /// Everything, as a page that loads itself again.
    pub(super) fn to_html(&self, now: i64) -> String {
        let mut tiers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (name, host) in &self.hosts {
            tiers.entry(host.tier()).or_default().push(host.to_html(name, now));
        }
        let tiers: Vec<String> =
            tiers.values().map(|boxes| format!("<div class=tier>{}</div>", boxes.concat())).collect();
        let findings: String = self
            .findings()
            .iter()
            .map(|finding| {
                format!("<p class=bad><b>{}</b> {}</p>", escaped(&finding.title), escaped(&finding.evidence))
            })
            .collect();
        let totals = &self.to_json(now)["totals"];
        PAGE.replace("TIERS", &tiers.join("<div class=arrow>&#8595;</div>"))
            .replace("FINDINGS", &findings)
            .replace(
                "TOTALS",
                &format!(
                    "{} requests at the load balancer, {} counted on web hosts, {} access lines received",
                    totals["load_balancer_requests"], totals["web_requests"], totals["access_lines"]
                ),
            )
    }
}

impl Host {
    fn take(&mut self, record: &Value) {
        self.seen_at = self.seen_at.max(record["timestamp"].as_i64().unwrap_or(0));
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        match record["record"].as_str().unwrap_or_default() {
            "web.summary" if record["vhost"] == "_all" => {
                self.requests += record["requests"].as_u64().unwrap_or(0);
                if record["correction"] != true {
                    self.qps = record["qps"].as_f64();
                    self.error_rate = record["error_rate"].as_f64();
                }
            }
            "probe.metrics" => {
                self.take_answered(record);
                self.probes.insert(text("probe"), record.clone());
            }
            "reconciliation" => {
                let before = self.comparisons.insert(text("with"), record.clone());
                if let Some(before) = before.filter(|before| before["since"] != record["since"]) {
                    let reported = before["reported"].as_u64().unwrap_or(0);
                    *self.reported_before.entry(text("with")).or_default() += reported;
                }
            }
            "event" => self.take_event(record),
            _ => {}
        }
    }

    /// A load balancer writes no summaries: its rate is that of its answers since the record before.
    fn take_answered(&mut self, record: &Value) {
        let Some(now) = Answered::of(record) else { return };
        let before = self.answered.replace(now);
        if let Some(before) = before.filter(|before| before.all <= now.all && before.at < now.at) {
            let (all, errors) = (now.all - before.all, now.errors.saturating_sub(before.errors));
            self.qps = Some(all as f64 * 1000.0 / (now.at - before.at) as f64);
            self.error_rate = (all > 0).then(|| errors as f64 / all as f64);
        }
    }

    fn take_event(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            // What stood before was drawn by an agent that is gone; the new one says what it finds.
            Some("watchpost.agent.start") => self.findings.clear(),
            Some("watchpost.finding") => {
                let key = (text("id"), text("subject"));
                if event["state"] == "cleared" {
                    self.findings.remove(&key);
                } else if self.findings.len() < FINDINGS_MAX {
                    self.findings.insert(key, event.clone());
                }
            }
            _ => {}
        }
    }

    /// What the host is, by the probes that found something to ask.
    fn roles(&self) -> Vec<&'static str> {
        let known = [("haproxy", "load balancer"), ("stub_status", "web"), ("mysql", "database")];
        known.iter().filter(|(probe, _)| self.probes.contains_key(*probe)).map(|(_, role)| *role).collect()
    }

    /// Where it stands in the picture: what is asked first is on top.
    fn tier(&self) -> usize {
        match self.roles().as_slice() {
            ["load balancer", ..] => 0,
            ["web", ..] => 1,
            ["database"] => 3,
            _ => 2,
        }
    }

    fn to_json(&self, name: &str, now: i64) -> Value {
        let findings: Vec<Value> = self
            .findings
            .values()
            .map(|event| {
                let of = |field: &str| event[field].clone();
                json!({"id": of("id"), "subject": of("subject"), "state": of("state"), "title": of("message"),
                    "severity": of("finding_severity"), "evidence": of("evidence"), "advice": of("advice")})
            })
            .collect();
        json!({
            "name": name,
            "roles": self.roles(),
            "silent": now - self.seen_at > SILENT_AFTER_MS,
            "qps": self.qps,
            "error_rate": self.error_rate,
            "requests": self.requests,
            "lines": self.lines,
            "reconciliation": self.comparisons.values().collect::<Vec<_>>(),
            "findings": findings,
        })
    }

    fn to_html(&self, name: &str, now: i64) -> String {
        let rate = |value: Option<f64>, unit: &str| {
            value.map_or("&ndash;".to_owned(), |value| format!("{value:.1}{unit}"))
        };
        let verdicts: String = self
            .comparisons
            .values()
            .map(|one| {
                let verdict = one["verdict"].as_str().unwrap_or("unknown");
                let class = if verdict == "unaccounted" { "bad" } else { "good" };
                let with = one["with"].as_str().unwrap_or_default();
                format!("<p class={class}>{} with {}</p>", escaped(verdict), escaped(with))
            })
            .collect();
        let findings: String = self
            .findings
            .values()
            .map(|event| format!("<li>{}</li>", escaped(event["message"].as_str().unwrap_or_default())))
            .collect();
        let silent = if now - self.seen_at > SILENT_AFTER_MS { " silent" } else { "" };
        format!(
            "<section class=\"host{silent}\"><h2>{}</h2><p class=soft>{}</p><p><b>{}</b> req/s, {} errors</p>{verdicts}<ul>{findings}</ul></section>",
            escaped(name),
            self.roles().join(", "),
            rate(self.qps, ""),
            rate(self.error_rate.map(|share| share * 100.0), " %"),
        )
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// The page around the hosts.
const PAGE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>watchpost fleet</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 24px; background: #f6f7f9; color: #1c2430; }
h1 { font-size: 18px; } h2 { font-size: 15px; margin: 0; } p { margin: 4px 0; } ul { margin: 6px 0 0; padding-left: 18px; }
.tier { display: flex; gap: 16px; justify-content: center; flex-wrap: wrap; } .arrow { text-align: center; color: #7a8699; }
.host { background: #fff; border: 1px solid #d9dee6; border-radius: 8px; padding: 12px 16px; min-width: 200px; max-width: 420px; }
.silent { opacity: .5; } .soft { color: #5a6678; } .good { color: #18794e; } .bad { color: #b42318; } li { color: #8a4b00; }
@media (prefers-color-scheme: dark) { body { background: #14181f; color: #e6e9ee; } .host { background: #1c222c; border-color: #333c4a; }
.good { color: #5bd6a0; } .bad { color: #ff8a80; } li { color: #ffc069; } .soft { color: #9aa6b8; } }
</style></head><body><h1>watchpost fleet</h1>FINDINGSTIERS<p class=soft>TOTALS</p></body></html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_764_000_000_000;

    fn fleet(records: &[(&str, Value)]) -> Fleet {
        let mut fleet = Fleet::default();
        for (host, record) in records {
            // The time and the kind come first, as agents write them.
            let text = record.to_string();
            let kind = &record["record"];
            let line = format!("{{\"timestamp\":{NOW},\"record\":{kind},{}", text.trim_start_matches('{'));
            fleet.take(host, line.as_bytes());
        }
        fleet
    }

    fn finding(id: &str, state: &str) -> Value {
        json!({"record": "event", "event": "watchpost.finding", "id": id, "state": state, "subject": "x", "message": "m"})
    }

    #[test]
    fn hosts_findings_and_totals_are_joined() {
        let probe = |name: &str| json!({"record": "probe.metrics", "probe": name});
        let mut records = vec![
            ("lb", probe("haproxy")),
            (
                "lb",
                json!({"record": "reconciliation", "with": "haproxy", "reported": 12, "verdict": "equal"}),
            ),
            ("web1", probe("stub_status")),
            (
                "web1",
                json!({"record": "web.summary", "vhost": "_all", "requests": 7, "qps": 0.7, "error_rate": 0.0}),
            ),
            (
                "web2",
                json!({"record": "web.summary", "vhost": "_all", "requests": 5, "qps": 0.5, "error_rate": 0.0}),
            ),
            ("web1", json!({"record": "web.summary", "vhost": "shop", "requests": 7})),
            ("db1", probe("mysql")),
            ("db1", finding(SINGLE_WRITER, "present")),
            ("db2", probe("mysql")),
        ];
        let joined = fleet(&records).to_json(NOW);
        assert_eq!(
            joined["totals"],
            json!({"load_balancer_requests": 12, "web_requests": 12, "access_lines": 0})
        );
        assert_eq!(joined["findings"][0]["host"], "db1");
        assert_eq!(joined["findings"][0]["evidence"], "databases that tell of themselves: db1, db2");
        records.push(("db1", finding(SINGLE_WRITER, "cleared")));
        assert_eq!(fleet(&records).to_json(NOW)["findings"], json!([]));
    }

    #[test]
    fn a_load_balancer_has_the_rate_of_its_answers_and_the_sum_of_all_its_processes() {
        let told = |at: i64, ok: u64, errors: u64| {
            let codes = json!({"2xx": ok, "5xx": errors});
            json!({"timestamp": at, "record": "probe.metrics", "probe": "haproxy",
                "haproxy.requests.total": {"secure": {"FRONTEND": codes, "BACKEND": codes}}})
        };
        let compared = |since: i64, reported: u64| json!({"record": "reconciliation", "with": "haproxy", "since": since, "reported": reported});
        let mut fleet = Fleet::default();
        let lb = fleet.hosts.entry("lb".to_owned()).or_default();
        for record in
            [told(1_000, 10, 0), told(3_000, 40, 10), compared(1, 50), compared(2, 7), compared(2, 9)]
        {
            lb.take(&record);
        }
        assert_eq!((lb.qps, lb.error_rate), (Some(20.0), Some(0.25)));
        lb.take(&told(4_000, 5, 0));
        assert_eq!(lb.qps, Some(20.0), "it began anew: no rate across that");
        assert_eq!(fleet.reported_by("haproxy"), 50 + 9);
    }

    #[test]
    fn a_start_forgets_what_an_earlier_agent_found() {
        let start = json!({"record": "event", "event": "watchpost.agent.start"});
        let fleet = fleet(&[("a", finding("x", "present")), ("a", start)]);
        assert_eq!(fleet.to_json(NOW)["hosts"][0]["findings"], json!([]));
    }

    #[test]
    fn lines_are_counted_and_hostile_names_are_text() {
        let mut fleet = fleet(&[("<script>", finding("<b>", "present"))]);
        fleet.take(
            "<script>",
            b"{\"timestamp\":1,\"log\":\"GET /\"}\n{\"timestamp\":1,\"log\":\",\\\"record\\\":\\\"\"}\n",
        );
        assert_eq!(fleet.to_json(NOW)["totals"]["access_lines"], 2);
        assert!(!fleet.to_html(NOW).contains("<script>"));
    }
}
