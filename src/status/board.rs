//! The board: where the pipeline posts its latest snapshot and the status port reads it.
//!
//! One value, replaced whole: a reader never sees half a tick, and waits for none longer than [`ASK_PATIENCE`]. A snapshot of
//! thousands of files is dear, so it is made when somebody asks; in between a tick only says that it is through. Must never
//! queue or keep history.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::health::{self, Ages};
use super::snapshot::Snapshot;

/// A snapshot as young as this answers without asking for another, so that readers cannot keep the pipeline busy.
const YOUNG_MAX: Duration = Duration::from_millis(100);
/// How long a reader waits for the snapshot that it asked for, before it takes the last one: the pipeline may be waiting for a
/// disk, and its last word with its age is better than none.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

/// The latest snapshot and since when.
#[derive(Default)]
pub struct Board {
    posted: Mutex<Option<Posted>>,
    /// Rings for the pipeline; without it every tick posts a snapshot.
    ring: Option<Box<dyn Fn() + Send + Sync>>,
    asked: AtomicBool,
    posting: Notify,
}

#[derive(Debug)]
struct Posted {
    snapshot: Arc<Snapshot>,
    /// When it was posted.
    at: Instant,
    /// When a tick was last through.
    ticked_at: Instant,
    /// Since when each tick has shown a delivery that fails; a single good one clears it.
    delivery_bad_since: Option<Instant>,
}

impl Posted {
    fn ticked(&mut self, now: Instant, delivery_is_bad: bool) {
        self.ticked_at = now;
        self.delivery_bad_since = delivery_is_bad.then(|| self.delivery_bad_since.unwrap_or(now));
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// What a reader gets: one snapshot with the ages that only the board knows.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ages: Ages,
}

impl Board {
    /// An empty board, on which every tick posts a snapshot: `/status` and `/readyz` answer 503 until the first.
    pub fn new() -> Board {
        Board::default()
    }

    /// An empty board whose readers ask: `ring` makes the pipeline tick and post.
    pub fn asking(ring: impl Fn() + Send + Sync + 'static) -> Board {
        Board { ring: Some(Box::new(ring)), ..Board::default() }
    }

    /// Whether the tick that is nearly through shall post a snapshot.
    pub fn is_asked(&self) -> bool {
        self.ring.is_none() || self.asked.load(Ordering::Acquire) || !self.ready()
    }

    /// Posts the snapshot of a tick that is through.
    pub fn publish(&self, snapshot: Snapshot) {
        self.publish_at(snapshot, Instant::now());
    }

    /// Says that a tick is through of which nobody asked for a snapshot.
    pub fn tick_is_through(&self, delivery_is_bad: bool) {
        self.lock().iter_mut().for_each(|posted| posted.ticked(Instant::now(), delivery_is_bad));
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
        let delivery_is_bad = health::delivery_is_bad(&snapshot.delivery);
        let mut posted = self.lock();
        let delivery_bad_since = posted.as_ref().and_then(|before| before.delivery_bad_since);
        let mut next = Posted { snapshot: Arc::new(snapshot), at: now, ticked_at: now, delivery_bad_since };
        next.ticked(now, delivery_is_bad);
        *posted = Some(next);
        drop(posted);
        self.asked.store(false, Ordering::Release);
        self.posting.notify_waiters();
    }

    /// The view of this moment: asks for a snapshot unless there is a young one.
    pub(super) async fn view(&self) -> Option<View> {
        if let Some(ring) = &self.ring
            && !self.is_young()
        {
            let posting = self.posting.notified();
            tokio::pin!(posting);
            // Listens from here on, so that a snapshot posted before the wait is not missed.
            posting.as_mut().enable();
            self.asked.store(true, Ordering::Release);
            ring();
            let _ = timeout(ASK_PATIENCE, posting).await;
        }
        self.view_at(Instant::now())
    }

    /// Also before the first snapshot, which comes by itself.
    fn is_young(&self) -> bool {
        self.lock().as_ref().is_none_or(|posted| posted.at.elapsed() < YOUNG_MAX)
    }

    pub(super) fn view_at(&self, now: Instant) -> Option<View> {
        let posted = self.lock();
        let posted = posted.as_ref()?;
        let since = |earlier: Instant| now.saturating_duration_since(earlier);
        let ages = Ages {
            snapshot: since(posted.at),
            tick: since(posted.ticked_at),
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
    use std::sync::atomic::AtomicUsize;

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
        assert_eq!(post("retrying", 71).tick, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_reader_gets_what_it_asked_for_and_the_last_word_of_a_pipeline_that_hangs() {
        let rings = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&rings);
        let board = Arc::new(Board::asking(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(board.is_asked(), "the first comes by itself");
        let old = Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine runs for a minute");
        board.publish_at(Snapshot::default(), old);
        assert!(!board.is_asked());
        board.tick_is_through(true);
        let hanging = board.view().await.expect("the last one");
        assert!(board.is_asked() && hanging.ages.tick < Duration::from_secs(30), "{:?}", hanging.ages);
        let reader = tokio::spawn({
            let board = Arc::clone(&board);
            async move { board.view().await.expect("a snapshot").snapshot.agent.pid }
        });
        while rings.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let mut next = Snapshot::default();
        next.agent.pid = 7;
        board.publish(next);
        assert_eq!(reader.await.expect("it ends"), 7);
        assert!(!board.is_asked());
        board.view().await.expect("a young one");
        assert_eq!(rings.load(Ordering::Relaxed), 2, "which nobody had to ask for");
    }
}
