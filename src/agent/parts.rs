//! From what parts told (scraped endpoints, scripts) to records and to the JSON of `/status`; and which parts are wanted.
//!
//! A metric without labels is a number. One with labels, or with several values, is a list of
//! `{"labels":{..},"value":..}`. What is no number is left out.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::config::{Config, Scripts};
use crate::facts::{Part, Report};
use crate::probes::{ScrapeTarget, ScriptsTarget};
use crate::record::ForeignSample;
use crate::sources::{json_number, to_json};

/// Sumo Logic parts a message that is longer than 64 KiB; this leaves room for a head with a long error.
const RECORD_BYTES_MAX: usize = 48_000;

/// Where scripts are looked for by default.
const SCRIPTS_DIRECTORY: &str = "/etc/watchpost/scripts.d";

/// Keys that a record has beside its metrics.
const OWN_KEYS: [&str; 8] =
    ["timestamp", "record", "probe", "target", "script", "state", "error", "left_out"];

/// What is scraped, by the settings.
pub(super) fn scrape_targets(config: &Config) -> Vec<ScrapeTarget> {
    let target = |one: &crate::config::Scrape| ScrapeTarget {
        name: one.name.clone(),
        url: one.url.clone(),
        only: one.only.clone(),
    };
    config.scrape.iter().map(target).collect()
}

/// Where the scripts are, by the settings.
pub(super) fn scripts_target(config: &Config) -> Option<ScriptsTarget> {
    let (directory, is_optional, as_root) = match &config.scripts {
        Scripts::None => return None,
        Scripts::Auto => (PathBuf::from(SCRIPTS_DIRECTORY), true, false),
        Scripts::Directory { path, as_root } => (path.clone(), false, *as_root),
    };
    Some(ScriptsTarget { directory, is_optional, as_root })
}

/// All metrics of a report as JSON: by name, and of parts by part and name.
pub fn metrics_json(report: &Report) -> Map<String, Value> {
    let mut metrics = to_json(&report.readings);
    if let Some(parts) = report.parts() {
        metrics.append(&mut json(parts));
    }
    metrics
}

/// The metrics of parts, by part and name.
pub(super) fn json(parts: &[Part]) -> Map<String, Value> {
    let of =
        |part: &Part| (part.name.clone(), Value::Object(pieces(part, usize::MAX).pop().unwrap_or_default()));
    parts.iter().filter(|part| !part.samples.is_empty()).map(of).collect()
}

/// The records of a report, each as its head and its metrics: one of each part, or as many as `bytes_max` makes necessary.
/// A part that failed has one that says so.
pub(super) fn records(
    report: &Report,
    parts: &[Part],
    bytes_max: usize,
) -> Vec<(String, Map<String, Value>)> {
    let mut records = Vec::new();
    for part in parts {
        let mut head = format!(
            "{{\"timestamp\":{},\"record\":\"probe.metrics\",\"probe\":\"{}\",\"{}\":{},\"state\":{}",
            report.at,
            report.probe,
            part.kind.label(),
            Value::from(part.name.as_str()),
            json!(part.state)
        );
        if let Some(error) = &part.error {
            head.push_str(&format!(",\"error\":{}", Value::from(error.as_str())));
        }
        if part.left_out > 0 {
            head.push_str(&format!(",\"left_out\":{}", part.left_out));
        }
        let room = bytes_max.min(RECORD_BYTES_MAX).saturating_sub(head.len() + 2);
        records.extend(pieces(part, room).into_iter().map(|metrics| (head.clone(), metrics)));
    }
    records
}

/// The metrics of a part in pieces of at most `bytes_max` bytes of JSON, at least one; a single sample may be longer.
fn pieces(part: &Part, bytes_max: usize) -> Vec<Map<String, Value>> {
    let mut pieces = vec![Map::new()];
    let mut bytes = 0;
    for group in part.samples.chunk_by(|one, other| one.name == other.name) {
        let is_plain = group.len() == 1 && group.iter().all(|sample| sample.labels.is_empty());
        for sample in group {
            let Some(number) = json_number(sample.value) else { continue };
            let key = key(&sample.name);
            let value = if is_plain { number } else { json!({ "labels": labels(sample), "value": number }) };
            // With quotes, colon, comma and the brackets of a list.
            let more = key.len() + value.to_string().len() + 6;
            if bytes > 0 && bytes + more > bytes_max {
                pieces.push(Map::new());
                bytes = 0;
            }
            bytes += more;
            let Some(piece) = pieces.last_mut() else { continue };
            if is_plain {
                piece.insert(key, value);
            } else if let Value::Array(list) = piece.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
                list.push(value);
            }
        }
    }
    pieces
}

fn labels(sample: &ForeignSample) -> Map<String, Value> {
    sample.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

/// The key of a metric in a record: its name, which must not take the place of what the record says of itself.
fn key(name: &str) -> String {
    if OWN_KEYS.contains(&name) { format!("_{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::facts::{Facts, PartKind, ProbeState};

    fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> ForeignSample {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        ForeignSample { name: name.to_owned(), kind: None, labels, value }
    }

    fn report(name: &str, error: Option<&str>, samples: Vec<ForeignSample>) -> Report {
        let state = if error.is_some() { ProbeState::Failing } else { ProbeState::Ok };
        let (name, error, took) = (name.to_owned(), error.map(str::to_owned), Duration::ZERO);
        let kind = PartKind::Target;
        let part = Part { kind, name, state, error, took, samples, left_out: 0, unread: 0 };
        let parts: Arc<[Part]> = [part].into();
        Report { probe: "scrape", at: 7, readings: Vec::new(), facts: Facts::Parts(parts) }
    }

    fn texts(report: &Report, bytes_max: usize) -> Vec<String> {
        let parts = report.parts().expect("it has parts");
        let text = |(head, metrics): (String, Map<String, Value>)| {
            let entries = metrics.iter().map(|(name, value)| format!(",{}:{value}", json!(name)));
            format!("{head}{}}}", entries.collect::<String>())
        };
        records(report, parts, bytes_max).into_iter().map(text).collect()
    }

    #[test]
    fn a_record_has_the_names_as_keys_and_labels_in_lists() {
        let samples = vec![
            sample("a", &[], 1.5),
            sample("b", &[("code", "2\"")], 3.0),
            sample("b", &[("code", "5")], f64::NAN),
            sample("c", &[("x", "y")], 1.0),
            sample("d", &[], f64::INFINITY),
            sample("state", &[], 2.0),
        ];
        let expected = concat!(
            r#"{"timestamp":7,"record":"probe.metrics","probe":"scrape","target":"n","state":"ok","_state":2,"a":1.5,"#,
            r#""b":[{"labels":{"code":"2\""},"value":3}],"c":[{"labels":{"x":"y"},"value":1}]}"#
        );
        assert_eq!(texts(&report("n", None, samples), 100_000), [expected]);
        let failed = texts(&report("n", Some("refused \"x\""), Vec::new()), 100_000);
        assert!(failed[0].ends_with(r#""state":"failing","error":"refused \"x\""}"#), "{failed:?}");
    }

    #[test]
    fn a_long_part_is_several_records_within_the_limit_and_none_is_lost() {
        let samples: Vec<_> =
            (0..500).map(|n| sample("m", &[("n", &format!("{n}\n"))], f64::from(n))).collect();
        for bytes_max in [1_000, 10_000, 1_000_000] {
            let texts = texts(&report("n", None, samples.clone()), bytes_max);
            assert!(texts.iter().all(|text| text.len() <= bytes_max.min(RECORD_BYTES_MAX)));
            let count = |text: &String| {
                let record: Value = serde_json::from_str(text).expect("it is JSON");
                record["m"].as_array().map_or(0, Vec::len)
            };
            assert_eq!(texts.iter().map(count).sum::<usize>(), samples.len(), "{bytes_max}");
        }
    }
}
