//! The text against a strict reading of the format.

use std::time::Instant;

use serde_json::json;

use super::super::Board;
use super::super::snapshot::{AgentStatus, FileStatus, Ledger, SourceStatus, SpoolStatus};
use super::*;
use crate::record::{Loss, LossReason};

/// Reads the text as the format's description says, strictly; gives each series with its value.
pub(in crate::status) fn parse_strictly(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut typed: HashSet<&str> = HashSet::new();
    let mut current = "";
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# ") {
            let mut words = head.splitn(3, ' ');
            let (keyword, name, rest) =
                (words.next(), words.next().expect("a name"), words.next().expect("text"));
            match keyword {
                Some("HELP") => assert!(!rest.is_empty(), "{line}"),
                Some("TYPE") => {
                    assert!(
                        ["counter", "gauge", "summary", "histogram", "untyped"].contains(&rest),
                        "{line}"
                    );
                    assert!(typed.insert(name), "one TYPE a name: {line}");
                    current = name;
                }
                _ => panic!("neither HELP nor TYPE: {line}"),
            }
            continue;
        }
        let (key, value) = split_sample(line);
        let name = key.split('{').next().expect("a split gives one part");
        assert_eq!(name, current, "samples follow their TYPE: {line}");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte)), "{line}");
        let value = value.parse().expect("a number");
        assert!(series.insert(key.to_owned(), value).is_none(), "one line a series: {line}");
    }
    series
}

/// Splits a sample into its series and its value, checking the labels' quoting.
fn split_sample(line: &str) -> (&str, &str) {
    let Some(open) = line.find('{') else { return line.split_once(' ').expect("a value") };
    let mut rest = &line[open + 1..];
    loop {
        let (label, after) = rest.split_once("=\"").expect("a label");
        assert!(!label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().expect("a closing quote") {
                (_, '\\') => assert!(matches!(characters.next(), Some((_, '\\' | '"' | 'n'))), "{line}"),
                (at, '"') => break at,
                _ => {}
            }
        };
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").expect("a brace and a value");
    (&line[..line.len() - value.len() - 1], value)
}

fn full_snapshot() -> Snapshot {
    Snapshot {
        agent: AgentStatus {
            version: "0.1.0".into(),
            host: "web\"1".into(),
            uptime_s: 61,
            ..AgentStatus::default()
        },
        web: json!({
            "lateness_s": 1,
            "windows": {"1m": {"requests": 600, "qps": 10.0, "error_rate": 0.05, "errors": 30, "coverage": 0.5, "complete": false},
                        "1s": {"requests": 0, "qps": null, "error_rate": null}},
            "totals": {"requests": 900, "unparsed": 2, "late": 1, "skewed": 0, "status": {"2xx": 850, "5xx": 50}, "bytes_sent": 12345},
            "latency_s": {"p50": 0.01, "p90": 0.05, "p95": 0.1, "p99": 0.9, "max": 2.5},
            "vhosts": [{"name": "a\\\"b\nc", "qps": 1.5, "error_rate": 0.0}, {"name": "a\\\"b\nc", "qps": 2.5}],
        })
        .into(),
        host_prometheus: "# HELP node_load1 Load\n# TYPE node_load1 gauge\nnode_load1 0.5".into(),
        sources: vec![SourceStatus {
            name: "cpu".into(),
            ok: true,
            duration_ms: 1.5,
            last_error: None,
            dropped: 0,
        }],
        files: vec![
            FileStatus { path: "/l".into(), kind: "access", lag_bytes: 5, ..FileStatus::default() },
            FileStatus { path: "/l".into(), kind: "access", lag_bytes: 7, ..FileStatus::default() },
        ],
        ledger: Ledger::new(10, 5, 2, 1, &[(LossReason::Truncated, Loss { lines: 2, bytes: 99 })]),
        spool: SpoolStatus {
            batches: 3,
            bytes: 4096,
            bytes_max: 1 << 30,
            oldest_age_s: 2.5,
            state: "ok".into(),
        },
        delivery: json!({"state": "idle", "delivered_batches": 7, "sent_bytes": 700, "failures": 0, "last_status": 200,
                         "last_success_age_s": 1.5, "next_try_in_s": null}),
        ..Snapshot::default()
    }
}

fn rendered(snapshot: Snapshot) -> BTreeMap<String, f64> {
    let (board, now) = (Board::new(), Instant::now());
    board.publish_at(snapshot, now);
    parse_strictly(&render(&board.view_at(now).expect("posted")))
}

#[test]
fn every_number_arrives() {
    let series = rendered(full_snapshot());
    for (name, expected) in [
        ("node_load1", 0.5),
        ("watchpost_build_info{version=\"0.1.0\",host=\"web\\\"1\",id=\"\"}", 1.0),
        ("watchpost_uptime_seconds", 61.0),
        ("watchpost_healthy", 1.0),
        ("watchpost_ledger_lines_total{state=\"read\"}", 10.0),
        ("watchpost_ledger_lines_held", 2.0),
        ("watchpost_ledger_balanced", 1.0),
        ("watchpost_lost_bytes_total{reason=\"truncated\"}", 99.0),
        ("watchpost_file_lag_bytes{path=\"/l\",kind=\"access\"}", 12.0),
        ("watchpost_source_duration_seconds{source=\"cpu\"}", 0.0015),
        ("watchpost_spool_oldest_age_seconds", 2.5),
        ("watchpost_delivery_batches_total", 7.0),
        ("watchpost_delivery_state{state=\"idle\"}", 1.0),
        ("watchpost_http_requests_total{status_class=\"5xx\"}", 50.0),
        ("watchpost_http_request_rate{window=\"1m\"}", 10.0),
        ("watchpost_http_error_ratio{window=\"1m\"}", 0.05),
        ("watchpost_http_window_complete{window=\"1m\"}", 0.0),
        ("watchpost_http_unparsed_total", 2.0),
        ("http_server_request_duration_seconds{quantile=\"0.99\"}", 0.9),
        ("watchpost_vhost_request_rate{vhost=\"a\\\\\\\"b\\nc\"}", 1.5),
    ] {
        assert_eq!(series.get(name), Some(&expected), "{name} in {series:#?}");
    }
    assert!(!series.contains_key("watchpost_http_request_rate{window=\"1s\"}"), "unknown is not zero");
    assert!(!series.contains_key("watchpost_delivery_next_try_seconds"));
}

#[test]
fn an_empty_snapshot_is_still_text() {
    let series = rendered(Snapshot::default());
    assert_eq!(series.get("watchpost_up"), Some(&1.0));
    assert!(!series.keys().any(|name| name.starts_with("watchpost_http_")));
}

#[test]
fn the_hosts_part_is_cut_at_a_line() {
    let line = "node_load1 0.5\n";
    let long = line.repeat(HOST_BYTES_MAX / line.len() + 10);
    let kept = host_part(&long);
    assert!(kept.len() <= HOST_BYTES_MAX && kept.ends_with("0.5"));
    assert_eq!(host_part("node_load1 1"), "node_load1 1");
}
