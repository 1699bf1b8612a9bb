//! Bytes that the device does not give, for a while or for good.

use crate::record::LossReason;

use super::super::unread::{READ_STARTS_MAX, READ_TRIES_MAX};
use super::super::walk::segment_number;
use super::super::{OpenError, SpoolState};
use super::*;

const BATCHES: u64 = 24;
const BODY_BYTES: usize = 3000;
/// A passing error refuses this many reads in a row: more than are tried at once.
const BRIEF_READS: u64 = 7;

fn options() -> Options {
    Options { segment_bytes: 16 << 10, ..small() }
}

fn try_open(disk: &SimDisk) -> Result<Spool<SimDisk>, OpenError> {
    Spool::open(disk.clone(), options(), at(0), FRESH)
}

fn open(disk: &SimDisk) -> Spool<SimDisk> {
    try_open(disk).expect("a spool can be opened")
}

/// Batches in many segments, a few of them delivered, and some state.
fn written() -> SimDisk {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    for number in 0..BATCHES {
        let change = vec![(b"k".to_vec(), Some(vec![number as u8]))];
        spool.append(Some(batch(1 + number, &[number as u8; BODY_BYTES])), change).unwrap();
        spool.commit(at(0)).unwrap();
    }
    spool.ack(1, at(0)).unwrap();
    spool.ack(2, at(0)).unwrap();
    disk
}

/// Delivers all, as time goes by; the numbers in the order of delivery.
fn deliver(spool: &mut Spool<SimDisk>, seconds: &mut u64) -> Vec<u64> {
    let mut delivered = Vec::new();
    while spool.status().batches > 0 {
        *seconds += 1;
        assert!(*seconds < 100_000, "stuck: {:?}", spool.status());
        spool.retry(at(*seconds)).unwrap();
        if let Some(front) = spool.oldest() {
            spool.ack(front.id.seq, at(*seconds)).unwrap();
            delivered.push(front.id.seq);
        }
        assert_balanced(spool);
    }
    delivered
}

/// The second of the segments that hold batches, and where the row of its records is in the middle.
fn middle(disk: &SimDisk) -> (String, u64) {
    let names = disk.names().into_iter().filter(|name| segment_number(name).is_some());
    let held: Vec<String> = names.filter(|name| disk.content(name).len() > BODY_BYTES).collect();
    let content = disk.content(&held[1]);
    let record = content.windows(4).enumerate().filter(|(_, w)| *w == b"WPSL").nth(3).unwrap().0;
    (held[1].clone(), record as u64)
}

#[test]
fn a_passing_error_of_any_read_of_a_start_costs_nothing() {
    let whole = written();
    let reads = {
        let disk = whole.fork();
        let before = disk.reads();
        open(&disk);
        disk.reads() - before
    };
    assert!(reads > 30, "{reads}");
    let mut failed = 0;
    for read in 0..reads {
        let disk = whole.fork();
        disk.refuse_reads(read, BRIEF_READS);
        let mut spool = match try_open(&disk) {
            Ok(spool) => spool,
            Err(error) => {
                failed += 1;
                let OpenError::Io { action, source } = &error else { panic!("{error}") };
                assert!(action.starts_with("read seg-"), "{action}");
                assert!(source.to_string().contains("os error 5"), "{source}");
                disk.refuse_reads(0, 0);
                open(&disk)
            }
        };
        assert_eq!(spool.recovered().lost, [], "read {read}");
        assert_eq!(spool.state()[b"k".as_slice()], [BATCHES as u8 - 1]);
        assert_eq!(deliver(&mut spool, &mut 0), (3..=BATCHES).collect::<Vec<u64>>(), "read {read}");
        assert_eq!(spool.status().dropped_batches, 0, "read {read}");
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_passing_error_of_any_read_of_a_delivery_is_said_and_costs_nothing() {
    let whole = written();
    let reads = {
        let disk = whole.fork();
        let mut spool = open(&disk);
        let before = disk.reads();
        deliver(&mut spool, &mut 0);
        disk.reads() - before
    };
    for read in 0..reads {
        let disk = whole.fork();
        let mut spool = open(&disk);
        disk.refuse_reads(read, BRIEF_READS);
        assert_eq!(deliver(&mut spool, &mut 0), (3..=BATCHES).collect::<Vec<u64>>(), "read {read}");
        assert_eq!(spool.status().dropped_batches, 0, "read {read}");
        assert_eq!(spool.status().state, SpoolState::Ok);
    }
    let mut spool = open(&whole);
    whole.refuse_reads(0, 1000);
    assert_eq!(spool.oldest(), None);
    let SpoolState::Degraded(reason) = spool.status().state else { panic!("{:?}", spool.status()) };
    assert!(reason.contains("os error 5") && reason.contains("try 1 of"), "{reason}");
    let reads = whole.reads();
    assert_eq!(spool.oldest(), None);
    assert_eq!(whole.reads(), reads, "asked again at once");
}

/// A bad block keeps an agent from starting for a minute of restarts, and costs what stands in it.
#[test]
fn bytes_that_no_start_can_read_count_as_damaged_in_the_end_and_only_once() {
    let disk = written();
    let (name, at_byte) = middle(&disk);
    disk.spoil(Some((&name, at_byte..at_byte + 1)));
    for start in 1..=READ_STARTS_MAX {
        let Err(OpenError::Io { source, .. }) = try_open(&disk) else { panic!("start {start} reads it") };
        assert!(source.to_string().contains(&format!("start {start} of {READ_STARTS_MAX}")), "{source}");
    }
    let spool = open(&disk);
    let status = spool.status();
    assert!(spool.recovered().damaged.iter().all(|range| range.unread));
    assert!(disk.names().iter().any(|name| name.starts_with("quarantine/") && name.ends_with(".unread")));
    assert_eq!((status.dropped_batches, status.batches), (1, BATCHES - 3), "{:?}", spool.recovered());
    assert!(status.lost[&LossReason::Corrupted].lines > 0);
    assert!(disk.names().iter().all(|name| !name.starts_with("unread-")), "{:?}", disk.names());
    drop(spool);
    // The device finds its bytes again: they were counted as lost, and stay so.
    for spoiled in [true, false, false] {
        disk.spoil(spoiled.then_some((name.as_str(), at_byte..at_byte + 1)));
        let spool = open(&disk);
        assert_eq!(spool.recovered().lost, []);
        assert_eq!((spool.status().lost, spool.status().batches), (status.lost.clone(), BATCHES - 3));
        assert_balanced(&spool);
    }
    assert_eq!(deliver(&mut open(&disk), &mut 0).len() as u64, BATCHES - 3);
}

#[test]
fn a_start_that_reads_it_all_forgets_those_that_did_not() {
    let disk = written();
    for _ in 0..3 {
        for _ in 1..READ_STARTS_MAX {
            disk.refuse_reads(0, 1000);
            assert!(try_open(&disk).is_err());
        }
        disk.refuse_reads(0, 0);
        assert_eq!(open(&disk).recovered().lost, []);
    }
    assert_eq!(deliver(&mut open(&disk), &mut 0).len() as u64, BATCHES - 2);
}

#[test]
fn bytes_that_a_running_agent_cannot_read_cost_their_batch_after_a_minute() {
    let disk = written();
    let mut spool = open(&disk);
    let (name, at_byte) = middle(&disk);
    let body = at_byte + 1000;
    disk.spoil(Some((&name, body..body + 1)));
    let mut seconds = 0;
    let delivered = deliver(&mut spool, &mut seconds);
    let wait = (1 << (READ_TRIES_MAX - 1)) - 1;
    assert!((wait..wait + 2 * BATCHES).contains(&seconds), "{seconds} s");
    assert_eq!((delivered.len() as u64, spool.status().dropped_batches), (BATCHES - 3, 1));
    drop(spool);
    let spool = open(&disk);
    assert_eq!((spool.status().dropped_batches, spool.status().delivered.batches), (1, BATCHES - 1));
}

/// What is wrong with the host and not with the bytes is waited for without an end.
#[test]
fn an_error_that_says_nothing_of_the_bytes_is_never_counted() {
    let disk = written();
    for _ in 0..3 * READ_STARTS_MAX {
        disk.refuse_all_reads(Some(rustix::io::Errno::ACCESS));
        assert!(try_open(&disk).is_err());
    }
    disk.refuse_all_reads(None);
    let mut spool = open(&disk);
    assert_eq!(spool.recovered().lost, []);
    disk.refuse_all_reads(Some(rustix::io::Errno::MFILE));
    for second in 0..1000 {
        spool.retry(at(second)).unwrap();
        assert_eq!(spool.oldest(), None);
    }
    disk.refuse_all_reads(None);
    assert_eq!(deliver(&mut spool, &mut 1000).len() as u64, BATCHES - 2);
}
