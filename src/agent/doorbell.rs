//! Wakes the pipeline: a directory changed, an answer came, a signal asks to stop or to reload.
//!
//! Rings are remembered, never queued: a hundred rings before the next tick are one.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why the pipeline woke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Something to look at: an answer of the destination, or nothing in particular.
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
}

impl Doorbell {
    /// An answer of the destination waits.
    pub fn ring(&self) {
        self.set(|_| {});
    }

    /// A log directory changed.
    pub fn ring_scan(&self) {
        self.set(|rings| rings.scan = true);
    }

    /// The agent is asked to stop. Stays rung.
    pub fn ring_stop(&self) {
        self.set(|rings| rings.stop = true);
    }

    /// The settings are to be read again.
    pub fn ring_reload(&self) {
        self.set(|rings| rings.reload = true);
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
        rings.any = true;
        self.rung.notify_one();
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
}
