//! A fleet of a thousand agents through an outage, held to bounds, in virtual time (docs/fleet.md).
//!
//! The model is that of the bench `fleet`; the agents decide with the sender's own code. Each bound is broken by a way to
//! wait that the sender does not have, so each can fail.

#[allow(dead_code, reason = "the bench shows more of it")]
#[path = "../benches/fleet/model.rs"]
mod model;

use std::time::Duration;

use model::measure::Measured;
use model::strategy::Strategy;
use model::{Down, Limit, Phases, Scenario};

const AGENTS: u32 = 1_000;
/// All are drained within the least time in which the receiver could take everything, and so much of it more.
const SLOWER_MAX: f64 = 1.05;
/// A twentieth of the agents are drained no sooner than this share of the time that the last one takes.
const SPREAD_MIN: f64 = 0.75;
/// Jain's index of what the agents delivered in the first five minutes.
const FAIRNESS_MIN: f64 = 0.93;
/// Requests in vain, by the share.
const REFUSED_MAX: f64 = 0.10;
/// No second has more than twice the mean of the drain.
const PEAK_OVER_MEAN_MAX: f64 = 2.0;
/// Against a quota by the minute, which is all that bounds a second: the greatest load, against the steady state.
const PEAK_OF_QUOTA_MAX: f64 = 20.0;
/// With refusals that cost half of what they refuse, the drain takes so many times the least.
const SLOWER_BY_REFUSALS_MAX: f64 = 1.25;
/// Shorter than in the bench: enough for the fleet to be out of step, and to have its spools filled.
const SHORT_OUTAGE: Duration = Duration::from_secs(1_200);

/// How many times the least time the drain took; infinite where it did not end.
fn slower(run: &Measured) -> f64 {
    run.drained_s(1.0).map_or(f64::INFINITY, |last| last / run.least_drain_s())
}

/// Each bound that a run breaks, by its name.
fn broken(run: &Measured) -> Vec<&'static str> {
    let drained = |share| run.drained_s(share).unwrap_or(f64::INFINITY);
    let bounds = [
        ("drained", slower(run) <= SLOWER_MAX),
        ("spread", drained(0.05) >= SPREAD_MIN * drained(1.0)),
        ("fairness", run.fairness() >= FAIRNESS_MIN),
        ("refused", run.refused() <= REFUSED_MAX),
        ("peak", run.peak_over_mean() <= PEAK_OVER_MEAN_MAX),
    ];
    bounds.into_iter().filter(|(_, is_kept)| !is_kept).map(|(name, _)| name).collect()
}

#[test]
fn a_fleet_of_a_thousand_drains_evenly_after_an_hour_and_asks_little_in_vain() {
    let run = |strategy| Scenario::new(AGENTS, strategy).run();
    assert_eq!(broken(&run(Strategy::Sender)), [""; 0]);
    assert_eq!(broken(&run(Strategy::NoPauses)), ["spread", "fairness", "refused"]);
    assert_eq!(broken(&run(Strategy::StepDown)), ["drained", "spread", "refused"]);
}

#[test]
fn a_fleet_that_comes_back_to_a_quota_comes_back_spread_out() {
    let scenario = |strategy| Scenario {
        limit: Limit::PerMinute,
        outage: SHORT_OUTAGE,
        down: Down::TimesOut,
        ..Scenario::new(AGENTS, strategy)
    };
    let peak = |strategy| scenario(strategy).run().peak_over_steady();
    let (spread, in_step) = (peak(Strategy::Sender), peak(Strategy::NoJitter));
    assert!(spread < PEAK_OF_QUOTA_MAX, "{spread}");
    assert!(in_step > PEAK_OF_QUOTA_MAX, "without jitter: {in_step}");
}

#[test]
fn refusals_that_cost_the_receiver_do_not_eat_its_capacity() {
    let scenario = |strategy| Scenario {
        refusal_cost: 0.5,
        outage: SHORT_OUTAGE,
        phases: Phases::Aligned,
        ..Scenario::new(AGENTS, strategy)
    };
    let (paused, unpaused) =
        (slower(&scenario(Strategy::Sender).run()), slower(&scenario(Strategy::NoPauses).run()));
    assert!(paused < SLOWER_BY_REFUSALS_MAX, "{paused}");
    assert!(unpaused > 2.0, "without pauses: {unpaused}");
}

#[test]
fn a_seed_replays_a_fleet() {
    let loads = |seed| {
        let scenario =
            Scenario { seed, outage: Duration::from_secs(60), ..Scenario::new(AGENTS, Strategy::Sender) };
        scenario.run().requests
    };
    assert_eq!(loads(1), loads(1));
    assert_ne!(loads(1), loads(2));
}
