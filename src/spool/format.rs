//! The format of the spool's files, byte by byte. Pure: bytes to values and back, no I/O.
//!
//! A spool is a folder of segments, `seg-<number, 16 hex digits>.log`. Together, in the order of their
//! numbers, they are one log. A segment is a row of records, each 8-byte aligned; all numbers are
//! little endian.
//!
//! ```text
//! record   0  magic        u32   "WPSL"
//!          4  kind         u8    1 SEGMENT  2 CHECKPOINT  3 ENTRY  4 SEAL
//!          5  flags        u8    bit 0: a reader that does not know the kind may skip it
//!          6  version      u16   of this header: 1
//!          8  nonce        u64   one per segment: bytes of another, removed file never pass for ours
//!         16  seq          u64   of the last batch in the log, this record included
//!         24  lines        u64   log lines of all batches ever put in the log, this record included
//!         32  durable_len  u32   bytes of this segment that were durable when this record was written
//!         36  head_len     u32
//!         40  body_len     u32
//!         44  head_crc     u32   CRC-32 (IEEE) of the head
//!         48  reserved     u32   0
//!         52  header_crc   u32   CRC-32 (IEEE) of bytes 0..52
//!         56  head               what the record says
//!             body               the batches' bodies, end to end; checked by `body_crc` of each batch
//!             0..7 zero bytes up to the next multiple of 8
//!
//! bytes    u32 length, then that many bytes
//! prelude  agent 16 bytes | epoch u64 | settled u64 | totals
//! totals   delivered: batches u64 | records u64 | lines u64 | bytes u64 | raw_bytes u64
//!          dropped: batches u64 | lines u64 | split batches u64
//!          count u8, then for each: reason u8 | lines u64 | bytes u64
//! change   key bytes | 0 u8 (removed)  or  key bytes | 1 u8 | value bytes
//!
//! SEGMENT     format u16 | min_reader u16 | number u64 | created_ms i64 | prelude
//!             | count u32, then for each older segment: number u64 | valid_len u64
//!             | nothing, or: count u32, then for each hole: number u64 | offset u64 | bytes u64
//! CHECKPOINT  prelude | count u32 | changes: the whole state
//! ENTRY       settled u64 | totals
//!             | count u16, then for each batch: epoch u64 | seq u64 | stream u8 | created_ms i64
//!               | lines u64 | records u32 | raw_bytes u32 | body_len u32 | body_crc u32
//!               | category bytes | name bytes | host bytes | fields bytes
//!             | count u32 | changes
//! SEAL        empty
//! ```
//!
//! Invariant: `settled` and `totals` are absolute in every record, so that any later record makes good
//! what a damaged one said. `settled` = all batches up to this seq were delivered, lost or split.
//! Invariant: batches stand in the log by rising seq, with no gap; a gap is a damaged record.
//! Invariant: `totals` and `seq`, `lines` balance: what is in neither is held.
//!
//! Why `durable_len`: damage below it is bit rot, since it had been on disk; damage at or above the
//! highest one is taken for a write that a crash cut short, and everything from there on was never promised.
//! Rot there can be told apart where the record is whole and no sector of it is zero: with a whole record
//! behind it, it is damage like any other; at the very end the log goes back to before it, and says so.
//! Why a list of older segments: it says what of them is valid, which a segment whose last write failed
//! cannot say itself, and it makes a missing one visible.
//! Why a list of holes: what a device refused to give for too long was counted as lost, and must not count once
//! more should it come back. A reader that does not know the list stops before it.

use std::collections::BTreeMap;

use crate::record::{EpochMs, Loss, Stream};

use super::{AgentId, Delivered, Labels, StateChange};

/// The format that this release writes.
pub(super) const FORMAT: u16 = 1;
/// The oldest format whose reader understands what this release writes.
pub(super) const MIN_READER: u16 = 1;
/// Bytes of a record's header.
pub(super) const HEADER_BYTES: usize = 56;
/// No record is longer; a length above it is damage.
pub(super) const RECORD_BYTES_MAX: u64 = 32 << 20;
/// Records begin at multiples of this.
pub(super) const ALIGN_BYTES: u64 = 8;
/// No spool lives to count so far. A greater number is damage, whatever its checksum says, so that sums stay sums.
pub(super) const COUNT_MAX: u64 = 1 << 48;
/// The first bytes of every record.
pub(super) const MAGIC: [u8; 4] = *b"WPSL";

const HEADER_VERSION: u16 = 1;
const FLAG_IGNORABLE: u8 = 1;

/// Whether bytes are those that were written: the only place where a checksum is compared.
pub(super) fn is_intact(bytes: &[u8], crc: u32) -> bool {
    #[cfg(test)]
    if super::tests::blind::is_on() {
        return true;
    }
    crc32fast::hash(bytes) == crc
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Segment = 1,
    Checkpoint = 2,
    Entry = 3,
    Seal = 4,
}

/// Why bytes with a right checksum were not understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// They contradict the format.
    Damaged,
    /// A newer release wrote them.
    Newer,
}

/// The parts of a record's header that differ from record to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    kind_code: u8,
    flags: u8,
    version: u16,
    pub(super) nonce: u64,
    pub(super) seq: u64,
    pub(super) lines: u64,
    pub(super) durable_len: u32,
    pub(super) head_len: u32,
    pub(super) body_len: u32,
    pub(super) head_crc: u32,
}

impl Header {
    /// The header of 56 bytes, or `None` where the magic, the checksum or a length is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let (covered, crc) = bytes.split_at(HEADER_BYTES - 4);
        let crc = u32::from_le_bytes(crc.try_into().ok()?);
        if covered[..4] != MAGIC || !is_intact(covered, crc) {
            return None;
        }
        let mut reader = Reader(&covered[4..]);
        let header = Header {
            kind_code: reader.u8()?,
            flags: reader.u8()?,
            version: reader.u16()?,
            nonce: reader.u64()?,
            seq: reader.count()?,
            lines: reader.count()?,
            durable_len: reader.u32()?,
            head_len: reader.u32()?,
            body_len: reader.u32()?,
            head_crc: reader.u32()?,
        };
        (header.record_len() <= RECORD_BYTES_MAX).then_some(header)
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[self.kind_code, self.flags]);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        for number in [self.nonce, self.seq, self.lines] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.durable_len, self.head_len, self.body_len, self.head_crc, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above add up to the header's length")
    }

    /// What kind of record this is; `Ok(None)` is one to skip.
    pub(super) fn kind(&self) -> Result<Option<Kind>, DecodeError> {
        let known = [Kind::Segment, Kind::Checkpoint, Kind::Entry, Kind::Seal];
        match known.into_iter().find(|kind| *kind as u8 == self.kind_code) {
            Some(kind) if self.version == HEADER_VERSION => Ok(Some(kind)),
            _ if self.flags & FLAG_IGNORABLE != 0 => Ok(None),
            _ => Err(DecodeError::Newer),
        }
    }

    /// Bytes from this record to the next.
    pub(super) fn record_len(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.head_len) + u64::from(self.body_len))
            .next_multiple_of(ALIGN_BYTES)
    }

    /// Bytes from the start of the record to its body.
    pub(super) fn body_offset(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.head_len)
    }
}

/// What a record says about its place in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) nonce: u64,
    pub(super) seq: u64,
    pub(super) lines: u64,
    pub(super) durable_len: u64,
}

/// One whole record, padded.
pub(super) fn encode_record(kind: Kind, stamp: Stamp, head: &[u8], body: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("records are bounded before they are made");
    let header = Header {
        kind_code: kind as u8,
        flags: if kind == Kind::Seal { FLAG_IGNORABLE } else { 0 },
        version: HEADER_VERSION,
        nonce: stamp.nonce,
        seq: stamp.seq,
        lines: stamp.lines,
        durable_len: u32::try_from(stamp.durable_len).unwrap_or(u32::MAX),
        head_len: length(head),
        body_len: length(body),
        head_crc: crc32fast::hash(head),
    };
    let record_len = header.record_len();
    let mut bytes = Vec::with_capacity(usize::try_from(record_len).unwrap_or(0));
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    while !(bytes.len() as u64).is_multiple_of(ALIGN_BYTES) {
        bytes.push(0);
    }
    bytes
}

/// What became of all batches and lines so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) delivered: Delivered,
    /// Batches that had been appended and were lost, and their lines; their causes are in `lost` too.
    pub(super) dropped_batches: u64,
    pub(super) dropped_lines: u64,
    /// Batches that were replaced by smaller ones.
    pub(super) split_batches: u64,
    /// By the code of the reason, so that one which a newer release counted is kept.
    pub(super) lost: BTreeMap<u8, Loss>,
}

/// What the head of a segment says of the log as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prelude {
    pub(super) agent: AgentId,
    pub(super) epoch: u64,
    pub(super) settled: u64,
    pub(super) totals: Totals,
}

/// The first record of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) number: u64,
    pub(super) created_ms: EpochMs,
    pub(super) prelude: Prelude,
    /// Older segments that still matter: number and how many bytes of each are valid.
    pub(super) older: Vec<(u64, u64)>,
    /// What of them could not be read and was given up: number, offset and bytes.
    pub(super) holes: Vec<(u64, u64, u64)>,
}

/// A batch without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchMeta {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) stream: Stream,
    pub(super) created_ms: EpochMs,
    pub(super) lines: u64,
    pub(super) records: u32,
    pub(super) raw_bytes: u32,
    pub(super) body_len: u32,
    pub(super) body_crc: u32,
    pub(super) labels: Labels,
}

/// One atomic change of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) settled: u64,
    pub(super) totals: Totals,
    pub(super) batches: Vec<BatchMeta>,
    pub(super) changes: Vec<StateChange>,
}

impl SegmentHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&MIN_READER.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        self.prelude.encode(&mut out);
        put_count(&mut out, self.older.len());
        for (number, valid_len) in &self.older {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&valid_len.to_le_bytes());
        }
        if !self.holes.is_empty() {
            put_count(&mut out, self.holes.len());
        }
        for (number, offset, bytes) in &self.holes {
            [number, offset, bytes].into_iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
        out
    }

    pub(super) fn decode(head: &[u8]) -> Result<SegmentHead, DecodeError> {
        let mut reader = Reader(head);
        let _format = reader.u16().ok_or(DecodeError::Damaged)?;
        if reader.u16().ok_or(DecodeError::Damaged)? > FORMAT {
            return Err(DecodeError::Newer);
        }
        let mut rest = || {
            let (number, created_ms) = (reader.u64()?, reader.i64()?);
            let prelude = Prelude::decode(&mut reader)?;
            let mut older = Vec::new();
            for _ in 0..reader.u32()? {
                older.push((reader.u64()?, reader.count()?));
            }
            let mut holes = Vec::new();
            for _ in 0..if reader.0.is_empty() { 0 } else { reader.u32()? } {
                let hole = (reader.u64()?, reader.count()?, reader.count()?);
                // One without bytes would hold up whoever walks over it.
                holes.extend((hole.2 > 0).then_some(hole));
            }
            Some(SegmentHead { number, created_ms, prelude, older, holes })
        };
        rest().ok_or(DecodeError::Damaged)
    }

    /// The holes of one segment: offset and bytes.
    pub(super) fn holes_of(&self, number: u64) -> Vec<(u64, u64)> {
        let holes = self.holes.iter().filter(|(of, ..)| *of == number);
        holes.map(|(_, offset, bytes)| (*offset, *bytes)).collect()
    }
}

impl Prelude {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.agent.0);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.settled.to_le_bytes());
        self.totals.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Prelude> {
        Some(Prelude {
            agent: AgentId(reader.take(16)?.try_into().ok()?),
            epoch: reader.count()?,
            settled: reader.count()?,
            totals: Totals::decode(reader)?,
        })
    }
}

/// What is written can be read: a sum of numbers that damage made up may pass what counts as a number.
fn countable(number: u64) -> u64 {
    number.min(COUNT_MAX)
}

impl Totals {
    fn encode(&self, out: &mut Vec<u8>) {
        let sent = &self.delivered;
        let numbers = [sent.batches, sent.records, sent.lines, sent.bytes, sent.raw_bytes];
        for number in
            numbers.into_iter().chain([self.dropped_batches, self.dropped_lines, self.split_batches])
        {
            out.extend_from_slice(&countable(number).to_le_bytes());
        }
        out.push(u8::try_from(self.lost.len()).expect("reasons are numbered by a byte, from 1"));
        for (reason, loss) in &self.lost {
            out.push(*reason);
            out.extend_from_slice(&countable(loss.lines).to_le_bytes());
            out.extend_from_slice(&countable(loss.bytes).to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Totals> {
        let mut totals = Totals {
            delivered: Delivered {
                batches: reader.count()?,
                records: reader.count()?,
                lines: reader.count()?,
                bytes: reader.count()?,
                raw_bytes: reader.count()?,
            },
            dropped_batches: reader.count()?,
            dropped_lines: reader.count()?,
            split_batches: reader.count()?,
            lost: BTreeMap::new(),
        };
        for _ in 0..reader.u8()? {
            totals.lost.insert(reader.u8()?, Loss { lines: reader.count()?, bytes: reader.count()? });
        }
        Some(totals)
    }
}

/// The head of a CHECKPOINT: the prelude once more, and the whole state.
pub(super) fn encode_checkpoint(prelude: &Prelude, state: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    prelude.encode(&mut out);
    put_count(&mut out, state.len());
    for (key, value) in state {
        put_change(&mut out, key, Some(value));
    }
    out
}

/// Reads what [`encode_checkpoint`] wrote.
pub(super) fn decode_checkpoint(head: &[u8]) -> Result<(Prelude, Vec<StateChange>), DecodeError> {
    let mut reader = Reader(head);
    let mut all = || Some((Prelude::decode(&mut reader)?, reader.changes()?));
    all().ok_or(DecodeError::Damaged)
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.settled.to_le_bytes());
        self.totals.encode(&mut out);
        let count = u16::try_from(self.batches.len()).expect("batches of an entry are bounded");
        out.extend_from_slice(&count.to_le_bytes());
        for batch in &self.batches {
            batch.encode(&mut out);
        }
        put_count(&mut out, self.changes.len());
        for (key, value) in &self.changes {
            put_change(&mut out, key, value.as_deref());
        }
        out
    }

    /// The entry of a head; its bodies must fit the `body_len` of the record.
    pub(super) fn decode(head: &[u8], body_len: u32) -> Result<Entry, DecodeError> {
        let mut reader = Reader(head);
        let settled = reader.count().ok_or(DecodeError::Damaged)?;
        let totals = Totals::decode(&mut reader).ok_or(DecodeError::Damaged)?;
        let count = reader.u16().ok_or(DecodeError::Damaged)?;
        let mut batches = Vec::new();
        for _ in 0..count {
            batches.push(BatchMeta::decode(&mut reader)?);
        }
        let changes = reader.changes().ok_or(DecodeError::Damaged)?;
        if batches.iter().map(|batch| u64::from(batch.body_len)).sum::<u64>() > u64::from(body_len) {
            return Err(DecodeError::Damaged);
        }
        Ok(Entry { settled, totals, batches, changes })
    }
}

impl BatchMeta {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.push(self.stream.code());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.lines.to_le_bytes());
        for number in [self.records, self.raw_bytes, self.body_len, self.body_crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let labels = &self.labels;
        for label in [&labels.category, &labels.name, &labels.host, &labels.fields] {
            put_bytes(out, label.as_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<BatchMeta, DecodeError> {
        let mut identity = || Some((reader.count()?, reader.count()?, reader.u8()?));
        let (epoch, seq, stream) = identity().ok_or(DecodeError::Damaged)?;
        let stream = Stream::from_code(stream).ok_or(DecodeError::Newer)?;
        let mut rest = || {
            Some(BatchMeta {
                epoch,
                seq,
                stream,
                created_ms: reader.i64()?,
                lines: reader.count()?,
                records: reader.u32()?,
                raw_bytes: reader.u32()?,
                body_len: reader.u32()?,
                body_crc: reader.u32()?,
                labels: Labels {
                    category: reader.text()?,
                    name: reader.text()?,
                    host: reader.text()?,
                    fields: reader.text()?,
                },
            })
        };
        rest().ok_or(DecodeError::Damaged)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("lists are bounded before they are encoded");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_change(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    put_bytes(out, key);
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

/// Takes values off the front of bytes; `None` once they run out.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of batches, lines or bytes since the first start.
    fn count(&mut self) -> Option<u64> {
        self.u64().filter(|count| *count <= COUNT_MAX)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.u32()?).ok()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn changes(&mut self) -> Option<Vec<StateChange>> {
        let mut changes = Vec::new();
        for _ in 0..self.u32()? {
            let key = self.bytes()?.to_vec();
            let value = match self.u8()? {
                0 => None,
                _ => Some(self.bytes()?.to_vec()),
            };
            changes.push((key, value));
        }
        Some(changes)
    }
}
