//! From records to the spool: the open batch of each stream, and what goes into the log together.
//!
//! Invariant: the durable state never runs ahead of the lines. Positions, counts and open summaries are written
//! in the record of a batch only when every line read so far is in that batch or in an earlier one.

use std::time::{Duration, Instant};

use super::events::Event;
use super::pipeline::Pipeline;
use crate::batch::{Added, Batch, Builder};
use crate::clock::Now;
use crate::mutant::{Mutant, is_on};
use crate::record::{Loss, LossReason, Stream};
use crate::sources::to_json;
use crate::spool::{NewBatch, Refused, Returned, StateChange};

/// Compressed bytes of host samples and events that wait in memory for a spool that takes nothing: hours of them.
pub(super) const SAMPLES_BYTES_MAX: usize = 2 << 20;

/// Keys in the durable state of summaries that are closed but not yet in a batch.
pub(super) const WAITING_PREFIX: &[u8] = b"a/summaries/";

/// The batch of a stream under construction, and since when.
pub(super) struct Open {
    pub(super) builder: Builder,
    pub(super) since: Option<Instant>,
}

impl Open {
    pub(super) fn new(bytes_max: u32) -> Open {
        Open { builder: Builder::new(bytes_max), since: None }
    }

    fn add(&mut self, now: Now, record: &[u8]) -> Added {
        let added = self.builder.add(0, |out| out.extend_from_slice(record));
        if added == Added::Yes {
            self.since.get_or_insert(now.monotonic);
        }
        added
    }

    /// When its first record will have waited for `interval`; `None` where there is no record.
    fn due(&self, interval: Duration) -> Option<Instant> {
        self.since.filter(|_| !self.builder.is_empty()).map(|since| since + interval)
    }

    fn is_due(&self, now: Now, interval: Duration) -> bool {
        self.due(interval).is_some_and(|due| due <= now.monotonic)
    }
}

impl Pipeline {
    pub(super) fn sample_host(&mut self, now: Now) {
        if now.monotonic < self.host_due {
            return;
        }
        self.host_due = now.monotonic + self.config.host_interval;
        self.sample = self.host.sample(now);
        self.told = None;
        if !self.ships() {
            return;
        }
        let mut records = Vec::new();
        if !self.sample.readings.is_empty() {
            let head = format!("{{\"timestamp\":{},\"record\":\"host.metrics\"", self.sample.at);
            records.push((head, to_json(&self.sample.readings)));
        }
        records.extend(self.insight.take_records(self.batch_max_bytes as usize));
        for (head, metrics) in records {
            for part in host_records(&head, &metrics, self.batch_max_bytes as usize) {
                self.add_record(Stream::HostMetrics, now, &part);
            }
        }
    }

    /// Queues an event and says it in the agent's own log.
    pub(super) fn event(&mut self, now: Now, event: Event) {
        event.log();
        if self.ships() {
            let mut record = Vec::new();
            event.write(&mut record, now.wall);
            self.add_record(Stream::Events, now, &record);
        }
    }

    /// Adds a record to the batch of samples or of events.
    fn add_record(&mut self, stream: Stream, now: Now, record: &[u8]) {
        let mut added = self.open(stream).add(now, record);
        if added == Added::Full {
            self.close_records(stream);
            added = self.open(stream).add(now, record);
        }
        if added != Added::Yes {
            self.account.lose(LossReason::TooLarge, Loss { lines: 0, bytes: record.len() as u64 });
        }
    }

    /// The open batch of a stream that carries neither lines nor summaries.
    fn open(&mut self, stream: Stream) -> &mut Open {
        match stream {
            Stream::Events => &mut self.events,
            _ => &mut self.host_records,
        }
    }

    /// Takes the summaries that are due. Those that do not fit one batch wait in the durable state, so that
    /// a crash between two batches neither loses nor repeats one.
    pub(super) fn close_summaries(&mut self, all: bool) {
        if !self.refused.is_empty() || !self.waiting.is_empty() {
            self.append_waiting();
            return;
        }
        if self.windows.summaries_are_due(all) && !is_on(Mutant::ClosesSummariesEarly) {
            // First the lines: their record has these intervals as open, the record of the summaries has them
            // as closed. Were they closed by the lines, a crash between the two would lose the summaries.
            self.close_lines();
            if self.is_blocked() {
                return;
            }
        }
        let summaries = self.windows.close_summaries(all);
        if is_on(Mutant::ClosesSummariesEarly) {
            self.close_lines();
        }
        if summaries.is_empty() || !self.ships() {
            return;
        }
        let mut builder = Builder::new(self.batch_max_bytes);
        let mut text = Vec::new();
        let mut texts = Vec::new();
        for summary in &summaries {
            let record = summary.to_json();
            if text.len() + record.len() + 1 > self.batch_max_bytes as usize {
                texts.push(std::mem::take(&mut text));
            }
            text.extend_from_slice(record.as_bytes());
            text.push(b'\n');
        }
        texts.push(text);
        let mut texts = texts.into_iter();
        let first = texts.next().unwrap_or_default();
        for text in texts {
            self.waiting_number += 1;
            let key = [WAITING_PREFIX, &self.waiting_number.to_be_bytes()].concat();
            self.changes.insert(key.clone(), Some(text.clone()));
            self.waiting.push_back((key, text));
        }
        add_all(&mut builder, &first);
        self.append(Stream::WebSummary, builder.close(), true);
        self.append_waiting();
    }

    pub(super) fn append_waiting(&mut self) {
        while self.refused.is_empty()
            && let Some((key, text)) = self.waiting.pop_front()
        {
            // It may have been made for a limit that was larger before a restart.
            let mut builder = Builder::new(u32::MAX);
            add_all(&mut builder, &text);
            let batch = self.new_batch(Stream::WebSummary, builder.close());
            self.hand_over(Returned { batch, changes: vec![(key, None)] });
        }
    }

    /// When the open batch of lines has to be closed, at the latest. Samples and events wait for the look behind it.
    pub(super) fn lines_due(&self) -> Option<Instant> {
        self.lines.due(self.config.flush_interval)
    }

    /// Closes what is older than the flush interval.
    pub(super) fn flush(&mut self, now: Now) {
        let interval = self.config.flush_interval;
        if self.lines.is_due(now, interval) {
            self.close_lines();
        }
        if self.host_records.is_due(now, interval) {
            self.close_records(Stream::HostMetrics);
        }
        if self.events.is_due(now, interval) {
            self.close_records(Stream::Events);
        }
        if now.monotonic >= self.state_due {
            self.state_due = now.monotonic + interval;
            let complete = self.lines.builder.is_empty() || is_on(Mutant::PositionBeforeLines);
            if complete && (self.account.is_dirty() || self.follower.has_changes()) {
                self.append_state();
            }
        }
    }

    pub(super) fn flush_all(&mut self) {
        self.close_lines();
        self.append_state();
        self.close_records(Stream::HostMetrics);
        self.close_records(Stream::Events);
    }

    /// Closes the batch of lines, with the positions and counts that belong to it.
    pub(super) fn close_lines(&mut self) {
        if let Some(batch) = self.lines.builder.close() {
            self.lines.since = None;
            self.append(Stream::AccessLines, Some(batch), true);
        }
    }

    /// Makes positions and counts durable where no batch carries them: lines that were filtered.
    pub(super) fn append_state(&mut self) {
        if self.refused.is_empty() {
            self.append(Stream::AccessLines, None, true);
        }
    }

    pub(super) fn close_records(&mut self, stream: Stream) {
        let open = self.open(stream);
        open.since = None;
        let batch = open.builder.close();
        self.append(stream, batch, false);
    }

    /// Appends a batch; `with_state` says that every line read so far is in it or in an earlier one.
    pub(super) fn append(&mut self, stream: Stream, batch: Option<Batch>, with_state: bool) {
        if batch.is_none() && !with_state {
            return;
        }
        let batch = self.new_batch(stream, batch);
        let changes = if with_state { self.take_changes() } else { Vec::new() };
        self.hand_over(Returned { batch, changes });
    }

    pub(super) fn take_changes(&mut self) -> Vec<StateChange> {
        self.changes.extend(self.follower.changes());
        self.changes.extend(self.windows.changes());
        self.changes.extend(self.account.change());
        std::mem::take(&mut self.changes).into_iter().collect()
    }

    pub(super) fn new_batch(&self, stream: Stream, batch: Option<Batch>) -> Option<NewBatch> {
        let batch = batch?;
        Some(NewBatch {
            stream,
            labels: self.plan.labels(&self.config, stream, &self.host_name),
            created_ms: self.now.wall,
            lines: batch.lines,
            records: batch.records,
            raw_bytes: batch.raw_bytes,
            body: batch.body,
        })
    }

    /// Gives a record to the spool. What carries lines, summaries or state waits when it is refused, and with it the
    /// lines behind it; samples and events wait too, up to [`SAMPLES_BYTES_MAX`].
    pub(super) fn hand_over(&mut self, record: Returned) {
        if !is_essential(&record) {
            self.samples.extend(record.batch);
            self.append_samples();
        } else if !self.refused.is_empty() {
            self.refused.push_back(record);
        } else if let Err(refused) = self.spool.append(record.batch, record.changes) {
            match refused {
                Refused::Full(_) | Refused::Degraded(_) if is_on(Mutant::DropsWhenFull) => {}
                Refused::Full(record) | Refused::Degraded(record) => self.refused.push_back(*record),
                Refused::TooLarge(record) => self.give_up_record(*record, LossReason::TooLarge),
            }
        }
    }

    /// Gives the spool the samples and events that wait, oldest first; those it refuses wait on. The newest matter
    /// most, and none can be read again: when too many wait, the oldest are counted as lost.
    pub(super) fn append_samples(&mut self) {
        while let Some(batch) = self.samples.pop_front() {
            match self.spool.append(Some(batch), Vec::new()) {
                Ok(_) => {}
                Err(Refused::Full(record) | Refused::Degraded(record)) => {
                    self.samples.extend(record.batch);
                    self.samples.rotate_right(1);
                    break;
                }
                Err(Refused::TooLarge(record)) => self.give_up_record(*record, LossReason::TooLarge),
            }
        }
        let mut bytes: usize = self.samples.iter().map(|batch| batch.body.len()).sum();
        while bytes > SAMPLES_BYTES_MAX
            && let Some(oldest) = self.samples.pop_front()
        {
            bytes -= oldest.body.len();
            let record = Returned { batch: Some(oldest), changes: Vec::new() };
            self.give_up_record(record, LossReason::SpoolFull);
        }
    }

    /// Makes known which files there are, also while the spool takes no lines: then they may be renamed many times
    /// before the first line of them is read.
    pub(super) fn append_births(&mut self) {
        let births = self.follower.births();
        if is_on(Mutant::ForgetsBirths) {
            return;
        }
        if let Err(refused) = self.spool.append(None, births) {
            self.refused.push_back(refused.returned());
        }
    }

    /// Tries again what the spool refused, in order.
    pub(super) fn append_refused(&mut self) {
        while let Some(record) = self.refused.pop_front() {
            match self.spool.append(record.batch, record.changes) {
                Ok(_) => {}
                Err(Refused::Full(record) | Refused::Degraded(record)) => {
                    self.refused.push_front(*record);
                    return;
                }
                Err(Refused::TooLarge(record)) => self.give_up_record(*record, LossReason::TooLarge),
            }
        }
    }

    /// Counts what is in a record as lost; its changes of the state go into the next one, unless that knows better.
    fn give_up_record(&mut self, record: Returned, reason: LossReason) {
        for (key, value) in record.changes {
            self.changes.entry(key).or_insert(value);
        }
        if let Some(batch) = record.batch {
            self.account.lose(reason, Loss { lines: batch.lines, bytes: u64::from(batch.raw_bytes) });
        }
    }

    pub(super) fn make_durable(&mut self, now: Now) {
        if let Err(error) = self.spool.commit(now) {
            tracing::debug!("{error}");
        }
    }

    /// Log lines that were counted and are in no record of the spool yet: in memory, or waiting in their files.
    pub(super) fn lines_before_spool(&self) -> u64 {
        let refused = self.refused.iter().filter_map(|record| record.batch.as_ref());
        let in_memory = self.lines.builder.lines() + refused.map(|batch| batch.lines).sum::<u64>();
        in_memory + self.follower.lines_ahead()
    }

    /// Whether lines have to wait in their files because the spool takes no more.
    pub(super) fn is_blocked(&self) -> bool {
        !self.refused.is_empty()
    }
}

/// Whether a record must not be let go: it carries lines, summaries or state.
fn is_essential(record: &Returned) -> bool {
    let stream = record.batch.as_ref().map(|batch| batch.stream);
    !record.changes.is_empty() || matches!(stream, Some(Stream::AccessLines | Stream::WebSummary))
}

/// Adds every line of NDJSON as a record; each was checked to fit before.
fn add_all(builder: &mut Builder, text: &[u8]) {
    for record in text.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()) {
        builder.add(0, |out| out.extend_from_slice(record));
    }
}

/// The records of one sample: one, or as many as the limit of a batch makes necessary.
fn host_records(
    head: &str,
    metrics: &serde_json::Map<String, serde_json::Value>,
    bytes_max: usize,
) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut record = head.to_owned();
    for (name, value) in metrics {
        let entry = format!(",{}:{value}", serde_json::Value::from(name.as_str()));
        if record.len() > head.len() && record.len() + entry.len() + 2 > bytes_max {
            records.push(record + "}");
            record = head.to_owned();
        }
        record.push_str(&entry);
    }
    records.push(record + "}");
    records.into_iter().map(String::into_bytes).collect()
}
