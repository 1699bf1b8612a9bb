//! What probes ask over HTTP: one plain request on a bounded answer.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};

/// For the connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;

/// A client for plain HTTP: no proxy, no redirect, and each question on a connection of its own. A server that is reloaded
/// closes those that wait, and a question that meets that has no answer.
pub(super) fn client() -> Client {
    // The client wants one even where it speaks no TLS. Fails only if the process has one already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("watchpost/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(0)
        .build()
        .expect("no setting of this client can fail")
}

/// The status and the body of an answer.
///
/// # Errors
/// In words, with the URL: no connection, no HTTP, a body that is cut or too long.
pub(super) async fn get(
    client: &Client,
    url: &str,
    host: Option<&str>,
) -> Result<(StatusCode, Vec<u8>), String> {
    let mut request = client.get(url);
    if let Some(host) = host {
        request = request.header(reqwest::header::HOST, host);
    }
    let answer = ask(request, url).await?;
    Ok((answer.status, answer.body))
}

/// An answer that was read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `Content-Type`, as far as it is text.
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Sends a request to `url`, of which errors speak.
///
/// # Errors
/// As [`get`].
pub(super) async fn ask(request: RequestBuilder, url: &str) -> Result<Answer, String> {
    let said = |error: reqwest::Error| format!("{url}: {}", deepest(&error));
    let mut answer = request.send().await.map_err(said)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(said)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("{url}: the answer is longer than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let content_type = answer.headers().get(reqwest::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: answer.status(), content_type, body })
}

/// The innermost cause, which says most: `connection refused` rather than `error sending request`.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
