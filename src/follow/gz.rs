//! A gzip file read as if it were plain: rotation leaves the rest of a log in one.
//!
//! Owns the way from an offset in the log to the bytes of the compressed file. Memory is bounded whatever the file
//! holds, and so is the work of one call. It knows no position and no line, and never decides what a damaged file
//! costs: it hands out what comes before the damage and says where that is.

use std::cell::RefCell;
use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::files::{LogFile, Stat};
use super::identity::HEAD_BYTES_MAX;
use super::tracked::READ_BYTES;

/// Compressed bytes of one read.
const INPUT_BYTES: usize = 16 * 1024;

/// Decompressed bytes of one step.
const OUTPUT_BYTES: usize = 64 * 1024;

/// Decompressed bytes that are kept. A reader of lines goes back to the start of the line that its last read cut,
/// so less than one of its reads would mean to begin anew for each long line.
const RECENT_BYTES: usize = READ_BYTES;

/// Bytes in and out that one call works through before it says [`io::ErrorKind::WouldBlock`]: the next call goes on
/// from there.
const WORK_BYTES_MAX: u64 = 32 << 20;

/// Bytes of a log that are handed out whatever they were compressed from.
const TRUSTED_BYTES: u64 = 4 << 30;

/// Behind [`TRUSTED_BYTES`], bytes of the log for one compressed byte. nginx's logs give 5 to 15, equal lines up to
/// deflate's own limit of 1,032: only a file that was made to be a burden keeps that up for gigabytes.
const RATIO_MAX: u64 = 200;

/// Window of the largest gzip member (RFC 1951), as a power of two.
const WINDOW_BITS: u8 = 15;

/// How the compressed file ends, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was not reached yet.
    Ahead,
    /// Behind a whole member. Another may still be appended.
    Whole,
    /// Inside a member: the compressor is still at work, or was interrupted. It may grow.
    Cut,
    /// The bytes are no gzip from some place on, which the text names; nothing behind it can be read.
    Damaged(String),
}

/// How much is too much; constants but for tests.
#[derive(Clone, Copy, Debug)]
struct Limits {
    work_bytes_max: u64,
    trusted_bytes: u64,
}

/// A gzip file of any number of members, read by offsets in what it was compressed from.
pub struct GzFile {
    inner: Box<dyn LogFile>,
    /// On the heap, since files are handed about and this is large.
    state: RefCell<Box<State>>,
    limits: Limits,
}

/// How far the file was unpacked.
struct State {
    decompress: Decompress,
    in_member: bool,
    members: u64,
    /// Compressed bytes: those from `input_start` on were read and not yet unpacked.
    input: Vec<u8>,
    input_start: usize,
    /// Compressed bytes that were read.
    read: u64,
    /// The decompressor may hold bytes for which there was no room.
    is_pending: bool,
    /// The last bytes before `produced`.
    recent: Vec<u8>,
    produced: u64,
    /// The first bytes, for the fingerprint; longer than what `recent` may still hold.
    first: Vec<u8>,
    /// Furthest byte that was unpacked since the file was opened.
    known: u64,
    /// Furthest byte that was handed out.
    handed: u64,
    end: End,
}

impl GzFile {
    /// Reads nothing yet.
    pub fn new(inner: Box<dyn LogFile>) -> GzFile {
        let limits = Limits { work_bytes_max: WORK_BYTES_MAX, trusted_bytes: TRUSTED_BYTES };
        GzFile { inner, state: RefCell::new(Box::new(State::new())), limits }
    }

    /// How the file ended when it was last read.
    pub fn end(&self) -> End {
        self.state.borrow().end.clone()
    }

    /// Whether everything was unpacked: the size is that of the whole log, and all of it can be read.
    pub fn is_complete(&self) -> bool {
        self.state.borrow().end == End::Whole
    }

    /// Unpacks until the byte before `offset` is known or the file ends, as far as one call may go. Tells whether
    /// that is done; otherwise the next call goes on. To be asked before a position is compared or resumed.
    pub fn reach(&self, offset: u64) -> io::Result<bool> {
        let state = &mut *self.state.borrow_mut();
        if state.known >= offset {
            return Ok(true);
        }
        state.unpack_until(offset, &*self.inner, self.limits)
    }
}

impl LogFile for GzFile {
    /// The compressed file's, but for the size: bytes of the log known so far, and always more than were handed out
    /// while there may be more. It is exact once the end is reached; where the file is damaged it is one more than
    /// can be read, so that a reader asks for that byte and is told.
    fn stat(&self) -> io::Result<Stat> {
        let stat = self.inner.stat()?;
        let state = &mut *self.state.borrow_mut();
        if stat.size < state.read {
            // Cut or written anew: what was unpacked of it says nothing any more.
            **state = State::new();
        }
        if state.handed == state.known {
            state.unpack_until(state.known + 1, &*self.inner, self.limits)?;
        }
        let size = state.known + u64::from(matches!(state.end, End::Damaged(_)));
        Ok(Stat { size, ..stat })
    }

    /// Forward reading unpacks what comes between, going back further than the recent bytes begins anew; a call that
    /// would work for too long fails with [`io::ErrorKind::WouldBlock`] and is to be repeated.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        if buffer.is_empty() {
            return Ok(0);
        }
        if offset < state.first.len() as u64 {
            return Ok(state.hand_out(buffer, offset, true));
        }
        if offset < state.produced - state.recent.len() as u64 {
            state.begin_anew();
        }
        let is_reached = state.unpack_until(offset.saturating_add(1), &*self.inner, self.limits)?;
        if offset < state.produced {
            return Ok(state.hand_out(buffer, offset, false));
        }
        match &state.end {
            _ if !is_reached => {
                let message = format!("still unpacking: {} bytes of {offset}", state.produced);
                Err(io::Error::new(io::ErrorKind::WouldBlock, message))
            }
            End::Damaged(message) => Err(io::Error::new(io::ErrorKind::InvalidData, message.clone())),
            _ => Ok(0),
        }
    }

    fn unreadable_rest(&self) -> Option<String> {
        match self.end() {
            End::Cut => Some("the compressed file ends too early".to_owned()),
            End::Damaged(message) => Some(message),
            End::Ahead | End::Whole => None,
        }
    }
}

impl State {
    fn new() -> State {
        State {
            decompress: Decompress::new_gzip(WINDOW_BITS),
            in_member: false,
            members: 0,
            input: Vec::new(),
            input_start: 0,
            read: 0,
            is_pending: false,
            recent: Vec::new(),
            produced: 0,
            first: Vec::new(),
            known: 0,
            handed: 0,
            end: End::Ahead,
        }
    }

    /// Back to the first byte; what is known of the length stays.
    fn begin_anew(&mut self) {
        let State { first, known, handed, .. } = std::mem::replace(self, State::new());
        (self.first, self.known, self.handed) = (first, known, handed);
    }

    /// Copies bytes that are there; from the first ones, or from the recent ones.
    fn hand_out(&mut self, buffer: &mut [u8], offset: u64, from_first: bool) -> usize {
        let (bytes, begin) = if from_first {
            (&self.first, 0)
        } else {
            (&self.recent, self.produced - self.recent.len() as u64)
        };
        let bytes = &bytes[(offset - begin) as usize..];
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.handed = self.handed.max(offset + length as u64);
        length
    }

    /// Compressed bytes that were unpacked.
    fn consumed(&self) -> u64 {
        self.read - (self.input.len() - self.input_start) as u64
    }

    /// Whether `offset` bytes or the end are reached within the work of one call.
    fn unpack_until(&mut self, offset: u64, inner: &dyn LogFile, limits: Limits) -> io::Result<bool> {
        let mut work = 0;
        while self.produced < offset && !matches!(self.end, End::Damaged(_)) {
            if work >= limits.work_bytes_max {
                return Ok(false);
            }
            if self.input_start == self.input.len() && !self.is_pending && !self.fill(inner)? {
                self.end = if self.in_member || self.members == 0 { End::Cut } else { End::Whole };
                return Ok(true);
            }
            self.end = End::Ahead;
            let before = self.consumed() + self.produced;
            self.step();
            work += self.consumed() + self.produced - before;
            if self.produced > limits.trusted_bytes && self.produced / RATIO_MAX > self.consumed() {
                self.damaged("it unpacks to far more than a log would");
            }
        }
        Ok(true)
    }

    /// Reads the next compressed bytes; false where there are none.
    fn fill(&mut self, inner: &dyn LogFile) -> io::Result<bool> {
        self.input.resize(INPUT_BYTES, 0);
        self.input_start = 0;
        let read = loop {
            match inner.read_at(&mut self.input, self.read) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.input.clear();
                    return Err(error);
                }
                Ok(read) => break read,
            }
        };
        self.input.truncate(read);
        self.read += read as u64;
        Ok(read > 0)
    }

    /// Unpacks one piece of the bytes that were read.
    fn step(&mut self) {
        if !self.in_member {
            if self.members > 0 {
                // Tapes and block devices pad with zeros behind the last member.
                let rest = &self.input[self.input_start..];
                self.input_start += rest.iter().take_while(|byte| **byte == 0).count();
                if self.input_start == self.input.len() {
                    return;
                }
                self.decompress.reset(true);
            }
            self.in_member = true;
        }
        if self.recent.len() > RECENT_BYTES {
            self.recent.drain(..self.recent.len() - RECENT_BYTES);
        }
        let length = self.recent.len();
        self.recent.resize(length + OUTPUT_BYTES, 0);
        let (total_in, total_out) = (self.decompress.total_in(), self.decompress.total_out());
        let (input, output) = (&self.input[self.input_start..], &mut self.recent[length..]);
        let result = self.decompress.decompress(input, output, FlushDecompress::None);
        let consumed = (self.decompress.total_in() - total_in) as usize;
        let produced = (self.decompress.total_out() - total_out) as usize;
        self.input_start += consumed;
        self.recent.truncate(length + produced);
        self.note(length);
        let was_pending = std::mem::replace(&mut self.is_pending, produced == OUTPUT_BYTES);
        match result {
            Ok(Status::StreamEnd) => {
                self.in_member = false;
                self.is_pending = false;
                self.members += 1;
            }
            Ok(_) if consumed > 0 || produced > 0 || was_pending => {}
            Ok(_) => self.damaged("it cannot be unpacked any further"),
            Err(error) => self.damaged(&error.to_string()),
        }
    }

    /// Counts the recent bytes from `length` on.
    fn note(&mut self, length: usize) {
        let fresh = &self.recent[length..];
        if self.first.len() < HEAD_BYTES_MAX {
            let known = (self.first.len() as u64).saturating_sub(self.produced) as usize;
            let missing = HEAD_BYTES_MAX - self.first.len();
            self.first.extend(fresh.iter().skip(known).take(missing));
        }
        self.produced += fresh.len() as u64;
        self.known = self.known.max(self.produced);
    }

    fn damaged(&mut self, why: &str) {
        let message = format!(
            "damaged at compressed byte {}, behind byte {} of the log: {why}",
            self.consumed(),
            self.produced
        );
        self.end = End::Damaged(message);
    }
}

#[cfg(test)]
mod tests;
