//! S4: canaries in every place where a secret can be given, sought in everything the agent says, ships and leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use watchpost::config::{Surroundings, load};

use super::{ask, below, directory, said};
use crate::support::{Agent, Process, log_line, number, signal, wait_for};

/// The path of the destination's URL.
const PATH: &str = "PathC4nary/ZaVnC4dhaV2cAnArY";
/// A proxy that is named and not asked, since the destination is on loopback.
const PROXY: &str = "http://proxy:Pr0xyC4nary@127.0.0.1:9";
/// What must be seen nowhere: the path, the password in the URL, the token, the proxy's password; and the forms in which
/// headers carry the last three.
const CANARIES: [&str; 8] = [
    "PathC4nary",
    "ZaVnC4dhaV2cAnArY",
    "UrlPassw0rdC4nary",
    "T0kenC4nary",
    "Pr0xyC4nary",
    // user:UrlPassw0rdC4nary, watchpost:T0kenC4nary and proxy:Pr0xyC4nary in Base64.
    "dXNlcjpVcmxQYXNzdzByZEM0bmFyeQ",
    "d2F0Y2hwb3N0OlQwa2VuQzRuYXJ5",
    "cHJveHk6UHIweHlDNG5hcnk",
];

/// The canaries that stand in some bytes.
fn found(bytes: &[u8]) -> Vec<&'static str> {
    let is_there = |canary: &&str| memchr::memmem::find(bytes, canary.as_bytes()).is_some();
    CANARIES.into_iter().filter(is_there).collect()
}

/// A destination that quotes in its answers all that it was told, and keeps it.
struct Quoter {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    heads: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Quoter {
    /// Answers this status until told otherwise.
    fn start(status: u16) -> Quoter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let quoter = Quoter {
            address: listener.local_addr().expect("its address"),
            status: Arc::new(AtomicU16::new(status)),
            heads: Arc::default(),
            bodies: Arc::default(),
        };
        let (heads, bodies) = (Arc::clone(&quoter.heads), Arc::clone(&quoter.bodies));
        let status = Arc::clone(&quoter.status);
        // It ends with the tests' process: it only ever waits for a connection.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some((head, body)) = exchange(stream, status.load(Ordering::SeqCst)) else { continue };
                heads.lock().expect("no panic").push(head);
                bodies.lock().expect("no panic").push(body);
            }
        });
        quoter
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

/// Reads one request and answers with its own head.
fn exchange(mut stream: TcpStream, status: u16) -> Option<(String, Vec<u8>)> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let (head, length) = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length =
                head.to_ascii_lowercase().split("content-length: ").nth(1)?.lines().next()?.parse().ok()?;
            bytes.drain(..end + 4);
            break (head, length);
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    };
    while bytes.len() < length {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    }
    let quoted = format!("you asked: {head}");
    let answer = format!(
        "HTTP/1.1 {status} Quoted\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{quoted}",
        quoted.len()
    );
    stream.write_all(answer.as_bytes()).ok()?;
    Some((head, bytes))
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut text).expect("a batch is gzip");
    text
}

/// Everything that a command of the binary says.
fn told(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = agent.command(arguments);
    command.env("https_proxy", PROXY);
    format!("{arguments:?}: {}", said(&command.output().expect("it runs")))
}

/// What the kernel tells everybody of a process.
fn told_by_kernel(id: u32) -> Vec<String> {
    let read = |name: &str| fs::read(format!("/proc/{id}/{name}")).expect("it runs");
    // The control: this one secret was given in the environment, and there it is seen.
    assert_eq!(found(&read("environ")), ["Pr0xyC4nary"]);
    ["cmdline", "comm", "status"].map(|name| String::from_utf8_lossy(&read(name)).into_owned()).into()
}

#[test]
fn s4_no_secret_is_said_shipped_or_left() {
    let directory = directory();
    let log = directory.path().join("access.log");
    fs::write(&log, (0..50).map(|n| log_line(n, 200) + "\n").collect::<String>()).expect("a log");
    let quoter = Quoter::start(503);
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    let url = format!("http://user:UrlPassw0rdC4nary@{}/receiver/v1/http/{PATH}", quoter.address);
    let secrets = directory.path().join("secrets");
    fs::create_dir(&secrets).expect("a directory");
    for (name, value) in [("url", url.as_str()), ("token", "T0kenC4nary")] {
        fs::write(secrets.join(name), value).expect("a secret");
    }
    agent.set("SUMO_URL_FILE", &secrets.join("url").display().to_string());
    agent.set("STATUS_TOKEN_FILE", &secrets.join("token").display().to_string());
    agent.set("LOG", "trace");
    let mut command = agent.command(&["run"]);
    command.env("https_proxy", PROXY);
    let out = directory.path().join("agent.out");
    let mut process = Process::start(&mut command, &out);
    let shown = format!("Host: {}\r\nAuthorization: Bearer T0kenC4nary\r\n", agent.address);
    let asked = |path: &str| {
        let port = std::net::TcpStream::connect(agent.address).ok();
        port.map(|_| ask(agent.address, path, &shown)).filter(|answer| answer.status == 200)
    };
    let mut said_all = String::new();
    let mut note = |text: String| said_all.push_str(&(text + "\n"));
    // While it fails, while it works, and after a complaint.
    let status_when = |what: &str, is_so: &dyn Fn(&Value, &str) -> bool| {
        wait_for(what, || {
            let answer = asked("/status")?;
            let status = serde_json::from_str(&answer.body).ok()?;
            is_so(&status, &answer.body).then_some(answer.body)
        })
    };
    note(status_when("a failed request", &|status, _| number(status, "/delivery/failures") > 0));
    for arguments in
        [&["spool", "ls"][..], &["spool", "cat"], &["check"], &["once"], &["status"], &["status", "--json"]]
    {
        note(told(&agent, arguments));
    }
    quoter.answer(200);
    note(status_when("lines that arrived, and a quoted complaint", &|status, said| {
        number(status, "/ledger/lines/shipped") == 50 && said.contains("you asked")
    }));
    quoter.answer(400);
    note(status_when("a refusal", &|status, _| number(status, "/delivery/last_status") == 400));
    quoter.answer(200);
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        note(format!("{:?}", ask(agent.address, path, &shown)));
        note(format!("{:?}", ask(agent.address, path, &format!("Host: {}\r\n", agent.address))));
    }
    signal(process.id(), "HUP");
    wait_for("the reload", || fs::read_to_string(&out).ok()?.contains("the settings").then_some(()));
    told_by_kernel(process.id()).into_iter().for_each(&mut note);
    note(format!("exit {:?}", process.stop()));
    let own_log = fs::read_to_string(&out).expect("its log");
    assert!(own_log.contains("TRACE") || own_log.contains("DEBUG"), "the log is a full one: {own_log:.500}");
    note(own_log);
    note(wrong_settings(&agent, &url));
    assert_eq!(found(said_all.as_bytes()), [""; 0], "in what it said: {said_all}");

    assert_none_shipped_or_left(&quoter, &directory.path().join("state"));
    // The control: the destination did get them, so there was something to be quoted, logged and shipped.
    let heads = quoter.heads().join("\n");
    for canary in ["PathC4nary", "ZaVnC4dhaV2cAnArY", "dXNlcjpVcmxQYXNzdzByZEM0bmFyeQ"] {
        assert!(heads.contains(canary), "{canary} was never sent: {heads}");
    }
}

/// Looks into every batch that went out and every file of the state.
fn assert_none_shipped_or_left(quoter: &Quoter, state: &Path) {
    for body in quoter.bodies.lock().expect("no panic").iter() {
        assert_eq!(found(&unpacked(body)), [""; 0], "in what it shipped");
    }
    for path in below(state) {
        let bytes = if path.is_file() { fs::read(&path).expect("it can be read") } else { Vec::new() };
        assert_eq!(found(&bytes), [""; 0], "in {}", path.display());
        assert_eq!(found(path.as_os_str().as_encoded_bytes()), [""; 0]);
    }
}

/// What is said of secrets that cannot be used.
fn wrong_settings(agent: &Agent, url: &str) -> String {
    let mut said_all = String::new();
    for (name, value) in [
        ("WATCHPOST_SUMO_URL", url.replace("http://", "ftp://")),
        ("WATCHPOST_SUMO_URL", url.replace("http://", "http//")),
        ("WATCHPOST_SUMO_URL", format!("{url} \n")),
        ("WATCHPOST_SUMO_URL_FILE", url.to_owned()),
        ("WATCHPOST_STATUS_TOKEN", "T0kenC4nary with blanks".to_owned()),
        ("WATCHPOST_STATUS_TOKEN", "T0kenC4nary\u{1b}".to_owned()),
        ("WATCHPOST_SUMO_ULR", url.to_owned()),
        ("WATCHPOST_SUMO_URL_", url.to_owned()),
    ] {
        let mut command = agent.command(&["check"]);
        command.env_remove("WATCHPOST_SUMO_URL_FILE").env_remove("WATCHPOST_STATUS_TOKEN_FILE");
        let output = command.env(name, value).output().expect("it runs");
        assert_eq!(output.status.code(), Some(78), "{name}: {}", said(&output));
        said_all.push_str(&said(&output));
    }
    said_all
}

/// What a panic, a debugger or a careless `{:?}` would show.
#[test]
fn s4_settings_in_debug_form_show_stars() {
    let url = format!("https://user:UrlPassw0rdC4nary@collector.invalid/{PATH}");
    let mut strings: BTreeMap<String, String> = BTreeMap::new();
    strings.insert("WATCHPOST_SUMO_URL".to_owned(), url.clone());
    strings.insert("WATCHPOST_STATUS_TOKEN".to_owned(), "T0kenC4nary".to_owned());
    let surroundings = Surroundings { is_root: true, host_source_names: &[] };
    let config = load(&strings, &surroundings).expect("right settings");
    let debug = format!("{config:?} {config:#?} {}", config.describe());
    assert!(debug.contains("***") && found(debug.as_bytes()).is_empty(), "{debug}");
    assert_eq!(found(format!("{strings:?}").as_bytes()).len(), 4, "the control");

    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/watchpost.service"))
        .expect("the unit");
    assert!(unit.lines().any(|line| line == "LimitCORE=0"), "a core dump would hold them");
}

/// A secret given as a flag is in the process list, which the agent says; from a file it is not.
#[test]
fn s4_a_secret_as_a_flag_is_warned_of() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "none");
    let start = |agent: &Agent, arguments: &[&str], out: &str| -> (Process, String) {
        let out = directory.path().join(out);
        let process = Process::start(&mut agent.command(arguments), &out);
        wait_for("the agent", || {
            fs::read_to_string(&out).ok().filter(|text| text.contains("the status page"))
        });
        let text = fs::read_to_string(&out).expect("its log");
        (process, text)
    };
    let url = format!("http://{}/ZaVnC4dhaV2cAnArY", crate::support::free_address());
    let (process, log) = start(&agent, &["run", "--sumo-url", &url], "flag.out");
    assert!(log.contains("--sumo-url-file") && found(log.as_bytes()).is_empty(), "{log}");
    let arguments = fs::read(format!("/proc/{}/cmdline", process.id())).expect("it runs");
    assert_eq!(found(&arguments), ["ZaVnC4dhaV2cAnArY"], "the control: this is what the warning is about");
    drop(process);
    let file = directory.path().join("url");
    fs::write(&file, &url).expect("a secret");
    let closed = Command::new("chmod").arg("0600").arg(&file).status().expect("chmod");
    assert!(closed.success());
    agent.set("SUMO_URL_FILE", &file.display().to_string());
    let (process, log) = start(&agent, &["run"], "file.out");
    assert!(!log.contains("--sumo-url-file") && !log.contains("everybody"), "{log}");
    let arguments = fs::read(format!("/proc/{}/cmdline", process.id())).expect("it runs");
    assert!(found(&arguments).is_empty());
}
