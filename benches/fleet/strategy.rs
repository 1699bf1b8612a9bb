//! How long an agent waits after an answer: as the sender does, or as it might.
//!
//! The sender's rule is its own code. The others stand here in the least form that can be compared with it; they must
//! never be taken for it, so none of them shares its state.

use std::time::Duration;

use fastrand::Rng;
use watchpost::ship::{Answer, Backoff, BackoffLimits, Decision, decide};

/// First ceiling of a wait, as in the sender.
const BASE_S: f64 = 1.0;
/// Highest ceiling, as in the sender.
const MAX_S: f64 = 60.0;
/// Doublings until the highest ceiling.
const DOUBLINGS_MAX: u32 = 6;
/// A shorter gap is none, as in the sender.
const GAP_MIN_S: f64 = 0.05;
/// What decorrelated jitter multiplies the last wait with (AWS Architecture Blog, as in `backoff.rs`).
const DECORRELATED_FACTOR: f64 = 3.0;

/// A way to wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Strategy {
    /// The sender's own code.
    Sender,
    /// Full jitter, and the next batch at once after an accepted one.
    NoPauses,
    /// The same, but the wait is the ceiling.
    NoJitter,
    /// The same, but each wait is drawn between the first ceiling and three times the last wait.
    Decorrelated,
    /// Full jitter; an accepted batch takes the ceiling one step down, and the next one waits up to that.
    StepDown,
    /// Gaps as the sender has them, with this step instead of its own, in requests a second for each accepted batch.
    Step(f64),
}

/// The waits of one agent.
pub(super) enum Waits {
    Sender(Backoff),
    Other(Other),
}

/// The state of a rule that is not the sender's.
pub(super) struct Other {
    strategy: Strategy,
    random: Rng,
    failures: u32,
    last_s: f64,
    gap_s: f64,
}

impl Waits {
    pub(super) fn new(strategy: Strategy, seed: u64) -> Waits {
        match strategy {
            Strategy::Sender => Waits::Sender(Backoff::new(BackoffLimits::default(), seed)),
            strategy => Waits::Other(Other {
                strategy,
                random: Rng::with_seed(seed),
                failures: 0,
                last_s: BASE_S,
                gap_s: 0.0,
            }),
        }
    }

    pub(super) fn is_senders(&self) -> bool {
        matches!(self, Waits::Sender(_))
    }

    /// Whether the batch is done with, and how long to wait before the next request.
    pub(super) fn answered(&mut self, answer: &Answer) -> (bool, Duration) {
        match self {
            Waits::Sender(backoff) => match decide(answer, 0, backoff) {
                Decision::Done(_) => (true, backoff.pause()),
                Decision::Again { wait, .. } => (false, wait),
            },
            Waits::Other(other) => match answer {
                Answer::Accepted { .. } => (true, Duration::from_secs_f64(other.accepted_s())),
                Answer::Limited { retry_after, .. } => (false, other.failed(*retry_after, true)),
                Answer::Retry { retry_after, .. } => (false, other.failed(*retry_after, false)),
                Answer::Refused { .. } | Answer::TooLarge { .. } | Answer::Hold { .. } => {
                    unreachable!("the receiver accepts or limits")
                }
            },
        }
    }
}

impl Other {
    fn accepted_s(&mut self) -> f64 {
        self.last_s = BASE_S;
        if self.strategy == Strategy::StepDown {
            self.failures = self.failures.saturating_sub(1);
            return self.failures.checked_sub(1).map_or(0.0, |step| ceiling_s(step) * self.random.f64());
        }
        self.failures = 0;
        if let Strategy::Step(step) = self.strategy {
            self.gap_s /= 1.0 + step * self.gap_s;
            if self.gap_s < GAP_MIN_S {
                self.gap_s = 0.0;
            }
        }
        self.pause_s()
    }

    fn failed(&mut self, retry_after: Option<Duration>, limited: bool) -> Duration {
        let is_stepping = matches!(self.strategy, Strategy::Step(_));
        if is_stepping && limited && (self.failures == 0 || self.gap_s == 0.0) {
            self.gap_s = (self.gap_s * 2.0).clamp(BASE_S, MAX_S);
        }
        let ceiling_s = ceiling_s(self.failures);
        self.failures += 1;
        let wait_s = match self.strategy {
            Strategy::NoJitter => ceiling_s,
            Strategy::Decorrelated => {
                let more_s = (self.last_s * DECORRELATED_FACTOR - BASE_S) * self.random.f64();
                self.last_s = (BASE_S + more_s).min(MAX_S);
                self.last_s
            }
            _ => ceiling_s * self.random.f64(),
        };
        retry_after.unwrap_or_default() + Duration::from_secs_f64(wait_s.max(self.pause_s()))
    }

    fn pause_s(&mut self) -> f64 {
        if self.gap_s == 0.0 { 0.0 } else { self.gap_s * (0.5 + self.random.f64()) }
    }
}

fn ceiling_s(failures: u32) -> f64 {
    (BASE_S * f64::from(1_u32 << failures.min(DOUBLINGS_MAX))).min(MAX_S)
}
