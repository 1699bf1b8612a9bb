//! The follower against logs that are copied, truncated, compressed, replaced and lost: each line once, each loss said.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

impl Bench {
    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).expect("copied");
    }

    fn truncate(&self, name: &str) {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("a log");
        file.set_len(0).expect("truncated");
    }

    /// What logrotate's copytruncate does, with the names moved up.
    fn copytruncate(&self, name: &str) {
        let rotated = |number: u32| format!("{name}.{number}");
        for number in (1..9).rev().filter(|number| self.path(&rotated(*number)).exists()) {
            self.rename(&rotated(number), &rotated(number + 1));
        }
        self.copy(name, &rotated(1));
        self.truncate(name);
    }

    /// What gzip does: the time of the last write goes with the bytes, and the plain file goes away.
    fn gzip(&self, name: &str) {
        let bytes = fs::read(self.path(name)).expect("a rotated log");
        let modified =
            fs::metadata(self.path(name)).and_then(|metadata| metadata.modified()).expect("a time");
        let packed = File::create(self.path(&format!("{name}.gz"))).expect("a gzip file");
        let mut encoder = GzEncoder::new(packed, Compression::fast());
        encoder.write_all(&bytes).expect("packed");
        encoder.finish().expect("finished").set_modified(modified).expect("a time");
        fs::remove_file(self.path(name)).expect("removed");
    }

    /// Lets the time of the last write of later files be another.
    fn age(&self, name: &str, seconds: u64) {
        let file = OpenOptions::new().append(true).open(self.path(name)).expect("a log");
        let time = std::time::SystemTime::now() - Duration::from_secs(seconds);
        file.set_modified(time).expect("an older time");
    }

    fn sorted(&mut self) -> Vec<String> {
        let mut lines = self.taken();
        lines.sort();
        lines
    }

    /// Polls for longer than anything is held back or waited for.
    pub(super) fn outwait(&mut self) -> Vec<String> {
        for _ in 0..4 {
            self.now += COPY_GRACE / 2;
            self.poll();
        }
        std::mem::take(&mut self.lines)
    }

    /// The bytes and ranges of the losses that were told since the last call.
    fn losses(&mut self) -> Vec<(u64, u64)> {
        let notices = self.follower.take_notices().into_iter();
        let range = |notice| match notice {
            Notice::Rewritten { lost, range, .. } | Notice::Vanished { lost, range, .. } => {
                (lost.bytes > 0).then_some((range.start, range.end))
            }
            _ => None,
        };
        notices.filter_map(range).collect()
    }
}

const LONG: &str =
    "a line that is long enough to make the beginning of a log telling, if there are some of it\n";

/// More than the head of a file covers, and no line twice.
fn many(from: usize, to: usize) -> String {
    (from..to).map(|number| format!("{number} {LONG}")).collect()
}

#[test]
fn copytruncate_loses_nothing_that_the_copy_holds() {
    for patterns in [["a.log"], ["a.log*"]] {
        let mut bench = Bench::new(&patterns);
        bench.append("a.log", "1\n");
        assert_eq!(bench.taken(), ["1"]);
        bench.append("a.log", "2\n");
        bench.copytruncate("a.log");
        bench.append("a.log", "3\n");
        assert_eq!(bench.taken(), ["2", "3"], "{patterns:?}");
        bench.append("a.log", "4\n");
        bench.copytruncate("a.log");
        bench.append("a.log", "a longer line than any that was there before\n");
        assert_eq!(bench.taken(), ["4", "a longer line than any that was there before"], "{patterns:?}");
        assert_eq!(bench.losses(), [], "{patterns:?}");
        assert_eq!(bench.outwait(), [""; 0], "{patterns:?}");
    }
}

#[test]
fn copytruncate_while_nobody_looked_is_caught_up() {
    for patterns in [["a.log"], ["a.log*"]] {
        let mut bench = Bench::new(&patterns);
        bench.append("a.log", "1\n");
        bench.taken();
        let saved = bench.positions();
        bench.append("a.log", "2\n");
        bench.copytruncate("a.log");
        bench.append("a.log", "3\n");
        bench.copytruncate("a.log");
        bench.append("a.log", "4\n");
        bench.restart(&patterns, &saved);
        let mut lines = bench.taken();
        lines.extend(bench.outwait());
        assert_eq!(lines, ["2", "3", "4"], "{patterns:?}");
        let saved = bench.positions();
        bench.restart(&patterns, &saved);
        assert_eq!(bench.outwait(), [""; 0], "{patterns:?}");
    }
}

#[test]
fn copytruncate_and_compress_is_read_from_the_gzip_file() {
    for restarts in [false, true] {
        let mut bench = Bench::new(&["a.log*"]);
        bench.append("a.log", "1\n");
        bench.taken();
        let saved = bench.positions();
        bench.append("a.log", "2\n");
        bench.copytruncate("a.log");
        bench.gzip("a.log.1");
        bench.append("a.log", "3\n");
        if restarts {
            bench.restart(&["a.log*"], &saved);
        }
        let mut lines = bench.taken();
        lines.extend(bench.outwait());
        assert_eq!(lines, ["2", "3"], "{restarts}");
    }
}

#[test]
fn a_copy_that_ends_early_costs_the_bytes_that_it_lacks() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "read\n");
    bench.taken();
    bench.append("a.log", "seen and not complete");
    bench.taken();
    fs::write(bench.path("a.log.1"), "read\nseen").expect("a short copy");
    bench.truncate("a.log");
    bench.poll();
    assert_eq!(bench.losses(), [(9, 26)]);
}

#[test]
fn a_log_that_is_cut_before_anything_of_it_was_read_is_told() {
    for copies in [false, true] {
        let mut bench = Bench::new(&["a.log"]);
        bench.append("a.log", "1\n2\n");
        bench.follower.scan(bench.now);
        if copies {
            bench.copy("a.log", "a.log.1");
        }
        bench.truncate("a.log");
        bench.append("a.log", "3\n");
        assert_eq!(bench.taken(), if copies { vec!["1", "2", "3"] } else { vec!["3"] });
        assert_eq!(bench.losses(), if copies { vec![] } else { vec![(0, 4)] });
    }
}

#[test]
fn a_copy_that_is_still_written_is_waited_for_and_the_log_is_read_meanwhile() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", many(0, 30));
    assert_eq!(bench.taken().len(), 30);
    bench.append("a.log", many(30, 40));
    let whole = fs::read(bench.path("a.log")).expect("a log");
    fs::write(bench.path("a.log.1"), &whole[..1500]).expect("a copy that has begun");
    bench.truncate("a.log");
    bench.append("a.log", "live\n");
    assert_eq!(bench.taken(), ["live"]);
    bench.append("a.log.1", &whole[1500..]);
    assert_eq!(bench.taken().len(), 10);
    assert_eq!(bench.losses(), []);
}

#[test]
fn a_copy_inside_the_pattern_is_held_back_and_never_read_twice() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "1\n2\n");
    bench.taken();
    bench.poll();
    bench.copy("a.log", "b.log");
    assert_eq!(bench.taken(), [""; 0]);
    let states: Vec<&str> = bench.follower.files().map(Tracked::state).collect();
    assert_eq!(states, ["following", "copy"]);
    bench.append("a.log", "3\n");
    assert_eq!(bench.outwait(), ["3"]);
    bench.append("b.log", "own\n");
    assert_eq!(bench.taken(), ["own"], "what is written to the copy later is read");
    let told =
        bench.follower.take_notices().into_iter().any(|notice| matches!(notice, Notice::Copied { .. }));
    assert!(told);
}

#[test]
fn logs_that_begin_alike_are_each_read_once() {
    let header = many(0, 20);
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", &header);
    bench.append("a.log", "of a\n");
    assert_eq!(bench.taken().len(), 21);
    bench.poll();
    bench.append("b.log", &header);
    assert_eq!(bench.taken(), [""; 0], "it may still become a copy");
    bench.append("b.log", "of b\n");
    assert_eq!(bench.taken().len(), 21, "at once when one byte differs");
    bench.append("c.log", &header);
    bench.taken();
    assert_eq!(bench.outwait().len(), 20, "and after the grace when it is too short for a copy");
    bench.append("a.log", "more of a\n");
    bench.append("c.log", "more of c\n");
    assert_eq!(bench.sorted(), ["more of a", "more of c"]);
}

#[test]
fn a_file_that_is_replaced_by_a_new_one_with_its_content_goes_on() {
    for restarts in [false, true] {
        let mut bench = Bench::new(&["a.log"]);
        bench.append("a.log", many(0, 30));
        assert_eq!(bench.taken().len(), 30);
        let saved = bench.positions();
        bench.copy("a.log", "new");
        bench.append("new", "added\n");
        bench.rename("new", "a.log");
        if restarts {
            bench.restart(&["a.log"], &saved);
        }
        let mut lines = bench.taken();
        lines.extend(bench.taken());
        assert_eq!(lines, ["added"], "{restarts}");
        bench.append("a.log", "later\n");
        assert_eq!(bench.taken(), ["later"], "{restarts}");
        assert_eq!(bench.outwait(), [""; 0], "{restarts}");
    }
}

#[test]
fn a_hole_at_the_start_of_a_line_is_no_line() {
    let mut bench = Bench::new(&["a.log"]);
    let log = File::create(bench.path("a.log")).expect("a log");
    log.write_all_at(b"before\n", 0).expect("written");
    assert_eq!(bench.taken(), ["before"]);
    log.set_len(0).expect("truncated");
    log.write_all_at(b"behind\nin\0side\n", 5_000_001).expect("written at the old place");
    bench.poll();
    assert_eq!(bench.taken(), ["behind", "in\0side"]);
    let holes: Vec<u64> = bench
        .follower
        .take_notices()
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::Hole { bytes, .. } => Some(bytes),
            _ => None,
        })
        .collect();
    assert_eq!(holes, [5_000_001]);
    let saved = bench.positions();
    bench.append("a.log", "\0\0next\n");
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), ["next"]);
}

#[test]
fn a_file_that_is_made_long_first_is_read_as_it_is_filled() {
    let mut bench = Bench::new(&["a.log"]);
    let log = File::create(bench.path("a.log")).expect("a log");
    log.set_len(1_000_000).expect("room");
    assert_eq!(bench.taken(), [""; 0]);
    log.write_all_at(b"1\n", 0).expect("written");
    assert_eq!(bench.taken(), ["1"]);
    log.write_all_at(b"2\n3\n", 2).expect("written");
    assert_eq!(bench.taken(), ["2", "3"]);
    let saved = bench.positions();
    log.write_all_at(b"4\n", 6).expect("written");
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), ["4"]);
}

#[test]
fn compressed_rotations_are_read_oldest_first() {
    for (patterns, restarts) in
        [(["a.log"], true), (["a.log*"], true), (["a.log"], false), (["a.log*"], false)]
    {
        let mut bench = Bench::new(&patterns);
        bench.append("a.log", "1\n");
        bench.age("a.log", 400);
        assert_eq!(bench.taken(), ["1"]);
        let saved = bench.positions();
        bench.append("a.log", "2\n");
        bench.age("a.log", 300);
        bench.rename("a.log", "a.log.3");
        bench.gzip("a.log.3");
        bench.append("a.log", "3\n");
        bench.age("a.log", 200);
        bench.rename("a.log", "a.log.2");
        bench.gzip("a.log.2");
        bench.append("a.log", "4\n");
        bench.rename("a.log", "a.log.1");
        bench.append("a.log", "5\n");
        if restarts {
            bench.restart(&patterns, &saved);
        }
        let lines = bench.taken();
        assert_eq!(lines, ["2", "3", "4", "5"], "{patterns:?} {restarts}");
        let saved = bench.positions();
        for number in (1..=3).rev() {
            let name = |number: u32| format!("a.log.{number}{}", if number > 1 { ".gz" } else { "" });
            let to = format!("a.log.{}{}", number + 1, if number > 1 { ".gz" } else { "" });
            bench.rename(&name(number), &to);
        }
        bench.restart(&patterns, &saved);
        assert_eq!(bench.outwait(), [""; 0], "{patterns:?} {restarts}: and not again under other names");
    }
}

#[test]
fn an_older_log_that_is_compressed_late_is_not_read_again() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    bench.age("a.log", 500);
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    bench.taken();
    bench.outwait();
    let saved = bench.positions();
    bench.rename("a.log.1", "a.log.2");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "3\n");
    bench.gzip("a.log.2");
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), ["3"]);
}

#[test]
fn a_gzip_file_that_ends_early_is_read_as_far_as_it_goes_and_said() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", many(0, 30));
    bench.taken();
    let saved = bench.positions();
    bench.append("a.log", many(30, 20_000));
    bench.rename("a.log", "a.log.1");
    bench.gzip("a.log.1");
    let packed = OpenOptions::new().write(true).open(bench.path("a.log.1.gz")).expect("a gzip file");
    packed.set_len(packed.metadata().expect("its size").len() / 2).expect("cut");
    bench.append("a.log", "live\n");
    bench.restart(&["a.log"], &saved);
    let lines = bench.taken();
    assert!(lines.len() > 5_000 && lines.last().is_some_and(|line| line == "live"), "{} lines", lines.len());
    bench.outwait();
    let said = bench
        .follower
        .take_notices()
        .into_iter()
        .any(|notice| matches!(notice, Notice::Closed { unreadable_rest: Some(_), .. }));
    assert!(said);
}

#[test]
fn a_file_that_is_gone_is_told_with_the_bytes_that_are_known_to_be_lost() {
    for (unread, lost) in [("", vec![]), ("seen", vec![(5, 9)])] {
        let mut bench = Bench::new(&["a.log"]);
        bench.append("a.log", format!("read\n{unread}"));
        bench.taken();
        bench.poll();
        let saved = bench.positions();
        fs::remove_file(bench.path("a.log")).expect("removed");
        bench.append("other", "");
        bench.restart(&["a.log"], &saved);
        bench.poll();
        let gone = bench.follower.notices.iter().any(|notice| matches!(notice, Notice::Vanished { .. }));
        assert!(gone);
        assert_eq!(bench.losses(), lost);
    }
}

#[test]
fn a_pattern_that_comes_back_goes_on_and_another_that_names_the_file_does_too() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    let saved = bench.positions();
    bench.append("a.log", "2\n");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "3\n");
    bench.restart(&["b.log"], &saved);
    bench.poll();
    bench.now += Duration::from_secs(2 * 24 * 3600);
    bench.poll();
    let kept = bench.follower.changes();
    assert_eq!(kept.len(), 1, "the time is counted");
    bench.restart(&["*.log"], &kept);
    assert_eq!(bench.taken(), ["2", "3"]);
    bench.restart(&["b.log"], &kept);
    bench.poll();
    bench.now += Duration::from_secs(6 * 24 * 3600);
    bench.poll();
    assert!(bench.follower.changes().iter().all(|(_, value)| value.is_none()), "kept long enough");
}

#[test]
fn where_a_file_begins_that_could_not_be_read_at_first_outlives_a_restart() {
    let mut bench = Bench::new(&["a.log"]);
    fs::write(bench.path("a.log"), "history\n").expect("a log");
    let stat = HostFiles.stat(&bench.path("a.log")).expect("a stat");
    let start = position::Start { identity: stat.identity, size: stat.size };
    let saved = [(position::Start::key(&bench.path("a.log")), Some(start.encode()))];
    bench.restart(&["a.log"], &saved);
    bench.append("a.log", "new\n");
    assert_eq!(bench.taken(), ["new"]);
    let births = bench.follower.births();
    assert!(
        births.iter().any(|(key, value)| *key == saved[0].0 && value.is_none()),
        "and then it is not needed"
    );
}

#[test]
fn two_rotations_without_a_successor_are_read() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "1\n");
    bench.taken();
    bench.rename("a.log", "a.log-20261101");
    bench.append("a.log", "2\n3\n");
    bench.rename("a.log", "a.log.1");
    assert_eq!(bench.taken(), ["2", "3"], "before and after a successor comes");
    bench.append("a.log", "4\n");
    assert_eq!(bench.taken(), ["4"]);
    assert_eq!(bench.outwait(), [""; 0]);
}

#[test]
fn a_log_that_turns_out_to_be_compressed_is_let_go_and_taken_up_when_it_is_plain() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "");
    assert_eq!(bench.taken(), [""; 0]);
    bench.append("a.log", [0x1f, 0x8b, 8, b'\n', 9, b'\n']);
    for _ in 0..2 {
        assert_eq!(bench.taken(), [""; 0]);
        let states: Vec<&str> = bench.follower.blocked().values().map(|blocked| blocked.state).collect();
        assert_eq!(states, ["compressed"]);
    }
    let saved = bench.positions();
    bench.restart(&["a.log"], &saved);
    assert_eq!(bench.taken(), [""; 0]);
    assert_eq!(bench.follower.take_notices(), [], "nothing of it is missed");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "plain\n");
    assert_eq!(bench.taken(), ["plain"]);
}

/// What the next look opens when `finished` logs were rotated and compressed, and one more that is still written to: for
/// that one every look asks what lies between.
fn opened_after(finished: usize) -> u64 {
    let host = CountedFiles::default();
    let mut bench = Bench::new(&["a.log"]);
    bench.follower.host = Arc::new(host.clone());
    for number in 0..=finished {
        let text = if number < finished { format!("{number}\n") } else { format!("{number}\nunfinished") };
        bench.append("a.log", text);
        assert_eq!(bench.taken(), [number.to_string()]);
        for older in (1..=number).rev() {
            bench.rename(&format!("a.log.{older}.gz"), &format!("a.log.{}.gz", older + 1));
        }
        bench.rename("a.log", "a.log.1");
        bench.gzip("a.log.1");
    }
    bench.append("a.log", "last\n");
    assert_eq!(bench.taken(), ["last"]);
    assert!(!bench.follower.gaps.is_empty(), "the question stands");
    bench.poll();
    host.opened.store(0, Ordering::Relaxed);
    bench.poll();
    host.opened.load(Ordering::Relaxed)
}

#[test]
fn what_rotation_left_is_looked_into_once() {
    // Each of the logs before the last asks for it alone, and for the log itself.
    for finished in [2, 20] {
        let opened = opened_after(finished);
        assert!(opened <= 2 * (finished as u64 + 1), "{opened} opened after {finished}");
    }
}
