//! Whether every request that HAProxy counted got an answer that it counted.
//!
//! HAProxy counts a request when it has read it, and its answer when it is through with it. Of the requests in a first reading at
//! most those under way have no answer in a second one, and no answer in the first is of a request that is not in the second:
//!
//! ```text
//! requests before - under way before - answers after  <=  unanswered  <=  requests after - answers before
//! ```
//!
//! A request that ends without an answer (its client left in time, or a connection was closed while it was being reused) stays
//! unanswered for good. It is the ledger of what never reached a web server, and so stands in none of its logs.

use super::{FORGIVEN_AFTER_MS, Range, Reconciliation, Track, clamped};
use crate::facts::{HaproxyFacts, HaproxyProcess, HaproxyTraffic};
use crate::record::EpochMs;

/// The comparison of HAProxy's requests with its answers.
#[derive(Clone, Debug, Default)]
pub struct HaproxyReconciler {
    running: Option<Running>,
    unaccounted_past: i128,
}

#[derive(Clone, Debug)]
struct Running {
    since: EpochMs,
    differs_since: EpochMs,
    first: HaproxyTraffic,
    last: HaproxyTraffic,
    last_at: EpochMs,
    process: Option<HaproxyProcess>,
    track: Track,
}

impl HaproxyReconciler {
    /// One that has seen nothing.
    pub fn new() -> HaproxyReconciler {
        HaproxyReconciler::default()
    }

    /// Takes what the probe saw at one moment.
    pub fn take(&mut self, facts: &HaproxyFacts, at: EpochMs) {
        let Some(traffic) = facts.traffic else { return };
        match &mut self.running {
            Some(running) if !running.is_over(&traffic, facts.process) => {
                running.take(traffic, facts.process, at)
            }
            _ => self.begin(traffic, facts.process, at),
        }
        if let Some(running) = &self.running
            && running.track.missing() != 0
            && at - running.differs_since > FORGIVEN_AFTER_MS
        {
            self.begin(traffic, facts.process, at);
        }
    }

    /// Begins anew; what the running comparison found becomes a matter of the past.
    fn begin(&mut self, traffic: HaproxyTraffic, process: Option<HaproxyProcess>, at: EpochMs) {
        self.unaccounted_past += self.running.as_ref().map_or(0, |running| running.track.missing());
        self.running = Some(Running {
            since: at,
            differs_since: at,
            first: traffic,
            last: traffic,
            last_at: at,
            process,
            track: Track::new(range_of(&traffic)),
        });
    }

    /// The comparison as it stands.
    pub fn reconciliation(&self) -> Option<Reconciliation> {
        let running = self.running.as_ref()?;
        let missing = running.track.missing();
        let counted = running.last.before.answers - running.first.before.answers;
        let range = range_of(&running.last);
        let width = range.end() - range.start();
        let reported = range.end() - running.track.base.end() + i128::from(counted);
        Some(Reconciliation {
            with: "haproxy",
            counted,
            reported: u64::try_from(reported).unwrap_or(0),
            verdict: running.track.verdict(width),
            unaccounted: clamped(missing),
            unaccounted_total: clamped(self.unaccounted_past + missing),
            bracket: u64::try_from(width).unwrap_or(u64::MAX),
            cause: if missing == 0 { String::new() } else { running.cause(missing) },
            as_of: running.last_at,
            since: running.since,
        })
    }
}

/// The numbers of unanswered requests that one pair of readings leaves possible.
fn range_of(traffic: &HaproxyTraffic) -> Range {
    let (before, after) = (traffic.before, traffic.after);
    let low = i128::from(before.requests) - i128::from(before.under_way) - i128::from(after.answers);
    let high = i128::from(after.requests) - i128::from(before.answers);
    low.min(high)..=high
}

impl Running {
    /// Whether the counters began anew: in a reload another process answers, and `clear counters` sets them to zero.
    fn is_over(&self, traffic: &HaproxyTraffic, process: Option<HaproxyProcess>) -> bool {
        let is_other = match (self.process, process) {
            (Some(known), Some(now)) => known.pid != now.pid || now.uptime_s < known.uptime_s,
            _ => false,
        };
        let falls = |earlier: u64, later: u64| later < earlier;
        is_other
            || falls(self.last.after.requests, traffic.before.requests)
            || falls(self.last.after.answers, traffic.before.answers)
            || falls(traffic.before.requests, traffic.after.requests)
    }

    fn take(&mut self, traffic: HaproxyTraffic, process: Option<HaproxyProcess>, at: EpochMs) {
        if self.track.take(&range_of(&traffic)) {
            self.differs_since = at;
        }
        self.process = process.or(self.process);
        (self.last, self.last_at) = (traffic, at);
    }

    /// Why requests may have no answer.
    fn cause(&self, missing: i128) -> String {
        if missing < 0 {
            return "counters of some frontends were cleared".to_owned();
        }
        let mut causes = Vec::new();
        for (who, first, last) in [
            ("clients", self.first.client_aborts, self.last.client_aborts),
            ("servers", self.first.server_aborts, self.last.server_aborts),
        ] {
            if last > first {
                causes.push(format!("{who} gave up {} transfers", last - first));
            }
        }
        causes.push(
            "a client left, or closed a connection that was being reused, before its answer".to_owned(),
        );
        if let Some(process) = self.process.filter(|process| process.dropped_logs > 0) {
            causes.push(format!("HAProxy also dropped {} log lines", process.dropped_logs));
        }
        causes.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Verdict;
    use super::*;
    use crate::facts::HaproxyCounts;

    /// HAProxy, as far as its counters tell.
    #[derive(Clone, Debug, Default)]
    struct World {
        requests: u64,
        under_way: u64,
        answers: u64,
        dropped_logs: u64,
        pid: u64,
        now: EpochMs,
        reconciler: HaproxyReconciler,
    }

    impl World {
        fn serve(&mut self, begun: u64, ended: u64) {
            self.requests += begun;
            self.under_way = self.under_way + begun - ended;
            self.answers += ended;
        }

        fn counts(&self) -> HaproxyCounts {
            HaproxyCounts { requests: self.requests, answers: self.answers, under_way: self.under_way }
        }

        /// Two readings, with what is served between them.
        fn compare(&mut self, begun: u64, ended: u64) -> Reconciliation {
            let before = self.counts();
            self.serve(begun, ended);
            let traffic = HaproxyTraffic { before, after: self.counts(), ..HaproxyTraffic::default() };
            self.now += 5_000;
            let process = HaproxyProcess { pid: self.pid, uptime_s: 7, dropped_logs: self.dropped_logs };
            let facts =
                HaproxyFacts { traffic: Some(traffic), process: Some(process), ..HaproxyFacts::default() };
            self.reconciler.take(&facts, self.now);
            self.reconciler.reconciliation().expect("it was fed")
        }
    }

    #[test]
    fn answers_of_all_requests_are_equal_and_one_without_is_numbered() {
        let mut world = World { requests: 90, answers: 88, ..World::default() };
        assert_eq!(world.compare(0, 0).verdict, Verdict::Equal, "what was before is not known");
        world.serve(500, 499);
        assert_eq!(world.compare(0, 0).verdict, Verdict::WithinBracket);
        world.serve(0, 1);
        let found = world.compare(0, 0);
        assert_eq!((found.verdict, found.counted, found.reported), (Verdict::Equal, 500, 500));
        world.serve(20, 20);
        (world.answers, world.dropped_logs) = (world.answers - 3, 4);
        world.compare(0, 0);
        let found = world.compare(0, 0);
        assert_eq!((found.verdict, found.unaccounted), (Verdict::Unaccounted, 3));
        assert!(found.cause.contains("dropped 4 log lines"), "{}", found.cause);
    }

    #[test]
    fn a_reload_and_cleared_counters_begin_anew() {
        let mut world = World { requests: 70, answers: 70, ..World::default() };
        world.compare(0, 0);
        (world.pid, world.requests, world.answers) = (1, 100, 0);
        world.compare(0, 0);
        assert_eq!(world.compare(0, 0).verdict, Verdict::Equal, "another process, whatever its counts");
        (world.requests, world.answers) = (0, 0);
        world.compare(0, 0);
        world.serve(9, 9);
        let found = world.compare(0, 0);
        assert_eq!((found.verdict, found.counted, found.unaccounted_total), (Verdict::Equal, 9, 0));
    }

    #[test]
    fn what_stays_the_same_becomes_a_matter_of_the_past() {
        let mut world = World::default();
        world.compare(0, 0);
        world.serve(5, 5);
        world.answers -= 2;
        world.compare(0, 0);
        assert_eq!(world.compare(0, 0).unaccounted, 2);
        world.now += FORGIVEN_AFTER_MS;
        let found = world.compare(0, 0);
        assert_eq!((found.verdict, found.unaccounted, found.unaccounted_total), (Verdict::Equal, 0, 2));
    }

    proptest! {
        /// Whatever is under way and whenever it is read: no alarm without a request that got no answer, and none missed.
        #[test]
        fn no_alarm_while_all_are_answered_and_every_lost_answer_is_numbered(
            steps in proptest::collection::vec((0..90u64, 0..90u64, 0..9u64, 0..9u64), 1..60),
            lost in 1..50u64,
        ) {
            let mut world = World::default();
            for (begun, ended, begun_between, ended_between) in steps {
                world.serve(begun, ended.min(world.under_way + begun));
                let found = world.compare(begun_between, ended_between.min(world.under_way + begun_between));
                prop_assert_ne!(found.verdict, Verdict::Unaccounted, "{:?}", found);
            }
            world.serve(0, world.under_way);
            prop_assert_eq!(world.compare(0, 0).verdict, Verdict::Equal);
            world.serve(lost, lost);
            world.answers -= lost;
            world.compare(0, 0);
            let found = world.compare(0, 0);
            prop_assert_eq!((found.verdict, found.unaccounted), (Verdict::Unaccounted, lost as i64));
        }
    }
}
