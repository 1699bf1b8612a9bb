//! The network thread: sender and status port on one current-thread runtime; and the signals of the process.
//!
//! Tasks are started here and nowhere else, and each is waited for at the end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::doorbell::Doorbell;
use crate::probes::{self, PROBES, ProbeBoard, Wanted};
use crate::secret::Secret;
use crate::ship::{self, Mailbox, SenderOptions};
use crate::status::{self, Board};

/// What the thread needs.
pub struct Setup {
    /// Where to send; nothing is sent without.
    pub sumo_url: Option<Secret>,
    /// Asked for by the status port.
    pub status_token: Option<Secret>,
    /// The status port, bound; none where it is off.
    pub listener: Option<TcpListener>,
    /// How long a request under way may still take at the end.
    pub stop_grace: Duration,
    /// Batches to send.
    pub mailbox: Arc<Mailbox>,
    /// What the port shows.
    pub board: Arc<Board>,
    /// What the probes are to ask.
    pub wanted: Wanted,
    /// Where they put what they saw.
    pub probes: Arc<ProbeBoard>,
}

/// The running thread.
pub struct Edges {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Edges {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start(setup: Setup) -> io::Result<Edges> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || runtime.block_on(serve(setup, stopped)))?;
        Ok(Edges { stop, thread: Some(thread) })
    }

    /// Ends the request under way within its grace, closes the port, and waits for the thread.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the network thread panicked");
        }
    }
}

impl Drop for Edges {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(setup: Setup, stopped: watch::Receiver<bool>) {
    let Setup { sumo_url, status_token, listener, stop_grace, mailbox, board, wanted, probes } = setup;
    let probing = probe(wanted, probes, stopped.clone());
    let sender = send(sumo_url, stop_grace, mailbox, stopped.clone());
    let port = listen(listener, status_token, board, stopped);
    tokio::join!(sender, port, probing);
}

/// Runs every probe in a task of its own: one that panics is made anew, and costs no other its turn.
async fn probe(wanted: Wanted, board: Arc<ProbeBoard>, stopped: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    for spec in PROBES {
        let (wanted, board) = (wanted.clone(), Arc::clone(&board));
        let stopped = stopped.clone();
        tasks.spawn(async move {
            let again =
                || tokio::spawn(probes::watch(spec, wanted.clone(), Arc::clone(&board), stopped.clone()));
            while let Err(error) = again().await {
                tracing::error!("the probe {} broke an invariant and is made anew: {error}", spec.name);
                tokio::time::sleep(spec.interval).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn send(
    url: Option<Secret>,
    stop_grace: Duration,
    mailbox: Arc<Mailbox>,
    stopped: watch::Receiver<bool>,
) {
    let Some(url) = url else { return };
    let options = SenderOptions::new(url, stop_grace);
    if let Err(error) = ship::run(options, mailbox, stopped, fastrand::u64(..)).await {
        tracing::error!("nothing can be sent: {error}");
    }
}

async fn listen(
    listener: Option<TcpListener>,
    token: Option<Secret>,
    board: Arc<Board>,
    mut stopped: watch::Receiver<bool>,
) {
    let Some(listener) = listener else { return };
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    match listener {
        Ok(listener) => {
            let stop = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            status::serve(listener, status::Options { token }, board, stop).await;
        }
        Err(error) => tracing::error!("the status port cannot be served: {error}"),
    }
}

/// Lets SIGTERM and SIGINT ring for a stop and SIGHUP for a reload, for the rest of the process's life.
///
/// # Errors
/// When the system gives no thread or no event queue.
pub fn watch_signals(doorbell: Arc<Doorbell>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _context = runtime.enter();
        // Its default is death. Handled, a write beyond LimitFSIZE= is an error like any other of the disk.
        let _ = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    let ring = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => doorbell.ring_stop(),
                _ = interrupt.recv() => doorbell.ring_stop(),
                _ = hangup.recv() => doorbell.ring_reload(),
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(ring))?;
    Ok(())
}
