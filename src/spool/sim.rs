//! A disk in memory that fails and crashes on command. For tests only.
//!
//! It keeps two images of every file and of the folder: what a process reads, and what a power cut
//! leaves. A failed sync drops the data for good, yet lets it be read back, as Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, FileInfo};

/// A page: the unit in which a power cut loses writes out of order.
const PAGE_BYTES: usize = 512;
/// Files take whole blocks of this size.
const BLOCK_BYTES: u64 = 4096;

#[derive(Clone, Debug, Default)]
struct SimFile {
    /// What a process reads.
    seen: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// From here on `seen` waits for a sync.
    dirty_from: usize,
    reserved: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    file_next: u64,
    /// Calls that change something, counted.
    calls: u64,
    syncs: u64,
    /// Calls that fail, by their number.
    fail_at: BTreeSet<u64>,
    fail_all: bool,
    fail_syncs: bool,
    /// Reads, counted, and those that the device refuses, by their number.
    reads: u64,
    refused_reads: Range<u64>,
    /// Why no read works at all.
    reads_fail: Option<rustix::io::Errno>,
    /// Bytes that cannot be read: file and range.
    spoiled: Option<(String, Range<u64>)>,
    sync_lies: bool,
    capacity: Option<u64>,
    free_bytes: Option<u64>,
    peak_bytes: u64,
    /// The call at which the process dies, and what then decides how much of it was done.
    die_at: Option<(u64, u64)>,
    /// The process is dead: no call does anything any more.
    dead: bool,
}

/// A handle; clones share the disk, so that a test keeps it over a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the disk")
    }

    /// A disk with the same content that goes its own way from here.
    pub(crate) fn fork(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The power goes: only what is durable stays, and any part of what was on its way.
    pub(crate) fn crash(&self, random: &mut fastrand::Rng) {
        let mut state = self.state();
        let mut names = state.durable_names.clone();
        for (name, file) in state.names.clone() {
            if !names.contains_key(&name) && random.bool() {
                names.insert(name, file);
            }
        }
        for name in state.durable_names.keys() {
            if !state.names.contains_key(name) && random.bool() {
                names.remove(name);
            }
        }
        for file in state.files.values_mut() {
            let tail = file.seen.len() - file.dirty_from.min(file.seen.len());
            let kept = if tail == 0 { 0 } else { random.usize(0..=tail) };
            let mut content = file.durable.clone();
            let end = file.dirty_from + kept;
            if kept > 0 && content.len() < end {
                content.resize(end, 0);
            }
            let mut at = file.dirty_from;
            while at < end {
                let page_end = (at + 1).next_multiple_of(PAGE_BYTES).min(end);
                // A page that is lost is what it was before: zeros, where there was none.
                if random.u8(0..8) > 0 {
                    content[at..page_end].copy_from_slice(&file.seen[at..page_end]);
                }
                at = page_end;
            }
            file.dirty_from = content.len();
            file.seen = content.clone();
            file.durable = content;
        }
        state.names = names.clone();
        state.durable_names = names;
        state.fail_at.clear();
        (state.fail_all, state.fail_syncs) = (false, false);
    }

    /// Has the process die at one call, counted from the next one as 0: a part of it is done, and nothing after it.
    pub(crate) fn die_in(&self, calls: u64, chance: u64) {
        let mut state = self.state();
        state.die_at = Some((state.calls + calls, chance));
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Another process takes over what the dead one left.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        (state.die_at, state.dead) = (None, false);
    }

    /// Every call works from now on, and there is room.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.fail_at.clear();
        (state.fail_all, state.fail_syncs, state.capacity, state.die_at) = (false, false, None, None);
        (state.refused_reads, state.spoiled) = (0..0, None);
    }

    /// Calls so far that change something.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Has one call fail, counted from the next one as 0.
    pub(crate) fn fail_in(&self, calls: u64) {
        let mut state = self.state();
        let number = state.calls + calls;
        state.fail_at.insert(number);
    }

    pub(crate) fn fail_none(&self) {
        self.state().fail_at.clear();
    }

    pub(crate) fn fail_all(&self, fail: bool) {
        self.state().fail_all = fail;
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.state().fail_syncs = fail;
    }

    /// Reads so far.
    pub(crate) fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Has the device refuse so many reads, the first of them counted from the next one as 0.
    pub(crate) fn refuse_reads(&self, reads: u64, count: u64) {
        let mut state = self.state();
        state.refused_reads = state.reads + reads..state.reads + reads + count;
    }

    /// Has every read fail, or none.
    pub(crate) fn refuse_all_reads(&self, error: Option<rustix::io::Errno>) {
        self.state().reads_fail = error;
    }

    /// Has the device refuse some bytes of a file, or none.
    pub(crate) fn spoil(&self, bytes: Option<(&str, Range<u64>)>) {
        self.state().spoiled = bytes.map(|(name, range)| (name.to_owned(), range));
    }

    /// A sync returns at once and does nothing: the negative control.
    pub(crate) fn lie_about_syncs(&self) {
        self.state().sync_lies = true;
    }

    /// Writes that would take the disk beyond this fail with ENOSPC, after as much as fits.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    pub(crate) fn set_free_bytes(&self, bytes: Option<u64>) {
        self.state().free_bytes = bytes;
    }

    /// The most that all files took at any time.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.state().peak_bytes
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].seen.clone()
    }

    /// Puts a file in place, durable, with any content.
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let mut state = self.state();
        let number = state.file_next;
        state.file_next += 1;
        let file = SimFile {
            seen: content.to_vec(),
            durable: content.to_vec(),
            dirty_from: content.len(),
            reserved: 0,
        };
        state.files.insert(number, file);
        state.names.insert(name.to_owned(), number);
        state.durable_names.insert(name.to_owned(), number);
    }
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        self.alive()?;
        let number = self.calls;
        self.calls += 1;
        if self.die_at.is_some_and(|(at, _)| at <= number) {
            self.dead = true;
            return self.alive();
        }
        if self.fail_all || self.fail_at.remove(&number) { Err(device_error()) } else { Ok(()) }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut SimFile> {
        let number = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files.get_mut(number).expect("every name has its file"))
    }

    fn used(&self) -> u64 {
        self.names.values().map(|number| self.files[number].allocated()).sum()
    }

    fn note_peak(&mut self) {
        self.peak_bytes = self.peak_bytes.max(self.used());
    }
}

impl SimFile {
    fn allocated(&self) -> u64 {
        (self.seen.len() as u64).next_multiple_of(BLOCK_BYTES).max(self.reserved)
    }
}

fn device_error() -> io::Error {
    rustix::io::Errno::IO.into()
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let state = self.state();
        state.alive()?;
        let info = |(name, number): (&String, &u64)| {
            let file = &state.files[number];
            FileInfo { name: name.clone(), len: file.seen.len() as u64, allocated: file.allocated() }
        };
        Ok(state.names.iter().map(info).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.file_next;
        state.file_next += 1;
        state.files.insert(number, SimFile::default());
        state.names.insert(name.to_owned(), number);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let failed = state.call();
        let done = match (state.dead, state.die_at) {
            (true, Some((_, chance))) => (chance % (bytes.len() as u64 + 1)) as usize,
            _ => bytes.len() / 2,
        };
        let used = state.used();
        let capacity = state.capacity.unwrap_or(u64::MAX);
        let file = state.file(name)?;
        let before = file.allocated();
        if failed.is_err() {
            // A failed write may have written a part.
            file.seen.extend_from_slice(&bytes[..done]);
            return failed;
        }
        file.seen.extend_from_slice(bytes);
        // What is set aside is there, however full the disk is.
        let grown = file.allocated() - before;
        let excess = (used + grown).saturating_sub(capacity);
        if grown > 0 && excess > 0 {
            let len = file.seen.len();
            file.seen.truncate((len - bytes.len()).max(len.saturating_sub(excess as usize)));
            return Err(rustix::io::Errno::NOSPC.into());
        }
        state.note_peak();
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.syncs += 1;
        let failed = if state.fail_syncs { Err(device_error()) } else { state.call() };
        if state.dead {
            return failed;
        }
        let lies = state.sync_lies;
        let file = state.file(name)?;
        if failed.is_ok() && !lies {
            file.durable.resize(file.dirty_from, 0);
            file.durable.extend_from_slice(&file.seen[file.dirty_from..]);
        }
        if !lies {
            // After a failure too: the data counts as written, and no later sync tries it again.
            file.dirty_from = file.seen.len();
        }
        failed
    }

    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        {
            let mut state = self.state();
            state.call()?;
            let file = state.file(name)?;
            let from = offset as usize;
            assert_eq!(file.seen[from..from + bytes.len()], *bytes, "only the same bytes");
            file.dirty_from = file.dirty_from.min(from);
        }
        self.sync(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        state.call()?;
        if !state.sync_lies {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.alive()?;
        if let Some(error) = state.reads_fail {
            return Err(error.into());
        }
        let number = state.reads;
        state.reads += 1;
        let end = offset + buffer.len() as u64;
        let is_hit =
            |(file, bytes): &(String, Range<u64>)| file == name && offset < bytes.end && bytes.start < end;
        if state.refused_reads.contains(&number) || state.spoiled.as_ref().is_some_and(is_hit) {
            return Err(device_error());
        }
        let file = state.file(name)?;
        let from = (offset as usize).min(file.seen.len());
        let count = buffer.len().min(file.seen.len() - from);
        buffer[..count].copy_from_slice(&file.seen[from..from + count]);
        Ok(count)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let file = state.file(name)?;
        file.seen.truncate(len as usize);
        file.durable.truncate(len as usize);
        file.dirty_from = file.dirty_from.min(len as usize);
        file.reserved = 0;
        Ok(())
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn reserve(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let (used, capacity) = (state.used(), state.capacity.unwrap_or(u64::MAX));
        let file = state.file(name)?;
        let grown = bytes.next_multiple_of(BLOCK_BYTES).saturating_sub(file.allocated());
        if grown > 0 && used + grown > capacity {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        file.reserved = file.reserved.max(bytes.next_multiple_of(BLOCK_BYTES));
        state.note_peak();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        let free = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        Ok(state.free_bytes.unwrap_or(free))
    }
}
