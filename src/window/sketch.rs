//! A mergeable sketch of latencies: OpenTelemetry's exponential histogram at a fixed scale.
//!
//! Bucket `i` holds the values in `(base^i, base^(i+1)]` seconds, with `base = 2^(2^-6) = 1.0109`
//! (OpenTelemetry data model, "ExponentialHistogram"; index by the logarithm method). Because the
//! scale never changes, merging is adding counts: exact, in any order, on any machine. A quantile
//! is at most 0.55 % from the true value of its rank.

use std::sync::LazyLock;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::state::{Decoder, Encoder};

/// The exponent of the base. Never change it: shipped sketches of all time must merge.
pub(super) const SCALE: i32 = 6;
/// Buckets in an octave: `2^SCALE`.
const BUCKETS_PER_OCTAVE: f64 = (1 << SCALE) as f64;
/// A request time beyond this (34 years) is a broken number and counts as this much.
const VALUE_MS_MAX: u64 = 1 << 40;
/// Times below this, in milliseconds, have their bucket in a table of 2 KiB.
const SHORT_MS: usize = 1024;
/// A dense list of counts may have this many zeros for each count; beyond it pairs are shorter.
const DENSE_SPAN_PER_COUNT: i64 = 4;

/// One bucket that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    index: i16,
    count: u64,
}

/// A histogram of request times. Only buckets that hold something take memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    zero_count: u64,
    count: u64,
    sum_ms: u64,
    min_ms: u64,
    max_ms: u64,
    cells: Vec<Cell>,
}

/// A request time with its bucket: several sketches take it, and the logarithm is the dear part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    value_ms: u64,
    /// None for zero, which has no logarithm.
    index: Option<i16>,
}

impl Measured {
    pub(super) fn new(value_ms: u64) -> Measured {
        let value_ms = value_ms.min(VALUE_MS_MAX);
        let short = usize::try_from(value_ms).ok().and_then(|ms| SHORT.get(ms).copied());
        Measured { value_ms, index: (value_ms > 0).then(|| short.unwrap_or_else(|| index_of(value_ms))) }
    }
}

/// The buckets of the times that most requests take, in milliseconds; of zero, which has none, there is one to no use.
static SHORT: LazyLock<[i16; SHORT_MS]> = LazyLock::new(|| std::array::from_fn(|ms| index_of(ms as u64)));

/// The bucket of a value that is not zero.
fn index_of(value_ms: u64) -> i16 {
    let seconds = value_ms as f64 / 1000.0;
    // The upper bound of a bucket belongs to it. The result lies in -638..=1922 by VALUE_MS_MAX.
    ((seconds.log2() * BUCKETS_PER_OCTAVE).ceil() - 1.0) as i16
}

/// The value in seconds that stands for a bucket: at most (base-1)/(base+1) from any in it.
fn middle_of(index: i16) -> f64 {
    let lower = (f64::from(index) / BUCKETS_PER_OCTAVE).exp2();
    let base = (1.0 / BUCKETS_PER_OCTAVE).exp2();
    lower * 2.0 * base / (1.0 + base)
}

/// Microseconds are more than the log tells.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

impl Sketch {
    /// Adds one request time.
    pub fn add(&mut self, value_ms: u64) {
        self.add_measured(Measured::new(value_ms));
    }

    #[inline(always)] // twice a line with a time, and the library is built for size
    pub(super) fn add_measured(&mut self, Measured { value_ms, index }: Measured) {
        self.min_ms = if self.count == 0 { value_ms } else { self.min_ms.min(value_ms) };
        self.max_ms = self.max_ms.max(value_ms);
        self.sum_ms = self.sum_ms.saturating_add(value_ms);
        self.count += 1;
        match index {
            None => self.zero_count += 1,
            Some(index) => self.add_cell(Cell { index, count: 1 }),
        }
    }

    fn add_cell(&mut self, cell: Cell) {
        match self.cells.binary_search_by_key(&cell.index, |cell| cell.index) {
            Ok(at) => self.cells[at].count += cell.count,
            Err(at) => self.cells.insert(at, cell),
        }
    }

    /// Adds everything that another sketch holds.
    pub fn merge(&mut self, other: &Sketch) {
        if other.count == 0 {
            return;
        }
        self.min_ms = if self.count == 0 { other.min_ms } else { self.min_ms.min(other.min_ms) };
        self.max_ms = self.max_ms.max(other.max_ms);
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
        self.count += other.count;
        self.zero_count += other.zero_count;
        for cell in &other.cells {
            self.add_cell(*cell);
        }
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all values, in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ms as f64 / 1000.0
    }

    /// The greatest value, in seconds, exactly. Zero where there is none.
    pub fn max_s(&self) -> f64 {
        self.max_ms as f64 / 1000.0
    }

    /// The least value, in seconds, exactly. Zero where there is none.
    pub fn min_s(&self) -> f64 {
        self.min_ms as f64 / 1000.0
    }

    /// The value of the nearest rank for `quantile` in 0..=1, in seconds; `None` where there is no value.
    pub fn quantile_s(&self, quantile: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = self.zero_count;
        if rank <= below {
            return Some(0.0);
        }
        for cell in &self.cells {
            below += cell.count;
            if rank <= below {
                return Some(rounded(middle_of(cell.index).clamp(self.min_s(), self.max_s())));
            }
        }
        Some(self.max_s())
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.unsigned(self.zero_count).unsigned(self.sum_ms).unsigned(self.min_ms).unsigned(self.max_ms);
        encoder.unsigned(self.cells.len() as u64);
        let mut previous = 0;
        for cell in &self.cells {
            encoder.signed(i64::from(cell.index) - previous).unsigned(cell.count);
            previous = i64::from(cell.index);
        }
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Option<Sketch> {
        let mut sketch = Sketch {
            zero_count: decoder.count()?,
            sum_ms: decoder.unsigned()?,
            min_ms: decoder.unsigned()?,
            max_ms: decoder.unsigned()?,
            ..Sketch::default()
        };
        if sketch.min_ms > sketch.max_ms {
            return None;
        }
        sketch.count = sketch.zero_count;
        let mut previous = 0i64;
        for position in 0..decoder.unsigned()? {
            let index = previous.checked_add(decoder.signed()?)?;
            let count = decoder.count()?;
            if position > 0 && index <= previous {
                return None;
            }
            sketch.cells.push(Cell { index: i16::try_from(index).ok()?, count });
            sketch.count = sketch.count.checked_add(count)?;
            previous = index;
        }
        Some(sketch)
    }
}

/// What is shipped and can be merged: `scale`, `zero_count`, and either `offset` with `counts`
/// (the count of bucket `offset + k` is `counts[k]`, as in OpenTelemetry) or, where few buckets
/// lie far apart, `pairs` of `[index, count]`. To merge sketches of a fleet, add the counts of
/// equal indexes; bucket `i` ends at `2^((i+1)/64)` seconds.
impl Serialize for Sketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("scale", &SCALE)?;
        map.serialize_entry("zero_count", &self.zero_count)?;
        let first = self.cells.first().map_or(0, |cell| i64::from(cell.index));
        let span = self.cells.last().map_or(0, |cell| i64::from(cell.index) - first + 1);
        if span > DENSE_SPAN_PER_COUNT * self.cells.len() as i64 {
            let pairs: Vec<(i16, u64)> = self.cells.iter().map(|cell| (cell.index, cell.count)).collect();
            map.serialize_entry("pairs", &pairs)?;
        } else {
            let mut counts = vec![0u64; span as usize];
            for cell in &self.cells {
                counts[(i64::from(cell.index) - first) as usize] = cell.count;
            }
            map.serialize_entry("offset", &first)?;
            map.serialize_entry("counts", &counts)?;
        }
        map.end()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed expectation is a failed test
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch_of(values: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        sketch
    }

    #[test]
    fn the_upper_bound_belongs_to_its_bucket() {
        // One second is base^0: the upper bound of bucket -1.
        assert_eq!(index_of(1000), -1);
        assert_eq!(index_of(2000), 63);
        assert_eq!(index_of(1001), 0);
        assert_eq!(index_of(1), -638);
        assert_eq!(index_of(VALUE_MS_MAX), 1922);
    }

    #[test]
    fn shipped_dense_or_as_pairs() {
        let dense = sketch_of(&[0, 1000, 1000, 1001]);
        assert_eq!(
            serde_json::to_string(&dense).unwrap(),
            r#"{"scale":6,"zero_count":1,"offset":-1,"counts":[2,1]}"#
        );
        let sparse = sketch_of(&[1, 60_000]);
        assert_eq!(
            serde_json::to_string(&sparse).unwrap(),
            r#"{"scale":6,"zero_count":0,"pairs":[[-638,1],[378,1]]}"#
        );
        assert_eq!(
            serde_json::to_string(&Sketch::default()).unwrap(),
            r#"{"scale":6,"zero_count":0,"offset":0,"counts":[]}"#
        );
    }

    #[test]
    fn broken_numbers_stay_finite() {
        let sketch = sketch_of(&[u64::MAX; 3]);
        assert_eq!(sketch.quantile_s(0.5), Some(VALUE_MS_MAX as f64 / 1000.0));
        assert_eq!(Sketch::default().quantile_s(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_one_percent(
            mut values in prop::collection::vec(prop_oneof![0u64..50, 0u64..100_000, 0u64..10_000_000], 1..400),
            quantile in 0.0f64..=1.0,
        ) {
            let sketch = sketch_of(&values);
            values.sort_unstable();
            let rank = ((quantile * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let truth = values[rank - 1] as f64 / 1000.0;
            let told = sketch.quantile_s(quantile).unwrap();
            prop_assert!((told - truth).abs() <= 0.01 * truth, "{told} for {truth}");
            prop_assert_eq!(sketch.quantile_s(1.0).unwrap() <= sketch.max_s(), true);
        }

        #[test]
        fn merging_is_exact_in_any_order(
            a in prop::collection::vec(0u64..1_000_000, 0..50),
            b in prop::collection::vec(0u64..1_000_000, 0..50),
            c in prop::collection::vec(0u64..1_000_000, 0..50),
        ) {
            let (sa, sb, sc) = (sketch_of(&a), sketch_of(&b), sketch_of(&c));
            let mut left = sa.clone();
            left.merge(&sb);
            left.merge(&sc);
            let mut right = sc.clone();
            right.merge(&sb);
            let mut outer = sa.clone();
            outer.merge(&right);
            prop_assert_eq!(&left, &outer);
            prop_assert_eq!(&left, &sketch_of(&[a, b, c].concat()));
            let mut encoder = Encoder::new();
            left.encode(&mut encoder);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes).unwrap();
            prop_assert_eq!(Sketch::decode(&mut decoder), Some(left));
        }
    }
}
