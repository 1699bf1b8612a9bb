//! One open file: its lines up to the last newline, whatever happens to its name.
//!
//! It has a place up to which lines were taken for shipping, and, while shipping waits, a second one up to which they
//! were counted. Nothing here decides which files to open.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memchr::memrchr;

use super::cursor::Cursor;
use super::files::{LogFile, Stat};
use super::identity::{Head, Identity, Tail, first_line, read_full_at};
use super::line::{Flow, LINE_BYTES_MAX, Line, Turn};
use super::open::{Opened, is_gzip};
use super::position::{Ahead as AheadPosition, Known, Position};

use crate::mutant::{Mutant, is_on};

/// Bytes of one read. A line of up to [`LINE_BYTES_MAX`] always fits.
pub const READ_BYTES: usize = 256 * 1024;

/// How long a file that lost its name must stay still before it is closed. nginx's workers go on writing to
/// a renamed file until each has seen USR1.
pub const ROTATE_GRACE: Duration = Duration::from_secs(30);

/// A second place in a file: up to here lines were counted that wait in the file to be shipped.
struct Ahead {
    cursor: Cursor,
    /// Complete lines between the two places.
    lines: u64,
}

/// Why a file is no longer found under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// The name leads to this file.
    Present,
    /// Nothing has that name now.
    Absent,
    /// Another file has the name now.
    Replaced(Identity),
}

/// Whether lines may be taken from a file of which nothing was read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody has compared it with the others.
    Unchecked,
    /// It looks like a copy of another file and is held back.
    Held,
    /// It is a log of its own.
    Settled,
}

/// An open file with the position reached in it.
pub struct Tracked {
    /// Number of the file in this agent's life; the key of its position.
    pub id: u64,
    /// The name under which it is, or was last, found.
    pub path: PathBuf,
    /// The name under which it was first known: rotation makes the others of it.
    pub(super) first_path: PathBuf,
    /// The pattern that found it.
    pub pattern: String,
    /// Inode and birth.
    pub identity: Identity,
    /// The position must be written at the next commit.
    pub dirty: bool,
    /// Lines are taken from it, or not yet.
    pub(super) origin: Origin,
    /// Number of the scan that found it; 0 for one that an earlier life had begun to read.
    pub(super) found_in: u64,
    /// Number of the last scan that took its name to lead here still.
    pub(super) kept_in: u64,
    /// Hash of its first line, under which it is found by its copies; 0 while there is none.
    pub(super) first_line: u64,
    /// It was found while the log could not be read of which it may be a copy.
    pub(super) is_stand_in: bool,
    /// It took the place of a file that is gone and held the same, and waits until that was read as far.
    pub(super) is_heir: bool,
    /// Sizes at the last two scans, the older one first.
    pub(super) sizes: [u64; 2],
    /// The NUL bytes that were told of already.
    pub(super) nuls_told: u64,
    file: Box<dyn LogFile>,
    head: Head,
    /// Where lines are taken for shipping.
    cursor: Cursor,
    /// Where lines are taken for counting, while that is further on.
    ahead: Option<Ahead>,
    size: u64,
    /// When it was last written to, as the file system tells it: seconds and nanoseconds.
    modified: (i64, i64),
    /// What the last scan saw of it, and when that was, for the next look.
    pub(super) seen: Option<(Instant, Stat)>,
    name: Name,
    /// Its names when it was last seen under its own.
    pub(super) links: u64,
    /// When it last grew or lost its name: writers may hold it from then on.
    still_since: Instant,
    error: Option<String>,
}

impl Tracked {
    /// Takes charge of an open file from `offset` on, which must be the start of a line. One that cannot be read now is
    /// given back with the error.
    pub(super) fn new(
        id: u64,
        path: PathBuf,
        pattern: String,
        opened: Opened,
        offset: u64,
        now: Instant,
    ) -> Result<Tracked, (Opened, io::Error)> {
        let Opened { identity, file } = opened;
        let known = (|| {
            let tail = Tail::read(&*file, offset)?;
            Ok((file.stat()?, Head::read(&*file)?, tail, first_line(&*file)?.unwrap_or(0)))
        })();
        let (stat, head, tail, first_line) = match known {
            Ok(known) => known,
            Err(error) => return Err((Opened { identity, file }, error)),
        };
        Ok(Tracked {
            id,
            first_path: path.clone(),
            path,
            pattern,
            identity: stat.identity,
            dirty: true,
            origin: Origin::Settled,
            found_in: 0,
            kept_in: 0,
            is_stand_in: false,
            is_heir: false,
            first_line,
            sizes: [offset; 2],
            nuls_told: 0,
            head,
            cursor: Cursor::new(offset, tail),
            ahead: None,
            file,
            size: stat.size,
            modified: stat.modified,
            seen: None,
            name: Name::Present,
            links: stat.links,
            still_since: now,
            error: None,
        })
    }

    /// The fingerprint of its first bytes, as of the last look.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// The position to keep on disk.
    pub fn position(&self) -> Position {
        Position {
            identity: self.identity,
            head: self.head,
            offset: if is_on(Mutant::PositionInsideLine) { self.size } else { self.cursor.offset },
            tail_hash: self.cursor.tail.hash(),
            path: self.first_path.clone(),
            pattern: self.pattern.clone(),
            known: Known { size: self.size, modified: self.modified },
            // Written since the look that saw nothing: of a log of which no byte is known the first line is not, either.
            first_line: if self.head.length == 0 { 0 } else { self.first_line },
            links: self.links,
            parked_s: 0,
            is_closed: false,
            is_stand_in: self.is_stand_in,
            is_heir: self.is_heir,
        }
    }

    /// Nothing has its name now.
    pub(super) fn is_absent(&self) -> bool {
        self.name == Name::Absent
    }

    /// The open file.
    pub(super) fn file(&self) -> &dyn LogFile {
        &*self.file
    }

    /// Lets the file go, for whoever takes charge of it next.
    pub(super) fn into_file(self) -> Box<dyn LogFile> {
        self.file
    }

    /// Goes on with another handle of the same file.
    pub(super) fn reopened(&mut self, file: Box<dyn LogFile>) {
        self.file = file;
    }

    /// Everything before `offset`, which must be the start of a line, was read elsewhere.
    pub(super) fn begin_at(&mut self, offset: u64) -> io::Result<()> {
        self.cursor = Cursor::new(offset, Tail::read(&*self.file, offset)?);
        self.dirty = true;
        Ok(())
    }

    /// Whether the bytes that were read are still there.
    pub(super) fn is_intact(&self) -> io::Result<bool> {
        Ok(self.file.stat()?.size >= self.counted_offset() && self.tails_agree()?)
    }

    /// Whether it has as many names as it had when its own led to it: it was renamed then, and not replaced.
    pub(super) fn keeps_its_names(&self, stat: &Stat) -> bool {
        stat.links >= self.links.max(1)
    }

    /// When it was last written to, as of the last look.
    pub(super) fn modified(&self) -> (i64, i64) {
        self.modified
    }

    /// NUL bytes at starts of lines that were passed.
    pub(super) fn nuls_passed(&self) -> u64 {
        self.cursor.nuls_passed
    }

    /// The place of counting to keep on disk, while it is another than that of shipping.
    pub(super) fn ahead_position(&self) -> Option<AheadPosition> {
        let ahead = self.ahead.as_ref().filter(|ahead| ahead.cursor.offset > self.cursor.offset);
        ahead.map(|ahead| AheadPosition {
            offset: ahead.cursor.offset,
            tail_hash: ahead.cursor.tail.hash(),
            lines: ahead.lines,
        })
    }

    /// Goes on counting where an earlier life had come to, if the bytes before that place are still the same.
    pub(super) fn restore_ahead(&mut self, saved: &AheadPosition) -> bool {
        let tail = Tail::read(&*self.file, saved.offset);
        let Some(tail) = tail.ok().filter(|tail| tail.hash() == saved.tail_hash) else { return false };
        if self.size < saved.offset || saved.offset <= self.cursor.offset {
            return false;
        }
        self.ahead = Some(Ahead { cursor: Cursor::new(saved.offset, tail), lines: saved.lines });
        true
    }

    /// First byte that was not taken for shipping.
    pub fn offset(&self) -> u64 {
        self.cursor.offset
    }

    /// First byte that was not counted; never before [`Tracked::offset`].
    pub fn counted_offset(&self) -> u64 {
        self.ahead.as_ref().map_or(self.cursor.offset, |ahead| ahead.cursor.offset)
    }

    /// Lines that were counted and wait in the file to be taken for shipping.
    pub fn lines_ahead(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.lines)
    }

    /// Size at the last look, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The error of the last turn, if it failed.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// `following`, or how the file lost its name: `rotated` to another file, `moved` away; `failing` while it cannot
    /// be read, `copy` while it is held back since it looks like one.
    pub fn state(&self) -> &'static str {
        match (self.error.is_some(), self.name) {
            (true, _) => "failing",
            (false, _) if self.origin == Origin::Held => "copy",
            (false, Name::Present) => "following",
            (false, Name::Replaced(_)) => "rotated",
            (false, Name::Absent) => "moved",
        }
    }

    /// Whether the name still leads here.
    pub fn is_named(&self) -> bool {
        self.name == Name::Present
    }

    /// The file was found under the name that it had.
    pub fn still_named(&mut self) {
        // As bytes: taking paths apart is dear for thousands of files that keep their names.
        if self.first_path.as_os_str() == self.path.as_os_str() {
            self.name = Name::Present;
        } else {
            self.named(self.path.clone());
        }
    }

    /// The file was found under this name.
    pub fn named(&mut self, path: PathBuf) {
        self.name = Name::Present;
        if path.parent() != self.first_path.parent() {
            self.first_path.clone_from(&path);
            self.dirty = true;
        }
        self.path = path;
    }

    /// The file is no longer found under its name, but `other` if it is some. Tells whether that is news.
    ///
    /// The grace begins when the name goes: a log that was quiet for long may be written to at its rotation, by workers
    /// that flush their buffers into it before they open the next.
    pub fn unnamed(&mut self, other: Option<Identity>, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.name, other.map_or(Name::Absent, Name::Replaced));
        if std::mem::discriminant(&before) != std::mem::discriminant(&self.name) {
            self.still_since = now;
        }
        before != self.name
    }

    /// Takes lines for shipping until the file is drained, about `bytes_max` are read (a line may be longer than any
    /// turn), or the taker says stop.
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
        let nuls_before = self.cursor.nuls_passed;
        let result = self.look(now, &mut turn).and_then(|()| {
            turn.compressed = self.turns_out_compressed()?;
            if turn.rewritten || turn.compressed || self.origin == Origin::Held {
                return Ok(());
            }
            if self.origin == Origin::Unchecked {
                return self.end_of_name(buffer, now, take, &mut turn);
            }
            let mut cursor = std::mem::take(&mut self.cursor);
            let counted_to = self.counted_to();
            let mut shipped_ahead = 0;
            let drained = self.read(&mut cursor, buffer, bytes_max, &mut turn, &mut |line| {
                let counted = line.offset < counted_to;
                let flow = take(Line { counted, ..line });
                shipped_ahead += u64::from(counted && flow != Flow::Refuse);
                flow
            });
            self.cursor = cursor;
            self.meet(shipped_ahead);
            if drained? { self.end_of_name(buffer, now, take, &mut turn) } else { Ok(()) }
        });
        let result = result.or_else(|error| self.end_at_damage(error, now, &mut turn));
        turn.nuls = self.cursor.nuls_passed - nuls_before;
        self.dirty |= turn.nuls > 0;
        self.conclude(result, &mut turn);
        turn
    }

    /// Takes lines for counting alone, from where counting has come to; shipping takes them again later, marked as
    /// [`Line::counted`]. A line without an end is left to [`Tracked::turn`]. The taker must not refuse.
    pub fn count(
        &mut self,
        buffer: &mut [u8],
        bytes_max: u64,
        now: Instant,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
    ) -> Turn {
        let mut turn = Turn::default();
        let result = self.look(now, &mut turn).and_then(|()| {
            turn.compressed = self.turns_out_compressed()?;
            if turn.rewritten || turn.compressed || self.origin != Origin::Settled {
                return Ok(());
            }
            let start =
                || Ahead { cursor: Cursor::new(self.cursor.offset, self.cursor.tail.clone()), lines: 0 };
            let mut ahead = self.ahead.take().unwrap_or_else(start);
            let drained = self.read(&mut ahead.cursor, buffer, bytes_max, &mut turn, take);
            ahead.lines += turn.lines;
            // A long line that is scanned only in part is not worth a second place, but the way through it is.
            if ahead.lines > 0 || ahead.cursor.is_within_line() {
                self.ahead = Some(ahead);
            }
            drained.map(|_| ())
        });
        self.conclude(result, &mut turn);
        turn
    }

    /// Whether the first bytes of a file that was empty when it was opened are those of gzip.
    fn turns_out_compressed(&self) -> io::Result<bool> {
        Ok(self.counted_offset() == 0 && self.size > 0 && is_gzip(&*self.file)?)
    }

    fn counted_to(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.cursor.offset)
    }

    /// Lines that had been counted were taken for shipping; where the two places meet, one is enough.
    fn meet(&mut self, shipped_ahead: u64) {
        let Some(ahead) = &mut self.ahead else { return };
        ahead.lines = ahead.lines.saturating_sub(shipped_ahead);
        if self.cursor.offset >= ahead.cursor.offset {
            self.ahead = None;
            self.dirty = true;
        }
    }

    fn conclude(&mut self, result: io::Result<()>, turn: &mut Turn) {
        self.error = result.err().map(|error| error.to_string());
        self.dirty |= turn.lines > 0;
        turn.more &= self.error.is_none();
    }

    /// Moves a cursor on through the file; tells whether it came to the end.
    fn read(
        &mut self,
        cursor: &mut Cursor,
        buffer: &mut [u8],
        bytes_max: u64,
        turn: &mut Turn,
        take: &mut dyn FnMut(Line<'_>) -> Flow,
    ) -> io::Result<bool> {
        loop {
            if turn.bytes >= bytes_max {
                turn.more = true;
                return Ok(false);
            }
            if cursor.nuls_ahead() > 0 && !self.has_nul_at(cursor.offset)? {
                cursor.forget_nuls();
            }
            let from = cursor.next_read();
            if from >= self.size {
                return Ok(true);
            }
            let read = read_full_at(&*self.file, buffer, from)?;
            if read == 0 {
                return Ok(true);
            }
            turn.bytes += read as u64;
            if !self.is_still_behind(cursor)? {
                turn.rewritten = true;
                turn.more = false;
                return Ok(false);
            }
            if cursor.nuls_ahead() > 0 && !self.has_nul_at(cursor.offset)? {
                continue;
            }
            self.size = self.size.max(from + read as u64);
            let offset_before = cursor.offset;
            let flow = cursor.take_lines(&buffer[..read], read == buffer.len(), &mut turn.lines, take);
            if flow != Flow::Continue {
                turn.more = true;
                turn.refused = flow == Flow::Refuse;
                return Ok(false);
            }
            let progressed = cursor.offset > offset_before || cursor.is_within_line();
            if read < buffer.len() || !progressed {
                return Ok(true);
            }
        }
    }

    /// Compares the file with what was read of it: growth, truncation, or other bytes under a position.
    pub(super) fn look(&mut self, now: Instant, turn: &mut Turn) -> io::Result<()> {
        let seen = self.seen.take().filter(|(at, seen)| *at == now && self.is_quiet(seen));
        let Stat { size, modified, links, .. } =
            seen.map_or_else(|| self.file.stat(), |(_, seen)| Ok(seen))?;
        // The same size says nothing: equal lines may stand in the place of those that were read.
        let touched = size != self.size || modified != self.modified;
        // Of which nothing was read, only its known size can tell that it was cut.
        let is_cut = size < self.counted_offset() || (self.counted_offset() == 0 && size < self.size);
        if is_cut || (touched && !is_on(Mutant::TrustsOffset) && !self.begins_and_tails_agree()?) {
            // Everything known of it is left as it was: it tells what was lost, and where a copy goes on.
            turn.rewritten = true;
            return Ok(());
        }
        self.modified = modified;
        if self.is_named() && self.path == self.first_path {
            self.links = links;
        }
        if size != self.size {
            self.still_since = now;
        }
        self.size = size;
        if self.head.can_grow() && size > u64::from(self.head.length) {
            let head = Head::read(&*self.file)?;
            self.dirty |= head != self.head;
            self.head = head;
        }
        if self.first_line == 0 && size > 0 {
            self.first_line = first_line(&*self.file)?.unwrap_or(0);
        }
        Ok(())
    }

    /// Whether it has its name, was read to its end and has not changed since: then there is nothing to read, and of hundreds of
    /// quiet logs each is asked once in a tick and not twice.
    fn is_quiet(&self, stat: &Stat) -> bool {
        let is_unchanged =
            stat.size == self.size && stat.modified == self.modified && stat.identity == self.identity;
        // Without a name it may be closed at this look: nothing may come between.
        is_unchanged && self.cursor.offset == self.size && self.is_named()
    }

    /// Whether what was just read follows the bytes before it: between a look and a read the file may be truncated
    /// and written anew.
    fn is_still_behind(&mut self, cursor: &Cursor) -> io::Result<bool> {
        let Stat { size, modified, .. } = self.file.stat()?;
        if size == self.size && modified == self.modified {
            return Ok(true);
        }
        let (offset, tail) = cursor.tail_scanned();
        Ok(size >= offset && Tail::read(&*self.file, offset)? == *tail)
    }

    fn has_nul_at(&self, offset: u64) -> io::Result<bool> {
        let mut byte = [1];
        Ok(read_full_at(&*self.file, &mut byte, offset)? == 1 && byte == [0])
    }

    /// Whether what was read is still there; of which nothing was read, whether it begins as it did.
    fn begins_and_tails_agree(&self) -> io::Result<bool> {
        Ok(self.tails_agree()? && (self.counted_offset() > 0 || self.head.matches(&*self.file)?))
    }

    /// Whether the bytes before both places are those that were read.
    fn tails_agree(&self) -> io::Result<bool> {
        let agrees =
            |cursor: &Cursor| Ok::<bool, io::Error>(Tail::read(&*self.file, cursor.offset)? == cursor.tail);
        Ok(agrees(&self.cursor)? && self.ahead.as_ref().map_or(Ok(true), |ahead| agrees(&ahead.cursor))?)
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
        let Stat { links, size, .. } = self.file.stat()?;
        if size > self.size || (self.name == Name::Absent && links > 0) {
            return Ok(());
        }
        if self.cursor.nuls_ahead() > 0 {
            // Nobody will write behind this hole any more.
            self.cursor.take_nuls(0);
        }
        let length = self.size.saturating_sub(self.cursor.offset);
        // What a copy cuts off goes on in the log.
        if length > 0 && !self.is_stand_in && !is_on(Mutant::DropsPartialLine) {
            let kept = length.min(LINE_BYTES_MAX as u64) as usize;
            let read = read_full_at(&*self.file, &mut buffer[..kept], self.cursor.offset)?;
            let cut = length > LINE_BYTES_MAX as u64;
            let bytes = match memrchr(b'\n', &buffer[..read]) {
                // It grew between the look and now: an ordinary turn will take it.
                Some(_) => return Ok(()),
                None => &buffer[..read],
            };
            let line = Line { cut, partial: true, ..Line::whole(bytes, self.cursor.offset, length) };
            let tail = Tail::read(&*self.file, self.size)?;
            if take(line) == Flow::Refuse {
                turn.more = true;
                turn.refused = true;
                return Ok(());
            }
            self.cursor.advance(length, &mut turn.lines);
            self.cursor.tail = tail;
        }
        turn.finished = true;
        Ok(())
    }

    /// A file without a name that cannot be read any further, since it is damaged, is finished like one that was read
    /// to its end.
    fn end_at_damage(&mut self, error: io::Error, now: Instant, turn: &mut Turn) -> io::Result<()> {
        let is_over = self.name != Name::Present
            && self.file.unreadable_rest().is_some()
            && now.saturating_duration_since(self.still_since) >= ROTATE_GRACE;
        turn.finished |= is_over;
        if is_over { Ok(()) } else { Err(error) }
    }

    /// Why the file ends before the log in it did, if that is so.
    pub(super) fn unreadable_rest(&self) -> Option<String> {
        self.file.unreadable_rest()
    }
}
