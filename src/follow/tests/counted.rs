//! The files of this host, with a count of what is asked of them.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::follow::files::{Expanded, Files, HostFiles, LogFile, Stat};

/// Counts names listed, paths looked at, files opened; and apart from these: patterns, files opened, looks at open files.
#[derive(Clone, Default)]
pub(super) struct CountedFiles {
    pub(super) asked: Arc<AtomicU64>,
    pub(super) expanded: Arc<AtomicU64>,
    pub(super) opened: Arc<AtomicU64>,
    pub(super) looked: Arc<AtomicU64>,
    pub(super) read: Arc<AtomicU64>,
}

impl CountedFiles {
    fn count<T>(&self, answer: T, cost: usize) -> T {
        self.asked.fetch_add(cost as u64, Ordering::Relaxed);
        answer
    }
}

impl Files for CountedFiles {
    fn expand(&self, pattern: &str) -> Expanded {
        self.expanded.fetch_add(1, Ordering::Relaxed);
        let expanded = HostFiles.expand(pattern);
        let names = expanded.0.len();
        self.count(expanded, names)
    }

    fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>> {
        let names = HostFiles.list(directory, names_max)?;
        let length = names.len();
        Ok(self.count(names, length))
    }

    /// Tests set the time of a directory, as if its file system told no other.
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let stat = HostFiles.stat(path).map(|stat| Stat { changed: stat.modified, ..stat });
        self.count(stat, 1)
    }

    fn stat_name(&self, path: &Path) -> io::Result<(Stat, bool)> {
        self.count(HostFiles.stat_name(path), 1)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let inner = self.count(HostFiles.open(path), 1)?;
        Ok(Box::new(CountedLog { inner, host: self.clone() }))
    }
}

/// An open file of which each look and each reading counts.
struct CountedLog {
    inner: Box<dyn LogFile>,
    host: CountedFiles,
}

impl LogFile for CountedLog {
    fn stat(&self) -> io::Result<Stat> {
        self.host.looked.fetch_add(1, Ordering::Relaxed);
        self.inner.stat()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.host.read.fetch_add(1, Ordering::Relaxed);
        self.inner.read_at(buffer, offset)
    }
}
