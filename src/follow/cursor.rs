//! A place in a file: everything before it was taken, and nothing behind it.
//!
//! Invariants: the offset is always the start of a line; a line is handed out once and only whole; memory does not
//! depend on the length of a line. NUL bytes at the start of a line are the hole that a writer leaves which goes on at
//! its old place after a truncation: they are passed and counted, once something stands behind them. It reads no
//! file: it is given the bytes that follow what it has scanned.

use memchr::{memchr, memchr_iter};

use super::identity::Tail;
use super::{Flow, LINE_BYTES_MAX, Line};

/// What a hole is made of, a piece of it; no shorter than a tail.
const NULS: [u8; 512] = [0; 512];

/// A line longer than one read, as far as it was scanned.
#[derive(Clone, Debug)]
struct LongLine {
    prefix: Vec<u8>,
    scanned: u64,
    tail: Tail,
}

/// First byte that is not taken, and the bytes before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    pub(super) offset: u64,
    pub(super) tail: Tail,
    long: Option<LongLine>,
    /// NUL bytes from `offset` on behind which nothing else was seen yet.
    nuls: u64,
    /// Up to here nothing but NUL bytes was seen when they last reached the end of the file.
    nuls_until: u64,
    /// NUL bytes that were passed.
    pub(super) nuls_passed: u64,
}

impl Cursor {
    /// A place with the bytes before it.
    pub(super) fn new(offset: u64, tail: Tail) -> Cursor {
        Cursor { offset, tail, ..Cursor::default() }
    }

    /// Where the next bytes to be scanned are.
    pub(super) fn next_read(&self) -> u64 {
        self.offset + self.nuls + self.long.as_ref().map_or(0, |long| long.scanned)
    }

    /// Whether it stands within a line, or a hole, that is longer than one read.
    pub(super) fn is_within_line(&self) -> bool {
        self.long.is_some() || self.nuls > 0
    }

    /// NUL bytes from the offset on behind which nothing else was seen yet.
    pub(super) fn nuls_ahead(&self) -> u64 {
        self.nuls
    }

    /// Something stands now where NUL bytes were: the file was made long first and is filled from there on.
    pub(super) fn forget_nuls(&mut self) {
        self.nuls_until = self.offset + self.nuls;
        self.nuls = 0;
    }

    /// The bytes before the next read: those that were taken, and those that were scanned behind them.
    pub(super) fn tail_scanned(&self) -> (u64, &Tail) {
        match &self.long {
            Some(long) => (self.next_read(), &long.tail),
            None => (self.offset, &self.tail),
        }
    }

    /// Passes the NUL bytes at the start of `bytes` and gives their number; where nothing else follows they are only
    /// kept in mind, and it gives `None`.
    fn pass_nuls(&mut self, bytes: &[u8]) -> Option<usize> {
        let run = leading_nuls(bytes);
        if run == bytes.len() {
            self.nuls += run as u64;
            self.nuls = self.nuls.max(self.nuls_until.saturating_sub(self.offset));
            return None;
        }
        self.take_nuls(run as u64);
        Some(run)
    }

    /// Passes the NUL bytes at the start of `bytes`, behind which something else is known to stand, and leaves the tail
    /// to the caller.
    fn pass_within(&mut self, bytes: &[u8]) -> usize {
        let run = leading_nuls(bytes);
        self.offset += run as u64;
        self.nuls_passed += run as u64;
        run
    }

    /// Passes so many NUL bytes, and those that are kept in mind.
    pub(super) fn take_nuls(&mut self, run: u64) {
        let passed = std::mem::take(&mut self.nuls) + run;
        self.tail.push(&NULS[..passed.min(NULS.len() as u64) as usize]);
        self.offset += passed;
        self.nuls_passed += passed;
    }

    /// Hands out the complete lines in `bytes`, which follow what was scanned so far, and counts them in `lines`.
    /// `full` tells that the file goes on behind them.
    pub(super) fn take_lines(
        &mut self,
        bytes: &[u8],
        full: bool,
        lines: &mut u64,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
    ) -> Flow {
        let mut start = 0;
        if self.long.is_none() && (self.nuls > 0 || bytes.first() == Some(&0)) {
            match self.pass_nuls(bytes) {
                Some(run) => start = run,
                None => return Flow::Continue,
            }
        }
        if let Some(mut long) = self.long.take() {
            let Some(newline) = memchr(b'\n', bytes) else {
                long.scanned += bytes.len() as u64;
                long.tail.push(bytes);
                self.long = Some(long);
                return Flow::Continue;
            };
            start = newline + 1;
            let length = long.scanned + start as u64;
            let flow = take(Line { cut: true, ..Line::whole(&long.prefix, self.offset, length) });
            if flow == Flow::Refuse {
                self.long = Some(long);
                return flow;
            }
            long.tail.push(&bytes[..start]);
            self.tail = long.tail;
            self.advance(length, lines);
            if flow == Flow::Stop {
                return flow;
            }
        }
        let first = start;
        for newline in memchr_iter(b'\n', &bytes[first..]).map(|index| first + index) {
            if bytes[start] == 0 {
                start += self.pass_within(&bytes[start..newline]);
            }
            let length = (newline + 1 - start) as u64;
            let text = without_carriage_return(&bytes[start..newline]);
            let cut = text.len() > LINE_BYTES_MAX;
            let kept = &text[..text.len().min(LINE_BYTES_MAX)];
            let flow = take(Line { cut, ..Line::whole(kept, self.offset, length) });
            if flow != Flow::Refuse {
                self.advance(length, lines);
                start = newline + 1;
            }
            if flow != Flow::Continue {
                self.tail.push(&bytes[first..start]);
                return flow;
            }
        }
        let rest = &bytes[start..];
        let run = leading_nuls(rest);
        if run < rest.len() {
            start += self.pass_within(rest);
        }
        self.tail.push(&bytes[first..start]);
        if run > 0 && run == rest.len() {
            self.pass_nuls(rest);
        } else if full && start == 0 {
            let mut tail = self.tail.clone();
            tail.push(bytes);
            let prefix = bytes[..LINE_BYTES_MAX].to_vec();
            self.long = Some(LongLine { prefix, scanned: bytes.len() as u64, tail });
        }
        Flow::Continue
    }

    /// A line of so many bytes was taken.
    pub(super) fn advance(&mut self, length: u64, lines: &mut u64) {
        self.offset += length;
        *lines += 1;
    }
}

/// How many NUL bytes stand at the start.
fn leading_nuls(bytes: &[u8]) -> usize {
    if bytes.first() != Some(&0) {
        return 0;
    }
    let whole = bytes.chunks_exact(NULS.len()).take_while(|chunk| **chunk == NULS).count() * NULS.len();
    let rest = &bytes[whole..];
    whole + rest.iter().take(NULS.len()).take_while(|byte| **byte == 0).count()
}

fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
