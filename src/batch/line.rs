//! One log line as a shipped record: `{"timestamp":1764000000123,"log":"<the line as it stands>"}`.
//!
//! Nothing is lost on the way: bytes that are not UTF-8 become `\xNN` and the record says `"escaped":true`; a
//! line that was cut says so with its real length.

use super::escape;
use crate::record::EpochMs;

/// What a record says of its line beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The line was longer than what is kept: its length in the file, in bytes.
    pub original_bytes: Option<u64>,
    /// The file ended for good without a newline behind the line.
    pub partial: bool,
}

/// Appends the record of a line, without a newline.
///
/// The text is cut (and marked) so that the record stays within `record_bytes_max`. Answers whether the record lacks
/// a part of the line, for this limit or for an earlier one.
pub fn write(
    out: &mut Vec<u8>,
    timestamp: EpochMs,
    line: &[u8],
    marks: Marks,
    record_bytes_max: usize,
) -> bool {
    let start = out.len();
    out.extend_from_slice(b"{\"timestamp\":");
    out.extend_from_slice(itoa::Buffer::new().format(timestamp).as_bytes());
    out.extend_from_slice(b",\"log\":\"");
    let text_start = out.len();
    let room = |behind: usize| record_bytes_max.saturating_sub(text_start - start + behind);
    // A line that fits whole needs no room for the marks of a cut.
    let mut written = match marks.original_bytes {
        None => write_escaped(out, line, room(WHOLE_BYTES_MAX)),
        Some(_) => write_escaped(out, line, room(MARKS_BYTES_MAX)),
    };
    if marks.original_bytes.is_none() && written.consumed < line.len() {
        out.truncate(text_start);
        written = write_escaped(out, line, room(MARKS_BYTES_MAX));
    }
    out.push(b'"');
    let original = marks.original_bytes.or((written.consumed < line.len()).then_some(line.len() as u64));
    if let Some(original) = original {
        out.extend_from_slice(b",\"truncated\":true,\"original_bytes\":");
        out.extend_from_slice(itoa::Buffer::new().format(original).as_bytes());
    }
    if marks.partial {
        out.extend_from_slice(b",\"partial\":true");
    }
    if written.escaped {
        out.extend_from_slice(b",\"escaped\":true");
    }
    out.push(b'}');
    original.is_some()
}

/// Room for everything behind the text of a whole line: `","partial":true,"escaped":true}`.
const WHOLE_BYTES_MAX: usize = 32;

/// Room for everything behind the text of a cut one: quotes, marks and a 20-digit length.
const MARKS_BYTES_MAX: usize = 100;

struct Written {
    /// Bytes of the line that went in.
    consumed: usize,
    /// Whether some of them were not UTF-8.
    escaped: bool,
}

/// Appends `line` as the inside of a JSON string, at most `bytes_max` bytes of it.
fn write_escaped(out: &mut Vec<u8>, line: &[u8], bytes_max: usize) -> Written {
    let end = out.len() + bytes_max;
    // Two bytes for each is the most that text without control bytes can take.
    if 2 * line.len() <= bytes_max && escape::append(out, line) {
        return Written { consumed: line.len(), escaped: false };
    }
    let mut consumed = 0;
    let mut escaped = false;
    for chunk in line.utf8_chunks() {
        let (taken, fits) = write_text(out, chunk.valid(), end);
        consumed += taken;
        if !fits {
            return Written { consumed, escaped };
        }
        for byte in chunk.invalid() {
            if out.len() + 5 > end {
                return Written { consumed, escaped };
            }
            out.extend_from_slice(b"\\\\x");
            out.extend_from_slice(&hex(*byte));
            consumed += 1;
            escaped = true;
        }
    }
    Written { consumed, escaped }
}

/// Appends valid text in runs between the bytes that JSON needs escaped; gives what went in.
fn write_text(out: &mut Vec<u8>, text: &str, end: usize) -> (usize, bool) {
    let bytes = text.as_bytes();
    let mut done = 0;
    while done < bytes.len() {
        let run = bytes[done..].iter().position(|byte| needs_escape(*byte)).unwrap_or(bytes.len() - done);
        let room = end.saturating_sub(out.len());
        if run > room {
            let mut cut = done + room;
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            out.extend_from_slice(&bytes[done..cut]);
            return (cut, false);
        }
        out.extend_from_slice(&bytes[done..done + run]);
        done += run;
        if done < bytes.len() {
            if out.len() + 6 > end {
                return (done, false);
            }
            write_escape(out, bytes[done]);
            done += 1;
        }
    }
    (done, true)
}

fn needs_escape(byte: u8) -> bool {
    is_control(byte) || byte == b'"' || byte == b'\\'
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\n' => out.extend_from_slice(b"\\n"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&hex(byte));
        }
    }
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(line: &[u8], marks: Marks, limit: usize) -> serde_json::Value {
        let mut out = Vec::new();
        let cut = write(&mut out, 1_764_000_000_123, line, marks, limit);
        assert_eq!(
            cut,
            out.windows(11).any(|part| part == b"\"truncated\""),
            "the answer is what the record says"
        );
        assert!(out.len() <= limit, "{} bytes of {limit}", out.len());
        assert!(out.starts_with(b"{\"timestamp\":1764000000123,\"log\":\""), "Sumo takes the leftmost time");
        serde_json::from_slice(&out).expect("a JSON object")
    }

    #[test]
    fn the_line_stands_as_it_is() {
        let line = br#"::1 - - "GET /a\x22b HTTP/1.1" 200 "ua	\"#;
        let record = record(line, Marks::default(), 1000);
        assert_eq!(record["log"].as_str().map(str::as_bytes), Some(&line[..]));
        assert_eq!(record.as_object().map(serde_json::Map::len), Some(2), "and nothing dearer");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_flagged() {
        let record = record(b"caf\xe9 \xff\x00", Marks::default(), 1000);
        assert_eq!(record["log"], "caf\\xE9 \\xFF\u{0}");
        assert_eq!(record["escaped"], true);
    }

    #[test]
    fn any_time_is_written_in_full() {
        for timestamp in [0, 7, 10, -1, 1_764_000_000_123, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write(&mut out, timestamp, b"", Marks::default(), 1000);
            assert_eq!(String::from_utf8_lossy(&out), format!("{{\"timestamp\":{timestamp},\"log\":\"\"}}"));
        }
    }

    #[test]
    fn a_cut_line_says_how_long_it_was() {
        let marks = Marks { original_bytes: Some(2_000_000), partial: true };
        let record = record(b"beginning", marks, 1000);
        assert_eq!((&record["truncated"], &record["original_bytes"]), (&true.into(), &2_000_000.into()));
        assert_eq!(record["partial"], true);
    }

    #[test]
    fn a_line_that_fits_is_not_cut_for_the_sake_of_marks_that_it_does_not_need() {
        const FRAME: usize = r#"{"timestamp":1764000000123,"log":""#.len();
        let limit = 10_000;
        let fits = "x".repeat(limit - FRAME - WHOLE_BYTES_MAX);
        let whole = record(fits.as_bytes(), Marks { original_bytes: None, partial: true }, limit);
        assert_eq!((whole["log"].as_str(), whole.get("truncated")), (Some(fits.as_str()), None));
        let cut = record(format!("{fits}xy").as_bytes(), Marks::default(), limit);
        assert_eq!((&cut["truncated"], &cut["original_bytes"]), (&true.into(), &(fits.len() + 2).into()));
    }

    proptest! {
        #[test]
        fn text_is_escaped_as_json_has_it(line in "([ -~]|[\"\\\\]|\u{e9}){0,60}") {
            let mut out = Vec::new();
            write(&mut out, 1, line.as_bytes(), Marks::default(), 1000);
            let json = serde_json::json!({"timestamp": 1, "log": line});
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).expect("JSON"), json);
        }

        #[test]
        fn the_fast_way_writes_what_the_plain_way_writes(
            line in proptest::collection::vec(
                prop_oneof![20 => b' '..=b'~', 4 => Just(b'"'), 2 => Just(b'\\'), 1 => any::<u8>()], 0..200
            )
        ) {
            let (mut fast, mut plain) = (b"x".to_vec(), b"x".to_vec());
            let did = escape::append(&mut fast, &line);
            let is_simple = line.iter().all(|byte| (b' '..=b'~').contains(byte));
            prop_assert_eq!(did, is_simple);
            if let (true, Ok(text)) = (did, str::from_utf8(&line)) {
                prop_assert_eq!(write_text(&mut plain, text, usize::MAX), (line.len(), true));
            }
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn any_bytes_within_any_limit(line in proptest::collection::vec(any::<u8>(), 0..400), limit in 160usize..600) {
            let record = record(&line, Marks::default(), limit);
            let log = record["log"].as_str().expect("a string");
            if record.get("truncated").is_none() && record.get("escaped").is_none() {
                prop_assert_eq!(log.as_bytes(), &line[..]);
            }
            if record.get("truncated").is_some() {
                prop_assert_eq!(record["original_bytes"].as_u64(), Some(line.len() as u64));
            }
        }
    }
}
