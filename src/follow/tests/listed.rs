//! When directories are listed anew, and that nothing is missed when they are not.

use std::time::SystemTime;

use super::*;
use crate::follow::listed::{CLOCK_STEP_MAX, KEPT_MAX};
use crate::follow::tracked::ROTATE_GRACE;

/// Looks of which the first one finds a directory changed, and the last one knows that this is over.
const SETTLING: u64 = CLOCK_STEP_MAX.as_secs() + 1;

/// An agent that follows one log, and how often it asked what its pattern names.
fn following() -> (Bench, CountedFiles) {
    let mut bench = Bench::new(&["*.log"]);
    let host = CountedFiles::default();
    bench.follower.host = Arc::new(host.clone());
    make(&bench, "a.log", 1000);
    (bench, host)
}

/// Makes a log; its directory tells that it changed at `second`.
fn make(bench: &Bench, name: &str, second: u64) {
    bench.append(name, "a line\n");
    tell(bench, second);
}

fn tell(bench: &Bench, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    File::open(bench.directory.path()).and_then(|directory| directory.set_modified(time)).expect("its time");
}

/// Looks once a second; answers how often that listed the directory.
fn look(bench: &mut Bench, host: &CountedFiles, times: u64) -> u64 {
    let before = host.expanded.load(Ordering::Relaxed);
    for _ in 0..times {
        bench.now += Duration::from_secs(1);
        bench.follower.scan(bench.now);
    }
    host.expanded.load(Ordering::Relaxed) - before
}

fn named(bench: &Bench) -> usize {
    bench.follower.files().filter(|file| file.is_named()).count()
}

#[test]
fn a_quiet_directory_is_listed_now_and_then() {
    let (mut bench, host) = following();
    assert_eq!(look(&mut bench, &host, SETTLING), SETTLING, "its time may be that of a later change, too");
    assert_eq!(look(&mut bench, &host, KEPT_MAX.as_secs() - 1), 0);
    assert_eq!(look(&mut bench, &host, 10 * KEPT_MAX.as_secs()), 10);
    assert_eq!(named(&bench), 1);
}

#[test]
fn what_comes_and_goes_is_seen_at_once() {
    let (mut bench, host) = following();
    look(&mut bench, &host, SETTLING + 1);
    make(&bench, "b.log", 1001);
    look(&mut bench, &host, 1);
    assert_eq!(named(&bench), 2);
    bench.rename("a.log", "a.log.1");
    fs::remove_file(bench.path("b.log")).expect("removed");
    tell(&bench, 1002);
    look(&mut bench, &host, 1);
    assert_eq!(named(&bench), 0);
}

#[test]
fn a_quiet_log_is_asked_once_a_tick_and_its_name_when_its_directory_is_listed() {
    let (mut bench, host) = following();
    bench.append("empty.log", "");
    tell(&bench, 1000);
    for _ in 0..=SETTLING {
        bench.taken();
    }
    let counts =
        || [&host.asked, &host.looked, &host.read, &host.expanded].map(|of| of.load(Ordering::Relaxed));
    let before = counts();
    bench.taken();
    bench.taken();
    let asked: Vec<u64> = counts().iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(asked, [2, 4, 0, 0], "twice the directory by its name, and two open files");
    bench.append("a.log", "another line\n");
    assert_eq!(bench.taken(), ["another line"]);
    bench.rename("a.log", "a.log.1");
    tell(&bench, 1000);
    bench.taken();
    assert_eq!((named(&bench), counts()[3]), (2, before[3]), "the directory does not tell");
    look(&mut bench, &host, KEPT_MAX.as_secs());
    assert_eq!(named(&bench), 1);
}

#[test]
fn after_an_event_a_directory_is_listed_even_if_it_does_not_tell() {
    let (mut bench, host) = following();
    look(&mut bench, &host, SETTLING + 1);
    bench.rename("a.log", "a.log.1");
    make(&bench, "b.log", 1000);
    bench.follower.list_anew();
    look(&mut bench, &host, 1);
    let names: Vec<&Path> =
        bench.follower.files().filter(|file| file.is_named()).map(|file| &*file.path).collect();
    assert_eq!(names, [bench.path("b.log")]);
}

#[test]
fn a_directory_whose_time_is_set_back_has_changed() {
    let mut bench = Bench::new(&["*.log"]);
    make(&bench, "a.log", 1000);
    for _ in 0..=SETTLING {
        bench.poll();
    }
    fs::write(bench.path("copy"), "new\n").expect("written");
    bench.rename("copy", "a.log");
    tell(&bench, 1000);
    bench.poll();
    let states: Vec<&str> = bench.follower.files().map(|file| file.state()).collect();
    assert_eq!(states, ["rotated", "following"]);
}

/// Whether a rotated log is closed when its time is over, if a line comes into it between the scan and its turn.
fn is_closed(content: &str, late: &str) -> bool {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", content);
    bench.poll();
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    bench.poll();
    bench.now += ROTATE_GRACE;
    bench.follower.scan(bench.now);
    bench.append("a.log.1", late);
    let id = bench.follower.ids()[0];
    bench.follower.turn(id, 1 << 20, bench.now, &mut |_| Flow::Continue).finished
}

#[test]
fn a_line_written_between_scan_and_turn_keeps_a_rotated_log_open() {
    for content in ["1\n", ""] {
        assert!(is_closed(content, ""), "{content}");
        assert!(!is_closed(content, "late\n"), "{content}");
    }
}

#[test]
fn what_a_link_leads_to_is_asked_at_every_look() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let real = elsewhere.path().join("real");
    fs::write(&real, "old\n").expect("written");
    let (mut bench, host) = following();
    std::os::unix::fs::symlink(&real, bench.path("link.log")).expect("a link");
    tell(&bench, 1000);
    look(&mut bench, &host, SETTLING + 1);
    fs::rename(&real, real.with_extension("1")).expect("renamed");
    fs::write(&real, "new\n").expect("written");
    look(&mut bench, &host, 1);
    let states: Vec<&str> = bench.follower.files().map(|file| file.state()).collect();
    assert_eq!(states, ["following", "rotated", "following"]);
}

#[test]
fn a_change_within_one_step_of_the_clock_is_seen() {
    let (mut bench, host) = following();
    look(&mut bench, &host, SETTLING - 1);
    make(&bench, "b.log", 1000);
    look(&mut bench, &host, 1);
    assert_eq!(named(&bench), 2);
}

#[test]
fn a_directory_that_does_not_tell_is_listed_all_the_same() {
    let (mut bench, host) = following();
    look(&mut bench, &host, SETTLING + 1);
    make(&bench, "b.log", 1000);
    look(&mut bench, &host, KEPT_MAX.as_secs());
    assert_eq!(named(&bench), 2);
}

#[test]
fn another_directory_of_the_same_time_is_another() {
    let (mut bench, host) = following();
    look(&mut bench, &host, SETTLING + 1);
    let path = bench.directory.path().to_owned();
    let aside = path.with_extension("old");
    fs::rename(&path, &aside).expect("renamed");
    fs::create_dir(&path).expect("made anew");
    make(&bench, "b.log", 1000);
    make(&bench, "a.log", 1000);
    look(&mut bench, &host, 1);
    fs::remove_dir_all(aside).expect("removed");
    assert_eq!(named(&bench), 2);
}
