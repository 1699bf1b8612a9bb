//! S5: text of strangers in every output of every command: nothing of it acts on the terminal.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{acting, directory, said};
use crate::support::{
    Agent, Process, Receiver, WATCHPOST, binary, free_address, log_line, number, signal, wait_for,
};

/// Colours, a clear screen as C1, a window title (OSC), reordering, return, backspace, delete, isolates, marks, a line
/// separator.
const HOSTILE: &str =
    "\u{1b}[31m\u{9b}2J\u{1b}]0;owned\u{7}\u{202e}\r\u{8}\u{7f}\u{2066}\u{200f}\u{61c}\u{2028}";
/// The same where a line must not end, as raw bytes too: C1 alone is no UTF-8.
const RAW: &[u8] = b"\x1b[2J\x9b31m\x90q\xff\xe2\x80\xae";

/// A line with hostile text in every part that a client can write.
fn hostile_line(number: u64) -> Vec<u8> {
    let line = log_line(number, 404);
    let text = line
        .replace("/page/", &format!("/{HOSTILE}/"))
        .replace("test/1.0", HOSTILE)
        .replace(" - - ", " - \u{1b}c ");
    let mut bytes = text.into_bytes();
    let at = bytes.len() - 1;
    bytes.splice(at..at, RAW.iter().copied());
    bytes
}

/// Fails where an output holds what acts, and where it does not hold what was looked for.
#[track_caller]
fn assert_text(what: &str, output: &Output, shows: &str) {
    for stream in [&output.stdout, &output.stderr] {
        assert_eq!(acting(stream), [""; 0], "{what}: {}", stream.escape_ascii());
    }
    assert!(said(output).contains(shows), "{what} does not show {shows:?}: {}", said(output));
}

struct Rig {
    directory: tempfile::TempDir,
    log: PathBuf,
    agent: Agent,
}

/// A log with a hostile name and hostile lines, and an agent whose state directory has a hostile name too.
fn rig() -> Rig {
    let directory = directory();
    let here = directory.path().join(format!("d{HOSTILE}\n<6>forged"));
    fs::create_dir(&here).expect("any bytes but two make a name");
    let log = here.join("access.log");
    let lines: Vec<u8> = (0..20).flat_map(|n| [hostile_line(n), b"\n".to_vec()].concat()).collect();
    fs::write(&log, lines).expect("a log");
    // By a pattern, since brackets in a name are one.
    let mut agent =
        Agent::new(directory.path(), &directory.path().join("d*/access.log").display().to_string());
    agent.set("STATE_DIR", &here.join("state").display().to_string());
    agent.set("SUMO_URL", &format!("http://{}/x", free_address()));
    agent.set("LOG", "trace");
    Rig { directory, log, agent }
}

#[test]
fn s5_no_output_of_a_command_acts_on_the_terminal() {
    let Rig { log, agent, .. } = &rig();
    let log = log.to_str().expect("hostile, but text");
    assert_text("analyze", &agent.run(&["analyze", log]), "owned");
    assert_text("analyze --json", &agent.run(&["analyze", "--json", log]), "owned");
    let missing = format!("{log}.{HOSTILE}");
    assert_text("analyze of nothing", &agent.run(&["analyze", &missing]), "owned");
    for line in [hostile_line(1), RAW.to_vec(), [b"{\"request\":\"", RAW, b"\"}"].concat()] {
        let output = agent.command(&["explain"]).arg(OsStr::from_bytes(&line)).output().expect("it runs");
        assert_text("explain", &output, "record");
    }
    assert_text("check", &agent.run(&["check"]), "owned");
    assert_text("once", &agent.run(&["once"]), "host");
    assert_text("spool ls of nothing", &agent.run(&["spool", "ls"]), "there is no spool");
    assert_text("status of nobody", &agent.run(&["status"]), "no agent answers");
    let shown = |arguments: &[&str]| binary().args(arguments).output().expect("it runs");
    assert_text("an unknown flag", &shown(&["run", &format!("--{HOSTILE}")]), "unexpected");
    assert_text("an unknown command", &shown(&[HOSTILE]), "unrecognized");
    assert_text("a wrong number", &shown(&["receiver", "--status", HOSTILE]), "invalid value");
    let raw = binary().arg(OsStr::from_bytes(RAW)).output().expect("it runs");
    assert_text("a flag that is no text", &raw, "");
    for name in
        ["ACCESS_LOG_FORMAT", "SHIP_LINES", "HOST_NAME", "STATUS_ADDR", "HOST_SOURCES", "REDACT", "FIELDS"]
    {
        let mut command = agent.command(&["run"]);
        let output = command.env(format!("WATCHPOST_{name}"), HOSTILE).output().expect("it runs");
        assert_text(name, &output, name);
        assert_eq!(output.status.code(), Some(78), "{name}");
    }
    let mut regex = agent.command(&["run"]);
    let regex =
        regex.env("WATCHPOST_ACCESS_LOG_FORMAT", format!("regex:({HOSTILE}")).output().expect("it runs");
    assert_text("a wrong expression", &regex, "no regular expression");
    let mut unknown = agent.command(&["run"]);
    let unknown = unknown.env(format!("WATCHPOST_{HOSTILE}"), "1").output().expect("it runs");
    assert_text("an unknown setting", &unknown, "is no setting");
    // The control: the same text does reach who asks for the bytes themselves.
    assert!(!acting(&fs::read(log).expect("the log")).is_empty());
}

#[test]
fn s5_no_output_about_a_running_agent_acts_on_the_terminal() {
    let Rig { agent, directory, .. } = &mut rig();
    agent.start();
    agent.wait_status("the lines in the spool", |status| {
        number(status, "/ledger/lines/held") == 20 && number(status, "/spool/batches") > 1
    });
    assert_text("status", &agent.run(&["status"]), "ledger");
    let json = agent.run(&["status", "--json"]);
    assert_text("status --json", &json, "owned");
    let parsed: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is still JSON");
    assert!(
        parsed["files"][0]["path"].as_str().is_some_and(|path| path.contains(HOSTILE)),
        "and says the same"
    );
    assert_text("spool ls", &agent.run(&["spool", "ls"]), "watchpost/nginx/access");
    let cat = agent.run(&["spool", "cat"]);
    assert_text("spool cat", &cat, "owned");
    let text = String::from_utf8(cat.stdout).expect("text");
    for record in text.lines() {
        serde_json::from_str::<serde_json::Value>(record).unwrap_or_else(|error| panic!("{error}: {record}"));
    }
    agent.signal("HUP");
    wait_for("the reload", || agent.output().contains("the settings").then_some(()));
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    let own_log = agent.output();
    assert!(own_log.contains("owned"), "the name of the log is told: {own_log}");
    assert_eq!(acting(own_log.as_bytes()), [""; 0], "{own_log:?}");
    let is_event = |line: &&str| line.len() > 20 && line.as_bytes()[4] == b'-' && line.as_bytes()[10] == b'T';
    assert!(own_log.lines().all(|line| is_event(&line)), "a forged line: {own_log}");
    // journald takes a number in angle brackets at the start of a line for its priority.
    let mut journal = agent.command(&["run"]);
    let out = directory.path().join("journal.out");
    let mut process = Process::start(journal.env("JOURNAL_STREAM", "8:1"), &out);
    wait_for("the agent", || fs::read_to_string(&out).ok()?.contains("following a file").then_some(()));
    process.stop();
    let journal = fs::read_to_string(&out).expect("its log");
    assert!(journal.lines().all(|line| line.starts_with('<') && !line.starts_with("<6>forged")), "{journal}");
}

/// On a terminal programs like to colour; the agent's own log does not, so every escape in it would be somebody else's.
#[test]
fn s5_the_own_log_on_a_terminal_has_no_escape() {
    let Rig { agent, directory, .. } = &mut rig();
    let settings = agent.command(&["run"]);
    let inner = format!("exec {WATCHPOST} run");
    let mut script = Command::new("script");
    script
        .args(["-q", "-e", "-c", &inner, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a path"));
    script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
    for (name, value) in settings.get_envs() {
        if let (true, Some(value)) = (name.to_string_lossy().starts_with("WATCHPOST_"), value) {
            script.env(name, value);
        }
    }
    let out = directory.path().join("terminal.out");
    let mut process = Process::start(&mut script, &out);
    let text = wait_for("the agent on a terminal", || {
        fs::read(&out).ok().filter(|text| memchr::memmem::find(text, b"following a file").is_some())
    });
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id())).expect("the kernel tells");
    for child in children.split_whitespace() {
        signal(child.parse().expect("a process number"), "TERM");
    }
    wait_for("script to end", || process.ended());
    // The terminal itself turns a newline into return and newline.
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
    assert_eq!(acting(text.as_bytes()), [""; 0], "{text:?}");
    assert!(text.contains("owned"), "{text}");
    // The control: escapes do pass through this terminal.
    let mut coloured = Command::new("script");
    let coloured =
        coloured.args(["-q", "-e", "-c", "printf '\\033[31m'", "/dev/null"]).output().expect("script");
    assert!(!acting(&coloured.stdout).is_empty());
}

#[test]
fn s5_a_category_from_a_setting_is_text_too() {
    let directory = directory();
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("SUMO_URL", &receiver.url());
    agent.set("SOURCE_CATEGORY", "a\u{202e}b");
    let output = agent.run(&["check"]);
    assert_text("check", &output, "WATCHPOST_SOURCE_CATEGORY");
}
