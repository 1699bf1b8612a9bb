//! The one place where the pipeline's thread and the sender's task meet: one slot that goes back and forth.
//!
//! It holds at most one batch. It must never queue: the spool on disk is the queue. And it must never let
//! a second batch out before the verdict on the first was taken, since the acknowledgement of the first has to be on
//! disk before the second is sent; that is what bounds duplicates after a crash to one batch.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::delivery::{Delivery, DeliveryStatus};

/// One batch as it goes over the wire, the same at every attempt.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// `Idempotency-Key`: `AGENT/EPOCH/SEQ`.
    pub key: String,
    /// Sequence number of the batch in the spool; names the batch in the verdict.
    pub seq: u64,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `X-Sumo-Category`; an empty text leaves the header out, here and below.
    pub category: String,
    /// `X-Sumo-Name`.
    pub name: String,
    /// `X-Sumo-Host`.
    pub host: String,
    /// `X-Sumo-Fields`: `key=value,key=value`.
    pub fields: String,
    /// The gzip bytes.
    pub body: Vec<u8>,
    /// Bytes before compression. Information only.
    pub raw_bytes: u64,
    /// Log lines in the batch. Information only.
    pub lines: u64,
}

impl fmt::Debug for Outgoing {
    /// Everything but the content: log lines are not for the agent's own log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outgoing")
            .field("key", &self.key)
            .field("category", &self.category)
            .field("body_bytes", &self.body.len())
            .field("raw_bytes", &self.raw_bytes)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// What became of a batch, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has it.
    Accepted {
        /// What it complained about all the same.
        warning: Option<String>,
    },
    /// 400, three times: these bytes will never be taken.
    Refused {
        /// The status code.
        status: u16,
        /// What the destination said, redacted and short.
        message: String,
    },
    /// 413: split it and offer the parts.
    TooLarge {
        /// The status code.
        status: u16,
    },
}

/// Where the one batch is.
enum Slot {
    Empty,
    Offered(Outgoing),
    InFlight,
    Judged(u64, Verdict),
}

/// Shared between the pipeline's thread and the sender's task.
pub struct Mailbox {
    slot: Mutex<Slot>,
    offered: Notify,
    delivery: Mutex<Delivery>,
    on_verdict: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Mailbox {
    /// An empty mailbox. `on_verdict` is called, with no lock held, whenever [`Mailbox::take_verdict`] has
    /// something new or [`Mailbox::is_free`] turned true; it rings the pipeline's condition variable.
    pub fn new(on_verdict: Box<dyn Fn() + Send + Sync>) -> Mailbox {
        Mailbox {
            slot: Mutex::new(Slot::Empty),
            offered: Notify::new(),
            delivery: Mutex::new(Delivery::default()),
            on_verdict,
        }
    }

    /// Whether a batch may be offered: none is waiting, under way, or judged and not yet taken.
    pub fn is_free(&self) -> bool {
        matches!(*self.slot(), Slot::Empty)
    }

    /// Hands a batch to the sender.
    ///
    /// # Errors
    /// Gives the batch back when the mailbox is not free.
    #[expect(
        clippy::result_large_err,
        reason = "a batch is moved once, not per line; a box would be one more"
    )]
    pub fn offer(&self, outgoing: Outgoing) -> Result<(), Outgoing> {
        let mut slot = self.slot();
        if !matches!(*slot, Slot::Empty) {
            return Err(outgoing);
        }
        *slot = Slot::Offered(outgoing);
        drop(slot);
        self.offered.notify_one();
        Ok(())
    }

    /// Takes the verdict on the last batch, by its sequence number, and frees the mailbox.
    pub fn take_verdict(&self) -> Option<(u64, Verdict)> {
        let mut slot = self.slot();
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Judged(seq, verdict) => Some((seq, verdict)),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// The `delivery` object of `/status`, with ages as of `now`.
    pub fn delivery(&self, now: Instant) -> DeliveryStatus {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).at(now)
    }

    /// The next batch, once there is one. Cancel safe: a batch is taken only when it is returned.
    pub(super) async fn next(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.begin() {
                return outgoing;
            }
            self.offered.notified().await;
        }
    }

    /// Takes the batch that was offered, if there is one.
    pub(crate) fn begin(&self) -> Option<Outgoing> {
        let mut slot = self.slot();
        match std::mem::replace(&mut *slot, Slot::InFlight) {
            Slot::Offered(outgoing) => Some(outgoing),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Leaves the verdict on the batch under way.
    pub(crate) fn judge(&self, seq: u64, verdict: Verdict) {
        *self.slot() = Slot::Judged(seq, verdict);
        (self.on_verdict)();
    }

    /// Gives up the batch under way with no verdict: it counts as never acknowledged.
    pub(super) fn abandon(&self) {
        *self.slot() = Slot::Empty;
        (self.on_verdict)();
    }

    /// Changes what [`Mailbox::delivery`] tells.
    pub(super) fn record(&self, change: impl FnOnce(&mut Delivery)) {
        change(&mut self.delivery.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::tests::outgoing;
    use super::*;

    #[test]
    fn one_batch_at_a_time_until_its_verdict_is_taken() {
        let rings = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&rings);
        let mailbox = Mailbox::new(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(mailbox.is_free() && mailbox.take_verdict().is_none());
        mailbox.offer(outgoing(1)).expect("it was empty");
        assert_eq!(mailbox.offer(outgoing(2)).expect_err("one is waiting").seq, 2);
        assert_eq!(mailbox.begin().map(|taken| taken.seq), Some(1));
        assert_eq!(mailbox.offer(outgoing(2)).expect_err("one is under way").seq, 2);
        assert!(mailbox.take_verdict().is_none() && mailbox.begin().is_none());
        mailbox.judge(1, Verdict::TooLarge { status: 413 });
        assert_eq!(mailbox.offer(outgoing(2)).expect_err("a verdict waits").seq, 2);
        assert_eq!(mailbox.take_verdict(), Some((1, Verdict::TooLarge { status: 413 })));
        mailbox.offer(outgoing(2)).expect("it is free again");
        assert!(mailbox.begin().is_some());
        mailbox.abandon();
        assert!(mailbox.is_free());
        assert_eq!(rings.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn debug_shows_no_content() {
        let mut batch = outgoing(1);
        batch.body = b"secret line".to_vec();
        let text = format!("{batch:?}");
        assert!(text.contains("body_bytes: 11") && !text.contains("secret") && !text.contains("115, 101"));
    }
}
