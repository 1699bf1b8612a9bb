//! Logs that came and went under a name between two looks: found by what rotation left, and read from their start.
//!
//! What was read elsewhere is not read again: a file that holds the same as one that is open, is searched, or was closed
//! lately goes on behind that, or is left alone. Nothing is decided while such a file is still being read.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::copies::COPY_GRACE;
use super::files::{LogFile, Stat};
use super::gap::Gap;
use super::identity::{self, Beginning, Head, Identity, is_prefix};
use super::moved::Saved;
use super::open::{self, Opened};
use super::position::{self, Position};
use super::siblings::{self, Listings, Sibling};
use super::tracked::Tracked;
use super::{Blocked, Follower};

/// Closed files that are remembered; the oldest are forgotten first.
const CLOSED_FILES_MAX: usize = 1000;

/// Closed files that are remembered of each name.
const CLOSED_MAX: usize = 8;

/// What of a file that came between was read elsewhere.
enum Unread {
    From(u64),
    /// Not before a file with the same content has been read to its end.
    Later,
    Nothing,
}

/// What earlier looks found in the files that rotation left, kept while a gap is asked for: each is looked into once, and not
/// at every look for every gap. Both are bounded by forgetting, after which a file is looked into again.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Size and last write of those that hold nothing which was not read elsewhere.
    read: BTreeMap<Identity, (u64, (i64, i64))>,
    /// Those without a byte, and when each was seen first.
    empty: BTreeMap<Identity, Instant>,
}

impl Examined {
    /// Whether all that a file holds was read elsewhere. One that has changed since is not known.
    fn is_read(&self, stat: &Stat) -> bool {
        self.read.get(&stat.identity) == Some(&(stat.size, stat.modified))
    }

    fn note_read(&mut self, stat: &Stat) {
        make_room(&mut self.read);
        self.read.insert(stat.identity, (stat.size, stat.modified));
    }

    /// Whether a file without a byte is to be waited for: somebody may only have begun to copy into it, and what it will
    /// hold was read elsewhere.
    fn may_fill(&mut self, identity: Identity, now: Instant) -> bool {
        make_room(&mut self.empty);
        let since = *self.empty.entry(identity).or_insert(now);
        now.saturating_duration_since(since) < COPY_GRACE
    }
}

fn make_room<T>(files: &mut BTreeMap<Identity, T>) {
    if files.len() > CLOSED_FILES_MAX {
        files.clear();
    }
}

/// A file that came between. It is compared with dozens of others, most of which differ in their first bytes: those are read
/// once.
struct Candidate<'a> {
    file: &'a dyn LogFile,
    beginning: Beginning,
}

impl Candidate<'_> {
    fn of(file: &dyn LogFile) -> io::Result<Candidate<'_>> {
        Ok(Candidate { file, beginning: Beginning::read(file)? })
    }

    /// Whether it may hold the same as one that is open: they begin alike.
    fn is_alike(&self, open: &dyn LogFile) -> io::Result<bool> {
        if !self.beginning.may_be_of(open)? {
            return Ok(false);
        }
        let head = Head::read(open)?;
        if head.length == 0 {
            // One that begins with a hole has no head.
            let key = identity::first_line(self.file)?;
            return Ok(key.is_some() && identity::first_line(open)? == key);
        }
        Ok(head.matches(self.file)? || is_prefix(self.file, open)?)
    }

    /// Whether it holds what was read up to a position.
    fn holds(&self, position: &Position) -> io::Result<bool> {
        Ok(!self.beginning.rules_out(&position.head) && open::agrees(self.file, position)?)
    }

    /// Whether it holds what was read of an open file, if anything was.
    fn holds_read_of(&self, open: &Tracked) -> io::Result<bool> {
        // A position is made of several texts, and most are ruled out without it.
        let may_hold = open.offset() > 0 && !self.beginning.rules_out(&open.head());
        Ok(may_hold && self.holds(&open.position())?)
    }
}

impl Follower {
    /// Finds the files that had a name between two looks, and lost it again: what rotation made of it after the file
    /// that had it when it was last seen. A gap is asked for again until all of it could be looked at.
    pub(super) fn find_between(&mut self, listings: &mut Listings, now: Instant) {
        let saved = self.saved.iter().map(|(id, saved)| (saved.position.identity, *id));
        let closed = self.closed.iter().map(|(id, position)| (position.identity, *id));
        let without_file: BTreeMap<Identity, u64> = saved.chain(closed).collect();
        let mut examined = std::mem::take(&mut self.examined);
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.sort_by_key(Gap::key);
        gaps.dedup_by(|later, earlier| {
            let without_time = |gap: &Gap| (gap.id, gap.elder.is_live, gap.elder.is_new, gap.elder.identity);
            without_time(later) == without_time(earlier) && later.elder.name == earlier.elder.name
        });
        for gap in gaps {
            if !listings.is_steady(&gap.elder.name) {
                self.gaps.push(gap);
                continue;
            }
            let known = &self.identities;
            let number_of =
                |identity: Identity| known.get(&identity).or_else(|| without_file.get(&identity)).copied();
            let is_read = |stat: &Stat| examined.is_read(stat);
            let younger = siblings::younger(&gap.elder, gap.id, listings, &number_of, &is_read);
            // What has the name now may lose it before the next look: it is asked for then.
            let has_moved_on =
                open::identity_of(&*self.host, &gap.elder.name) != listings.named(&gap.elder.name);
            let mut comes_back = has_moved_on || !younger.unread.is_empty();
            for (path, error) in younger.unread {
                let message = error.to_string();
                self.blocked.insert(path, Blocked { state: "unreadable", message, unlisted: true });
            }
            for (Sibling { path, stat }, rotated) in younger.found {
                if rotated.file().stat().is_ok_and(|stat| stat.size == 0) {
                    comes_back |= examined.may_fill(stat.identity, now);
                    continue;
                }
                match self.unread_from(&gap, &path, rotated.file()) {
                    Ok(Unread::From(offset)) => {
                        let opened = rotated.into_opened();
                        comes_back |= !self.take_between(&gap, opened, offset, younger.is_blind, now);
                    }
                    Ok(Unread::Later) | Err(_) => comes_back = true,
                    Ok(Unread::Nothing) => examined.note_read(&stat),
                }
            }
            if comes_back {
                self.gaps.push(gap);
            }
        }
        if !self.gaps.is_empty() {
            self.examined = examined;
        }
    }

    /// Reads a file that came between; its name belongs to another already, of which it may be a copy where that
    /// `is_blind`. Tells whether it can be read.
    fn take_between(&mut self, gap: &Gap, opened: Opened, offset: u64, is_blind: bool, now: Instant) -> bool {
        let (name, pattern) = (&gap.elder.name, &gap.position.pattern);
        let Ok(id) = self.track(None, name, pattern, opened, offset, now) else { return false };
        self.settle(id);
        if offset > 0 {
            // This place is durable no sooner than what was read elsewhere.
            self.born.remove(&id);
        }
        let other = open::identity_of(&*self.host, name);
        if let Some(file) = self.files.get_mut(&id) {
            file.unnamed(other, now);
            file.is_stand_in = is_blind;
        }
        if let Some(born) = self.born.get_mut(&id) {
            born.is_stand_in = is_blind;
        }
        true
    }

    /// From where a file that came between is to be read. An error says nothing of it.
    fn unread_from(&self, gap: &Gap, path: &Path, file: &dyn LogFile) -> io::Result<Unread> {
        let name = siblings::base_of(&gap.elder.name);
        let candidate = Candidate::of(file)?;
        for anew in &self.anew {
            if candidate.is_alike(&*anew.opened.file)? {
                return Ok(Unread::Later);
            }
        }
        for Saved { position, .. } in self.saved.values().filter(|saved| is_of(&saved.position.path, name)) {
            if position.offset > 0 && (candidate.holds(position)? || open::begins_like(file, position)?) {
                return Ok(Unread::Later);
            }
        }
        if let Some(unread) = self.unread_beside_open(name, path, &candidate)? {
            return Ok(unread);
        }
        let closed = self.closed_of(name).filter(|(_, position)| position.offset > 0);
        for (_, position) in closed {
            if candidate.holds(position)? {
                let is_more = file.stat()?.size > position.offset;
                return Ok(if is_more { Unread::From(position.offset) } else { Unread::Nothing });
            }
            let is_shorter = open::is_gzip_name(path) || file.stat()?.size <= position.offset;
            if is_shorter && open::begins_like(file, position)? {
                return Ok(Unread::Nothing);
            }
        }
        let is_read = file.stat()?.size <= gap.position.offset && open::begins_like(file, &gap.position)?;
        Ok(if is_read { Unread::Nothing } else { Unread::From(0) })
    }

    /// What of a file is to be read that begins as others do which are open; `None` where none does.
    ///
    /// They may have been replaced by a file with their content, which was moved away in its turn, or compressed; or they
    /// are copies that somebody keeps of an earlier moment. The rest is read from the one that goes on.
    fn unread_beside_open(
        &self,
        name: &Path,
        path: &Path,
        candidate: &Candidate<'_>,
    ) -> io::Result<Option<Unread>> {
        // Before the others are looked at: they may only have grown since.
        let size = candidate.file.stat()?.size;
        let (mut is_begun_alike, mut read_up_to) = (false, 0);
        for open in
            self.files.values().filter(|open| is_of(&open.path, name) || is_of(&open.first_path, name))
        {
            let holds = candidate.holds_read_of(open)?;
            if !holds && !candidate.is_alike(open.file())? {
                continue;
            }
            is_begun_alike = true;
            if open.offset() < open.file().stat()?.size {
                return Ok(Some(Unread::Later));
            }
            if holds {
                if !open::agrees(open.file(), &open.position())? {
                    // Truncated since this scan began: then this is the copy in which it goes on, and is found as such.
                    return Ok(Some(Unread::Later));
                }
                read_up_to = read_up_to.max(open.offset());
            }
        }
        // How long a compressed one is shows only where it is read.
        let size = if open::is_gzip_name(path) { candidate.file.stat()?.size } else { size };
        let goes_on = read_up_to > 0 && size > read_up_to;
        Ok(is_begun_alike.then_some(if goes_on { Unread::From(read_up_to) } else { Unread::Nothing }))
    }

    /// Keeps the position of a file that was read as far as it could be: its copies and its compressed form are no new ones, and
    /// whatever comes under its name later, even while nobody looks, is known to be younger.
    pub(super) fn remember(&mut self, id: u64, position: Position) {
        let position = Position { is_closed: true, ..position };
        self.closed_changes.push((position::key(id), Some(position.encode())));
        if self.ahead_keys.remove(&id) {
            self.closed_changes.push((position::Ahead::key(id), None));
        }
        let of_name = self.closed_of(&position.path).map(|(id, _)| id);
        let mut surplus: Vec<u64> = of_name.skip(CLOSED_MAX - 1).collect();
        if !surplus.is_empty() {
            // While an older one is searched, or looked behind, what is younger must not look new.
            let oldest = self.oldest_undecided(&position.path);
            surplus.retain(|id| *id < oldest);
        }
        self.closed.insert(id, position);
        let oldest = (self.closed.len() > CLOSED_FILES_MAX).then(|| self.closed.keys().next().copied());
        for id in surplus.into_iter().chain(oldest.flatten()) {
            if self.closed.remove(&id).is_some() {
                self.removed.push(id);
            }
        }
    }

    /// The lowest number of the files of a name that are open, searched or looked behind.
    fn oldest_undecided(&self, name: &Path) -> u64 {
        let open = self.files.iter().filter(|(_, file)| is_of(&file.first_path, name)).map(|(id, _)| *id);
        let searched = self.saved.iter().filter(|(_, saved)| is_of(&saved.position.path, name));
        let gaps = self.gaps.iter().filter(|gap| is_of(&gap.elder.name, name)).map(|gap| gap.id);
        open.chain(searched.map(|(id, _)| *id)).chain(gaps).min().unwrap_or(u64::MAX)
    }

    /// The remembered files of a name, and of what rotation made of it, with their numbers, the last one first.
    pub(super) fn closed_of(&self, name: &Path) -> impl Iterator<Item = (u64, &Position)> {
        let of_name = self.closed.iter().rev().filter(move |(_, position)| is_of(&position.path, name));
        of_name.map(|(id, position)| (*id, position))
    }
}

/// Whether a path is a name, or what rotation makes of it.
fn is_of(path: &Path, name: &Path) -> bool {
    // Names as they stand: a comparison of paths takes them apart, and there may be thousands.
    path.as_os_str() == name.as_os_str() || siblings::is_rotated_path(path, name)
}
