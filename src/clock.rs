//! Time as an argument: stages never ask what time it is, they are told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::EpochMs;

/// One moment, read once for a whole tick so that everything in it agrees.
///
/// `wall` is information (it may step); every timer and age uses `monotonic`.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds since the Unix epoch, by the wall clock.
    pub wall: EpochMs,
    /// A clock that never steps back.
    pub monotonic: Instant,
}

impl Now {
    /// Reads both clocks. Only `agent.rs`, `main.rs` and the edges call this.
    pub fn read() -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = EpochMs::try_from(since_epoch.as_millis()).unwrap_or(EpochMs::MAX);
        Now { wall, monotonic: Instant::now() }
    }

    /// Time since an earlier moment; zero if `earlier` is later.
    pub fn since(&self, earlier: Instant) -> Duration {
        self.monotonic.saturating_duration_since(earlier)
    }
}
