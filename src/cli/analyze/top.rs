//! The busiest of any number of names in bounded memory, with an exact remainder.
//!
//! Invariant: the rows and the remainder sum to what was added, always. When the table is full, every name that is
//! not busier than the median goes to the remainder (a median prune in the way of Anderson et al., "A
//! High-Performance Algorithm for Identifying Frequent Items in Data Streams", 2017, with the counts of the
//! survivors left as they are). A name that comes again afterwards lacks at most the sum of those medians: its row
//! says so, all others are exact.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::super::printable;

/// The name of what has no row of its own.
pub(super) const OTHER: &str = "_other";

/// What one request adds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hit {
    pub(super) error: bool,
    pub(super) bytes_sent: u64,
    pub(super) latency_ms: Option<u64>,
}

/// What one name did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) bytes_sent: u64,
    pub(super) latency_count: u64,
    pub(super) latency_sum_ms: u64,
    pub(super) latency_max_ms: u64,
}

impl Counts {
    #[inline]
    fn add(&mut self, hit: Hit) {
        self.requests += 1;
        self.errors += u64::from(hit.error);
        self.bytes_sent = self.bytes_sent.saturating_add(hit.bytes_sent);
        if let Some(latency_ms) = hit.latency_ms {
            self.latency_count += 1;
            self.latency_sum_ms = self.latency_sum_ms.saturating_add(latency_ms);
            self.latency_max_ms = self.latency_max_ms.max(latency_ms);
        }
    }

    fn merge(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.latency_count += other.latency_count;
        self.latency_sum_ms = self.latency_sum_ms.saturating_add(other.latency_sum_ms);
        self.latency_max_ms = self.latency_max_ms.max(other.latency_max_ms);
    }
}

#[derive(Debug)]
struct Row {
    name: Box<[u8]>,
    counts: Counts,
    /// Requests of this name that may stand in the remainder.
    missed_max: u64,
}

/// One line of the ranking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranked {
    /// Safe for a terminal; [`OTHER`] is the remainder and nothing else.
    pub(super) name: String,
    pub(super) counts: Counts,
    /// Requests of this name that may stand in the remainder; 0: the count is exact.
    pub(super) missed_max: u64,
}

/// Counts by name.
#[derive(Debug)]
pub(super) struct Top {
    rows_max: usize,
    rows: Vec<Row>,
    /// Where each name stands in `rows`, by its hash.
    places: HashTable<u32>,
    seeds: Seeds,
    /// The row of the last request. A visitor sends several in a row.
    last: usize,
    other: Counts,
    missed_max: u64,
}

impl Top {
    /// A table of at most `rows_max` names, one at least.
    pub(super) fn new(rows_max: usize) -> Top {
        Top {
            rows_max: rows_max.max(1),
            rows: Vec::new(),
            places: HashTable::new(),
            seeds: Seeds::draw(),
            last: 0,
            other: Counts::default(),
            missed_max: 0,
        }
    }

    /// Counts one request; answers which place its name has.
    #[inline]
    pub(super) fn add(&mut self, name: &[u8], hit: Hit) -> usize {
        self.last = self.add_at(self.last, name, hit);
        self.last
    }

    /// The same for a name that likely has a certain place; answers which it has.
    #[inline(always)] // five times a line, and the library is built for size
    pub(super) fn add_at(&mut self, likely: usize, name: &[u8], hit: Hit) -> usize {
        if let Some(row) = self.rows.get_mut(likely)
            && *row.name == *name
        {
            row.counts.add(hit);
            return likely;
        }
        let place = self.place_of(name);
        self.rows[place].counts.add(hit);
        place
    }

    #[inline(never)]
    fn place_of(&mut self, name: &[u8]) -> usize {
        let hash = self.seeds.hash(name);
        match self.places.find(hash, |place| *self.rows[*place as usize].name == *name) {
            Some(place) => *place as usize,
            None => self.enter(name, hash),
        }
    }

    #[cold]
    fn enter(&mut self, name: &[u8], hash: u64) -> usize {
        if self.rows.len() >= self.rows_max {
            self.prune();
        }
        let place = self.rows.len();
        self.rows.push(Row { name: name.into(), counts: Counts::default(), missed_max: self.missed_max });
        let (rows, seeds) = (&self.rows, &self.seeds);
        self.places.insert_unique(hash, place as u32, |place| seeds.hash(&rows[*place as usize].name));
        place
    }

    /// Moves at least half of the names to the remainder.
    fn prune(&mut self) {
        let mut requests: Vec<u64> = self.rows.iter().map(|row| row.counts.requests).collect();
        let middle = requests.len() / 2;
        let (_, median, _) = requests.select_nth_unstable(middle);
        let median = *median;
        let other = &mut self.other;
        self.rows.retain(|row| {
            let stays = row.counts.requests > median;
            if !stays {
                other.merge(&row.counts);
            }
            stays
        });
        self.missed_max += median;
        self.places.clear();
        let (rows, seeds) = (&self.rows, &self.seeds);
        let hash = |place: &u32| seeds.hash(&rows[*place as usize].name);
        (0..rows.len() as u32).for_each(|place| {
            self.places.insert_unique(hash(&place), place, hash);
        });
    }

    /// The `count` busiest names, and the remainder where there is one.
    pub(super) fn ranked(&self, count: usize) -> Vec<Ranked> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_unstable_by(|left, right| {
            right.counts.requests.cmp(&left.counts.requests).then_with(|| left.name.cmp(&right.name))
        });
        let mut other = self.other;
        rows.iter().skip(count).for_each(|row| other.merge(&row.counts));
        let mut ranked: Vec<Ranked> = rows
            .iter()
            .take(count)
            .map(|row| Ranked { name: clean(&row.name), counts: row.counts, missed_max: row.missed_max })
            .collect();
        if other.requests > 0 {
            ranked.push(Ranked { name: OTHER.to_owned(), counts: other, missed_max: 0 });
        }
        ranked
    }
}

/// A name that cannot pass for the remainder, nor act upon a terminal.
fn clean(name: &[u8]) -> String {
    if name == OTHER.as_bytes() { format!("\\x5f{}", &OTHER[1..]) } else { printable(name) }
}

/// Seeds of the hash: clients choose the names, and must not choose where they collide.
#[derive(Clone, Debug)]
struct Seeds([u64; 2]);

impl Seeds {
    fn draw() -> Seeds {
        let state = std::hash::RandomState::new();
        Seeds([state.hash_one(1), state.hash_one(2)])
    }
}

impl Seeds {
    /// Multiplies sixteen bytes at a time and folds the product (as wyhash and foldhash do).
    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        let [mut state, seed] = self.0;
        let mut mix = |low: u64, high: u64| {
            let product = u128::from(low ^ state) * u128::from(high ^ seed);
            state = (product as u64) ^ ((product >> 64) as u64);
        };
        let pair = |bytes: &[u8; 16]| {
            let value = u128::from_le_bytes(*bytes);
            (value as u64, (value >> 64) as u64)
        };
        // The last bytes may be mixed in twice; so is the length, which tells such names apart.
        match (name.last_chunk::<16>(), name.last_chunk::<8>(), name.first_chunk::<8>()) {
            (Some(last), ..) => {
                for block in name.as_chunks::<16>().0.iter().chain([last]) {
                    let (low, high) = pair(block);
                    mix(low, high);
                }
            }
            (None, Some(last), Some(first)) => mix(u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => mix(name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
        }
        mix(name.len() as u64, 0);
        state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn top_of(names: &[&str], rows_max: usize) -> Top {
        let mut top = Top::new(rows_max);
        for name in names {
            top.add(name.as_bytes(), Hit::default());
        }
        top
    }

    #[test]
    fn the_busiest_come_first_and_the_rest_is_one_row() {
        let ranked = top_of(&["b", "a", "c", "b", "c", "d"], 10).ranked(2);
        let shown: Vec<_> = ranked.iter().map(|row| (row.name.as_str(), row.counts.requests)).collect();
        assert_eq!(shown, [("b", 2), ("c", 2), ("_other", 2)]);
        assert!(ranked.iter().all(|row| row.missed_max == 0));
    }

    #[test]
    fn no_client_passes_for_the_remainder() {
        let ranked = top_of(&["_other", "\u{1b}[31m"], 10).ranked(10);
        let shown: Vec<_> = ranked.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(shown, ["\\u{1b}[31m", "\\x5fother"]);
    }

    #[test]
    fn a_flood_of_names_does_not_hide_the_busy_one() {
        let mut top = Top::new(100);
        for number in 0..10_000 {
            top.add(b"busy", Hit { error: true, bytes_sent: 2, latency_ms: Some(3) });
            top.add(format!("name {number}").as_bytes(), Hit::default());
        }
        let ranked = top.ranked(1);
        assert_eq!((ranked[0].name.as_str(), ranked[0].missed_max), ("busy", 0));
        let busy = ranked[0].counts;
        assert_eq!((busy.requests, busy.errors, busy.bytes_sent), (10_000, 10_000, 20_000));
        assert_eq!((busy.latency_count, busy.latency_sum_ms, busy.latency_max_ms), (10_000, 30_000, 3));
        assert_eq!((ranked[1].name.as_str(), ranked[1].counts.requests), ("_other", 10_000));
        assert!(top.rows.len() <= 100);
    }

    proptest! {
        #[test]
        fn sums_are_exact_and_rows_say_what_they_lack(
            names in prop::collection::vec(0u8..40, 0..600), rows_max in 1usize..20, shown in 0usize..30
        ) {
            let mut top = Top::new(rows_max);
            let mut truth: BTreeMap<String, u64> = BTreeMap::new();
            for name in &names {
                let name = format!("n{}", u32::from(*name) * u32::from(*name) / 40);
                top.add(name.as_bytes(), Hit::default());
                *truth.entry(name).or_default() += 1;
            }
            let ranked = top.ranked(shown);
            prop_assert!(top.rows.len() <= rows_max);
            prop_assert_eq!(ranked.iter().map(|row| row.counts.requests).sum::<u64>(), names.len() as u64);
            for row in ranked.iter().filter(|row| row.name != OTHER) {
                let real = truth[&row.name];
                prop_assert!(row.counts.requests <= real && real <= row.counts.requests + row.missed_max);
            }
        }

        #[test]
        fn names_of_any_length_are_told_apart(left: Vec<u8>, right: Vec<u8>) {
            let seeds = Seeds([0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93]);
            prop_assert_eq!(seeds.hash(&left) == seeds.hash(&right), left == right);
        }
    }
}
