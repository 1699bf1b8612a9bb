//! Follows log files through rotation, truncation and deletion.
//!
//! Owns discovery (which files), identity (which file is which) and positions (how far each was read).
//! It hands out lines and never decides what they mean. The poll is the truth; [`watch`] only shortens
//! the wait. A file that cannot be read is named with its error and tried again, and hides no other.
//!
//! ```text
//!  patterns ─► paths ─► open, fstat ─► known identity? ─► resume at its position
//!                                   └► new ────────────► from its start (or its end, at the very first start)
//!  lost its name ─► read to the end until it has stood still for ROTATE_GRACE ─► closed
//!  truncated ──────► the copy that holds what was read goes on for it; the file itself is a new one, from its start
//!  looks like a copy ─► held back for COPY_GRACE at most ─► read already, or a log of its own
//! ```
//!
//! `discover` says which files the names lead to now, `listed` which names there are, `moved` where those went that are not under their names,
//! `between` what came and went between two looks, `gap` where that is still to be asked, `siblings` what rotation left
//! beside a log and in which order, `copies` what of a new file was read before.

mod between;
mod copies;
mod cursor;
mod discover;
pub mod files;
mod gap;
pub mod gz;
pub mod identity;
mod line;
mod listed;
mod moved;
mod open;
mod position;
mod siblings;
mod tracked;
pub mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use copies::COPY_GRACE;
pub use files::{Files, HostFiles};
pub use gap::GAP_PREFIX;
pub use identity::Identity;
pub use line::{Flow, LINE_BYTES_MAX, Line, Turn};
pub use position::{AHEAD_PREFIX, KEY_PREFIX, Position, START_PREFIX};
pub use tracked::{READ_BYTES, ROTATE_GRACE, Tracked};

use crate::mutant::{Mutant, is_on};
use crate::record::Loss;
use between::Examined;
use copies::Suspicion;
use discover::{Anew, Stir};
use gap::Gap;
use listed::Listed;
use moved::Saved;
use position::{Ahead, Start};
use siblings::Listings;
use tracked::Origin;
use watch::directory_of;

/// Files followed at once; further ones are named as a problem and not read.
pub const FILES_MAX: usize = 10_000;

/// A change of the durable state: key, and value or removal.
pub type StateChange = (Vec<u8>, Option<Vec<u8>>);

/// What to follow.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Shell patterns; one without wildcards is a plain path, which may not exist yet.
    pub patterns: Vec<String>,
    /// At the very first start, files that exist already are read from their end and not whole.
    pub first_start_at_end: bool,
}

/// Something that happened to a file and that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Following began.
    Opened {
        /// Its name.
        path: PathBuf,
        /// Where reading begins, in bytes.
        offset: u64,
        /// It was known from an earlier run.
        resumed: bool,
    },
    /// A number stands for no open file now; it comes back with [`Notice::Opened`] if a file is found that goes on.
    Parted {
        /// The number.
        id: u64,
    },
    /// The file was truncated or rewritten; it is read from its start. What was written in the instant between the
    /// last read of whoever copied it and the truncation is in no file and cannot be known.
    Rewritten {
        /// Its name.
        path: PathBuf,
        /// The copy in which the rest of what it held is read.
        copy: Option<PathBuf>,
        /// What is known to be lost: bytes that can no longer be taken, and the lines in them that had been counted.
        lost: Loss,
        /// Where in the file those bytes were.
        range: Range<u64>,
    },
    /// A new file begins with what was read elsewhere; its lines from `offset` on are its own.
    Copied {
        /// Its name.
        path: PathBuf,
        /// The file in which its beginning was read.
        original: PathBuf,
        /// First byte that was not read there.
        offset: u64,
    },
    /// A hole was passed: NUL bytes at the start of a line, as a writer leaves them that goes on at its old place
    /// after a truncation. They are no line.
    Hole {
        /// The file's name.
        path: PathBuf,
        /// First byte behind the hole.
        offset: u64,
        /// NUL bytes passed since the last time they were told.
        bytes: u64,
    },
    /// A file that lost its name was read to its end and closed.
    Closed {
        /// The name it had.
        path: PathBuf,
        /// Its length.
        offset: u64,
        /// Why its end is not that of the log; what came behind is lost, and how much that was is unknown.
        unreadable_rest: Option<String>,
    },
    /// A file of an earlier run is nowhere to be found; what was written since is unknown.
    Vanished {
        /// The name it had.
        path: PathBuf,
        /// What is known to be lost.
        lost: Loss,
        /// Where in the file: from the position reached to the size last seen.
        range: Range<u64>,
        /// A rotated file that may be it, from a compressor that is not understood.
        compressed: Option<PathBuf>,
    },
}

/// A path that is named by a pattern and is not read, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// `missing`, `unreadable`, `not_a_file`, `compressed`, `too_many`.
    pub state: &'static str,
    /// What to say of it.
    pub message: String,
    /// No file but a directory that cannot be listed, or a pattern that is none.
    unlisted: bool,
}

/// All followed files.
pub struct Follower {
    host: Arc<dyn Files>,
    options: Options,
    files: BTreeMap<u64, Tracked>,
    /// The numbers of the open files.
    identities: BTreeMap<Identity, u64>,
    /// The numbers of the settled ones, by the hash of the first line.
    by_first_line: BTreeMap<u64, BTreeSet<u64>>,
    /// Files that are held back.
    suspicions: BTreeMap<u64, Suspicion>,
    blocked: BTreeMap<PathBuf, Blocked>,
    listed: Listed,
    /// Positions without an open file.
    saved: BTreeMap<u64, Saved>,
    /// Their identities, as the search for them began, each with the last number of a position in it.
    saved_identities: BTreeMap<Identity, u64>,
    /// Positions of files that no pattern names any more.
    parked: BTreeMap<u64, Saved>,
    parked_at: Option<Instant>,
    /// Where counting had come to in the saved files, where that was further on.
    saved_ahead: BTreeMap<u64, Ahead>,
    /// Files whose place of counting the durable state holds.
    ahead_keys: BTreeSet<u64>,
    /// Files that could not be read at the very first start, and their size then.
    starts: BTreeMap<PathBuf, Start>,
    start_changes: Vec<StateChange>,
    removed: Vec<u64>,
    /// Opened, and no position of it was given out yet: where reading of it begins.
    born: BTreeMap<u64, Position>,
    /// Where files may have come and gone since the last look.
    gaps: Vec<Gap>,
    /// What was looked into for them.
    examined: Examined,
    /// Those that the durable state holds, encoded, by the number of the file before them.
    kept_gaps: BTreeMap<u64, Vec<u8>>,
    /// Files that were found rewritten in this scan, or before it and could not be read.
    anew: Vec<Anew>,
    /// The directories of files that have lost their names.
    stirs: BTreeMap<PathBuf, Stir>,
    /// The last closed files.
    closed: BTreeMap<u64, Position>,
    closed_changes: Vec<StateChange>,
    notices: Vec<Notice>,
    buffer: Vec<u8>,
    next_id: u64,
    /// Number of the current scan.
    scans: u64,
    first_start: bool,
}

impl Follower {
    /// Prepares to follow; nothing is opened before the first [`Follower::scan`].
    ///
    /// `state` is the durable state of the last run, of which the entries with [`KEY_PREFIX`], [`AHEAD_PREFIX`],
    /// [`GAP_PREFIX`] and [`START_PREFIX`] are ours; `first_start` tells that there was no run before.
    pub fn new<'a>(
        host: Arc<dyn Files>,
        options: Options,
        state: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        first_start: bool,
    ) -> Follower {
        let mut follower = Follower {
            host,
            options,
            files: BTreeMap::new(),
            identities: BTreeMap::new(),
            by_first_line: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            blocked: BTreeMap::new(),
            listed: Listed::default(),
            saved: BTreeMap::new(),
            saved_identities: BTreeMap::new(),
            parked: BTreeMap::new(),
            parked_at: None,
            saved_ahead: BTreeMap::new(),
            ahead_keys: BTreeSet::new(),
            starts: BTreeMap::new(),
            start_changes: Vec::new(),
            removed: Vec::new(),
            born: BTreeMap::new(),
            gaps: Vec::new(),
            examined: Examined::default(),
            kept_gaps: BTreeMap::new(),
            anew: Vec::new(),
            stirs: BTreeMap::new(),
            closed: BTreeMap::new(),
            closed_changes: Vec::new(),
            notices: Vec::new(),
            buffer: vec![0; READ_BYTES],
            next_id: 1,
            scans: 0,
            first_start,
        };
        for (key, value) in state {
            follower.restore(key, value);
        }
        follower.drop_parked();
        follower
    }

    /// Takes up an entry of the durable state.
    fn restore(&mut self, key: &[u8], value: &[u8]) {
        if let Some((id, mut position)) = position::id_of(key).zip(Position::decode(value)) {
            self.next_id = self.next_id.max(id + 1);
            if position.is_closed {
                self.closed.insert(id, position);
            } else if self.pattern_of(&position).is_some() {
                position.parked_s = 0;
                self.saved.insert(id, Saved::new(position));
            } else {
                self.parked.insert(id, Saved::new(position));
            }
        } else if let Some((id, ahead)) = Ahead::id_of(key).zip(Ahead::decode(value)) {
            self.saved_ahead.insert(id, ahead);
            self.ahead_keys.insert(id);
        } else if let Some(id) = gap::id_of(key) {
            self.restore_gaps(id, value);
        } else if let Some((path, start)) = Start::path_of(key).zip(Start::decode(value)) {
            self.starts.insert(path, start);
        }
    }

    /// Looks which files the patterns name now: opens new ones, notices truncated, renamed and removed ones.
    pub fn scan(&mut self, now: Instant) {
        self.scans += 1;
        for file in self.files.values_mut() {
            file.sizes = [file.sizes[1], file.size()];
        }
        let found = self.expand(now);
        let mut listings = Listings::new(&self.host);
        self.note_names(&found, now);
        let rewritten = self.find_rewritten(&found, now);
        self.anew.extend(rewritten);
        let other_bytes = self.resume_found(&found, now);
        self.anew.extend(other_bytes);
        // What is older gets the lower number, and is read first.
        self.find_moved(&mut listings, now);
        self.find_between(&mut listings, now);
        for anew in std::mem::take(&mut self.anew) {
            self.take_up(anew, now);
        }
        for (path, found) in &found {
            let path = Path::new(path);
            if !found.stat.is_some_and(|stat| self.is_open(stat.identity)) {
                self.try_open(path, found, now);
            }
        }
        self.blocked.retain(|path, blocked| blocked.unlisted || found.contains_key(path.as_os_str()));
        let undecided = self.files.values().filter(|file| file.origin != Origin::Settled);
        for id in undecided.map(|file| file.id).collect::<Vec<u64>>() {
            self.check_origin(id, now);
        }
        self.age_parked(now);
        self.listed.keep(found);
    }

    /// A name came or went: the next scan lists all directories, even one that does not tell of it.
    pub fn list_anew(&mut self) {
        self.listed.forget();
    }

    /// The directories whose births and deaths matter.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let of_files = self.files.values().map(|file| directory_of(&file.path));
        let of_blocked = self.blocked.keys().map(|path| directory_of(path));
        let of_patterns = self.options.patterns.iter().map(|pattern| directory_of(Path::new(pattern)));
        of_files.chain(of_blocked).chain(of_patterns).collect()
    }

    /// Numbers of the open files, oldest first: an old file is drained before the one that took its name.
    pub fn ids(&self) -> Vec<u64> {
        self.files.keys().copied().collect()
    }

    /// The open file of a number.
    pub fn file(&self, id: u64) -> Option<&Tracked> {
        self.files.get(&id)
    }

    /// All open files.
    pub fn files(&self) -> impl Iterator<Item = &Tracked> {
        self.files.values()
    }

    /// The paths that are named and not read.
    pub fn blocked(&self) -> &BTreeMap<PathBuf, Blocked> {
        &self.blocked
    }

    /// Hands out complete lines of one file, at most about `bytes_max` of them.
    pub fn turn(
        &mut self,
        id: u64,
        bytes_max: u64,
        now: Instant,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
    ) -> Turn {
        self.check_origin(id, now);
        self.check_stand_in(id);
        let Some(file) = self.files.get_mut(&id) else { return Turn::default() };
        let mut turn = file.turn(&mut self.buffer, bytes_max, now, take);
        if turn.nuls > 0 {
            self.tell_hole(id);
        }
        if turn.rewritten {
            // Since the last scan; a copy is searched at the next one.
            if let Some(anew) = self.anew(id, now) {
                self.take_up(anew, now);
            }
        }
        if turn.compressed {
            self.block_compressed(id);
            return turn;
        }
        // In order of age, so that after a restart whatever is younger than a file that is still known is new.
        if turn.finished && (self.has_older(id) || self.is_awaited(id)) {
            turn.finished = false;
        }
        if turn.finished {
            self.conclude_copies_of(id);
            let Some(file) = self.let_go(id) else { return turn };
            self.remember(id, Position { path: file.path.clone(), ..file.position() });
            let (offset, unreadable_rest) = (file.offset(), file.unreadable_rest());
            self.notices.push(Notice::Closed { path: file.path, offset, unreadable_rest });
        }
        turn
    }

    /// Lets a file go that was empty when it was opened and turns out to be compressed: it is named as one that is
    /// not read, and its name is looked at again at every scan.
    fn block_compressed(&mut self, id: u64) {
        let Some(file) = self.let_go(id) else { return };
        self.removed.push(id);
        self.notices.push(Notice::Parted { id });
        if file.is_named() {
            let message = open::COMPRESSED.to_owned();
            self.blocked.insert(file.path, Blocked { state: "compressed", message, unlisted: false });
        }
    }

    /// Tells of a hole, and of further ones of the same file when they have doubled.
    fn tell_hole(&mut self, id: u64) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let (passed, told) = (file.nuls_passed(), file.nuls_told);
        if passed >= told.saturating_mul(2) {
            file.nuls_told = passed;
            let notice =
                Notice::Hole { path: file.path.clone(), offset: file.offset(), bytes: passed - told };
            self.notices.push(notice);
        }
    }

    /// Hands out complete lines of one file to be counted only, from where counting has come to; [`Follower::turn`]
    /// hands them out again, marked as counted.
    pub fn count(
        &mut self,
        id: u64,
        bytes_max: u64,
        now: Instant,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
    ) -> Turn {
        self.check_origin(id, now);
        let Some(file) = self.files.get_mut(&id) else { return Turn::default() };
        let turn = file.count(&mut self.buffer, bytes_max, now, take);
        if turn.compressed {
            self.block_compressed(id);
        }
        if turn.rewritten {
            // Since the last scan; a copy is searched at the next one.
            if let Some(anew) = self.anew(id, now) {
                self.take_up(anew, now);
            }
        }
        turn
    }

    /// Lines that were counted and wait in their files to be taken.
    pub fn lines_ahead(&self) -> u64 {
        let open: u64 = self.files.values().map(Tracked::lines_ahead).sum();
        open + self.saved_ahead.values().map(|ahead| ahead.lines).sum::<u64>()
    }

    /// All that is known, for whoever replays a test.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        let open = self.files.values().map(|file| {
            let (name, born_ms) = (file.path.display(), file.identity.born_ns / 1_000_000 % 1_000_000);
            let inode = file.identity.inode;
            format!(
                "{} {name} (inode {inode}, born {born_ms}) {} at {} of {}",
                file.id,
                file.state(),
                file.offset(),
                file.size()
            )
        });
        let searched =
            [(&self.saved, "searched"), (&self.parked, "parked")].into_iter().flat_map(|(all, what)| {
                all.iter().map(move |(id, saved)| format!("{id} {what}: {:?}", saved.position))
            });
        let closed =
            self.closed.iter().map(|(id, position)| format!("{id} {} closed", position.path.display()));
        open.chain(searched).chain(closed).collect::<Vec<String>>().join("; ")
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Where reading begins in the files that were opened since the last call. They may become durable at any time, ahead
    /// of all lines: a file that is renamed twice before a line of it is durable can be found again by nothing else.
    pub fn births(&mut self) -> Vec<StateChange> {
        let born = std::mem::take(&mut self.born);
        let births = born.into_iter().map(|(id, position)| (position::key(id), Some(position.encode())));
        births.chain(std::mem::take(&mut self.start_changes)).chain(self.new_gaps()).collect()
    }

    /// Whether [`Follower::changes`] would give any.
    pub fn has_changes(&self) -> bool {
        let saved = self.saved.values().chain(self.parked.values());
        !self.removed.is_empty()
            || !self.closed_changes.is_empty()
            || self.has_decided_gaps()
            || self.files.values().any(|file| file.dirty)
            || saved.into_iter().any(|saved| saved.dirty)
    }

    /// The positions that changed since the last call. They must become durable together with what was
    /// made of the lines before them.
    pub fn changes(&mut self) -> Vec<StateChange> {
        let mut changes = std::mem::take(&mut self.closed_changes);
        changes.extend(self.new_gaps());
        changes.extend(self.decided_gaps());
        for id in self.removed.drain(..) {
            changes.push((position::key(id), None));
            if self.ahead_keys.remove(&id) {
                changes.push((Ahead::key(id), None));
            }
        }
        for file in self.files.values_mut().filter(|file| file.dirty) {
            self.born.remove(&file.id);
            changes.push((position::key(file.id), Some(file.position().encode())));
            let ahead = file.ahead_position().filter(|_| !is_on(Mutant::ForgetsPlaceOfCounting));
            if let Some(ahead) = ahead {
                self.ahead_keys.insert(file.id);
                changes.push((Ahead::key(file.id), Some(ahead.encode())));
            } else if self.ahead_keys.remove(&file.id) {
                changes.push((Ahead::key(file.id), None));
            }
            file.dirty = false;
        }
        let saved = self.saved.iter_mut().chain(self.parked.iter_mut());
        for (id, saved) in saved.filter(|(_, saved)| saved.dirty) {
            self.born.remove(id);
            changes.push((position::key(*id), Some(saved.position.encode())));
            if let Some(ahead) = self.saved_ahead.get(id) {
                self.ahead_keys.insert(*id);
                changes.push((Ahead::key(*id), Some(ahead.encode())));
            } else if self.ahead_keys.remove(id) {
                changes.push((Ahead::key(*id), None));
            }
            saved.dirty = false;
        }
        changes
    }

    /// Whether it may be the copy of a log that cannot be read still.
    fn is_awaited(&self, id: u64) -> bool {
        let log = self.files.get(&id).filter(|file| file.is_stand_in).map(|file| &file.first_path);
        log.is_some_and(|log| self.host.open(log).is_err_and(|error| !files::is_absence(&error)))
    }

    /// Whether an older file that had the same name is still read.
    fn has_older(&self, id: u64) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        // Names as they stand: a comparison of paths takes them apart, and there may be thousands.
        let name = file.path.as_os_str();
        let is_older = |other: &Tracked| !other.is_named() && other.path.as_os_str() == name;
        self.files.range(..id).any(|(_, other)| is_older(other))
    }

    fn is_open(&self, identity: Identity) -> bool {
        self.identities.contains_key(&identity)
    }

    fn open_id(&self, identity: Identity) -> Option<u64> {
        self.identities.get(&identity).copied()
    }

    /// Takes a file out of all that knows it.
    fn let_go(&mut self, id: u64) -> Option<Tracked> {
        let file = self.files.remove(&id)?;
        self.born.remove(&id);
        if self.identities.get(&file.identity) == Some(&id) {
            self.identities.remove(&file.identity);
        }
        self.suspicions.remove(&id);
        if let Some(alike) = self.by_first_line.get_mut(&file.first_line) {
            alike.remove(&id);
            if alike.is_empty() {
                self.by_first_line.remove(&file.first_line);
            }
        }
        Some(file)
    }
}
