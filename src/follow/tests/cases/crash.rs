//! What was seen before a crash, and could not be read or decided yet, is still known after it.

use std::fs;

use rustix::io::Errno;

use super::World;
use crate::follow::{KEY_PREFIX, Position, ROTATE_GRACE};

/// A log of which three lines are read and durable.
fn read_log() -> World {
    let mut world = World::new(&["a.log"]);
    world.write("a.log", 3);
    world.poll();
    world.commit();
    world
}

/// What a truncated log holds now could not be read; it was renamed while the agent was down.
#[test]
fn a_truncated_log_that_cannot_be_read_is_known_after_a_crash() {
    let mut world = read_log();
    let path = world.path("a.log");
    world.lab.rules().failing.insert(path, Errno::IO.raw_os_error());
    world.truncate("a.log");
    // Fewer bytes than were read: of a log that cannot be read nothing else tells.
    world.write("a.log", 1);
    for _ in 0..3 {
        world.poll();
        world.commit();
    }
    assert_eq!(world.open_files(), 0, "it was seen to be another");
    let positions = world.state.iter().filter(|(key, _)| key.starts_with(KEY_PREFIX));
    let unread = positions.filter_map(|(_, value)| Position::decode(value));
    assert_eq!(unread.filter(|position| !position.is_closed).count(), 1, "and once only");
    world.crash();
    world.lab.rules().failing.clear();
    world.rename("a.log", "a.log.1");
    world.write("a.log", 2);
    world.start();
    world.check("a.log");
}

/// The files before and behind one that cannot be opened are read to their ends, and the agent dies.
#[test]
fn a_log_between_two_that_are_read_is_looked_for_after_a_crash() {
    let mut world = read_log();
    world.rename("a.log", "a.log.1");
    world.write("a.log", 2);
    world.rename("a.log.1", "a.log.2");
    world.rename("a.log", "a.log.1");
    world.write("a.log", 2);
    let between = world.path("a.log.1");
    world.lab.rules().denied.insert(between);
    world.poll();
    world.pass(ROTATE_GRACE * 2);
    world.poll();
    assert_eq!(world.open_files(), 1, "what came before it is closed");
    world.commit();
    world.crash();
    world.lab.rules().denied.clear();
    world.start();
    world.check("a.log");
    assert!(world.state.keys().all(|key| !key.starts_with(b"g/")), "and then no more");
}

/// A copy took the name of the log, and waits for it to be read further; then only another name of the copy and its
/// packed form are left.
#[test]
fn a_log_in_the_place_of_another_is_known_as_that_after_a_crash() {
    for is_read in [true, false] {
        let mut world = read_log();
        world.is_full = true;
        if !is_read {
            world.rename("a.log", "a.log-20261101");
        }
        world.write("a.log", 2);
        world.poll();
        world.replace_by_copy("a.log");
        fs::hard_link(world.path("a.log"), world.path("a.log.link")).expect("a link");
        world.poll();
        world.commit();
        world.rename("a.log", "a.log.1");
        world.compress("a.log.1");
        world.crash();
        world.start();
        world.is_full = false;
        world.check("a.log");
    }
}
