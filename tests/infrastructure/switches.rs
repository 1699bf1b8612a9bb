//! Every weakness and every fault of the lab, switched on and off: each is seen from without, by something that no part of
//! Watchpost has a hand in.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rig::{Form, Lab, has_root, names};
use crate::support::{number, wait_for};

/// A switch and how it is seen.
struct Switch {
    name: &'static str,
    /// Where the question is asked.
    host: &'static str,
    /// The question, for `sh`.
    question: &'static str,
    /// What it prints while the switch is on, and while it is off.
    on: &'static str,
    off: &'static str,
}

const fn switch(
    name: &'static str,
    host: &'static str,
    question: &'static str,
    on: &'static str,
    off: &'static str,
) -> Switch {
    Switch { name, host, question, on, off }
}

/// Orders behind each other in both databases, as a client and as root on the replica see them.
const IS_BEHIND: &str = "curl -s -o /dev/null https://shop.example/order
    q() { mariadb --no-defaults -BN \"$@\" -e 'SELECT COUNT(*) FROM shop.orders'; }
    for again in 1 2 3 4 5 6 7 8 9; do
        [ $(q -h 10.77.0.31 -ushop -pshop) = $(q -S /run/mysqld/mysqld.sock) ] && echo equal && exit
        sleep 0.1
    done
    mariadb --no-defaults -S /run/mysqld/mysqld.sock -e 'SHOW SLAVE STATUS\\G' | grep -c 'Running: Yes'";

const SERVED: &str =
    "openssl s_client -connect shop.example:443 </dev/null 2>/dev/null | openssl x509 -noout";

/// In this order: a later one may need what an earlier one left.
const SWITCHES: &[Switch] = &[
    switch("replica-written", "web2", "SQL SELECT @@gtid_binlog_pos LIKE '2-2-%'", "1", "0"),
    switch("second-writer", "web2", "SQL SELECT @@read_only", "0", "1"),
    switch(
        "replica-stopped",
        "web2",
        "SQL SHOW STATUS LIKE 'Slave_running'",
        "Slave_running\tOFF",
        "Slave_running\tON",
    ),
    // Both threads say that they run, and orders are missing.
    switch("replica-lagging", "web2", IS_BEHIND, "2", "equal"),
    switch("replica-partition", "web2", IS_BEHIND, "2", "equal"),
    switch("firewall-open", "client", "CODE http://10.77.0.31/static/still.txt", "200", "000"),
    switch(
        "port-beyond-allowed",
        "client",
        "curl -s -m 1 http://10.77.0.31:9999; [ $? = 28 ]; echo $?",
        "1",
        "0",
    ),
    switch(
        "certificate-expiring",
        "client",
        "SERVED -checkend 864000",
        "Certificate will expire",
        "Certificate will not expire",
    ),
    switch(
        "certificate-wrong-name",
        "client",
        "curl -s -o /dev/null https://shop.example/; echo $?",
        "60",
        "0",
    ),
    switch(
        "certificate-file-differs",
        "lb",
        "[ \"$(SERVED -serial)\" = \"$(openssl x509 -noout -serial -in /etc/haproxy/certs/site.pem)\" ]; echo $?",
        "1",
        "0",
    ),
    switch(
        "tls-weak-protocol",
        "client",
        "openssl s_client -connect shop.example:443 -tls1 -cipher DEFAULT@SECLEVEL=0 </dev/null 2>&1 | grep -c 'Cipher is E'",
        "1",
        "0",
    ),
    switch("http-no-redirect", "client", "CODE http://shop.example/", "200", "301"),
    switch("hsts-missing", "client", "curl -sI https://shop.example/ | grep -ci strict-transport", "0", "1"),
    switch("stub-status-open", "lb", "CODE http://10.77.0.31/stub_status", "200", "404"),
    switch(
        "health-logged",
        "web1",
        "nginx -T 2>&1 | grep -A 1 'location = /health' | grep -c 'access_log off'",
        "0",
        "1",
    ),
    switch("log-buffered", "web1", "nginx -T 2>&1 | grep -c '^ *access_log .*buffer=64k;'", "1", "0"),
    switch("log-flushed", "web1", "nginx -T 2>&1 | grep -c '^ *access_log .*buffer=64k flush=5s;'", "1", "0"),
    switch(
        "log-without-request-time",
        "web1",
        "nginx -T 2>&1 | grep -c '^ *access_log .*combined;'",
        "1",
        "0",
    ),
    switch("app-killed", "web1", "pgrep -fc '^/usr/bin/python3 -u /opt/lab/app.py'", "0", "1"),
    switch("haproxy-stopped", "client", "CODE https://shop.example/", "000", "200"),
    switch("collector-stopped", "lb", "CODE http://10.77.0.60:7867/stats", "000", "200"),
    switch("plaintext-backend", "lb", "CODE http://10.77.0.31/health", "200", "000"),
    switch("one-writer", "web2", "SQL SELECT @@read_only", "1", "0"),
    switch("all-in-one", "web1", "pgrep -xc mariadbd", "1", "0"),
];

/// What is done once and over.
const ONCE: &[&str] = &[
    "haproxy-reload",
    "nginx-reload",
    "nginx-restart",
    "nginx-usr1",
    "logrotate",
    "copytruncate",
    "worker-killed",
    "worker-killed-buffered",
];

/// A question with its abbreviations written out.
fn script(question: &str) -> String {
    if let Some(query) = question.strip_prefix("SQL ") {
        return format!("mariadb --no-defaults -S /run/mysqld/mysqld.sock -BN -e \"{query}\"");
    }
    let question = question.replace("SERVED", SERVED);
    question.replace("CODE", "curl -s -m 2 -o /dev/null -w '%{http_code}'")
}

#[track_caller]
fn wait_seen(lab: &Lab, switch: &Switch, expected: &str) {
    let script = script(switch.question);
    let mut seen = String::new();
    wait_for(&format!("{} to be seen as {expected:?}", switch.name), || {
        let output = lab.exec(switch.host, &["sh", "-c", &script]);
        let now = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if now != seen {
            println!("{}: {now:?} {}", switch.name, String::from_utf8_lossy(&output.stderr));
            seen = now;
        }
        (seen == expected).then_some(())
    });
}

#[test]
fn every_fault_is_seen_while_it_is_on_and_no_longer() {
    if !has_root() {
        return;
    }
    let tried: BTreeSet<&str> =
        SWITCHES.iter().map(|switch| switch.name).chain(ONCE.iter().copied()).collect();
    let named = names();
    assert_eq!(tried, named.iter().map(String::as_str).collect(), "every name is tried");
    let lab = Lab::up(Form::Diagram);
    let weaknesses = ["plaintext-backend", "one-writer", "all-in-one"];
    for switch in SWITCHES {
        if weaknesses.contains(&switch.name) {
            wait_seen(&lab, switch, switch.on);
            lab.mend(switch.name);
            wait_seen(&lab, switch, switch.off);
            lab.break_(switch.name);
            wait_seen(&lab, switch, switch.on);
        } else {
            wait_seen(&lab, switch, switch.off);
            lab.break_(switch.name);
            wait_seen(&lab, switch, switch.on);
            lab.mend(switch.name);
            wait_seen(&lab, switch, switch.off);
        }
    }
    // Whatever was switched, in the end everybody is served by both.
    wait_for("a load that both web hosts serve", || {
        let load = lab.load(20, 2);
        is_served(&load).then_some(())
    });
    lab.end();
}

fn is_served(load: &Value) -> bool {
    number(load, "/status/200") == 20 && number(load, "/app/app1") > 0 && number(load, "/app/app2") > 0
}

#[test]
fn what_is_done_once_is_done_and_the_lab_stands() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    let seen = |host: &str, question: &str| {
        let output = lab.exec(host, &["sh", "-c", question]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let haproxy = "pgrep -x haproxy | sort -n | tail -n 1";
    let workers = "pgrep -f '^nginx: worker' | sort -n | tail -n 1";
    let master = "cat /run/nginx.pid";
    let log = "stat -c %i /var/log/nginx/access.log";
    for (name, host, question, changes) in [
        ("haproxy-reload", "lb", haproxy, true),
        ("nginx-reload", "web1", workers, true),
        ("nginx-reload", "web1", master, false),
        ("nginx-restart", "web1", master, true),
        ("nginx-usr1", "web1", log, false),
        ("logrotate", "web1", log, true),
        ("copytruncate", "web1", log, false),
        ("worker-killed", "web1", workers, true),
        ("worker-killed-buffered", "web1", workers, true),
    ] {
        let before = seen(host, question);
        lab.break_(name);
        let after = seen(host, question);
        assert_eq!(before != after, changes, "{name}: {before} {after}");
        assert!(lab.mend(name).contains("nothing to mend"), "{name}");
        assert!(is_served(&lab.load(20, 2)), "{name}");
    }
    // Two rotations left two files, the younger with what the copy took.
    assert!(lab.file("web1", "/var/log/nginx/access.log.2").exists());
    lab.end();
}
