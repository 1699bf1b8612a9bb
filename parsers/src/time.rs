//! The three times that nginx logs, as milliseconds since 1970.
//!
//! What it owns: `$time_local`, `$time_iso8601` and `$msec`, and a cache of the last second. What it must never do: read a clock
//! or guess a zone; every nginx time states its own. All of them name the completion of a request, not its arrival.

use crate::bytes::{part, rest, seconds_as_ms, whole_number};

/// Bytes of `$time_local`: `17/May/2015:10:05:03 +0000`.
pub const LOCAL_BYTES: usize = 26;
/// Bytes of `$time_iso8601` as nginx writes it: `2015-05-17T10:05:03+00:00`.
pub const ISO8601_BYTES: usize = 25;

/// A number from here on counts milliseconds, not seconds (in seconds it would be the year 5138).
const MILLISECONDS_FROM: u64 = 100_000_000_000;
/// A number from here on counts microseconds.
const MICROSECONDS_FROM: u64 = 100_000_000_000_000;
/// A number from here on counts nanoseconds.
const NANOSECONDS_FROM: u64 = 100_000_000_000_000_000;

/// `$time_local`, exactly 26 bytes.
pub fn local_ms(text: &[u8]) -> Option<i64> {
    let text: &[u8; LOCAL_BYTES] = text.try_into().ok()?;
    let [d1, d2, b'/', m1, m2, m3, b'/', y1, y2, y3, y4, b':', _, _, _, _, _, _, _, _, b' ', ..] = text
    else {
        return None;
    };
    let month = match [m1, m2, m3].map(|letter| *letter) {
        [b'J', b'a', b'n'] => 1,
        [b'F', b'e', b'b'] => 2,
        [b'M', b'a', b'r'] => 3,
        [b'A', b'p', b'r'] => 4,
        [b'M', b'a', b'y'] => 5,
        [b'J', b'u', b'n'] => 6,
        [b'J', b'u', b'l'] => 7,
        [b'A', b'u', b'g'] => 8,
        [b'S', b'e', b'p'] => 9,
        [b'O', b'c', b't'] => 10,
        [b'N', b'o', b'v'] => 11,
        [b'D', b'e', b'c'] => 12,
        _ => return None,
    };
    let year = number_of(*y1, *y2)? * 100 + number_of(*y3, *y4)?;
    let seconds = date_seconds(year, month, number_of(*d1, *d2)?)? + clock_of(text)?;
    Some((seconds - zone_seconds(rest(text, 21))?) * 1000)
}

/// ISO 8601 with `T` or a blank, an optional fraction, and a zone (`Z`, `+00:00`, `+0000`); without a zone it is UTC.
pub fn iso8601_ms(text: &[u8]) -> Option<i64> {
    let year = two_digits(text, 0)? * 100 + two_digits(text, 2)?;
    let separators = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    if separators.iter().any(|(at, wanted)| part(text, *at, at + 1) != *wanted)
        || !matches!(text.get(10), Some(b'T' | b't' | b' '))
    {
        return None;
    }
    let seconds = date_seconds(year, two_digits(text, 5)?, two_digits(text, 8)?)?
        + clock_seconds(two_digits(text, 11)?, two_digits(text, 14)?, two_digits(text, 17)?)?;
    let mut tail = rest(text, 19);
    let mut fraction_ms = 0;
    if matches!(tail.first(), Some(b'.' | b',')) {
        let digits = crate::bytes::run_length(tail, 1, |byte| byte.is_ascii_digit());
        if digits == 0 {
            return None;
        }
        for position in 1..=3 {
            let digit = tail
                .get(position)
                .filter(|byte| byte.is_ascii_digit())
                .map_or(0, |byte| i64::from(byte - b'0'));
            fraction_ms = fraction_ms * 10 + if position <= digits { digit } else { 0 };
        }
        tail = rest(tail, 1 + digits);
    }
    Some((seconds - zone_seconds(tail)?) * 1000 + fraction_ms)
}

/// `$msec`: seconds with milliseconds (`1431857103.123`). A larger number is read as the milli-, micro- or nanoseconds that it is.
pub fn epoch_ms(text: &[u8]) -> Option<i64> {
    if text.last_chunk::<4>().is_some_and(|[dot, ..]| *dot == b'.') {
        return i64::try_from(seconds_as_ms(text)?).ok();
    }
    let value = match whole_number(text) {
        Some(number) if number >= NANOSECONDS_FROM => number / 1_000_000,
        Some(number) if number >= MICROSECONDS_FROM => number / 1000,
        Some(number) if number >= MILLISECONDS_FROM => number,
        _ => seconds_as_ms(text)?,
    };
    i64::try_from(value).ok()
}

/// Whatever of the three `text` is.
pub fn any_ms(text: &[u8]) -> Option<i64> {
    match text.get(2) {
        Some(b'/') => local_ms(text),
        _ if text.get(4) == Some(&b'-') => iso8601_ms(text),
        _ => epoch_ms(text),
    }
}

/// Whether `text` begins with the separators of `$time_local`; digits and names are looked at when it is read.
pub(crate) fn local_shape(text: &[u8]) -> bool {
    match text.first_chunk::<LOCAL_BYTES>() {
        Some(
            [
                _,
                _,
                b'/',
                _,
                _,
                _,
                b'/',
                _,
                _,
                _,
                _,
                b':',
                _,
                _,
                b':',
                _,
                _,
                b':',
                _,
                _,
                b' ',
                b'+' | b'-',
                ..,
            ],
        ) => true,
        Some(_) | None => false,
    }
}

/// Whether `text` begins with the separators of `$time_iso8601`.
pub(crate) fn iso8601_shape(text: &[u8]) -> bool {
    match text.first_chunk::<ISO8601_BYTES>() {
        Some(
            [
                _,
                _,
                _,
                _,
                b'-',
                _,
                _,
                b'-',
                _,
                _,
                b'T',
                _,
                _,
                b':',
                _,
                _,
                b':',
                _,
                _,
                b'+' | b'-',
                _,
                _,
                b':',
                _,
                _,
            ],
        ) => true,
        Some(_) | None => false,
    }
}

fn two_digits(text: &[u8], at: usize) -> Option<i64> {
    number_of(*text.get(at)?, *text.get(at + 1)?)
}

/// The number that two digits make.
#[inline]
fn number_of(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

fn clock_seconds(hour: i64, minute: i64, second: i64) -> Option<i64> {
    // 60 is a leap second, which POSIX counts as the first second of the next minute.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

fn date_seconds(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > days_in_month {
        return None;
    }
    // Days from the civil date, after Howard Hinnant, "chrono-compatible low-level date algorithms": the year begins in March.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400)
}

fn zone_seconds(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let minutes_at = match zone.len() {
        5 => 3,
        6 if zone.get(3) == Some(&b':') => 4,
        3 => return Some(sign * two_digits(zone, 1)? * 3600),
        _ => return None,
    };
    let minutes = two_digits(zone, minutes_at)?;
    (minutes < 60).then_some(sign * (two_digits(zone, 1)? * 3600 + minutes * 60))
}

/// Bytes of `$time_local` before its clock: `17/May/2015:`.
const DAY_BYTES: usize = 12;
/// And after it: ` +0000`.
const ZONE_BYTES: usize = 6;

/// Remembers the text of the last second, since on a busy server most lines carry the same one, and its day.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastSecond {
    text: [u8; LOCAL_BYTES],
    length: usize,
    ms: i64,
    /// The midnight of `text`, where it is a `$time_local`.
    midnight_ms: Option<i64>,
}

impl LastSecond {
    /// What `parse` makes of `text`, without asking it twice for the same text.
    pub(crate) fn get(&mut self, text: &[u8], parse: fn(&[u8]) -> Option<i64>) -> Option<i64> {
        if self.length > 0 && part(&self.text, 0, self.length) == text {
            return Some(self.ms);
        }
        let ms = parse(text)?;
        if let Some(kept) = self.text.get_mut(..text.len()) {
            kept.copy_from_slice(text);
            *self = LastSecond { length: text.len(), ms, midnight_ms: None, ..*self };
        }
        Some(ms)
    }

    /// [`local_ms`], which looks at the clock alone where day and zone are the last ones.
    #[inline]
    pub(crate) fn local(&mut self, text: &[u8]) -> Option<i64> {
        let text: &[u8; LOCAL_BYTES] = text.try_into().ok()?;
        if self.text == *text && self.length == LOCAL_BYTES {
            return Some(self.ms);
        }
        let clock_ms = clock_of(text)? * 1000;
        let midnight_ms = match self.midnight_ms {
            Some(midnight_ms) if day_and_zone(&self.text) == day_and_zone(text) => midnight_ms,
            _ => local_ms(text)? - clock_ms,
        };
        let ms = midnight_ms + clock_ms;
        *self = LastSecond { text: *text, length: LOCAL_BYTES, ms, midnight_ms: Some(midnight_ms) };
        Some(ms)
    }
}

fn day_and_zone(text: &[u8; LOCAL_BYTES]) -> (Option<&[u8; DAY_BYTES]>, Option<&[u8; ZONE_BYTES]>) {
    (text.first_chunk(), text.last_chunk())
}

/// What a clock of digits that are all zero reads as, and what added to the distance of a byte from it makes eight bits of one
/// that is past 9, or past the colon.
const CLOCK_ZERO: u64 = u64::from_le_bytes(*b"00:00:00");
const PAST_NINE: u64 = u64::from_le_bytes([0x76, 0x76, 0x7f, 0x76, 0x76, 0x7f, 0x76, 0x76]);
const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);

/// The seconds since midnight that a `$time_local` shows. Its eight bytes are one number: each of them is looked at together.
#[inline]
fn clock_of(text: &[u8; LOCAL_BYTES]) -> Option<i64> {
    let clock: &[u8; 8] = text.get(DAY_BYTES..)?.first_chunk()?;
    let digits = u64::from_le_bytes(*clock) ^ CLOCK_ZERO;
    // A carry comes of a byte that is refused anyway.
    if (digits.wrapping_add(PAST_NINE) | digits) & HIGH_BITS != 0 {
        return None;
    }
    // Each byte becomes ten times itself and the byte behind it: at most 99.
    let [hour, _, _, minute, _, _, second, _] = (digits * 10 + (digits >> 8)).to_le_bytes().map(i64::from);
    clock_seconds(hour, minute, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_three_times_of_nginx() {
        let check =
            |text: &str, expected: Option<i64>| assert_eq!(any_ms(text.as_bytes()), expected, "{text}");
        check("17/May/2015:10:05:03 +0000", Some(1_431_857_103_000));
        check("17/May/2015:12:05:03 +0200", Some(1_431_857_103_000));
        check("17/May/2015:04:35:03 -0530", Some(1_431_857_103_000));
        check("31/Dec/2016:23:59:60 +0000", Some(1_483_228_800_000));
        check("29/Feb/2015:10:05:03 +0000", None);
        check("29/Feb/2016:10:05:03 +0000", Some(1_456_740_303_000));
        check("17/Mai/2015:10:05:03 +0000", None);
        check("17/May/2015:24:05:03 +0000", None);
        check("17/May/2015:10:05:03 +0060", None);
        check("17/May/2015:10:05:03 +000", None);
        check("2015-05-17T10:05:03+00:00", Some(1_431_857_103_000));
        check("2015-05-17T10:05:03.123456Z", Some(1_431_857_103_123));
        check("2015-05-17 10:05:03.5+0000", Some(1_431_857_103_500));
        check("2015-05-17T10:05:03", Some(1_431_857_103_000));
        check("2015-13-17T10:05:03Z", None);
        check("2015-05-17T10:05:03.Z", None);
        check("2015-05-17T10:05", None);
        check("1431857103.123", Some(1_431_857_103_123));
        check("1431857103", Some(1_431_857_103_000));
        check("1431857103123", Some(1_431_857_103_123));
        check("1431857103123456", Some(1_431_857_103_123));
        check("1431857103123456789", Some(1_431_857_103_123));
        check("", None);
        check("-", None);
    }

    proptest! {
        #[test]
        fn a_clock_is_two_digits_thrice(clock in prop_oneof![
            "[0-2][0-9]:[0-6][0-9]:[0-6][0-9]".prop_map(std::string::String::into_bytes),
            "[0-3/:;]{2}[:9;][/-:]{2}[:9;][/-:]{2}".prop_map(std::string::String::into_bytes),
            prop::collection::vec(any::<u8>(), 8..9),
        ]) {
            let text = [&b"17/May/2015:"[..], &clock, b" +0000"].concat();
            let digits = |at| two_digits(&clock, at);
            let plain = match (digits(0), clock[2], digits(3), clock[5], digits(6)) {
                (Some(hour), b':', Some(minute), b':', Some(second)) => clock_seconds(hour, minute, second),
                _ => None,
            };
            prop_assert_eq!(clock_of(text.first_chunk().expect("26 bytes")), plain);
        }

        #[test]
        fn every_second_is_read_back(seconds in -62_135_596_800i64..253_402_300_799, zone_minutes in -14 * 60i64..14 * 60) {
            let local = seconds + zone_minutes * 60;
            let (year, month, day) = civil(local.div_euclid(86_400));
            prop_assume!((1..=9999).contains(&year));
            let clock = local.rem_euclid(86_400);
            let sign = if zone_minutes < 0 { '-' } else { '+' };
            let zone = zone_minutes.abs();
            let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
            let iso = std::format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{:02}:{:02}", zone / 60, zone % 60);
            prop_assert!(iso8601_shape(iso.as_bytes()));
            prop_assert_eq!(iso8601_ms(iso.as_bytes()), Some(seconds * 1000));
            let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
            let text = std::format!("{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} {sign}{:02}{:02}", zone / 60, zone % 60);
            prop_assert_eq!(local_ms(text.as_bytes()), Some(seconds * 1000));
        }

        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            any_ms(&text);
            local_ms(&text);
            iso8601_ms(&text);
            epoch_ms(&text);
        }
    }

    /// The date of a day, counted the slow way: year by year, month by month.
    fn civil(mut days: i64) -> (i64, i64, i64) {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let mut year = 1970;
        while days < 0 {
            year -= 1;
            days += if leap(year) { 366 } else { 365 };
        }
        while days >= if leap(year) { 366 } else { 365 } {
            days -= if leap(year) { 366 } else { 365 };
            year += 1;
        }
        let february = if leap(year) { 29 } else { 28 };
        for (index, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate()
        {
            if days < length {
                return (year, index as i64 + 1, days + 1);
            }
            days -= length;
        }
        (year, 12, 31)
    }

    proptest! {
        #[test]
        fn any_order_of_local_times_reads_as_each_alone(
            texts in proptest::collection::vec(
                "(0[12]|31)/(May|Jun|Feb)/201[56]:[012][0-9x]:[0-6][0-9]:[0-6]5 [+-]0[02]00|[0-9/: +-]{26}", 1..30
            )
        ) {
            let mut last = LastSecond::default();
            for text in &texts {
                prop_assert_eq!(last.local(text.as_bytes()), local_ms(text.as_bytes()), "{}", text);
            }
        }
    }

    #[test]
    fn the_cache_answers_only_for_its_own_text() {
        let mut cache = LastSecond::default();
        assert_eq!(cache.get(b"", local_ms), None);
        assert_eq!(cache.get(b"17/May/2015:10:05:03 +0000", local_ms), Some(1_431_857_103_000));
        assert_eq!(cache.get(b"17/May/2015:10:05:03 +0000", local_ms), Some(1_431_857_103_000));
        assert_eq!(cache.get(b"17/May/2015:10:05:04 +0000", local_ms), Some(1_431_857_104_000));
        assert_eq!(cache.get(b"nonsense", local_ms), None);
    }
}
