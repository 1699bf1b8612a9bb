//! The board: where the pipeline posts its latest snapshot and the status port reads it.
//!
//! One value, replaced whole: a reader never sees half a tick and never waits for one. Must never queue or keep history.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::health::{self, Ages};
use super::snapshot::Snapshot;

/// The latest snapshot and since when.
#[derive(Debug, Default)]
pub struct Board {
    posted: Mutex<Option<Posted>>,
}

#[derive(Debug)]
struct Posted {
    snapshot: Arc<Snapshot>,
    at: Instant,
    /// Since when each snapshot has shown a delivery that fails; a single good one clears it.
    delivery_bad_since: Option<Instant>,
}

/// What a reader gets: one snapshot with the ages that only the board knows.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ages: Ages,
}

impl Board {
    /// An empty board: `/status` and `/readyz` answer 503 until the first [`Board::publish`].
    pub fn new() -> Board {
        Board::default()
    }

    /// Posts the snapshot of a tick that is through.
    pub fn publish(&self, snapshot: Snapshot) {
        self.publish_at(snapshot, Instant::now());
    }

    /// The latest snapshot; `None` before the first.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.lock().as_ref().map(|posted| Arc::clone(&posted.snapshot))
    }

    /// Whether the first tick is through.
    pub fn ready(&self) -> bool {
        self.lock().is_some()
    }

    pub(super) fn publish_at(&self, snapshot: Snapshot, now: Instant) {
        let bad = health::delivery_is_bad(&snapshot.delivery);
        let snapshot = Arc::new(snapshot);
        let mut posted = self.lock();
        let bad_before = posted.as_ref().and_then(|before| before.delivery_bad_since);
        let delivery_bad_since = bad.then(|| bad_before.unwrap_or(now));
        *posted = Some(Posted { snapshot, at: now, delivery_bad_since });
    }

    pub(super) fn view_at(&self, now: Instant) -> Option<View> {
        let posted = self.lock();
        let posted = posted.as_ref()?;
        let since = |earlier: Instant| now.saturating_duration_since(earlier);
        let ages = Ages {
            snapshot: since(posted.at),
            delivery_bad: posted.delivery_bad_since.map_or(Duration::ZERO, since),
        };
        Some(View { snapshot: Arc::clone(&posted.snapshot), ages })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Posted>> {
        // The value is replaced whole, so a panic elsewhere cannot have left half of one behind.
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_with_the_first_snapshot() {
        let board = Board::new();
        assert!(!board.ready() && board.latest().is_none());
        board.publish(Snapshot::default());
        assert!(board.ready() && board.latest().is_some());
    }

    #[test]
    fn a_bad_delivery_ages_until_a_good_one() {
        let (board, start) = (Board::new(), Instant::now());
        let post = |state: &str, at_s: u64| {
            let snapshot = Snapshot { delivery: json!({ "state": state }), ..Snapshot::default() };
            board.publish_at(snapshot, start + Duration::from_secs(at_s));
            board.view_at(start + Duration::from_secs(at_s + 1)).expect("posted").ages
        };
        assert_eq!(post("idle", 0).delivery_bad, Duration::ZERO);
        assert_eq!(post("retrying", 10).delivery_bad, Duration::from_secs(1));
        assert_eq!(post("held", 50).delivery_bad, Duration::from_secs(41));
        assert_eq!(post("idle", 60).delivery_bad, Duration::ZERO);
        assert_eq!(post("retrying", 70).delivery_bad, Duration::from_secs(1));
        assert_eq!(post("retrying", 71).snapshot, Duration::from_secs(1));
    }
}
