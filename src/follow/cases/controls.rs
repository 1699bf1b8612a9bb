//! What is wrong on purpose must be found: each fault makes compositions fail that succeed without it.

use super::random::{Fault, actions, run};

/// Compositions that each fault gets.
const COMPOSITIONS: u64 = 30;

/// How many compositions that are sound without it find a fault.
fn found(fault: Fault) -> usize {
    let sound = (0..COMPOSITIONS).filter(|seed| run(*seed, &actions(*seed), Fault::None).is_empty());
    sound.filter(|seed| !run(*seed, &actions(*seed), fault).is_empty()).count()
}

#[test]
fn every_fault_is_found() {
    let faults = [
        Fault::OneLineMore,
        Fault::Twice,
        Fault::ClosedAtFirstEnd,
        Fault::Forgetful,
        Fault::InodeOnly,
        Fault::Silent,
        Fault::Overstated,
    ];
    for fault in faults {
        let found = found(fault);
        println!("{fault:?}: found by {found} of {COMPOSITIONS} compositions");
        assert!(found > 0, "{fault:?} is not found");
    }
}
