//! What the probes saw: plain data, from which reconciliation and findings are drawn.
//!
//! A probe reads, and says here what it read; what that means is for `insight`. Does no I/O.

mod certificates;
mod firewall;
mod haproxy;
mod mysql;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use certificates::{
    CertificateFacts, CertificateSeen, FileVerdict, HttpsAnswer, OldProtocol, PlainAnswer, TlsEndpoint, Trust,
};
pub use firewall::{FirewallFacts, Listener, Passage, Program, Rules};
pub use haproxy::*;
pub use mysql::*;

use crate::record::{EpochMs, ForeignSample, Reading};

/// What one run of one probe gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// The probe's name in the table of probes.
    pub probe: &'static str,
    /// When it was seen.
    pub at: EpochMs,
    /// Its metrics.
    pub readings: Vec<Reading>,
    /// What it saw beyond numbers.
    pub facts: Facts,
}

impl Report {
    /// What each of several gave, where the probe asks several.
    pub fn parts(&self) -> Option<&Arc<[Part]>> {
        match &self.facts {
            Facts::Parts(parts) => Some(parts),
            _ => None,
        }
    }
}

/// What a probe saw, for those who draw conclusions.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// Metrics alone.
    None,
    /// nginx's own counters, with what was counted of its logs.
    Nginx(NginxFacts),
    /// What HAProxy balances, and its own counts.
    Haproxy(HaproxyFacts),
    /// Who writes to MySQL, and whether replicas follow.
    Mysql(MysqlFacts),
    /// How TLS servers answer, and their certificates.
    Certificates(CertificateFacts),
    /// The firewall, and what listens.
    Firewall(FirewallFacts),
    /// What each of several gave, each by itself.
    Parts(Arc<[Part]>),
}

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

/// nginx's counters, read around one count of its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct NginxFacts {
    /// Where stub_status was asked.
    pub url: String,
    /// The comparison; `None` where the lines could not be counted in time.
    pub bracket: Option<Bracket>,
    /// The master process and its workers, where they can be seen.
    pub master: Option<Master>,
    /// What the same URL said to this host's own outer address, where it has one: whether anybody may ask.
    pub asked_from_outside: Option<OutsideAnswer>,
}

/// Three readings in this order: the counters, the lines, the counters again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// The counters before the lines were counted.
    pub before: NginxCounters,
    /// The lines.
    pub counted: Counted,
    /// The counters after that.
    pub after: NginxCounters,
    /// Requests of the agent itself that `before` includes, its own among them; `after` has one more.
    pub own_requests: u64,
}

impl Bracket {
    /// Whether requests of others were under way or came in between, so that the comparison has room.
    pub fn has_others(&self) -> bool {
        let own_of_before = 1;
        self.before.reading + self.before.writing > own_of_before
            || self.after.requests > self.before.requests + 1
    }
}

/// nginx's stub_status (`ngx_http_stub_status_module`): connections and requests since its master started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NginxCounters {
    /// Open connections.
    pub active: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections handled; fewer than accepted when a limit was reached.
    pub handled: u64,
    /// Requests begun.
    pub requests: u64,
    /// Connections whose request header is being read.
    pub reading: u64,
    /// Connections with a request in work, the one that asks for the counters included.
    pub writing: u64,
    /// Connections that wait for a request.
    pub waiting: u64,
}

/// How many access lines the agent has counted, since its state began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Lines counted, parsed or not.
    pub lines: u64,
    /// Lines that are known to be lost before they could be counted, as far as they can be numbered.
    pub lost_lines: u64,
    /// Bytes of log lost before they could be counted.
    pub lost_bytes: u64,
    /// Times that a log was found truncated or rewritten, since the agent's start.
    pub rewrites: u64,
}

/// nginx's master process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the host did (proc_pid_stat(5), field 22).
    pub started_ticks: u64,
    /// Its children, sorted.
    pub workers: Vec<u32>,
}

/// How a URL answered on an address that others can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideAnswer {
    /// The URL that was asked.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
}

/// How a probe stands to what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// The first run is not through.
    Starting,
    /// The last run saw what there is.
    Ok,
    /// Of several that it asks some answered and some did not; the error says which.
    Partial,
    /// There is nothing to ask on this host.
    Absent,
    /// The agent lacks a right; the error says which, and how to grant it.
    Denied,
    /// It should answer and does not.
    Failing,
}

/// How one probe fares, as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeStatus {
    /// The name in the table of probes.
    pub name: &'static str,
    /// How the last run ended.
    pub state: ProbeState,
    /// Runs since the agent started.
    pub runs: u64,
    /// Those of them that failed or were denied, if only in part.
    pub failures: u64,
    /// Length of the last run in milliseconds.
    pub duration_ms: f64,
    /// What went wrong when it last did. It stays after a run that goes well.
    pub last_error: Option<String>,
    /// Whole seconds since a run last went well.
    pub last_success_age_s: Option<u64>,
    /// How each of several fares that it asks; empty where it asks one thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartStatus>,
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
