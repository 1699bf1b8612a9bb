//! What must be handed out, told by looking: before each poll every file that can be reached is read whole, and each
//! line in it is due from then on.
//!
//! It knows nothing of offsets, hashes and identities of the follower, so it cannot make the follower's mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::follow::ROTATE_GRACE;

/// A line as it was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) text: Vec<u8>,
    pub(super) is_cut: bool,
    pub(super) is_partial: bool,
}

/// A file that stays readable to whoever opened it, whatever happens to its name.
struct Held {
    file: File,
    /// The followed name that it had, or of which its own was made.
    base: PathBuf,
    key: (u64, u64),
    size: u64,
    is_named: bool,
    still_since: Instant,
}

/// Every line that was written, and what may be asked for.
#[derive(Default)]
pub(super) struct Oracle {
    /// Whole lines by their number.
    pub(super) texts: BTreeMap<u64, Vec<u8>>,
    /// Lines that belong to nobody: history, and files that no pattern names.
    pub(super) foreign: BTreeSet<u64>,
    /// Lines without a number, of which a test says itself what becomes of them.
    pub(super) free: BTreeSet<Vec<u8>>,
    /// Lines that stood beside a log when nothing of its name was known: nobody has to read them, and anybody may.
    unclaimed: BTreeSet<u64>,
    /// Seen within reach while the agent ran and what it took became durable, or may still.
    due: BTreeSet<u64>,
    due_pending: BTreeSet<u64>,
    /// Lines of which nothing is left that was ever within reach; whether something of their file had been read.
    gone: BTreeMap<u64, bool>,
    /// Lines of which only a piece was written so far, or for ever.
    pub(super) unfinished: BTreeSet<u64>,
    /// Bytes of pieces of lines that were destroyed.
    pub(super) piece_bytes: u64,
    held: Vec<Held>,
    /// Files of which something was read.
    read_of: BTreeSet<(u64, u64)>,
    /// Names of which something was held when the agent last went down: rotation makes others of them.
    bases: BTreeSet<PathBuf>,
    pub(super) durable: Vec<Taken>,
    pub(super) pending: Vec<Taken>,
    /// Losses that were said, and their bytes; those that are not durable yet are said again after a crash.
    pub(super) losses_said: u64,
    pub(super) lost_bytes_said: u64,
    losses_pending: Vec<u64>,
}

/// What a gzip or plain file holds, as much of it as can be had.
fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().map_or(0, |metadata| metadata.len() as usize)];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let _ = flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain);
        return plain;
    }
    bytes
}

/// The number of a line that has one.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    let (number, _) = line.strip_prefix(b"L")?.split_at(line.iter().position(|byte| *byte == b':')? - 1);
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn key_of(file: &File) -> (u64, u64) {
    file.metadata().map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()))
}

/// Whether rotation could have made a name of a base.
fn is_rotated(path: &Path, base: &Path) -> bool {
    let (Some(name), Some(base_name)) = (path.file_name(), base.file_name()) else { return false };
    let rest = name.as_encoded_bytes().strip_prefix(base_name.as_encoded_bytes());
    path.parent() == base.parent() && matches!(rest, Some([b'.' | b'-', _, ..]))
}

fn is_packed_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gz")
}

/// Every regular file below a directory.
pub(super) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => paths.extend(files_below(&entry.path())),
            Ok(metadata) if metadata.is_file() => paths.push(entry.path()),
            _ => {}
        }
    }
    paths.sort();
    paths
}

impl Oracle {
    /// The numbers of whole lines in some bytes, each only where it stands as it was written.
    fn numbers(&self, bytes: &[u8]) -> BTreeSet<u64> {
        let Some(end) = memchr::memrchr(b'\n', bytes) else { return BTreeSet::new() };
        let lines = bytes[..end].split(|byte| *byte == b'\n');
        let whole = lines.filter_map(|line| {
            let line = &line[line.iter().position(|byte| *byte != 0)?..];
            number(line).filter(|number| self.texts.get(number).is_some_and(|text| text == line))
        });
        whole.collect()
    }

    /// What an agent that polls now can reach: what the patterns name, what rotation made of it, what it knows and
    /// what it holds. `refused` are paths that cannot be read at this moment.
    pub(super) fn look(&mut self, directory: &Path, patterns: &[String], refused: &[PathBuf], now: Instant) {
        let matched: BTreeSet<PathBuf> = patterns
            .iter()
            .flat_map(|pattern| glob::glob(pattern).into_iter().flatten().flatten())
            .filter(|path| !is_packed_name(path) && fs::metadata(path).is_ok_and(|found| found.is_file()))
            .collect();
        // Of a name of which nothing is known any more, a rotated file may be anybody's.
        let mut bases = std::mem::take(&mut self.bases);
        bases.extend(self.held.iter().map(|held| held.base.clone()));
        for held in &mut self.held {
            held.is_named = false;
        }
        let mut unclaimed = BTreeSet::new();
        for path in files_below(directory) {
            let base = bases.iter().find(|base| is_rotated(&path, base)).cloned();
            let Ok(file) = File::open(&path) else { continue };
            let key = key_of(&file);
            let is_known = self.read_of.contains(&key);
            if refused.contains(&path) {
                continue;
            }
            if !(matched.contains(&path) || base.is_some() || is_known) {
                unclaimed.extend(self.numbers(&contents(&file)));
                continue;
            }
            if base.as_ref().is_some_and(|base| refused.contains(base)) && !is_known {
                // What a log that cannot be read has in common with its copies nobody can say.
                continue;
            }
            let found = self.numbers(&contents(&file));
            if !found.is_empty() {
                self.read_of.insert(key);
            }
            let is_news =
                found.iter().any(|number| !self.due.contains(number) && !self.due_pending.contains(number));
            self.due_pending.extend(found);
            if matched.contains(&path) || (is_news && !is_packed_name(&path)) {
                match self.held.iter_mut().find(|held| held.key == key) {
                    Some(held) => held.is_named |= matched.contains(&path),
                    None => {
                        let is_named = matched.contains(&path);
                        let base = base.filter(|_| !is_named).unwrap_or(path);
                        let held = Held { file, base, key, size: 0, is_named, still_since: now };
                        self.held.push(held);
                    }
                }
            }
        }
        self.look_at_held(refused.is_empty(), now);
        unclaimed.retain(|number| !self.due.contains(number) && !self.due_pending.contains(number));
        self.unclaimed.extend(unclaimed);
    }

    fn look_at_held(&mut self, is_readable: bool, now: Instant) {
        let mut held = std::mem::take(&mut self.held);
        for held in &mut held {
            let size = held.file.metadata().map_or(0, |metadata| metadata.len());
            if size != held.size || held.is_named {
                held.still_since = now;
            }
            held.size = size;
            if is_readable {
                let found = self.numbers(&contents(&held.file));
                self.due_pending.extend(found);
            }
        }
        held.retain(|held| now.saturating_duration_since(held.still_since) < ROTATE_GRACE);
        self.held = held;
    }

    /// The agent said that so many bytes are lost.
    pub(super) fn lose(&mut self, bytes: u64) {
        self.losses_pending.push(bytes);
    }

    /// The agent looked, and could take nothing.
    pub(super) fn take_none(&mut self) {
        let taken: BTreeSet<u64> = self.pending.iter().filter_map(|taken| number(&taken.text)).collect();
        self.due_pending.retain(|number| taken.contains(number));
    }

    /// Everything taken so far is durable, with its positions.
    pub(super) fn commit(&mut self) {
        self.losses_said += self.losses_pending.len() as u64;
        self.lost_bytes_said += self.losses_pending.drain(..).sum::<u64>();
        self.due.append(&mut self.due_pending);
        self.durable.append(&mut self.pending);
    }

    /// The agent died: what it had not made durable was never taken, and what only it held is gone.
    pub(super) fn crash(&mut self, directory: &Path) {
        self.due_pending.clear();
        self.pending.clear();
        self.losses_pending.clear();
        self.bases.extend(self.held.drain(..).map(|held| held.base));
        self.note_gone(directory, true);
    }

    /// Whether something of the file under a path was read.
    pub(super) fn has_read_of(&self, path: &Path) -> bool {
        File::open(path).is_ok_and(|file| self.read_of.contains(&key_of(&file)))
    }

    /// A new file has the number of an old one: nothing of it was read.
    pub(super) fn forget_inode(&mut self, path: &Path) {
        if let Ok(file) = File::open(path) {
            self.read_of.remove(&key_of(&file));
        }
    }

    /// After something was destroyed: lines that were never within reach and stand nowhere any more.
    pub(super) fn note_gone(&mut self, directory: &Path, was_read_of: bool) {
        let mut present: BTreeSet<u64> = BTreeSet::new();
        for path in files_below(directory) {
            present.extend(File::open(path).map(|file| self.numbers(&contents(&file))).unwrap_or_default());
        }
        for held in &self.held {
            present.extend(self.numbers(&contents(&held.file)));
        }
        for number in self.texts.keys() {
            let is_left = self.due.contains(number)
                || self.due_pending.contains(number)
                || self.foreign.contains(number)
                || self.unfinished.contains(number)
                || present.contains(number);
            if !is_left {
                self.gone.entry(*number).or_insert(was_read_of);
            }
        }
    }

    /// Numbers of the lines that nobody could have read.
    pub(super) fn gone(&self) -> Vec<u64> {
        self.gone.keys().copied().collect()
    }

    /// A line that is due though it was never written: the comparison must miss it.
    pub(super) fn demand(&mut self, number: u64) {
        self.texts.insert(number, format!("L{number}:never written").into_bytes());
        self.due.insert(number);
    }

    /// Everything that is wrong with what was handed out and said.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for taken in self.durable.iter().chain(&self.pending) {
            let shown = String::from_utf8_lossy(&taken.text[..taken.text.len().min(80)]);
            let number = number(&taken.text);
            let text = number.and_then(|number| self.texts.get(&number));
            let is_as_written = text.is_some_and(|text| {
                *text == taken.text || ((taken.is_cut || taken.is_partial) && text.starts_with(&taken.text))
            });
            match number {
                Some(number) if is_as_written => *counts.entry(number).or_default() += 1,
                _ if self.free.contains(&taken.text) => {}
                _ => complaints.push(format!("never written: {shown:?}")),
            }
        }
        for (number, count) in &counts {
            if *count > 1 {
                complaints.push(format!("line {number} was handed out {count} times"));
            }
            if self.foreign.contains(number) {
                complaints.push(format!("line {number} was handed out and belongs to nobody"));
            }
        }
        let due = self.due.union(&self.due_pending).filter(|number| !self.foreign.contains(number));
        let due = due.filter(|number| !self.unclaimed.contains(number));
        for number in due.filter(|number| !counts.contains_key(number)) {
            complaints.push(format!("line {number} was within reach and was not handed out"));
        }
        let mut gone = self.gone.clone();
        gone.retain(|number, _| !counts.contains_key(number));
        let texts = gone.keys().filter_map(|number| self.texts.get(number));
        let gone_bytes: u64 = texts.map(|text| text.len() as u64 + 1).sum();
        if self.lost_bytes_said > gone_bytes + self.piece_bytes {
            complaints.push(format!(
                "{} bytes are said to be lost, and {gone_bytes} and pieces of {} are",
                self.lost_bytes_said, self.piece_bytes
            ));
        }
        if self.losses_said == 0
            && let Some((number, _)) = gone.iter().find(|(_, was_read_of)| **was_read_of)
        {
            complaints.push(format!("line {number} is gone from a file that was read, and nothing was said"));
        }
        complaints
    }
}
