//! `watchpost status`: asks the running agent and shows its answer, as JSON or as a view for the terminal.
//!
//! Must never let a name from a log reach the terminal as anything but text: escapes are neutralised.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::printable_json;
use crate::secret::Secret;

mod view;

/// How long the agent may take for its whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer; the port bounds its own, but another server may stand there.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers; exit code 69.
    #[error(
        "no agent answers at {address}: start it with `watchpost run`, or name its port with --status-addr (WATCHPOST_STATUS_ADDR)"
    )]
    Unreachable {
        /// Where it was asked.
        address: SocketAddr,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// The agent has just started; exit code 69.
    #[error("the agent at {0} has not ended its first tick yet: ask again in a second")]
    Starting(SocketAddr),
    /// The token is missing or wrong; exit code 77.
    #[error(
        "the agent at {0} wants its token: set WATCHPOST_STATUS_TOKEN (or WATCHPOST_STATUS_TOKEN_FILE) as the agent has it"
    )]
    Unauthorized(SocketAddr),
    /// Something else than a watchpost agent answers; exit code 69.
    #[error(
        "what answers at {address} is not a watchpost agent ({what}): see what else listens there, or set --status-addr"
    )]
    Foreign {
        /// Where it was asked.
        address: SocketAddr,
        /// What is wrong with the answer.
        what: String,
    },
    /// The answer could not be written; exit code 74.
    #[error("cannot write the status")]
    Output(#[from] std::io::Error),
}

/// Asks the agent at `addr` and writes its status to `out`: as it stands with `json`, else as a summary.
///
/// An address that means "all interfaces" is asked on loopback.
///
/// # Errors
/// Each variant of [`StatusError`] says who is asked to do what.
pub async fn run(
    addr: SocketAddr,
    token: Option<Secret>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), StatusError> {
    let address = askable(addr);
    let body = fetch(address, token.as_ref()).await?;
    let status: Value = serde_json::from_slice(&body)
        .map_err(|error| StatusError::Foreign { address, what: format!("no JSON: {error}") })?;
    if status.get("ledger").is_none() {
        return Err(StatusError::Foreign { address, what: "no ledger in its answer".to_owned() });
    }
    if json {
        out.write_all(printable_json(&body).as_bytes())?;
    } else {
        out.write_all(view::render(&status).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn askable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

async fn fetch(address: SocketAddr, token: Option<&Secret>) -> Result<Vec<u8>, StatusError> {
    let unreachable = |source| StatusError::Unreachable { address, source };
    // The client wants a TLS provider even for plain http; one that is already installed stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()
        .map_err(unreachable)?;
    let mut request = client.get(format!("http://{address}/status"));
    if let Some(token) = token {
        request = request.bearer_auth(token.expose());
    }
    let mut response = request.send().await.map_err(unreachable)?;
    match response.status().as_u16() {
        200 => {}
        401 => return Err(StatusError::Unauthorized(address)),
        503 => return Err(StatusError::Starting(address)),
        other => return Err(StatusError::Foreign { address, what: format!("HTTP status {other}") }),
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(StatusError::Foreign { address, what: "its answer does not end".to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The view of any answer, as the fuzz target asks for it.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn rendered(status: &serde_json::Value) -> String {
    view::render(status)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::status::{Board, Options, Snapshot, serve};

    async fn agent(token: Option<Secret>) -> (SocketAddr, Arc<Board>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, board) = (listener.local_addr().expect("an address"), Arc::new(Board::new()));
        tokio::spawn(serve(listener, Options { token }, Arc::clone(&board), std::future::pending()));
        (address, board)
    }

    async fn ask(address: SocketAddr, token: Option<&str>, json: bool) -> Result<String, StatusError> {
        let mut out = Vec::new();
        run(address, token.map(Secret::new), json, &mut out).await?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[tokio::test]
    async fn a_running_agent_is_shown() {
        let (address, board) = agent(Some(Secret::new("s3cret"))).await;
        assert!(matches!(ask(address, Some("s3cret"), true).await, Err(StatusError::Starting(_))));
        board.publish(Snapshot::default());
        assert!(matches!(ask(address, None, true).await, Err(StatusError::Unauthorized(_))));
        let json: Value = serde_json::from_str(&ask(address, Some("s3cret"), true).await.expect("an answer"))
            .expect("JSON");
        assert_eq!(json["ledger"]["balanced"], true);
        assert!(ask(address, Some("s3cret"), false).await.expect("an answer").contains("ledger"));
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_cure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let error = ask(address, None, false).await.expect_err("nobody listens");
        assert!(matches!(error, StatusError::Unreachable { .. }));
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("WATCHPOST_STATUS_ADDR"), "{text}");
    }

    #[test]
    fn all_interfaces_are_asked_on_loopback() {
        for (bound, asked) in
            [("0.0.0.0:7866", "127.0.0.1:7866"), ("[::]:1", "[::1]:1"), ("10.1.1.1:1", "10.1.1.1:1")]
        {
            assert_eq!(askable(bound.parse().expect("an address")).to_string(), asked);
        }
    }
}
