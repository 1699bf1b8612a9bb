//! Spools of released formats, as files: every later release must read them.
//!
//! `UPDATE_GOLDEN=1 cargo test --lib spool::tests::golden` writes them anew; only for a format that was
//! not released yet.

use std::path::PathBuf;

use crate::record::{Loss, LossReason};

use super::super::walk::segment_number;
use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/spool-v1")
}

/// The spool in the golden files: two runs and every kind of record.
fn write(disk: &SimDisk) {
    let mut spool = open(disk);
    let first = vec![(b"file/1".to_vec(), Some(b"100".to_vec())), (b"file/2".to_vec(), Some(b"7".to_vec()))];
    spool.append(Some(batch(10, b"delivered")), first).unwrap();
    spool.append(Some(batch(20, b"refused")), vec![(b"file/2".to_vec(), None)]).unwrap();
    spool.commit(at(1)).unwrap();
    spool.append(Some(batch(40, b"too large")), vec![]).unwrap();
    let mut sample = batch(0, b"sample");
    sample.stream = Stream::HostMetrics;
    sample.labels.fields = "role=edge".to_owned();
    spool.append(Some(sample), vec![(b"window".to_vec(), Some(vec![0, 255]))]).unwrap();
    spool.ack(1, at(2)).unwrap();
    spool.lose(2, LossReason::Refused, at(3)).unwrap();
    spool.record_loss(LossReason::Truncated, Loss { lines: 0, bytes: 512 });
    spool.split(3, vec![batch(30, b"part one"), batch(9, b"part two")], at(4)).unwrap();
    spool.close(at(5)).unwrap();
    // A stop of the release that wrote these files left nothing set aside.
    for name in disk.names().into_iter().filter(|name| disk.content(name).is_empty()) {
        disk.clone().unlink(&name).unwrap();
    }
    let mut spool = Spool::open(disk.clone(), small(), at(6), FRESH).unwrap();
    spool.append(Some(batch(80, b"second run")), vec![(b"file/1".to_vec(), Some(b"200".to_vec()))]).unwrap();
    spool.commit(at(7)).unwrap();
}

fn written() -> Vec<(String, Vec<u8>)> {
    let disk = SimDisk::default();
    write(&disk);
    let files = disk.names().into_iter().filter(|name| segment_number(name).is_some());
    files.map(|name| (name.clone(), disk.content(&name))).filter(|(_, bytes)| !bytes.is_empty()).collect()
}

pub(super) fn read() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder())
        .expect("the golden spool is part of the tree")
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn this_release_writes_the_golden_bytes() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = std::fs::remove_dir_all(folder());
        std::fs::create_dir_all(folder()).unwrap();
        for (name, content) in written() {
            std::fs::write(folder().join(name), content).unwrap();
        }
    }
    assert!(written() == read(), "the bytes of the format changed");
}

#[test]
fn this_release_reads_the_golden_spool() {
    let disk = SimDisk::default();
    for (name, content) in read() {
        disk.put(&name, &content);
    }
    let mut spool = open(&disk);
    let recovery = spool.recovered();
    assert_eq!((recovery.batches, recovery.lines, recovery.torn_tail_bytes), (4, 119, 0));
    assert_eq!((recovery.lost.len(), recovery.damaged.len()), (0, 0));
    assert_eq!((spool.epoch(), spool.agent_id()), (3, FRESH.agent));
    let state: Vec<(&[u8], &[u8])> = spool.state().iter().map(|(k, v)| (&k[..], &v[..])).collect();
    assert_eq!(state, [(&b"file/1"[..], &b"200"[..]), (b"window", &[0, 255])]);
    let status = spool.status();
    assert_eq!((status.appended_lines, status.delivered.lines, status.dropped_lines), (150, 10, 21));
    assert_eq!(status.lost[&LossReason::Refused], Loss { lines: 20, bytes: 7 });
    assert_eq!(status.lost[&LossReason::TooLarge].lines, 1);
    assert_eq!(status.lost[&LossReason::Truncated].bytes, 512);
    let sample = spool.oldest().unwrap();
    assert_eq!((sample.stream, sample.labels.fields.as_str()), (Stream::HostMetrics, "role=edge"));
    assert_eq!((sample.id.epoch, sample.id.seq), (1, 4));
    assert_eq!(drain(&mut spool), [&b"sample"[..], b"part one", b"part two", b"second run"]);
    assert_eq!(spool.status().delivered.lines, 129);
    assert_balanced(&spool);
}
