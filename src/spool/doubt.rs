//! What an earlier run wrote last, and whether it is on the disk.
//!
//! Owns: that a start builds on nothing, and offers nothing, which a power cut may still take. Must never: take a
//! sync that succeeds for a proof. Where one failed before, the system calls the bytes written, lets them be read from
//! its memory, and has nothing to write at the next one. A process that was killed before it could cut them off
//! leaves them like that.
//!
//! So the bytes that no later record proves to have been durable are written over themselves, which makes the system
//! write them out, and then synced. Where that fails, all that is needed of their segment is written anew in one
//! piece: under a name that counts for nothing, and given that of a segment once it is durable. Until then the log
//! says what it said before, and never that a batch was put in which is nowhere.

use std::io;

use crate::clock::Now;

use super::Spool;
use super::disk::Disk;
use super::format::{Kind, Stamp, encode_record};
use super::recover::{Failure, Recovered, Segment, each_batch, read_body};
use super::space::blocks;
use super::unread::{Refused, Unread};
use super::walk::{read, segment_name, segment_number};
use super::write::Writing;

/// Behind the name of a segment that is not complete.
const UNFINISHED_SUFFIX: &str = ".new";

/// Segments that an earlier run, which is gone, did not complete.
pub(super) fn leftovers(disk: &impl Disk) -> Result<Vec<String>, Failure> {
    let files = disk.list().map_err(|e| super::OpenError::io("list the spool", e))?;
    let is_leftover = |name: &String| name.strip_suffix(UNFINISHED_SUFFIX).and_then(segment_number).is_some();
    Ok(files.into_iter().map(|info| info.name).filter(is_leftover).collect())
}

impl Recovered {
    /// What the last run wrote last may be in memory only: it is made durable before it is built upon.
    /// Where that fails, its batches are read now and written anew, never trusted where they are.
    pub(super) fn settle_suspects<D: Disk>(&mut self, disk: &mut D) -> Result<(), Failure> {
        let settled = self.image.tally.settled;
        let mut names_durable = None;
        for segment in &mut self.segments {
            if !std::mem::take(&mut segment.salvaged) {
                continue;
            }
            let file = segment.file;
            if make_durable(disk, segment).map_err(|error| Failure::Read(Refused { file, error }))?
                && *names_durable.get_or_insert_with(|| disk.sync_dir().is_ok())
            {
                segment.sure_len = segment.valid_len;
                continue;
            }
            segment.salvaged = true;
            self.recovery.salvaged = true;
            let salvage = &mut self.salvage;
            let disk = &*disk;
            each_batch(disk, segment, settled, |offset, meta| {
                if let Ok(body) = read_body(disk, file, offset, &meta, segment.unread)? {
                    salvage.push((meta, body));
                }
                Ok(())
            })
            .map_err(|error| Failure::Read(Refused { file, error }))?;
        }
        Ok(())
    }
}

/// Has the system write the bytes in doubt once more. The same bytes stand there before, while and after: nothing
/// that is on the disk already can be harmed. Whether it worked; an error is one of reading.
fn make_durable<D: Disk>(disk: &mut D, segment: &Segment) -> io::Result<bool> {
    // Zeros that stand for what the device does not give must not be written.
    if segment.unread == Unread::Zeros {
        return Ok(false);
    }
    let name = segment_name(segment.file);
    let from = segment.sure_len;
    let bytes = read(disk, &name, from, segment.valid_len - from, segment.unread)?;
    Ok(disk.renew(&name, from, &bytes).is_ok())
}

impl<D: Disk> Spool<D> {
    /// Whether something counts that is not durable for certain, and must be written anew before all else.
    pub(super) fn is_salvaging(&self) -> bool {
        self.segments.iter().any(|segment| segment.salvaged)
    }

    /// Makes the next segment of the image and everything that waits. The log has all of it or nothing, since the
    /// image counts batches that stand behind it.
    pub(super) fn write_anew(&mut self, now: Now) -> io::Result<()> {
        let number = self.number_next;
        self.number_next += 1;
        let unfinished = segment_name(number) + UNFINISHED_SUFFIX;
        self.disk.create(&unfinished)?;
        let name = segment_name(number);
        match self.write_unfinished(number, &unfinished, now) {
            Ok(writing) => {
                self.current = Some(writing);
                self.apply_queue();
                Ok(())
            }
            Err(error) => {
                // One that stays and has its name is complete: it says what the next one will say again.
                let _ = self.disk.unlink(&unfinished).or_else(|_| self.disk.unlink(&name));
                Err(error)
            }
        }
    }

    fn write_unfinished(&mut self, number: u64, unfinished: &str, now: Now) -> io::Result<Writing> {
        let nonce = self.nonce_of(number);
        let mut bytes = self.encode_head(number, nonce, now);
        let head_len = bytes.len() as u64;
        for queued in &self.queue {
            let stamp = Stamp { nonce, seq: queued.seq, lines: queued.lines, durable_len: 0 };
            bytes.extend(encode_record(Kind::Entry, stamp, &queued.entry.encode(), &queued.body));
        }
        let valid_len = bytes.len() as u64;
        let room = self.room_for_head(unfinished, valid_len, 0)?;
        self.disk.append(unfinished, &bytes)?;
        self.disk.sync(unfinished)?;
        self.disk.rename(unfinished, &segment_name(number))?;
        self.disk.sync_dir()?;
        let mut segment = Segment::new(number, nonce, valid_len);
        segment.allocated = blocks(valid_len).max(room);
        Ok(Writing::new(segment, head_len, room))
    }

    /// What was in doubt stands in the new segment now, and is durable there. A file that cannot be removed counts
    /// for nothing any more, and goes with those that are settled.
    pub(super) fn remove_salvaged(&mut self) {
        if !self.is_salvaging() {
            return;
        }
        for segment in self.segments.iter_mut().filter(|segment| segment.salvaged) {
            (segment.salvaged, segment.valid_len, segment.sure_len, segment.seq_last) = (false, 0, 0, 0);
            segment.holes.clear();
        }
        self.front = None;
        self.cursor = (0, 0);
    }
}
