//! Bytes that a crash tore off or the disk turned over.

use crate::record::{Loss, LossReason};

use super::super::format::{BatchMeta, COUNT_MAX, Entry, Kind, Stamp, Totals, encode_record};
use super::super::walk::{segment_name, segment_number};
use super::*;

fn with_content(files: &[(String, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::default();
    for (name, content) in files {
        disk.put(name, content);
    }
    disk
}

fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.names().into_iter().filter(|name| segment_number(name).is_some());
    names.map(|name| (name.clone(), disk.content(&name))).filter(|(_, content)| !content.is_empty()).collect()
}

/// Two runs, two batches each, one of them delivered.
fn written() -> SimDisk {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    for (lines, body) in [(1, b"first".as_slice()), (2, b"second")] {
        spool.append(Some(batch(lines, body)), vec![(body.to_vec(), Some(body.to_vec()))]).unwrap();
        spool.commit(at(0)).unwrap();
    }
    spool.ack(1, at(0)).unwrap();
    drop(spool);
    let mut spool = open(&disk);
    for (lines, body) in [(4, b"third".as_slice()), (8, b"fourth")] {
        spool.append(Some(batch(lines, body)), vec![(body.to_vec(), Some(body.to_vec()))]).unwrap();
        spool.commit(at(0)).unwrap();
    }
    disk
}

#[test]
fn a_record_torn_at_any_byte_was_never_there() {
    let files = files(&written());
    let (name, content) = files.last().unwrap();
    let before = {
        let disk = SimDisk::default();
        disk.put(name, content);
        let view = segments(&disk).unwrap();
        assert_eq!(view[0].batches.len(), 2);
        content.windows(4).rposition(|window| window == b"WPSL").unwrap()
    };
    for len in before..content.len() {
        let mut torn = files.clone();
        torn.last_mut().unwrap().1.truncate(len);
        let mut spool = open(&with_content(&torn));
        assert_eq!(spool.recovered().torn_tail_bytes, (len - before) as u64);
        assert_eq!(spool.recovered().lost, []);
        assert_eq!(spool.state().len(), 3, "state of the torn record at {len}");
        assert_eq!(drain(&mut spool), [b"second".to_vec(), b"third".to_vec()]);
        let id = spool.append(Some(batch(1, b"next")), vec![]).unwrap().unwrap();
        assert_eq!((id.epoch, id.seq), (3, 4));
        assert_balanced(&spool);
    }
}

/// Flips one bit at a time of every byte; no more than the record that holds it may be lost.
#[test]
fn one_flipped_byte_costs_one_record() {
    let files = files(&written());
    let all = [b"second".to_vec(), b"third".to_vec(), b"fourth".to_vec()];
    for (index, (name, content)) in files.iter().enumerate() {
        for offset in 0..content.len() {
            let mut flipped = files.clone();
            flipped[index].1[offset] ^= 1 << (offset % 8);
            let disk = with_content(&flipped);
            let mut spool = open(&disk);
            assert_eq!(spool.agent_id(), FRESH.agent);
            let held = spool.status();
            let bodies = drain(&mut spool);
            let missing = all.iter().filter(|body| !bodies.contains(body)).count();
            assert!(missing <= 1, "{name} at {offset}: only {bodies:?}");
            let again = bodies.iter().filter(|body| !all.contains(body)).count();
            assert!(again <= 1, "{name} at {offset}: {bodies:?}");
            assert_balanced(&spool);
            let lost = spool.status().lost.values().map(|loss| loss.lines).sum::<u64>();
            let torn = spool.recovered().torn_tail_bytes > 0;
            assert!(missing == 0 || lost > 0 || torn, "{name} at {offset}: lost unseen, {held:?}");
            let totals = spool.status();
            drop(spool);
            let reopened = open(&disk).status();
            assert_eq!((reopened.lost, reopened.delivered), (totals.lost, totals.delivered));
        }
    }
}

#[test]
fn damage_below_a_later_record_is_counted_with_its_lines() {
    for inside_body in [false, true] {
        let disk = SimDisk::default();
        let mut spool = open(&disk);
        for (lines, body) in [(5, b"damaged-body".as_slice()), (7, b"whole")] {
            spool.append(Some(batch(lines, body)), vec![]).unwrap();
            spool.commit(at(0)).unwrap();
        }
        drop(spool);
        let mut content = files(&disk);
        let bytes = &mut content[0].1;
        let body = bytes.windows(12).position(|window| window == b"damaged-body").unwrap();
        let place = if inside_body { body } else { body - 30 };
        bytes[place] ^= 0x10;
        let disk = with_content(&content);
        for _ in 0..3 {
            let mut spool = open(&disk);
            assert_eq!(spool.oldest().unwrap().body, b"whole");
            spool.commit(at(0)).unwrap();
            let status = spool.status();
            assert_eq!((status.dropped_batches, status.dropped_lines, status.lines), (1, 5, 7));
            assert_eq!(status.lost[&LossReason::Corrupted].lines, 5);
            assert!(status.quarantine_bytes > 0);
            assert_balanced(&spool);
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_counted() {
    let files = files(&written());
    let disk = with_content(&files[1..]);
    let mut spool = open(&disk);
    assert_eq!(spool.recovered().lost, [(LossReason::Corrupted, Loss { lines: 2, bytes: 0 })]);
    assert_eq!(drain(&mut spool), [b"third".to_vec(), b"fourth".to_vec()]);
    assert_balanced(&spool);
    drop(spool);
    assert_eq!(open(&disk).recovered().lost, []);
}

#[test]
fn what_a_newer_release_wrote_is_refused_and_left_alone() {
    let mut newer = files(&written());
    // The second half-word of the head of SEGMENT is the oldest reader that understands it.
    let content = &mut newer[1].1;
    content[58] = 2;
    let head_len = u32::from_le_bytes(content[36..40].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&content[56..56 + head_len]).to_le_bytes();
    content[44..48].copy_from_slice(&crc);
    let crc = crc32fast::hash(&content[..52]).to_le_bytes();
    content[52..56].copy_from_slice(&crc);
    let disk = with_content(&newer);
    let error = Spool::open(disk.clone(), small(), at(0), FRESH).unwrap_err();
    assert_eq!(error.to_string(), format!("{} was written by a newer release", segment_name(3)));
    assert_eq!(files(&disk), newer);
}

#[test]
fn files_of_other_names_and_garbage_do_no_harm() {
    let disk = written();
    disk.put("notes.txt", b"hello");
    disk.put("seg-1.log", b"hello");
    disk.put(&segment_name(0), &[0; 5000]);
    disk.put(&segment_name(900), &[0xAB; 5000]);
    let mut spool = open(&disk);
    assert_eq!(drain(&mut spool).len(), 3);
    assert_eq!(disk.content("notes.txt"), b"hello");
}

/// Found by fuzzing: a record with a right checksum and numbers that contradict each other made the next batch
/// bear a number that counted as settled, or as taken, so that it was held and never offered.
#[test]
fn numbers_that_contradict_each_other_hold_back_no_later_batch() {
    let check = |header_seq: u64, settled: u64, batch_seq: u64, body_len: u32| {
        let meta = BatchMeta {
            epoch: 1,
            seq: batch_seq,
            stream: Stream::AccessLines,
            created_ms: 0,
            lines: 1,
            records: 1,
            raw_bytes: 1,
            body_len,
            body_crc: crc32fast::hash(b"old"),
            labels: Labels::default(),
        };
        let entry = Entry { settled, totals: Totals::default(), batches: vec![meta], changes: vec![] };
        let stamp = Stamp { nonce: 1, seq: header_seq, lines: 1, durable_len: 0 };
        let disk = SimDisk::default();
        disk.put(&segment_name(1), &encode_record(Kind::Entry, stamp, &entry.encode(), b"old"));
        segments(&disk).unwrap();
        let mut spool = open(&disk);
        drain(&mut spool);
        let id = spool.append(Some(batch(1, b"next")), vec![]).unwrap().unwrap();
        spool.commit(at(1)).unwrap();
        let offered = spool.oldest().map(|batch| (batch.id, batch.body));
        assert_eq!(offered, Some((id, b"next".to_vec())), "{header_seq} {settled} {batch_seq}");
    };
    check(1, 0, 1, 3);
    check(1, 5, 1, 3);
    check(1, 0, 4, 3);
    check(1, u64::MAX, u64::MAX, 3);
    check(u64::MAX, 0, 1, 3);
    // A body that would end far behind its record, of the memory that it would take to read.
    check(1, 0, 1, u32::MAX);
}

#[test]
fn sums_past_what_counts_as_a_number_are_written_so_that_they_can_be_read() {
    let mut totals = Totals { dropped_lines: u64::MAX, ..Totals::default() };
    totals.lose(LossReason::Corrupted, Loss { lines: 1, bytes: u64::MAX });
    let entry = Entry { totals, ..Entry::default() };
    let read = Entry::decode(&entry.encode(), 0).expect("what is written can be read");
    assert_eq!(read.totals.dropped_lines, COUNT_MAX);
    assert_eq!(read.totals.lost.values().next(), Some(&Loss { lines: 1, bytes: COUNT_MAX }));
}
