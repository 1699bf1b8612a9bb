//! The fast way of a line into a JSON string: sixteen bytes at a time, each copied once.
//!
//! Reason: nearly every line is printable ASCII in which a few quotes want a backslash. Searching for each of them and copying
//! what lies between took twice as long as the rest of the record.
//!
//! What it must never do: write another text than the plain way (`line::write_text`), or begin one that it cannot end. The
//! tests hold the two to each other.

use wide::i8x16;

/// Bytes that are looked at together.
const BLOCK: usize = 16;

/// Appends `line` as the inside of a JSON string, which takes up to twice its length. Answers whether it did: not where a byte
/// is a control or no ASCII; then nothing was appended.
pub(super) fn append(out: &mut Vec<u8>, line: &[u8]) -> bool {
    let start = out.len();
    // The last blocks are written over their end.
    out.resize(start + 2 * line.len() + 3 * BLOCK, 0);
    let written = out.get_mut(start..).and_then(|room| write(room, line));
    out.truncate(start + written.unwrap_or(0));
    written.is_some()
}

/// Writes to `room`, of which it needs twice the line and three blocks; answers how many bytes the line took.
fn write(room: &mut [u8], line: &[u8]) -> Option<usize> {
    let mut to = 0;
    let mut from = 0;
    // While a whole block can be copied from any byte of this one.
    while let Some(two) = line.get(from..).and_then(<[u8]>::first_chunk) {
        to = write_block(room, to, two)?;
        from += BLOCK;
    }
    let rest = line.get(from..)?;
    // Blanks take no escape; those behind the line are written, and not counted.
    let mut filled = [b' '; 3 * BLOCK];
    filled.get_mut(..rest.len())?.copy_from_slice(rest);
    let [first, second, third] = *filled.as_chunks::<BLOCK>().0 else { return None };
    to = write_block(room, to, [first, second].as_flattened().first_chunk()?)?;
    to = write_block(room, to, [second, third].as_flattened().first_chunk()?)?;
    Some(to - (2 * BLOCK - rest.len()))
}

/// Writes the first of two blocks to `room` from `to` on; answers where it ends.
#[inline]
fn write_block(room: &mut [u8], mut to: usize, two: &[u8; 2 * BLOCK]) -> Option<usize> {
    let (block, _) = two.split_first_chunk::<BLOCK>()?;
    let found = classes(block);
    if found.odd != 0 {
        return None;
    }
    room.get_mut(to..to + BLOCK)?.copy_from_slice(block);
    let mut special = found.special;
    while special != 0 {
        let at = special.trailing_zeros() as usize;
        *room.get_mut(to + at)? = b'\\';
        // What follows moves on by one; bytes behind this block are written again in their turn.
        room.get_mut(to + at + 1..to + at + 1 + BLOCK)?.copy_from_slice(two.get(at..at + BLOCK)?);
        to += 1;
        special &= special - 1;
    }
    Some(to + BLOCK)
}

/// Bytes of a block, the first one in the lowest bit.
struct Classes {
    /// Quotes and backslashes.
    special: u32,
    /// Controls, and what is no ASCII.
    odd: u32,
}

#[inline]
fn classes(block: &[u8; BLOCK]) -> Classes {
    let bytes = i8x16::from(block.map(|byte| byte as i8));
    let is = |byte: u8| bytes.simd_eq(i8x16::splat(byte as i8));
    // Compared with a sign, what is no ASCII lies below the blank too.
    let odd = bytes.simd_lt(i8x16::splat(b' ' as i8)) | is(0x7f);
    Classes { special: (is(b'"') | is(b'\\')).to_bitmask(), odd: odd.to_bitmask() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_its_class() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                let mut block = [b'a'; BLOCK];
                block[place] = byte;
                let found = classes(&block);
                let bit = |set: bool| u32::from(set) << place;
                assert_eq!(found.special, bit(matches!(byte, b'"' | b'\\')), "{byte:#x}");
                assert_eq!(found.odd, bit(!(b' '..=b'~').contains(&byte)), "{byte:#x}");
            }
        }
    }

    #[test]
    fn what_cannot_be_ended_was_not_begun() {
        for length in 0..70 {
            let mut line = vec![b'"'; length];
            let mut out = b"before".to_vec();
            assert!(append(&mut out, &line));
            assert_eq!(out, [b"before".to_vec(), b"\\\"".repeat(length)].concat());
            line.push(b'\n');
            out.truncate(6);
            assert!(!append(&mut out, &line));
            assert_eq!(out, b"before");
        }
    }
}
