//! Records to NDJSON to gzip, within the limits of a request.
//!
//! One [`Builder`] a stream. Invariant: the uncompressed bytes of a batch never pass `bytes_max`, and a
//! record is never split over two batches. Knows nothing of where a batch goes.

mod escape;
pub mod line;
mod member;
pub mod redact;

use member::Member;

/// Records are packed when they are so many bytes: few enough for the nearer caches, many enough for deflate to be worth the call.
const PIECE_BYTES: usize = 32 * 1024;

/// A finished batch: what is POSTed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Newline-separated JSON records, as one gzip member.
    pub body: Vec<u8>,
    /// Bytes before compression.
    pub raw_bytes: u32,
    /// Records in it.
    pub records: u32,
    /// Complete log lines in it; 0 for streams that carry none.
    pub lines: u64,
}

/// Whether a record went in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in.
    Yes,
    /// It would pass the limit: close the batch and add it to the next one.
    Full,
    /// It would pass the limit even alone.
    TooLarge,
}

/// Collects the records of one stream until the batch is closed.
#[derive(Debug)]
pub struct Builder {
    bytes_max: usize,
    /// Records that are not packed yet.
    raw: Vec<u8>,
    /// Bytes of those that are.
    packed_bytes: usize,
    /// They, where there are any.
    packed: Option<Member>,
    records: u32,
    lines: u64,
}

impl Builder {
    /// An empty builder for batches of at most `bytes_max` uncompressed bytes.
    pub fn new(bytes_max: u32) -> Builder {
        let bytes_max = bytes_max as usize;
        Builder { bytes_max, raw: Vec::new(), packed_bytes: 0, packed: None, records: 0, lines: 0 }
    }

    /// Adds a record that `write` appends to the buffer, without a newline; `lines` says how many log lines
    /// it stands for. On [`Added::Full`] and [`Added::TooLarge`] nothing was added.
    pub fn add(&mut self, lines: u64, write: impl FnOnce(&mut Vec<u8>)) -> Added {
        let before = self.raw.len();
        write(&mut self.raw);
        self.raw.push(b'\n');
        if self.raw_bytes() > self.bytes_max {
            let alone = self.raw.len() - before;
            self.raw.truncate(before);
            return if alone > self.bytes_max { Added::TooLarge } else { Added::Full };
        }
        self.records += 1;
        self.lines += lines;
        if self.raw.len() >= PIECE_BYTES {
            self.pack();
        }
        Added::Yes
    }

    /// Packs the records that are not packed yet.
    fn pack(&mut self) {
        let packed = self.packed.get_or_insert_with(|| Member::begin(self.raw.len()));
        packed.write(&self.raw);
        self.packed_bytes += self.raw.len();
        self.raw.clear();
    }

    /// Uncompressed bytes so far.
    pub fn raw_bytes(&self) -> usize {
        self.packed_bytes + self.raw.len()
    }

    /// Log lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether nothing was added since the last close.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether another average record would still fit; where not, closing now saves a refused attempt.
    pub fn is_nearly_full(&self) -> bool {
        let average = self.raw_bytes() / (self.records.max(1) as usize);
        self.records > 0 && self.raw_bytes() + 2 * average > self.bytes_max
    }

    /// Packs what is left of what was collected and begins anew; `None` when there is nothing.
    pub fn close(&mut self) -> Option<Batch> {
        if self.is_empty() {
            return None;
        }
        self.pack();
        Some(Batch {
            body: self.packed.take()?.end(),
            raw_bytes: u32::try_from(std::mem::take(&mut self.packed_bytes)).unwrap_or(u32::MAX),
            records: std::mem::take(&mut self.records),
            lines: std::mem::take(&mut self.lines),
        })
    }
}

/// Splits a batch that the destination finds too large into two halves of whole records; `None` when it
/// holds one record only, or does not decompress.
pub fn split(batch: &Batch) -> Option<[Batch; 2]> {
    let raw = decompress(&batch.body, batch.raw_bytes as usize)?;
    let middle = raw.len() / 2;
    let cut = match memchr::memrchr(b'\n', &raw[..middle]) {
        Some(index) => index + 1,
        None => memchr::memchr(b'\n', &raw[middle..])? + middle + 1,
    };
    if cut == raw.len() {
        return None;
    }
    let half = |part: &[u8]| {
        let records = memchr::memchr_iter(b'\n', part).count();
        Batch {
            body: compress(part),
            raw_bytes: u32::try_from(part.len()).unwrap_or(u32::MAX),
            records: u32::try_from(records).unwrap_or(u32::MAX),
            // In a stream of lines every record is one line.
            lines: if batch.lines == 0 { 0 } else { records as u64 },
        }
    };
    Some([half(&raw[..cut]), half(&raw[cut..])])
}

/// One gzip member of bytes that are there at once.
fn compress(raw: &[u8]) -> Vec<u8> {
    let mut member = Member::begin(raw.len());
    member.write(raw);
    member.end()
}

/// Decompresses a batch of a known size; `None` when it is damaged or not of that size.
pub fn decompress(body: &[u8], raw_bytes: usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut raw = Vec::with_capacity(raw_bytes + 1);
    let limit = raw_bytes as u64 + 1;
    flate2::bufread::GzDecoder::new(body).take(limit).read_to_end(&mut raw).ok()?;
    (raw.len() == raw_bytes).then_some(raw)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(batch: &Batch) -> String {
        String::from_utf8(decompress(&batch.body, batch.raw_bytes as usize).expect("gzip")).expect("utf-8")
    }

    #[test]
    fn never_passes_the_limit_and_splits_no_record() {
        let mut builder = Builder::new(16);
        assert_eq!(builder.add(1, |out| out.extend_from_slice(b"{\"a\":1}")), Added::Yes);
        assert_eq!(builder.add(1, |out| out.extend_from_slice(b"{\"a\":2}")), Added::Yes);
        assert_eq!(builder.add(1, |out| out.extend_from_slice(b"{}")), Added::Full);
        assert_eq!(builder.add(1, |out| out.extend_from_slice(&[b'x'; 16])), Added::TooLarge);
        let batch = builder.close().expect("two records");
        assert_eq!((batch.raw_bytes, batch.records, batch.lines), (16, 2, 2));
        assert_eq!(text(&batch), "{\"a\":1}\n{\"a\":2}\n");
        assert_eq!(builder.close(), None);
    }

    #[test]
    fn halves_hold_the_same_records_in_order() {
        let mut builder = Builder::new(1000);
        for number in 0..9 {
            builder.add(1, |out| write!(out, "{{\"n\":{number}}}").expect("memory"));
        }
        let whole = builder.close().expect("nine records");
        let [first, second] = split(&whole).expect("two halves");
        assert_eq!(text(&first) + &text(&second), text(&whole));
        assert_eq!(first.lines + second.lines, 9);
        builder.add(0, |out| out.extend_from_slice(b"{}"));
        assert_eq!(split(&builder.close().expect("one record")), None);
    }

    #[test]
    fn the_same_records_give_the_same_bytes_in_any_company() {
        let body = |builder: &mut Builder, records: usize| {
            for number in 0..records {
                builder.add(1, |out| {
                    write!(out, "{{\"n\":{number},\"square\":{}}}", number * number).expect("memory")
                });
            }
            builder.close().expect("records")
        };
        let records = 4 * PIECE_BYTES / 20;
        let expected = body(&mut Builder::new(u32::MAX), records);
        let (mut one, mut other) = (Builder::new(u32::MAX), Builder::new(u32::MAX));
        for _ in 0..3 {
            one.add(1, |out| out.extend_from_slice(&[b'x'; 2 * PIECE_BYTES]));
            assert_eq!(body(&mut other, records), expected);
            one.close();
            assert_eq!(body(&mut one, records), expected);
        }
    }

    #[test]
    fn packed_in_pieces_no_byte_is_another() {
        let mut builder = Builder::new(10 * PIECE_BYTES as u32);
        let mut whole = String::new();
        while builder.raw_bytes() < 9 * PIECE_BYTES {
            let record = format!("{{\"n\":{}}}", whole.len());
            assert_eq!(builder.add(1, |out| out.extend_from_slice(record.as_bytes())), Added::Yes);
            whole += &record;
            whole.push('\n');
        }
        assert_eq!(builder.raw_bytes(), whole.len());
        assert!(builder.raw.len() < PIECE_BYTES, "the rest is packed");
        let refused = builder.add(1, |out| out.extend_from_slice(&[b'x'; 2 * PIECE_BYTES]));
        assert_eq!(refused, Added::Full);
        let batch = builder.close().expect("records");
        assert_eq!(text(&batch), whole);
        assert_eq!((builder.raw_bytes(), builder.is_empty()), (0, true));
    }
}
