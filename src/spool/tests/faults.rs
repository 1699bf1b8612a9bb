//! A disk that fails, at every call there is.

use crate::record::LossReason;

use super::super::{Degraded, Refused, SettleError, SpoolState};
use super::*;

/// Appends, delivers and splits, whatever the disk says, and finally with a disk that works. Returns
/// what was delivered.
fn script(disk: &SimDisk, mend: impl Fn()) -> Vec<Vec<u8>> {
    let mut spool = open(disk);
    let mut delivered = Vec::new();
    let mut waiting: Vec<Vec<u8>> = (0..6u8).rev().map(|n| vec![n; 500]).collect();
    let mut seconds = 0;
    while !waiting.is_empty() || spool.status().batches > 0 {
        seconds += 61;
        if seconds == 61 * 20 {
            mend();
        }
        assert!(seconds < 61 * 100, "stuck: {:?}", spool.status());
        if let Some(body) = waiting.pop()
            && let Err(refused) = spool.append(Some(batch(1, &body)), vec![])
        {
            let returned = refused.returned().batch.unwrap();
            assert_eq!(returned.body, body);
            waiting.push(returned.body);
        }
        let _ = spool.commit(at(seconds));
        if let Some(front) = spool.oldest() {
            match spool.ack(front.id.seq, at(seconds)) {
                Ok(()) | Err(SettleError::Degraded(_)) => delivered.push(front.body),
                Err(other) => panic!("{other}"),
            }
        }
        assert_balanced(&spool);
    }
    mend();
    spool.commit(at(seconds + 61)).unwrap();
    assert_eq!(spool.status().delivered.lines, 6);
    delivered
}

fn bodies() -> Vec<Vec<u8>> {
    (0..6u8).map(|n| vec![n; 500]).collect()
}

#[test]
fn an_error_of_any_one_call_loses_and_doubles_nothing() {
    let whole = SimDisk::default();
    assert_eq!(script(&whole, || {}), bodies());
    for call in 0..whole.calls() {
        let disk = SimDisk::default();
        disk.fail_in(call);
        assert_eq!(script(&disk, || {}), bodies(), "call {call}");
        let mut spool = open(&disk);
        assert_eq!((spool.oldest(), spool.status().delivered.lines), (None, 6), "call {call}");
    }
}

#[test]
fn a_disk_that_fails_from_any_call_on_is_waited_for() {
    for call in 0..40 {
        let disk = SimDisk::default();
        for next in 0..200 {
            disk.fail_in(call + next);
        }
        assert_eq!(script(&disk, || disk.fail_none()), bodies(), "from call {call}");
    }
}

#[test]
fn a_full_disk_of_any_size_is_waited_for() {
    for capacity in (0..64 << 10).step_by(1000) {
        let disk = SimDisk::default();
        disk.set_capacity(Some(capacity));
        assert_eq!(script(&disk, || disk.set_capacity(None)), bodies(), "capacity {capacity}");
        assert_eq!(open(&disk).status().delivered.lines, 6);
    }
}

#[test]
fn after_a_failed_sync_the_records_go_to_a_new_segment_under_the_same_id() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"first")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    let before = disk.names();
    let id = spool.append(Some(batch(1, b"second")), vec![]).unwrap().unwrap();
    disk.fail_in(1);
    spool.commit(at(1)).unwrap();
    assert_ne!(before, disk.names());
    drop(spool);
    disk.crash(&mut fastrand::Rng::with_seed(3));
    let mut spool = open(&disk);
    assert_eq!(spool.oldest().unwrap().body, b"first");
    spool.ack(1, at(2)).unwrap();
    let second = spool.oldest().unwrap();
    assert_eq!((second.id, second.body.as_slice()), (id, b"second".as_slice()));
}

#[test]
fn a_degraded_spool_offers_what_is_durable_and_backs_off() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"durable")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    spool.append(Some(batch(2, b"waiting")), vec![]).unwrap();
    disk.fail_all(true);
    let mut now = at(10);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(spool.retry(now).is_err() || spool.next_retry().is_none());
        let Err(Degraded { reason }) = spool.commit(now) else { panic!("the disk fails") };
        assert!(reason.contains("os error 5"), "{reason}");
        assert_eq!(spool.next_retry().unwrap() - now.monotonic, Duration::from_secs(wait));
        let calls = disk.calls();
        assert!(spool.commit(now).is_err());
        assert_eq!(disk.calls(), calls, "not due, yet the disk was asked");
        now.monotonic = spool.next_retry().unwrap();
    }
    assert!(matches!(spool.status().state, SpoolState::Degraded(_)));
    assert_eq!(spool.oldest().unwrap().body, b"durable");
    let refused = spool.append(Some(batch(3, b"new")), vec![]).unwrap_err();
    assert!(matches!(refused, Refused::Degraded(_)));
    assert!(matches!(spool.ack(1, at(11)), Err(SettleError::Degraded(_))));
    assert_eq!(spool.oldest(), None, "settled, though not durably");
    disk.fail_all(false);
    spool.retry(now).unwrap();
    assert_eq!((spool.next_retry(), spool.status().state), (None, SpoolState::Ok));
    assert_eq!(spool.oldest().unwrap().body, b"waiting");
}

/// What a later record proves to be durable is offered; the last commit may be in the system's memory only.
#[test]
fn a_start_on_a_disk_that_takes_no_writes_still_offers_what_is_durable_for_certain() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"held")), vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    spool.commit(at(0)).unwrap();
    spool.append(Some(batch(1, b"last")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    drop(spool);
    disk.fail_all(true);
    let mut spool = open(&disk);
    assert!(matches!(spool.status().state, SpoolState::Degraded(_)));
    assert!(spool.recovered().salvaged);
    assert_eq!((spool.status().batches, spool.state().len()), (2, 1));
    assert_eq!(spool.oldest().unwrap().body, b"held");
    assert!(matches!(spool.ack(1, at(1)), Err(SettleError::Degraded(_))));
    assert_eq!(spool.oldest(), None);
    disk.fail_all(false);
    spool.retry(at(100)).unwrap();
    assert_eq!((drain(&mut spool), spool.status().delivered.batches), (vec![b"last".to_vec()], 2));
}

/// A killed process leaves data in the system's memory; the next one must not build on it before it is
/// durable, nor trust it once that has failed.
#[test]
fn what_cannot_be_made_durable_at_a_start_is_written_anew() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"in memory")), vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    // The record is written and its sync fails, as does all else until the process is gone.
    disk.fail_in(1);
    for call in 2..40 {
        disk.fail_in(call);
    }
    assert!(spool.commit(at(0)).is_err());
    drop(spool);
    disk.fail_none();
    disk.fail_in(0);
    let spool = open(&disk);
    let held = spool.status().batches;
    drop(spool);
    disk.crash(&mut fastrand::Rng::with_seed(1));
    let mut spool = open(&disk);
    assert_eq!(spool.status().batches, held);
    assert_eq!(spool.state().len() as u64, held);
    assert_eq!(drain(&mut spool).len() as u64, held);
}

#[test]
fn a_split_is_whole_or_not_there_wherever_it_is_cut() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(10, b"parent")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    drop(spool);
    let whole = disk.fork();
    open(&whole);
    let calls = {
        let disk = disk.fork();
        let mut spool = open(&disk);
        let before = disk.calls();
        spool.split(1, vec![batch(4, b"a"), batch(5, b"b")], at(0)).unwrap();
        assert_eq!(spool.status().lost[&LossReason::TooLarge].lines, 1);
        disk.calls() - before
    };
    for call in 0..calls {
        for seed in 0..20 {
            let disk = disk.fork();
            let mut spool = open(&disk);
            for failing in call..call + 50 {
                disk.fail_in(failing);
            }
            let done = spool.split(1, vec![batch(4, b"a"), batch(5, b"b")], at(0)).is_ok();
            drop(spool);
            disk.crash(&mut fastrand::Rng::with_seed(seed));
            let mut spool = open(&disk);
            assert_balanced(&spool);
            let bodies = drain(&mut spool);
            let parts = [b"a".to_vec(), b"b".to_vec()];
            assert!(bodies == parts || (!done && bodies == [b"parent".to_vec()]), "{bodies:?}");
        }
    }
}

/// Somebody makes room on the disk: shipping must not wait a minute for it.
#[test]
fn a_disk_that_is_only_full_is_asked_again_within_seconds() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, &[1; 20_000])), vec![]).unwrap();
    disk.set_capacity(Some(1));
    let mut now = at(0);
    for _ in 0..10 {
        assert!(spool.commit(now).is_err());
        let next_retry = spool.next_retry().unwrap();
        assert!(next_retry - now.monotonic <= Duration::from_secs(2));
        now.monotonic = next_retry;
    }
    disk.set_capacity(None);
    spool.retry(now).unwrap();
    assert_eq!(drain(&mut spool).len(), 1);
}

/// What the next start finds where the process was killed between a sync that failed and the cut of what it left:
/// bytes that can be read, and that no sync writes out any more.
fn killed_after_a_failed_sync() -> SimDisk {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"durable")), vec![(b"k".to_vec(), Some(b"1".to_vec()))]).unwrap();
    spool.commit(at(0)).unwrap();
    spool.append(Some(batch(1, b"in memory")), vec![(b"k".to_vec(), Some(b"2".to_vec()))]).unwrap();
    disk.fail_syncs(true);
    // Room is set aside already: the record is written, its sync fails, and the cut is not done any more.
    disk.die_in(1, 0);
    assert!(spool.commit(at(1)).is_err());
    assert!(disk.is_dead());
    drop(spool);
    disk.revive();
    disk.fail_syncs(false);
    disk
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_out_by_the_next_start() {
    let disk = killed_after_a_failed_sync();
    let spool = open(&disk);
    assert_eq!((spool.status().batches, spool.recovered().salvaged), (2, false));
    drop(spool);
    for seed in 0..20 {
        let disk = disk.fork();
        disk.crash(&mut fastrand::Rng::with_seed(seed));
        let mut spool = open(&disk);
        assert_eq!(spool.state()[b"k".as_slice()], b"2");
        assert_eq!(drain(&mut spool), [b"durable".to_vec(), b"in memory".to_vec()]);
    }
}

#[test]
fn what_a_start_cannot_make_durable_is_not_offered_before_it_is_written_anew() {
    let disk = killed_after_a_failed_sync();
    disk.fail_syncs(true);
    let mut spool = open(&disk);
    assert_eq!(spool.oldest().unwrap().body, b"durable");
    assert!(spool.ack(1, at(1)).is_err());
    assert_eq!(spool.oldest(), None, "a power cut may take it");
    disk.fail_syncs(false);
    spool.retry(at(100)).unwrap();
    assert_eq!(drain(&mut spool), [b"in memory"]);
    assert!(disk.names().len() <= 2, "{:?}", disk.names());
}

/// The head of the new segment counts the batches behind it: either both are there or none.
#[test]
fn what_is_written_anew_is_whole_or_not_there_wherever_it_is_cut() {
    let disk = killed_after_a_failed_sync();
    let calls = |disk: &SimDisk| {
        let before = disk.calls();
        disk.fail_in(0);
        assert!(open(disk).recovered().salvaged);
        disk.calls() - before
    };
    for call in 1..calls(&disk.fork()) {
        for seed in 0..40 {
            let disk = disk.fork();
            disk.fail_in(0);
            disk.die_in(call, seed);
            drop(Spool::open(disk.clone(), small(), at(0), FRESH));
            disk.revive();
            disk.crash(&mut fastrand::Rng::with_seed(seed));
            let mut spool = open(&disk);
            assert_eq!(spool.status().dropped_lines, 0, "call {call}, seed {seed}");
            let expected = [b"durable".to_vec(), b"in memory".to_vec()];
            let known = usize::from(spool.state()[b"k".as_slice()] == b"2") + 1;
            assert_eq!(drain(&mut spool), expected[..known], "call {call}, seed {seed}");
            assert!(disk.names().iter().all(|name| !name.ends_with(".new")), "{:?}", disk.names());
        }
    }
}

/// A segment that could be neither made durable nor removed may come back, and with it its list of what counts.
#[test]
fn nothing_is_written_to_a_segment_once_its_successor_may_come_back() {
    let bodies: Vec<Vec<u8>> = (0..2).map(|n| vec![n; 5000]).collect();
    for call in 0..8 {
        let disk = SimDisk::default();
        let options = Options { segment_bytes: 8 << 10, ..small() };
        let mut spool = Spool::open(disk.clone(), options, at(0), FRESH).unwrap();
        for body in &bodies {
            spool.commit(at(0)).unwrap();
            spool.append(Some(batch(1, body)), vec![]).unwrap();
        }
        disk.fail_in(call);
        disk.fail_in(call + 1);
        let kept = 1 + usize::from(spool.commit(at(1)).is_ok());
        drop(spool);
        let mut spool = open(&disk);
        assert!(drain(&mut spool).starts_with(&bodies[..kept]), "call {call}");
    }
}
