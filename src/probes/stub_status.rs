//! nginx's own counters, read around a count of its log lines.
//!
//! stub_status says how many requests were begun. One reading before and one after a count of the lines enclose what the
//! lines should come to; `insight::reconcile` compares. <https://nginx.org/en/docs/http/ngx_http_stub_status_module.html>

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, Url};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use watchpost_parsers::stub_status::stub_status;

use super::{Probe, ProbeError, Run, Seen, Spec, Tally, http};
use crate::facts::{Bracket, Facts, Master, NginxCounters, NginxFacts, OutsideAnswer};
use crate::record::{Metric, Reading};

/// While lines and counters meet exactly.
const INTERVAL: Duration = Duration::from_secs(3);
/// While requests are under way, so that an exact comparison follows soon after them.
const INTERVAL_BUSY: Duration = Duration::from_secs(1);
/// Of two readings of a few hundred bytes on this host, and the count between them, with the longest wait for a buffered log.
const DEADLINE: Duration = Duration::from_secs(90);
/// For one answer of nginx.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// For the pipeline to reach the end of every log. It is behind in a backlog; then there is nothing to compare.
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);
/// nginx's timer of a buffered log may fire a little late.
const FLUSH_MARGIN: Duration = Duration::from_millis(200);
/// Lines that are held back for longer are not waited for: they come late, and the comparison differs until they do.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// Between two questions whether others may ask too.
const OUTSIDE_INTERVAL: Duration = Duration::from_secs(60);
/// No address of anybody (RFC 5737): a socket that is aimed at it tells which address of this host is the outer one. Nothing
/// is sent.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

static REQUESTS: Metric =
    Metric::counter("nginx.requests", "{request}", "nginx_http_requests_total", "Requests that nginx began");
static ACCEPTED: Metric = Metric::counter(
    "nginx.connections_accepted",
    "{connection}",
    "nginx_connections_accepted",
    "Connections that nginx accepted",
);
static HANDLED: Metric = Metric::counter(
    "nginx.connections_handled",
    "{connection}",
    "nginx_connections_handled",
    "Connections that nginx handled; fewer than accepted when a limit was reached",
);
static CURRENT: Metric = Metric::gauge(
    "nginx.connections_current",
    "{connection}",
    "nginx_connections_current",
    "Connections of nginx by state; active is all of them",
)
.by(&["state"], &[""])
.named_by_value(&[
    ("active", "nginx_connections_active"),
    ("reading", "nginx_connections_reading"),
    ("writing", "nginx_connections_writing"),
    ("waiting", "nginx_connections_waiting"),
]);

pub(super) static SPEC: Spec = Spec {
    name: "stub_status",
    help: "nginx's own counters of requests and connections, compared with the lines of its logs",
    setting: "WATCHPOST_STUB_STATUS",
    metrics: &[&REQUESTS, &ACCEPTED, &HANDLED, &CURRENT],
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| {
        let target = wanted.stub_status.clone()?;
        Some(Box::new(StubProbe::new(target, wanted.tally.clone())))
    },
};

/// Where nginx tells its counters, and what must be known about it to compare them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubTarget {
    /// An `http://` URL; `None` where `auto` found none in nginx's configuration.
    pub url: Option<String>,
    /// The `Host` to ask for, where the URL's is not the one.
    pub host: Option<String>,
    /// Where the master's process id stands.
    pub pid_file: PathBuf,
    /// The longest time that nginx holds a line back before it writes it.
    pub flush: Duration,
}

struct StubProbe {
    target: StubTarget,
    tally: Option<Arc<Tally>>,
    client: Client,
    /// Requests that the agent made to this nginx and that were answered.
    own_requests: u64,
    outside: Option<OutsideAnswer>,
    outside_due: Option<Instant>,
}

impl StubProbe {
    fn new(target: StubTarget, tally: Option<Arc<Tally>>) -> StubProbe {
        let client = http::client();
        StubProbe { target, tally, client, own_requests: 0, outside: None, outside_due: None }
    }

    async fn see(&mut self) -> Result<Seen, ProbeError> {
        let Some(url) = self.target.url.clone() else {
            return Err(ProbeError::Absent(
                "nginx's configuration names no stub_status that can be asked from here".to_owned(),
            ));
        };
        self.ask_from_outside(&url).await;
        let before = self.counters(&url).await?;
        let own_requests = self.own_requests;
        let mut bracket = None;
        let mut after = before;
        if let Some(counted) = self.count().await {
            after = self.counters(&url).await?;
            bracket = Some(Bracket { before, counted, after, own_requests });
        }
        let is_busy = bracket.is_none_or(|bracket| bracket.has_others());
        let facts = NginxFacts {
            url,
            bracket,
            master: master(&self.target.pid_file),
            asked_from_outside: self.outside.clone(),
        };
        Ok(Seen {
            readings: readings(&after),
            facts: Facts::Nginx(facts),
            again_in: is_busy.then_some(INTERVAL_BUSY),
        })
    }

    /// The lines, once the buffers of nginx that are flushed in time have been; `None` while the agent is behind, or where
    /// nothing counts.
    async fn count(&self) -> Option<crate::facts::Counted> {
        let tally = self.tally.as_ref()?;
        if !self.target.flush.is_zero() {
            sleep(self.target.flush.min(FLUSH_MAX) + FLUSH_MARGIN).await;
        }
        timeout(COUNT_TIMEOUT, tally.count()).await.ok()
    }

    async fn counters(&mut self, url: &str) -> Result<NginxCounters, ProbeError> {
        let answer = timeout(ANSWER_TIMEOUT, http::get(&self.client, url, self.target.host.as_deref()));
        let (status, body) = answer
            .await
            .map_err(|_| failed(format!("{url}: no answer within {} s", ANSWER_TIMEOUT.as_secs())))?
            .map_err(failed)?;
        self.own_requests += 1;
        match status {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                return Err(ProbeError::Denied {
                    what: format!("{url} answers {status}"),
                    cure: "let this host ask: `allow 127.0.0.1;` in that location of nginx".to_owned(),
                });
            }
            _ => return Err(failed(format!("{url} answers {status}"))),
        }
        let page = stub_status(&body).map_err(|error| failed(format!("{url}: {error}")))?;
        Ok(NginxCounters {
            active: gauge(page.active),
            accepted: page.accepted,
            handled: page.handled,
            requests: page.requests,
            reading: gauge(page.reading),
            writing: gauge(page.writing),
            waiting: gauge(page.waiting),
        })
    }

    /// Asks the same on the outer address of this host: nginx sees that as the address of the one who asks.
    async fn ask_from_outside(&mut self, url: &str) {
        let now = Instant::now();
        if self.outside_due.is_some_and(|due| now < due) {
            return;
        }
        self.outside_due = Some(now + OUTSIDE_INTERVAL);
        self.outside = None;
        let Some(outer) = outer_url(url).await else { return };
        let host = self.target.host.clone().or_else(|| host_and_port(url));
        let answer = timeout(ANSWER_TIMEOUT, http::get(&self.client, outer.as_str(), host.as_deref())).await;
        if let Ok(Ok((status, _))) = answer {
            // The same location answers both ways, so what holds for the log of one holds for the other.
            self.own_requests += u64::from(matches!(status, StatusCode::OK | StatusCode::FORBIDDEN));
            self.outside = Some(OutsideAnswer { url: outer.to_string(), status: status.as_u16() });
        }
    }
}

impl Probe for StubProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }
}

fn failed(what: String) -> ProbeError {
    ProbeError::Failed(what)
}

/// nginx counts a gauge down past zero after a worker was killed, and prints it without its sign.
fn gauge(printed: u64) -> u64 {
    u64::try_from(printed.cast_signed()).unwrap_or(0)
}

/// The URL with the outer address of this host in it; `None` where the URL is not of this host, or the host has no other.
async fn outer_url(url: &str) -> Option<Url> {
    let mut url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if !is_loopback {
        return None;
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect(NOBODY).await.ok()?;
    let outer = socket.local_addr().ok()?.ip();
    (!outer.is_loopback() && !outer.is_unspecified()).then(|| url.set_ip_host(outer).map(|()| url).ok())?
}

fn host_and_port(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn readings(counters: &NginxCounters) -> Vec<Reading> {
    let gauges = [
        ("active", counters.active),
        ("reading", counters.reading),
        ("writing", counters.writing),
        ("waiting", counters.waiting),
    ];
    let counts =
        [(&REQUESTS, counters.requests), (&ACCEPTED, counters.accepted), (&HANDLED, counters.handled)];
    let counts = counts.into_iter().map(|(metric, value)| Reading::new(metric, [], value as f64));
    let gauges = gauges.into_iter().map(|(state, value)| Reading::new(&CURRENT, [state], value as f64));
    counts.chain(gauges).collect()
}

/// The master process; `None` where the file does not name a process of this host.
fn master(pid_file: &std::path::Path) -> Option<Master> {
    let pid: u32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything.
    let (_, behind_name) = stat.rsplit_once(')')?;
    const STARTED_BEHIND_NAME: usize = 19;
    let started_ticks = behind_name.split_ascii_whitespace().nth(STARTED_BEHIND_NAME)?.parse().ok()?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut workers: Vec<u32> =
        children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    workers.sort_unstable();
    Some(Master { pid, started_ticks, workers })
}
