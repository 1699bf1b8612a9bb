//! A real HAProxy before a real nginx: its counters, what it says of its servers, and peers that are none.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::nginx::{Nginx, send};
use crate::support::{Agent, Process, Receiver, free_address, get, number, wait_for};

/// An HAProxy of the test's own, a master with one worker.
struct Haproxy {
    plain: SocketAddr,
    page: SocketAddr,
    directory: PathBuf,
    process: Process,
}

impl Haproxy {
    /// `servers` are the lines of the backend that requests go to.
    fn start(directory: &Path, servers: &str) -> Haproxy {
        let (plain, tls, page) = (free_address(), free_address(), free_address());
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        fs::write(directory.join("site.pem"), certificate + &key.serialize_pem()).expect("written");
        let haproxy = |process| Haproxy { plain, page, directory: directory.to_owned(), process };
        let here = directory.display();
        let text = format!(
            "global\n stats socket {here}/ro.sock mode 666 level user\n\
             defaults\n mode http\n timeout connect 1s\n timeout client 20s\n timeout server 20s\n\
             frontend www\n bind {plain}\n bind {tls} ssl crt {here}/site.pem\n default_backend app\n\
             backend app\n{servers}\n\
             listen page\n bind {page}\n stats enable\n stats uri /stats\n acl shut path_beg /shut\n \
             http-request deny deny_status 401 if shut\n"
        );
        fs::write(directory.join("haproxy.cfg"), text).expect("a configuration");
        let mut command = Command::new("haproxy");
        command.arg("-W").arg("-f").arg(directory.join("haproxy.cfg"));
        let process = Process::start(&mut command, &directory.join("haproxy.out"));
        wait_for("HAProxy", || TcpStream::connect(plain).ok());
        haproxy(process)
    }

    fn socket(&self) -> String {
        self.directory.join("ro.sock").display().to_string()
    }

    /// Changes the configuration and has a new worker take over.
    fn reload(&self, change: impl FnOnce(String) -> String) {
        let file = self.directory.join("haproxy.cfg");
        let text = fs::read_to_string(&file).expect("the configuration");
        fs::write(&file, change(text)).expect("written");
        let before = self.workers();
        self.process.signal("USR2");
        wait_for("a new worker", || {
            let now = self.workers();
            (!now.is_empty() && now.iter().all(|worker| !before.contains(worker))).then_some(())
        });
    }

    fn workers(&self) -> Vec<String> {
        let master = self.process.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        children.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Haproxy {
    /// The master ends its workers.
    fn drop(&mut self) {
        self.process.end();
    }
}

/// An agent that asks HAProxy at this place and follows no log.
fn agent(directory: &Path, place: &str) -> Agent {
    let mut agent = Agent::new(directory, "none");
    agent.set("HAPROXY", place);
    agent.set("STUB_STATUS", "none");
    agent.start();
    agent
}

fn comparison(status: &Value) -> &Value {
    let all = status["reconciliation"].as_array().expect("a list");
    all.iter().find(|one| one["with"] == "haproxy").unwrap_or(&Value::Null)
}

/// The comparison once it says so of this many answers; it must have been drawn after this call.
fn wait_comparison(agent: &Agent, verdict: &str, answers: u64) -> Value {
    let begun = number(comparison(&agent.status()), "/as_of");
    let status = agent.wait_status(verdict, |status| {
        let found = comparison(status);
        let is_meant = found["verdict"] == verdict && number(found, "/counted") >= answers;
        is_meant && number(found, "/as_of") > begun
    });
    comparison(&status).clone()
}

fn finding<'a>(status: &'a Value, id: &str, subject: &str) -> Option<&'a Value> {
    let is_it = |finding: &&Value| finding["id"] == id && finding["subject"] == subject;
    status["findings"].as_array()?.iter().find(is_it)
}

/// Answers the first request of each connection and closes it at the second, as a server does whose idle time is over.
fn tired_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    let _ = stream.read(&mut [0; 4096]);
                }
            });
        }
    });
    address
}

#[test]
fn haproxy_answers_every_request_through_a_reload_and_one_without_is_numbered() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let nginx = Nginx::start_with(directory.path(), "");
    let tired = tired_server();
    let servers = format!(
        " use-server tired if {{ path_beg /tired }}\n server web1 {}\n server tired {tired} weight 0",
        nginx.address
    );
    let haproxy = Haproxy::start(directory.path(), &servers);
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), "auto");
    agent.set("NGINX_CONF", &directory.path().join("nginx.conf").display().to_string());
    agent.set("HAPROXY", &haproxy.socket());
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    wait_comparison(&agent, "equal", 0);
    send(haproxy.plain, 400, |index| format!("/ok/{index}"));
    let found = wait_comparison(&agent, "equal", 400);
    assert_eq!((number(&found, "/counted"), number(&found, "/reported")), (400, 400), "{found}");
    // The same requests in nginx's log, and in its counters.
    agent.wait_status("nginx's lines", |status| number(status, "/web/totals/requests") == 400);
    agent.wait_status("nginx's own comparison", |status| {
        let all = status["reconciliation"].as_array().expect("a list");
        all.len() == 2 && all.iter().all(|one| one["verdict"] == "equal" && one["counted"] == 400)
    });
    haproxy.reload(|text| text);
    send(haproxy.plain, 100, |index| format!("/ok/{index}"));
    let status = agent.wait_status("a comparison of the new worker", |status| {
        let found = comparison(status);
        found["verdict"] == "equal" && number(found, "/counted") <= 100 && number(found, "/as_of") > 0
    });
    assert_eq!(number(comparison(&status), "/unaccounted_total"), 0, "{status}");
    wait_comparison(&agent, "equal", 0);
    // The second request on one connection meets a server that has just closed: HAProxy closes too, without an answer.
    let mut client = TcpStream::connect(haproxy.plain).expect("HAProxy");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let mut answers = Vec::new();
    for _ in 0..2 {
        client.write_all(b"GET /tired HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        answers.push(client.read(&mut [0; 4096]).expect("an answer, or an end"));
    }
    assert_eq!(answers[1], 0, "it was answered");
    let found = wait_comparison(&agent, "unaccounted", 0);
    assert_eq!(number(&found, "/unaccounted"), 1, "{found}");
    assert!(found["cause"].as_str().is_some_and(|cause| cause.contains("being reused")), "{found}");
    let (_, metrics) = get(agent.address, "/metrics").expect("metrics");
    for line in [
        "watchpost_reconciliation_unaccounted{with=\"haproxy\"} 1",
        "haproxy_frontend_http_requests_total{proxy=\"www\"} ",
        "haproxy_server_status{proxy=\"app\",server=\"web1\",state=\"UP\"} 1",
        "haproxy_process_uptime_seconds ",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    wait_for("HAProxy's metrics at the receiver", || {
        let records = receiver.records("watchpost/host");
        records
            .into_iter()
            .find(|record| record["probe"] == "haproxy" && record["haproxy.requests.total"].is_object())
    });
    let event = wait_for("the event", || {
        let records = receiver.records("watchpost/events");
        records
            .into_iter()
            .find(|record| record["event"] == "watchpost.reconciliation" && record["with"] == "haproxy")
    });
    assert_eq!((&event["verdict"], &event["unaccounted"]), (&"unaccounted".into(), &1.into()), "{event}");
}

#[test]
fn a_plaintext_hop_and_a_dead_server_are_found_and_clear_when_mended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let nobody = free_address();
    // An address of a network for documentation (RFC 5737): nothing is sent there, since nobody asks for it.
    let servers = format!(
        " server far 192.0.2.10:8080\n server near 127.0.0.1:80\n server dead {nobody} check inter 200ms fall 1"
    );
    let haproxy = Haproxy::start(directory.path(), &servers);
    let agent = agent(directory.path(), &haproxy.socket());
    let status = agent.wait_status("both findings", |status| {
        finding(status, "haproxy.backend-plaintext", "app/far").is_some()
            && finding(status, "haproxy.server-down", "app/dead").is_some()
    });
    let plain = finding(&status, "haproxy.backend-plaintext", "app/far").expect("it is there");
    assert_eq!((&plain["severity"], &plain["confidence"]), (&"high".into(), &"likely".into()), "{plain}");
    let cfg = directory.path().join("haproxy.cfg").display().to_string();
    assert!(
        plain["evidence"][0]["what"].as_str().is_some_and(|what| what.contains("192.0.2.10:8080")),
        "{plain}"
    );
    assert!(plain["evidence"][1]["where"].as_str().is_some_and(|place| place.starts_with(&cfg)), "{plain}");
    assert!(finding(&status, "haproxy.backend-plaintext", "app/near").is_none(), "{status}");
    haproxy.reload(|text| {
        text.replace("192.0.2.10:8080", "192.0.2.10:8443 ssl verify none")
            .replace(" check inter 200ms fall 1", "")
    });
    agent.wait_status("nothing is left", |status| status["findings"].as_array().is_some_and(Vec::is_empty));
    let probe = &agent.status()["probes"][0];
    println!("haproxy: a run takes {} ms", probe["duration_ms"]);
}

#[test]
fn the_stats_page_will_do_and_says_what_it_cannot_tell() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let nginx = Nginx::start_with(directory.path(), "");
    let haproxy = Haproxy::start(directory.path(), &format!(" server web1 {}", nginx.address));
    let mut agent = agent(directory.path(), &format!("http://{}/stats", haproxy.page));
    wait_comparison(&agent, "equal", 0);
    send(haproxy.plain, 60, |index| format!("/ok/{index}"));
    let found = wait_comparison(&agent, "equal", 60);
    assert_eq!(found["unaccounted_total"], 0, "{found}");
    let status = agent.status();
    let unknown = finding(&status, "haproxy.backend-plaintext", "").expect("it cannot be told");
    assert_eq!(unknown["confidence"], "unknown", "{unknown}");
    let once = agent.run(&["once"]);
    let shown: Value = serde_json::from_slice(&once.stdout).expect("JSON");
    let metrics = &shown["probes"]["haproxy"]["metrics"];
    assert!(number(metrics, "/haproxy.requests.total/www/FRONTEND/2xx") >= 60, "{shown}");
    assert_eq!(agent.stop(), Some(0));
    agent.set("HAPROXY", &format!("http://{}/shut", haproxy.page));
    agent.start();
    let status = agent.wait_status("a refusal", |status| status["probes"][0]["state"] == "denied");
    let said = status["probes"][0]["last_error"].as_str().expect("why").to_owned();
    assert!(said.contains("level user"), "{said}");
}

/// Answers every connection to a socket so; `None` never answers.
fn impostor(path: &Path, answer: Option<&'static [u8]>) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match answer {
                Some(answer) => {
                    let _ = stream.read(&mut [0; 64]);
                    let _ = stream.write_all(answer);
                }
                None => open.push(stream),
            }
        }
    });
}

#[test]
fn an_haproxy_that_hangs_lies_refuses_or_is_not_there_is_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = |name: &str| directory.path().join(name);
    impostor(&socket("hangs"), None);
    impostor(&socket("garbage"), Some(b"HTTP/1.1 400 Bad\r\n\r\n\n\n"));
    impostor(&socket("cut"), Some(b"Name: HAProxy\nPid: 4\n"));
    impostor(&socket("shut"), Some(b"Permission denied\n\n"));
    impostor(&socket("silent"), Some(b""));
    drop(UnixListener::bind(socket("gone")).expect("a socket that nobody serves any more"));
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("STUB_STATUS", "none");
    for (name, state, said) in [
        ("hangs", "failing", "no answer within 3 s"),
        ("garbage", "failing", "expected an answer that begins with"),
        ("cut", "failing", "does not come to its end"),
        ("shut", "denied", "mode 666 level user"),
        ("silent", "failing", "does not come to its end"),
        ("gone", "failing", "refused"),
        ("missing", "failing", "No such file"),
    ] {
        agent.set("HAPROXY", &socket(name).display().to_string());
        agent.start();
        let status = agent.wait_status("the first run", |status| number(status, "/probes/0/runs") > 0);
        let probe = &status["probes"][0];
        assert_eq!(probe["state"], state, "{probe}");
        assert!(probe["last_error"].as_str().is_some_and(|error| error.contains(said)), "{probe}");
        assert_eq!(status["findings"], serde_json::json!([]), "{name}");
        assert_eq!(agent.stop(), Some(0));
    }
    let report = String::from_utf8(agent.run(&["check"]).stdout).expect("text");
    assert!(report.contains("FAIL  haproxy:") && report.contains("WATCHPOST_HAPROXY"), "{report}");
}
