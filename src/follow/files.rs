//! The seam to the log files: the few things that following asks of a file system, and the real one.
//!
//! Owns how a log is opened: never waiting for a FIFO, never anything but for reading. It knows no rotation, no
//! position, and keeps nothing in mind.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::identity::Identity;

/// What stat(2) tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which file it is.
    pub identity: Identity,
    /// Length in bytes.
    pub size: u64,
    /// When it was last written to, as the file system tells it: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When anything of it last changed, its names and times included: no program can set that back.
    pub changed: (i64, i64),
    /// Names that lead to it; 0 once it is deleted.
    pub links: u64,
    /// A regular file, and not a directory, FIFO, socket or device.
    pub is_regular: bool,
}

/// An open log.
pub trait LogFile: Send {
    /// What the file is now.
    fn stat(&self) -> io::Result<Stat>;
    /// Reads at an offset; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Why the file, as far as it was read, ends before the log in it did; only a compressed one can know.
    fn unreadable_rest(&self) -> Option<String> {
        None
    }
}

/// The paths that a pattern names, and those that could not be listed, each with the error.
pub type Expanded = (Vec<PathBuf>, Vec<(PathBuf, io::Error)>);

/// Whether an error says that nothing is there, and not that it cannot be read.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Where logs are.
pub trait Files: Send + Sync {
    /// The existing paths that a shell pattern names.
    fn expand(&self, pattern: &str) -> Expanded;
    /// Names in a directory, at most so many, in no order.
    fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>>;
    /// What a path leads to, through symbolic links.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// The same, and whether the path is a name of the file itself and no symbolic link to it: then it leads elsewhere only
    /// where names come or go in its directory, or where something is mounted over it. Where that cannot be told it is none.
    fn stat_name(&self, path: &Path) -> io::Result<(Stat, bool)> {
        self.stat(path).map(|stat| (stat, false))
    }
    /// Opens for reading, without waiting for whatever it may be.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
}

/// The file systems of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFiles;

impl Files for HostFiles {
    fn expand(&self, pattern: &str) -> Expanded {
        if let Some((directory, name)) = one_directory(pattern) {
            return names_in(directory, &name);
        }
        let (mut paths, mut problems) = (Vec::new(), Vec::new());
        match glob::glob(pattern) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(path) => paths.push(path),
                        Err(error) => problems.push((error.path().to_owned(), error.into())),
                    }
                }
            }
            Err(error) => problems.push((PathBuf::from(pattern), io::Error::other(error))),
        }
        (paths, problems)
    }

    fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(directory)?;
        Ok(entries.flatten().take(names_max).map(|entry| entry.file_name()).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        std::fs::metadata(path).map(|metadata| stat_of(&metadata))
    }

    fn stat_name(&self, path: &Path) -> io::Result<(Stat, bool)> {
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            return self.stat(path).map(|stat| (stat, false));
        }
        Ok((stat_of(&metadata), true))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        // Non-blocking: the name may have become a FIFO since somebody looked.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        if is_of_kernel(&file) {
            return Ok(Box::new(KernelFile(file)));
        }
        Ok(Box::new(file))
    }
}

impl LogFile for File {
    fn stat(&self) -> io::Result<Stat> {
        self.metadata().map(|metadata| stat_of(&metadata))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// A file of proc or sysfs: called regular, but of no size, and made anew at each look. It is no log.
struct KernelFile(File);

impl LogFile for KernelFile {
    fn stat(&self) -> io::Result<Stat> {
        LogFile::stat(&self.0).map(|stat| Stat { is_regular: false, ..stat })
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(0)
    }
}

fn is_of_kernel(file: &File) -> bool {
    /// linux/magic.h.
    const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;
    rustix::fs::fstatfs(file)
        .is_ok_and(|disk| [rustix::fs::PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&disk.f_type))
}

/// The directory of a pattern that has wildcards in its last part only, as most have, and that part. It is listed once, where
/// `glob` asks for each directory on the way, and passes over names that are no UTF-8.
pub(super) fn one_directory(pattern: &str) -> Option<(&Path, glob::Pattern)> {
    let (directory, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    // Two stars go down into directories.
    if directory.contains(['*', '?', '[']) || name.contains("**") {
        return None;
    }
    let is_root = directory.is_empty() && pattern.starts_with('/');
    let directory = if is_root { "/" } else { directory };
    Some((Path::new(directory), glob::Pattern::new(name).ok()?))
}

/// What a directory has of the wanted names.
fn names_in(directory: &Path, wanted: &glob::Pattern) -> Expanded {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = match std::fs::read_dir(here) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Expanded::default(),
        Err(error) => return (Vec::new(), vec![(directory.to_owned(), error)]),
    };
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry.map(|entry| entry.file_name()) {
            Ok(name) if wanted.matches(&name.to_string_lossy()) => names.push(name),
            Ok(_) => {}
            Err(error) => problems.push((directory.to_owned(), error)),
        }
    }
    names.sort_unstable();
    (names.into_iter().map(|name| directory.join(name)).collect(), problems)
}

fn stat_of(metadata: &Metadata) -> Stat {
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Stat {
        identity: Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_ns: born.and_then(|age| u64::try_from(age.as_nanos()).ok()).unwrap_or(0),
        },
        size: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        links: metadata.nlink(),
        is_regular: metadata.is_file(),
    }
}
