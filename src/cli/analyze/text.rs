//! The report for a terminal of eighty columns. Pure: a report in, text out.
//!
//! What is not in the log is said to be missing, with what would bring it, never shown as zero. Names were made safe
//! by the report; what it must never do: emit a control character but the line feed.

use std::fmt::Write;

use jiff::Timestamp;

use super::report::{PointReport, Report, RowReport};
use super::top::OTHER;
use crate::cli::{grouped, size};

mod chart;

/// Columns of the whole report.
const WIDTH: usize = 80;

/// Columns of the label before each row of the head.
const LABEL_WIDTH: usize = 12;

/// Names of a table that are shown; `--json` has more.
const ROWS_MAX: usize = 10;

/// Columns of the bars behind the status codes.
const BAR_WIDTH: usize = 40;

/// Where most lines do not parse the format is another one, and single lines do not matter.
const OTHER_FORMAT_SHARE: f64 = 0.5;

/// The whole report, ending in a line feed.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    if !report.series.is_empty() {
        over_time(&mut out, report);
    }
    status(&mut out, report);
    let has_latency = report.latency_s.is_some();
    table(&mut out, "vhosts", &report.vhosts, has_latency, shortened);
    table(&mut out, "routes", &report.routes, has_latency, shortened);
    table(&mut out, "agents", &report.agents, has_latency, squeezed);
    table(&mut out, "referers", &report.referers, has_latency, shortened);
    table(&mut out, "clients", &report.clients, has_latency, shortened);
    unparsed(&mut out, report);
    hints(&mut out, report);
    out
}

fn head(out: &mut String, report: &Report) {
    let bytes = report.files.iter().map(|file| file.bytes).sum();
    let lines = grouped(report.lines);
    match report.files.as_slice() {
        [file] => {
            row(out, "log", &format!("{}  {}", file.path, size(bytes)));
            row(out, "format", &file.format);
        }
        files => {
            row(out, "logs", &format!("{} files  {}", files.len(), size(bytes)));
            for file in files {
                let failed = if file.error.is_some() { "  ! not read whole" } else { "" };
                row(out, "", &format!("{:>13} lines  {}{failed}", grouped(file.lines), file.path));
            }
        }
    }
    let unparsed = grouped(report.unparsed);
    row(out, "lines", &format!("{lines} = {} requests + {unparsed} unparsed", grouped(report.requests)));
    if let (Some(first), Some(last), Some(span_s)) = (&report.first, &report.last, report.span_s) {
        row(out, "time", &format!("{first} to {last}  ({})", duration(span_s)));
    }
    if let (Some(mean), Some(peak), Some(at)) = (report.qps_mean, report.qps_peak_1s, &report.qps_peak_at) {
        let bound = if report.qps_peak_exact { "" } else { "at least " };
        let peak = grouped(peak);
        row(out, "requests/s", &format!("mean {}   peak {bound}{peak} in the second {at}", rate(mean)));
    }
    let each = report.bytes_sent.checked_div(report.requests).unwrap_or(0);
    row(out, "sent", &format!("{}   {} a request", size(report.bytes_sent), size(each)));
    if let Some(error_rate) = report.error_rate {
        let of = format!("{} of {} requests", grouped(report.errors), grouped(report.requests));
        row(out, "errors 5xx", &format!("{}   {of}", percent(error_rate)));
    }
    if let Some(latency) = &report.latency_s {
        let quantiles =
            [("p50", latency.p50), ("p90", latency.p90), ("p95", latency.p95), ("p99", latency.p99)];
        let all = quantiles.into_iter().chain([("max", Some(latency.max))]);
        let shown: Vec<String> =
            all.filter_map(|(name, value)| Some(format!("{name} {}", seconds(value?)))).collect();
        row(out, "latency", &shown.join("   "));
    }
    let methods: Vec<String> =
        report.methods.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    row(out, "methods", &methods.join("   "));
}

fn over_time(out: &mut String, report: &Report) {
    let columns = chart::columns(&report.series, report.series_width_s);
    let Some(first) = columns.first() else { return };
    heading(out, &format!("requests a second, {} a column", duration(first.seconds)));
    chart::draw(out, &columns, rate);
}

fn status(out: &mut String, report: &Report) {
    if report.status.is_empty() {
        return;
    }
    heading(out, "status");
    let most = report.status.values().copied().max().unwrap_or(1);
    for (code, count) in &report.status {
        let share = percent(*count as f64 / report.requests as f64);
        let line = format!("  {code}{:>14}{share:>9}  {}", grouped(*count), bar(*count, most));
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// A bar of eighths of a column; what happened at all is visible.
fn bar(count: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = ((count as f64 / most as f64) * (BAR_WIDTH * 8) as f64).ceil() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn table(
    out: &mut String,
    title: &str,
    rows: &[RowReport],
    has_latency: bool,
    fit: fn(&str, usize) -> String,
) {
    if rows.is_empty() {
        return;
    }
    let latency_head = if has_latency { format!("{:>10}", "mean") } else { String::new() };
    let figures = format!("{:>12}{:>8}{:>8}{latency_head}", "requests", "share", "5xx");
    let name_width = WIDTH - figures.chars().count();
    let _ = write!(out, "\n{title:<name_width$}{figures}\n");
    let (named, remainder) = match rows {
        [named @ .., last] if last.name == OTHER => (named, Some(last)),
        named => (named, None),
    };
    for shown in named.iter().take(ROWS_MAX) {
        let name = fit(&shown.name, name_width - 3);
        let bound = if shown.missed_max > 0 { "≥" } else { "" };
        let count = format!("{bound}{}", grouped(shown.requests));
        let mean = if has_latency {
            format!("{:>10}", shown.latency_mean_s.map_or("-".to_owned(), seconds))
        } else {
            String::new()
        };
        let figures = format!("{count:>12}{:>8}{:>8}{mean}", percent(shown.share), percent(shown.error_rate));
        let _ = writeln!(out, "  {name:<width$}{figures}", width = name_width - 2);
    }
    let hidden = &named[named.len().min(ROWS_MAX)..];
    let rest = || hidden.iter().chain(remainder);
    let requests: u64 = rest().map(|row| row.requests).sum();
    if requests > 0 {
        let share = percent(rest().map(|row| row.share).sum());
        let errors = rest().map(|row| row.errors).sum::<u64>() as f64 / requests as f64;
        let figures = format!("{:>12}{share:>8}{:>8}", grouped(requests), percent(errors));
        let _ = writeln!(out, "  {:<width$}{figures}", "all others", width = name_width - 2);
    }
}

/// What did not parse, and how to find out more.
fn unparsed(out: &mut String, report: &Report) {
    if report.unparsed == 0 {
        return;
    }
    heading(out, "unparsed");
    for example in &report.unparsed_examples {
        let count = report.unparsed_reasons.get(example.reason).copied().unwrap_or(0);
        let _ = writeln!(out, "  {:<11}{:>13}  {}", example.reason, grouped(count), example.message);
        let _ = writeln!(out, "  {:<26}first at {}, line {}", "", example.file, example.line);
    }
    if let Some(example) = report.unparsed_examples.iter().find(|example| example.reason != "empty") {
        let _ = writeln!(
            out,
            "  see why: watchpost explain -- \"$({})\"",
            show_line(&example.file, example.line)
        );
    }
    if report.unparsed as f64 > report.lines as f64 * OTHER_FORMAT_SHARE {
        out.push_str(
            "  Most lines have another format: give the log_format of nginx.conf with\n  --access-log-format '...' \
             (WATCHPOST_ACCESS_LOG_FORMAT).\n",
        );
    }
}

/// The shell command that prints one line of a file.
fn show_line(file: &str, line: u64) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+,:@%".contains(character);
    let quoted =
        if file.chars().all(plain) { file.to_owned() } else { format!("'{}'", file.replace('\'', r"'\''")) };
    if file == "stdin" {
        return format!("... | sed -n {line}p");
    }
    let unpack = if file.ends_with(".gz") { "zcat" } else { "cat" };
    format!("{unpack} {quoted} | sed -n {line}p")
}

/// What the log does not tell, and the nginx variable that would.
fn hints(out: &mut String, report: &Report) {
    if report.requests == 0 {
        return;
    }
    let mut missing = Vec::new();
    if report.latency_s.is_none() {
        missing.push("latency ($request_time)");
    }
    if report.vhosts.is_empty() {
        missing.push("vhosts ($host)");
    }
    if !missing.is_empty() {
        let _ = write!(out, "\nNot in this log: {}. Add them to log_format.\n", missing.join(", "));
    }
    for (count, what) in [
        (report.without_time, "requests have no usable time; they are in no rate"),
        (report.without_status, "requests have no status"),
        (report.truncated_lines, "lines were longer than 64 KiB; their beginning was read"),
    ] {
        if count > 0 {
            let _ = write!(out, "\n{} {what}.\n", grouped(count));
        }
    }
}

fn heading(out: &mut String, text: &str) {
    let _ = write!(out, "\n{text}\n");
}

fn row(out: &mut String, label: &str, line: &str) {
    let line = format!("{label:<LABEL_WIDTH$}{line}");
    out.push_str(line.trim_end());
    out.push('\n');
}

/// The beginning of a name that is too long.
fn shortened(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width - 1).chain(['…']).collect()
}

/// Both ends of a name that is too long: what tells user agents apart stands at the end.
fn squeezed(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let front = (width - 1) / 2;
    let back = width - 1 - front;
    name.chars().take(front).chain(['…']).chain(name.chars().skip(length - back)).collect()
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        exact if exact == 0.0 || exact == 100.0 => format!("{exact:.0} %"),
        tiny if tiny < 0.01 => "<0.01 %".to_owned(),
        little if little < 1.0 => format!("{little:.2} %"),
        nearly if nearly > 99.9 => "99.9 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        _ if rate >= 100.0 => grouped(rate.round() as u64),
        _ if rate >= 10.0 || rate == 0.0 => format!("{rate:.0}"),
        _ if rate >= 1.0 => format!("{rate:.1}"),
        _ if rate >= 0.001 => format!("{rate:.3}"),
        _ => format!("{rate:.1e}"),
    }
}

fn seconds(seconds: f64) -> String {
    if seconds >= 1.0 { format!("{seconds:.2} s") } else { format!("{:.0} ms", seconds * 1_000.0) }
}

/// The two largest units of a length of time.
fn duration(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (length, unit) in UNITS {
        if left >= length {
            parts.push(format!("{} {unit}", grouped((left / length).unsigned_abs())));
            left %= length;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [0.0, 0.00001, 0.0042, 0.25, 0.99999, 1.0].map(percent),
            ["0 %", "<0.01 %", "0.42 %", "25.0 %", "99.9 %", "100 %"]
        );
        assert_eq!(
            [0.0, 0.0001, 0.05, 3.24, 42.4, 12_345.6].map(rate),
            ["0", "1.0e-4", "0.050", "3.2", "42", "12,346"]
        );
        assert_eq!([0.0123, 1.5].map(seconds), ["12 ms", "1.50 s"]);
        assert_eq!([1, 90, 5_400, 90_061].map(duration), ["1 s", "1 min 30 s", "1 h 30 min", "1 d 1 h"]);
    }

    #[test]
    fn long_names_fit() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(squeezed("abcdefgh", 5), "ab…gh");
        assert_eq!(squeezed("Grüße", 5), "Grüße");
    }

    #[test]
    fn bars_show_the_least_and_the_most() {
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(7, 7), "█".repeat(BAR_WIDTH));
    }

    #[test]
    fn the_command_to_see_a_line_is_safe_for_a_shell() {
        assert_eq!(show_line("/a/b.log.gz", 7), "zcat /a/b.log.gz | sed -n 7p");
        assert_eq!(show_line("a'; rm -r b", 7), r"cat 'a'\''; rm -r b' | sed -n 7p");
    }
}
