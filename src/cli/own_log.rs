//! The agent's own log: to stderr, with journald's priorities where journald reads it.
//!
//! Must never let a text from outside begin a line of its own or act on a terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::printable;
use crate::config::LogLevel;

/// Set by systemd when stderr goes to the journal: systemd.exec(5).
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// Begins to print. Later calls change nothing.
pub fn start(level: LogLevel, environment: &BTreeMap<String, String>) {
    let journal = environment.contains_key(JOURNAL_VARIABLE);
    let format = if journal { Format::Journal } else { Format::Plain };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level.level())
        .with_writer(io::stderr)
        .with_ansi(false)
        .event_format(format)
        .try_init();
}

#[derive(Clone, Copy, Debug)]
enum Format {
    /// Priority in front, no time: the journal keeps its own. sd-daemon(3).
    Journal,
    /// Time and level in front.
    Plain,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        match self {
            Format::Journal => write!(writer, "<{}>", priority(level))?,
            Format::Plain => {
                SystemTime.format_time(&mut writer)?;
                write!(writer, " {level:5} ")?;
            }
        }
        // Paths and answers of strangers stand in it: one event is one line, and none of it acts on a terminal.
        let mut said = String::new();
        context.field_format().format_fields(Writer::new(&mut said), event)?;
        writeln!(writer, "{}", printable(said.as_bytes()))
    }
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
