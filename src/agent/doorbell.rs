//! Wakes the pipeline: a directory changed, an answer came, a signal asks to stop or to reload.
//!
//! Rings are remembered, never queued: a hundred rings before the next tick are one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two wakings by a directory: one in which files come and go all the time must not keep a core busy. Short
/// against the time between two rotations, since a file that is renamed before it was seen is not found.
const SCAN_RING_INTERVAL: Duration = Duration::from_millis(20);

/// Why the pipeline woke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// An answer of the destination, a stop, a reload, or nothing in particular.
    pub any: bool,
    /// A log directory changed: look for files now.
    pub scan: bool,
    /// Stop in good order.
    pub stop: bool,
    /// Read the settings again.
    pub reload: bool,
}

/// Rung from any thread, waited on by the pipeline alone.
#[derive(Debug, Default)]
pub struct Doorbell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rings: Rings,
    /// When a ring for a scan was last taken.
    scanned_at: Option<Instant>,
}

impl State {
    /// When the pipeline is to wake by what was rung so far, if it is.
    fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.rings.any {
            return Some(now);
        }
        self.rings.scan.then(|| self.scanned_at.map_or(now, |at| at + SCAN_RING_INTERVAL))
    }
}

impl Doorbell {
    /// An answer of the destination waits.
    pub fn ring(&self) {
        self.set(|rings| rings.any = true);
    }

    /// A log directory changed.
    pub fn ring_scan(&self) {
        self.set(|rings| rings.scan = true);
    }

    /// The agent is asked to stop. Stays rung.
    pub fn ring_stop(&self) {
        self.set(|rings| (rings.any, rings.stop) = (true, true));
    }

    /// The settings are to be read again.
    pub fn ring_reload(&self) {
        self.set(|rings| (rings.any, rings.reload) = (true, true));
    }

    /// Waits for a ring, at most `timeout`, and takes what was rung; `stop` remains for the next waits.
    pub fn wait(&self, timeout: Duration) -> Rings {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let until = state.wakes_at(now).map_or(deadline, |at| at.min(deadline));
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            (state, _) = self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = state.rings;
        state.rings = Rings { stop: taken.stop, ..Rings::default() };
        if taken.scan {
            state.scanned_at = Some(Instant::now());
        }
        taken
    }

    fn set(&self, change: impl FnOnce(&mut Rings)) {
        let mut state = self.lock();
        let before = state.rings;
        change(&mut state.rings);
        if state.rings != before {
            self.rung.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_missed_and_stop_stays() {
        let bell = Doorbell::default();
        bell.ring_scan();
        bell.ring_stop();
        let first = bell.wait(Duration::from_secs(60));
        assert!(first.scan && first.stop && first.any);
        let second = bell.wait(Duration::ZERO);
        assert!(second.stop && !second.scan && !second.any);
    }

    #[test]
    fn a_storm_of_directory_events_wakes_now_and_then() {
        let bell = Doorbell::default();
        let begun = Instant::now();
        for wakings in 1..=4 {
            for _ in 0..1_000 {
                bell.ring_scan();
            }
            assert!(bell.wait(Duration::from_secs(60)).scan);
            assert!(begun.elapsed() >= SCAN_RING_INTERVAL * (wakings - 1), "{wakings} wakings");
        }
    }
}
