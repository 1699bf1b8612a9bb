//! Scripts of the operator, run one after the other: what each prints are its metrics.
//!
//! Each is checked before every run (`scripts/rights.rs`) and runs within limits (`scripts/child.rs`). One that fails, hangs
//! or prints garbage costs only itself. This is the only place where the agent starts a process.

mod child;
mod rights;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use watchpost_parsers::prometheus::Dialect;

use super::foreign::{Gathered, json, prometheus};
use super::{Probe, ProbeError, Run, Seen, Spec};
use crate::facts::{Facts, Part, PartKind, ProbeState};

/// Between the end of a run and the next.
const INTERVAL: Duration = Duration::from_secs(30);
/// Scripts that are run.
const SCRIPTS_MAX: usize = 32;
/// For one script; then it is killed with all that it started.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a script may print; then it is killed likewise.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Of as many scripts as there may be, all of which hang, with some time for their ends.
const DEADLINE: Duration = Duration::from_secs(400);

const LIMITS: child::Limits = child::Limits { time: SCRIPT_TIMEOUT, bytes: OUTPUT_BYTES_MAX };

pub(super) static SPEC: Spec = Spec {
    name: "scripts",
    help: "metrics that scripts of the operator print",
    setting: "WATCHPOST_SCRIPTS",
    metrics: &[],
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| {
        let target = wanted.scripts.clone()?;
        Some(Box::new(ScriptsProbe { target, limits: LIMITS }))
    },
};

/// Where the scripts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptsTarget {
    /// Each executable file in it is a script.
    pub directory: PathBuf,
    /// Whether it may be missing.
    pub is_optional: bool,
    /// Whether they may run as root, where the agent does.
    pub as_root: bool,
}

struct ScriptsProbe {
    target: ScriptsTarget,
    limits: child::Limits,
}

impl Probe for ScriptsProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }
}

impl ScriptsProbe {
    async fn see(&self) -> Result<Seen, ProbeError> {
        let directory = rights::directory(&self.target)?;
        let (names, more) = scripts(&directory)?;
        let shown = self.target.directory.display();
        if names.is_empty() {
            return Err(ProbeError::Absent(format!("there is no script in {shown}")));
        }
        if rustix::process::geteuid().is_root() && !self.target.as_root {
            return Err(ProbeError::Denied {
                what: format!("this is root, and the scripts in {shown} would be as well"),
                cure: format!("run it as a user of its own, or set WATCHPOST_SCRIPTS=root:{shown}"),
            });
        }
        let mut parts = Vec::new();
        for name in names {
            parts.push(part(&directory, name, &self.limits).await);
        }
        if more > 0 {
            let error = format!("at most {SCRIPTS_MAX} scripts of a directory are run");
            parts.push(told(format!("({more} more)"), ProbeState::Failing, Some(error), Duration::ZERO));
        }
        Ok(Seen { readings: Vec::new(), facts: Facts::Parts(parts.into()), again_in: None })
    }
}

/// A part without samples.
fn told(name: String, state: ProbeState, error: Option<String>, took: Duration) -> Part {
    let samples = Vec::new();
    Part { kind: PartKind::Script, name, state, error, took, samples, left_out: 0, unread: 0 }
}

/// The names of what may be a script, in their order, and how many are over the limit.
fn scripts(directory: &Path) -> Result<(Vec<String>, usize), ProbeError> {
    let failed = |error: std::io::Error| ProbeError::Failed(format!("{}: {error}", directory.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // What cannot be looked at is named: as a script it says why.
        let is_file = std::fs::metadata(entry.path()).map_or(true, |metadata| metadata.is_file());
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_file && !is_leftover(&name) {
            names.push(name);
        }
    }
    names.sort();
    let more = names.len().saturating_sub(SCRIPTS_MAX);
    names.truncate(SCRIPTS_MAX);
    Ok((names, more))
}

/// What editors and package managers leave beside a file, and what is hidden.
fn is_leftover(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || [".dpkg-", ".rpm"].iter().any(|mark| name.contains(mark))
}

async fn part(directory: &Path, name: String, limits: &child::Limits) -> Part {
    let begun = Instant::now();
    let script = match rights::script(directory, &name) {
        Ok(script) => script,
        Err((state, error)) => return told(name, state, Some(error), begun.elapsed()),
    };
    let output = child::run(&script, limits).await.and_then(|output| read(&output));
    let took = begun.elapsed();
    let (error, gathered) = match output {
        Ok((remark, gathered)) => (remark, gathered),
        Err(error) => return told(name, ProbeState::Failing, Some(error), took),
    };
    let Gathered { samples, left_out, unread, .. } = gathered;
    let (kind, state) = (PartKind::Script, ProbeState::Ok);
    Part { kind, name, state, error, took, samples, left_out, unread }
}

/// What a script printed, with a remark on it.
fn read(output: &[u8]) -> Result<(Option<String>, Gathered), String> {
    if output.trim_ascii().is_empty() {
        return Ok((Some("printed nothing".to_owned()), Gathered::default()));
    }
    // A `{` begins JSON, and no line of the other format.
    let gathered = if output.trim_ascii_start().starts_with(b"{") {
        json(output)?
    } else {
        let mut text = output.to_vec();
        // `printf 'a 1'` is meant as a line.
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        prometheus(&text, Dialect::Prometheus, |_| true)
    };
    Ok((gathered.remark()?, gathered))
}

#[cfg(test)]
mod tests;
