//! The stand-in for the service: the development receiver on a thread of its own, which also hears the signals.
//!
//! It keeps what it gets below the demo's directory, and of that only what the balance sheet needs.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::receiver::{Receiver, ReceiverError, ReceiverHandle, ReceiverOptions, Stats};
use crate::cli::{Failure, chain, exit, runtime};

/// The thread's name, by which its CPU time is told from the agent's.
pub(super) const THREAD_NAME: &str = "demo-receiver";
/// Where the web summaries are kept in the store.
const SUMMARIES_FILE: &str = "watchpost_web.ndjson";
/// The vhost of a summary of all vhosts.
const ALL_VHOSTS: &str = "_all";
/// Other kept files are removed beyond this size: an endless demo must not fill the disk.
const KEPT_BYTES_MAX: u64 = 32 << 20;

/// The running receiver.
pub(super) struct Peer {
    handle: ReceiverHandle,
    runtime: tokio::runtime::Handle,
    store: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Stats, ReceiverError>>>,
}

impl Peer {
    /// Listens on a free port of this host and keeps what comes below `store`. Each SIGINT, SIGTERM and SIGHUP is
    /// told to `interrupts`.
    ///
    /// # Errors
    /// When the system gives no port, no thread or no event queue.
    pub(super) fn start(store: PathBuf, interrupts: mpsc::Sender<()>) -> Result<Peer, Failure> {
        let runtime = runtime()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ReceiverOptions { store: Some(store.clone()), ..ReceiverOptions::new(address) };
        let (receiver, signals) = runtime.block_on(async {
            Ok::<_, Failure>((Receiver::bind(options).await.map_err(unusable)?, listen()?))
        })?;
        let (handle, entry) = (receiver.handle(), runtime.handle().clone());
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let until_stopped = async {
                let _ = stopped.await;
            };
            tokio::select! {
                served = receiver.run(until_stopped) => served,
                never = tell(signals, interrupts) => match never {},
            }
        };
        let thread = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || runtime.block_on(serve))
            .map_err(|error| Failure::io("the receiver's thread cannot be started", &error))?;
        Ok(Peer { handle, runtime: entry, store, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// What has come in so far.
    pub(super) fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// Begins an outage, or ends it; returns once that is so.
    pub(super) fn set_reachable(&self, reachable: bool) {
        if reachable {
            self.runtime.block_on(self.handle.resume());
        } else {
            self.runtime.block_on(self.handle.pause());
        }
    }

    /// Whether the thread ended without being asked.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Removes kept records that nobody will read, once they are many.
    pub(super) fn trim_store(&self) {
        for entry in fs::read_dir(&self.store).into_iter().flatten().flatten() {
            let is_large = entry.metadata().is_ok_and(|metadata| metadata.len() > KEPT_BYTES_MAX);
            if is_large && entry.file_name() != SUMMARIES_FILE {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Ends the thread and says what came in.
    ///
    /// # Errors
    /// What kept it from serving.
    pub(super) fn stop(&mut self) -> Result<Stats, Failure> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(served)) => served.map_err(unusable),
            Some(Err(_)) => Err(Failure::new(exit::SOFTWARE, "the receiver panicked")),
            None => Ok(self.stats()),
        }
    }

    /// The requests in all web summaries that came in.
    ///
    /// # Errors
    /// When the kept summaries cannot be read, or are none.
    pub(super) fn summarised_requests(&self) -> Result<u64, Failure> {
        let path = self.store.join(SUMMARIES_FILE);
        sum_of_summaries(&path)
            .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn unusable(error: ReceiverError) -> Failure {
    Failure::new(exit::IO, chain(&error))
}

fn listen() -> Result<[Signal; 3], Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::io("signals cannot be handled", &error));
    Ok([
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
        // The terminal was closed: the directory must go all the same.
        listen(SignalKind::hangup())?,
    ])
}

async fn tell(signals: [Signal; 3], interrupts: mpsc::Sender<()>) -> Infallible {
    let [mut interrupt, mut terminate, mut hangup] = signals;
    loop {
        let heard = tokio::select! {
            heard = interrupt.recv() => heard,
            heard = terminate.recv() => heard,
            heard = hangup.recv() => heard,
        };
        if heard.is_none() || interrupts.send(()).is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Sums the summaries of all vhosts; corrections are records of their own that add to them.
fn sum_of_summaries(path: &Path) -> io::Result<u64> {
    let mut requests = 0;
    for line in BufReader::new(File::open(path)?).lines() {
        let record: Value = serde_json::from_str(&line?)?;
        if record["vhost"] == ALL_VHOSTS {
            requests += record["requests"].as_u64().unwrap_or(0);
        }
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_vhosts_add_up_with_their_corrections() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(SUMMARIES_FILE);
        assert!(sum_of_summaries(&path).is_err(), "no summary came");
        let records = concat!(
            r#"{"timestamp":1,"record":"web.summary","vhost":"_all","requests":40}"#,
            "\n",
            r#"{"timestamp":1,"record":"web.summary","vhost":"a","requests":40}"#,
            "\n",
            r#"{"timestamp":1,"record":"web.summary","vhost":"_all","correction":true,"requests":2}"#,
            "\n",
        );
        fs::write(&path, records).expect("written");
        assert_eq!(sum_of_summaries(&path).expect("read"), 42);
    }

    #[test]
    fn it_comes_goes_and_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let (interrupts, _heard) = mpsc::channel();
        let mut peer = Peer::start(directory.path().join("store"), interrupts).expect("it starts");
        let reachable = || std::net::TcpStream::connect(peer.address()).is_ok();
        assert!(reachable());
        peer.set_reachable(false);
        assert!(!reachable());
        peer.set_reachable(true);
        assert!(reachable());
        assert!(!peer.has_ended());
        assert_eq!(peer.stop().expect("all was well"), Stats::default());
        assert!(peer.has_ended());
    }
}
