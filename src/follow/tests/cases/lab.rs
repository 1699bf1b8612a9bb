//! The real file system with what a test wants of it: births in the order of the test, refusals, stale handles,
//! something that happens just before an open, and the faults that the oracle must find.
//!
//! It knows no line and no follower.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::follow::files::{Expanded, Files, HostFiles, LogFile, Stat};

/// What differs from the file system as it is.
#[derive(Default)]
pub(super) struct Rules {
    /// Births by device and inode: the clock of the file system itself moves on every few milliseconds only.
    pub(super) births: BTreeMap<(u64, u64), u64>,
    /// Paths that may not be opened.
    pub(super) denied: BTreeSet<PathBuf>,
    /// The error that every read of an open file gives, by the path that opened it.
    pub(super) failing: BTreeMap<PathBuf, i32>,
    /// Happens once, just before this path is opened.
    pub(super) before_open: Option<(PathBuf, Box<dyn FnOnce() + Send>)>,
    /// Added to every device number, as by a mount that was made anew.
    pub(super) device_shift: u64,
    /// Files that were opened before so many others give ESTALE, as after a server of a network file system went.
    pub(super) stale_below: u64,
    /// Files that were opened.
    pub(super) opened: u64,
    /// A fault: no file is seen to grow after it was opened.
    pub(super) is_frozen: bool,
    /// A fault: every file has the same birth, as if the inode alone told files apart.
    pub(super) is_birthless: bool,
}

/// The file system under these rules.
#[derive(Clone, Default)]
pub(super) struct Lab(Arc<Mutex<Rules>>);

impl Lab {
    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().expect("no test panics while it holds the rules")
    }

    /// Gives the file that was just made under a path its birth.
    pub(super) fn give_birth(&self, path: &Path, at_ns: u64) {
        if let Ok(stat) = HostFiles.stat(path) {
            self.rules().births.insert((stat.identity.device, stat.identity.inode), at_ns);
        }
    }

    fn changed(&self, mut stat: Stat) -> Stat {
        let rules = &mut *self.rules();
        if let Some(born_ns) = rules.births.get(&(stat.identity.device, stat.identity.inode)) {
            stat.identity.born_ns = *born_ns;
        }
        if rules.is_birthless {
            stat.identity.born_ns = 1;
        }
        stat.identity.device += rules.device_shift;
        stat
    }
}

impl Files for Lab {
    fn expand(&self, pattern: &str) -> Expanded {
        HostFiles.expand(pattern)
    }

    fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>> {
        HostFiles.list(directory, names_max)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        HostFiles.stat(path).map(|stat| self.changed(stat))
    }

    fn stat_name(&self, path: &Path) -> io::Result<(Stat, bool)> {
        HostFiles.stat_name(path).map(|(stat, is_own)| (self.changed(stat), is_own))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let before = self.rules().before_open.take_if(|(of, _)| of == path);
        if let Some((_, happens)) = before {
            happens();
        }
        if self.rules().denied.contains(path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let inner = HostFiles.open(path)?;
        let first = self.changed(inner.stat()?);
        let mut rules = self.rules();
        rules.opened += 1;
        Ok(Box::new(LabFile { inner, path: path.to_owned(), lab: self.clone(), first, serial: rules.opened }))
    }
}

struct LabFile {
    inner: Box<dyn LogFile>,
    path: PathBuf,
    lab: Lab,
    /// As it was when it was opened: an inode that another file has by now says nothing of this one.
    first: Stat,
    serial: u64,
}

impl LabFile {
    fn fails(&self) -> io::Result<()> {
        let rules = self.lab.rules();
        if self.serial <= rules.stale_below {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::STALE.raw_os_error()));
        }
        match rules.failing.get(&self.path) {
            Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
            None => Ok(()),
        }
    }
}

impl LogFile for LabFile {
    fn stat(&self) -> io::Result<Stat> {
        self.fails()?;
        let size = self.inner.stat()?;
        let rules = self.lab.rules();
        let size = if rules.is_frozen { Stat { size: self.first.size, ..size } } else { size };
        Ok(Stat { identity: self.first.identity, ..size })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fails()?;
        self.inner.read_at(buffer, offset)
    }
}
