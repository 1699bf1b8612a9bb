//! How much room there is: the arithmetic behind the cap.
//!
//! Owns: whether a record is taken, and when a segment is full. Must never: touch the disk, but to ask
//! how much of it is free.
//!
//! Three things must fit at any time, however full the spool is: the record that settles each held batch,
//! two heads of segments (one for a failure, one for a restart), and, beside batches, a part of the cap
//! for changes of the state, whose segments are recycled as soon as they have grown. Lines leave a further
//! part to what cannot be read again. What must fit on a disk that is full is in `room.rs`.

use crate::record::Stream;

use crate::mutant::{Mutant, is_on};

use super::disk::Disk;
use super::format::BatchMeta;
use super::{
    BODY_BYTES_MAX, BYTES_MAX_FLOOR, LABEL_BYTES_MAX, NewBatch, Options, Spool, UNCOMMITTED_BYTES_MAX,
};

/// An entry without batches and changes; more than it takes, padding included.
pub(super) const ENTRY_OVERHEAD_BYTES: u64 = 320;
/// A batch's numbers in an entry and the lengths of its labels.
const META_BYTES: u64 = 72;
/// The heads of a segment besides the state and the list of older segments; more than they take.
const HEAD_OVERHEAD_BYTES: u64 = 1024;
const OLDER_BYTES: u64 = 16;
const HOLE_BYTES: u64 = 24;
/// A seal may begin a block of its own.
const SEAL_BYTES: u64 = BLOCK_BYTES;
/// Files take whole blocks of this size.
const BLOCK_BYTES: u64 = 4096;
/// The part of the cap that batches never take.
const STATE_ROOM_DIVISOR: u64 = 16;
/// The part of the cap that lines and their summaries leave to records that cannot be read again.
const SAMPLES_ROOM_DIVISOR: u64 = 32;
/// A segment without batches is left for a new one once it has grown by this part of the cap.
const RECYCLE_DIVISOR: u64 = 32;
/// Segments are at most this part of the cap, so that delivery frees room soon.
const SEGMENT_DIVISOR: u64 = 8;
/// Segments are at least this part of the cap, so that their list stays short.
const SEGMENTS_MAX: u64 = 4096;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// One batch takes at most this part of the cap.
const BATCH_DIVISOR: u64 = 4;

/// What wants room. The later ones leave a part of the cap to the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// Changes of the state, settlements, the halves of a batch.
    State,
    /// Records that cannot be read again: host samples and events.
    Samples,
    /// Lines, which can wait in their files, and their summaries.
    Lines,
}

impl Want {
    /// What a record with this batch, or none, wants.
    pub(super) fn of(batch: Option<&NewBatch>) -> Want {
        match batch.map(|batch| batch.stream) {
            None => Want::State,
            Some(Stream::HostMetrics | Stream::Events) => Want::Samples,
            Some(_) => Want::Lines,
        }
    }
}

/// Options that agree with each other.
pub(super) fn bounded(mut options: Options) -> Options {
    options.bytes_max = options.bytes_max.max(BYTES_MAX_FLOOR);
    let (low, high) = (options.bytes_max / SEGMENTS_MAX, options.bytes_max / SEGMENT_DIVISOR);
    options.segment_bytes = options.segment_bytes.max(low).min(high).min(SEGMENT_BYTES_MAX);
    options
}

/// The longest body of a batch.
pub(super) fn batch_bytes_max(options: &Options) -> u64 {
    BODY_BYTES_MAX.min(options.bytes_max / BATCH_DIVISOR)
}

/// What a batch adds to an entry.
pub(super) fn batch_record_bytes(batch: &NewBatch) -> u64 {
    META_BYTES + label_bytes(batch) as u64 + batch.body.len() as u64
}

/// The same of one that has its number already.
pub(super) fn meta_record_bytes(meta: &BatchMeta) -> u64 {
    let labels = &meta.labels;
    let texts = [&labels.category, &labels.name, &labels.host, &labels.fields];
    META_BYTES + texts.iter().map(|text| text.len() as u64).sum::<u64>() + u64::from(meta.body_len)
}

fn label_bytes(batch: &NewBatch) -> usize {
    let labels = &batch.labels;
    labels.category.len() + labels.name.len() + labels.host.len() + labels.fields.len()
}

/// Bytes on the disk of a file of this length.
pub(super) fn blocks(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_BYTES)
}

impl<D: Disk> Spool<D> {
    pub(super) fn fits_ever(&self, batch: &NewBatch) -> bool {
        batch.body.len() as u64 <= self.batch_bytes_max() && label_bytes(batch) <= LABEL_BYTES_MAX
    }

    /// Bytes of all files.
    pub(super) fn used_bytes(&self) -> u64 {
        let older: u64 = self.segments.iter().map(|segment| segment.allocated).sum();
        let current = self.current.as_ref().map_or(0, |current| current.segment.allocated);
        let reserve = self.reserve.map_or(0, |(_, bytes)| bytes);
        older + current + reserve + self.quarantine.bytes()
    }

    /// Whether `bytes` more may wait in the queue, `batches` more be held, and the state grow to
    /// `state_bytes`.
    pub(super) fn admits(&self, bytes: u64, batches: u64, state_bytes: u64, want: Want) -> bool {
        if self.queue_bytes + bytes > UNCOMMITTED_BYTES_MAX {
            return false;
        }
        if want > Want::State && self.options.free_bytes_min > 0 {
            // A file system that does not tell cannot be spared.
            let free = self.disk.free_bytes().unwrap_or(u64::MAX);
            if free < self.options.free_bytes_min.saturating_add(self.queue_bytes + bytes) {
                return false;
            }
        }
        let after = self.bytes_after(self.queue_bytes + bytes, self.queued.batches + batches > 0);
        let state_room = self.options.bytes_max / STATE_ROOM_DIVISOR;
        let left_free = match want {
            Want::State => 0,
            Want::Samples => state_room,
            Want::Lines => state_room + self.options.bytes_max / SAMPLES_ROOM_DIVISOR,
        };
        after + self.promised_bytes(batches, state_bytes) + left_free <= self.options.bytes_max
            || is_on(Mutant::IgnoresCap)
    }

    /// Bytes that must stay free for what is held and `batches` more, and for two heads.
    fn promised_bytes(&self, batches: u64, state_bytes: u64) -> u64 {
        let held = self.held.batches + self.queued.batches + batches;
        2 * blocks(self.head_bytes(state_bytes)) + SEAL_BYTES + held * ENTRY_OVERHEAD_BYTES
    }

    /// The heads of a segment, and what is set aside behind them.
    fn head_bytes(&self, state_bytes: u64) -> u64 {
        HEAD_OVERHEAD_BYTES
            + OLDER_BYTES * (self.segments.len() as u64 + 1)
            + HOLE_BYTES * self.segments.iter().map(|segment| segment.holes.len() as u64).sum::<u64>()
            + state_bytes
            + self.verdict_bytes()
    }

    /// Bytes of all files once a queue of this size is written.
    fn bytes_after(&self, queue_bytes: u64, with_batch: bool) -> u64 {
        let used = self.used_bytes();
        match &self.current {
            Some(current) if !self.wants_roll(queue_bytes, with_batch) => {
                let grown = blocks(current.segment.valid_len + queue_bytes + self.verdict_bytes());
                used + grown.saturating_sub(current.segment.allocated)
            }
            _ => {
                let reserved = self.reserve.map_or(0, |(_, bytes)| bytes);
                let new = blocks(self.head_bytes(self.durable.state_bytes) + queue_bytes);
                used + new.saturating_sub(reserved)
            }
        }
    }

    /// Whether the queue goes to a new segment.
    pub(super) fn should_roll(&self) -> bool {
        self.wants_roll(self.queue_bytes, self.queued.batches > 0)
            && self.bytes_after(self.queue_bytes, self.queued.batches > 0)
                + self.promised_bytes(0, self.durable.state_bytes)
                - blocks(self.head_bytes(self.durable.state_bytes))
                <= self.options.bytes_max
    }

    fn wants_roll(&self, queue_bytes: u64, with_batch: bool) -> bool {
        let Some(current) = &self.current else { return true };
        let data = current.segment.valid_len - current.head_len;
        if data == 0 {
            return false;
        }
        let recycled = current.segment.seq_last == 0
            && data >= self.options.segment_bytes.min(self.options.bytes_max / RECYCLE_DIVISOR);
        // While the spool is full, changes of the state go to a segment that can be recycled.
        let parted = self.full && !with_batch && current.segment.seq_last > self.next.settled;
        recycled || parted || data + queue_bytes > self.options.segment_bytes
    }

    /// Whether a segment may be set aside for the future.
    pub(super) fn admits_reserve(&self) -> bool {
        let bytes = blocks(self.options.segment_bytes);
        let state_room = self.options.bytes_max / STATE_ROOM_DIVISOR;
        let free = self.disk.free_bytes().unwrap_or(u64::MAX);
        self.used_bytes() + bytes + self.promised_bytes(0, self.durable.state_bytes) + state_room
            <= self.options.bytes_max
            && free >= self.options.free_bytes_min.saturating_add(bytes)
    }

    /// Bytes that the quarantine may take now.
    pub(super) fn quarantine_room(&self) -> u64 {
        let taken = self.used_bytes() - self.quarantine.bytes()
            + blocks(self.queue_bytes)
            + self.promised_bytes(0, self.durable.state_bytes)
            + self.options.bytes_max / STATE_ROOM_DIVISOR;
        self.options.bytes_max.saturating_sub(taken)
    }
}
