//! Gzip files of every kind against the bytes they were made of: whole, growing, damaged, and made to be a burden.

use std::io::Write;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::follow::Files;
use crate::follow::files::HostFiles;
use crate::follow::identity::{Head, Identity, Tail, read_full_at};

/// A file in memory that the test changes, and which counts what is read of it.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<(Vec<u8>, u64)>>);

impl Memory {
    fn of(bytes: &[u8]) -> Memory {
        let memory = Memory::default();
        memory.set(bytes);
        memory
    }

    fn set(&self, bytes: &[u8]) {
        self.0.lock().expect("one thread").0 = bytes.to_vec();
    }

    fn bytes_read(&self) -> u64 {
        self.0.lock().expect("one thread").1
    }

    fn unpacked(&self) -> GzFile {
        GzFile::new(Box::new(self.clone()))
    }
}

impl LogFile for Memory {
    fn stat(&self) -> io::Result<Stat> {
        let size = self.0.lock().expect("one thread").0.len() as u64;
        let identity = Identity { device: 1, inode: 2, born_ns: 3 };
        Ok(Stat { identity, size, modified: (4, 5), changed: (4, 5), links: 1, is_regular: true })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (bytes, read) = &mut *self.0.lock().expect("one thread");
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        *read += length as u64;
        Ok(length)
    }
}

fn member(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Lines that compress as those of a web server do.
fn log(lines: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(lines));
    (0..lines).flat_map(|line| format!("{line} GET /page/{:x} 200\n", random.u32(..)).into_bytes()).collect()
}

/// Everything up to the end or an error, in reads of such a length.
fn read_all(file: &GzFile, length: usize) -> (Vec<u8>, Option<io::Error>) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; length]);
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64) {
            Ok(0) => return (bytes, None),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

#[track_caller]
fn assert_reads(packed: &[u8], plain: &[u8], end: End) {
    for length in [1, 7, 4_096, READ_BYTES] {
        if plain.len() / length > 100_000 {
            continue;
        }
        let file = Memory::of(packed).unpacked();
        let (bytes, error) = read_all(&file, length);
        assert!(bytes == plain, "{} bytes of {} in reads of {length}", bytes.len(), plain.len());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(file.end(), end);
        assert_eq!(file.stat().expect("memory").size, plain.len() as u64);
        assert_eq!(file.is_complete(), end == End::Whole);
    }
}

#[test]
fn one_member_and_many_are_the_bytes_that_were_compressed() {
    let plain = log(20_000);
    assert_reads(&member(&plain), &plain, End::Whole);
    let flushes: Vec<u8> = plain.chunks(30_000).flat_map(member).collect();
    assert_reads(&flushes, &plain, End::Whole);
    let lines: Vec<u8> = plain[..3_000].chunks(11).flat_map(member).collect();
    assert_reads(&lines, &plain[..3_000], End::Whole);
    assert_reads(&member(b""), b"", End::Whole);
    assert_reads(b"", b"", End::Cut);
    let padded = [member(b"one\n"), vec![0; 40_000], member(b"two\n"), vec![0; 10]].concat();
    assert_reads(&padded, b"one\ntwo\n", End::Whole);
}

#[test]
fn what_gzip_itself_writes_is_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("access.log.2");
    let plain = log(5_000);
    std::fs::write(&path, &plain).expect("a log");
    let status = std::process::Command::new("gzip").arg("-9").arg(&path).status();
    assert!(status.expect("gzip is installed").success());
    let file = HostFiles.open(&directory.path().join("access.log.2.gz")).expect("packed");
    let inner = file.stat().expect("a file");
    let file = GzFile::new(file);
    assert!(read_all(&file, 8_192).0 == plain);
    let stat = file.stat().expect("a file");
    assert_eq!((stat.identity, stat.modified, stat.links), (inner.identity, inner.modified, inner.links));
    assert!(file.is_complete() && stat.is_regular);
}

#[test]
fn a_file_cut_at_any_byte_is_an_end_that_may_grow() {
    let plain = log(60);
    let (first, second) = plain.split_at(700);
    let packed = [member(first), member(second)].concat();
    let boundary = member(first).len();
    for cut in 0..packed.len() {
        let memory = Memory::of(&packed[..cut]);
        let file = memory.unpacked();
        let (bytes, error) = read_all(&file, 100);
        assert!(error.is_none() && plain.starts_with(&bytes), "cut at {cut}: {error:?}");
        assert_eq!(file.end(), if cut == boundary { End::Whole } else { End::Cut }, "cut at {cut}");
        assert_eq!(file.stat().expect("memory").size, bytes.len() as u64, "cut at {cut}");
        memory.set(&packed);
        let grown = file.stat().expect("memory").size > bytes.len() as u64;
        assert_eq!(grown, bytes != plain, "cut at {cut}: what came is seen");
        assert!(read_all(&file, 100).0 == plain && file.is_complete(), "cut at {cut}: the rest");
    }
}

#[test]
fn a_flipped_bit_is_found_and_what_lies_before_its_member_is_handed_out() {
    let plain = log(60);
    let (first, second) = plain.split_at(700);
    let (head, tail) = (member(first), member(second));
    for place in 0..tail.len() * 8 {
        let mut packed = [head.clone(), tail.clone()].concat();
        packed[head.len() + place / 8] ^= 1 << (place % 8);
        let file = Memory::of(&packed).unpacked();
        let (bytes, error) = read_all(&file, 100);
        assert!(bytes.starts_with(first), "bit {place}: the member before it");
        let Some(error) = error else {
            // Time, system and compressor in the header are not looked at; a flag or a length may make it seem cut.
            assert!(bytes == plain || file.end() == End::Cut, "bit {place}: not found");
            continue;
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let place_named = format!("behind byte {} of the log", bytes.len());
        assert!(error.to_string().contains(&place_named), "bit {place}: {error}");
        let size = file.stat().expect("memory").size;
        assert_eq!(size, bytes.len() as u64 + 1, "bit {place}: a reader that trusts the size is told");
        assert!(read_full_at(&file, &mut [0; 8], size - 1).is_err(), "bit {place}: and told again");
    }
}

#[test]
fn what_is_no_gzip_is_damaged_from_its_first_byte() {
    for bytes in [&b"GET / 200\n"[..], &[0; 50], &[0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0]] {
        let file = Memory::of(bytes).unpacked();
        let (read, error) = read_all(&file, 100);
        assert!(read.is_empty() && error.is_some(), "{bytes:?}");
    }
    let garbage = [member(b"one\n"), b"two\n".to_vec()].concat();
    let (bytes, error) = read_all(&Memory::of(&garbage).unpacked(), 100);
    assert_eq!((bytes.as_slice(), error.is_some()), (&b"one\n"[..], true));
}

#[test]
fn going_back_a_line_costs_nothing_and_further_begins_anew() {
    let plain = log(100_000);
    let packed = member(&plain);
    let memory = Memory::of(&packed);
    let file = memory.unpacked();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while offset < plain.len() {
        // As the follower reads: the next read begins before the end of the last one.
        let read = read_full_at(&file, &mut buffer, offset as u64).expect("memory");
        assert!(buffer[..read] == plain[offset..offset + read], "at {offset}");
        let rest = plain.len() - offset - read;
        offset += if rest == 0 { read } else { read / 2 };
        let head = Head::read(&file).expect("memory");
        assert_eq!(head, Head::read(&Memory::of(&plain)).expect("memory"));
        let tail = Tail::read(&file, offset as u64).expect("memory");
        assert_eq!(tail, Tail::read(&Memory::of(&plain), offset as u64).expect("memory"));
    }
    assert_eq!(memory.bytes_read(), packed.len() as u64, "each compressed byte once");
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20 {
        let offset = random.usize(..plain.len());
        let read = read_full_at(&file, &mut buffer[..999], offset as u64).expect("memory");
        assert!(buffer[..read] == plain[offset..][..read], "at {offset}");
    }
    assert_eq!(file.stat().expect("memory").size, plain.len() as u64);
}

#[test]
fn far_behind_the_end_there_is_nothing() {
    let file = Memory::of(&member(b"one\n")).unpacked();
    for offset in [4, 5, 1 << 40, u64::MAX] {
        assert_eq!(file.read_at(&mut [0; 8], offset).expect("no error"), 0);
    }
    assert!(file.reach(u64::MAX).expect("memory"), "the end is as far as one gets");
    assert_eq!(file.stat().expect("memory").size, 4);
}

#[test]
fn a_file_that_was_written_anew_begins_anew() {
    let memory = Memory::of(&member(&log(1_000)));
    let file = memory.unpacked();
    read_all(&file, 5_000);
    memory.set(&member(b"other\n"));
    assert!(file.stat().expect("memory").size <= 6);
    assert_eq!(read_all(&file, 5_000).0, b"other\n");
}

#[test]
fn one_call_works_so_much_and_the_next_goes_on() {
    let plain = vec![b'\n'; 3_000_000];
    let mut file = Memory::of(&member(&plain)).unpacked();
    file.limits.work_bytes_max = 1_000_000;
    let error = file.read_at(&mut [0; 8], 2_500_000).expect_err("too far for one call");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(error.to_string().contains("still unpacking"), "{error}");
    assert!(!file.reach(2_500_000).expect("memory"));
    assert!(file.reach(2_500_000).expect("memory"));
    assert_eq!(file.read_at(&mut [0; 8], 2_500_000).expect("there"), 8);
    // Members of nothing are work, too.
    let mut file = Memory::of(&member(b"").repeat(70_000)).unpacked();
    file.limits.work_bytes_max = 1_000_000;
    assert_eq!(file.read_at(&mut [0; 8], 0).expect_err("too much").kind(), io::ErrorKind::WouldBlock);
    assert_eq!(file.read_at(&mut [0; 8], 0).expect("the end"), 0);
}

#[test]
fn equal_lines_are_trusted_and_a_bomb_is_not() {
    let packed = member(&vec![b'\n'; 8 << 20]);
    let ratio = (8 << 20) / packed.len() as u64;
    assert!(ratio > RATIO_MAX, "{ratio}");
    let (bytes, error) = read_all(&Memory::of(&packed).unpacked(), READ_BYTES);
    assert!(bytes.len() == 8 << 20 && error.is_none(), "far below what is trusted");
    let mut file = Memory::of(&packed).unpacked();
    file.limits.trusted_bytes = 1 << 20;
    let (bytes, error) = read_all(&file, READ_BYTES);
    assert!((1 << 20..2 << 20).contains(&bytes.len()), "{} bytes", bytes.len());
    let error = error.expect("refused");
    assert!(error.to_string().contains("far more than a log"), "{error}");
    // A log that compresses as logs do goes on for ever.
    let plain = log(200_000);
    let mut file = Memory::of(&member(&plain)).unpacked();
    file.limits.trusted_bytes = 1 << 20;
    assert!(read_all(&file, READ_BYTES).0 == plain);
}

#[test]
fn memory_does_not_grow_with_the_log() {
    let file = Memory::of(&member(&vec![b'x'; 30_000_000])).unpacked();
    assert!(file.reach(u64::MAX).expect("memory"));
    let state = file.state.borrow();
    let bytes = state.recent.capacity() + state.input.capacity() + state.first.capacity();
    assert!(bytes <= 2 * (RECENT_BYTES + OUTPUT_BYTES) + 2 * INPUT_BYTES, "{bytes} bytes");
}
