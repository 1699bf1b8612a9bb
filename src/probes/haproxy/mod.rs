//! HAProxy's own counters, its servers, and whether it speaks TLS to them.
//!
//! Asked on a stats socket, for which the level `user` is enough, or on the stats page. `talk` is one question, `places` says
//! where it is put, `metrics` names what is told. HAProxy's management guide, chapter 9, has the commands.

mod metrics;
mod places;
mod talk;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::Client;
use watchpost_parsers::haproxy::{Kind, Numbers, Server, StatRow, info, servers_state, stat};

use super::{Probe, ProbeError, Run, Seen, Spec, http};
use crate::facts::{
    Facts, HaproxyBackend, HaproxyCounts, HaproxyFacts, HaproxyFrontend, HaproxyProcess, HaproxyServer,
    HaproxyTraffic, TlsBinds,
};

/// Between two looks at all counters, a few KiB for a small farm.
const INTERVAL: Duration = Duration::from_secs(5);
/// Of four answers on this host.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the configuration.
const CONFIGURATION_INTERVAL: Duration = Duration::from_secs(60);
/// A session whose protocol does not tell how many of its requests are under way may have so many: the default of
/// `tune.h2.max-concurrent-streams`, and the limit of requests on one QUIC connection.
const REQUESTS_PER_SESSION_MAX: u64 = 100;

pub(super) static SPEC: Spec = Spec {
    name: "haproxy",
    help: "HAProxy's own counters and the state of its servers, its requests compared with its answers",
    setting: "WATCHPOST_HAPROXY",
    metrics: metrics::ALL,
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| Some(Box::new(HaproxyProbe::new(wanted.haproxy.clone()?))),
};

/// Where to ask HAProxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaproxyTarget {
    /// On the sockets of its configuration and on well-known ones.
    Auto,
    /// On this socket.
    Socket(PathBuf),
    /// On this stats page.
    Page(String),
}

struct HaproxyProbe {
    target: HaproxyTarget,
    client: Client,
    /// What the configuration of a process said, and when to look again.
    tls_binds: Option<(Option<u64>, Option<TlsBinds>, Instant)>,
}

/// The answers of one run.
#[derive(Default)]
struct Answers {
    source: String,
    info: Option<Vec<u8>>,
    before: Vec<u8>,
    servers: Option<Vec<u8>>,
    after: Vec<u8>,
}

impl HaproxyProbe {
    fn new(target: HaproxyTarget) -> HaproxyProbe {
        HaproxyProbe { target, client: http::client(), tls_binds: None }
    }

    async fn see(&mut self) -> Result<Seen, ProbeError> {
        let answers = match &self.target {
            HaproxyTarget::Page(url) => self.ask_page(url).await?,
            HaproxyTarget::Socket(path) => ask_socket(path.clone()).await?,
            HaproxyTarget::Auto => ask_any_socket().await?,
        };
        let source = answers.source.as_str();
        let mut readings = Vec::new();
        let mut process = None;
        if let Some(answer) = &answers.info {
            let info = info(answer).map_err(|error| failed(source, "show info", &error))?;
            readings.extend(metrics::of_process(&info));
            process = Some(HaproxyProcess {
                pid: info.pid.unwrap_or_default(),
                uptime_s: info.uptime_sec.unwrap_or_default(),
                dropped_logs: info.dropped_logs.unwrap_or_default(),
            });
        }
        let (before, unread) = rows(source, &answers.before)?;
        let (after, unread_after) = rows(source, &answers.after)?;
        readings.extend(metrics::of_rows(&before, unread));
        let mut facts = HaproxyFacts {
            source: source.to_owned(),
            process,
            servers: servers(source, &before, answers.servers.as_deref())?,
            tls_binds: self.tls_binds(process.map(|process| process.pid)),
            traffic: traffic(&before, &after, process.is_none()).filter(|_| unread + unread_after == 0),
            ..HaproxyFacts::default()
        };
        for row in &before {
            let name = row.proxy.as_ref().to_owned();
            match row.kind {
                Kind::Frontend => facts.frontends.push(HaproxyFrontend {
                    name,
                    mode: text(row.mode.as_deref()),
                    tls_handshakes: row.numbers.ssl_sess,
                }),
                Kind::Backend => {
                    facts.backends.push(HaproxyBackend { name, status: text(row.status.as_deref()) });
                }
                Kind::Server | Kind::Listener => {}
            }
        }
        Ok(Seen { readings, facts: Facts::Haproxy(facts), again_in: None })
    }

    /// The stats page has the counters alone; it is read twice for the comparison.
    async fn ask_page(&self, url: &str) -> Result<Answers, ProbeError> {
        let url = if url.contains(";csv") { url.to_owned() } else { format!("{url};csv") };
        let before = talk::page(&self.client, &url).await?;
        let after = talk::page(&self.client, &url).await?;
        Ok(Answers { source: url, before, after, ..Answers::default() })
    }

    fn tls_binds(&mut self, pid: Option<u64>) -> Option<TlsBinds> {
        let now = Instant::now();
        match &self.tls_binds {
            Some((of, binds, due)) if *of == pid && now < *due => binds.clone(),
            _ => {
                let binds = places::tls_binds(pid);
                self.tls_binds = Some((pid, binds.clone(), now + CONFIGURATION_INTERVAL));
                binds
            }
        }
    }
}

impl Probe for HaproxyProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }
}

/// The process is asked first: where a reload comes between, the counters are of a later process and have begun anew.
async fn ask_socket(path: PathBuf) -> Result<Answers, ProbeError> {
    let info = talk::command(&path, "show info").await?;
    let before = talk::command(&path, "show stat").await?;
    let servers = talk::command(&path, "show servers state").await?;
    let after = talk::command(&path, "show stat").await?;
    let source = path.display().to_string();
    Ok(Answers { source, info: Some(info), before, servers: Some(servers), after })
}

/// The first socket that answers; else the complaint about the first that there is.
async fn ask_any_socket() -> Result<Answers, ProbeError> {
    let mut complaint = None;
    for path in places::sockets() {
        match ask_socket(path).await {
            Ok(answers) => return Ok(answers),
            Err(error) => complaint = complaint.or(Some(error)),
        }
    }
    Err(complaint.unwrap_or_else(|| {
        if places::runs() {
            talk::denied("HAProxy runs here and has no stats socket".to_owned())
        } else {
            ProbeError::Absent("no HAProxy runs here, or its stats socket is at no usual place".to_owned())
        }
    }))
}

fn failed(source: &str, question: &str, error: &dyn std::error::Error) -> ProbeError {
    ProbeError::Failed(format!("{source}: {question}: {error}"))
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

/// The rows of `show stat`, and how many could not be read.
fn rows<'a>(source: &str, answer: &'a [u8]) -> Result<(Vec<StatRow<'a>>, usize), ProbeError> {
    let (mut rows, mut unread) = (Vec::new(), 0);
    for row in stat(answer).map_err(|error| failed(source, "show stat", &error))? {
        match row {
            Ok(row) => rows.push(row),
            Err(_) => unread += 1,
        }
    }
    Ok((rows, unread))
}

/// The servers of `show stat`, with what `show servers state` tells of each.
fn servers(
    source: &str,
    rows: &[StatRow<'_>],
    state: Option<&[u8]>,
) -> Result<Vec<HaproxyServer>, ProbeError> {
    let mut states: std::collections::HashMap<(&str, &str), Server<'_>> = std::collections::HashMap::new();
    if let Some(state) = state {
        let servers = servers_state(state).map_err(|error| failed(source, "show servers state", &error))?;
        states.extend(servers.flatten().map(|server| ((server.backend, server.server), server)));
    }
    let server = |row: &StatRow<'_>| {
        let state = states.get(&(row.proxy.as_ref(), row.server.as_ref()));
        HaproxyServer {
            backend: row.proxy.as_ref().to_owned(),
            name: row.server.as_ref().to_owned(),
            mode: text(row.mode.as_deref()),
            status: text(row.status.as_deref()),
            since_s: row.numbers.lastchg,
            address: state.and_then(|state| state.address).map(str::to_owned),
            port: state.and_then(|state| state.port),
            use_tls: state.and_then(|state| state.use_ssl).map(|use_ssl| use_ssl != 0),
        }
    };
    Ok(rows.iter().filter(|row| row.kind == Kind::Server).map(server).collect())
}

/// Requests and answers of the HTTP frontends in two readings. Where the readings themselves are requests (`is_page`), each is
/// under way while it reads, and none counts.
fn traffic(before: &[StatRow<'_>], after: &[StatRow<'_>], is_page: bool) -> Option<HaproxyTraffic> {
    let (mut first, mut second) = (counts(before)?, counts(after)?);
    if is_page {
        first.requests = first.requests.saturating_sub(1);
        first.under_way = first.under_way.saturating_sub(1);
        second.requests = second.requests.saturating_sub(2);
        second.answers = second.answers.saturating_sub(1);
        second.under_way = second.under_way.saturating_sub(1);
    }
    let of_backends = |read: fn(&Numbers) -> Option<u64>| {
        after.iter().filter(|row| row.kind == Kind::Backend).filter_map(|row| read(&row.numbers)).sum()
    };
    Some(HaproxyTraffic {
        before: first,
        after: second,
        client_aborts: of_backends(|numbers| numbers.cli_abrt),
        server_aborts: of_backends(|numbers| numbers.srv_abrt),
    })
}

/// The sum over the HTTP frontends; `None` where there is none, or one does not tell.
fn counts(rows: &[StatRow<'_>]) -> Option<HaproxyCounts> {
    let is_http = |row: &&StatRow<'_>| row.kind == Kind::Frontend && row.mode.as_deref() == Some("http");
    let mut sum: Option<HaproxyCounts> = None;
    for row in rows.iter().filter(is_http) {
        let numbers = &row.numbers;
        let answers: Option<Vec<u64>> =
            metrics::answers_by_code(numbers).into_iter().map(|(_, count)| count).collect();
        let sum = sum.get_or_insert_default();
        sum.requests += numbers.req_tot?;
        sum.answers += answers?.iter().sum::<u64>();
        sum.under_way += under_way(numbers);
    }
    sum
}

/// The most requests that can be under way: those of HTTP/1 and HTTP/2 are known, and other sessions may have many each.
fn under_way(numbers: &Numbers) -> u64 {
    let of = |value: Option<u64>| value.unwrap_or(0);
    let known = of(numbers.h1_open_streams) + of(numbers.h2_backend_open_streams);
    let sessions = of(numbers.h1_open_connections) + of(numbers.h2_open_connections);
    known + REQUESTS_PER_SESSION_MAX * of(numbers.scur).saturating_sub(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = include_bytes!("../../../parsers/tests/data/haproxy/stat-user.csv");
    const INFO: &[u8] = include_bytes!("../../../parsers/tests/data/haproxy/info.txt");
    const SERVERS: &[u8] = include_bytes!("../../../parsers/tests/data/haproxy/servers-state.txt");

    #[test]
    fn what_a_real_haproxy_told_becomes_facts() {
        let (rows, unread) = rows("s", STAT).expect("rows");
        assert_eq!((rows.len(), unread), (20, 0));
        let servers = servers("s", &rows, Some(SERVERS)).expect("servers");
        let named = |name: &str| servers.iter().find(|server| server.name == name).expect("it is there");
        assert_eq!(servers.len(), 10);
        assert_eq!((named("tls1").use_tls, named("web1").use_tls), (Some(true), Some(false)));
        assert_eq!((named("web6").address.as_deref(), named("web6").port), (Some("::1"), Some(28081)));
        assert_eq!((named("sock").address.as_deref(), named("db1").mode.as_str()), (None, "tcp"));
        assert_eq!(named("web2").status, "DOWN");
        let found = traffic(&rows, &rows, false).expect("HTTP");
        let counts = HaproxyCounts { requests: 58, answers: 58, under_way: 0 };
        assert_eq!((found.before, found.after), (counts, counts));
    }

    #[test]
    fn requests_under_way_are_those_of_streams_or_as_many_as_can_be() {
        let of = |scur, h1: Option<(u64, u64)>, h2: Option<(u64, u64)>| {
            under_way(&Numbers {
                scur: Some(scur),
                h1_open_connections: h1.map(|(connections, _)| connections),
                h1_open_streams: h1.map(|(_, streams)| streams),
                h2_open_connections: h2.map(|(connections, _)| connections),
                h2_backend_open_streams: h2.map(|(_, streams)| streams),
                ..Numbers::default()
            })
        };
        assert_eq!(of(7, Some((7, 2)), Some((0, 0))), 2, "five wait for a request");
        assert_eq!(of(1, Some((0, 0)), Some((1, 10))), 10, "ten on one connection");
        assert_eq!(of(3, Some((1, 1)), Some((1, 4))), 105, "one of another protocol");
        assert_eq!(of(2, None, None), 200, "an old HAProxy");
    }

    #[test]
    fn metrics_have_the_names_of_both_worlds_and_a_bound() {
        let (rows, _) = rows("s", STAT).expect("rows");
        let mut readings = metrics::of_rows(&rows, 0);
        readings.extend(metrics::of_process(&info(INFO).expect("an answer")));
        let shown = |reading: &crate::record::Reading| {
            let labels = reading.prometheus_labels();
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            format!("{}{{{}}} {}", reading.prometheus_name(), labels.join(","), reading.value)
        };
        let text: Vec<String> = readings.iter().map(shown).collect();
        for line in [
            "haproxy_frontend_http_requests_total{proxy=\"www\"} 58",
            "haproxy_frontend_http_responses_total{proxy=\"www\",code=\"4xx\"} 8",
            "haproxy_backend_http_responses_total{proxy=\"app\",code=\"2xx\"} 42",
            "haproxy_server_status{proxy=\"app\",server=\"web2\",state=\"DOWN\"} 1",
            "haproxy_server_status{proxy=\"app\",server=\"web6\",state=\"UP\"} 1",
            "haproxy_server_current_sessions{proxy=\"app\",server=\"web1\"} 0",
            "haproxy_process_dropped_logs_total{} 0",
            "haproxy_process_uptime_seconds{} 13",
            "watchpost_haproxy_rows_omitted{} 0",
        ] {
            assert!(text.iter().any(|found| found == line), "{line} is not in {text:?}");
        }
        let declared = |reading: &crate::record::Reading| metrics::ALL.contains(&reading.metric);
        assert!(readings.iter().all(declared));
        let many: Vec<StatRow<'_>> = rows.iter().cycle().take(4_000).cloned().collect();
        let omitted = metrics::of_rows(&many, 2).pop().expect("the last").value;
        let listeners = many.iter().filter(|row| row.kind == Kind::Listener).count();
        assert_eq!(omitted, (4_000 - listeners - 200 + 2) as f64);
    }
}
