//! From files to counts: which files there are, their lines in fair turns, what happened to them.
//!
//! While the spool refuses lines they are counted and wait in their files; nothing here decides what a line means.

use std::collections::VecDeque;
use std::time::Duration;

use super::file_events;
use super::lines::{Reader, Sink};
use super::pipeline::{Activity, Pipeline};
use crate::clock::Now;
use crate::follow::{Notice, Turn};
use crate::record::{Loss, LossReason};
use crate::window::FileProgress;

/// Bytes of one file before the others get their turn.
const TURN_BYTES: u64 = 1 << 20;

/// Bytes of all files before answers, status and flushing get theirs.
const TICK_BYTES: u64 = 8 << 20;

/// Between two looks for files that no event announced.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

impl Pipeline {
    pub(super) fn scan(&mut self, now: Now) {
        self.follower.scan(now.monotonic);
        self.watch.set(&self.follower.directories());
        if let Some(notice) = self.watch.take_notice() {
            tracing::warn!("{notice}");
        }
        self.scan_due = now.monotonic + SCAN_INTERVAL;
        self.take_notices(now);
        self.append_births();
        if self.spool.state().is_empty() && self.lines.builder.is_empty() {
            // From here on it is no first start: where reading begins is durable before the first line is.
            self.windows.mark_all_changed();
            self.append_state();
        }
    }

    /// Reads every file in turn until all are drained or the budget of the tick is spent; the next tick goes on
    /// with the file whose turn it then was.
    pub(super) fn read(&mut self, now: Now) -> Activity {
        let mut activity = Activity::Idle;
        let mut budget = TICK_BYTES;
        let mut waiting = VecDeque::from(self.follower.ids());
        waiting.rotate_left(waiting.partition_point(|id| *id < self.next_file));
        self.next_file = 0;
        while let Some(id) = waiting.pop_front() {
            if budget == 0 {
                self.next_file = id;
                waiting.push_front(id);
                break;
            }
            let turn = self.read_file(id, now);
            budget = budget.saturating_sub(turn.bytes);
            if turn.lines > 0 {
                activity = Activity::Active;
            }
            if self.is_blocked() {
                return activity;
            }
            if turn.more {
                waiting.push_back(id);
            }
        }
        for id in &waiting {
            if let Some(reader) = self.readers.get_mut(id) {
                reader.caught_up = false;
            }
        }
        self.looked = now.monotonic;
        if waiting.is_empty() { activity } else { Activity::Busy }
    }

    /// Counts what shipping has not come to: all files while the spool takes nothing, and later those in which the
    /// lines still wait. Rates stay live while the log files are the buffer.
    pub(super) fn count_ahead(&mut self, now: Now) -> Activity {
        let blocked = self.is_blocked();
        let mut waiting: VecDeque<u64> = self
            .follower
            .files()
            .filter(|file| blocked || file.lines_ahead() > 0)
            .map(|file| file.id)
            .collect();
        let mut activity = Activity::Idle;
        let mut budget = TICK_BYTES;
        while let Some(id) = waiting.pop_front() {
            if budget == 0 {
                return Activity::Busy;
            }
            let turn = self.count_file(id, now);
            budget = budget.saturating_sub(turn.bytes);
            if turn.lines > 0 {
                activity = Activity::Active;
            }
            if turn.more {
                waiting.push_back(id);
            }
        }
        activity
    }

    /// One turn of counting in one file.
    fn count_file(&mut self, id: u64, now: Now) -> Turn {
        let Some(file) = self.follower.file(id) else { return Turn::default() };
        let reader = self.readers.entry(id).or_insert_with(|| Reader::new(self.plan.of(&file.pattern)));
        let mut sink = Sink {
            account: &mut self.account,
            windows: &mut self.windows,
            routes: &mut self.routes,
            builder: &mut self.lines.builder,
            shipping: &mut self.shipping,
            file: window_file(id),
            read_at: now.wall,
        };
        let turn = self.follower.count(id, TURN_BYTES, now.monotonic, &mut |line| sink.count(reader, line));
        reader.caught_up = !turn.more;
        self.take_notices(now);
        turn
    }

    /// One turn of one file; closes the batch when it is full.
    fn read_file(&mut self, id: u64, now: Now) -> Turn {
        let Some(file) = self.follower.file(id) else { return Turn::default() };
        let reader = self.readers.entry(id).or_insert_with(|| Reader::new(self.plan.of(&file.pattern)));
        let was_empty = self.lines.builder.is_empty();
        let mut sink = Sink {
            account: &mut self.account,
            windows: &mut self.windows,
            routes: &mut self.routes,
            builder: &mut self.lines.builder,
            shipping: &mut self.shipping,
            file: window_file(id),
            read_at: now.wall,
        };
        let turn = self.follower.turn(id, TURN_BYTES, now.monotonic, &mut |line| sink.take(reader, line));
        reader.caught_up = !turn.more;
        if was_empty && !self.lines.builder.is_empty() {
            // They may have been written just behind the look before.
            self.lines.since = Some(self.looked);
        }
        if self.lines.builder.is_nearly_full() || turn.refused {
            self.close_lines();
        }
        if turn.finished {
            self.readers.remove(&id);
            self.windows.forget_file(window_file(id));
        }
        self.take_notices(now);
        turn
    }

    /// Says what happened to files, and counts what was lost with them.
    pub(super) fn take_notices(&mut self, now: Now) {
        let mut opened = false;
        for notice in self.follower.take_notices() {
            match notice {
                Notice::Opened { path, offset, resumed } => {
                    tracing::info!(path = %path.display(), offset, resumed, "following a file");
                    if offset > 0 && !resumed {
                        self.windows.gap(now.wall);
                    }
                    opened = true;
                }
                Notice::Parted { id } => {
                    self.readers.remove(&id);
                    self.windows.forget_file(window_file(id));
                }
                Notice::Rewritten { path, copy, lost, range } => {
                    self.insight.rewrites += 1;
                    self.lose(LossReason::Truncated, lost);
                    self.event(now, file_events::rewritten(&path, copy.as_deref(), lost, &range));
                    if lost.bytes > 0 {
                        self.windows.gap(now.wall);
                    }
                }
                Notice::Copied { path, original, offset } => {
                    self.event(now, file_events::copied(&path, &original, offset));
                }
                Notice::Hole { path, offset, bytes } => {
                    self.event(now, file_events::hole(&path, offset, bytes));
                }
                Notice::Closed { path, offset, unreadable_rest: None } => {
                    tracing::info!(path = %path.display(), offset, "a rotated file was read to its end");
                }
                Notice::Closed { path, offset, unreadable_rest: Some(reason) } => {
                    self.lose(LossReason::Removed, Loss::default());
                    self.event(now, file_events::unreadable(&path, offset, &reason));
                    self.windows.gap(now.wall);
                }
                Notice::Vanished { path, lost, range, compressed } => {
                    self.lose(LossReason::Removed, lost);
                    self.event(now, file_events::vanished(&path, lost, &range, compressed.as_deref()));
                    self.windows.gap(now.wall);
                }
            }
        }
        if opened {
            self.announce_files();
        }
    }

    pub(super) fn lose(&mut self, reason: LossReason, loss: Loss) {
        self.account.lose(reason, loss);
    }

    /// Tells the windows which files there are and how late their lines may be.
    pub(super) fn announce_files(&mut self) {
        let files: Vec<(u64, Option<u64>)> =
            self.follower.files().map(|file| (file.id, self.plan.of(&file.pattern).flush_ms)).collect();
        for (id, flush_ms) in files {
            self.windows.set_file(window_file(id), flush_ms);
        }
    }

    /// Moves the windows on to now, as far as the files have been counted.
    pub(super) fn progress(&mut self, now: Now) {
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
}

/// The number of a file in the windows.
fn window_file(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}
