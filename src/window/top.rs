//! A bounded table of vhosts or routes with an exact remainder: the rows and the remainder sum
//! to the total at every instant, whoever comes and goes. It never grows with what clients send.
//!
//! While there is room a name gets a row at once. Then a newcomer must earn one: names without
//! a row are watched, and only one that was certainly seen more often than the least busy row
//! takes its place. What the old row counted moves to the remainder, and the newcomer starts at
//! zero.

use std::sync::Arc;

use hashbrown::HashTable;

use super::candidates::Candidates;
use super::names;
use super::recent::Recent;
use super::state::{Decoder, Encoder, Journal, Key, Level, Mark, RecentKind};

/// Ten-second slots kept: a minute, the longest lateness, and room for the newest.
const SLOTS: usize = 16;
/// Requests that a newcomer needs at least, however idle the rows are.
const EARNED_MIN: u32 = 4;

/// Requests and errors since the first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// What one name did in ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) latency_count: u64,
    pub(super) latency_sum_ms: u64,
    pub(super) latency_max_ms: u64,
}

impl Cell {
    pub(super) fn merge(&mut self, other: &Cell) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latency_count += other.latency_count;
        self.latency_sum_ms = self.latency_sum_ms.saturating_add(other.latency_sum_ms);
        self.latency_max_ms = self.latency_max_ms.max(other.latency_max_ms);
    }
}

#[derive(Debug)]
struct Row {
    name: Arc<str>,
    /// Of the name.
    hash: u64,
    tally: Tally,
    /// Requests, halved now and then: what a newcomer must exceed.
    score: u64,
    name_mark: Mark,
    mark: Mark,
}

/// One request, as a table sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// The slot of recent rates it belongs to; `None` for a late or skewed line.
    pub(super) slot: Option<i64>,
    pub(super) error: bool,
    pub(super) latency_ms: Option<u64>,
}

/// The rows, the remainder, and what both did lately.
#[derive(Debug)]
pub(super) struct Table {
    level: Level,
    rows_max: usize,
    rows: Vec<Row>,
    /// The row of each name, by its hash.
    by_name: HashTable<u16>,
    other: Tally,
    other_mark: Mark,
    other_name: Arc<str>,
    candidates: Candidates,
    /// Cells by row; the remainder's stand at `rows_max`.
    recent: Recent<Vec<Cell>>,
}

impl Table {
    /// A table of at most `rows_max` names (65 534 where more is asked).
    pub(super) fn new(level: Level, rows_max: usize) -> Table {
        Table {
            level,
            rows_max: rows_max.min(usize::from(u16::MAX) - 1),
            rows: Vec::new(),
            by_name: HashTable::new(),
            other: Tally::default(),
            other_mark: Mark::default(),
            other_name: names::OTHER.into(),
            candidates: Candidates::default(),
            recent: Recent::new(RecentKind::Table(level), SLOTS),
        }
    }

    /// The row of a name: the one that it has, one that it gets, or the remainder's.
    pub(super) fn row_of(&mut self, name: &str, journal: &mut Journal) -> u16 {
        let hash = hash_of(name);
        self.held(name, hash).unwrap_or_else(|| self.admit(name, hash, journal) as u16)
    }

    /// The row that a name has.
    fn held(&self, name: &str, hash: u64) -> Option<u16> {
        let is_same = |row: &u16| self.rows.get(usize::from(*row)).is_some_and(|row| *row.name == *name);
        self.by_name.find(hash, is_same).copied()
    }

    /// Whether a row is that of this name: asked where it stood last, to save looking it up.
    #[inline]
    pub(super) fn is_row_of(&self, row: u16, name: &[u8]) -> bool {
        self.rows.get(usize::from(row)).is_some_and(|row| row.name.as_bytes() == name)
    }

    /// Counts one request at the row that [`Table::row_of`] gave for it just now.
    pub(super) fn count(&mut self, row: u16, hit: Hit, journal: &mut Journal) {
        let row = usize::from(row);
        let tally = match self.rows.get_mut(row) {
            Some(held) => {
                held.score += 1;
                journal.touch(&mut held.mark, Key::Entry(self.level, row as u16));
                &mut held.tally
            }
            None => {
                journal.touch(&mut self.other_mark, Key::Other(self.level));
                &mut self.other
            }
        };
        tally.requests += 1;
        tally.errors += u64::from(hit.error);
        if let Some(cells) = hit.slot.and_then(|slot| self.recent.slot(slot, journal)) {
            let cell = cell_at(cells, row);
            cell.requests += 1;
            cell.errors += u64::from(hit.error);
            if let Some(latency_ms) = hit.latency_ms {
                cell.latency_count += 1;
                cell.latency_sum_ms = cell.latency_sum_ms.saturating_add(latency_ms);
                cell.latency_max_ms = cell.latency_max_ms.max(latency_ms);
            }
        }
    }

    /// The name of a row, or of the remainder.
    pub(super) fn name(&self, row: u16) -> &Arc<str> {
        self.rows.get(usize::from(row)).map_or(&self.other_name, |row| &row.name)
    }

    /// A row for a name that has none: a free one, one that it has earned, or the remainder's.
    fn admit(&mut self, name: &str, hash: u64, journal: &mut Journal) -> usize {
        if self.rows.len() < self.rows_max {
            self.rows.push(Row {
                name: name.into(),
                hash,
                tally: Tally::default(),
                score: 0,
                name_mark: Mark::default(),
                mark: Mark::default(),
            });
            return self.enter(self.rows.len() - 1, journal);
        }
        let earned = self.candidates.nominate(hash);
        if earned < EARNED_MIN {
            return self.rows_max;
        }
        let least = self.rows.iter().enumerate().min_by_key(|(_, row)| (row.score, row.tally.requests));
        match least {
            Some((victim, row)) if u64::from(earned) > row.score => {
                self.evict(victim, journal);
                self.candidates.elect(hash);
                self.rows[victim].name = name.into();
                self.rows[victim].hash = hash;
                self.rows[victim].score = u64::from(earned);
                self.enter(victim, journal)
            }
            _ => self.rows_max,
        }
    }

    /// Lets a row be found by its name.
    fn register(&mut self, at: usize) {
        let rows = &self.rows;
        self.by_name.insert_unique(rows[at].hash, at as u16, |row| rows[usize::from(*row)].hash);
    }

    fn enter(&mut self, at: usize, journal: &mut Journal) -> usize {
        self.register(at);
        let row = &mut self.rows[at];
        journal.touch(&mut row.name_mark, Key::Name(self.level, at as u16));
        journal.touch(&mut row.mark, Key::Entry(self.level, at as u16));
        at
    }

    /// Moves everything a row counted to the remainder.
    fn evict(&mut self, at: usize, journal: &mut Journal) {
        let row = &mut self.rows[at];
        if let Ok(entry) = self.by_name.find_entry(row.hash, |held| usize::from(*held) == at) {
            entry.remove();
        }
        let tally = std::mem::take(&mut row.tally);
        self.other.requests += tally.requests;
        self.other.errors += tally.errors;
        journal.touch(&mut self.other_mark, Key::Other(self.level));
        let rows_max = self.rows_max;
        for index in self.recent.indexes() {
            if self.recent.get(index).is_some_and(|cells| cells.get(at).is_some_and(|cell| cell.requests > 0))
                && let Some(cells) = self.recent.slot(index, journal)
            {
                let gone = std::mem::take(&mut cells[at]);
                cell_at(cells, rows_max).merge(&gone);
            }
        }
    }

    /// Halves every score, so that yesterday's favourites give way.
    pub(super) fn decay(&mut self) {
        self.rows.iter_mut().for_each(|row| row.score /= 2);
        self.candidates.decay();
    }

    /// The recent slots are of a clock that no longer holds.
    pub(super) fn forget_recent(&mut self, journal: &mut Journal) {
        self.recent.clear(journal);
    }

    /// Whether the slots from `from` on are complete when the newest event lies in `newest`.
    pub(super) fn reaches(&self, from: i64, newest: i64) -> bool {
        self.recent.reaches(from, newest)
    }

    /// Every row with its name, its counts since the first start and its sum over the slots in
    /// `from..to`, in no order; the remainder comes last, where it has counted anything.
    pub(super) fn rows(&self, from: i64, to: i64) -> Vec<(&Arc<str>, Tally, Cell)> {
        let mut sums = vec![Cell::default(); self.rows_max + 1];
        for cells in self.recent.range(from, to) {
            sums.iter_mut().zip(cells).for_each(|(sum, cell)| sum.merge(cell));
        }
        let mut rows: Vec<_> =
            self.rows.iter().zip(&sums).map(|(row, sum)| (&row.name, row.tally, *sum)).collect();
        if self.other.requests > 0 {
            rows.push((&self.other_name, self.other, sums[self.rows_max]));
        }
        rows
    }

    /// The durable value of one of this table's keys.
    pub(super) fn encode(&self, key: Key) -> Option<Vec<u8>> {
        let mut encoder = Encoder::new();
        match key {
            Key::Name(_, row) => {
                encoder.text(&self.rows.get(usize::from(row))?.name);
            }
            Key::Entry(_, row) => {
                let row = self.rows.get(usize::from(row))?;
                encoder.unsigned(row.tally.requests).unsigned(row.tally.errors).unsigned(row.score);
            }
            Key::Other(_) => {
                encoder.unsigned(self.other.requests).unsigned(self.other.errors);
            }
            Key::Recent(_, index) => {
                let cells = self.recent.get(index)?;
                for (row, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.requests > 0) {
                    encoder.unsigned(row as u64).unsigned(cell.requests).unsigned(cell.errors);
                    encoder.unsigned(cell.latency_count).unsigned(cell.latency_sum_ms);
                    encoder.unsigned(cell.latency_max_ms);
                }
            }
            _ => return None,
        }
        Some(encoder.finish())
    }

    /// The value of a key was handed out.
    pub(super) fn saved(&mut self, key: Key) {
        match key {
            Key::Name(_, row) => {
                self.rows.get_mut(usize::from(row)).into_iter().for_each(|r| r.name_mark = Mark::saved());
            }
            Key::Entry(_, row) => {
                self.rows.get_mut(usize::from(row)).into_iter().for_each(|r| r.mark = Mark::saved());
            }
            Key::Other(_) => self.other_mark = Mark::saved(),
            Key::Recent(_, index) => self.recent.saved(index),
            _ => {}
        }
    }

    /// Takes back one value. Names come before their counts, without holes from row 0. Rows over
    /// the limit (it was lowered) go to the remainder.
    pub(super) fn restore(&mut self, key: Key, value: &[u8]) -> Option<()> {
        let mut decoder = Decoder::new(value)?;
        match key {
            Key::Name(_, row) => {
                let name: Arc<str> = decoder.text()?.into();
                let (at, hash) = (usize::from(row), hash_of(&name));
                if at < self.rows_max && at == self.rows.len() && self.held(&name, hash).is_none() {
                    let (name_mark, mark) = (Mark::saved(), Mark::saved());
                    self.rows.push(Row { name, hash, tally: Tally::default(), score: 0, name_mark, mark });
                    self.register(at);
                }
            }
            Key::Entry(_, row) => {
                let tally = Tally { requests: decoder.count()?, errors: decoder.count()? };
                let score = decoder.count()?;
                match self.rows.get_mut(usize::from(row)) {
                    Some(held) => (held.tally, held.score) = (tally, score),
                    None => {
                        self.other.requests += tally.requests;
                        self.other.errors += tally.errors;
                    }
                }
            }
            Key::Other(_) => {
                self.other.requests += decoder.count()?;
                self.other.errors += decoder.count()?;
                self.other_mark = Mark::saved();
            }
            Key::Recent(_, index) => {
                let cells = self.decode_cells(decoder)?;
                self.recent.restore(index, cells);
                return Some(());
            }
            _ => return None,
        }
        decoder.finish()
    }

    fn decode_cells(&self, mut decoder: Decoder<'_>) -> Option<Vec<Cell>> {
        let mut cells = Vec::new();
        while !decoder.at_end() {
            let row = usize::try_from(decoder.count()?).ok()?;
            let row = if row < self.rows.len() { row } else { self.rows_max };
            cell_at(&mut cells, row).merge(&Cell {
                requests: decoder.count()?,
                errors: decoder.count()?,
                latency_count: decoder.count()?,
                latency_sum_ms: decoder.unsigned()?,
                latency_max_ms: decoder.unsigned()?,
            });
        }
        Some(cells)
    }

    /// After damage on disk: makes the parts sum to the total again, by the remainder.
    pub(super) fn balance(&mut self, total: Tally, journal: &mut Journal) {
        let sum = |of: fn(&Tally) -> u64| {
            self.rows.iter().fold(0u64, |sum, row| sum.saturating_add(of(&row.tally)))
        };
        let (requests, errors) = (sum(|tally| tally.requests), sum(|tally| tally.errors));
        let balanced = requests.checked_add(self.other.requests) == Some(total.requests);
        if balanced && errors.checked_add(self.other.errors) == Some(total.errors) {
            return;
        }
        if requests > total.requests || errors > total.errors {
            for (at, row) in self.rows.iter_mut().enumerate() {
                row.tally = Tally::default();
                journal.touch(&mut row.mark, Key::Entry(self.level, at as u16));
            }
            self.other = total;
        } else {
            self.other = Tally { requests: total.requests - requests, errors: total.errors - errors };
        }
        journal.touch(&mut self.other_mark, Key::Other(self.level));
    }

    /// Marks everything as changed.
    pub(super) fn touch_all(&mut self, journal: &mut Journal) {
        for (at, row) in self.rows.iter_mut().enumerate() {
            journal.touch(&mut row.name_mark, Key::Name(self.level, at as u16));
            journal.touch(&mut row.mark, Key::Entry(self.level, at as u16));
        }
        journal.touch(&mut self.other_mark, Key::Other(self.level));
        for index in self.recent.indexes() {
            self.recent.slot(index, journal);
        }
    }
}

#[inline]
fn cell_at(cells: &mut Vec<Cell>, row: usize) -> &mut Cell {
    if cells.len() <= row {
        cells.resize(row + 1, Cell::default());
    }
    &mut cells[row]
}

/// Multiply and rotate, eight bytes at a time. The table bounds its names, so a client that provokes collisions gains nothing.
fn hash_of(name: &str) -> u64 {
    let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, tail) = name.as_bytes().as_chunks::<8>();
    let hash = words.iter().fold(name.len() as u64, |hash, word| add(hash, u64::from_le_bytes(*word)));
    let hash = add(hash, tail.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    hash ^ (hash >> 32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed expectation is a failed test
mod tests {
    use super::super::candidates::CANDIDATES_MAX;
    use super::*;
    use proptest::prelude::*;

    const HIT: Hit = Hit { slot: Some(1), error: false, latency_ms: Some(3) };

    fn total(table: &Table) -> (u64, u64) {
        let rows = table.rows(0, 100);
        (rows.iter().map(|row| row.1.requests).sum(), rows.iter().map(|row| row.2.requests).sum())
    }

    fn observe(table: &mut Table, name: &str, hit: Hit, journal: &mut Journal) {
        let row = table.row_of(name, journal);
        table.count(row, hit, journal);
    }

    #[test]
    fn a_flood_of_one_hit_names_moves_no_busy_row() {
        let mut table = Table::new(Level::Vhost, 4);
        let mut journal = Journal::default();
        for round in 0..5000 {
            observe(&mut table, "a.example", HIT, &mut journal);
            observe(&mut table, "b.example", HIT, &mut journal);
            observe(&mut table, &format!("flood{round}"), HIT, &mut journal);
        }
        let rows = table.rows(0, 2);
        assert_eq!((&**rows[0].0, rows[0].1.requests), ("a.example", 5000));
        assert_eq!((&**rows[1].0, rows[1].1.requests), ("b.example", 5000));
        assert_eq!(&**rows.last().unwrap().0, "_other");
        assert_eq!(total(&table), (15_000, 15_000));
        assert!(rows.len() <= 5 && table.candidates.len() <= CANDIDATES_MAX);
    }

    #[test]
    fn a_busy_newcomer_earns_its_row_in_a_flood() {
        let mut table = Table::new(Level::Vhost, 8);
        let mut journal = Journal::default();
        for round in 0..200 {
            observe(&mut table, &format!("flood{round}"), HIT, &mut journal);
        }
        for round in 200..1000 {
            observe(&mut table, "real.example", HIT, &mut journal);
            observe(&mut table, &format!("flood{round}"), HIT, &mut journal);
        }
        let rows = table.rows(0, 2);
        let real = rows.iter().find(|row| &**row.0 == "real.example");
        assert!(real.is_some_and(|row| row.1.requests > 700));
        assert_eq!(total(&table), (1800, 1800));
    }

    proptest! {
        #[test]
        fn the_parts_always_sum_to_the_total(
            names in prop::collection::vec((0u32..60, 0i64..5, any::<bool>()), 1..1500),
            rows_max in 0usize..6,
        ) {
            let mut table = Table::new(Level::Route, rows_max);
            let mut journal = Journal::default();
            let mut expected = Tally::default();
            for (position, (name, slot, error)) in names.iter().enumerate() {
                let hit = Hit { slot: Some(*slot), error: *error, latency_ms: None };
                // Squaring makes some names far busier than others.
                observe(&mut table, &format!("/{}", name * name / 60), hit, &mut journal);
                expected.requests += 1;
                expected.errors += u64::from(*error);
                if position % 400 == 399 {
                    table.decay();
                }
            }
            prop_assert_eq!(total(&table), (expected.requests, expected.requests));
            let errors: u64 = table.rows(0, 9).iter().map(|row| row.1.errors).sum();
            prop_assert_eq!(errors, expected.errors);
            prop_assert_eq!(table.by_name.len(), table.rows.len());
        }
    }
}
