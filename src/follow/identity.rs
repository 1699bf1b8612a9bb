//! What makes a file the same file: its inode and birth, its first bytes, and the bytes before a position.
//!
//! A name says nothing (rotation moves it), an inode number says little (ext4 gives it to the next file),
//! so a position is applied only where all three agree. Reads files by position, never moves a cursor.

use std::io;

use super::files::LogFile;

/// First bytes that the fingerprint of a file covers.
pub(super) const HEAD_BYTES_MAX: usize = 1024;

/// Bytes before a position that are compared before it is trusted.
pub(super) const TAIL_BYTES_MAX: usize = 256;

/// Where a file lives and when it was born; two files that exist at the same time never share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Device number of the filesystem.
    pub device: u64,
    /// Inode number; reused by most filesystems as soon as a file is gone.
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch; 0 where the filesystem keeps none.
    pub born_ns: u64,
}

/// FNV-1a, 64 bits: stable over releases, since its values are kept on disk.
/// Source: Fowler, Noll, Vo; <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub fn hash(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Fingerprint of the first bytes of a file. It grows with the file until it covers
/// [`HEAD_BYTES_MAX`], and compares over the bytes it had when it was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes covered.
    pub(super) length: u16,
    /// [`hash`] of those bytes.
    pub(super) hash: u64,
}

impl Head {
    /// Takes the fingerprint of what the file holds now.
    pub(super) fn read(file: &dyn LogFile) -> io::Result<Head> {
        // NUL bytes may be room that was made for lines to come.
        Beginning::read(file).map(|beginning| beginning.head)
    }

    /// Whether the file still begins with the bytes that were covered.
    pub(super) fn matches(&self, file: &dyn LogFile) -> io::Result<bool> {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let wanted = usize::from(self.length).min(HEAD_BYTES_MAX);
        let length = read_full_at(file, &mut bytes[..wanted], 0)?;
        Ok(length == wanted && hash(&bytes[..length]) == self.hash)
    }

    /// Whether a longer file would give a longer fingerprint.
    pub(super) fn can_grow(&self) -> bool {
        usize::from(self.length) < HEAD_BYTES_MAX
    }
}

/// The first bytes of a file that is compared with many others: it tells of most that they are not the same.
pub(super) struct Beginning {
    /// Up to the first NUL byte, as of a [`Head`].
    bytes: Vec<u8>,
    head: Head,
}

impl Beginning {
    /// Reads what the file begins with now.
    pub(super) fn read(file: &dyn LogFile) -> io::Result<Beginning> {
        let mut bytes = vec![0; HEAD_BYTES_MAX];
        let read = read_full_at(file, &mut bytes, 0)?;
        bytes.truncate(memchr::memchr(0, &bytes[..read]).unwrap_or(read));
        let head = Head { length: bytes.len() as u16, hash: hash(&bytes) };
        Ok(Beginning { bytes, head })
    }

    /// Whether another file begins with these bytes, or with as many of them as it has.
    pub(super) fn may_be_of(&self, other: &dyn LogFile) -> io::Result<bool> {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let read = read_full_at(other, &mut bytes, 0)?;
        let length = memchr::memchr(0, &bytes[..read]).unwrap_or(read).min(self.bytes.len());
        Ok(bytes[..length] == self.bytes[..length])
    }

    /// Whether a file with this fingerprint is certainly another: both are whole, and differ.
    pub(super) fn rules_out(&self, head: &Head) -> bool {
        !self.head.can_grow() && !head.can_grow() && self.head != *head
    }
}

/// The last bytes before a position, kept to notice that a file was rewritten under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Reads the bytes before `offset`.
    pub(super) fn read(file: &dyn LogFile, offset: u64) -> io::Result<Tail> {
        let length = offset.min(TAIL_BYTES_MAX as u64);
        let mut bytes = vec![0; length as usize];
        let read = read_full_at(file, &mut bytes, offset - length)?;
        bytes.truncate(read);
        Ok(Tail { bytes })
    }

    /// Takes note of bytes that were consumed after those known so far.
    pub(super) fn push(&mut self, consumed: &[u8]) {
        if consumed.len() >= TAIL_BYTES_MAX {
            self.bytes.clear();
            self.bytes.extend_from_slice(&consumed[consumed.len() - TAIL_BYTES_MAX..]);
            return;
        }
        let surplus = (self.bytes.len() + consumed.len()).saturating_sub(TAIL_BYTES_MAX);
        self.bytes.drain(..surplus);
        self.bytes.extend_from_slice(consumed);
    }

    /// Value to keep on disk.
    pub(super) fn hash(&self) -> u64 {
        hash(&self.bytes)
    }
}

/// Bytes of a comparison's block.
const BLOCK_BYTES: usize = 4096;

/// Blocks of a comparison; a shorter file is compared whole.
const BLOCKS_MAX: u64 = 16;

/// Whether two files hold the same first `length` bytes, by blocks spread evenly over them, the first and the last
/// included.
pub(super) fn same_bytes(left: &dyn LogFile, right: &dyn LogFile, length: u64) -> io::Result<bool> {
    let block = BLOCK_BYTES as u64;
    let blocks = length.div_ceil(block).min(BLOCKS_MAX);
    let (mut a, mut b) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
    let last = length.saturating_sub(block);
    for number in 0..blocks {
        let offset =
            if blocks < BLOCKS_MAX { (number * block).min(last) } else { last / (blocks - 1) * number };
        let offset = if number + 1 == blocks { last } else { offset };
        let wanted = (length - offset).min(block) as usize;
        let read = read_full_at(left, &mut a[..wanted], offset)?;
        if read != wanted
            || read_full_at(right, &mut b[..wanted], offset)? != wanted
            || a[..wanted] != b[..wanted]
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the first file has content and all of it stands at the start of the second, as in a copy of it. Only the
/// head of a compressed file is compared.
pub(super) fn is_prefix(copy: &dyn LogFile, original: &dyn LogFile) -> io::Result<bool> {
    let head = Head::read(copy)?;
    // One that begins with a hole has no head.
    let begins_alike = match first_line(copy)? {
        Some(key) if head.length == 0 => first_line(original)? == Some(key),
        _ => head.length > 0 && head.matches(original)?,
    };
    if !begins_alike {
        return Ok(false);
    }
    // In this order: a log grows, and one that is shorter than its copy was truncated since.
    let length = copy.stat()?.size;
    Ok(length <= original.stat()?.size && same_bytes(copy, original, length)?)
}

/// Hash of the first line, or of the first [`HEAD_BYTES_MAX`] bytes of a longer one; `None` while there is none.
pub(super) fn first_line(file: &dyn LogFile) -> io::Result<Option<u64>> {
    let mut bytes = [0; HEAD_BYTES_MAX];
    let length = read_full_at(file, &mut bytes, 0)?;
    let end = memchr::memchr(b'\n', &bytes[..length]).or((length == HEAD_BYTES_MAX).then_some(length));
    Ok(end.map(|end| hash(&bytes[..end])))
}

/// Reads until the buffer is full or the file ends; gives the bytes read.
pub(super) fn read_full_at(file: &dyn LogFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn hash_is_the_published_function() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn tail_keeps_the_last_bytes_however_they_arrive() {
        let all: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        let mut whole = Tail::default();
        whole.push(&all);
        let mut pieces = Tail::default();
        for piece in all.chunks(7) {
            pieces.push(piece);
        }
        assert_eq!(whole, pieces);
        assert_eq!(whole.bytes, &all[1000 - TAIL_BYTES_MAX..]);
    }

    #[test]
    fn head_matches_while_the_file_only_grows() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        std::fs::write(&path, b"first line\n").expect("a file");
        let head = Head::read(&File::open(&path).expect("open")).expect("head");
        std::fs::write(&path, b"first line\nsecond line\n").expect("a file");
        assert!(head.matches(&File::open(&path).expect("open")).expect("read"));
        std::fs::write(&path, b"other line\nsecond line\n").expect("a file");
        assert!(!head.matches(&File::open(&path).expect("open")).expect("read"));
    }
}
