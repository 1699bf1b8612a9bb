//! Wakes the pipeline: a directory changed, an answer came, a signal asks to stop or to reload.
//!
//! Rings are remembered, never queued: a hundred rings before the next tick are one.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A directory in which files come and go all the time wakes the pipeline this often at most; what changed in
/// between is seen at its next wait's end.
const SCAN_RING_INTERVAL: Duration = Duration::from_millis(100);

/// Why the pipeline woke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Something that wakes: an answer of the destination, or nothing in particular.
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
    rings: Mutex<Rings>,
    rung: Condvar,
    scan_rung_at: Mutex<Option<Instant>>,
}

impl Doorbell {
    /// An answer of the destination waits.
    pub fn ring(&self) {
        self.set(|rings| rings.any = true);
    }

    /// A log directory changed.
    pub fn ring_scan(&self) {
        let wakes = {
            let mut rung_at = self.scan_rung_at.lock().unwrap_or_else(PoisonError::into_inner);
            let wakes = rung_at.is_none_or(|at| at.elapsed() >= SCAN_RING_INTERVAL);
            if wakes {
                *rung_at = Some(Instant::now());
            }
            wakes
        };
        self.set(|rings| {
            rings.scan = true;
            rings.any |= wakes;
        });
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
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rings, _) = self
            .rung
            .wait_timeout_while(rings, timeout, |rings| !rings.any)
            .unwrap_or_else(PoisonError::into_inner);
        let taken = *rings;
        *rings = Rings { stop: taken.stop, any: false, ..Rings::default() };
        taken
    }

    fn set(&self, change: impl FnOnce(&mut Rings)) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rings);
        if rings.any {
            self.rung.notify_one();
        }
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
    fn a_storm_of_directory_events_wakes_once_and_is_not_forgotten() {
        let bell = Doorbell::default();
        bell.ring_scan();
        assert!(bell.wait(Duration::from_secs(60)).any);
        for _ in 0..1_000 {
            bell.ring_scan();
        }
        let storm = bell.wait(Duration::ZERO);
        assert!(storm.scan && !storm.any, "{storm:?}");
    }
}
