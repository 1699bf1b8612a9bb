//! From files to counts: which files there are, their lines in fair turns, what happened to them.
//!
//! Reading stops while the spool refuses lines; nothing here decides what a line means.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::events::{Event, Severity};
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
                return Activity::Idle;
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
        if waiting.is_empty() { activity } else { Activity::Busy }
    }

    /// One turn of one file; closes the batch when it is full.
    fn read_file(&mut self, id: u64, now: Now) -> Turn {
        let Some(file) = self.follower.file(id) else { return Turn::default() };
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
        if was_empty && !self.lines.builder.is_empty() {
            self.lines.since = Some(now.monotonic);
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
                    self.lose(LossReason::Truncated, lost);
                    self.event(now, rewritten_event(&path, copy.as_deref(), lost, &range));
                    if lost != Loss::default() {
                        self.windows.gap(now.wall);
                    }
                }
                Notice::Copied { path, original, offset } => {
                    let (path, original) = (path.display().to_string(), original.display().to_string());
                    let message = format!("{path} begins with {offset} bytes that were read in {original}");
                    let event = Event::new("watchpost.file.copied", Severity::Info, message);
                    self.event(
                        now,
                        event.with("path", path).with("original", original).with("offset", offset),
                    );
                }
                Notice::Hole { path, offset, bytes } => {
                    let path = path.display().to_string();
                    let message = format!(
                        "{path} has a hole of {bytes} NUL bytes before byte {offset}; they are no line"
                    );
                    let event = Event::new("watchpost.file.hole", Severity::Warn, message);
                    self.event(now, event.with("path", path).with("offset", offset).with("nul_bytes", bytes));
                }
                Notice::Closed { path, offset, unreadable_rest: None } => {
                    tracing::info!(path = %path.display(), offset, "a rotated file was read to its end");
                }
                Notice::Closed { path, offset, unreadable_rest: Some(reason) } => {
                    self.lose(LossReason::Removed, Loss::default());
                    let path = path.display().to_string();
                    let message =
                        format!("{path}: {reason}; what was written behind byte {offset} is unknown");
                    let event = Event::new("watchpost.file.unreadable", Severity::Error, message);
                    self.event(now, event.with("path", path).with("offset", offset));
                    self.windows.gap(now.wall);
                }
                Notice::Vanished { path, lost, range, compressed } => {
                    self.lose(LossReason::Removed, lost);
                    self.event(now, vanished_event(&path, lost, &range, compressed.as_deref()));
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

    /// Moves the windows on to now, as far as the files have been read. While the spool refuses lines nobody knows
    /// what the files hold.
    pub(super) fn progress(&mut self, now: Now) {
        let reading = !self.is_blocked();
        let progress: Vec<FileProgress> = self
            .follower
            .files()
            .filter(|file| file.error().is_none())
            .map(|file| FileProgress {
                file: window_file(file.id),
                caught_up: reading && self.readers.get(&file.id).is_some_and(|reader| reader.caught_up),
            })
            .collect();
        let unknown = if self.plan.logs.is_empty() {
            Some("no access log is followed".to_owned())
        } else if !reading {
            Some("the spool takes no more, so reading has stopped".to_owned())
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

/// A truncated or rewritten file. `Error` where something is known to be lost.
fn rewritten_event(path: &Path, copy: Option<&Path>, lost: Loss, range: &Range<u64>) -> Event {
    let severity = if lost != Loss::default() { Severity::Error } else { Severity::Warn };
    let path = path.display().to_string();
    let mut message = format!("{path} was truncated or rewritten; it is read from its start");
    if let Some(copy) = copy {
        message += &format!(
            ", and what it held before in {}; what was written in the instant between the end of the copying and the \
             truncation is in no file and cannot be known",
            copy.display()
        );
    }
    if lost.bytes > 0 {
        message += &format!("; its bytes {} to {} are lost", range.start, range.end);
    }
    let event = Event::new("watchpost.file.rewritten", severity, message).with("path", path);
    let event = event.with("lost_bytes", lost.bytes).with("from", range.start).with("to", range.end);
    match copy {
        Some(copy) => event.with("copy", copy.display().to_string()),
        None => event,
    }
}

/// A file that is gone since the last run. `Error` unless it had been read to its last known byte.
fn vanished_event(path: &Path, lost: Loss, range: &Range<u64>, compressed: Option<&Path>) -> Event {
    let severity = if lost != Loss::default() { Severity::Error } else { Severity::Warn };
    let path = path.display().to_string();
    let mut message = match lost.bytes {
        0 => format!(
            "{path} is gone since the last run; it had been read to byte {}, its last known one",
            range.start
        ),
        bytes => format!(
            "{path} is gone since the last run with {bytes} unread bytes, from {} to {}",
            range.start, range.end
        ),
    };
    message += "; what was written behind that is unknown";
    if let Some(compressed) = compressed {
        message += &format!("; it may be {}, which only gzip could make readable", compressed.display());
    }
    let event = Event::new("watchpost.file.vanished", severity, message).with("path", path);
    event.with("offset", range.start).with("lost_bytes", lost.bytes).with("to", range.end)
}
