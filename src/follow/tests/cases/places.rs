//! Cases of where a log is: linked, mounted, late, forbidden, far away, one of thousands, under a strange name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::World;
use crate::follow::ROTATE_GRACE;

/// Two names of one file are one log.
#[test]
fn case_08_hard_links() {
    let mut world = World::new(&["*.log"]);
    world.write("a.log", 2);
    fs::hard_link(world.path("a.log"), world.path("b.log")).expect("a link");
    assert_eq!(world.taken().len(), 2);
    world.write("b.log", 2);
    assert_eq!(world.taken().len(), 2);
    world.unlink("a.log");
    world.write("b.log", 2);
    assert_eq!(world.taken().len(), 2);
    world.restart();
    fs::hard_link(world.path("b.log"), world.path("c.log")).expect("a link");
    assert_eq!(world.taken(), [""; 0]);
    world.check("b.log");
}

/// A copy of a log inside the pattern holds what was read already; what is written to it afterwards is new.
#[test]
fn case_09_a_copy_inside_the_pattern() {
    let mut world = World::new(&["*.log"]);
    world.write("a.log", 3);
    world.poll();
    world.write("a.log", 2);
    world.copy("a.log", "b.log");
    assert_eq!(world.taken().len(), 5);
    for _ in 0..3 {
        world.pass(ROTATE_GRACE * 2);
        assert_eq!(world.taken(), [""; 0]);
    }
    let mut lines = world.write("a.log", 1);
    lines.extend(world.write("b.log", 1));
    let mut taken = world.numbers_taken();
    taken.sort_unstable();
    assert_eq!(taken, lines, "from now on they are two logs");
    world.restart();
    assert_eq!(world.taken(), [""; 0]);
    world.check("a.log");
}

/// Two logs that begin alike, as with a header of two kilobytes, are two logs.
#[test]
fn case_09_logs_that_begin_alike() {
    let mut world = World::new(&["*.log"]);
    let header = "#Fields: date time c-ip\n".repeat(100);
    world.oracle.free.insert(b"#Fields: date time c-ip".to_vec());
    world.append("a.log", header.as_bytes());
    assert_eq!(world.taken().len(), 100);
    world.append("b.log", header.as_bytes());
    let mut lines = world.write("a.log", 1);
    lines.extend(world.write("b.log", 1));
    world.poll();
    world.pass(ROTATE_GRACE * 3);
    world.poll();
    let taken = world.taken();
    let (headers, others): (Vec<_>, Vec<_>) = taken.iter().partition(|line| line.starts_with('#'));
    assert_eq!((headers.len(), others.len()), (100, 2));
    world.check("b.log");
}

/// A symbolic link that is switched to the next file: the old target is read to its end.
#[test]
fn case_10_a_symbolic_link_is_switched() {
    let mut world = World::new(&["current.log"]);
    world.hold("app-1");
    world.symlink("app-1", "current.log");
    world.write_held(2);
    assert_eq!(world.taken().len(), 2);
    world.write("app-2", 2);
    world.symlink("app-2", "current.log");
    world.write_held(2);
    assert_eq!(world.taken().len(), 4);
    world.pass(Duration::from_secs(20));
    world.write_held(1);
    assert_eq!(world.taken().len(), 1);
    // Switched while the agent is down, with lines behind the position of the old target.
    world.stop();
    world.write("app-2", 2);
    world.write("app-3", 2);
    world.symlink("app-3", "current.log");
    world.start();
    assert_eq!(world.taken().len(), 4);
    world.check("current.log");
}

/// What is no file is named, does not block, hides no other, and is read once it is one.
#[test]
fn case_11_what_is_no_file() {
    let mut world = World::new(&["*.log", "/dev/null"]);
    world.symlink("b.log", "a.log");
    world.symlink("a.log", "b.log");
    world.symlink("nowhere", "c.log");
    fs::create_dir(world.path("d.log")).expect("a directory");
    fifo(&world.path("e.log"));
    let _socket = std::os::unix::net::UnixListener::bind(world.path("f.log")).expect("a socket");
    let lines = world.write("good.log", 2);
    assert_eq!(world.numbers_taken(), lines);
    for name in ["a.log", "b.log", "c.log", "d.log", "e.log", "f.log"] {
        assert!(world.blocked(name).is_some(), "{name}");
    }
    let mut expected = Vec::new();
    for name in ["a.log", "c.log", "e.log", "f.log"] {
        fs::remove_file(world.path(name)).expect("removed");
        expected.extend(world.write(name, 1));
    }
    let mut taken = world.numbers_taken();
    taken.sort_unstable();
    assert_eq!(taken, expected);
    world.check("good.log");
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode};
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
}

/// What is mounted ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    /// None without root, which must be said: see the test command.
    fn new(arguments: &[&OsStr], target: PathBuf) -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() {
            let is_wanted = std::env::var("WATCHPOST_TEST_WITHOUT_ROOT").is_ok_and(|value| value == "1");
            assert!(is_wanted, "mounting needs root; WATCHPOST_TEST_WITHOUT_ROOT=1 leaves it out");
            return None;
        }
        let status = Command::new("mount").args(arguments).arg(&target).status().expect("mount is installed");
        assert!(status.success(), "mount {arguments:?}");
        Some(Mounted(target))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The first write to a log in an overlay copies it up: it stays the same log.
#[test]
fn case_12_an_overlay_copies_a_log_up() {
    // An overlay cannot stand on an overlay: memory can hold one.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { PathBuf::from("/tmp") };
    let mut world = World::within(tempfile::tempdir_in(place).expect("a directory"), &["merged/a.log"]);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(world.path(name)).expect("a directory");
    }
    world.write("lower/a.log", 3);
    let layers = ["lower", "upper", "work"].map(|name| world.path(name).display().to_string());
    let option = format!("lowerdir={},upperdir={},workdir={}", layers[0], layers[1], layers[2]);
    let arguments = ["-t", "overlay", "overlay", "-o", &option].map(OsStr::new);
    let Some(_mounted) = Mounted::new(&arguments, world.path("merged")) else { return };
    assert_eq!(world.taken().len(), 3);
    world.commit();
    // Until the directory is believed to tell of every change.
    for _ in 0..4 {
        world.poll();
    }
    world.write("merged/a.log", 2);
    assert_eq!(world.taken().len(), 2);
    world.write("merged/a.log", 2);
    assert_eq!(world.taken().len(), 2);
    world.restart();
    world.write("merged/a.log", 1);
    assert_eq!(world.taken().len(), 1);
    world.check("merged/a.log");
}

/// The same log under another mount point, and with another number of its device after the next boot.
#[test]
fn case_12_mounted_elsewhere_and_anew() {
    let mut world = World::new(&["logs/a.log"]);
    for name in ["logs", "data"] {
        fs::create_dir(world.path(name)).expect("a directory");
    }
    world.write("data/a.log", 2);
    let arguments = ["--bind".into(), world.path("data").into_os_string()];
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let Some(mounted) = Mounted::new(&arguments, world.path("logs")) else { return };
    assert_eq!(world.taken().len(), 2);
    world.stop();
    drop(mounted);
    world.write("data/a.log", 2);
    world.start();
    assert_eq!(world.taken(), [""; 0], "not mounted: the directory is empty");
    let _mounted = Mounted::new(&arguments, world.path("logs"));
    assert_eq!(world.taken().len(), 2);
    world.stop();
    world.write("data/a.log", 2);
    world.lab.rules().device_shift = 7;
    world.start();
    assert_eq!(world.taken().len(), 2, "the head and the bytes before the position are the same");
    world.check("logs/a.log");
}

/// A log that comes late is read from its start.
#[test]
fn case_13_a_log_that_comes_late() {
    let mut world = World::new(&["a.log", "*.txt"]);
    world.poll();
    assert_eq!(world.blocked("a.log"), Some("missing"));
    world.write("a.log", 2);
    world.write("b.txt", 2);
    assert_eq!(world.taken().len(), 4);
    world.check("a.log");
}

/// At the very first start old logs may be left alone; what comes later is read whole.
#[test]
fn case_13_history_is_left_alone_at_the_very_first_start() {
    let mut world = World::new(&["*.log"]);
    world.at_end = true;
    world.start();
    world.write_foreign("old.log", 3);
    world.poll();
    let mut lines = world.write("old.log", 2);
    lines.extend(world.write("young.log", 2));
    assert_eq!(world.numbers_taken(), lines);
    world.restart();
    world.check("old.log");
}

/// A directory that is missing is waited for, in the midst of a life and at a start.
#[test]
fn case_14_a_directory_that_is_missing() {
    let mut world = World::new(&["logs/a.log", "logs/*.txt"]);
    world.poll();
    fs::create_dir(world.path("logs")).expect("a directory");
    world.write("logs/a.log", 2);
    world.write("logs/b.txt", 1);
    assert_eq!(world.taken().len(), 3);
    world.stop();
    world.write("logs/a.log", 2);
    fs::rename(world.path("logs"), world.path("away")).expect("renamed");
    world.start();
    assert_eq!(world.taken(), [""; 0]);
    fs::rename(world.path("away"), world.path("logs")).expect("renamed");
    assert_eq!(world.taken().len(), 2);
    world.check("logs/a.log");
}

/// Forbidden, then allowed: nothing is skipped.
#[test]
fn case_15_forbidden_and_then_allowed() {
    let mut world = World::new(&["a.log"]);
    let path = world.path("a.log");
    world.lab.rules().denied.insert(path.clone());
    world.write("a.log", 2);
    for _ in 0..3 {
        assert_eq!(world.taken(), [""; 0]);
        assert_eq!(world.blocked("a.log"), Some("unreadable"));
    }
    world.restart();
    world.write("a.log", 2);
    world.poll();
    world.lab.rules().denied.remove(&path);
    assert_eq!(world.taken().len(), 4);
    // Forbidden at a start, with a position: that waits, too.
    world.lab.rules().denied.insert(path.clone());
    world.restart();
    world.write("a.log", 2);
    assert_eq!(world.taken(), [""; 0]);
    assert!(world.losses().is_empty());
    world.lab.rules().denied.remove(&path);
    assert_eq!(world.taken().len(), 2);
    world.check("a.log");
}

/// Forbidden while it is open: an open file stays readable.
#[test]
fn case_16_forbidden_while_it_is_open() {
    let mut world = World::new(&["a.log"]);
    world.write("a.log", 1);
    world.poll();
    let path = world.path("a.log");
    world.lab.rules().denied.insert(path.clone());
    world.write("a.log", 2);
    assert_eq!(world.taken().len(), 3);
    world.lab.rules().denied.remove(&path);
    world.check("a.log");
}

/// A network file system loses its server: the open file is stale for ever, and is opened again.
#[test]
fn case_31_a_stale_handle() {
    for shift in [0, 9] {
        let mut world = World::new(&["a.log"]);
        world.write("a.log", 3);
        world.poll();
        world.commit();
        {
            let mut rules = world.lab.rules();
            rules.stale_below = rules.opened;
            rules.device_shift = shift;
        }
        let mut lines = world.write("a.log", 2);
        let mut taken = world.numbers_taken();
        lines.extend(world.write("a.log", 2));
        taken.extend(world.numbers_taken());
        taken.extend(world.numbers_taken());
        assert_eq!(&taken[3..], lines, "device shifted by {shift}");
        world.check("a.log");
    }
}

/// A disk that fails for a while: the error is named, tried again, and nothing is skipped.
#[test]
fn case_31_reads_that_fail_for_a_while() {
    let mut world = World::new(&["a.log", "b.log"]);
    world.write("a.log", 1);
    world.write("b.log", 1);
    world.poll();
    let path = world.path("a.log");
    world.lab.rules().failing.insert(path.clone(), rustix::io::Errno::IO.raw_os_error());
    world.write("a.log", 2);
    world.write("b.log", 2);
    assert_eq!(world.taken().len(), 4, "the other one is read");
    world.rename("a.log", "a.log.1");
    world.write("a.log", 1);
    world.poll();
    world.lab.rules().failing.clear();
    world.poll();
    assert_eq!(world.taken().len(), 3);
    world.check("a.log");
}

/// A log that is shorter than it was can be read neither through its handle nor under its name, and then through the
/// handle first: it is followed once.
#[test]
fn case_31_a_truncated_log_that_is_read_by_its_handle_first() {
    let mut world = World::new(&["a.log"]);
    world.write("a.log", 3);
    assert_eq!(world.taken().len(), 3);
    let path = world.path("a.log");
    world.lab.rules().failing.insert(path.clone(), rustix::io::Errno::IO.raw_os_error());
    world.truncate("a.log");
    world.write("a.log", 1);
    assert_eq!(world.taken(), [""; 0]);
    assert_eq!(world.open_files(), 0, "it was seen to be another");
    world.lab.rules().failing.clear();
    world.lab.rules().denied.insert(path);
    assert_eq!(world.taken().len(), 1);
    world.lab.rules().denied.clear();
    world.poll();
    assert_eq!(world.open_files(), 1);
    world.check("a.log");
}

/// More happened between two looks than events could tell of: a look asks for none.
#[test]
fn case_32_events_are_lost() {
    let mut world = World::new(&["*.log"]);
    world.write("a.log", 1);
    world.poll();
    let mut count = 0;
    for file in 0..150 {
        let name = format!("{file}.log");
        world.write(&name, 1);
        world.rename(&name, &format!("{name}.tmp"));
        world.write(&name, 1);
        world.rename(&format!("{name}.tmp"), &format!("{name}.renamed.log"));
        count += 2;
    }
    assert_eq!(world.taken().len(), 1 + count);
    world.check("a.log");
}

/// A thousand logs that all rotate: each line once.
#[test]
fn case_34_a_thousand_logs() {
    const FILES: usize = 1_000;
    let mut world = World::new(&["*.log"]);
    for file in 0..FILES {
        world.oracle.free.insert(format!("{file} before").into_bytes());
        world.oracle.free.insert(format!("{file} after").into_bytes());
        fs::write(world.path(&format!("{file}.log")), format!("{file} before\n")).expect("a log");
    }
    assert_eq!(world.taken().len(), FILES);
    for file in 0..FILES {
        let name = world.path(&format!("{file}.log"));
        fs::rename(&name, world.path(&format!("{file}.log.1"))).expect("renamed");
        fs::write(name, format!("{file} after\n")).expect("a log");
    }
    assert_eq!(world.taken().len(), FILES);
    assert_eq!(world.open_files(), 2 * FILES);
    world.pass(ROTATE_GRACE * 2);
    world.poll();
    assert_eq!(world.open_files(), FILES);
    world.restart();
    assert_eq!(world.taken(), [""; 0]);
}

/// The agent may start before the web server makes its log, after it, or at the same moment.
#[test]
fn case_36_the_agent_starts_before_the_web_server() {
    let mut world = World::new(&["a.log"]);
    world.poll();
    world.commit();
    world.restart();
    world.hold("a.log");
    world.poll();
    world.write_held(2);
    assert_eq!(world.taken().len(), 2);
    world.check("a.log");
}

/// A directory or a FIFO takes the place of a log; the log is read to its end and the next one from its start.
#[test]
fn case_42_replaced_by_what_is_no_file() {
    let mut world = World::new(&["a.log"]);
    world.write("a.log", 1);
    world.poll();
    for is_fifo in [true, false] {
        world.write("a.log", 2);
        world.rename("a.log", "a.log.1");
        if is_fifo {
            fifo(&world.path("a.log"));
        } else {
            fs::create_dir(world.path("a.log")).expect("a directory");
        }
        assert!(world.taken().len() >= 2);
        assert_eq!(world.blocked("a.log"), Some("not_a_file"));
        if is_fifo {
            fs::remove_file(world.path("a.log")).expect("removed");
        } else {
            fs::remove_dir(world.path("a.log")).expect("removed");
        }
        world.write("a.log", 1);
        assert_eq!(world.taken().len(), 1);
    }
    world.check("a.log");
}

/// A name of any bytes is a name.
#[test]
fn case_44_names_of_any_bytes() {
    let mut world = World::new(&["*.log"]);
    let names: [&[u8]; 4] = [b"\xff\xfe.log", b"new\nline.log", b"spa ce.log", b"-r*[a].log"];
    for (place, name) in names.iter().enumerate() {
        let path = world.path("").join(OsStr::from_bytes(name));
        let text = format!("in name {place}");
        world.oracle.free.insert(text.clone().into_bytes());
        world.oracle.free.insert(b"more".to_vec());
        fs::write(&path, text.clone() + "\n").expect("a log");
        assert_eq!(world.taken(), [text]);
        world.restart();
        fs::write(&path, format!("in name {place}\nmore\n")).expect("the same and more");
        assert_eq!(world.taken(), ["more"], "its position was kept");
    }
    world.check("a.log");
}

/// A copy stood in for a log that could not be opened; when it can be it has another name. Its last piece comes once.
#[test]
fn case_15_forbidden_and_renamed_while_a_copy_stands_in() {
    let mut world = World::new(&["*.log"]);
    world.write("a.log", 1);
    world.poll();
    world.rename("a.log", "a.log-20261101");
    world.write_piece("a.log");
    world.copy("a.log", "a.log.bak");
    let path = world.path("a.log");
    world.lab.rules().denied.insert(path);
    world.poll();
    world.rename("a.log", "a.log.1");
    world.create("a.log");
    world.lab.rules().denied.clear();
    world.check("a.log");
}
