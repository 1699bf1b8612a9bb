//! How the virtual hosts were lately spelled, and where they stand in their table: a client's spelling is looked at byte by
//! byte once, and not for each line. Of constant size; it never answers for a row that belongs to another by now.

use std::sync::Arc;

use super::top::Table;

/// Spellings that are remembered, a power of two.
const PLACES: usize = 16;
/// A longer spelling is looked at each time.
const SPELLING_BYTES_MAX: usize = 253;
/// An odd number without a pattern in its bits: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug)]
struct Spelling {
    raw: Vec<u8>,
    row: u16,
    /// The name of the row as it was: another name there is another allocation.
    name: Arc<str>,
}

/// The last spellings.
#[derive(Debug, Default)]
pub(super) struct Spellings([Option<Spelling>; PLACES]);

impl Spellings {
    /// The row of a spelling, if it is remembered and the row still has that name.
    #[inline]
    pub(super) fn row(&self, raw: &[u8], table: &Table) -> Option<u16> {
        let known = self.0[place(raw)].as_ref()?;
        (known.raw == raw && Arc::ptr_eq(table.name(known.row), &known.name)).then_some(known.row)
    }

    /// Remembers a spelling.
    pub(super) fn keep(&mut self, raw: &[u8], row: u16, name: &Arc<str>) {
        // The remainder has no row: another time this name may have earned one.
        if raw.len() > SPELLING_BYTES_MAX || **name == *super::names::OTHER {
            return;
        }
        let kept = &mut self.0[place(raw)];
        let mut buffer = kept.take().map_or_else(Vec::new, |old| old.raw);
        buffer.clear();
        buffer.extend_from_slice(raw);
        *kept = Some(Spelling { raw: buffer, row, name: Arc::clone(name) });
    }
}

/// By length, beginning and end: the hosts of one server rarely share all three.
fn place(raw: &[u8]) -> usize {
    let end = raw.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let start = raw.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let word = (start.rotate_left(29) ^ end).wrapping_add(raw.len() as u64).wrapping_mul(SPREAD);
    (word >> 60) as usize
}
