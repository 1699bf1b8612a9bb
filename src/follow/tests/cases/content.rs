//! Cases of what a log holds: cut, written anew, begun and not ended, long, binary, packed, full of holes.

use std::fs::{self, OpenOptions};
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::World;
use crate::follow::{LINE_BYTES_MAX, READ_BYTES, ROTATE_GRACE};

/// A log of which three lines are read and durable.
fn read_log() -> World {
    let mut world = World::new(&["a.log"]);
    world.write("a.log", 3);
    world.poll();
    world.commit();
    assert_eq!(world.taken().len(), 3);
    world
}

/// Emptied and begun anew: what was seen and not yet taken is lost, to the byte.
#[test]
fn case_03_cut_to_nothing() {
    let mut world = read_log();
    world.is_full = true;
    let lines = world.write("a.log", 4);
    assert_eq!(world.taken().len(), 0);
    let bytes: u64 = lines.iter().map(|line| world.oracle.texts[line].len() as u64 + 1).sum();
    world.truncate("a.log");
    world.is_full = false;
    let lines = world.write("a.log", 2);
    assert_eq!(world.numbers_taken(), lines);
    assert_eq!(world.losses(), [bytes]);
    world.check("a.log");
}

/// Emptied when everything had been read: nothing is lost, and nothing else is said.
#[test]
fn case_03_cut_when_all_was_read() {
    let mut world = read_log();
    world.truncate("a.log");
    world.poll();
    let lines = world.write("a.log", 2);
    assert_eq!(world.numbers_taken(), lines);
    assert_eq!(world.losses().iter().sum::<u64>(), 0);
    world.check("a.log");
}

/// Cut and written anew beyond the old position between two looks: the size alone would not tell.
#[test]
fn case_04_cut_and_written_anew_beyond_the_position() {
    for lines in [3, 4, 50] {
        let mut world = read_log();
        world.truncate("a.log");
        let lines = world.write("a.log", lines);
        assert_eq!(world.numbers_taken(), lines);
        assert_eq!(world.losses(), [0]);
        world.check("a.log");
    }
}

/// A line without an end waits, however long, and is handed out once and whole.
#[test]
fn case_17_a_line_without_an_end_waits() {
    let mut world = read_log();
    let number = world.write_piece("a.log");
    for _ in 0..3 {
        assert_eq!(world.taken(), [""; 0]);
        world.pass(ROTATE_GRACE * 2);
    }
    world.restart();
    assert_eq!(world.taken(), [""; 0]);
    world.write("a.log", 0);
    assert_eq!(world.numbers_taken(), [number]);
    world.check("a.log");
}

/// When its file is rotated and stands still for the grace, what is there of the line is handed out, and marked.
#[test]
fn case_17_a_line_without_an_end_in_a_rotated_log() {
    let mut world = read_log();
    world.write_piece("a.log");
    world.rename("a.log", "a.log.1");
    world.write("a.log", 1);
    assert_eq!(world.taken().len(), 1);
    world.pass(ROTATE_GRACE);
    let taken = world.taken();
    assert!(taken.len() == 1 && taken[0].ends_with('~'), "{taken:?}");
    world.check("a.log");
}

/// A writer that needs seconds for a line, in pieces of a byte.
#[test]
fn case_18_one_line_in_many_writes() {
    let mut world = read_log();
    world.oracle.free.insert(b"slowly".to_vec());
    for byte in b"slowly\n" {
        assert_eq!(world.taken(), [""; 0]);
        world.pass(Duration::from_secs(7));
        world.append("a.log", &[*byte]);
    }
    assert_eq!(world.taken(), ["slowly"]);
    world.check("a.log");
}

/// A line longer than any buffer is cut, counted once, and the position behind it is exact.
#[test]
fn case_19_a_very_long_line() {
    let mut world = read_log();
    let long = vec![b'x'; 3 * READ_BYTES + 17];
    world.oracle.free.insert(long[..LINE_BYTES_MAX].to_vec());
    world.append("a.log", &long);
    assert_eq!(world.taken(), [""; 0]);
    world.append("a.log", b"\n");
    let lines = world.write("a.log", 1);
    let taken = world.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].len(), LINE_BYTES_MAX + "…".len());
    world.restart();
    assert_eq!(world.taken(), [""; 0]);
    assert_eq!(lines.len(), 1);
    world.check("a.log");
}

/// Whatever bytes a line holds, it is the line between two newlines; one carriage return at its end belongs to none.
#[test]
fn case_20_bytes_that_are_no_text() {
    let mut world = read_log();
    let lines: [(&[u8], &[u8]); 6] = [
        (b"crlf\r\n", b"crlf"),
        (b"two\r\r\n", b"two\r"),
        (b"lone\rreturn\n", b"lone\rreturn"),
        (b"nul\0inside\n", b"nul\0inside"),
        (b"\xff\xfe\x80\n", b"\xff\xfe\x80"),
        (b"\n", b""),
    ];
    for (bytes, text) in lines {
        world.oracle.free.insert(text.to_vec());
        world.append("a.log", bytes);
        assert_eq!(world.taken(), [String::from_utf8_lossy(text).into_owned()]);
    }
    world.check("a.log");
}

/// A writer that does not append leaves a hole when its log is cut under it: the zeros are no part of a line.
#[test]
fn case_20_zeros_before_a_line() {
    for hole_bytes in [1, 5_001, READ_BYTES as u64 * 3 + 1] {
        let mut world = read_log();
        world.truncate("a.log");
        world.write_behind_hole("a.log", hole_bytes);
        let taken = world.taken();
        assert_eq!(taken, ["L4:".to_owned() + &"x".repeat(28)], "behind {hole_bytes} zeros");
        world.restart();
        assert_eq!(world.taken(), [""; 0]);
        world.write_behind_hole("a.log", hole_bytes);
        assert_eq!(world.numbers_taken(), [5], "and in the middle of a log");
        world.check("a.log");
    }
}

/// nginx's `gzip` in access_log: each flush is a gzip member, and no line of it is text.
#[test]
fn case_21_a_live_log_that_is_packed() {
    let mut world = read_log();
    world.patterns.push(world.path("live.log").display().to_string());
    world.restart();
    world.write_foreign("plain", 3);
    world.compress("plain");
    world.rename("plain.gz", "live.log");
    world.poll();
    assert_eq!(world.blocked("live.log"), Some("compressed"));
    world.check("a.log");
}

/// nginx with `buffer=32k`: a flush of whole lines, one line larger than the buffer, and on a full disk half a flush,
/// which runs into the next line and is passed on as it stands.
#[test]
fn case_22_flushes_of_a_buffer() {
    let mut world = read_log();
    world.oracle.free.extend([vec![b'y'; 6_085], b"half a liGET /next".to_vec(), b"more".to_vec()]);
    let lines = world.write("a.log", 600);
    assert_eq!(world.numbers_taken(), lines);
    world.append("a.log", &[vec![b'y'; 6_085], vec![b'\n']].concat());
    assert_eq!(world.taken().len(), 1);
    world.append("a.log", b"half a li");
    assert_eq!(world.taken(), [""; 0]);
    world.append("a.log", b"GET /next\nmore\n");
    assert_eq!(world.taken(), ["half a liGET /next", "more"]);
    world.check("a.log");
}

/// A log that was given its space beforehand: the zeros behind the last line are not skipped, for lines will stand
/// there.
#[test]
fn case_30_space_given_beforehand() {
    for bytes in [4_096, READ_BYTES as u64 * 4] {
        let mut world = read_log();
        let path = world.path("a.log");
        let file = OpenOptions::new().write(true).open(&path).expect("a log");
        let mut end = file.metadata().expect("a log").len();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes).expect("space");
        world.oracle.free.extend((0..20).map(|line| format!("written into it {line}").into_bytes()));
        for line in 0..20 {
            assert_eq!(world.taken(), [""; 0]);
            let text = format!("written into it {line}\n");
            std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), end).expect("written");
            end += text.len() as u64;
            assert_eq!(world.taken(), [text.trim_end()], "{bytes} bytes");
            if line == 10 {
                world.restart();
            }
        }
        world.check("a.log");
    }
}

/// Space given beforehand without a change of the size is nothing that can be seen.
#[test]
fn case_30_space_given_behind_the_end() {
    let mut world = read_log();
    let file = OpenOptions::new().write(true).open(world.path("a.log")).expect("a log");
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).expect("space");
    assert_eq!(world.taken(), [""; 0]);
    world.check("a.log");
}

/// A block is taken out at the front (`fallocate --collapse-range`): the position means other bytes now, which is said;
/// a hole in bytes that were read changes nothing.
#[test]
fn case_37_a_log_that_loses_its_front() {
    let mut world = read_log();
    world.write("a.log", 1_000);
    world.poll();
    let file = OpenOptions::new().write(true).open(world.path("a.log")).expect("a log");
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, flags, 0, 4_096).expect("a hole");
    assert_eq!(world.taken().len(), 1_000);
    assert_eq!(world.taken(), [""; 0], "no line again");
    world.check("a.log");
    // Not on every file system; where it is not, there is no such case.
    let mut world = read_log();
    world.write("a.log", 1_000);
    world.taken();
    let file = OpenOptions::new().write(true).open(world.path("a.log")).expect("a log");
    if rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4_096).is_ok() {
        world.poll();
        assert_eq!(world.losses().len(), 1, "that is said");
        let line = world.write("a.log", 1);
        assert_eq!(world.numbers_taken().last(), line.last());
    }
}

/// Cut while the agent was down: the position lies behind the end of the same file.
#[test]
fn case_43_the_position_lies_behind_the_end() {
    for lines in [0, 1] {
        let mut world = read_log();
        world.write("a.log", 2);
        world.stop();
        world.write("a.log", 2);
        world.truncate("a.log");
        let lines = world.write("a.log", lines);
        world.start();
        assert_eq!(world.numbers_taken(), lines);
        assert_eq!(world.losses().len(), 1);
        world.check("a.log");
    }
}

/// Time stands in no decision but those of grace: a log whose time runs backwards is read as any other.
#[test]
fn case_35_the_clock_jumps() {
    let mut world = read_log();
    let year = Duration::from_secs(365 * 86_400);
    for is_back in [true, false, true] {
        let lines = world.write("a.log", 2);
        let time =
            fs::metadata(world.path("a.log")).and_then(|metadata| metadata.modified()).expect("a time");
        let time = if is_back { time - year } else { time + year };
        let file = OpenOptions::new().write(true).open(world.path("a.log")).expect("a log");
        file.set_modified(time).expect("another time");
        assert_eq!(world.numbers_taken(), lines);
        world.rename("a.log", "a.log.1");
        world.write("a.log", 1);
        world.poll();
        world.restart();
    }
    world.check("a.log");
}
