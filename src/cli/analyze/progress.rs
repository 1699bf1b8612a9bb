//! How far the reading is, on stderr: only for a terminal, and only when there is enough to wait for.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::size;

/// Input that takes less than a moment; nothing is shown before so much was read.
const QUIET_BYTES: u64 = 64 * 1024 * 1024;

/// Between two showings.
const INTERVAL: Duration = Duration::from_millis(250);

/// Counts bytes and shows them.
pub(super) struct Progress(Rc<State>);

struct State {
    is_terminal: bool,
    /// Bytes of all files; `None` where one is a pipe.
    total: Option<u64>,
    bytes: Cell<u64>,
    shown: Cell<Option<Instant>>,
}

impl Progress {
    /// Looks up how much there is to read.
    pub(super) fn new(files: &[PathBuf]) -> Progress {
        let length = |path: &PathBuf| match std::fs::metadata(path) {
            Ok(metadata) => metadata.is_file().then_some(metadata.len()),
            Err(_) if path.as_os_str() == super::STDIN => None,
            Err(_) => Some(0),
        };
        Progress(Rc::new(State {
            is_terminal: io::stderr().is_terminal(),
            total: files.iter().map(length).sum(),
            bytes: Cell::new(0),
            shown: Cell::new(None),
        }))
    }

    /// Bytes read so far, as they lie on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// Wipes what is shown.
    pub(super) fn end(&self) {
        if self.0.shown.get().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl State {
    fn add(&self, count: usize) {
        let bytes = self.bytes.get() + count as u64;
        self.bytes.set(bytes);
        if self.is_terminal
            && bytes >= QUIET_BYTES
            && self.shown.get().is_none_or(|at| at.elapsed() >= INTERVAL)
        {
            self.shown.set(Some(Instant::now()));
            // A terminal that cannot be written to is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[Kread {}", so_far(bytes, self.total));
        }
    }
}

fn so_far(bytes: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = (u128::from(bytes) * 100 / u128::from(total)).min(100);
            format!("{} of {}  {percent} %", size(bytes), size(total))
        }
        None => size(bytes),
    }
}

/// A reader whose bytes are counted.
pub(super) struct Metered<R> {
    inner: R,
    state: Rc<State>,
}

impl<R: Read> Metered<R> {
    /// Counts what `inner` gives.
    pub(super) fn new(inner: R, progress: &Progress) -> Metered<R> {
        Metered { inner, state: Rc::clone(&progress.0) }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.state.add(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_no_share() {
        assert_eq!(so_far(1 << 20, Some(4 << 20)), "1.0 MiB of 4.0 MiB  25 %");
        assert_eq!(so_far(1 << 20, None), "1.0 MiB");
        assert_eq!(so_far(5, Some(4)), "5 B of 4 B  100 %");
    }
}
