//! A real nginx and its own counters: whatever happens to it, its logs and its workers, the agent's count of lines agrees with
//! nginx's count of requests, or says by how many it does not.
//!
//! `WATCHPOST_TEST_BRACKETS=200` takes so many comparisons under undisturbed load; by default a few.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::nginx::{Nginx, send};
use crate::rotation::rig::Logrotate;
use crate::support::{Agent, Receiver, get, number, wait_for, wait_out};

/// An nginx with a location for its counters, an agent that found it, and a receiver.
struct Rig {
    nginx: Nginx,
    agent: Agent,
    receiver: Receiver,
    directory: tempfile::TempDir,
    sent: u64,
}

impl Rig {
    fn start(parameters: &str) -> Rig {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nginx = Nginx::start_with(directory.path(), parameters);
        let receiver = Receiver::start(directory.path());
        let mut agent = Agent::new(directory.path(), "auto");
        agent.set("NGINX_CONF", &directory.path().join("nginx.conf").display().to_string());
        agent.set("SUMO_URL", &receiver.url());
        agent.start();
        let rig = Rig { nginx, agent, receiver, directory, sent: 0 };
        rig.wait_verdict("equal");
        rig
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("access.log")
    }

    fn send(&mut self, count: u64) {
        send(self.nginx.address, count, |index| format!("/ok/{index}"));
        self.sent += count;
    }

    /// The comparison once its verdict is this one; it must have been drawn after this call.
    fn wait_verdict(&self, verdict: &str) -> Value {
        let begun = self.agent.wait_status("a comparison", |status| !comparison(status).is_null());
        let begun = number(comparison(&begun), "/as_of");
        let status = self.agent.wait_status(verdict, |status| {
            let found = comparison(status);
            found["verdict"] == verdict && number(found, "/as_of") > begun
        });
        comparison(&status).clone()
    }

    /// All that was sent is counted and accounted for, exactly.
    fn expect_equal(&self) -> Value {
        self.agent
            .wait_status("all that was sent", |status| number(status, "/web/totals/requests") >= self.sent);
        // The first that is drawn from here on may have counted before.
        self.wait_verdict("equal");
        let found = self.wait_verdict("equal");
        assert_eq!(found["counted"], found["reported"], "{found}");
        assert_eq!(found["unaccounted_total"], 0, "{found}");
        found
    }
}

fn comparison(status: &Value) -> &Value {
    &status["reconciliation"][0]
}

#[test]
fn requests_and_lines_agree_through_reload_rotation_and_restart() {
    let mut rig = Rig::start("");
    rig.send(500);
    let found = rig.expect_equal();
    assert_eq!((found["counted"].as_u64(), &found["with"]), (Some(500), &"nginx stub_status".into()));
    for _ in 0..3 {
        rig.nginx.reload();
        rig.send(200);
        rig.expect_equal();
    }
    let logrotate = Logrotate::new(&rig.log(), " rotate 3\n nocompress\n create");
    for _ in 0..3 {
        logrotate.rotate();
        rig.send(50);
        rig.nginx.reopen_logs();
        rig.send(50);
        rig.expect_equal();
    }
    rig.nginx.restart();
    rig.send(100);
    rig.expect_equal();
    let (_, metrics) = get(rig.agent.address, "/metrics").expect("metrics");
    assert!(metrics.contains("watchpost_reconciliation_agrees{with=\"nginx stub_status\"} 1"), "{metrics}");
    assert!(metrics.contains("nginx_http_requests_total "), "{metrics}");
    wait_for("the comparison at the receiver", || {
        let records = rig.receiver.records("watchpost/host");
        let is_shipped = |kind: &str| records.iter().any(|record| record["record"] == kind);
        (is_shipped("reconciliation") && is_shipped("probe.metrics")).then_some(())
    });
}

/// Comparisons under load, with nothing wrong.
const BRACKETS: usize = 15;

#[test]
fn undisturbed_load_raises_no_alarm() {
    let brackets = std::env::var("WATCHPOST_TEST_BRACKETS")
        .map_or(BRACKETS, |text| text.parse().expect("WATCHPOST_TEST_BRACKETS is a number"));
    let mut rig = Rig::start("");
    let (stop, address) = (Arc::new(AtomicBool::new(false)), rig.nginx.address);
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    send(address, 20, |index| format!("/ok/{sender}/{index}"));
                    sent += 20;
                    wait_out(Duration::from_millis(50));
                }
                sent
            })
        })
        .collect();
    let mut seen = BTreeMap::new();
    while seen.len() < brackets {
        let found = rig.agent.wait_status("the next comparison", |status| {
            comparison(status)["as_of"].as_u64().is_some_and(|at| !seen.contains_key(&at))
        });
        let found = comparison(&found);
        assert_ne!(found["verdict"], "unaccounted", "{found}");
        seen.insert(number(found, "/as_of"), number(found, "/bracket"));
    }
    stop.store(true, Ordering::Relaxed);
    rig.sent = senders.into_iter().map(|sender| sender.join().expect("all sent")).sum();
    rig.expect_equal();
    let widest = seen.values().max().expect("some");
    println!("{} comparisons under {} requests, at most {widest} wide", seen.len(), rig.sent);
}

#[test]
fn lines_that_never_reach_the_log_are_numbered() {
    let mut rig = Rig::start("");
    rig.send(100);
    rig.expect_equal();
    send(rig.nginx.address, 37, |index| format!("/quiet/{index}"));
    let found = rig.wait_verdict("unaccounted");
    assert_eq!(found["unaccounted"], 37, "{found}");
    assert!(found["cause"].as_str().is_some_and(|cause| cause.contains("access_log off")), "{found}");
    let event = wait_for("the event", || {
        let records = rig.receiver.records("watchpost/events");
        records.into_iter().find(|record| record["event"] == "watchpost.reconciliation")
    });
    assert_eq!(event["verdict"], "unaccounted", "{event}");
}

#[test]
fn lines_that_a_killed_worker_took_with_it_are_numbered() {
    let mut rig = Rig::start("buffer=64k flush=3s");
    rig.send(400);
    // Equal with all of them although nginx holds them back: the comparison waits for the buffers.
    rig.expect_equal();
    rig.send(60);
    rig.nginx.kill_workers();
    let lost = rig.sent - rig.nginx.log_lines().len() as u64;
    assert!(lost > 0, "the buffers were written in the very moment; nothing is shown");
    let found = rig.wait_verdict("unaccounted");
    // A worker that dies with a request in hand leaves nginx's gauges raised for good, and the bracket as much wider.
    let (fewest, bracket) = (number(&found, "/unaccounted"), number(&found, "/bracket"));
    assert!((fewest..=fewest + bracket).contains(&lost) && bracket <= 2, "{lost} lost: {found}");
    assert!(found["cause"].as_str().is_some_and(|cause| cause.contains("workers of nginx ended")), "{found}");
}

fn finding<'a>(status: &'a Value, id: &str) -> Option<&'a Value> {
    status["findings"].as_array()?.iter().find(|finding| finding["id"] == id)
}

#[test]
fn what_nginx_is_told_wrongly_is_found_and_clears_when_mended() {
    let rig = Rig::start("buffer=64k");
    let status = rig
        .agent
        .wait_status("the finding", |status| finding(status, "nginx.log-buffer-without-flush").is_some());
    let found = finding(&status, "nginx.log-buffer-without-flush").expect("it is there");
    assert!(found["advice"].as_str().is_some_and(|advice| advice.contains("flush=1s")), "{found}");
    assert_eq!(found["evidence"][0]["where"], configuration(rig.directory.path()), "{found}");
    assert!(finding(&status, "nginx.log-without-request-time").is_none(), "{status}");
    let conf = rig.directory.path().join("nginx.conf");
    let text = fs::read_to_string(&conf).expect("a configuration");
    fs::write(&conf, text.replace("buffer=64k", "buffer=64k flush=1s")).expect("mended");
    rig.agent.wait_status("it is gone", |status| finding(status, "nginx.log-buffer-without-flush").is_none());
    let said = wait_for("both events", || {
        let records = rig.receiver.records("watchpost/events");
        let states: Vec<String> = records
            .iter()
            .filter(|record| record["id"] == "nginx.log-buffer-without-flush")
            .map(|record| record["state"].as_str().unwrap_or_default().to_owned())
            .collect();
        (states.len() >= 2).then_some(states)
    });
    assert_eq!(said, ["present", "cleared"]);
}

fn configuration(directory: &Path) -> String {
    directory.join("nginx.conf").display().to_string()
}

/// Answers everything with this text, until the test ends.
fn impostor(answer: &'static str) -> SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// How a probe fares; null where it is not on.
pub(crate) fn probe<'a>(status: &'a Value, name: &str) -> &'a Value {
    let probes = status["probes"].as_array().map(Vec::as_slice).unwrap_or_default();
    probes.iter().find(|probe| probe["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn a_probe_that_meets_garbage_refusal_or_nothing_says_so() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let garbage = impostor("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let forbidden = impostor("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let nobody = crate::support::free_address();
    let mut agent = Agent::new(directory.path(), "none");
    for (address, state, said) in [
        (garbage, "failing", "active"),
        (forbidden, "denied", "allow 127.0.0.1;"),
        (nobody, "failing", "refused"),
    ] {
        agent.set("STUB_STATUS", &format!("http://{address}/s"));
        agent.start();
        let status =
            agent.wait_status("the first run", |status| number(probe(status, "stub_status"), "/runs") > 0);
        let probe = probe(&status, "stub_status");
        assert_eq!(probe["state"], state, "{probe}");
        let error = probe["last_error"].as_str().unwrap_or_default();
        assert!(error.to_lowercase().contains(said), "{probe}");
        assert_eq!(status["reconciliation"], serde_json::json!([]));
        assert_eq!(agent.stop(), Some(0));
    }
}
