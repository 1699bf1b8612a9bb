//! The lab: a whole web infrastructure in namespaces (docs/lab.md), raised, loaded and taken down again.
//!
//! Everything goes through the front door: requests of a client, HAProxy's socket, each agent's port, what the collector
//! stored. Needs root, as the faults do.

mod findings;
mod proof;
pub(crate) mod rig;
mod switches;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use rig::{Form, Lab, WEB_HOSTS, has_root};

use crate::support::{is_balanced, number, wait_for};

/// Requests of one load: enough that two of them at once are the rule.
const REQUESTS: u64 = 2_000;

/// Requests by each of four accounts that know nothing of each other.
#[derive(Debug, PartialEq)]
struct Counts {
    /// By HAProxy: the row of the front end.
    frontend: u64,
    /// Lines in nginx's logs.
    logged: u64,
    /// By the agents, each on its host.
    agents: u64,
    /// Lines in the collector's store.
    collected: u64,
}

impl Counts {
    fn of(lab: &Lab) -> Counts {
        let logged = |host: &&str| lines(&lab.file(host, "/var/log/nginx/access.log"));
        let counted = |host: &&str| number(&lab.status(host), "/web/totals/requests");
        Counts {
            frontend: lab.haproxy("secure", "FRONTEND", "req_tot"),
            logged: WEB_HOSTS.iter().map(logged).sum(),
            agents: WEB_HOSTS.iter().map(counted).sum(),
            collected: lab.collected("watchpost/nginx/access").len() as u64,
        }
    }

    fn agree(&self) -> bool {
        [self.logged, self.agents, self.collected] == [self.frontend; 3]
    }
}

fn lines(log: &Path) -> u64 {
    fs::read_to_string(log).unwrap_or_default().lines().count() as u64
}

/// What every account must come to after a load of exactly so many requests.
fn counts_agree_after_a_load(form: Form) {
    // An agent's own look at a TLS server is a request too.
    let lab = Lab::up_with(form, &[("all", "WATCHPOST_CERTIFICATES=none")]);
    let before =
        wait_for("the accounts to agree before the load", || Some(Counts::of(&lab)).filter(Counts::agree));
    let fleet = wait_for("the fleet to have the lines, and a look at HAProxy", || {
        lab.status("lb")["reconciliation"].as_array().filter(|all| !all.is_empty())?;
        let totals = fleet_totals(&lab)?;
        (totals[1..] == [before.frontend; 2]).then_some(totals)
    });
    let load = lab.load(REQUESTS, 8);
    assert_eq!(number(&load, "/answered"), REQUESTS, "{load}");
    assert_eq!(number(&load, "/status/200"), REQUESTS, "{load}");
    assert_eq!(lab.haproxy("secure", "FRONTEND", "req_tot"), before.frontend + REQUESTS);
    let after =
        wait_for("the accounts to agree after the load", || Some(Counts::of(&lab)).filter(Counts::agree));
    assert_eq!(after.collected, before.collected + REQUESTS, "{before:?} {after:?}");
    wait_for("the fleet to agree", || {
        let now = fleet_totals(&lab)?;
        println!("the fleet: {fleet:?}, then {now:?}");
        let grown: Vec<u64> = now.iter().zip(fleet).map(|(now, then)| now - then).collect();
        // HAProxy is asked every few seconds: of what came before the load it may tell late.
        let late = grown[0].checked_sub(REQUESTS)?;
        (late <= before.frontend && grown[1..] == [REQUESTS; 2]).then_some(())
    });
    for host in WEB_HOSTS {
        let status = lab.status(host);
        assert!(number(&load, &format!("/web/{host}")) > 0, "{host} had its share: {load}");
        assert_eq!(number(&status, "/web/totals/unparsed"), 0, "{status}");
        assert!(is_balanced(&status["ledger"]), "{status}");
    }
    lab.end();
}

/// What the collector sums up over the hosts: requests at the load balancer since its agent saw it first, requests
/// counted on web hosts, access lines. `None` until every host is on the page.
fn fleet_totals(lab: &Lab) -> Option<[u64; 3]> {
    let fetched = |path: &str| {
        let url = format!("http://10.77.0.60:7867{path}");
        let output = lab.exec("lb", &["curl", "-fsS", "-m", "10", &url]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let page = fetched("/fleet");
    if !["lb", "web1", "web2"].iter().all(|host| page.contains(host)) {
        return None;
    }
    let fleet: Value = serde_json::from_str(&fetched("/fleet.json")).expect("JSON");
    let totals = ["load_balancer_requests", "web_requests", "access_lines"];
    Some(totals.map(|total| number(&fleet, &format!("/totals/{total}"))))
}

#[test]
fn the_form_of_the_diagram_counts_every_request_once_everywhere() {
    if has_root() {
        counts_agree_after_a_load(Form::Diagram);
    }
}

#[test]
fn the_mended_form_counts_every_request_once_everywhere() {
    if has_root() {
        counts_agree_after_a_load(Form::Mended);
    }
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_behind() {
    if !has_root() {
        return;
    }
    let lab = Lab::up(Form::Diagram);
    // The control: what is looked for afterwards is there now.
    let traces = lab.traces();
    for what in ["haproxy", "nginx", "mariadbd", "/opt/watchpost", "mount", "net:["] {
        assert!(traces.iter().any(|trace| trace.contains(what)), "no {what} in {traces:#?}");
    }
    lab.kill();
}

#[test]
fn two_labs_stand_side_by_side() {
    if !has_root() {
        return;
    }
    let (first, second) = Lab::up_both(Form::Diagram, Form::Mended);
    let before = second.haproxy("secure", "FRONTEND", "req_tot");
    assert_eq!(number(&first.load(50, 2), "/status/200"), 50);
    assert_eq!(second.haproxy("secure", "FRONTEND", "req_tot"), before, "no request strayed");
    first.end();
    assert!(!second.traces().is_empty());
    assert_eq!(number(&second.load(50, 2), "/status/200"), 50);
    second.end();
}

#[test]
fn settings_of_a_host_reach_its_agent() {
    if !has_root() {
        return;
    }
    let settings = [("all", "WATCHPOST_FIELDS=farm=lab"), ("web1", "WATCHPOST_SHIP_LINES=none")];
    let lab = Lab::up_with(Form::Diagram, &settings);
    let shipped = |host: &str| number(&lab.status(host), "/ledger/lines/filtered") == 0;
    lab.load(20, 1);
    wait_for("lines that one host filters and the other ships", || {
        (!shipped("web1") && shipped("web2")).then_some(())
    });
    lab.set("web1", &["WATCHPOST_SHIP_LINES=all", "WATCHPOST_LOG=debug"]);
    let told = fs::read_to_string(lab.file("web1", "/etc/watchpost/watchpost.env")).expect("its settings");
    assert_eq!(told.matches("WATCHPOST_SHIP_LINES").count(), 1, "{told}");
    assert!(told.contains("WATCHPOST_FIELDS=farm=lab"), "{told}");
    lab.end();
}

/// The table of names in the document is that of the lab.
#[test]
fn the_document_of_the_lab_names_every_fault() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/lab.md")).expect("the document");
    let told: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let listed = rig::names();
    assert!(listed.len() > 25, "{listed:?}");
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(told, listed);
}
