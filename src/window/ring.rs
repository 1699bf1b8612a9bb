//! One bucket a second of event time: what the rolling rates are summed from. It knows seconds
//! and a floor; it never knows what time it is.

use std::collections::VecDeque;

use super::counts::Counts;
use super::state::{Decoder, Encoder, Journal, Key, Mark};

/// The longest rolling window, in seconds.
pub(super) const WINDOW_S_MAX: i64 = 900;
/// How far behind the watermark a line still corrects its second.
pub(super) const BEHIND_S_MAX: i64 = WINDOW_S_MAX + 60;
/// How far the newest event may run ahead of the watermark while a slower file is read; beyond
/// it the watermark moves on and the slow file's lines are late.
pub(super) const AHEAD_S_MAX: i64 = 1800;
/// Seconds held at most: some 250 KiB, and only while files are far apart.
const SPAN_S_MAX: i64 = BEHIND_S_MAX + AHEAD_S_MAX;

/// What one second held.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub(super) counts: Counts,
    pub(super) unparsed: u64,
    mark: Mark,
}

/// The sum over a range of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WindowSum {
    pub(super) counts: Counts,
    pub(super) unparsed: u64,
    /// Requests of the busiest second.
    pub(super) peak: u64,
}

/// Seconds in order, without holes, from `first`.
#[derive(Debug, Default)]
pub(super) struct Ring {
    first: i64,
    buckets: VecDeque<Bucket>,
}

impl Ring {
    /// The newest second with an event, if there is any.
    pub(super) fn newest(&self) -> Option<i64> {
        (!self.buckets.is_empty()).then(|| self.end() - 1)
    }

    fn end(&self) -> i64 {
        self.first + self.buckets.len() as i64
    }

    /// The bucket of a second, to be changed; `None` where it is below `floor` or so far behind
    /// the newest that the ring does not hold it any more.
    #[inline]
    pub(super) fn bucket(&mut self, second: i64, floor: i64, journal: &mut Journal) -> Option<&mut Bucket> {
        if second < floor {
            return None;
        }
        if second < self.first || second >= self.end() {
            self.reach(second, journal)?;
        }
        let bucket = &mut self.buckets[(second - self.first) as usize];
        journal.touch(&mut bucket.mark, Key::Second(second));
        Some(bucket)
    }

    /// Grows the ring to `second` in either direction, within its span.
    fn reach(&mut self, second: i64, journal: &mut Journal) -> Option<()> {
        if self.buckets.is_empty() || second - self.end() >= SPAN_S_MAX {
            self.clear(journal);
            self.first = second;
            self.buckets.push_back(Bucket::default());
        }
        if self.end() - second > SPAN_S_MAX {
            return None;
        }
        while second < self.first {
            self.buckets.push_front(Bucket::default());
            self.first -= 1;
        }
        while second >= self.end() {
            self.buckets.push_back(Bucket::default());
        }
        self.trim_before(self.end() - SPAN_S_MAX, journal);
        Some(())
    }

    /// Lets go of seconds below `floor`.
    pub(super) fn trim_before(&mut self, floor: i64, journal: &mut Journal) {
        while self.first < floor && self.pop_front(journal) {}
        if self.buckets.capacity() > 4 * self.buckets.len().max(WINDOW_S_MAX as usize / 4) {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
    }

    fn pop_front(&mut self, journal: &mut Journal) -> bool {
        let Some(bucket) = self.buckets.pop_front() else { return false };
        journal.remove(bucket.mark, Key::Second(self.first));
        self.first += 1;
        true
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self, journal: &mut Journal) {
        while self.pop_front(journal) {}
    }

    /// Sums the seconds in `from..to`. Seconds that the ring does not hold had no event.
    pub(super) fn sum(&self, from: i64, to: i64) -> WindowSum {
        let mut sum = WindowSum::default();
        let low = from.max(self.first);
        let high = to.min(self.end());
        if low < high {
            let range = (low - self.first) as usize..(high - self.first) as usize;
            for bucket in self.buckets.range(range) {
                sum.counts.merge(&bucket.counts);
                sum.unparsed += bucket.unparsed;
                sum.peak = sum.peak.max(bucket.counts.requests());
            }
        }
        sum
    }

    fn get(&self, second: i64) -> Option<&Bucket> {
        self.buckets.get(usize::try_from(second - self.first).ok()?)
    }

    /// The durable value of a second.
    pub(super) fn encode(&self, second: i64) -> Option<Vec<u8>> {
        let bucket = self.get(second)?;
        let mut encoder = Encoder::new();
        bucket.counts.encode(&mut encoder);
        encoder.unsigned(bucket.unparsed);
        Some(encoder.finish())
    }

    /// The second was handed out.
    pub(super) fn saved(&mut self, second: i64) {
        if let Ok(index) = usize::try_from(second - self.first)
            && let Some(bucket) = self.buckets.get_mut(index)
        {
            bucket.mark = Mark::saved();
        }
    }

    /// Takes back a second from disk.
    pub(super) fn restore(&mut self, second: i64, value: &[u8], journal: &mut Journal) -> Option<()> {
        let mut decoder = Decoder::new(value)?;
        let counts = Counts::decode(&mut decoder)?;
        let unparsed = decoder.count()?;
        decoder.finish()?;
        if second < self.first || second >= self.end() {
            self.reach(second, journal)?;
        }
        self.buckets[(second - self.first) as usize] = Bucket { counts, unparsed, mark: Mark::saved() };
        Some(())
    }

    /// Marks every second that holds anything as changed.
    pub(super) fn touch_all(&mut self, journal: &mut Journal) {
        for (second, bucket) in (self.first..).zip(&mut self.buckets) {
            if bucket.unparsed > 0 || bucket.counts != Counts::default() {
                journal.touch(&mut bucket.mark, Key::Second(second));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(ring: &mut Ring, second: i64, floor: i64) -> bool {
        let mut journal = Journal::default();
        match ring.bucket(second, floor, &mut journal) {
            Some(bucket) => {
                bucket.counts.add(200, 1);
                true
            }
            None => false,
        }
    }

    #[test]
    fn grows_both_ways_within_its_span() {
        let mut ring = Ring::default();
        assert_eq!(ring.newest(), None);
        for (second, kept) in [(10_000, true), (9_990, true), (10_000 - SPAN_S_MAX, false), (10_005, true)] {
            assert_eq!(add(&mut ring, second, i64::MIN), kept, "{second}");
        }
        assert!(!add(&mut ring, 9_000, 9_001));
        assert_eq!(ring.newest(), Some(10_005));
        assert_eq!(ring.sum(9_990, 10_005).counts.requests(), 2);
        assert_eq!(ring.sum(9_990, 10_006).counts.requests(), 3);
        assert_eq!(ring.sum(0, 1 << 40).peak, 1);
    }

    #[test]
    fn a_leap_lets_go_of_everything_before() {
        let mut ring = Ring::default();
        for second in [100, 101, 100 + SPAN_S_MAX, 10_000_000_000] {
            assert!(add(&mut ring, second, i64::MIN));
            assert!(ring.buckets.len() as i64 <= SPAN_S_MAX);
        }
        assert_eq!(ring.sum(0, i64::MAX).counts.requests(), 1);
        assert!(ring.buckets.capacity() < 8 * 900);
    }
}
