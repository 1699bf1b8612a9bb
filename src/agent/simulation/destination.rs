//! The simulated destination and the wire to it. What an answer means and how long to wait the product's own tables
//! say; only the sockets are left out.
//!
//! It remembers what it took, by key and bytes. Whether that is right the oracle says.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use crate::batch::decompress;
use crate::follow::identity;
use crate::record::Stream;
use crate::ship::{Answer, Backoff, BackoffLimits, Decision, Mailbox, Outgoing, Verdict, classify, decide};

use super::clock::Clock;
use super::swarm::{Fault, Swarm};
use super::trace::Trace;

/// No answer within this time is none.
const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// An ordinary answer takes at most this long.
const LATENCY_MAX_MS: u64 = 300;

/// A batch as the destination got it.
#[derive(Debug)]
pub(super) struct Received {
    body: Vec<u8>,
    /// The records; empty where the body is no gzip of the size that was told.
    pub(super) text: String,
    pub(super) is_lines: bool,
    pub(super) is_summaries: bool,
    /// How often it was taken.
    pub(super) times: u64,
    /// Other bytes came under the same key.
    pub(super) conflict: bool,
}

/// A request under way, or the wait before the next one.
#[derive(Debug)]
struct Delivery {
    outgoing: Outgoing,
    refusals: u32,
    due: Duration,
    /// What the answer will be; `None` while the next attempt is awaited.
    attempt: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    /// The destination takes the batch.
    takes: bool,
    answer: Answer,
}

/// Sender and destination.
#[derive(Debug)]
pub(super) struct Destination {
    delivery: Option<Delivery>,
    backoff: Backoff,
    pub(super) received: BTreeMap<String, Received>,
    /// Log lines in them, each batch once.
    pub(super) lines_taken: u64,
    /// Batches that were taken, repeats too.
    pub(super) batches_taken: u64,
    /// Batches that were given up on 400, and those that were too large: by key, after what was said last.
    pub(super) refused: BTreeMap<String, Received>,
    pub(super) too_large: BTreeMap<String, Received>,
    /// Repeats that are nobody's fault: the answer was lost, or the process died before it had it on disk.
    pub(super) repeats_excused: u64,
    faults: Vec<Fault>,
    fault_share: u8,
    raw_bytes_max: Option<u64>,
    random: fastrand::Rng,
    trace: Trace,
    /// Until then nobody answers.
    pub(super) outage_until: Duration,
}

impl Destination {
    pub(super) fn new(swarm: &Swarm, mut random: fastrand::Rng, trace: Trace) -> Destination {
        Destination {
            delivery: None,
            backoff: Backoff::new(BackoffLimits::default(), random.u64(..)),
            received: BTreeMap::new(),
            lines_taken: 0,
            batches_taken: 0,
            refused: BTreeMap::new(),
            too_large: BTreeMap::new(),
            repeats_excused: 0,
            faults: swarm.answers.clone(),
            fault_share: swarm.answer_fault_share,
            raw_bytes_max: swarm.raw_bytes_max,
            random,
            trace,
            outage_until: Duration::ZERO,
        }
    }

    /// From now on every answer is as it should be.
    pub(super) fn heal(&mut self) {
        self.faults.clear();
        self.raw_bytes_max = None;
        self.outage_until = Duration::ZERO;
    }

    /// Batches that it took or refused for good, each once.
    pub(super) fn batches_seen(&self) -> usize {
        self.received.len() + self.refused.len() + self.too_large.len()
    }

    /// When something is due, if anything is under way.
    pub(super) fn due(&self) -> Option<Duration> {
        self.delivery.as_ref().map(|delivery| delivery.due)
    }

    /// Whether a request was sent and its answer is awaited.
    pub(super) fn is_answering(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| delivery.attempt.is_some())
    }

    /// Everything that is due by now.
    pub(super) fn act(&mut self, mailbox: &Mailbox, clock: &Clock) {
        loop {
            let Some(delivery) = self.delivery.take() else {
                let Some(outgoing) = mailbox.begin() else { return };
                self.send(outgoing, 0, clock);
                continue;
            };
            if delivery.due > clock.passed() {
                self.delivery = Some(delivery);
                return;
            }
            let Delivery { outgoing, refusals, attempt, .. } = delivery;
            match attempt {
                None => self.send(outgoing, refusals, clock),
                Some(attempt) => self.answer(outgoing, refusals, attempt, mailbox, clock),
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing, refusals: u32, clock: &Clock) {
        let (attempt, latency_ms) = self.draw(&outgoing, clock);
        self.trace.note(
            "send",
            &[
                outgoing.seq,
                outgoing.lines,
                identity::hash(outgoing.key.as_bytes()),
                identity::hash(&outgoing.body),
            ],
        );
        self.trace.say(|| format!("    {} {}: {:?}", outgoing.key, outgoing.category, attempt));
        let due = clock.passed() + Duration::from_millis(latency_ms);
        self.delivery = Some(Delivery { outgoing, refusals, due, attempt: Some(attempt) });
    }

    /// What will come of a request, and when.
    fn draw(&mut self, outgoing: &Outgoing, clock: &Clock) -> (Attempt, u64) {
        let quick = self.random.u64(1..LATENCY_MAX_MS);
        let said = |status, body: &[u8], wait: Option<u64>| {
            let mut headers = HeaderMap::new();
            if let Some(wait) = wait {
                headers.insert(RETRY_AFTER, HeaderValue::from(wait));
            }
            let now = std::time::UNIX_EPOCH + Duration::from_millis(clock.wall_ms().unsigned_abs());
            let answer = classify(status, &headers, body, now);
            Attempt { takes: matches!(answer, Answer::Accepted { .. }), answer }
        };
        let silent = |takes| {
            let message = "no answer".to_owned();
            Attempt { takes, answer: Answer::Retry { message, retry_after: None } }
        };
        if clock.passed() < self.outage_until {
            return (silent(false), quick);
        }
        // What it has taken once it does not refuse later: against that nobody could guard.
        let is_known = self.received.contains_key(&outgoing.key);
        if !is_known && self.raw_bytes_max.is_some_and(|most| outgoing.raw_bytes > most) {
            return (said(413, b"", None), quick);
        }
        if self.faults.is_empty() || self.random.u8(..) >= self.fault_share {
            return (said(200, b"", None), quick);
        }
        let random = &mut self.random;
        let pick = |random: &mut fastrand::Rng, of: &[u16]| of[random.usize(0..of.len())];
        match self.faults[random.usize(0..self.faults.len())] {
            Fault::Refusal | Fault::TooLarge if is_known => (said(200, b"", None), quick),
            Fault::Unreachable => (silent(false), quick),
            Fault::RequestLost => (silent(false), REQUEST_TIMEOUT_MS),
            Fault::AnswerLost => (silent(true), REQUEST_TIMEOUT_MS),
            Fault::Passing => (said(pick(random, &[408, 429, 500, 502, 503, 504]), b"", None), quick),
            Fault::RetryAfter => (said(pick(random, &[429, 503]), b"", Some(random.u64(0..90))), quick),
            Fault::Refusal => (said(400, b"no", None), quick),
            Fault::Hold => (said(pick(random, &[302, 401, 403, 404, 405, 418]), b"", None), quick),
            Fault::TooLarge => (said(413, b"", None), quick),
            Fault::Warning => (said(200, b"{\"code\":\"fields dropped\",\"message\":\"x\"}", None), quick),
        }
    }

    fn answer(
        &mut self,
        outgoing: Outgoing,
        refusals: u32,
        attempt: Attempt,
        mailbox: &Mailbox,
        clock: &Clock,
    ) {
        let accepted = matches!(attempt.answer, Answer::Accepted { .. });
        if attempt.takes {
            self.take(&outgoing);
            self.repeats_excused += u64::from(!accepted);
        }
        let decision = decide(&attempt.answer, refusals, &mut self.backoff);
        let refusals = refusals + u32::from(matches!(attempt.answer, Answer::Refused { .. }));
        self.trace.note("answer", &[outgoing.seq, u64::from(attempt.takes)]);
        self.trace.say(|| format!("    {:?} -> {decision:?}", attempt.answer));
        match decision {
            Decision::Again { wait, .. } => {
                let due = clock.passed() + wait;
                self.delivery = Some(Delivery { outgoing, refusals, due, attempt: None });
            }
            Decision::Done(verdict) => {
                match &verdict {
                    Verdict::Accepted { .. } => {}
                    // Refused by the sender: what the destination said is what the oracle goes by.
                    Verdict::Refused { .. } if matches!(attempt.answer, Answer::Refused { .. }) => {
                        self.too_large.remove(&outgoing.key);
                        self.refused.insert(outgoing.key.clone(), received(&outgoing));
                    }
                    Verdict::TooLarge { .. } if matches!(attempt.answer, Answer::TooLarge { .. }) => {
                        self.refused.remove(&outgoing.key);
                        self.too_large.insert(outgoing.key.clone(), received(&outgoing));
                    }
                    Verdict::Refused { .. } | Verdict::TooLarge { .. } => {}
                }
                mailbox.judge(outgoing.seq, verdict);
            }
        }
    }

    /// The destination has the batch now.
    fn take(&mut self, outgoing: &Outgoing) {
        self.batches_taken += 1;
        match self.received.get_mut(&outgoing.key) {
            Some(before) => {
                before.times += 1;
                before.conflict |= before.body != outgoing.body;
            }
            None => {
                let received = received(outgoing);
                if received.is_lines {
                    self.lines_taken += received.text.lines().count() as u64;
                }
                self.received.insert(outgoing.key.clone(), received);
            }
        }
    }

    /// The process dies, or ends without waiting. A request under way may yet arrive.
    pub(super) fn agent_ended(&mut self, limits_seed: u64) {
        if let Some(Delivery { outgoing, attempt: Some(attempt), .. }) = self.delivery.take()
            && attempt.takes
            && self.random.bool()
        {
            self.trace.note("arrives all the same", &[outgoing.seq]);
            self.take(&outgoing);
        }
        self.backoff = Backoff::new(BackoffLimits::default(), limits_seed);
    }
}

fn received(outgoing: &Outgoing) -> Received {
    let raw = decompress(&outgoing.body, outgoing.raw_bytes as usize).unwrap_or_default();
    Received {
        body: outgoing.body.clone(),
        text: String::from_utf8(raw).unwrap_or_default(),
        is_lines: outgoing.category == Stream::AccessLines.default_category(),
        is_summaries: outgoing.category == Stream::WebSummary.default_category(),
        times: 1,
        conflict: false,
    }
}
