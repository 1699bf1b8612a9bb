//! Rotations by the real logrotate while lines come in: each kind that an operator may have configured, under workers that
//! open their log late, under a real nginx, and with the agent killed or dead between them.
//!
//! `WATCHPOST_TEST_ROTATIONS=1000` runs so many cycles over all kinds; by default there are about thirty.

pub(crate) mod rig;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rig::{Load, Logrotate, Workers, lines_in_files, numbers_in_files};

use crate::nginx::{Nginx, send};
use crate::peers::rig::Scenario;
use crate::support::{Agent, BalanceWatch, Receiver, counted, get, number, wait_for, wait_out};

/// Cycles over all kinds, unless told otherwise.
const ROTATIONS_DEFAULT: u64 = 30;

/// Between two cycles: faster than the agent looks by itself, so that it has to be woken.
const PAUSE_MS: std::ops::Range<u64> = 100..200;

/// How late workers open the new log after a rotation.
const LATE_MS: std::ops::Range<u64> = 0..60;

/// Every fifth time they are as late as this.
const VERY_LATE: Duration = Duration::from_millis(400);

/// How late a real nginx is told to open its log anew.
const TOLD_LATE: Duration = Duration::from_secs(2);

/// One kind of rotation.
struct Kind {
    name: &'static str,
    /// Of thirty cycles.
    share: u64,
    rules: &'static str,
    /// The shortest time between two, where names are made of the second.
    pause: Duration,
    /// Every so many cycles the agent is killed and started.
    kill_every: u64,
}

impl Kind {
    const fn new(name: &'static str, share: u64, rules: &'static str) -> Kind {
        Kind { name, share, rules, pause: Duration::ZERO, kill_every: u64::MAX }
    }

    fn rotations(&self) -> u64 {
        let all = std::env::var("WATCHPOST_TEST_ROTATIONS").ok().and_then(|text| text.parse().ok());
        (all.unwrap_or(ROTATIONS_DEFAULT) * self.share / 30).max(1)
    }
}

/// Rotates under load as often as the kind's share says; gives what is to be judged.
fn play(kind: &Kind) -> (Scenario, u64) {
    let mut random = fastrand::Rng::with_seed(kind.share);
    let mut scenario = Scenario::new("rotation", kind.name, 0.3, "");
    let logrotate = Logrotate::new(&scenario.log, kind.rules);
    scenario.agent.start();
    let workers = Workers::start(&scenario.log);
    scenario.wait_read(1);
    for cycle in 1..=kind.rotations() {
        let begun = Instant::now();
        logrotate.rotate();
        let late = Duration::from_millis(random.u64(LATE_MS));
        wait_out(if cycle % 5 == 0 { VERY_LATE } else { late });
        workers.reopen();
        if cycle % kind.kill_every == 0 {
            scenario.kill();
            scenario.agent.start();
        }
        wait_out(Duration::from_millis(random.u64(PAUSE_MS)));
        wait_out(kind.pause.saturating_sub(begun.elapsed()));
    }
    let written = workers.finish();
    println!("rotation | {} | {} rotations", kind.name, kind.rotations());
    (scenario, written)
}

fn lose_and_repeat_nothing(kind: &Kind) {
    let (mut scenario, written) = play(kind);
    scenario.judge(written);
}

#[test]
fn create_with_workers_that_open_late_loses_and_repeats_nothing() {
    lose_and_repeat_nothing(&Kind::new("create", 8, "rotate 20\n create 0640\n nocompress"));
}

#[test]
fn delaycompress_with_workers_that_open_late_loses_and_repeats_nothing() {
    lose_and_repeat_nothing(&Kind::new(
        "delaycompress",
        6,
        "rotate 20\n create 0640\n compress\n delaycompress",
    ));
}

/// The workers still write into the file when logrotate has compressed and removed it.
#[test]
fn compress_without_delay_loses_and_repeats_nothing() {
    lose_and_repeat_nothing(&Kind::new(
        "compress",
        5,
        "rotate 20\n create 0640\n compress\n nodelaycompress",
    ));
}

#[test]
fn names_made_of_the_second_lose_and_repeat_nothing() {
    // Two in one second would get one name; logrotate then leaves the log as it is.
    let pause = Duration::from_millis(1_050);
    let rules = "rotate 2000\n create 0640\n nocompress\n dateext\n dateformat -%s";
    lose_and_repeat_nothing(&Kind { pause, ..Kind::new("dateext", 3, rules) });
}

#[test]
fn a_directory_for_old_logs_loses_and_repeats_nothing() {
    let rules = "rotate 20\n create 0640\n nocompress\n olddir HERE/old\n createolddir 0700";
    lose_and_repeat_nothing(&Kind::new("olddir", 4, rules));
}

#[test]
fn kills_between_rotations_lose_nothing() {
    let rules = "rotate 20\n create 0640\n nocompress";
    lose_and_repeat_nothing(&Kind { kill_every: 2, ..Kind::new("create, killed at every second", 6, rules) });
}

/// The file is removed at the moment of its rotation: what the agent has open it reads to the end.
#[test]
fn logs_removed_at_rotation_are_read_as_far_as_they_were_seen() {
    let (mut scenario, written) = play(&Kind::new("rotate 0", 3, "rotate 0\n create 0640\n nocompress"));
    let outcome = scenario.count(written);
    let read = number(&outcome.status, "/ledger/lines/read");
    assert_eq!(written, read + outcome.tally.missing.len() as u64, "{}", outcome.told);
    println!(
        "rotation | rotate 0 | {written} written = {read} received + {} lost",
        outcome.tally.missing.len()
    );
    // A file that came and went between two looks is in no directory; one that was open is read.
    assert!(outcome.tally.missing.is_empty(), "{}", outcome.told);
}

/// Bytes of the longest line of a log, with its end.
fn line_bytes_max(log: &Path) -> u64 {
    let text = fs::read(log).expect("a log");
    text.split(|byte| *byte == b'\n').map(|line| line.len() as u64 + 1).max().unwrap_or(0)
}

/// What logrotate itself loses stands in no file; everything else arrives, and what the agent had seen is counted.
#[test]
fn copytruncate_loses_no_line_that_stands_in_a_file() {
    let (mut scenario, written) =
        play(&Kind::new("copytruncate", 3, "rotate 2000\n copytruncate\n nocompress"));
    let outcome = scenario.count(written);
    let in_files = numbers_in_files(scenario.log.parent().expect("a directory"));
    let of_files: Vec<u64> =
        outcome.tally.missing.iter().copied().filter(|number| in_files.contains(number)).collect();
    let missing = outcome.tally.missing.len();
    println!(
        "rotation | copytruncate | {written} written = {} received + {missing} lost, of which {} stand in a file; {} lines \
         stand in none; the agent counted {}",
        number(&outcome.status, "/ledger/lines/read"),
        of_files.len(),
        written - in_files.len() as u64,
        outcome.status["ledger"]["lost"]
    );
    assert_eq!(written, number(&outcome.status, "/ledger/lines/read") + missing as u64, "{}", outcome.told);
    let losses = outcome.status["ledger"]["lost"].as_array().cloned().unwrap_or_default();
    let told: u64 = losses.iter().map(|loss| number(loss, "/bytes")).sum();
    let in_none = (written - in_files.len() as u64) * line_bytes_max(&scenario.log);
    assert!(told <= in_none, "{told} bytes told, {in_none} in no file: {}", outcome.told);
    assert!(
        of_files.is_empty(),
        "{} lines, {:?} and so on: {}",
        of_files.len(),
        of_files.first(),
        outcome.told
    );
}

/// Killed, three rotations of which each is compressed at once, and started again.
#[test]
fn three_compressed_rotations_by_logrotate_while_the_agent_is_dead_are_caught_up() {
    let mut scenario = Scenario::new("rotation", "compress, three while dead", 0.3, "");
    let logrotate = Logrotate::new(&scenario.log, "rotate 20\n create 0640\n compress\n nodelaycompress");
    scenario.agent.start();
    let workers = Workers::start(&scenario.log);
    scenario.agent.wait_status("the first lines", |status| number(status, "/ledger/lines/shipped") > 0);
    scenario.kill();
    for _ in 0..3 {
        wait_out(Duration::from_millis(300));
        // Nobody writes while the file is compressed: what is written behind the compressor's back is in no file.
        workers.pause(|| {
            logrotate.rotate();
            workers.reopen();
        });
    }
    wait_out(Duration::from_millis(300));
    scenario.agent.start();
    wait_out(Duration::from_millis(300));
    let written = workers.finish();
    scenario.judge(written);
}

/// An agent with the log of a real nginx, and what it is compared with.
struct RealNginx {
    directory: tempfile::TempDir,
    nginx: Nginx,
    receiver: Receiver,
    agent: Agent,
    balance: BalanceWatch,
}

impl RealNginx {
    fn start(parameters: &str) -> RealNginx {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nginx = Nginx::start_with(directory.path(), parameters);
        let receiver = Receiver::start(directory.path());
        let log = directory.path().join("access.log").display().to_string();
        let mut agent = Agent::new(directory.path(), &log);
        agent.set("NGINX_CONF", &directory.path().join("nginx.conf").display().to_string());
        agent.set("SUMO_URL", &receiver.url());
        agent.start();
        let balance = BalanceWatch::start(agent.address);
        RealNginx { directory, nginx, receiver, agent, balance }
    }

    /// Rotates so many times under load; now and then the workers are told seconds later, and write to the renamed log.
    fn rotate_under_load(&self, rotations: u64, late_every: u64) -> u64 {
        let log = self.directory.path().join("access.log");
        let logrotate = Logrotate::new(&log, "rotate 500\n create 0640\n compress\n delaycompress");
        let load = Load::start(self.nginx.address);
        for rotation in 1..=rotations {
            let before = load.sent();
            wait_for("load between rotations", || (load.sent() > before + 500).then_some(()));
            logrotate.rotate();
            if rotation % late_every == 0 {
                wait_out(TOLD_LATE);
            }
            self.nginx.reopen_logs();
        }
        load.finish()
    }

    /// Every request is logged once, and every line of the logs arrived once.
    fn judge(mut self, name: &str, total: u64) {
        let directory = self.directory.path();
        let logged = wait_for("nginx to log all", || {
            Some(lines_in_files(directory)).filter(|l| l.len() as u64 >= total)
        });
        assert_eq!(logged.len() as u64, total, "nginx logs every request once");
        self.agent.wait_shipped(total);
        let received = self.receiver.lines();
        assert_eq!(counted(&received), counted(&logged), "every line once, none lost");
        assert_eq!(number(&self.receiver.stats(), "/duplicates"), 0);
        let polls = self.balance.finish();
        assert_eq!(self.agent.stop(), Some(0));
        println!("rotation | nginx, {name} | {total} lines | 0 lost | 0 twice | {polls} balanced answers");
    }
}

#[test]
fn ten_rotations_by_logrotate_under_load_lose_and_repeat_nothing() {
    let rig = RealNginx::start("");
    let total = rig.rotate_under_load(Kind::new("nginx", 10, "").rotations(), 5);
    rig.judge("workers told late", total);
}

#[test]
fn lines_that_nginx_holds_for_a_second_are_read_from_the_renamed_log() {
    let rig = RealNginx::start("buffer=32k flush=1s");
    let total = rig.rotate_under_load(3, 2);
    rig.judge("buffer=32k flush=1s", total);
}

/// Without `flush=` nginx holds lines for as long as its buffer has room: they appear when it opens its logs anew, or stops.
#[test]
fn lines_that_nginx_holds_for_good_are_read_when_it_lets_them_go() {
    let mut rig = RealNginx::start("buffer=32k");
    let log = rig.directory.path().join("access.log");
    let total = rig.rotate_under_load(2, 2);
    // The workers hold a part of the last lines still; nothing of it can be known.
    send(rig.nginx.address, 20, |index| format!("/ok/held/{index}"));
    Logrotate::new(&log, "rotate 500\n create 0640\n nocompress").rotate();
    rig.nginx.reopen_logs();
    let directory = rig.directory.path();
    let all = total + 20;
    wait_for("the held lines in the renamed log", || {
        (lines_in_files(directory).len() as u64 == all).then_some(())
    });
    rig.agent.wait_shipped(all);
    send(rig.nginx.address, 20, |index| format!("/ok/stopped/{index}"));
    rig.nginx.stop();
    rig.judge("buffer=32k", all + 20);
}

/// nginx compresses the live log itself: the agent says so, with the cure, and counts no garbage.
#[test]
fn a_log_that_nginx_compresses_is_named_and_not_counted() {
    let mut rig = RealNginx::start("gzip flush=1s");
    let is_named = |agent: &Agent| {
        agent.wait_status("the compressed log to be named", |status| {
            let file = &status["files"][0];
            file["state"] == "compressed" && file.to_string().contains("leave gzip out of access_log")
        });
        let status = agent.status();
        assert_eq!(number(&status, "/ledger/lines/read"), 0, "{}", status["ledger"]);
        assert_eq!(number(&status, "/web/totals/unparsed"), 0, "{}", status["web"]["totals"]);
        let (code, health) = get(agent.address, "/healthz").expect("the port answers");
        assert!(code == 503 && health.contains("access.log"), "{code} {health}");
    };
    // The agent has opened the log while it was empty.
    send(rig.nginx.address, 200, |index| format!("/ok/{index}"));
    is_named(&rig.agent);
    // And now it meets it as it is.
    rig.agent.kill();
    rig.agent.start();
    is_named(&rig.agent);
    let output = rig.agent.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("compressed") && said.contains("gzip"), "{said}");
    assert_eq!(rig.receiver.lines(), [""; 0]);
}

/// The control: logrotate really rotates, and the count sees a line that stands in a file and did not arrive.
#[test]
fn a_line_that_stands_in_a_file_is_seen() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("access.log");
    std::fs::write(&log, crate::peers::rig::line(7, "time", "")).expect("a log");
    let logrotate = Logrotate::new(&log, "rotate 5\n create 0640\n compress\n nodelaycompress");
    logrotate.rotate();
    assert!(directory.path().join("access.log.1.gz").exists());
    std::fs::write(&log, crate::peers::rig::line(8, "time", "")).expect("a log");
    assert_eq!(numbers_in_files(directory.path()).into_iter().collect::<Vec<_>>(), [7, 8]);
    assert!(Command::new("gzip").arg("--version").output().is_ok_and(|output| output.status.success()));
}
