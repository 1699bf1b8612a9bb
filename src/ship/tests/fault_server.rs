//! A server that plays a script: one entry for each request, then 200 with an empty body for ever.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::CANARY;

/// What to do with one request.
#[derive(Clone, Debug)]
pub(super) enum Play {
    /// Read the request, answer with these bytes, keep the connection.
    Answer(String),
    /// Read the request, answer with these bytes, close the connection.
    AnswerAndClose(String),
    /// Read the request, answer with these bytes, then say nothing more.
    AnswerAndHang(String),
    /// Answer with the first bytes, then repeat the second for ever, with a pause between.
    Drip(String, Vec<u8>, Duration),
    /// Reset the connection as soon as it is accepted.
    ResetAtAccept,
    /// Reset it once the headers of the request have arrived.
    ResetAfterHeaders,
    /// Reset it once the whole request has arrived.
    ResetAfterBody,
    /// Accept and never read.
    HangAtAccept,
    /// Answer before the body of the request is read.
    AnswerEarly(String),
}

/// An answer with an empty or a given body.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> Play {
    Play::Answer(format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// One request as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    plays: Mutex<VecDeque<Play>>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<u64>,
}

pub(super) struct FaultServer {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    tls: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultServer {
    pub(super) async fn start(plays: Vec<Play>) -> FaultServer {
        FaultServer::serve(plays, None).await
    }

    pub(super) async fn serve(plays: Vec<Play>, tls: Option<TlsAcceptor>) -> FaultServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared { plays: Mutex::new(plays.into()), ..Shared::default() });
        let server = FaultServer { address, shared: Arc::clone(&shared), tls: tls.is_some() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *lock(&shared.connections) += 1;
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => plain(stream, &shared).await,
                        Some(acceptor) => {
                            if let Ok(mut stream) = acceptor.accept(stream).await {
                                while matches!(play(&mut stream, &shared).await, Next::Keep) {}
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// An address with the canary in every part that is secret.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let port = self.address.port();
        format!("{scheme}://user:pw{CANARY}@localhost:{port}/receiver/v1/http/{CANARY}==?token={CANARY}")
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    pub(super) fn connections(&self) -> u64 {
        *lock(&self.shared.connections)
    }

    pub(super) fn plays_left(&self) -> usize {
        lock(&self.shared.plays).len()
    }

    /// Every request that came whole had the same headers and the same bytes.
    pub(super) fn assert_all_equal(&self) {
        let seen = self.seen();
        assert!(!seen.is_empty());
        for request in &seen {
            assert_eq!(request, &seen[0]);
        }
    }
}

enum Next {
    Keep,
    Close,
    Reset,
}

/// Connections that are reset at once are dealt with before anything is read.
async fn plain(mut stream: TcpStream, shared: &Shared) {
    let at_accept = {
        let mut plays = lock(&shared.plays);
        match plays.front() {
            Some(Play::ResetAtAccept | Play::HangAtAccept) => plays.pop_front(),
            _ => None,
        }
    };
    let next = match at_accept {
        Some(Play::HangAtAccept) => std::future::pending().await,
        Some(_) => Next::Reset,
        None => loop {
            match play(&mut stream, shared).await {
                Next::Keep => {}
                next => break next,
            }
        },
    };
    if matches!(next, Next::Reset) {
        // A linger of zero turns the close into a reset.
        let _ = stream.set_zero_linger();
    }
}

/// One request of a connection.
async fn play<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, shared: &Shared) -> Next {
    let Some((head, mut body)) = read_head(stream).await else { return Next::Close };
    let play = lock(&shared.plays).pop_front().unwrap_or_else(|| answer(200, "", ""));
    match &play {
        Play::ResetAfterHeaders => return Next::Reset,
        Play::AnswerEarly(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        _ => {}
    }
    let length = content_length(&head);
    while body.len() < length {
        let mut buffer = [0; 4096];
        // Not a byte more: after an early answer the next request may follow at once.
        let room = buffer.len().min(length - body.len());
        match stream.read(&mut buffer[..room]).await {
            Ok(0) | Err(_) => return Next::Close,
            Ok(read) => body.extend_from_slice(&buffer[..read]),
        }
    }
    lock(&shared.seen).push(Seen { head, body });
    match play {
        Play::Answer(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            Next::Keep
        }
        Play::AnswerAndClose(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            Next::Close
        }
        Play::AnswerAndHang(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            std::future::pending().await
        }
        Play::Drip(text, drop, pause) => {
            let _ = stream.write_all(text.as_bytes()).await;
            while stream.write_all(&drop).await.is_ok() {
                let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
            }
            Next::Close
        }
        Play::ResetAfterBody => Next::Reset,
        Play::AnswerEarly(_) => Next::Keep,
        Play::ResetAtAccept | Play::ResetAfterHeaders | Play::HangAtAccept => Next::Reset,
    }
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            return Some((String::from_utf8_lossy(&read).into_owned(), body));
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}

fn content_length(head: &str) -> usize {
    let value = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = value.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, length)| length.trim().parse().ok()).unwrap_or(0)
}
