//! The host samplers: one file a source, and here the table of them.
//!
//! A source reads facts of this host and gives them as [`Reading`]s of the metrics that it declares.
//! Adding one takes a file, its `mod` line and its line in [`SOURCES`]; its switch, duration, last
//! error, JSON and Prometheus text derive from there.
//!
//! A source may read `/proc`, `/sys` and local sockets. It must never need root, run a command, talk
//! to another host, or wait for something that may not answer.

mod agent;
mod conntrack;
mod cpu;
mod disk;
mod fds;
mod filesystem;
mod host;
mod load;
mod memory;
mod network;
mod pressure;
mod proc_file;
mod processes;
mod render;
mod sock_diag;
mod swap;
mod tcp;
mod uptime;

#[cfg(test)]
mod tests;

pub use host::{Host, Sample, SourceState};
pub use render::{json_number, prometheus_text, to_json};

use crate::clock::Now;
use crate::record::{Metric, Reading};

/// Every source, in the order in which they are sampled.
pub const SOURCES: &[&Spec] = &[
    &cpu::SPEC,
    &load::SPEC,
    &memory::SPEC,
    &swap::SPEC,
    &filesystem::SPEC,
    &disk::SPEC,
    &network::SPEC,
    &tcp::SPEC,
    &conntrack::SPEC,
    &pressure::SPEC,
    &processes::SPEC,
    &fds::SPEC,
    &uptime::SPEC,
    &agent::SPEC,
];

/// One reader of host facts. It may keep what it read last, to tell rates and shares.
pub trait Source: Send {
    /// Appends the readings of this moment to `out`.
    ///
    /// An error does not take back what was appended before it: a source gives first what is sure.
    fn sample(&mut self, now: Now, out: &mut Vec<Reading>) -> Result<(), SourceError>;
}

/// One line of the table: what a source is called, what it says and how it is made.
pub struct Spec {
    /// The name in the switch, on `/status` and in `check`.
    pub name: &'static str,
    /// What it tells, in one sentence without a full stop.
    pub help: &'static str,
    /// Every metric that it may emit.
    pub metrics: &'static [&'static Metric],
    /// Makes one with no memory of an earlier sample.
    pub make: fn() -> Box<dyn Source>,
}

/// Why a source could not tell all that it should.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// This host has no such thing; not a failure, and nothing that an operator must act on.
    #[error("{0}")]
    NotAvailable(String),
    /// The fact is there and could not be read.
    #[error("reading {path}")]
    Read {
        /// What was read.
        path: String,
        /// Why it could not be.
        source: std::io::Error,
    },
    /// What was read is not in the form that it should have.
    #[error("{path} does not tell {what}")]
    Format {
        /// What was read.
        path: &'static str,
        /// What was looked for in it.
        what: &'static str,
    },
}
