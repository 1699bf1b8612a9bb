//! Ten-second slots of event time, a fixed number of them, for what is too big to keep by the
//! second: latency sketches, and the rates of vhosts and routes. A slot older than the one that
//! took its place is gone; the caller learns it and does not guess.

use super::state::{Journal, Key, Mark, RecentKind};

/// The length of a slot, in seconds.
pub(super) const SLOT_S: i64 = 10;

/// The slot of a second.
pub(super) fn slot_of(second: i64) -> i64 {
    second.div_euclid(SLOT_S)
}

#[derive(Debug)]
struct Slot<T> {
    index: i64,
    value: T,
    mark: Mark,
}

/// The newest slots, each at its index modulo their number.
#[derive(Debug)]
pub(super) struct Recent<T> {
    kind: RecentKind,
    slots: Vec<Option<Slot<T>>>,
    /// The place that was asked for last: line after line belongs to one slot.
    last: (i64, usize),
}

impl<T: Default> Recent<T> {
    /// Room for `length` slots.
    pub(super) fn new(kind: RecentKind, length: usize) -> Recent<T> {
        Recent { kind, slots: std::iter::repeat_with(|| None).take(length).collect(), last: (0, 0) }
    }

    fn place(&self, index: i64) -> usize {
        index.rem_euclid(self.slots.len() as i64) as usize
    }

    /// The slot to change; `None` where a newer one has taken its place.
    #[inline(always)] // three times a line, and the library is built for size
    pub(super) fn slot(&mut self, index: i64, journal: &mut Journal) -> Option<&mut T> {
        if self.last.0 != index {
            self.last = (index, self.place(index));
        }
        let place = self.last.1;
        let kind = self.kind;
        let held = &mut self.slots[place];
        match held {
            Some(slot) if slot.index > index => return None,
            Some(slot) if slot.index == index => {}
            _ => {
                if let Some(old) = held.take() {
                    journal.remove(old.mark, Key::Recent(kind, old.index));
                }
            }
        }
        let slot = held.get_or_insert_with(|| Slot { index, value: T::default(), mark: Mark::default() });
        journal.touch(&mut slot.mark, Key::Recent(kind, index));
        Some(&mut slot.value)
    }

    /// The slots with an index in `from..to`, in no order.
    pub(super) fn range(&self, from: i64, to: i64) -> impl Iterator<Item = &T> {
        self.slots
            .iter()
            .flatten()
            .filter(move |slot| (from..to).contains(&slot.index))
            .map(|slot| &slot.value)
    }

    /// Every index that is held.
    pub(super) fn indexes(&self) -> Vec<i64> {
        self.slots.iter().flatten().map(|slot| slot.index).collect()
    }

    /// Whether every slot from `from` on is still held, or was never filled, when the newest
    /// event lies in slot `newest`.
    pub(super) fn reaches(&self, from: i64, newest: i64) -> bool {
        newest - from < self.slots.len() as i64
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self, journal: &mut Journal) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            journal.remove(slot.mark, Key::Recent(self.kind, slot.index));
        }
    }

    /// The value of a slot, to be saved.
    pub(super) fn get(&self, index: i64) -> Option<&T> {
        let slot = self.slots[self.place(index)].as_ref()?;
        (slot.index == index).then_some(&slot.value)
    }

    /// The slot was handed out.
    pub(super) fn saved(&mut self, index: i64) {
        let place = self.place(index);
        if let Some(slot) = self.slots[place].as_mut().filter(|slot| slot.index == index) {
            slot.mark = Mark::saved();
        }
    }

    /// Takes back a slot from disk.
    pub(super) fn restore(&mut self, index: i64, value: T) {
        let place = self.place(index);
        if self.slots[place].as_ref().is_none_or(|slot| slot.index < index) {
            self.slots[place] = Some(Slot { index, value, mark: Mark::saved() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_slot_never_displaces_a_newer_one() {
        let mut journal = Journal::default();
        let mut recent: Recent<u64> = Recent::new(RecentKind::Latency, 4);
        for (index, kept) in [(10, true), (11, true), (7, false), (8, true), (14, true), (10, false)] {
            let slot = recent.slot(index, &mut journal);
            assert_eq!(slot.is_some(), kept, "{index}");
            if let Some(value) = slot {
                *value += 1;
            }
        }
        assert_eq!(recent.range(7, 12).sum::<u64>(), 2);
        assert!(recent.reaches(11, 14) && !recent.reaches(10, 14));
    }
}
