//! The only writes of the log: commit, new segments, and what to do when the disk refuses.
//!
//! Owns: the order of writes and syncs. Must never: sync a file again after a failed sync, or read back
//! what it had written. Records that are not durable are in memory, and are written anew elsewhere.

use std::io;
use std::time::Duration;

use crate::clock::Now;
use crate::mutant::{Mutant, is_on};

use super::disk::Disk;
use super::format::{Entry, Kind, Prelude, SegmentHead, Stamp, encode_checkpoint, encode_record};
use super::recover::{Segment, Tally};
use super::room::record_bytes;
use super::space::blocks;
use super::unread::{self, Unread};
use super::walk::segment_name;
use super::words::{Sums, Trouble};
use super::{Degraded, Spool};

const BACKOFF_MS_MIN: u64 = 1_000;
const BACKOFF_MS_MAX: u64 = 60_000;
/// A disk that is only full may have room again at any moment, and asking costs it little.
const FULL_BACKOFF_MS_MAX: u64 = 2_000;
/// One on the segment at hand, one on a new one.
const WRITE_ATTEMPTS: usize = 2;

/// The segment that this run writes to.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) segment: Segment,
    pub(super) head_len: u64,
    /// Whether a successor was asked for.
    reserve_tried: bool,
    /// Bytes from its start that are set aside for it, so that no full disk refuses them.
    pub(super) room: u64,
}

impl Writing {
    pub(super) fn new(segment: Segment, head_len: u64, room: u64) -> Writing {
        Writing { segment, head_len, reserve_tried: false, room }
    }
}

impl Segment {
    /// One of this run, durable up to a length.
    pub(super) fn new(number: u64, nonce: u64, valid_len: u64) -> Segment {
        Segment {
            number,
            file: number,
            valid_len,
            sure_len: valid_len,
            allocated: blocks(valid_len),
            nonce: Some(nonce),
            seq_last: 0,
            salvaged: false,
            unread: Unread::Fails,
            holes: Vec::new(),
        }
    }
}

/// Why the queue is not durable.
enum WriteError {
    /// The disk is full, which was found out before anything was written: the segment at hand still serves.
    NoRoom(io::Error),
    Failed(io::Error),
}

impl<D: Disk> Spool<D> {
    /// Makes everything appended so far durable, with one sync; nothing appended, no sync.
    ///
    /// # Errors
    /// [`Degraded`]: nothing of it is durable, all of it stays in memory. The next commit or
    /// [`Spool::retry`] that is due writes it to a new segment.
    pub fn commit(&mut self, now: Now) -> Result<(), Degraded> {
        self.seen = self.seen.max(now.monotonic);
        match &self.trouble {
            Some(trouble) if now.monotonic < trouble.next_retry => {
                return Err(Degraded { reason: trouble.reason.clone() });
            }
            None if self.queue.is_empty() && self.current.is_some() => return Ok(()),
            None if is_on(Mutant::UnsyncedAnswer) && self.holds_verdicts_only() => return Ok(()),
            _ => {}
        }
        let mut failure = None;
        let mut attempts = 0;
        while attempts < WRITE_ATTEMPTS {
            match self.write(now) {
                Ok(()) => return self.written(),
                Err(WriteError::NoRoom(error)) => {
                    failure = Some(error);
                    if !self.make_room(now) {
                        break;
                    }
                }
                Err(WriteError::Failed(error)) => {
                    failure = Some(error);
                    self.poison();
                    attempts += 1;
                }
            }
        }
        let longest_ms =
            if failure.as_ref().is_some_and(is_full) { FULL_BACKOFF_MS_MAX } else { BACKOFF_MS_MAX };
        let reason = failure.map_or_else(String::new, |error| error.to_string());
        Err(self.degrade(now, reason, longest_ms))
    }

    /// Nothing waits to be written but verdicts on batches.
    fn holds_verdicts_only(&self) -> bool {
        let is_verdict = |entry: &Entry| entry.batches.is_empty() && entry.changes.is_empty();
        self.current.is_some() && self.queue.iter().all(|waiting| is_verdict(&waiting.entry))
    }

    fn written(&mut self) -> Result<(), Degraded> {
        self.trouble = None;
        self.remove_marks();
        self.remove_salvaged();
        self.remove_settled();
        self.set_reserve();
        self.advance();
        Ok(())
    }

    /// Writes the queue and syncs it.
    fn write(&mut self, now: Now) -> Result<(), WriteError> {
        if self.is_salvaging() {
            return self.write_anew(now).map_err(WriteError::Failed);
        }
        if self.current.is_none() {
            self.open_segment(now).map_err(WriteError::Failed)?;
        } else if self.should_roll() {
            // Where no new segment can be had, the one at hand still serves, unless it was left.
            let opened = self.open_segment(now);
            if self.current.is_none() {
                opened.map_err(WriteError::Failed)?;
            }
        }
        let heads: Vec<Vec<u8>> = self.queue.iter().map(|queued| queued.entry.encode()).collect();
        let sizes = heads.iter().zip(&self.queue).map(|(head, queued)| record_bytes(head, &queued.body));
        self.set_room_aside(sizes.sum()).map_err(WriteError::NoRoom)?;
        self.write_queue(&heads).map_err(WriteError::Failed)
    }

    fn write_queue(&mut self, heads: &[Vec<u8>]) -> io::Result<()> {
        let current = self.current.as_mut().expect("there is one to write to");
        let name = segment_name(current.segment.file);
        let durable_len = current.segment.valid_len;
        let mut len = durable_len;
        for (queued, head) in self.queue.iter().zip(heads) {
            let nonce = current.segment.nonce.expect("a segment of this run has its nonce");
            let stamp = Stamp { nonce, seq: queued.seq, lines: queued.lines, durable_len };
            let record = encode_record(Kind::Entry, stamp, head, &queued.body);
            self.disk.append(&name, &record)?;
            len += record.len() as u64;
        }
        if !self.queue.is_empty() && !is_on(Mutant::UnsyncedBatch) {
            let synced = self.disk.sync(&name);
            if is_on(Mutant::RetriesFailedSync) {
                synced.or_else(|_| self.disk.sync(&name))?
            } else {
                synced?
            }
        }
        current.segment.valid_len = len;
        current.segment.allocated = current.segment.allocated.max(blocks(len));
        self.apply_queue();
        Ok(())
    }

    /// The queue is durable: what it says now holds.
    pub(super) fn apply_queue(&mut self) {
        let current = self.current.as_mut().expect("it was written to");
        for queued in self.queue.drain(..) {
            let Tally { seq, lines, settled, totals } = &mut self.durable.tally;
            (*seq, *lines) = (queued.seq, queued.lines);
            (*settled, *totals) = (queued.entry.settled, queued.entry.totals);
            self.durable.change(queued.entry.changes);
            for meta in &queued.entry.batches {
                current.segment.seq_last = current.segment.seq_last.max(meta.seq);
                if !queued.salvage {
                    self.held.add(meta.sums());
                }
            }
        }
        self.queue_bytes = 0;
        self.queued = Sums::default();
        self.judged = self.durable.tally.clone();
    }

    /// Makes the next segment, durable with its name, and turns to it. The one at hand is left as it is if this fails
    /// and the new one is gone for certain. One that may come back lists what counts of the one at hand as of now,
    /// which must hold then: nothing is written there any more.
    pub(super) fn open_segment(&mut self, now: Now) -> io::Result<()> {
        let (number, reserved) = match self.reserve.take() {
            Some((number, bytes)) => (number, bytes),
            None => {
                let number = self.number_next;
                self.number_next += 1;
                self.disk.create(&segment_name(number))?;
                (number, 0)
            }
        };
        let nonce = self.nonce_of(number);
        let head = self.encode_head(number, nonce, now);
        let name = segment_name(number);
        let room = match self.room_for_head(&name, head.len() as u64, reserved) {
            Ok(room) => room,
            Err(error) if reserved > 0 => {
                self.reserve = Some((number, reserved));
                return Err(error);
            }
            Err(error) => {
                let _ = self.disk.unlink(&name);
                return Err(error);
            }
        };
        let written =
            self.disk.append(&name, &head).and_then(|()| self.disk.sync(&name)).and_then(|()| {
                if is_on(Mutant::ForgetsDirectorySync) { Ok(()) } else { self.disk.sync_dir() }
            });
        if let Err(error) = written {
            // One that stays is in no later segment's list, and so counts for nothing once there is a later one.
            let is_gone = self.disk.unlink(&name).and_then(|()| self.disk.sync_dir());
            if is_gone.is_err() {
                self.poison();
            }
            return Err(error);
        }
        self.seal();
        if let Some(old) = self.current.take() {
            self.segments.push(old.segment);
        }
        let head_len = head.len() as u64;
        let mut segment = Segment::new(number, nonce, head_len);
        segment.allocated = blocks(head_len).max(room);
        self.current = Some(Writing::new(segment, head_len, room));
        Ok(())
    }

    /// SEGMENT and CHECKPOINT, as of the last commit: what waits in the queue follows them.
    pub(super) fn encode_head(&self, number: u64, nonce: u64, now: Now) -> Vec<u8> {
        let tally = &self.durable.tally;
        let stamp = Stamp { nonce, seq: tally.seq, lines: tally.lines, durable_len: 0 };
        let current = self.current.as_ref().map(|current| &current.segment);
        // What is in doubt is written anew behind this head, and counts where it stood no more.
        let older = || self.segments.iter().filter(|segment| !segment.salvaged);
        let holes = unread::holes(older());
        let older = older().chain(current).map(|s| (s.number, s.valid_len)).collect();
        let prelude = Prelude {
            agent: self.agent,
            epoch: self.epoch,
            settled: tally.settled,
            totals: tally.totals.clone(),
        };
        let checkpoint = encode_checkpoint(&prelude, &self.durable.state);
        let head = SegmentHead { number, created_ms: now.wall, prelude, older, holes };
        let mut bytes = encode_record(Kind::Segment, stamp, &head.encode(), &[]);
        bytes.extend(encode_record(Kind::Checkpoint, stamp, &checkpoint, &[]));
        bytes
    }

    /// Marks the end of the segment at hand and gives back what is reserved behind it. All that it
    /// holds is durable already, so that a failure here costs nothing.
    pub(super) fn seal(&mut self) {
        let Some(current) = &mut self.current else { return };
        let name = segment_name(current.segment.file);
        let durable_len = current.segment.valid_len;
        let Tally { seq, lines, .. } = self.durable.tally;
        let nonce = current.segment.nonce.expect("a segment of this run has its nonce");
        let seal = encode_record(Kind::Seal, Stamp { nonce, seq, lines, durable_len }, &[], &[]);
        let len = durable_len + seal.len() as u64;
        let sealed = self.disk.append(&name, &seal).and_then(|()| self.disk.sync(&name));
        let kept = if sealed.is_ok() { len } else { durable_len };
        if self.disk.truncate(&name, kept).is_ok() {
            current.segment.allocated = blocks(kept);
        } else {
            current.segment.allocated = current.segment.allocated.max(blocks(len));
        }
    }

    /// Leaves the segment at hand for good, after a failed write or sync. What of it is not durable may
    /// still be read back from the system's cache, so it is cut off; the next segment's list says the same. Where
    /// neither can be had before the process dies, the next start finds those bytes and makes them durable.
    pub(super) fn poison(&mut self) {
        let Some(mut current) = self.current.take() else { return };
        let Segment { file, valid_len, .. } = current.segment;
        current.segment.allocated = match self.disk.truncate(&segment_name(file), valid_len) {
            Ok(()) => blocks(valid_len),
            Err(_) => current.segment.allocated.max(blocks(valid_len + self.queue_bytes)),
        };
        self.segments.push(current.segment);
    }

    /// The known bug of appending to the last segment of an earlier run, behind whatever a crash left there.
    #[cfg(test)]
    pub(super) fn write_on(&mut self) {
        let Some(mut segment) = self.segments.pop() else { return };
        let name = segment_name(segment.number);
        let files = self.disk.list().unwrap_or_default();
        let len = files.iter().find(|file| file.name == name).map(|file| file.len);
        segment.valid_len = len.unwrap_or(segment.valid_len);
        self.current = Some(Writing { segment, head_len: 0, reserve_tried: true, room: 0 });
    }

    fn degrade(&mut self, now: Now, reason: String, backoff_ms_max: u64) -> Degraded {
        let before = self.trouble.as_ref().map_or(0, |trouble| trouble.backoff_ms);
        let backoff_ms = (before * 2).clamp(BACKOFF_MS_MIN, backoff_ms_max);
        let next_retry = now.monotonic + Duration::from_millis(backoff_ms);
        self.trouble = Some(Trouble { reason: reason.clone(), backoff_ms, next_retry });
        Degraded { reason }
    }

    /// Removes what is wholly settled, and durably so. A crash may bring such a file back; its
    /// batches stay settled, and it is removed again.
    pub(super) fn remove_settled(&mut self) {
        let Tally { settled, seq, .. } = self.durable.tally;
        let settled = if is_on(Mutant::UnlinksBeforeAnswer) { seq } else { settled };
        if self.remove_segments(|segment| segment.seq_last <= settled) {
            self.full = false;
        }
    }

    fn remove_segments(&mut self, which: impl Fn(&Segment) -> bool) -> bool {
        let before = self.segments.len();
        let disk = &mut self.disk;
        self.segments.retain(|segment| {
            if !which(segment) {
                return true;
            }
            match disk.unlink(&segment_name(segment.file)) {
                Ok(()) => false,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        });
        self.segments.len() < before
    }

    /// Sets the space of the next segment aside, where the file system can: then a disk that fills up
    /// still takes what must be written. Tried once for each segment.
    fn set_reserve(&mut self) {
        let wanted = self.reserve.is_none()
            && self.current.as_ref().is_some_and(|c| !c.reserve_tried && c.segment.seq_last > 0);
        if !wanted || !self.admits_reserve() {
            return;
        }
        if let Some(current) = &mut self.current {
            current.reserve_tried = true;
        }
        let bytes = blocks(self.options.segment_bytes);
        let number = self.number_next;
        let name = segment_name(number);
        self.number_next += 1;
        if self.disk.create(&name).is_err() {
            return;
        }
        match self.disk.reserve(&name, bytes) {
            Ok(()) => self.reserve = Some((number, bytes)),
            Err(_) => drop(self.disk.unlink(&name)),
        }
    }
}

/// Whether the disk has no room left, for this user at least.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<D> Spool<D> {
    /// The nonce of a segment of this run.
    pub(super) fn nonce_of(&self, number: u64) -> u64 {
        nonce_of(self.nonce_seed, number)
    }
}

/// The nonce of a segment: the run's randomness, spread by the number (SplitMix64's finalizer).
fn nonce_of(seed: u64, number: u64) -> u64 {
    let mut mixed = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
