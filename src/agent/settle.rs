//! What the destination said about a batch, made durable; and the next batch, offered.

use super::events::{Event, Severity};
use super::pipeline::Pipeline;
use crate::batch::{Batch, split};
use crate::clock::Now;
use crate::mutant::{Mutant, is_on};
use crate::record::LossReason;
use crate::ship::{Outgoing, Verdict};
use crate::spool::{NewBatch, PendingBatch, SettleError};

/// What Sumo's own sender uses for logs; any type but the metric ones means logs.
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

impl Pipeline {
    /// Takes the verdict on the batch under way, if there is one.
    pub(super) fn settle(&mut self, now: Now) {
        let Some((seq, verdict)) = self.mailbox.take_verdict() else { return };
        let settled = match verdict {
            Verdict::Accepted { warning } => {
                let settled = self.spool.ack(seq, now);
                self.note_warning(now, warning);
                settled
            }
            Verdict::Refused { status, message } => {
                self.give_up(now, seq, LossReason::Refused, &format!("HTTP {status}: {message}"))
            }
            Verdict::TooLarge { status } => self.split(now, seq, status),
        };
        if let Err(error) = settled {
            // Settled in memory at least; after a crash the same bytes go out under the same key.
            tracing::warn!(seq, "the answer to a batch is not on disk: {error}");
        }
    }

    /// Offers the oldest durable batch, when the mailbox is free.
    pub(super) fn offer(&mut self) {
        if !self.ships() || !self.mailbox.is_free() {
            return;
        }
        let Some(batch) = self.spool.oldest() else { return };
        let mut outgoing = outgoing(batch);
        if is_on(Mutant::ChangesKey) {
            outgoing.key += &format!("/{}", self.spool.epoch());
        }
        let offered = self.mailbox.offer(outgoing);
        debug_assert!(offered.is_ok(), "only this thread offers");
    }

    /// A warning is said once, until the destination says another.
    fn note_warning(&mut self, now: Now, warning: Option<String>) {
        let Some(warning) = warning else { return };
        if self.last_warning.as_ref() == Some(&warning) {
            return;
        }
        let message = format!("the destination took a batch and complains: {warning}");
        self.event(now, Event::new("watchpost.delivery.warning", Severity::Warn, message));
        self.last_warning = Some(warning);
    }

    fn give_up(&mut self, now: Now, seq: u64, reason: LossReason, why: &str) -> Result<(), SettleError> {
        let lines = self.spool.oldest().map_or(0, |batch| batch.lines);
        let settled = self.spool.lose(seq, reason, now);
        let message = format!("a batch of {lines} lines was given up and lies in quarantine: {why}");
        let event = Event::new("watchpost.loss", Severity::Error, message)
            .with("reason", reason.name())
            .with("lines", lines)
            .with("seq", seq);
        self.event(now, event);
        settled
    }

    /// Halves a batch that is too large for the destination, until a record alone is.
    pub(super) fn split(&mut self, now: Now, seq: u64, status: u16) -> Result<(), SettleError> {
        let Some(parent) = self.spool.oldest().filter(|batch| batch.id.seq == seq) else {
            return Err(SettleError::NotOldest { seq });
        };
        let whole = Batch {
            body: parent.body.clone(),
            raw_bytes: parent.raw_bytes,
            records: parent.records,
            lines: parent.lines,
        };
        let Some(halves) = split(&whole).filter(|_| !is_on(Mutant::DropsTooLarge)) else {
            let why = format!("HTTP {status}, and one record cannot be split");
            return self.give_up(now, seq, LossReason::TooLarge, &why);
        };
        let parts = halves.map(|half| NewBatch {
            stream: parent.stream,
            labels: parent.labels.clone(),
            created_ms: parent.created_ms,
            lines: half.lines,
            records: half.records,
            raw_bytes: half.raw_bytes,
            body: half.body,
        });
        tracing::warn!(seq, status, "a batch is too large for the destination; it goes out in halves");
        match self.spool.split(seq, parts.into(), now) {
            // Nothing else is delivered before it, so room will never come: it would be sent again for ever.
            Err(SettleError::Full) => {
                let why = format!("HTTP {status}, and a full spool has no room for its halves");
                self.give_up(now, seq, LossReason::TooLarge, &why)
            }
            settled => settled.map(|_| ()),
        }
    }

    /// What delivery looks like now, for the status.
    pub(super) fn delivery_value(&self) -> serde_json::Value {
        let delivery = self.mailbox.delivery(self.now.monotonic);
        serde_json::to_value(delivery).expect("numbers and texts are always JSON")
    }
}

fn outgoing(batch: PendingBatch) -> Outgoing {
    Outgoing {
        key: batch.id.to_string(),
        seq: batch.id.seq,
        content_type: CONTENT_TYPE,
        category: batch.labels.category,
        name: batch.labels.name,
        host: batch.labels.host,
        fields: batch.labels.fields,
        body: batch.body,
        raw_bytes: u64::from(batch.raw_bytes),
        lines: batch.lines,
    }
}
