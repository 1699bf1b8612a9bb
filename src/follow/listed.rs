//! The names that the patterns gave at the last look, kept while no name has come or gone.
//!
//! Reason: of hundreds of quiet logs, listing their directories anew and matching each name cost more than looking at the files.
//!
//! Invariant: kept names are those that a new listing would give. The directory itself says so by the times of its last change,
//! and is believed when those had been over for longer than its file system's coarsest clock step as it was listed. What each
//! name leads to is asked at every look all the same, but for the names under which a file is open and which are no links: those
//! lead elsewhere only where names come or go, or where another file system is mounted over the file. That exception, and a file
//! system that keeps no times and sends no events, shows when the directory is next listed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::discover::Names;
use super::files::{Files, Stat, one_directory};
use super::identity::Identity;

/// The coarsest step in which a file system tells times: within it a directory may change again and keep its time.
pub(super) const CLOCK_STEP_MAX: Duration = Duration::from_secs(2);

/// Directories are listed after this time whatever they say: not every file system of a network or of a user's program keeps
/// their times.
pub(super) const KEPT_MAX: Duration = Duration::from_secs(10);

/// A directory as it was listed.
#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    identity: Identity,
    /// When names last came or went in it, as it tells, and when anything of it changed: rsync sets the first back, and an overlay
    /// that copies a log up for its first writer leaves it alone.
    times: [(i64, i64); 2],
    /// When that was seen first.
    first_seen: Instant,
}

/// What the last look gave.
#[derive(Default)]
pub(super) struct Listed {
    names: Names,
    /// The directories of all patterns, and when they were listed; none where one of them cannot be kept.
    directories: Option<(Vec<Directory>, Instant)>,
}

impl Listed {
    /// The names, where they are still those that the patterns give.
    pub(super) fn take(&mut self, host: &dyn Files, now: Instant) -> Option<Names> {
        let (directories, listed) = self.directories.as_ref()?;
        let is_settled = |directory: &Directory| {
            *listed - directory.first_seen >= CLOCK_STEP_MAX && directory.is_unchanged(host)
        };
        let is_kept = now - *listed < KEPT_MAX && directories.iter().all(is_settled);
        is_kept.then(|| std::mem::take(&mut self.names))
    }

    /// Looks at the directories of the patterns, before they are listed.
    pub(super) fn begin(&mut self, host: &dyn Files, patterns: &[String], now: Instant) {
        let before = self.directories.take().map_or_else(Vec::new, |(directories, _)| directories);
        let look = |pattern: &String| {
            let (path, _) = one_directory(pattern)?;
            let stat = host.stat(path).ok()?;
            let is_same = |known: &&Directory| known.path == path && known.is_as(&stat);
            let first_seen = before.iter().find(is_same).map_or(now, |known| known.first_seen);
            let (identity, times) = (stat.identity, [stat.modified, stat.changed]);
            Some(Directory { path: path.to_owned(), identity, times, first_seen })
        };
        let directories: Option<Vec<Directory>> = patterns.iter().map(look).collect();
        self.directories = directories.map(|directories| (directories, now));
    }

    /// A directory could not be listed whole, or a name came or went whatever its directory tells.
    pub(super) fn forget(&mut self) {
        self.directories = None;
    }

    /// Keeps the names for the next look.
    pub(super) fn keep(&mut self, names: Names) {
        self.names = names;
    }
}

impl Directory {
    fn is_unchanged(&self, host: &dyn Files) -> bool {
        host.stat(&self.path).is_ok_and(|stat| self.is_as(&stat))
    }

    fn is_as(&self, stat: &Stat) -> bool {
        stat.identity == self.identity && [stat.modified, stat.changed] == self.times
    }
}
