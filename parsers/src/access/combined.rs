//! The beginning that nearly all formats share: nginx's `combined`, cut into its values.
//!
//! Reason: with its literal text known when this is compiled, a line costs a quarter of what the steps of a format cost.
//!
//! What it must never do: decide. Whatever is not plainly there is None, and the steps of the format look at the line anew.

use super::literal::{Class, Step, Use};
use super::variable::Slot;
use crate::bytes::find_byte;
use crate::time::LOCAL_BYTES;

/// Steps of a format that are read here.
pub(super) const STEPS: usize = 8;

/// What stands behind each of them. Behind the last one other text may follow.
const AFTER: [&[u8]; STEPS] = [b" - ", b" [", b"] \"", b"\" ", b" ", b" \"", b"\" \"", b"\""];

/// What they give, and how their ends are found.
const USES: [(Use, Class); STEPS] = [
    (Use::One(Slot::RemoteAddr), Class::Free),
    (Use::Skip, Class::Free),
    (Use::One(Slot::TimeLocal), Class::Local),
    (Use::One(Slot::Request), Class::Quoted),
    (Use::One(Slot::Status), Class::Digits),
    (Use::One(Slot::BodyBytes), Class::Digits),
    (Use::One(Slot::Referer), Class::Quoted),
    (Use::One(Slot::Agent), Class::Quoted),
];

/// Digits that surely fit a number of 64 bits.
const DIGITS_MAX: usize = 19;

/// The values as they stand, `-` included.
pub(super) struct Beginning<'a> {
    pub(super) remote_addr: &'a [u8],
    pub(super) time: &'a [u8; LOCAL_BYTES],
    pub(super) request: &'a [u8],
    /// Of three digits.
    pub(super) status: u16,
    pub(super) bytes_sent: u64,
    pub(super) referer: &'a [u8],
    pub(super) agent: &'a [u8],
    /// What follows the agent, from its closing quote on.
    pub(super) rest: &'a [u8],
}

/// Whether a format, which has no text before its first step, begins so.
pub(super) fn begins(steps: &[Step]) -> bool {
    let Some(steps) = steps.get(..STEPS) else { return false };
    let mut expected = USES.iter().zip(AFTER).enumerate();
    steps.iter().all(|step| {
        expected.next().is_some_and(|(index, ((usage, class), after))| {
            let is_last = index + 1 == STEPS;
            let is_followed = *step.after == *after || (is_last && step.after.starts_with(after));
            step.usage == *usage && step.class == *class && is_followed
        })
    })
}

/// Cuts a line.
#[inline]
pub(super) fn read(line: &[u8]) -> Option<Beginning<'_>> {
    let (remote_addr, rest) = word(line)?;
    let (_, rest) = word(rest.strip_prefix(b" - ")?)?;
    let (time, rest) = rest.strip_prefix(b" [")?.split_first_chunk()?;
    let (request, rest) = quoted(rest.strip_prefix(b"] \"")?)?;
    let (status, rest) = status(rest.strip_prefix(b"\" ")?)?;
    let (bytes_sent, rest) = number(rest.strip_prefix(b" ")?)?;
    let (referer, rest) = quoted(rest.strip_prefix(b" \"")?)?;
    let (agent, rest) = quoted(rest.strip_prefix(b"\" \"")?)?;
    Some(Beginning { remote_addr, time, request, status, bytes_sent, referer, agent, rest })
}

/// What stands before the first blank.
#[inline]
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(find_byte(text, b' ')?)
}

/// What stands before the first quote, unless a backslash makes that one a part of it.
#[inline]
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (value, rest) = text.split_at_checked(find_byte(text, b'"')?)?;
    (value.last() != Some(&b'\\')).then_some((value, rest))
}

/// Three digits, which is what nearly every server writes.
#[inline]
fn status(text: &[u8]) -> Option<(u16, &[u8])> {
    let ([hundreds, tens, ones], rest) = text.split_first_chunk()?;
    let value = |digit: &u8| digit.is_ascii_digit().then(|| u16::from(digit - b'0'));
    Some((value(hundreds)? * 100 + value(tens)? * 10 + value(ones)?, rest))
}

/// One digit at least.
#[inline]
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut count = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    ((1..=DIGITS_MAX).contains(&count)).then_some((value, text.get(count..)?))
}
