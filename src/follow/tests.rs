//! The follower against real files in a directory of its own: what is written is what is handed out, once.

mod cases;
mod counted;
mod listed;
mod moved;
mod search;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::counted::CountedFiles;
use super::*;

/// A directory with a follower over it, and a clock that the test moves.
pub(super) struct Bench {
    pub(super) directory: tempfile::TempDir,
    pub(super) follower: Follower,
    pub(super) now: Instant,
    pub(super) lines: Vec<String>,
}

impl Bench {
    pub(super) fn new(patterns: &[&str]) -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = options(&directory, patterns, false);
        let follower = Follower::new(Arc::new(HostFiles), options, std::iter::empty(), true);
        Bench { directory, follower, now: Instant::now(), lines: Vec::new() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file =
            OpenOptions::new().create(true).append(true).open(self.path(name)).expect("a log to write");
        file.write_all(text.as_ref()).expect("written");
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    /// Scans and reads everything there is.
    pub(super) fn poll(&mut self) {
        self.now += Duration::from_secs(1);
        self.follower.scan(self.now);
        for id in self.follower.ids() {
            let lines = &mut self.lines;
            while self
                .follower
                .turn(id, 1 << 20, self.now, &mut |line| {
                    let mark = if line.partial { "~" } else { "" };
                    let cut = if line.cut { "…" } else { "" };
                    lines.push(format!("{}{cut}{mark}", String::from_utf8_lossy(line.bytes)));
                    Flow::Continue
                })
                .more
            {}
        }
    }

    pub(super) fn taken(&mut self) -> Vec<String> {
        self.poll();
        std::mem::take(&mut self.lines)
    }

    /// A new process with what the old one made durable.
    pub(super) fn restart(&mut self, patterns: &[&str], saved: &[StateChange]) {
        let entries = saved.iter().filter_map(|(key, value)| Some((key.as_slice(), value.as_deref()?)));
        self.follower =
            Follower::new(Arc::new(HostFiles), options(&self.directory, patterns, false), entries, false);
    }

    pub(super) fn positions(&mut self) -> Vec<StateChange> {
        for file in self.follower.files.values_mut() {
            file.dirty = true;
        }
        self.follower.changes()
    }
}

fn options(directory: &tempfile::TempDir, patterns: &[&str], at_end: bool) -> Options {
    let patterns = patterns.iter().map(|name| directory.path().join(name).display().to_string()).collect();
    Options { patterns, first_start_at_end: at_end }
}

#[test]
fn whole_lines_only_and_each_once() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "one\r\ntwo\nhal");
    assert_eq!(bench.taken(), ["one", "two"]);
    assert_eq!(bench.taken(), [""; 0]);
    bench.append("a.log", "f\n\nend\n");
    assert_eq!(bench.taken(), ["half", "", "end"]);
}

#[test]
fn a_stop_in_the_middle_goes_on_at_the_next_line() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n2\n3\n");
    bench.follower.scan(bench.now);
    let id = bench.follower.ids()[0];
    let turn = bench.follower.turn(id, 1 << 20, bench.now, &mut |_| Flow::Stop);
    assert!(turn.more && turn.lines == 1);
    let saved = bench.positions();
    assert_eq!(bench.taken(), ["2", "3"]);
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), ["2", "3"], "the position of the stop is what was saved");
}

#[test]
fn a_refused_line_comes_again_however_long_it_is() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", format!("1\n{}\n3\n", "2".repeat(1_000_000)));
    bench.follower.scan(bench.now);
    let id = bench.follower.ids()[0];
    let mut seen = Vec::new();
    for _ in 0..6 {
        bench.follower.turn(id, 1 << 20, bench.now, &mut |line| {
            seen.push(line.bytes[0]);
            if seen.len() % 2 == 1 { Flow::Refuse } else { Flow::Stop }
        });
    }
    assert_eq!(seen, b"112233");
    assert_eq!(bench.taken(), [""; 0]);
}

#[test]
fn a_renamed_file_is_read_while_its_writer_holds_it_and_closed_after_the_grace() {
    let mut bench = Bench::new(&["a.log"]);
    let mut held = OpenOptions::new().create(true).append(true).open(bench.path("a.log")).expect("open");
    writeln!(held, "before").expect("write");
    assert_eq!(bench.taken(), ["before"]);
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "new file\n");
    writeln!(held, "late to the old file").expect("write");
    assert_eq!(bench.taken(), ["late to the old file", "new file"]);
    bench.now += ROTATE_GRACE - Duration::from_secs(5);
    write!(held, "after a pause, no newline").expect("write");
    assert_eq!(bench.taken(), [""; 0]);
    bench.now += ROTATE_GRACE;
    assert_eq!(bench.taken(), ["after a pause, no newline~"]);
    assert_eq!(bench.follower.ids().len(), 1);
    let closed =
        bench.follower.take_notices().into_iter().any(|notice| matches!(notice, Notice::Closed { .. }));
    assert!(closed);
    let positions = bench.follower.changes().into_iter().filter_map(|(_, value)| Position::decode(&value?));
    assert!(
        positions.into_iter().any(|position| position.is_closed),
        "it is remembered as one that was read"
    );
}

#[test]
fn what_workers_flush_into_a_log_at_its_rotation_is_read_however_quiet_it_was() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    assert_eq!(bench.taken(), ["1"]);
    bench.now += ROTATE_GRACE * 2;
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "");
    assert_eq!(bench.taken(), [""; 0]);
    bench.append("a.log.1", "2\n");
    bench.append("a.log", "3\n");
    assert_eq!(bench.taken(), ["2", "3"]);
    bench.now += ROTATE_GRACE;
    bench.poll();
    assert_eq!(bench.follower.ids().len(), 1, "closed after the grace");
}

#[test]
fn a_moved_file_without_successor_is_followed_on() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    bench.rename("a.log", "elsewhere");
    bench.now += ROTATE_GRACE * 10;
    assert_eq!(bench.taken(), [""; 0]);
    bench.append("elsewhere", "2\n");
    assert_eq!(bench.taken(), ["2"]);
}

#[test]
fn a_rotated_name_inside_the_pattern_is_not_read_again() {
    let mut bench = Bench::new(&["a.log*"]);
    bench.append("a.log", "1\n");
    assert_eq!(bench.taken(), ["1"]);
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    assert_eq!(bench.taken(), ["2"]);
    bench.now += ROTATE_GRACE * 2;
    assert_eq!(bench.taken(), [""; 0]);
    bench.append("a.log.1", "late\n");
    assert_eq!(bench.taken(), ["late"]);
}

#[test]
fn truncation_begins_anew_and_counts_what_is_gone() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "read\n");
    bench.taken();
    bench.append("a.log", "seen but not complete");
    bench.taken();
    File::create(bench.path("a.log")).expect("truncated");
    bench.append("a.log", "x\n");
    assert_eq!(bench.taken(), ["x"]);
    let lost: Vec<u64> = bench
        .follower
        .take_notices()
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::Rewritten { lost, .. } => Some(lost.bytes),
            _ => None,
        })
        .collect();
    assert_eq!(lost, ["seen but not complete".len() as u64]);
}

#[test]
fn a_file_rewritten_longer_than_the_position_is_noticed() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "first content\n");
    bench.taken();
    fs::write(bench.path("a.log"), "other content that is longer\nand more\n").expect("rewritten in place");
    assert_eq!(bench.taken(), ["other content that is longer", "and more"]);
}

#[test]
fn removed_and_recreated_is_a_new_file_even_on_the_same_inode() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "old\n");
    bench.taken();
    let saved = bench.positions();
    bench.restart(&["nothing"], &[]);
    fs::remove_file(bench.path("a.log")).expect("removed");
    bench.append("a.log", "new\n");
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), ["new"]);
}

#[test]
fn an_unlinked_file_is_read_to_its_end() {
    let mut bench = Bench::new(&["a.log"]);
    let mut held = OpenOptions::new().create(true).append(true).open(bench.path("a.log")).expect("open");
    bench.taken();
    fs::remove_file(bench.path("a.log")).expect("removed");
    writeln!(held, "last words").expect("write");
    assert_eq!(bench.taken(), ["last words"]);
    bench.now += ROTATE_GRACE * 2;
    bench.poll();
    assert!(bench.follower.ids().is_empty());
}

#[test]
fn resumes_after_a_restart_also_when_the_file_was_rotated_meanwhile() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    let saved = bench.positions();
    bench.append("a.log", "2\n");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "3\n");
    bench.restart(&["a.log"], &saved);
    let mut lines = bench.taken();
    lines.sort();
    assert_eq!(lines, ["2", "3"]);
}

#[test]
fn files_that_came_and_went_between_two_looks_are_read() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    assert_eq!(bench.taken(), ["1"]);
    bench.append("a.log", "2\n");
    bench.rename("a.log", "a.log.2");
    bench.append("a.log", "3\n");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "4\n");
    assert_eq!(bench.taken(), ["2", "3", "4"], "oldest first");
    bench.now += ROTATE_GRACE * 2;
    assert_eq!(bench.taken(), [""; 0]);
    assert_eq!(bench.follower.ids().len(), 1, "the rotated ones are closed");
    bench.append("a.log", "5\n");
    assert_eq!(bench.taken(), ["5"]);
}

#[test]
fn a_rotated_file_that_is_being_compressed_is_no_log() {
    let mut bench = Bench::new(&["a.log*"]);
    let mut exact = Bench::new(&["a.log"]);
    for bench in [&mut bench, &mut exact] {
        bench.append("a.log", "1\n");
        assert_eq!(bench.taken(), ["1"]);
        bench.rename("a.log", "a.log.1");
        // The compressor has made its file and written nothing of it yet.
        bench.append("a.log.1.gz", "");
        bench.append("a.log", "2\n");
        assert_eq!(bench.taken(), ["2"]);
        bench.append("a.log.1.gz", [0x1f, 0x8b, 8, b'\n', 9, b'\n']);
        fs::remove_file(bench.path("a.log.1")).expect("removed");
        bench.append("a.log", "3\n");
        assert_eq!(bench.taken(), ["3"]);
    }
}

/// The least time in which all of `count` quiet files are asked for lines.
fn turns_of(count: u32) -> Duration {
    let mut bench = Bench::new(&["*.log"]);
    for number in 0..count {
        bench.append(&format!("{number}.log"), "");
    }
    bench.poll();
    let ids = bench.follower.ids();
    assert_eq!(ids.len(), count as usize);
    let mut ask_all = || {
        let began = Instant::now();
        for id in &ids {
            bench.follower.turn(*id, 1 << 20, bench.now, &mut |_| Flow::Continue);
        }
        began.elapsed()
    };
    (0..5).map(|_| ask_all()).min().expect("asked five times")
}

#[test]
fn a_quiet_file_costs_the_same_among_many() {
    // Were the others looked through for each file, a turn of it would take 32 times as long.
    let (among_few, among_many) = (turns_of(20) / 20, turns_of(640) / 640);
    assert!(among_many < among_few * 8, "{among_few:?} a file among 20, {among_many:?} among 640");
}

/// What the first look after `count` logs of one directory were rotated asks for, by the same process or by the next.
fn look_after_rotation_of(count: u64, restarts: bool) -> u64 {
    let host = CountedFiles::default();
    let mut bench = Bench::new(&["*.log"]);
    bench.follower.host = Arc::new(host.clone());
    for number in 0..count {
        bench.append(&format!("{number}.log"), "1\n");
    }
    assert_eq!(bench.taken().len() as u64, count);
    let saved = bench.positions();
    for number in 0..count {
        let name = format!("{number}.log");
        bench.rename(&name, &format!("{name}.1"));
        bench.append(&name, "2\n");
    }
    if restarts {
        bench.restart(&["*.log"], &saved);
        bench.follower.host = Arc::new(host.clone());
    }
    host.asked.store(0, Ordering::Relaxed);
    bench.follower.scan(bench.now);
    let asked = host.asked.load(Ordering::Relaxed);
    assert_eq!(bench.taken(), vec!["2"; count as usize]);
    asked
}

#[test]
fn a_rotation_costs_the_same_among_many() {
    for restarts in [false, true] {
        let (few, many) =
            (look_after_rotation_of(20, restarts) / 20, look_after_rotation_of(320, restarts) / 320);
        assert!(many <= few + 1, "restarts: {restarts}; {few} a file of 20, {many} a file of 320");
    }
}

#[test]
fn several_rotations_while_nobody_looked_are_caught_up() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    let saved = bench.positions();
    bench.append("a.log", "2\n");
    bench.rename("a.log", "a.log.3");
    bench.append("a.log", "3\n");
    bench.rename("a.log", "a.log-20261123");
    bench.append("a.log", "4\n");
    bench.append("a.log.old.gz", [0x1f, 0x8b, 8, 0]);
    bench.restart(&["a.log"], &saved);
    let mut lines = bench.taken();
    lines.sort();
    assert_eq!(lines, ["2", "3", "4"]);
    let saved = bench.positions();
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), [""; 0], "and not again after the next start");
}

#[test]
fn a_copy_of_the_log_is_not_taken_for_a_rotated_one() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    fs::copy(bench.path("a.log"), bench.path("a.log.bak")).expect("copied");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    assert_eq!(bench.taken(), ["2"]);
}

#[test]
fn a_pattern_that_is_gone_is_forgotten() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    let saved = bench.positions();
    bench.append("a.log", "2\n");
    bench.restart(&["b.log"], &saved);
    assert_eq!(bench.taken(), [""; 0]);
    assert!(bench.follower.ids().is_empty());
}

#[test]
fn the_very_first_start_may_begin_at_the_end_and_later_files_are_read_whole() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("old.log", "history\nunfinished");
    bench.follower = Follower::new(
        Arc::new(HostFiles),
        options(&bench.directory, &["*.log"], true),
        std::iter::empty(),
        true,
    );
    assert_eq!(bench.taken(), [""; 0]);
    bench.append("old.log", " line\n");
    bench.append("young.log", "whole\n");
    let mut lines = bench.taken();
    lines.sort();
    assert_eq!(lines, ["unfinished line", "whole"]);
}

#[test]
fn a_very_long_line_is_cut_counted_once_and_the_next_one_is_whole() {
    let mut bench = Bench::new(&["a.log"]);
    let long = "x".repeat(2_000_000);
    bench.append("a.log", format!("before\n{long}"));
    assert_eq!(bench.taken(), ["before"]);
    bench.append("a.log", format!("{long}\nafter\n"));
    let lines = bench.taken();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].len(), LINE_BYTES_MAX + "…".len());
    assert_eq!(lines[1], "after");
}

#[test]
fn what_is_not_a_text_file_is_named_and_hides_nothing() {
    let mut bench = Bench::new(&["*.log", "late.txt"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.path("fifo.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a fifo");
    fs::create_dir(bench.path("directory.log")).expect("a directory");
    std::os::unix::fs::symlink("nowhere", bench.path("dangling.log")).expect("a symlink");
    bench.append("packed.log", [0x1f, 0x8b, 8, 0]);
    bench.append("good.log", "line\n");
    assert_eq!(bench.taken(), ["line"]);
    let states: Vec<&str> = bench.follower.blocked().values().map(|blocked| blocked.state).collect();
    assert_eq!(states, ["missing", "not_a_file", "not_a_file", "missing", "compressed"]);
    bench.append("late.txt", "born later\n");
    assert_eq!(bench.taken(), ["born later"]);
}

#[test]
fn a_pattern_that_cannot_be_listed_is_named_and_hides_no_other() {
    let mut bench = Bench::new(&["a***b", "*.log"]);
    bench.append("good.log", "line\n");
    assert_eq!(bench.taken(), ["line"]);
    for _ in 0..2 {
        bench.poll();
        let blocked: Vec<_> = bench.follower.blocked().iter().collect();
        assert_eq!(blocked.len(), 1, "{blocked:?}");
        assert!(blocked[0].0.ends_with("a***b") && blocked[0].1.state == "unreadable", "{blocked:?}");
    }
}

#[test]
fn an_unreadable_file_is_read_whole_once_it_may_be() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything: a directory in the place of the file stands for what cannot be read.
        let mut bench = Bench::new(&["a.log"]);
        fs::create_dir(bench.path("a.log")).expect("a directory");
        assert_eq!(bench.taken(), [""; 0]);
        assert_eq!(bench.follower.blocked().len(), 1);
        fs::remove_dir(bench.path("a.log")).expect("removed");
        bench.append("a.log", "now\n");
        assert_eq!(bench.taken(), ["now"]);
        return;
    }
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    fs::set_permissions(bench.path("a.log"), fs::Permissions::from_mode(0o000)).expect("chmod");
    assert_eq!(bench.taken(), [""; 0]);
    assert_eq!(bench.follower.blocked().values().next().map(|blocked| blocked.state), Some("unreadable"));
    fs::set_permissions(bench.path("a.log"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(bench.taken(), ["1"]);
}

#[test]
fn hard_links_and_symlinks_to_one_file_are_read_once() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "1\n");
    fs::hard_link(bench.path("a.log"), bench.path("b.log")).expect("a link");
    std::os::unix::fs::symlink("a.log", bench.path("c.log")).expect("a symlink");
    assert_eq!(bench.taken(), ["1"]);
    bench.append("b.log", "2\n");
    assert_eq!(bench.taken(), ["2"]);
}

#[test]
fn a_line_longer_than_a_turn_takes_several_turns() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "x".repeat(10_000_000));
    bench.follower.scan(bench.now);
    let id = bench.follower.ids()[0];
    let turn = bench.follower.turn(id, 1 << 20, bench.now, &mut |_| Flow::Continue);
    assert!(turn.more && turn.bytes < 2 << 20, "{turn:?}");
    bench.append("a.log", "\nnext\n");
    let lines = bench.taken();
    assert_eq!((lines.len(), lines[1].as_str()), (2, "next"));
}

#[test]
fn a_file_rewritten_to_the_same_size_is_noticed() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "one\ntwo\n");
    bench.taken();
    let time = fs::metadata(bench.path("a.log")).and_then(|metadata| metadata.modified()).expect("a time");
    fs::write(bench.path("a.log"), "six\nten\n").expect("rewritten in place");
    let file = OpenOptions::new().write(true).open(bench.path("a.log")).expect("open");
    file.set_modified(time + Duration::from_secs(1)).expect("a later time");
    assert_eq!(bench.taken(), ["six", "ten"]);
}

#[test]
fn a_position_survives_a_directory_that_is_not_mounted_yet() {
    let mut bench = Bench::new(&["logs/a.log"]);
    fs::create_dir(bench.path("logs")).expect("a directory");
    bench.append("logs/a.log", "1\n");
    bench.taken();
    let saved = bench.positions();
    bench.append("logs/a.log", "2\n");
    bench.rename("logs", "elsewhere");
    bench.restart(&["logs/a.log"], &saved);
    assert_eq!(bench.taken(), [""; 0]);
    fs::create_dir(bench.path("logs")).expect("a mount point");
    assert_eq!(bench.taken(), [""; 0]);
    fs::remove_dir(bench.path("logs")).expect("removed");
    bench.rename("elsewhere", "logs");
    assert_eq!(bench.taken(), ["2"]);
}
