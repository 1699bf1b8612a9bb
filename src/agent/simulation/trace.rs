//! Everything that happens in a simulated run, as one number; printed as text where a seed is replayed.
//!
//! Two runs of one seed must give the same number. It must never decide anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Golden ratio of 64 bits: spreads every event over the whole hash.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The events of one run; clones write to the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    hash: u64,
    events: u64,
    passed: Duration,
    printed: bool,
}

impl Trace {
    /// A trace that prints its events if asked to.
    pub(super) fn new(printed: bool) -> Trace {
        Trace(Arc::new(Mutex::new(State { printed, ..State::default() })))
    }

    /// Events from here on happen at this time of the run.
    pub(super) fn set_time(&self, passed: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).passed = passed;
    }

    /// Something happened.
    pub(super) fn note(&self, what: &'static str, numbers: &[u64]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hash = state.hash;
        let name = what.bytes().map(u64::from);
        let passed = u64::try_from(state.passed.as_millis()).unwrap_or(u64::MAX);
        for number in name.chain([passed]).chain(numbers.iter().copied()) {
            hash = (hash ^ number).wrapping_mul(SPREAD).rotate_left(23);
        }
        state.hash = hash;
        state.events += 1;
        if state.printed {
            println!("{:>10.3} {what} {numbers:?}", state.passed.as_secs_f64());
        }
    }

    /// Says something in words, where events are printed.
    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.printed {
            println!("{:>10.3} {}", state.passed.as_secs_f64(), text());
        }
    }

    /// All events so far as one number, and how many they were.
    pub(super) fn digest(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hash, state.events)
    }
}
