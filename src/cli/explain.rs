//! `watchpost explain 'LINE'`: how one line reads, field by field, and what would be shipped of it; or why it does not.
//!
//! Owns the words for one line. It asks the same plan, parser, redactor and record writer as the agent, so that what
//! it says is what happens. What it must never do: let a byte of the line act upon the terminal, or call a line that
//! does not parse a failure: it is counted and shipped like any other.
//!
//! `fields` shows values, `doctor` says what the format leaves out.

mod doctor;
mod fields;

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use watchpost_parsers::{AccessLine, Format, Parser, Unparsed, route};

use super::analyze::{rfc3339, write_out};
use super::{Failure, exit, grouped, printable, printable_json};
use crate::agent::line_reader::LineReader;
use crate::agent::plan::{LogPlan, Plan, Reading};
use crate::batch::line::{self, Marks};
use crate::batch::redact::Redactor;
use crate::clock::Now;
use crate::config::{Config, LogFormat, Redact, ShipLines};
use crate::follow::LINE_BYTES_MAX;
use crate::record::EpochMs;

/// Columns of the label before each row.
const LABEL_WIDTH: usize = 24;

/// First status that `WATCHPOST_SHIP_LINES=errors` ships.
const FIRST_ERROR_STATUS: u16 = 400;

/// Bytes of the line that are shown before and behind the place where it stops being one.
const EXCERPT_BYTES: usize = 36;

/// `watchpost explain 'LINE'`.
///
/// # Errors
/// 78 for a format of the settings that does not compile; 74 when stdout cannot be written.
pub fn run(line: &OsStr, config: &Config) -> Result<(), Failure> {
    let plan = Plan::new(config).map_err(|error| Failure::new(exit::SETTINGS, error.to_string()))?;
    write_out(explained(line.as_bytes(), config, &plan, Now::read().wall).as_bytes())
}

/// Everything that is to be said about a line that is read at `read_at`.
fn explained(argument: &[u8], config: &Config, plan: &Plan, read_at: EpochMs) -> String {
    let mut out = String::new();
    let text = argument.strip_suffix(b"\n").unwrap_or(argument);
    let whole = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if whole.len() < text.len() {
        out.push_str("Only the first line is explained: a newline ends a line.\n\n");
    }
    let whole = whole.strip_suffix(b"\r").unwrap_or(whole);
    let cut = whole.len() > LINE_BYTES_MAX;
    let bytes = &whole[..whole.len().min(LINE_BYTES_MAX)];
    let log = plan.for_any_line();
    let is_json = log_is_json(log, config, bytes);
    row(&mut out, "format", &format_of(log, is_json));
    row(&mut out, "line", &format!("{} bytes{}", grouped(whole.len() as u64), cut_note(cut)));
    out.push('\n');
    let mut reader = LineReader::new(log);
    let (parser, vhost) = reader.parser(bytes);
    let format = parser.format().clone();
    let (time_ms, status) = match parser.parse(bytes) {
        Ok(parsed) => {
            show(&mut out, &parsed, vhost, &format);
            doctor::missing(&mut out, &parsed, &format, vhost.is_some(), kind_of(log, config, is_json));
            (parsed.time_ms, Some(parsed.status))
        }
        Err(reason) => {
            unparsed(&mut out, bytes, reason);
            other_formats(&mut out, bytes, plan);
            (None, None)
        }
    };
    out.push('\n');
    row(&mut out, "counted", counted(status, time_ms.is_some()));
    row(&mut out, "shipped", &shipped(config, status));
    let original_bytes = cut.then_some(whole.len() as u64 + 1);
    record(&mut out, bytes, config, time_ms.unwrap_or(read_at), Marks { original_bytes, partial: false });
    out
}

fn cut_note(cut: bool) -> String {
    if cut {
        format!(", of which the first {} are read", grouped(LINE_BYTES_MAX as u64))
    } else {
        String::new()
    }
}

/// Whether the line is read as JSON with any of the known keys.
fn log_is_json(log: &LogPlan, config: &Config, line: &[u8]) -> bool {
    match log.reading {
        Reading::Detect => line.trim_ascii_start().first() == Some(&b'{'),
        Reading::Format(_) => config.access_log_format == LogFormat::Json,
    }
}

fn format_of(log: &LogPlan, is_json: bool) -> String {
    let name = printable(log.format_name.as_bytes());
    match log.reading {
        Reading::Detect => format!("{name}: here {}", if is_json { "JSON" } else { "combined" }),
        Reading::Format(_) if log.pattern.is_empty() => name,
        Reading::Format(_) => format!("{name}, of {}", printable(log.pattern.as_bytes())),
    }
}

/// How the operator would add a field to the format.
fn kind_of(log: &LogPlan, config: &Config, is_json: bool) -> doctor::Kind {
    match &config.access_log_format {
        LogFormat::Regex(_) => doctor::Kind::Regex,
        _ if is_json => doctor::Kind::Json,
        _ if matches!(log.reading, Reading::Detect) || log.format_name == "combined" => {
            doctor::Kind::Combined
        }
        _ => doctor::Kind::LogFormat,
    }
}

fn show(out: &mut String, parsed: &AccessLine<'_>, vhost: Option<&[u8]>, format: &Format) {
    for field in format.fields().iter() {
        let value = fields::value(field, parsed, format.value_escape());
        row(out, fields::name(field), value.as_deref().unwrap_or("-"));
    }
    if let (None, Some(vhost)) = (parsed.vhost, vhost) {
        row(out, "vhost", &format!("{}   nginx.conf gives the log to it alone", printable(vhost)));
    }
    let mut text = String::new();
    route::route(parsed.method, parsed.target, &mut text);
    row(out, "route", &printable(text.as_bytes()));
}

fn unparsed(out: &mut String, line: &[u8], reason: Unparsed) {
    let _ = writeln!(out, "unparsed: {reason}");
    let column = match reason {
        Unparsed::CutShort { column, .. }
        | Unparsed::NoMatch { column, .. }
        | Unparsed::BadStatus { column }
        | Unparsed::BadNumber { column, .. }
        | Unparsed::BadTime { column, .. }
        | Unparsed::NotJson { column }
        | Unparsed::WrongType { column, .. } => column,
        Unparsed::Empty | Unparsed::TooLong { .. } | Unparsed::Binary => return,
    };
    let at = column.saturating_sub(1).min(line.len());
    let before = printable(&line[at.saturating_sub(EXCERPT_BYTES)..at]);
    let behind = printable(&line[at..line.len().min(at + EXCERPT_BYTES)]);
    let _ = writeln!(out, "  {before}{behind}");
    let _ = writeln!(out, "  {:>width$}", "^", width = before.chars().count() + 1);
}

/// Formats that would read a line: those of nginx.conf, then the built-in ones.
fn other_formats(out: &mut String, line: &[u8], plan: &Plan) {
    let reads = |format: &Format| Parser::new(format.clone()).parse(line).is_ok();
    for log in &plan.logs {
        if let Reading::Format(format) = &log.reading
            && reads(format)
        {
            let (name, path) = (printable(log.format_name.as_bytes()), printable(log.pattern.as_bytes()));
            let _ = writeln!(out, "It does read as {name}, the format of {path}.");
            return;
        }
    }
    for (name, format) in [("combined", Format::combined()), ("json", Format::json())] {
        if reads(&format) {
            let _ = writeln!(out, "It does read as {name}: WATCHPOST_ACCESS_LOG_FORMAT={name}");
            return;
        }
    }
    out.push_str(
        "If it is an access line, give its log_format as in nginx.conf: WATCHPOST_ACCESS_LOG_FORMAT, or\n\
         --access-log-format '...' to try it here.\n",
    );
}

/// What becomes of it in the counts; `status` is `None` for a line that did not parse.
fn counted(status: Option<Option<u16>>, has_time: bool) -> &'static str {
    match status {
        None => "as unparsed, with its reason; never silently dropped",
        Some(_) if !has_time => "as a request of the moment when it is read: it has no time",
        Some(Some(500..=599)) => "as a request in the second of its time, and as an error",
        Some(_) => "as a request in the second of its time",
    }
}

fn shipped(config: &Config, status: Option<Option<u16>>) -> String {
    let is_error = status.is_none_or(|status| status.is_some_and(|status| status >= FIRST_ERROR_STATUS));
    let why =
        if status.is_none() { "an unparsed line goes with the errors" } else { "a status of 400 or more" };
    let verdict = match config.ship_lines {
        ShipLines::All => "yes: WATCHPOST_SHIP_LINES=all".to_owned(),
        ShipLines::None => "no: WATCHPOST_SHIP_LINES=none".to_owned(),
        ShipLines::Errors if is_error => format!("yes: WATCHPOST_SHIP_LINES=errors, {why}"),
        ShipLines::Errors => "no: WATCHPOST_SHIP_LINES=errors, a status below 400".to_owned(),
        ShipLines::Sample(share) if is_error => format!("yes: WATCHPOST_SHIP_LINES=sample:{share}, {why}"),
        ShipLines::Sample(share) => {
            format!(
                "perhaps: WATCHPOST_SHIP_LINES=sample:{share}, drawn by the line and its place in the file"
            )
        }
    };
    let unset =
        if config.sumo_url.is_none() { "; WATCHPOST_SUMO_URL is unset, so nothing goes out" } else { "" };
    format!("{verdict}{unset}")
}

/// What redaction changes, and the record.
fn record(out: &mut String, line: &[u8], config: &Config, timestamp: EpochMs, marks: Marks) {
    let mut masked = Vec::new();
    let redacted = match &config.redact {
        Redact::Off => None,
        Redact::On { extra } => Redactor::new(extra).mask(line, &mut masked),
    };
    let said = match (&config.redact, redacted) {
        (Redact::Off, _) => "no: WATCHPOST_REDACT=off",
        (_, None) => "nothing to mask",
        (_, Some(_)) => "yes: values of secret-looking query parameters are masked as ***",
    };
    row(out, "redacted", said);
    let mut record = Vec::new();
    // One byte of the limit of a batch is the newline behind the record.
    let record_bytes_max = config.batch_max_bytes as usize - 1;
    line::write(&mut record, timestamp, redacted.unwrap_or(line), marks, record_bytes_max);
    let _ = write!(out, "record\n{}\n", printable_json(&record));
}

fn row(out: &mut String, label: &str, text: &str) {
    let _ = writeln!(out, "{label:<LABEL_WIDTH$}{text}");
}

#[cfg(test)]
mod tests;
