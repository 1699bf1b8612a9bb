//! `watchpost receiver`: a Sumo-compatible HTTP source on this machine, for development, tests and the demo.
//!
//! It takes POSTs of NDJSON on any path, counts and keeps what they hold, and fails on request. It must never be
//! taken for the service: it knows no tokens, and it listens on loopback only, unless it is told otherwise.
//! What it holds in memory is bounded, whoever sends what.

mod fleet;
mod gate;
mod intake;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use tokio::sync::{Semaphore, watch};

use self::gate::{Gate, GatedListener};
use self::intake::{BODY_BYTES_MAX, Intake, Post};
pub use self::intake::{ReceiverError, Stats};
use crate::clock::Now;

/// Requests that are read at the same time; others wait. Bounds memory to this many decoded bodies.
const REQUESTS_AT_ONCE: usize = 4;
/// How long open connections may still take after a stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How the receiver behaves.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to keep the decoded records, one NDJSON file a category.
    pub store: Option<PathBuf>,
    /// Answer every POST with this status and take nothing in.
    pub status: Option<u16>,
    /// Share of POSTs that are answered 503, 0 to 1.
    pub fail_rate: f64,
    /// Half of those failures happen after the batch was taken in: an answer that was lost. The sender
    /// must repeat the batch, and the repetition counts as a duplicate.
    pub lose_answers: bool,
    /// Wait before each answer to a POST; the batch has been taken in before.
    pub delay: Duration,
    /// End after so many POSTs were answered with success.
    pub stop_after: Option<u64>,
    /// Listen on an address that is not loopback.
    pub allow_remote: bool,
    /// For the failures drawn at random.
    pub seed: u64,
}

impl ReceiverOptions {
    /// A receiver that takes everything and keeps nothing.
    pub fn new(listen: SocketAddr) -> ReceiverOptions {
        ReceiverOptions {
            listen,
            store: None,
            status: None,
            fail_rate: 0.0,
            lose_answers: false,
            delay: Duration::ZERO,
            stop_after: None,
            allow_remote: false,
            seed: 0,
        }
    }
}

/// What every request and every handle share.
struct Shared {
    options: ReceiverOptions,
    /// Answers that are neither 200 nor drawn at random.
    status: Option<StatusCode>,
    intake: Mutex<Intake>,
    reading: Semaphore,
    /// Turns true when `stop_after` is reached.
    finished: watch::Sender<bool>,
}

impl Shared {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver that listens; [`Receiver::run`] serves it.
pub struct Receiver {
    listener: GatedListener,
    gate: Gate,
    shared: Arc<Shared>,
}

/// Looks into a receiver that runs, and cuts it off for a while.
#[derive(Clone)]
pub struct ReceiverHandle {
    gate: Gate,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Begins to listen.
    ///
    /// # Errors
    /// An address that is not loopback and was not allowed, a status code that is none, an address or a store
    /// directory that cannot be used.
    pub async fn bind(options: ReceiverOptions) -> Result<Receiver, ReceiverError> {
        if !options.allow_remote && !options.listen.ip().is_loopback() {
            return Err(ReceiverError::NotLoopback(options.listen));
        }
        if !(0.0..=1.0).contains(&options.fail_rate) {
            return Err(ReceiverError::FailRate(options.fail_rate));
        }
        // 1xx would not end a request.
        let status = match options.status {
            None => None,
            Some(code @ 200..) => Some(StatusCode::from_u16(code).map_err(|_| ReceiverError::Status(code))?),
            Some(code) => return Err(ReceiverError::Status(code)),
        };
        let intake = Intake::new(options.store.clone(), options.seed)?;
        let listener = GatedListener::bind(options.listen)
            .await
            .map_err(|source| ReceiverError::Listen { address: options.listen, source })?;
        let shared = Shared {
            options,
            status,
            intake: Mutex::new(intake),
            reading: Semaphore::new(REQUESTS_AT_ONCE),
            finished: watch::Sender::new(false),
        };
        Ok(Receiver { gate: listener.gate(), listener, shared: Arc::new(shared) })
    }

    /// The address in use, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.gate.address()
    }

    /// What has come in so far.
    pub fn stats(&self) -> Stats {
        self.shared.intake().stats()
    }

    /// A handle that stays usable while the receiver runs.
    pub fn handle(&self) -> ReceiverHandle {
        ReceiverHandle { gate: self.gate.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Serves until `stop` is ready or `stop_after` is reached, and says what came in.
    ///
    /// # Errors
    /// When the server ends by itself, which takes an error of the operating system.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<Stats, ReceiverError> {
        let Receiver { listener, gate, shared } = self;
        let mut finished = shared.finished.subscribe();
        let (stopping, mut stopped) = watch::channel(false);
        let shutdown = async move {
            tokio::select! {
                () = stop => {}
                _ = finished.wait_for(|finished| *finished) => {}
            }
            stopping.send_replace(true);
        };
        let router = Router::new().fallback(respond).with_state(Arc::clone(&shared));
        let serving = async { axum::serve(listener, router).with_graceful_shutdown(shutdown).await };
        let grace_over = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        let ended = tokio::select! {
            ended = serving => ended,
            () = grace_over => Ok(()),
        };
        gate.cut();
        ended.map_err(ReceiverError::Serve)?;
        Ok(shared.intake().stats())
    }
}

impl ReceiverHandle {
    /// What has come in so far.
    pub fn stats(&self) -> Stats {
        self.shared.intake().stats()
    }

    /// The address in use.
    pub fn local_addr(&self) -> SocketAddr {
        self.gate.address()
    }

    /// Goes down as a crashed server does: open connections are cut and new ones refused. Returns once that is so.
    /// Takes effect only while the receiver runs.
    pub async fn pause(&self) {
        self.gate.close().await;
    }

    /// Comes back on the same port. Returns once connections are taken again.
    pub async fn resume(&self) {
        self.gate.open().await;
    }
}

/// Binds, tells the address to `announce`, and serves until `stop`.
///
/// # Errors
/// As [`Receiver::bind`] and [`Receiver::run`].
pub async fn serve(
    options: ReceiverOptions,
    announce: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<Stats, ReceiverError> {
    let receiver = Receiver::bind(options).await?;
    announce(receiver.local_addr());
    receiver.run(stop).await
}

/// Every request comes here: paths carry no meaning but `/stats`, `/fleet` and `/fleet.json`.
async fn respond(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let reading = request.method() == Method::GET || request.method() == Method::HEAD;
    if reading && request.uri().path() == "/stats" {
        let stats = shared.intake().stats();
        let json = serde_json::to_string(&stats).expect("counters and texts always serialize");
        return ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    }
    let now = Now::read().wall;
    match request.uri().path() {
        "/fleet" if reading => return Html(shared.intake().fleet().to_html(now)).into_response(),
        "/fleet.json" if reading => {
            let json = shared.intake().fleet().to_json(now).to_string();
            return ([(header::CONTENT_TYPE, "application/json")], json).into_response();
        }
        _ => {}
    }
    match *request.method() {
        // Sumo answers a GET with an empty 200, and senders use it as a ping.
        Method::GET | Method::HEAD => StatusCode::OK.into_response(),
        Method::POST => {
            let (parts, body) = request.into_parts();
            let (status, said) = take(&shared, &parts.headers, body).await;
            tokio::time::sleep(shared.options.delay).await;
            let finished = |done: &u64| shared.intake().accepted() >= *done;
            if shared.options.stop_after.as_ref().is_some_and(finished) {
                shared.finished.send_replace(true);
            }
            (status, said).into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// Reads one POST and takes it in. The status of the answer, and what to say; nothing where all is well, as Sumo does.
async fn take(shared: &Shared, headers: &HeaderMap, body: Body) -> (StatusCode, String) {
    let _slot = shared.reading.acquire().await.expect("the semaphore is never closed");
    // The body is read in any case, or the connection could not be used again.
    let read = to_bytes(body, BODY_BYTES_MAX).await;
    let mut intake = shared.intake();
    if let Some(status) = shared.status {
        intake.answer_by_order(status.is_success());
        return (status, String::new());
    }
    let full = shared.options.stop_after.is_some_and(|stop_after| intake.accepted() >= stop_after);
    let failing = full || intake.fails(shared.options.fail_rate);
    let losing = failing && !full && shared.options.lose_answers && intake.fails(0.5);
    if failing && !losing {
        intake.reject();
        return (StatusCode::SERVICE_UNAVAILABLE, "failed on request".to_owned());
    }
    let taken = match read {
        Ok(body) => intake.take(&Post::new(headers, &body), !losing),
        Err(error) => Err(unreadable(&error)),
    };
    match taken {
        Ok(()) if losing => (StatusCode::SERVICE_UNAVAILABLE, "the answer was lost on request".to_owned()),
        Ok(()) => (StatusCode::OK, String::new()),
        Err((status, said)) => {
            intake.reject();
            (status, said)
        }
    }
}

/// A body that is too long, or that ended before its time.
fn unreadable(error: &axum::Error) -> (StatusCode, String) {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    if text.contains("length limit exceeded") {
        (StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {BODY_BYTES_MAX} bytes"))
    } else {
        (StatusCode::BAD_REQUEST, format!("the body could not be read: {text}"))
    }
}
