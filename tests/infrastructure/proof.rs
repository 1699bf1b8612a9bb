//! The proof over the whole lab: HAProxy, nginx, the agents and the collector come to one number, and each agent says so itself;
//! whatever is done to nginx, its logs and its workers, the verdict is the right one.

use std::time::Duration;

use serde_json::Value;

use super::rig::{Form, Lab, WEB_HOSTS, has_root};
use crate::support::{number, wait_for, wait_within};

/// After a load has ended, the hosts say `equal` within this time.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);

fn comparison(status: &Value) -> Value {
    let all = status["reconciliation"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["with"] == "nginx stub_status").unwrap_or_default()
}

/// The first comparison of a host that was begun after this call and has this verdict.
fn wait_verdict(lab: &Lab, host: &str, verdict: &str) -> Value {
    let as_of = |found: &Value| found["as_of"].as_u64().unwrap_or(0);
    let mut begun = Vec::from([as_of(&comparison(&lab.status(host)))]);
    wait_for(&format!("{host}: {verdict}"), || {
        let found = comparison(&lab.status(host));
        // The first that comes may have counted before.
        if begun.last() != Some(&as_of(&found)) {
            begun.push(as_of(&found));
        }
        (begun.len() > 2 && found["verdict"] == verdict).then_some(found)
    })
}

/// Health checks that leave no line are requests that are not accounted for, and are said to be. With a line each, and
/// counters that begin anew, there is nothing left to explain.
fn log_every_request(lab: &Lab, host: &str) {
    lab.break_at("health-logged", host);
    lab.break_at("nginx-restart", host);
    wait_verdict(lab, host, "equal");
}

#[test]
fn every_web_host_proves_its_count_within_seconds_of_a_load() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    for host in WEB_HOSTS {
        log_every_request(&lab, host);
    }
    let load = lab.load(2_000, 8);
    assert_eq!(number(&load, "/status/200"), 2_000, "{load}");
    wait_within(EQUAL_WITHIN, "equal on both hosts, with the load counted", || {
        WEB_HOSTS
            .iter()
            .all(|host| {
                let found = comparison(&lab.status(host));
                let share = number(&load, &format!("/web/{host}"));
                found["verdict"] == "equal" && found["counted"].as_u64() >= Some(share)
            })
            .then_some(())
    });
    lab.end();
}

#[test]
fn whatever_is_done_to_nginx_the_verdict_is_right() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    let host = "web1";
    log_every_request(&lab, host);
    for disruption in ["nginx-reload", "nginx-usr1", "logrotate", "worker-killed", "nginx-restart"] {
        lab.load(100, 4);
        lab.break_at(disruption, host);
        lab.load(100, 4);
        let found = wait_verdict(&lab, host, "equal");
        assert_eq!(found["unaccounted_total"], 0, "{disruption}: {found}");
    }
    let before = number(&lab.status(host), "/web/totals/requests");
    lab.break_at("worker-killed-buffered", host);
    let found = wait_verdict(&lab, host, "unaccounted");
    let lost = found["unaccounted"].as_u64().unwrap_or(0);
    // Half of the forty requests, and the health checks of as many seconds as the buffer held.
    assert!((1..=40).contains(&lost), "{found}");
    assert!(found["cause"].as_str().is_some_and(|cause| cause.contains("workers of nginx ended")), "{found}");
    assert!(number(&lab.status(host), "/web/totals/requests") >= before);
    lab.end();
}
