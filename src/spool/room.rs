//! Room on a disk that is full: what is set aside while there is some, and what is done with it when there is none.
//!
//! Owns: that verdicts can be written when nothing else can, so that what was delivered makes room again. Must
//! never: remove a segment whose verdicts are not durable. A crash would count its batches as damaged.
//!
//! Behind the last record of the segment at hand some room is always set aside. Nothing but verdicts goes there:
//! one record says of every batch what became of it, and each time that a segment can go for it, there is room for
//! the next one.

use std::io;

use crate::clock::Now;

use super::Spool;
use super::disk::Disk;
use super::format::{ALIGN_BYTES, Entry, HEADER_BYTES, Kind, Stamp, encode_record};
use super::space::{ENTRY_OVERHEAD_BYTES, blocks};
use super::walk::segment_name;
use super::write::is_full;

/// Besides one verdict for each segment that it may free: one for the segment at hand, and the mark of its end.
const VERDICTS_SPARE: u64 = 2;

impl<D: Disk> Spool<D> {
    /// Bytes that are set aside behind the last record, more than their use takes.
    pub(super) fn verdict_bytes(&self) -> u64 {
        (self.segments.len() as u64 + VERDICTS_SPARE) * ENTRY_OVERHEAD_BYTES
    }

    /// Sets aside what the queue takes in the segment at hand and, behind it, what verdicts take on a full disk.
    ///
    /// Fails only where the disk is full. A file system that sets nothing aside takes what it can, unasked.
    pub(super) fn set_room_aside(&mut self, queue_bytes: u64) -> io::Result<()> {
        let verdict_bytes = self.verdict_bytes();
        let Some(current) = &mut self.current else { return Ok(()) };
        let room = blocks(current.segment.valid_len + queue_bytes + verdict_bytes);
        if queue_bytes == 0 || room <= current.room {
            return Ok(());
        }
        match self.disk.reserve(&segment_name(current.segment.file), room) {
            Ok(()) => {
                current.room = room;
                current.segment.allocated = current.segment.allocated.max(room);
                Ok(())
            }
            Err(error) if is_full(&error) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// The same for a segment that is to be made; the room that it has then.
    pub(super) fn room_for_head(&mut self, name: &str, head_len: u64, reserved: u64) -> io::Result<u64> {
        let room = blocks(head_len + self.verdict_bytes());
        if room <= reserved {
            return Ok(reserved);
        }
        match self.disk.reserve(name, room) {
            Ok(()) => Ok(room),
            Err(error) if is_full(&error) => Err(error),
            Err(_) => Ok(reserved),
        }
    }

    /// The disk has no room for the queue. Verdicts go where room is set aside for them, and segments that they free
    /// go; else there may be a segment that was set aside. Whether it is worth trying again.
    pub(super) fn make_room(&mut self, now: Now) -> bool {
        let segments = self.segments.len();
        if self.write_verdicts().is_err() {
            self.poison();
            return true;
        }
        self.segments.len() < segments || (self.reserve.is_some() && self.open_segment(now).is_ok())
    }

    /// Makes durable what became of the durable batches, and nothing else that waits. What is left of the room must
    /// do for each segment that may still be freed: a verdict that frees none is written only beyond that, and else
    /// waits in memory.
    fn write_verdicts(&mut self) -> io::Result<()> {
        let settled = self.judged.settled;
        let frees = self.segments.iter().any(|segment| segment.seq_last <= settled);
        let Some(current) = &mut self.current else { return Ok(()) };
        let durable = &mut self.durable.tally;
        let durable_len = current.segment.valid_len;
        let entry = Entry { settled, totals: self.judged.totals.clone(), ..Entry::default() };
        let nonce = current.segment.nonce.expect("a segment of this run has its nonce");
        let stamp = Stamp { nonce, seq: durable.seq, lines: durable.lines, durable_len };
        let record = encode_record(Kind::Entry, stamp, &entry.encode(), &[]);
        let len = durable_len + record.len() as u64;
        let kept = if frees { 0 } else { (self.segments.len() as u64 + 1) * ENTRY_OVERHEAD_BYTES };
        if settled <= durable.settled || len + kept > current.room {
            return Ok(());
        }
        let name = segment_name(current.segment.file);
        self.disk.append(&name, &record)?;
        self.disk.sync(&name)?;
        current.segment.valid_len = len;
        (durable.settled, durable.totals) = (settled, entry.totals);
        // What waits was said before: written later, it must not take anything back.
        for queued in self.queue.iter_mut().filter(|queued| queued.entry.settled < settled) {
            queued.entry.settled = settled;
            queued.entry.totals = self.judged.totals.clone();
        }
        self.remove_settled();
        Ok(())
    }
}

/// Bytes that a record takes.
pub(super) fn record_bytes(head: &[u8], body: &[u8]) -> u64 {
    ((HEADER_BYTES + head.len() + body.len()) as u64).next_multiple_of(ALIGN_BYTES)
}
