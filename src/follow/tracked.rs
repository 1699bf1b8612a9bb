//! One open file: its lines up to the last newline, whatever happens to its name.
//!
//! Invariants: a line is handed out once and only whole; the offset is always the start of a line; memory
//! does not depend on the length of a line. Nothing here decides which files to open.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memchr::{memchr, memchr_iter, memrchr};

use super::files::{LogFile, Stat};
use super::identity::{Head, Identity, Tail, read_full_at};
use super::position::Position;
use crate::mutant::{Mutant, is_on};

/// Bytes of a line that are kept; the rest of a longer one is counted and left out. Sumo cuts field
/// extraction at the same length.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one read. A line of up to [`LINE_BYTES_MAX`] always fits.
pub const READ_BYTES: usize = 256 * 1024;

/// How long a file that lost its name must stay still before it is closed. nginx's workers go on writing to
/// a renamed file until each has seen USR1.
pub const ROTATE_GRACE: Duration = Duration::from_secs(30);

/// One line of a followed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line without its newline and without one carriage return before it.
    pub bytes: &'a [u8],
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in the file, with its line end. More than `bytes` holds where `cut` is set.
    pub length: u64,
    /// The line was longer than [`LINE_BYTES_MAX`]; `bytes` is its beginning.
    pub cut: bool,
    /// The file ended for good without a newline behind this line.
    pub partial: bool,
}

/// What the taker of lines wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next line.
    Continue,
    /// No more now; the line just given counts as taken.
    Stop,
    /// No more now; the line just given was not taken and comes again.
    Refuse,
}

/// What one turn of reading did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Complete lines handed out.
    pub lines: u64,
    /// Bytes read, those of a line that has not ended yet included.
    pub bytes: u64,
    /// Whether more complete lines may be waiting.
    pub more: bool,
    /// The taker refused a line.
    pub refused: bool,
    /// The file was cut or rewritten: bytes that can no longer be read. Reading goes on from its start.
    pub lost_bytes: Option<u64>,
    /// The file has lost its name and was read to its end; it can be let go.
    pub finished: bool,
}

/// A line longer than one read, as far as it was scanned.
struct LongLine {
    prefix: Vec<u8>,
    scanned: u64,
    tail: Tail,
}

/// Why a file is no longer found under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// The name leads to this file.
    Present,
    /// Nothing has that name now.
    Absent,
    /// Another file has the name now.
    Replaced,
}

/// An open file with the position reached in it.
pub struct Tracked {
    /// Number of the file in this agent's life; the key of its position.
    pub id: u64,
    /// The name under which it is, or was last, found.
    pub path: PathBuf,
    /// The pattern that found it.
    pub pattern: String,
    /// Inode and birth.
    pub identity: Identity,
    /// The position must be written at the next commit.
    pub dirty: bool,
    file: Box<dyn LogFile>,
    head: Head,
    tail: Tail,
    offset: u64,
    size: u64,
    /// When it was last written to, as the file system tells it: seconds and nanoseconds.
    modified: (i64, i64),
    long: Option<LongLine>,
    name: Name,
    /// When it last grew or lost its name: writers may hold it from then on.
    still_since: Instant,
    error: Option<String>,
}

impl Tracked {
    /// Takes charge of an open file from `offset` on, which must be the start of a line.
    pub fn new(
        id: u64,
        path: PathBuf,
        pattern: String,
        file: Box<dyn LogFile>,
        offset: u64,
        now: Instant,
    ) -> io::Result<Tracked> {
        let stat = file.stat()?;
        Ok(Tracked {
            id,
            path,
            pattern,
            identity: stat.identity,
            dirty: true,
            head: Head::read(&*file)?,
            tail: Tail::read(&*file, offset)?,
            file,
            offset,
            size: stat.size,
            modified: stat.modified,
            long: None,
            name: Name::Present,
            still_since: now,
            error: None,
        })
    }

    /// The position to keep on disk.
    pub fn position(&self) -> Position {
        Position {
            identity: self.identity,
            head: self.head,
            offset: if is_on(Mutant::PositionInsideLine) { self.size } else { self.offset },
            tail_hash: self.tail.hash(),
            path: self.path.clone(),
            pattern: self.pattern.clone(),
        }
    }

    /// First byte that is not accounted for.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Size at the last look, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The error of the last turn, if it failed.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// `following`, or how the file lost its name: `rotated` to another file, `moved` away; `failing` while it cannot be read.
    pub fn state(&self) -> &'static str {
        match (self.error.is_some(), self.name) {
            (true, _) => "failing",
            (false, Name::Present) => "following",
            (false, Name::Replaced) => "rotated",
            (false, Name::Absent) => "moved",
        }
    }

    /// Whether the name still leads here.
    pub fn is_named(&self) -> bool {
        self.name == Name::Present
    }

    /// The file was found under this name.
    pub fn named(&mut self, path: PathBuf) {
        self.name = Name::Present;
        if self.path != path {
            self.path = path;
            self.dirty = true;
        }
    }

    /// The file is no longer found under its name; `replaced` when another file is. Tells whether that is news.
    ///
    /// The grace begins with the news: a log that was quiet for long may be written to at its rotation, by workers
    /// that flush their buffers into it before they open the next.
    pub fn unnamed(&mut self, replaced: bool, now: Instant) -> bool {
        let name = if replaced { Name::Replaced } else { Name::Absent };
        let is_news = std::mem::replace(&mut self.name, name) != name;
        if is_news {
            self.still_since = now;
        }
        is_news
    }

    /// Reads lines until the file is drained, about `bytes_max` are read (a line may be longer than any turn), or
    /// the taker says stop.
    ///
    /// An error is kept for [`Tracked::error`] and tried again at the next turn; nothing is skipped.
    pub fn turn(
        &mut self,
        buffer: &mut [u8],
        bytes_max: u64,
        now: Instant,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
    ) -> Turn {
        let mut turn = Turn::default();
        self.error = None;
        if let Err(error) = self.try_turn(buffer, bytes_max, now, take, &mut turn) {
            self.error = Some(error.to_string());
            turn.more = false;
        }
        turn
    }

    fn try_turn(
        &mut self,
        buffer: &mut [u8],
        bytes_max: u64,
        now: Instant,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
        turn: &mut Turn,
    ) -> io::Result<()> {
        self.look(now, turn)?;
        loop {
            if turn.bytes >= bytes_max {
                turn.more = true;
                return Ok(());
            }
            let from = self.offset + self.long.as_ref().map_or(0, |long| long.scanned);
            if from >= self.size {
                break;
            }
            let read = read_full_at(&*self.file, buffer, from)?;
            if read == 0 {
                break;
            }
            turn.bytes += read as u64;
            self.size = self.size.max(from + read as u64);
            let consumed_before = self.offset;
            let flow = self.take_lines(&buffer[..read], read == buffer.len(), take, turn);
            if flow != Flow::Continue {
                turn.more = true;
                turn.refused = flow == Flow::Refuse;
                return Ok(());
            }
            let progressed = self.offset > consumed_before || self.long.is_some();
            if read < buffer.len() || !progressed {
                break;
            }
        }
        self.end_of_name(buffer, now, take, turn)
    }

    /// Compares the file with what was read of it: growth, truncation, or other bytes under the position.
    fn look(&mut self, now: Instant, turn: &mut Turn) -> io::Result<()> {
        let Stat { size, modified, .. } = self.file.stat()?;
        // The same size says nothing: equal lines may stand in the place of those that were read.
        let touched = size != self.size || modified != self.modified;
        let rewritten = size < self.offset
            || (touched
                && !is_on(Mutant::TrustsOffset)
                && Tail::read(&*self.file, self.offset)? != self.tail);
        self.modified = modified;
        if rewritten {
            turn.lost_bytes = Some(self.size.saturating_sub(self.offset));
            self.offset = 0;
            self.tail = Tail::default();
            self.long = None;
            self.head = Head::default();
            self.dirty = true;
        }
        if size != self.size || rewritten {
            self.still_since = now;
        }
        self.size = size;
        if self.head.can_grow() && size > u64::from(self.head.length) {
            self.head = Head::read(&*self.file)?;
            self.dirty = true;
        }
        Ok(())
    }

    /// Hands out the complete lines in `bytes`, which follow what was scanned so far.
    fn take_lines(
        &mut self,
        bytes: &[u8],
        full: bool,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
        turn: &mut Turn,
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
            let line = Line { bytes: &long.prefix, offset: self.offset, length, cut: true, partial: false };
            let flow = take(line);
            if flow == Flow::Refuse {
                self.long = Some(long);
                return flow;
            }
            long.tail.push(&bytes[..start]);
            self.tail = long.tail;
            self.advance(length, turn);
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
            let flow = take(Line { bytes: kept, offset: self.offset, length, cut, partial: false });
            if flow != Flow::Refuse {
                self.advance(length, turn);
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

    fn advance(&mut self, length: u64, turn: &mut Turn) {
        self.offset += length;
        self.dirty = true;
        turn.lines += 1;
    }

    /// A file without a name is finished when it has stood still for the grace time; what stands behind
    /// its last newline is then a line of its own.
    fn end_of_name(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
        turn: &mut Turn,
    ) -> io::Result<()> {
        let grace = if is_on(Mutant::ClosesAtFirstEnd) { Duration::ZERO } else { ROTATE_GRACE };
        let is_named = self.name == Name::Present && !is_on(Mutant::EmitsPausedLine);
        if is_named || now.saturating_duration_since(self.still_since) < grace {
            return Ok(());
        }
        let unlinked = self.file.stat()?.links == 0;
        if self.name == Name::Absent && !unlinked {
            return Ok(());
        }
        let length = self.size.saturating_sub(self.offset);
        if length > 0 && !is_on(Mutant::DropsPartialLine) {
            let kept = length.min(LINE_BYTES_MAX as u64) as usize;
            let read = read_full_at(&*self.file, &mut buffer[..kept], self.offset)?;
            let cut = length > LINE_BYTES_MAX as u64;
            let bytes = match memrchr(b'\n', &buffer[..read]) {
                // It grew between the look and now: an ordinary turn will take it.
                Some(_) => return Ok(()),
                None => &buffer[..read],
            };
            if take(Line { bytes, offset: self.offset, length, cut, partial: true }) == Flow::Refuse {
                turn.more = true;
                turn.refused = true;
                return Ok(());
            }
            self.advance(length, turn);
        }
        turn.finished = true;
        Ok(())
    }
}

fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
