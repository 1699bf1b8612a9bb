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

#[test]
fn a_start_on_a_disk_that_takes_no_writes_still_offers_what_it_holds() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    spool.append(Some(batch(1, b"held")), vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    spool.commit(at(0)).unwrap();
    drop(spool);
    disk.fail_all(true);
    let mut spool = open(&disk);
    assert!(matches!(spool.status().state, SpoolState::Degraded(_)));
    assert!(spool.recovered().salvaged);
    assert_eq!(spool.oldest().unwrap().body, b"held");
    assert_eq!((spool.status().batches, spool.state().len()), (1, 1));
    disk.fail_all(false);
    spool.retry(at(100)).unwrap();
    assert_eq!((drain(&mut spool), spool.status().delivered.batches), (vec![b"held".to_vec()], 1));
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
