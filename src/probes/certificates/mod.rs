//! TLS servers as a visitor meets them: a real handshake, the certificate that is served, old versions, and HTTP beside HTTPS.
//!
//! Each server costs five short connections a run, which its own counts and logs show; so runs are rare. The requests name the
//! agent (`User-Agent: watchpost/VERSION`). Names: blackbox_exporter's `probe_ssl_earliest_cert_expiry` in ours.

mod file;
mod handshake;
mod http;
mod old_protocols;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Probe, ProbeError, Run, Seen, Spec};
use crate::clock::Now;
use crate::facts::{CertificateFacts, Facts, OldProtocol, TlsEndpoint, Trust};
use crate::record::{Metric, Reading};

/// A certificate changes every some weeks, and a reload that was forgotten is known soon enough. At one a minute the requests
/// and the refused handshakes would stand out in the counts of a quiet server.
const INTERVAL: Duration = Duration::from_secs(300);
/// Of servers that all take their longest, side by side in [`LANES`].
const DEADLINE: Duration = Duration::from_secs(150);
/// For the connection and the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Names that are asked for; a host with more serves them from one configuration, of which these tell.
const TARGETS_MAX: usize = 64;
/// Servers that are asked at a time.
const LANES: usize = 8;
/// Errors that are said of one run.
const ERRORS_SAID_MAX: usize = 5;
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

static EXPIRY: Metric = by_endpoint(Metric::gauge(
    "watchpost.certificate.expiry",
    "s",
    "watchpost_certificate_expiry_timestamp_seconds",
    "When the first certificate of the chain that is served runs out, in seconds since the epoch",
));
static TRUSTED: Metric = by_endpoint(Metric::gauge(
    "watchpost.certificate.trusted",
    "1",
    "watchpost_certificate_trusted",
    "Whether the chain leads to an authority of this system",
));
static REACHABLE: Metric = by_endpoint(Metric::gauge(
    "watchpost.tls.reachable",
    "1",
    "watchpost_tls_reachable",
    "Whether the last handshake went through",
));
static HANDSHAKE: Metric = by_endpoint(Metric::gauge(
    "watchpost.tls.handshake",
    "s",
    "watchpost_tls_handshake_duration_seconds",
    "How long connection and handshake took",
));
static ACCEPTED: Metric = Metric::gauge(
    "watchpost.tls.accepted",
    "1",
    "watchpost_tls_protocol_accepted",
    "Whether the server speaks a version of TLS, by its answer when that was offered",
)
.by(&["server.address", "tls.server.name", "tls.protocol"], &["address", "name", "protocol"]);

const fn by_endpoint(metric: Metric) -> Metric {
    metric.by(&["server.address", "tls.server.name"], &["address", "name"])
}

pub(super) static SPEC: Spec = Spec {
    name: "certificates",
    help: "TLS servers by real handshakes: certificates, versions, and whether HTTP leads to HTTPS",
    setting: "WATCHPOST_CERTIFICATES",
    metrics: &[&EXPIRY, &TRUSTED, &REACHABLE, &HANDSHAKE, &ACCEPTED],
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| {
        let targets = wanted.certificates.clone()?;
        Some(Box::new(CertificateProbe { targets, known: BTreeMap::new(), errors: Vec::new() }))
    },
};

/// One server to meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// An address, or a name that leads to one.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name to ask for; `None`: the first that the certificate in the file is for.
    pub name: Option<String>,
    /// Files of which one holds the certificate that should be served.
    pub files: Vec<PathBuf>,
}

impl Target {
    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    async fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        TcpStream::connect((self.host.as_str(), port)).await
    }
}

struct CertificateProbe {
    targets: Vec<Target>,
    /// Every server as it was seen last, by its place among the targets.
    known: BTreeMap<usize, TlsEndpoint>,
    /// What the last run could not see.
    errors: Vec<String>,
}

impl CertificateProbe {
    async fn see(&mut self) -> Result<Seen, ProbeError> {
        self.errors.clear();
        if self.targets.is_empty() {
            let what = "neither nginx.conf nor haproxy.cfg names a port with TLS that can be asked from here";
            return Err(ProbeError::Absent(what.to_owned()));
        }
        let targets = &self.targets[..self.targets.len().min(TARGETS_MAX)];
        let roots = Arc::new(spawn_blocking(roots).await.unwrap_or_else(|_| RootCertStore::empty()));
        let first_at = |target: &Target| {
            targets.iter().position(|other| (&other.host, other.port) == (&target.host, target.port))
        };
        let lane = |offset: usize| {
            let roots = Arc::clone(&roots);
            async move {
                let mut seen = Vec::new();
                for (index, target) in targets.iter().enumerate().skip(offset).step_by(LANES) {
                    // A version is spoken or not by the whole port.
                    let is_first = first_at(target) == Some(index);
                    seen.push((index, meet(target, is_first, &roots).await));
                }
                seen
            }
        };
        let lanes: Vec<Lane<'_>> = (0..LANES).map(|offset| Box::pin(lane(offset)) as Lane<'_>).collect();
        let met = all(lanes).await;
        let mut readings = Vec::new();
        let mut errors = Vec::new();
        for (index, outcome) in met {
            let target = &targets[index];
            let reachable = f64::from(u8::from(outcome.is_ok()));
            let address = target.address();
            let name = target.name.as_deref().unwrap_or_default();
            readings.push(Reading::new(&REACHABLE, [&address, name], reachable));
            match outcome {
                Ok(endpoint) => {
                    readings.extend(of_endpoint(&endpoint, name));
                    self.known.insert(index, endpoint);
                }
                Err(error) if name.is_empty() => errors.push(format!("{address}: {error}")),
                Err(error) => errors.push(format!("{name} at {address}: {error}")),
            }
        }
        if self.targets.len() > TARGETS_MAX {
            errors.push(format!("of {} names {TARGETS_MAX} are asked for", self.targets.len()));
        }
        self.errors = errors;
        if self.known.is_empty() {
            return Err(ProbeError::Failed(self.said()));
        }
        let facts = CertificateFacts { endpoints: self.known.values().cloned().collect() };
        Ok(Seen { readings, facts: Facts::Certificates(facts), again_in: None })
    }

    fn said(&self) -> String {
        let said = self.errors.iter().take(ERRORS_SAID_MAX).cloned().collect::<Vec<_>>().join("; ");
        match self.errors.len().saturating_sub(ERRORS_SAID_MAX) {
            0 => said,
            more => format!("{said}; and {more} more"),
        }
    }
}

impl Probe for CertificateProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }

    fn lacking(&self) -> Option<ProbeError> {
        (!self.errors.is_empty()).then(|| ProbeError::Failed(self.said()))
    }
}

/// Servers that are met one after the other: the place of each among the targets, and what came of it.
type Lane<'a> = Pin<Box<dyn Future<Output = Vec<(usize, Result<TlsEndpoint, String>)>> + Send + 'a>>;

/// Waits for all lanes, side by side in one task.
async fn all(mut futures: Vec<Lane<'_>>) -> Vec<(usize, Result<TlsEndpoint, String>)> {
    let mut outputs = Vec::new();
    poll_fn(|context| {
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(output) => {
                outputs.extend(output);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs
}

/// The authorities of this system, as the sender's client has them.
fn roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// Everything that is asked of one server, one after the other.
async fn meet(target: &Target, asks_versions: bool, roots: &RootCertStore) -> Result<TlsEndpoint, String> {
    let from_file = match (&target.name, target.files.first().cloned()) {
        (None, Some(path)) => spawn_blocking(move || first_name(&path)).await.ok().flatten(),
        _ => None,
    };
    let name = target.name.as_deref().or(from_file.as_deref());
    let shaken = timeout(HANDSHAKE_TIMEOUT, handshake::shake(target, name)).await;
    let mut shaken =
        shaken.map_err(|_| format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()))??;
    let now = Now::read();
    let leaf = shaken.chain.first().cloned().ok_or("the server sent no certificate")?;
    let trust = match shaken.key_doubt.take() {
        Some(doubt) => Trust::Untrusted(doubt),
        None => handshake::trust(&shaken.chain, roots, now.wall / 1000),
    };
    let (mut https, mut plain) = (None, None);
    if target.port == HTTPS_PORT {
        let host = name.unwrap_or(&target.host);
        https = http::secure(&mut shaken.stream, host).await;
        drop(shaken.stream);
        if https.is_some() {
            plain = Some(http::plain(target, host).await);
        }
    }
    let mut old_protocols = Vec::new();
    if asks_versions {
        for (version, minor) in old_protocols::VERSIONS {
            old_protocols.push((version, old_protocols::ask(target, name, minor).await));
        }
    }
    let fits_name = target.name.as_deref().map(|name| handshake::fits(&leaf, name));
    let files = target.files.clone();
    let compared = spawn_blocking(move || file::compare(&leaf, &files)).await;
    Ok(TlsEndpoint {
        address: target.address(),
        name: name.map(str::to_owned),
        at: now.wall,
        protocol: shaken.protocol.to_owned(),
        took: shaken.took,
        chain: shaken.chain.iter().map(|certificate| handshake::read(certificate)).collect(),
        trust,
        fits_name,
        file: compared.map_err(|error| error.to_string())?,
        old_protocols,
        https,
        plain,
    })
}

/// The first name of the certificate in a file that is no pattern.
fn first_name(path: &std::path::Path) -> Option<String> {
    let (certificate, _) = file::first(path).ok()?;
    let mut names = handshake::read(&certificate).names.into_iter();
    names.find(|name| rustls::pki_types::DnsName::try_from(name.as_str()).is_ok())
}

fn of_endpoint(endpoint: &TlsEndpoint, name: &str) -> Vec<Reading> {
    let address = endpoint.address.as_str();
    let mut readings =
        vec![Reading::new(&HANDSHAKE, [address, name], endpoint.took.as_micros() as f64 / 1e6)];
    if let Some(expiry) = endpoint.chain.iter().map(|one| one.not_after_s).min() {
        readings.push(Reading::new(&EXPIRY, [address, name], expiry as f64));
    }
    let trusted = match endpoint.trust {
        Trust::Trusted => Some(1.0),
        Trust::Untrusted(_) => Some(0.0),
        Trust::NoRoots => None,
    };
    readings.extend(trusted.map(|trusted| Reading::new(&TRUSTED, [address, name], trusted)));
    let old = endpoint.old_protocols.iter().filter_map(|(version, answer)| match answer {
        OldProtocol::Accepted => Some((*version, 1.0)),
        OldProtocol::Refused => Some((*version, 0.0)),
        OldProtocol::Unknown(_) => None,
    });
    let met = [(endpoint.protocol.as_str(), 1.0)];
    let versions = met.into_iter().chain(old);
    readings
        .extend(versions.map(|(version, value)| Reading::new(&ACCEPTED, [address, name, version], value)));
    readings
}
