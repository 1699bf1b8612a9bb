//! A directory of logs in memory, behind the follower's seam: inodes that are used again, files that outlive their
//! name, coarse times, and calls that fail or fall short.
//!
//! What an agent sees of a file is what the simulated server did to it. In the middle of a tick the server may act
//! too: a call may be told to let it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::follow::files::{Expanded, Files, LogFile, Stat};
use crate::follow::identity::Identity;
use crate::mutant::{Mutant, is_on};
use crate::record::EpochMs;

use super::world::World;

/// The one directory of logs.
pub(super) const DIRECTORY: &str = "/logs";

const DEVICE: u64 = 7;
const FIRST_INODE: u64 = 100;

/// A file, whatever names it has.
#[derive(Debug)]
struct Inode {
    number: u64,
    born_ns: u64,
    content: Vec<u8>,
    modified_ns: i64,
    links: u64,
    /// Open descriptors of the agent and of the server.
    handles: u32,
}

/// The files of the directory.
#[derive(Debug, Default)]
pub(super) struct FileSystem {
    inodes: BTreeMap<u32, Inode>,
    names: BTreeMap<String, u32>,
    free_numbers: BTreeSet<u64>,
    numbers: u64,
    serial_next: u32,
    /// Times of files are whole multiples of this.
    granularity_ms: i64,
    /// When a name last came or went.
    names_modified_ns: i64,
}

impl FileSystem {
    pub(super) fn new(granularity_ms: i64) -> FileSystem {
        FileSystem { granularity_ms, ..FileSystem::default() }
    }

    fn coarse_ns(&self, wall_ms: EpochMs) -> i64 {
        wall_ms.div_euclid(self.granularity_ms) * self.granularity_ms * 1_000_000
    }

    /// A new, empty file, open for the server; its serial number is never used again.
    pub(super) fn create(&mut self, name: &str, wall_ms: EpochMs) -> u32 {
        let number = self.free_numbers.pop_first().unwrap_or_else(|| {
            self.numbers += 1;
            FIRST_INODE + self.numbers
        });
        let time = self.coarse_ns(wall_ms);
        let inode = Inode {
            number,
            born_ns: time.unsigned_abs(),
            content: Vec::new(),
            modified_ns: time,
            links: 1,
            handles: 1,
        };
        let serial = self.serial_next;
        self.serial_next += 1;
        self.names_modified_ns = time;
        self.inodes.insert(serial, inode);
        self.names.insert(name.to_owned(), serial);
        serial
    }

    pub(super) fn append(&mut self, serial: u32, bytes: &[u8], wall_ms: EpochMs) {
        let time = self.coarse_ns(wall_ms);
        let inode = self.inode(serial);
        inode.content.extend_from_slice(bytes);
        inode.modified_ns = time;
    }

    pub(super) fn truncate(&mut self, serial: u32, len: usize, wall_ms: EpochMs) {
        let time = self.coarse_ns(wall_ms);
        let inode = self.inode(serial);
        inode.content.truncate(len);
        inode.modified_ns = time;
    }

    pub(super) fn len(&self, serial: u32) -> usize {
        self.inodes.get(&serial).map_or(0, |inode| inode.content.len())
    }

    /// Gives a file another name; what had that name loses it.
    pub(super) fn rename(&mut self, from: &str, to: &str, wall_ms: EpochMs) {
        self.names_modified_ns = self.coarse_ns(wall_ms);
        let serial = self.names.remove(from).expect("the server renames what is there");
        if let Some(replaced) = self.names.insert(to.to_owned(), serial) {
            self.inode(replaced).links -= 1;
            self.forget_unused(replaced);
        }
    }

    pub(super) fn unlink(&mut self, name: &str, wall_ms: EpochMs) {
        self.names_modified_ns = self.coarse_ns(wall_ms);
        let serial = self.names.remove(name).expect("the server removes what is there");
        self.inode(serial).links -= 1;
        self.forget_unused(serial);
    }

    /// When a file was made, as it tells.
    pub(super) fn born_ns(&self, serial: u32) -> Option<u64> {
        self.inodes.get(&serial).map(|inode| inode.born_ns)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The directory in words: names, files and their times.
    pub(super) fn listing(&self) -> String {
        let told = |(name, serial): (&String, &u32)| {
            let Inode { number, born_ns, modified_ns, content, .. } = &self.inodes[serial];
            let (born_ms, modified_ms) =
                (born_ns / 1_000_000 % 1_000_000, modified_ns / 1_000_000 % 1_000_000);
            format!(
                "{name}={serial} (inode {number}, born {born_ms}, written {modified_ms}, {} bytes)",
                content.len()
            )
        };
        self.names.iter().map(told).collect::<Vec<String>>().join(", ")
    }

    pub(super) fn serial_of(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(super) fn handles(&self, serial: u32) -> u32 {
        self.inodes.get(&serial).map_or(0, |inode| inode.handles)
    }

    pub(super) fn close(&mut self, serial: u32) {
        self.inode(serial).handles -= 1;
        self.forget_unused(serial);
    }

    fn open(&mut self, serial: u32) {
        self.inode(serial).handles += 1;
    }

    fn inode(&mut self, serial: u32) -> &mut Inode {
        self.inodes.get_mut(&serial).expect("a file lives as long as a name or a descriptor leads to it")
    }

    /// A file without name and descriptor is gone, and the next one gets its inode number.
    fn forget_unused(&mut self, serial: u32) {
        let inode = &self.inodes[&serial];
        if inode.links == 0 && inode.handles == 0 {
            self.free_numbers.insert(inode.number);
            self.inodes.remove(&serial);
        }
    }

    fn stat(&self, serial: u32) -> Stat {
        let inode = &self.inodes[&serial];
        Stat {
            identity: Identity {
                device: DEVICE,
                inode: inode.number,
                // The bug of knowing a file by its inode alone is a file system that tells no more.
                born_ns: if is_on(Mutant::TrustsInode) { 0 } else { inode.born_ns },
            },
            size: inode.content.len() as u64,
            modified: seconds(inode.modified_ns),
            changed: seconds(inode.modified_ns),
            links: inode.links,
            is_regular: true,
        }
    }

    fn stat_of_directory(&self) -> Stat {
        Stat {
            identity: Identity { device: DEVICE, inode: FIRST_INODE, born_ns: 1 },
            size: 0,
            modified: seconds(self.names_modified_ns),
            changed: seconds(self.names_modified_ns),
            links: 2,
            is_regular: false,
        }
    }

    fn lookup(&self, path: &Path) -> io::Result<u32> {
        let name = path.strip_prefix(DIRECTORY).ok().and_then(Path::to_str);
        name.and_then(|name| self.names.get(name)).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A time in seconds and nanoseconds.
fn seconds(time_ns: i64) -> (i64, i64) {
    (time_ns.div_euclid(1_000_000_000), time_ns.rem_euclid(1_000_000_000))
}

/// The follower's view of the world.
#[derive(Clone)]
pub(super) struct SimFiles(pub(super) Arc<Mutex<World>>);

impl SimFiles {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for SimFiles {
    fn expand(&self, pattern: &str) -> Expanded {
        let mut world = self.world();
        if let Err(error) = world.file_call() {
            return (Vec::new(), vec![(PathBuf::from(DIRECTORY), error)]);
        }
        let (_, ending) = pattern.rsplit_once('*').expect("the pattern of a simulated agent");
        let named = world.files.names().filter(|name| name.ends_with(ending));
        (named.map(|name| Path::new(DIRECTORY).join(name)).collect(), Vec::new())
    }

    fn list(&self, directory: &Path, names_max: usize) -> io::Result<Vec<OsString>> {
        let mut world = self.world();
        world.file_call()?;
        if directory != Path::new(DIRECTORY) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(world.files.names().take(names_max).map(OsString::from).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut world = self.world();
        world.file_call()?;
        if path == Path::new(DIRECTORY) {
            return Ok(world.files.stat_of_directory());
        }
        let serial = world.files.lookup(path)?;
        Ok(world.files.stat(serial))
    }

    fn stat_name(&self, path: &Path) -> io::Result<(Stat, bool)> {
        self.stat(path).map(|stat| (stat, true))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let mut world = self.world();
        world.file_call()?;
        let serial = world.files.lookup(path)?;
        world.files.open(serial);
        Ok(Box::new(SimLog { files: self.clone(), serial }))
    }
}

/// An open log.
struct SimLog {
    files: SimFiles,
    serial: u32,
}

impl LogFile for SimLog {
    fn stat(&self) -> io::Result<Stat> {
        let mut world = self.files.world();
        world.file_call()?;
        Ok(world.files.stat(self.serial))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.files.world();
        world.file_call()?;
        let short = world.short_read();
        let content = &world.files.inodes[&self.serial].content;
        let from = content.len().min(offset as usize);
        let mut count = buffer.len().min(content.len() - from);
        if let Some(share) = short {
            count = count.min(1 + count * usize::from(share) / 256);
        }
        buffer[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }
}

impl Drop for SimLog {
    fn drop(&mut self) {
        self.files.world().files.close(self.serial);
    }
}
