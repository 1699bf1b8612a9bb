//! Whether the lines that were counted are the requests that the server counted.
//!
//! nginx counts a request when it begins and writes its line when it ends. So of the requests before a count of the lines, at
//! most those under way are without a line; and no line can be of a request after it:
//!
//! ```text
//! requests before - under way  <=  lines + offset  <=  requests after
//! ```
//!
//! `offset` is what the two differ by from the start: one began before the other, or some locations write no log. It never
//! changes while every request gets its line. Each bracket gives a range for it; ranges that overlap agree. A range that lies
//! above all before has requests without a line, one below has lines without a request, and the distance is how many.
//!
//! Whether the agent's own requests are in the log is found out as well: both ways are tried, and only one keeps its offset.

mod haproxy;

use std::ops::RangeInclusive;

use serde::Serialize;

use crate::facts::{Bracket, Counted, Master, NginxFacts};
use crate::record::EpochMs;

pub use haproxy::HaproxyReconciler;

/// Brackets without a further difference after which a difference is a matter of the past: it stays in the total, and the
/// verdict speaks of what came since. A quarter of an hour or more.
const FORGIVEN_AFTER_MS: EpochMs = 15 * 60 * 1000;

/// Brackets in a row that must differ before it is said: the line of a request that was just answered may be a moment late.
const BRACKETS_TO_DIFFER: u32 = 2;

/// Own requests after which it is clear whether they are in the log.
const OWN_DECIDED_AT: u64 = 8;

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Every request has its line, to the last one.
    #[serde(rename = "equal")]
    Equal,
    /// The numbers are as near as requests that are under way let them be.
    #[serde(rename = "within bracket")]
    WithinBracket,
    /// Requests without a line, or lines without a request.
    #[serde(rename = "unaccounted")]
    Unaccounted,
}

impl Verdict {
    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::WithinBracket => "within bracket",
            Verdict::Unaccounted => "unaccounted",
        }
    }
}

/// One comparison, as `/status` shows it. What is said of lines is said of answers where HAProxy's requests are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// What the lines are compared with.
    pub with: &'static str,
    /// Lines counted since the comparison began.
    pub counted: u64,
    /// Requests that the server reports for the same time, without those that the comparison itself makes.
    pub reported: u64,
    /// What it came to.
    pub verdict: Verdict,
    /// Requests without a line; negative for lines without a request. At least so many, while requests are under way.
    pub unaccounted: i64,
    /// The same since the agent started, with what is past.
    pub unaccounted_total: i64,
    /// How far apart the numbers may be for the requests that are under way.
    pub bracket: u64,
    /// Why requests may lack their line, most likely first; empty where none does.
    pub cause: String,
    /// When it was found.
    pub as_of: EpochMs,
    /// Since when the two are compared: the agent's start or the server's.
    pub since: EpochMs,
}

/// What nginx's configuration says that can explain a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The main file of that configuration.
    pub configuration: String,
    /// Places in nginx's configuration with `access_log off`.
    pub unlogged_places: usize,
    /// Logs with `buffer=` and without `flush=`.
    pub buffered_logs: Vec<String>,
    /// Logs of nginx's that are not followed, each with the reason.
    pub unfollowed_logs: Vec<String>,
    /// Logs whose format has no time of the request; they explain nothing here, and are a finding of their own.
    pub untimed_logs: Vec<String>,
    /// Where the counters are shown to everybody, `*:80 /stub_status`; likewise.
    pub open_counters: Vec<String>,
}

/// A range of offsets, both ends in it.
type Range = RangeInclusive<i128>;

fn common(one: &Range, other: &Range) -> Option<Range> {
    let (low, high) = (*one.start().max(other.start()), *one.end().min(other.end()));
    (low <= high).then_some(low..=high)
}

/// The offsets that one way of counting own requests leaves possible.
#[derive(Clone, Debug)]
struct Track {
    /// Where it all began: the offsets that agree with every bracket until the first difference.
    base: Range,
    /// Those that agree with every bracket since the last difference.
    current: Range,
    /// Brackets in a row that differ from `base`.
    differing: u32,
}

impl Track {
    fn new(range: Range) -> Track {
        Track { base: range.clone(), current: range, differing: 0 }
    }

    /// What a bracket of this width comes to.
    fn verdict(&self, width: i128) -> Verdict {
        match self.missing() {
            0 if width == 0 && self.differing == 0 => Verdict::Equal,
            0 => Verdict::WithinBracket,
            _ => Verdict::Unaccounted,
        }
    }

    /// Takes one more range; whether it differs from those before.
    fn take(&mut self, range: &Range) -> bool {
        // Lines may only have been late; then the old offset is the right one again.
        if let Some(agreed) = common(&self.base, range) {
            (self.base, self.current, self.differing) = (agreed.clone(), agreed, 0);
            return false;
        }
        let agreed = common(&self.current, range);
        let is_new = agreed.is_none();
        self.current = agreed.unwrap_or_else(|| range.clone());
        self.differing += 1;
        is_new
    }

    /// Requests without a line, as few as can be; negative for lines without a request.
    fn missing(&self) -> i128 {
        if self.differing < BRACKETS_TO_DIFFER {
            return 0;
        }
        let (fewest, most) = (self.current.start() - self.base.end(), self.current.end() - self.base.start());
        if fewest > 0 { fewest } else { most.min(0) }
    }
}

/// The comparison of one server's counters with the lines of its logs.
#[derive(Clone, Debug, Default)]
pub struct NginxReconciler {
    running: Option<Running>,
    unaccounted_past: i128,
}

#[derive(Clone, Debug)]
struct Running {
    since: EpochMs,
    differs_since: EpochMs,
    first_counted: Counted,
    last: Bracket,
    last_at: EpochMs,
    master: Option<Master>,
    has_lost_worker: bool,
    own_at_start: u64,
    /// With own requests left out of the log.
    unlogged: Track,
    /// With own requests in the log; the two tell by and by which holds.
    logged: Track,
    own_are_logged: Option<bool>,
}

impl NginxReconciler {
    /// One that has seen nothing.
    pub fn new() -> NginxReconciler {
        NginxReconciler::default()
    }

    /// Takes what the probe saw at one moment.
    pub fn take(&mut self, facts: &NginxFacts, at: EpochMs) {
        let Some(bracket) = facts.bracket else { return };
        let has_restarted =
            self.running.as_ref().is_some_and(|running| running.is_over(&bracket, facts.master.as_ref()));
        match &mut self.running {
            Some(running) if !has_restarted => running.take(bracket, facts.master.as_ref(), at),
            _ => {
                self.settle();
                self.running = Some(Running::new(bracket, facts.master.clone(), at));
            }
        }
        if let Some(running) = &mut self.running
            && running.track().missing() != 0
            && at - running.differs_since > FORGIVEN_AFTER_MS
        {
            self.settle();
            self.running = Some(Running::new(bracket, facts.master.clone(), at));
        }
    }

    /// What the running comparison found becomes a matter of the past.
    fn settle(&mut self) {
        self.unaccounted_past += self.running.as_ref().map_or(0, |running| running.track().missing());
    }

    /// The comparison as it stands.
    pub fn reconciliation(&self, circumstances: &Circumstances) -> Option<Reconciliation> {
        let running = self.running.as_ref()?;
        let track = running.track();
        let missing = track.missing();
        let counted =
            running.last.counted.lines - running.first_counted.lines.min(running.last.counted.lines);
        let range = range_of(&running.last, running.counts_own());
        let width = range.end() - range.start();
        // What the requests come to once the offset of the start is taken off.
        let reported = range.end() - track.base.end() + i128::from(counted);
        Some(Reconciliation {
            with: "nginx stub_status",
            counted,
            reported: u64::try_from(reported).unwrap_or(0),
            verdict: track.verdict(width),
            unaccounted: clamped(missing),
            unaccounted_total: clamped(self.unaccounted_past + missing),
            bracket: u64::try_from(width).unwrap_or(u64::MAX),
            cause: if missing == 0 { String::new() } else { running.cause(missing, circumstances) },
            as_of: running.last_at,
            since: running.since,
        })
    }
}

/// The offsets that one bracket leaves possible.
fn range_of(bracket: &Bracket, own_are_logged: bool) -> Range {
    let Bracket { before, counted, after, own_requests } = *bracket;
    // The request that read `before` is one of those that are written; it was answered, so its line stands.
    let under_way = i128::from(before.reading) + i128::from(before.writing.saturating_sub(1));
    // Where own requests are logged they are like any other, but that of `after` has come later than the count.
    let own = if own_are_logged { 0 } else { i128::from(own_requests) };
    let lines = i128::from(counted.lines);
    let low = i128::from(before.requests) - own - under_way - lines;
    let high = i128::from(after.requests) - 1 - own - lines;
    low.min(high)..=high
}

fn clamped(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl Running {
    fn new(bracket: Bracket, master: Option<Master>, at: EpochMs) -> Running {
        Running {
            since: at,
            differs_since: at,
            first_counted: bracket.counted,
            last: bracket,
            last_at: at,
            master,
            has_lost_worker: false,
            own_at_start: bracket.own_requests,
            unlogged: Track::new(range_of(&bracket, false)),
            logged: Track::new(range_of(&bracket, true)),
            own_are_logged: None,
        }
    }

    /// Whether the counters began anew, so that there is nothing left to compare with.
    fn is_over(&self, bracket: &Bracket, master: Option<&Master>) -> bool {
        let is_other = match (&self.master, master) {
            (Some(known), Some(now)) => (known.pid, known.started_ticks) != (now.pid, now.started_ticks),
            _ => false,
        };
        is_other
            || bracket.before.requests < self.last.after.requests
            || bracket.after.requests < bracket.before.requests
    }

    fn take(&mut self, bracket: Bracket, master: Option<&Master>, at: EpochMs) {
        let unlogged_range = range_of(&bracket, false);
        let logged_range = range_of(&bracket, true);
        let unlogged_differs = self.unlogged.take(&unlogged_range);
        let logged_differs = self.logged.take(&logged_range);
        self.decide(&bracket);
        let differs = if self.counts_own() { logged_differs } else { unlogged_differs };
        if differs {
            self.differs_since = at;
        }
        if let (Some(known), Some(now)) = (&self.master, master) {
            let is_gone = |pid: &u32| now.workers.binary_search(pid).is_err();
            self.has_lost_worker |= !now.workers.is_empty() && known.workers.iter().any(is_gone);
        }
        self.master = master.cloned().or_else(|| self.master.take());
        self.last = bracket;
        self.last_at = at;
    }

    /// Own requests are in the log or not, for good, once there were enough of them to tell.
    fn decide(&mut self, bracket: &Bracket) {
        let own = bracket.own_requests - self.own_at_start.min(bracket.own_requests);
        if self.own_are_logged.is_none() && own >= OWN_DECIDED_AT {
            self.own_are_logged = match (self.unlogged.differing, self.logged.differing) {
                (0, 0) => None,
                (0, _) => Some(false),
                (_, 0) => Some(true),
                _ => Some(self.logged.missing().abs() < self.unlogged.missing().abs()),
            };
        }
    }

    /// Whether own requests are in the log, or likelier so.
    fn counts_own(&self) -> bool {
        self.own_are_logged.unwrap_or(self.logged.differing < self.unlogged.differing)
    }

    /// The track that holds.
    fn track(&self) -> &Track {
        if self.counts_own() { &self.logged } else { &self.unlogged }
    }

    /// Why requests may have no line.
    fn cause(&self, missing: i128, circumstances: &Circumstances) -> String {
        if missing < 0 {
            return "a log is written by more than this nginx, or a request is logged more than once"
                .to_owned();
        }
        let lost_lines = self.last.counted.lost_lines.saturating_sub(self.first_counted.lost_lines);
        let lost_bytes = self.last.counted.lost_bytes.saturating_sub(self.first_counted.lost_bytes);
        let mut causes = Vec::new();
        if lost_bytes > 0 {
            causes.push(format!(
                "a log was truncated or removed before it was read: {lost_bytes} bytes, at least {lost_lines} lines (ledger.lost)"
            ));
        }
        let rewrites = self.last.counted.rewrites.saturating_sub(self.first_counted.rewrites);
        if rewrites > 0 {
            causes.push(format!(
                "a log was truncated {rewrites} times: what is written between a copy and its truncation stands in no file"
            ));
        }
        if !circumstances.buffered_logs.is_empty() {
            causes.push(format!(
                "lines wait in nginx's buffer: {} has buffer= without flush=",
                circumstances.buffered_logs.join(", ")
            ));
        }
        if self.has_lost_worker {
            causes.push("workers of nginx ended, in a reload or killed: one that is killed takes the lines of its buffer with it".to_owned());
        }
        if !circumstances.unfollowed_logs.is_empty() {
            causes.push(format!("a log that is not followed: {}", circumstances.unfollowed_logs.join(", ")));
        }
        if circumstances.unlogged_places > 0 {
            causes.push(format!(
                "requests that nginx is told not to log: access_log off stands in {} places",
                circumstances.unlogged_places
            ));
        }
        if causes.is_empty() {
            causes.push(
                "a log was copied and truncated between two looks, or a log is not followed".to_owned(),
            );
        }
        causes.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::NginxCounters;

    /// nginx and its log, as far as a comparison sees them.
    #[derive(Clone, Debug, Default)]
    struct World {
        requests: u64,
        under_way: u64,
        lines: u64,
        own: u64,
        own_are_logged: bool,
        late: u64,
        now: EpochMs,
        reconciler: NginxReconciler,
    }

    impl World {
        fn new(own_are_logged: bool) -> World {
            World { requests: 1_000, lines: 77, own_are_logged, ..World::default() }
        }

        /// Requests that begin, and how many of those under way end.
        fn serve(&mut self, begun: u64, ended: u64) {
            self.requests += begun;
            self.under_way = self.under_way + begun - ended;
            self.lines += ended;
        }

        fn ask(&mut self) -> NginxCounters {
            self.requests += 1;
            self.own += 1;
            let counters = NginxCounters {
                requests: self.requests,
                writing: self.under_way + 1,
                ..NginxCounters::default()
            };
            self.lines += u64::from(self.own_are_logged);
            counters
        }

        /// One bracket, with what is served before and behind the count.
        fn compare(&mut self, between: [(u64, u64); 2]) -> Reconciliation {
            let before = self.ask();
            let own_requests = self.own;
            self.serve(between[0].0, between[0].1);
            let counted = Counted { lines: self.lines - self.late, ..Counted::default() };
            self.serve(between[1].0, between[1].1);
            let after = self.ask();
            self.now += 1_000;
            let bracket = Some(Bracket { before, counted, after, own_requests });
            let facts = NginxFacts { url: String::new(), bracket, master: None, asked_from_outside: None };
            self.reconciler.take(&facts, self.now);
            self.reconciler.reconciliation(&Circumstances::default()).expect("it was fed")
        }

        fn idle(&mut self, brackets: u32) -> Reconciliation {
            (0..brackets).map(|_| self.compare([(0, 0); 2])).last().expect("one bracket or more")
        }
    }

    #[test]
    fn a_quiet_server_is_equal_whether_own_requests_are_logged_or_not() {
        for own_are_logged in [false, true] {
            let mut world = World::new(own_are_logged);
            for _ in 0..40 {
                assert_eq!(world.idle(1).verdict, Verdict::Equal);
            }
            world.serve(500, 500);
            let found = world.idle(1);
            assert_eq!((found.verdict, found.unaccounted), (Verdict::Equal, 0));
            let own = if own_are_logged { 2 * 40 } else { 0 };
            assert_eq!((found.counted, found.reported), (500 + own, 500 + own));
        }
    }

    #[test]
    fn requests_under_way_leave_room_and_nothing_more() {
        let mut world = World::new(false);
        world.idle(1);
        world.serve(10, 7);
        let found = world.compare([(5, 4), (3, 3)]);
        assert_eq!((found.verdict, found.bracket), (Verdict::WithinBracket, 3 + 8));
        world.serve(0, world.under_way);
        assert_eq!(world.idle(1).verdict, Verdict::Equal);
    }

    #[test]
    fn lines_that_are_gone_are_numbered_exactly_once_it_is_quiet() {
        let mut world = World::new(false);
        world.idle(5);
        world.serve(1_000, 1_000);
        world.lines -= 443;
        world.compare([(9, 5), (4, 2)]);
        let found = world.compare([(9, 5), (4, 2)]);
        assert_eq!(found.verdict, Verdict::Unaccounted);
        assert!((400..=443).contains(&found.unaccounted), "{found:?}");
        world.serve(0, world.under_way);
        let found = world.idle(2);
        assert_eq!((found.verdict, found.unaccounted), (Verdict::Unaccounted, 443));
        assert!(found.cause.contains("copied and truncated"), "{}", found.cause);
    }

    #[test]
    fn lines_that_were_only_late_are_forgiven_at_once() {
        let mut world = World::new(false);
        world.idle(5);
        world.serve(30, 30);
        world.late = 30;
        assert_eq!(world.idle(1).verdict, Verdict::WithinBracket);
        assert_eq!(world.idle(1).verdict, Verdict::Unaccounted);
        world.late = 0;
        let found = world.idle(1);
        assert_eq!((found.verdict, found.unaccounted_total), (Verdict::Equal, 0));
    }

    #[test]
    fn a_difference_without_growth_becomes_a_matter_of_the_past() {
        let mut world = World::new(false);
        world.idle(10);
        world.lines -= 5;
        assert_eq!(world.idle(2).unaccounted, 5);
        world.now += FORGIVEN_AFTER_MS;
        let found = world.idle(2);
        assert_eq!((found.verdict, found.unaccounted, found.unaccounted_total), (Verdict::Equal, 0, 5));
    }

    #[test]
    fn a_restart_of_the_server_begins_anew() {
        let mut world = World::new(false);
        world.idle(3);
        (world.requests, world.under_way) = (0, 0);
        assert_eq!(world.idle(1).verdict, Verdict::Equal);
        world.serve(50, 50);
        let found = world.idle(1);
        assert_eq!((found.verdict, found.counted, found.reported), (Verdict::Equal, 50, 50));
    }

    #[test]
    fn more_lines_than_requests_are_said_too() {
        let mut world = World::new(false);
        world.idle(10);
        world.lines += 12;
        let found = world.idle(2);
        assert_eq!((found.verdict, found.unaccounted), (Verdict::Unaccounted, -12));
        assert!(found.cause.contains("more than once"), "{}", found.cause);
    }

    proptest! {
        /// Whatever comes and goes, and whenever the lines are counted: no alarm without a loss, and a loss is found.
        #[test]
        fn no_alarm_without_a_loss_and_none_missed(
            own_are_logged: bool,
            steps in proptest::collection::vec((0..40u64, 0..40u64, 0..9u64, 0..9u64, 0..9u64, 0..9u64), 1..60),
            lost in 1..50u64,
        ) {
            let mut world = World::new(own_are_logged);
            let bounded = |world: &World, begun: u64, ended: u64| (begun, ended.min(world.under_way + begun));
            for (begun, ended, a, b, c, d) in steps {
                let (begun, ended) = bounded(&world, begun, ended);
                world.serve(begun, ended);
                let first = bounded(&world, a, b);
                let mut there = world.clone();
                there.serve(first.0, first.1);
                let second = bounded(&there, c, d);
                let found = world.compare([first, second]);
                prop_assert_ne!(found.verdict, Verdict::Unaccounted, "{:?}", found);
            }
            world.serve(0, world.under_way);
            prop_assert_eq!(world.idle(8).verdict, Verdict::Equal);
            world.serve(lost, lost);
            world.lines -= lost;
            let found = world.idle(2);
            prop_assert_eq!((found.verdict, found.unaccounted), (Verdict::Unaccounted, lost as i64));
        }
    }
}
