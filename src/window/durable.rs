//! How the windows survive a restart: which value stands behind which key, what changed since
//! the last commit, and how all of it is taken back.
//!
//! A restored agent gives the same view and the same summaries as one that was never stopped,
//! provided that the source of lines resumes at the position of the same commit.

use super::sketch::Sketch;
use super::state::{Decoder, Encoder, Journal, Key, Level, Mark, PREFIX, RecentKind};
use super::top::Tally;
use super::{CODES_MAX, Counts, Options, Totals, Windows};
use crate::record::EpochMs;

impl Windows {
    /// Windows as they were at the commit that `entries` come from; those of others are passed over.
    /// Damaged and unknown entries are ignored and counted ([`Windows::damaged`]); after damage, coverage begins anew.
    pub fn restore<'a>(
        options: Options,
        started_ms: EpochMs,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Windows {
        let mut windows = Windows::new(options, started_ms);
        let mut known = Vec::new();
        for (key, value) in entries.filter(|(key, _)| key.starts_with(PREFIX)) {
            match Key::parse(key) {
                Some(key) => known.push((key, value)),
                None => windows.damaged += 1,
            }
        }
        known.sort_unstable_by_key(|(key, _)| *key);
        let fresh = known.is_empty();
        let mut journal = Journal::default();
        for (key, value) in known {
            if windows.take_back(key, value, &mut journal).is_none() {
                windows.damaged += 1;
            }
        }
        windows.journal = journal;
        let (requests, errors) = (windows.totals.counts.requests(), windows.totals.counts.errors());
        windows.vhosts.balance(Tally { requests, errors }, &mut windows.journal);
        windows.routes.balance(Tally { requests, errors }, &mut windows.journal);
        if windows.damaged > 0 && !fresh {
            windows.gap(started_ms);
        }
        windows
    }

    /// Saved entries that were damaged or unknown, and were left out.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// What changed since the last call, as absolute values by key; no value means that the key
    /// is gone. To be committed together with the positions of the lines observed so far and the
    /// summaries taken so far.
    pub fn changes(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut changes = Vec::new();
        for (key, removed) in self.journal.take() {
            match self.value(key) {
                Some(value) => {
                    self.saved(key);
                    changes.push((key.to_bytes(), Some(value)));
                }
                None if removed => changes.push((key.to_bytes(), None)),
                None => {}
            }
        }
        changes
    }

    /// Makes the next [`Windows::changes`] hand out everything: for a log that starts from nothing.
    pub fn mark_all_changed(&mut self) {
        let journal = &mut self.journal;
        journal.touch(&mut self.meta_mark, Key::Meta);
        journal.touch(&mut self.totals.mark, Key::Totals);
        self.watermark.touch_all(journal);
        self.ring.touch_all(journal);
        for index in self.latency.indexes() {
            self.latency.slot(index, journal);
        }
        self.vhosts.touch_all(journal);
        self.routes.touch_all(journal);
        self.intervals.touch_all(journal);
    }

    /// The durable value of a key, or `None` where there is none (any more).
    pub(super) fn value(&self, key: Key) -> Option<Vec<u8>> {
        match key {
            Key::Meta => Some(self.encode_meta()),
            Key::Totals => Some(self.totals.encode()),
            Key::File(file) => self.watermark.encode(file),
            Key::Second(second) => self.ring.encode(second),
            Key::Recent(RecentKind::Latency, index) => {
                let mut encoder = Encoder::new();
                self.latency.get(index)?.encode(&mut encoder);
                Some(encoder.finish())
            }
            Key::Interval(_) | Key::Part(..) => self.intervals.encode(key),
            Key::Name(level, _)
            | Key::Entry(level, _)
            | Key::Other(level)
            | Key::Recent(RecentKind::Table(level), _) => match level {
                Level::Vhost => self.vhosts.encode(key),
                Level::Route => self.routes.encode(key),
            },
        }
    }

    fn saved(&mut self, key: Key) {
        match key {
            Key::Meta => self.meta_mark = Mark::saved(),
            Key::Totals => self.totals.mark = Mark::saved(),
            Key::File(file) => self.watermark.saved(file),
            Key::Second(second) => self.ring.saved(second),
            Key::Recent(RecentKind::Latency, index) => self.latency.saved(index),
            Key::Interval(_) | Key::Part(..) => self.intervals.saved(key),
            Key::Name(level, _)
            | Key::Entry(level, _)
            | Key::Other(level)
            | Key::Recent(RecentKind::Table(level), _) => match level {
                Level::Vhost => self.vhosts.saved(key),
                Level::Route => self.routes.saved(key),
            },
        }
    }

    fn take_back(&mut self, key: Key, value: &[u8], journal: &mut Journal) -> Option<()> {
        match key {
            Key::Meta => self.decode_meta(value),
            Key::Totals => {
                self.totals = Totals::decode(value)?;
                Some(())
            }
            Key::File(file) => self.watermark.restore(file, value),
            Key::Second(second) => self.ring.restore(second, value, journal),
            Key::Recent(RecentKind::Latency, index) => {
                let mut decoder = Decoder::new(value)?;
                let sketch = Sketch::decode(&mut decoder)?;
                decoder.finish()?;
                self.latency.restore(index, sketch);
                Some(())
            }
            Key::Interval(_) | Key::Part(..) => self.intervals.restore(key, value, journal),
            Key::Name(level, _)
            | Key::Entry(level, _)
            | Key::Other(level)
            | Key::Recent(RecentKind::Table(level), _) => match level {
                Level::Vhost => self.vhosts.restore(key, value),
                Level::Route => self.routes.restore(key, value),
            },
        }
    }

    fn encode_meta(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.optional(self.watermark.second).signed(self.observed_from).signed(self.observed_floor);
        encoder.optional(self.intervals.closed_through).signed(self.halved_at);
        encoder.finish()
    }

    fn decode_meta(&mut self, value: &[u8]) -> Option<()> {
        let mut decoder = Decoder::new(value)?;
        let second = decoder.optional()?;
        let (observed_from, observed_floor) = (decoder.signed()?, decoder.signed()?);
        let closed_through = decoder.optional()?;
        let halved_at = decoder.signed()?;
        decoder.finish()?;
        let sane = |second: i64| (0..=i64::MAX / 10_000).contains(&second);
        if ![second.unwrap_or(0), observed_from, observed_floor, halved_at].into_iter().all(sane) {
            return None;
        }
        self.watermark.second = second;
        (self.observed_from, self.observed_floor) = (observed_from, observed_floor);
        self.intervals.closed_through = closed_through;
        self.halved_at = halved_at;
        self.meta_mark = Mark::saved();
        Some(())
    }
}

impl Totals {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.counts.encode(&mut encoder);
        encoder.unsigned(self.unparsed).unsigned(self.late).unsigned(self.skewed);
        for (code, count) in self.codes.iter().enumerate().filter(|(_, count)| **count > 0) {
            encoder.unsigned(code as u64).unsigned(*count);
        }
        encoder.finish()
    }

    fn decode(value: &[u8]) -> Option<Totals> {
        let mut decoder = Decoder::new(value)?;
        let mut totals = Totals {
            counts: Counts::decode(&mut decoder)?,
            unparsed: decoder.count()?,
            late: decoder.count()?,
            skewed: decoder.count()?,
            codes: Box::new([0; CODES_MAX]),
            mark: Mark::saved(),
        };
        while !decoder.at_end() {
            let code = usize::try_from(decoder.unsigned()?).ok()?;
            *totals.codes.get_mut(code)? = decoder.count()?;
        }
        Some(totals)
    }
}
