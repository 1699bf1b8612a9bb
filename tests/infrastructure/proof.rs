//! The proof over the whole lab: HAProxy, nginx, the agents and the collector come to one number, and each agent says so itself;
//! whatever is done to nginx, its logs and its workers, the verdict is the right one.

use std::time::Duration;

use serde_json::Value;

use super::rig::{Form, Lab, WEB_HOSTS, has_root};
use crate::support::{number, wait_for, wait_within};

/// After a load has ended, the hosts say `equal` within this time.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);

/// What a host compares its own count with: on the load balancer HAProxy's answers, elsewhere nginx's counter.
fn comparison(lab: &Lab, host: &str) -> Value {
    let with = if host == "lb" { "haproxy" } else { "nginx stub_status" };
    let all = lab.status(host)["reconciliation"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["with"] == with).unwrap_or_default()
}

/// The first comparison of a host that was begun after this call and has this verdict.
fn wait_verdict(lab: &Lab, host: &str, verdict: &str) -> Value {
    let as_of = |found: &Value| found["as_of"].as_u64().unwrap_or(0);
    let mut begun = Vec::from([as_of(&comparison(lab, host))]);
    wait_for(&format!("{host}: {verdict}"), || {
        let found = comparison(lab, host);
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
    let before = [lab.haproxy("secure", "FRONTEND", "req_tot"), counted_but_health(&lab)];
    let load = lab.load(2_000, 8);
    assert_eq!(number(&load, "/status/200"), 2_000, "{load}");
    wait_within(EQUAL_WITHIN, "equal on both hosts, with the load counted", || {
        WEB_HOSTS
            .iter()
            .all(|host| {
                let found = comparison(&lab, host);
                let share = number(&load, &format!("/web/{host}"));
                found["verdict"] == "equal" && found["counted"].as_u64() >= Some(share)
            })
            .then_some(())
    });
    assert_eq!(lab.haproxy("secure", "FRONTEND", "req_tot"), before[0] + 2_000);
    wait_for("each request once at the collector", || {
        (counted_but_health(&lab) == before[1] + 2_000).then_some(())
    });
    lab.end();
}

/// Lines at the collector that are of no health check.
fn counted_but_health(lab: &Lab) -> u64 {
    let lines = lab.collected("watchpost/nginx/access");
    let is_health = |line: &Value| line["log"].as_str().is_some_and(|log| log.contains("/health"));
    lines.iter().filter(|line| !is_health(line)).count() as u64
}

#[test]
fn whatever_is_done_to_nginx_the_verdict_is_right() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    let host = "web1";
    log_every_request(&lab, host);
    for disruption in
        ["nginx-reload", "nginx-usr1", "logrotate", "copytruncate", "worker-killed", "nginx-restart"]
    {
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

/// Lines written between the copy and the truncation stand nowhere, and their number is told. The agent and nginx stand
/// still at the right moments, so that it is known.
#[test]
fn what_a_copytruncate_loses_is_numbered_exactly() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    let host = "web1";
    log_every_request(&lab, host);
    lab.load(100, 4);
    wait_verdict(&lab, host, "equal");
    let ask = |script: &str| {
        let output = lab.exec(host, &["sh", "-c", script]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    ask("pkill -STOP -f '^/opt/watchpost run$'; cd /var/log/nginx; cp -p access.log access.log.1");
    lab.load(40, 4);
    let lost: u64 = ask("cd /var/log/nginx; pkill -STOP -x nginx; \
        echo $(($(wc -l <access.log) - $(wc -l <access.log.1))); truncate -s 0 access.log; \
        pkill -CONT -x nginx; pkill -CONT -f '^/opt/watchpost run$'")
    .parse()
    .expect("a number");
    assert!(lost >= 20, "half of the load, and health checks: {lost}");
    // What the agent had not yet read when it was stopped, it reads from the copy.
    let found = wait_verdict(&lab, host, "unaccounted");
    assert_eq!(found["unaccounted_total"], lost, "{found}");
    assert!(
        found["cause"].as_str().is_some_and(|cause| cause.contains("a log was truncated 1 times")),
        "{found}"
    );
    lab.end();
}

/// What befalls the parts around nginx is no matter of the counts: every verdict stays `equal`.
#[test]
fn what_is_done_around_nginx_leaves_every_verdict_equal() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    for host in WEB_HOSTS {
        log_every_request(&lab, host);
    }
    let hosts = ["lb", "web1", "web2"];
    let before = hosts.map(|host| wait_verdict(&lab, host, "equal")["unaccounted_total"].clone());
    let is_equal = |disruption: &str| {
        for (host, before) in hosts.iter().zip(&before) {
            let found = wait_verdict(&lab, host, "equal");
            assert_eq!(found["unaccounted_total"], *before, "{disruption}, {host}: {found}");
        }
    };
    for disruption in ["haproxy-reload", "replica-partition", "app-killed"] {
        lab.load(200, 4);
        lab.break_(disruption);
        let load = lab.load(200, 4);
        assert_eq!(number(&load, "/answered"), 200, "{disruption}: {load}");
        is_equal(disruption);
        if disruption != "haproxy-reload" {
            lab.mend(disruption);
            lab.load(200, 4);
            is_equal(disruption);
        }
    }
    lab.end();
}
