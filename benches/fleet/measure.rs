//! What is told of a run: the receiver's load by the second, and how the agents fared.

use super::{EARLY_MS, OUTAGE_AT_MS, STEADY_PER_S, Scenario};

/// From here on every agent has made batches.
const SETTLED_AFTER_S: usize = 20;

/// The counts of one run.
pub(crate) struct Measured {
    agents: u32,
    capacity: f64,
    outage_s: f64,
    return_ms: u64,
    /// Requests that reached the receiver, by the second from the beginning.
    pub(crate) requests: Vec<u32>,
    /// Those of them that it accepted.
    pub(crate) accepted: Vec<u32>,
    /// Batches accepted of each agent in the first minutes after the return.
    early: Vec<u32>,
    /// Milliseconds from the return until each agent had nothing left, in order.
    drained_ms: Vec<u64>,
}

impl Measured {
    pub(super) fn new(scenario: &Scenario) -> Measured {
        Measured {
            agents: scenario.agents,
            capacity: scenario.capacity,
            outage_s: scenario.outage.as_secs_f64(),
            return_ms: scenario.return_ms(),
            requests: Vec::new(),
            accepted: Vec::new(),
            early: vec![0; scenario.agents as usize],
            drained_ms: Vec::new(),
        }
    }

    pub(super) fn request(&mut self, agent: u32, now_ms: u64, reached: bool, accepted: bool) {
        let second = (now_ms / 1_000) as usize;
        if self.requests.len() <= second {
            self.requests.resize(second + 1, 0);
            self.accepted.resize(second + 1, 0);
        }
        self.requests[second] += u32::from(reached);
        self.accepted[second] += u32::from(accepted);
        if accepted && (self.return_ms..self.return_ms + EARLY_MS).contains(&now_ms) {
            self.early[agent as usize] += 1;
        }
    }

    pub(super) fn drained(&mut self, now_ms: u64) {
        self.drained_ms.push(now_ms - self.return_ms);
    }

    /// Requests a second of the whole fleet while all is well.
    pub(crate) fn steady(&self) -> f64 {
        f64::from(self.agents) * STEADY_PER_S
    }

    /// Seconds after the return when this share of the agents was drained; `None` if it never was.
    pub(crate) fn drained_s(&self, share: f64) -> Option<f64> {
        let count = (f64::from(self.agents) * share).ceil() as usize;
        let last = self.drained_ms.get(count.saturating_sub(1))?;
        Some(*last as f64 / 1_000.0)
    }

    /// The seconds from the return until the last agent was drained, or until the end.
    fn drain(&self, seconds: &[u32]) -> Vec<f64> {
        let count = self.drained_s(1.0).map_or(usize::MAX, |last| last.ceil() as usize);
        seconds.iter().skip(self.return_s()).take(count).map(|count| f64::from(*count)).collect()
    }

    /// The second of the return.
    pub(crate) fn return_s(&self) -> usize {
        (self.return_ms / 1_000) as usize
    }

    /// The least time in which a receiver of this capacity can take what was held beside what comes in.
    pub(crate) fn least_drain_s(&self) -> f64 {
        self.outage_s / (self.capacity - 1.0)
    }

    /// The greatest load of a second in the drain, against the mean of the drain.
    pub(crate) fn peak_over_mean(&self) -> f64 {
        peak_over(&self.drain(&self.requests), None)
    }

    /// The greatest load of a second in the drain, against the steady state.
    pub(crate) fn peak_over_steady(&self) -> f64 {
        peak_over(&self.drain(&self.requests), Some(self.steady()))
    }

    /// The greatest load of a second before the outage, against the mean of that time.
    pub(crate) fn peak_before(&self) -> f64 {
        let outage_s = (OUTAGE_AT_MS / 1_000) as usize;
        let before = &self.requests[SETTLED_AFTER_S..outage_s];
        peak_over(&before.iter().map(|count| f64::from(*count)).collect::<Vec<_>>(), None)
    }

    /// The share of the requests of the drain that were refused.
    pub(crate) fn refused(&self) -> f64 {
        let sum = |seconds| self.drain(seconds).iter().sum::<f64>();
        1.0 - sum(&self.accepted) / sum(&self.requests)
    }

    /// Jain's index of the batches that each agent delivered in the first minutes: 1 where all delivered as many, and
    /// 1/n where one delivered all.
    pub(crate) fn fairness(&self) -> f64 {
        let sum: f64 = self.early.iter().map(|count| f64::from(*count)).sum();
        let squares: f64 = self.early.iter().map(|count| f64::from(*count).powi(2)).sum();
        sum * sum / (squares * self.early.len() as f64)
    }
}

/// The greatest of these against their mean, or against what is given.
fn peak_over(seconds: &[f64], base: Option<f64>) -> f64 {
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
    seconds.iter().copied().fold(0.0, f64::max) / base.unwrap_or(mean)
}
