//! The spool: one append-only log on disk, which holds batches and the agent's state together.
//!
//! A record is atomic: a batch and the changes of the state that belong to it come and go together. A
//! batch is offered for delivery only once it is durable, so that any replay is byte-identical and bears
//! the same id. Every start writes to a new segment; what an earlier run wrote is made durable, read and, once
//! nothing in it is needed, removed.
//!
//! Owns: what is durable, and the count of it. At any instant: lines of all appended batches =
//! delivered + held + dropped. Must never: read a clock, know what the state means, pass its cap, or claim
//! that something is durable which a failed sync left in doubt.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::clock::Now;
use crate::record::{Loss, LossReason};

mod disk;
mod doubt;
mod format;
mod inspect;
mod quarantine;
mod recover;
mod room;
mod settle;
#[cfg(test)]
pub(crate) mod sim;
mod space;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests;
mod unread;
mod walk;
mod words;
mod write;

pub use disk::{DirDisk, Disk, FileInfo};
pub use inspect::{BatchState, BatchView, SegmentView, batch_body, segments};
pub use words::*;

use format::{BatchMeta, Entry};
use quarantine::Quarantine;
use recover::{Image, Segment, Tally, change_bytes};
use settle::Front;
use space::{ENTRY_OVERHEAD_BYTES, Want};
use unread::Refusal;
use words::{Sums, Trouble};
use write::Writing;

/// Records wait in memory for a commit up to this many bytes; then the spool is full until it comes.
pub const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
/// The whole state, keys and values, as it stands in a checkpoint.
pub const STATE_BYTES_MAX: u64 = 8 << 20;
/// All labels of a batch together.
pub const LABEL_BYTES_MAX: usize = 16 << 10;
/// A body is never longer, whatever the cap.
pub const BODY_BYTES_MAX: u64 = 8 << 20;
/// Parts of one split.
pub const SPLIT_PARTS_MAX: usize = 1024;

/// The log on one disk. One owner, no threads.
#[derive(Debug)]
pub struct Spool<D> {
    disk: D,
    options: Options,
    agent: AgentId,
    epoch: u64,
    /// From which the nonces of this run's segments follow.
    nonce_seed: u64,
    recovery: Recovery,
    /// What the log says as of the last commit.
    durable: Image,
    /// The same numbers with everything that waits in the queue.
    next: Tally,
    /// The same numbers with the verdicts alone that were passed since: what can be written where the disk has no
    /// room for the queue. A verdict that comes after a split in the queue is not among them.
    judged: Tally,
    queue: Vec<Queued>,
    /// Bytes that the queue will take on the disk, or a little less.
    queue_bytes: u64,
    /// Batches in the queue.
    queued: Sums,
    /// Durable batches that were not settled.
    held: Sums,
    /// Older segments, by number.
    segments: Vec<Segment>,
    /// The segment being written to; `None` while the disk fails.
    current: Option<Writing>,
    /// An empty segment whose space is set aside: its number and bytes.
    reserve: Option<(u64, u64)>,
    number_next: u64,
    trouble: Option<Trouble>,
    /// Why the oldest batch could not be read when it was last asked for.
    refusal: Option<Refusal>,
    /// The latest moment that a caller named; the spool has no clock of its own.
    seen: Instant,
    /// Files that failed starts left.
    marks: Vec<String>,
    /// The last batch was refused for want of room.
    full: bool,
    front: Option<Front>,
    /// Where the search for the next front begins: a segment's number and an offset.
    cursor: (u64, u64),
    quarantine: Quarantine,
}

/// A record that waits for the next commit.
#[derive(Debug)]
struct Queued {
    entry: Entry,
    body: Vec<u8>,
    seq: u64,
    lines: u64,
    /// Its batches stand in a segment already, which is in doubt.
    salvage: bool,
    /// Its batches stand in the place of one that this record settles.
    splits: bool,
}

impl<D: Disk> Spool<D> {
    /// Reads what is there and opens a segment for this run. `now` and `fresh` are the only clock and
    /// the only randomness that it gets.
    ///
    /// A disk that can be read but not written does not fail this: the spool is degraded then, offers
    /// what it holds, and [`Spool::retry`] tries again.
    ///
    /// # Errors
    /// [`OpenError::NewerFormat`] or [`OpenError::Io`]; no segment was changed then. A segment that the device does
    /// not give fails a bounded number of starts; then what cannot be read counts as damaged.
    pub fn open(mut disk: D, options: Options, now: Now, fresh: Fresh) -> Result<Spool<D>, OpenError> {
        let options = space::bounded(options);
        let found = recover::recover(&mut disk)?;
        let quarantine =
            Quarantine::find(&disk, &options).map_err(|e| OpenError::io("list the quarantine", e))?;
        let mut spool = Spool {
            disk,
            agent: found.agent.unwrap_or(fresh.agent),
            epoch: found.epoch + found.traces + 1,
            nonce_seed: fresh.nonce,
            recovery: found.recovery,
            next: found.image.tally.clone(),
            judged: found.image.tally.clone(),
            durable: found.image,
            queue: Vec::new(),
            queue_bytes: 0,
            queued: Sums::default(),
            held: found.held,
            segments: found.segments,
            current: None,
            reserve: None,
            number_next: found.number_max + 1,
            trouble: None,
            refusal: None,
            seen: now.monotonic,
            marks: found.marks,
            full: false,
            front: None,
            cursor: (0, 0),
            quarantine,
            options,
        };
        #[cfg(test)]
        if crate::mutant::is_on(crate::mutant::Mutant::AppendsBehindTornTail) {
            spool.write_on();
        }
        if spool.is_salvaging() {
            // What makes them stale may not be durable yet.
            spool.marks.extend(found.stale);
        } else {
            for name in found.stale {
                // One that stays is recognised again at the next start.
                let _ = spool.disk.unlink(&name);
            }
        }
        for (meta, body) in found.salvage {
            spool.queue_salvage(meta, body);
        }
        spool.keep_damage();
        // A disk that refuses leaves the spool degraded, which its status tells.
        let _ = spool.commit(now);
        spool.advance();
        Ok(spool)
    }

    /// The state as of the last commit.
    pub fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.durable.state
    }

    /// The installation's id, as old as the spool.
    pub fn agent_id(&self) -> AgentId {
        self.agent
    }

    /// The number of this start, from 1. It rises each time, by more than one where an unclean stop left
    /// files that cannot tell of which start they are: no two starts ever share a number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the start found.
    pub fn recovered(&self) -> &Recovery {
        &self.recovery
    }

    /// The longest body that [`Spool::append`] takes, in bytes.
    pub fn batch_bytes_max(&self) -> u64 {
        space::batch_bytes_max(&self.options)
    }

    /// Takes a batch, changes of the state, or both as one. They wait in memory for
    /// [`Spool::commit`]; until then a crash forgets them, both or neither.
    ///
    /// # Errors
    /// [`Refused`], with everything handed back: nothing was taken.
    pub fn append(
        &mut self,
        batch: Option<NewBatch>,
        changes: Vec<StateChange>,
    ) -> Result<Option<BatchId>, Refused> {
        if batch.is_none() && changes.is_empty() {
            return Ok(None);
        }
        let returned = |batch, changes| Box::new(Returned { batch, changes });
        if self.trouble.is_some() {
            return Err(Refused::Degraded(returned(batch, changes)));
        }
        let state_bytes = self.state_bytes_after(&changes);
        if state_bytes > STATE_BYTES_MAX || batch.as_ref().is_some_and(|b| !self.fits_ever(b)) {
            return Err(Refused::TooLarge(returned(batch, changes)));
        }
        let bytes = ENTRY_OVERHEAD_BYTES
            + change_bytes_all(&changes)
            + batch.as_ref().map_or(0, space::batch_record_bytes);
        let want = Want::of(batch.as_ref());
        if !self.admits(bytes, u64::from(batch.is_some()), state_bytes, want) {
            self.full |= want == Want::Lines;
            return Err(Refused::Full(returned(batch, changes)));
        }
        let mut id = None;
        let (mut batches, mut body) = (Vec::new(), Vec::new());
        if want == Want::Lines {
            self.full = false;
        }
        if let Some(batch) = batch {
            self.next.lines += batch.lines;
            let (meta, content) = self.number(batch);
            id = Some(BatchId { agent: self.agent, epoch: meta.epoch, seq: meta.seq });
            batches.push(meta);
            body = content;
        }
        self.push(batches, changes, body, bytes);
        Ok(id)
    }

    /// Counts a loss that was found elsewhere. It is durable with the next commit, or with the first
    /// one for which there is room.
    pub fn record_loss(&mut self, reason: LossReason, loss: Loss) {
        self.next.totals.lose(reason, loss);
        self.queue_tally(false);
    }

    /// When a degraded spool tries again; `None` while all is well.
    pub fn next_retry(&self) -> Option<Instant> {
        self.trouble.as_ref().map(|trouble| trouble.next_retry)
    }

    /// Tries a degraded spool again, if that is due.
    ///
    /// # Errors
    /// [`Degraded`] while the disk refuses, or the next attempt is not due.
    pub fn retry(&mut self, now: Now) -> Result<(), Degraded> {
        self.seen = self.seen.max(now.monotonic);
        if self.trouble.is_none() { Ok(()) } else { self.commit(now) }
    }

    /// The spool's numbers.
    pub fn status(&self) -> SpoolStatus {
        let totals = &self.next.totals;
        let reason = |code: &u8| LossReason::from_code(*code);
        let oldest_queued = || {
            self.queue.iter().filter(|q| !q.salvage).find_map(|q| Some(q.entry.batches.first()?.created_ms))
        };
        SpoolStatus {
            batches: self.held.batches + self.queued.batches,
            records: self.held.records + self.queued.records,
            lines: self.held.lines + self.queued.lines,
            bytes: self.used_bytes(),
            bytes_max: self.options.bytes_max,
            oldest_created_ms: self.front.as_ref().map(|f| f.meta.created_ms).or_else(oldest_queued),
            state: match (&self.trouble, &self.refusal, self.full) {
                (Some(trouble), ..) => SpoolState::Degraded(trouble.reason.clone()),
                (None, Some(refusal), _) => SpoolState::Degraded(refusal.reason.clone()),
                (None, None, true) => SpoolState::Full,
                (None, None, false) => SpoolState::Ok,
            },
            quarantine_bytes: self.quarantine.bytes(),
            delivered: totals.delivered,
            appended_lines: self.next.lines,
            dropped_batches: totals.dropped_batches,
            dropped_lines: totals.dropped_lines,
            lost: totals.lost.iter().filter_map(|(code, loss)| Some((reason(code)?, *loss))).collect(),
        }
    }

    /// Commits, and marks the segment as complete, so that the next start can tell rot from a torn end.
    /// The folder's lock goes with it. What is set aside for a successor stays for the next start, whose
    /// first record needs room on a disk that may be full by then.
    ///
    /// # Errors
    /// [`Degraded`] when the last commit fails; what it held is lost with the process.
    pub fn close(mut self, now: Now) -> Result<(), Degraded> {
        self.commit(now)?;
        self.seal();
        Ok(())
    }

    /// Gives a batch its number.
    fn number(&mut self, batch: NewBatch) -> (BatchMeta, Vec<u8>) {
        self.next.seq += 1;
        let meta = BatchMeta {
            epoch: self.epoch,
            seq: self.next.seq,
            stream: batch.stream,
            created_ms: batch.created_ms,
            lines: batch.lines,
            records: batch.records,
            raw_bytes: batch.raw_bytes,
            body_len: u32::try_from(batch.body.len()).expect("longer bodies were refused"),
            body_crc: crc32fast::hash(&batch.body),
            labels: batch.labels,
        };
        self.queued.add(meta.sums());
        (meta, batch.body)
    }

    /// Puts a record at the end of the queue.
    fn push(&mut self, batches: Vec<BatchMeta>, changes: Vec<StateChange>, body: Vec<u8>, bytes: u64) {
        let Tally { seq, lines, settled, ref totals } = self.next;
        let entry = Entry { settled, totals: totals.clone(), batches, changes };
        self.queue.push(Queued { entry, body, seq, lines, salvage: false, splits: false });
        self.queue_bytes += bytes;
    }

    /// Has the tally written with the next commit: with the last record that waits, or by one of its
    /// own. Where the tally is only information, it waits while there is no room.
    fn queue_tally(&mut self, needed: bool) {
        if let Some(last) = self.queue.last_mut() {
            last.entry.settled = self.next.settled;
            last.entry.totals = self.next.totals.clone();
        } else if needed || self.admits(ENTRY_OVERHEAD_BYTES, 0, self.durable.state_bytes, Want::State) {
            self.push(Vec::new(), Vec::new(), Vec::new(), ENTRY_OVERHEAD_BYTES);
        }
    }

    fn queue_salvage(&mut self, meta: BatchMeta, body: Vec<u8>) {
        let bytes = ENTRY_OVERHEAD_BYTES + space::meta_record_bytes(&meta);
        self.push(vec![meta], Vec::new(), body, bytes);
        self.queue.last_mut().expect("one was pushed just now").salvage = true;
    }

    /// The state's size once everything that waits and these changes are in, or a little more.
    fn state_bytes_after(&self, changes: &[StateChange]) -> u64 {
        let waiting: u64 = self.queue.iter().map(|queued| change_bytes(&queued.entry.changes)).sum();
        self.durable.state_bytes + waiting + change_bytes(changes)
    }
}

/// What changes take in an entry; removed keys count too.
fn change_bytes_all(changes: &[StateChange]) -> u64 {
    changes.iter().map(|(key, value)| (9 + key.len() + value.as_ref().map_or(0, Vec::len)) as u64).sum()
}
