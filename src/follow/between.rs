//! Logs that came and went under a name between two looks: found by what rotation left, and read from their start.
//!
//! What was read elsewhere is not read again: a file that holds the same as one that is open, is searched, or was closed
//! lately goes on behind that, or is left alone. Nothing is decided while such a file is still being read.

use std::path::Path;
use std::time::Instant;

use super::files::LogFile;
use super::identity::{self, Head, Identity, is_prefix};
use super::open::{self, Opened};
use super::position::{self, Position};
use super::siblings::{self, Elder, Listings};
use super::tracked::Tracked;
use super::{FILES_MAX, Follower};

/// Names without a file of which the last one is remembered after a restart.
const CLOSED_FILES_MAX: usize = 1000;

/// Closed files that are remembered of each name.
const CLOSED_MAX: usize = 4;

/// What of a file that came between was read elsewhere.
enum Unread {
    From(u64),
    /// Not before a file with the same content has been read to its end.
    Later,
    Nothing,
}

/// A time in which files may have come and gone under the name of a log.
pub(super) struct Gap {
    pub(super) elder: Elder,
    /// What was read of that file: others may hold the same.
    pub(super) position: Position,
    /// Its number, if it is open.
    pub(super) id: Option<u64>,
}

impl Follower {
    /// Finds the files that had a name between two looks, and lost it again: what rotation made of it after the file
    /// that had it when it was last seen.
    pub(super) fn find_between(&mut self, listings: &mut Listings, now: Instant) {
        let saved = self.identities_of_saved();
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.sort_by_key(|gap| gap.id);
        for gap in gaps {
            let known = &self.identities;
            let is_known = |identity: Identity| known.contains_key(&identity) || saved.contains(&identity);
            let younger = siblings::younger(&gap.elder, listings, &is_known);
            let mut comes_back = false;
            for (path, rotated) in younger {
                match self.unread_from(&gap, &path, rotated.file()) {
                    Unread::From(offset) => self.take_between(&gap, rotated.into_opened(), offset, now),
                    Unread::Later => comes_back = true,
                    Unread::Nothing => {}
                }
            }
            if comes_back {
                self.gaps.push(gap);
            }
        }
    }

    /// Reads a file that came between; its name belongs to another already.
    fn take_between(&mut self, gap: &Gap, opened: Opened, offset: u64, now: Instant) {
        let (name, pattern) = (&gap.elder.name, &gap.position.pattern);
        let Some(id) = self.track(None, name, pattern, opened, offset, now) else { return };
        self.settle(id);
        if offset > 0 {
            // This place is durable no sooner than what was read elsewhere.
            self.born.retain(|born| *born != id);
        }
        let is_replaced = open::identity_of(&*self.host, name).is_some();
        if let Some(file) = self.files.get_mut(&id) {
            file.unnamed(is_replaced, now);
        }
    }

    /// From where a file that came between is to be read.
    fn unread_from(&self, gap: &Gap, path: &Path, file: &dyn LogFile) -> Unread {
        let resembles = |head: &Head| head.length > 0 && head.matches(file).unwrap_or(false);
        let name = &gap.elder.name;
        let family = self.files.values().rev().filter(|open| open.path == *name || open.first_path == *name);
        let key = first_line(file);
        let is_alike = |open: &dyn LogFile| {
            let head = Head::read(open).unwrap_or_default();
            // One that begins with a hole has no head.
            let has_hole = head.length == 0 && key.is_some() && first_line(open) == key;
            has_hole || resembles(&head) || is_prefix(file, open).unwrap_or(false)
        };
        let searched = self.saved.values().filter(|saved| saved.position.path == gap.elder.name);
        let mut searched = searched.filter(|saved| saved.position.offset > 0);
        if self.anew.iter().any(|anew| is_alike(&*anew.opened.file))
            || searched.any(|saved| open::agrees(file, &saved.position))
        {
            return Unread::Later;
        }
        let mut alike = family.filter(|open| {
            is_alike(open.file()) || (open.offset() > 0 && open::agrees(file, &open.position()))
        });
        if let Some(open) = alike.next() {
            let Ok(stat) = open.file().stat() else { return Unread::Later };
            return match (stat.links, open.offset()) {
                // It was replaced by a file with its content, which was moved away in its turn, or it was compressed:
                // what it holds itself is read from it, and the rest from the other.
                (0, offset) if offset > 0 && offset == stat.size => {
                    let holds = open::agrees(file, &open.position());
                    if holds { Unread::From(offset) } else { Unread::Nothing }
                }
                (0, _) if stat.size > 0 => Unread::Later,
                _ => Unread::Nothing,
            };
        }
        let closed = self.closed.get(&gap.elder.name).into_iter().flatten();
        for position in closed.rev() {
            if open::agrees(file, position) {
                return Unread::From(position.offset);
            }
            if open::is_gzip_name(path) && resembles(&position.head) {
                return Unread::Nothing;
            }
        }
        if resembles(&gap.position.head) { Unread::Nothing } else { Unread::From(0) }
    }

    /// Keeps in mind what a file held that was read to its end: its copies and its compressed form are no new ones.
    pub(super) fn remember(&mut self, file: &Tracked) {
        if file.offset() == 0 {
            return;
        }
        if self.closed.len() >= FILES_MAX {
            self.closed.clear();
        }
        let closed = self.closed.entry(file.path.clone()).or_default();
        closed.push_back(file.position());
        if closed.len() > CLOSED_MAX {
            closed.pop_front();
        }
    }

    /// Keeps the position of a closed file until another has its name: whatever comes and goes under that name
    /// meanwhile, even compressed and while nobody looks, is known to be younger.
    pub(super) fn keep_closed(&mut self, file: &Tracked) {
        let is_last = !self.files.values().any(|other| other.path == file.path);
        if !is_last || self.last_closed.len() >= CLOSED_FILES_MAX {
            self.removed.push(file.id);
            return;
        }
        if let Some(before) = self.last_closed.insert(file.path.clone(), file.id) {
            self.removed.push(before);
        }
        let position = Position { path: file.path.clone(), is_closed: true, ..file.position() };
        self.closed_changes.push((position::key(file.id), Some(position.encode())));
        if self.ahead_keys.contains(&file.id) {
            self.ahead_keys.remove(&file.id);
            self.closed_changes.push((position::Ahead::key(file.id), None));
        }
    }
}

fn first_line(file: &dyn LogFile) -> Option<u64> {
    identity::first_line(file).ok().flatten()
}
