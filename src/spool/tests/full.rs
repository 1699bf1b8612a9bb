//! A disk without room: what was delivered makes some, and no crash takes a verdict for damage.

use super::super::SpoolState;
use super::*;

/// Their verdicts take more than a segment that is set aside.
const BATCHES: u64 = 120;
const BODY_BYTES: usize = 3000;

fn options() -> Options {
    Options { segment_bytes: 8 << 10, ..small() }
}

fn open(disk: &SimDisk) -> Spool<SimDisk> {
    Spool::open(disk.clone(), options(), at(0), FRESH).expect("a spool can be opened")
}

/// A spool of many segments, and from now on nobody gets a byte more of its disk: what goes is taken by others.
fn filled() -> (SimDisk, Spool<SimDisk>) {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    for number in 0..BATCHES {
        spool.append(Some(batch(1, &[number as u8; BODY_BYTES])), vec![]).unwrap();
        spool.commit(at(0)).unwrap();
    }
    disk.set_capacity(Some(0));
    (disk, spool)
}

/// Delivers so many batches; each answer comes when the disk is due to be asked again.
fn deliver(spool: &mut Spool<SimDisk>, count: u64, seconds: &mut u64) {
    for _ in 0..count {
        *seconds += 5;
        let front = spool.oldest().expect("a batch is held");
        let _ = spool.ack(front.id.seq, at(*seconds));
        assert_balanced(spool);
    }
}

#[test]
fn what_is_delivered_from_a_full_disk_goes_from_it_though_others_take_the_room() {
    let (disk, mut spool) = filled();
    let before = disk.names().len();
    deliver(&mut spool, BATCHES, &mut 0);
    assert_eq!(spool.status().delivered.batches, BATCHES);
    assert!(before > 15 && disk.names().len() <= 2, "{before} files, then {:?}", disk.names());
}

/// Found by the simulation: segments went before the verdicts on them were durable, so that a crash left batches
/// that were delivered and counted as damaged.
#[test]
fn a_crash_on_a_full_disk_takes_no_delivered_batch_for_damaged() {
    for delivered in (0..=BATCHES).step_by(5) {
        let (disk, mut spool) = filled();
        deliver(&mut spool, delivered, &mut 0);
        drop(spool);
        disk.crash(&mut fastrand::Rng::with_seed(delivered));
        let status = open(&disk).status();
        assert_eq!(status.lost, BTreeMap::new(), "after {delivered}");
        disk.set_capacity(None);
        let mut spool = open(&disk);
        assert_eq!(spool.recovered().lost, [], "after {delivered}");
        let status = spool.status();
        assert_eq!(status.delivered.batches + status.batches, BATCHES, "after {delivered}: {status:?}");
        assert!(status.delivered.batches <= delivered, "after {delivered}: {status:?}");
        drain(&mut spool);
        assert_eq!((spool.status().delivered.batches, spool.status().dropped_batches), (BATCHES, 0));
    }
}

/// What waits for room was said before the verdicts that were written ahead of it.
#[test]
fn what_waited_for_room_takes_no_verdict_back() {
    for kept in 0..80 {
        let (disk, mut spool) = filled();
        for number in 0..3u8 {
            spool.append(Some(batch(1, &[number; BODY_BYTES])), vec![(vec![number], Some(vec![1]))]).unwrap();
        }
        deliver(&mut spool, BATCHES - 2, &mut 0);
        let durable = spool.durable.tally.settled;
        assert!(durable > BATCHES / 2, "only {durable} are durable");
        disk.set_capacity(None);
        disk.die_in(kept % 8, kept);
        let _ = spool.commit(at(10_000));
        drop(spool);
        disk.revive();
        disk.crash(&mut fastrand::Rng::with_seed(kept));
        let spool = open(&disk);
        assert_eq!(spool.recovered().lost, [], "{kept}");
        assert!(spool.durable.tally.settled >= durable, "{kept}: {:?}", spool.status());
        assert_balanced(&spool);
    }
}

/// A split stands in the queue, which the disk has no room for: the verdicts behind it wait for it.
#[test]
fn verdicts_wait_for_a_split_before_them() {
    let (disk, mut spool) = filled();
    deliver(&mut spool, 4, &mut 0);
    let halves = vec![batch(1, &[1; BODY_BYTES]), batch(0, &[2; BODY_BYTES])];
    assert!(spool.split(5, halves, at(100)).is_err());
    deliver(&mut spool, 10, &mut 200);
    drop(spool);
    disk.crash(&mut fastrand::Rng::with_seed(1));
    disk.set_capacity(None);
    let mut spool = open(&disk);
    assert_eq!(spool.recovered().lost, []);
    let first = spool.oldest().unwrap();
    assert!(first.id.seq <= 5, "{first:?}");
    drain(&mut spool);
    assert_eq!((spool.status().delivered.lines, spool.status().dropped_batches), (BATCHES, 0));
}

#[test]
fn a_stop_leaves_room_for_the_next_start_on_a_disk_that_is_full_by_then() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"held")), vec![(b"k".to_vec(), Some(vec![0; 2000]))]).unwrap();
    spool.commit(at(0)).unwrap();
    let bytes = spool.status().bytes;
    spool.close(at(1)).unwrap();
    disk.set_capacity(Some(bytes));
    let mut spool = open(&disk);
    assert_eq!(spool.status().state, SpoolState::Ok);
    spool.ack(1, at(2)).unwrap();
}

/// The control: with room on the disk, none of this is needed.
#[test]
fn with_room_every_verdict_is_durable_at_once() {
    let (disk, mut spool) = filled();
    disk.set_capacity(None);
    deliver(&mut spool, 7, &mut 0);
    drop(spool);
    disk.crash(&mut fastrand::Rng::with_seed(1));
    assert_eq!(open(&disk).status().delivered.batches, 7);
}
