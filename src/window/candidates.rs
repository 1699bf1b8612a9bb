//! Names without a row of a table, watched until one has earned it: a space-saving counter (Metwally et al., 2005) of constant
//! size. It knows names by their hash, and no table.

/// Names that are watched at a time.
pub(super) const CANDIDATES_MAX: usize = 64;

/// `count - error` requests of a name were certainly seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    count: u32,
    error: u32,
}

/// The watched names.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    hashes: Vec<u64>,
    /// By the place of the hash.
    seen: Vec<Seen>,
    /// No count is less.
    least: u32,
    /// Where the next one to give way is sought from: looking at all of them for each name of a flood is dear.
    hand: usize,
}

impl Candidates {
    /// Counts a name; answers how often it was certainly seen.
    pub(super) fn nominate(&mut self, hash: u64) -> u32 {
        if let Some(at) = self.hashes.iter().position(|known| *known == hash) {
            let seen = &mut self.seen[at];
            seen.count = seen.count.saturating_add(1);
            return seen.count - seen.error;
        }
        if self.hashes.len() < CANDIDATES_MAX {
            self.hashes.push(hash);
            self.seen.push(Seen { count: 1, error: 0 });
            self.least = self.least.min(1);
        } else {
            let at = self.least_busy();
            let error = self.seen[at].count;
            self.hashes[at] = hash;
            self.seen[at] = Seen { count: error.saturating_add(1), error };
        }
        1
    }

    /// One of those that were counted least often.
    fn least_busy(&mut self) -> usize {
        let (least, length) = (self.least, self.seen.len());
        let is_least = |at: &usize| self.seen[*at].count <= least;
        let found = (self.hand..length).find(is_least).or_else(|| (0..self.hand).find(is_least));
        self.hand = found.unwrap_or_else(|| {
            let counts = || self.seen.iter().map(|seen| seen.count);
            self.least = counts().min().unwrap_or(0);
            counts().position(|count| count == self.least).unwrap_or(0)
        });
        self.hand
    }

    /// A name has its row.
    pub(super) fn elect(&mut self, hash: u64) {
        if let Some(at) = self.hashes.iter().position(|known| *known == hash) {
            self.hashes.swap_remove(at);
            self.seen.swap_remove(at);
            self.hand = 0;
        }
    }

    /// Halves every count, so that yesterday's favourites give way.
    pub(super) fn decay(&mut self) {
        self.least /= 2;
        for seen in &mut self.seen {
            seen.count /= 2;
            seen.error /= 2;
        }
    }

    /// How many are watched.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_is_said_to_be_busier_than_he_is_and_no_busy_one_is_missed(
            names in prop::collection::vec(0u64..400, 1..3000),
        ) {
            let mut candidates = Candidates::default();
            let mut truth: BTreeMap<u64, u32> = BTreeMap::new();
            for (position, name) in names.iter().enumerate() {
                // Squaring makes some names far busier than others.
                let name = name * name / 400;
                let certain = candidates.nominate(name);
                let count = truth.entry(name).or_default();
                *count += 1;
                prop_assert!(certain <= *count);
                prop_assert!(candidates.seen.iter().all(|seen| seen.count >= candidates.least));
                // What space-saving promises.
                for (name, count) in truth.iter().filter(|(_, count)| **count as usize > position / CANDIDATES_MAX + 1) {
                    prop_assert!(candidates.hashes.contains(name), "{} {}", name, count);
                }
            }
            prop_assert!(candidates.len() <= CANDIDATES_MAX);
        }

        #[test]
        fn whatever_happens_the_least_is_a_bound(
            steps in prop::collection::vec((0u8..20, 0u64..100), 1..500),
        ) {
            let mut candidates = Candidates::default();
            for (what, name) in steps {
                match what {
                    0 => candidates.decay(),
                    1 => candidates.elect(name),
                    _ => {
                        candidates.nominate(name);
                    }
                }
                prop_assert!(candidates.seen.iter().all(|seen| seen.count >= candidates.least));
                prop_assert!(candidates.seen.iter().all(|seen| seen.count >= seen.error));
                prop_assert_eq!(candidates.seen.len(), candidates.hashes.len());
            }
        }
    }

    #[test]
    fn the_one_that_gives_way_is_one_of_the_least_busy() {
        let mut candidates = Candidates::default();
        for name in 0..CANDIDATES_MAX as u64 {
            for _ in 0..=name % 3 {
                candidates.nominate(name);
            }
        }
        for newcomer in 1000..1100 {
            let before = candidates.seen.clone();
            candidates.nominate(newcomer);
            let at = candidates.hashes.iter().position(|hash| *hash == newcomer).unwrap_or(usize::MAX);
            assert_eq!(before[at].count, before.iter().map(|seen| seen.count).min().unwrap_or(0));
            assert_eq!(candidates.seen[at].error, before[at].count);
        }
    }
}
