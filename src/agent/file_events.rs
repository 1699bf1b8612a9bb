//! What happened to followed files, in words: an event for each.
//!
//! Whoever counts a loss does so elsewhere; here it is only said, with the place in the file.

use std::ops::Range;
use std::path::Path;

use super::events::{Event, Severity};
use crate::record::Loss;

/// A truncated or rewritten file, and the copy in which the rest of it is read. `Error` where something is known to
/// be lost.
pub(super) fn rewritten(path: &Path, copy: Option<&Path>, lost: Loss, range: &Range<u64>) -> Event {
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
    let event = Event::new("watchpost.file.rewritten", severity(lost), message).with("path", path);
    let event = event.with("lost_bytes", lost.bytes).with("from", range.start).with("to", range.end);
    match copy {
        Some(copy) => event.with("copy", copy.display().to_string()),
        None => event,
    }
}

/// A file that is gone since the last run. `Error` unless it had been read to its last known byte.
pub(super) fn vanished(path: &Path, lost: Loss, range: &Range<u64>, compressed: Option<&Path>) -> Event {
    let path = path.display().to_string();
    let mut message = format!("{path} is gone since the last run; ");
    message += &match lost.bytes {
        0 => format!("it had been read to byte {}, the last one known", range.start),
        bytes => format!("{bytes} bytes of it, {} to {}, were not read", range.start, range.end),
    };
    message += "; what was written behind them is unknown";
    if let Some(compressed) = compressed {
        message += &format!("; {} may hold it, but only gzip is understood", compressed.display());
    }
    let event = Event::new("watchpost.file.vanished", severity(lost), message).with("path", path);
    event.with("offset", range.start).with("lost_bytes", lost.bytes).with("to", range.end)
}

/// A compressed file whose end is missing or damaged. How much that was nobody knows.
pub(super) fn unreadable(path: &Path, offset: u64, reason: &str) -> Event {
    let path = path.display().to_string();
    let message = format!("{path}: {reason}; what was written behind byte {offset} is unknown");
    let event = Event::new("watchpost.file.unreadable", Severity::Error, message);
    event.with("path", path).with("offset", offset)
}

/// A file whose beginning was read in another.
pub(super) fn copied(path: &Path, original: &Path, offset: u64) -> Event {
    let (path, original) = (path.display().to_string(), original.display().to_string());
    let message = format!("the first {offset} bytes of {path} were read in {original}");
    let event = Event::new("watchpost.file.copied", Severity::Info, message);
    event.with("path", path).with("original", original).with("offset", offset)
}

/// NUL bytes in the place of lines.
pub(super) fn hole(path: &Path, offset: u64, bytes: u64) -> Event {
    let path = path.display().to_string();
    let message = format!("{path} has a hole of {bytes} NUL bytes before byte {offset}; they are no line");
    let event = Event::new("watchpost.file.hole", Severity::Warn, message);
    event.with("path", path).with("offset", offset).with("nul_bytes", bytes)
}

fn severity(lost: Loss) -> Severity {
    if lost == Loss::default() { Severity::Warn } else { Severity::Error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_an_error_and_names_the_bytes() {
        let path = Path::new("/var/log/a.log");
        let lost = Loss { lines: 0, bytes: 5 };
        for event in [rewritten(path, None, lost, &(10..15)), vanished(path, lost, &(10..15), None)] {
            assert_eq!(event.severity, Severity::Error);
            assert!(event.message.contains("10 to 15"), "{}", event.message);
        }
        let copy = Path::new("/var/log/a.log.1");
        for event in [
            rewritten(path, Some(copy), Loss::default(), &(15..15)),
            vanished(path, Loss::default(), &(15..15), Some(copy)),
        ] {
            assert_eq!(event.severity, Severity::Warn, "nothing is known to be lost");
            assert!(event.message.contains("a.log.1"), "{}", event.message);
        }
    }
}
