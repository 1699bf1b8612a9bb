//! The cap, and what still must work when it is reached.

use crate::mutant::{self, Mutant};
use crate::record::{Loss, LossReason};

use super::super::{Refused, SpoolState};
use super::*;

const CAP: u64 = 1 << 20;

/// Fills the spool with bodies of a size; how many it took.
fn fill(spool: &mut Spool<SimDisk>, bytes: usize) -> u64 {
    let mut count = 0;
    loop {
        match spool.append(Some(batch(1, &vec![count as u8; bytes])), vec![]) {
            Ok(_) => count += 1,
            Err(Refused::Full(returned)) => {
                assert_eq!(returned.batch.unwrap().body.len(), bytes);
                assert_eq!(spool.status().state, SpoolState::Full);
                return count;
            }
            Err(other) => panic!("{other}"),
        }
        spool.commit(at(0)).unwrap();
    }
}

#[test]
fn a_full_spool_of_any_batch_size_stays_under_its_cap_and_empties() {
    for bytes in [0, 10, 1000, 20_000, 100_000, 250_000] {
        let disk = SimDisk::default();
        let mut spool = open(&disk);
        let count = fill(&mut spool, bytes);
        assert!(count >= 2, "only {count} of {bytes}");
        for round in 0..3 {
            assert_eq!(drain(&mut spool).len() as u64, if round == 0 { count } else { 2 });
            for _ in 0..2 {
                spool.append(Some(batch(1, &vec![1; bytes])), vec![]).unwrap();
                spool.commit(at(0)).unwrap();
            }
            assert_eq!(spool.status().state, SpoolState::Ok);
        }
        assert!(disk.peak_bytes() <= CAP, "{bytes}: {}", disk.peak_bytes());
        assert_balanced(&spool);
    }
}

#[test]
fn most_of_the_cap_is_for_batches() {
    let disk = SimDisk::default();
    let count = fill(&mut open(&disk), 10_000);
    assert!(count * 10_000 > CAP * 3 / 4, "{count}");
}

/// Days of an outage: the state goes on changing, samples go on being lost, starts go on.
#[test]
fn a_full_spool_goes_on_taking_state_for_ever() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    let mut count = fill(&mut spool, 5000);
    let filled = count;
    for second in 0..5000u64 {
        let value = vec![second as u8; 2000];
        let changes = vec![(vec![(second % 4) as u8], Some(value.clone()))];
        spool.append(None, changes).unwrap_or_else(|_| panic!("refused at {second}"));
        count += u64::from(spool.append(Some(batch(1, &[0; 5000])), vec![]).is_ok());
        spool.record_loss(LossReason::SpoolFull, Loss { lines: 0, bytes: 100 });
        spool.commit(at(second)).unwrap();
        if second % 500 == 0 {
            drop(spool);
            spool = open(&disk);
        }
        assert_eq!(spool.state()[[(second % 4) as u8].as_slice()], value);
    }
    assert!(disk.peak_bytes() <= CAP, "{}", disk.peak_bytes());
    assert!(count - filled < 30, "was not full: {filled}, then {count}");
    assert_eq!(spool.status().lost[&LossReason::SpoolFull].bytes, 500_000);
    assert_eq!(drain(&mut spool).len() as u64, count);
}

#[test]
fn losses_and_splits_work_while_full() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    fill(&mut spool, 8000);
    for seq in 1..=40 {
        if seq % 4 == 0 {
            let half = vec![batch(1, &[1; 4000]), batch(0, &[2; 4000])];
            if spool.split(seq, half, at(0)).is_ok() {
                continue;
            }
        }
        spool.lose(seq, LossReason::Refused, at(0)).unwrap();
        assert_balanced(&spool);
    }
    let status = spool.status();
    assert!(status.quarantine_bytes > 0 && status.quarantine_bytes <= CAP / 16, "{status:?}");
    assert!(disk.peak_bytes() <= CAP, "{}", disk.peak_bytes());
    assert_eq!(status.dropped_lines, status.lost.values().map(|loss| loss.lines).sum::<u64>());
}

#[test]
fn what_can_never_fit_is_told_apart_from_what_must_wait() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    let largest = spool.batch_bytes_max() as usize;
    let refused = spool.append(Some(batch(1, &vec![0; largest + 1])), vec![]).unwrap_err();
    assert!(matches!(refused, Refused::TooLarge(_)));
    let state = vec![(vec![0], Some(vec![0; 9 << 20]))];
    assert!(matches!(spool.append(None, state).unwrap_err(), Refused::TooLarge(_)));
    spool.append(Some(batch(1, &vec![0; largest])), vec![]).unwrap();
}

#[test]
fn the_last_free_space_of_the_file_system_is_left_to_others() {
    let disk = SimDisk::default();
    let options = Options { free_bytes_min: 1 << 20, ..small() };
    let mut spool = Spool::open(disk.clone(), options, at(0), FRESH).unwrap();
    spool.append(Some(batch(1, b"fits")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    disk.set_free_bytes(Some((1 << 20) - 1));
    assert!(matches!(spool.append(Some(batch(1, b"no")), vec![]), Err(Refused::Full(_))));
    assert_eq!(spool.status().state, SpoolState::Full);
    spool.append(None, vec![(vec![1], Some(vec![1]))]).unwrap();
    assert_eq!(drain(&mut spool).len(), 1);
}

#[test]
fn a_file_system_that_fills_up_still_takes_what_was_reserved() {
    let disk = SimDisk::default();
    let mut spool = open(&disk);
    for _ in 0..3 {
        spool.append(Some(batch(1, &[1; 30_000])), vec![]).unwrap();
        spool.commit(at(0)).unwrap();
    }
    let used = spool.status().bytes;
    disk.set_capacity(Some(used));
    for seq in 1..=3 {
        spool.append(Some(batch(1, &[2; 20_000])), vec![]).unwrap();
        spool.ack(seq, at(0)).unwrap();
    }
    assert_eq!(spool.status().batches, 3);
}

/// The control: a spool that does not look at its cap is found out by the bytes on its disk.
#[test]
fn a_spool_that_ignores_its_cap_is_found_out() {
    let disk = SimDisk::default();
    mutant::with(Some(Mutant::IgnoresCap), || {
        let mut spool = open(&disk);
        for _ in 0..200 {
            spool.append(Some(batch(1, &[1; 10_000])), vec![]).unwrap();
            spool.commit(at(0)).unwrap();
        }
    });
    assert!(disk.peak_bytes() > CAP, "{}", disk.peak_bytes());
}
