//! The pretended nginx: a thread that writes the log, and rotates it as logrotate and nginx do together.
//!
//! Its count of lines is the one that the agent's is held against, so a line is counted once it is written, and
//! whatever cannot be written ends the demo.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::traffic::{Kind, Traffic};
use crate::clock::Now;
use crate::record::EpochMs;

/// The thread's name, by which its CPU time is told from the agent's.
pub(super) const THREAD_NAME: &str = "demo-writer";
/// Between two writes: nginx with a small buffer.
const WRITE_INTERVAL: Duration = Duration::from_millis(40);
/// Between the rename and the new file. logrotate renames first and tells nginx then; what nginx writes
/// between goes to the renamed file.
const REOPEN_DELAY: Duration = Duration::from_millis(300);
/// How many rotated files are kept.
const ROTATED_MAX: u32 = 2;

/// What the writer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Rotate the log.
    Rotate,
    /// A backend begins to fail, or is well again.
    Failing(bool),
    /// Write no more.
    Stop,
}

/// What was written, by kind; shared with whoever shows it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lines: AtomicU64,
    secrets: AtomicU64,
    torn: AtomicU64,
    files: AtomicU64,
}

/// The tally of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Complete lines.
    pub(super) lines: u64,
    /// Those with a secret in them.
    pub(super) secrets: u64,
    /// Those that no parser can read.
    pub(super) torn: u64,
    /// Files that were begun.
    pub(super) files: u64,
}

impl Tally {
    fn read(&self) -> Written {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Written {
            lines: read(&self.lines),
            secrets: read(&self.secrets),
            torn: read(&self.torn),
            files: read(&self.files),
        }
    }
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    /// Creates the log and begins to write.
    ///
    /// # Errors
    /// When the file cannot be created or the thread cannot be started.
    pub(super) fn start(path: &Path, seed: u64) -> io::Result<Writer> {
        let (orders, received) = mpsc::channel();
        let tally = Arc::new(Tally::default());
        let log = Log::create(path.to_owned(), Arc::clone(&tally))?;
        let thread = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || write_until_stopped(log, Traffic::new(seed), &received))?;
        Ok(Writer { orders, tally, thread: Some(thread) })
    }

    /// Tells the thread to do something soon. One that has ended says why when it is stopped.
    pub(super) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// What was written so far.
    pub(super) fn written(&self) -> Written {
        self.tally.read()
    }

    /// Whether the thread ended without being asked.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread; on return nothing more is written.
    ///
    /// # Errors
    /// What kept it from writing.
    pub(super) fn stop(&mut self) -> io::Result<Written> {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))?;
        }
        Ok(self.written())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn write_until_stopped(mut log: Log, mut traffic: Traffic, orders: &mpsc::Receiver<Order>) -> io::Result<()> {
    // The log begins with a whole second: half of one would read as a slow start.
    let start = Now::read();
    let head = Duration::from_millis(start.wall.rem_euclid(1000).unsigned_abs());
    let begun = start.monotonic.checked_sub(head).unwrap_or(start.monotonic);
    let mut failing = false;
    loop {
        let now = Now::read();
        let elapsed = now.since(begun);
        log.reopen_if_due(now.monotonic)?;
        // Where the wall clock stepped, the lines step with it, as nginx's do.
        let begun_ms = now.wall - elapsed.as_millis() as EpochMs;
        log.write(&mut traffic, elapsed, begun_ms, failing)?;
        match orders.recv_timeout(WRITE_INTERVAL) {
            Ok(Order::Rotate) => log.rename(Instant::now())?,
            Ok(Order::Failing(now_failing)) => failing = now_failing,
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The log file, and what has been written to it and its predecessors.
struct Log {
    path: PathBuf,
    file: File,
    reopen_at: Option<Instant>,
    tally: Arc<Tally>,
    buffer: Vec<u8>,
}

impl Log {
    fn create(path: PathBuf, tally: Arc<Tally>) -> io::Result<Log> {
        let file = open(&path)?;
        tally.files.fetch_add(1, Ordering::Release);
        Ok(Log { path, file, reopen_at: None, tally, buffer: Vec::new() })
    }

    /// Writes every line that is due.
    fn write(
        &mut self,
        traffic: &mut Traffic,
        elapsed: Duration,
        begun_ms: EpochMs,
        failing: bool,
    ) -> io::Result<()> {
        self.buffer.clear();
        let mut written = Written::default();
        while traffic.due() <= elapsed {
            let entry = traffic.next(begun_ms, failing);
            self.buffer.extend_from_slice(entry.text.as_bytes());
            self.buffer.push(b'\n');
            written.lines += 1;
            written.secrets += u64::from(entry.kind == Kind::Secret);
            written.torn += u64::from(entry.kind == Kind::Torn);
        }
        self.file.write_all(&self.buffer)?;
        self.tally.lines.fetch_add(written.lines, Ordering::Release);
        self.tally.secrets.fetch_add(written.secrets, Ordering::Release);
        self.tally.torn.fetch_add(written.torn, Ordering::Release);
        Ok(())
    }

    /// The first half of a rotation: the file gets another name, and is written on.
    fn rename(&mut self, now: Instant) -> io::Result<()> {
        if self.reopen_at.is_some() {
            return Ok(());
        }
        for number in (1..ROTATED_MAX).rev() {
            let (from, to) = (self.rotated(number), self.rotated(number + 1));
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.rotated(1))?;
        self.reopen_at = Some(now + REOPEN_DELAY);
        Ok(())
    }

    /// The second half: nginx opens its log anew.
    fn reopen_if_due(&mut self, now: Instant) -> io::Result<()> {
        if self.reopen_at.is_some_and(|reopen_at| now >= reopen_at) {
            self.file = open(&self.path)?;
            self.reopen_at = None;
            self.tally.files.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.path.with_extension(format!("log.{number}"))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_the_log_or_in_its_predecessor() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let mut log = Log::create(path.clone(), Arc::default()).expect("a log");
        let mut traffic = Traffic::new(1);
        let now = Instant::now();
        let begun_ms = 1_790_000_000_000;
        let mut write = |log: &mut Log, elapsed_s| {
            log.write(&mut traffic, Duration::from_secs(elapsed_s), begun_ms, false).expect("written");
        };
        let lines = |name: &str| {
            let text = fs::read_to_string(directory.path().join(name)).unwrap_or_default();
            assert!(text.is_empty() || text.ends_with('\n'));
            text.lines().count() as u64
        };
        write(&mut log, 1);
        let before = lines("access.log");
        log.rename(now).expect("renamed");
        write(&mut log, 2);
        assert!(!path.exists() && lines("access.log.1") > before, "the renamed file is written on");
        log.reopen_if_due(now).expect("too early");
        assert!(!path.exists());
        log.reopen_if_due(now + REOPEN_DELAY).expect("opened");
        write(&mut log, 3);
        let written = log.tally.read();
        assert!(lines("access.log") > 0);
        assert_eq!(written.lines, lines("access.log") + lines("access.log.1"));
        assert_eq!(written.files, 2);

        for _ in 0..3 {
            log.rename(now).expect("renamed");
            log.reopen_if_due(now + REOPEN_DELAY).expect("opened");
        }
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .expect("the directory")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["access.log", "access.log.1", "access.log.2"], "the disk is not filled");
    }

    #[test]
    fn it_stops_and_says_what_failed() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = Writer::start(&directory.path().join("access.log"), 1).expect("it starts");
        writer.order(Order::Failing(true));
        writer.stop().expect("all was well");

        let mut writer = Writer::start(&directory.path().join("b.log"), 1).expect("it starts");
        fs::remove_file(directory.path().join("b.log")).expect("removed");
        writer.order(Order::Rotate);
        assert!(writer.stop().is_err(), "a file that is gone cannot be renamed");
    }
}
