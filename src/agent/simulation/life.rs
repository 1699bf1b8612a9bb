//! One life of the agent: from a start to a stop, a kill or a power cut.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::pipeline::{Parts, Pipeline};
use crate::agent::plan::Plan;
use crate::clock::Now;
use crate::config::{self, Config, Surroundings};
use crate::follow::watch::DirectoryWatch;
use crate::probes::{ProbeBoard, Tally};
use crate::ship::Mailbox;
use crate::spool::sim::SimDisk;
use crate::spool::{AgentId, Disk, Fresh, OpenError, Options, Spool};
use crate::status::{Board, Snapshot};

use super::files::{DIRECTORY, SimFiles};
use super::swarm::{LineFormat, Swarm};

const SPOOL_BYTES_MAX: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 32 << 10;

/// The settings of a run, as the agent reads them.
pub(super) fn config(swarm: &Swarm) -> Config {
    let format = match swarm.format {
        LineFormat::Fixed => r#"$msec $status "$request""#,
        LineFormat::Json => "json",
    };
    let strings: BTreeMap<String, String> = [
        ("SUMO_URL", "http://127.0.0.1:9/receiver"),
        ("ACCESS_LOGS", &format!("{DIRECTORY}/*.log")),
        ("ACCESS_LOG_FORMAT", format),
        ("READ_FROM", "beginning"),
        ("STATE_DIR", "/state"),
        ("STATUS_ADDR", "off"),
        ("HOST_NAME", "simulated"),
        ("HOST_SOURCES", "none"),
    ]
    .into_iter()
    .map(|(name, value)| (format!("WATCHPOST_{name}"), value.to_owned()))
    .collect();
    let surroundings = Surroundings { is_root: false, host_source_names: &[] };
    let config = config::load(&strings, &surroundings).unwrap_or_else(|problems| panic!("{problems:?}"));
    Config {
        // Below what the settings take, so that a short run has many batches.
        batch_max_bytes: swarm.batch_max_bytes,
        flush_interval: swarm.flush_interval,
        summary_interval: swarm.summary_interval,
        spool_max_bytes: SPOOL_BYTES_MAX,
        ..config
    }
}

/// What stays the same over all lives.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) files: SimFiles,
    pub(super) disk: SimDisk,
    pub(super) free_bytes_min: u64,
}

/// A running agent.
pub(super) struct Life {
    pub(super) pipeline: Pipeline,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) board: Arc<Board>,
}

impl Life {
    /// A start, as the agent's own but for the network.
    pub(super) fn start(setup: &Setup, now: Now, nonce: u64) -> Result<Life, OpenError> {
        let disk: Box<dyn Disk + Send> = Box::new(setup.disk.clone());
        let options = Options {
            bytes_max: setup.config.spool_max_bytes,
            segment_bytes: SEGMENT_BYTES,
            free_bytes_min: setup.free_bytes_min,
        };
        let fresh = Fresh { agent: AgentId(*b"simulated agent."), nonce };
        let spool = Spool::open(disk, options, now, fresh)?;
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let board = Arc::new(Board::new());
        let parts = Parts {
            config: setup.config.clone(),
            plan: setup.plan.clone(),
            spool,
            files: Arc::new(setup.files.clone()),
            watch: DirectoryWatch::none(),
            mailbox: Arc::clone(&mailbox),
            board: Arc::clone(&board),
            probes: Arc::new(ProbeBoard::new()),
            tally: Arc::new(Tally::new(|| {})),
        };
        Ok(Life { pipeline: Pipeline::new(parts, now), mailbox, board })
    }

    /// What the agent says of itself since its last tick.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.board.latest()
    }
}

/// The plan of the settings; it reads nothing, since the format is stated.
pub(super) fn plan(config: &Config) -> Plan {
    assert!(!Path::new(DIRECTORY).exists(), "the simulated directory is nowhere else");
    Plan::new(config).expect("a format that compiles")
}

/// How long a stop may go on delivering.
pub(super) const DRAIN_STEPS: u32 = 20;

/// Between two looks at the mailbox during a stop.
pub(super) const DRAIN_STEP: Duration = Duration::from_millis(350);
