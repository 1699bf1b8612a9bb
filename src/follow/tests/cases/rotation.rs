//! Cases of rotation: renamed, copied, packed, deleted, while the agent runs and while it does not.

use std::time::Duration;

use super::World;
use crate::follow::ROTATE_GRACE;

/// Ten seconds: much less than the grace.
const SHORTLY: Duration = Duration::from_secs(10);

/// A log of which three lines are read and durable.
fn read_log(patterns: &[&str]) -> World {
    let mut world = World::new(patterns);
    let lines = world.write("a.log", 3);
    assert_eq!(world.numbers_taken(), lines);
    world.commit();
    world
}

/// nginx's workers go on writing to the renamed file until each has seen USR1, and all of it is read.
#[test]
fn case_01_renamed_and_created_anew() {
    let mut world = World::new(&["a.log"]);
    world.hold("a.log");
    world.write_held(3);
    world.poll();
    world.rename("a.log", "a.log.1");
    world.create("a.log");
    world.write_held(2);
    world.write("a.log", 2);
    assert_eq!(world.taken().len(), 7);
    for _ in 0..5 {
        world.pass(SHORTLY);
        world.write_held(1);
        assert_eq!(world.taken().len(), 1, "each write begins the grace anew");
    }
    assert_eq!(world.open_files(), 2);
    world.check("a.log");
    assert_eq!(world.open_files(), 1);
}

/// logrotate copies the log and truncates it: what was unread is in the copy, what comes is in the log.
#[test]
fn case_02_copied_and_truncated() {
    for to in ["a.log.1", "a.log-20261123"] {
        let mut world = read_log(&["a.log"]);
        let mut lines = world.write("a.log", 2);
        world.copytruncate("a.log", to, 0);
        lines.extend(world.write("a.log", 2));
        assert_eq!(world.numbers_taken(), lines, "the copy first");
        world.check("a.log");
    }
}

/// The same, with a look between the copy and the cut, or with the rotated names inside the pattern.
#[test]
fn case_02_a_copy_that_was_seen_before_the_cut_is_not_read_twice() {
    for pattern in ["a.log", "a.log*"] {
        let mut world = read_log(&[pattern]);
        let mut lines = world.write("a.log", 2);
        world.copy("a.log", "a.log.1");
        lines.extend(world.write("a.log", 1));
        assert_eq!(world.numbers_taken(), lines, "{pattern}");
        world.truncate("a.log");
        let lines = world.write("a.log", 2);
        assert_eq!(world.numbers_taken(), lines, "{pattern}");
        world.check("a.log");
    }
}

/// The same, while the agent is down; the copy may be packed by then.
#[test]
fn case_02_copied_and_truncated_while_down() {
    for packed in [false, true] {
        let mut world = read_log(&["a.log"]);
        world.stop();
        let mut lines = world.write("a.log", 2);
        world.copytruncate("a.log", "a.log.1", 0);
        if packed {
            world.compress("a.log.1");
        }
        lines.extend(world.write("a.log", 2));
        world.start();
        let mut taken = world.numbers_taken();
        taken.extend(world.numbers_taken());
        taken.sort_unstable();
        assert_eq!(taken, lines, "packed {packed}");
        world.check("a.log");
    }
}

/// What is written between the copy and the cut is in no file, and nobody can know of it: nothing else is lost.
#[test]
fn case_02_lines_between_copy_and_cut_are_lost_and_no_other() {
    let mut world = read_log(&["a.log"]);
    let mut lines = world.write("a.log", 2);
    world.copytruncate("a.log", "a.log.1", 4);
    lines.extend(world.write("a.log", 2));
    assert_eq!(world.numbers_taken(), lines);
    assert_eq!(world.oracle.gone().len(), 4);
    world.check("a.log");
}

/// The same twice while the agent is down: a copy holds a whole day of which nothing was read.
#[test]
fn case_02_copied_and_truncated_twice_while_down() {
    for was_empty in [false, true] {
        let mut world = read_log(&["a.log"]);
        if was_empty {
            world.rename("a.log", "a.log.1");
            world.create("a.log");
            world.poll();
        }
        world.stop();
        let mut lines = world.write("a.log", if was_empty { 0 } else { 2 });
        world.copytruncate("a.log", "a.log.2", 0);
        lines.extend(world.write("a.log", 2));
        world.copytruncate("a.log", "a.log.1", 0);
        lines.extend(world.write("a.log", 2));
        world.start();
        let mut taken = world.numbers_taken();
        taken.extend(world.numbers_taken());
        taken.sort_unstable();
        assert_eq!(taken, lines, "nothing of it was read: {was_empty}");
        world.check("a.log");
    }
}

/// Ten rotations by copying, a look now and then.
#[test]
fn case_02_copied_and_truncated_again_and_again() {
    let mut world = read_log(&["a.log"]);
    for rotation in 0..10 {
        world.write("a.log", 3);
        if rotation % 3 == 0 {
            world.poll();
        }
        world.write("a.log", 2);
        for older in (1..4).rev() {
            let name = format!("a.log.{older}");
            if world.path(&name).exists() {
                world.rename(&name, &format!("a.log.{}", older + 1));
            }
        }
        world.copytruncate("a.log", "a.log.1", 0);
        world.write("a.log", rotation % 2);
        world.poll();
    }
    world.check("a.log");
}

/// A deleted log is read as long as somebody writes to it, and closed after the grace.
#[test]
fn case_05_deleted_while_open() {
    let mut world = World::new(&["a.log"]);
    world.hold("a.log");
    world.write_held(1);
    world.poll();
    world.write_held(2);
    world.unlink("a.log");
    assert_eq!(world.taken().len(), 3);
    world.pass(SHORTLY);
    world.write_held(1);
    assert_eq!(world.taken().len(), 1);
    world.pass(ROTATE_GRACE * 2);
    world.poll();
    assert_eq!(world.open_files(), 0);
    assert!(world.losses().is_empty());
    world.check("a.log");
}

/// Killed before the last words of a deleted log were durable: they are lost, and that is said.
#[test]
fn case_05_deleted_and_killed_before_its_end_was_durable() {
    let mut world = read_log(&["a.log"]);
    world.create("other");
    world.write("a.log", 2);
    world.unlink("a.log");
    world.poll();
    world.crash();
    assert_eq!(world.oracle.gone().len(), 2);
    world.start();
    assert_eq!(world.numbers_taken(), [0; 0]);
    assert_eq!(world.losses().len(), 1);
    world.check("a.log");
}

/// ext4 gives the inode of a deleted file to the next one: that is another file, read from its start.
#[test]
fn case_06_deleted_and_made_anew_on_the_same_inode() {
    let mut world = read_log(&["a.log"]);
    // The follower holds the old file open, so that its number is free only once that is closed.
    world.unlink("a.log");
    world.pass(ROTATE_GRACE * 2);
    world.poll();
    world.pass(ROTATE_GRACE * 2);
    world.poll();
    world.create("a.log");
    let lines = world.write("a.log", 5);
    assert_eq!(world.numbers_taken(), lines);
    world.recreate_on_same_inode("a.log");
    let lines = world.write("a.log", 9);
    assert_eq!(world.numbers_taken(), lines);
    world.check("a.log");
}

/// The same while the agent is down: the position of the old file says nothing about the new one, long or short.
#[test]
fn case_07_inode_given_out_again_while_down() {
    for length in [1, 3, 30] {
        let mut world = read_log(&["a.log"]);
        world.stop();
        world.recreate_on_same_inode("a.log");
        let lines = world.write("a.log", length);
        world.start();
        assert_eq!(world.numbers_taken(), lines, "{length} lines");
        world.check("a.log");
    }
}

/// delaycompress: yesterday's log is plain, the one before is packed; none of both was read to its end.
#[test]
fn case_23_the_rest_of_a_log_is_in_a_packed_one() {
    for is_down in [true, false] {
        let mut world = read_log(&["a.log"]);
        if is_down {
            world.stop();
        }
        let mut lines = world.write("a.log", 2);
        world.rename("a.log", "a.log.1");
        lines.extend(world.write("a.log", 2));
        world.compress("a.log.1");
        world.rename("a.log.1.gz", "a.log.2.gz");
        world.rename("a.log", "a.log.1");
        lines.extend(world.write("a.log", 2));
        if is_down {
            world.start();
        }
        let mut taken = world.numbers_taken();
        taken.extend(world.numbers_taken());
        taken.sort_unstable();
        assert_eq!(taken, lines, "down: {is_down}");
        world.check("a.log");
    }
}

/// The only thing left of what was being read is packed.
#[test]
fn case_23_only_a_packed_log_is_left() {
    let mut world = read_log(&["a.log"]);
    world.stop();
    let mut lines = world.write("a.log", 200);
    world.rename("a.log", "a.log.1");
    world.compress("a.log.1");
    lines.extend(world.write("a.log", 1));
    world.start();
    let mut taken = world.numbers_taken();
    taken.extend(world.numbers_taken());
    taken.sort_unstable();
    assert_eq!(taken, lines);
    assert!(world.losses().is_empty());
    world.check("a.log");
}

/// A packed log appears while its plain one is still held: it is the same, and is not read again.
#[test]
fn case_24_packed_while_the_plain_one_is_held() {
    for pattern in ["a.log", "a.log*"] {
        let mut world = read_log(&[pattern]);
        world.write("a.log", 2);
        world.rename("a.log", "a.log.1");
        world.write("a.log", 1);
        world.poll();
        world.compress_begin("a.log.1");
        world.poll();
        world.compress_end("a.log.1");
        world.write("a.log", 1);
        world.poll();
        world.restart();
        world.poll();
        world.check("a.log");
    }
}

/// A packed log is unpacked again by somebody who looks for something: nothing of it is new.
#[test]
fn case_24_unpacked_again() {
    let mut world = read_log(&["a.log"]);
    world.rename("a.log", "a.log.1");
    world.write("a.log", 1);
    world.poll();
    world.compress("a.log.1");
    world.poll();
    world.decompress("a.log.1");
    world.poll();
    world.restart();
    world.poll();
    world.check("a.log");
}

/// Several rotations while the agent was down: what was being read, then every younger one, then the live one.
#[test]
fn case_25_several_rotations_while_down() {
    let mut world = read_log(&["a.log"]);
    world.stop();
    let mut lines = world.write("a.log", 2);
    for names in [["a.log", "a.log.3"], ["a.log", "a.log.2"], ["a.log", "a.log.1"]] {
        world.rename(names[0], names[1]);
        lines.extend(world.write("a.log", 2));
    }
    world.start();
    assert_eq!(world.numbers_taken(), lines, "oldest first");
    world.check("a.log");
}

/// The same, with all but the youngest packed.
#[test]
fn case_25_several_rotations_while_down_and_packed() {
    let mut world = read_log(&["a.log"]);
    world.stop();
    let mut lines = world.write("a.log", 2);
    for name in ["a.log.4", "a.log.3", "a.log.2", "a.log.1"] {
        world.rename("a.log", name);
        lines.extend(world.write("a.log", 2));
        if name != "a.log.1" {
            world.compress(name);
        }
    }
    world.start();
    let mut taken = world.numbers_taken();
    for _ in 0..4 {
        taken.extend(world.numbers_taken());
    }
    taken.sort_unstable();
    assert_eq!(taken, lines);
    world.check("a.log");
}

/// Nothing is left of the log that was read: that is said, and the new one is read from its start.
#[test]
fn case_26_nothing_is_left_of_it() {
    let mut world = read_log(&["a.log"]);
    world.stop();
    world.write("a.log", 2);
    world.unlink("a.log");
    let lines = world.write("a.log", 2);
    world.start();
    assert_eq!(world.numbers_taken(), lines);
    assert_eq!(world.losses(), [0], "how much is gone cannot be known");
    world.check("a.log");
}

/// Two rotations between two looks of an agent that runs, and what came between is packed already.
#[test]
fn case_25_rotated_twice_and_packed_between_two_looks() {
    let mut world = read_log(&["*.log"]);
    world.rename("a.log", "a.log.2");
    let lines = world.write("a.log", 2);
    world.rename("a.log", "a.log.1");
    world.compress("a.log.1");
    let mut taken = world.numbers_taken();
    taken.extend(world.numbers_taken());
    assert_eq!(taken, lines, "{:#?}", world.notices);
    world.check("a.log");
}

/// Dates in names may clash or run backwards: the order is that of birth.
#[test]
fn case_27_names_with_dates_are_not_taken_at_their_word() {
    let mut world = read_log(&["a.log"]);
    let mut lines = world.write("a.log", 2);
    for name in ["a.log-20261123", "a.log-20261122", "a.log-20261123.1"] {
        world.rename("a.log", name);
        lines.extend(world.write("a.log", 2));
    }
    assert_eq!(world.numbers_taken(), lines);
    world.check("a.log");
}

/// `rotate 0`: the log is deleted at once. Running, the agent holds it; down, it can only say so.
#[test]
fn case_28_deleted_instead_of_kept() {
    let mut world = read_log(&["a.log"]);
    let mut lines = world.write("a.log", 2);
    world.unlink("a.log");
    lines.extend(world.write("a.log", 2));
    assert_eq!(world.numbers_taken(), lines);
    assert!(world.losses().is_empty());
    world.stop();
    world.write("a.log", 2);
    world.unlink("a.log");
    world.write("a.log", 2);
    world.start();
    world.poll();
    assert!(!world.losses().is_empty());
    world.check("a.log");
}

/// logrotate's `create` with an owner that shuts the agent out: the new log waits, and nothing of it is skipped.
#[test]
fn case_29_made_anew_without_permission() {
    let mut world = read_log(&["a.log"]);
    let path = world.path("a.log");
    world.write("a.log", 1);
    world.rename("a.log", "a.log.1");
    world.write("a.log", 2);
    world.lab.rules().denied.insert(path.clone());
    assert_eq!(world.taken().len(), 1, "the rest of the old one");
    assert_eq!(world.blocked("a.log"), Some("unreadable"));
    world.write("a.log", 2);
    world.poll();
    world.lab.rules().denied.remove(&path);
    assert_eq!(world.taken().len(), 4);
    world.check("a.log");
}

/// A pattern that was taken out and comes back within a week goes on where it was.
#[test]
fn case_39_a_path_leaves_the_configuration_and_comes_back() {
    let mut world = read_log(&["a.log", "b.log"]);
    world.stop();
    world.follow(&["b.log"]);
    world.start();
    world.write("b.log", 1);
    world.poll();
    world.pass(Duration::from_secs(3 * 86_400));
    world.restart();
    world.poll();
    world.stop();
    let lines = world.write("a.log", 2);
    world.follow(&["a.log", "b.log"]);
    world.start();
    assert_eq!(world.numbers_taken(), lines);
    world.check("a.log");
}

/// A log that is copied to another file system, with a symbolic link left in its place, goes on where it was.
#[test]
fn case_40_moved_to_another_file_system() {
    for is_down in [false, true] {
        let mut world = read_log(&["a.log"]);
        let elsewhere = tempfile::tempdir_in(other_file_system()).expect("a directory");
        let moved = elsewhere.path().join("a.log");
        if is_down {
            world.stop();
        }
        let mut lines = world.write("a.log", 2);
        std::fs::copy(world.path("a.log"), &moved).expect("copied");
        world.unlink("a.log");
        world.symlink(&moved.display().to_string(), "a.log");
        lines.extend(world.write("a.log", 2));
        if is_down {
            world.start();
        }
        let mut taken = world.numbers_taken();
        taken.sort_unstable();
        assert_eq!(taken, lines, "down: {is_down}");
        world.check("a.log");
    }
}

/// A directory on another file system than that of temporary files, where there is one.
fn other_file_system() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::path::PathBuf::from("/var/tmp") }
}

/// An editor's save, `sed -i`: a copy takes the name, and reading goes on in it.
#[test]
fn case_41_replaced_by_a_copy_of_itself() {
    for is_down in [false, true] {
        let mut world = read_log(&["a.log"]);
        if is_down {
            world.stop();
        }
        let mut lines = world.write("a.log", 2);
        world.replace_by_copy("a.log");
        lines.extend(world.write("a.log", 2));
        if is_down {
            world.start();
        }
        let mut taken = world.numbers_taken();
        taken.sort_unstable();
        assert_eq!(taken, lines, "down: {is_down}");
        world.check("a.log");
    }
}

/// The log rotates just between the look at its name and the open: what is opened is what counts.
#[test]
fn case_45_rotated_between_the_look_and_the_open() {
    let mut world = read_log(&["a.log"]);
    world.stop();
    world.write("a.log", 2);
    let (log, rotated) = (world.path("a.log"), world.path("a.log.1"));
    world.oracle.free.insert(b"young".to_vec());
    let happens = {
        let log = log.clone();
        move || {
            std::fs::rename(&log, rotated).expect("renamed");
            std::fs::write(&log, "young\n").expect("a new log");
        }
    };
    world.lab.rules().before_open = Some((log, Box::new(happens)));
    world.start();
    let mut taken = world.taken();
    taken.extend(world.taken());
    assert_eq!(taken.len(), 3, "{taken:?}");
    assert!(taken.contains(&"young".to_owned()), "{taken:?}");
    world.check("a.log");
}
