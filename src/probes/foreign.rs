//! Samples whose names others chose, out of a text that they wrote: Prometheus text, or JSON of a script.
//!
//! What comes out can be shown anywhere: names and labels are of the form that Prometheus takes, no series stands there
//! twice, and samples and their bytes are bounded. What was left out or could not be read is counted.

use std::collections::HashSet;

use serde_json::Value;
use watchpost_parsers::prometheus::{Dialect, Kind, Sample, Samples};

use crate::record::{ForeignSample, MetricKind};

/// Samples that one part may give in a run.
const SAMPLES_MAX: usize = 2_000;
/// Bytes of the names and labels of all of them.
const SAMPLES_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the name and the labels of one.
const SAMPLE_BYTES_MAX: usize = 2_048;

/// What one text gave.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gathered {
    /// Sorted by name, in the order of the text within a name.
    pub(super) samples: Vec<ForeignSample>,
    /// Samples over a limit.
    pub(super) left_out: u64,
    /// Lines or values that could not be read.
    pub(super) unread: u64,
    /// Samples that no filter let through.
    pub(super) filtered: u64,
    /// The first that could not be read, and why.
    pub(super) first_unread: Option<String>,
}

impl Gathered {
    /// What an operator should know of a text that gave something, or nothing. An error where it gave nothing but trouble.
    pub(super) fn remark(&self) -> Result<Option<String>, String> {
        let reason = self.first_unread.as_deref().unwrap_or_default();
        match (self.samples.len(), self.unread, self.left_out, self.filtered) {
            (0, 0, 0, 0) => Err("there is no metric in what it says".to_owned()),
            (0, _, _, filtered @ 1..) => {
                Ok(Some(format!("none of its {filtered} samples is one of those wanted")))
            }
            (0, _, _, _) => Err(format!("nothing that it says is a metric: {reason}")),
            (_, 0, 0, _) => Ok(None),
            (_, 0, left_out, _) => Ok(Some(format!("{left_out} samples over the limit are left out"))),
            (_, unread, _, _) => Ok(Some(format!("{unread} lines or values are no metric: {reason}"))),
        }
    }

    fn unread(&mut self, reason: impl FnOnce() -> String) {
        self.unread += 1;
        self.first_unread.get_or_insert_with(reason);
    }
}

/// Takes samples up to the limits.
#[derive(Default)]
struct Gatherer {
    out: Gathered,
    bytes: usize,
    seen: HashSet<(String, Vec<(String, String)>)>,
}

impl Gatherer {
    fn take(&mut self, sample: ForeignSample) {
        let labels = sample.labels.iter().map(|(name, value)| name.len() + value.len());
        let bytes = sample.name.len() + labels.sum::<usize>();
        if bytes > SAMPLE_BYTES_MAX {
            self.out.unread(|| format!("a name with its labels is longer than {SAMPLE_BYTES_MAX} bytes"));
            return;
        }
        if self.out.samples.len() >= SAMPLES_MAX || self.bytes + bytes > SAMPLES_BYTES_MAX {
            self.out.left_out += 1;
            return;
        }
        if !self.seen.insert((sample.name.clone(), sample.labels.clone())) {
            self.out.unread(|| format!("{} stands there twice with the same labels", sample.name));
            return;
        }
        self.bytes += bytes;
        self.out.samples.push(sample);
    }

    fn finish(mut self) -> Gathered {
        self.out.samples.sort_by(|one, other| one.name.cmp(&other.name));
        self.out
    }
}

/// The samples of a Prometheus text whose names `is_wanted` takes: it is asked for the name and for that of its family.
pub(super) fn prometheus(text: &[u8], dialect: Dialect, is_wanted: impl Fn(&str) -> bool) -> Gathered {
    let mut gatherer = Gatherer::default();
    for sample in Samples::new(text, dialect) {
        match sample {
            Err(bad) => gatherer.out.unread(|| bad.to_string()),
            Ok(sample) if !(is_wanted(sample.name) || is_wanted(family(&sample))) => {
                gatherer.out.filtered += 1;
            }
            // Names that begin so are Prometheus's own; `__name__` would stand for another metric.
            Ok(sample) if sample.labels.iter().any(|(name, _)| name.starts_with("__")) => {
                gatherer.out.unread(|| format!("{} has a label that begins with __", sample.name));
            }
            Ok(sample) => gatherer.take(foreign(&sample)),
        }
    }
    gatherer.finish()
}

/// The name without what the kind of the family adds to it: `_bucket`, `_sum`, `_count`.
fn family<'a>(sample: &Sample<'a>) -> &'a str {
    sample.name.strip_suffix(sample.suffix).unwrap_or(sample.name)
}

fn foreign(sample: &Sample<'_>) -> ForeignSample {
    let kind = match sample.kind {
        _ if sample.is_cumulative() => Some(MetricKind::Counter),
        Kind::Gauge => Some(MetricKind::Gauge),
        _ => None,
    };
    let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.as_ref().to_owned()));
    let mut labels: Vec<(String, String)> = labels.collect();
    labels.sort();
    ForeignSample { name: sample.name.to_owned(), kind, labels, value: sample.value }
}

/// The numbers of a JSON object. Those of an object in it have a name for each level, joined by `_`; true is 1, false is 0,
/// null is nothing to say.
///
/// # Errors
/// What is no JSON, in words.
pub(super) fn json(text: &[u8]) -> Result<Gathered, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
    let mut gatherer = Gatherer::default();
    flatten("", &value, &mut gatherer);
    Ok(gatherer.finish())
}

/// As deep as serde_json reads.
fn flatten(name: &str, value: &Value, gatherer: &mut Gatherer) {
    let number = match value {
        Value::Null => return,
        Value::Object(members) => {
            for (key, member) in members {
                let joined = if name.is_empty() { key.clone() } else { format!("{name}_{key}") };
                if joined.len() > SAMPLE_BYTES_MAX {
                    gatherer.out.unread(|| format!("a name is longer than {SAMPLE_BYTES_MAX} bytes"));
                } else {
                    flatten(&joined, member, gatherer);
                }
            }
            return;
        }
        Value::Bool(is_so) => Some(f64::from(u8::from(*is_so))),
        Value::Number(number) => number.as_f64(),
        Value::String(_) | Value::Array(_) => None,
    };
    match (number, metric_name(name)) {
        (Some(value), Some(name)) => {
            gatherer.take(ForeignSample { name, kind: None, labels: Vec::new(), value });
        }
        _ => gatherer.out.unread(|| format!("{name:?} is neither a number nor an object of numbers")),
    }
}

/// The name with `_` for every character that the name of a metric cannot have; `None` where nothing is left.
fn metric_name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let mut name: String = text.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Gathered {
        prometheus(text.as_bytes(), Dialect::Prometheus, |_| true)
    }

    fn shown(gathered: &Gathered) -> Vec<String> {
        let show = |sample: &ForeignSample| {
            let labels: Vec<String> = sample.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{}{{{}}} {} {:?}", sample.name, labels.join(","), sample.value, sample.kind)
        };
        gathered.samples.iter().map(show).collect()
    }

    #[test]
    fn a_text_gives_its_samples_sorted_and_once() {
        let text = "# TYPE b counter\nb{z=\"1\",a=\"2\"} 3\nb{a=\"2\",z=\"1\"} 4\nb 5\n# TYPE a gauge\na 1\n\
                    # TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 0.5\nc{__name__=\"up\"} 1\n<html>\n";
        let gathered = all(text);
        assert_eq!(
            shown(&gathered),
            [
                "a{} 1 Some(Gauge)",
                "b{a=2,z=1} 3 Some(Counter)",
                "b{} 5 Some(Counter)",
                "h_bucket{le=1} 2 Some(Counter)",
                "h_sum{} 0.5 Some(Counter)",
            ]
        );
        assert_eq!((gathered.unread, gathered.left_out), (3, 0));
        let remark = gathered.remark().expect("it gave something").expect("a remark");
        assert!(remark.contains("b stands there twice"), "{remark}");
    }

    #[test]
    fn a_filter_is_asked_for_the_name_and_for_its_family() {
        let text = "# TYPE h histogram\nh_sum 1\nh_count 2\nhx 3\n";
        let gathered = prometheus(text.as_bytes(), Dialect::Prometheus, |name| name == "h");
        assert_eq!(shown(&gathered), ["h_count{} 2 Some(Counter)", "h_sum{} 1 Some(Counter)"]);
        assert_eq!(gathered.filtered, 1);
        let nothing = prometheus(text.as_bytes(), Dialect::Prometheus, |_| false);
        assert!(nothing.remark().expect("no error").is_some_and(|said| said.contains("none of its 3")));
    }

    #[test]
    fn what_is_over_a_limit_is_counted() {
        let many: String = (0..SAMPLES_MAX + 7).map(|n| format!("m{{n=\"{n}\"}} 1\n")).collect();
        let gathered = all(&many);
        assert_eq!((gathered.samples.len(), gathered.left_out, gathered.unread), (SAMPLES_MAX, 7, 0));
        let long = "x".repeat(SAMPLE_BYTES_MAX - 10);
        let wide: String = (0..400).map(|n| format!("m{{n=\"{n}{long}\"}} 1\n")).collect();
        let gathered = all(&wide);
        assert!(gathered.left_out > 0 && gathered.samples.len() * SAMPLE_BYTES_MAX <= SAMPLES_BYTES_MAX * 2);
        assert_eq!(gathered.samples.len() as u64 + gathered.left_out, 400);
        let gathered = all(&format!("m{{n=\"{long}{long}\"}} 1\nm 1\n"));
        assert_eq!((gathered.samples.len(), gathered.unread), (1, 1));
    }

    #[test]
    fn nothing_but_garbage_is_an_error_with_a_reason() {
        let said = |text: &str| all(text).remark().expect_err("nothing is there");
        assert!(said("").contains("no metric"), "{}", said(""));
        assert!(said("<html>\n").contains("line 1: expected the name of a metric"), "{}", said("<html>\n"));
        assert!(said("a 1").contains("ends in the middle"), "{}", said("a 1"));
    }

    #[test]
    fn json_is_flattened_and_what_is_no_number_is_counted() {
        let text = br#"{"mail":{"queue":3,"2 old":1.5},"up":true,"nil":null,"s":"x","l":[1],"mail.queue":9,"":{"":{"":1}}}"#;
        let gathered = json(text).expect("it is JSON");
        assert_eq!(shown(&gathered), ["mail_2_old{} 1.5 None", "mail_queue{} 3 None", "up{} 1 None"]);
        assert_eq!(gathered.unread, 4, "a text, a list, a name that is taken, and none: {gathered:?}");
        assert!(json(b"{\"a\":").is_err_and(|said| said.starts_with("no JSON")));
        assert!(json(b"[1]").expect("it is JSON").remark().is_err());
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(json(deep.as_bytes()).is_err_and(|said| said.contains("recursion")));
        let long = format!("{{\"{}\":{{\"b\":1}}}}", "é".repeat(SAMPLE_BYTES_MAX));
        assert_eq!(json(long.as_bytes()).expect("it is JSON").unread, 1);
        assert_eq!(metric_name("9a-ü:"), Some("_9a__:".to_owned()));
    }
}
