//! What the probes saw: plain data, from which reconciliation and findings are drawn.
//!
//! A probe reads, and says here what it read; what that means is for `insight`. Does no I/O.

mod haproxy;
mod mysql;

use serde::Serialize;

pub use haproxy::*;
pub use mysql::*;

use crate::record::{EpochMs, Reading};

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
    /// Those of them that failed or were denied.
    pub failures: u64,
    /// Length of the last run in milliseconds.
    pub duration_ms: f64,
    /// What went wrong when it last did. It stays after a run that goes well.
    pub last_error: Option<String>,
    /// Whole seconds since a run last went well.
    pub last_success_age_s: Option<u64>,
}
