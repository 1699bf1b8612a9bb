//! Reads that the device refuses: how often they are tried, and what is made of them then.
//!
//! Owns: the line between an error that may pass and bytes that are gone. Must never: call bytes damaged that were
//! not asked for that often, or call them whole again once their batches were counted as lost.
//!
//! A start that is refused a segment fails, since the service manager starts it again, and leaves a mark. Once there
//! are [`READ_STARTS_MAX`] marks the start goes on without the bytes. What it could not read is a hole: the next
//! segment lists it, and nobody reads there again. A running agent tries [`READ_TRIES_MAX`] times with growing waits.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Spool;
use super::disk::Disk;
use super::recover::Segment;

/// So many starts fail before what a segment does not give counts as damaged: a minute, at the 5 s between two
/// starts of the unit that is shipped.
pub(super) const READ_STARTS_MAX: usize = 12;
/// So often a running agent asks for the same bytes, over a minute, before they count as damaged.
pub(super) const READ_TRIES_MAX: u32 = 7;
/// The wait after the first of these tries; each next one is twice as long.
const READ_WAIT_MIN: Duration = Duration::from_secs(1);
/// An empty file that a failed start leaves: `unread-<segment, 16 hex digits>-<count, 2 digits>`.
const MARK_PREFIX: &str = "unread-";

/// What a read does where the device gives no bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unread {
    /// It fails: the error may pass, and the bytes be whole.
    #[default]
    Fails,
    /// Zeros stand for the bytes, which no checksum takes for a record: they were asked for often enough.
    Zeros,
}

/// A read that failed, and in which segment file.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) file: u64,
    pub(super) error: io::Error,
}

/// Bytes of a segment, by offset and count, that were given up.
pub(super) type Hole = (u64, u64);

/// Whether the device says that it cannot give the bytes. Anything else (no descriptor left, no right to read, a
/// server that does not answer) says nothing about them, and is waited for without an end.
pub(super) fn is_device_error(error: &io::Error) -> bool {
    let refusals = [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN, Errno::ILSEQ, Errno::REMOTEIO];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What failed starts left, by the number in the segment's file name.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<u64, Vec<String>>);

impl Marks {
    pub(super) fn find(disk: &impl Disk) -> io::Result<Marks> {
        let mut marks = Marks::default();
        for info in disk.list()? {
            let Some((file, _)) = info.name.strip_prefix(MARK_PREFIX).and_then(|rest| rest.split_once('-'))
            else {
                continue;
            };
            if let Ok(file) = u64::from_str_radix(file, 16) {
                marks.0.entry(file).or_default().push(info.name);
            }
        }
        Ok(marks)
    }

    fn count(&self, file: u64) -> usize {
        self.0.get(&file).map_or(0, Vec::len)
    }

    /// How a segment is read at this start.
    pub(super) fn reading(&self, file: u64) -> Unread {
        if self.count(file) < READ_STARTS_MAX { Unread::Fails } else { Unread::Zeros }
    }

    /// Leaves a mark for the next start. On a disk that takes none the starts go on failing: a disk that neither
    /// reads nor writes holds no spool.
    pub(super) fn leave(&self, disk: &mut impl Disk, file: u64) {
        let count = self.count(file);
        // A mark that is there under this name already counts as well as a new one.
        let _ = disk.create(&format!("{MARK_PREFIX}{file:016x}-{count:02}"));
    }

    /// What to say of a start that fails, and how many of them are left.
    pub(super) fn describe(&self, file: u64, error: io::Error) -> io::Error {
        if !is_device_error(&error) {
            return error;
        }
        let start = self.count(file) + 1;
        let text = format!(
            "{error}; start {start} of {READ_STARTS_MAX} that fails for it, then what cannot be read counts as damaged"
        );
        io::Error::new(error.kind(), text)
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.0.into_values().flatten().collect()
    }
}

/// Reads of the oldest batch that fail in a row.
#[derive(Debug)]
pub(super) struct Refusal {
    file: u64,
    /// What the status says.
    pub(super) reason: String,
    /// How often the device refused.
    tries: u32,
    /// When it is asked again.
    next_try: Instant,
}

impl<D: Disk> Spool<D> {
    /// Whether the oldest batch may be asked for.
    pub(super) fn may_read(&self) -> bool {
        self.refusal.as_ref().is_none_or(|refusal| refusal.next_try <= self.seen)
    }

    /// Notes that a read failed. One that the device refused too often is read around from now on.
    pub(super) fn note_refusal(&mut self, Refused { file, error }: Refused) {
        let before = self.refusal.take().filter(|before| before.file == file);
        let mut tries = before.map_or(0, |before| before.tries);
        let mut reason = format!("the oldest batch cannot be read: {error}");
        let mut next_try = self.seen;
        if is_device_error(&error) {
            next_try += READ_WAIT_MIN * (1 << tries);
            tries += 1;
            reason = format!("{reason}; try {tries} of {READ_TRIES_MAX}, then it counts as damaged");
            if tries >= READ_TRIES_MAX {
                next_try = self.seen;
                self.read_around(file);
            }
        }
        self.refusal = Some(Refusal { file, reason, tries, next_try });
    }

    fn read_around(&mut self, file: u64) {
        let current = self.current.as_mut().map(|current| &mut current.segment);
        for segment in self.segments.iter_mut().chain(current).filter(|segment| segment.file == file) {
            segment.unread = Unread::Zeros;
        }
    }

    /// How a segment is read.
    pub(super) fn reading(&self, file: u64) -> Unread {
        let current = self.current.as_ref().map(|current| &current.segment);
        let mut segments = self.segments.iter().chain(current);
        segments.find(|segment| segment.file == file).map_or(Unread::Fails, |segment| segment.unread)
    }

    /// The marks of failed starts go once what this start made of them is durable.
    pub(super) fn remove_marks(&mut self) {
        for name in std::mem::take(&mut self.marks) {
            // One that stays is taken for a failed start by the next one, and goes then.
            let _ = self.disk.unlink(&name);
        }
    }
}

/// All holes of segments, as the head of the next one lists them: number, offset and count.
pub(super) fn holes<'a>(segments: impl Iterator<Item = &'a Segment>) -> Vec<(u64, u64, u64)> {
    let of =
        |segment: &'a Segment| segment.holes.iter().map(|(offset, bytes)| (segment.number, *offset, *bytes));
    segments.flat_map(of).collect()
}
