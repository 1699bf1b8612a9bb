//! The front of the log: the oldest batch, and what becomes of it.
//!
//! Owns: the order of delivery, which is the order of the numbers, and the count of every outcome.
//! Must never: offer a batch that is not durable, or one whose bytes are not those that were appended.

use crate::clock::Now;
use crate::mutant::{Mutant, is_on};
use crate::record::{Loss, LossReason};

use super::disk::Disk;
use super::format::{BatchMeta, Entry, Kind, Totals};
use super::recover::{bodies, read_body};
use super::space::{ENTRY_OVERHEAD_BYTES, Want, batch_record_bytes};
use super::unread::{Refused, Unread};
use super::walk::{Step, Walker};
use super::words::Sums;
use super::{BatchId, NewBatch, PendingBatch, SPLIT_PARTS_MAX, SettleError, Spool};

/// The oldest durable batch and where its body is.
#[derive(Clone, Debug)]
pub(super) struct Front {
    /// The number in its segment's file name.
    file: u64,
    body_offset: u64,
    pub(super) meta: BatchMeta,
}

impl<D: Disk> Spool<D> {
    /// The oldest batch that is durable and not settled, with its body as it was appended. One that
    /// turns out damaged is counted as lost, kept in quarantine and passed over.
    ///
    /// `None` also where it cannot be read just now; the spool is degraded then. What the device refuses is asked
    /// for again after growing waits, and counts as damaged after a minute of them; anything else, say the want of a
    /// file descriptor, is waited for.
    pub fn oldest(&mut self) -> Option<PendingBatch> {
        // The second time around what was refused too often is read around.
        while self.may_read() {
            match self.read_oldest() {
                Ok(batch) => {
                    self.refusal = None;
                    return batch;
                }
                Err(refused) => {
                    let file = refused.file;
                    let before = self.reading(file);
                    self.note_refusal(refused);
                    if self.reading(file) == before {
                        return None;
                    }
                }
            }
        }
        None
    }

    fn read_oldest(&mut self) -> Result<Option<PendingBatch>, Refused> {
        loop {
            self.seek()?;
            let Some(Front { file, body_offset, meta }) = self.front.clone() else { return Ok(None) };
            let body = read_body(&self.disk, file, body_offset, &meta, self.reading(file));
            match body.map_err(|error| Refused { file, error })? {
                Ok(body) => {
                    return Ok(Some(PendingBatch {
                        id: BatchId { agent: self.agent, epoch: meta.epoch, seq: meta.seq },
                        stream: meta.stream,
                        labels: meta.labels,
                        created_ms: meta.created_ms,
                        lines: meta.lines,
                        records: meta.records,
                        raw_bytes: meta.raw_bytes,
                        body,
                    }));
                }
                Err(damaged) => self.drop_front(&meta, LossReason::Corrupted, &damaged),
            }
        }
    }

    /// The batch was accepted. Durable on return, together with everything appended before.
    ///
    /// # Errors
    /// [`SettleError::NotOldest`] or [`SettleError::Degraded`].
    pub fn ack(&mut self, seq: u64, now: Now) -> Result<(), SettleError> {
        let meta = self.front_at(seq)?;
        self.leave_front(&meta);
        self.judge(meta.seq, |Totals { delivered, .. }| {
            delivered.batches += 1;
            delivered.records += u64::from(meta.records);
            delivered.lines += if is_on(Mutant::ForgetsDelivered) { 0 } else { meta.lines };
            delivered.bytes += u64::from(meta.body_len);
            delivered.raw_bytes += u64::from(meta.raw_bytes);
        });
        self.queue_tally(true);
        self.commit_settled(now)
    }

    /// The batch will never be delivered: it goes to quarantine and is counted.
    ///
    /// # Errors
    /// [`SettleError::NotOldest`] or [`SettleError::Degraded`].
    pub fn lose(&mut self, seq: u64, reason: LossReason, now: Now) -> Result<(), SettleError> {
        let meta = self.front_at(seq)?;
        let front = self.front.clone().expect("checked just now");
        let body = match read_body(&self.disk, front.file, front.body_offset, &meta, Unread::Zeros) {
            Ok(Ok(body) | Err(body)) => body,
            Err(_) => Vec::new(),
        };
        self.drop_front(&meta, reason, &body);
        self.commit_settled(now)
    }

    /// Puts smaller batches in the place of the oldest one, in one record: a crash leaves either it or
    /// all of them. They are delivered after what already waits. Lines that are in none of them count
    /// as lost, being too large.
    ///
    /// # Errors
    /// [`SettleError::NotOldest`]; [`SettleError::Full`], also for parts that could never fit;
    /// [`SettleError::Degraded`].
    pub fn split(&mut self, seq: u64, parts: Vec<NewBatch>, now: Now) -> Result<Vec<BatchId>, SettleError> {
        let meta = self.front_at(seq)?;
        let bytes = ENTRY_OVERHEAD_BYTES + parts.iter().map(batch_record_bytes).sum::<u64>();
        let fits = parts.len() <= SPLIT_PARTS_MAX
            && parts.iter().map(|part| part.body.len() as u64).sum::<u64>() <= 2 * self.batch_bytes_max()
            && parts.iter().all(|part| self.fits_ever(part));
        if !fits || !self.admits(bytes, parts.len() as u64, self.state_bytes_after(&[]), Want::State) {
            return Err(SettleError::Full);
        }
        self.leave_front(&meta);
        self.next.totals.split_batches += 1;
        let lines: u64 = parts.iter().map(|part| part.lines).sum();
        self.next.lines += lines.saturating_sub(meta.lines);
        let missing = meta.lines.saturating_sub(lines);
        if missing > 0 || parts.is_empty() {
            let loss = Loss { lines: missing, bytes: 0 };
            self.next.totals.drop_batches(LossReason::TooLarge, 0, loss);
        }
        let (mut batches, mut body) = (Vec::new(), Vec::new());
        for part in parts {
            let (meta, content) = self.number(part);
            batches.push(meta);
            body.extend(content);
        }
        let id = |meta: &BatchMeta| BatchId { agent: self.agent, epoch: meta.epoch, seq: meta.seq };
        let ids = batches.iter().map(id).collect();
        self.push(batches, Vec::new(), body, bytes);
        self.queue.last_mut().expect("one was pushed just now").splits = true;
        self.commit_settled(now)?;
        Ok(ids)
    }

    fn commit_settled(&mut self, now: Now) -> Result<(), SettleError> {
        let committed = self.commit(now);
        self.advance();
        Ok(committed?)
    }

    /// The oldest batch, if it is this one.
    fn front_at(&mut self, seq: u64) -> Result<BatchMeta, SettleError> {
        self.advance();
        let meta = self.front.as_ref().map(|front| &front.meta).filter(|meta| meta.seq == seq);
        meta.cloned().ok_or(SettleError::NotOldest { seq })
    }

    fn leave_front(&mut self, meta: &BatchMeta) {
        self.held.subtract(meta.sums());
        self.next.settled = meta.seq;
        self.front = None;
    }

    /// Counts what became of all durable batches up to a number.
    fn judge(&mut self, seq: u64, count: impl Fn(&mut Totals)) {
        count(&mut self.next.totals);
        // A split takes its batch away and puts others in its place, in one record: what comes after it cannot be
        // said without it.
        if !self.queue.iter().any(|queued| queued.splits) {
            count(&mut self.judged.totals);
            self.judged.settled = seq;
        }
    }

    fn drop_front(&mut self, meta: &BatchMeta, reason: LossReason, body: &[u8]) {
        self.keep_batch(meta, reason, body);
        self.leave_front(meta);
        let loss = Loss { lines: meta.lines, bytes: u64::from(meta.body_len) };
        self.judge(meta.seq, |totals| totals.drop_batches(reason, 1, loss));
        self.queue_tally(true);
    }

    /// Finds the front again; a failure is met by the next call that needs it.
    pub(super) fn advance(&mut self) {
        let _ = self.seek();
    }

    /// Finds the oldest durable batch after the settled ones, from where the last one was.
    fn seek(&mut self) -> Result<(), Refused> {
        if self.front.is_some() || self.held.batches == 0 {
            return Ok(());
        }
        let settled = self.next.settled;
        let current = self.current.as_ref().map(|current| &current.segment);
        for segment in self.segments.iter().chain(current) {
            let number = segment.number;
            if number < self.cursor.0 || segment.seq_last <= settled {
                continue;
            }
            let from = if number == self.cursor.0 { self.cursor.1 } else { 0 };
            let mut walker = Walker::over(&self.disk, segment, from);
            loop {
                let step = walker.step().map_err(|error| Refused { file: segment.file, error })?;
                let record = match step {
                    Step::Record(record) => record,
                    Step::Damaged { .. } => continue,
                    Step::End => break,
                };
                if segment.salvaged && record.offset + record.header.record_len() > segment.sure_len {
                    // A power cut may take it yet.
                    return Ok(());
                }
                if record.header.kind() != Ok(Some(Kind::Entry)) {
                    continue;
                }
                let Ok(entry) = Entry::decode(&record.head, record.header.body_len) else { continue };
                let found =
                    bodies(record.offset, &record.header, &entry).find(|(_, meta)| meta.seq > settled);
                if let Some((body_offset, meta)) = found {
                    self.cursor = (number, record.offset);
                    self.front = Some(Front { file: segment.file, body_offset, meta: meta.clone() });
                    return Ok(());
                }
            }
        }
        self.miss_held();
        Ok(())
    }

    /// Every segment was read to its end, yet batches should be left: their records were damaged since
    /// they were written.
    fn miss_held(&mut self) {
        let Sums { batches, lines, .. } = std::mem::take(&mut self.held);
        let seq = self.durable.tally.seq;
        self.next.settled = seq;
        let loss = Loss { lines, bytes: 0 };
        self.judge(seq, |totals| totals.drop_batches(LossReason::Corrupted, batches, loss));
        self.queue_tally(true);
    }
}
