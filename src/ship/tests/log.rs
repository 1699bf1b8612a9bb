//! What the sender says in the agent's own log: one line for each change, and never the credential.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::fault_server::{FaultServer, Play, answer};
use super::*;

/// A log that is kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn changes_are_logged_once_and_without_the_credential() {
    // Which log lines are wanted is remembered for the whole process, so other tests would disturb this one.
    if std::env::var(CHILD_URL).is_err() {
        return alone("log::changes_are_logged_once_and_without_the_credential", "none", &[]).await;
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // The test's runtime has one thread, so this sees the sender's task as well.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = FaultServer::start(vec![
        answer(503, "", CANARY),
        Play::ResetAfterBody,
        answer(503, "", CANARY),
        answer(401, "", &format!("/receiver/v1/http/{CANARY}==")),
        answer(401, "", CANARY),
        answer(200, "", CANARY),
        answer(413, "", CANARY),
        answer(400, "", CANARY),
        answer(400, "", CANARY),
        answer(400, "", CANARY),
    ])
    .await;
    let rig = Rig::start(options(&server.url()));
    for seq in 1..=3 {
        rig.send(seq).await;
    }
    rig.finish().await;
    let text = String::from_utf8(log.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let text = text.expect("the log is text");
    let told: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("watchpost::ship::sender: "))
        .map(|line| line.1)
        .collect();
    let expected = [
        "delivery failed and is retried: 503 service unavailable: ***",
        "delivery is held: 401 unauthorized: the token in WATCHPOST_SUMO_URL is not accepted; correct it; the data is \
         kept: /receiver/v1/http/***",
        "delivery works again",
        "the destination accepted a batch with a warning: ***",
        "413 payload too large: the batch will be split",
        "delivery failed and is retried: 400 bad request: ***",
        "the destination refused a batch for good: 400 bad request: ***",
    ];
    assert_eq!(told, expected, "{text}");
    assert!(!text.contains(CANARY), "{text}");
}
