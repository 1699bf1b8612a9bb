//! The intervals that summaries are made of: open ones, and closed ones that nobody took yet.
//!
//! Invariant: every request put in lies in exactly one part of one interval until `close` hands
//! that interval out, once. A line for an interval that was handed out opens it anew, as a
//! correction. Where bounds bite, time gets coarser (intervals are folded together); no count
//! is ever dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::counts::Counts;
use super::names;
use super::sketch::{Measured, Sketch};
use super::state::{Decoder, Encoder, Journal, Key, Mark};
use super::summary::{Span, Summary};

/// Intervals held open at a time. Over it the one idle for longest is closed before its time.
pub(super) const OPEN_MAX: usize = 64;
/// Parts (a vhost in an interval) held at most. Over it closed intervals are folded together.
const PARTS_MAX: usize = 4096;
/// Intervals without a request that one close may tell of. After a longer leap (a suspended
/// machine, an old log) they are not told: nobody watched them.
const EMPTY_MAX: i64 = 6;

/// One vhost in one interval.
#[derive(Debug)]
struct Part {
    name: Arc<str>,
    counts: Counts,
    latency: Sketch,
    mark: Mark,
}

#[derive(Debug)]
struct Interval {
    span: Span,
    unparsed: u64,
    /// By the row of the vhost's table; the last is the remainder's.
    parts: Vec<Option<Box<Part>>>,
    /// Closed, to be taken at the next close.
    ready: bool,
    /// When it was last turned to, in turns.
    used: u64,
    mark: Mark,
}

/// All intervals that are held.
#[derive(Debug)]
pub(super) struct Intervals {
    interval_s: i64,
    /// The row of the remainder.
    other: u16,
    other_name: Arc<str>,
    /// Everything that is held, by serial.
    held: BTreeMap<u64, Interval>,
    /// Serials of the open ones by their start.
    open: BTreeMap<i64, u64>,
    /// The open interval of the last line, as start and serial.
    last: Option<(i64, u64)>,
    /// Serials of those that are closed, to be taken at the next close, in the order in which they were closed.
    ready: VecDeque<u64>,
    /// Turns from one interval to another.
    uses: u64,
    parts: usize,
    /// Every interval that ends here or before was handed out (or had nothing).
    pub(super) closed_through: Option<i64>,
    next_serial: u64,
}

impl Interval {
    fn part(&mut self, row: u16) -> Option<&mut Part> {
        self.parts.get_mut(usize::from(row))?.as_deref_mut()
    }

    /// Adds to the part at `row`, where it is of the same name; else to the remainder.
    fn add_part(&mut self, row: u16, mut part: Box<Part>, other: (u16, &Arc<str>)) {
        let at = usize::from(row);
        if self.parts.len() <= at {
            self.parts.resize_with(at + 1, || None);
        }
        match &mut self.parts[at] {
            Some(held) if row == other.0 || held.name == part.name => {
                held.counts.merge(&part.counts);
                held.latency.merge(&part.latency);
            }
            Some(_) => {
                part.name = Arc::clone(other.1);
                self.add_part(other.0, part, other);
            }
            empty => *empty = Some(part),
        }
    }

    fn parts(&self) -> usize {
        self.parts.iter().flatten().count()
    }

    /// Whether it is handed out at the next close.
    fn is_due(&self, watermark: Option<i64>, all: bool) -> bool {
        all || self.ready || self.span.correction || watermark.is_some_and(|w| self.span.end_s <= w)
    }

    /// It leaves: nothing of it stays on disk.
    fn forget(&self, serial: u64, journal: &mut Journal) {
        journal.remove(self.mark, Key::Interval(serial));
        for (row, part) in (0u16..).zip(&self.parts) {
            part.iter().for_each(|part| journal.remove(part.mark, Key::Part(serial, row)));
        }
    }
}

impl Intervals {
    /// No interval yet. `other` is the row that stands for the remainder.
    pub(super) fn new(interval_s: u32, other: u16) -> Intervals {
        Intervals {
            interval_s: i64::from(interval_s.max(1)),
            other,
            other_name: names::OTHER.into(),
            held: BTreeMap::new(),
            open: BTreeMap::new(),
            last: None,
            ready: VecDeque::new(),
            uses: 0,
            parts: 0,
            closed_through: None,
            next_serial: 0,
        }
    }

    /// Adds one request.
    pub(super) fn add(
        &mut self,
        second: i64,
        (row, name): (u16, &Arc<str>),
        (status, bytes_sent, latency): (u16, u64, Option<Measured>),
        journal: &mut Journal,
    ) {
        let other = self.other;
        let serial = self.open_at(second, journal);
        let interval = self.held.get_mut(&serial).expect("open_at opened it");
        let fits = |part: &Part| Arc::ptr_eq(&part.name, name) || part.name == *name;
        if !interval.part(row).is_some_and(|part| fits(part)) {
            let before = interval.parts();
            displace(serial, interval, row, (other, &self.other_name), name, journal);
            self.parts = self.parts + interval.parts() - before;
        }
        let part = interval.part(row).expect("displace made it");
        part.counts.add(status, bytes_sent);
        if let Some(latency) = latency {
            part.latency.add_measured(latency);
        }
        journal.touch(&mut part.mark, Key::Part(serial, row));
        if self.parts > PARTS_MAX {
            self.fold(journal);
        }
    }

    /// Adds one line that could not be parsed.
    pub(super) fn add_unparsed(&mut self, second: i64, journal: &mut Journal) {
        let serial = self.open_at(second, journal);
        let interval = self.held.get_mut(&serial).expect("open_at opened it");
        interval.unparsed += 1;
        journal.touch(&mut interval.mark, Key::Interval(serial));
    }

    /// The serial of the open interval of a second; opens it, and closes the one idle for longest over the cap.
    fn open_at(&mut self, second: i64, journal: &mut Journal) -> u64 {
        // Line after line belongs to one interval; a division and a look-up are dear.
        if let Some((start_s, serial)) = self.last
            && (start_s..start_s + self.interval_s).contains(&second)
        {
            return serial;
        }
        let start_s = second.div_euclid(self.interval_s) * self.interval_s;
        let serial = match self.open.get(&start_s) {
            Some(serial) => *serial,
            None => self.open_anew(start_s, journal),
        };
        self.last = Some((start_s, serial));
        self.uses += 1;
        self.held.get_mut(&serial).into_iter().for_each(|interval| interval.used = self.uses);
        serial
    }

    fn open_anew(&mut self, start_s: i64, journal: &mut Journal) -> u64 {
        if self.open.len() >= OPEN_MAX {
            // Not the oldest: of two logs of different days one would close the other's interval with each line.
            let idle = self.open.iter().min_by_key(|(_, serial)| self.held.get(serial).map(|held| held.used));
            if let Some((start_s, serial)) = idle.map(|(start_s, serial)| (*start_s, *serial)) {
                self.open.remove(&start_s);
                self.retire(serial, journal);
            }
        }
        let end_s = start_s + self.interval_s;
        let correction = self.closed_through.is_some_and(|closed| end_s <= closed);
        let serial = self.next_serial;
        self.next_serial += 1;
        let span = Span { start_s, end_s, correction };
        let mut interval =
            Interval { span, unparsed: 0, parts: Vec::new(), ready: false, used: 0, mark: Mark::default() };
        journal.touch(&mut interval.mark, Key::Interval(serial));
        self.held.insert(serial, interval);
        self.open.insert(start_s, serial);
        serial
    }

    /// Closes an interval, which is open no more, before it is taken.
    fn retire(&mut self, serial: u64, journal: &mut Journal) {
        self.last = None;
        let Some(interval) = self.held.get_mut(&serial) else { return };
        self.closed_through = self.closed_through.max(Some(interval.span.end_s));
        interval.ready = true;
        journal.touch(&mut interval.mark, Key::Interval(serial));
        self.ready.push_back(serial);
        if self.ready.len() > PARTS_MAX {
            self.fold(journal);
        }
    }

    /// Folds neighbours together until half of the room is free. Only where nobody takes what is
    /// closed (the spool is full), or one call read thousands of intervals of an old log.
    fn fold(&mut self, journal: &mut Journal) {
        while self.ready.len() < 2
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.retire(oldest, journal);
        }
        let other = (self.other, &self.other_name);
        while (self.parts > PARTS_MAX / 2 || self.ready.len() > PARTS_MAX / 2) && self.ready.len() > 1 {
            let mut serials = std::mem::take(&mut self.ready).into_iter();
            while let Some(serial) = serials.next() {
                self.ready.push_back(serial);
                let Some(neighbour) = serials.next() else { break };
                let gone = self.held.remove(&neighbour);
                if let (Some(interval), Some(gone)) = (self.held.get_mut(&serial), gone) {
                    gone.forget(neighbour, journal);
                    merge_interval(serial, interval, gone, other, journal);
                }
            }
            self.parts = self.held.values().map(Interval::parts).sum();
        }
    }

    /// Whether [`Intervals::close`], asked the same, would hand out anything.
    pub(super) fn is_due(&self, watermark: Option<i64>, all: bool, fill: bool, observed_from: i64) -> bool {
        self.held.values().any(|held| held.is_due(watermark, all))
            || (fill && !self.empty(watermark, &[], observed_from).is_empty())
    }

    /// Hands out every interval that ends at `watermark` or before, every correction, and with
    /// `all` the open ones too. Where `fill` is set, recent intervals without a request are told
    /// of as zero, from `observed_from` on.
    pub(super) fn close(
        &mut self,
        watermark: Option<i64>,
        all: bool,
        fill: bool,
        observed_from: i64,
        journal: &mut Journal,
    ) -> Vec<Summary> {
        self.last = None;
        self.ready.clear();
        let mut taken: Vec<(u64, Interval)> =
            self.held.extract_if(.., |_, held| held.is_due(watermark, all)).collect();
        self.open.retain(|_, serial| self.held.contains_key(serial));
        taken.sort_by_key(|(serial, interval)| (interval.span.end_s, *serial));
        let mut summaries = if fill { self.empty(watermark, &taken, observed_from) } else { Vec::new() };
        let last = taken.iter().map(|(_, interval)| interval.span.end_s).max();
        self.closed_through = self.closed_through.max(watermark).max(last);
        for (serial, interval) in taken {
            self.parts -= interval.parts();
            interval.forget(serial, journal);
            summaries.extend(summarize(interval, observed_from));
        }
        summaries
    }

    /// Summaries of zero for the intervals that ended since the last close and had nothing.
    fn empty(&self, watermark: Option<i64>, taken: &[(u64, Interval)], observed_from: i64) -> Vec<Summary> {
        let (Some(closed), Some(watermark)) = (self.closed_through, watermark) else { return Vec::new() };
        let first = closed.div_euclid(self.interval_s) + 1;
        let last = watermark.div_euclid(self.interval_s);
        if last - first >= EMPTY_MAX {
            return Vec::new();
        }
        (first..=last)
            .map(|number| number * self.interval_s)
            .filter(|end_s| end_s - self.interval_s >= observed_from)
            .filter(|end_s| taken.iter().all(|(_, held)| held.span.end_s != *end_s))
            .map(|end_s| {
                let span = Span { start_s: end_s - self.interval_s, end_s, correction: false };
                let mut zero = Summary::new(&span, names::ALL, &Counts::default(), Sketch::default());
                zero.unparsed = Some(0);
                zero
            })
            .collect()
    }

    /// The clock stepped back: what was open ends now, whatever its end.
    pub(super) fn retire_all(&mut self, journal: &mut Journal) {
        for (_, serial) in std::mem::take(&mut self.open) {
            self.retire(serial, journal);
        }
        self.closed_through = None;
    }

    /// The durable value of an interval or of a part.
    pub(super) fn encode(&self, key: Key) -> Option<Vec<u8>> {
        let mut encoder = Encoder::new();
        match key {
            Key::Interval(serial) => {
                let interval = self.held.get(&serial)?;
                let span = interval.span;
                encoder.signed(span.start_s).signed(span.end_s).unsigned(span.correction.into());
                encoder.unsigned(interval.ready.into()).unsigned(interval.unparsed);
            }
            Key::Part(serial, row) => {
                let part = self.held.get(&serial)?.parts.get(usize::from(row))?.as_ref()?;
                encoder.text(&part.name);
                part.counts.encode(&mut encoder);
                part.latency.encode(&mut encoder);
            }
            _ => return None,
        }
        Some(encoder.finish())
    }

    /// The value of a key was handed out.
    pub(super) fn saved(&mut self, key: Key) {
        let (Key::Interval(serial) | Key::Part(serial, _)) = key else { return };
        let Some(interval) = self.held.get_mut(&serial) else { return };
        match key {
            Key::Part(_, row) => {
                interval.part(row).into_iter().for_each(|part| part.mark = Mark::saved());
            }
            _ => interval.mark = Mark::saved(),
        }
    }

    /// Takes back an interval or, after it, a part of it.
    pub(super) fn restore(&mut self, key: Key, value: &[u8], journal: &mut Journal) -> Option<()> {
        let mut decoder = Decoder::new(value)?;
        match key {
            Key::Interval(serial) => {
                let (start_s, end_s) = (decoder.signed()?, decoder.signed()?);
                let span = Span { start_s, end_s, correction: decoder.flag()? };
                let ready = decoder.flag()?;
                let unparsed = decoder.count()?;
                decoder.finish()?;
                if start_s < 0 || end_s <= start_s || end_s > i64::MAX / 1000 {
                    return None;
                }
                self.next_serial = self.next_serial.max(serial.checked_add(1)?);
                // An interval of another length (the setting changed) cannot go on growing.
                let fits = start_s % self.interval_s == 0 && end_s - start_s == self.interval_s;
                let ready = ready || !fits || self.open.contains_key(&start_s);
                if ready {
                    self.ready.push_back(serial);
                } else {
                    self.open.insert(start_s, serial);
                }
                let interval =
                    Interval { span, unparsed, parts: Vec::new(), ready, used: 0, mark: Mark::saved() };
                self.held.insert(serial, interval);
                Some(())
            }
            Key::Part(serial, row) => {
                let name: Arc<str> = decoder.text()?.into();
                let counts = Counts::decode(&mut decoder)?;
                let latency = Sketch::decode(&mut decoder)?;
                decoder.finish()?;
                let (other, other_name) = (self.other, Arc::clone(&self.other_name));
                let mut mark = Mark::saved();
                let (row, name) = if row < other && &*name != names::OTHER {
                    (row, name)
                } else {
                    (other, Arc::clone(&other_name))
                };
                let interval = self.held.get_mut(&serial)?;
                // A remainder that came to stand elsewhere (the limit changed) is written anew.
                if Key::Part(serial, row) != key {
                    journal.remove(mark, key);
                    mark = Mark::default();
                    journal.touch(&mut mark, Key::Part(serial, row));
                }
                let part = Box::new(Part { name, counts, latency, mark });
                let before = interval.parts();
                interval.add_part(row, part, (other, &other_name));
                let made = interval.parts() - before;
                self.parts += made;
                Some(())
            }
            _ => None,
        }
    }

    /// Marks everything as changed.
    pub(super) fn touch_all(&mut self, journal: &mut Journal) {
        for (serial, interval) in &mut self.held {
            let serial = *serial;
            journal.touch(&mut interval.mark, Key::Interval(serial));
            for (row, part) in (0u16..).zip(&mut interval.parts) {
                part.iter_mut().for_each(|part| journal.touch(&mut part.mark, Key::Part(serial, row)));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held.len(), self.parts)
    }
}

/// Makes room for `name` at `row`: what stood there belongs to a vhost that lost its row, and
/// goes to the remainder.
fn displace(
    serial: u64,
    interval: &mut Interval,
    row: u16,
    other: (u16, &Arc<str>),
    name: &Arc<str>,
    journal: &mut Journal,
) {
    let gone = interval.parts.get_mut(usize::from(row)).and_then(Option::take);
    if let Some(mut gone) = gone {
        journal.remove(std::mem::take(&mut gone.mark), Key::Part(serial, row));
        gone.name = Arc::clone(other.1);
        interval.add_part(other.0, gone, other);
        let held = interval.part(other.0).expect("add_part put it there");
        journal.touch(&mut held.mark, Key::Part(serial, other.0));
    }
    let name = Arc::clone(name);
    let (counts, latency, mark) = (Counts::default(), Sketch::default(), Mark::default());
    interval.add_part(row, Box::new(Part { name, counts, latency, mark }), other);
}

/// Adds everything of `from` to `into`.
fn merge_interval(
    serial: u64,
    into: &mut Interval,
    from: Interval,
    other: (u16, &Arc<str>),
    journal: &mut Journal,
) {
    into.span.start_s = into.span.start_s.min(from.span.start_s);
    into.span.end_s = into.span.end_s.max(from.span.end_s);
    into.span.correction &= from.span.correction;
    into.unparsed += from.unparsed;
    journal.touch(&mut into.mark, Key::Interval(serial));
    for (row, part) in (0u16..).zip(from.parts) {
        let Some(mut part) = part else { continue };
        part.mark = Mark::default();
        into.add_part(row, part, other);
        for row in [row, other.0] {
            let held = into.part(row).into_iter();
            held.for_each(|part| journal.touch(&mut part.mark, Key::Part(serial, row)));
        }
    }
}

/// `_all` first, then every vhost that had requests.
fn summarize(interval: Interval, observed_from: i64) -> Vec<Summary> {
    let span = interval.span;
    let mut all = Counts::default();
    let mut latency = Sketch::default();
    let mut summaries = Vec::with_capacity(interval.parts.len() + 1);
    for part in interval.parts.into_iter().flatten() {
        all.merge(&part.counts);
        latency.merge(&part.latency);
        summaries.push(Summary::new(&span, &part.name, &part.counts, part.latency));
    }
    let mut whole = Summary::new(&span, names::ALL, &all, latency);
    whole.unparsed = Some(interval.unparsed);
    summaries.insert(0, whole);
    let partial = !span.correction && span.start_s < observed_from;
    summaries.iter_mut().for_each(|summary| summary.partial = partial);
    summaries
}
