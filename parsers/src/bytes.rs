//! The few operations on bytes that every parser here shares.
//!
//! What it must never do: index. Every look-up is a `get`, so a wrong position is an empty answer and not a panic.

use wide::i8x16;

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 16;

/// Where `wanted` stands first. Values of a line are short: blocks in line are faster than a call of memchr.
#[inline]
pub(crate) fn find_byte(text: &[u8], wanted: u8) -> Option<usize> {
    let all = i8x16::splat(wanted.cast_signed());
    find_block(text, |block| block.simd_eq(all), |byte| byte == wanted)
}

/// Where one of two bytes stands first.
#[inline]
pub(crate) fn find_either(text: &[u8], first: u8, second: u8) -> Option<usize> {
    let [firsts, seconds] = [first, second].map(|byte| i8x16::splat(byte.cast_signed()));
    let is_wanted = |byte| byte == first || byte == second;
    find_block(text, |block| block.simd_eq(firsts) | block.simd_eq(seconds), is_wanted)
}

/// Asks for blocks of sixteen, and for single bytes where there are fewer.
#[inline]
fn find_block(text: &[u8], which: impl Fn(i8x16) -> i8x16, is_wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let first_of = |block: &[u8; BLOCK_BYTES]| {
        let found = which(i8x16::from(block.map(u8::cast_signed))).to_bitmask();
        (found != 0).then(|| found.trailing_zeros() as usize)
    };
    let (blocks, tail) = text.as_chunks::<BLOCK_BYTES>();
    let mut at = 0;
    for block in blocks {
        if let Some(found) = first_of(block) {
            return Some(at + found);
        }
        at += BLOCK_BYTES;
    }
    match text.last_chunk() {
        // It overlaps what was looked at, where nothing is.
        Some(last) => first_of(last).map(|found| text.len() - BLOCK_BYTES + found),
        None => tail.iter().position(|byte| is_wanted(*byte)),
    }
}

/// The bytes from `start` to `end`, empty when that is not inside `text`.
pub(crate) fn part(text: &[u8], start: usize, end: usize) -> &[u8] {
    text.get(start..end).unwrap_or(&[])
}

/// The bytes from `start` on, empty past the end.
pub(crate) fn rest(text: &[u8], start: usize) -> &[u8] {
    text.get(start..).unwrap_or(&[])
}

/// Up to this length a loop is faster than a call of memcmp.
const SHORT_BYTES: usize = 6;

/// Whether `wanted` stands at `at`. Most texts between fields are a few bytes: a line asks a dozen times.
pub(crate) fn stands_at(text: &[u8], at: usize, wanted: &[u8]) -> bool {
    let Some(found) = text.get(at..at.saturating_add(wanted.len())) else { return false };
    if wanted.len() > SHORT_BYTES {
        return found == wanted;
    }
    found.iter().zip(wanted).all(|(left, right)| left == right)
}

/// How many bytes `text` has from `at` on that satisfy `wanted`.
pub(crate) fn run_length(text: &[u8], at: usize, wanted: impl Fn(u8) -> bool) -> usize {
    rest(text, at).iter().take_while(|byte| wanted(**byte)).count()
}

/// A decimal number without sign; None when empty, when another byte is in it, or past u64.
pub(crate) fn whole_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// Seconds with an optional fraction, as nginx prints times (`0.123`), in milliseconds; digits past the third are cut off.
pub(crate) fn seconds_as_ms(text: &[u8]) -> Option<u64> {
    // As nginx writes it: digits, a dot, three digits.
    if let Some((whole, [b'.', a, b, c])) = text.split_last_chunk()
        && let Some(thousandths) = whole_number(&[*a, *b, *c])
        && let Some(seconds) = whole_number(whole)
    {
        return seconds.checked_mul(1000)?.checked_add(thousandths);
    }
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(dot) => (part(text, 0, dot), rest(text, dot + 1)),
        None => (text, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { whole_number(whole)? };
    let mut ms: u64 = 0;
    for position in 0..3 {
        let digit = match fraction.get(position) {
            Some(byte) if byte.is_ascii_digit() => u64::from(byte - b'0'),
            Some(_) => return None,
            None => 0,
        };
        ms = ms * 10 + digit;
    }
    if !rest(fraction, 3).iter().all(u8::is_ascii_digit) {
        return None;
    }
    seconds.checked_mul(1000)?.checked_add(ms)
}

/// The value of one hexadecimal digit.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The value of the two hexadecimal digits at `at`.
pub(crate) fn hex_pair(text: &[u8], at: usize) -> Option<u8> {
    let high = hex_digit(*text.get(at)?)?;
    let low = hex_digit(*text.get(at + 1)?)?;
    Some(high * 16 + low)
}

/// Whether the byte at `at` has an odd number of backslashes before it, none of them before `floor`.
pub(crate) fn is_escaped(text: &[u8], floor: usize, at: usize) -> bool {
    let before = part(text, floor, at);
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_one_is_found_wherever_it_stands(text in proptest::collection::vec(b'a'..=b'z', 0..80)) {
            let naive = |wanted: &[u8]| text.iter().position(|byte| wanted.contains(byte));
            for wanted in b'a'..=b'z' {
                prop_assert_eq!(find_byte(&text, wanted), naive(&[wanted]));
                prop_assert_eq!(find_either(&text, wanted, b'q'), naive(&[wanted, b'q']));
            }
        }
    }

    #[test]
    fn seconds_become_milliseconds_without_rounding_through_a_float() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(seconds_as_ms(text.as_bytes()), expected, "{text}")
        };
        check("0.123", Some(123));
        check("24388.5", Some(24_388_500));
        check("7", Some(7000));
        check("1.0019", Some(1001));
        check(".25", Some(250));
        check("", None);
        check(".", None);
        check("-", None);
        check("1.2.3", None);
        check("1e3", None);
        check("99999999999999999999", None);
    }

    #[test]
    fn a_quote_is_escaped_by_an_odd_number_of_backslashes() {
        assert!(is_escaped(br#"a\""#, 0, 2));
        assert!(!is_escaped(br#"a\\""#, 0, 3));
        assert!(!is_escaped(br#"\""#, 1, 1));
    }
}
