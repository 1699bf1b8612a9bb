//! Copies of a log: what of them was read already, and which of them goes on where a truncated log ended.
//!
//! A new file from which nothing was read is compared with the files that were known before it. Equal first bytes
//! alone say nothing: many logs begin with the same lines. While all that it holds is also the beginning of a known
//! file it is held back, for [`COPY_GRACE`] at most. If that file is truncated meanwhile, the copy goes on in its
//! place (`moved`); if the copy is complete by then, its bytes were read in the original; otherwise, and as soon as one
//! byte differs, it is a log of its own. What is held back was not read, so nothing here can lose a line.
//!
//! A file that takes the name of one that is gone, and holds all that was read of it, goes on behind that.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::is_absence;
use super::identity::{self, HEAD_BYTES_MAX, is_prefix, same_bytes};
use super::position::Position;
use super::tracked::{Origin, Tracked};
use super::{Follower, Notice, open, siblings};

/// How long a file that looks like a copy of another is held back, and how long a copy that is still being written is
/// waited for.
pub const COPY_GRACE: Duration = Duration::from_secs(60);

/// Known files with the same first line with which a new one is compared.
const ORIGINALS_MAX: usize = 16;

/// A file that is held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    since: Instant,
    /// The file of which it may be a copy.
    original: u64,
    /// Size of the original when the copy cannot have been begun yet: a complete one is no shorter.
    complete_at: u64,
}

/// What a new file is to one that was known before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinship {
    Stranger,
    /// All that it holds is the beginning of the other.
    Copy,
    /// It stands in the place of the other and goes on at this offset, up to which the other was read.
    Successor(u64),
    /// It stands in the place of the other, which was not read as far yet.
    Heir,
    /// Nothing can be said before the other was looked at again.
    Unknown,
}

impl Follower {
    /// Compares a file of which nothing was read yet with the others, as soon as it holds a line.
    pub(super) fn check_origin(&mut self, id: u64, now: Instant) {
        let Some(file) = self.files.get(&id).filter(|file| file.origin != Origin::Settled) else { return };
        if file.counted_offset() > 0 {
            self.settle(id);
            return;
        }
        // It holds nothing to compare; reading that again was half of what a quiet, empty log cost.
        if file.seen.is_some_and(|(at, stat)| at == now && stat.size == 0) {
            return;
        }
        // What cannot be read now is said by the turn.
        let Ok(Some(key)) = identity::first_line(file.file()) else { return };
        if self.resembles_searched(file, key) {
            self.hold(id, None, now);
            return;
        }
        let originals: Vec<u64> = self.by_first_line.get(&key).into_iter().flatten().copied().collect();
        let (mut held_for, mut succeeds, mut is_heir) = (None, None, false);
        for original in originals.into_iter().filter(|original| *original != id).take(ORIGINALS_MAX) {
            match self.kinship(id, original) {
                Kinship::Stranger => {}
                kinship @ (Kinship::Unknown | Kinship::Copy | Kinship::Heir) => {
                    held_for = held_for.or(Some(original));
                    is_heir |= kinship == Kinship::Heir;
                }
                // Of several that were replaced one by one it goes on behind the last.
                Kinship::Successor(offset) => succeeds = succeeds.max(Some((offset, original))),
            }
        }
        if let (None, Some((offset, original))) = (held_for, succeeds) {
            self.settle_at(id, original, offset);
            return;
        }
        let Some(original) = held_for else {
            let is_stand_in = self.files.get(&id).is_some_and(|file| self.has_unreadable_base(file));
            if let Some(file) = self.files.get_mut(&id) {
                file.is_stand_in = is_stand_in;
            }
            self.settle(id);
            return;
        };
        self.hold(id, Some(original), now);
        if is_heir {
            self.note_heir(id);
        }
        if self.suspicions.get(&id).is_some_and(|held| now.duration_since(held.since) >= COPY_GRACE) {
            self.conclude_copy(id, original);
        }
    }

    /// Decides on the copies of a file that is about to be let go.
    pub(super) fn conclude_copies_of(&mut self, original: u64) {
        let of_it = self.suspicions.iter().filter(|(_, held)| held.original == original);
        for id in of_it.map(|(id, _)| *id).collect::<Vec<u64>>() {
            if self.kinship(id, original) == Kinship::Copy {
                self.conclude_copy(id, original);
            }
        }
    }

    /// Decides on the files that are held back and hold no more than was read of one that was truncated since: they
    /// are copies that were complete before.
    pub(super) fn conclude_copies_like(&mut self, position: &Position) {
        let held = self.suspicions.keys().filter_map(|id| self.files.get(id));
        let ends: Vec<(u64, u64)> = held
            .filter_map(|file| {
                let size = file.file().stat().ok()?.size;
                let is_read = size <= position.offset && open::begins_like(file.file(), position).ok()?;
                is_read.then(|| (file.id, open::line_start_before(file.file(), size)))
            })
            .collect();
        for (id, offset) in ends {
            let Some(file) = self.files.get_mut(&id) else { continue };
            if file.begin_at(offset).is_ok() {
                let (path, original) = (file.path.clone(), position.path.clone());
                self.notices.push(Notice::Copied { path, original, offset });
                self.settle(id);
            }
        }
    }

    /// A file that still looks like a copy after the grace: complete, or cut short by chance.
    fn conclude_copy(&mut self, id: u64, original: u64) {
        let Some((held, file)) = self.suspicions.get(&id).copied().zip(self.files.get(&id)) else { return };
        let Ok(size) = file.file().stat().map(|stat| stat.size) else { return };
        let offset = open::line_start_before(file.file(), size);
        match self.kinship(id, original) {
            Kinship::Copy if size >= held.complete_at => {
                let is_read = self.files.get(&original).is_some_and(|original| original.offset() >= offset);
                if is_read {
                    self.settle_at(id, original, offset);
                }
            }
            Kinship::Copy | Kinship::Stranger => self.settle(id),
            Kinship::Successor(offset) => self.settle_at(id, original, offset),
            Kinship::Heir | Kinship::Unknown => {}
        }
    }

    /// Keeps in mind, over a crash too, that a file took the place of another: when that is found again, packed perhaps,
    /// nothing else tells that this is not merely the next log with the same first lines.
    fn note_heir(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id).filter(|file| !file.is_heir) {
            (file.is_heir, file.dirty) = (true, true);
        }
        if let Some(born) = self.born.get_mut(&id) {
            born.is_heir = true;
        }
    }

    /// What the new file is to a known one. The new one is looked at first: the other may only have grown since.
    fn kinship(&self, id: u64, original: u64) -> Kinship {
        let Some((file, known)) = self.files.get(&id).zip(self.files.get(&original)) else {
            return Kinship::Stranger;
        };
        // Of two that were found together the one with the shorter name is the log; of two that rotation left of one log
        // either may be the copy.
        // An heir was found after the other, if only by an earlier life.
        let is_of_one_log =
            || siblings::is_rotated_path(&file.path, &known.first_path) || self.has_one_base(file, known);
        let is_related =
            original < id && (file.is_heir || (file.found_in == known.found_in && is_of_one_log()));
        if known.found_in >= file.found_in && !is_related {
            return Kinship::Stranger;
        }
        match compare(file, known) {
            Ok(kinship) => kinship,
            // The known file cannot be read, as after a restart of a file server: what was read of it must do.
            Err(_)
                if file.path == known.path
                    && open::agrees(file.file(), &known.position()).unwrap_or(false) =>
            {
                Kinship::Successor(known.offset())
            }
            Err(_) => Kinship::Unknown,
        }
    }

    /// Whether rotation makes the names of both of that of a log which is known.
    fn has_one_base(&self, left: &Tracked, right: &Tracked) -> bool {
        let open = self.files.values().map(|file| &file.first_path);
        let bases =
            open.chain(self.blocked.keys()).chain(self.saved.values().map(|saved| &saved.position.path));
        let is_base = |base: &&PathBuf| {
            siblings::is_rotated_path(&left.path, base) && siblings::is_rotated_path(&right.path, base)
        };
        bases.into_iter().any(|base| is_base(&base))
    }

    /// Whether rotation makes its name of that of a log which cannot be read now.
    fn has_unreadable_base(&self, file: &Tracked) -> bool {
        let is_log = |base: &&Path| self.host.stat(base).is_ok_and(|stat| stat.is_regular);
        let is_unreadable = |base: &Path| match self.host.open(base) {
            Ok(log) => log.read_at(&mut [0], 0).is_err(),
            Err(error) => !is_absence(&error),
        };
        siblings::bases_of(&file.path).filter(is_log).any(is_unreadable)
    }

    /// Looks whether the log can be read again of which a file may be a copy: then it is one, or it is not.
    pub(super) fn check_stand_in(&mut self, id: u64) {
        let Some(file) = self.files.get(&id).filter(|file| file.is_stand_in) else { return };
        let is_copy = match self.host.open(&file.first_path) {
            Ok(log) => is_prefix(file.file(), &*log),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        };
        if !matches!(is_copy, Ok(false)) || self.is_copy_of_moved(file).unwrap_or(true) {
            return;
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.is_stand_in = false;
            file.dirty = true;
        }
    }

    /// Whether the log of which a file may be a copy was renamed before it could be read, and begins with it.
    fn is_copy_of_moved(&self, file: &Tracked) -> io::Result<bool> {
        let open = self.files.values().filter(|other| other.first_path == file.first_path);
        for other in open.filter(|other| !other.is_stand_in) {
            if is_prefix(file.file(), other.file())? {
                return Ok(true);
            }
        }
        let size = file.file().stat()?.size;
        let closed = self.closed_of(&file.first_path).map(|(_, position)| position);
        for position in closed.filter(|position| !position.is_stand_in && size <= position.offset) {
            if open::begins_like(file.file(), position)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether it may be the copy of a file that is searched, or cannot be read now.
    fn resembles_searched(&self, file: &Tracked, key: u64) -> bool {
        let may_be = |first_line: u64| first_line == key || first_line == 0;
        let alike = self.saved.values().filter(|saved| may_be(saved.position.first_line));
        alike.take(ORIGINALS_MAX).any(|saved| {
            let head = saved.position.head;
            let size = file.file().stat().map_or(0, |stat| stat.size);
            saved.position.identity != file.identity
                && head.length > 0
                && (size < u64::from(head.length) || head.matches(file.file()).unwrap_or(true))
        })
    }

    /// Holds a file back, since now or since earlier.
    fn hold(&mut self, id: u64, original: Option<u64>, now: Instant) {
        // What stood there at the first look of a life may have been copied at any time before.
        let is_of_earlier = self.files.get(&id).is_some_and(|file| file.found_in <= 1);
        let original_size = match original.and_then(|original| self.files.get(&original)) {
            Some(original) if !is_of_earlier => original.sizes[0],
            _ => 0,
        };
        let held = self.suspicions.entry(id).or_insert(Suspicion {
            since: now,
            original: original.unwrap_or(0),
            complete_at: original_size,
        });
        if held.original == 0
            && let Some(original) = original
        {
            (held.original, held.complete_at) = (original, original_size);
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.origin = Origin::Held;
        }
    }

    /// From here on it is a log of its own, and others may be copies of it.
    pub(super) fn settle(&mut self, id: u64) {
        self.suspicions.remove(&id);
        let Some(file) = self.files.get_mut(&id) else { return };
        file.origin = Origin::Settled;
        file.dirty |= std::mem::take(&mut file.is_heir);
        if file.first_line == 0 {
            file.first_line = identity::first_line(file.file()).ok().flatten().unwrap_or(0);
        }
        if file.first_line != 0 {
            self.by_first_line.entry(file.first_line).or_default().insert(id);
        }
    }

    /// Everything before `offset` was read in the original.
    fn settle_at(&mut self, id: u64, original_id: u64, offset: u64) {
        let original = self.files.get(&original_id).map(|file| file.path.clone()).unwrap_or_default();
        let Some(file) = self.files.get_mut(&id) else { return };
        if file.begin_at(offset).is_ok() {
            self.notices.push(Notice::Copied { path: file.path.clone(), original, offset });
            // This place is durable no sooner than what was read of the original.
            self.born.remove(&id);
            self.settle(id);
            self.let_go_unreadable(original_id);
        }
    }

    /// Lets a file go for which another goes on, if it has no name and cannot be read: what it holds would come twice.
    fn let_go_unreadable(&mut self, id: u64) {
        // Lines of it that are counted and not shipped yet can be had from nowhere else as those.
        let is_over = |file: &Tracked| file.error().is_some() && !file.is_named() && file.lines_ahead() == 0;
        if !self.files.get(&id).is_some_and(is_over) {
            return;
        }
        let Some(file) = self.let_go(id) else { return };
        let position = Position { path: file.path.clone(), ..file.position() };
        let (path, offset) = (file.path.clone(), file.offset());
        self.notices.push(Notice::Parted { id });
        self.notices.push(Notice::Closed { path, offset, unreadable_rest: None });
        self.remember(id, position);
    }
}

/// Compares the bytes of a new file with those of a known one.
fn compare(file: &Tracked, known: &Tracked) -> io::Result<Kinship> {
    let size = file.file().stat()?.size;
    let known_stat = known.file().stat()?;
    let shared = size.min(known_stat.size);
    let has_its_name = file.path == known.path || file.path == known.first_path;
    let is_kept_of_it =
        !known.keeps_its_names(&known_stat) && siblings::is_rotated_path(&file.path, &known.first_path);
    let is_replaced = !known.is_named() || !known.keeps_its_names(&known_stat);
    let is_its_log =
        known.path == file.first_path || siblings::is_rotated_path(&known.path, &file.first_path);
    let is_what_it_stood_for = known.is_stand_in && is_its_log;
    let takes_its_place = (is_replaced && (has_its_name || is_kept_of_it)) || is_what_it_stood_for;
    // Rotation leaves the old file under another name. With a few equal lines at the start of both nothing is said.
    let is_rotation = takes_its_place
        && !is_what_it_stood_for
        && !file.is_heir
        && known.keeps_its_names(&known_stat)
        && shared < HEAD_BYTES_MAX as u64;
    // All of the new one is asked for: how long a compressed one is shows only where it is read.
    let compared = if takes_its_place { shared } else { size };
    if is_rotation || !same_bytes(file.file(), known.file(), compared)? {
        // A writer that still holds the replaced one may have gone on there, and others in its copy.
        let read = known.offset();
        let goes_on = takes_its_place && !is_rotation && read > 0 && read <= size;
        if goes_on && same_bytes(file.file(), known.file(), read)? && known.is_intact()? {
            return Ok(Kinship::Successor(read));
        }
        return Ok(unless_rewritten(known, Kinship::Stranger));
    }
    if !takes_its_place {
        return Ok(Kinship::Copy);
    }
    if size < known.counted_offset() {
        // It may still be on its way, as from another file system.
        return Ok(Kinship::Copy);
    }
    let offset = open::line_start_before(file.file(), shared);
    Ok(if known.offset() >= offset { Kinship::Successor(offset) } else { Kinship::Heir })
}

/// A known file that was itself truncated or rewritten is found out by its own look; until then it proves nothing.
fn unless_rewritten(known: &Tracked, kinship: Kinship) -> Kinship {
    if known.is_intact().unwrap_or(false) { kinship } else { Kinship::Unknown }
}
