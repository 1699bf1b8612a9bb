//! The agent's numbers, by `GET /status` on loopback: what the demo shows, any user could ask for.
//!
//! Must never look into the agent in another way, or the demo would prove less than it says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long the agent may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer; the port bounds its own.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// What the demo shows of `/status`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    /// `ledger.lines`.
    pub(super) read: u64,
    pub(super) shipped: u64,
    pub(super) held: u64,
    pub(super) filtered: u64,
    pub(super) lost: u64,
    /// `ledger.balanced`.
    pub(super) balanced: bool,
    /// `web.totals`: lines that parsed, that did not, and those with a masked secret.
    pub(super) requests: u64,
    pub(super) unparsed: u64,
    pub(super) redacted: u64,
    /// `web.windows`; null there is `None` here.
    pub(super) qps_10s: Option<f64>,
    pub(super) qps_1m: Option<f64>,
    /// 0 to 1.
    pub(super) error_rate_10s: Option<f64>,
    /// `spool`.
    pub(super) spool_batches: u64,
    pub(super) spool_bytes: u64,
    /// `delivery`: the sender waits after a failure, and for so many seconds.
    pub(super) retrying: bool,
    pub(super) next_try_in_s: Option<f64>,
}

impl Numbers {
    fn of(status: &Value) -> Numbers {
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let decimal = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64);
        Numbers {
            read: number("/ledger/lines/read"),
            shipped: number("/ledger/lines/shipped"),
            held: number("/ledger/lines/held"),
            filtered: number("/ledger/lines/filtered"),
            lost: number("/ledger/lines/lost"),
            balanced: status["ledger"]["balanced"] == true,
            requests: number("/web/totals/requests"),
            unparsed: number("/web/totals/unparsed"),
            redacted: number("/web/totals/redacted"),
            qps_10s: decimal("/web/windows/10s/qps"),
            qps_1m: decimal("/web/windows/1m/qps"),
            error_rate_10s: decimal("/web/windows/10s/error_rate"),
            spool_batches: number("/spool/batches"),
            spool_bytes: number("/spool/bytes"),
            retrying: status["delivery"]["state"] == "retrying",
            next_try_in_s: decimal("/delivery/next_try_in_s"),
        }
    }
}

/// Asks the agent at `address`; `None` while it has not ended its first tick.
///
/// # Errors
/// When it does not answer, or not as an agent does.
pub(super) fn numbers(address: SocketAddr) -> io::Result<Option<Numbers>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0, so that the answer ends with the connection and is not chunked.
    write!(stream, "GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    read_answer(&answer)
}

fn read_answer(answer: &[u8]) -> io::Result<Option<Numbers>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not an agent's");
    let split = memchr::memmem::find(answer, b"\r\n\r\n").ok_or_else(odd)?;
    let head = String::from_utf8_lossy(&answer[..split]);
    match head.split(' ').nth(1) {
        Some("200") => {}
        Some("503") => return Ok(None),
        _ => return Err(odd()),
    }
    let status: Value = serde_json::from_slice(&answer[split + 4..])?;
    if status.get("ledger").is_none() {
        return Err(odd());
    }
    Ok(Some(Numbers::of(&status)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Loss, LossReason};
    use crate::status::{Board, Ledger, Options, Snapshot, serve};

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        let runtime = crate::cli::runtime().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let board = Arc::new(Board::new());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let serving = serve(listener, Options { token: None }, Arc::clone(&board), stopped);
        let thread = std::thread::spawn(move || runtime.block_on(serving));

        assert_eq!(numbers(address).expect("an answer"), None, "nothing was posted yet");
        let mut snapshot = Snapshot {
            ledger: Ledger::new(10, 5, 2, 1, &[(LossReason::Refused, Loss { lines: 2, bytes: 9 })]),
            web: serde_json::json!({
                "windows": {"10s": {"qps": 1.5, "error_rate": 0.25}, "1m": {"qps": null}},
                "totals": {"requests": 9, "unparsed": 1, "redacted": 3}
            })
            .into(),
            delivery: serde_json::json!({"state": "retrying", "next_try_in_s": 4.5}),
            ..Snapshot::default()
        };
        (snapshot.spool.batches, snapshot.spool.bytes) = (4, 4_096);
        board.publish(snapshot);
        let expected = Numbers {
            read: 10,
            shipped: 5,
            held: 2,
            filtered: 1,
            lost: 2,
            balanced: true,
            requests: 9,
            unparsed: 1,
            redacted: 3,
            qps_10s: Some(1.5),
            qps_1m: None,
            error_rate_10s: Some(0.25),
            spool_batches: 4,
            spool_bytes: 4_096,
            retrying: true,
            next_try_in_s: Some(4.5),
        };
        assert_eq!(numbers(address).expect("an answer"), Some(expected));
        drop(stop);
        thread.join().expect("no panic");
        assert!(numbers(address).is_err(), "nobody is there");
    }

    #[test]
    fn what_is_no_agent_is_an_error() {
        for answer in
            ["", "HTTP/1.0 200 OK\r\n\r\n{}", "HTTP/1.0 200 OK\r\n\r\n<html>", "HTTP/1.0 404 x\r\n\r\n"]
        {
            assert!(read_answer(answer.as_bytes()).is_err(), "{answer:?}");
        }
    }
}
