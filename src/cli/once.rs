//! `watchpost once`: one sample of every source and one run of every probe, as one JSON object on stdout.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{Failure, exit, printable_json, runtime};
use crate::agent::{metrics_json, wanted};
use crate::clock::Now;
use crate::config::Config;
use crate::sources::{Host, Sample, to_json};

/// Between the two samples that shares and rates need.
const SAMPLES_APART: Duration = Duration::from_millis(250);

/// Takes two samples a moment apart and prints the second.
///
/// # Errors
/// 74 when stdout cannot be written, or when no source gave anything.
pub fn run(config: &Config) -> Result<(), Failure> {
    let mut host = Host::new(|name| config.host_sources.includes(name));
    host.sample(Now::read());
    wait_until(Instant::now() + SAMPLES_APART);
    let sample = host.sample(Now::read());
    let mut answer = describe(&sample);
    answer["probes"] = Value::Object(probes(config)?);
    let text = serde_json::to_string_pretty(&answer).expect("numbers and texts are always JSON");
    writeln!(std::io::stdout(), "{}", printable_json(text.as_bytes()))
        .map_err(|error| Failure::io("stdout cannot be written", &error))?;
    let failed = sample.sources.iter().any(|source| !source.ok && source.not_available.is_none());
    if sample.readings.is_empty() && failed {
        return Err(Failure::new(exit::IO, "no source could be read"));
    }
    Ok(())
}

fn describe(sample: &Sample) -> Value {
    let sources: Map<String, Value> = sample
        .sources
        .iter()
        .map(|source| {
            let state = json!({
                "ok": source.ok,
                "duration_ms": source.duration_ms,
                "readings": source.readings,
                "last_error": source.last_error,
                "not_available": source.not_available,
            });
            (source.name.to_owned(), state)
        })
        .collect();
    json!({ "timestamp": sample.at, "host": to_json(&sample.readings), "sources": sources })
}

/// What each probe that is on sees, and how it fares.
fn probes(config: &Config) -> Result<Map<String, Value>, Failure> {
    let seen = runtime()?.block_on(crate::probes::once(&wanted(config)));
    let probes = seen.into_iter().map(|(spec, status, report)| {
        let metrics = report.map_or_else(Map::new, |report| metrics_json(&report));
        let mut answer = json!({
            "state": status.state,
            "duration_ms": status.duration_ms,
            "last_error": status.last_error,
            "metrics": metrics,
        });
        if !status.parts.is_empty() {
            answer["parts"] = json!(status.parts);
        }
        (spec.name.to_owned(), answer)
    });
    Ok(probes.collect())
}

fn wait_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}
