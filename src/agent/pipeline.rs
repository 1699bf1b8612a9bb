//! The pipeline: one tick reads, counts, batches, makes durable, and shows.
//!
//! Invariant: the durable state never runs ahead of the lines. Positions, counts and open summaries are written
//! in the record of a batch only when every line read so far is in that batch or in an earlier one.
//! While the spool refuses lines, reading stops: the log files are then the buffer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::doorbell::Doorbell;
use super::events::{Event, Severity};
use super::ledger::Account;
use super::lines::{Reader, Shipping, Sink};
use super::plan::Plan;
use crate::batch::{Added, Batch, Builder};
use crate::clock::Now;
use crate::config::{Config, ReadFrom};
use crate::follow::watch::DirectoryWatch;
use crate::follow::{Follower, Notice, Options as FollowOptions};
use crate::record::{Loss, LossReason, Stream};
use crate::ship::{DeliveryState, Mailbox};
use crate::sources::{Host, Sample, to_json};
use crate::spool::{DirDisk, NewBatch, Refused, Returned, Spool, StateChange};
use crate::status::Board;
use crate::window::{FileProgress, Options as WindowOptions, Windows};

/// Bytes of one file before the others get their turn.
const TURN_BYTES: u64 = 1 << 20;

/// Bytes of all files before answers, status and flushing get theirs.
const TICK_BYTES: u64 = 8 << 20;

/// Between two looks for files that no event announced.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Keys in the durable state of summaries that are closed but not yet in a batch.
const WAITING_PREFIX: &[u8] = b"a/summaries/";

/// What the next wait should be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// There is more to do at once.
    Busy,
    /// Lines came in; more will.
    Active,
    /// Nothing happened.
    Idle,
}

/// The batch of a stream under construction, and since when.
pub(super) struct Open {
    pub(super) builder: Builder,
    since: Option<Instant>,
}

impl Open {
    fn new(bytes_max: u32) -> Open {
        Open { builder: Builder::new(bytes_max), since: None }
    }

    fn is_due(&self, now: Now, interval: Duration) -> bool {
        !self.builder.is_empty() && self.since.is_some_and(|since| now.since(since) >= interval)
    }
}

/// Everything between the files and the mailbox.
pub(super) struct Pipeline {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) spool: Spool<DirDisk>,
    pub(super) follower: Follower,
    pub(super) readers: BTreeMap<u64, Reader>,
    pub(super) windows: Windows,
    pub(super) account: Account,
    pub(super) lines: Open,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) board: Arc<Board>,
    pub(super) sample: Sample,
    pub(super) started: Now,
    pub(super) host_name: String,
    pub(super) last_warning: Option<String>,
    shipping: Shipping,
    host_records: Open,
    events: Open,
    /// Changes of the state that no record holds yet, the latest value of each key.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Records that the spool refused and that must not be lost, oldest first.
    refused: VecDeque<Returned>,
    /// Closed summaries that wait in the durable state for a batch of their own: key and NDJSON.
    waiting: VecDeque<(Vec<u8>, Vec<u8>)>,
    waiting_number: u64,
    watch: DirectoryWatch,
    host: Host,
    scan_due: Instant,
    host_due: Instant,
    state_due: Instant,
}

impl Pipeline {
    pub(super) fn new(
        config: Config,
        plan: Plan,
        spool: Spool<DirDisk>,
        mailbox: Arc<Mailbox>,
        board: Arc<Board>,
        doorbell: &Arc<Doorbell>,
        now: Now,
    ) -> Pipeline {
        let entries = || spool.state().iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let first_start = spool.state().is_empty();
        let window_options = WindowOptions {
            summary_interval_s: u32::try_from(config.summary_interval.as_secs()).unwrap_or(u32::MAX),
            ..WindowOptions::default()
        };
        let follow_options = FollowOptions {
            patterns: plan.logs.iter().map(|log| log.pattern.clone()).collect(),
            first_start_at_end: config.read_from == ReadFrom::End,
        };
        let bell = Arc::clone(doorbell);
        let batch_max = config.batch_max_bytes;
        let waiting: VecDeque<_> = entries()
            .filter(|(key, _)| key.starts_with(WAITING_PREFIX))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        let mut pipeline = Pipeline {
            follower: Follower::new(follow_options, entries(), first_start),
            windows: if first_start {
                Windows::new(window_options, now.wall)
            } else {
                Windows::restore(window_options, now.wall, entries())
            },
            account: Account::restore(spool.state().get(Account::key()).map(Vec::as_slice)),
            readers: BTreeMap::new(),
            lines: Open::new(batch_max),
            host_records: Open::new(batch_max),
            events: Open::new(batch_max),
            shipping: Shipping::new(config.ship_lines, &config.redact, batch_max),
            changes: BTreeMap::new(),
            refused: VecDeque::new(),
            waiting_number: waiting.len() as u64,
            waiting,
            watch: DirectoryWatch::new(move || bell.ring_scan()),
            host: Host::new(|name| config.host_sources.includes(name)),
            sample: Sample::default(),
            host_name: config.host_name.clone().unwrap_or_else(system_host_name),
            last_warning: None,
            started: now,
            scan_due: now.monotonic,
            host_due: now.monotonic,
            state_due: now.monotonic + config.flush_interval,
            config,
            plan,
            spool,
            mailbox,
            board,
        };
        pipeline.announce_start(now);
        pipeline
    }

    /// Whether anything is shipped at all.
    pub(super) fn ships(&self) -> bool {
        self.config.sumo_url.is_some()
    }

    /// One turn of everything.
    pub(super) fn tick(&mut self, now: Now, scan: bool) -> Activity {
        self.settle(now);
        // Where the disk still refuses, the status says so; there is nothing else to do about it here.
        let _ = self.spool.retry(now);
        self.append_refused();
        if scan || now.monotonic >= self.scan_due {
            self.scan(now);
        }
        let activity = if self.refused.is_empty() { self.read(now) } else { Activity::Idle };
        self.progress(now);
        self.sample_host(now);
        self.close_summaries(false);
        self.flush(now);
        self.make_durable(now);
        self.offer();
        self.publish(now);
        activity
    }

    /// The last tick: reads what there is, closes what is open, makes it durable.
    pub(super) fn finish_reading(&mut self, now: Now, stopping: bool) {
        let deadline = now.monotonic + Duration::from_secs(1);
        self.scan(now);
        while self.refused.is_empty() && self.read(Now::read()) == Activity::Busy && Instant::now() < deadline
        {
            self.make_durable(Now::read());
        }
        self.progress(Now::read());
        if stopping {
            self.close_summaries(true);
            self.event(now, Event::new("watchpost.agent.stop", Severity::Info, "the agent stops"));
        }
        self.flush_all();
        self.make_durable(now);
        self.offer();
        self.publish(now);
    }

    /// Settles and offers; `false` once nothing is held.
    pub(super) fn deliver(&mut self, now: Now) -> bool {
        self.settle(now);
        self.append_refused();
        self.make_durable(now);
        self.offer();
        self.publish(now);
        self.spool.status().batches > 0
    }

    pub(super) fn delivery_state(&self) -> DeliveryState {
        self.mailbox.delivery(Instant::now()).state
    }

    /// Takes the verdict that may still have come, and closes the log.
    pub(super) fn close(mut self, now: Now) {
        self.settle(now);
        self.make_durable(now);
        self.publish(now);
        if let Err(error) = self.spool.close(now) {
            tracing::warn!("{error}; what was read since the last commit will be read again");
        }
    }

    fn scan(&mut self, now: Now) {
        self.follower.scan(now.monotonic);
        self.watch.set(&self.follower.directories());
        if let Some(notice) = self.watch.take_notice() {
            tracing::warn!("{notice}");
        }
        self.scan_due = now.monotonic + SCAN_INTERVAL;
        self.take_notices(now);
    }

    /// Reads every file in turn until all are drained or the budget of the tick is spent.
    fn read(&mut self, now: Now) -> Activity {
        let mut activity = Activity::Idle;
        let mut budget = TICK_BYTES;
        let mut waiting = self.follower.ids();
        while !waiting.is_empty() && budget > 0 {
            let mut still_waiting = Vec::new();
            for id in waiting {
                let before = self.follower.file(id).map_or(0, |file| file.offset());
                let more = self.read_file(id, now, &mut activity);
                let after = self.follower.file(id).map_or(before, |file| file.offset());
                budget = budget.saturating_sub(after.saturating_sub(before));
                if !self.refused.is_empty() {
                    return Activity::Idle;
                }
                if more {
                    still_waiting.push(id);
                }
            }
            waiting = still_waiting;
        }
        if waiting.is_empty() { activity } else { Activity::Busy }
    }

    /// One turn of one file; closes the batch when it is full. `true` when more lines wait.
    fn read_file(&mut self, id: u64, now: Now, activity: &mut Activity) -> bool {
        let Some(file) = self.follower.file(id) else { return false };
        let reader = self.readers.entry(id).or_insert_with(|| Reader::new(self.plan.of(&file.pattern)));
        let was_empty = self.lines.builder.is_empty();
        let mut sink = Sink {
            account: &mut self.account,
            windows: &mut self.windows,
            builder: &mut self.lines.builder,
            shipping: &mut self.shipping,
            file: window_file(id),
            read_at: now.wall,
        };
        let turn = self.follower.turn(id, TURN_BYTES, now.monotonic, &mut |line| sink.take(reader, line));
        reader.caught_up = !turn.more;
        if turn.lines > 0 {
            *activity = Activity::Active;
        }
        if was_empty && !self.lines.builder.is_empty() {
            self.lines.since = Some(now.monotonic);
        }
        if self.lines.builder.is_nearly_full() || (turn.more && turn.lines == 0) {
            self.close_lines();
        }
        if turn.finished {
            self.readers.remove(&id);
            self.windows.forget_file(window_file(id));
        }
        self.take_notices(now);
        turn.more
    }

    /// Says what happened to files, and counts what was lost with them.
    fn take_notices(&mut self, now: Now) {
        for notice in self.follower.take_notices() {
            match notice {
                Notice::Opened { path, offset, resumed } => {
                    tracing::info!(path = %path.display(), offset, resumed, "following a file");
                    if offset > 0 && !resumed {
                        self.windows.gap(now.wall);
                    }
                    self.announce_files();
                }
                Notice::Rewritten { path, lost_bytes } => {
                    self.lose(LossReason::Truncated, Loss { lines: 0, bytes: lost_bytes });
                    let path = path.display().to_string();
                    let severity = if lost_bytes > 0 { Severity::Error } else { Severity::Warn };
                    let message = format!("{path} was truncated or rewritten; it is read from its start");
                    let event = Event::new("watchpost.file.rewritten", severity, message);
                    self.event(now, event.with("path", path).with("lost_bytes", lost_bytes));
                    if lost_bytes > 0 {
                        self.windows.gap(now.wall);
                    }
                }
                Notice::Closed { path, offset } => {
                    tracing::info!(path = %path.display(), offset, "a rotated file was read to its end");
                }
                Notice::Vanished { path, offset } => {
                    self.lose(LossReason::Removed, Loss::default());
                    let path = path.display().to_string();
                    let message = format!(
                        "{path} is gone since the last run; what was written behind byte {offset} is unknown"
                    );
                    let event = Event::new("watchpost.file.vanished", Severity::Error, message);
                    self.event(now, event.with("path", path).with("offset", offset));
                    self.windows.gap(now.wall);
                }
            }
        }
    }

    fn lose(&mut self, reason: LossReason, loss: Loss) {
        self.account.lose(reason, loss);
    }

    /// Tells the windows which files there are and how late their lines may be.
    fn announce_files(&mut self) {
        let files: Vec<(u64, Option<u64>)> =
            self.follower.files().map(|file| (file.id, self.plan.of(&file.pattern).flush_ms)).collect();
        for (id, flush_ms) in files {
            self.windows.set_file(window_file(id), flush_ms);
        }
    }

    /// Moves the windows on to now, as far as the files have been read.
    fn progress(&mut self, now: Now) {
        let progress: Vec<FileProgress> = self
            .follower
            .files()
            .filter(|file| file.error().is_none())
            .map(|file| FileProgress {
                file: window_file(file.id),
                caught_up: self.readers.get(&file.id).is_some_and(|reader| reader.caught_up),
            })
            .collect();
        let unknown = if self.plan.logs.is_empty() {
            Some("no access log is followed".to_owned())
        } else if progress.is_empty() {
            let named = self.follower.blocked().iter().next();
            Some(match named {
                Some((path, blocked)) => format!("{}: {}", path.display(), blocked.message),
                None => "no file matches WATCHPOST_ACCESS_LOGS".to_owned(),
            })
        } else {
            None
        };
        self.windows.set_unknown(unknown);
        self.windows.advance(now.wall, &progress);
    }

    fn sample_host(&mut self, now: Now) {
        if now.monotonic < self.host_due {
            return;
        }
        self.host_due = now.monotonic + self.config.host_interval;
        self.sample = self.host.sample(now);
        if !self.ships() || self.sample.readings.is_empty() {
            return;
        }
        let metrics = to_json(&self.sample);
        let head = format!("{{\"timestamp\":{},\"record\":\"host.metrics\"", self.sample.at);
        for part in host_records(&head, &metrics, self.config.batch_max_bytes as usize) {
            self.add_record(Stream::HostMetrics, now, &part);
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

    /// Adds a record of host or event streams; what the spool has no room for is counted as lost.
    fn add_record(&mut self, stream: Stream, now: Now, record: &[u8]) {
        let open = |pipeline: &mut Pipeline| -> Added {
            let open = match stream {
                Stream::Events => &mut pipeline.events,
                _ => &mut pipeline.host_records,
            };
            let added = open.builder.add(0, |out| out.extend_from_slice(record));
            if added == Added::Yes {
                open.since.get_or_insert(now.monotonic);
            }
            added
        };
        if open(self) == Added::Full {
            self.close_records(stream);
            open(self);
        }
    }

    /// Takes the summaries that are due. Those that do not fit one batch wait in the durable state, so that
    /// a crash between two batches neither loses nor repeats one.
    fn close_summaries(&mut self, all: bool) {
        if !self.refused.is_empty() || !self.waiting.is_empty() {
            self.append_waiting();
            return;
        }
        let summaries = self.windows.close_summaries(all);
        if summaries.is_empty() || !self.ships() {
            return;
        }
        self.close_lines();
        let mut builder = Builder::new(self.config.batch_max_bytes);
        let mut text = Vec::new();
        let mut texts = Vec::new();
        for summary in &summaries {
            let record = summary.to_json();
            if text.len() + record.len() + 1 > self.config.batch_max_bytes as usize {
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

    fn append_waiting(&mut self) {
        while self.refused.is_empty()
            && let Some((key, text)) = self.waiting.pop_front()
        {
            let mut builder = Builder::new(self.config.batch_max_bytes);
            add_all(&mut builder, &text);
            let batch = self.new_batch(Stream::WebSummary, builder.close());
            self.hand_over(Returned { batch, changes: vec![(key, None)] });
        }
    }

    /// Closes what is older than the flush interval.
    fn flush(&mut self, now: Now) {
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
            if self.lines.builder.is_empty() {
                self.append_state();
            }
        }
    }

    fn flush_all(&mut self) {
        self.close_lines();
        self.append_state();
        self.close_records(Stream::HostMetrics);
        self.close_records(Stream::Events);
    }

    /// Closes the batch of lines, with the positions and counts that belong to it.
    fn close_lines(&mut self) {
        if let Some(batch) = self.lines.builder.close() {
            self.lines.since = None;
            self.append(Stream::AccessLines, Some(batch), true);
        }
    }

    /// Makes positions and counts durable where no batch carries them: lines that were filtered.
    fn append_state(&mut self) {
        if self.refused.is_empty() {
            self.append(Stream::AccessLines, None, true);
        }
    }

    fn close_records(&mut self, stream: Stream) {
        let open = match stream {
            Stream::Events => &mut self.events,
            _ => &mut self.host_records,
        };
        open.since = None;
        let batch = open.builder.close();
        self.append(stream, batch, false);
    }

    /// Appends a batch; `with_state` says that every line read so far is in it or in an earlier one.
    fn append(&mut self, stream: Stream, batch: Option<Batch>, with_state: bool) {
        if batch.is_none() && !with_state {
            return;
        }
        let batch = self.new_batch(stream, batch);
        let changes = if with_state { self.take_changes() } else { Vec::new() };
        self.hand_over(Returned { batch, changes });
    }

    fn take_changes(&mut self) -> Vec<StateChange> {
        self.changes.extend(self.follower.changes());
        self.changes.extend(self.windows.changes());
        self.changes.extend(self.account.change());
        std::mem::take(&mut self.changes).into_iter().collect()
    }

    fn new_batch(&self, stream: Stream, batch: Option<Batch>) -> Option<NewBatch> {
        let batch = batch?;
        Some(NewBatch {
            stream,
            labels: self.plan.labels(&self.config, stream, &self.host_name),
            created_ms: Now::read().wall,
            lines: batch.lines,
            records: batch.records,
            raw_bytes: batch.raw_bytes,
            body: batch.body,
        })
    }

    /// Gives a record to the spool. What carries lines, summaries or state waits when it is refused; samples
    /// and events are counted and let go, since the newest of them matter and none can be read again.
    fn hand_over(&mut self, record: Returned) {
        if !self.refused.is_empty() && !record.changes.is_empty() {
            self.refused.push_back(record);
            return;
        }
        let Err(refused) = self.spool.append(record.batch, record.changes) else { return };
        let too_large = matches!(refused, Refused::TooLarge(_));
        let returned = refused.returned();
        let essential = !returned.changes.is_empty()
            || returned
                .batch
                .as_ref()
                .is_some_and(|batch| matches!(batch.stream, Stream::AccessLines | Stream::WebSummary));
        if essential && !too_large {
            self.refused.push_back(returned);
        } else if let Some(batch) = returned.batch {
            let reason = if too_large { LossReason::TooLarge } else { LossReason::SpoolFull };
            let bytes = u64::from(batch.raw_bytes);
            self.account.lose(reason, Loss { lines: batch.lines, bytes });
            self.changes.extend(returned.changes);
        }
    }

    /// Tries again what the spool refused, in order.
    fn append_refused(&mut self) {
        while let Some(record) = self.refused.pop_front() {
            if let Err(refused) = self.spool.append(record.batch, record.changes) {
                self.refused.push_front(refused.returned());
                return;
            }
        }
    }

    fn make_durable(&mut self, now: Now) {
        if let Err(error) = self.spool.commit(now) {
            tracing::debug!("{error}");
        }
    }

    /// Log lines that were read and are in no record of the spool yet.
    pub(super) fn lines_in_memory(&self) -> u64 {
        let refused = self.refused.iter().filter_map(|record| record.batch.as_ref());
        self.lines.builder.lines() + refused.map(|batch| batch.lines).sum::<u64>()
    }

    /// Whether reading has stopped because the spool takes no more.
    pub(super) fn is_blocked(&self) -> bool {
        !self.refused.is_empty()
    }

    fn announce_start(&mut self, now: Now) {
        let recovered = self.spool.recovered().clone();
        let message = format!(
            "the agent starts: epoch {}, {} batches wait from earlier runs",
            self.spool.epoch(),
            recovered.batches
        );
        let event = Event::new("watchpost.agent.start", Severity::Info, message)
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("agent_id", self.spool.agent_id().to_string())
            .with("epoch", self.spool.epoch())
            .with("held_batches", recovered.batches)
            .with("held_lines", recovered.lines)
            .with("torn_tail_bytes", recovered.torn_tail_bytes);
        self.event(now, event);
        for (reason, loss) in &recovered.lost {
            let message = format!("damage in the spool cost {} lines ({})", loss.lines, reason.name());
            let event = Event::new("watchpost.loss", Severity::Error, message)
                .with("reason", reason.name())
                .with("lines", loss.lines)
                .with("bytes", loss.bytes);
            self.event(now, event);
        }
        for note in self.plan.notes.clone() {
            tracing::warn!("{note}");
        }
    }
}

/// The number of a file in the windows.
fn window_file(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
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

fn system_host_name() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}
