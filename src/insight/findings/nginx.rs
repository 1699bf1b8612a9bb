//! What nginx shows to anybody, and what its logs cannot tell.

use super::{Confidence, Draw, Evidence, Knowledge, Rule, Severity, Weakness};

/// HTTP's answer to who may ask.
const OK: u16 = 200;

/// The counters are shown to anybody who asks.
pub(super) static STUB_STATUS_OPEN: Rule = Rule {
    id: "nginx.stub-status-open",
    severity: Severity::Medium,
    title: "nginx shows its counters to everybody",
    draw: |known| {
        let Some(nginx) = known.nginx else { return Draw::Nothing };
        match &nginx.facts.asked_from_outside {
            Some(outside) if outside.status == OK => Draw::Found(vec![Weakness {
                subject: outside.url.clone(),
                confidence: Confidence::Certain,
                evidence: vec![Evidence {
                    what: format!("HTTP {} with the counters, asked from this host's outer address", outside.status),
                    place: outside.url.clone(),
                    at: nginx.at,
                }],
                advice: "in that location: allow 127.0.0.1; allow ::1; deny all; or let its server listen on 127.0.0.1 alone"
                    .to_owned(),
            }]),
            _ => Draw::Clear,
        }
    },
};

/// Lines may wait in a worker for as long as it takes to fill its buffer.
pub(super) static BUFFER_WITHOUT_FLUSH: Rule = Rule {
    id: "nginx.log-buffer-without-flush",
    severity: Severity::Medium,
    title: "nginx holds log lines back without limit",
    draw: |known| {
        per_log(
            known,
            |logs| &logs.buffered_logs,
            "access_log with buffer= and without flush=",
            |log| {
                format!("access_log {log} ... buffer=64k flush=1s; a worker that is killed loses what waits")
            },
        )
    },
};

/// Without the time of a request there are no latencies.
pub(super) static NO_REQUEST_TIME: Rule = Rule {
    id: "nginx.log-without-request-time",
    severity: Severity::Low,
    title: "log lines do not say how long a request took",
    draw: |known| {
        per_log(
            known,
            |logs| &logs.untimed_logs,
            "its log_format has no $request_time",
            |_| {
                "add $request_time to the log_format, or use config/nginx/watchpost-log-format.conf"
                    .to_owned()
            },
        )
    },
};

fn per_log(
    known: &Knowledge<'_>,
    which: fn(&super::Circumstances) -> &Vec<String>,
    what: &str,
    advice: fn(&str) -> String,
) -> Draw {
    let Some(logs) = known.logs else { return Draw::Nothing };
    let weakness = |log: &String| Weakness {
        subject: log.clone(),
        confidence: Confidence::Certain,
        evidence: vec![Evidence {
            what: what.to_owned(),
            place: logs.facts.configuration.clone(),
            at: logs.at,
        }],
        advice: advice(log),
    };
    match which(logs.facts).as_slice() {
        [] => Draw::Clear,
        found => Draw::Found(found.iter().map(weakness).collect()),
    }
}
