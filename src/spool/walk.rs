//! Walks the records of one segment, over damaged bytes too.
//!
//! Owns: finding the next record where the row is broken. Must never: decide whether damage is a torn
//! write or bit rot, or write anything.

use std::io;

use super::disk::Disk;
use super::format::{ALIGN_BYTES, HEADER_BYTES, Header, MAGIC, is_intact};
use super::recover::Segment;
use super::unread::{Hole, Unread, is_device_error};

/// A read that the device refuses is tried this often at once.
const READS_AT_ONCE_MAX: usize = 3;
/// Where bytes cannot be had, what surrounds them is read in pieces of this size.
const READ_BLOCK_BYTES: u64 = 4096;
/// No spool lives to make so many segments; a file of a higher number is not ours, and none is counted on from it.
pub(super) const SEGMENT_NUMBER_MAX: u64 = 1 << 48;
/// Bytes read at once while looking for the next record.
const SCAN_CHUNK_BYTES: u64 = 64 << 10;

/// One record, its body left on the disk.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) offset: u64,
    pub(super) header: Header,
    pub(super) head: Vec<u8>,
}

/// What stands at the next place of a segment.
#[derive(Debug)]
pub(super) enum Step {
    Record(Record),
    /// Bytes that are no record.
    Damaged {
        offset: u64,
        bytes: u64,
    },
    End,
}

/// A walk from an offset to a limit.
#[derive(Debug)]
pub(super) struct Walker<'a, D> {
    disk: &'a D,
    name: String,
    offset: u64,
    limit: u64,
    /// The segment's nonce, once one valid record has told it.
    nonce: Option<u64>,
    unread: Unread,
    holes: &'a [Hole],
}

impl<'a, D: Disk> Walker<'a, D> {
    /// Walks the first bytes of a segment file of which nothing is known yet.
    pub(super) fn new(disk: &'a D, file: u64, limit: u64, unread: Unread) -> Self {
        Walker { disk, name: segment_name(file), offset: 0, limit, nonce: None, unread, holes: &[] }
    }

    /// Walks what counts of a segment, from an offset on.
    pub(super) fn over(disk: &'a D, segment: &'a Segment, from: u64) -> Self {
        let Segment { file, valid_len, nonce, unread, ref holes, .. } = *segment;
        Walker { disk, name: segment_name(file), offset: from, limit: valid_len, nonce, unread, holes }
    }

    /// The nonce that the records have shown so far.
    pub(super) fn nonce(&self) -> Option<u64> {
        self.nonce
    }

    /// Where the next step begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next step. An error is one that may pass (no descriptor left, say), never damage.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let offset = self.offset;
        if offset >= self.limit {
            return Ok(Step::End);
        }
        if let Some((_, bytes)) = self.holes.iter().find(|(at, _)| *at == offset) {
            self.offset = offset.saturating_add(*bytes).min(self.limit);
            return Ok(Step::Damaged { offset, bytes: self.offset - offset });
        }
        let header = self.header_at(offset)?;
        let Some(header) = header.filter(|header| offset + header.record_len() <= self.limit) else {
            self.offset = self.next_header(offset + ALIGN_BYTES)?;
            return Ok(Step::Damaged { offset, bytes: self.offset - offset });
        };
        self.nonce = Some(header.nonce);
        self.offset = offset + header.record_len();
        let head = self.read(offset + HEADER_BYTES as u64, u64::from(header.head_len))?;
        let intact = head.len() == to_usize(u64::from(header.head_len)) && is_intact(&head, header.head_crc);
        Ok(match intact {
            true => Step::Record(Record { offset, header, head }),
            false => Step::Damaged { offset, bytes: self.offset - offset },
        })
    }

    fn read(&self, offset: u64, count: u64) -> io::Result<Vec<u8>> {
        read(self.disk, &self.name, offset, count, self.unread)
    }

    fn header_at(&self, offset: u64) -> io::Result<Option<Header>> {
        let bytes = self.read(offset, HEADER_BYTES as u64)?;
        Ok(Header::decode(&bytes).filter(|header| self.is_ours(header)))
    }

    fn is_ours(&self, header: &Header) -> bool {
        self.nonce.is_none_or(|nonce| nonce == header.nonce)
    }

    /// The offset of the first valid header at or after `from`, or of a hole, or the limit. A length that
    /// stands under a wrong checksum is never trusted, so every aligned place is tried.
    fn next_header(&self, from: u64) -> io::Result<u64> {
        let holes = self.holes.iter().map(|(at, _)| *at);
        let limit = holes.filter(|at| *at >= from).min().map_or(self.limit, |hole| hole.min(self.limit));
        let mut at = from;
        while at + HEADER_BYTES as u64 <= limit {
            let wanted = SCAN_CHUNK_BYTES.min(limit - at);
            let chunk = self.read(at, wanted)?;
            if chunk.len() < HEADER_BYTES {
                at += wanted.next_multiple_of(ALIGN_BYTES);
                continue;
            }
            let places = (chunk.len() - HEADER_BYTES) / to_usize(ALIGN_BYTES) + 1;
            for place in 0..places {
                let bytes = &chunk[place * to_usize(ALIGN_BYTES)..];
                if bytes.starts_with(&MAGIC) && Header::decode(bytes).is_some_and(|h| self.is_ours(&h)) {
                    return Ok(at + place as u64 * ALIGN_BYTES);
                }
            }
            at += places as u64 * ALIGN_BYTES;
        }
        Ok(limit)
    }
}

/// Reads up to `count` bytes; fewer where the file ends or is gone.
pub(super) fn read(
    disk: &impl Disk,
    name: &str,
    offset: u64,
    count: u64,
    unread: Unread,
) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; to_usize(count)];
    let done = match read_into(disk, name, offset, &mut buffer) {
        Err(error) if unread == Unread::Zeros && is_device_error(&error) => {
            read_around(disk, name, offset, &mut buffer)?
        }
        done => done?,
    };
    buffer.truncate(done);
    Ok(buffer)
}

fn read_into(disk: &impl Disk, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut reads = 1;
    loop {
        match disk.read_at(name, offset, buffer) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) if is_device_error(&error) && reads < READS_AT_ONCE_MAX => reads += 1,
            done => return done,
        }
    }
}

/// Reads block by block, with zeros in the place of those that the device refuses.
fn read_around(disk: &impl Disk, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let end = to_usize((at + 1).next_multiple_of(READ_BLOCK_BYTES) - offset).min(buffer.len());
        let block = &mut buffer[done..end];
        match read_into(disk, name, at, block) {
            Ok(count) if count < block.len() => return Ok(done + count),
            Ok(_) => {}
            Err(error) if is_device_error(&error) => block.fill(0),
            Err(error) => return Err(error),
        }
        done = end;
    }
    Ok(done)
}

/// The file name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("seg-{number:016x}.log")
}

/// The number in a segment's file name; `None` for any other name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name && number <= SEGMENT_NUMBER_MAX).then_some(number)
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).expect("record lengths are bounded far below the address space")
}
