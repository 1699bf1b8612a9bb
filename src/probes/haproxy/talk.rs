//! One question to HAProxy: a command on its socket, or its stats page.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use watchpost_parsers::haproxy::is_whole;

use super::super::{ProbeError, http};

/// For one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read: some ten thousand servers.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What HAProxy says to a command above the socket's level.
const DENIED: &[u8] = b"Permission denied";

/// What was refused, with the line that grants it.
pub(super) fn denied(what: String) -> ProbeError {
    let cure =
        "add to the global section of haproxy.cfg: stats socket /run/haproxy/ro.sock mode 666 level user";
    ProbeError::Denied { what, cure: cure.to_owned() }
}

/// The answer to a command, on a connection of its own: HAProxy ends it behind the answer.
pub(super) async fn command(path: &Path, command: &str) -> Result<Vec<u8>, ProbeError> {
    let named = |what: &str| format!("{}: {command}: {what}", path.display());
    let said = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => denied(named("the agent may not open it")),
        _ => ProbeError::Failed(named(&error.to_string())),
    };
    let ask = async {
        let mut stream = UnixStream::connect(path).await.map_err(said)?;
        stream.write_all(format!("{command}\n").as_bytes()).await.map_err(said)?;
        let mut answer = Vec::new();
        let limit = ANSWER_BYTES_MAX as u64 + 1;
        stream.take(limit).read_to_end(&mut answer).await.map_err(said)?;
        Ok(answer)
    };
    let late = |_| ProbeError::Failed(named(&format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())));
    let answer = timeout(ANSWER_TIMEOUT, ask).await.map_err(late)??;
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(ProbeError::Failed(named(&format!(
            "the answer is longer than {ANSWER_BYTES_MAX} bytes"
        ))));
    }
    if answer.starts_with(DENIED) {
        return Err(denied(named("the level of the socket does not allow it")));
    }
    if !is_whole(&answer) {
        return Err(ProbeError::Failed(named("the answer does not come to its end")));
    }
    Ok(answer)
}

/// The counters as the stats page has them.
pub(super) async fn page(client: &Client, url: &str) -> Result<Vec<u8>, ProbeError> {
    let late = |_| ProbeError::Failed(format!("{url}: no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    let answer = timeout(ANSWER_TIMEOUT, http::get(client, url, None)).await.map_err(late)?;
    match answer.map_err(ProbeError::Failed)? {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            Err(denied(format!("{url} asks for a password")))
        }
        (status, _) => Err(ProbeError::Failed(format!("{url} answers {status}"))),
    }
}
