//! The status as aligned text for a terminal of eighty columns. Pure: JSON in, text out.
//!
//! What the answer does not hold is shown as `-`, never as zero. Must never emit a control character but the line feed.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::acts_on_terminal;

/// Columns of the name before each row.
const LABEL_WIDTH: usize = 10;
/// Files and virtual hosts that are shown; the rest is counted.
const ROWS_MAX: usize = 12;
/// Characters of a sentence; an advice is some lines of configuration.
const SENTENCE_CHARS_MAX: usize = 600;
/// Characters of a name from outside.
const NAME_CHARS_MAX: usize = 48;

/// The whole view, ending in a line feed.
pub(super) fn render(status: &Value) -> String {
    let mut out = String::new();
    agent(&mut out, status);
    web(&mut out, &status["web"]);
    files(&mut out, &status["files"]);
    ledger(&mut out, &status["ledger"]);
    proof(&mut out, &status["reconciliation"]);
    spool(&mut out, &status["spool"]);
    delivery(&mut out, &status["delivery"]);
    probes(&mut out, &status["probes"]);
    findings(&mut out, &status["findings"]);
    problems(&mut out, status);
    out
}

fn agent(out: &mut String, status: &Value) {
    let agent = &status["agent"];
    let name = format!("{} {} on {}", text(&agent["name"]), text(&agent["version"]), text(&agent["host"]));
    row(out, "agent", &format!("{name}, pid {}, up {}", text(&agent["pid"]), span(&agent["uptime_s"])));
}

fn web(out: &mut String, web: &Value) {
    if !web["windows"].is_object() {
        row(out, "requests", "no access log is followed");
        return;
    }
    row(out, "window", &cells(["1s", "10s", "1m", "5m", "15m"].map(str::to_owned)));
    let windows = ["1s", "10s", "1m", "5m", "15m"].map(|name| &web["windows"][name]);
    row(out, "qps", &cells(windows.map(|window| marked(window, rate(&window["qps"])))));
    row(out, "errors 5xx", &cells(windows.map(|window| marked(window, percent(&window["error_rate"])))));
    if windows.iter().any(|window| window["complete"] == false) {
        row(out, "", "~ the window has not been observed whole");
    }
    let latency = &web["latency_s"];
    let quantiles = ["p50", "p90", "p95", "p99", "max"];
    let shown: Vec<_> = quantiles.iter().map(|name| format!("{name} {}", seconds(&latency[*name]))).collect();
    row(out, "latency", &shown.join("   "));
    let totals = &web["totals"];
    let classes: Vec<_> = totals["status"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(class, requests)| format!("{} {}", clean(class), number(requests)))
        .collect();
    row(out, "total", &format!("{} requests   {}", number(&totals["requests"]), classes.join("   ")));
    let odd = ["unparsed", "late", "skewed"].map(|name| format!("{name} {}", number(&totals[name])));
    row(out, "", &odd.join("   "));
}

fn files(out: &mut String, files: &Value) {
    let files = files.as_array().map_or(&[][..], Vec::as_slice);
    if files.is_empty() {
        row(out, "files", "none");
    }
    let width =
        files.iter().take(ROWS_MAX).map(|file| text(&file["path"]).chars().count()).max().unwrap_or_default();
    for (index, file) in files.iter().take(ROWS_MAX).enumerate() {
        let label = if index == 0 { "files" } else { "" };
        let mut line = format!(
            "{:width$}  {:<7} {:<11} lag {}",
            text(&file["path"]),
            text(&file["kind"]),
            text(&file["state"]),
            bytes(&file["lag_bytes"])
        );
        if let Some(error) = file["last_error"].as_str() {
            let _ = write!(line, "  ! {}", clean(error));
        }
        row(out, label, &line);
    }
    if files.len() > ROWS_MAX {
        row(out, "", &format!("and {} more", files.len() - ROWS_MAX));
    }
}

fn ledger(out: &mut String, ledger: &Value) {
    let lines = &ledger["lines"];
    let verdict = match ledger["balanced"].as_bool() {
        Some(true) => "balanced",
        Some(false) => "DOES NOT BALANCE",
        None => "-",
    };
    let [read, shipped, held, filtered, lost] =
        ["read", "shipped", "held", "filtered", "lost"].map(|name| number(&lines[name]));
    let sum = format!("read {read} = shipped {shipped} + held {held} + filtered {filtered} + lost {lost}");
    row(out, "ledger", &format!("{sum}   {verdict}"));
    for loss in ledger["lost"].as_array().into_iter().flatten().take(ROWS_MAX) {
        let cost = format!("{} lines, {}", number(&loss["lines"]), bytes(&loss["bytes"]));
        row(out, "", &format!("lost: {} {cost}", text(&loss["reason"])));
    }
}

/// How the lines compare with what servers counted.
fn proof(out: &mut String, comparisons: &Value) {
    for one in comparisons.as_array().into_iter().flatten().take(ROWS_MAX) {
        let (counted, reported) = (number(&one["counted"]), number(&one["reported"]));
        let sum = format!("{counted} lines, {reported} requests by {}", text(&one["with"]));
        row(out, "proof", &format!("{}: {sum}", text(&one["verdict"])));
        if one["verdict"] == "unaccounted" {
            let missing = one["unaccounted"].as_i64().unwrap_or_default();
            row(out, "", &format!("! {missing} not accounted for: {}", sentence(&one["cause"])));
        }
    }
}

/// Probes that see what they ask for, and those that do not with the reason.
fn probes(out: &mut String, probes: &Value) {
    let probes = probes.as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<String> =
        probes.iter().filter(|probe| probe["state"] == "ok").map(|probe| text(&probe["name"])).collect();
    if !names.is_empty() {
        row(out, "probes", &format!("ok: {}", names.join(", ")));
    }
    for probe in probes.iter().filter(|probe| probe["state"] == "failing" || probe["state"] == "denied") {
        row(out, "", &format!("! {}: {}", text(&probe["name"]), sentence(&probe["last_error"])));
    }
}

/// What is weak, each with what to change.
fn findings(out: &mut String, findings: &Value) {
    let findings = findings.as_array().map_or(&[][..], Vec::as_slice);
    for (index, finding) in findings.iter().take(ROWS_MAX).enumerate() {
        let label = if index == 0 { "findings" } else { "" };
        let weight =
            if finding["confidence"] == "unknown" { &finding["confidence"] } else { &finding["severity"] };
        row(out, label, &format!("{:<7} {}", text(weight), sentence(&finding["title"])));
        row(out, "", &format!("        change: {}", sentence(&finding["advice"])));
    }
    if findings.len() > ROWS_MAX {
        row(out, "", &format!("and {} more", findings.len() - ROWS_MAX));
    }
}

fn spool(out: &mut String, spool: &Value) {
    let size = format!("{} of {}", bytes(&spool["bytes"]), bytes(&spool["bytes_max"]));
    let oldest = span(&spool["oldest_age_s"]);
    let batches = number(&spool["batches"]);
    row(out, "spool", &format!("{}: {batches} batches, {size}, oldest {oldest}", text(&spool["state"])));
}

fn delivery(out: &mut String, delivery: &Value) {
    if delivery.is_null() {
        row(out, "delivery", "off");
        return;
    }
    let sent =
        format!("{} batches, {}", number(&delivery["delivered_batches"]), bytes(&delivery["sent_bytes"]));
    let mut line =
        format!("{}: {sent} sent, {} failures", text(&delivery["state"]), number(&delivery["failures"]));
    if delivery["last_success_age_s"].is_number() {
        let _ = write!(line, ", last success {} ago", span(&delivery["last_success_age_s"]));
    }
    if delivery["next_try_in_s"].is_number() {
        let _ = write!(line, ", next try in {}", span(&delivery["next_try_in_s"]));
    }
    row(out, "delivery", &line);
    if let Some(error) = delivery["last_error"].as_str() {
        row(out, "", &format!("last error: {}", clean(error)));
    }
}

fn problems(out: &mut String, status: &Value) {
    let problems = status["problems"].as_array().map_or(&[][..], Vec::as_slice);
    row(out, "health", if problems.is_empty() { "ok" } else { "BAD" });
    for problem in problems.iter().take(ROWS_MAX) {
        row(out, "", &format!("! {}", text(problem)));
    }
}

fn row(out: &mut String, label: &str, line: &str) {
    let line = format!("{label:<LABEL_WIDTH$}  {line}");
    out.push_str(line.trim_end());
    out.push('\n');
}

fn cells(cells: [String; 5]) -> String {
    cells.iter().map(|cell| format!("{cell:>11}")).collect()
}

/// Marks a figure of a window that was not observed whole.
fn marked(window: &Value, figure: String) -> String {
    if window["complete"] == false && figure != "-" { format!("~{figure}") } else { figure }
}

/// A string or number from the answer, safe for a terminal and of bounded length.
fn text(value: &Value) -> String {
    let shown = match value {
        Value::String(text) => clean(text),
        Value::Number(number) => number.to_string(),
        _ => return "-".to_owned(),
    };
    if shown.chars().count() <= NAME_CHARS_MAX {
        return shown;
    }
    // The end of a path tells more than its beginning.
    let skipped = shown.chars().count() - (NAME_CHARS_MAX - 1);
    std::iter::once('…').chain(shown.chars().skip(skipped)).collect()
}

/// A sentence from the answer, safe for a terminal, up to its bound.
fn sentence(value: &Value) -> String {
    clean(value.as_str().unwrap_or("-")).chars().take(SENTENCE_CHARS_MAX).collect()
}

/// Replaces what a terminal acts upon.
fn clean(text: &str) -> String {
    text.chars().map(|c| if acts_on_terminal(c) { '\u{fffd}' } else { c }).collect()
}

fn number(value: &Value) -> String {
    let Some(number) = value.as_u64() else { return "-".to_owned() };
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

fn rate(value: &Value) -> String {
    match value.as_f64() {
        Some(rate) if rate >= 100.0 => format!("{rate:.0}"),
        Some(rate) => format!("{rate:.1}"),
        None => "-".to_owned(),
    }
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}%", ratio * 100.0))
}

fn seconds(value: &Value) -> String {
    match value.as_f64() {
        Some(seconds) if seconds >= 1.0 => format!("{seconds:.2}s"),
        Some(seconds) => format!("{:.0}ms", seconds * 1_000.0),
        None => "-".to_owned(),
    }
}

fn bytes(value: &Value) -> String {
    const STEP: f64 = 1024.0;
    let Some(mut size) = value.as_f64() else { return "-".to_owned() };
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < STEP {
            let digits = usize::from(unit != "B" && size < 100.0);
            return format!("{size:.digits$} {unit}");
        }
        size /= STEP;
    }
    format!("{size:.1} TiB")
}

fn span(value: &Value) -> String {
    let Some(seconds) = value.as_f64() else { return "-".to_owned() };
    let whole = seconds.max(0.0).round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{minutes}m {}s", whole % 60),
        3_600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_view_of_a_busy_agent() {
        let window =
            |qps: f64, complete: bool| json!({"qps": qps, "error_rate": 0.0123, "complete": complete});
        let status = json!({
            "agent": {"name": "watchpost", "version": "0.1.0", "host": "web1", "pid": 42, "uptime_s": 93_784},
            "web": {"windows": {"1s": window(1234.0, true), "10s": window(99.94, true), "1m": window(5.0, true),
                                "5m": window(5.0, false), "15m": {"qps": null, "error_rate": null, "complete": false}},
                    "latency_s": {"p50": 0.012, "p90": 0.05, "p95": 0.1, "p99": 1.234, "max": 9.0},
                    "totals": {"requests": 1_234_567, "unparsed": 1, "late": 0, "skewed": 0, "status": {"2xx": 1_234_000, "5xx": 567}}},
            "files": [{"path": "/var/log/nginx/access.log", "kind": "access", "state": "following", "lag_bytes": 2048}],
            "ledger": {"lines": {"read": 10, "shipped": 5, "held": 2, "filtered": 1, "lost": 2}, "balanced": true,
                       "lost": [{"reason": "truncated", "lines": 2, "bytes": 99}]},
            "spool": {"state": "ok", "batches": 3, "bytes": 1_572_864, "bytes_max": 1_073_741_824, "oldest_age_s": 2.5},
            "delivery": {"state": "retrying", "delivered_batches": 7, "sent_bytes": 700, "failures": 2,
                         "last_error": "timed out", "last_success_age_s": 61.0, "next_try_in_s": 3.2},
            "reconciliation": [{"with": "nginx stub_status", "counted": 7, "reported": 10, "verdict": "unaccounted", "unaccounted": 3, "cause": "a worker ended"}],
            "probes": [{"name": "stub_status", "state": "ok"}, {"name": "haproxy", "state": "denied", "last_error": "refused; grant it"}],
            "findings": [{"severity": "high", "title": "it is open", "advice": "shut it", "confidence": "certain"}],
            "problems": ["delivery: retrying for 75 s"]
        });
        let expected = "\
agent       watchpost 0.1.0 on web1, pid 42, up 1d 2h
window               1s        10s         1m         5m        15m
qps                1234       99.9        5.0       ~5.0          -
errors 5xx        1.23%      1.23%      1.23%     ~1.23%          -
            ~ the window has not been observed whole
latency     p50 12ms   p90 50ms   p95 100ms   p99 1.23s   max 9.00s
total       1 234 567 requests   2xx 1 234 000   5xx 567
            unparsed 1   late 0   skewed 0
files       /var/log/nginx/access.log  access  following   lag 2.0 KiB
ledger      read 10 = shipped 5 + held 2 + filtered 1 + lost 2   balanced
            lost: truncated 2 lines, 99 B
proof       unaccounted: 7 lines, 10 requests by nginx stub_status
            ! 3 not accounted for: a worker ended
spool       ok: 3 batches, 1.5 MiB of 1.0 GiB, oldest 3s
delivery    retrying: 7 batches, 700 B sent, 2 failures, last success 1m 1s ago, next try in 3s
            last error: timed out
probes      ok: stub_status
            ! haproxy: refused; grant it
findings    high    it is open
                    change: shut it
health      BAD
            ! delivery: retrying for 75 s
";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn an_empty_answer_is_still_a_view() {
        let view = render(&json!({}));
        assert!(view.contains("no access log is followed") && view.contains("delivery    off"), "{view}");
    }

    #[test]
    fn no_escape_reaches_the_terminal() {
        let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}x";
        let status = json!({
            "agent": {"name": hostile, "version": hostile, "host": hostile, "pid": 1, "uptime_s": 1},
            "web": {"windows": {"1s": {}}, "totals": {"status": {hostile: 1}}},
            "files": [{"path": hostile, "kind": hostile, "state": hostile, "last_error": hostile}],
            "ledger": {"lost": [{"reason": hostile}]},
            "spool": {"state": hostile},
            "delivery": {"state": hostile, "last_error": hostile},
            "problems": [hostile],
            "reconciliation": [{"with": hostile, "verdict": hostile, "cause": hostile}],
            "probes": [{"name": hostile, "state": "failing", "last_error": hostile}],
            "findings": [{"severity": hostile, "title": hostile, "advice": hostile}],
        });
        let view = render(&status);
        assert!(view.chars().all(|c| c == '\n' || !c.is_control()), "{view:?}");
        assert!(!view.contains('\u{202e}') && view.contains("owned"), "{view:?}");
    }

    #[test]
    fn long_names_keep_their_end() {
        let shown = text(&json!(format!("/{}/access.log", "x".repeat(200))));
        assert_eq!(shown.chars().count(), NAME_CHARS_MAX);
        assert!(shown.starts_with('…') && shown.ends_with("/access.log"));
    }
}
