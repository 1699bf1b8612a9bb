//! A fleet through an outage of one hour, in virtual time: what its return does to the receiver, and to the agents.
//!
//! Owns the tables and the choice of runs; the model is `fleet/model.rs`, and docs/fleet.md says what follows from it. It
//! must never depend on the machine: the same tree prints the same tables.

#[path = "fleet/model.rs"]
mod model;
#[path = "fleet/plot.rs"]
mod plot;

use std::time::Duration;

use model::measure::Measured;
use model::strategy::Strategy;
use model::{Down, Limit, Phases, Scenario};
use plot::Panel;

/// Writes the plot into the file behind it.
const PLOT_FLAG: &str = "--plot";
/// Agents where strategies and conditions are compared.
const AGENTS: u32 = 1_000;
/// The fleets of the table of sizes, and the capacity there, in multiples of the steady state.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const CAPACITY_OF_SIZES: f64 = 4.0;
/// What a refusal may cost, as a share of an accepted request: a body is sent and read before it is refused.
const COSTLY: f64 = 0.5;

/// Every strategy with its name.
const STRATEGIES: [(&str, Strategy); 7] = [
    ("the sender", Strategy::Sender),
    ("its step 0.02", Strategy::Step(0.02)),
    ("its step 0.1", Strategy::Step(0.1)),
    ("one step down", Strategy::StepDown),
    ("decorrelated", Strategy::Decorrelated),
    ("no pauses", Strategy::NoPauses),
    ("no jitter", Strategy::NoJitter),
];

/// What is changed about a scenario.
type Change = fn(&mut Scenario);

/// Every condition with its name.
const CONDITIONS: [(&str, Change); 12] = [
    ("limit 1.25", |scenario| scenario.capacity = 1.25),
    ("limit 2", |_| {}),
    ("limit 4", |scenario| scenario.capacity = 4.0),
    ("no limit", |scenario| scenario.capacity = 1_000.0),
    ("outage times out", |scenario| scenario.down = Down::TimesOut),
    ("outage of a minute", |scenario| scenario.outage = Duration::from_secs(60)),
    ("`Retry-After: 10`", |scenario| scenario.retry_after = Some(Duration::from_secs(10))),
    ("quota a minute", |scenario| scenario.limit = Limit::PerMinute),
    ("refusal costs 0.25", |scenario| scenario.refusal_cost = 0.25),
    ("refusal costs 0.5", |scenario| scenario.refusal_cost = COSTLY),
    ("limit 1.25, refusal costs 0.5", |scenario| (scenario.capacity, scenario.refusal_cost) = (1.25, COSTLY)),
    ("in step", |scenario| scenario.phases = Phases::Aligned),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let plot = arguments.iter().position(|argument| argument == PLOT_FLAG);
    if let Some(at) = plot {
        let file = arguments.get(at + 1).expect("a file behind --plot");
        std::fs::write(file, plot::svg(&panels())).expect("the plot is written");
        return;
    }
    strategies();
    conditions();
    sizes();
}

fn strategies() {
    println!("| strategy | peak / mean | peak / steady | refused | fairness | drained, min | costly, min |");
    println!("|---|---|---|---|---|---|---|");
    for (name, strategy) in STRATEGIES {
        let run = Scenario::new(AGENTS, strategy).run();
        let costly = Scenario { refusal_cost: COSTLY, ..Scenario::new(AGENTS, strategy) }.run();
        println!(
            "| {name} | {} | {} | {} |",
            told(&run),
            drained(&run),
            costly.drained_s(1.0).map_or("never".to_owned(), minutes)
        );
    }
}

fn conditions() {
    println!("\n| condition | | peak / mean | peak / steady | refused | fairness | drained, min | least |");
    println!("|---|---|---|---|---|---|---|---|");
    for (condition, change) in CONDITIONS {
        for (name, strategy) in [("the sender", Strategy::Sender), ("no pauses", Strategy::NoPauses)] {
            let mut scenario = Scenario::new(AGENTS, strategy);
            change(&mut scenario);
            let run = scenario.run();
            println!(
                "| {condition} | {name} | {} | {} | {} |",
                told(&run),
                drained(&run),
                minutes(run.least_drain_s())
            );
        }
    }
    for (name, phases) in [("each at a moment of its own", Phases::Spread), ("in step", Phases::Aligned)] {
        let scenario = Scenario { phases, ..Scenario::new(AGENTS, Strategy::Sender) };
        println!("\nBefore the outage, batches {name}: peak / mean {:.2}", scenario.run().peak_before());
    }
}

fn sizes() {
    println!("\n| agents | peak / mean | peak / steady | refused | fairness | drained, min |");
    println!("|---|---|---|---|---|---|");
    for agents in SIZES {
        let run = Scenario { capacity: CAPACITY_OF_SIZES, ..Scenario::new(agents, Strategy::Sender) }.run();
        println!("| {agents} | {} | {} |", told(&run), drained(&run));
    }
}

/// The receiver's load, what it refused, and how equal the agents were.
fn told(run: &Measured) -> String {
    format!(
        "{:.2} | {:.2} | {:.1} % | {:.3}",
        run.peak_over_mean(),
        run.peak_over_steady(),
        100.0 * run.refused(),
        run.fairness()
    )
}

/// When a twentieth, half and all of the agents had nothing left.
fn drained(run: &Measured) -> String {
    let at = |share| run.drained_s(share).map_or("never".to_owned(), minutes);
    format!("{} / {} / {}", at(0.05), at(0.5), at(1.0))
}

fn minutes(seconds: f64) -> String {
    format!("{:.1}", seconds / 60.0)
}

/// The runs of the plot.
fn panels() -> [Panel; 2] {
    let limits = [
        (Limit::PerSecond, "The receiver accepts twice the steady state, by the second"),
        (
            Limit::PerMinute,
            "The same as a quota for each minute: what is above it is refused until the minute ends",
        ),
    ];
    limits.map(|(limit, title)| {
        let strategies = [
            ("without jitter", Strategy::NoJitter),
            ("with jitter, without pauses", Strategy::NoPauses),
            ("the sender", Strategy::Sender),
        ];
        let run = |strategy| Scenario { limit, ..Scenario::new(AGENTS, strategy) };
        let runs = strategies.map(|(name, strategy)| (name, run(strategy).run()));
        Panel { title, limit: run(Strategy::Sender).capacity, runs: runs.into() }
    })
}
