//! The sender's task: one batch, one request at a time, until the destination has it or has refused it for good.
//!
//! It owns the order of things; what answers mean stands in `answer.rs`, how long to wait in `backoff.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::{Body, Client, Method, Request, Response};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::answer::{Answer, Decision, classify, decide};
use super::backoff::{Backoff, BackoffLimits};
use super::client::{build, condense};
use super::delivery::DeliveryState;
use super::destination::{Destination, SenderError};
use super::dialect;
use super::mailbox::{Mailbox, Outgoing, Verdict};
use crate::secret::Secret;

/// From the first byte sent to the status line received. Sumo gives up on a request after 30 s with a 408.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the body of an answer may take once the status is known. It only lends words, so it must not
/// slow down delivery; nor may it outlast the request's own deadline.
const ANSWER_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer.
const ANSWER_BODY_BYTES_MAX: usize = 64 * 1024;
/// How long an idle connection is kept. Sumo's load balancer closes it after 30 s; ours must be the shorter, or a
/// request could meet a closing connection.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// The time limits of a sender; tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderLimits {
    /// From the beginning of an attempt to the status of its answer.
    pub request_timeout: Duration,
    /// TCP and TLS together.
    pub connect_timeout: Duration,
    /// For the body of an answer, once its status is known.
    pub answer_body_timeout: Duration,
    /// How long an idle connection is kept.
    pub pool_idle: Duration,
    /// The waits between attempts.
    pub backoff: BackoffLimits,
}

impl Default for SenderLimits {
    fn default() -> SenderLimits {
        SenderLimits {
            request_timeout: REQUEST_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            answer_body_timeout: ANSWER_BODY_TIMEOUT,
            pool_idle: POOL_IDLE,
            backoff: BackoffLimits::default(),
        }
    }
}

/// Where to send, as whom, and within which limits.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// The HTTP source. Plain `http` is taken too: whether a network may be trusted is the operator's decision, and a
    /// receiver on loopback needs no TLS.
    pub url: Secret,
    /// `User-Agent` and `X-Sumo-Client`: `watchpost/VERSION`.
    pub client: String,
    /// On stop, how long the request under way may still take.
    pub stop_grace: Duration,
    /// Certificates (DER) trusted beside the platform's roots. Empty but in tests.
    pub extra_roots_der: Vec<Vec<u8>>,
    /// Time limits.
    pub limits: SenderLimits,
}

impl SenderOptions {
    /// Options with every limit at its default.
    pub fn new(url: Secret, stop_grace: Duration) -> SenderOptions {
        SenderOptions {
            url,
            client: concat!("watchpost/", env!("CARGO_PKG_VERSION")).to_owned(),
            stop_grace,
            extra_roots_der: Vec::new(),
            limits: SenderLimits::default(),
        }
    }
}

/// Sends what the mailbox offers until `stop` turns true (or its sender is gone).
///
/// On stop the request under way may end within the grace of the options; one that does not is
/// abandoned and simply not acknowledged. `seed` drives the jitter of retries.
///
/// # Errors
/// Only for an address that is none; failures of delivery are shown by [`Mailbox::delivery`] and retried for ever.
pub async fn run(
    options: SenderOptions,
    mailbox: Arc<Mailbox>,
    mut stop: watch::Receiver<bool>,
    seed: u64,
) -> Result<(), SenderError> {
    let destination = Destination::parse(&options.url)?;
    let backoff = Backoff::new(options.limits.backoff, seed);
    let mut sender = Sender {
        destination,
        client: None,
        backoff,
        not_before: None,
        mailbox: Arc::clone(&mailbox),
        options,
    };
    mailbox.record(|delivery| delivery.set_state(DeliveryState::Idle));
    loop {
        let outgoing = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            outgoing = mailbox.next() => outgoing,
        };
        let seq = outgoing.seq;
        match sender.deliver(outgoing, &mut stop).await {
            Some(verdict) => mailbox.judge(seq, verdict),
            None => {
                mailbox.abandon();
                break;
            }
        }
    }
    mailbox.record(|delivery| delivery.set_state(DeliveryState::Off));
    Ok(())
}

/// Returns once the agent is to stop. May be asked again.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could say stop is gone, which says it.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One attempt: what it came to, and the status if there was one.
struct Attempt {
    status: Option<u16>,
    answer: Answer,
}

struct Sender {
    options: SenderOptions,
    destination: Destination,
    /// Made at the first need and made again after a failure: roots may be installed later.
    client: Option<Client>,
    backoff: Backoff,
    /// When the next batch may go out, where the destination asked for less.
    not_before: Option<Instant>,
    mailbox: Arc<Mailbox>,
}

impl Sender {
    /// Sends one batch until there is a verdict; `None` if the stop came first.
    async fn deliver(&mut self, outgoing: Outgoing, stop: &mut watch::Receiver<bool>) -> Option<Verdict> {
        let body_bytes = outgoing.body.len() as u64;
        let mut request = Request::new(Method::POST, self.destination.url.clone());
        *request.headers_mut() = dialect::headers(&outgoing, &self.options.client);
        *request.body_mut() = Some(Body::from(outgoing.body));
        if !self.pause(stop).await {
            return None;
        }
        let mut refusals = 0;
        loop {
            self.mailbox.record(|delivery| delivery.attempt());
            let again = request.try_clone().expect("a body that is bytes can be cloned");
            let attempt = self.attempt_until(again, stop).await?;
            let decision = decide(&attempt.answer, refusals, &mut self.backoff);
            refusals += u32::from(matches!(attempt.answer, Answer::Refused { .. }));
            let due = self.tell(&attempt, &decision, body_bytes);
            let Some(due) = due else {
                let pause = self.backoff.pause();
                self.not_before = (!pause.is_zero()).then(|| Instant::now() + pause);
                return match decision {
                    Decision::Done(verdict) => Some(verdict),
                    Decision::Again { .. } => None,
                };
            };
            tokio::select! {
                biased;
                () = stopped(stop) => return None,
                () = sleep_until(due) => {}
            }
        }
    }

    /// Waits until the next batch may go out; `false` if the stop came first. The verdict on the last batch is not held up
    /// by this, and whoever sends no faster than the destination wants waits for nothing.
    async fn pause(&mut self, stop: &mut watch::Receiver<bool>) -> bool {
        let Some(due) = self.not_before.take().filter(|due| *due > Instant::now()) else { return true };
        self.mailbox.record(|delivery| delivery.wait_until(DeliveryState::Sending, due.into_std()));
        tokio::select! {
            biased;
            () = stopped(stop) => false,
            () = sleep_until(due) => true,
        }
    }

    /// One attempt; after a stop only for as long as the grace lasts, then `None`.
    async fn attempt_until(&mut self, request: Request, stop: &mut watch::Receiver<bool>) -> Option<Attempt> {
        let grace = self.options.stop_grace;
        let attempt = self.attempt(request);
        tokio::pin!(attempt);
        tokio::select! {
            biased;
            attempt = &mut attempt => Some(attempt),
            () = stopped(stop) => timeout(grace, attempt).await.ok(),
        }
    }

    /// One request and the beginning of its answer, all within the deadline.
    async fn attempt(&mut self, request: Request) -> Attempt {
        let limits = self.options.limits;
        let clean = |text: &str| self.destination.redactor.clean(text);
        let failed =
            |message: String| Attempt { status: None, answer: Answer::Retry { message, retry_after: None } };
        let client = match &self.client {
            Some(client) => client.clone(),
            None => match build(&self.options, &self.destination.url) {
                Ok(client) => self.client.insert(client).clone(),
                // Only a person can install what is missing, so this is no passing failure.
                Err(error) => {
                    let message = clean(&error);
                    return Attempt { status: None, answer: Answer::Hold { message, retry_after: None } };
                }
            },
        };
        let deadline = Instant::now() + limits.request_timeout;
        let exchange = async { client.execute(self.destination.authorized(&client, request)?).await };
        let mut response = match timeout_at(deadline, exchange).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(clean(&condense(error))),
            Err(_) => return failed(format!("no answer within {} s", limits.request_timeout.as_secs_f64())),
        };
        let status = response.status().as_u16();
        let body_deadline = deadline.min(Instant::now() + limits.answer_body_timeout);
        let body_prefix = read_prefix(&mut response, body_deadline).await;
        let answer = classify(status, response.headers(), &body_prefix, SystemTime::now());
        Attempt { status: Some(status), answer: answer.map_text(clean) }
    }

    /// Puts an attempt into the status and, where the state changes, into the log. The moment of the next attempt, if any.
    fn tell(&self, attempt: &Attempt, decision: &Decision, body_bytes: u64) -> Option<Instant> {
        let now = Instant::now();
        let mut before = DeliveryState::Idle;
        let error = attempt.answer.error();
        let due = match decision {
            Decision::Again { wait, .. } => Some(now + *wait),
            Decision::Done(_) => None,
        };
        self.mailbox.record(|delivery| {
            before = delivery.state();
            if let Some(error) = &error {
                delivery.failed(attempt.status, error.clone(), now.into_std());
            }
            match (decision, due) {
                (Decision::Again { state, .. }, Some(due)) => delivery.wait_until(*state, due.into_std()),
                _ => delivery.set_state(DeliveryState::Idle),
            }
            if let Decision::Done(Verdict::Accepted { warning }) = decision {
                delivery.accepted(attempt.status, body_bytes, warning.as_deref(), now.into_std());
            }
        });
        log_change(before, decision, error.as_deref().unwrap_or_default());
        if due.is_some() {
            self.mailbox.announce();
        }
        due
    }
}

/// One line when the state changes, none for each attempt: a day of outage is not a day of log lines.
fn log_change(before: DeliveryState, decision: &Decision, error: &str) {
    match decision {
        Decision::Again { state, .. } if *state == before => {}
        Decision::Again { state: DeliveryState::Held, .. } => {
            tracing::error!("delivery is held: {error}");
        }
        Decision::Again { .. } => tracing::warn!("delivery failed and is retried: {error}"),
        Decision::Done(Verdict::Accepted { warning }) => {
            if matches!(before, DeliveryState::Retrying | DeliveryState::Held) {
                tracing::info!("delivery works again");
            }
            if let Some(warning) = warning {
                tracing::warn!("the destination accepted a batch with a warning: {warning}");
            }
        }
        Decision::Done(Verdict::Refused { .. }) => {
            tracing::error!("the destination refused a batch for good: {error}");
        }
        Decision::Done(Verdict::TooLarge { .. }) => tracing::warn!("{error}"),
    }
}

/// The beginning of a body: up to a size and a moment. A body that is cut or never ends is no error here.
async fn read_prefix(response: &mut Response, deadline: Instant) -> Vec<u8> {
    let mut prefix = Vec::new();
    while prefix.len() < ANSWER_BODY_BYTES_MAX {
        let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await else { break };
        let room = ANSWER_BODY_BYTES_MAX - prefix.len();
        prefix.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    prefix
}
