//! Directory events as a hint. The poll is the truth: when no watch can be had, nothing is lost but a
//! fraction of a second.
//!
//! Only directories are watched and only births, deaths and renames in them: content events of a busy log
//! would cost the writing server half its CPU again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::{Config, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches the directories of the followed files.
pub struct DirectoryWatch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    notice: Option<String>,
    /// A shortage of watches lasts; it is said once and not at every scan.
    said: bool,
}

impl DirectoryWatch {
    /// Starts watching nothing; `ring` is called from another thread at each event.
    pub fn new(ring: impl Fn() + Send + 'static) -> DirectoryWatch {
        let config = Config::default().with_event_kinds(EventKindMask::CREATE | EventKindMask::REMOVE);
        match RecommendedWatcher::new(move |_event| ring(), config) {
            Ok(watcher) => {
                DirectoryWatch { watcher: Some(watcher), watched: BTreeSet::new(), notice: None, said: false }
            }
            Err(error) => {
                let notice = format!("no directory events, polling alone: {error}");
                DirectoryWatch { watcher: None, watched: BTreeSet::new(), notice: Some(notice), said: true }
            }
        }
    }

    /// Watches nothing, ever: the poll decides alone.
    #[cfg(test)]
    pub(crate) fn none() -> DirectoryWatch {
        DirectoryWatch { watcher: None, watched: BTreeSet::new(), notice: None, said: true }
    }

    /// Watches exactly these directories from now on. One that cannot be watched is polled, which is said once.
    pub fn set(&mut self, directories: &BTreeSet<PathBuf>) {
        let Some(watcher) = self.watcher.as_mut() else { return };
        let gone: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|path| !directories.contains(*path) || !path.is_dir())
            .cloned()
            .collect();
        for path in gone {
            // A directory that was removed took its watch with it; the error says no more than that.
            let _ = watcher.unwatch(&path);
            self.watched.remove(&path);
        }
        for path in directories {
            if self.watched.contains(path) || !path.is_dir() {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone());
                }
                Err(error) if !self.said => {
                    self.said = true;
                    self.notice = Some(format!("no events from {}, polling it: {error}", path.display()));
                }
                Err(_) => {}
            }
        }
    }

    /// What should be said about watching, once.
    pub fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }
}

/// The directory to watch for a path, also when the path is a bare name.
pub fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
