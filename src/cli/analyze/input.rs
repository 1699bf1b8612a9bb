//! Bytes of a log, packed or not, to lines, in blocks of constant size.
//!
//! What it must never do: keep a line, or more of one than [`LINE_BYTES_MAX`].

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use crate::follow::{LINE_BYTES_MAX, READ_BYTES};

/// Bytes of one read; a line of up to [`LINE_BYTES_MAX`] always fits.
pub(super) const BLOCK_BYTES: usize = READ_BYTES;

/// Bytes of packed input that are read at a time.
const PACKED_BYTES: usize = 64 * 1024;

/// First bytes of a gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The reader itself, or what it holds when it holds gzip, of any number of members. Its first bytes decide, not
/// its name.
///
/// # Errors
/// When those first bytes cannot be read.
pub(super) fn unpacked<R: Read + 'static>(mut reader: R) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::with_capacity(GZIP_MAGIC.len());
    reader.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
    let is_gzip = head == GZIP_MAGIC;
    let whole = Cursor::new(head).chain(reader);
    if is_gzip {
        return Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(PACKED_BYTES, whole))));
    }
    Ok(Box::new(whole))
}

/// Hands out every line without its newline, and whether it was cut at [`LINE_BYTES_MAX`]. The end of the input
/// ends a line too.
///
/// # Errors
/// What the reader says; every complete line before it was handed out.
pub(super) fn for_each_line(
    reader: &mut dyn Read,
    block: &mut [u8],
    mut take: impl FnMut(&[u8], bool),
) -> io::Result<()> {
    let mut filled = 0;
    // The beginning of a line longer than a block was handed out; its rest is passed over.
    let mut passing_over = false;
    loop {
        let count = match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let fresh = filled;
        filled += count;
        let mut start = 0;
        for found in memchr::memchr_iter(b'\n', &block[fresh..filled]) {
            let end = fresh + found;
            if !std::mem::take(&mut passing_over) {
                give(&block[start..end], &mut take);
            }
            start = end + 1;
        }
        if passing_over {
            filled = 0;
        } else if start == 0 && filled == block.len() {
            give(block, &mut take);
            passing_over = true;
            filled = 0;
        } else {
            block.copy_within(start..filled, 0);
            filled -= start;
        }
    }
    if filled > 0 {
        give(&block[..filled], &mut take);
    }
    Ok(())
}

/// The lines of any bytes and whether their end was reached, as the fuzz target asks for them.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn lines_of(bytes: Vec<u8>) -> (Vec<Vec<u8>>, bool) {
    let (mut lines, mut block) = (Vec::new(), vec![0; BLOCK_BYTES]);
    let Ok(mut reader) = unpacked(Cursor::new(bytes)) else { return (lines, false) };
    let read = for_each_line(&mut *reader, &mut block, |line, _| lines.push(line.to_vec()));
    (lines, read.is_ok())
}

fn give(line: &[u8], take: &mut impl FnMut(&[u8], bool)) {
    match line.get(..LINE_BYTES_MAX) {
        Some(beginning) if line.len() > LINE_BYTES_MAX => take(beginning, true),
        _ => take(line, false),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    /// A reader that gives a few bytes at a time.
    struct Drops<'a> {
        left: &'a [u8],
        size: usize,
    }

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.size.min(self.left.len()).min(into.len());
            into[..count].copy_from_slice(&self.left[..count]);
            self.left = &self.left[count..];
            Ok(count)
        }
    }

    fn lines_of(reader: &mut dyn Read, block_bytes: usize) -> (Vec<(Vec<u8>, bool)>, io::Result<()>) {
        let mut lines = Vec::new();
        let mut block = vec![0; block_bytes];
        let read = for_each_line(reader, &mut block, |line, cut| lines.push((line.to_vec(), cut)));
        (lines, read)
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn unpacked_lines(bytes: Vec<u8>) -> (Vec<(Vec<u8>, bool)>, io::Result<()>) {
        lines_of(&mut unpacked(Cursor::new(bytes)).expect("a reader"), BLOCK_BYTES)
    }

    #[test]
    fn members_follow_one_another_and_plain_text_is_left_alone() {
        let expected = vec![(b"a".to_vec(), false), (b"b".to_vec(), false), (b"c".to_vec(), false)];
        let members = [packed(b"a\nb"), packed(b"\nc\n")].concat();
        assert_eq!(unpacked_lines(members).0, expected);
        assert_eq!(unpacked_lines(b"a\nb\nc".to_vec()).0, expected);
        assert!(unpacked_lines(Vec::new()).0.is_empty());
        assert_eq!(unpacked_lines(b"x".to_vec()).0, [(b"x".to_vec(), false)]);
    }

    #[test]
    fn damage_keeps_what_came_before_it() {
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let mut bytes = packed(text.as_bytes());
        bytes.truncate(bytes.len() / 2);
        let (lines, read) = unpacked_lines(bytes);
        assert!(read.is_err());
        assert!(lines.len() > 1_000 && lines.len() < 20_000, "{}", lines.len());
        assert!(
            lines
                .iter()
                .enumerate()
                .all(|(number, (line, _))| *line == format!("line {number}").into_bytes())
        );
        let (lines, read) = unpacked_lines([packed(b"a\n"), b"no gzip".to_vec()].concat());
        assert!(read.is_err() && lines.len() == 1);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        for length in [LINE_BYTES_MAX, LINE_BYTES_MAX + 1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES] {
            let mut text = vec![b'a'; length];
            text.extend_from_slice(b"\nnext\nlast");
            let (lines, read) = lines_of(&mut &text[..], BLOCK_BYTES);
            assert!(read.is_ok());
            let kept = length.min(LINE_BYTES_MAX);
            assert_eq!(lines[0], (vec![b'a'; kept], length > LINE_BYTES_MAX), "{length}");
            assert_eq!(lines[1..], [(b"next".to_vec(), false), (b"last".to_vec(), false)]);
        }
        let (lines, _) = lines_of(&mut &vec![b'a'; 2 * BLOCK_BYTES + 1][..], BLOCK_BYTES);
        assert_eq!(lines.len(), 1);
    }

    proptest! {
        #[test]
        fn every_line_once_however_it_comes(
            lines in prop::collection::vec("[a-c]{0,9}", 0..30), size in 1usize..50, block_bytes in 12usize..40
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (found, read) = lines_of(&mut Drops { left: text.as_bytes(), size }, block_bytes);
            prop_assert!(read.is_ok());
            let expected: Vec<(Vec<u8>, bool)> = lines.iter().map(|line| (line.clone().into_bytes(), false)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
