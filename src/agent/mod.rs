//! The agent: puts sources, windows, batches, spool and edges together and drives them on a tick.
//!
//! One ordinary thread runs [`pipeline::Pipeline`]; whatever talks to a network runs in [`edges::Edges`] on a
//! thread of its own. They share a mailbox of one batch, a board with the latest snapshot, and a doorbell.

pub mod doorbell;
pub mod edges;
pub mod events;
mod file_events;
pub mod ledger;
pub mod line_reader;
mod lines;
mod neighbours;
mod outbox;
mod parts;
mod pipeline;
pub mod plan;
mod probing;
mod reading;
mod settle;
#[cfg(test)]
mod simulation;
mod snapshot;
#[cfg(test)]
mod tests;
mod tls_servers;
pub mod web_server;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::config::Config;
use crate::follow::HostFiles;
use crate::follow::watch::DirectoryWatch;
use crate::probes::{ProbeBoard, Tally, Wanted};
use crate::ship::{DeliveryState, Mailbox};
use crate::spool::{AgentId, DirDisk, Disk, Fresh, OpenError, Options as SpoolOptions, Spool};
use crate::status::Board;

use doorbell::Doorbell;
use edges::Edges;
pub use parts::metrics_json;
use pipeline::{Activity, AnySpool, Parts, Pipeline};
use plan::{Plan, PlanError};

/// Between two looks at the files while nothing is written to them.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks while lines come in: the delay of a line until it is counted.
const ACTIVE_INTERVAL: Duration = Duration::from_millis(200);

/// How long a stop waits for the spool to drain. With the sender's grace it stays below 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);

/// How long the request under way may still take when the agent ends.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// One part in so many of its filesystem the spool leaves free, up to [`FREE_BYTES_MIN_MAX`].
const FREE_SHARE: u64 = 20;

/// The most that the spool leaves free, however large the filesystem is.
const FREE_BYTES_MIN_MAX: u64 = 256 << 20;

/// Below the state directory: the one log.
const SPOOL_DIRECTORY: &str = "spool";

/// Why the agent cannot start. Each names the setting and the cure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error(
        "the state directory {} cannot be used; create it for this user, or set WATCHPOST_STATE_DIR to one that it may write",
        path.display()
    )]
    StateDirectory {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another agent runs on the same state.
    #[error(
        "another watchpost runs on {}; stop it, or set WATCHPOST_STATE_DIR to another directory", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The spool cannot be opened.
    #[error("the spool in {} cannot be opened", path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: OpenError,
    },
    /// The status port cannot be bound.
    #[error(
        "the status port {address} cannot be opened: {}; set WATCHPOST_STATUS_ADDR to a free address of this host, or to off",
        describe_bind(source)
    )]
    StatusPort {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The settings do not fit what they speak of.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The thread for the network cannot be started.
    #[error("the network thread cannot be started")]
    Edges(#[source] std::io::Error),
}

fn describe_bind(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "it is in use by another process".to_owned(),
        _ => error.to_string(),
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It was asked to read its settings again.
    Reload,
}

/// An agent that is ready to run.
pub struct Agent {
    pipeline: Pipeline,
    edges: Edges,
    doorbell: Arc<Doorbell>,
    status_address: Option<SocketAddr>,
}

impl Agent {
    /// Opens the spool, finds the logs, binds the status port, and starts the network thread. Whoever rings
    /// `doorbell` stops or reloads the agent.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs then, and nothing was changed but the state directory made.
    pub fn start(config: Config, doorbell: Arc<Doorbell>) -> Result<Agent, StartError> {
        let now = Now::read();
        let plan = Plan::new(&config)?;
        let spool = open_spool(&config, now)?;
        let listener = config.status_addr.map(bind).transpose()?;
        let status_address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (bell, scan_bell) = (Arc::clone(&doorbell), Arc::clone(&doorbell));
        let mailbox = Arc::new(Mailbox::new(Box::new(move || bell.ring())));
        let board_bell = Arc::clone(&doorbell);
        let board = Arc::new(Board::asking(move || board_bell.ring()));
        let probes = Arc::new(ProbeBoard::new());
        let count_bell = Arc::clone(&doorbell);
        let tally = Arc::new(Tally::new(move || count_bell.ring()));
        let edges = Edges::start(edges::Setup {
            wanted: Wanted { tally: Some(Arc::clone(&tally)), ..wanted(&config) },
            probes: Arc::clone(&probes),
            sumo_url: config.sumo_url.clone(),
            status_token: config.status_token.clone(),
            listener,
            stop_grace: STOP_GRACE,
            mailbox: Arc::clone(&mailbox),
            board: Arc::clone(&board),
        })
        .map_err(StartError::Edges)?;
        let watch = DirectoryWatch::new(move || scan_bell.ring_scan());
        let files = Arc::new(HostFiles);
        let parts = Parts { config, plan, spool, files, watch, mailbox, board, probes, tally };
        let pipeline = Pipeline::new(parts, now);
        Ok(Agent { pipeline, edges, doorbell, status_address })
    }

    /// Where the status port listens, if it does.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.status_address
    }

    /// Runs until it is asked to stop or to reload; on return everything that was read is durable.
    pub fn run(mut self) -> Ended {
        let mut due = Instant::now();
        let ended = loop {
            let rings = self.doorbell.wait(due.saturating_duration_since(Instant::now()));
            if rings.stop {
                break Ended::Stopped;
            }
            if rings.reload {
                break Ended::Reload;
            }
            let activity = self.pipeline.tick(Now::read(), rings.scan);
            due = next_look(activity, due, self.pipeline.lines_due(), Instant::now());
        };
        self.pipeline.finish_reading(Now::read, ended == Ended::Stopped);
        if ended == Ended::Stopped {
            self.drain();
        }
        self.edges.stop();
        self.pipeline.close(Now::read());
        ended
    }

    /// Sends what is held, as long as the destination takes it and the deadline is not reached.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < deadline && self.pipeline.deliver(Now::read()) {
            if matches!(
                self.pipeline.delivery_state(),
                DeliveryState::Retrying | DeliveryState::Held | DeliveryState::Off
            ) {
                return;
            }
            self.doorbell.wait(ACTIVE_INTERVAL);
        }
    }
}

/// When to look at the files again, after a look that was due at `due`; not later than the open batch of lines has to
/// be closed, at `lines_due`.
fn next_look(activity: Activity, due: Instant, lines_due: Option<Instant>, now: Instant) -> Instant {
    let look = match activity {
        Activity::Busy => now,
        Activity::Active => now + ACTIVE_INTERVAL,
        // Woken before its time, by an answer of the destination say: that no line came in since the look before
        // does not make the log a quiet one.
        Activity::Idle if due > now => due,
        Activity::Idle => now + IDLE_INTERVAL,
    };
    lines_due.map_or(look, |lines_due| look.min(lines_due))
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::StatusPort { address, source })
}

/// What the probes are to ask, by the settings and by what is on this host.
pub fn wanted(config: &Config) -> Wanted {
    Wanted {
        stub_status: web_server::stub_target(config),
        haproxy: neighbours::haproxy_target(config),
        mysql: neighbours::mysql_target(config),
        tally: None,
        scrape: parts::scrape_targets(config),
        scripts: parts::scripts_target(config),
        certificates: tls_servers::targets(config),
        firewall: neighbours::firewall_target(config),
    }
}

/// Where the spool of a configuration is.
pub fn spool_directory(config: &Config) -> PathBuf {
    config.state_dir.join(SPOOL_DIRECTORY)
}

fn open_spool(config: &Config, now: Now) -> Result<AnySpool, StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = config.state_dir.clone();
    let unusable = |source| StartError::StateDirectory { path: path.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(unusable)?;
    if let Some(danger) = others_may_change(&path) {
        tracing::warn!("the state directory {}: {danger}", path.display());
    }
    let disk = DirDisk::open(&spool_directory(config)).map_err(|error| classify(error, &path))?;
    let disk: Box<dyn Disk + Send> = Box::new(disk);
    let options = SpoolOptions {
        bytes_max: config.spool_max_bytes,
        free_bytes_min: free_bytes_min(&path),
        ..SpoolOptions::default()
    };
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|error| unusable(std::io::Error::other(error.to_string())))?;
    let (agent, nonce) = random.split_at(16);
    let fresh = Fresh {
        agent: AgentId(agent.try_into().expect("16 bytes were split off")),
        nonce: u64::from_le_bytes(nonce.try_into().expect("8 bytes are left")),
    };
    Spool::open(disk, options, now, fresh).map_err(|error| classify(error, &path))
}

/// Why others than the agent's user and root could put a directory of theirs in place of the spool; `None` where they
/// cannot. With the sticky bit each owner's entries are safe.
pub fn others_may_change(directory: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let metadata = directory.metadata().ok()?;
    let mode = metadata.permissions().mode();
    if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Some(format!("it belongs to user {}, not to the agent's; chown it", metadata.uid()));
    }
    let is_open = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
    is_open.then(|| format!("others may write to it (mode {:04o}); chmod 0700 it", mode & 0o7777))
}

/// What the spool leaves free on its filesystem: the web server's logs may need it more.
fn free_bytes_min(path: &std::path::Path) -> u64 {
    let share = rustix::fs::statvfs(path).map_or(0, |disk| disk.f_blocks * disk.f_frsize / FREE_SHARE);
    share.min(FREE_BYTES_MIN_MAX)
}

fn classify(error: OpenError, path: &std::path::Path) -> StartError {
    match error {
        OpenError::Locked { .. } => StartError::InUse { path: path.to_owned() },
        OpenError::Io { source, .. } => StartError::StateDirectory { path: path.to_owned(), source },
        source => StartError::Spool { path: path.to_owned(), source },
    }
}
