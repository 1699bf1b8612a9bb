//! Endpoints that are scraped, through the binary: another agent, and everything that is no exporter.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::reconciliation::probe;
use crate::support::{Agent, Receiver, free_address, get, number, wait_for};

/// Serves every connection by this, each on a thread, until the test ends.
fn serve(answer: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                answer(&mut stream);
            });
        }
    });
    address
}

/// Answers everything with this status and body.
fn says(status: &'static str, content_type: &'static str, body: &'static str) -> SocketAddr {
    serve(move |stream| {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
        let _ = stream.write_all((head + body).as_bytes());
    })
}

const PLAIN: &str = "text/plain; version=0.0.4";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn part<'a>(status: &'a Value, name: &str) -> &'a Value {
    let parts = probe(status, "scrape")["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    parts.iter().find(|part| part["name"] == name).unwrap_or(&Value::Null)
}

/// Endpoints of every kind: name, address, filter.
fn endpoints() -> [(&'static str, SocketAddr, &'static str); 11] {
    let good = says(
        "200 OK",
        PLAIN,
        "# TYPE up gauge\nup 1\n# TYPE jobs_total counter\njobs_total{kind=\"a\",target=\"x\"} 3\n\
         jobs_total{kind=\"b\",target=\"y\"} NaN\njobs_total{kind=\"b\",target=\"y\"} 5\nother 1\nbad line here\n",
    );
    let open = says("200 OK", OPEN, "# TYPE j counter\nj_total 1 1700000000.5\n# EOF\n");
    let garbage = says("200 OK", "text/html", "<html>\n<p>Welcome to nginx!</p>\n</html>\n");
    let empty = says("200 OK", PLAIN, "");
    let forbidden = says("403 Forbidden", PLAIN, "");
    let moved = says("302 Found", PLAIN, "up 1\n");
    let cut = serve(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nup 1\n");
    });
    let silent = serve(|stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let endless = serve(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&b"up{of=\"everything\"} 1\n".repeat(1000)).is_ok() {}
    });
    let nobody = free_address();
    [
        ("good", good, "#up|jobs_total|none_*"),
        ("open", open, ""),
        ("garbage", garbage, ""),
        ("empty", empty, ""),
        ("forbidden", forbidden, ""),
        ("moved", moved, ""),
        ("cut", cut, ""),
        ("silent", silent, ""),
        ("endless", endless, ""),
        ("nobody", nobody, ""),
        ("none", good, "#nothing_*"),
    ]
}

#[test]
fn each_endpoint_costs_only_itself() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let setting =
        endpoints().map(|(name, address, only)| format!("{name}=http://{address}/metrics{only}")).join(",");
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("SCRAPE", &setting);
    agent.set("SCRIPTS", "none");
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    let status = agent.wait_status("the first run", |status| number(probe(status, "scrape"), "/runs") > 0);
    assert_eq!(probe(&status, "scrape")["state"], "partial", "{status:#}");
    for (name, state, said) in [
        ("good", "ok", "2 lines or values are no metric"),
        ("open", "ok", ""),
        ("garbage", "failing", "line 1: expected the name of a metric"),
        ("empty", "failing", "no metric"),
        ("forbidden", "denied", "answers 403"),
        ("moved", "failing", "answers 302"),
        ("cut", "failing", "http://"),
        ("silent", "failing", "no whole answer within 5 s"),
        ("endless", "failing", "longer than 4194304 bytes"),
        ("nobody", "failing", "refused"),
        ("none", "ok", "is one of those wanted"),
    ] {
        let part = part(&status, name);
        let error = part["error"].as_str().unwrap_or_default();
        assert!(part["state"] == state && error.contains(said), "{name}: {part}");
    }
    let jobs = json!({"up": 1, "jobs_total": [{"labels": {"kind": "a", "target": "x"}, "value": 3}]});
    assert_eq!(status["probe_metrics"]["scrape"], json!({"good": jobs, "open": {"j_total": 1}}));
    let (_, text) = get(agent.address, "/metrics").expect("metrics");
    for line in [
        "# TYPE scrape_jobs_total counter",
        "scrape_jobs_total{target=\"good\",kind=\"a\",exported_target=\"x\"} 3",
        "scrape_jobs_total{target=\"good\",kind=\"b\",exported_target=\"y\"} NaN",
        "scrape_up{target=\"good\"} 1",
        "watchpost_probe_part_up{probe=\"scrape\",part=\"silent\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
    let shipped = |name: &str| {
        let records = receiver.records("watchpost/host");
        records.into_iter().find(|record| record["target"] == name)
    };
    let record = wait_for("the record", || shipped("good"));
    assert_eq!((&record["record"], &record["jobs_total"]), (&json!("probe.metrics"), &jobs["jobs_total"]));
    let record = wait_for("the record", || shipped("silent"));
    assert_eq!(record["state"], "failing", "{record}");
}

#[test]
fn an_agent_scrapes_another_and_their_names_do_not_meet() {
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut other = Agent::new(there.path(), "none");
    other.set("SCRIPTS", "none");
    other.start();
    let mut agent = Agent::new(here.path(), "none");
    let url = format!("http://{}/metrics", other.address);
    agent.set("SCRAPE", &format!("all={url},some={url}#watchpost_up|node_load*"));
    agent.set("SCRIPTS", "none");
    agent.start();
    let status = agent.wait_status("both of them", |status| number(part(status, "all"), "/samples") > 50);
    assert_eq!(probe(&status, "scrape")["state"], "ok", "{status:#}");
    let (all, some) = (&status["probe_metrics"]["scrape"]["all"], &status["probe_metrics"]["scrape"]["some"]);
    assert_eq!((&all["watchpost_up"], &some["watchpost_up"]), (&json!(1), &json!(1)));
    assert_eq!(
        some.as_object().map(serde_json::Map::len),
        Some(4),
        "watchpost_up, node_load1, 5, 15: {some}"
    );
    assert!(all["node_cpu_seconds_total"].as_array().is_some_and(|cpus| cpus.len() > 4), "{all:#}");
    assert_eq!((&part(&status, "all")["unread"], &part(&status, "all")["error"]), (&json!(0), &Value::Null));
    let (_, text) = get(agent.address, "/metrics").expect("metrics");
    for series in
        ["watchpost_up 1", "scrape_watchpost_up{target=\"all\"} 1", "scrape_watchpost_up{target=\"some\"} 1"]
    {
        assert!(text.lines().any(|line| line == series), "no {series} in {text}");
    }
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let series = if line.starts_with('#') { line } else { line.rsplit_once(' ').expect("a value").0 };
        assert!(seen.insert(series), "{series} stands there twice");
    }
    // What is gone is not told any longer.
    assert_eq!(other.stop(), Some(0));
    let status = agent.wait_status("the end", |status| part(status, "all")["state"] == "failing");
    assert_eq!(probe(&status, "scrape")["state"], "failing");
    assert_eq!(status["probe_metrics"]["scrape"], json!({}));
    let (_, text) = get(agent.address, "/metrics").expect("metrics");
    assert!(!text.contains("scrape_watchpost_up"), "{text}");
}
