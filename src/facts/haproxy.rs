//! What HAProxy told of itself: plain data. Does no I/O.

/// What one run of the probe saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HaproxyFacts {
    /// Where it was asked: the path of a socket, or a URL.
    pub source: String,
    /// The process that answered; `None` where the source does not tell.
    pub process: Option<HaproxyProcess>,
    /// What clients connect to.
    pub frontends: Vec<HaproxyFrontend>,
    /// Groups of servers.
    pub backends: Vec<HaproxyBackend>,
    /// The servers of all of them.
    pub servers: Vec<HaproxyServer>,
    /// Lines of the configuration with `bind ... ssl`; `None` where it cannot be read.
    pub tls_binds: Option<TlsBinds>,
    /// Requests and answers of all HTTP frontends together; `None` where there is none, or a part could not be read.
    pub traffic: Option<HaproxyTraffic>,
}

/// The process, from `show info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HaproxyProcess {
    /// Its process id. A reload makes another.
    pub pid: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Log lines that it could not send.
    pub dropped_logs: u64,
}

/// One frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HaproxyFrontend {
    /// Its name.
    pub name: String,
    /// `http` or `tcp`, among others.
    pub mode: String,
    /// TLS handshakes with clients that succeeded; `None` where this version does not tell.
    pub tls_handshakes: Option<u64>,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HaproxyBackend {
    /// Its name.
    pub name: String,
    /// `UP` or `DOWN`.
    pub status: String,
}

/// One server of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HaproxyServer {
    /// The backend.
    pub backend: String,
    /// Its name in it.
    pub name: String,
    /// `http` or `tcp`, among others.
    pub mode: String,
    /// `UP`, `DOWN 1/2`, `MAINT`, `no check`, ...
    pub status: String,
    /// Seconds since it last came up or went down.
    pub since_s: Option<u64>,
    /// Its IP address; `None` for a Unix socket, a name that is not resolved, or a source that does not tell.
    pub address: Option<String>,
    /// Its port; `None` or 0 where it has none of its own.
    pub port: Option<u16>,
    /// Whether HAProxy speaks TLS to it; `None` where the source does not tell.
    pub use_tls: Option<bool>,
}

/// Where the configuration says that TLS ends at HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsBinds {
    /// The files that were read.
    pub files: Vec<String>,
    /// The lines, each with its file and number: `/etc/haproxy/haproxy.cfg:12` and `bind :443 ssl`.
    pub lines: Vec<(String, String)>,
}

/// The counts of all HTTP frontends, read twice. What happened before the first reading is in both; nothing that came after
/// the second is in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HaproxyTraffic {
    /// The first reading.
    pub before: HaproxyCounts,
    /// The second.
    pub after: HaproxyCounts,
    /// Transfers that clients gave up, of all backends.
    pub client_aborts: u64,
    /// Transfers that servers gave up.
    pub server_aborts: u64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HaproxyCounts {
    /// Requests that came in.
    pub requests: u64,
    /// Answers that went out, those of HAProxy itself among them.
    pub answers: u64,
    /// Requests that may have no answer yet: at most so many.
    pub under_way: u64,
}
