//! The simulated web server: numbered lines, in one piece or two, and the rotations of its logs.
//!
//! It knows of each line where it was written, and what an agent may be asked of it: a line is *required* unless
//! something happened to its file that no agent can make good.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Clock;
use super::files::FileSystem;
use super::swarm::{LineFormat, Rotation, Swarm};
use super::trace::Trace;

/// The last words of a writer that has not seen the rotation yet come within this time, well below the grace.
const LATE_MAX_MS: u64 = 20_000;
/// How long the writers take to open a new file.
const REOPEN_MAX_MS: u64 = 5_000;

/// What the server acts upon.
pub(super) struct Context<'a> {
    pub(super) clock: &'a Clock,
    pub(super) files: &'a mut FileSystem,
    pub(super) trace: &'a Trace,
    pub(super) random: &'a mut fastrand::Rng,
    /// The agent is at work: what it has open now it may only look at.
    pub(super) in_tick: bool,
}

/// A line, by its number.
#[derive(Debug)]
pub(super) struct Line {
    /// Without its newline; of a line that never got its end, what is there.
    pub(super) text: String,
    /// A line of the format, so a request.
    pub(super) is_request: bool,
    /// Nobody can be asked for it: it may come, once, or not.
    pub(super) optional: bool,
    /// Written up to its newline.
    pub(super) complete: bool,
    /// It will never get its end.
    pub(super) abandoned: bool,
    serial: u32,
}

/// The rest of a line of which a part is written.
#[derive(Debug)]
struct Rest {
    line: usize,
    bytes: Vec<u8>,
}

/// A writer that still holds the old file.
#[derive(Debug)]
struct Late {
    serial: u32,
    until: Duration,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Log {
    name: String,
    /// The file that is open for writing.
    writer: u32,
    rest: Option<Rest>,
    /// The name moved away; the writers open the new file then.
    reopen_at: Option<Duration>,
    rotated_at: Duration,
    /// Made by the rotation, for the writers to find.
    created: Option<u32>,
    late: Vec<Late>,
    rotations: u32,
}

/// The life of a file under the name of a log.
#[derive(Debug)]
struct Incarnation {
    predecessor: Option<u32>,
    /// The agent has durably seen it.
    known: bool,
    unlinked: bool,
    /// No line in it can be asked for any more.
    doomed: bool,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    logs: Vec<Log>,
    lines: Vec<Line>,
    incarnations: BTreeMap<u32, Incarnation>,
    format: LineFormat,
    rubbish_share: u8,
    long_share: u8,
    bursts: bool,
    pieces: bool,
    rotations: Vec<Rotation>,
    counted_names: bool,
    log_count: usize,
    /// Rotations that took lines with them.
    pub(super) truncations: u64,
}

impl Server {
    pub(super) fn new(swarm: &Swarm) -> Server {
        Server {
            logs: Vec::new(),
            lines: Vec::new(),
            incarnations: BTreeMap::new(),
            format: swarm.format,
            rubbish_share: swarm.rubbish_share,
            long_share: swarm.long_share,
            bursts: swarm.bursts,
            pieces: swarm.pieces,
            rotations: swarm.rotations.clone(),
            counted_names: swarm.counted_names,
            log_count: swarm.logs,
            truncations: 0,
        }
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Lines that an agent may have read so far: those with an end, and those that will never get one.
    pub(super) fn readable_lines(&self) -> u64 {
        self.lines.iter().filter(|line| line.complete || line.abandoned).count() as u64
    }

    /// One thing, drawn at random.
    pub(super) fn act(&mut self, context: &mut Context<'_>) {
        if self.logs.len() < self.log_count && (self.logs.is_empty() || context.random.u8(0..4) == 0) {
            return self.open_log(context);
        }
        let at = context.random.usize(0..self.logs.len());
        match context.random.u8(0..16) {
            0..=1 if !self.rotations.is_empty() => self.rotate(at, context),
            2..=4 if self.pieces => self.write_piece(at, context),
            5 if self.bursts => {
                let count = context.random.usize(20..200);
                self.write_lines(at, count, context);
            }
            6..=7 => self.write_late(at, context),
            _ => {
                let count = context.random.usize(1..6);
                self.write_lines(at, count, context);
            }
        }
    }

    fn open_log(&mut self, context: &mut Context<'_>) {
        let name = format!("{}.log", char::from(b'a' + self.logs.len() as u8));
        let writer = self.create(&name, None, context);
        let log = Log {
            name,
            writer,
            rest: None,
            reopen_at: None,
            rotated_at: Duration::ZERO,
            created: None,
            late: Vec::new(),
            rotations: 0,
        };
        self.logs.push(log);
    }

    fn create(&mut self, name: &str, predecessor: Option<u32>, context: &mut Context<'_>) -> u32 {
        let serial = context.files.create(name, context.clock.wall_ms());
        context.trace.note("create", &[u64::from(serial)]);
        // Where names are not counted, only births tell which file came after which; a clock that was set back makes them
        // lie.
        let is_after = |before: &u32| context.files.born_ns(*before) <= context.files.born_ns(serial);
        let predecessor = predecessor.filter(|before| self.counted_names || is_after(before));
        let incarnation = Incarnation { predecessor, known: false, unlinked: false, doomed: false };
        self.incarnations.insert(serial, incarnation);
        serial
    }

    fn write_lines(&mut self, at: usize, count: usize, context: &mut Context<'_>) {
        self.finish_piece(at, context);
        let serial = self.logs[at].writer;
        let mut bytes = Vec::new();
        for _ in 0..count {
            let line = self.new_line(serial, context);
            bytes.extend_from_slice(self.lines[line].text.as_bytes());
            bytes.push(b'\n');
            self.lines[line].complete = true;
        }
        context.files.append(serial, &bytes, context.clock.wall_ms());
        let (last, len) = (self.lines.len() as u64 - 1, context.files.len(serial) as u64);
        context.trace.note("write", &[u64::from(serial), count as u64, last, len]);
    }

    /// The text of the next line; nothing is written yet.
    fn new_line(&mut self, serial: u32, context: &mut Context<'_>) -> usize {
        let number = self.lines.len();
        let random = &mut *context.random;
        let length = match random.u8(..) {
            drawn if drawn < self.long_share => random.usize(500..3_500),
            _ => random.usize(0..40),
        };
        let mut filler = String::with_capacity(length + 16);
        while filler.len() < length {
            filler.push_str(&format!("{:016x}", random.u64(..)));
        }
        filler.truncate(length);
        let wall = context.clock.wall_ms();
        let (second, millisecond) = (wall.div_euclid(1000), wall.rem_euclid(1000));
        let status = [200, 200, 304, 404, 500][random.usize(0..5)];
        let is_request = random.u8(..) >= self.rubbish_share;
        let text = match (is_request, self.format) {
            (false, _) => format!("rubbish ~{number}~{filler}"),
            (true, LineFormat::Fixed) => {
                format!("{second}.{millisecond:03} {status} \"GET /~{number}~{filler} HTTP/1.1\"")
            }
            (true, LineFormat::Json) => format!(
                "{{\"msec\":\"{second}.{millisecond:03}\",\"status\":{status},\"request\":\"GET /~{number}~{filler} HTTP/1.1\"}}"
            ),
        };
        let optional = self.incarnations[&serial].doomed;
        self.lines.push(Line { text, is_request, optional, complete: false, abandoned: false, serial });
        number
    }

    /// Writes the beginning of a line, or the rest of one that was begun.
    fn write_piece(&mut self, at: usize, context: &mut Context<'_>) {
        if self.logs[at].rest.is_some() {
            return self.finish_piece(at, context);
        }
        let serial = self.logs[at].writer;
        let line = self.new_line(serial, context);
        let mut bytes = self.lines[line].text.clone().into_bytes();
        bytes.push(b'\n');
        // At least the number stands in the first piece, so that a line that was torn can be told.
        let number_end = bytes.iter().rposition(|byte| *byte == b'~').expect("every line has its number") + 1;
        let cut = context.random.usize(number_end..bytes.len());
        let rest = bytes.split_off(cut);
        context.files.append(serial, &bytes, context.clock.wall_ms());
        context.trace.note("piece", &[u64::from(serial), line as u64, cut as u64]);
        self.logs[at].rest = Some(Rest { line, bytes: rest });
    }

    fn finish_piece(&mut self, at: usize, context: &mut Context<'_>) {
        let serial = self.logs[at].writer;
        if let Some(rest) = self.logs[at].rest.take() {
            self.write_rest(serial, &rest, context);
        }
    }

    fn write_rest(&mut self, serial: u32, rest: &Rest, context: &mut Context<'_>) {
        context.files.append(serial, &rest.bytes, context.clock.wall_ms());
        context.trace.note("rest", &[u64::from(serial), rest.line as u64]);
        self.lines[rest.line].complete = true;
    }

    /// The rest of a line will never come: what is there is the line.
    fn abandon(&mut self, rest: &Rest, context: &mut Context<'_>) {
        let line = &mut self.lines[rest.line];
        context.trace.note("abandon", &[rest.line as u64]);
        line.abandoned = true;
        let kept = line.text.len() + 1 - rest.bytes.len();
        line.text.truncate(kept);
        // What is left of a line may or may not be a line of the format; nobody is asked for which.
        line.is_request = line.is_request && rest.bytes.len() == 1;
    }

    /// A writer that still holds an old file says its last words.
    fn write_late(&mut self, at: usize, context: &mut Context<'_>) {
        let count = self.logs[at].late.len();
        if count == 0 {
            return;
        }
        let which = context.random.usize(0..count);
        let serial = self.logs[at].late[which].serial;
        if let Some(rest) = self.logs[at].late[which].rest.take() {
            return self.write_rest(serial, &rest, context);
        }
        let line = self.new_line(serial, context);
        let text = format!("{}\n", self.lines[line].text);
        self.lines[line].complete = true;
        context.files.append(serial, text.as_bytes(), context.clock.wall_ms());
        context.trace.note("late", &[u64::from(serial), line as u64]);
    }

    fn rotate(&mut self, at: usize, context: &mut Context<'_>) {
        let kind = self.rotations[context.random.usize(0..self.rotations.len())];
        if self.logs[at].reopen_at.is_some() {
            return;
        }
        let (name, serial) = (self.logs[at].name.clone(), self.logs[at].writer);
        context.trace.note("rotate", &[u64::from(serial), kind as u64]);
        match kind {
            Rotation::Truncate => return self.truncate(at, context),
            Rotation::Unlink => {
                // The server holds it open once; whoever else does is the agent.
                let is_open = !context.in_tick && context.files.handles(serial) > 1;
                context.files.unlink(&name, context.clock.wall_ms());
                self.incarnation(serial).unlinked = true;
                if !is_open {
                    self.doom(serial);
                }
            }
            Rotation::RenameAndCreate | Rotation::RenameAndReopen => {
                if !self.is_reachable(serial) {
                    self.doom(serial);
                }
                self.rename(at, context);
            }
        }
        let now = context.clock.passed();
        let log = &mut self.logs[at];
        log.rotations += 1;
        log.rotated_at = now;
        log.reopen_at = Some(now + Duration::from_millis(context.random.u64(0..REOPEN_MAX_MS)));
        if kind == Rotation::RenameAndCreate {
            let created = self.create(&name, Some(serial), context);
            self.logs[at].created = Some(created);
        }
    }

    /// Renames the log as logrotate does, after those that were renamed before it.
    fn rename(&mut self, at: usize, context: &mut Context<'_>) {
        let now = context.clock.wall_ms();
        let log = &self.logs[at];
        if !self.counted_names {
            let stamp = 20_260_101 + log.rotations;
            context.files.rename(&log.name, &format!("{}-{stamp}", log.name), now);
            return;
        }
        for number in (1..=log.rotations).rev() {
            let from = format!("{}.{number}", log.name);
            if context.files.has(&from) {
                context.files.rename(&from, &format!("{}.{}", log.name, number + 1), now);
            }
        }
        context.files.rename(&log.name, &format!("{}.1", log.name), now);
    }

    /// What is in the file and was not read yet nobody will ever see.
    fn truncate(&mut self, at: usize, context: &mut Context<'_>) {
        if self.logs[at].rest.is_some() {
            return;
        }
        let serial = self.logs[at].writer;
        context.files.truncate(serial, 0, context.clock.wall_ms());
        self.truncations += 1;
        self.lines.iter_mut().filter(|line| line.serial == serial).for_each(|line| line.optional = true);
    }

    /// What is due by the clock.
    pub(super) fn act_due(&mut self, context: &mut Context<'_>) {
        let now = context.clock.passed();
        for at in 0..self.logs.len() {
            if self.logs[at].reopen_at.is_some_and(|due| due <= now) {
                self.reopen(at, context);
            }
            let (over, late) =
                std::mem::take(&mut self.logs[at].late).into_iter().partition(|late| late.until <= now);
            self.logs[at].late = late;
            let over: Vec<Late> = over;
            for late in over {
                self.let_go(late, context);
            }
        }
    }

    /// The writers open the new file; one may hold the old one a little longer.
    fn reopen(&mut self, at: usize, context: &mut Context<'_>) {
        let old = self.logs[at].writer;
        let name = self.logs[at].name.clone();
        let new = match self.logs[at].created.take() {
            Some(created) => created,
            None => self.create(&name, Some(old), context),
        };
        context.trace.note("reopen", &[u64::from(old), u64::from(new)]);
        let late_ms = context.random.u64(0..LATE_MAX_MS);
        let log = &mut self.logs[at];
        let until = log.rotated_at + Duration::from_millis(late_ms);
        log.writer = new;
        log.reopen_at = None;
        let late = Late { serial: old, until, rest: log.rest.take() };
        log.late.push(late);
    }

    fn let_go(&mut self, late: Late, context: &mut Context<'_>) {
        if let Some(rest) = &late.rest {
            let in_time = context.clock.passed() < late.until + Duration::from_millis(REOPEN_MAX_MS);
            if in_time && context.random.bool() {
                self.write_rest(late.serial, rest, context);
            } else {
                self.abandon(rest, context);
            }
        }
        context.trace.note("let go", &[u64::from(late.serial)]);
        context.files.close(late.serial);
    }

    /// The faults are over: every line gets its end, and every log its file.
    pub(super) fn settle(&mut self, context: &mut Context<'_>) {
        if self.logs.is_empty() {
            self.open_log(context);
        }
        for at in 0..self.logs.len() {
            self.finish_piece(at, context);
            if self.logs[at].reopen_at.is_some() {
                self.reopen(at, context);
            }
            for late in std::mem::take(&mut self.logs[at].late) {
                self.let_go(late, context);
            }
            self.write_lines(at, 1, context);
        }
    }

    /// The files that stand under the names of logs now.
    pub(super) fn named(&self, files: &FileSystem) -> Vec<u32> {
        self.logs.iter().filter_map(|log| files.serial_of(&log.name)).collect()
    }

    /// A tick is through, and whatever it found is durable: these files were there before and after it.
    pub(super) fn note_known(&mut self, before: &[u32], files: &FileSystem) {
        for serial in self.named(files) {
            let agent_has_it = files.handles(serial) > u32::from(self.is_held(serial));
            if before.contains(&serial) && agent_has_it {
                self.incarnation(serial).known = true;
            }
        }
    }

    fn is_held(&self, serial: u32) -> bool {
        self.logs.iter().any(|log| log.writer == serial || log.created == Some(serial))
    }

    /// A life of the agent ends: what has no name any more is gone with its descriptors.
    pub(super) fn agent_ended(&mut self) {
        let unlinked: Vec<u32> =
            self.incarnations.iter().filter(|(_, file)| file.unlinked).map(|(serial, _)| *serial).collect();
        for serial in unlinked {
            self.doom(serial);
        }
    }

    /// Whether an agent can find the file: it has seen it, or an unbroken row of files that had the name before it.
    fn is_reachable(&self, serial: u32) -> bool {
        let file = &self.incarnations[&serial];
        file.known
            || file
                .predecessor
                .is_some_and(|before| !self.incarnations[&before].unlinked && self.is_reachable(before))
    }

    fn doom(&mut self, serial: u32) {
        self.incarnation(serial).doomed = true;
        self.lines.iter_mut().filter(|line| line.serial == serial).for_each(|line| line.optional = true);
    }

    fn incarnation(&mut self, serial: u32) -> &mut Incarnation {
        self.incarnations.get_mut(&serial).expect("every file of the server is known to it")
    }
}
