//! `watchpost analyze`: one pass over log files, one report, as text or as JSON.
//!
//! Owns the order of things: open, read, count, print, fail. What it must never do: hold more memory for a larger
//! log, stop at a file that cannot be read while others can, or let a byte of a log act upon the terminal.
//!
//! `input` gives lines, `formats` reads them, `tally` counts (`top` the names, `rates` the times), `report` puts
//! the counts into words, `text` shows them, `progress` says how far it is.

mod formats;
mod input;
mod progress;
mod rates;
mod report;
mod tally;
mod text;
mod top;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use self::formats::Formats;
use self::input::BLOCK_BYTES;
use self::progress::{Metered, Progress};
use self::report::{FileReport, Report};
use self::tally::Tally;
use super::{Failure, exit, grouped, printable, printable_json};
use crate::agent::line_reader::LineReader;
use crate::config::Config;

#[cfg(fuzzing)]
pub use self::input::lines_of;
pub(super) use self::report::rfc3339;

/// What stands for stdin.
const STDIN: &str = "-";

/// `watchpost analyze FILE...`: one report over all files, in the order given.
///
/// # Errors
/// 78 for a format that does not compile; after the report, 77 or 74 with each file that could not be read whole;
/// 74 when stdout cannot be written. A reader of stdout that has seen enough is no error.
pub fn run(files: &[PathBuf], json: bool, config: &Config) -> Result<(), Failure> {
    let formats = Formats::new(config).map_err(|error| Failure::new(exit::SETTINGS, error.to_string()))?;
    let progress = Progress::new(files);
    let mut tally = Tally::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut reports = Vec::new();
    let mut failures = Vec::new();
    for (index, path) in files.iter().enumerate() {
        let mut lines = formats.reader(path);
        let bytes_before = progress.bytes();
        let lines_before = tally.lines;
        let read = read_file(path, index, &mut lines, &progress, &mut block, &mut tally);
        let count = tally.lines - lines_before;
        let error = read.err().map(|error| explained(path, &error, count));
        reports.push(FileReport {
            path: shown(path),
            format: printable(lines.format_name().as_bytes()),
            bytes: progress.bytes() - bytes_before,
            lines: count,
            error: error.as_ref().map(|failure| failure.message.clone()),
        });
        failures.extend(error);
    }
    progress.end();
    let report = Report::new(&tally, reports);
    let nothing_was_read = failures.len() == files.len() && tally.lines == 0;
    if json || !nothing_was_read {
        print(&report, json)?;
    }
    together(failures)
}

fn read_file(
    path: &Path,
    index: usize,
    lines: &mut LineReader,
    progress: &Progress,
    block: &mut [u8],
    tally: &mut Tally,
) -> io::Result<()> {
    let raw: Box<dyn io::Read> = if path.as_os_str() == STDIN {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let mut reader = input::unpacked(Metered::new(raw, progress))?;
    let mut number = 0;
    input::for_each_line(&mut reader, block, |line, cut| {
        number += 1;
        tally.take(lines, line, cut, tally::Place { file: index, line: number });
    })
}

/// A failed file with what is known of it: the lines before the damage are in the report.
fn explained(path: &Path, error: &io::Error, lines: u64) -> Failure {
    let shown = shown(path);
    let is_damage = matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    );
    let what = if is_damage { format!("{shown}: damaged gzip") } else { shown };
    let mut failure = Failure::io(what, error);
    if lines > 0 {
        failure.message.push_str(&format!("; the {} lines before that are in the report", grouped(lines)));
    }
    failure
}

fn shown(path: &Path) -> String {
    if path.as_os_str() == STDIN {
        "stdin".to_owned()
    } else {
        printable(path.as_os_str().as_encoded_bytes())
    }
}

/// All failures as one: 77 where rights alone were missing, else 74.
fn together(failures: Vec<Failure>) -> Result<(), Failure> {
    if failures.is_empty() {
        return Ok(());
    }
    let denied = failures.iter().all(|failure| failure.code == exit::PERMISSION);
    let messages: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
    Err(Failure::new(if denied { exit::PERMISSION } else { exit::IO }, messages.join("\n")))
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    let mut shown = if json {
        let json = serde_json::to_string_pretty(report).expect("a report has string keys and finite numbers");
        printable_json(json.as_bytes())
    } else {
        text::render(report)
    };
    if json {
        shown.push('\n');
    }
    write_out(shown.as_bytes())
}

/// Writes to stdout. Whoever closed the pipe has seen enough.
pub(super) fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("stdout cannot be written", &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
