//! The probes: one file each for what answers over a socket, and here the table of them.
//!
//! A probe asks something on or near this host (nginx, HAProxy, a database), and gives [`Seen`]: readings of the metrics
//! that it declares, and facts for `insight`. Adding one takes a file, its `mod` line, its line in [`PROBES`] and its
//! field in [`Wanted`]; its state on `/status`, in `check` and on `/metrics` derives from there.
//!
//! A probe is asynchronous and must not block: it runs beside the sender and the status port on one thread. It has a
//! deadline, bounds what it reads, and never changes what it looks at.

mod board;
mod certificates;
mod child;
mod firewall;
mod foreign;
mod haproxy;
mod http;
mod mysql;
mod runner;
mod scrape;
mod scripts;
mod stub_status;
mod tally;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::Facts;
use crate::record::{Metric, Reading};

pub use board::ProbeBoard;
pub use certificates::Target as CertificateTarget;
pub use firewall::FirewallTarget;
pub use haproxy::HaproxyTarget;
pub use mysql::{MysqlTarget, Place};
pub use runner::{once, watch};
pub use scrape::ScrapeTarget;
pub use scripts::ScriptsTarget;
pub use stub_status::StubTarget;
pub use tally::Tally;

/// Every probe, in the order in which they are shown.
pub const PROBES: &[&Spec] = &[
    &stub_status::SPEC, // The web server first, then what stands before and behind it.
    &haproxy::SPEC,
    &mysql::SPEC,
    &certificates::SPEC,
    &scrape::SPEC,
    &scripts::SPEC,
    &firewall::SPEC,
];

/// One line of the table: what a probe is called, what it tells, how often it asks and how it is made.
pub struct Spec {
    /// The name on `/status` and in `check`.
    pub name: &'static str,
    /// What it tells, in one sentence without a full stop.
    pub help: &'static str,
    /// The setting that switches it.
    pub setting: &'static str,
    /// Every metric that it may emit.
    pub metrics: &'static [&'static Metric],
    /// Between the end of a run and the next.
    pub interval: Duration,
    /// A run that takes longer is given up.
    pub deadline: Duration,
    /// Makes one with no memory of an earlier run; `None` where it is switched off.
    pub make: fn(&Wanted) -> Option<Box<dyn Probe>>,
}

/// What the settings, and what was found on this host, ask the probes for. A field is `None` where its probe is off.
#[derive(Clone, Default)]
pub struct Wanted {
    /// Where nginx tells its counters.
    pub stub_status: Option<StubTarget>,
    /// Where HAProxy tells its counters.
    pub haproxy: Option<HaproxyTarget>,
    /// Where MySQL tells its state.
    pub mysql: Option<MysqlTarget>,
    /// The TLS servers to meet.
    pub certificates: Option<Vec<CertificateTarget>>,
    /// What the firewall may let through.
    pub firewall: Option<FirewallTarget>,
    /// Counts the lines for a comparison; `None` where no pipeline runs.
    pub tally: Option<Arc<Tally>>,
    /// What to scrape.
    pub scrape: Vec<ScrapeTarget>,
    /// Where the scripts are.
    pub scripts: Option<ScriptsTarget>,
}

/// The run of a probe.
pub type Run<'a> = Pin<Box<dyn Future<Output = Result<Seen, ProbeError>> + Send + 'a>>;

/// One thing to ask. It may keep a connection, and what it read last.
pub trait Probe: Send {
    /// Asks once. It may be dropped in the middle when its deadline passes, and must be able to start again then.
    fn run(&mut self) -> Run<'_>;

    /// What the last run could not see beside what it saw; its state on the board is that of this error.
    fn lacking(&self) -> Option<ProbeError> {
        None
    }
}

/// What one run saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Values of the metrics of the probe.
    pub readings: Vec<Reading>,
    /// What else was seen.
    pub facts: Facts,
    /// When to ask again, if not after the probe's interval.
    pub again_in: Option<Duration>,
}

/// Why a probe saw nothing. Each text says what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There is nothing here to ask; not a failure, and nothing that an operator must act on.
    #[error("{0}")]
    Absent(String),
    /// It is there, and the agent lacks a right.
    #[error("{what}; {cure}")]
    Denied {
        /// What was refused.
        what: String,
        /// How to grant it.
        cure: String,
    },
    /// It should answer and does not, or not as it should.
    #[error("{0}")]
    Failed(String),
}
