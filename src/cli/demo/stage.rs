//! The demo's directory and the agent that runs in it.
//!
//! Everything that the demo writes lies below one directory, which is removed whatever happens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::traffic::log_format;
use crate::agent::doorbell::Doorbell;
use crate::agent::{Agent, Ended, StartError};
use crate::cli::{Failure, chain, exit};
use crate::config::{self, Config, Surroundings};
use crate::sources::SOURCES;

/// The agent's thread.
const THREAD_NAME: &str = "demo-agent";
/// Where the page is looked for first; the default of the setting.
const USUAL_STATUS_ADDRESS: &str = "127.0.0.1:7866";
/// Where it is when another agent is there.
const FREE_STATUS_ADDRESS: &str = "127.0.0.1:0";

/// A directory of the demo's own, removed at the end.
#[derive(Debug)]
pub(super) struct Stage {
    path: PathBuf,
}

impl Stage {
    /// Makes the directory below `parent`, for this user only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn build(parent: &Path) -> Result<Stage, Failure> {
        let made = fs::canonicalize(parent).and_then(|parent| {
            let name = format!("watchpost-demo-{:06x}", fastrand::u32(..1 << 24));
            let path = parent.join(name);
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            Ok(path)
        });
        let what =
            || format!("cannot make a directory in {} (TMPDIR chooses another place)", parent.display());
        made.map(|path| Stage { path }).map_err(|error| Failure::io(what(), &error))
    }

    /// The log that is written and followed.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("access.log")
    }

    /// What the receiver keeps.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join("received")
    }

    /// Removes everything.
    ///
    /// # Errors
    /// When something stays behind.
    pub(super) fn remove(self) -> Result<(), Failure> {
        remove(&self.path)
            .map_err(|error| Failure::io(format!("cannot remove {}", self.path.display()), &error))
    }

    /// The agent's settings: as an operator would write them, but for shorter intervals.
    fn settings(&self, receiver: SocketAddr, status_address: &str) -> BTreeMap<String, String> {
        let log = glob::Pattern::escape(&self.log().to_string_lossy());
        let pairs = [
            ("SUMO_URL", format!("http://{receiver}/receiver/v1/http/demo")),
            ("ACCESS_LOGS", log),
            ("ACCESS_LOG_FORMAT", log_format().to_owned()),
            ("READ_FROM", "beginning".to_owned()),
            ("STATE_DIR", self.path.join("state").to_string_lossy().into_owned()),
            ("SPOOL_MAX", "64MiB".to_owned()),
            ("FLUSH_INTERVAL", "1s".to_owned()),
            ("HOST_INTERVAL", "2s".to_owned()),
            ("SUMMARY_INTERVAL", "5s".to_owned()),
            ("STATUS_ADDR", status_address.to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (format!("{}{name}", config::PREFIX), value)).collect()
    }

    fn config(&self, receiver: SocketAddr, status_address: &str) -> Result<Config, Failure> {
        let names: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
        let surroundings = Surroundings { is_root: false, host_source_names: &names };
        config::load(&self.settings(receiver, status_address), &surroundings).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::new(exit::SETTINGS, problems.join("\n"))
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An agent on a thread of its own.
pub(super) struct Runner {
    doorbell: Arc<Doorbell>,
    address: SocketAddr,
    thread: Option<JoinHandle<Ended>>,
}

impl Runner {
    /// Starts an agent that follows the stage's log and ships to `receiver`.
    ///
    /// # Errors
    /// When it cannot start; a page that is already there is none: the demo's gets another port.
    pub(super) fn start(stage: &Stage, receiver: SocketAddr) -> Result<Runner, Failure> {
        let doorbell = Arc::new(Doorbell::default());
        let start = |status_address| {
            Ok::<_, Failure>(Agent::start(stage.config(receiver, status_address)?, Arc::clone(&doorbell)))
        };
        let started = match start(USUAL_STATUS_ADDRESS)? {
            Err(StartError::StatusPort { .. }) => start(FREE_STATUS_ADDRESS)?,
            started => started,
        };
        let agent = started.map_err(|error| Failure::new(exit::IO, chain(&error)))?;
        let address = agent.status_address().expect("the settings name one");
        let thread = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || agent.run())
            .map_err(|error| Failure::io("the agent's thread cannot be started", &error))?;
        Ok(Runner { doorbell, address, thread: Some(thread) })
    }

    /// Where its page is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the page is where it usually is.
    pub(super) fn is_at_usual_address(&self) -> bool {
        self.address.to_string() == USUAL_STATUS_ADDRESS
    }

    /// Whether the agent ended without being asked.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the agent to stop, and waits until it has.
    ///
    /// # Errors
    /// When it did not end as it should.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        self.doorbell.ring_stop();
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ended::Stopped)) => Ok(()),
            Some(Ok(Ended::Reload)) => {
                Err(Failure::new(exit::SOFTWARE, "the agent ended without being asked"))
            }
            Some(Err(_)) => Err(Failure::new(exit::SOFTWARE, "the agent panicked")),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_such_as_the_agent_takes() {
        let parent = tempfile::tempdir().expect("a directory");
        let stage = Stage::build(parent.path()).expect("a stage");
        let receiver = "127.0.0.1:9".parse().expect("an address");
        let config = stage.config(receiver, FREE_STATUS_ADDRESS).expect("settings");
        let plan = crate::agent::plan::Plan::new(&config).expect("the format compiles");
        assert_eq!(plan.logs.len(), 1);
        assert_eq!(plan.notes, Vec::<String>::new());
        assert!(config.state_dir.starts_with(&stage.path), "nothing is written elsewhere");
    }

    #[test]
    fn the_directory_is_private_and_goes() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().expect("a directory");
        let stage = Stage::build(parent.path()).expect("a stage");
        let mode = fs::metadata(&stage.path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(stage.log(), "x").expect("written");
        drop(stage);
        assert_eq!(fs::read_dir(parent.path()).expect("the parent").count(), 0);
        assert!(Stage::build(&parent.path().join("none")).is_err());
    }
}
