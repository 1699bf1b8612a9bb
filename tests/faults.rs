//! Faults on a real kernel, against the real binary: kill -9 at a system call, errors of system calls, power cuts,
//! full and broken disks, too little memory. What the simulated disk proves of the spool, these prove of the whole.
//!
//! Owns: what the rigs share. Everything goes through the front door: settings, files, ports, the receiver. A rig that
//! needs root says so and fails without it, unless `WATCHPOST_TEST_WITHOUT_ROOT=1` says that this is known.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::support::{Agent, Receiver, WATCHPOST, counted, log_line, number, wait_for};

mod disks;
mod errors;
mod kill;
mod limits;
mod mounts;
mod power;

/// Between two looks at a process that lives for milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Random text from which the lines of a log take theirs.
const NOISE_BYTES: usize = 1 << 20;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A directory that stays when the test fails, so that it can be looked at.
struct Scene(Option<tempfile::TempDir>);

impl Scene {
    fn new() -> Scene {
        Scene(Some(tempfile::tempdir().expect("a temporary directory")))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until it is dropped").path()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.0.take()
        {
            println!("what is left of it: {}", directory.keep().display());
        }
    }
}

/// A process and those that it started, in a group of their own.
struct Group {
    child: Child,
}

impl Group {
    fn start(command: &mut Command, output: &Path) -> Group {
        let file = File::options().create(true).append(true).open(output).expect("a file for the output");
        command.process_group(0).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("the same file")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Group { child }
    }

    /// Waits for its end, but not longer than `limit`.
    fn wait_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// kill -9 of the first one.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the first one to stop; the exit code.
    fn end(&mut self) -> Option<i32> {
        crate::support::signal(self.child.id(), "TERM");
        self.wait_end(crate::support::PATIENCE).and_then(|status| status.code())
    }

    /// The processes that the first one started.
    fn members(&self) -> Vec<Pid> {
        let group = self.child.id().to_string();
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // Behind the name in brackets: state, parent, group.
            let in_group = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(3)) == Some(&group);
            if in_group && id != self.child.id() {
                members.extend(i32::try_from(id).ok().and_then(Pid::from_raw));
            }
        }
        members
    }

    /// kill -9 of what was started; the first one, which only watches it, ends by itself then.
    fn kill_members(&mut self) -> ExitStatus {
        wait_for("the end of what was killed", || {
            for member in self.members() {
                let _ = kill_process(member, Signal::KILL);
            }
            self.wait_end(Duration::from_millis(50))
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && self.child.try_wait().is_ok_and(|status| status.is_none())
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Settings under which much happens in little time, on a small spool.
fn hurry(agent: &mut Agent, url: &str, batch_max: &str) {
    for (name, value) in [
        ("SUMO_URL", url),
        ("FLUSH_INTERVAL", "100ms"),
        ("SUMMARY_INTERVAL", "1s"),
        ("HOST_SOURCES", "none"),
        ("SPOOL_MAX", "1MiB"),
        ("BATCH_MAX", batch_max),
        ("LOG", "warn"),
    ] {
        agent.set(name, value);
    }
}

/// The agent under strace, which injects what `expressions` say into the system calls of `calls`.
fn traced(agent: &Agent, calls: &str, expressions: &[String]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", &format!("trace={calls}")]);
    for expression in expressions {
        command.args(["-e", &format!("inject={expression}")]);
    }
    command.arg(WATCHPOST).arg("run").env_clear();
    for (name, value) in agent.command(&["run"]).get_envs() {
        command.env(name, value.expect("only settings are set"));
    }
    command
}

/// A log of numbered lines, short and long ones, rotated as logrotate does it; nothing is ever removed.
struct NumberedLog {
    path: PathBuf,
    written: Vec<String>,
    rotations: u64,
    random: fastrand::Rng,
    /// Random text compresses badly, so that segments fill and roll.
    noise: String,
    noise_bytes_max: usize,
}

impl NumberedLog {
    fn new(path: PathBuf, seed: u64) -> NumberedLog {
        File::create(&path).expect("a log");
        let mut random = fastrand::Rng::with_seed(seed);
        let noise = (0..NOISE_BYTES).map(|_| random.alphanumeric()).collect();
        NumberedLog { path, written: Vec::new(), rotations: 0, random, noise, noise_bytes_max: 3_000 }
    }

    fn append(&mut self, lines: u64) {
        let mut text = String::new();
        for _ in 0..lines {
            let bytes_max = if self.random.u8(..) < 128 { self.noise_bytes_max } else { 60 };
            let start = self.random.usize(0..NOISE_BYTES - bytes_max);
            let noise = &self.noise[start..start + self.random.usize(1..bytes_max)];
            let status = if self.random.u8(..) < 20 { 503 } else { 200 };
            let line = log_line(self.written.len() as u64, status).replace("test/1.0", noise);
            text += &line;
            text.push('\n');
            self.written.push(line);
        }
        let mut log = OpenOptions::new().create(true).append(true).open(&self.path).expect("the log");
        log.write_all(text.as_bytes()).expect("written");
    }

    /// Numbers the older files anew, as logrotate does.
    fn rotate(&mut self) {
        let aside = |number: u64| self.path.with_extension(format!("log.{number}"));
        for number in (1..=self.rotations).rev() {
            fs::rename(aside(number), aside(number + 1)).expect("renamed");
        }
        fs::rename(&self.path, aside(1)).expect("renamed");
        File::create(&self.path).expect("a new log");
        self.rotations += 1;
    }

    /// Gives the file a name that it keeps, as logrotate's `dateext` does.
    fn rotate_for_good(&mut self) {
        let aside = self.path.with_extension(format!("log-{:08}", self.written.len()));
        fs::rename(&self.path, aside).expect("renamed");
        File::create(&self.path).expect("a new log");
    }
}

/// What was found in the end.
struct Found {
    repeats: u64,
    complaints: Vec<String>,
}

/// Lets the agent, which runs undisturbed, finish what is left, stops it, and compares what arrived with what was
/// written. `repeats_max` batches may have been sent twice, each with the same key and the same bytes.
fn finish_and_judge(agent: &mut Agent, receiver: &Receiver, log: &NumberedLog, repeats_max: u64) -> Found {
    let status = wait_settled(agent, &log.path);
    let code = agent.stop();
    let mut found = judge(receiver, &log.written, &status, repeats_max);
    if code != Some(0) {
        found.complaints.push(format!("the agent ended with {code:?}"));
    }
    found.complaints.extend(panics(agent));
    found
}

/// Waits until every file is read to its end, as it stands on the disk, and everything read is accepted.
fn wait_settled(agent: &Agent, log: &Path) -> Value {
    agent.wait_status("everything to be read and accepted", |status| {
        let files = status["files"].as_array().map_or(&[][..], Vec::as_slice);
        let size = fs::metadata(log).map_or(0, |metadata| metadata.len());
        let name = log.display().to_string();
        files.iter().any(|file| file["path"] == name.as_str() && number(file, "/position") == size)
            && files.iter().all(|file| number(file, "/lag_bytes") == 0)
            && number(status, "/ledger/lines/held") == 0
            && number(status, "/spool/batches") <= 1
            && status["spool"]["state"] == "ok"
    })
}

/// What was read before this call, and no longer waits for its batch to be closed, is durable afterwards.
fn wait_flushed(agent: &Agent) {
    let uptime = number(&agent.status(), "/agent/uptime_s");
    agent.wait_status("a later tick", |status| number(status, "/agent/uptime_s") > uptime + 1);
}

/// Log lines that the receiver has taken; its files may end in the middle of one while it writes.
fn arrived(receiver: &Receiver) -> u64 {
    number(&receiver.stats(), "/by_category/watchpost~1nginx~1access")
}

fn panics(agent: &Agent) -> Vec<String> {
    let output = agent.output();
    output.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
}

/// Every line once, every sum the same, and no more repeats than were promised.
fn judge(receiver: &Receiver, written: &[String], status: &Value, repeats_max: u64) -> Found {
    let (received, stats) = (receiver.lines(), receiver.stats());
    let arrived = counted(&received);
    let expected: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    let mut complaints = Vec::new();
    let mut complain = |lines: Vec<&str>, what: &str| {
        if let Some(first) = lines.first() {
            let first: String = first.chars().take(80).collect();
            complaints.push(format!("{} lines {what}, the first: {first}", lines.len()));
        }
    };
    complain(expected.iter().filter(|line| !arrived.contains_key(*line)).copied().collect(), "lost");
    complain(arrived.iter().filter(|(_, count)| **count > 1).map(|(line, _)| *line).collect(), "doubled");
    complain(arrived.keys().filter(|line| !expected.contains(*line)).copied().collect(), "invented");
    let ledger = |name: &str| number(status, &format!("/ledger/lines/{name}"));
    let repeats = number(&stats, "/duplicates");
    let sums = [
        ("lines read", ledger("read"), written.len() as u64),
        ("lines shipped", ledger("shipped"), written.len() as u64),
        ("lines lost by the agent's own account", ledger("lost"), 0),
        ("requests counted", number(status, "/web/totals/requests"), written.len() as u64),
        ("requests in shipped summaries", receiver.summary_sum("/requests"), written.len() as u64),
        ("keys with other bytes", number(&stats, "/conflicts"), 0),
        ("batches repeated beyond the promise", repeats.saturating_sub(repeats_max), 0),
    ];
    for (what, is, should_be) in sums {
        if is != should_be {
            complaints.push(format!("{is} {what}, not {should_be}"));
        }
    }
    if !crate::support::is_balanced(&status["ledger"]) {
        complaints.push(format!("out of balance: {}", status["ledger"]));
    }
    Found { repeats, complaints }
}
