//! A place in a file: everything before it was taken, and nothing behind it.
//!
//! Invariants: the offset is always the start of a line; a line is handed out once and only whole; memory does not
//! depend on the length of a line. It reads no file: it is given the bytes that follow what it has scanned.

use memchr::{memchr, memchr_iter};

use super::identity::Tail;
use super::{Flow, LINE_BYTES_MAX, Line};

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
}

impl Cursor {
    /// A place with the bytes before it.
    pub(super) fn new(offset: u64, tail: Tail) -> Cursor {
        Cursor { offset, tail, long: None }
    }

    /// Where the next bytes to be scanned are.
    pub(super) fn next_read(&self) -> u64 {
        self.offset + self.long.as_ref().map_or(0, |long| long.scanned)
    }

    /// Whether it stands within a line that is longer than one read.
    pub(super) fn is_within_line(&self) -> bool {
        self.long.is_some()
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
        self.tail.push(&bytes[first..start]);
        if full && start == 0 {
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

fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
