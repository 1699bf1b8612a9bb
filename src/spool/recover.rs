//! Reads a spool's segments after a start, clean or not.
//!
//! Owns: the verdict on every byte: valid, torn by a crash, or rotten. Must never: write to a segment.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use crate::record::{Loss, LossReason};

use super::disk::{Disk, FileInfo};
use super::doubt;
use super::format::{
    BatchMeta, DecodeError, Entry, HEADER_BYTES, Header, Kind, Prelude, SegmentHead, Totals,
    decode_checkpoint, is_intact,
};
use super::unread::{Hole, Marks, Refused, Unread, is_device_error};
use super::walk::{Record, SEGMENT_NUMBER_MAX, Step, Walker, read, segment_name, segment_number};
use super::words::Sums;
use super::{AgentId, DAMAGED_RANGES_MAX, DamagedRange, OpenError, Recovery, StateChange};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Bytes that a key and a value take in a checkpoint besides their own.
const CHANGE_OVERHEAD_BYTES: u64 = 9;

/// Everything that the log says, as of one record.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) tally: Tally,
    pub(super) state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of the state in a checkpoint.
    pub(super) state_bytes: u64,
}

/// The absolute numbers of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The last batch put in.
    pub(super) seq: u64,
    /// Lines of all batches put in.
    pub(super) lines: u64,
    /// The last batch that needs no delivery any more, nor any before it.
    pub(super) settled: u64,
    pub(super) totals: Totals,
}

impl Image {
    pub(super) fn change(&mut self, changes: Vec<StateChange>) {
        for (key, value) in changes {
            let key_bytes = key.len() as u64 + CHANGE_OVERHEAD_BYTES;
            let (added, before) = match value {
                Some(value) => (key_bytes + value.len() as u64, self.state.insert(key, value)),
                None => (0, self.state.remove(&key)),
            };
            let removed = before.map_or(0, |before| key_bytes + before.len() as u64);
            self.state_bytes = self.state_bytes + added - removed;
        }
    }
}

/// The most that changes can add to a checkpoint.
pub(super) fn change_bytes(changes: &[StateChange]) -> u64 {
    changes
        .iter()
        .filter_map(|(key, value)| Some(CHANGE_OVERHEAD_BYTES + (key.len() + value.as_ref()?.len()) as u64))
        .sum()
}

/// A segment that is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its place in the log, by its first record.
    pub(super) number: u64,
    /// The number in its file name: the same, unless somebody moved the file.
    pub(super) file: u64,
    /// Bytes from its start that count.
    pub(super) valid_len: u64,
    /// Bytes from its start that are durable for certain: less than those that count only while `salvaged`.
    pub(super) sure_len: u64,
    /// Bytes it takes on the disk.
    pub(super) allocated: u64,
    pub(super) nonce: Option<u64>,
    /// The last batch in it; 0 for none.
    pub(super) seq_last: u64,
    /// Its batches are being written anew elsewhere; it goes once that is durable.
    pub(super) salvaged: bool,
    /// How it is read where the device gives no bytes.
    pub(super) unread: Unread,
    /// What was given up, where nobody reads any more.
    pub(super) holes: Vec<Hole>,
}

/// What a start found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) agent: Option<AgentId>,
    pub(super) epoch: u64,
    pub(super) image: Image,
    pub(super) segments: Vec<Segment>,
    pub(super) held: Sums,
    /// Highest number of any segment file, used or not.
    pub(super) number_max: u64,
    /// Files behind the newest first record that can be read. Each may be all that is left of a start.
    pub(super) traces: u64,
    /// Files that hold nothing: reserved segments, removed ones that came back, failed starts.
    pub(super) stale: Vec<String>,
    /// Batches to be written anew, since their segment could not be made durable.
    pub(super) salvage: Vec<(BatchMeta, Vec<u8>)>,
    pub(super) recovery: Recovery,
    /// Files that failed starts left, to be removed once this one is durable.
    pub(super) marks: Vec<String>,
    damaged_bytes: u64,
    seq_seen: u64,
}

/// A segment file and what its first record says.
pub(super) struct Found {
    /// Its place in the log: by its first record, or else by its name.
    pub(super) number: u64,
    /// The number in its name.
    pub(super) file: u64,
    pub(super) info: FileInfo,
    nonce: Option<u64>,
    head: Option<SegmentHead>,
}

/// How far the newest segment counts.
struct End {
    offset: u64,
    /// Bytes that a later record says were durable.
    known: u64,
    /// Whether what follows cannot come from a torn write.
    is_rotten: bool,
}

/// Why a start fails.
pub(super) enum Failure {
    /// A segment could not be read, which says nothing of its bytes yet.
    Read(Refused),
    Other(OpenError),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        Failure::Other(error)
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> OpenError {
        match failure {
            Failure::Read(Refused { file, error }) => {
                OpenError::io(format!("read {}", segment_name(file)), error)
            }
            Failure::Other(error) => error,
        }
    }
}

/// Reads all segments. Only the last one is made durable on the way, and none is changed.
pub(super) fn recover<D: Disk>(disk: &mut D) -> Result<Recovered, OpenError> {
    let marks = Marks::find(disk).map_err(|e| OpenError::io("list the spool", e))?;
    match read_all(disk, &marks) {
        Ok(log) => Ok(Recovered { marks: marks.into_names(), ..log }),
        Err(Failure::Read(Refused { file, error })) => {
            if is_device_error(&error) {
                marks.leave(disk, file);
            }
            Err(Failure::Read(Refused { file, error: marks.describe(file, error) }).into())
        }
        Err(Failure::Other(error)) => Err(error),
    }
}

fn read_all<D: Disk>(disk: &mut D, marks: &Marks) -> Result<Recovered, Failure> {
    let found = find(disk, |file| marks.reading(file))?;
    let newest = found.iter().rev().find_map(|found| found.head.clone());
    let mut log = Recovered::default();
    let mut first_seqs = Vec::new();
    for Found { number, file, info, nonce, head } in found {
        log.number_max = log.number_max.max(number).max(file);
        let is_behind = newest.as_ref().is_none_or(|newest| newest.number < number.max(file));
        // An empty file that takes space was set aside and never written to.
        log.traces += u64::from(is_behind && (info.len > 0 || info.allocated == 0));
        if head.is_some() && log.segments.iter().any(|s| s.number == number && s.nonce == nonce) {
            // The same segment once more, under another name.
            log.damage(file, 0, info.len, Unread::Fails);
            log.stale.push(info.name);
            continue;
        }
        let valid = newest.as_ref().filter(|newest| number < newest.number).map(|newest| {
            newest.older.iter().find(|(older, _)| *older == number).map_or(0, |(_, valid_len)| *valid_len)
        });
        if info.len == 0 || valid == Some(0) {
            log.stale.push(info.name);
            continue;
        }
        let (valid_len, sure_len) = match valid {
            Some(valid_len) => (valid_len, valid_len),
            None => {
                let end = durable_end(disk, file, info.len, marks.reading(file))
                    .map_err(|error| Failure::Read(Refused { file, error }))?;
                log.leave_tail(file, info.len, &end, marks.reading(file));
                (end.offset, end.known.min(end.offset))
            }
        };
        let mut segment = Segment {
            number,
            file,
            valid_len: valid_len.min(info.len),
            sure_len: sure_len.min(info.len),
            allocated: info.allocated,
            nonce: None,
            seq_last: 0,
            salvaged: valid.is_none(),
            unread: marks.reading(file),
            holes: newest.as_ref().map_or_else(Vec::new, |newest| newest.holes_of(number)),
        };
        if valid_len > info.len {
            log.damage(file, info.len, valid_len - info.len, Unread::Fails);
        }
        let seen_before = log.seq_seen;
        log.fold(disk, &mut segment)?;
        first_seqs.push(seen_before);
        log.segments.push(segment);
    }
    log.count_held(disk, &first_seqs)?;
    log.reconcile();
    log.settle_suspects(disk)?;
    log.stale.extend(doubt::leftovers(disk)?);
    log.recovery.segments = log.segments.len() as u64;
    log.recovery.batches = log.held.batches;
    log.recovery.lines = log.held.lines;
    Ok(log)
}

/// All segments in the order of the log, each with its first record where that is whole.
pub(super) fn find<D: Disk>(disk: &D, reading: impl Fn(u64) -> Unread) -> Result<Vec<Found>, Failure> {
    let files = disk.list().map_err(|e| OpenError::io("list the spool", e))?;
    let mut found = Vec::new();
    for info in files {
        let Some(file) = segment_number(&info.name) else { continue };
        let mut walker = Walker::new(disk, file, info.len, reading(file));
        let step = walker.step().map_err(|error| Failure::Read(Refused { file, error }))?;
        let head = match step {
            Step::Record(record) => match understood(&info.name, record.header.kind())? {
                Some(Some(Kind::Segment)) => understood(&info.name, SegmentHead::decode(&record.head))?,
                _ => None,
            },
            _ => None,
        };
        let head = head.filter(|head| head.number <= SEGMENT_NUMBER_MAX);
        let number = head.as_ref().map_or(file, |head| head.number);
        found.push(Found { number, file, info, nonce: walker.nonce(), head });
    }
    // Of two under one number, the one that bears it in its name comes first.
    found.sort_by_key(|found| (found.number, found.number != found.file, found.file));
    Ok(found)
}

/// Newer is an error of its own; damage is not.
fn understood<T>(name: &str, decoded: Result<T, DecodeError>) -> Result<Option<T>, OpenError> {
    match decoded {
        Ok(value) => Ok(Some(value)),
        Err(DecodeError::Damaged) => Ok(None),
        Err(DecodeError::Newer) => Err(OpenError::NewerFormat { name: name.to_owned() }),
    }
}

/// Where the valid part of a segment ends that nobody has passed a verdict on: at the first damage
/// that is not known to have been durable. Damage that no torn write leaves, with a whole record behind
/// it, is not the end: it costs what it hit.
fn durable_end<D: Disk>(disk: &D, file: u64, len: u64, unread: Unread) -> io::Result<End> {
    let mut known = 0;
    let mut walker = Walker::new(disk, file, len, unread);
    loop {
        match walker.step()? {
            Step::Record(Record { header, .. }) => known = known.max(u64::from(header.durable_len)),
            Step::Damaged { .. } => {}
            Step::End => break,
        }
    }
    let mut walker = Walker::new(disk, file, len, unread);
    let mut rotten = None;
    loop {
        let damaged = match walker.step()? {
            Step::End => {
                let offset = rotten.unwrap_or(walker.offset());
                return Ok(End { offset, known, is_rotten: rotten.is_some() });
            }
            Step::Record(record) => match bodies_intact(disk, file, &record, unread)? {
                true => {
                    rotten = None;
                    continue;
                }
                false => record.offset,
            },
            Step::Damaged { offset, .. } => offset,
        };
        if damaged < known {
            continue;
        }
        if may_be_torn(disk, file, damaged..walker.offset(), len, unread)? {
            return Ok(End { offset: rotten.unwrap_or(damaged), known, is_rotten: false });
        }
        rotten = rotten.or(Some(damaged));
    }
}

/// Whether a crash may have left a damaged record like that: cut at the end of the file, or with a sector
/// that never reached the disk and so reads as zeros. Bytes that are all there and wrong are bit rot.
fn may_be_torn<D: Disk>(
    disk: &D,
    file: u64,
    damaged: Range<u64>,
    len: u64,
    unread: Unread,
) -> io::Result<bool> {
    let Range { start: from, end: to } = damaged;
    let name = segment_name(file);
    let header = read(disk, &name, from, HEADER_BYTES as u64, unread)?;
    let is_cut = match Header::decode(&header) {
        Some(header) => from + header.record_len() > len,
        None => header.len() < HEADER_BYTES,
    };
    if is_cut {
        return Ok(true);
    }
    let mut at = from;
    while at < to {
        let end = (at + 1).next_multiple_of(SECTOR_BYTES).min(to);
        let sector = read(disk, &name, at, end - at, unread)?;
        if sector.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        at = end;
    }
    Ok(false)
}

fn bodies_intact<D: Disk>(disk: &D, number: u64, record: &Record, unread: Unread) -> io::Result<bool> {
    if record.header.kind() != Ok(Some(Kind::Entry)) {
        return Ok(true);
    }
    let Ok(entry) = Entry::decode(&record.head, record.header.body_len) else { return Ok(true) };
    for (offset, meta) in bodies(record.offset, &record.header, &entry) {
        if read_body(disk, number, offset, meta, unread)?.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The batches of an entry, each with the offset of its body in the segment.
pub(super) fn bodies<'a>(
    record_offset: u64,
    header: &Header,
    entry: &'a Entry,
) -> impl Iterator<Item = (u64, &'a BatchMeta)> {
    let start = record_offset + header.body_offset();
    entry.batches.iter().scan(start, |offset, meta| {
        let at = *offset;
        *offset += u64::from(meta.body_len);
        Some((at, meta))
    })
}

/// A batch's body; the inner error holds what could be read of a damaged one.
pub(super) fn read_body<D: Disk>(
    disk: &D,
    number: u64,
    offset: u64,
    meta: &BatchMeta,
    unread: Unread,
) -> io::Result<Result<Vec<u8>, Vec<u8>>> {
    let body = read(disk, &segment_name(number), offset, u64::from(meta.body_len), unread)?;
    let intact = body.len() as u64 == u64::from(meta.body_len) && is_intact(&body, meta.body_crc);
    Ok(if intact { Ok(body) } else { Err(body) })
}

impl Recovered {
    /// Replays one segment; the order of segments is the order of the log.
    fn fold<D: Disk>(&mut self, disk: &D, segment: &mut Segment) -> Result<(), Failure> {
        let file = segment.file;
        let name = segment_name(file);
        let whole = segment.clone();
        let mut walker = Walker::over(disk, &whole, 0);
        let mut damaged = Vec::new();
        loop {
            match walker.step().map_err(|error| Failure::Read(Refused { file, error }))? {
                Step::Record(record) => self.apply(&name, &record, segment)?,
                Step::Damaged { offset, bytes } => {
                    self.damage(file, offset, bytes, segment.unread);
                    damaged.push((offset, bytes));
                }
                Step::End => break,
            }
        }
        segment.nonce = walker.nonce();
        if segment.unread == Unread::Zeros {
            // Its batches are counted as lost, so it must stay so, whatever the device says another time.
            segment.holes = damaged;
        }
        Ok(())
    }

    fn apply(&mut self, name: &str, record: &Record, segment: &mut Segment) -> Result<(), OpenError> {
        let tally = &mut self.image.tally;
        tally.seq = tally.seq.max(record.header.seq);
        tally.lines = tally.lines.max(record.header.lines);
        match understood(name, record.header.kind())?.flatten() {
            Some(Kind::Segment) => {
                if let Some(head) = understood(name, SegmentHead::decode(&record.head))? {
                    self.prelude(head.prelude);
                }
            }
            Some(Kind::Checkpoint) => {
                if let Some((prelude, state)) = understood(name, decode_checkpoint(&record.head))? {
                    self.prelude(prelude);
                    self.image.state.clear();
                    self.image.state_bytes = 0;
                    self.image.change(state);
                }
            }
            Some(Kind::Entry) => {
                if let Some(entry) = understood(name, Entry::decode(&record.head, record.header.body_len))? {
                    self.entry(entry, segment);
                }
            }
            Some(Kind::Seal) | None => {}
        }
        Ok(())
    }

    fn prelude(&mut self, prelude: Prelude) {
        self.agent = Some(prelude.agent);
        self.epoch = self.epoch.max(prelude.epoch);
        self.image.tally.settled = prelude.settled;
        self.image.tally.totals = prelude.totals;
    }

    fn entry(&mut self, entry: Entry, segment: &mut Segment) {
        self.image.tally.settled = entry.settled;
        self.image.tally.totals = entry.totals;
        for meta in &entry.batches {
            self.epoch = self.epoch.max(meta.epoch);
            self.image.tally.seq = self.image.tally.seq.max(meta.seq);
            // A batch written twice, since its first segment was in doubt, counts where it stands first.
            if meta.seq > self.seq_seen {
                self.seq_seen = meta.seq;
                segment.seq_last = meta.seq;
            }
        }
        self.image.change(entry.changes);
    }

    fn damage(&mut self, segment: u64, offset: u64, bytes: u64, unread: Unread) {
        self.damaged_bytes += bytes;
        if self.recovery.damaged.len() < DAMAGED_RANGES_MAX {
            let unread = unread == Unread::Zeros;
            self.recovery.damaged.push(DamagedRange { segment, offset, bytes, unread });
        }
    }

    /// Leaves out what stands behind the end. Rot is counted, with its bytes only: the lines in it count
    /// as never put in, and are read again, since the state went back too.
    fn leave_tail(&mut self, file: u64, len: u64, end: &End, unread: Unread) {
        let bytes = len - end.offset;
        self.recovery.torn_tail_bytes += bytes;
        if end.is_rotten {
            self.recovery.rotten_tail_bytes += bytes;
            self.damage(file, end.offset, bytes, unread);
        }
    }

    /// Counts the batches that are still to be delivered; only now is it known which those are.
    fn count_held<D: Disk>(&mut self, disk: &D, seen_before: &[u64]) -> Result<(), Failure> {
        let settled = self.image.tally.settled;
        for (segment, seen_before) in self.segments.iter().zip(seen_before) {
            if segment.seq_last <= settled {
                continue;
            }
            let after = settled.max(*seen_before);
            each_batch(disk, segment, after, |_, meta| {
                self.held.add(meta.sums());
                Ok(())
            })
            .map_err(|error| Failure::Read(Refused { file: segment.file, error }))?;
        }
        Ok(())
    }

    /// What was put in and is neither delivered, lost, split nor held was damaged.
    fn reconcile(&mut self) {
        let Tally { seq, lines, settled, totals } = &mut self.image.tally;
        // A number that is settled was given: none is given twice.
        *seq = (*seq).max(*settled);
        let known_batches =
            totals.delivered.batches + totals.dropped_batches + totals.split_batches + self.held.batches;
        let known_lines = totals.delivered.lines + totals.dropped_lines + self.held.lines;
        let batches = seq.saturating_sub(known_batches);
        let loss = Loss { lines: lines.saturating_sub(known_lines), bytes: self.damaged_bytes };
        if batches > 0 || loss.lines > 0 || self.recovery.rotten_tail_bytes > 0 {
            totals.drop_batches(LossReason::Corrupted, batches, loss);
            self.recovery.lost.push((LossReason::Corrupted, loss));
        }
    }
}

/// Calls `visit` with each batch of a segment after a number, and its body's offset.
pub(super) fn each_batch<D: Disk>(
    disk: &D,
    segment: &Segment,
    after: u64,
    mut visit: impl FnMut(u64, BatchMeta) -> io::Result<()>,
) -> io::Result<()> {
    let mut last = after;
    let mut walker = Walker::over(disk, segment, 0);
    loop {
        match walker.step()? {
            Step::Record(record) if record.header.kind() == Ok(Some(Kind::Entry)) => {
                let Ok(entry) = Entry::decode(&record.head, record.header.body_len) else { continue };
                for (offset, meta) in bodies(record.offset, &record.header, &entry) {
                    if meta.seq > last {
                        last = meta.seq;
                        visit(offset, meta.clone())?;
                    }
                }
            }
            Step::Record(_) | Step::Damaged { .. } => {}
            Step::End => return Ok(()),
        }
    }
}

impl BatchMeta {
    pub(super) fn sums(&self) -> Sums {
        Sums { batches: 1, records: u64::from(self.records), lines: self.lines }
    }
}

impl Totals {
    /// Counts batches that had been appended as lost.
    pub(super) fn drop_batches(&mut self, reason: LossReason, batches: u64, loss: Loss) {
        self.dropped_batches += batches;
        self.dropped_lines += loss.lines;
        self.lose(reason, loss);
    }

    /// Counts a loss.
    pub(super) fn lose(&mut self, reason: LossReason, loss: Loss) {
        let sum = self.lost.entry(reason.code()).or_default();
        sum.lines = sum.lines.saturating_add(loss.lines);
        sum.bytes = sum.bytes.saturating_add(loss.bytes);
    }
}
