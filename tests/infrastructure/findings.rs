//! What the agents of the lab find: the three weaknesses of the diagram on the right hosts, none of them in the mended form, and
//! every other one when it is switched on and no longer when it is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::rig::{Form, Lab, has_root};
use crate::support::{wait_for, wait_within};

/// A switch of the lab, and the finding that it must bring.
struct Weakness {
    switch: &'static str,
    host: &'static str,
    finding: &'static str,
}

const fn weakness(switch: &'static str, host: &'static str, finding: &'static str) -> Weakness {
    Weakness { switch, host, finding }
}

/// Those that the diagram shows.
const OF_THE_DIAGRAM: &[(&str, &str)] = &[
    ("lb", "haproxy.backend-plaintext"),
    ("web1", "mysql.single-writer"),
    ("web1", "host.all-in-one"),
    ("web2", "host.all-in-one"),
];

/// All others, in an order in which none is in the way of a later one.
const OTHERS: &[Weakness] = &[
    weakness("log-buffered", "web1", "nginx.log-buffer-without-flush"),
    weakness("log-without-request-time", "web1", "nginx.log-without-request-time"),
    weakness("stub-status-open", "web1", "nginx.stub-status-open"),
    weakness("app-killed", "lb", "haproxy.server-down"),
    weakness("firewall-open", "web1", "firewall.open-by-default"),
    weakness("port-beyond-allowed", "web1", "firewall.port-beyond-allowed"),
    weakness("certificate-expiring", "lb", "tls.certificate-expires-at-once"),
    weakness("certificate-wrong-name", "lb", "tls.certificate-wrong-name"),
    weakness("certificate-file-differs", "lb", "tls.certificate-differs-from-file"),
    weakness("tls-weak-protocol", "lb", "tls.weak-protocol"),
    weakness("http-no-redirect", "lb", "http.no-redirect"),
    weakness("hsts-missing", "lb", "http.hsts-missing"),
    weakness("replica-stopped", "web2", "mysql.replica-broken"),
    weakness("replica-lagging", "web2", "mysql.replica-lagging"),
    weakness("replica-partition", "web2", "mysql.replica-partitioned"),
    weakness("replica-written", "web2", "mysql.replica-written"),
];

/// Longest wait for a finding: a replica counts as late after half a minute.
const SEEN_WITHIN: Duration = Duration::from_secs(150);

/// Hosts with an agent.
const HOSTS: [&str; 3] = ["lb", "web1", "web2"];
const HOSTS_MENDED: [&str; 7] = ["lb", "web1", "web2", "app1", "app2", "db1", "db2"];

/// What stands on a host, but for what could not be read.
fn standing(lab: &Lab, host: &str) -> BTreeSet<String> {
    let status = lab.status(host);
    let findings = status["findings"].as_array().cloned().unwrap_or_default();
    let ids = findings.iter().filter(|finding| finding["confidence"] != "unknown");
    ids.filter_map(|finding| finding["id"].as_str().map(str::to_owned)).collect()
}

fn expected(host: &str) -> BTreeSet<String> {
    let of_host = OF_THE_DIAGRAM.iter().filter(|(at, _)| *at == host);
    of_host.map(|(_, finding)| (*finding).to_owned()).collect()
}

/// Lets the agent of a host look at everything now.
fn look_now(lab: &Lab, host: &str) {
    lab.exec(host, &["pkill", "-HUP", "-f", "^/opt/watchpost run$"]);
}

/// Something must be written for a replica to be late with it; and TLS servers are met every few minutes only.
fn provoke(lab: &Lab, host: &str, finding: &str) {
    if finding.starts_with("mysql.") {
        lab.exec("client", &["curl", "-s", "-o", "/dev/null", "https://shop.example/order"]);
    } else if finding.starts_with("tls.") || finding.starts_with("http.") {
        look_now(lab, host);
    }
}

/// Waits until every probe of every host has had its first run.
fn wait_probed(lab: &Lab, hosts: &[&str]) {
    for host in hosts {
        wait_for(&format!("all probes of {host}"), || {
            let probes = lab.status(host)["probes"].as_array().cloned().unwrap_or_default();
            let is_through = |probe: &Value| probe["state"] != "starting";
            (!probes.is_empty() && probes.iter().all(is_through)).then_some(())
        });
    }
}

#[test]
fn the_diagram_has_its_three_weaknesses_and_each_other_one_comes_and_goes() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    wait_probed(&lab, &HOSTS);
    for host in HOSTS {
        wait_for(&format!("the weaknesses of {host}"), || {
            (standing(&lab, host) == expected(host)).then_some(())
        });
    }
    for Weakness { switch, host, finding } in OTHERS {
        lab.break_(switch);
        provoke(&lab, host, finding);
        wait_within(SEEN_WITHIN, &format!("{finding} with {switch}"), || {
            standing(&lab, host).contains(*finding).then_some(())
        });
        lab.mend(switch);
        provoke(&lab, host, finding);
        wait_within(SEEN_WITHIN, &format!("no {finding} without {switch}"), || {
            (standing(&lab, host) == expected(host)).then_some(())
        });
        println!("{switch}: {finding} on {host}, and gone when mended");
    }
    // The collector heard of all of it.
    let events = lab.collected("watchpost/events");
    let heard: BTreeSet<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
    for Weakness { finding, .. } in OTHERS {
        assert!(heard.contains(finding), "{finding} in {heard:?}");
    }
    lab.end();
}

#[test]
fn the_mended_form_has_no_weakness() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Mended);
    wait_probed(&lab, &HOSTS_MENDED);
    lab.load(50, 2);
    for host in HOSTS_MENDED {
        look_now(&lab, host);
    }
    wait_probed(&lab, &HOSTS_MENDED);
    for host in HOSTS_MENDED {
        wait_for(&format!("nothing weak on {host}"), || standing(&lab, host).is_empty().then_some(()));
    }
    lab.end();
}
