//! Each command as an operator meets it: what it prints, and how it ends.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{
    Agent, Receiver, WATCHPOST, binary, get, get_json, log_line, number, wait_for, without_settings,
};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const IO_ERROR: i32 = 74;
const SETTINGS: i32 = 78;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn three_wrong_settings_are_named_at_once() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    agent.set("SPOOL_MAX", "10 potatoes");
    agent.set("FLUSH_INTERVAL", "soon");
    agent.set("SHIP_LINES", "sample:7");
    for command in ["run", "check"] {
        let output = agent.run(&[command]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(SETTINGS), "{said}");
        for name in ["WATCHPOST_SPOOL_MAX", "WATCHPOST_FLUSH_INTERVAL", "WATCHPOST_SHIP_LINES"] {
            assert!(said.contains(name), "{command} names {name}: {said}");
        }
        assert!(said.contains("10 potatoes") && said.contains("soon") && said.contains("sample:7"), "{said}");
    }
}

#[test]
fn a_format_that_does_not_compile_is_named_with_all_other_settings() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    agent.set("ACCESS_LOG_FORMAT", "regex:(");
    agent.set("LOG", "loud");
    let commands: [&[&str]; 4] = [&["run"], &["check"], &["once"], &["analyze", "/nowhere/access.log"]];
    for command in commands {
        let output = agent.run(command);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(SETTINGS), "{command:?}: {said}");
        assert!(said.contains("WATCHPOST_ACCESS_LOG_FORMAT=\"regex:(\": is no regular expression"), "{said}");
        assert!(said.contains("WATCHPOST_LOG=\"loud\""), "{command:?}: {said}");
    }
}

#[test]
fn a_misspelt_setting_is_an_error_with_the_nearest_name() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    agent.set("SPOOL_MAXX", "1GiB");
    let output = agent.run(&["run"]);
    assert_eq!(output.status.code(), Some(SETTINGS));
    assert!(said(&output).contains("WATCHPOST_SPOOL_MAX"), "{}", said(&output));
}

#[test]
fn a_wrong_url_says_what_to_do_and_does_not_show_itself() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    agent.set("SUMO_URL", "collectors.example/receiver/ZaVnC4dhaV2cAnArY");
    let output = agent.run(&["run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(SETTINGS), "{said}");
    assert!(said.contains("WATCHPOST_SUMO_URL") && said.contains("https://"), "{said}");
    assert!(!said.contains("ZaVnC4dhaV2cAnArY"), "{said}");
}

#[test]
fn an_unwritable_state_directory_says_what_to_do() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    let file = directory.path().join("a-file");
    fs::write(&file, "").expect("a file");
    agent.set("STATE_DIR", &file.join("state").display().to_string());
    let output = agent.run(&["run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(IO_ERROR), "{said}");
    assert!(said.contains("WATCHPOST_STATE_DIR") && said.contains("a-file/state"), "{said}");
}

#[test]
fn a_taken_status_port_says_what_to_do() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    agent.set("STATUS_ADDR", &taken.local_addr().expect("its address").to_string());
    let output = agent.run(&["run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
    assert!(said.contains("WATCHPOST_STATUS_ADDR") && said.contains("in use"), "{said}");
}

#[test]
fn a_receiver_on_a_taken_port_ends_as_an_agent_does() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = binary().args(["receiver", "--listen", &address]).output().expect("the receiver");
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{}", said(&output));
    assert!(said(&output).contains(&address), "{}", said(&output));
}

#[test]
fn a_second_agent_on_the_same_state_is_refused() {
    let directory = directory();
    let mut first = Agent::new(directory.path(), "/nowhere/access.log");
    first.start();
    let second = Agent::new(directory.path(), "/nowhere/access.log");
    let output = second.run(&["run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
    assert!(said.contains("another watchpost"), "{said}");
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    let output = binary().args(["run", "--colour", "green"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(USAGE), "{}", said(&output));
}

#[test]
fn every_setting_is_also_a_flag() {
    let directory = directory();
    let agent = Agent::new(directory.path(), "/nowhere/access.log");
    let output = agent.run(&["check", "--spool-max", "nonsense"]);
    assert_eq!(output.status.code(), Some(SETTINGS), "{}", said(&output));
    assert!(said(&output).contains("--spool-max") || said(&output).contains("WATCHPOST_SPOOL_MAX"));
    let help = binary().args(["run", "--help"]).output().expect("it runs");
    assert!(said(&help).contains("--flush-interval"), "{}", said(&help));
}

#[test]
fn check_says_what_would_happen() {
    let directory = directory();
    let log = directory.path().join("access.log");
    fs::write(&log, log_line(1, 200) + "\n").expect("a log");
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    let output = agent.run(&["check"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("access.log") && text.contains("state"), "{text}");
    assert_eq!(number(&receiver.stats(), "/records"), 0, "nothing is ingested by asking");
    assert!(!text.contains("ZaVnC4dhaV2cAnArY"), "{text}");

    agent.set("SUMO_URL", &format!("http://{}/x", crate::support::free_address()));
    agent.set("STATE_DIR", "/proc/watchpost");
    let output = agent.run(&["check"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(IO_ERROR), "a destination that does not answer: {text}");
    assert!(text.contains("FAIL  /proc/watchpost"), "nobody can write there, not even root: {text}");
}

#[test]
fn once_gives_a_sample_of_every_source() {
    let directory = directory();
    let agent = Agent::new(directory.path(), "/nowhere/access.log");
    let output = agent.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let sample: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let host = sample["host"].as_object().expect("host metrics");
    for metric in
        ["system.cpu.utilization", "system.memory.usage", "system.filesystem.usage", "system.network.io"]
    {
        assert!(host.contains_key(metric), "{metric} in {:?}", host.keys());
    }
}

#[test]
fn analyze_counts_as_an_independent_count_does() {
    const REPEATS: usize = 100;
    const MEMORY_KIB_MAX: u64 = 48 * 1024;
    let directory = directory();
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/access-combined.log.gz");
    let log = directory.path().join("access.log");
    let unpacked = Command::new("gzip").args(["-dc", packed]).output().expect("gzip").stdout;
    let mut file = fs::File::create(&log).expect("a log");
    for _ in 0..REPEATS {
        file.write_all(&unpacked).expect("written");
    }
    drop(file);
    let program = r#"{ line++; n = split($0, part, "\""); split(part[3], after, " "); status[after[1]]++;
        if (after[2] != "-") bytes += after[2]; seconds[$4]++ }
        END { printf "lines %d\nbytes %.0f\n", line, bytes; peak = 0;
              for (s in seconds) if (seconds[s] > peak) peak = seconds[s];
              print "peak", peak; for (s in status) print "status", s, status[s] }"#;
    let counted = Command::new("awk").arg(program).arg(&log).output().expect("awk");
    let counted = String::from_utf8(counted.stdout).expect("text");
    // GNU time is not on every machine: the shell's own limit on memory is.
    let limited = format!("ulimit -v {}; exec \"$0\" analyze --json \"$1\"", MEMORY_KIB_MAX * 4);
    let mut shell = Command::new("sh");
    let shell = without_settings(&mut shell).args(["-c", &limited, WATCHPOST]).arg(&log);
    let output = shell.output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut statuses = 0;
    for line in counted.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["lines", count] => {
                assert_eq!(report["lines"].to_string(), count);
                assert_eq!(report["requests"].to_string(), count);
            }
            ["bytes", count] => assert_eq!(report["bytes_sent"].to_string(), count),
            ["peak", count] => assert_eq!(report["qps_peak_1s"].to_string(), count),
            ["status", code, count] => {
                statuses += 1;
                assert_eq!(report["status"][code].to_string(), count, "status {code}");
            }
            _ => panic!("awk said {line:?}"),
        }
    }
    assert_eq!(report["status"].as_object().map(serde_json::Map::len), Some(statuses));
    assert_eq!(report["unparsed"], 0);

    let from_gzip = binary().args(["analyze", "--json", packed]).output().expect("it runs");
    let report: Value = serde_json::from_slice(&from_gzip.stdout).expect("JSON");
    assert_eq!(report["lines"], 9_999);

    let mut child = binary()
        .args(["analyze", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("its input").write_all(&unpacked).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(said(&output).contains("9,999") || said(&output).contains("9999"), "{}", said(&output));
}

#[test]
fn analyze_names_a_file_that_it_cannot_read() {
    let output = binary().args(["analyze", "/nowhere/access.log"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(IO_ERROR));
    assert!(said(&output).contains("/nowhere/access.log"), "{}", said(&output));
}

#[test]
fn explain_shows_each_field_or_why_there_is_none() {
    let line = log_line(7, 404).replace("/page/7", "/page/7?token=abc");
    let output = binary().args(["explain", &line]).output().expect("it runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["404", "GET", "/page/{id}", "token=***"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = binary().args(["explain", "no such \x1b[31mline"]).output().expect("it runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "a line that does not parse is an answer: {text}");
    assert!(text.contains("unparsed") || text.contains("does not"), "{text}");
    assert!(!text.contains('\x1b'), "terminal escapes are neutralised: {text:?}");
}

#[test]
fn status_asks_the_running_agent() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    let output = agent.run(&["status"]);
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{}", said(&output));
    agent.start();
    let output = agent.run(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["agent"]["name"], "watchpost");
    let output = agent.run(&["status"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("missing"), "the log that is not there is named: {}", said(&output));
}

#[test]
fn spool_shows_what_waits_while_the_agent_runs_and_after() {
    let directory = directory();
    let log = directory.path().join("access.log");
    fs::write(&log, (0..100).map(|n| log_line(n, 200) + "\n").collect::<String>()).expect("a log");
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &format!("http://{}/x", crate::support::free_address()));
    agent.start();
    agent.wait_status("lines in the spool", |status| {
        number(status, "/ledger/lines/held") == 100 && number(status, "/spool/batches") > 1
    });
    for running in [true, false] {
        let listed = agent.run(&["spool", "ls"]);
        assert_eq!(listed.status.code(), Some(0), "{}", said(&listed));
        assert!(said(&listed).contains("watchpost/nginx/access"), "running {running}: {}", said(&listed));
        let shown = agent.run(&["spool", "cat"]);
        let lines = said(&shown).lines().filter(|line| line.contains("GET /page/")).count();
        assert!(lines >= 100, "running {running}: {lines}");
        if running {
            agent.stop();
        }
    }
}

#[test]
fn a_spool_that_cannot_be_looked_at_is_not_called_absent() {
    let directory = directory();
    let agent = Agent::new(directory.path(), "/nowhere/access.log");
    let asked = |state: &str| {
        let output = agent.run(&["spool", "ls", "--state-dir", state]);
        (output.status.code(), said(&output))
    };
    let absent = asked(&directory.path().join("none").display().to_string());
    assert!(absent.0 == Some(UNAVAILABLE) && absent.1.contains("there is no spool"), "{absent:?}");
    // A file in the way stops everybody; a directory without rights would not stop root.
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let hidden = asked(&file.display().to_string());
    assert!(hidden.0 == Some(IO_ERROR) && hidden.1.contains("cannot be read"), "{hidden:?}");
}

#[test]
fn the_port_answers_each_path() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "/nowhere/access.log");
    agent.start();
    let status = get_json(agent.address, "/status").expect("the status");
    for part in ["agent", "web", "host", "files", "ledger", "spool", "delivery"] {
        assert!(!status[part].is_null(), "{part} in {status}");
    }
    for window in ["1s", "10s", "1m", "5m", "15m"] {
        assert!(status["web"]["windows"][window].is_object(), "{window}");
    }
    let (code, body) = get(agent.address, "/healthz").expect("an answer");
    assert_eq!(code, 503, "the log that it should follow is missing: {body}");
    assert!(body.contains("/nowhere/access.log"), "{body}");
    let (code, page) = get(agent.address, "/").expect("the page");
    assert!(code == 200 && page.contains("<html"), "{code}");
    assert_eq!(get(agent.address, "/nothing").map(|(code, _)| code), Some(404));
}

#[test]
fn the_demo_ends_by_itself_with_a_balanced_account() {
    let directory = directory();
    let output = binary()
        .args(["demo", "--seconds", "12"])
        .env_clear()
        .env("TMPDIR", directory.path())
        .output()
        .expect("it runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("http://127.0.0.1:"), "it names the address to open: {text}");
    assert!(text.to_lowercase().contains("balance"), "{text}");
    let left: Vec<_> = fs::read_dir(directory.path()).expect("the directory").flatten().collect();
    assert!(left.is_empty(), "it leaves nothing behind: {left:?}");
}

#[test]
fn sigterm_stops_within_ten_seconds_whatever_the_destination_does() {
    let directory = directory();
    let log = directory.path().join("access.log");
    fs::write(&log, log_line(1, 200) + "\n").expect("a log");
    // A destination that accepts and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &format!("http://{}/x", hanging.local_addr().expect("its address")));
    agent.start();
    agent.wait_status("a request under way", |status| status["delivery"]["state"] == "sending");
    let begun = std::time::Instant::now();
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    wait_for("the port to be free", || TcpListener::bind(agent.address).ok());
}
