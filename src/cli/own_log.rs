//! The agent's own log: to stderr, with journald's priorities where journald reads it.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogLevel;

/// Set by systemd when stderr goes to the journal.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// Begins to print. Later calls change nothing.
pub fn start(level: LogLevel) {
    let format = if std::env::var_os(JOURNAL_VARIABLE).is_some() { Format::Journal } else { Format::Plain };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level.level())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
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
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
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
