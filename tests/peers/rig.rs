//! What the scenarios share: a log whose every line is known by its number, an agent of several lives, and the count
//! of what arrived.
//!
//! Nothing here decides what is allowed to be missing; the scenarios do.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver as Inbox, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Agent, BalanceWatch, Receiver, get_json, number, wait_for, wait_out};

/// Between two writes of a paced writer.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);

/// An agent that has nothing left to read or to send for so long will not get any further.
const QUIET: Duration = Duration::from_secs(8);

/// Longest wait for a scenario to come to rest.
const REST_PATIENCE: Duration = Duration::from_secs(900);

/// The kernel's clock ticks a second, as `/proc` counts CPU time.
const CLOCK_TICKS: f64 = 100.0;

/// A line of about 230 bytes in the combined format, with its number at both ends; `noise` makes it compress badly.
pub(crate) fn line(number: u64, time: &str, noise: &str) -> String {
    let client = number % 250;
    let bytes = 612 + number % 5_000;
    format!(
        "203.0.113.{client} - - [{time}] \"GET /page/{number} HTTP/1.1\" 200 {bytes} \
         \"https://shop.example/catalogue/garden/furniture?page={client}{noise}\" \
         \"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0 peer/{number}\"\n"
    )
}

/// Now, as nginx writes it.
pub(crate) fn time_of_log() -> String {
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    now.strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

/// Writes a log of so many numbered lines at once; each has `noise_length` random characters.
pub(crate) fn write_log(path: &Path, lines: u64, noise_length: usize) -> u64 {
    let mut random = fastrand::Rng::with_seed(lines);
    let time = time_of_log();
    let mut log = BufWriter::new(File::create(path).expect("a log"));
    for number in 0..lines {
        let noise: String = (0..noise_length).map(|_| random.alphanumeric()).collect();
        log.write_all(line(number, &time, &noise).as_bytes()).expect("written");
    }
    log.into_inner().expect("written").metadata().expect("its size").len()
}

/// Something done to the log between two writes, so that by itself it loses nothing.
type Step = Box<dyn FnOnce(&mut File, &Path) + Send>;

/// Writes numbered lines at a steady pace until it is told to finish.
pub(crate) struct Writer {
    steps: Sender<(Step, Sender<()>)>,
    thread: JoinHandle<u64>,
}

impl Writer {
    pub(crate) fn start(path: &Path, lines_per_second: u64) -> Writer {
        let (steps, inbox) = mpsc::channel();
        let path = path.to_owned();
        let thread = std::thread::spawn(move || write(&path, lines_per_second, &inbox));
        Writer { steps, thread }
    }

    /// Does something between two writes and returns when it is done.
    pub(crate) fn step(&self, step: impl FnOnce(&mut File, &Path) + Send + 'static) {
        let (done, is_done) = mpsc::channel();
        self.steps.send((Box::new(step), done)).expect("the writer runs");
        is_done.recv().expect("the step is done");
    }

    /// The log is renamed to `name.1`, older ones move on, and a new log is made, as by logrotate's `create`.
    pub(crate) fn rename_and_create(&self) {
        self.step(|file, path| {
            shift(path);
            fs::rename(path, numbered(path, 1, "")).expect("renamed");
            *file = append_to(path);
        });
    }

    /// The log is copied to `name.1`, older ones move on, and it is cut, as by logrotate's `copytruncate`.
    pub(crate) fn copy_and_truncate(&self) {
        self.step(|file, path| {
            shift(path);
            fs::copy(path, numbered(path, 1, "")).expect("copied");
            file.set_len(0).expect("cut");
        });
    }

    /// Gives the number of lines written.
    pub(crate) fn finish(self) -> u64 {
        drop(self.steps);
        self.thread.join().expect("the writer ends")
    }
}

fn append_to(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a log")
}

fn write(path: &Path, lines_per_second: u64, inbox: &Inbox<(Step, Sender<()>)>) -> u64 {
    let mut file = append_to(path);
    let began = Instant::now();
    let mut written = 0;
    loop {
        match inbox.try_recv() {
            Ok((step, done)) => {
                step(&mut file, path);
                let _ = done.send(());
            }
            Err(TryRecvError::Disconnected) => return written,
            Err(TryRecvError::Empty) => {}
        }
        let due = (began.elapsed().as_secs_f64() * lines_per_second as f64) as u64;
        let time = time_of_log();
        let text: String = (written..due).map(|number| line(number, &time, "")).collect();
        file.write_all(text.as_bytes()).expect("written");
        written = due.max(written);
        wait_out(WRITE_INTERVAL);
    }
}

/// The name of an older log.
pub(crate) fn numbered(path: &Path, number: u32, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}.{number}{ending}", path.display()))
}

/// Makes room for a new `name.1`: each older log gets the next number, compressed or not.
fn shift(path: &Path) {
    for number in (1..20).rev() {
        for ending in ["", ".gz"] {
            let from = numbered(path, number, ending);
            if from.exists() {
                fs::rename(from, numbered(path, number + 1, ending)).expect("renamed");
            }
        }
    }
}

/// Compresses a file as logrotate does, by the program that it uses.
pub(crate) fn compress(path: &Path) {
    let status = Command::new("gzip").arg(path).status().expect("gzip is installed");
    assert!(status.success(), "gzip {}", path.display());
}

/// What arrived, by the numbers of the lines.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Numbers below those written that never arrived, in their order.
    pub(crate) missing: Vec<u64>,
    /// Arrivals of a number beyond its first.
    pub(crate) twice: u64,
    /// Records that are no whole line of the writer's.
    pub(crate) foreign: u64,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = self.missing.first().zip(self.missing.last());
        write!(f, "{} missing {ends:?}, {} twice, {} foreign", self.missing.len(), self.twice, self.foreign)
    }
}

/// Counts the stored records of the log category against the numbers from 0 to `written`.
pub(crate) fn tally(store: &Path, written: u64) -> Tally {
    let mut arrivals = vec![0_u32; usize::try_from(written).expect("a count")];
    let mut tally = Tally::default();
    let Ok(file) = File::open(store.join("watchpost_nginx_access.ndjson")) else {
        return Tally { missing: (0..written).collect(), ..Tally::default() };
    };
    for record in BufReader::new(file).lines() {
        let record = record.expect("text");
        match number_of(&record).and_then(|number| arrivals.get_mut(number)) {
            Some(count) => {
                tally.twice += u64::from(*count > 0);
                *count += 1;
            }
            None => tally.foreign += 1,
        }
    }
    tally.missing =
        (0..written).zip(&arrivals).filter(|(_, count)| **count == 0).map(|(number, _)| number).collect();
    tally
}

/// The number of a record's line, if the line is whole: the same number at both ends.
fn number_of(record: &str) -> Option<usize> {
    let (before, rest) = record.split_once(" \\\"GET /page/")?;
    let (number, rest) = rest.split_once(' ')?;
    let (_, last) = rest.rsplit_once(" peer/")?;
    let whole = before.contains("\"log\":\"203.0.113.") && last.strip_suffix("\\\"\"}") == Some(number);
    whole.then(|| number.parse().ok()).flatten()
}

/// One scenario: a log, an agent of several lives, a destination that comes and goes.
pub(crate) struct Scenario {
    /// The table that its row belongs to.
    table: &'static str,
    name: &'static str,
    pub(crate) agent: Agent,
    pub(crate) receiver: Receiver,
    pub(crate) log: PathBuf,
    began: Instant,
    /// Full seconds times this are seconds of the run.
    factor: f64,
    kills: u64,
    cpu_s: f64,
    peak_kib: u64,
    /// Repeated batches that a receiver knew which has gone since.
    duplicates: u64,
    conflicts: u64,
    balance: Option<BalanceWatch>,
    /// The destination came back, or the agent; otherwise the last line is what counts.
    drain_since: Option<Instant>,
    _directory: tempfile::TempDir,
}

impl Scenario {
    /// An agent that follows `pattern`, which is the log's name with what stands behind it; not started yet.
    pub(crate) fn new(table: &'static str, name: &'static str, factor: f64, behind_name: &str) -> Scenario {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let receiver = Receiver::start(directory.path());
        let log = directory.path().join("access.log");
        let mut agent = Agent::new(directory.path(), &format!("{}{behind_name}", log.display()));
        agent.set("SUMO_URL", &receiver.url());
        agent.set("FLUSH_INTERVAL", if factor < 1.0 { "300ms" } else { "1s" });
        let balance = Some(BalanceWatch::start(agent.address));
        Scenario {
            table,
            name,
            agent,
            receiver,
            log,
            began: Instant::now(),
            factor,
            kills: 0,
            cpu_s: 0.0,
            peak_kib: 0,
            duplicates: 0,
            conflicts: 0,
            balance,
            drain_since: None,
            _directory: directory,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The timeline begins now.
    pub(crate) fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// Waits for a moment of the timeline, in seconds of its full length.
    pub(crate) fn wait_until(&self, second: f64) {
        let moment = self.began + Duration::from_secs_f64(second * self.factor);
        wait_out(moment.saturating_duration_since(Instant::now()));
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.measure();
        self.agent.kill();
        self.kills += 1;
    }

    /// The destination goes away.
    pub(crate) fn sink_down(&mut self) {
        self.remember_repeats();
        self.receiver.stop();
    }

    /// The destination is back.
    pub(crate) fn sink_up(&mut self) {
        self.receiver.resume();
        self.drain_from_now();
    }

    /// From here on it is catching up.
    pub(crate) fn drain_from_now(&mut self) {
        self.drain_since = Some(Instant::now());
    }

    fn remember_repeats(&mut self) {
        let stats = self.receiver.stats();
        self.duplicates += number(&stats, "/duplicates");
        self.conflicts += number(&stats, "/conflicts");
    }

    /// Adds what this life of the agent took.
    fn measure(&mut self) {
        self.cpu_s += cpu_s(self.agent.id());
        self.peak_kib = self.peak_kib.max(peak_kib(self.agent.id()));
    }

    /// Waits until all is shipped, or until nothing moves any more; then counts and prints the row.
    pub(crate) fn count(&mut self, written: u64) -> Outcome {
        let since = self.drain_since.unwrap_or_else(Instant::now);
        let status = self.wait_rest(written);
        let drained = since.elapsed();
        self.measure();
        self.remember_repeats();
        let tally = tally(&self.receiver.store, written);
        let polls = self.balance.take().expect("counted once").finish();
        println!(
            "{} | {} | {written} lines | {} lost | {} twice ({} identical batches) | {} kills | drained in {:.1} s | \
             {:.1} MiB peak | {:.2} CPU s | {polls} balanced answers",
            self.table,
            self.name,
            tally.missing.len(),
            tally.twice,
            self.duplicates,
            self.kills,
            drained.as_secs_f64(),
            self.peak_kib as f64 / 1024.0,
            self.cpu_s
        );
        let told = format!("{}: {tally:?}\n{}\n{}", self.name, status["ledger"], self.agent.output());
        assert_eq!((tally.twice, tally.foreign), (0, 0), "{told}");
        assert!(self.duplicates <= self.kills, "at most one batch a kill, not {}: {told}", self.duplicates);
        assert_eq!(self.conflicts, 0, "a repeated batch is the same, byte for byte: {told}");
        assert!(!self.agent.output().contains("panicked"), "{told}");
        Outcome { status, tally, peak_kib: self.peak_kib, told }
    }

    /// Counts, and judges: nothing lost, nothing twice but whole batches that are known by their key, at most one a kill.
    pub(crate) fn judge(&mut self, written: u64) -> Outcome {
        let outcome = self.count(written);
        assert!(outcome.tally.missing.is_empty(), "{}", outcome.told);
        assert_eq!(number(&outcome.status, "/ledger/lines/read"), written, "read once: {}", outcome.told);
        assert_eq!(number(&outcome.status, "/ledger/lines/lost"), 0, "{}", outcome.told);
        outcome
    }

    /// Waits until all is shipped, or until nothing has moved for [`QUIET`].
    fn wait_rest(&self, written: u64) -> Value {
        let deadline = Instant::now() + REST_PATIENCE;
        let (mut before, mut since, mut last) = (None, Instant::now(), Value::Null);
        while Instant::now() < deadline {
            if let Some(status) = get_json(self.agent.address, "/status") {
                let lines = |name: &str| number(&status, &format!("/ledger/lines/{name}"));
                let files = status["files"].as_array().map_or(&[][..], Vec::as_slice);
                let lag_bytes: u64 = files.iter().map(|file| number(file, "/lag_bytes")).sum();
                let now = (lines("read"), lines("shipped"), lines("held"), lag_bytes);
                let done = now == (written, written, 0, 0);
                if before != Some(now) {
                    (before, since) = (Some(now), Instant::now());
                }
                last = status;
                if done || (now.2 + now.3 == 0 && since.elapsed() > QUIET) {
                    return last;
                }
            }
            wait_out(Duration::from_millis(50));
        }
        panic!("{}: no rest within {REST_PATIENCE:?}: {last:#}\n{}", self.name, self.agent.output());
    }

    /// Waits until so many lines were read.
    pub(crate) fn wait_read(&self, lines: u64) {
        self.agent.wait_status("lines to be read", |status| number(status, "/ledger/lines/read") >= lines);
    }
}

/// What came of a scenario.
pub(crate) struct Outcome {
    pub(crate) status: Value,
    pub(crate) tally: Tally,
    pub(crate) peak_kib: u64,
    /// For the message of an assertion.
    pub(crate) told: String,
}

/// CPU time of a process so far, user and system.
pub(crate) fn cpu_s(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process");
    let (_, behind_name) = text.rsplit_once(')').expect("a name in brackets");
    let ticks =
        |index: usize| behind_name.split_whitespace().nth(index).and_then(|word| word.parse::<f64>().ok());
    // The 14th and 15th field, of which two stand before the bracket.
    (ticks(11).expect("user time") + ticks(12).expect("system time")) / CLOCK_TICKS
}

/// Peak resident memory of a process.
pub(crate) fn peak_kib(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("the process");
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    peak.and_then(|peak| peak.trim().parse().ok()).expect("its peak memory")
}

/// A small file system that is unmounted when its handle goes.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// A tmpfs of so many MiB; `None` where tests are told to do without root.
    pub(crate) fn mount(path: &Path, mib: u64) -> Option<SmallDisk> {
        if !rustix::process::geteuid().is_root() {
            let without = std::env::var("WATCHPOST_TEST_WITHOUT_ROOT").is_ok_and(|text| text == "1");
            assert!(without, "mounting needs root; WATCHPOST_TEST_WITHOUT_ROOT=1 leaves such tests out");
            println!("left out: mounting needs root");
            return None;
        }
        fs::create_dir_all(path).expect("a mount point");
        run_mount(&["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "small"], path);
        Some(SmallDisk { path: path.to_owned() })
    }

    /// Space is added while it is in use.
    pub(crate) fn grow(&self, mib: u64) {
        run_mount(&["-o", &format!("remount,size={mib}m")], &self.path);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run_mount(arguments: &[&str], path: &Path) {
    let output = Command::new("mount").args(arguments).arg(path).output().expect("mount is installed");
    assert!(output.status.success(), "mount {arguments:?}: {output:?}");
}

/// Waits for a state of the spool.
#[track_caller]
pub(crate) fn wait_spool(agent: &Agent, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || get_json(agent.address, "/status").filter(|status| condition(&status["spool"])))
}
