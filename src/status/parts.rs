//! What others named, on `/metrics`: the metrics of scraped endpoints and of scripts.
//!
//! Each name gets a prefix that no metric of the agent's own has, and each series a label that says whose it is. Must never
//! write a name twice as a family, a series twice, or a label unescaped, whatever the names are.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::metrics::{escape, push};
use crate::facts::Part;
use crate::record::{ForeignSample, MetricKind};

/// Bytes of all of them; further families are left out, and said in a comment.
const BYTES_MAX: usize = 8 << 20;

/// Appends the metrics of the parts, each name once with its type.
pub(super) fn render(parts: &[Arc<[Part]>], out: &mut String) {
    let mut families: BTreeMap<(&str, &str), Vec<(&Part, &ForeignSample)>> = BTreeMap::new();
    for part in parts.iter().flat_map(|parts| parts.iter()) {
        for sample in &part.samples {
            families.entry((part.kind.prefix(), &sample.name)).or_default().push((part, sample));
        }
    }
    let limit = out.len().saturating_add(BYTES_MAX);
    let count = families.len();
    for (index, ((prefix, name), samples)) in families.into_iter().enumerate() {
        if out.len() > limit {
            push(out, format_args!("# {} of {count} metrics of others are left out\n", count - index));
            return;
        }
        push(out, format_args!("# TYPE {prefix}{name} {}\n", kind(&samples)));
        let mut written = HashSet::new();
        for (part, sample) in samples {
            let labels = labels(part, sample);
            if !written.contains(&labels) {
                push(out, format_args!("{prefix}{name}{labels} {}\n", number(sample.value)));
                written.insert(labels);
            }
        }
    }
}

/// The type that all of a name agree on.
fn kind(samples: &[(&Part, &ForeignSample)]) -> &'static str {
    let first = samples.first().and_then(|(_, sample)| sample.kind);
    match first.filter(|kind| samples.iter().all(|(_, sample)| sample.kind == Some(*kind))) {
        Some(MetricKind::Counter) => "counter",
        Some(MetricKind::Gauge) => "gauge",
        None => "untyped",
    }
}

/// The labels with the part's before them. A label of that name becomes `exported_` and the name, as Prometheus does it.
fn labels(part: &Part, sample: &ForeignSample) -> String {
    let own = part.kind.label();
    let mut text = format!("{{{own}=\"");
    escape(&part.name, &mut text);
    text.push('"');
    let is_taken = |name: &str| name == own || sample.labels.iter().any(|(known, _)| known == name);
    for (name, value) in &sample.labels {
        let mut shown = name.clone();
        while shown == own || (shown != *name && is_taken(&shown)) {
            shown.insert_str(0, "exported_");
        }
        push(&mut text, format_args!(",{shown}=\""));
        escape(value, &mut text);
        text.push('"');
    }
    text.push('}');
    text
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        // The least that reads back as the same number; NaN is `NaN`.
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::metrics::tests::parse_strictly;
    use super::*;
    use crate::facts::{PartKind, ProbeState};

    fn part(
        kind: PartKind,
        name: &str,
        samples: &[(&str, Option<MetricKind>, &[(&str, &str)], f64)],
    ) -> Part {
        let sample = |(name, kind, labels, value): &(&str, Option<MetricKind>, &[(&str, &str)], f64)| {
            let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            ForeignSample { name: (*name).to_owned(), kind: *kind, labels, value: *value }
        };
        let samples = samples.iter().map(sample).collect();
        let (name, state, took) = (name.to_owned(), ProbeState::Ok, Duration::ZERO);
        Part { kind, name, state, error: None, took, samples, left_out: 0, unread: 0 }
    }

    #[test]
    fn names_of_others_are_prefixed_labelled_escaped_and_written_once() {
        let counter = Some(MetricKind::Counter);
        let targets: Arc<[Part]> = [
            part(
                PartKind::Target,
                "a",
                &[
                    ("watchpost_up", counter, &[], 1.0),
                    ("up", counter, &[("target", "x\"\\\n")], f64::INFINITY),
                    ("up", counter, &[("exported_target", "x\"\\\n")], 2.0),
                    ("up", counter, &[("exported_target", "y"), ("target", "z")], 3.0),
                ],
            ),
            part(PartKind::Target, "b", &[("watchpost_up", Some(MetricKind::Gauge), &[], 0.0)]),
        ]
        .into();
        let scripts: Arc<[Part]> =
            [part(PartKind::Script, "d\"k.sh", &[("up", None, &[("target", "t")], 1e300)])].into();
        let mut text = String::new();
        render(&[targets, scripts], &mut text);
        let series = parse_strictly(&text);
        let expected = [
            ("scrape_up{target=\"a\",exported_target=\"x\\\"\\\\\\n\"}", f64::INFINITY),
            ("scrape_up{target=\"a\",exported_target=\"y\",exported_exported_target=\"z\"}", 3.0),
            ("scrape_watchpost_up{target=\"a\"}", 1.0),
            ("scrape_watchpost_up{target=\"b\"}", 0.0),
            ("script_up{script=\"d\\\"k.sh\",target=\"t\"}", 1e300),
        ];
        assert_eq!(series, expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        assert!(text.contains("# TYPE scrape_up counter\n") && text.contains("# TYPE script_up untyped\n"));
        assert!(text.contains("# TYPE scrape_watchpost_up untyped\n"), "they do not agree: {text}");
    }

    #[test]
    fn too_much_is_cut_at_a_family() {
        let long = "v".repeat(2_000);
        let names: Vec<String> = (0..6_000).map(|n| format!("m{n:04}")).collect();
        let labels = [("l", long.as_str())];
        let samples: Vec<_> = names.iter().map(|name| (name.as_str(), None, &labels[..], 1.0)).collect();
        let mut text = String::new();
        render(&[[part(PartKind::Target, "a", &samples)].into()], &mut text);
        assert!(text.len() < BYTES_MAX + 10_000, "{}", text.len());
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("# ") && last.ends_with("are left out"), "{last}");
    }
}
