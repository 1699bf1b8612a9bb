//! The durable form of the windows: keys, what changed since the last commit, and the byte
//! encoding of values. It holds no numbers of its own and never decides what a value means.
//!
//! Every key starts with [`PREFIX`], then a letter for its kind, then big-endian numbers. Every
//! value starts with [`VERSION`], then LEB128 varints (signed ones zigzag), so that a second of
//! ordinary traffic costs some thirty bytes.

/// What every key of the windows starts with in the shared log.
pub(super) const PREFIX: &[u8] = b"w/";

/// The first byte of every value. A value of another version is ignored and counted as damaged.
const VERSION: u8 = 1;

/// Seconds and slots beyond this (year 9999) were never written by us: the key is damaged.
const SECOND_MAX: i64 = 253_402_300_799;

/// No agent counts further (three hundred years at a million requests a second).
const COUNT_MAX: u64 = 1 << 53;

/// Which of the two bounded tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Vhost,
    Route,
}

/// What a set of recent ten-second slots holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecentKind {
    Latency,
    Table(Level),
}

/// The name of one durable value. The order of the variants is the order of restoring: a part
/// needs its interval, a count needs its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Meta,
    Totals,
    File(u32),
    Second(i64),
    Name(Level, u16),
    Entry(Level, u16),
    Other(Level),
    Recent(RecentKind, i64),
    Interval(u64),
    Part(u64, u16),
}

impl Key {
    /// The key's bytes.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        match self {
            Key::Meta => bytes.push(b'm'),
            Key::Totals => bytes.push(b't'),
            Key::File(file) => {
                bytes.push(b'f');
                bytes.extend(file.to_be_bytes());
            }
            Key::Second(second) => {
                bytes.push(b's');
                bytes.extend(second.to_be_bytes());
            }
            Key::Name(level, slot) => {
                bytes.push(level_letter(level, b'V', b'R'));
                bytes.extend(slot.to_be_bytes());
            }
            Key::Entry(level, slot) => {
                bytes.push(level_letter(level, b'v', b'r'));
                bytes.extend(slot.to_be_bytes());
            }
            Key::Other(level) => bytes.push(level_letter(level, b'o', b'O')),
            Key::Recent(kind, index) => {
                bytes.push(match kind {
                    RecentKind::Latency => b'l',
                    RecentKind::Table(level) => level_letter(level, b'c', b'C'),
                });
                bytes.extend(index.to_be_bytes());
            }
            Key::Interval(serial) => {
                bytes.push(b'i');
                bytes.extend(serial.to_be_bytes());
            }
            Key::Part(serial, slot) => {
                bytes.push(b'p');
                bytes.extend(serial.to_be_bytes());
                bytes.extend(slot.to_be_bytes());
            }
        }
        bytes
    }

    /// The key of these bytes, or `None` where they are damaged or of a newer release.
    pub(super) fn parse(bytes: &[u8]) -> Option<Key> {
        let (letter, rest) = bytes.strip_prefix(PREFIX)?.split_first()?;
        let slot = || Some(u16::from_be_bytes(rest.try_into().ok()?));
        let serial = || Some(u64::from_be_bytes(rest.try_into().ok()?));
        let second = || {
            let second = i64::from_be_bytes(rest.try_into().ok()?);
            (0..=SECOND_MAX).contains(&second).then_some(second)
        };
        let bare = |key| rest.is_empty().then_some(key);
        match letter {
            b'm' => bare(Key::Meta),
            b't' => bare(Key::Totals),
            b'f' => Some(Key::File(u32::from_be_bytes(rest.try_into().ok()?))),
            b's' => Some(Key::Second(second()?)),
            b'V' => Some(Key::Name(Level::Vhost, slot()?)),
            b'R' => Some(Key::Name(Level::Route, slot()?)),
            b'v' => Some(Key::Entry(Level::Vhost, slot()?)),
            b'r' => Some(Key::Entry(Level::Route, slot()?)),
            b'o' => bare(Key::Other(Level::Vhost)),
            b'O' => bare(Key::Other(Level::Route)),
            b'l' => Some(Key::Recent(RecentKind::Latency, second()?)),
            b'c' => Some(Key::Recent(RecentKind::Table(Level::Vhost), second()?)),
            b'C' => Some(Key::Recent(RecentKind::Table(Level::Route), second()?)),
            b'i' => Some(Key::Interval(serial()?)),
            b'p' => {
                let (serial, slot) = rest.split_first_chunk::<8>()?;
                let slot = u16::from_be_bytes(slot.try_into().ok()?);
                Some(Key::Part(u64::from_be_bytes(*serial), slot))
            }
            _ => None,
        }
    }
}

fn level_letter(level: Level, vhost: u8, route: u8) -> u8 {
    match level {
        Level::Vhost => vhost,
        Level::Route => route,
    }
}

/// Where one value stands towards the log on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// It changed since it was last handed out, and its key is in the journal.
    dirty: bool,
    /// It was handed out at least once, so its removal must be handed out too.
    saved: bool,
}

impl Mark {
    /// The value has just been handed out.
    pub(super) fn saved() -> Mark {
        Mark { dirty: false, saved: true }
    }
}

/// The keys that changed since the last commit. A value is pushed once however often it changes,
/// so a line costs the journal one comparison.
#[derive(Debug, Default)]
pub(super) struct Journal {
    dirty: Vec<Key>,
    removed: Vec<Key>,
}

impl Journal {
    /// Notes that the value of `key` changed.
    #[inline]
    pub(super) fn touch(&mut self, mark: &mut Mark, key: Key) {
        if !mark.dirty {
            mark.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Notes that the value of `key` is gone; one that was never handed out leaves no trace.
    pub(super) fn remove(&mut self, mark: Mark, key: Key) {
        if mark.saved {
            self.removed.push(key);
        }
    }

    /// How many keys wait: bounded by [`Journal::retain`] while nobody asks for changes.
    pub(super) fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// Forgets changed keys whose value is gone again.
    pub(super) fn retain(&mut self, live: impl Fn(Key) -> bool) {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        self.dirty.retain(|key| live(*key));
    }

    /// Takes every changed key once, each with whether an earlier value of it was removed.
    pub(super) fn take(&mut self) -> Vec<(Key, bool)> {
        let mut keys: Vec<(Key, bool)> = self.dirty.drain(..).map(|key| (key, false)).collect();
        keys.extend(self.removed.drain(..).map(|key| (key, true)));
        // A removal sorts behind the change of the same key; keep the removal's knowledge.
        keys.sort_unstable();
        keys.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            kept.1 |= same && later.1;
            same
        });
        keys
    }
}

/// Writes one value.
#[derive(Debug)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder(vec![VERSION])
    }

    /// LEB128.
    pub(super) fn unsigned(&mut self, mut value: u64) -> &mut Encoder {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Zigzag, then LEB128.
    pub(super) fn signed(&mut self, value: i64) -> &mut Encoder {
        self.unsigned(((value << 1) ^ (value >> 63)) as u64)
    }

    pub(super) fn optional(&mut self, value: Option<i64>) -> &mut Encoder {
        match value {
            None => self.unsigned(0),
            Some(value) => self.unsigned(1).signed(value),
        }
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Encoder {
        self.unsigned(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads one value; every method answers `None` where the bytes are damaged.
#[derive(Debug)]
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Decoder<'a>> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Decoder(rest))
    }

    pub(super) fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A count: so far below the limit of its type that sums of damaged ones cannot overflow.
    pub(super) fn count(&mut self) -> Option<u64> {
        self.unsigned().filter(|count| *count <= COUNT_MAX)
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let raw = self.unsigned()?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub(super) fn optional(&mut self) -> Option<Option<i64>> {
        match self.unsigned()? {
            0 => Some(None),
            1 => Some(Some(self.signed()?)),
            _ => None,
        }
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.unsigned()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.unsigned()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// Whether everything was read.
    pub(super) fn at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of the value: bytes left over mean damage.
    pub(super) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed expectation is a failed test
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_key_reads_back() {
        let keys = [
            Key::Meta,
            Key::Totals,
            Key::File(7),
            Key::Second(1_700_000_000),
            Key::Name(Level::Vhost, 3),
            Key::Name(Level::Route, 3),
            Key::Entry(Level::Vhost, 99),
            Key::Entry(Level::Route, 199),
            Key::Other(Level::Vhost),
            Key::Other(Level::Route),
            Key::Recent(RecentKind::Latency, 170_000_000),
            Key::Recent(RecentKind::Table(Level::Vhost), 1),
            Key::Recent(RecentKind::Table(Level::Route), 1),
            Key::Interval(u64::MAX),
            Key::Part(5, 100),
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.to_bytes()), Some(key));
        }
        assert_eq!(Key::parse(&Key::Second(-1).to_bytes()), None);
        assert_eq!(Key::parse(b"w/s123"), None);
        assert_eq!(Key::parse(b"x/m"), None);
    }

    #[test]
    fn a_value_that_never_left_needs_no_removal() {
        let mut journal = Journal::default();
        let mut mark = Mark::default();
        journal.touch(&mut mark, Key::Second(1));
        journal.touch(&mut mark, Key::Second(1));
        assert_eq!(journal.pending(), 1);
        journal.remove(mark, Key::Second(1));
        assert_eq!(journal.take(), [(Key::Second(1), false)]);
        journal.remove(Mark::saved(), Key::Second(1));
        journal.touch(&mut Mark::default(), Key::Second(1));
        assert_eq!(journal.take(), [(Key::Second(1), true)]);
    }

    proptest! {
        #[test]
        fn numbers_read_back(unsigned: u64, signed: i64, optional: Option<i64>, text: String) {
            let mut encoder = Encoder::new();
            encoder.unsigned(unsigned).signed(signed).optional(optional).text(&text);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes).unwrap();
            prop_assert_eq!(decoder.unsigned(), Some(unsigned));
            prop_assert_eq!(decoder.signed(), Some(signed));
            prop_assert_eq!(decoder.optional(), Some(optional));
            prop_assert_eq!(decoder.text(), Some(text.as_str()));
            prop_assert_eq!(decoder.finish(), Some(()));
        }

        #[test]
        fn damage_never_panics(bytes: Vec<u8>) {
            let _ = Key::parse(&bytes);
            if let Some(mut decoder) = Decoder::new(&bytes) {
                while decoder.optional().is_some() || decoder.text().is_some() {}
            }
        }
    }
}
