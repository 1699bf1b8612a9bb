//! Settings: strings by name in, one typed [`Config`] out, or every problem at once.
//!
//! Owns the table of settings ([`SETTINGS`], from which flags, help, the env file and the checks
//! derive), the meaning of their values and where each value came from. It must never read the
//! process environment or a clock (`main.rs` hands the strings in), never import a stage or an
//! edge, and never show a secret: not in a problem, not in `Debug`, not in [`Config::describe`].

mod env_file;
mod load;
mod probe_values;
mod strings;
mod table;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

pub use env_file::{ENV_FILE_PATH, env_file, environment_after_reload, parse_env_file};
pub use load::{Surroundings, load};
pub use strings::{Layered, Origin, Strings, environment};
pub use table::{PREFIX, SETTINGS, Setting};

/// What stands in place of a secret wherever something is shown.
const STARS: &str = "***";

/// Which access logs are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogs {
    /// What nginx.conf says, else `/var/log/nginx/*access*.log`.
    Auto,
    /// None at all.
    None,
    /// Patterns for files, each of a syntax that the `glob` crate takes.
    Globs(Vec<String>),
}

/// How the lines of the access logs are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As nginx.conf says for each file, else the one that fits the lines.
    Auto,
    /// nginx's predefined `combined`.
    Combined,
    /// One JSON object a line.
    Json,
    /// A format string as it stands in nginx.conf, which compiles.
    LogFormat(String),
    /// A regular expression with named groups, without its `regex:`, which compiles.
    Regex(String),
}

/// Where reading begins in files that exist at the very first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Behind the last line: only what is logged from now on.
    End,
    /// Before the first line: the whole file.
    Beginning,
}

/// Which access lines are shipped. Counting is the same whatever this says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShipLines {
    /// Every line.
    All,
    /// Lines with a status of 400 or more.
    Errors,
    /// Those, and this share of the rest, in (0, 1).
    Sample(f64),
    /// No line.
    None,
}

/// Whether values of secret-looking query parameters are masked in shipped lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redact {
    /// Lines are shipped as they stand.
    Off,
    /// Values are masked.
    On {
        /// Names of parameters beside the built-in ones.
        extra: Vec<String>,
    },
}

/// Which sources of host metrics run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostSources {
    /// Every one.
    All,
    /// None.
    None,
    /// Those of these names, each known to the caller of [`load`].
    Named(Vec<String>),
}

/// Where HAProxy tells its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Haproxy {
    /// On the stats sockets of its configuration, and on well-known ones.
    Auto,
    /// It is not asked.
    None,
    /// On this stats socket.
    Socket(PathBuf),
    /// On this stats page, an `http://` URL.
    Url(String),
}

/// Where MySQL is asked, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mysql {
    /// At the sockets where packages have it.
    Auto,
    /// It is not asked.
    None,
    /// On this socket, as this user; none: the one that the agent runs as.
    Socket(PathBuf, Option<String>),
    /// Over TCP, in the clear.
    Port {
        /// As this user.
        user: String,
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Where nginx tells its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StubStatus {
    /// Where nginx.conf has a location for it.
    Auto,
    /// It is not asked.
    None,
    /// An `http://` URL.
    Url(String),
}

/// One endpoint that answers in Prometheus's text format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// What it is called in records; no other is called so.
    pub name: String,
    /// An `http://` URL without a user, a password and a fragment.
    pub url: String,
    /// Names of metrics to keep, or with a `*` at the end what they begin with; empty: all.
    pub only: Vec<String>,
}

/// Where the operator's scripts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// In `/etc/watchpost/scripts.d`, where there is one.
    Auto,
    /// Nowhere.
    None,
    /// In a directory.
    Directory {
        /// An absolute path.
        path: PathBuf,
        /// Whether they may run as root, where the agent does.
        as_root: bool,
    },
}

/// Which TLS servers are met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// Those that nginx.conf and haproxy.cfg name.
    Auto,
    /// None.
    None,
    /// These.
    Listed(Vec<TlsServer>),
}

/// What the firewall is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// Its own policy alone: which ports may be reached is not known.
    Auto,
    /// It is not looked at.
    None,
    /// Ports that may be reached from outside.
    Allowed(Vec<RangeInclusive<u16>>),
}

/// A TLS server of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServer {
    /// An address, or a name that leads to one.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name to ask for; where none is stated that of `host`, if it is one.
    pub name: Option<String>,
    /// The file with the certificate that should be served.
    pub file: Option<PathBuf>,
}

impl HostSources {
    /// Whether the source of this name runs.
    pub fn includes(&self, name: &str) -> bool {
        match self {
            HostSources::All => true,
            HostSources::None => false,
            HostSources::Named(names) => names.iter().any(|named| named == name),
        }
    }
}

/// How much the agent says of itself. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Data was lost, or a person must act.
    Error,
    /// Something surprising; nothing was lost.
    Warn,
    /// Once for each change of state.
    Info,
    /// For who looks into one thing.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The same level in `tracing`'s terms.
    pub fn level(self) -> tracing::Level {
        match self {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Trace => tracing::Level::TRACE,
        }
    }
}

/// Every setting, checked. What stands here need not be checked again.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where batches are posted: an http or https URL with a host. `None`: nothing is shipped.
    pub sumo_url: Option<Secret>,
    /// Which access logs are followed.
    pub access_logs: AccessLogs,
    /// How their lines are written.
    pub access_log_format: LogFormat,
    /// The file from which nginx's logs and formats are discovered.
    pub nginx_conf: PathBuf,
    /// Where reading begins in files that exist at the very first start.
    pub read_from: ReadFrom,
    /// Which access lines are shipped.
    pub ship_lines: ShipLines,
    /// What is masked in them.
    pub redact: Redact,
    /// The directory of the spool and the agent id.
    pub state_dir: PathBuf,
    /// The most bytes that the spool takes on disk.
    pub spool_max_bytes: u64,
    /// The most uncompressed bytes of one request.
    pub batch_max_bytes: u32,
    /// The longest wait of a record before its batch is closed.
    pub flush_interval: Duration,
    /// Time between two samples of the host.
    pub host_interval: Duration,
    /// The length of a shipped web summary; whole seconds.
    pub summary_interval: Duration,
    /// Which host sources run.
    pub host_sources: HostSources,
    /// Where nginx tells its counters.
    pub stub_status: StubStatus,
    /// Where HAProxy tells its counters.
    pub haproxy: Haproxy,
    /// Where MySQL is asked, and as whom.
    pub mysql: Mysql,
    /// The password for that.
    pub mysql_password: Option<Secret>,
    /// What is scraped.
    pub scrape: Vec<Scrape>,
    /// Where the operator's scripts are.
    pub scripts: Scripts,
    /// Which TLS servers are met.
    pub certificates: Certificates,
    /// What the firewall is held to.
    pub firewall: Firewall,
    /// `X-Sumo-Host`; `None`: the hostname.
    pub host_name: Option<String>,
    /// `X-Sumo-Category`; `None`: each stream's own.
    pub source_category: Option<String>,
    /// `X-Sumo-Name`; `None`: each stream's own.
    pub source_name: Option<String>,
    /// `X-Sumo-Fields`: key and value, in the order given.
    pub fields: Vec<(String, String)>,
    /// Where the status port listens; `None`: nowhere.
    pub status_addr: Option<SocketAddr>,
    /// What a reader of the status port must show. Always there unless the address is loopback.
    pub status_token: Option<Secret>,
    /// How much the agent says of itself.
    pub log: LogLevel,
    /// Each setting's value in force and its origin, in the order of [`SETTINGS`].
    pub effective: Vec<Effective>,
}

impl Config {
    /// Every setting with its value in force and its origin, a line each; secrets as stars.
    pub fn describe(&self) -> String {
        self.effective.iter().map(|setting| format!("{setting}\n")).collect()
    }
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Name of the variable.
    pub name: &'static str,
    /// The value as written, or the default; stars for a secret; empty where nothing is set.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

impl fmt::Display for Effective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.value.is_empty() { "(unset)" } else { &self.value };
        write!(formatter, "{}={} ({})", self.name, value.escape_debug(), self.origin)
    }
}

/// One setting that cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or the line of the env file, that must change.
    pub variable: String,
    /// Its value; stars when it is secret or may be; empty where there is none.
    pub value: String,
    /// What is wrong, as the end of a sentence that begins with the variable.
    pub message: String,
    /// What would be right.
    pub allowed: String,
}

/// How much of a value a problem shows: enough to recognise it, little enough for one line.
const SHOWN_VALUE_CHARS_MAX: usize = 120;

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.variable)?;
        if !self.value.is_empty() {
            let cut = if self.value.chars().count() > SHOWN_VALUE_CHARS_MAX { "..." } else { "" };
            let shown: String = self.value.chars().take(SHOWN_VALUE_CHARS_MAX).collect();
            write!(formatter, "=\"{}{cut}\"", shown.escape_debug())?;
        }
        write!(formatter, ": {}; allowed: {}", self.message, self.allowed)
    }
}

impl std::error::Error for Problem {}
