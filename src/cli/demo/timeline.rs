//! What happens when: a pure function of the length that was asked for.
//!
//! It decides nothing but moments; who acts on them is in `mod.rs`.

use std::time::Duration;

/// Demos up to this length show everything once, spread over their time; longer ones repeat the cycle.
const ONCE_SECONDS_MAX: u64 = 120;
/// The cycle of a long demo, and of one without an end.
const CYCLE: Duration = Duration::from_secs(90);
/// The cycle's events, in seconds from its start. The outage ends long before the next cycle, since the
/// sender may have waited up to twice as long as the outage was.
const CYCLE_EVENTS_S: [(u64, Event); 5] = [
    (15, Event::Rotation),
    (21, Event::BackendFails),
    (25, Event::BackendRecovers),
    (30, Event::OutageBegins),
    (50, Event::OutageEnds),
];

/// Something that happens on the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The log is renamed and created anew.
    Rotation,
    /// One backend of the pretended server answers with errors.
    BackendFails,
    /// It is well again.
    BackendRecovers,
    /// The receiver cannot be reached any more.
    OutageBegins,
    /// The receiver is back.
    OutageEnds,
    /// No more traffic; the account is drawn up.
    End,
}

/// The events in their order.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    events: Vec<(Duration, Event)>,
    /// After this time the events begin again.
    period: Option<Duration>,
    end: Option<Duration>,
    next: usize,
}

impl Timeline {
    /// The events of a demo of so many seconds; of one that ends by hand without.
    pub(super) fn new(seconds: Option<u64>) -> Timeline {
        let end = seconds.map(Duration::from_secs);
        match seconds {
            Some(seconds) if seconds <= ONCE_SECONDS_MAX => {
                let at = |share: f64| Duration::from_secs_f64(seconds as f64 * share);
                let events = vec![
                    (at(0.20), Event::Rotation),
                    (at(0.24), Event::BackendFails),
                    (at(0.32), Event::BackendRecovers),
                    (at(0.35), Event::OutageBegins),
                    (at(0.60), Event::OutageEnds),
                ];
                Timeline { events, period: None, end, next: 0 }
            }
            _ => {
                let events =
                    CYCLE_EVENTS_S.iter().map(|(at_s, event)| (Duration::from_secs(*at_s), *event)).collect();
                Timeline { events, period: Some(CYCLE), end, next: 0 }
            }
        }
    }

    /// The next event if its time has come; ask again until there is none.
    pub(super) fn due(&mut self, elapsed: Duration) -> Option<Event> {
        if self.end.is_some_and(|end| elapsed >= end) {
            return Some(Event::End);
        }
        let (at, event) = self.at(self.next)?;
        if elapsed < at {
            return None;
        }
        self.next += 1;
        Some(event)
    }

    /// The events of the first round with their moments, the end last where there is one.
    pub(super) fn program(&self) -> Vec<(Duration, Event)> {
        let end = self.end.map(|end| (end, Event::End));
        self.events.iter().copied().chain(end).collect()
    }

    /// After how long everything begins again, where it does.
    pub(super) fn period(&self) -> Option<Duration> {
        self.period
    }

    fn at(&self, number: usize) -> Option<(Duration, Event)> {
        let (at, event) = self.events[number % self.events.len()];
        let round = u32::try_from(number / self.events.len()).unwrap_or(u32::MAX);
        match self.period {
            None if round > 0 => None,
            None => Some((at, event)),
            Some(period) => Some((period.saturating_mul(round) + at, event)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every event up to a moment, asked for every tenth of a second.
    fn play(seconds: Option<u64>, until_s: u64) -> Vec<(f64, Event)> {
        let mut timeline = Timeline::new(seconds);
        let mut seen = Vec::new();
        for tenth in 0..=until_s * 10 {
            while let Some(event) = timeline.due(Duration::from_millis(tenth * 100)) {
                seen.push((tenth as f64 / 10.0, event));
                if event == Event::End {
                    return seen;
                }
            }
        }
        seen
    }

    #[test]
    fn a_short_demo_shows_everything_once_and_ends() {
        for seconds in [5, 12, 20, 120] {
            let seen = play(Some(seconds), seconds + 1);
            let events: Vec<Event> = seen.iter().map(|(_, event)| *event).collect();
            let expected: Vec<Event> =
                CYCLE_EVENTS_S.iter().map(|(_, event)| *event).chain([Event::End]).collect();
            assert_eq!(events, expected, "{seconds}");
            assert_eq!(seen[5].0, seconds as f64);
            let outage = seen[4].0 - seen[3].0;
            assert!((outage - seconds as f64 * 0.25).abs() < 0.2, "{seconds}: {outage}");
        }
        let of_twelve = play(Some(12), 12);
        assert!((2.0..=4.0).contains(&(of_twelve[4].0 - of_twelve[3].0)));
    }

    #[test]
    fn without_an_end_the_outage_returns_every_cycle() {
        let seen = play(None, 300);
        let outages: Vec<f64> =
            seen.iter().filter(|(_, event)| *event == Event::OutageBegins).map(|(at, _)| *at).collect();
        assert_eq!(outages, [30.0, 120.0, 210.0, 300.0]);
        assert!(seen.iter().all(|(_, event)| *event != Event::End));
        assert_eq!(play(Some(200), 300).last(), Some(&(200.0, Event::End)));
    }
}
