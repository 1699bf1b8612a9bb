//! The names that the patterns gave at the last look, kept while no name has come or gone.
//!
//! Reason: of hundreds of quiet logs, listing their directories anew and matching each name cost more than looking at the files.
//!
//! Invariant: kept names are those that a new listing would give. The directory itself says so by the time of its last change,
//! and is believed when that time had been over for longer than its file system's coarsest clock step as it was listed. What each
//! name leads to is asked at every look all the same.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::discover::Names;
use super::files::{Files, Stat, one_directory};
use super::identity::Identity;

/// The coarsest step in which a file system tells times: within it a directory may change again and keep its time.
pub(super) const CLOCK_STEP_MAX: Duration = Duration::from_secs(2);

/// Directories are listed after this time whatever they say: not every file system of a network or of a user's program keeps
/// their times.
const KEPT_MAX: Duration = Duration::from_secs(10);

/// A directory as it was listed.
#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    identity: Identity,
    /// When names last came or went in it, as it tells.
    modified: (i64, i64),
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
            let Stat { identity, modified, .. } = host.stat(path).ok()?;
            let is_same = |known: &&Directory| {
                known.path == path && known.identity == identity && known.modified == modified
            };
            let first_seen = before.iter().find(is_same).map_or(now, |known| known.first_seen);
            Some(Directory { path: path.to_owned(), identity, modified, first_seen })
        };
        let directories: Option<Vec<Directory>> = patterns.iter().map(look).collect();
        self.directories = directories.map(|directories| (directories, now));
    }

    /// A directory could not be listed whole.
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
        let same = |stat: Stat| stat.identity == self.identity && stat.modified == self.modified;
        host.stat(&self.path).is_ok_and(same)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::{self, File};
    use std::io;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::follow::files::{Expanded, HostFiles, LogFile};
    use crate::follow::{Follower, Options};

    /// How often directories were listed.
    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicU32>);

    impl Files for Counted {
        fn expand(&self, pattern: &str) -> Expanded {
            self.0.fetch_add(1, Ordering::Relaxed);
            HostFiles.expand(pattern)
        }

        fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>> {
            HostFiles.list(directory, names_max)
        }

        fn stat(&self, path: &Path) -> io::Result<Stat> {
            HostFiles.stat(path)
        }

        fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            HostFiles.open(path)
        }
    }

    struct Watched {
        directory: tempfile::TempDir,
        follower: Follower,
        counted: Counted,
        now: Instant,
    }

    impl Watched {
        fn new() -> Watched {
            let directory = tempfile::tempdir().expect("a directory");
            let counted = Counted::default();
            let pattern = directory.path().join("*.log").to_str().expect("text").to_owned();
            let options = Options { patterns: vec![pattern], first_start_at_end: false };
            let follower = Follower::new(Arc::new(counted.clone()), options, std::iter::empty(), true);
            Watched { directory, follower, counted, now: Instant::now() }
        }

        /// Makes a log; the directory tells that it changed at `second`.
        fn make(&self, name: &str, second: u64) {
            fs::write(self.directory.path().join(name), "a line\n").expect("a log");
            self.tell(second);
        }

        fn tell(&self, second: u64) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let directory = File::open(self.directory.path()).expect("the directory");
            directory.set_modified(time).expect("its time");
        }

        /// Looks once a second; answers how often that listed the directory.
        fn look(&mut self, times: u32) -> u32 {
            let before = self.counted.0.load(Ordering::Relaxed);
            for _ in 0..times {
                self.now += Duration::from_secs(1);
                self.follower.scan(self.now);
            }
            self.counted.0.load(Ordering::Relaxed) - before
        }

        fn followed(&self) -> usize {
            self.follower.files().count()
        }
    }

    #[test]
    fn a_quiet_directory_is_listed_now_and_then() {
        let mut watched = Watched::new();
        watched.make("a.log", 1000);
        let settling = CLOCK_STEP_MAX.as_secs() as u32 + 1;
        assert_eq!(watched.look(settling), settling, "its time may be that of a later change, too");
        assert_eq!(watched.look(9), 0);
        assert_eq!(watched.look(100), 10);
        assert_eq!(watched.followed(), 1);
    }

    #[test]
    fn what_comes_and_goes_is_seen_at_once() {
        let mut watched = Watched::new();
        watched.make("a.log", 1000);
        watched.look(5);
        watched.make("b.log", 1001);
        watched.look(1);
        assert_eq!(watched.followed(), 2);
        let path = |name: &str| watched.directory.path().join(name);
        fs::rename(path("a.log"), path("a.log.1")).expect("rotated");
        fs::remove_file(path("b.log")).expect("removed");
        // Even where the directory does not say so, each name is asked.
        watched.tell(1001);
        watched.look(1);
        assert!(watched.follower.files().all(|file| !file.is_named()));
    }

    #[test]
    fn a_change_within_one_step_of_the_clock_is_seen() {
        let mut watched = Watched::new();
        watched.make("a.log", 1000);
        watched.look(CLOCK_STEP_MAX.as_secs() as u32);
        watched.make("b.log", 1000);
        watched.look(1);
        assert_eq!(watched.followed(), 2);
    }

    #[test]
    fn a_directory_that_does_not_tell_is_listed_all_the_same() {
        let mut watched = Watched::new();
        watched.make("a.log", 1000);
        watched.look(5);
        watched.make("b.log", 1000);
        watched.look(KEPT_MAX.as_secs() as u32);
        assert_eq!(watched.followed(), 2);
    }

    #[test]
    fn another_directory_of_the_same_time_is_another() {
        let mut watched = Watched::new();
        watched.make("a.log", 1000);
        watched.look(5);
        let (path, aside) =
            (watched.directory.path().to_owned(), watched.directory.path().with_extension("old"));
        fs::rename(&path, &aside).expect("renamed");
        fs::create_dir(&path).expect("made anew");
        watched.make("b.log", 1000);
        watched.make("a.log", 1000);
        watched.look(1);
        fs::remove_dir_all(aside).expect("removed");
        assert_eq!(watched.follower.files().filter(|file| file.is_named()).count(), 2);
    }
}
