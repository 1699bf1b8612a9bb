//! How long to wait before the next attempt. Pure: randomness comes in as a seed, no clock is read.

use std::time::Duration;

/// First ceiling of the wait after a failure that will pass by itself.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// Highest ceiling of that wait.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// First wait after an answer that only a person can change, such as a wrong token.
const HOLD_BASE: Duration = Duration::from_secs(15);
/// Longest such wait: a corrected destination is noticed within this time without a restart.
const HOLD_MAX: Duration = Duration::from_secs(5 * 60);
/// The longest `Retry-After` that is honoured, so that a wrong date cannot silence an agent for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5 * 60);
/// A hold is shortened by up to this share at random, so that a fleet does not knock in step.
const HOLD_JITTER: f64 = 0.2;
/// What each accepted batch adds to the rate of a sender that was told to send less, in requests a second. Small, since
/// every agent of a fleet adds it; large enough that one alone is at full speed again within a minute.
const PACE_STEP_PER_S: f64 = 0.05;
/// A shorter gap is none: an answer takes longer.
const GAP_MIN: Duration = Duration::from_millis(50);
/// Pauses are drawn evenly from a gap less this share of it to a gap more this share of it.
const GAP_JITTER: f64 = 0.5;

/// The durations of a [`Backoff`]; tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffLimits {
    /// First ceiling of the wait after a passing failure.
    pub retry_base: Duration,
    /// Highest ceiling of that wait.
    pub retry_max: Duration,
    /// First wait after an answer that only a person can change.
    pub hold_base: Duration,
    /// Longest such wait.
    pub hold_max: Duration,
    /// The longest `Retry-After` that is honoured.
    pub retry_after_max: Duration,
}

impl Default for BackoffLimits {
    fn default() -> BackoffLimits {
        BackoffLimits {
            retry_base: RETRY_BASE,
            retry_max: RETRY_MAX,
            hold_base: HOLD_BASE,
            hold_max: HOLD_MAX,
            retry_after_max: RETRY_AFTER_MAX,
        }
    }
}

/// The waits between attempts, growing until something is accepted.
///
/// After a passing failure the wait is drawn evenly from zero to a ceiling that doubles ("full
/// jitter", which spreads a fleet best: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
///
/// A destination that asked for less also gets a gap between batches: the gap doubles with each batch that was turned
/// away, and every accepted one adds a little to the rate. So agents that share a limit come to equal parts of it, and
/// few of their requests are in vain (docs/fleet.md). Where nothing was turned away there is no gap.
#[derive(Debug)]
pub struct Backoff {
    limits: BackoffLimits,
    random: fastrand::Rng,
    retries: u32,
    holds: u32,
    /// The mean pause between two batches; zero unless the destination asked for less.
    gap: Duration,
}

impl Backoff {
    /// A backoff that has seen no failure. The same seed gives the same waits.
    pub fn new(limits: BackoffLimits, seed: u64) -> Backoff {
        Backoff { limits, random: fastrand::Rng::with_seed(seed), retries: 0, holds: 0, gap: Duration::ZERO }
    }

    /// Forgets all failures: the destination has answered as it should.
    pub fn reset(&mut self) {
        self.retries = 0;
        self.holds = 0;
    }

    /// The destination took a batch: failures are forgotten, and the gap gets shorter.
    pub(super) fn accepted(&mut self) {
        self.reset();
        self.gap = self.gap.div_f64(1.0 + PACE_STEP_PER_S * self.gap.as_secs_f64());
        if self.gap < GAP_MIN {
            self.gap = Duration::ZERO;
        }
    }

    /// The pause before the next batch, from the answer to the last one on. Zero unless the destination asked for less.
    pub fn pause(&mut self) -> Duration {
        if self.gap.is_zero() {
            return Duration::ZERO;
        }
        self.gap.mul_f64(1.0 - GAP_JITTER + 2.0 * GAP_JITTER * self.random.f64())
    }

    /// The wait after an answer that asks for less, and longer gaps from now on.
    pub(super) fn limited(&mut self, retry_after: Option<Duration>) -> Duration {
        // Once for a batch: that it is refused again says that the destination is full, not that this agent was fast.
        if self.retries == 0 || self.gap.is_zero() {
            self.gap = (self.gap * 2).max(self.limits.retry_base).min(self.limits.retry_max);
        }
        self.retry(retry_after).max(self.pause())
    }

    /// The wait after a failure that will pass. What the server asked for comes on top of the
    /// jitter, as a floor, so that the agents that it turned away do not all return at one moment.
    pub fn retry(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = doubled(self.limits.retry_base, self.limits.retry_max, self.retries);
        self.retries = self.retries.saturating_add(1);
        self.floor(retry_after) + ceiling.mul_f64(self.random.f64())
    }

    /// The wait after an answer that only a person can change. Never shorter than what the server asked for.
    pub fn hold(&mut self, retry_after: Option<Duration>) -> Duration {
        let longest = doubled(self.limits.hold_base, self.limits.hold_max, self.holds);
        self.holds = self.holds.saturating_add(1);
        let wait = longest.mul_f64(1.0 - HOLD_JITTER * self.random.f64());
        wait.max(self.floor(retry_after))
    }

    /// Passing failures since something was accepted.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    fn floor(&self, retry_after: Option<Duration>) -> Duration {
        retry_after.unwrap_or(Duration::ZERO).min(self.limits.retry_after_max)
    }
}

/// `base` doubled `times` times, up to `max`.
fn doubled(base: Duration, max: Duration, times: u32) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn ceilings_double_up_to_their_cap() {
        for (times, seconds) in [(0, 1), (1, 2), (5, 32), (6, 60), (31, 60), (32, 60), (u32::MAX, 60)] {
            assert_eq!(doubled(RETRY_BASE, RETRY_MAX, times), seconds * S, "{times}");
        }
        for (times, seconds) in [(0, 15), (1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (40, 300)] {
            assert_eq!(doubled(HOLD_BASE, HOLD_MAX, times), seconds * S, "{times}");
        }
    }

    #[test]
    fn waits_use_the_whole_range_below_the_ceiling() {
        let waits: Vec<Duration> =
            (0..1000).map(|seed| Backoff::new(BackoffLimits::default(), seed).retry(None)).collect();
        assert!(waits.iter().all(|wait| *wait <= S));
        assert!(waits.iter().any(|wait| *wait < S / 10) && waits.iter().any(|wait| *wait > S * 9 / 10));
        let mean = waits.iter().sum::<Duration>() / 1000;
        assert!(mean > S * 45 / 100 && mean < S * 55 / 100, "{mean:?}");
    }

    #[test]
    fn success_starts_it_anew_and_a_seed_replays_it() {
        let mut backoff = Backoff::new(BackoffLimits::default(), 7);
        for _ in 0..20 {
            backoff.retry(None);
            backoff.hold(None);
        }
        backoff.reset();
        assert!(backoff.retry(None) <= S);
        assert!(backoff.hold(None) <= 15 * S);
        let waits = |seed| {
            let mut backoff = Backoff::new(BackoffLimits::default(), seed);
            [backoff.retry(None), backoff.retry(None), backoff.hold(None)]
        };
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }

    /// Requests a second after the gap has come down by so many accepted batches.
    fn rate_per_s(backoff: &mut Backoff, accepted: u32) -> f64 {
        (0..accepted).for_each(|_| backoff.accepted());
        1.0 / backoff.gap.as_secs_f64()
    }

    #[test]
    fn nothing_pauses_unless_less_was_asked_for() {
        let mut backoff = Backoff::new(BackoffLimits::default(), 7);
        for _ in 0..20 {
            backoff.retry(Some(S));
            backoff.hold(None);
            assert_eq!(backoff.pause(), Duration::ZERO);
        }
        backoff.accepted();
        assert_eq!(backoff.pause(), Duration::ZERO);
    }

    #[test]
    fn a_batch_doubles_the_gap_once_and_accepted_ones_add_to_the_rate() {
        let mut backoff = Backoff::new(BackoffLimits::default(), 7);
        for _ in 0..9 {
            backoff.limited(None);
            assert_eq!(backoff.gap, S, "however often it is refused");
        }
        let after_ten = rate_per_s(&mut backoff, 10);
        assert!((after_ten - 1.5).abs() < 1e-6, "{after_ten}");
        backoff.limited(None);
        let halved = rate_per_s(&mut backoff, 0);
        assert!((halved - after_ten / 2.0).abs() < 1e-6, "{halved}");
        for _ in 0..20 {
            backoff.reset();
            backoff.limited(None);
        }
        assert_eq!(backoff.gap, RETRY_MAX);
        // Alone at a destination that has recovered it is soon as fast as answers come.
        let mut backoff = Backoff::new(BackoffLimits::default(), 7);
        backoff.limited(None);
        let mut passed = Duration::ZERO;
        while !backoff.gap.is_zero() {
            passed += backoff.gap;
            backoff.accepted();
        }
        assert!(passed < 65 * S, "{passed:?}");
    }

    #[test]
    fn a_failure_on_the_way_counts_for_no_gap_but_the_first_limit_does() {
        let mut backoff = Backoff::new(BackoffLimits::default(), 7);
        backoff.retry(None);
        backoff.limited(None);
        assert_eq!(backoff.gap, S, "an outage came first");
        backoff.retry(None);
        assert_eq!(backoff.gap, S);
    }

    proptest! {
        #[test]
        fn every_wait_stays_within_its_bounds(
            seed: u64, asked_s in proptest::option::of(0_u64..=u64::MAX), steps in 0_u32..80,
        ) {
            let asked = asked_s.map(Duration::from_secs);
            let floor = asked.unwrap_or_default().min(RETRY_AFTER_MAX);
            let mut backoff = Backoff::new(BackoffLimits::default(), seed);
            for step in 0..=steps {
                let wait = backoff.retry(asked);
                prop_assert!(wait >= floor && wait <= floor + doubled(RETRY_BASE, RETRY_MAX, step));
                let hold = backoff.hold(asked);
                let longest = doubled(HOLD_BASE, HOLD_MAX, step);
                prop_assert!(hold >= floor.max(longest * 8 / 10) && hold <= floor.max(longest));
            }
        }

        #[test]
        fn every_pause_stays_around_its_gap(
            seed: u64, asked_s in proptest::option::of(0_u64..=u64::MAX), steps in proptest::collection::vec(0_u8..3, 0..80),
        ) {
            let asked = asked_s.map(Duration::from_secs);
            let floor = asked.unwrap_or_default().min(RETRY_AFTER_MAX);
            let mut backoff = Backoff::new(BackoffLimits::default(), seed);
            for step in steps {
                match step {
                    0 => backoff.accepted(),
                    1 => prop_assert!(backoff.limited(asked) >= floor.max(backoff.gap / 2)),
                    _ => prop_assert!(backoff.retry(asked) <= floor + RETRY_MAX),
                }
                let (gap, pause) = (backoff.gap, backoff.pause());
                prop_assert!(gap.is_zero() || (GAP_MIN..=RETRY_MAX).contains(&gap), "{gap:?}");
                prop_assert!(pause >= gap / 2 && pause <= gap * 3 / 2, "{pause:?} around {gap:?}");
            }
        }
    }
}
