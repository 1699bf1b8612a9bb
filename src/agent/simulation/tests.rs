//! The seeds of the simulation, and the bugs that it must find.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use super::oracle::Broken;
use super::run::{Summary, run};
use crate::mutant::{self, Mutant};

/// So many failures stop a run.
const FAILURES_SHOWN_MAX: usize = 1_000;

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 5_000;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A run of which a panic is a broken promise too.
fn caught(seed: u64, printed: bool) -> Result<Summary, Broken> {
    catch_unwind(AssertUnwindSafe(|| run(seed, printed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Broken { check: "panic", detail: text.unwrap_or_default() })
    })
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = variable("WATCHPOST_TEST_SEED") {
        let log = tracing_subscriber::fmt().without_time().with_test_writer().finish();
        let _log = tracing::subscriber::set_default(log);
        let outcome = caught(seed, true);
        println!("seed {seed}: {outcome:?}");
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
        return;
    }
    let seeds = variable("WATCHPOST_TEST_SEEDS").unwrap_or(SEEDS);
    let first = variable("WATCHPOST_TEST_FIRST_SEED").unwrap_or(0);
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let failures = Mutex::new(Vec::new());
    let sums = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || failures.lock().expect("a list").len() >= FAILURES_SHOWN_MAX {
                        return;
                    }
                    match caught(seed, false) {
                        Ok(summary) => sums.lock().expect("sums").add(&summary),
                        Err(broken) => failures.lock().expect("a list").push((seed, broken)),
                    }
                }
            });
        }
    });
    let (failures, sums) = (failures.into_inner().expect("a list"), sums.into_inner().expect("sums"));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seeds} seeds in {seconds:.1} s, {:.0} a second: {sums:?}", seeds as f64 / seconds);
    let replay = "cargo test --lib -- --nocapture every_seed";
    let told: Vec<String> = failures
        .iter()
        .map(|(seed, broken)| {
            format!("{}: {}\n    WATCHPOST_TEST_SEED={seed} {replay}", broken.check, broken.detail)
        })
        .collect();
    println!("{} seeds fail:\n{}", failures.len(), told.join("\n"));
    assert!(failures.is_empty(), "{} seeds fail", failures.len());
}

impl Summary {
    fn add(&mut self, other: &Summary) {
        self.ticks += other.ticks;
        self.lives += other.lives;
        self.lines += other.lines;
        self.batches += other.batches;
        self.digest = (self.digest.0 ^ other.digest.0, self.digest.1 + other.digest.1);
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..20 {
        assert_eq!(caught(seed, false), caught(seed, false), "seed {seed}");
    }
}

/// Seeds in which a known bug must show at the latest.
const MUTANT_SEEDS: u64 = 3_000;

/// The first seed that the bug breaks, and how. One that is broken without it proves nothing.
fn finds(mutant: Mutant) -> Option<(u64, &'static str)> {
    (0..MUTANT_SEEDS).find_map(|seed| {
        let broken = mutant::with(Some(mutant), || caught(seed, false)).err()?;
        caught(seed, false).is_ok().then_some((seed, broken.check))
    })
}

#[test]
fn every_known_bug_is_found() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Few lives fill their spool; `a_spool_that_ignores_its_cap_is_found_out` shows this one.
                    if *mutant == Mutant::IgnoresCap {
                        continue;
                    }
                    match finds(*mutant) {
                        Some((seed, check)) => println!("{mutant:?}: seed {seed}, by the check \"{check}\""),
                        None => missed.lock().expect("a list").push(*mutant),
                    }
                }
            });
        }
    });
    assert_eq!(missed.into_inner().expect("a list"), [], "bugs that no seed shows");
}
