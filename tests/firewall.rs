//! A real nftables in a network of the test's own: what the agent says of its rules is what they do, and without the right to
//! read them it says so and tells the rest.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::destinations::network::{in_namespace, ip};
use crate::support::{Agent, Process, WATCHPOST, get, wait_for};

/// The user of nobody on every Linux.
const NOBODY: &str = "65534";

fn nft(rules: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("rules.nft");
    fs::write(&file, rules).expect("rules");
    let output =
        Command::new("nft").arg("-f").arg(&file).output().expect("nft runs (Debian package nftables)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Policy accept, and a final drop that counts: closed, but for the port of the agent's status and one more.
fn closed(agent: &Agent, more: u16) -> String {
    format!(
        "flush ruleset\ntable inet filter {{\n chain input {{\n type filter hook input priority 0; policy accept;\n\
         ct state established,related accept\n tcp dport {{ {}, {more} }} accept\n counter drop\n }}\n}}\n",
        agent.address.port()
    )
}

fn probe(status: &Value) -> &Value {
    let probes = status["probes"].as_array().expect("probes");
    probes.iter().find(|probe| probe["name"] == "firewall").unwrap_or(&Value::Null)
}

/// The state of the probe after its first run, and its error.
fn first_run(agent: &Agent) -> (String, String) {
    let status = agent.wait_status("a run and what it told", |status| {
        probe(status)["runs"].as_u64() > Some(0) && status["probe_metrics"]["firewall"].is_object()
    });
    let text = |key: &str| probe(&status)[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("last_error"))
}

/// The findings of the firewall, as `id confidence subject`.
fn found(status: &Value) -> Vec<String> {
    let findings = status["findings"].as_array().expect("findings").iter();
    let of_firewall =
        findings.filter(|finding| finding["id"].as_str().is_some_and(|id| id.starts_with("firewall.")));
    of_firewall
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default();
            format!("{} {} {}", text("id"), text("confidence"), text("subject"))
        })
        .collect()
}

fn agent(directory: &Path, allowed: &str) -> Agent {
    let mut agent = Agent::new(directory, "none");
    agent.set("FIREWALL", allowed);
    agent
}

/// The agent as a user without rights but those of these flags of setpriv.
fn start_as_nobody(agent: &mut Agent, rights: &[&str]) {
    let here = agent.directory.clone();
    fs::set_permissions(&here, fs::Permissions::from_mode(0o755)).expect("its mode is set");
    let binary = here.join("watchpost");
    crate::support::copy_program(WATCHPOST, &binary);
    let state = here.join("own");
    let _ = fs::create_dir(&state);
    let nobody = NOBODY.parse().expect("a number");
    std::os::unix::fs::chown(&state, Some(nobody), Some(nobody)).expect("root may");
    agent.set("STATE_DIR", &state.join("state").display().to_string());
    let settings = agent.command(&["run"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).args(rights);
    command.arg("--no-new-privs").arg(&binary).arg("run").env_clear();
    command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    agent.start_as(&mut command);
}

/// Binds an address that is no loopback, on a port of its own.
fn outside() -> TcpListener {
    ip(&["link", "set", "lo", "up"]);
    ip(&["address", "add", "192.0.2.1/32", "dev", "lo"]);
    TcpListener::bind("192.0.2.1:0").expect("a port")
}

#[test]
fn open_rules_are_found_and_closed_ones_clear_them() {
    in_namespace(|| {
        let listener = outside();
        let port = listener.local_addr().expect("its address").port();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut agent = agent(directory.path(), "22,80-90");
        agent.start();
        assert_eq!(first_run(&agent).0, "ok");
        let open = [
            "firewall.open-by-default certain ".to_owned(),
            format!("firewall.port-beyond-allowed certain port {port} on 192.0.2.1"),
        ];
        agent.wait_status("both", |status| found(status) == open);
        nft(&closed(&agent, 99));
        agent.wait_status("none", |status| found(status).is_empty());
        // Accepted by a rule, though not allowed by the settings.
        nft(&closed(&agent, port));
        agent.stop();
        agent.start();
        agent.wait_status("the port", |status| found(status) == open[1..]);
    });
}

#[test]
fn drops_are_counted_with_the_right_to_read_rules_and_without() {
    in_namespace(|| {
        let listener = outside();
        let port = listener.local_addr().expect("its address").port();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut agent = agent(directory.path(), "22");
        nft(&closed(&agent, 99));
        const SENT: u64 = 25;
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..SENT {
            socket.send_to(b"x", "127.0.0.1:9").expect("sent");
        }
        let dropped = "watchpost_firewall_packets_total{chain=\"inet filter input\",verdict=\"drop\"}";
        let discarded = "watchpost_ip_input_discarded_packets_total";
        let value = |agent: &Agent, name: &str| -> Option<u64> {
            let (_, text) = get(agent.address, "/metrics")?;
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        start_as_nobody(&mut agent, &["--bounding-set=-all", "--inh-caps=-all"]);
        let (state, error) = first_run(&agent);
        assert_eq!(state, "denied");
        assert!(error.contains("AmbientCapabilities=CAP_NET_ADMIN"), "{error}");
        assert_eq!(value(&agent, discarded), Some(SENT));
        assert_eq!(value(&agent, dropped), None);
        let status = agent.status();
        assert_eq!(
            found(&status),
            ["firewall.open-by-default unknown ", "firewall.port-beyond-allowed unknown "]
        );
        assert!(status["findings"].to_string().contains(&format!("192.0.2.1:{port}")), "{status:#}");
        agent.stop();

        let ambient =
            ["--inh-caps=+net_admin", "--ambient-caps=+net_admin", "--bounding-set=-all,+net_admin"];
        start_as_nobody(&mut agent, &ambient);
        assert_eq!(first_run(&agent), ("ok".to_owned(), String::new()));
        assert_eq!((value(&agent, dropped), value(&agent, discarded)), (Some(SENT), Some(SENT)));
        assert_eq!(found(&agent.status()), [""; 0]);
    });
}

#[test]
fn a_command_that_hangs_or_prints_garbage_is_said_and_leaves_nothing_behind() {
    in_namespace(|| {
        ip(&["link", "set", "lo", "up"]);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fake = directory.path().join("nft");
        let mark = format!("{}", 100_000 + u32::from(crate::support::free_address().port()));
        for (script, said) in [
            (format!("sleep {mark} & sleep {mark}"), "ran for more than 10 s"),
            ("echo nonsense".to_owned(), "no JSON"),
            ("echo '{\"nftables\":[]}'; exit 3".to_owned(), "exited with 3"),
        ] {
            fs::write(&fake, format!("#!/bin/sh\n{script}\n")).expect("a script");
            fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("its mode is set");
            let mut agent = agent(directory.path(), "auto");
            // In a mount namespace of its own the agent finds this in the place of nft.
            let settings = agent.command(&["run"]);
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" \"$(command -v nft)\" && exec \"$@\"";
            command
                .args(["--mount", "--propagation=slave", "sh", "-c", script])
                .arg(&fake)
                .arg(settings.get_program());
            command.args(settings.get_args()).env_clear();
            command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            agent.start_as(&mut command);
            let (state, error) = first_run(&agent);
            assert_eq!(state, "failing", "{error}");
            assert!(error.contains(said), "{error}");
            wait_for("no sleeper", || is_gone(&mark).then_some(()));
            agent.stop();
        }
    });
}

/// Whether no process has this among its arguments.
fn is_gone(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    !lines.any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

/// A program of this name that listens on a port, as this user. It is python's in truth: names and users are what is joined.
fn program(directory: &Path, name: &str, uid: &str, port: u16) -> Process {
    let binary = directory.join(name);
    crate::support::copy_program("/usr/bin/python3", &binary);
    let listen = format!("import socket,time\ns=socket.create_server(('127.0.0.1',{port}))\ntime.sleep(600)");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", uid, "--clear-groups"]).arg(&binary).args(["-c", &listen]);
    let process = Process::start(&mut command, &directory.join(format!("{name}.out")));
    wait_for(name, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

#[test]
fn one_host_that_carries_everything_is_found_with_each_process_and_port() {
    in_namespace(|| {
        ip(&["link", "set", "lo", "up"]);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let here = directory.path();
        fs::set_permissions(here, fs::Permissions::from_mode(0o755)).expect("its mode is set");
        let is_found = |agent: &mut Agent| {
            agent.start();
            first_run(agent);
            let status = agent.status();
            agent.stop();
            let findings = status["findings"].as_array().cloned().unwrap_or_default();
            findings.into_iter().find(|finding| finding["id"] == "host.all-in-one")
        };
        let mut agent = agent(here, "auto");
        let _web = program(here, "nginx", "0", 80);
        let _application = program(here, "gunicorn", "12345", 8000);
        // Of another user than the database: something before one that is elsewhere.
        let proxy = program(here, "proxy", "12347", 3306);
        assert_eq!(is_found(&mut agent), None);
        drop(proxy);
        let _database = program(here, "mariadbd", "12346", 3306);
        let found = is_found(&mut agent).expect("it is found");
        assert_eq!((&found["confidence"], &found["severity"]), (&"likely".into(), &"medium".into()));
        let evidence = found["evidence"].to_string();
        for part in [
            "nginx of user 0, 127.0.0.1:80",
            "gunicorn of user 12345, 127.0.0.1:8000",
            "mariadbd of user 12346, 127.0.0.1:3306",
        ] {
            assert!(evidence.contains(part), "no {part} in {evidence}");
        }
    });
}
