//! The runner: samples every enabled source, and knows how each one fares.
//!
//! It must never let one source stop the others: an error is kept, a panic is caught here (the only
//! catch in the agent) and the source is made anew.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use super::{SOURCES, Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{EpochMs, Reading};

/// Readings that one source may give in a sample; what is over is dropped and counted. The largest
/// honest sample is that of a host with 256 cores or as many network interfaces.
const READINGS_PER_SOURCE_MAX: usize = 4096;

/// What the host told at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When the sample began.
    pub at: EpochMs,
    /// The readings of all sources, in the order of the table.
    pub readings: Vec<Reading>,
    /// How each enabled source fared, in the order of the table.
    pub sources: Vec<SourceState>,
}

/// How one source fared in the last sample.
#[derive(Clone, Debug, Serialize)]
pub struct SourceState {
    /// The name in the table.
    pub name: &'static str,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Readings that it gave.
    pub readings: usize,
    /// Readings over the limit of a source, since the start. They are not in any sample.
    pub dropped: u64,
    /// Whether the last sample went well; also true where there is nothing to read.
    pub ok: bool,
    /// What went wrong when it last did. It stays after a sample that goes well.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<EpochMs>,
    /// Why this host has nothing for the source, where that is so.
    pub not_available: Option<String>,
}

/// The enabled sources with their memory.
pub struct Host {
    running: Vec<Running>,
}

struct Running {
    spec: &'static Spec,
    source: Box<dyn Source>,
    state: SourceState,
}

impl Host {
    /// Makes the sources of [`SOURCES`] whose name `enabled` answers with true.
    pub fn new(enabled: impl Fn(&str) -> bool) -> Host {
        Host::with_sources(SOURCES, enabled)
    }

    pub(super) fn with_sources(specs: &[&'static Spec], enabled: impl Fn(&str) -> bool) -> Host {
        let enabled = specs.iter().filter(|spec| enabled(spec.name));
        Host { running: enabled.map(|spec| Running::new(spec)).collect() }
    }

    /// Samples every source once. Shares are over the time since the sample before, so the first
    /// sample has none, nor has one within 50 ms of it.
    pub fn sample(&mut self, now: Now) -> Sample {
        let mut readings = Vec::with_capacity(512);
        for running in &mut self.running {
            running.sample(now, &mut readings);
        }
        let sources = self.running.iter().map(|running| running.state.clone()).collect();
        Sample { at: now.wall, readings, sources }
    }
}

impl Running {
    fn new(spec: &'static Spec) -> Running {
        let state = SourceState {
            name: spec.name,
            duration_ms: 0.0,
            readings: 0,
            dropped: 0,
            ok: true,
            last_error: None,
            last_error_at: None,
            not_available: None,
        };
        Running { spec, source: (spec.make)(), state }
    }

    fn sample(&mut self, now: Now, out: &mut Vec<Reading>) {
        let before = out.len();
        let started = Now::read();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.source.sample(now, out)));
        self.state.duration_ms = Now::read().since(started.monotonic).as_micros() as f64 / 1000.0;

        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(panic) => {
                // What a source appended before it panicked cannot be trusted, nor its memory.
                out.truncate(before);
                self.source = (self.spec.make)();
                self.fail(now, format!("a broken invariant: {}", panic_text(panic.as_ref())));
                self.state.readings = 0;
                return;
            }
        };
        let over = (out.len() - before).saturating_sub(READINGS_PER_SOURCE_MAX);
        out.truncate(out.len() - over);
        self.state.dropped += over as u64;
        self.state.readings = out.len() - before;
        self.state.not_available = None;
        match error {
            None => self.state.ok = true,
            Some(SourceError::NotAvailable(reason)) => {
                self.state.ok = true;
                self.state.not_available = Some(reason);
            }
            Some(error) => self.fail(now, chain_text(&error)),
        }
    }

    fn fail(&mut self, now: Now, what: String) {
        self.state.ok = false;
        self.state.not_available = None;
        self.state.last_error = Some(what);
        self.state.last_error_at = Some(now.wall);
    }
}

/// An error with its causes, each after a colon.
fn chain_text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Metric;

    static NUMBER: Metric = Metric::gauge("watchpost.number", "1", "watchpost_number", "A number");

    /// Gives one reading, then the outcome of its turn: well, nothing here, an error, a panic.
    struct Moody(usize);

    impl Source for Moody {
        fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
            self.0 += 1;
            out.push(Reading::new(&NUMBER, [], self.0 as f64));
            match self.0 {
                1 => Ok(()),
                2 => Err(SourceError::NotAvailable("no such device".to_owned())),
                3 => Err(SourceError::Format { path: "/proc/x", what: "y" }),
                _ => panic!("step {}", self.0),
            }
        }
    }

    struct Steady;

    impl Source for Steady {
        fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
            out.extend((0..=READINGS_PER_SOURCE_MAX).map(|n| Reading::new(&NUMBER, [], n as f64)));
            Ok(())
        }
    }

    static MOODY: Spec =
        Spec { name: "moody", help: "Moods", metrics: &[&NUMBER], make: || Box::new(Moody(0)) };
    static STEADY: Spec =
        Spec { name: "steady", help: "Numbers", metrics: &[&NUMBER], make: || Box::new(Steady) };

    #[test]
    fn a_source_that_fails_or_panics_does_not_stop_the_others() {
        let mut host = Host::with_sources(&[&MOODY, &STEADY], |_| true);
        let seen: Vec<_> = (0..5)
            .map(|_| {
                let sample = host.sample(Now::read());
                assert_eq!(sample.sources[1].readings, READINGS_PER_SOURCE_MAX);
                let moody = sample.sources[0].clone();
                assert_eq!(sample.readings.len(), moody.readings + READINGS_PER_SOURCE_MAX);
                (moody.ok, moody.readings, moody.not_available.is_some(), moody.last_error)
            })
            .collect();
        let format_error = Some("/proc/x does not tell y".to_owned());
        let panic_error = Some("a broken invariant: step 4".to_owned());
        assert_eq!(seen[0], (true, 1, false, None));
        assert_eq!(seen[1], (true, 1, true, None));
        assert_eq!(seen[2], (false, 1, false, format_error));
        assert_eq!(seen[3], (false, 0, false, panic_error.clone()));
        // Made anew after the panic, it begins again; its last error stays to be seen.
        assert_eq!(seen[4], (true, 1, false, panic_error));
        assert_eq!(host.sample(Now::read()).sources[1].dropped, 6);
    }

    #[test]
    fn a_source_that_is_switched_off_is_not_made() {
        let mut host = Host::with_sources(&[&MOODY, &STEADY], |name| name != "moody");
        let sample = host.sample(Now::read());
        assert_eq!(sample.sources.iter().map(|s| s.name).collect::<Vec<_>>(), ["steady"]);
    }
}
