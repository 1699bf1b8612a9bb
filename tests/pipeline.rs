//! The whole path under outage, kill -9 and hostile input: every line arrives, once, and every number adds up.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Agent, BalanceWatch, Receiver, counted, log_line, number, wait_for, wait_out};

/// Writes numbered lines to a log at a steady pace until it is told to finish.
struct LogWriter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl LogWriter {
    fn start(path: PathBuf, lines_per_second: u64) -> LogWriter {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut log = OpenOptions::new().create(true).append(true).open(path).expect("a log");
            let mut lines = Vec::new();
            let burst = (lines_per_second / 50).max(1);
            while !stopped.load(Ordering::Relaxed) {
                let mut text = String::new();
                for _ in 0..burst {
                    let number = lines.len() as u64;
                    let line = log_line(number, if number.is_multiple_of(10) { 500 } else { 200 });
                    text.push_str(&line);
                    text.push('\n');
                    lines.push(line);
                }
                log.write_all(text.as_bytes()).expect("written");
                wait_out(Duration::from_millis(20));
            }
            lines
        });
        LogWriter { stop, thread: Some(thread) }
    }

    fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("the writer ends")
    }
}

/// Every line once, in total and each by itself.
#[track_caller]
fn assert_each_once(written: &[String], received: &[String]) {
    let (written, received) = (counted(written), counted(received));
    let missing: Vec<_> = written.keys().filter(|line| !received.contains_key(*line)).take(3).collect();
    let twice: Vec<_> = received.iter().filter(|(_, count)| **count > 1).take(3).collect();
    assert!(missing.is_empty(), "missing, among others: {missing:#?}");
    assert!(twice.is_empty(), "more than once, among others: {twice:#?}");
    assert_eq!(written.len(), received.len(), "something arrived that was never written");
}

/// The summaries of all intervals add up to what was parsed, by class too.
#[track_caller]
fn assert_summaries_add_up(agent: &Agent, receiver: &Receiver, requests: u64) {
    wait_for("the last summaries", || (receiver.summary_sum("/requests") >= requests).then_some(()));
    let status = agent.status();
    assert_eq!(receiver.summary_sum("/requests"), requests);
    assert_eq!(number(&status, "/web/totals/requests"), requests);
    for class in ["2xx", "3xx", "4xx", "5xx"] {
        let shipped = receiver.summary_sum(&format!("/status/{class}"));
        assert_eq!(shipped, number(&status, &format!("/web/totals/status/{class}")), "class {class}");
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn start(directory: &Path) -> (Agent, Receiver, PathBuf) {
    let receiver = Receiver::start(directory);
    let log = directory.join("access.log");
    let mut agent = Agent::new(directory, &log.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    (agent, receiver, log)
}

#[test]
fn an_outage_of_twenty_seconds_loses_nothing_and_repeats_nothing() {
    let directory = directory();
    let (mut agent, mut receiver, log) = start(directory.path());
    agent.start();
    let balance = BalanceWatch::start(agent.address);
    let writer = LogWriter::start(log, 500);
    agent.wait_status("delivery", |status| number(status, "/delivery/delivered_batches") > 0);
    receiver.stop();
    wait_out(Duration::from_secs(20));
    let during = agent.status();
    assert!(number(&during, "/spool/batches") >= 10, "the spool grows: {}", during["spool"]);
    assert!(number(&during, "/ledger/lines/held") >= 5_000, "lines are held: {}", during["ledger"]);
    receiver.resume();
    agent.wait_status("the spool to drain", |status| number(status, "/spool/batches") <= 2);
    let written = writer.finish();
    agent.wait_shipped(written.len() as u64);
    let received = receiver.lines();
    assert_each_once(&written, &received);
    assert_eq!(received, written, "oldest first");
    assert_eq!(number(&receiver.stats(), "/duplicates"), 0);
    assert_summaries_add_up(&agent, &receiver, written.len() as u64);
    let polls = balance.finish();
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    println!(
        "outage: {} lines, {} held in {} batches after 20 s, {polls} balanced answers",
        written.len(),
        number(&during, "/ledger/lines/held"),
        number(&during, "/spool/batches")
    );
}

#[test]
fn kill_at_twenty_random_moments_loses_no_line() {
    const KILLS: u64 = 20;
    let directory = directory();
    let (mut agent, mut receiver, log) = start(directory.path());
    agent.set("FLUSH_INTERVAL", "200ms");
    agent.start();
    let balance = BalanceWatch::start(agent.address);
    let writer = LogWriter::start(log, 2_000);
    let mut random = fastrand::Rng::with_seed(20_261_123);
    for kill in 0..KILLS {
        // Half of the kills fall into an outage, so that a backlog is recovered too.
        match kill % 4 {
            1 => receiver.stop(),
            3 => receiver.resume(),
            _ => {}
        }
        wait_out(Duration::from_millis(random.u64(50..1_500)));
        agent.kill();
        agent.start();
    }
    let written = writer.finish();
    agent.wait_shipped(written.len() as u64);
    assert_each_once(&written, &receiver.lines());
    let stats = receiver.stats();
    assert!(number(&stats, "/duplicates") <= KILLS, "at most one batch a kill: {stats}");
    assert_eq!(number(&stats, "/conflicts"), 0, "a repeated batch is the same, byte for byte: {stats}");
    assert_summaries_add_up(&agent, &receiver, written.len() as u64);
    let polls = balance.finish();
    let repeated = number(&stats, "/duplicates");
    println!(
        "kill: {} lines, {KILLS} kills, {repeated} repeated batches, {polls} balanced answers",
        written.len()
    );
}

#[test]
fn a_lost_answer_repeats_the_same_bytes_under_the_same_key() {
    let directory = directory();
    let (mut agent, mut receiver, log) = start(directory.path());
    receiver.stop();
    let flags = ["--fail-rate", "0.7", "--lose-answers", "--seed", "11"];
    let receiver = Receiver::start_with(directory.path(), &flags);
    agent.set("SUMO_URL", &receiver.url());
    let lines: Vec<String> = (0..500).map(|number| log_line(number, 200)).collect();
    fs::write(&log, lines.join("\n") + "\n").expect("a log");
    agent.start();
    agent.wait_shipped(500);
    let stats = wait_for("a batch whose answer was lost", || {
        Some(receiver.stats()).filter(|stats| number(stats, "/duplicates") > 0)
    });
    assert!(number(&stats, "/lost_answers") > 0 && number(&stats, "/conflicts") == 0, "{stats}");
    agent.wait_status("retries of what failed", |status| number(status, "/delivery/failures") > 0);
    assert_eq!(receiver.lines(), lines, "the repeated batch is known by its key");
}

/// Lines that no parser can like, and a few that only look bad.
fn garbage(number: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    let whole = log_line(number, 200).into_bytes();
    match number % 10 {
        0 => b"\0\0\0\0".repeat(random.usize(1..50)),
        1 => (0..random.usize(1..300)).map(|_| random.u8(128..)).collect(),
        2 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        3 => whole[..random.usize(1..whole.len())].to_vec(),
        4 => br#"{"status":{"a":[]},"request":7,"time_iso8601":false}"#.to_vec(),
        5 => br#"{"status":"#.to_vec(),
        6 => (0..random.usize(0..200)).map(|_| random.u8(..)).filter(|byte| *byte != b'\n').collect(),
        7 => b"\x1b[2J\x1b]0;title\x07 \"GET".to_vec(),
        8 => [&whole[..], b" trailing \"rubbish"].concat(),
        _ => whole,
    }
}

#[test]
fn a_hundred_thousand_lines_of_garbage_are_all_accounted_for() {
    const LINES: u64 = 100_000;
    const MEMORY_KIB_MAX: u64 = 64 * 1024;
    let directory = directory();
    let (mut agent, receiver, log) = start(directory.path());
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = Vec::new();
    for number in 0..LINES {
        if number % 25_000 == 12_345 {
            text.extend(std::iter::repeat_n(b'x', 2_000_000));
        } else {
            text.extend(garbage(number, &mut random));
        }
        text.push(b'\n');
    }
    File::create(&log).and_then(|mut file| file.write_all(&text)).expect("a log of garbage");
    agent.start();
    let balance = BalanceWatch::start(agent.address);
    let status = agent.wait_shipped(LINES);
    let requests = number(&status, "/web/totals/requests");
    let unparsed = number(&status, "/web/totals/unparsed");
    assert_eq!(requests + unparsed, LINES);
    assert!(requests >= LINES / 10, "the good lines among them are counted: {requests}");
    let reasons = status.pointer("/web/totals/unparsed_reasons").and_then(Value::as_object).expect("reasons");
    assert_eq!(reasons.values().filter_map(Value::as_u64).sum::<u64>(), unparsed, "each with a reason");
    assert!(reasons.len() >= 3, "{reasons:?}");

    assert_eq!(number(&receiver.stats(), "/by_category/watchpost~1nginx~1access"), LINES);
    let records = receiver.records("watchpost/nginx/access");
    let cut = records.iter().filter(|record| record["truncated"] == true).collect::<Vec<_>>();
    assert_eq!(cut.len(), 4, "the long lines, cut and flagged");
    assert_eq!(number(&status, "/web/totals/cut"), 4, "and counted");
    assert!(cut.iter().all(|record| record["original_bytes"].as_u64() >= Some(2_000_000)));
    assert!(records.iter().any(|record| record["escaped"] == true), "bytes that are no text are flagged");
    assert_summaries_add_up(&agent, &receiver, requests);

    let peak = fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("the process");
    let peak_kib: u64 = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .expect("its peak memory");
    assert!(peak_kib < MEMORY_KIB_MAX, "{peak_kib} KiB");
    let polls = balance.finish();
    println!(
        "garbage: {LINES} lines, {unparsed} unparsed {reasons:?}, {peak_kib} KiB at most, {polls} balanced answers"
    );
    assert_eq!(agent.stop(), Some(0));
    assert!(!agent.output().contains("panicked"), "{}", agent.output());
}

#[test]
fn a_full_spool_stops_reading_and_loses_nothing() {
    const LINES: u64 = 150_000;
    let directory = directory();
    let (mut agent, mut receiver, log) = start(directory.path());
    receiver.stop();
    // Numbers spread over the line, so that it compresses badly and the cap is reached.
    let mut random = fastrand::Rng::with_seed(1);
    let lines: Vec<String> = (0..LINES)
        .map(|number| log_line(number, 200).replace("/page/", &format!("/{:016x}/", random.u64(..))))
        .collect();
    fs::write(&log, lines.join("\n") + "\n").expect("a log");
    agent.set("SPOOL_MAX", "1MiB");
    agent.start();
    let balance = BalanceWatch::start(agent.address);
    let full = agent.wait_status("the spool to be full", |status| status["spool"]["state"] == "full");
    assert!(number(&full, "/spool/bytes") <= 1 << 20, "{}", full["spool"]);
    assert!(number(&full, "/files/0/lag_bytes") > 0, "the log is the buffer: {}", full["files"]);
    let (code, health) = crate::support::get(agent.address, "/healthz").expect("the port answers");
    assert!(code == 503 && health.contains("full"), "{health}");
    receiver.resume();
    let status = agent.wait_shipped(LINES);
    assert_eq!(status["spool"]["state"], "ok");
    assert_eq!(receiver.lines(), lines, "every line once, in order");
    assert_summaries_add_up(&agent, &receiver, LINES);
    balance.finish();
}

#[test]
fn what_is_filtered_is_still_counted() {
    let directory = directory();
    let (mut agent, receiver, log) = start(directory.path());
    let lines: Vec<String> = (0..1_000).map(|n| log_line(n, if n % 10 == 0 { 500 } else { 200 })).collect();
    fs::write(&log, lines.join("\n") + "\n").expect("a log");
    agent.set("SHIP_LINES", "errors");
    agent.start();
    let status = agent.wait_status("the account", |status| {
        number(status, "/ledger/lines/shipped") == 100 && number(status, "/ledger/lines/filtered") == 900
    });
    assert_eq!(status["ledger"]["balanced"], true);
    assert_eq!(receiver.lines().len(), 100);
    assert_summaries_add_up(&agent, &receiver, 1_000);
}

#[test]
fn secrets_of_visitors_and_of_the_operator_stay_at_home() {
    let directory = directory();
    let (mut agent, receiver, log) = start(directory.path());
    agent.set("LOG", "debug");
    let line = log_line(1, 200).replace("/page/1", "/page?token=V1S1T0R&x=1");
    fs::write(&log, line + "\n").expect("a log");
    agent.start();
    agent.wait_shipped(1);
    assert!(receiver.lines()[0].contains("/page?token=***&x=1"), "{:?}", receiver.lines());
    let answers =
        ["/status", "/metrics", "/healthz", "/"].map(|path| crate::support::get(agent.address, path));
    let said = format!("{} {answers:?}", agent.output());
    assert!(!said.contains("ZaVnC4dhaV2cAnArY"), "the URL is a secret");
    let arguments = fs::read(format!("/proc/{}/cmdline", agent.id())).expect("its arguments");
    assert!(!String::from_utf8_lossy(&arguments).contains("ZaVnC4dhaV2cAnArY"));
    agent.stop();
    for entry in fs::read_dir(directory.path().join("state/spool")).expect("the spool").flatten() {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        assert!(!bytes.windows(17).any(|part| part == b"ZaVnC4dhaV2cAnArY"), "{:?}", entry.path());
    }
}

#[test]
fn without_a_destination_everything_else_works() {
    let directory = directory();
    let log = directory.path().join("access.log");
    fs::write(&log, (0..50).map(|n| log_line(n, 200) + "\n").collect::<String>()).expect("a log");
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.start();
    let status = agent.wait_status("the count", |status| number(status, "/web/totals/requests") == 50);
    assert_eq!(status["ledger"]["balanced"], true);
    assert_eq!(status["delivery"]["state"], "off");
    // Long past the flush interval, so that whatever would be spooled has been.
    let status = agent.wait_status("three seconds", |status| number(status, "/agent/uptime_s") >= 3);
    assert_eq!(number(&status, "/spool/batches"), 0, "nothing is spooled");
    assert_eq!(number(&status, "/ledger/lines/filtered"), 50, "{}", status["ledger"]);
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn totals_and_windows_survive_a_stop_and_a_reload_loses_no_line() {
    let directory = directory();
    let (mut agent, receiver, log) = start(directory.path());
    let writer = LogWriter::start(log, 500);
    agent.start();
    for _ in 0..3 {
        let before = number(&agent.status(), "/ledger/lines/read");
        agent.signal("HUP");
        agent.wait_status("reading after the reload", |status| {
            number(status, "/ledger/lines/read") > before + 200
        });
    }
    let covered = |status: &Value| status["web"]["windows"]["10s"]["coverage"].as_f64() == Some(1.0);
    agent.wait_status("ten seconds to be covered", covered);
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    agent.start();
    let status = agent.status();
    assert!(number(&status, "/agent/uptime_s") < 5 && covered(&status), "{}", status["web"]["windows"]);
    let written = writer.finish();
    agent.wait_shipped(written.len() as u64);
    assert_each_once(&written, &receiver.lines());
    assert_summaries_add_up(&agent, &receiver, written.len() as u64);
}

/// The same category counted twice by different ways.
#[test]
fn the_receiver_counts_what_it_stores() {
    let directory = directory();
    let (mut agent, receiver, log) = start(directory.path());
    fs::write(&log, (0..500).map(|n| log_line(n, 200) + "\n").collect::<String>()).expect("a log");
    agent.start();
    agent.wait_shipped(500);
    agent.stop();
    let by_category: BTreeMap<String, u64> =
        serde_json::from_value(receiver.stats()["by_category"].clone()).expect("counts");
    for category in ["watchpost/nginx/access", "watchpost/web", "watchpost/host", "watchpost/events"] {
        let stored = receiver.records(category);
        assert_eq!(by_category.get(category).copied(), Some(stored.len() as u64), "{category}");
        for record in stored {
            let timestamp = record["timestamp"].to_string();
            assert_eq!(timestamp.len(), 13, "epoch milliseconds: {record}");
        }
    }
}

/// The control of every test above: the comparison sees a missing, a repeated and an invented line.
#[test]
fn the_comparison_of_lines_can_fail() {
    let lines = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>();
    let written = lines(&[1, 2, 3]);
    assert_each_once(&written, &lines(&[3, 1, 2]));
    for wrong in [&[1, 3][..], &[1, 2, 3, 3], &[1, 2, 3, 4], &[]] {
        let received = lines(wrong);
        let compared = std::panic::catch_unwind(|| assert_each_once(&written, &received));
        assert!(compared.is_err(), "{wrong:?} passed for {written:?}");
    }
    let off_by_one = serde_json::json!({
        "lines": {"read": 5, "shipped": 2, "held": 1, "filtered": 1, "lost": 0}, "balanced": true
    });
    assert!(!crate::support::is_balanced(&off_by_one), "a ledger that only claims to balance");
}
