//! Peak memory under what grows without bound elsewhere: a long backlog, long lines, thousands of files.
//!
//! `WATCHPOST_TEST_MEMORY=full` takes the full sizes: 1 GiB of backlog, a hundred lines of 10 MB, 5,000 files. Each test prints
//! the peak.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::peers::rig::{peak_kib, tally, wait_spool, write_log};
use crate::support::{Agent, BalanceWatch, Receiver, get_json, log_line, number, wait_within};

/// The most memory that the agent may take, whatever comes.
const PEAK_KIB_MAX: u64 = 64 * 1024;

/// Longest wait for a whole backlog to be shipped.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(600);

/// Bytes of a line of the backlog, about.
const LINE_BYTES: u64 = 235;

/// The soft limit of open files that a login shell has.
const SOFT_FILE_LIMIT: u64 = 1_024;

fn is_full() -> bool {
    std::env::var("WATCHPOST_TEST_MEMORY").is_ok_and(|text| text == "full")
}

/// Waits until so many lines were shipped; a backlog takes longer than anything else.
#[track_caller]
fn wait_shipped(agent: &Agent, lines: u64) -> Value {
    wait_within(BACKLOG_PATIENCE, "all lines to be shipped", || {
        let status = get_json(agent.address, "/status")?;
        let done =
            number(&status, "/ledger/lines/shipped") == lines && number(&status, "/ledger/lines/held") == 0;
        done.then_some(status)
    })
}

#[track_caller]
fn judge_peak(what: &str, agent: &Agent) {
    let peak = peak_kib(agent.id());
    println!("memory | {what} | {:.1} MiB at most", peak as f64 / 1024.0);
    assert!(peak < PEAK_KIB_MAX, "{what}: {peak} KiB");
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_backlog_behind_a_full_spool_takes_no_memory() {
    let bytes: u64 = if is_full() { 1 << 30 } else { 24 << 20 };
    let lines = bytes / LINE_BYTES;
    let directory = directory();
    let log = directory.path().join("access.log");
    let written = write_log(&log, lines, 0);
    let mut receiver = Receiver::start(directory.path());
    receiver.stop();
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    agent.set("SPOOL_MAX", if is_full() { "32MiB" } else { "1MiB" });
    agent.start();
    let balance = BalanceWatch::start(agent.address);
    wait_spool(&agent, "the spool to be full", |spool| spool["state"] == "full");
    judge_peak(&format!("{} MiB of backlog, spool full", written >> 20), &agent);
    receiver.resume();
    wait_shipped(&agent, lines);
    judge_peak(&format!("{} MiB of backlog, shipped", written >> 20), &agent);
    let tally = tally(&receiver.store, lines);
    assert!(tally.missing.is_empty() && tally.twice == 0 && tally.foreign == 0, "{tally:?}");
    balance.finish();
}

#[test]
fn a_backlog_in_the_spool_takes_no_memory() {
    let bytes: u64 = if is_full() { 1 << 30 } else { 24 << 20 };
    let lines = bytes / LINE_BYTES;
    let directory = directory();
    let log = directory.path().join("access.log");
    let written = write_log(&log, lines, 0);
    let mut receiver = Receiver::start(directory.path());
    receiver.stop();
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    // Of small batches there are the most: more than ten thousand at the full size.
    agent.set("BATCH_MAX", if is_full() { "100KB" } else { "20KB" });
    agent.start();
    wait_within(BACKLOG_PATIENCE, "all lines to be held", || {
        let status = get_json(agent.address, "/status")?;
        (number(&status, "/ledger/lines/held") == lines).then_some(())
    });
    let batches = number(&agent.status(), "/spool/batches");
    judge_peak(&format!("{} MiB of backlog in {batches} batches of the spool", written >> 20), &agent);
    agent.kill();
    agent.start();
    receiver.resume();
    wait_shipped(&agent, lines);
    judge_peak(&format!("{} MiB of backlog, started anew and shipped", written >> 20), &agent);
}

#[test]
fn lines_of_ten_megabytes_take_no_memory() {
    const LONG_BYTES: usize = 10_000_000;
    let long_lines = if is_full() { 100 } else { 8 };
    let directory = directory();
    let log = directory.path().join("access.log");
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    let mut file = BufWriter::new(File::create(&log).expect("a log"));
    let long = "x".repeat(LONG_BYTES - 200);
    for index in 0..long_lines {
        let line = log_line(index, 200);
        file.write_all(line.replace("/page/", &format!("/{long}/")).as_bytes()).expect("written");
        file.write_all(format!("\n{line}\n").as_bytes()).expect("written");
    }
    file.flush().expect("written");
    let status = wait_shipped(&agent, 2 * long_lines);
    assert_eq!(number(&status, "/web/totals/cut"), long_lines, "each cut and counted once");
    assert_eq!(number(&status, "/ledger/lines/lost"), 0);
    judge_peak(&format!("{long_lines} lines of 10 MB"), &agent);
}

/// Appends lines to each log; gives the next number.
fn append_to_all(logs: &[PathBuf], lines: u64, first: u64) -> u64 {
    let mut next = first;
    for log in logs {
        let text: String = (next..next + lines).map(|number| log_line(number, 200) + "\n").collect();
        next += lines;
        let file = OpenOptions::new().create(true).append(true).open(log);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
    }
    next
}

fn rotate_all(logs: &[PathBuf]) {
    let aside = |log: &Path| log.with_extension("log.1");
    for log in logs {
        fs::rename(log, aside(log)).expect("renamed");
        File::create(log).expect("a new log");
    }
}

/// More files than a login shell may open, and then twice as many: each keeps its old file open until it has stood still.
#[test]
fn thousands_of_files_rotated_together_take_no_memory_and_lose_nothing() {
    let count = if is_full() { 5_000 } else { 1_200 };
    let directory = directory();
    let logs_in = directory.path().join("logs");
    fs::create_dir(&logs_in).expect("a directory");
    let logs: Vec<PathBuf> = (0..count).map(|number| logs_in.join(format!("{number}.log"))).collect();
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), &format!("{}/*.log", logs_in.display()));
    agent.set("SUMO_URL", &receiver.url());
    agent.limit_open_files(SOFT_FILE_LIMIT);
    let written = append_to_all(&logs, 3, 0);
    agent.start();
    wait_shipped(&agent, written);
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).expect("its limits");
    let open_files =
        limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit of files");
    let numbers: Vec<u64> = open_files.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(
        numbers[0] == numbers[1] && numbers[0] > 2 * count,
        "the soft limit is the hard one: {open_files}"
    );
    judge_peak(&format!("{count} files"), &agent);
    rotate_all(&logs);
    let written = append_to_all(&logs, 2, written);
    let status = wait_shipped(&agent, written);
    assert_eq!(number(&status, "/ledger/lines/read"), written, "each once: {}", status["ledger"]);
    judge_peak(&format!("{count} files rotated together"), &agent);
    let mut received = receiver.lines();
    received.sort_unstable();
    received.dedup();
    assert_eq!(received.len() as u64, written, "none lost");
}
