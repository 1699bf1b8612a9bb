//! The seam to the file system: the ten things that the spool asks of a disk, and the real one.
//!
//! Owns: how files of the spool are opened (never through a symbolic link, never readable by others).
//! Must never: know the format, decide what to keep, or retry.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags};

use super::OpenError;

/// Folder, inside the spool's, of what will never be sent but may still be looked at.
pub(super) const QUARANTINE_PREFIX: &str = "quarantine/";

const QUARANTINE_DIRECTORY: &str = "quarantine";
/// Files kept open for writing: the segment at hand, its successor, and one more of each while they change.
const OPEN_FILES_MAX: usize = 4;
const LOCK_FILE: &str = "lock";
/// Unit of `st_blocks`, by stat(2).
const STAT_BLOCK_BYTES: u64 = 512;

/// A file of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Name in the spool's folder; those in quarantine begin with `quarantine/`.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    /// Bytes that it takes on the disk, reserved ones included.
    pub allocated: u64,
}

/// What the spool asks of a disk. A name is a file's name in the spool's folder.
///
/// Every call may fail with any `io::Error`; a failed `sync` leaves unknown what is durable.
pub trait Disk {
    /// All files, those in quarantine included, in no order.
    fn list(&self) -> io::Result<Vec<FileInfo>>;
    /// Makes a new, empty file; an existing one is an error.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes all bytes at the end. After an error any part of them may be there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content durable (fdatasync).
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Writes bytes of an existing file over themselves and makes its content durable, so that they are written out
    /// even if the system believes that they were.
    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the names durable (fsync of the folder).
    fn sync_dir(&mut self) -> io::Result<()>;
    /// Gives a file made by this run another name, at once for whoever looks.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Cuts to a length, which also gives back what is reserved behind it.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&mut self, name: &str) -> io::Result<()>;
    /// Sets bytes aside for a file without changing its length.
    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// Bytes of the file system that a process without privileges may still use.
    fn free_bytes(&self) -> io::Result<u64>;
}

impl Disk for Box<dyn Disk + Send> {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        (**self).list()
    }
    fn create(&mut self, name: &str) -> io::Result<()> {
        (**self).create(name)
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (**self).append(name, bytes)
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        (**self).sync(name)
    }
    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).renew(name, offset, bytes)
    }
    fn sync_dir(&mut self) -> io::Result<()> {
        (**self).sync_dir()
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(name, offset, buffer)
    }
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        (**self).truncate(name, len)
    }
    fn unlink(&mut self, name: &str) -> io::Result<()> {
        (**self).unlink(name)
    }
    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        (**self).reserve(name, bytes)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        (**self).free_bytes()
    }
}

/// A folder of a real file system.
#[derive(Debug)]
pub struct DirDisk {
    directory: OwnedFd,
    quarantine: Option<OwnedFd>,
    /// The last files that this process created: appended to, synced and read by the same descriptor.
    created: BTreeMap<String, File>,
    /// Held for the life of the process; `None` for a reader beside a running agent.
    _lock: Option<File>,
}

impl DirDisk {
    /// Opens the spool's folder for the one agent that may write to it, and makes it where it is missing.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another process holds it, [`OpenError::Symlink`] when a link stands in
    /// its place, [`OpenError::Foreign`] when it is another user's, [`OpenError::Io`] for all else.
    pub fn open(path: &Path) -> Result<DirDisk, OpenError> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(OpenError::io(format!("make {}", path.display()), error.into())),
        }
        let directory = open_directory(path)?;
        refuse_foreign(&directory, &path.display().to_string())?;
        match rustix::fs::mkdirat(&directory, QUARANTINE_DIRECTORY, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(OpenError::io("make quarantine/", error.into())),
        }
        let quarantine = open_directory_at(&directory, QUARANTINE_DIRECTORY)?;
        refuse_foreign(&quarantine, QUARANTINE_DIRECTORY)?;
        for folder in [&directory, &quarantine] {
            rustix::fs::fchmod(folder, Mode::RWXU).map_err(|e| OpenError::io("set the mode", e.into()))?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&directory, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| refused(LOCK_FILE, error))?;
        rustix::fs::fchmod(&lock, Mode::RUSR | Mode::WUSR)
            .map_err(|e| OpenError::io("set the mode of the lock", e.into()))?;
        let lock = File::from(lock);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(OpenError::io("lock the spool", error)),
        }
        let disk =
            DirDisk { directory, quarantine: Some(quarantine), created: BTreeMap::new(), _lock: Some(lock) };
        disk.refuse_links()?;
        Ok(disk)
    }

    /// Opens the folder to look at it only: makes nothing and takes no lock, so that it works beside a
    /// running agent.
    ///
    /// # Errors
    /// [`OpenError::Symlink`] and [`OpenError::Io`], as for [`DirDisk::open`].
    pub fn open_read_only(path: &Path) -> Result<DirDisk, OpenError> {
        let directory = open_directory(path)?;
        let quarantine = open_directory_at(&directory, QUARANTINE_DIRECTORY).ok();
        Ok(DirDisk { directory, quarantine, created: BTreeMap::new(), _lock: None })
    }

    /// Fails when any file of the spool is a link: somebody else put it there.
    fn refuse_links(&self) -> Result<(), OpenError> {
        let names = names_in(&self.directory).map_err(|e| OpenError::io("list the spool", e))?;
        for name in names {
            let stat = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| OpenError::io(format!("look at {name}"), e.into()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Err(OpenError::Symlink { name });
            }
        }
        Ok(())
    }

    /// The folder of a name, and the name inside it.
    fn place<'a>(&self, name: &'a str) -> io::Result<(&OwnedFd, &'a str)> {
        match name.strip_prefix(QUARANTINE_PREFIX) {
            None => Ok((&self.directory, name)),
            Some(inner) => {
                self.quarantine.as_ref().map(|folder| (folder, inner)).ok_or(io::ErrorKind::NotFound.into())
            }
        }
    }

    fn open_existing(&self, name: &str, access: OFlags) -> io::Result<File> {
        let (folder, inner) = self.place(name)?;
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(folder, inner, flags, Mode::empty())?))
    }

    fn created(&mut self, name: &str) -> io::Result<&mut File> {
        self.created.get_mut(name).ok_or_else(|| io::Error::other("only a file of this run is written to"))
    }
}

impl Disk for DirDisk {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        for (folder, prefix) in [(Some(&self.directory), ""), (self.quarantine.as_ref(), QUARANTINE_PREFIX)] {
            let Some(folder) = folder else { continue };
            for name in names_in(folder)? {
                let stat = match rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                };
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                    let len = u64::try_from(stat.st_size).unwrap_or(0);
                    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                    let allocated = len.max(blocks.saturating_mul(STAT_BLOCK_BYTES));
                    files.push(FileInfo { name: format!("{prefix}{name}"), len, allocated });
                }
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let (folder, inner) = self.place(name)?;
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(folder, inner, flags, mode)?);
        rustix::fs::fchmod(&file, mode)?;
        // What is in quarantine was written at once; a segment of a lower number is complete.
        self.created.retain(|name, _| !name.starts_with(QUARANTINE_PREFIX));
        self.created.insert(name.to_owned(), file);
        while self.created.len() > OPEN_FILES_MAX {
            self.created.pop_first();
        }
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.created(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        match self.created.get(name) {
            Some(file) => {
                file.sync_data()?;
                // What was removed under a running agent takes every byte, and keeps none.
                if rustix::fs::fstat(file)?.st_nlink == 0 {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} was removed")));
                }
                Ok(())
            }
            // Linux syncs through a descriptor that may only read.
            None => self.open_existing(name, OFlags::RDONLY)?.sync_data(),
        }
    }

    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Synced by the descriptor that wrote: it is told of every error since.
        let file = self.open_existing(name, OFlags::WRONLY)?;
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.directory, from, &self.directory, to)?;
        if let Some(file) = self.created.remove(from) {
            self.created.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let opened;
        let file = match self.created.get(name) {
            Some(file) => file,
            None => {
                opened = self.open_existing(name, OFlags::RDONLY)?;
                &opened
            }
        };
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.created(name)?.set_len(len)
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        let (folder, inner) = self.place(name)?;
        rustix::fs::unlinkat(folder, inner, AtFlags::empty())?;
        self.created.remove(name);
        Ok(())
    }

    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.created(name)?;
        Ok(rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn names_in(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        // The spool's own names are ASCII; whatever is not UTF-8 is not ours.
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    rustix::fs::open(path, DIRECTORY_FLAGS, Mode::empty())
        .map_err(|error| refused(&path.display().to_string(), error))
}

fn open_directory_at(folder: &OwnedFd, name: &str) -> Result<OwnedFd, OpenError> {
    rustix::fs::openat(folder, name, DIRECTORY_FLAGS, Mode::empty()).map_err(|error| refused(name, error))
}

/// Fails when a folder is another user's: the mode would not keep its owner out, not even of root's files.
fn refuse_foreign(folder: &OwnedFd, name: &str) -> Result<(), OpenError> {
    let owner =
        rustix::fs::fstat(folder).map_err(|e| OpenError::io(format!("look at {name}"), e.into()))?.st_uid;
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(OpenError::Foreign { name: name.to_owned(), owner })
}

/// A link in place of a file is ELOOP, in place of a folder ENOTDIR.
fn refused(name: &str, error: rustix::io::Errno) -> OpenError {
    match error {
        rustix::io::Errno::LOOP => OpenError::Symlink { name: name.to_owned() },
        rustix::io::Errno::NOTDIR => {
            let text = "not a folder; a link in its place is refused";
            OpenError::io(format!("open {name}"), io::Error::new(io::ErrorKind::NotADirectory, text))
        }
        other => OpenError::io(format!("open {name}"), other.into()),
    }
}
