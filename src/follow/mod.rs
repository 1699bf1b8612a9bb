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
//! ```

mod cursor;
pub mod files;
pub mod identity;
mod open;
mod position;
mod tracked;
pub mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use files::{Files, HostFiles};
pub use identity::Identity;
pub use position::{AHEAD_PREFIX, KEY_PREFIX, Position};
pub use tracked::{Flow, LINE_BYTES_MAX, Line, READ_BYTES, ROTATE_GRACE, Tracked, Turn};

use crate::mutant::{Mutant, is_on};
use crate::record::Loss;

use open::{Listings, Opened, Refusal};
use position::Ahead;
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
    /// The file was truncated or rewritten; reading goes on from its start.
    Rewritten {
        /// Its name.
        path: PathBuf,
        /// What is known to be lost: bytes that can no longer be taken, and the lines in them that had been counted.
        lost: Loss,
    },
    /// A file that lost its name was read to its end and closed.
    Closed {
        /// The name it had.
        path: PathBuf,
        /// Its length.
        offset: u64,
    },
    /// A file of an earlier run is nowhere to be found; what was written behind `offset` is unknown.
    Vanished {
        /// The name it had.
        path: PathBuf,
        /// The position reached in it.
        offset: u64,
        /// Lines behind it that had been counted.
        lines: u64,
    },
}

/// A path that is named by a pattern and is not read, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// `missing`, `unreadable`, `not_a_file`, `compressed`, `too_many`.
    pub state: &'static str,
    /// What to say of it.
    pub message: String,
    /// Size at the first sight during the very first start: the position once it becomes readable.
    start_at: Option<u64>,
    /// No file but a directory that cannot be listed, or a pattern that is none.
    unlisted: bool,
}

/// All followed files.
pub struct Follower {
    host: Arc<dyn Files>,
    options: Options,
    files: BTreeMap<u64, Tracked>,
    blocked: BTreeMap<PathBuf, Blocked>,
    saved: BTreeMap<u64, Position>,
    /// Where counting had come to in the saved files, where that was further on.
    saved_ahead: BTreeMap<u64, Ahead>,
    /// Files whose place of counting the durable state holds.
    ahead_keys: BTreeSet<u64>,
    removed: Vec<u64>,
    /// Opened since [`Follower::births`] was last asked.
    born: Vec<u64>,
    /// Files whose name was found with another file since the last look for what came between.
    replaced: Vec<u64>,
    notices: Vec<Notice>,
    buffer: Vec<u8>,
    next_id: u64,
    first_scan: bool,
    first_start: bool,
}

impl Follower {
    /// Prepares to follow; nothing is opened before the first [`Follower::scan`].
    ///
    /// `state` is the durable state of the last run, of which the entries with [`KEY_PREFIX`] and [`AHEAD_PREFIX`]
    /// are ours; `first_start` tells that there was no run before.
    pub fn new<'a>(
        host: Arc<dyn Files>,
        options: Options,
        state: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        first_start: bool,
    ) -> Follower {
        let mut saved = BTreeMap::new();
        let mut saved_ahead = BTreeMap::new();
        for (key, value) in state {
            if let Some((id, position)) = position::id_of(key).zip(Position::decode(value)) {
                saved.insert(id, position);
            } else if let Some((id, ahead)) = Ahead::id_of(key).zip(Ahead::decode(value)) {
                saved_ahead.insert(id, ahead);
            }
        }
        let next_id = saved.keys().next_back().map_or(1, |id| id + 1);
        Follower {
            host,
            options,
            files: BTreeMap::new(),
            blocked: BTreeMap::new(),
            saved,
            ahead_keys: saved_ahead.keys().copied().collect(),
            saved_ahead,
            removed: Vec::new(),
            born: Vec::new(),
            replaced: Vec::new(),
            notices: Vec::new(),
            buffer: vec![0; READ_BYTES],
            next_id,
            first_scan: true,
            first_start,
        }
    }

    /// Looks which files the patterns name now: opens new ones, notices renamed and removed ones.
    pub fn scan(&mut self, now: Instant) {
        let mut found = self.expand();
        let identities: BTreeMap<PathBuf, Identity> = found
            .keys()
            .filter_map(|path| Some((path.clone(), open::identity_of(&*self.host, path)?)))
            .collect();
        let open_now = self.note_names(&identities, now);
        self.find_between(&found, now);
        found.retain(|path, _| identities.get(path).is_none_or(|identity| !open_now.contains_key(identity)));
        for (path, pattern) in &found {
            self.try_open(path, pattern, now);
        }
        self.blocked.retain(|path, blocked| blocked.unlisted || found.contains_key(path));
        self.find_moved(now);
        self.find_between(&found, now);
        self.first_scan = false;
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
        let Some(file) = self.files.get_mut(&id) else { return Turn::default() };
        let mut turn = file.turn(&mut self.buffer, bytes_max, now, take);
        if let Some(lost) = turn.lost {
            self.notices.push(Notice::Rewritten { path: file.path.clone(), lost });
        }
        // In order of age, so that after a restart whatever is younger than a file that is still known is new.
        if turn.finished && self.has_older(id) {
            turn.finished = false;
        }
        if turn.finished {
            let Some(file) = self.files.get(&id) else { return turn };
            self.notices.push(Notice::Closed { path: file.path.clone(), offset: file.offset() });
            self.removed.push(id);
            self.files.remove(&id);
        }
        turn
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
        let Some(file) = self.files.get_mut(&id) else { return Turn::default() };
        let turn = file.count(&mut self.buffer, bytes_max, now, take);
        if let Some(lost) = turn.lost {
            self.notices.push(Notice::Rewritten { path: file.path.clone(), lost });
        }
        turn
    }

    /// Lines that were counted and wait in their files to be taken.
    pub fn lines_ahead(&self) -> u64 {
        let open: u64 = self.files.values().map(Tracked::lines_ahead).sum();
        open + self.saved_ahead.values().map(|ahead| ahead.lines).sum::<u64>()
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The positions of the files that were opened since the last call, to be asked for before any line of them is
    /// read. They may become durable at any time, ahead of all lines: a file that is renamed twice before a line of it
    /// is durable can be found again by nothing else.
    pub fn births(&mut self) -> Vec<StateChange> {
        let born = std::mem::take(&mut self.born);
        let files = born.iter().filter_map(|id| self.files.get(id));
        files.map(|file| (position::key(file.id), Some(file.position().encode()))).collect()
    }

    /// Whether [`Follower::changes`] would give any.
    pub fn has_changes(&self) -> bool {
        !self.removed.is_empty() || self.files.values().any(|file| file.dirty)
    }

    /// The positions that changed since the last call. They must become durable together with what was
    /// made of the lines before them.
    pub fn changes(&mut self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        for id in self.removed.drain(..) {
            changes.push((position::key(id), None));
            if self.ahead_keys.remove(&id) {
                changes.push((Ahead::key(id), None));
            }
        }
        for file in self.files.values_mut().filter(|file| file.dirty) {
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
        changes
    }

    /// Paths that the patterns name now, each with its pattern; what cannot be listed is said.
    fn expand(&mut self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        self.blocked.retain(|_, blocked| !blocked.unlisted);
        for pattern in &self.options.patterns {
            let (paths, problems) = open::expand(&*self.host, pattern);
            for path in paths {
                found.entry(path).or_insert_with(|| pattern.clone());
            }
            for (path, blocked) in problems {
                self.blocked.insert(path, blocked);
            }
        }
        found
    }

    /// Tells every open file whether a name still leads to it; gives the number of each.
    fn note_names(&mut self, found: &BTreeMap<PathBuf, Identity>, now: Instant) -> BTreeMap<Identity, u64> {
        let mut open_now = BTreeMap::new();
        for file in self.files.values_mut() {
            open_now.insert(file.identity, file.id);
            match found.get(&file.path).copied().or_else(|| open::identity_of(&*self.host, &file.path)) {
                Some(identity) if identity == file.identity => file.named(file.path.clone()),
                Some(_) => {
                    if file.unnamed(true, now) {
                        self.replaced.push(file.id);
                    }
                }
                None => {
                    file.unnamed(false, now);
                }
            }
        }
        // A rotated name may itself be one that is followed: then the file is simply known by it.
        for (path, identity) in found {
            let file = open_now.get(identity).and_then(|id| self.files.get_mut(id));
            if let Some(file) = file.filter(|file| !file.is_named()) {
                file.named(path.clone());
            }
        }
        open_now
    }

    /// Finds the files that had a name between two looks, and lost it again: those in the same directory whose name
    /// was made of it and that are younger than the file that had it when it was last seen.
    fn find_between(&mut self, found: &BTreeMap<PathBuf, String>, now: Instant) {
        let mut listings = Listings::new(&self.host);
        for id in std::mem::take(&mut self.replaced) {
            let Some(file) = self.files.get(&id) else { continue };
            let (name, pattern) = (file.path.clone(), file.pattern.clone());
            let younger: Vec<Opened> = open::younger_siblings(&name, &file.position(), &mut listings)
                .into_iter()
                .filter(|(path, opened)| !found.contains_key(path) && !self.is_open(opened.identity))
                .map(|(_, opened)| opened)
                .collect();
            for opened in younger {
                let id = self.next_id;
                self.next_id += 1;
                self.track(id, &name, &pattern, opened, 0, now, false);
                if let Some(file) = self.files.get_mut(&id) {
                    file.unnamed(true, now);
                }
            }
        }
    }

    /// Whether an older file that had the same name is still read.
    fn has_older(&self, id: u64) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        // Names as they stand: a comparison of paths takes them apart, and there may be thousands.
        let name = file.path.as_os_str();
        let is_older = |other: &Tracked| {
            other.identity.born_ns < file.identity.born_ns && other.path.as_os_str() == name
        };
        self.files.values().any(is_older)
    }

    fn is_open(&self, identity: Identity) -> bool {
        self.files.values().any(|file| file.identity == identity)
    }

    fn try_open(&mut self, path: &Path, pattern: &str, now: Instant) {
        let at_end = self.first_scan && self.first_start && self.options.first_start_at_end;
        let start_at = match self.blocked.get(path) {
            Some(blocked) => blocked.start_at,
            None if at_end => self.host.stat(path).ok().map(|stat| stat.size),
            None => None,
        };
        if self.files.len() >= FILES_MAX {
            let message = format!("{FILES_MAX} files are followed already");
            self.blocked
                .insert(path.to_owned(), Blocked { state: "too_many", message, start_at, unlisted: false });
            return;
        }
        let opened = match open::open(&*self.host, path) {
            Ok(opened) => opened,
            Err(Refusal { state, message }) => {
                self.blocked.insert(path.to_owned(), Blocked { state, message, start_at, unlisted: false });
                return;
            }
        };
        self.blocked.remove(path);
        // Between the listing and the open the name may have moved on to a file that is open already.
        if self.is_open(opened.identity) {
            return;
        }
        let found = self.saved.iter().find(|(_, saved)| is_same(saved.identity, opened.identity));
        match found.map(|(id, _)| *id) {
            Some(id) => self.resume(id, path, pattern, opened, now),
            None => {
                let offset = start_at.map_or(0, |size| open::line_start_before(&*opened.file, size));
                let id = self.next_id;
                self.next_id += 1;
                self.track(id, path, pattern, opened, offset, now, false);
            }
        }
    }

    /// Goes on with a file of the last run, if its bytes are still those that were read.
    fn resume(&mut self, id: u64, path: &Path, pattern: &str, opened: Opened, now: Instant) {
        let Some(saved) = self.saved.remove(&id) else { return };
        let agrees = open::agrees(&*opened.file, &saved);
        self.track(id, path, pattern, opened, if agrees { saved.offset } else { 0 }, now, agrees);
        let Some(file) = self.files.get_mut(&id) else {
            self.saved.insert(id, saved);
            return;
        };
        let ahead = self.saved_ahead.remove(&id);
        let counted = ahead.as_ref().is_none_or(|ahead| agrees && file.restore_ahead(ahead));
        if !agrees || !counted {
            let lost = Loss { lines: ahead.map_or(0, |ahead| ahead.lines), bytes: 0 };
            self.notices.push(Notice::Rewritten { path: path.to_owned(), lost });
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one place that makes a Tracked; a struct would only rename them"
    )]
    fn track(
        &mut self,
        id: u64,
        path: &Path,
        pattern: &str,
        opened: Opened,
        offset: u64,
        now: Instant,
        resumed: bool,
    ) {
        match Tracked::new(id, path.to_owned(), pattern.to_owned(), opened.file, offset, now) {
            Ok(file) => {
                self.files.insert(id, file);
                self.born.push(id);
                self.notices.push(Notice::Opened { path: path.to_owned(), offset, resumed });
            }
            Err(error) => {
                let blocked = Blocked {
                    state: "unreadable",
                    message: error.to_string(),
                    start_at: Some(offset),
                    unlisted: false,
                };
                self.blocked.insert(path.to_owned(), blocked);
            }
        }
    }

    /// Finds the files of the last run that no pattern names any more: a rotation while the agent was down
    /// leaves them in the same directory under another name. One that only cannot be looked at yet is waited for.
    fn find_moved(&mut self, now: Instant) {
        let mut listings = Listings::new(&self.host);
        for (id, saved) in std::mem::take(&mut self.saved) {
            if !self.options.patterns.contains(&saved.pattern) {
                // The operator no longer names it.
                if self.saved_ahead.contains_key(&id) {
                    self.give_up_saved(id, saved);
                } else {
                    self.removed.push(id);
                }
                continue;
            }
            let sibling = open::find_sibling(&saved, &mut listings);
            match sibling {
                Some((path, opened)) => {
                    self.saved.insert(id, saved.clone());
                    self.resume(id, &path, &saved.pattern, opened, now);
                    if let Some(file) = self.files.get_mut(&id) {
                        // It keeps the name it had, so that the successor is seen to have taken it.
                        file.path = saved.path.clone();
                        let replaced = open::identity_of(&*self.host, &saved.path).is_some();
                        if file.unnamed(replaced, now) && replaced {
                            self.replaced.push(id);
                        }
                    }
                }
                None if open::is_out_of_reach(&*self.host, &saved) => {
                    self.saved.insert(id, saved);
                }
                None => self.give_up_saved(id, saved),
            }
        }
    }

    /// Lets go of a file of an earlier run that is nowhere to be found.
    fn give_up_saved(&mut self, id: u64, saved: Position) {
        let lines = self.saved_ahead.remove(&id).map_or(0, |ahead| ahead.lines);
        self.notices.push(Notice::Vanished { path: saved.path, offset: saved.offset, lines });
        self.removed.push(id);
    }
}

/// Whether two identities are of one file.
fn is_same(known: Identity, found: Identity) -> bool {
    known == found || (is_on(Mutant::TrustsInode) && known.inode == found.inode)
}
