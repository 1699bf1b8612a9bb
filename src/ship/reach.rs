//! `watchpost check`: whether the destination can be reached, found out without sending it any data.

use std::time::{Duration, Instant};

use reqwest::{Method, Request};

use super::client::{build, condense};
use super::destination::Destination;
use super::sender::SenderOptions;
use crate::secret::Secret;

/// How long the check may take in all.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the destination answered to a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachability {
    /// The status code.
    pub status: u16,
    /// Whether delivery can be expected to work now.
    pub usable: bool,
    /// What the answer means and, if anything is to be done, what.
    pub explanation: String,
    /// Name lookup, connection, TLS and answer together.
    pub elapsed: Duration,
}

/// Connects, with TLS verified, and asks with a GET, which ingests nothing (Sumo's logstash plugin uses it as its ping).
///
/// # Errors
/// In words and without the address: why no answer came.
pub async fn check_destination(url: &Secret) -> Result<Reachability, String> {
    check_with(&SenderOptions::new(url.clone(), Duration::ZERO)).await
}

/// The same with options of one's own.
///
/// # Errors
/// As [`check_destination`].
pub async fn check_with(options: &SenderOptions) -> Result<Reachability, String> {
    let destination = Destination::parse(&options.url).map_err(|error| error.to_string())?;
    let clean = |error: String| destination.redactor.clean(&error);
    let client = build(options, &destination.url).map_err(clean)?;
    let limit = CHECK_TIMEOUT.min(options.limits.request_timeout);
    let start = Instant::now();
    let request = Request::new(Method::GET, destination.url.clone());
    let exchange = async { client.execute(destination.authorized(&client, request)?).await };
    let asked = tokio::time::timeout(limit, exchange).await;
    let response = match asked {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(clean(condense(error))),
        Err(_) => return Err(format!("no answer within {} s", limit.as_secs_f64())),
    };
    let status = response.status().as_u16();
    let (usable, meaning) = explain(status);
    Ok(Reachability { status, usable, explanation: meaning.to_owned(), elapsed: start.elapsed() })
}

/// What the answer to a GET says about a POST.
fn explain(status: u16) -> (bool, &'static str) {
    match status {
        200..=299 => (true, "the destination answers as an HTTP source does"),
        405 | 501 => (
            true,
            "the destination is there and takes no GET; whether it takes the data, the first batch will show",
        ),
        300..=399 => (
            false,
            "the destination redirects, which is not followed; set WATCHPOST_SUMO_URL to the final address",
        ),
        401 | 403 => (false, "the destination does not accept the token in WATCHPOST_SUMO_URL; correct it"),
        404 | 410 => (false, "there is no HTTP source at the path of WATCHPOST_SUMO_URL; correct it"),
        429 => {
            (false, "the destination limits the rate at present; the agent keeps the data and tries again")
        }
        408 | 500..=599 => (
            false,
            "the destination is there and cannot serve at present; the agent keeps the data and tries again",
        ),
        _ => (false, "the destination gives an answer that no HTTP source gives; check WATCHPOST_SUMO_URL"),
    }
}
