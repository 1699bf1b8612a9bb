//! Times in which files may have come and gone under the name of a log, in the form that is kept on disk.
//!
//! A gap is asked for until all of it could be looked at, and until then it must outlive a crash: by the time of the next
//! start both the file before it and the one behind it may have been read to their ends, and nothing else would lead to
//! what came between.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::identity::Identity;
use super::position::Position;
use super::siblings::{self, Elder};
use super::tracked::Tracked;
use super::{Follower, StateChange};

/// Prefix of the keys under which gaps are kept, each with the number of the file before them.
pub const GAP_PREFIX: &[u8] = b"g/";

/// First byte of encoded gaps.
const GAPS_VERSION: u8 = 1;

/// Bits of [`Elder::is_live`] and [`Elder::is_new`].
const LIVE: u64 = 1;
const NEW: u64 = 2;

/// Files whose gaps are kept on disk; those behind the oldest files come first.
const GAPS_KEPT_MAX: usize = 1000;

/// A time in which files may have come and gone under the name of a log.
pub(super) struct Gap {
    pub(super) elder: Elder,
    /// What was read of that file: others may hold the same.
    pub(super) position: Position,
    /// Its number.
    pub(super) id: u64,
}

impl Gap {
    /// Files may have come after one that has lost its name.
    pub(super) fn after(file: &Tracked) -> Gap {
        let is_of_first = siblings::is_rotated_path(&file.path, &file.first_path);
        let name = if is_of_first { file.first_path.clone() } else { file.path.clone() };
        // Of now, and not of the last turn: writers that still hold it may have written since.
        let modified = file.file().stat().map_or(file.modified(), |stat| stat.modified);
        let elder = Elder { name, identity: file.identity, modified, is_live: false, is_new: false };
        Gap { elder, position: file.position(), id: file.id }
    }

    /// Copies may have been made of what a file held that has its name still, since it was `modified`.
    pub(super) fn behind_live(id: u64, position: Position, modified: (i64, i64)) -> Gap {
        let (name, identity) = (position.path.clone(), position.identity);
        Gap { elder: Elder { name, identity, modified, is_live: true, is_new: false }, position, id }
    }

    /// Two of the same key ask for the same files, the one of the earlier time for more of them.
    pub(super) fn key(&self) -> (u64, bool, bool, Identity, (i64, i64)) {
        let Elder { is_live, is_new, identity, modified, .. } = self.elder;
        (self.id, is_live, is_new, identity, modified)
    }

    /// `flags, device, inode, born_ns, modified_s, modified_ns: u64 LE | name_length, position_length: u32 LE | name |
    /// position`.
    fn encode(&self, out: &mut Vec<u8>) {
        let Elder { name, identity, modified, is_live, is_new } = &self.elder;
        let flags = if *is_live { LIVE } else { 0 } | if *is_new { NEW } else { 0 };
        let Identity { device, inode, born_ns } = *identity;
        let modified = [modified.0, modified.1].map(i64::cast_unsigned);
        for number in [flags, device, inode, born_ns, modified[0], modified[1]] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let (name, position) = (name.as_os_str().as_bytes(), self.position.encode());
        for length in [name.len(), position.len()] {
            out.extend_from_slice(&(length as u32).to_le_bytes());
        }
        out.extend_from_slice(name);
        out.extend_from_slice(&position);
    }

    /// Reads the first of encoded gaps; gives the rest too.
    fn decode(id: u64, bytes: &[u8]) -> Option<(Gap, &[u8])> {
        let (numbers, rest) = bytes.split_first_chunk::<48>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let &[flags, device, inode, born_ns, seconds, nanoseconds] = numbers else { return None };
        let number = u64::from_le_bytes;
        let (name_length, rest) = rest.split_first_chunk::<4>()?;
        let (position_length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_length) as usize)?;
        let (position, rest) = rest.split_at_checked(u32::from_le_bytes(*position_length) as usize)?;
        let identity = Identity { device: number(device), inode: number(inode), born_ns: number(born_ns) };
        let elder = Elder {
            name: Path::new(OsStr::from_bytes(name)).to_owned(),
            identity,
            modified: (number(seconds).cast_signed(), number(nanoseconds).cast_signed()),
            is_live: number(flags) & LIVE != 0,
            is_new: number(flags) & NEW != 0,
        };
        Some((Gap { elder, position: Position::decode(position)?, id }, rest))
    }
}

/// The key for the gaps behind a file.
fn key(id: u64) -> Vec<u8> {
    [GAP_PREFIX, &id.to_be_bytes()].concat()
}

/// The file of a key, if the key is one of gaps.
pub(super) fn id_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(GAP_PREFIX)?.try_into().ok()?))
}

/// Reads what was kept of the gaps behind a file; `None` for anything else.
fn decode(id: u64, bytes: &[u8]) -> Option<Vec<Gap>> {
    let mut rest = bytes.strip_prefix(&[GAPS_VERSION])?;
    let mut gaps = Vec::new();
    while !rest.is_empty() {
        let (gap, behind) = Gap::decode(id, rest)?;
        gaps.push(gap);
        rest = behind;
    }
    Some(gaps)
}

impl Follower {
    /// Takes up the gaps behind a file that an earlier life could not look at.
    pub(super) fn restore_gaps(&mut self, id: u64, value: &[u8]) {
        self.next_id = self.next_id.max(id + 1);
        for mut gap in decode(id, value).into_iter().flatten() {
            if let Some(pattern) = self.pattern_of(&gap.position) {
                gap.position.pattern = pattern;
                self.gaps.push(gap);
            }
        }
        self.kept_gaps.insert(id, value.to_vec());
    }

    /// Whether gaps are kept on disk that are no more.
    pub(super) fn has_decided_gaps(&self) -> bool {
        self.kept_gaps.keys().any(|id| !self.gaps.iter().any(|gap| gap.id == *id))
    }

    /// The gaps that are not kept on disk as they are now. They may become durable at any time: they ask for no less than
    /// what is unread.
    pub(super) fn new_gaps(&mut self) -> Vec<StateChange> {
        let mut encoded: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for gap in &self.gaps {
            gap.encode(encoded.entry(gap.id).or_insert_with(|| vec![GAPS_VERSION]));
        }
        encoded.retain(|id, value| self.kept_gaps.get(id) != Some(value));
        let room = GAPS_KEPT_MAX.saturating_sub(self.kept_gaps.len());
        let mut changes = Vec::new();
        for (id, value) in encoded.into_iter().take(room) {
            changes.push((key(id), Some(value.clone())));
            self.kept_gaps.insert(id, value);
        }
        changes
    }

    /// The gaps that were decided. This becomes durable together with what came of it.
    pub(super) fn decided_gaps(&mut self) -> Vec<StateChange> {
        let open: Vec<u64> = self.gaps.iter().map(|gap| gap.id).collect();
        let decided: Vec<u64> = self.kept_gaps.keys().copied().filter(|id| !open.contains(id)).collect();
        for id in &decided {
            self.kept_gaps.remove(id);
        }
        decided.into_iter().map(|id| (key(id), None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::follow::position::Known;

    #[test]
    fn come_back_as_they_were_and_damage_is_refused() {
        let identity = Identity { device: 1, inode: 2, born_ns: 3 };
        let known = Known { size: 4, modified: (-5, 6) };
        let position = Position::unread("/l/a.log".into(), "/l/*.log".into(), identity, known);
        let gap = |is_live, is_new| Gap {
            elder: Elder { name: PathBuf::from("/l/a"), identity, modified: (-7, 8), is_live, is_new },
            position: position.clone(),
            id: 9,
        };
        let mut bytes = vec![GAPS_VERSION];
        gap(true, false).encode(&mut bytes);
        gap(false, true).encode(&mut bytes);
        let back = decode(9, &bytes).expect("gaps");
        let told = |gap: &Gap| (gap.key(), gap.elder.name.clone(), gap.position.clone());
        assert_eq!(
            back.iter().map(told).collect::<Vec<_>>(),
            [told(&gap(true, false)), told(&gap(false, true))]
        );
        assert!(decode(9, &bytes[..bytes.len() - 1]).is_none() && decode(9, &bytes[1..]).is_none());
        assert_eq!((id_of(&key(9)), id_of(b"f/9")), (Some(9), None));
    }
}
