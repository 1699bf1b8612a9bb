//! Which files the patterns name now, and what became of the names of those that are open.
//!
//! A file that cannot be opened is named with its error and tried again at the next scan; it hides no other, and
//! nothing of it is skipped. Identity is always that of an open file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::files::{Files, Stat, is_absence};
use super::gap::Gap;
use super::identity::Identity;
use super::line::Turn;
use super::listed::CLOCK_STEP_MAX;
use super::moved::Saved;
use super::open::{self, Opened, Refusal};
use super::position::{Known, Position, Start};
use super::siblings::{self, Elder};
use super::tracked::{Origin, Tracked};
use super::watch::directory_of;
use super::{Blocked, FILES_MAX, Follower, Notice};
use crate::record::Loss;

/// The paths that the patterns name, ordered as bytes: paths compare part by part, which is dear for thousands of them.
pub(super) type Names = BTreeMap<OsString, Found>;

/// A path that a pattern names.
pub(super) struct Found {
    pub(super) pattern: Arc<str>,
    /// What it leads to; nothing where it is missing, or where that cannot be told.
    pub(super) stat: Option<Stat>,
    /// Whether something is there cannot be told now.
    is_unknown: bool,
    /// It is a name of the file itself, and no symbolic link.
    is_own: bool,
    /// It leads where it led before, since nothing came or went in its directory: the file was not asked again.
    is_kept: bool,
}

/// When names last came or went in a directory, as it tells, and when that was seen first and last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stir {
    modified: (i64, i64),
    first_seen: Instant,
    last_seen: Instant,
}

/// A file that was truncated or rewritten, as the new one that it is.
pub(super) struct Anew {
    path: PathBuf,
    first_path: PathBuf,
    pattern: String,
    is_named: bool,
    /// Its names when it was last seen under its own.
    links: u64,
    /// When it was last written to before that.
    modified: (i64, i64),
    /// The number under which it is known to the durable state, since it could not be read at once.
    id: Option<u64>,
    pub(super) opened: Opened,
}

impl Found {
    fn look(host: &dyn Files, path: &Path, pattern: Arc<str>) -> Found {
        let stat = host.stat_name(path);
        let is_unknown = stat.as_ref().is_err_and(|error| !is_absence(error));
        let is_own = stat.as_ref().is_ok_and(|(_, is_own)| *is_own);
        let stat = stat.ok().map(|(stat, _)| stat);
        Found { pattern, stat, is_unknown, is_own, is_kept: false }
    }
}

impl Follower {
    /// Paths that the patterns name now; what cannot be listed is said. They are kept for the next scan by [`Listed::keep`].
    pub(super) fn expand(&mut self, now: Instant) -> Names {
        if let Some(mut kept) = self.listed.take(&*self.host, now) {
            for (path, found) in &mut kept {
                // The open file itself tells what is new of it, at half the cost.
                found.is_kept = found.is_own && self.keep_name(path, found);
                if !found.is_kept {
                    *found = Found::look(&*self.host, Path::new(path), Arc::clone(&found.pattern));
                }
            }
            return kept;
        }
        let mut found = Names::new();
        self.listed.begin(&*self.host, &self.options.patterns, now);
        self.blocked.retain(|_, blocked| !blocked.unlisted);
        for pattern in &self.options.patterns {
            let (paths, problems) = open::expand(&*self.host, pattern);
            let pattern: Arc<str> = pattern.as_str().into();
            for path in paths {
                let host = &self.host;
                found
                    .entry(path.into_os_string())
                    .or_insert_with_key(|path| Found::look(&**host, Path::new(path), Arc::clone(&pattern)));
            }
            if !problems.is_empty() {
                self.listed.forget();
            }
            self.blocked.extend(problems);
        }
        found
    }

    /// Whether what was found before is open and known by this name: then the name leads there in this scan, too.
    fn keep_name(&mut self, path: &OsStr, found: &Found) -> bool {
        let id = found.stat.and_then(|stat| self.open_id(stat.identity));
        let file = id.and_then(|id| self.files.get_mut(&id));
        // One that fails may have to be opened anew.
        let is_known =
            |file: &&mut Tracked| file.is_named() && file.path.as_os_str() == path && file.error().is_none();
        file.filter(is_known).map(|file| file.kept_in = self.scans).is_some()
    }

    /// Tells every open file whether a name still leads to it.
    pub(super) fn note_names(&mut self, found: &Names, now: Instant) {
        let mut nameless = Vec::new();
        let stirred = self.stirred_directories(now);
        for file in self.files.values_mut().filter(|file| file.kept_in != self.scans) {
            let identity = match found.get(file.path.as_os_str()) {
                // An error is no absence: it keeps the name that it had.
                Some(Found { is_unknown: true, .. }) => continue,
                Some(found) => found.stat.map(|stat| stat.identity),
                None => match self.host.stat(&file.path) {
                    Ok(stat) => Some(stat.identity),
                    Err(error) if is_absence(&error) => None,
                    Err(_) => continue,
                },
            };
            match identity {
                Some(identity) if identity == file.identity => file.still_named(),
                Some(identity) if file.unnamed(Some(identity), now) => nameless.push(file.id),
                None if file.unnamed(None, now) => nameless.push(file.id),
                None if stirred.contains(&directory_of(&file.path)) => nameless.push(file.id),
                Some(_) | None => {}
            }
        }
        // A rotated name may itself be one that is followed: then the file is simply known by it.
        for (path, found) in found.iter().filter(|(_, found)| !found.is_kept) {
            let path = Path::new(path);
            let id = found.stat.and_then(|stat| self.open_id(stat.identity));
            let file = id.and_then(|id| self.files.get_mut(&id));
            if let Some(file) = file.filter(|file| !file.is_named() && !open::is_compressed_name(path)) {
                if nameless.contains(&file.id) {
                    self.gaps.push(Gap::after(file));
                }
                file.named(path.to_owned());
            }
        }
        for id in nameless {
            if let Some(file) = self.files.get(&id).filter(|file| !file.is_named()) {
                self.gaps.push(Gap::after(file));
            }
        }
    }

    /// The directories in which names came or went, of those in which a name is missing: logs may come under it and go
    /// again while nobody looks.
    fn stirred_directories(&mut self, now: Instant) -> BTreeSet<PathBuf> {
        let absent = self.files.values().filter(|file| file.is_absent());
        let directories: BTreeSet<PathBuf> = absent.map(|file| directory_of(&file.path)).collect();
        let before = std::mem::take(&mut self.stirs);
        let is_stirred = |directory: &PathBuf| {
            let Ok(Stat { modified, .. }) = self.host.stat(directory) else { return true };
            let stir = Stir { modified, first_seen: now, last_seen: now };
            let known = before.get(directory).filter(|known| known.modified == modified);
            let is_over = known.is_some_and(|known| known.last_seen - known.first_seen >= CLOCK_STEP_MAX);
            let first_seen = known.map_or(now, |known| known.first_seen);
            self.stirs.insert(directory.clone(), Stir { first_seen, ..stir });
            !is_over
        };
        directories.into_iter().filter(is_stirred).collect()
    }

    /// Finds the files that were truncated or rewritten; gives what they hold now, each to be taken up as new.
    pub(super) fn find_rewritten(&mut self, found: &Names, now: Instant) -> Vec<Anew> {
        let mut rewritten = Vec::new();
        for file in self.files.values_mut() {
            let is_asked = file.is_named() && file.kept_in != self.scans;
            let stat = match is_asked.then(|| found.get(file.path.as_os_str())).flatten() {
                Some(found) => found.stat.filter(|stat| stat.identity == file.identity),
                None => {
                    let stat = file.file().stat().ok();
                    // A look at the same time need not ask again.
                    file.seen = stat.map(|stat| (now, stat));
                    stat
                }
            };
            let is_touched =
                stat.is_some_and(|stat| stat.size < file.size() || stat.modified != file.modified());
            if is_touched && file.counted_offset() == 0 {
                // Nothing was read of it that a truncation could change.
                self.gaps.push(Gap::behind_live(file.id, file.position(), file.modified()));
            }
            let mut turn = Turn::default();
            let is_shorter = stat.is_some_and(|stat| stat.size < file.counted_offset());
            // An error is that of its next turn, which looks again; but a copy may be gone by then.
            if is_touched && (file.look(now, &mut turn).map_or(is_shorter, |()| turn.rewritten)) {
                rewritten.push(file.id);
            }
        }
        rewritten.into_iter().filter_map(|id| self.anew(id, now)).collect()
    }

    /// Takes a rewritten file out of the open ones; gives what it holds now.
    pub(super) fn anew(&mut self, id: u64, now: Instant) -> Option<Anew> {
        let file = self.files.get(&id)?;
        let (path, pattern, is_named) = (file.path.clone(), file.pattern.clone(), file.is_named());
        let (first_path, links, modified) = (file.first_path.clone(), file.links, file.modified());
        let opened = self.part(id, now)?;
        Some(Anew { path, first_path, pattern, is_named, links, modified, id: None, opened })
    }

    /// Takes up what a rewritten file holds now. It was known before: what is found together with it may be its copy.
    pub(super) fn take_up(&mut self, anew: Anew, now: Instant) {
        if self.is_open(anew.opened.identity) {
            // by another of its names
            if let Some(id) = anew.id {
                self.born.remove(&id);
                self.removed.push(id);
            }
            return;
        }
        let live = match self.track(anew.id, &anew.path, &anew.pattern, anew.opened, 0, now) {
            Ok(live) => live,
            // Nothing else may lead to it by the next scan.
            Err(opened) => return self.take_up_later(Anew { opened, ..anew }),
        };
        let Some(file) = self.files.get_mut(&live) else { return };
        if anew.id.is_some() {
            self.born.insert(live, file.position());
        }
        file.first_path = anew.first_path;
        file.links = file.links.max(anew.links);
        file.found_in = self.scans.saturating_sub(1);
        if !anew.is_named {
            file.unnamed(open::identity_of(&*self.host, &file.path), now);
            // Others may have had the name since.
            self.gaps.push(Gap::after(file));
        }
    }

    /// Keeps a rewritten file that cannot be read now. It may be renamed before it can, and the agent may end before that.
    fn take_up_later(&mut self, anew: Anew) {
        let id = anew.id.unwrap_or(self.next_id);
        if anew.id.is_none() {
            self.next_id += 1;
            let known = Known { size: 0, modified: anew.modified };
            let (path, pattern) = (anew.first_path.clone(), anew.pattern.clone());
            self.born.insert(id, Position::unread(path, pattern, anew.opened.identity, known));
        }
        self.anew.push(Anew { id: Some(id), ..anew });
    }

    /// Goes on with the files of the last run that are still under a name, and opens anew those that can no longer be
    /// read through the open handle. Gives the ones that hold other bytes now.
    pub(super) fn resume_found(&mut self, found: &Names, now: Instant) -> Vec<Anew> {
        self.reopen_failing();
        // Of two positions in one file the later one is that of its present content.
        let saved: BTreeMap<Identity, u64> = self
            .saved
            .iter()
            .filter(|(_, saved)| saved.rewritten_since.is_none() && !self.is_open(saved.position.identity))
            .map(|(id, saved)| (saved.position.identity, *id))
            .collect();
        let mut other_bytes = Vec::new();
        for (path, found) in found.iter().filter(|_| !saved.is_empty()) {
            let path = Path::new(path);
            let identity = found.stat.map(|stat| stat.identity);
            let id =
                identity.and_then(|identity| saved.get(&identity)).filter(|id| self.saved.contains_key(*id));
            let Some(id) = id.copied().filter(|_| !open::is_compressed_name(path)) else { continue };
            let opened = match open::open(&*self.host, path) {
                Ok(opened) if Some(opened.identity) == identity => opened,
                // Tried again at the next scan; the reason is said when it is opened as a new one.
                _ => continue,
            };
            self.blocked.remove(path);
            let Some(mut saved) = self.saved.remove(&id) else { continue };
            match open::agrees(&*opened.file, &saved.position) {
                Ok(true) => self.resume(id, saved, path, &found.pattern, opened, now),
                Ok(false) => {
                    saved.rewritten_since = Some(now);
                    let first_path = saved.position.path.clone();
                    let modified = saved.position.known.modified;
                    self.saved.insert(id, saved);
                    let (path, pattern) = (path.to_owned(), found.pattern.to_string());
                    let (is_named, links, id) = (true, 0, None);
                    let anew = Anew { path, first_path, pattern, is_named, links, modified, id, opened };
                    other_bytes.push(anew);
                }
                Err(_) => drop(self.saved.insert(id, saved)),
            }
        }
        other_bytes
    }

    /// Goes on with a file of the last run that a pattern names.
    fn resume(&mut self, id: u64, saved: Saved, path: &Path, pattern: &str, opened: Opened, now: Instant) {
        let position = saved.position.clone();
        if self.track(Some(id), path, pattern, opened, position.offset, now).is_err() {
            self.saved.insert(id, saved);
            return;
        }
        let ahead = self.saved_ahead.remove(&id);
        let Some(file) = self.files.get_mut(&id) else { return };
        (file.is_stand_in, file.is_heir) = (position.is_stand_in, position.is_heir);
        file.links = file.links.max(position.links);
        if let Some(ahead) = ahead.filter(|ahead| !file.restore_ahead(ahead)) {
            let lost = Loss { lines: ahead.lines, bytes: 0 };
            let range = position.offset..position.offset;
            self.notices.push(Notice::Rewritten { path: path.to_owned(), copy: None, lost, range });
        }
        if siblings::is_rotated_path(path, &position.path) {
            file.first_path.clone_from(&position.path);
            // Others may have had the name since.
            self.gaps.push(Gap::after(file));
        }
        if position.offset == 0 && position.known.modified != (0, 0) {
            let modified = position.known.modified;
            self.gaps.push(Gap::behind_live(id, position, modified));
        }
    }

    /// Opens a file again whose handle fails, as after a restart of a file server, if it is still the same.
    fn reopen_failing(&mut self) {
        for file in self.files.values_mut().filter(|file| file.error().is_some() && file.is_named()) {
            if let Ok(opened) = open::open(&*self.host, &file.path)
                && opened.identity == file.identity
                && open::agrees(&*opened.file, &file.position()).unwrap_or(false)
            {
                file.reopened(opened.file);
            }
        }
    }

    /// Opens a file that nothing is known of.
    pub(super) fn try_open(&mut self, path: &Path, found: &Found, now: Instant) {
        let pattern = &*found.pattern;
        let at_end = self.scans == 1 && self.first_start && self.options.first_start_at_end;
        if at_end && let Ok(Stat { identity, size, .. }) = self.host.stat(path) {
            self.starts.insert(path.to_owned(), Start { identity, size });
        }
        let blocked = |state, message| Blocked { state, message, unlisted: false };
        if self.files.len() >= FILES_MAX {
            let message = format!("{FILES_MAX} files are followed already");
            self.block(path, blocked("too_many", message));
            return;
        }
        let opened = match open::open(&*self.host, path) {
            Ok(opened) => opened,
            Err(Refusal { state, message }) => {
                self.block(path, blocked(state, message));
                if state == "unreadable" {
                    self.remember_unread(path, found);
                }
                return;
            }
        };
        self.blocked.remove(path);
        // Between the listing and the open the name may have moved on to a file that is known already.
        if self.is_open(opened.identity)
            || self
                .saved
                .values()
                .any(|saved| saved.position.identity == opened.identity && saved.rewritten_since.is_none())
        {
            return;
        }
        let Some(opened) = self.renew(opened) else { return };
        let start = self.starts.get(path).filter(|start| start.identity == opened.identity);
        let offset = start.map_or(0, |start| open::line_start_before(&*opened.file, start.size));
        let Ok(id) = self.track(None, path, pattern, opened, offset, now) else {
            return self.remember_unread(path, found);
        };
        if self.starts.remove(path).is_some() {
            self.start_changes.push((Start::key(path), None));
        }
        self.note_new(id, path);
    }

    /// Asks for what had the name of a new file between two looks.
    fn note_new(&mut self, id: u64, path: &Path) {
        let Some(file) = self.files.get(&id) else { return };
        if self.scans > 1 && file.identity.born_ns > 0 {
            // It may have been copied and truncated before it was first seen.
            let mut gap = Gap::behind_live(id, file.position(), siblings::nanoseconds(file.identity.born_ns));
            gap.elder.is_new = true;
            self.gaps.push(gap);
        }
        self.ask_behind_closed(id, path);
    }

    /// Another may have come and gone before a file that is new, when the last one had been closed already.
    fn ask_behind_closed(&mut self, id: u64, path: &Path) {
        let last = self.closed_of(path).next().map(|(id, position)| (id, position.clone()));
        let is_last = |closed: u64| {
            let of_name = |other: &Path| other == path || siblings::is_rotated_path(other, path);
            !self.files.range(closed + 1..id).any(|(_, file)| of_name(&file.first_path))
                && !self.saved.range(closed + 1..id).any(|(_, saved)| of_name(&saved.position.path))
        };
        if let Some((id, last)) = last.filter(|(closed, _)| is_last(*closed)) {
            let (name, modified) = (path.to_owned(), last.known.modified);
            let elder = Elder { name, identity: last.identity, modified, is_live: false, is_new: false };
            self.gaps.push(Gap { elder, position: last, id });
        }
    }

    /// Gives a file that is open already its new handle, and any other one back. An inode is given to nobody else while
    /// it is open: where it has another birth now, an overlay has copied the file up for its first writer.
    fn renew(&mut self, opened: Opened) -> Option<Opened> {
        let Identity { device, inode, .. } = opened.identity;
        let any_birth = |born_ns| Identity { device, inode, born_ns };
        let same_inode = self.identities.range(any_birth(0)..=any_birth(u64::MAX)).next();
        let Some((identity, id)) = same_inode.map(|(identity, id)| (*identity, *id)) else {
            return Some(opened);
        };
        let Some(file) = self.files.get_mut(&id) else { return Some(opened) };
        match open::agrees(&*opened.file, &file.position()) {
            Ok(true) => {}
            Ok(false) => return Some(opened),
            // Asked again at the next scan.
            Err(_) => return None,
        }
        self.identities.remove(&identity);
        self.identities.insert(opened.identity, id);
        file.identity = opened.identity;
        file.dirty = true;
        file.named(file.path.clone());
        file.reopened(opened.file);
        None
    }

    /// Keeps a file in mind that cannot be read: it may be renamed before it can.
    fn remember_unread(&mut self, path: &Path, found: &Found) {
        // The file that was seen to have taken the name: what had it before is not asked again for what came after.
        let Some(stat) = found.stat.or_else(|| self.host.stat(path).ok()) else { return };
        let is_known = self.starts.contains_key(path)
            || self.is_open(stat.identity)
            || self.anew.iter().any(|anew| anew.opened.identity == stat.identity)
            || self.saved.values().any(|saved| saved.position.identity == stat.identity);
        if is_known {
            return;
        }
        let known = Known { size: stat.size, modified: stat.modified };
        let position = Position::unread(path.to_owned(), found.pattern.to_string(), stat.identity, known);
        self.born.insert(self.next_id, position.clone());
        self.saved.insert(self.next_id, Saved::new(position));
        self.next_id += 1;
        self.ask_behind_closed(self.next_id - 1, path);
    }

    /// Names a path that is not read. From where it is to be read is kept, however long that takes.
    fn block(&mut self, path: &Path, blocked: Blocked) {
        let is_new = !self.blocked.contains_key(path);
        self.blocked.insert(path.to_owned(), blocked);
        if let Some(start) = self.starts.get(path).filter(|_| is_new) {
            self.start_changes.push((Start::key(path), Some(start.encode())));
        }
    }

    /// Takes charge of an open file: of a known position, or as a new one. Gives its number, or the file where it cannot
    /// be read now, which is said.
    pub(super) fn track(
        &mut self,
        known: Option<u64>,
        path: &Path,
        pattern: &str,
        opened: Opened,
        offset: u64,
        now: Instant,
    ) -> Result<u64, Opened> {
        let id = known.unwrap_or(self.next_id);
        let mut file = match Tracked::new(id, path.to_owned(), pattern.to_owned(), opened, offset, now) {
            Ok(file) => file,
            Err((opened, error)) => {
                let message = error.to_string();
                self.block(path, Blocked { state: "unreadable", message, unlisted: false });
                return Err(opened);
            }
        };
        self.next_id = self.next_id.max(id + 1);
        if offset == 0 {
            file.origin = Origin::Unchecked;
            file.found_in = self.scans;
        }
        if known.is_none() {
            self.born.insert(id, file.position());
        }
        self.identities.insert(file.identity, id);
        self.files.insert(id, file);
        if offset > 0 {
            self.settle(id);
        }
        self.notices.push(Notice::Opened { path: path.to_owned(), offset, resumed: known.is_some() });
        Ok(id)
    }
}
