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
        if known.nginx.is_none() && known.logs.is_none() {
            return Draw::Nothing;
        }
        let advice = "in that location: allow 127.0.0.1; allow ::1; deny all; or let its server listen on 127.0.0.1 alone";
        let weakness = |subject: &str, evidence: Evidence| Weakness {
            subject: subject.to_owned(),
            confidence: Confidence::Certain,
            evidence: vec![evidence],
            advice: advice.to_owned(),
        };
        let asked = known.nginx.and_then(|nginx| Some((nginx.facts.asked_from_outside.as_ref()?, nginx.at)));
        let answered = asked.filter(|(outside, _)| outside.status == OK).map(|(outside, at)| {
            let what =
                format!("HTTP {} with the counters, asked from this host's outer address", outside.status);
            weakness(&outside.url, Evidence { what, place: outside.url.clone(), at })
        });
        let stated = known.logs.into_iter().flat_map(|logs| {
            let place = logs.facts.configuration.clone();
            logs.facts.open_counters.iter().map(move |open| (open, place.clone(), logs.at))
        });
        let stated = stated.map(|(open, place, at)| {
            weakness(open, Evidence { what: "stub_status without deny all".to_owned(), place, at })
        });
        let found: Vec<Weakness> = answered.into_iter().chain(stated).collect();
        if found.is_empty() { Draw::Clear } else { Draw::Found(found) }
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
