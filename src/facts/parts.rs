//! Words for probes that ask several: what each part gave, and how each fares.

use std::time::Duration;

use serde::Serialize;

use super::ProbeState;
use crate::record::ForeignSample;

/// One of several that a probe asks, and that name their metrics themselves: a target that is scraped, a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its name; none stands twice among the parts of a probe.
    pub name: String,
    /// How it fares by itself.
    pub state: ProbeState,
    /// What is wrong, or what to know although nothing is.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What it gave: sorted by name, no series twice.
    pub samples: Vec<ForeignSample>,
    /// Samples over a limit, which are in no record.
    pub left_out: u64,
    /// Lines or values that could not be read.
    pub unread: u64,
}

/// What a [`Part`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// An endpoint that is scraped.
    Target,
    /// A script of the operator.
    Script,
}

impl PartKind {
    /// The key in a record, and the label on `/metrics`, that says which part it was.
    pub fn label(self) -> &'static str {
        match self {
            PartKind::Target => "target",
            PartKind::Script => "script",
        }
    }

    /// What the names of its metrics begin with on `/metrics`, where no metric of the agent's own begins so.
    pub fn prefix(self) -> &'static str {
        match self {
            PartKind::Target => "scrape_",
            PartKind::Script => "script_",
        }
    }
}

/// How one [`Part`] fares, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartStatus {
    /// Its name.
    pub name: String,
    /// How it came out of the last run.
    pub state: ProbeState,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Samples that it gave.
    pub samples: usize,
    /// Samples over a limit that were left out.
    pub left_out: u64,
    /// Lines or values that could not be read.
    pub unread: u64,
    /// What is wrong, or what to know although nothing is.
    pub error: Option<String>,
}

impl From<&Part> for PartStatus {
    fn from(part: &Part) -> PartStatus {
        PartStatus {
            name: part.name.clone(),
            state: part.state,
            duration_ms: part.took.as_micros() as f64 / 1000.0,
            samples: part.samples.len(),
            left_out: part.left_out,
            unread: part.unread,
            error: part.error.clone(),
        }
    }
}
