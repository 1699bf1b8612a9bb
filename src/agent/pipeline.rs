//! The pipeline: one tick reads, counts, batches, makes durable, and shows.
//!
//! This file is the order of things; `reading` goes from files to counts, `outbox` from records to the spool,
//! `settle` from the destination's answers back to the spool, `snapshot` to the status port.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use watchpost_parsers::routes::Routes;

use super::events::{Event, Severity};
use super::ledger::Account;
use super::lines::{Reader, Shipping};
use super::outbox::{Open, WAITING_PREFIX};
use super::plan::Plan;
use super::probing::Insight;
use super::snapshot::Told;
use crate::clock::Now;
use crate::config::{Config, ReadFrom, ShipLines};
use crate::follow::watch::DirectoryWatch;
use crate::follow::{Files, Follower, Options as FollowOptions};
use crate::mutant::{Mutant, is_on};
use crate::probes::{ProbeBoard, Tally};
use crate::ship::{DeliveryState, Mailbox};
use crate::sources::{Host, Sample};
use crate::spool::{Disk, NewBatch, Returned, Spool};
use crate::status::Board;
use crate::window::{Options as WindowOptions, Windows};

/// What gzip may add to bytes that do not compress, with room to spare.
const COMPRESSION_MARGIN_BYTES: u64 = 4 << 10;

/// How long a stop goes on reading lines that were written before it.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// What the next wait should be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    /// Nothing happened.
    Idle,
    /// Lines came in; more will.
    Active,
    /// There is more to do at once.
    Busy,
}

/// The one log, on whatever disk.
pub(super) type AnySpool = Spool<Box<dyn Disk + Send>>;

/// What a pipeline is made of; a simulation brings its own.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) spool: AnySpool,
    pub(super) files: Arc<dyn Files>,
    pub(super) watch: DirectoryWatch,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) board: Arc<Board>,
    pub(super) probes: Arc<ProbeBoard>,
    pub(super) tally: Arc<Tally>,
}

/// Everything between the files and the mailbox.
pub(super) struct Pipeline {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) spool: AnySpool,
    pub(super) follower: Follower,
    pub(super) readers: BTreeMap<u64, Reader>,
    pub(super) windows: Windows,
    pub(super) account: Account,
    pub(super) lines: Open,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) board: Arc<Board>,
    /// What the probes saw, and what they want counted.
    pub(super) probes: Arc<ProbeBoard>,
    pub(super) tally: Arc<Tally>,
    pub(super) insight: Insight,
    /// What the status port shows of host and probes; `None` once that is out of date.
    pub(super) told: Option<Told>,
    pub(super) sample: Sample,
    /// The moment of the tick under way.
    pub(super) now: Now,
    pub(super) started: Now,
    pub(super) host_name: String,
    pub(super) last_warning: Option<String>,
    pub(super) shipping: Shipping,
    pub(super) routes: Routes,
    /// Uncompressed bytes of a batch, at most: the setting, or what the spool can hold if that is less.
    pub(super) batch_max_bytes: u32,
    pub(super) host_records: Open,
    pub(super) events: Open,
    /// Changes of the state that no record holds yet, the latest value of each key.
    pub(super) changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Records that the spool refused and that must not be lost, oldest first.
    pub(super) refused: VecDeque<Returned>,
    /// Batches of samples and events that the spool refused, oldest first.
    pub(super) samples: VecDeque<NewBatch>,
    /// Closed summaries that wait in the durable state for a batch of their own: key and NDJSON.
    pub(super) waiting: VecDeque<(Vec<u8>, Vec<u8>)>,
    pub(super) waiting_number: u64,
    pub(super) watch: DirectoryWatch,
    pub(super) host: Host,
    /// The file that is read first at the next tick; 0 for the oldest.
    pub(super) next_file: u64,
    /// When the files were last read: what is found at the next look was written since, unless there was too much.
    pub(super) looked: Instant,
    pub(super) scan_due: Instant,
    pub(super) host_due: Instant,
    pub(super) state_due: Instant,
}

impl Pipeline {
    pub(super) fn new(parts: Parts, now: Now) -> Pipeline {
        let Parts { config, plan, spool, files, watch, mailbox, board, probes, tally } = parts;
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
        // Compression never adds more than this margin, so every batch fits the spool whatever is in it.
        let spool_takes = spool.batch_bytes_max().saturating_sub(COMPRESSION_MARGIN_BYTES);
        let batch_max = config.batch_max_bytes.min(u32::try_from(spool_takes).unwrap_or(u32::MAX));
        let waiting: VecDeque<_> = entries()
            .filter(|(key, _)| key.starts_with(WAITING_PREFIX))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        let mut pipeline = Pipeline {
            follower: Follower::new(files, follow_options, entries(), first_start),
            windows: if first_start || is_on(Mutant::ForgetsWindows) {
                Windows::new(window_options, now.wall)
            } else {
                Windows::restore(window_options, now.wall, entries())
            },
            account: Account::restore(
                spool.state().get(Account::key()).map(Vec::as_slice),
                spool.status().appended_lines,
            ),
            readers: BTreeMap::new(),
            lines: Open::new(batch_max),
            host_records: Open::new(batch_max),
            events: Open::new(batch_max),
            shipping: Shipping::new(ships_what(&config), &config.redact, batch_max),
            routes: Routes::new(),
            batch_max_bytes: batch_max,
            changes: BTreeMap::new(),
            refused: VecDeque::new(),
            samples: VecDeque::new(),
            waiting_number: waiting.len() as u64,
            waiting,
            watch,
            host: Host::new(|name| config.host_sources.includes(name)),
            sample: Sample::default(),
            host_name: config.host_name.clone().unwrap_or_else(system_host_name),
            last_warning: None,
            now,
            started: now,
            next_file: 0,
            looked: now.monotonic,
            scan_due: now.monotonic,
            host_due: now.monotonic,
            state_due: now.monotonic + config.flush_interval,
            config,
            plan,
            spool,
            mailbox,
            board,
            probes,
            tally,
            insight: Insight::new(now),
            told: None,
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
        self.now = now;
        self.settle(now);
        // Where the disk still refuses, the status says so; there is nothing else to do about it here.
        let _ = self.spool.retry(now);
        self.append_refused();
        self.append_samples();
        let question = self.tally.waiting();
        if scan {
            self.follower.list_anew();
        }
        if scan || question.is_some() || now.monotonic >= self.scan_due {
            self.scan(now);
        }
        let activity = self.take_lines(now);
        if activity != Activity::Busy {
            self.answer_tally(question);
        }
        self.take_reports(now);
        self.progress(now);
        self.sample_host(now);
        self.close_summaries(false);
        self.flush(now);
        self.make_durable(now);
        self.offer();
        self.show(now);
        activity
    }

    /// Takes lines for shipping as long as the spool takes them, and counts those that have to wait in their files.
    fn take_lines(&mut self, now: Now) -> Activity {
        let taken = if self.is_blocked() { Activity::Idle } else { self.read(now) };
        if self.is_blocked() || self.follower.lines_ahead() > 0 {
            taken.max(self.count_ahead(now))
        } else {
            taken
        }
    }

    /// The last tick: reads what there is, closes what is open, makes it durable. `clock` tells the time.
    pub(super) fn finish_reading(&mut self, clock: impl Fn() -> Now, stopping: bool) {
        let mut now = clock();
        let deadline = now.monotonic + LAST_READ_TIMEOUT;
        self.now = now;
        self.scan(now);
        while self.take_lines(now) == Activity::Busy && now.monotonic < deadline {
            now = clock();
            self.now = now;
            self.make_durable(now);
        }
        self.progress(now);
        if stopping {
            self.close_summaries(true);
            self.event(now, Event::new("watchpost.agent.stop", Severity::Info, "the agent stops"));
        }
        self.flush_all();
        self.make_durable(now);
        self.offer();
        self.show(now);
    }

    /// Settles and offers; `false` once nothing is held.
    pub(super) fn deliver(&mut self, now: Now) -> bool {
        self.now = now;
        self.settle(now);
        self.append_refused();
        self.append_samples();
        self.make_durable(now);
        self.offer();
        self.show(now);
        self.spool.status().batches > 0
    }

    pub(super) fn delivery_state(&self) -> DeliveryState {
        self.mailbox.delivery(self.now.monotonic).state
    }

    /// Takes the verdict that may still have come, and closes the log.
    pub(super) fn close(mut self, now: Now) {
        self.settle(now);
        self.make_durable(now);
        self.show(now);
        if let Err(error) = self.spool.close(now) {
            tracing::warn!("{error}; what was read since the last commit will be read again");
        }
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
            .with("torn_tail_bytes", recovered.torn_tail_bytes)
            .with("rotten_tail_bytes", recovered.rotten_tail_bytes);
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

fn system_host_name() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}

/// Which lines are shipped: none where there is nowhere to ship them.
fn ships_what(config: &Config) -> ShipLines {
    if config.sumo_url.is_some() { config.ship_lines } else { ShipLines::None }
}
