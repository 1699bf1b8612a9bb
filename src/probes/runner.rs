//! Runs a probe again and again, each run within its deadline, and puts what it saw on the board.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};

use super::{PROBES, Probe, ProbeBoard, ProbeError, Spec, Wanted};
use crate::clock::Now;
use crate::facts::{ProbeStatus, Report};

/// A probe that failed is asked again this soon, then after twice that and so on, up to its interval: what it asks may only
/// be starting.
const RETRY_FIRST: Duration = Duration::from_secs(10);

/// When a probe is asked next.
#[derive(Debug, Default)]
struct Pace {
    /// Failures without a success between.
    failures: u32,
}

impl Pace {
    /// The time until the next run of a probe with this interval, after a run that failed or wishes to be repeated.
    fn next(&mut self, interval: Duration, after: &After) -> Duration {
        if !after.has_failed {
            self.failures = 0;
            return after.again_in.unwrap_or(interval);
        }
        let wait = RETRY_FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures += 1;
        wait.min(interval)
    }
}

/// What a run means for the next.
#[derive(Debug)]
struct After {
    has_failed: bool,
    /// What the probe wishes, if it does.
    again_in: Option<Duration>,
}

/// Asks one probe until `stopped` says so. Ends at once where the probe is switched off. Nobody is woken for what it saw:
/// the pipeline takes it at its next look, within a second, and would look at every log for it.
pub async fn watch(spec: &'static Spec, wanted: Wanted, board: Arc<ProbeBoard>, mut stopped: Receiver<bool>) {
    let Some(mut probe) = (spec.make)(&wanted) else { return };
    board.expect(spec);
    let mut pace = Pace::default();
    loop {
        let again = async {
            let after = run_once(spec, probe.as_mut(), &board).await;
            sleep(pace.next(spec.interval, &after)).await;
        };
        tokio::select! {
            () = again => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// Every probe that is on, asked once and side by side: its status, and what it saw.
pub async fn once(wanted: &Wanted) -> Vec<(&'static Spec, ProbeStatus, Option<Report>)> {
    let runs: Vec<_> = PROBES
        .iter()
        .filter_map(|spec| {
            let mut probe = (spec.make)(wanted)?;
            Some(tokio::spawn(async move {
                let board = ProbeBoard::new();
                run_once(spec, probe.as_mut(), &board).await;
                let status = board.statuses(Now::read()).pop().expect("one run was put there");
                (*spec, status, board.take().pop())
            }))
        })
        .collect();
    let mut seen = Vec::new();
    for run in runs {
        seen.push(run.await.expect("a probe does not panic"));
    }
    seen
}

/// One run, put on the board.
async fn run_once(spec: &'static Spec, probe: &mut dyn Probe, board: &ProbeBoard) -> After {
    let begun = Now::read();
    let outcome = timeout(spec.deadline, probe.run()).await.unwrap_or_else(|_| {
        Err(ProbeError::Failed(format!("no answer within {} s", spec.deadline.as_secs_f64())))
    });
    let now = Now::read();
    let mut again_in = None;
    let outcome = match outcome {
        Ok(seen) => {
            again_in = seen.again_in;
            let report =
                Report { probe: spec.name, at: now.wall, readings: seen.readings, facts: seen.facts };
            (Some(report), probe.lacking())
        }
        Err(error) => (None, Some(error)),
    };
    let has_failed = matches!(outcome.1, Some(ProbeError::Failed(_)));
    board.put(spec, now.since(begun.monotonic), outcome, now);
    After { has_failed, again_in }
}

#[cfg(test)]
mod tests {
    use super::super::{Run, Seen};
    use super::*;
    use crate::facts::{Facts, ProbeState};

    /// Answers, is absent, lacks a right, fails, hangs, and then sees a part.
    struct Moody(u32);

    impl Probe for Moody {
        fn run(&mut self) -> Run<'_> {
            self.0 += 1;
            let turn = self.0;
            Box::pin(async move {
                match turn {
                    1 => {
                        Ok(Seen { readings: Vec::new(), facts: Facts::None, again_in: Some(Duration::ZERO) })
                    }
                    2 => Err(ProbeError::Absent("no such thing".to_owned())),
                    3 => {
                        Err(ProbeError::Denied { what: "it is shut".to_owned(), cure: "open it".to_owned() })
                    }
                    4 => Err(ProbeError::Failed("garbage".to_owned())),
                    6 => Ok(Seen { readings: Vec::new(), facts: Facts::None, again_in: None }),
                    _ => std::future::pending().await,
                }
            })
        }

        fn lacking(&self) -> Option<ProbeError> {
            (self.0 == 6).then(|| ProbeError::Failed("a part".to_owned()))
        }
    }

    static MOODY: Spec = Spec {
        name: "moody",
        help: "Moods",
        setting: "WATCHPOST_MOODY",
        metrics: &[],
        interval: Duration::from_millis(1),
        deadline: Duration::from_millis(20),
        make: |_| Some(Box::new(Moody(0))),
    };

    #[test]
    fn every_outcome_has_its_state_and_a_hanging_one_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let board = Arc::new(ProbeBoard::new());
        let mut seen = Vec::new();
        let mut probe = Moody(0);
        for _ in 0..6 {
            runtime.block_on(run_once(&MOODY, &mut probe, &board));
            let status = board.statuses(Now::read()).remove(0);
            seen.push((status.state, status.failures, status.last_error, board.take().len()));
        }
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(
            seen,
            [
                (ProbeState::Ok, 0, None, 1),
                (ProbeState::Absent, 0, said("no such thing"), 0),
                (ProbeState::Denied, 1, said("it is shut; open it"), 0),
                (ProbeState::Failing, 2, said("garbage"), 0),
                (ProbeState::Failing, 3, said("no answer within 0.02 s"), 0),
                (ProbeState::Failing, 4, said("a part"), 1),
            ]
        );
    }

    #[test]
    fn what_was_absent_leaves_no_error_behind() {
        let board = ProbeBoard::new();
        let absent = Some(ProbeError::Absent("no such thing".to_owned()));
        board.put(&MOODY, Duration::ZERO, (None, absent), Now::read());
        let report = Report { probe: "moody", at: 0, readings: Vec::new(), facts: Facts::None };
        board.put(&MOODY, Duration::ZERO, (Some(report), None), Now::read());
        let status = board.statuses(Now::read()).remove(0);
        assert_eq!((status.state, status.last_error), (ProbeState::Ok, None));
    }

    #[test]
    fn what_failed_is_asked_again_soon_and_then_less_often() {
        let interval = RETRY_FIRST * 30;
        let mut pace = Pace::default();
        let failed = After { has_failed: true, again_in: None };
        let waits: Vec<u32> = (0..7)
            .map(|_| pace.next(interval, &failed).div_duration_f64(RETRY_FIRST).round() as u32)
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pace.next(RETRY_FIRST / 2, &failed), RETRY_FIRST / 2, "never later than by its interval");
        let wished = After { has_failed: false, again_in: Some(Duration::from_millis(7)) };
        assert_eq!(pace.next(interval, &wished), Duration::from_millis(7));
        assert_eq!(pace.next(interval, &failed), RETRY_FIRST);
    }

    #[test]
    fn a_probe_that_hangs_stops_when_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let board = Arc::new(ProbeBoard::new());
        let shown = Arc::clone(&board);
        runtime.block_on(async move {
            let task = tokio::spawn(watch(&MOODY, Wanted::default(), board, stopped));
            while shown.statuses(Now::read()).first().is_none_or(|status| status.runs < 4) {
                tokio::task::yield_now().await;
            }
            stop.send_replace(true);
            task.await.expect("it ends");
        });
    }
}
