//! The sender against a server that plays every fault: statuses, resets, hangs, drips, certificates.

mod fault_server;
mod faults;
mod lifecycle;
mod log;
mod tls;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::fault_server::{FaultServer, Play};
use super::*;
use crate::secret::Secret;

/// A part of the address that must never be seen anywhere.
pub(super) const CANARY: &str = "ZaVnCanaryC4dhaV2";
/// How long a test waits for what must happen.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// Set in the process of a test that runs alone: the address to send to.
const CHILD_URL: &str = "WATCHPOST_TEST_CHILD_URL";
/// The request deadline of tests in which something hangs. Elsewhere it is [`DEADLINE`], so that a busy machine makes no
/// failures of its own.
const HANG_TIMEOUT: Duration = Duration::from_millis(400);
/// The same for the body of an answer.
const BODY_TIMEOUT: Duration = Duration::from_millis(200);

pub(super) fn outgoing(seq: u64) -> Outgoing {
    Outgoing {
        key: format!("agent/1/{seq}"),
        seq,
        content_type: "application/x-www-form-urlencoded",
        category: "watchpost/nginx/access".to_owned(),
        name: "nginx-access".to_owned(),
        host: "web1".to_owned(),
        fields: "env=prod".to_owned(),
        body: format!("the body of batch {seq}").into_bytes(),
        raw_bytes: 100,
        lines: 3,
    }
}

/// Options with every wait short.
fn options(url: &str) -> SenderOptions {
    let mut options = SenderOptions::new(Secret::new(url), Duration::from_millis(200));
    options.limits = SenderLimits {
        request_timeout: DEADLINE,
        connect_timeout: DEADLINE,
        answer_body_timeout: DEADLINE,
        pool_idle: Duration::from_secs(20),
        backoff: BackoffLimits {
            retry_base: Duration::from_millis(5),
            retry_max: Duration::from_millis(20),
            hold_base: Duration::from_millis(5),
            hold_max: Duration::from_millis(20),
            retry_after_max: Duration::from_millis(300),
        },
    };
    options
}

/// The same with a request deadline that is soon over.
fn hasty(url: &str) -> SenderOptions {
    let mut options = options(url);
    options.limits.request_timeout = HANG_TIMEOUT;
    options.limits.connect_timeout = HANG_TIMEOUT;
    options.limits.answer_body_timeout = BODY_TIMEOUT;
    options
}

/// A running sender and the pipeline's end of its mailbox.
struct Rig {
    mailbox: Arc<Mailbox>,
    rung: Arc<Notify>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), SenderError>>,
}

impl Rig {
    fn start(options: SenderOptions) -> Rig {
        let rung = Arc::new(Notify::new());
        let bell = Arc::clone(&rung);
        let mailbox = Arc::new(Mailbox::new(Box::new(move || bell.notify_one())));
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(run(options, Arc::clone(&mailbox), stopping, 1));
        Rig { mailbox, rung, stop, task }
    }

    /// Offers a batch and waits for its verdict.
    async fn send(&self, seq: u64) -> Verdict {
        self.send_batch(outgoing(seq)).await
    }

    async fn send_batch(&self, batch: Outgoing) -> Verdict {
        let seq = batch.seq;
        self.mailbox.offer(batch).expect("the mailbox is free");
        self.verdict(seq).await
    }

    async fn verdict(&self, seq: u64) -> Verdict {
        let waiting = async {
            loop {
                if let Some((judged, verdict)) = self.mailbox.take_verdict() {
                    assert_eq!(judged, seq);
                    return verdict;
                }
                self.rung.notified().await;
            }
        };
        let judged = tokio::time::timeout(DEADLINE, waiting).await;
        judged.unwrap_or_else(|_| panic!("no verdict on {seq} within the deadline: {:?}", self.status()))
    }

    fn status(&self) -> DeliveryStatus {
        self.mailbox.delivery(Instant::now())
    }

    /// Stops the sender and gives its last status, in which the canary must not be.
    async fn finish(self) -> DeliveryStatus {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(DEADLINE, self.task).await.expect("it stops within the deadline");
        ended.expect("the task does not panic").expect("the address is valid");
        let status = self.mailbox.delivery(Instant::now());
        let told = serde_json::to_string(&status).expect("it serializes");
        assert!(!told.contains(CANARY), "{told}");
        status
    }
}

/// Runs one test of this folder in a process of its own, since what it is about belongs to the whole process. The test
/// knows by [`CHILD_URL`] that it is there. An empty value takes a variable away.
async fn alone(name: &str, url: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().expect("this test's binary"));
    command.args(["--exact", &format!("ship::tests::{name}")]).env(CHILD_URL, url);
    for (variable, value) in environment {
        match *value {
            "" => command.env_remove(variable),
            value => command.env(variable, value),
        };
    }
    let child = tokio::task::spawn_blocking(move || command.output());
    let output = child.await.expect("no panic").expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// Waits until `condition` holds, by letting the other tasks run.
async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("the condition within the deadline");
}

/// Plays the faults, then a 200; the batch must arrive in the end, and all attempts must be equal.
async fn survives(plays: Vec<Play>) -> (DeliveryStatus, FaultServer) {
    let faults = plays.len();
    let server = FaultServer::start(plays).await;
    let rig = Rig::start(options(&server.url()));
    assert_eq!(rig.send(1).await, Verdict::Accepted { warning: None });
    let status = rig.finish().await;
    assert_eq!((status.delivered_batches, status.last_status), (1, Some(200)));
    assert_eq!(status.failures, faults as u64, "{status:?}");
    server.assert_all_equal();
    (status, server)
}
