//! Tests of the spool as a whole, from its front door, on a disk that fails and crashes.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::record::Stream;

use super::sim::SimDisk;
use super::{AgentId, BatchState, Disk, Fresh, Labels, NewBatch, Options, Spool, batch_body, segments};

macro_rules! check {
    ($condition:expr, $($text:tt)*) => {
        if !$condition { return Err(format!($($text)*)); }
    };
}

pub(super) mod blind;
mod cap;
mod damage;
mod directory;
mod faults;
mod full;
mod golden;
mod model;
mod rot;
mod unread;

const FRESH: Fresh = Fresh { agent: AgentId([7; 16]), nonce: 0x5EED };

fn at(seconds: u64) -> Now {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Now { wall: 1_700_000_000_000 + seconds as i64 * 1000, monotonic: *START + Duration::from_secs(seconds) }
}

fn small() -> Options {
    Options { bytes_max: 1 << 20, ..Options::default() }
}

fn batch(lines: u64, body: &[u8]) -> NewBatch {
    NewBatch {
        stream: Stream::AccessLines,
        labels: Labels { category: "a/b".to_owned(), host: "web-1".to_owned(), ..Labels::default() },
        created_ms: 1_700_000_000_000,
        lines,
        records: lines as u32,
        raw_bytes: body.len() as u32 * 8,
        body: body.to_vec(),
    }
}

fn open(disk: &SimDisk) -> Spool<SimDisk> {
    Spool::open(disk.clone(), small(), at(0), FRESH).expect("a spool can be opened")
}

/// Ids and bodies of what a look from outside shows as pending.
fn pending(disk: &impl Disk) -> Vec<(String, Vec<u8>)> {
    let views = segments(disk).unwrap();
    let batches = views.into_iter().flat_map(|view| view.batches);
    let mut found = BTreeMap::new();
    for view in batches.filter(|view| view.state == BatchState::Pending) {
        found.insert(view.id.seq, (view.id.to_string(), batch_body(disk, &view).unwrap().unwrap()));
    }
    found.into_values().collect()
}

/// Delivers all there is; the bodies in the order of delivery.
fn drain<D: Disk>(spool: &mut Spool<D>) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some(batch) = spool.oldest() {
        spool.ack(batch.id.seq, at(0)).unwrap();
        bodies.push(batch.body);
    }
    bodies
}

fn assert_balanced<D: Disk>(spool: &Spool<D>) {
    let status = spool.status();
    let known = status.delivered.lines + status.lines + status.dropped_lines;
    assert_eq!(status.appended_lines, known, "lines do not balance: {status:?}");
}

#[test]
fn a_batch_is_offered_once_it_is_durable_and_only_until_it_is_acknowledged() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    let change = vec![(b"position".to_vec(), Some(b"10".to_vec()))];
    let id = spool.append(Some(batch(3, b"one")), change).unwrap().unwrap();
    assert_eq!(id.to_string(), "07070707070707070707070707070707/1/1");
    assert_eq!(spool.oldest(), None);
    assert_eq!(spool.status().lines, 3);
    spool.commit(at(1)).unwrap();
    let offered = spool.oldest().unwrap();
    assert_eq!((offered.id, offered.body.as_slice(), offered.lines), (id, b"one".as_slice(), 3));
    assert_eq!(spool.state()[b"position".as_slice()], b"10");
    spool.ack(1, at(2)).unwrap();
    assert_eq!(spool.oldest(), None);
    assert_eq!(spool.status().delivered.lines, 3);
    drop(spool);
    let mut spool = open(&disk);
    assert_eq!((spool.epoch(), spool.oldest()), (2, None));
    assert_eq!(spool.status().delivered.bytes, 3);
    assert_eq!(spool.state().len(), 1);
}

#[test]
fn nothing_to_commit_is_nothing_to_sync() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    let syncs = disk.syncs();
    for second in 0..100 {
        spool.commit(at(second)).unwrap();
        assert_eq!(spool.oldest(), None);
    }
    assert_eq!(disk.syncs(), syncs);
}

#[test]
fn only_the_oldest_batch_can_be_settled() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"one")), vec![]).unwrap();
    spool.append(Some(batch(1, b"two")), vec![]).unwrap();
    assert!(spool.ack(1, at(0)).is_err(), "not durable yet");
    spool.commit(at(0)).unwrap();
    assert!(spool.ack(2, at(0)).is_err());
    assert!(spool.lose(3, crate::record::LossReason::Refused, at(0)).is_err());
    assert_eq!(drain(&mut spool), [b"one", b"two"]);
}

#[test]
fn many_starts_leave_few_files_and_the_same_spool() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(2, b"kept")), vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    spool.commit(at(0)).unwrap();
    for start in 2..200 {
        drop(spool);
        spool = open(&disk);
        assert_eq!(spool.epoch(), start);
        assert_eq!(spool.recovered().batches, 1);
        assert_eq!(spool.state()[b"k".as_slice()], b"v");
    }
    assert!(disk.names().len() <= 3, "{:?}", disk.names());
    assert_eq!(drain(&mut spool), [b"kept"]);
}
