//! A fleet of agents and one receiver with a limit, through an outage, in virtual time.
//!
//! The agents decide with the sender's own code (`decide`, `Backoff`) or, for comparison, as `strategy.rs` says.
//! Owns the network, the receiver and the queue of events, and nothing else. It must never read a clock or draw from
//! anything but its seed: the same scenario gives the same run, bit for bit.

pub(crate) mod measure;
pub(crate) mod strategy;
mod wheel;

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use watchpost::ship::{Answer, classify};

use self::measure::Measured;
use self::strategy::{Strategy, Waits};
use self::wheel::Wheel;

/// In each so many milliseconds an agent makes [`BATCHES_PER_CYCLE`] batches, with the settings as they are shipped.
const CYCLE_MS: u64 = 10_000;
/// Two batches of lines (`WATCHPOST_FLUSH_INTERVAL`), one of summaries and one of host samples.
const BATCHES_PER_CYCLE: u64 = 4;
/// The second batch of lines of a cycle comes so long after the first.
const FLUSH_MS: u64 = 5_000;
/// Batches a second of one agent while all is well.
pub(crate) const STEADY_PER_S: f64 = BATCHES_PER_CYCLE as f64 * 1_000.0 / CYCLE_MS as f64;
/// A second of the log is complete so long after it: the least lateness of a log.
const LATENESS_MS: u64 = 1_000;
/// The pipeline looks that often while lines come in, so closings spread over so much.
const TICK_MS: u64 = 200;

/// From one request to the next of the same agent when nothing is waited for: the way there and back, the verdict made
/// durable, the next batch offered. Drawn anew each time.
const TURN_MS: RangeInclusive<u64> = 40..=80;
/// From a batch that is ready to the receiver.
const WAY_MS: u64 = 20;
/// How long a connection is tried that nobody answers: `CONNECT_TIMEOUT` of the sender.
const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// Steady state before the outage.
pub(crate) const OUTAGE_AT_MS: u64 = 60_000;
/// What is shown after the last spool was drained.
const AFTERWARDS_MS: u64 = 120_000;
/// A fleet that is not drained by then has collapsed.
const RUN_MS_MAX: u64 = 12 * 3_600_000;
/// The span over which fairness is measured, from the return on.
pub(crate) const EARLY_MS: u64 = 300_000;

/// What the receiver does during the outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// Connections are refused at once.
    Refuses,
    /// Nobody answers.
    TimesOut,
}

/// How the receiver limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// So many requests a second, with room for one second's.
    PerSecond,
    /// A quota for each minute: what is not used is gone, and what is above is refused until the minute ends.
    PerMinute,
}

/// When agents close their batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phases {
    /// Each agent at a moment of its own.
    Spread,
    /// Summaries, and the lines before them, when an interval of the wall clock ends: everywhere at once.
    Aligned,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// How many agents there are.
    pub(crate) agents: u32,
    /// Accepted requests a second, in multiples of the fleet's steady state.
    pub(crate) capacity: f64,
    /// How it limits.
    pub(crate) limit: Limit,
    /// What is sent with a 429.
    pub(crate) retry_after: Option<Duration>,
    /// What a refusal costs the receiver, as a share of a request that is accepted.
    pub(crate) refusal_cost: f64,
    /// What it does during the outage.
    pub(crate) down: Down,
    /// How long that lasts.
    pub(crate) outage: Duration,
    /// When batches are closed.
    pub(crate) phases: Phases,
    /// How long agents wait.
    pub(crate) strategy: Strategy,
    /// Decides everything that is drawn.
    pub(crate) seed: u64,
}

impl Scenario {
    /// An hour without a receiver that takes twice the steady state afterwards.
    pub(crate) fn new(agents: u32, strategy: Strategy) -> Scenario {
        Scenario {
            agents,
            capacity: 2.0,
            limit: Limit::PerSecond,
            retry_after: None,
            refusal_cost: 0.0,
            down: Down::Refuses,
            outage: Duration::from_secs(3_600),
            phases: Phases::Spread,
            strategy,
            seed: 1,
        }
    }

    /// When the receiver is there again.
    pub(crate) fn return_ms(&self) -> u64 {
        OUTAGE_AT_MS + u64::try_from(self.outage.as_millis()).expect("an outage is no age")
    }

    /// Runs it.
    pub(crate) fn run(&self) -> Measured {
        Fleet::new(self).run()
    }
}

/// One agent: what it still has to send follows from the clock and from how much it has sent.
#[repr(align(64))] // Lines of the cache: a fleet of a hundred thousand fits no near one.
struct Agent {
    waits: Waits,
    /// When in a cycle its batches become ready, in order.
    ready_ms: [u16; BATCHES_PER_CYCLE as usize],
    delivered: u32,
    drained: bool,
}

impl Agent {
    fn new(scenario: &Scenario, number: u32, random: &mut Rng) -> Agent {
        let lines = match scenario.phases {
            Phases::Spread => random.u64(0..CYCLE_MS),
            Phases::Aligned => LATENESS_MS + random.u64(0..TICK_MS),
        };
        let host = random.u64(0..CYCLE_MS);
        let mut ready = [lines, lines, lines + FLUSH_MS, host].map(|at| (at % CYCLE_MS) as u16);
        ready.sort_unstable();
        // Neighbouring seeds must not give neighbouring agents.
        let seed = random.u64(..) ^ u64::from(number);
        let waits = Waits::new(scenario.strategy, seed);
        Agent { waits, ready_ms: ready, delivered: 0, drained: false }
    }

    /// When its oldest batch is, or will be, ready.
    fn next_ready_ms(&self) -> u64 {
        let number = u64::from(self.delivered);
        let in_cycle = self.ready_ms[(number % BATCHES_PER_CYCLE) as usize];
        number / BATCHES_PER_CYCLE * CYCLE_MS + u64::from(in_cycle)
    }
}

/// What the receiver may still accept.
struct Bucket {
    limit: Limit,
    per_ms: f64,
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    /// The span of a quota.
    const MINUTE_MS: u64 = 60_000;
    /// The room of a limit a second.
    const BURST_MS: f64 = 1_000.0;

    fn new(limit: Limit, per_ms: f64) -> Bucket {
        let tokens = match limit {
            Limit::PerSecond => per_ms * Bucket::BURST_MS,
            Limit::PerMinute => per_ms * Bucket::MINUTE_MS as f64,
        };
        Bucket { limit, per_ms, tokens, at_ms: 0 }
    }

    fn move_to(&mut self, now_ms: u64) {
        match self.limit {
            Limit::PerSecond => {
                let more = (now_ms - self.at_ms) as f64 * self.per_ms;
                self.tokens = (self.tokens + more).min(self.per_ms * Bucket::BURST_MS);
            }
            Limit::PerMinute if now_ms / Bucket::MINUTE_MS > self.at_ms / Bucket::MINUTE_MS => {
                self.tokens = self.per_ms * Bucket::MINUTE_MS as f64;
            }
            Limit::PerMinute => {}
        }
        self.at_ms = now_ms;
    }

    /// Whether one more request is accepted; one that is not may cost something too.
    fn take(&mut self, refusal_cost: f64) -> bool {
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return true;
        }
        self.tokens = (self.tokens - refusal_cost).max(-self.per_ms * Bucket::BURST_MS);
        false
    }
}

/// What the receiver and the network say, as the sender understands it.
struct Answers {
    accepted: Answer,
    limited: Answer,
    unreachable: Answer,
}

impl Answers {
    fn new(retry_after: Option<Duration>) -> Answers {
        let mut headers = HeaderMap::new();
        if let Some(asked) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(asked.as_secs()));
        }
        Answers {
            accepted: classify(200, &HeaderMap::new(), b"", SystemTime::UNIX_EPOCH),
            limited: classify(429, &headers, b"", SystemTime::UNIX_EPOCH),
            unreachable: Answer::Retry { message: "connect: refused".to_owned(), retry_after: None },
        }
    }
}

/// Everything of a run.
struct Fleet<'a> {
    scenario: &'a Scenario,
    random: Rng,
    agents: Vec<Agent>,
    wheel: Wheel,
    bucket: Bucket,
    answers: Answers,
    measured: Measured,
    /// Agents that have not yet been without a batch since the return.
    undrained: u32,
}

impl<'a> Fleet<'a> {
    fn new(scenario: &'a Scenario) -> Fleet<'a> {
        let mut random = Rng::with_seed(scenario.seed);
        let agents: Vec<Agent> =
            (0..scenario.agents).map(|number| Agent::new(scenario, number, &mut random)).collect();
        let mut wheel = Wheel::new(scenario.agents);
        for (number, agent) in (0_u32..).zip(&agents) {
            wheel.add(number, agent.next_ready_ms() + WAY_MS);
        }
        let per_ms = f64::from(scenario.agents) * STEADY_PER_S * scenario.capacity / 1_000.0;
        Fleet {
            scenario,
            random,
            undrained: scenario.agents,
            agents,
            wheel,
            bucket: Bucket::new(scenario.limit, per_ms),
            answers: Answers::new(scenario.retry_after),
            measured: Measured::new(scenario),
        }
    }

    fn run(mut self) -> Measured {
        let mut end_ms = RUN_MS_MAX;
        let mut due = Vec::new();
        while let Some(now_ms) = self.wheel.next(&mut due) {
            if now_ms >= end_ms {
                break;
            }
            // Within a millisecond anybody may be first.
            self.random.shuffle(&mut due);
            self.bucket.move_to(now_ms);
            self.fetch(&due);
            for agent in due.drain(..) {
                let next_ms = self.request(agent, now_ms);
                self.wheel.add(agent, next_ms);
            }
            if self.undrained == 0 && end_ms == RUN_MS_MAX {
                end_ms = now_ms + AFTERWARDS_MS;
            }
        }
        self.measured
    }

    /// Touches all that are up, so that the processor waits for their memory once and not for one after the other: a
    /// fleet of a hundred thousand fits no near cache.
    fn fetch(&self, due: &[u32]) {
        let touched = due.iter().fold(0, |sum, number| {
            let agent = &self.agents[*number as usize];
            sum ^ agent.delivered ^ u32::from(agent.waits.is_senders())
        });
        black_box(touched);
    }

    /// A request of an agent arrives, or fails to; when the next one of this agent does.
    fn request(&mut self, number: u32, now_ms: u64) -> u64 {
        let agent = &mut self.agents[number as usize];
        let return_ms = self.scenario.return_ms();
        let is_down = (OUTAGE_AT_MS..return_ms).contains(&now_ms);
        let mut turn_ms = self.random.u64(TURN_MS);
        let answer = if is_down {
            if self.scenario.down == Down::TimesOut {
                turn_ms += CONNECT_TIMEOUT_MS;
            }
            &self.answers.unreachable
        } else if self.bucket.take(self.scenario.refusal_cost) {
            &self.answers.accepted
        } else {
            &self.answers.limited
        };
        let (done, wait) = agent.waits.answered(answer);
        let again_ms = now_ms + turn_ms + wait.as_millis() as u64;
        self.measured.request(number, now_ms, !is_down, done);
        if !done {
            return again_ms;
        }
        agent.delivered += 1;
        let ready_ms = agent.next_ready_ms();
        if !agent.drained && now_ms >= return_ms && ready_ms > now_ms {
            agent.drained = true;
            self.undrained -= 1;
            self.measured.drained(now_ms);
        }
        again_ms.max(ready_ms + WAY_MS)
    }
}
