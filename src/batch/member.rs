//! One gzip member (RFC 1952), written piece by piece.
//!
//! Reason: what is packed while it is still in the processor's cache is not fetched again, and only a piece of a batch is
//! ever held unpacked.
//!
//! Invariant: the same pieces always give the same bytes; the head carries no time.

use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// gzip level of a batch. Level 1 costs a quarter of level 6 and gives two thirds of its ratio; the
/// processor belongs to the web server.
const GZIP_LEVEL: u32 = 1;

/// Head of a gzip member: deflate, no flags, no time, the fastest level, an unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Room for what deflate adds to a few bytes.
const OUTPUT_BYTES_MIN: usize = 64;

/// Members that are written at a time by one thread, as a rule: one of lines, and a short one of something else.
const SPARE_MAX: usize = 2;

thread_local! {
    /// Kept, since a new one sets up hundreds of KiB, which is more work than a small batch.
    static SPARE: RefCell<Vec<Compress>> = const { RefCell::new(Vec::new()) };
}

/// A member that is not ended yet.
#[derive(Debug)]
pub(super) struct Member {
    deflate: Compress,
    sum: Crc,
    body: Vec<u8>,
}

impl Member {
    /// An empty member. `bytes` is how much its first piece holds.
    pub(super) fn begin(bytes: usize) -> Member {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let deflate = spare.unwrap_or_else(|| Compress::new(Compression::new(GZIP_LEVEL), false));
        let mut body = Vec::with_capacity(bytes / 4 + OUTPUT_BYTES_MIN);
        body.extend_from_slice(&GZIP_HEAD);
        Member { deflate, sum: Crc::new(), body }
    }

    /// Adds a piece.
    pub(super) fn write(&mut self, piece: &[u8]) {
        self.sum.update(piece);
        let mut rest = piece;
        while !rest.is_empty() {
            rest = &rest[self.run(rest, FlushCompress::None).0..];
        }
    }

    /// The member as a whole.
    pub(super) fn end(mut self) -> Vec<u8> {
        while self.run(&[], FlushCompress::Finish).1 != Status::StreamEnd {}
        self.body.extend_from_slice(&self.sum.sum().to_le_bytes());
        self.body.extend_from_slice(&self.sum.amount().to_le_bytes());
        self.deflate.reset();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self.deflate);
            }
        });
        self.body
    }

    /// How much of `input` went in, and what deflate says of it.
    fn run(&mut self, input: &[u8], flush: FlushCompress) -> (usize, Status) {
        if self.body.capacity() - self.body.len() < OUTPUT_BYTES_MIN {
            self.body.reserve(self.body.len());
        }
        let before = self.deflate.total_in();
        let status = self.deflate.compress_vec(input, &mut self.body, flush).expect("its state is its own");
        ((self.deflate.total_in() - before) as usize, status)
    }
}
