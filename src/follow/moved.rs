//! Files of known positions that are not where they were: renamed, copied and truncated, compressed, replaced, gone.
//!
//! Identity is asked first. Where it leads nowhere, or to a file that was truncated, the bytes decide: the head, and
//! those before the position. A file is given up only when nothing holds them, nothing is still being written that
//! may come to hold them, and nothing is out of reach; then it is said what is known to be lost. A search costs a
//! bounded amount of work, and the reading of other files does not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::copies::COPY_GRACE;
use super::files::{LogFile, is_absence};
use super::gap::Gap;
use super::gz::{End, GzFile};
use super::identity::{HEAD_BYTES_MAX, Identity};
use super::open::{self, Opened, Rotated};
use super::position::Position;
use super::siblings::{Elder, Listings, Sibling};
use super::tracked::{Origin, Tracked};
use super::{Follower, Notice};
use crate::record::Loss;

/// Bytes that one scan unpacks at most in search of positions; the next scan goes on.
const UNPACK_BYTES_MAX: u64 = 128 << 20;

/// Unpacked bytes that one step of a search may cost: those of one call, see [`GzFile::reach`].
const STEP_BYTES_MAX: u64 = 32 << 20;

/// Unpacked bytes that the first look into a compressed file costs.
const FIRST_LOOK_BYTES: u64 = 64 << 10;

/// How long the position of a file is kept that no pattern names any more, in the running time of the agent.
const PARKED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Between two counts of that time.
const PARKED_STEP: Duration = Duration::from_secs(3600);

/// Positions kept so at once; the oldest go first.
const PARKED_FILES_MAX: usize = 1000;

/// A position for which the file is not open.
pub(super) struct Saved {
    pub(super) position: Position,
    /// Not durable yet in this form.
    pub(super) dirty: bool,
    /// When the file of this identity was found to hold other bytes: truncated or rewritten.
    pub(super) rewritten_since: Option<Instant>,
    /// Since when something is waited for that is still being written.
    waiting_since: Option<Instant>,
    /// A compressed file that is being unpacked up to the position.
    unpacking: Option<(Identity, Box<GzFile>)>,
}

impl Saved {
    /// A position of an earlier run.
    pub(super) fn new(position: Position) -> Saved {
        Saved { position, dirty: false, rewritten_since: None, waiting_since: None, unpacking: None }
    }
}

/// Where a search has come to.
enum Search {
    /// The file, and its path if it is not the one that is saved.
    Found(Option<PathBuf>, Opened),
    /// It has its identity still, and other bytes; under this path.
    Rewritten(PathBuf, Opened),
    /// The file that has its name now went on for it in the last run.
    Succeeded,
    Wait,
    /// A file that may be its copy is still being written.
    WaitForCopy,
    Nowhere,
}

/// What the file says to a position that has its name now.
enum Place {
    /// It holds what was read, and nothing of it was read.
    Holds(Opened),
    Other,
}

/// What one file says to a position.
enum Answer {
    Holds(Rotated),
    /// It begins alike and is not long enough yet.
    Growing,
    Unfinished,
    Other,
}

impl Answer {
    /// A compressed file that is damaged is no log; any other error passes.
    fn of_unpacking(error: &io::Error) -> Answer {
        if error.kind() == io::ErrorKind::InvalidData { Answer::Other } else { Answer::Unfinished }
    }
}

impl Follower {
    /// Takes a file that was truncated or rewritten out of the open ones. Its position stays, and a copy is searched
    /// for it; what the file holds now is another log, which the caller takes up.
    pub(super) fn part(&mut self, id: u64, now: Instant) -> Option<Opened> {
        let file = self.let_go(id)?;
        if let Some(ahead) = file.ahead_position() {
            self.saved_ahead.insert(id, ahead);
        }
        let saved = Saved { dirty: file.dirty, rewritten_since: Some(now), ..Saved::new(file.position()) };
        self.saved.insert(id, saved);
        self.notices.push(Notice::Parted { id });
        let identity = file.identity;
        Some(Opened { identity, file: file.into_file() })
    }

    /// Looks for all positions without a file. One that only cannot be looked at yet is waited for.
    pub(super) fn find_moved(&mut self, listings: &mut Listings, now: Instant) {
        let mut work = UNPACK_BYTES_MAX;
        self.saved_identities = self.identities_of_saved();
        // The later one of two that have lines in common knows more of a file that holds them.
        for id in self.saved.keys().rev().copied().collect::<Vec<u64>>() {
            let Some(mut saved) = self.saved.remove(&id) else { continue };
            // Of two positions in one file the later one is that of what it held last.
            if self.saved_identities.get(&saved.position.identity).is_some_and(|last| *last > id) {
                saved.rewritten_since.get_or_insert(now);
            }
            let mut search = self.search(&mut saved, listings, &mut work, now);
            if let Search::Rewritten(path, opened) = search {
                let is_taken = self.take_rewritten(&saved.position, &path, opened, now);
                search = Search::Wait;
                if is_taken {
                    saved.rewritten_since = Some(now);
                    search = self.search(&mut saved, listings, &mut work, now);
                }
            }
            match search {
                Search::Found(path, opened) => self.go_on(id, saved, path, opened, now),
                Search::Wait | Search::Rewritten(..) => drop(self.saved.insert(id, saved)),
                Search::WaitForCopy => {
                    // What came after it is not waited for.
                    self.gaps.push(gap_after(id, &saved));
                    self.saved.insert(id, saved);
                }
                Search::Succeeded => self.removed.push(id),
                Search::Nowhere => self.give_up(id, saved, listings),
            }
        }
    }

    /// Takes up what a truncated file of the last run holds now, under this path, if it can be read.
    fn take_rewritten(&mut self, position: &Position, path: &Path, opened: Opened, now: Instant) -> bool {
        let name = &position.path;
        let Ok(live) = self.track(None, name, &position.pattern, opened, 0, now) else { return false };
        if let Some(file) = self.files.get_mut(&live).filter(|_| path != name) {
            file.unnamed(open::identity_of(&*self.host, name), now);
            self.gaps.push(Gap::after(file));
        }
        true
    }

    fn search(&self, saved: &mut Saved, listings: &mut Listings, work: &mut u64, now: Instant) -> Search {
        let identity = saved.position.identity;
        let was_read_anew = self.is_open(identity) || self.closed.values().any(|p| p.identity == identity);
        if saved.rewritten_since.is_none() && was_read_anew {
            // A later position in the same file is known: it was truncated in the last run.
            saved.rewritten_since = Some(now);
        }
        if saved.rewritten_since.is_none()
            && let Some(search) = self.search_identity(saved, listings, work, now)
        {
            return search;
        }
        let is_lost = saved.rewritten_since.is_none();
        if is_lost && open::is_out_of_reach(&*self.host, &saved.position) {
            return Search::Wait;
        }
        // While names move, or cannot be read, it may be under one that was not seen.
        if !listings.is_steady(&saved.position.path) {
            return Search::Wait;
        }
        if is_unread(&saved.position) {
            return Search::Nowhere;
        }
        if self.is_succeeded(saved) {
            return Search::Succeeded;
        }
        self.search_bytes(saved, listings, work, now)
    }

    /// Asks for the bytes that were read: the file that has the name now, and what rotation left of it.
    fn search_bytes(
        &self,
        saved: &mut Saved,
        listings: &mut Listings,
        work: &mut u64,
        now: Instant,
    ) -> Search {
        match self.ask_name(saved) {
            // A short beginning may be the same in the next log; what rotation left is asked first then.
            Ok(Place::Holds(opened)) if saved.position.offset >= HEAD_BYTES_MAX as u64 => {
                return Search::Found(None, opened);
            }
            // Of one that cannot be read now it is asked again below.
            Ok(_) | Err(_) => {}
        }
        let mut grows = false;
        let siblings = listings.siblings(&saved.position.path).into_iter();
        let siblings = siblings.filter(|sibling| self.may_hold(saved, sibling)).collect::<Vec<Sibling>>();
        let (packed, plain): (Vec<Sibling>, Vec<Sibling>) =
            siblings.into_iter().partition(|sibling| open::is_gzip_name(&sibling.path));
        for sibling in &packed {
            match self.ask(saved, sibling, work) {
                Answer::Holds(rotated) => {
                    return Search::Found(Some(sibling.path.clone()), rotated.into_opened());
                }
                Answer::Unfinished => return Search::Wait,
                Answer::Growing => grows = true,
                Answer::Other => {}
            }
        }
        // A plain file beside one that stands in the place is a copy, kept by whoever replaced it.
        match self.ask_name(saved) {
            Ok(Place::Holds(opened)) => return Search::Found(None, opened),
            Ok(Place::Other) => {}
            Err(_) => return Search::Wait,
        }
        for sibling in plain {
            match self.ask(saved, &sibling, work) {
                Answer::Holds(rotated) => return Search::Found(Some(sibling.path), rotated.into_opened()),
                Answer::Unfinished => return Search::Wait,
                Answer::Growing => grows = true,
                Answer::Other => {}
            }
        }
        match self.held_copy(saved) {
            Ok(Some((path, opened))) => return Search::Found(Some(path), opened),
            Ok(None) => {}
            Err(_) => return Search::Wait,
        }
        let waiting_since = *saved.waiting_since.get_or_insert(now);
        if grows && now.saturating_duration_since(waiting_since) < COPY_GRACE {
            return Search::WaitForCopy;
        }
        match self.is_read_elsewhere(&saved.position) {
            Ok(true) => Search::Succeeded,
            Ok(false) => Search::Nowhere,
            Err(_) => Search::Wait,
        }
    }

    /// Looks beside the name for the file of the saved identity.
    fn search_identity(
        &self,
        saved: &mut Saved,
        listings: &mut Listings,
        work: &mut u64,
        now: Instant,
    ) -> Option<Search> {
        let identity = saved.position.identity;
        for path in listings.of_identity(&saved.position.path, identity).to_vec() {
            let stat = match self.host.stat(&path) {
                Ok(stat) if stat.identity == identity => stat,
                _ => return Some(Search::Wait),
            };
            let is_readable = !open::is_compressed_name(&path) || open::is_gzip_name(&path);
            if !stat.is_regular || !is_readable {
                continue;
            }
            match self.ask(saved, &Sibling { path: path.clone(), stat }, work) {
                Answer::Holds(rotated) => return Some(Search::Found(Some(path), rotated.into_opened())),
                // It cannot be opened, and was truncated all the same: its copy is searched meanwhile, and what it holds
                // now is read when its name can be.
                Answer::Unfinished
                    if stat.size < saved.position.offset
                        && path == saved.position.path
                        && identity.born_ns != 0 =>
                {
                    saved.rewritten_since = Some(now);
                    return None;
                }
                Answer::Unfinished => return Some(Search::Wait),
                Answer::Growing | Answer::Other => {}
            }
            // Without a birth the inode alone says too little; with one it is the file, truncated or not.
            if identity.born_ns != 0 {
                match open::open_rotated(&*self.host, &path) {
                    Ok(Some(Rotated::Plain(opened))) if opened.identity == identity => {
                        return Some(Search::Rewritten(path, opened));
                    }
                    Ok(Some(Rotated::Plain(_))) | Err(_) => return Some(Search::Wait),
                    Ok(_) => {}
                }
            }
        }
        None
    }

    /// How much of what a file held is known to have been read from another, or was said to be lost with that: one of
    /// them is a copy.
    fn told_elsewhere(&self, position: &Position) -> u64 {
        let is_alike =
            |other: &&Position| position.first_line != 0 && other.first_line == position.first_line;
        let closed = self.closed.values().filter(is_alike).map(|other| other.offset.max(other.known.size));
        let searched = self.saved.values().map(|saved| &saved.position).filter(is_alike);
        closed.chain(searched.map(|other| other.offset)).max().unwrap_or(0)
    }

    /// Whether a file of which nothing was read held what is, or was, read from another: it was held back as a copy.
    fn is_read_elsewhere(&self, position: &Position) -> io::Result<bool> {
        if position.offset > 0 || position.head.length == 0 {
            return Ok(false);
        }
        for open in self.files.values() {
            if position.head.matches(open.file())? {
                return Ok(true);
            }
        }
        let mut searched = self.saved.values().map(|saved| &saved.position);
        let is_alike = |other: &Position| other.offset > 0 && other.first_line == position.first_line;
        if position.first_line != 0 && searched.any(is_alike) {
            return Err(io::Error::other("the other one is still searched"));
        }
        Ok(false)
    }

    /// Asks the file that has the name now. An error says nothing of it.
    fn ask_name(&self, saved: &Saved) -> io::Result<Place> {
        if saved.rewritten_since.is_some() {
            return Ok(Place::Other);
        }
        let position = &saved.position;
        let opened = match open::open_rotated(&*self.host, &position.path) {
            Ok(Some(Rotated::Plain(opened))) => opened,
            Ok(_) => return Ok(Place::Other),
            Err(error) if is_absence(&error) => return Ok(Place::Other),
            Err(error) => return Err(error),
        };
        let is_free = self.open_id(opened.identity).is_none_or(|id| self.is_untouched(id))
            && !self.saved_identities.contains_key(&opened.identity);
        let holds = is_free && open::agrees(&*opened.file, position)?;
        Ok(if holds { Place::Holds(opened) } else { Place::Other })
    }

    /// Whether another file of the name holds all that was in it, and was read at least as far.
    fn is_succeeded(&self, saved: &Saved) -> bool {
        let position = &saved.position;
        let was_read_whole = position.offset > 0 && position.offset == position.known.size;
        let is_of_name = |file: &&Tracked| file.path == position.path || file.first_path == position.path;
        saved.rewritten_since.is_none()
            && was_read_whole
            && self.files.values().filter(is_of_name).any(|file| {
                file.offset() >= position.offset && open::agrees(file.file(), position).unwrap_or(false)
            })
    }

    /// A file under any name that is held back as a copy, and is one of this.
    fn held_copy(&self, saved: &Saved) -> io::Result<Option<(PathBuf, Opened)>> {
        for copy in self.suspicions.keys().filter_map(|id| self.files.get(id)) {
            if !open::agrees(copy.file(), &saved.position)? {
                continue;
            }
            return match open::open_rotated(&*self.host, &copy.path)? {
                Some(Rotated::Plain(opened)) if opened.identity == copy.identity => {
                    Ok(Some((copy.path.clone(), opened)))
                }
                _ => Err(io::Error::other("the copy has another name by now")),
            };
        }
        Ok(None)
    }

    /// Whether nothing was read of an open file.
    fn is_untouched(&self, id: u64) -> bool {
        self.files.get(&id).is_some_and(|file| file.origin != Origin::Settled && file.counted_offset() == 0)
    }

    /// Whether it is worth looking into.
    fn may_hold(&self, saved: &Saved, sibling: &Sibling) -> bool {
        let identity = sibling.stat.identity;
        // What was read to its end goes on for nobody.
        let is_closed = || self.closed.values().any(|closed| closed.identity == identity);
        let is_taken = match self.open_id(identity) {
            Some(id) => !self.is_untouched(id),
            None => self.saved_identities.contains_key(&identity) || is_closed(),
        };
        // Compressing keeps the time of the last write. A copy may be older than that, and hold all that was read.
        let is_of_its_time = sibling.stat.modified >= saved.position.known.modified;
        identity != saved.position.identity
            && !is_taken
            && (is_of_its_time || !open::is_gzip_name(&sibling.path))
    }

    /// Asks a file whether it holds what was read up to the position.
    fn ask(&self, saved: &mut Saved, sibling: &Sibling, work: &mut u64) -> Answer {
        let position = &saved.position;
        let unpacked = saved.unpacking.take().filter(|(identity, _)| *identity == sibling.stat.identity);
        let rotated = match unpacked {
            Some((identity, file)) => Rotated::Gzip(file, identity),
            None => match open::open_rotated(&*self.host, &sibling.path) {
                Ok(Some(rotated)) if rotated.identity() == sibling.stat.identity => rotated,
                Ok(None) => return Answer::Other,
                // It moved, there are too many open files, or no permission: it may be the one.
                Ok(Some(_)) | Err(_) => return Answer::Unfinished,
            },
        };
        let (file, identity) = match rotated {
            Rotated::Plain(opened) => {
                return match open::agrees(&*opened.file, position) {
                    Ok(true) => Answer::Holds(Rotated::Plain(opened)),
                    Ok(false) => begins_alike(&opened, position).unwrap_or(Answer::Unfinished),
                    Err(_) => Answer::Unfinished,
                };
            }
            Rotated::Gzip(file, identity) => (file, identity),
        };
        let cost = FIRST_LOOK_BYTES + position.offset.min(STEP_BYTES_MAX);
        if *work < cost {
            saved.unpacking = Some((identity, file));
            return Answer::Unfinished;
        }
        *work -= FIRST_LOOK_BYTES;
        match position.head.matches(&*file) {
            Ok(true) => {}
            Ok(false) => {
                let is_begun = file.end() == End::Cut
                    && file.stat().map_or(0, |stat| stat.size) < u64::from(position.head.length);
                return if is_begun { Answer::Growing } else { Answer::Other };
            }
            Err(error) => return Answer::of_unpacking(&error),
        }
        *work -= cost - FIRST_LOOK_BYTES;
        let is_reached = file.reach(position.offset);
        match is_reached.and_then(|reached| Ok((reached, reached && open::agrees(&*file, position)?))) {
            Ok((true, true)) => Answer::Holds(Rotated::Gzip(file, identity)),
            Ok((true, false)) if file.end() == End::Cut => Answer::Growing,
            Ok((true, false)) => Answer::Other,
            Ok((false, _)) | Err(_) => {
                saved.unpacking = Some((identity, file));
                Answer::Unfinished
            }
        }
    }

    /// Goes on with a file in the place of the one that is not where it was.
    fn go_on(&mut self, id: u64, saved: Saved, path: Option<PathBuf>, opened: Opened, now: Instant) {
        let position = saved.position.clone();
        if let Some(other) = self.open_id(opened.identity) {
            // It was held back, and nothing was read of it.
            self.let_go(other);
            self.removed.push(other);
            self.notices.push(Notice::Parted { id: other });
        }
        let size = opened.file.stat().map_or(0, |stat| stat.size);
        let identity = opened.identity;
        let name = position.path.clone();
        let pattern = self.pattern_of(&position).unwrap_or_else(|| position.pattern.clone());
        if self.track(Some(id), &name, &pattern, opened, position.offset, now).is_err() {
            self.saved.insert(id, saved);
            return;
        }
        let ahead = self.saved_ahead.remove(&id);
        let Some(file) = self.files.get_mut(&id) else { return };
        (file.is_stand_in, file.is_heir) = (position.is_stand_in, position.is_heir);
        file.links = file.links.max(position.links);
        let is_counted = ahead.as_ref().is_none_or(|ahead| file.restore_ahead(ahead));
        let lines = if is_counted { 0 } else { ahead.map_or(0, |ahead| ahead.lines) };
        // Of which nothing was read may still turn out to be a copy.
        file.origin = if position.offset > 0 { Origin::Settled } else { Origin::Unchecked };
        if path.as_ref().is_some_and(|path| *path != name) {
            // It keeps the name it had, so that the successor is seen to have taken it.
            file.unnamed(open::identity_of(&*self.host, &name), now);
            let (modified, position) = (file.modified(), file.position());
            // A copy is younger than the log of which it was made, and that may have been moved since.
            for identity in BTreeSet::from([identity, saved.position.identity]) {
                let elder = Elder { name: name.clone(), identity, modified, is_live: false, is_new: false };
                self.gaps.push(Gap { elder, position: position.clone(), id });
            }
        }
        // The file itself is gone, and what was written to it behind the copying with it.
        let is_copy =
            position.identity != identity && path.as_deref().is_some_and(|path| !open::is_gzip_name(path));
        if saved.rewritten_since.is_some() || is_copy || lines > 0 {
            let from = position.offset.max(size).min(position.known.size.max(position.offset));
            let to = position.known.size.max(from);
            let range = if saved.rewritten_since.is_some() || is_copy { from..to } else { from..from };
            let lost = Loss { lines, bytes: range.end - range.start };
            self.notices.push(Notice::Rewritten { path: name, copy: path, lost, range });
        }
    }

    /// Lets go of a position for which there is no file.
    fn give_up(&mut self, id: u64, saved: Saved, listings: &mut Listings) {
        let gap = gap_after(id, &saved);
        let position = saved.position;
        let lines = self.saved_ahead.remove(&id).map_or(0, |ahead| ahead.lines);
        let size = if is_unread(&position) { 0 } else { position.known.size };
        let from = position.offset.max(self.told_elsewhere(&position).min(size));
        let range = from..size.max(from);
        let lost = Loss { lines, bytes: range.end - range.start };
        let path = position.path.clone();
        self.conclude_copies_like(&position);
        if saved.rewritten_since.is_some() {
            self.notices.push(Notice::Rewritten { path, copy: None, lost, range });
        } else {
            let compressed = listings.otherwise_compressed(&path, position.known.modified);
            self.notices.push(Notice::Vanished { path, lost, range, compressed });
        }
        self.gaps.push(gap);
        // Copies of it may lie about. The file itself holds something else now, or is gone.
        let identity = Identity { device: 0, inode: 0, ..position.identity };
        self.remember(id, Position { identity, ..position });
    }

    pub(super) fn identities_of_saved(&self) -> BTreeMap<Identity, u64> {
        self.saved.iter().map(|(id, saved)| (saved.position.identity, *id)).collect()
    }

    /// The pattern of the settings that stands for a saved file: the one that found it, or another that names it.
    pub(super) fn pattern_of(&self, position: &Position) -> Option<String> {
        pattern_of(&self.options.patterns, position)
    }

    /// Counts the time of positions that no pattern names, and lets go of those that were kept long enough.
    pub(super) fn age_parked(&mut self, now: Instant) {
        let since = *self.parked_at.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed < PARKED_STEP || self.parked.is_empty() {
            return;
        }
        self.parked_at = Some(now);
        for saved in self.parked.values_mut() {
            saved.position.parked_s = saved.position.parked_s.saturating_add(passed.as_secs());
            saved.dirty = true;
        }
        self.drop_parked();
    }

    /// Lets go of the positions that were kept long enough, and of the oldest where there are too many.
    pub(super) fn drop_parked(&mut self) {
        let surplus = self.parked.len().saturating_sub(PARKED_FILES_MAX);
        let oldest: Vec<u64> = self.parked.keys().copied().take(surplus).collect();
        let is_over = |saved: &Saved| Duration::from_secs(saved.position.parked_s) >= PARKED_MAX;
        let over = self.parked.iter().filter(|(id, saved)| oldest.contains(id) || is_over(saved));
        for id in over.map(|(id, _)| *id).collect::<Vec<u64>>() {
            let Some(saved) = self.parked.remove(&id) else { continue };
            self.removed.push(id);
            if let Some(ahead) = self.saved_ahead.remove(&id) {
                let range = saved.position.offset..ahead.offset;
                let lost = Loss { lines: ahead.lines, bytes: range.end.saturating_sub(range.start) };
                let path = saved.position.path;
                self.notices.push(Notice::Vanished { path, lost, range, compressed: None });
            }
        }
    }
}

/// Of which nothing was read it may be read yet under another name; what is lost of it is unknown. A beginning that is
/// shorter than a line is that of any other log, too.
fn is_unread(position: &Position) -> bool {
    let is_known = position.first_line != 0 || usize::from(position.head.length) == HEAD_BYTES_MAX;
    position.offset == 0 && !is_known
}

/// Where files may have come after one that is not where it was.
fn gap_after(id: u64, saved: &Saved) -> Gap {
    let position = saved.position.clone();
    let modified = position.known.modified;
    let elder = Elder {
        name: position.path.clone(),
        identity: position.identity,
        modified: if is_unread(&position) { before(modified) } else { modified },
        is_live: saved.rewritten_since.is_some(),
        is_new: false,
    };
    Gap { elder, position, id }
}

/// The pattern of a list that stands for a saved file.
pub(super) fn pattern_of(patterns: &[String], position: &Position) -> Option<String> {
    let names = |pattern: &&String| {
        Path::new(pattern.as_str()) == position.path
            || glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_path(&position.path))
    };
    let same = patterns.iter().find(|pattern| **pattern == position.pattern);
    same.or_else(|| patterns.iter().find(names)).cloned()
}

/// The last instant before a time: what was written at that time itself is younger.
fn before((seconds, nanoseconds): (i64, i64)) -> (i64, i64) {
    if nanoseconds > 0 { (seconds, nanoseconds - 1) } else { (seconds.saturating_sub(1), 999_999_999) }
}

/// A file that does not hold what was read, but may come to hold it: a copy that is still being written.
fn begins_alike(opened: &Opened, position: &Position) -> io::Result<Answer> {
    let size = opened.file.stat()?.size;
    let is_short = size < position.offset;
    let is_alike =
        is_short && (size < u64::from(position.head.length) || position.head.matches(&*opened.file)?);
    Ok(if is_alike { Answer::Growing } else { Answer::Other })
}
