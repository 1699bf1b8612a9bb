//! Asks mounts how full they are, each on a thread of its own, and keeps the latest answer.
//!
//! statvfs(3) on a dead network mount blocks in the kernel, where no signal ends it. So a mount is
//! asked only while no question to it is open: one that hangs costs one blocked thread, however long.
//! The mailbox must never wait for a mount that was late the last time.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Now;

/// A healthy filesystem answers in microseconds; this is how long [`Mailbox::ask`] waits for
/// answers, so that values are of this sample and not of the one before.
pub(super) const ANSWER_WAIT: Duration = Duration::from_millis(10);
/// A mount that has not answered for this long hangs.
const HUNG_AFTER: Duration = Duration::from_secs(5);
/// Threads that may wait for mounts at once. Beyond it mounts are not asked and nothing is told of them.
pub(super) const THREADS_MAX: usize = 32;
/// statvfs needs no more, and a blocked thread should cost little.
const STACK_BYTES: usize = 64 << 10;

/// What statvfs tells of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) size_bytes: u64,
    /// Free for root.
    pub(super) free_bytes: u64,
    /// Free for ordinary users.
    pub(super) available_bytes: u64,
    /// Zero where the filesystem makes inodes as needed.
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

/// What is known of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its latest answer.
    Known(Space),
    /// It answered with an error.
    Failed,
    /// It has not answered since it was asked, and that is long ago.
    Hung,
    /// It has not answered yet.
    Pending,
}

/// How a mount is asked; statvfs, or a test's stand-in.
pub(super) type Ask = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// The latest answer of each mount.
pub(super) struct Mailbox {
    ask: Ask,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    slots: Mutex<HashMap<PathBuf, Slot>>,
    answered: Condvar,
}

#[derive(Default)]
struct Slot {
    /// When the open question was put; `None` when it is answered.
    open_since: Option<Instant>,
    /// The mount did not answer within [`ANSWER_WAIT`] when it was last waited for.
    was_late: bool,
    latest: Option<Answer>,
}

impl Shared {
    /// The slots are whole after every statement that changes them, so a panic elsewhere in the
    /// holder's thread leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// A mailbox without answers.
    pub(super) fn new(ask: Ask) -> Mailbox {
        Mailbox { ask, shared: Arc::default() }
    }

    /// Asks every mount to which no question is open, and waits at most [`ANSWER_WAIT`] for those
    /// that were in time before. Mounts that are not among `points` any more are forgotten.
    pub(super) fn ask(&mut self, points: &[&Path], now: Instant) {
        let mut slots = self.shared.lock();
        // An open question is kept even of a mount that is gone: the thread is still there.
        slots.retain(|point, slot| slot.open_since.is_some() || points.contains(&point.as_path()));
        let mut open = slots.values().filter(|slot| slot.open_since.is_some()).count();
        let mut waited_for = Vec::new();
        for point in points {
            let slot = slots.entry(point.to_path_buf()).or_default();
            if slot.open_since.is_some() {
                continue;
            }
            if open >= THREADS_MAX {
                slot.latest = None;
                continue;
            }
            if !self.spawn(point.to_path_buf()) {
                slot.latest = Some(Answer::Failed);
                continue;
            }
            slot.open_since = Some(now);
            open += 1;
            if !slot.was_late {
                waited_for.push(point.to_path_buf());
            }
        }
        let is_open = |slots: &HashMap<PathBuf, Slot>, point: &PathBuf| {
            slots.get(point).is_some_and(|s| s.open_since.is_some())
        };
        let (mut slots, _) = self
            .shared
            .answered
            .wait_timeout_while(slots, ANSWER_WAIT, |slots| {
                waited_for.iter().any(|point| is_open(slots, point))
            })
            .unwrap_or_else(PoisonError::into_inner);
        for point in waited_for {
            if let Some(slot) = slots.get_mut(&point) {
                slot.was_late = slot.open_since.is_some();
            }
        }
    }

    /// Puts one question on a thread; false if the system has no thread to give.
    fn spawn(&self, point: PathBuf) -> bool {
        let (ask, shared) = (Arc::clone(&self.ask), Arc::clone(&self.shared));
        let question = move || {
            let began = Now::read();
            let answer = ask(&point).map_or(Answer::Failed, Answer::Known);
            let mut slots = shared.lock();
            if let Some(slot) = slots.get_mut(&point) {
                slot.open_since = None;
                slot.latest = Some(answer);
                // One that answers in time again is waited for again.
                slot.was_late = Now::read().since(began.monotonic) > ANSWER_WAIT;
            }
            drop(slots);
            shared.answered.notify_all();
        };
        let thread = std::thread::Builder::new().name("statvfs".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(question).is_ok()
    }

    /// What is known of a mount. The last answer of one that hangs is withheld: a disk may have filled
    /// since, and an old number that looks new is worse than none.
    pub(super) fn answer(&self, point: &Path, now: Instant) -> Answer {
        let slots = self.shared.lock();
        let Some(slot) = slots.get(point) else { return Answer::Pending };
        match slot.open_since {
            Some(since) if now.saturating_duration_since(since) >= HUNG_AFTER => Answer::Hung,
            _ => slot.latest.unwrap_or(Answer::Pending),
        }
    }

    /// Questions that are open, each with a thread that waits for its answer.
    #[cfg(test)]
    pub(super) fn outstanding(&self) -> usize {
        self.shared.lock().values().filter(|slot| slot.open_since.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SPACE: Space =
        Space { size_bytes: 9, free_bytes: 8, available_bytes: 7, inodes: 6, inodes_free: 5 };

    fn settled(mailbox: &Mailbox) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while mailbox.outstanding() > 0 {
            assert!(Instant::now() < deadline, "a question stays open");
            std::thread::yield_now();
        }
    }

    #[test]
    fn keeps_the_latest_answer_and_forgets_mounts_that_are_gone() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut mailbox = Mailbox::new(Arc::new(move |point: &Path| {
            count.fetch_add(1, Ordering::Relaxed);
            if point == Path::new("/bad") { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(SPACE) }
        }));
        let (good, bad, now) = (Path::new("/good"), Path::new("/bad"), Instant::now());
        mailbox.ask(&[good, bad], now);
        settled(&mailbox);
        assert_eq!(mailbox.answer(good, now), Answer::Known(SPACE));
        assert_eq!(mailbox.answer(bad, now), Answer::Failed);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        mailbox.ask(&[good], now);
        settled(&mailbox);
        assert_eq!(mailbox.answer(bad, now), Answer::Pending);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn threads_that_wait_are_bounded() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().expect("the gate");
        let held = Arc::clone(&gate);
        let mut mailbox = Mailbox::new(Arc::new(move |_: &Path| {
            drop(held.lock());
            Ok(SPACE)
        }));
        let points: Vec<PathBuf> = (0..THREADS_MAX + 20).map(|n| PathBuf::from(format!("/{n}"))).collect();
        let points: Vec<&Path> = points.iter().map(PathBuf::as_path).collect();
        for _ in 0..3 {
            mailbox.ask(&points, Instant::now());
            assert_eq!(mailbox.outstanding(), THREADS_MAX);
            assert_eq!(mailbox.answer(points[THREADS_MAX], Instant::now()), Answer::Pending);
        }
        drop(closed);
        settled(&mailbox);
    }
}
