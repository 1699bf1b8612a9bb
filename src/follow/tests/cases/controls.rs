//! What is wrong on purpose must be found: each fault makes compositions fail that succeed without it.

use super::random::{Fault, actions, run};

/// Compositions that each fault gets at most.
const COMPOSITIONS_MAX: u64 = 100;

/// Compositions that must find it; then it gets no more.
const FOUND: u64 = 2;

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
        let (mut tried, mut found) = (0, 0);
        while found < FOUND && tried < COMPOSITIONS_MAX {
            let is_found = !run(tried, &actions(tried), fault).is_empty();
            // What fails without the fault says nothing about it.
            found += u64::from(is_found && run(tried, &actions(tried), Fault::None).is_empty());
            tried += 1;
        }
        println!("{fault:?}: found by {found} of {tried} compositions");
        assert!(found == FOUND, "{fault:?} is not found");
    }
}
