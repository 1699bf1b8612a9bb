//! Simulated time: a monotonic clock that the run moves, and a wall clock that may jump.

use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::record::EpochMs;

/// A whole second, so that traces are easy to read.
const START_MS: EpochMs = 1_764_000_000_000;

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    begun: Instant,
    passed: Duration,
    jumped_ms: i64,
}

impl Clock {
    /// Clocks at the beginning of a run. Only differences of the monotonic one are ever used.
    pub(super) fn new() -> Clock {
        Clock { begun: Instant::now(), passed: Duration::ZERO, jumped_ms: 0 }
    }

    /// Time goes on.
    pub(super) fn pass(&mut self, time: Duration) {
        self.passed += time;
    }

    /// Somebody sets the wall clock.
    pub(super) fn jump(&mut self, milliseconds: i64) {
        self.jumped_ms += milliseconds;
    }

    /// Since the beginning of the run.
    pub(super) fn passed(&self) -> Duration {
        self.passed
    }

    /// By the wall clock.
    pub(super) fn wall_ms(&self) -> EpochMs {
        START_MS + self.passed.as_millis() as i64 + self.jumped_ms
    }

    /// The moment for a tick.
    pub(super) fn now(&self) -> Now {
        Now { wall: self.wall_ms(), monotonic: self.begun + self.passed }
    }
}
