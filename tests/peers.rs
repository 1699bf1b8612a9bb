//! The failures of other agents, re-enacted: outages, kills, rotations and a full disk, in the timelines in which Vector,
//! fluent-bit, syslog-ng and rsyslog were measured. `docs/peers.md` says which of them lost what.
//!
//! `WATCHPOST_TEST_PEERS=full` runs the timelines at their full length; by default they are a fifth as long. Each scenario
//! prints one row.

pub(crate) mod rig;

use std::fs;
use std::time::Duration;

use rig::{Scenario, SmallDisk, Tally, Writer, compress, numbered, tally, wait_spool, write_log};

use crate::support::{number, wait_out};

/// The pace at which the peers were measured.
const LINES_PER_SECOND: u64 = 2_000;

/// Of the timelines' length, unless the full one is asked for.
const SHORT: f64 = 0.2;

/// The most memory that any scenario may take.
const PEAK_KIB_MAX: u64 = 64 * 1024;

fn is_full() -> bool {
    std::env::var("WATCHPOST_TEST_PEERS").is_ok_and(|text| text == "full")
}

fn scenario(name: &'static str, behind_name: &str) -> Scenario {
    Scenario::new("peers", name, if is_full() { 1.0 } else { SHORT }, behind_name)
}

/// Starts the agent, the writer, and, once the first lines have arrived, the timeline.
fn begin(scenario: &mut Scenario) -> Writer {
    scenario.agent.start();
    let writer = Writer::start(&scenario.log, LINES_PER_SECOND);
    scenario.agent.wait_status("the first lines", |status| number(status, "/ledger/lines/shipped") > 0);
    scenario.begin();
    writer
}

/// Sink down from 10 s to 30 s, renamed at 15 s, killed at 20 s, started at 22 s, copied and truncated at 35 s.
fn play_outage(name: &'static str, behind_name: &str) {
    let mut scenario = scenario(name, behind_name);
    let writer = begin(&mut scenario);
    scenario.wait_until(10.0);
    scenario.sink_down();
    scenario.wait_until(15.0);
    writer.rename_and_create();
    scenario.wait_until(20.0);
    scenario.kill();
    scenario.wait_until(22.0);
    scenario.agent.start();
    scenario.wait_until(30.0);
    scenario.sink_up();
    scenario.wait_until(35.0);
    writer.copy_and_truncate();
    scenario.wait_until(40.0);
    let written = writer.finish();
    scenario.judge(written);
}

#[test]
fn outage_with_kill_rename_and_copytruncate_loses_and_repeats_nothing() {
    play_outage("outage", "");
}

#[test]
fn outage_with_the_rotated_names_in_the_pattern_reads_no_copy_twice() {
    play_outage("outage, pattern access.log*", "*");
}

#[test]
fn ten_kills_at_two_thousand_lines_a_second_lose_nothing() {
    let mut scenario = scenario("kill10", "");
    let writer = begin(&mut scenario);
    for kill in 1..=10 {
        scenario.wait_until(3.2 * f64::from(kill));
        scenario.kill();
        scenario.agent.start();
    }
    let written = writer.finish();
    scenario.judge(written);
}

#[test]
fn a_kill_in_the_middle_of_a_backlog_loses_nothing() {
    let lines = if is_full() { 400_000 } else { 100_000 };
    let mut scenario = scenario("kill_backlog", "");
    write_log(&scenario.log, lines, 0);
    scenario.agent.start();
    scenario.wait_read(lines / 10);
    scenario.kill();
    scenario.agent.start();
    scenario.drain_from_now();
    let status = scenario.agent.status();
    assert!(number(&status, "/ledger/lines/shipped") < lines, "killed too late: {}", status["ledger"]);
    scenario.judge(lines);
}

#[test]
fn a_rename_while_the_agent_is_dead_loses_nothing() {
    let mut scenario = scenario("rot_dead", "");
    let writer = begin(&mut scenario);
    scenario.wait_until(10.0);
    scenario.kill();
    scenario.wait_until(11.0);
    writer.rename_and_create();
    scenario.wait_until(12.0);
    scenario.agent.start();
    scenario.wait_until(20.0);
    let written = writer.finish();
    scenario.judge(written);
}

/// Rotates so many times while the agent is dead, and compresses each rotated file at once.
fn play_compressed(name: &'static str, behind_name: &str, rotations: u32) {
    let mut scenario = scenario(name, behind_name);
    let writer = begin(&mut scenario);
    scenario.wait_until(8.0);
    scenario.kill();
    for rotation in 1..=rotations {
        scenario.wait_until(8.0 + f64::from(rotation) * 2.0);
        writer.rename_and_create();
        compress(&numbered(&scenario.log, 1, ""));
    }
    scenario.wait_until(10.0 + f64::from(rotations) * 2.0);
    scenario.agent.start();
    scenario.wait_until(14.0 + f64::from(rotations) * 2.0);
    let written = writer.finish();
    scenario.judge(written);
}

#[test]
fn a_rotation_and_compression_while_the_agent_is_dead_loses_nothing() {
    play_compressed("rot_dead, compressed", "", 1);
}

#[test]
fn three_rotations_and_compressions_while_the_agent_is_dead_lose_nothing() {
    play_compressed("rot_dead, three times compressed", "", 3);
}

#[test]
fn compressed_files_inside_the_pattern_are_read_once() {
    play_compressed("rot_dead, three times compressed, pattern access.log*", "*", 3);
}

/// Copied and truncated at five odd moments, at the tail.
fn play_copytruncate(name: &'static str, behind_name: &str) {
    let mut scenario = scenario(name, behind_name);
    let writer = begin(&mut scenario);
    for second in [3.1, 6.7, 7.9, 13.3, 18.7] {
        scenario.wait_until(second);
        writer.copy_and_truncate();
    }
    scenario.wait_until(20.0);
    let written = writer.finish();
    scenario.judge(written);
}

#[test]
fn five_copytruncates_at_odd_moments_lose_nothing() {
    play_copytruncate("copytruncate", "");
}

#[test]
fn copies_of_the_log_inside_the_pattern_are_not_read_twice() {
    play_copytruncate("copytruncate, pattern access.log*", "*");
}

#[test]
fn a_copytruncate_while_the_agent_is_dead_loses_nothing() {
    let mut scenario = scenario("copytruncate, dead", "");
    let writer = begin(&mut scenario);
    scenario.wait_until(6.0);
    scenario.kill();
    scenario.wait_until(8.0);
    writer.copy_and_truncate();
    scenario.wait_until(10.0);
    scenario.agent.start();
    scenario.wait_until(14.0);
    let written = writer.finish();
    scenario.judge(written);
}

/// A truncated log may grow beyond the position before the next look: the size alone would not tell.
#[test]
fn a_log_that_outgrows_its_position_after_a_copytruncate_loses_nothing() {
    let mut scenario = scenario("copytruncate, outgrown", "");
    let writer = begin(&mut scenario);
    scenario.wait_until(3.0);
    scenario.kill();
    writer.copy_and_truncate();
    scenario.wait_until(12.0);
    scenario.agent.start();
    scenario.wait_until(15.0);
    let written = writer.finish();
    scenario.judge(written);
}

/// What stands in the log of the scenarios on a small disk, and the disk.
struct Small {
    scenario: Scenario,
    disk: SmallDisk,
    lines: u64,
}

/// The state on a file system of 8 MB, the sink down, and more waiting in the log than the disk can take.
fn fill_small_disk(name: &'static str) -> Option<Small> {
    const DISK_MIB: u64 = 8;
    // Short runs make up for the missing lines by lines that compress badly.
    let (lines, noise) = if is_full() { (1_000_000, 24) } else { (100_000, 160) };
    let mut scenario = scenario(name, "");
    let state = scenario.log.with_file_name("state");
    let disk = SmallDisk::mount(&state, DISK_MIB)?;
    scenario.sink_down();
    write_log(&scenario.log, lines, noise);
    scenario.agent.start();
    wait_spool(&scenario.agent, "the disk to be full", |spool| spool["state"] != "ok");
    Some(Small { scenario, disk, lines })
}

/// What the agent says and takes while it can do nothing.
fn stay_full(scenario: &Scenario) {
    let before = rig::cpu_s(scenario.agent.id());
    let seconds = if is_full() { 40 } else { 4 };
    wait_out(Duration::from_secs(seconds));
    let status = scenario.agent.status();
    assert_ne!(status["spool"]["state"], "ok", "{}", status["spool"]);
    assert_eq!(number(&status, "/ledger/lines/lost"), 0, "{}", status["ledger"]);
    let cpu_s = rig::cpu_s(scenario.agent.id()) - before;
    println!(
        "peers | {} | {cpu_s:.2} CPU s in {seconds} s with the disk full | {}",
        scenario.name(),
        status["spool"]
    );
    assert!(cpu_s < seconds as f64 * 0.5, "it does not spin: {cpu_s} CPU s in {seconds} s");
    let said = scenario.agent.output().lines().count();
    assert!(said < 200, "said once and not at every try, but {said} lines");
}

#[test]
fn a_full_disk_of_eight_megabytes_drains_by_itself_when_the_sink_is_back() {
    let Some(mut small) = fill_small_disk("full disk, sink back") else { return };
    stay_full(&small.scenario);
    small.scenario.sink_up();
    let outcome = small.scenario.judge(small.lines);
    assert!(outcome.peak_kib < PEAK_KIB_MAX, "{} KiB", outcome.peak_kib);
}

#[test]
fn a_full_disk_goes_on_by_itself_when_space_is_added_even_after_a_kill() {
    let Some(mut small) = fill_small_disk("full disk, kill, space added") else { return };
    small.scenario.kill();
    small.scenario.agent.start();
    stay_full(&small.scenario);
    let full = number(&small.scenario.agent.status(), "/spool/bytes");
    small.disk.grow(64);
    wait_spool(&small.scenario.agent, "the spool to take the new space", |spool| {
        number(spool, "/bytes") > full + (1 << 20)
    });
    small.scenario.sink_up();
    let outcome = small.scenario.judge(small.lines);
    assert!(outcome.peak_kib < PEAK_KIB_MAX, "{} KiB", outcome.peak_kib);
}

/// The control of every scenario: the count sees what is missing, doubled, torn or glued together.
#[test]
fn the_count_of_what_arrived_can_fail() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let record = |number: u64| {
        let log = rig::line(number, "time", "");
        serde_json::json!({ "timestamp": 1, "log": log.trim_end() }).to_string() + "\n"
    };
    let count = |text: &str| {
        // As the agent writes it: the time first.
        let text = text.replace("{\"log\":", "{\"timestamp\":1,\"log\":").replace(",\"timestamp\":1}", "}");
        fs::write(directory.path().join("watchpost_nginx_access.ndjson"), text).expect("a store");
        tally(directory.path(), 3)
    };
    let all: String = (0..3).map(record).collect();
    assert_eq!(count(&all), Tally::default());
    assert_eq!(count(&(all.clone() + &record(1))).twice, 1);
    assert_eq!(count(&(record(0) + &record(2))).missing, [1]);
    assert_eq!(count(&(all.clone() + &record(3))).foreign, 1, "a number that was never written");
    let torn = record(1).replace(" peer/1", " peer/2");
    let count = count(&(record(0) + &torn + &record(2)));
    assert_eq!(count, Tally { missing: vec![1], twice: 0, foreign: 1 });
}
