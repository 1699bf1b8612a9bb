//! The connections of the status port and what each path answers.
//!
//! Eight lanes share the listener; each takes one connection, serves it and takes the next, so there are never more than
//! eight, nothing is spawned, and whoever comes ninth waits in the kernel's queue. Must never let one client hold a lane:
//! a connection that does not bring a whole request within its patience is cut, whatever it does instead (says nothing,
//! drips a header, leaves its answer unread).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::board::{Board, View};
use super::guard::{self, Keys, Refusal};
use super::{json as status_json, metrics};
use crate::secret::Secret;

/// Connections at one time.
pub const CONNECTIONS_MAX: usize = 8;
/// Bytes of a request's head; longer ones get 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Rest after a failed accept (out of file descriptors), which would otherwise fail again at once, for ever.
const ACCEPT_REST: Duration = Duration::from_millis(250);

/// The page, without anything from elsewhere; [`NONCE_PLACE`] stands for the nonce of its own script and style.
const PAGE: &str = include_str!("page.html");
const NONCE_PLACE: &str = "NONCE-OF-THIS-ANSWER";
const NONCE_BYTES: usize = 16;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What the port needs to know beyond where it listens.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// With a token everything but `/healthz` and `/readyz` needs `Authorization: Bearer TOKEN`; a browser may send it as
    /// the password of the user `watchpost` (Basic).
    pub token: Option<Secret>,
}

/// How long a connection may take until each whole request, and until its answer is gone.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// While there are free lanes.
    alone: Duration,
    /// While all lanes are taken and somebody may be waiting.
    crowded: Duration,
}

const PATIENCE: Patience = Patience { alone: Duration::from_secs(5), crowded: Duration::from_secs(1) };

/// Answers on `listener` until `stop` is ready; then every connection is dropped as it stands.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    board: Arc<Board>,
    stop: impl Future<Output = ()>,
) {
    serve_with(listener, options, board, stop, PATIENCE).await;
}

async fn serve_with(
    listener: TcpListener,
    options: Options,
    board: Arc<Board>,
    stop: impl Future<Output = ()>,
    patience: Patience,
) {
    let router = router(&options, board);
    let taken = AtomicUsize::new(0);
    let lane = || Box::pin(lane(&listener, &router, &taken, patience));
    // As many as CONNECTIONS_MAX says.
    let lanes = async { tokio::join!(lane(), lane(), lane(), lane(), lane(), lane(), lane(), lane()) };
    tokio::select! {
        _ = lanes => {}
        () = stop => {}
    }
}

async fn lane(listener: &TcpListener, router: &Router, taken: &AtomicUsize, patience: Patience) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                taken.fetch_add(1, Ordering::Relaxed);
                connection(stream, router, taken, patience).await;
                taken.fetch_sub(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "the status port cannot take a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: &Router, taken: &AtomicUsize, patience: Patience) {
    let Ok(local) = stream.local_addr() else { return };
    let heard = Mutex::new(Instant::now());
    let answer = TowerToHyperService::new(router.clone());
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        request.extensions_mut().insert(Local(local));
        answer.call(request)
    });
    // hyper's own timer would only cover the head; `silence` covers the head, the rest between two requests, and the
    // answer, with one rule.
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = served => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection to the status port broke off");
            }
        }
        () = silence(&heard, taken, patience) => tracing::debug!("a silent connection to the status port was cut"),
    }
}

/// Ends when the connection has brought no whole request for longer than the patience of the moment.
async fn silence(heard: &Mutex<Instant>, taken: &AtomicUsize, patience: Patience) {
    let mut look = patience.crowded;
    loop {
        tokio::time::sleep(look).await;
        let silent = heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let crowded = taken.load(Ordering::Relaxed) >= CONNECTIONS_MAX;
        let limit = if crowded { patience.crowded } else { patience.alone };
        if silent >= limit {
            return;
        }
        // Whether it is crowded changes between two looks, so none is further off than the short patience.
        look = (limit - silent).min(patience.crowded);
    }
}

/// The address at which a request came in.
#[derive(Clone, Copy)]
struct Local(SocketAddr);

struct Port {
    board: Arc<Board>,
    keys: Keys,
}

impl Port {
    async fn view(&self) -> Option<View> {
        self.board.view().await
    }
}

fn router(options: &Options, board: Arc<Board>) -> Router {
    let port = Arc::new(Port { board, keys: Keys::new(options.token.as_ref()) });
    Router::new()
        .route("/", get(page))
        .route("/status", get(status))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async {
            say(
                StatusCode::NOT_FOUND,
                TEXT,
                "no such path; there is / and /status, /metrics, /healthz, /readyz\n",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&port), guarded))
        .with_state(port)
}

/// Refuses what the guard refuses and gives every answer the headers that keep it where it belongs.
async fn guarded(State(port): State<Arc<Port>>, request: Request, next: Next) -> Response {
    let host = port.board.latest().map(|snapshot| snapshot.agent.host.clone());
    let verdict = match request.extensions().get::<Local>() {
        Some(Local(local)) => guard::check(&request, *local, host.as_deref(), &port.keys),
        None => Err(Refusal::ForeignHost),
    };
    let mut response = match verdict {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

fn refuse(refusal: Refusal) -> Response {
    let mut response = say(refusal.status(), TEXT, format!("{}\n", refusal.cure()));
    let headers = response.headers_mut();
    match refusal {
        Refusal::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Refusal::Unauthorized => {
            for scheme in ["Bearer realm=\"watchpost\"", "Basic realm=\"watchpost\", charset=\"UTF-8\""] {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        Refusal::NoHost | Refusal::ForeignHost | Refusal::ForeignOrigin => {}
    }
    response
}

async fn page() -> Response {
    let mut random = [0_u8; NONCE_BYTES];
    if getrandom::fill(&mut random).is_err() {
        return say(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            "the system gives no random bytes for the page\n",
        );
    }
    let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = say(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace(NONCE_PLACE, &nonce));
    let policy = HeaderValue::try_from(policy).expect("hexadecimal digits fit a header");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn status(State(port): State<Arc<Port>>) -> Response {
    match port.view().await {
        Some(view) => say_json(StatusCode::OK, &status_json::status(&view)),
        None => starting(),
    }
}

async fn metrics_text(State(port): State<Arc<Port>>) -> Response {
    match port.view().await {
        Some(view) => say(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&view)),
        None => say(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the first tick is not through yet\n"),
    }
}

async fn healthz(State(port): State<Arc<Port>>) -> Response {
    let Some(view) = port.view().await else { return starting() };
    let (is_well, answer) = status_json::health(&view);
    say_json(if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &answer)
}

async fn readyz(State(port): State<Arc<Port>>) -> Response {
    if port.board.ready() { say_json(StatusCode::OK, &json!({"status": "ready"})) } else { starting() }
}

fn starting() -> Response {
    let answer = json!({"status": "starting", "reasons": ["pipeline: the first tick is not through yet"]});
    say_json(StatusCode::SERVICE_UNAVAILABLE, &answer)
}

fn say_json(status: StatusCode, value: &Value) -> Response {
    say(status, JSON, format!("{value}\n"))
}

fn say(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

#[cfg(test)]
mod tests;
