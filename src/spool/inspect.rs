//! A look into a spool from outside, while an agent runs on it or not.
//!
//! Owns: nothing; it only reads, and takes no lock. What it shows of a running agent's spool is the log
//! as far as it had been written. Must never: change a file.

use std::io;

use crate::record::{EpochMs, Stream};

use super::disk::Disk;
use super::format::{BatchMeta, DecodeError, Entry, Kind, SegmentHead, decode_checkpoint, is_intact};
use super::recover::{Found, bodies, find, read_body};
use super::unread::Unread;
use super::walk::{Record, Step, Walker, read, segment_name};
use super::{AgentId, BatchId, Labels, OpenError};

/// What is known of a batch's delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// It waits.
    Pending,
    /// It was delivered, lost or split; its segment goes once all in it were.
    Settled,
    /// Its bytes are not those that were written, or the device does not give them.
    Damaged,
}

/// One batch in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    /// Its identity.
    pub id: BatchId,
    /// The kind of its records.
    pub stream: Stream,
    /// Its headers.
    pub labels: Labels,
    /// When it was closed.
    pub created_ms: EpochMs,
    /// Complete log lines in it.
    pub lines: u64,
    /// Records in it.
    pub records: u32,
    /// Bytes before compression.
    pub raw_bytes: u32,
    /// Bytes of its body.
    pub body_bytes: u32,
    /// Whether it waits.
    pub state: BatchState,
    segment: u64,
    body_offset: u64,
    body_crc: u32,
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentView {
    /// File name.
    pub name: String,
    /// Length of the file.
    pub bytes: u64,
    /// The start of the agent that wrote it; `None` if its first record is damaged.
    pub epoch: Option<u64>,
    /// When it was made.
    pub created_ms: Option<EpochMs>,
    /// Keys and values in its checkpoint.
    pub state_entries: usize,
    /// Whether its end is marked.
    pub sealed: bool,
    /// Bytes that are no record: damage, or the torn end of a write.
    pub damaged_bytes: u64,
    /// Its batches.
    pub batches: Vec<BatchView>,
}

/// All segments in the order of the log, with their batches. Every body is read, to check it.
///
/// # Errors
/// [`OpenError::NewerFormat`] for what this release cannot read, [`OpenError::Io`] for all else.
pub fn segments<D: Disk>(disk: &D) -> Result<Vec<SegmentView>, OpenError> {
    let mut log = Log { agent: AgentId::default(), settled: 0, older: None };
    let mut views = Vec::new();
    for Found { number, file, info, .. } in find(disk, |_| Unread::Zeros)? {
        views.push((number, log.segment(disk, file, info.len)?));
    }
    log.judge(&mut views);
    Ok(views.into_iter().map(|(_, view)| view).collect())
}

/// The body of a batch, or `None` if it is damaged or no longer there.
///
/// # Errors
/// Any error of a read that may pass.
pub fn batch_body<D: Disk>(disk: &D, batch: &BatchView) -> io::Result<Option<Vec<u8>>> {
    let name = segment_name(batch.segment);
    let body = read(disk, &name, batch.body_offset, u64::from(batch.body_bytes), Unread::Fails)?;
    let intact = body.len() as u64 == u64::from(batch.body_bytes) && is_intact(&body, batch.body_crc);
    Ok(intact.then_some(body))
}

/// What holds for the log as a whole.
struct Log {
    agent: AgentId,
    settled: u64,
    /// The newest segment's number and its list of older ones.
    older: Option<(u64, Vec<(u64, u64)>)>,
}

impl Log {
    fn segment<D: Disk>(&mut self, disk: &D, number: u64, len: u64) -> Result<SegmentView, OpenError> {
        let mut view = SegmentView { name: segment_name(number), bytes: len, ..SegmentView::default() };
        let mut walker = Walker::new(disk, number, len, Unread::Zeros);
        loop {
            let failed = |error: io::Error| OpenError::io(format!("read {}", segment_name(number)), error);
            match walker.step().map_err(failed)? {
                Step::Record(record) => match self.record(disk, number, &record, &mut view) {
                    Ok(()) => {}
                    Err(DecodeError::Damaged) => view.damaged_bytes += record.header.record_len(),
                    Err(DecodeError::Newer) => return Err(OpenError::NewerFormat { name: view.name }),
                },
                Step::Damaged { bytes, .. } => view.damaged_bytes += bytes,
                Step::End => return Ok(view),
            }
        }
    }

    fn record<D: Disk>(
        &mut self,
        disk: &D,
        number: u64,
        record: &Record,
        view: &mut SegmentView,
    ) -> Result<(), DecodeError> {
        match record.header.kind()? {
            Some(Kind::Segment) => self.head(&record.head, view)?,
            Some(Kind::Checkpoint) => {
                let (prelude, state) = decode_checkpoint(&record.head)?;
                (self.agent, self.settled) = (prelude.agent, prelude.settled);
                view.state_entries = state.len();
            }
            Some(Kind::Entry) => {
                let entry = Entry::decode(&record.head, record.header.body_len)?;
                self.settled = entry.settled;
                for (offset, meta) in bodies(record.offset, &record.header, &entry) {
                    let intact = matches!(read_body(disk, number, offset, meta, Unread::Zeros), Ok(Ok(_)));
                    view.batches.push(self.batch(number, offset, meta, intact));
                }
            }
            Some(Kind::Seal) => view.sealed = true,
            None => {}
        }
        Ok(())
    }

    fn batch(&self, segment: u64, body_offset: u64, meta: &BatchMeta, intact: bool) -> BatchView {
        BatchView {
            id: BatchId { agent: self.agent, epoch: meta.epoch, seq: meta.seq },
            stream: meta.stream,
            labels: meta.labels.clone(),
            created_ms: meta.created_ms,
            lines: meta.lines,
            records: meta.records,
            raw_bytes: meta.raw_bytes,
            body_bytes: meta.body_len,
            state: if intact { BatchState::Pending } else { BatchState::Damaged },
            segment,
            body_offset,
            body_crc: meta.body_crc,
        }
    }

    fn head(&mut self, head: &[u8], view: &mut SegmentView) -> Result<(), DecodeError> {
        let head = SegmentHead::decode(head)?;
        (self.agent, self.settled) = (head.prelude.agent, head.prelude.settled);
        (view.epoch, view.created_ms) = (Some(head.prelude.epoch), Some(head.created_ms));
        self.older = Some((head.number, head.older));
        Ok(())
    }

    /// Only the end of the log says what is settled, and which bytes of older segments count.
    fn judge(&self, views: &mut [(u64, SegmentView)]) {
        for (number, view) in views {
            if let Some((newest, older)) = &self.older
                && *number < *newest
            {
                let valid_len = older.iter().find(|(n, _)| n == number).map_or(0, |(_, len)| *len);
                view.batches.retain(|b| b.body_offset + u64::from(b.body_bytes) <= valid_len);
            }
            for batch in &mut view.batches {
                if batch.id.seq <= self.settled {
                    batch.state = BatchState::Settled;
                }
            }
        }
    }
}
