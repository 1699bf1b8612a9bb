//! A real directory in which files are written, moved, copied and destroyed, with a follower over it that polls,
//! commits, stops, dies and starts again, and the oracle that knows what it must have handed out.
//!
//! Every action is what an administrator, a writer or logrotate does; none of them touches the follower's insides.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::lab::Lab;
use super::oracle::{Oracle, Taken};
use crate::follow::{Flow, Follower, Notice, Options, ROTATE_GRACE};

/// Turns that one file may ask for in one poll; more would be a loop without end.
const TURNS_MAX: u32 = 1_000;

/// Tries until a file system gives an inode number out again.
const REUSE_TRIES_MAX: u32 = 20_000;

pub(super) struct World {
    pub(super) directory: tempfile::TempDir,
    pub(super) lab: Lab,
    pub(super) oracle: Oracle,
    /// None while the agent is down.
    pub(super) follower: Option<Follower>,
    pub(super) now: Instant,
    begun_at: Instant,
    wall_begun: SystemTime,
    /// Actions so far: each has a moment of its own, however fast the test is.
    ticks: u64,
    pub(super) patterns: Vec<String>,
    /// At the very first start, old files are read from their end.
    pub(super) at_end: bool,
    /// What a start finds.
    pub(super) state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) notices: Vec<Notice>,
    /// Texts of the lines since they were last asked for.
    taken: Vec<String>,
    is_first_start: bool,
    next_number: u64,
    /// A line that was begun: its file's inode, its number, and what is missing.
    begun: Option<(PathBuf, u64, Vec<u8>)>,
    /// A process that holds a file open, as a worker of nginx does after a rotation.
    writer: Option<File>,
    /// The line that was begun in the file of that process before it lost its name, and what is missing.
    left_piece: Option<(u64, Vec<u8>)>,
    /// The spool takes no line.
    pub(super) is_full: bool,
    /// A fault: each line is handed out so many times.
    pub(super) repeats: u32,
    /// A fault: a start knows nothing of the last run.
    pub(super) is_forgetful: bool,
    /// A fault: nobody says what was lost.
    pub(super) is_silent: bool,
}

impl World {
    pub(super) fn new(patterns: &[&str]) -> World {
        World::within(tempfile::tempdir().expect("a temporary directory"), patterns)
    }

    pub(super) fn within(directory: tempfile::TempDir, patterns: &[&str]) -> World {
        let lab = Lab::default();
        let now = Instant::now();
        let mut world = World {
            patterns: Vec::new(),
            directory,
            lab,
            oracle: Oracle::default(),
            follower: None,
            now,
            begun_at: now,
            wall_begun: SystemTime::now(),
            ticks: 0,
            at_end: false,
            state: BTreeMap::new(),
            notices: Vec::new(),
            taken: Vec::new(),
            is_first_start: true,
            next_number: 1,
            begun: None,
            writer: None,
            left_piece: None,
            is_full: false,
            repeats: 1,
            is_forgetful: false,
            is_silent: false,
        };
        world.follow(patterns);
        world.start();
        world
    }

    /// What the operator configures for the next start.
    pub(super) fn follow(&mut self, patterns: &[&str]) {
        self.patterns = patterns.iter().map(|name| self.path(name).display().to_string()).collect();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    // ---- writers ----

    fn line(&mut self) -> (u64, Vec<u8>) {
        let number = self.next_number;
        self.next_number += 1;
        let filler = "x".repeat((number * 7 % 40) as usize);
        (number, format!("L{number}:{filler}").into_bytes())
    }

    /// Appends bytes as they are; makes the file where there is none.
    pub(super) fn append(&mut self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        let is_new = fs::metadata(&path).is_err();
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("a log to write");
        if is_new {
            self.made(&path);
        }
        file.write_all(bytes).expect("written");
        self.wrote(&file);
    }

    /// The next moment.
    fn tick(&mut self) -> SystemTime {
        self.ticks += 1;
        self.wall_begun + (self.now - self.begun_at) + Duration::from_micros(self.ticks)
    }

    fn made(&mut self, path: &Path) {
        let age = self.tick().duration_since(UNIX_EPOCH).expect("after 1970");
        self.lab.give_birth(path, age.as_nanos() as u64);
        self.oracle.forget_inode(path);
        let file = File::open(path).expect("just made");
        self.wrote(&file);
    }

    /// What was written was written now.
    fn wrote(&mut self, file: &File) {
        let now = self.tick();
        file.set_modified(now).expect("a time");
    }

    /// Whole lines at the end of a log, in one write. A line that was begun there ends first.
    pub(super) fn write(&mut self, name: &str, lines: u64) -> Vec<u64> {
        let mut bytes = Vec::new();
        if self.begun.as_ref().is_some_and(|(path, ..)| *path == self.path(name))
            && let Some((_, number, rest)) = self.begun.take()
        {
            self.oracle.unfinished.remove(&number);
            bytes.extend(rest);
        }
        let mut numbers = Vec::new();
        for _ in 0..lines {
            let (number, text) = self.line();
            bytes.extend_from_slice(&text);
            bytes.push(b'\n');
            self.oracle.texts.insert(number, text);
            numbers.push(number);
        }
        self.append(name, &bytes);
        numbers
    }

    /// The first piece of a line; [`World::write`] to the same name ends it.
    pub(super) fn write_piece(&mut self, name: &str) -> u64 {
        self.write(name, 0);
        let (number, text) = self.line();
        let piece = text.len() - 1;
        self.append(name, &text[..piece]);
        self.begun = Some((self.path(name), number, [&text[piece..], b"\n"].concat()));
        self.oracle.unfinished.insert(number);
        self.oracle.texts.insert(number, text);
        number
    }

    /// The writer of a begun line forgets it: its file was taken away. A process that holds the file ends the line
    /// before it writes others.
    fn forget_begun(&mut self, name: &str) {
        let path = self.path(name);
        let Some((_, number, rest)) = self.begun.take_if(|(begun, ..)| *begun == path) else { return };
        self.oracle.piece_bytes += self.oracle.texts[&number].len() as u64;
        let inode = |metadata: fs::Metadata| metadata.ino();
        let held = self.writer.as_ref().and_then(|writer| writer.metadata().ok()).map(inode);
        if held.is_some() && held == fs::metadata(&path).ok().map(inode) {
            self.left_piece = Some((number, rest));
        }
    }

    /// No process ends it either: its file was cut.
    fn forget_begun_for_ever(&mut self, name: &str) {
        let left_before = self.left_piece.take();
        self.forget_begun(name);
        self.left_piece = left_before;
    }

    /// A process opens the log and keeps it.
    pub(super) fn hold(&mut self, name: &str) {
        let path = self.path(name);
        let is_new = fs::metadata(&path).is_err();
        self.let_go();
        self.writer = OpenOptions::new().create(true).append(true).open(&path).ok();
        if is_new {
            self.made(&path);
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.writer.is_some()
    }

    /// That process ends.
    pub(super) fn let_go(&mut self) {
        self.writer = None;
        self.left_piece = None;
    }

    /// Whether a line was begun and is not at its end.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// It writes whole lines, wherever the file is by now. A piece that stands at its end is ended first.
    pub(super) fn write_held(&mut self, lines: u64) {
        let mut writer = self.writer.take().expect("a process that holds a log");
        if let Some((number, rest)) = self.left_piece.take() {
            self.oracle.piece_bytes -= self.oracle.texts[&number].len() as u64;
            self.oracle.unfinished.remove(&number);
            writer.write_all(&rest).expect("written");
        }
        for _ in 0..lines {
            let (number, text) = self.line();
            self.oracle.texts.insert(number, text.clone());
            writer.write_all(&[text, b"\n".to_vec()].concat()).expect("written");
        }
        self.wrote(&writer);
        self.writer = Some(writer);
        let root = self.root();
        self.oracle.note_gone(&root, false);
    }

    /// Lines that nobody may hand out.
    pub(super) fn write_foreign(&mut self, name: &str, lines: u64) {
        let numbers = self.write(name, lines);
        self.oracle.foreign.extend(numbers);
    }

    // ---- files ----

    pub(super) fn create(&mut self, name: &str) {
        self.append(name, b"");
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let was_read_of = self.oracle.has_read_of(&self.path(to));
        self.forget_begun(from);
        fs::rename(self.path(from), self.path(to)).expect("renamed");
        self.note_gone(was_read_of);
    }

    fn note_gone(&mut self, was_read_of: bool) {
        let root = self.root();
        self.oracle.note_gone(&root, was_read_of);
    }

    pub(super) fn copy(&mut self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        let _ = fs::remove_file(&to);
        fs::copy(&from, &to).expect("copied");
        self.made(&to);
    }

    fn cut(&mut self, name: &str) {
        self.forget_begun_for_ever(name);
        let file = OpenOptions::new().write(true).truncate(true).open(self.path(name)).expect("truncated");
        self.wrote(&file);
    }

    pub(super) fn truncate(&mut self, name: &str) {
        let was_read_of = self.oracle.has_read_of(&self.path(name));
        self.cut(name);
        self.note_gone(was_read_of);
    }

    /// logrotate's `copytruncate`; so many lines are written in between, are in no file any more, and nobody can know.
    pub(super) fn copytruncate(&mut self, name: &str, to: &str, lines_between: u64) {
        self.copy(name, to);
        if lines_between > 0 {
            self.write(name, lines_between);
        }
        self.cut(name);
        self.note_gone(false);
    }

    pub(super) fn unlink(&mut self, name: &str) {
        let was_read_of = self.oracle.has_read_of(&self.path(name));
        self.forget_begun(name);
        fs::remove_file(self.path(name)).expect("removed");
        self.note_gone(was_read_of);
    }

    /// What gzip makes of a log: the file first, then what it holds, then the log goes. The time is the log's.
    pub(super) fn compress(&mut self, name: &str) {
        self.compress_begin(name);
        self.compress_end(name);
    }

    pub(super) fn compress_begin(&mut self, name: &str) {
        let path = self.path(&format!("{name}.gz"));
        File::create(&path).expect("made");
        self.made(&path);
    }

    pub(super) fn compress_end(&mut self, name: &str) {
        let (from, to) = (self.path(name), self.path(&format!("{name}.gz")));
        let plain = fs::read(&from).expect("a log");
        let modified = fs::metadata(&from).and_then(|metadata| metadata.modified()).expect("a time");
        let file = OpenOptions::new().write(true).open(&to).expect("made before");
        let mut encoder = GzEncoder::new(file, Compression::default());
        encoder.write_all(&plain).expect("packed");
        encoder.finish().and_then(|file| file.set_modified(modified)).expect("packed");
        fs::remove_file(from).expect("removed");
    }

    pub(super) fn decompress(&mut self, name: &str) {
        let (from, to) = (self.path(&format!("{name}.gz")), self.path(name));
        let mut plain = Vec::new();
        let packed = fs::read(&from).expect("packed");
        let modified = fs::metadata(&from).and_then(|metadata| metadata.modified()).expect("a time");
        flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut plain).expect("gzip");
        fs::write(&to, plain).expect("unpacked");
        self.made(&to);
        File::open(&to).and_then(|file| file.set_modified(modified)).expect("its time");
        fs::remove_file(from).expect("removed");
    }

    /// `sed -i`, an editor's save: a copy takes the name.
    pub(super) fn replace_by_copy(&mut self, name: &str) {
        self.copy(name, "sed.tmp");
        fs::rename(self.path("sed.tmp"), self.path(name)).expect("renamed");
    }

    /// Removed and made anew, until the file system gives the same inode number again; whether it does.
    pub(super) fn recreate_on_same_inode(&mut self, name: &str) -> bool {
        let path = self.path(name);
        let inode = fs::metadata(&path).expect("a log").ino();
        self.unlink(name);
        let mut kept = Vec::new();
        for _ in 0..REUSE_TRIES_MAX {
            let file = File::create(&path).expect("made");
            if file.metadata().is_ok_and(|metadata| metadata.ino() == inode) {
                self.made(&path);
                return true;
            }
            kept.push(file);
            if kept.len() > 200 {
                self.made(&path);
                return false;
            }
            fs::remove_file(&path).expect("removed");
        }
        false
    }

    /// A writer that does not append goes on behind a hole.
    pub(super) fn write_behind_hole(&mut self, name: &str, hole_bytes: u64) {
        let (number, text) = self.line();
        self.oracle.texts.insert(number, text.clone());
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("a log");
        let size = file.metadata().expect("a log").len();
        file.write_all_at(&[text, b"\n".to_vec()].concat(), size + hole_bytes).expect("written");
        self.wrote(&file);
    }

    pub(super) fn symlink(&mut self, target: &str, name: &str) {
        let temporary = self.path("symlink.tmp");
        std::os::unix::fs::symlink(target, &temporary).expect("a symlink");
        fs::rename(temporary, self.path(name)).expect("switched");
    }

    // ---- the agent ----

    pub(super) fn start(&mut self) {
        if self.is_forgetful {
            self.state.clear();
        }
        let options = Options { patterns: self.patterns.clone(), first_start_at_end: self.at_end };
        let entries = self.state.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let host = Arc::new(self.lab.clone());
        self.follower = Some(Follower::new(host, options, entries, self.is_first_start));
    }

    /// kill -9: what was not durable was never taken.
    pub(super) fn crash(&mut self) {
        self.follower = None;
        let root = self.root();
        self.oracle.crash(&root);
        self.taken.clear();
    }

    /// An orderly stop.
    pub(super) fn stop(&mut self) {
        self.commit();
        self.crash();
    }

    pub(super) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(super) fn pass(&mut self, passed: Duration) {
        self.now += passed;
    }

    /// A second passes, and an agent that runs looks at everything and reads all there is.
    pub(super) fn poll(&mut self) {
        self.now += Duration::from_secs(1);
        let Some(mut follower) = self.follower.take() else { return };
        let refused = self.refused();
        self.oracle.look(self.directory.path(), &self.patterns, &refused, self.now);
        if self.is_full {
            self.oracle.take_none();
        }
        self.is_first_start = false;
        follower.scan(self.now);
        for (key, value) in follower.births() {
            self.state.extend(value.map(|value| (key, value)));
        }
        for id in follower.ids() {
            self.read(&mut follower, id);
        }
        for notice in follower.take_notices() {
            self.note(notice);
        }
        self.follower = Some(follower);
    }

    pub(super) fn refused(&self) -> Vec<PathBuf> {
        let rules = self.lab.rules();
        rules.denied.iter().chain(rules.failing.keys()).cloned().collect()
    }

    fn read(&mut self, follower: &mut Follower, id: u64) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "a file that never ends");
            let more = follower.turn(id, 1 << 20, self.now, &mut |line| {
                if self.is_full {
                    return Flow::Refuse;
                }
                let taken = Taken { text: line.bytes.to_vec(), is_cut: line.cut, is_partial: line.partial };
                let marks = (if line.cut { "…" } else { "" }, if line.partial { "~" } else { "" });
                self.taken.push(format!("{}{}{}", String::from_utf8_lossy(line.bytes), marks.0, marks.1));
                for _ in 0..self.repeats {
                    self.oracle.pending.push(taken.clone());
                }
                Flow::Continue
            });
            if !more.more || more.refused {
                return;
            }
        }
    }

    fn note(&mut self, notice: Notice) {
        if let Some(bytes) = lost_bytes(&notice)
            && !self.is_silent
        {
            self.oracle.lose(bytes);
        }
        self.notices.push(notice);
    }

    /// What was read and where reading has come to become durable in one.
    pub(super) fn commit(&mut self) {
        let Some(follower) = &mut self.follower else { return };
        for (key, value) in follower.changes() {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        self.oracle.commit();
    }

    // ---- what came of it ----

    /// Texts of the lines since the last call, after a poll: `~` behind a partial one, `…` behind one that was cut.
    pub(super) fn taken(&mut self) -> Vec<String> {
        self.poll();
        std::mem::take(&mut self.taken)
    }

    /// How many numbered lines, and which.
    pub(super) fn numbers_taken(&mut self) -> Vec<u64> {
        self.taken().iter().filter_map(|line| super::oracle::number(line.as_bytes())).collect()
    }

    /// Bytes that are said to be lost since the last call, a number for each time it was said.
    pub(super) fn losses(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.notices).iter().filter_map(lost_bytes).collect()
    }

    /// The state in which a path stands that is not read.
    pub(super) fn blocked(&self, name: &str) -> Option<&'static str> {
        let follower = self.follower.as_ref().expect("an agent that runs");
        follower.blocked().get(&self.path(name)).map(|blocked| blocked.state)
    }

    /// Files that are open.
    pub(super) fn open_files(&self) -> usize {
        self.follower.as_ref().map_or(0, |follower| follower.ids().len())
    }

    /// Reads whatever is still to be read, past every grace; then everything that is wrong.
    pub(super) fn settle(&mut self) -> Vec<String> {
        if self.follower.is_none() {
            self.start();
        }
        for _ in 0..3 {
            self.poll();
        }
        self.pass(ROTATE_GRACE * 3);
        for _ in 0..3 {
            self.poll();
            self.pass(ROTATE_GRACE);
        }
        self.commit();
        self.poll();
        self.taken.clear();
        self.oracle.complaints()
    }

    /// Lines, losses and life: each line once, each loss said, and a last line is still read under `name`.
    #[track_caller]
    pub(super) fn check(&mut self, name: &str) {
        let complaints = self.settle();
        assert!(complaints.is_empty(), "{complaints:#?}\n{:#?}", self.notices);
        let last = self.write(name, 1);
        assert_eq!(self.numbers_taken(), last, "a last line in {name}");
        let complaints = self.settle();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// Bytes that a notice says to be lost; `None` for one that says of no loss.
pub(super) fn lost_bytes(notice: &Notice) -> Option<u64> {
    match notice {
        Notice::Rewritten { lost, .. } | Notice::Vanished { lost, .. } => Some(lost.bytes),
        Notice::Closed { unreadable_rest: Some(_), .. } => Some(0),
        _ => None,
    }
}
