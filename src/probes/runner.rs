//! Runs a probe again and again, each run within its deadline, and puts what it saw on the board.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};

use super::{PROBES, Probe, ProbeBoard, ProbeError, Spec, Wanted};
use crate::clock::Now;
use crate::facts::{ProbeStatus, Report};

/// Asks one probe until `stopped` says so. Ends at once where the probe is switched off.
pub async fn watch(
    spec: &'static Spec,
    wanted: Wanted,
    board: Arc<ProbeBoard>,
    on_report: Arc<dyn Fn() + Send + Sync>,
    mut stopped: Receiver<bool>,
) {
    let Some(mut probe) = (spec.make)(&wanted) else { return };
    board.expect(spec);
    loop {
        let again = async {
            let again_in = run_once(spec, probe.as_mut(), &board).await;
            on_report();
            sleep(again_in).await;
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

/// One run; gives the time until the next.
async fn run_once(spec: &'static Spec, probe: &mut dyn Probe, board: &ProbeBoard) -> Duration {
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
    board.put(spec, now.since(begun.monotonic), outcome, now);
    again_in.unwrap_or(spec.interval)
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
    fn a_probe_that_hangs_stops_when_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let board = Arc::new(ProbeBoard::new());
        let shown = Arc::clone(&board);
        runtime.block_on(async move {
            let task = tokio::spawn(watch(&MOODY, Wanted::default(), board, Arc::new(|| {}), stopped));
            while shown.statuses(Now::read()).first().is_none_or(|status| status.runs < 4) {
                tokio::task::yield_now().await;
            }
            stop.send_replace(true);
            task.await.expect("it ends");
        });
    }
}
