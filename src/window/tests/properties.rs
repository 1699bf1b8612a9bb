//! Random traffic, random lateness, random kills: rates equal the oracle and nothing is lost.

use super::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// One tick of the agent.
#[derive(Clone, Debug)]
struct Tick {
    passed_ms: i64,
    /// Milliseconds of lateness, status, vhost.
    lines: Vec<(i64, u16, u8)>,
    unparsed: u8,
    caught_up: bool,
    commit: bool,
    /// Die at the end of this tick and start from the last commit.
    kill: bool,
}

fn ticks() -> impl Strategy<Value = Vec<Tick>> {
    let lateness = prop_oneof![6 => 0i64..1_500, 2 => 0i64..20_000, 1 => 0i64..1_200_000];
    let status = prop::sample::select(vec![0u16, 101, 200, 200, 200, 304, 404, 499, 500, 502, 999]);
    let passed = prop_oneof![8 => 100i64..1_500, 1 => 0i64..60_000, 1 => 0i64..1_500_000];
    let lines = prop::collection::vec((lateness, status, any::<u8>()), 0..30);
    let tick = (passed, lines, 0u8..3, prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(passed_ms, lines, unparsed, caught_up, commit, kill)| Tick {
            passed_ms,
            lines,
            unparsed,
            caught_up,
            commit,
            kill,
        });
    prop::collection::vec(tick, 1..60)
}

const OPTIONS: Options = Options { summary_interval_s: 10, vhosts_max: 5, routes_max: 3 };

/// The agent, the disk and what the oracle knows: all of it goes back together on a kill, as the
/// positions of the lines are in the same commit.
struct Run {
    windows: Windows,
    disk: Disk,
    raw: Vec<(i64, u16)>,
    unparsed: u64,
    shipped: Shipped,
    committed: (usize, u64, Shipped, Option<WebView>),
    drop_late: bool,
}

impl Run {
    fn new(drop_late: bool) -> Run {
        let mut windows = Windows::new(OPTIONS, T0_S * 1000);
        windows.gap(T0_S * 1000);
        Run {
            windows,
            disk: Disk::new(),
            raw: Vec::new(),
            unparsed: 0,
            shipped: Shipped::default(),
            committed: (0, 0, Shipped::default(), None),
            drop_late,
        }
    }

    fn tick(&mut self, now: EpochMs, tick: &Tick) -> Result<(), String> {
        for (late_ms, status, vhost) in &tick.lines {
            let time = now - late_ms;
            self.raw.push((time / 1000, *status));
            let late = self.windows.watermark.second.is_some_and(|second| time / 1000 < second);
            if late && self.drop_late {
                continue;
            }
            // Some names are busy, many come once.
            let name = if *vhost < 128 { format!("v{}", vhost % 4) } else { format!("once{vhost}") };
            let line = Request { vhost: Some(name.as_bytes()), ..request(time, *status) };
            self.windows.observe(1, now, &line);
        }
        for _ in 0..tick.unparsed {
            self.windows.observe_unparsed(now);
            self.unparsed += 1;
        }
        self.windows.advance(now, &[FileProgress { file: 1, caught_up: tick.caught_up }]);
        self.shipped.take(&self.windows.close_summaries(false));
        self.check()?;
        if tick.commit {
            commit(&mut self.windows, &mut self.disk);
            let view = self.windows.view();
            self.committed = (self.raw.len(), self.unparsed, self.shipped.clone(), Some(view));
        }
        if tick.kill {
            self.kill(now);
        }
        Ok(())
    }

    fn kill(&mut self, now: EpochMs) {
        let (lines, unparsed, shipped, view) = self.committed.clone();
        self.raw.truncate(lines);
        (self.unparsed, self.shipped) = (unparsed, shipped);
        self.windows = reborn(OPTIONS, &self.disk, now);
        match view {
            // What may still be behind is not durable: the files say it at the next tick.
            Some(view) => assert_eq!(without_complete(self.windows.view()), without_complete(view)),
            None => self.windows.gap(T0_S * 1000),
        }
    }

    fn check(&self) -> Result<(), String> {
        let view = self.windows.view();
        if view.as_of.is_some() {
            check_windows(&view, &self.raw, T0_S)?;
        }
        let minute = view.windows.minute.requests.unwrap_or(0);
        assert!(minute <= 60 * view.windows.minute.qps_peak_1s.unwrap_or(0));
        if self.drop_late {
            return Ok(());
        }
        assert_eq!(view.totals.requests, self.raw.len() as u64);
        assert_eq!(view.totals.codes.values().sum::<u64>(), view.totals.requests);
        assert_eq!(view.vhosts.iter().map(|row| row.requests).sum::<u64>(), view.totals.requests);
        assert_eq!(view.routes.iter().map(|row| row.requests).sum::<u64>(), view.totals.requests);
        assert!(view.vhosts.len() <= OPTIONS.vhosts_max + 1);
        Ok(())
    }

    fn shut_down(&mut self) {
        self.shipped.take(&self.windows.close_summaries(true));
        assert_eq!(self.shipped.all, self.raw.len() as u64);
        assert_eq!(self.shipped.unparsed, self.unparsed);
        let timed = self.raw.iter().filter(|(_, status)| *status != 101).count() as u64;
        assert_eq!(self.shipped.sketched, timed);
        self.shipped.check_parts();
        assert_eq!(self.windows.intervals.held(), (0, 0));
    }
}

fn without_complete(mut view: WebView) -> WebView {
    let windows = &mut view.windows;
    for window in [
        &mut windows.second,
        &mut windows.ten_seconds,
        &mut windows.minute,
        &mut windows.five_minutes,
        &mut windows.quarter,
    ] {
        window.complete = false;
    }
    view
}

fn run(ticks: &[Tick], drop_late: bool) -> Result<(), String> {
    let mut run = Run::new(drop_late);
    let mut now = T0_S * 1000 + 1;
    for tick in ticks {
        now += tick.passed_ms;
        run.tick(now, tick)?;
    }
    if !drop_late {
        run.shut_down();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rates_equal_the_oracle_and_summaries_add_up(ticks in ticks()) {
        prop_assert_eq!(run(&ticks, false), Ok(()));
    }
}

/// The control: windows that drop late lines must fail the same oracle.
#[test]
fn the_oracle_catches_dropped_late_lines() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut caught = 0;
    for _ in 0..20 {
        let ticks = ticks().new_tree(&mut runner).expect("ticks can always be made").current();
        caught += u32::from(run(&ticks, true).is_err());
    }
    assert!(caught >= 10, "caught in {caught} of 20 runs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_clock_that_steps_destroys_nothing(
        steps in prop::collection::vec(
            (prop_oneof![6 => 0i64..2_000, 1 => -86_400_000i64..86_400_000, 1 => -90_000i64..90_000], 0usize..5),
            1..80,
        ),
        times in prop::collection::vec(-100_000_000i64..100_000_000, 1..40),
    ) {
        let mut windows = Windows::new(OPTIONS, T0_S * 1000);
        let mut shipped = Shipped::default();
        let (mut now, mut observed) = (T0_S * 1000, 0u64);
        for (position, (step, lines)) in steps.iter().enumerate() {
            now += step;
            for line in 0..*lines {
                let strange = times[(position + line) % times.len()];
                let time = if line == 4 { now + strange } else { now };
                windows.observe(1, now, &request(time, 200));
                observed += 1;
            }
            windows.advance(now, &[FileProgress { file: 1, caught_up: position % 7 != 0 }]);
            shipped.take(&windows.close_summaries(false));
            let view = windows.view();
            for (_, _, window) in by_name(&view.windows) {
                prop_assert!((0.0..=1.0).contains(&window.coverage));
                prop_assert!(window.qps.is_none_or(|qps| qps >= 0.0));
            }
            prop_assert_eq!(view.totals.requests, observed);
        }
        // However it went, a quarter of an hour of an ordinary clock later the rates are right again.
        for second in 1..=1000 {
            now += 1_000;
            windows.observe(1, now, &request(now, 200));
            windows.advance(now, &LIVE);
            shipped.take(&windows.close_summaries(false));
            let settled = second > 970;
            let rate = windows.view().windows.minute.qps;
            prop_assert!(!settled || rate == Some(1.0), "{rate:?}");
        }
        shipped.take(&windows.close_summaries(true));
        prop_assert_eq!(shipped.all, observed + 1000);
        shipped.check_parts();
    }

    #[test]
    fn damage_on_disk_never_panics(
        bytes in prop::collection::vec((prop::sample::select(b"mtfsVvRroOlcCip".to_vec()), any::<Vec<u8>>(), any::<Vec<u8>>()), 0..40),
        cut in 0usize..400,
    ) {
        let mut windows = Windows::new(OPTIONS, T0_S * 1000);
        for line in 0..200 {
            let time = (T0_S + line % 50) * 1000;
            windows.observe(1, time, &request(time, 200));
        }
        windows.advance((T0_S + 60) * 1000, &LIVE);
        let mut disk = Disk::new();
        commit(&mut windows, &mut disk);
        for (letter, key, value) in bytes {
            disk.insert([b"w/".as_slice(), &[letter], &key].concat(), value);
        }
        if let Some(value) = disk.values_mut().nth(cut) {
            value.truncate(value.len() / 2);
            value.push(0xff);
        }
        let entries = disk.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let mut windows = Windows::restore(OPTIONS, (T0_S + 70) * 1000, entries);
        for line in 0..50 {
            let time = (T0_S + 60 + line) * 1000;
            windows.observe(1, time, &request(time, 503));
            windows.advance(time, &LIVE);
        }
        let view = windows.view();
        prop_assert_eq!(view.vhosts.iter().map(|row| row.requests).sum::<u64>(), view.totals.requests);
        windows.close_summaries(true);
        windows.changes();
    }
}
