//! How far a file was read, in the form that is kept on disk.
//!
//! Invariant: an offset is the first byte after a newline (or 0), so resuming never starts inside a line.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::identity::{Head, Identity, Tail};

/// Bits of [`Position::is_closed`], [`Position::is_stand_in`] and [`Position::is_heir`].
const CLOSED: u64 = 1;
const STAND_IN: u64 = 2;
const HEIR: u64 = 4;

/// First byte of an encoded position; a reader refuses others.
const POSITION_VERSION: u8 = 3;

/// An encoded position without the hash of the first line and the number of names.
const POSITION_VERSION_2: u8 = 2;

/// One without [`Known`], too, and without the time for which it was parked.
const POSITION_VERSION_1: u8 = 1;

/// Prefix of the keys under which positions are kept.
pub const KEY_PREFIX: &[u8] = b"f/";

/// First byte of an encoded place of counting.
const AHEAD_VERSION: u8 = 1;

/// Prefix of the keys under which places of counting are kept, while they are ahead of those of shipping.
pub const AHEAD_PREFIX: &[u8] = b"c/";

/// Up to where the lines of a file were counted that wait in it to be shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// First byte that was not counted.
    pub(super) offset: u64,
    /// Hash of the bytes before it.
    pub(super) tail_hash: u64,
    /// Complete lines between the two places.
    pub(super) lines: u64,
}

impl Ahead {
    /// The key for a file.
    pub(super) fn key(id: u64) -> Vec<u8> {
        [AHEAD_PREFIX, &id.to_be_bytes()].concat()
    }

    /// The file of a key, if the key is one of ours.
    pub(super) fn id_of(key: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(key.strip_prefix(AHEAD_PREFIX)?.try_into().ok()?))
    }

    /// `version u8 | offset, tail_hash, lines: u64 LE`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.offset, self.tail_hash, self.lines].map(u64::to_le_bytes);
        [&[AHEAD_VERSION][..], numbers.as_flattened()].concat()
    }

    /// Reads what [`Ahead::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Ahead> {
        let (numbers, rest) = bytes.strip_prefix(&[AHEAD_VERSION])?.as_chunks::<8>();
        let [offset, tail_hash, lines] = numbers else { return None };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let ahead = Ahead { offset: number(offset), tail_hash: number(tail_hash), lines: number(lines) };
        rest.is_empty().then_some(ahead)
    }
}

/// First byte of an encoded start.
const START_VERSION: u8 = 1;

/// Prefix of the keys, each with a path, under which the sizes of files are kept that could not be read at the very
/// first start and are to be read from there.
pub const START_PREFIX: &[u8] = b"s/";

/// Where a file begins for us that could not be read when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Inode and birth.
    pub(super) identity: Identity,
    /// Its size at that time.
    pub(super) size: u64,
}

impl Start {
    /// The key for a path.
    pub(super) fn key(path: &Path) -> Vec<u8> {
        [START_PREFIX, path.as_os_str().as_bytes()].concat()
    }

    /// The path of a key, if the key is one of ours.
    pub(super) fn path_of(key: &[u8]) -> Option<PathBuf> {
        Some(PathBuf::from(OsString::from_vec(key.strip_prefix(START_PREFIX)?.to_vec())))
    }

    /// `version u8 | device, inode, born_ns, size: u64 LE`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Identity { device, inode, born_ns } = self.identity;
        let numbers = [device, inode, born_ns, self.size].map(u64::to_le_bytes);
        [&[START_VERSION][..], numbers.as_flattened()].concat()
    }

    /// Reads what [`Start::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Start> {
        let (numbers, rest) = bytes.strip_prefix(&[START_VERSION])?.as_chunks::<8>();
        let [device, inode, born_ns, size] = numbers else { return None };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let identity = Identity { device: number(device), inode: number(inode), born_ns: number(born_ns) };
        rest.is_empty().then_some(Start { identity, size: number(size) })
    }
}

/// Everything needed to go on reading a file after a restart, wherever it was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Inode and birth.
    pub identity: Identity,
    /// Fingerprint of its first bytes.
    pub(super) head: Head,
    /// First byte that is not accounted for.
    pub offset: u64,
    /// Hash of the bytes before `offset`.
    pub tail_hash: u64,
    /// The name under which it was found; after a rotation, the name it had.
    pub path: PathBuf,
    /// Which pattern found it, by its text; the format of the lines follows from it.
    pub pattern: String,
    /// What was known of the file when it was last looked at.
    pub(super) known: Known,
    /// Hash of the first line: copies that are shorter than the head are known by it. 0 where it is not known.
    pub(super) first_line: u64,
    /// Its names when it was last seen under its own; 0 where that is not known.
    pub(super) links: u64,
    /// For how many seconds of this agent's life no pattern has named it.
    pub(super) parked_s: u64,
    /// It was read to its end and closed, and nothing has had its name since.
    pub(super) is_closed: bool,
    /// It was found while the log could not be read of which it may be a copy.
    pub(super) is_stand_in: bool,
    /// It took the place of a file that is gone and held the same, and waits until that was read as far.
    pub(super) is_heir: bool,
}

/// What stat(2) told of a file at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Its size in bytes; 0 where an earlier release did not keep it.
    pub(super) size: u64,
    /// When it was last written to: seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

/// The key of a file's position.
pub(super) fn key(id: u64) -> Vec<u8> {
    [KEY_PREFIX, &id.to_be_bytes()].concat()
}

/// The file of a key, if the key is one of a position.
pub(super) fn id_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(KEY_PREFIX)?.try_into().ok()?))
}

impl Position {
    /// Of a file of which nothing was read.
    pub(super) fn unread(path: PathBuf, pattern: String, identity: Identity, known: Known) -> Position {
        let tail_hash = Tail::default().hash();
        let head = Head { length: 0, hash: tail_hash };
        Position {
            identity,
            head,
            offset: 0,
            tail_hash,
            path,
            pattern,
            known,
            first_line: 0,
            links: 0,
            parked_s: 0,
            is_closed: false,
            is_stand_in: false,
            is_heir: false,
        }
    }

    fn flags(&self) -> u64 {
        let flags = [(self.is_closed, CLOSED), (self.is_stand_in, STAND_IN), (self.is_heir, HEIR)];
        flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum()
    }

    /// `version u8 | device, inode, born_ns, offset, tail_hash, head_hash, size, modified_s, modified_ns, parked_s,
    /// flags, first_line, links: u64 LE | head_length u16 LE | path_length u32 LE | path | pattern` (the rest).
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        let mut out = Vec::with_capacity(112 + path.len() + self.pattern.len());
        out.push(POSITION_VERSION);
        for number in [
            self.identity.device,
            self.identity.inode,
            self.identity.born_ns,
            self.offset,
            self.tail_hash,
            self.head.hash,
            self.known.size,
            self.known.modified.0.cast_unsigned(),
            self.known.modified.1.cast_unsigned(),
            self.parked_s,
            self.flags(),
            self.first_line,
            self.links,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.head.length.to_le_bytes());
        out.extend_from_slice(&(path.len() as u32).to_le_bytes());
        out.extend_from_slice(path);
        out.extend_from_slice(self.pattern.as_bytes());
        out
    }

    /// Reads what [`Position::encode`] wrote, of this release or an earlier one; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Position> {
        let (version, mut rest) = bytes.split_first()?;
        if !(POSITION_VERSION_1..=POSITION_VERSION).contains(version) {
            return None;
        }
        let mut number = || -> Option<u64> {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let (device, inode, born_ns) = (number()?, number()?, number()?);
        let (offset, tail_hash, head_hash) = (number()?, number()?, number()?);
        let mut since = |first: u8| if *version >= first { number() } else { Some(0) };
        let mut later = || since(POSITION_VERSION_2);
        let known = Known { size: later()?, modified: (later()?.cast_signed(), later()?.cast_signed()) };
        let (parked_s, flags) = (later()?, later()?);
        let (first_line, links) = (since(POSITION_VERSION)?, since(POSITION_VERSION)?);
        let (head_length, rest) = rest.split_first_chunk::<2>()?;
        let (path_length, rest) = rest.split_first_chunk::<4>()?;
        let (path, pattern) = rest.split_at_checked(u32::from_le_bytes(*path_length) as usize)?;
        Some(Position {
            identity: Identity { device, inode, born_ns },
            head: Head { length: u16::from_le_bytes(*head_length), hash: head_hash },
            offset,
            tail_hash,
            path: Path::new(&OsString::from_vec(path.to_vec())).to_owned(),
            pattern: String::from_utf8(pattern.to_vec()).ok()?,
            known,
            first_line,
            links,
            parked_s,
            is_closed: flags & CLOSED != 0,
            is_stand_in: flags & STAND_IN != 0,
            is_heir: flags & HEIR != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_and_damage_is_refused() {
        let position = Position {
            identity: Identity { device: 1, inode: 2, born_ns: 3 },
            head: Head { length: 4, hash: 5 },
            offset: 6,
            tail_hash: 7,
            path: PathBuf::from(OsString::from_vec(b"/var/log/\xff\n.log".to_vec())),
            pattern: "/var/log/*.log".into(),
            known: Known { size: 8, modified: (-9, 10) },
            first_line: 12,
            links: 13,
            parked_s: 11,
            is_closed: true,
            is_stand_in: true,
            is_heir: true,
        };
        let bytes = position.encode();
        let second = [&[POSITION_VERSION_2], &bytes[1..89], &bytes[105..]].concat();
        let before = Position { first_line: 0, links: 0, ..position.clone() };
        assert_eq!(Position::decode(&second), Some(before.clone()));
        let first = [&[POSITION_VERSION_1], &bytes[1..49], &bytes[105..]].concat();
        let known = Known::default();
        assert_eq!(
            Position::decode(&first),
            Some(Position {
                known,
                parked_s: 0,
                is_closed: false,
                is_stand_in: false,
                is_heir: false,
                ..before
            })
        );
        assert_eq!(Position::decode(&bytes), Some(position));
        for length in 0..bytes.len() - "/var/log/*.log".len() {
            assert_eq!(Position::decode(&bytes[..length]), None, "cut at {length}");
        }
        assert_eq!(id_of(&key(9)), Some(9));
        let ahead = Ahead { offset: 1, tail_hash: 2, lines: 3 };
        assert_eq!(Ahead::decode(&ahead.encode()), Some(ahead));
        assert_eq!(Ahead::decode(&ahead.encode()[1..]), None);
        let start = Start { identity: Identity { device: 1, inode: 2, born_ns: 3 }, size: 4 };
        assert_eq!(Start::decode(&start.encode()), Some(start));
        assert_eq!(Start::path_of(&Start::key(Path::new("/a/b"))), Some(PathBuf::from("/a/b")));
        assert_eq!((Ahead::id_of(&Ahead::key(9)), Ahead::id_of(&key(9))), (Some(9), None));
        assert_eq!(id_of(b"w/9"), None);
    }
}
