//! What a search may conclude: nothing from a look that was disturbed, and no order of age from the last writes alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::follow::files::{Expanded, LogFile, Stat};
use crate::follow::open::Opened;

/// Files under which something happens once, between two calls of a look, or that cannot be told of now.
#[derive(Clone, Default)]
struct Disturbed(Arc<Mutex<Disturbance>>);

#[derive(Default)]
struct Disturbance {
    /// Renames that happen when the next directory has been listed.
    renames: Vec<(PathBuf, PathBuf)>,
    /// Truncations that happen then.
    truncations: Vec<PathBuf>,
    /// Paths of which stat(2) tells an error.
    failing: BTreeSet<PathBuf>,
    /// Paths of which the open file tells its size once, and an error then.
    brittle: BTreeSet<PathBuf>,
    /// Patterns give nothing but an error.
    is_unlisted: bool,
}

impl Files for Disturbed {
    fn expand(&self, pattern: &str) -> Expanded {
        if self.0.lock().expect("no panic").is_unlisted {
            let error = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
            return (Vec::new(), vec![(PathBuf::from(pattern), error)]);
        }
        HostFiles.expand(pattern)
    }

    fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>> {
        let names = HostFiles.list(directory, names_max);
        let mut disturbance = self.0.lock().expect("no panic");
        for (from, to) in disturbance.renames.drain(..) {
            fs::rename(from, to).expect("renamed");
        }
        for path in disturbance.truncations.drain(..) {
            fs::write(path, "").expect("truncated");
        }
        names
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        if self.0.lock().expect("no panic").failing.contains(path) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        HostFiles.stat(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = HostFiles.open(path)?;
        if self.0.lock().expect("no panic").brittle.contains(path) {
            return Ok(Box::new(Brittle { file, looks: AtomicU64::new(0) }));
        }
        Ok(file)
    }
}

/// An open file that tells its size once.
struct Brittle {
    file: Box<dyn LogFile>,
    looks: AtomicU64,
}

impl LogFile for Brittle {
    fn stat(&self) -> io::Result<Stat> {
        if self.looks.fetch_add(1, Ordering::Relaxed) > 0 {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        self.file.stat()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

/// An agent that follows a log of one line, which it has read, over files that may be disturbed.
fn following(pattern: &str) -> (Bench, Disturbed) {
    let mut bench = Bench::new(&[pattern]);
    let files = Disturbed::default();
    let options = options(&bench.directory, &[pattern], false);
    bench.follower = Follower::new(Arc::new(files.clone()), options, std::iter::empty(), true);
    bench.append("a.log", "1\n");
    assert_eq!(bench.taken(), ["1"]);
    (bench, files)
}

/// The same after a rotation, with another line read, that could not be looked into then: the next look asks for it too.
fn asking() -> (Bench, Disturbed) {
    let (mut bench, files) = following("a.log");
    bench.append("a.log.9", "of which nothing can be told\n");
    files.0.lock().expect("no panic").failing.insert(bench.path("a.log.9"));
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    assert_eq!(bench.taken(), ["2"]);
    files.0.lock().expect("no panic").failing.clear();
    fs::remove_file(bench.path("a.log.9")).expect("removed");
    bench.rename("a.log.1", "a.log.2");
    (bench, files)
}

/// A log of which one line was read, renamed while the agent was down; the agent starts again over disturbed files.
fn moved() -> (Bench, Disturbed) {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    assert_eq!(bench.taken(), ["1"]);
    let saved = bench.positions();
    bench.append("a.log", "2\n");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "3\n");
    let files = Disturbed::default();
    let entries = saved.iter().filter_map(|(key, value)| Some((key.as_slice(), value.as_deref()?)));
    let options = options(&bench.directory, &["a.log"], false);
    bench.follower = Follower::new(Arc::new(files.clone()), options, entries, false);
    (bench, files)
}

#[test]
fn what_came_and_went_before_a_log_that_cannot_be_read_is_read() {
    let (mut bench, files) = following("*.log");
    files.0.lock().expect("no panic").is_unlisted = true;
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    assert_eq!(bench.outwait(), [""; 0]);
    assert_eq!(bench.follower.files().count(), 0, "the first one is closed, and the second was not seen");
    files.0.lock().expect("no panic").is_unlisted = false;
    bench.rename("a.log.1", "a.log.2");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "3\n");
    files.0.lock().expect("no panic").brittle.insert(bench.path("a.log"));
    let mut lines = bench.taken();
    files.0.lock().expect("no panic").brittle.clear();
    lines.extend(bench.taken());
    lines.extend(bench.taken());
    lines.sort();
    assert_eq!(lines, ["2", "3"]);
}

#[test]
fn a_rotation_in_the_middle_of_a_search_loses_nothing() {
    let (mut bench, files) = moved();
    let renames = [("a.log.1", "a.log.2"), ("a.log", "a.log.1")].map(|(a, b)| (bench.path(a), bench.path(b)));
    files.0.lock().expect("no panic").renames = renames.into();
    bench.poll();
    bench.append("a.log", "4\n");
    let mut lines = bench.taken();
    lines.sort();
    assert_eq!(lines, ["2", "3", "4"]);
}

#[test]
fn an_error_is_no_absence() {
    let (mut bench, files) = moved();
    files.0.lock().expect("no panic").failing.insert(bench.path("a.log.1"));
    assert_eq!(bench.taken(), ["3"]);
    assert_eq!(bench.taken(), [""; 0]);
    let is_loss = |notice: &Notice| matches!(notice, Notice::Vanished { .. });
    assert!(!bench.follower.take_notices().iter().any(is_loss), "nothing is given up");
    files.0.lock().expect("no panic").failing.clear();
    assert_eq!(bench.taken(), ["2"]);
}

#[test]
fn late_words_of_an_older_log_do_not_hide_its_successor() {
    let mut bench = Bench::new(&["a.log"]);
    let mut held = OpenOptions::new().create(true).append(true).open(bench.path("a.log")).expect("open");
    writeln!(held, "1").expect("written");
    assert_eq!(bench.taken(), ["1"]);
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    bench.rename("a.log.1", "a.log.2");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "4\n");
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    writeln!(held, "3").and_then(|()| held.set_modified(later)).expect("written");
    let mut lines = bench.taken();
    lines.sort();
    assert_eq!(lines, ["1", "2", "3", "4"].get(1..).expect("three"));
}

#[test]
fn a_birth_is_where_reading_began_however_far_it_went() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n2\n");
    assert_eq!(bench.taken(), ["1", "2"]);
    bench.follower.births();
    fs::write(bench.path("a.log"), "rewritten\n").expect("written");
    // Found out in a turn, which comes after the births of the scan were asked for.
    let id = bench.follower.ids()[0];
    bench.follower.turn(id, 1 << 20, bench.now, &mut |_| Flow::Continue);
    assert_eq!(bench.taken(), ["rewritten"]);
    let births: Vec<u64> = bench
        .follower
        .births()
        .into_iter()
        .filter_map(|(_, value)| Some(Position::decode(&value?)?.offset))
        .collect();
    assert_eq!(births, [0], "its line is durable with its position, and no sooner");
}

#[test]
fn a_short_log_is_no_copy_of_a_truncated_one() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "one line that is read\nand another\n");
    assert_eq!(bench.taken().len(), 2);
    fs::write(bench.path("a.log"), "").expect("truncated");
    bench.append("b.log", "b\n");
    let mut lines = bench.taken();
    for _ in 0..3 {
        bench.now += COPY_GRACE;
        lines.extend(bench.taken());
    }
    assert_eq!(lines, ["b"]);
}

#[test]
fn a_name_that_cannot_be_looked_at_is_not_lost() {
    let (mut bench, files) = following("a.log");
    let mut held = OpenOptions::new().append(true).open(bench.path("a.log")).expect("open");
    files.0.lock().expect("no panic").failing.insert(bench.path("a.log"));
    assert_eq!(bench.taken(), [""; 0]);
    files.0.lock().expect("no panic").failing.clear();
    bench.now += ROTATE_GRACE * 2;
    fs::remove_file(bench.path("a.log")).expect("removed");
    assert_eq!(bench.taken(), [""; 0]);
    writeln!(held, "2").expect("written");
    assert_eq!(bench.taken(), ["2"], "the grace begins when the name goes");
}

#[test]
fn a_copy_whose_log_is_truncated_in_the_middle_of_a_look_is_taken_for_it() {
    let (mut bench, files) = asking();
    bench.append("a.log", "3\n");
    fs::copy(bench.path("a.log"), bench.path("a.log.1")).expect("copied");
    files.0.lock().expect("no panic").truncations.push(bench.path("a.log"));
    let mut lines = bench.taken();
    bench.append("a.log", "4\n");
    lines.extend(bench.taken());
    lines.sort();
    assert_eq!(lines, ["3", "4"]);
    let notices = bench.follower.take_notices();
    let lost = |notice: &Notice| matches!(notice, Notice::Rewritten { lost, .. } if lost.bytes > 0);
    assert!(!notices.iter().any(lost), "{notices:?}");
}

#[test]
fn a_copy_that_was_only_begun_is_waited_for() {
    let (mut bench, _) = asking();
    bench.append("a.log.1", "");
    assert_eq!(bench.taken(), [""; 0]);
    fs::copy(bench.path("a.log"), bench.path("a.log.1")).expect("copied");
    fs::write(bench.path("a.log"), "").expect("truncated");
    bench.append("a.log", "3\n");
    assert_eq!(bench.taken(), ["3"]);
    // One that stays empty is not waited for in all eternity.
    bench.rename("a.log.1", "a.log.3");
    bench.append("a.log.1", "");
    bench.rename("a.log", "a.log.0");
    bench.append("a.log", "4\n");
    assert_eq!(bench.taken(), ["4"]);
    bench.now += COPY_GRACE;
    assert_eq!(bench.taken(), [""; 0]);
    assert!(bench.follower.gaps.is_empty());
}

#[test]
fn a_log_that_fails_just_behind_its_open_is_kept_in_mind() {
    let (mut bench, files) = following("a.log");
    bench.follower.births();
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "2\n");
    files.0.lock().expect("no panic").brittle.insert(bench.path("a.log"));
    assert_eq!(bench.taken(), [""; 0]);
    let identity = HostFiles.stat(&bench.path("a.log")).expect("a stat").identity;
    let births = bench.follower.births();
    let mut born = births.iter().filter_map(|(_, value)| Position::decode(value.as_ref()?));
    assert!(born.any(|position| position.identity == identity), "before it is renamed, too");
    files.0.lock().expect("no panic").brittle.clear();
    assert_eq!(bench.taken(), ["2"]);
}

#[test]
fn a_place_of_counting_goes_with_the_lines_that_were_counted() {
    let (mut bench, files) = following("a.log");
    bench.append("a.log", "2\n");
    bench.follower.scan(bench.now);
    let id = bench.follower.ids()[0];
    bench.follower.count(id, 1 << 20, bench.now, &mut |_| Flow::Continue);
    let place = Ahead::key(id);
    let kept = |changes: &[StateChange]| {
        changes.iter().find(|(key, _)| *key == place).map(|(_, value)| value.is_some())
    };
    bench.poll();
    assert_eq!(kept(&bench.follower.changes()), None, "counted and shipped");
    bench.append("a.log", "3\n");
    bench.follower.scan(bench.now);
    bench.follower.count(id, 1 << 20, bench.now, &mut |_| Flow::Continue);
    assert_eq!(kept(&bench.follower.changes()), Some(true));
    assert_eq!(bench.taken(), ["2", "3"]);
    fs::write(bench.path("a.log"), "").expect("truncated");
    bench.append("a.log.1", "of which nothing can be told\n");
    files.0.lock().expect("no panic").failing.insert(bench.path("a.log.1"));
    bench.poll();
    assert!(bench.follower.saved.contains_key(&id), "its copy is searched");
    assert_eq!(kept(&bench.follower.changes()), Some(false));
}

/// A file that could not be read under one number was read under the next, and its content was replaced: which of the two
/// places goes on must not change with a restart.
#[test]
fn of_two_places_in_one_file_only_the_later_can_be_that_of_what_it_holds() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "1\n");
    assert_eq!(bench.taken(), ["1"]);
    let (_, read) = bench.positions().pop().expect("a place");
    let place = Position::decode(read.as_deref().expect("a value")).expect("a position");
    let (path, pattern) = (place.path.clone(), place.pattern.clone());
    let unread = Position::unread(path, pattern, place.identity, place.known);
    let mut state = BTreeMap::from([(position::key(1), Some(unread.encode())), (position::key(2), read)]);

    fs::write(bench.path("a.log"), "2\n3\n").expect("truncated and written");
    // May become a copy of what it held: that is waited for.
    bench.append("a.log.1", "");
    let mut lines = Vec::new();
    for _ in 0..3 {
        bench.restart(&["a.log"], &state.clone().into_iter().collect::<Vec<_>>());
        lines.extend(bench.taken());
        state.extend(bench.positions());
        if bench.path("a.log").exists() {
            bench.rename("a.log", "a.log.2");
        }
    }
    assert_eq!(lines, ["2", "3"]);
}

#[test]
fn a_beginning_of_one_byte_is_not_found_in_another_log() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log.1", "7 is from before the agent was there\n");
    bench.append("a.log", "7");
    assert_eq!(bench.outwait(), [""; 0]);
    fs::write(bench.path("a.log"), "").expect("truncated");
    assert_eq!(bench.outwait(), [""; 0]);
    bench.append("a.log", "8\n");
    assert_eq!(bench.taken(), ["8"]);
}

/// Many a log begins with the same line: that it was read to its end is what tells it from a copy.
#[test]
fn a_log_that_was_read_to_its_end_is_no_copy_of_one_that_begins_alike() {
    let mut bench = Bench::new(&["a.log"]);
    bench.append("a.log", "same\nis read\n");
    assert_eq!(bench.taken(), ["same", "is read"]);
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "");
    assert_eq!(bench.outwait(), [""; 0]);
    assert_eq!(bench.follower.files().count(), 1, "the first one is closed");
    fs::remove_file(bench.path("a.log")).expect("removed");
    bench.append("a.log", "same\n");
    bench.now += Duration::from_secs(1);
    bench.follower.scan(bench.now);
    fs::write(bench.path("a.log"), "").expect("truncated before it was read");
    assert_eq!(bench.outwait(), [""; 0]);
    bench.append("a.log", "8\n");
    assert_eq!(bench.taken(), ["8"]);
}

/// An open log into which its first line comes between the first reading and the second.
struct Filling {
    file: Box<dyn LogFile>,
    path: PathBuf,
    reads: AtomicU64,
}

impl LogFile for Filling {
    fn stat(&self) -> io::Result<Stat> {
        self.file.stat()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == 1 {
            fs::write(&self.path, "a line\n")?;
        }
        self.file.read_at(buffer, offset)
    }
}

#[test]
fn of_a_log_that_fills_while_it_is_opened_no_first_line_is_kept_without_its_bytes() {
    let bench = Bench::new(&["a.log"]);
    bench.append("a.log", "");
    let path = bench.path("a.log");
    let file = HostFiles.open(&path).expect("opened");
    let identity = file.stat().expect("works").identity;
    let file = Box::new(Filling { file, path: path.clone(), reads: AtomicU64::new(0) });
    let opened = Opened { identity, file };
    let Ok(tracked) = Tracked::new(1, path.clone(), String::new(), opened, 0, bench.now) else {
        panic!("it can be read");
    };
    let position = tracked.position();
    assert_eq!(fs::read(path).expect("works"), b"a line\n", "it came meanwhile");
    assert_eq!((position.head.length, position.first_line), (0, 0));
}
