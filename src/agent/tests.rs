//! The pipeline on a real directory with a clock that the test moves, stopped at any record of its log.

mod outage;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::events::{Event, Severity};
use super::ledger::Account;
use super::outbox::{SAMPLES_BYTES_MAX, WAITING_PREFIX};
use super::pipeline::{Activity, Parts, Pipeline};
use super::plan::Plan;
use super::{ACTIVE_INTERVAL, IDLE_INTERVAL, next_look, open_spool, spool_directory};
use crate::batch::decompress;
use crate::clock::Now;
use crate::config::{self, Config, Surroundings};
use crate::follow::watch::DirectoryWatch;
use crate::follow::{Follower, HostFiles, Options as FollowOptions};
use crate::probes::{ProbeBoard, Tally};
use crate::record::Stream;
use crate::ship::Mailbox;
use crate::spool::PendingBatch;
use crate::status::Board;
use crate::window::{Options as WindowOptions, Windows};

/// A whole second, so that intervals begin where the test says.
const START_MS: i64 = 1_764_000_000_000;

/// An agent without edges.
struct Bench {
    directory: tempfile::TempDir,
    config: Config,
    pipeline: Pipeline,
    begun: Now,
    passed: Duration,
    written: u64,
    requests_shipped: u64,
}

fn config(directory: &Path, settings: &[(&str, &str)]) -> Config {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut strings: BTreeMap<String, String> = [
        ("SUMO_URL", "http://127.0.0.1:9/receiver".to_owned()),
        ("ACCESS_LOGS", path("*.log")),
        ("ACCESS_LOG_FORMAT", r#"$msec $status "$request""#.to_owned()),
        ("READ_FROM", "beginning".to_owned()),
        ("STATE_DIR", path("state")),
        ("NGINX_CONF", path("no-nginx.conf")),
        ("STATUS_ADDR", "off".to_owned()),
        ("HOST_SOURCES", "none".to_owned()),
        ("FLUSH_INTERVAL", "1s".to_owned()),
        ("SUMMARY_INTERVAL", "1s".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("WATCHPOST_{name}"), value))
    .collect();
    strings.extend(settings.iter().map(|(name, value)| (format!("WATCHPOST_{name}"), (*value).to_owned())));
    let surroundings = Surroundings { is_root: false, host_source_names: &[] };
    config::load(&strings, &surroundings).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn pipeline(config: &Config, now: Now) -> Pipeline {
    let plan = Plan::new(config).expect("a plan");
    let spool = open_spool(config, now).expect("a spool");
    let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
    let parts = Parts {
        config: config.clone(),
        plan,
        spool,
        files: Arc::new(HostFiles),
        watch: DirectoryWatch::new(|| {}),
        mailbox,
        board: Arc::new(Board::new()),
        probes: Arc::new(ProbeBoard::new()),
        tally: Arc::new(Tally::new(|| {})),
    };
    Pipeline::new(parts, now)
}

impl Bench {
    fn new(settings: &[(&str, &str)]) -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Bench::in_directory(directory, settings)
    }

    fn in_directory(directory: tempfile::TempDir, settings: &[(&str, &str)]) -> Bench {
        let config = config(directory.path(), settings);
        let begun = Now { wall: START_MS, ..Now::read() };
        let pipeline = pipeline(&config, begun);
        Bench { directory, config, pipeline, begun, passed: Duration::ZERO, written: 0, requests_shipped: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn now(&self) -> Now {
        let wall = self.begun.wall + self.passed.as_millis() as i64;
        Now { wall, monotonic: self.begun.monotonic + self.passed }
    }

    fn write(&mut self, name: &str, lines: u64) {
        let mut text = String::new();
        for _ in 0..lines {
            let (number, wall) = (self.written, self.now().wall);
            let (second, millisecond) = (wall / 1000, wall % 1000);
            text += &format!("{second}.{millisecond:03} 200 \"GET /page/{number} HTTP/1.1\"\n");
            self.written += 1;
        }
        let log = OpenOptions::new().create(true).append(true).open(self.path(name));
        log.and_then(|mut log| log.write_all(text.as_bytes())).expect("written");
    }

    /// Lines that hardly compress.
    fn write_noise(&mut self, lines: u64) {
        let mut random = fastrand::Rng::with_seed(self.written);
        let mut text = String::new();
        for _ in 0..lines {
            let wall = self.now().wall;
            let noise: String = (0..100).map(|_| random.alphanumeric()).collect();
            text += &format!("{}.{:03} 200 \"GET /{noise} HTTP/1.1\"\n", wall / 1000, wall % 1000);
            self.written += 1;
        }
        let log = OpenOptions::new().create(true).append(true).open(self.path("a.log"));
        log.and_then(|mut log| log.write_all(text.as_bytes())).expect("written");
    }

    /// Writes and reads until the spool takes no more.
    fn fill(&mut self) {
        while !self.pipeline.is_blocked() {
            self.write_noise(100);
            self.tick(370);
        }
    }

    fn tick(&mut self, passed_ms: u64) -> Activity {
        self.passed += Duration::from_millis(passed_ms);
        self.pipeline.tick(self.now(), true)
    }

    /// kill -9, and the next start.
    fn restart(&mut self) {
        let (config, now) = (self.config.clone(), self.now());
        replace_with(&mut self.pipeline, self.directory.path(), |()| pipeline(&config, now));
    }

    /// The destination takes the oldest batch; gives the lines in it.
    fn accept_oldest(&mut self) -> u64 {
        let Some(batch) = self.pipeline.spool.oldest() else { return 0 };
        if batch.stream == Stream::WebSummary {
            self.requests_shipped += requests_in(&batch);
        }
        self.pipeline.spool.ack(batch.id.seq, self.now()).expect("settled");
        batch.lines
    }

    fn ledger(&self) -> Value {
        let snapshot = self.pipeline.board.latest().expect("a tick is through");
        serde_json::to_value(&snapshot.ledger).expect("plain data")
    }
}

/// The old one must let go of the lock before the new one takes it: it moves to a directory of its own.
fn replace_with(place: &mut Pipeline, directory: &Path, make: impl FnOnce(()) -> Pipeline) {
    let (state, gone) = (directory.join("state"), directory.join("state.gone"));
    let _ = fs::remove_dir_all(&gone);
    fs::rename(&state, &gone).expect("moved away");
    copy(&gone, &state);
    *place = make(());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// What a state directory holds, as a start after a crash would find it.
#[derive(Debug, PartialEq, Eq)]
struct Audit {
    lines_read: u64,
    lines_accounted: u64,
    requests_counted: u64,
    requests_in_summaries: u64,
}

fn requests_of_all(record: &str) -> u64 {
    let record: Value = serde_json::from_str(record).expect("a JSON record");
    if record["vhost"] == "_all" { record["requests"].as_u64().expect("a count") } else { 0 }
}

fn requests_in(batch: &PendingBatch) -> u64 {
    let text = decompress(&batch.body, batch.raw_bytes as usize).expect("gzip");
    String::from_utf8_lossy(&text).lines().map(requests_of_all).sum()
}

fn audit(config: &Config, now: Now) -> Audit {
    let mut spool = open_spool(config, now).expect("a spool");
    let state = spool.state().clone();
    let entries = state.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let account = Account::restore(state.get(Account::key()).map(Vec::as_slice), 0);
    let interval = config.summary_interval.as_secs() as u32;
    let options = WindowOptions { summary_interval_s: interval, ..WindowOptions::default() };
    let mut windows = Windows::restore(options, now.wall, entries.clone());
    let open = windows.close_summaries(true);
    let mut requests: u64 = open.iter().map(|summary| requests_of_all(&summary.to_json())).sum();
    let waiting = state.iter().filter(|(key, _)| key.starts_with(WAITING_PREFIX));
    for (_, text) in waiting {
        requests += String::from_utf8_lossy(text).lines().map(requests_of_all).sum::<u64>();
    }
    let mut lines = account.filtered + account.lost().map(|(_, loss)| loss.lines).sum::<u64>();
    let options = FollowOptions { patterns: Vec::new(), first_start_at_end: false };
    lines += Follower::new(Arc::new(HostFiles), options, entries.clone(), false).lines_ahead();
    while let Some(batch) = spool.oldest() {
        lines += batch.lines;
        if batch.stream == Stream::WebSummary {
            requests += requests_in(&batch);
        }
        spool.ack(batch.id.seq, now).expect("settled");
    }
    let view = serde_json::to_value(windows.view()).expect("plain data");
    Audit {
        lines_read: account.read,
        lines_accounted: lines,
        requests_counted: view["totals"]["requests"].as_u64().expect("a count"),
        requests_in_summaries: requests,
    }
}

/// Every state that a kill between two writes of the log can leave: all segments but the last whole, and
/// the last one cut at each record.
fn audit_every_prefix(bench: &Bench) -> Vec<Audit> {
    let spool = spool_directory(&bench.config);
    let mut segments: Vec<PathBuf> = fs::read_dir(&spool)
        .expect("the spool")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0))
        .collect();
    segments.sort();
    let last = segments.pop().expect("a segment");
    let bytes = fs::read(&last).expect("a segment");
    let magic = &bytes[..4];
    let records = (8..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(magic));
    // The first two records are the head of the segment.
    let mut audits = Vec::new();
    for cut in records.skip(1).chain([bytes.len()]) {
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        copy(&bench.config.state_dir, &elsewhere.path().join("state"));
        let config = Config { state_dir: elsewhere.path().join("state"), ..bench.config.clone() };
        let file = spool_directory(&config).join(last.file_name().expect("a name"));
        OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(cut as u64)).expect("cut");
        audits.push(audit(&config, bench.now()));
    }
    audits
}

#[track_caller]
fn assert_sound(audits: &[Audit]) {
    for (number, audit) in audits.iter().enumerate() {
        assert_eq!(audit.lines_read, audit.lines_accounted, "record {number}: {audit:?}");
        assert_eq!(audit.requests_counted, audit.requests_in_summaries, "record {number}: {audit:?}");
    }
}

#[test]
fn a_kill_between_any_two_records_leaves_lines_and_summaries_that_agree() {
    let mut bench = Bench::new(&[("FLUSH_INTERVAL", "5s")]);
    for _ in 0..30 {
        bench.write("a.log", 3);
        bench.tick(370);
    }
    bench.tick(6_000);
    let audits = audit_every_prefix(&bench);
    assert!(audits.len() > 10, "{} records", audits.len());
    assert_sound(&audits);
    assert_eq!(audits.last().map(|audit| audit.lines_read), Some(90));
}

#[test]
fn while_the_spool_refuses_lines_no_summary_overtakes_them() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB"), ("FLUSH_INTERVAL", "5s")]);
    bench.fill();
    for _ in 0..5 {
        bench.write_noise(100);
        bench.tick(370);
        assert_eq!(bench.ledger()["balanced"], true, "{}", bench.ledger());
    }
    assert_sound(&audit_every_prefix(&bench));
    bench.restart();
    bench.tick(10_000);
    assert_sound(&audit_every_prefix(&bench));
}

#[test]
fn the_very_first_start_is_over_with_its_first_tick() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("a.log"), "history\n").expect("a log");
    let mut bench = Bench::in_directory(directory, &[("READ_FROM", "end")]);
    bench.tick(0);
    // Killed before a line came; what is written meanwhile is no history.
    bench.write("a.log", 3);
    bench.write("b.log", 2);
    bench.restart();
    bench.tick(1_000);
    assert_eq!(bench.ledger()["lines"]["read"], 5);
}

#[test]
fn a_full_spool_gets_rid_of_a_batch_that_is_too_large_for_the_destination() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB")]);
    bench.write_noise(2_000);
    bench.fill();
    for _ in 0..200 {
        let seq = bench.pipeline.spool.oldest().expect("a full spool holds batches").id.seq;
        let _ = bench.pipeline.split(bench.now(), seq, 413);
        let next = bench.pipeline.spool.oldest().map(|batch| batch.id.seq);
        assert_ne!(next, Some(seq), "it would be sent again, and be too large again");
        bench.tick(100);
        assert_eq!(bench.ledger()["balanced"], true, "{}", bench.ledger());
    }
}

#[test]
fn a_tick_reads_so_much_however_many_files_there_are_and_none_starves() {
    const FILES: u64 = 20;
    let mut bench = Bench::new(&[("SHIP_LINES", "none")]);
    let line = format!("{}.000 200 \"GET /{} HTTP/1.1\"\n", START_MS / 1000, "x".repeat(900));
    for file in 0..FILES {
        fs::write(bench.path(&format!("{file}.log")), line.repeat(3_000)).expect("a log");
    }
    let begun = |bench: &Bench| bench.pipeline.follower.files().filter(|file| file.offset() > 0).count();
    assert_eq!(bench.tick(0), Activity::Busy);
    assert!(begun(&bench) <= 10, "{} files", begun(&bench));
    bench.tick(0);
    bench.tick(0);
    assert_eq!(begun(&bench), FILES as usize, "each had a turn before one has many");
    while bench.tick(10) == Activity::Busy {}
    assert_eq!(bench.ledger()["lines"]["read"], FILES * 3_000);
}

#[test]
fn while_the_spool_is_full_the_rates_stay_live() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB")]);
    bench.fill();
    for _ in 0..20 {
        bench.write_noise(50);
        bench.tick(1_000);
        let ledger = bench.ledger();
        assert_eq!(ledger["balanced"], true, "{ledger}");
        assert_eq!(ledger["lines"]["read"], bench.written, "{ledger}");
    }
    assert!(bench.pipeline.is_blocked());
    let web = serde_json::Value::clone(&bench.pipeline.board.latest().expect("a tick is through").web);
    assert_eq!(web["windows"]["10s"]["complete"], true, "{web:#}");
    assert_eq!(web["windows"]["10s"]["qps"], 50.0, "{web:#}");
    assert_eq!(web["totals"]["requests"], bench.written, "{web:#}");
    assert_sound(&audit_every_prefix(&bench));
}

#[test]
fn lines_that_were_counted_ahead_are_shipped_once_and_counted_once_through_kills() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB")]);
    bench.fill();
    let mut accepted = 0;
    for round in 0..400 {
        bench.write_noise(if round < 60 { 300 } else { 0 });
        bench.tick(1_000);
        let ledger = bench.ledger();
        assert_eq!(ledger["balanced"], true, "{ledger}");
        // A destination that takes one batch a second, and less than is written.
        accepted += bench.accept_oldest();
        if round % 7 == 6 {
            bench.restart();
        }
    }
    for _ in 0..1_000 {
        accepted += bench.accept_oldest();
        bench.tick(100);
    }
    assert_eq!(accepted, bench.written);
    assert_eq!(bench.pipeline.follower.lines_ahead(), 0);
    let web = serde_json::Value::clone(&bench.pipeline.board.latest().expect("a tick is through").web);
    assert_eq!(web["totals"]["requests"], bench.written, "{web:#}");
    assert_eq!(bench.requests_shipped, bench.written, "in summaries");
}

#[test]
fn a_file_cut_while_its_lines_wait_costs_the_lines_that_were_counted() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB")]);
    bench.fill();
    bench.write_noise(500);
    bench.tick(1_000);
    let ahead = bench.pipeline.follower.lines_ahead();
    assert!(ahead >= 500, "{ahead}");
    fs::write(bench.path("a.log"), "").expect("cut");
    bench.tick(1_000);
    let ledger = bench.ledger();
    assert_eq!(ledger["lines"]["lost"], ahead, "{ledger}");
    assert_eq!(ledger["balanced"], true, "{ledger}");
    bench.write_noise(10);
    bench.tick(1_000);
    assert_eq!(bench.ledger()["lines"]["read"], bench.written);
}

#[test]
fn samples_have_room_of_their_own_and_the_oldest_go_when_too_many_wait() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB")]);
    bench.fill();
    let lost = |bench: &Bench| bench.pipeline.account.lost().map(|(_, loss)| loss.bytes).sum::<u64>();
    let mut random = fastrand::Rng::with_seed(1);
    let mut sample = |bench: &mut Bench| {
        let noise: String = (0..20_000).map(|_| random.alphanumeric()).collect();
        let now = bench.now();
        bench.pipeline.event(now, Event::new("watchpost.test", Severity::Info, noise));
        bench.tick(1_000);
    };
    sample(&mut bench);
    assert_eq!(bench.pipeline.samples.len(), 0, "it went to the disk that lines find full");
    for _ in 0..200 {
        sample(&mut bench);
    }
    let waiting: usize = bench.pipeline.samples.iter().map(|batch| batch.body.len()).sum();
    assert!(waiting <= SAMPLES_BYTES_MAX, "{waiting}");
    assert!(lost(&bench) > 0, "the oldest are counted as lost");
    for _ in 0..500 {
        bench.accept_oldest();
        bench.tick(100);
    }
    assert_eq!(bench.pipeline.samples.len(), 0);
    assert!(!bench.pipeline.is_blocked());
}

#[test]
fn files_that_were_renamed_while_the_spool_was_full_are_found_after_a_kill() {
    let mut bench = Bench::new(&[("SPOOL_MAX", "1MiB")]);
    bench.fill();
    for rotation in 0..4 {
        fs::rename(bench.path("a.log"), bench.path(&format!("a.log.{rotation}"))).expect("renamed");
        bench.write_noise(10);
        bench.tick(1_000);
    }
    // The file that was being read loses its beginning, too.
    fs::write(bench.path("a.log.0"), "").expect("truncated");
    bench.restart();
    bench.tick(1_000);
    assert_eq!(bench.pipeline.follower.files().count(), 5);
}

#[test]
fn a_busy_log_stays_busy_however_often_the_doorbell_rings() {
    let start = Instant::now();
    let at = |passed_ms| start + Duration::from_millis(passed_ms);
    let due = next_look(Activity::Active, start, None, start);
    assert_eq!(due, start + ACTIVE_INTERVAL);
    for rung_ms in [1, 5, 199] {
        assert_eq!(next_look(Activity::Idle, due, None, at(rung_ms)), due, "woken after {rung_ms} ms");
    }
    assert_eq!(next_look(Activity::Idle, due, None, at(200)), at(200) + IDLE_INTERVAL);
    assert_eq!(next_look(Activity::Busy, due, None, at(1)), at(1));
}

/// However quiet the log is, its line is in a batch one flush interval after it was written, at the latest.
#[test]
fn a_line_waits_for_the_flush_interval_and_no_longer() {
    const FLUSH_MS: u64 = 1_000;
    let mut bench = Bench::new(&[("SUMMARY_INTERVAL", "60s")]);
    bench.tick(0);
    // Written just behind one look, found by the next.
    bench.write("a.log", 1);
    let written = bench.now().monotonic;
    let activity = bench.tick(990);
    assert_eq!((bench.pipeline.spool.status().appended_lines, activity), (0, Activity::Active));

    let now = bench.now().monotonic;
    let look = next_look(activity, now, bench.pipeline.lines_due(), now);
    assert_eq!(look, written + Duration::from_millis(FLUSH_MS), "the agent is woken for it");
    bench.tick(10);
    assert_eq!(bench.pipeline.spool.status().appended_lines, 1);
    assert_eq!(bench.pipeline.lines_due(), None, "nothing is left to be woken for");
}

/// Case 35 of following a file, the agent's side: the wall clock is set back and forth, and no line is lost, counted
/// twice or held up by it.
#[test]
fn case_35_the_wall_clock_jumps() {
    const DAY_MS: i64 = 86_400_000;
    let mut bench = Bench::new(&[]);
    bench.write("a.log", 3);
    bench.tick(1_000);
    for jump_ms in [-DAY_MS, 400 * DAY_MS, -3_600_000, -390 * DAY_MS, 1] {
        bench.begun.wall += jump_ms;
        let before = bench.written;
        bench.write("a.log", 3);
        fs::rename(bench.path("a.log"), bench.path(&format!("a.log.{before}"))).expect("renamed");
        bench.write("a.log", 2);
        bench.tick(1_000);
        assert_eq!(bench.ledger()["lines"]["read"], bench.written, "after a jump of {jump_ms} ms");
        bench.restart();
        bench.tick(1_000);
        assert_eq!(bench.ledger()["balanced"], true, "{}", bench.ledger());
    }
    bench.tick(10_000);
    assert_eq!(bench.ledger()["lines"]["read"], bench.written);
    let web = serde_json::Value::clone(&bench.pipeline.board.latest().expect("a tick is through").web);
    assert_eq!(web["totals"]["requests"], bench.written, "{web:#}");
}
