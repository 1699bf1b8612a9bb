//! The 45 cases of following a file, each a test `case_NN_words`, and compositions of them at random.
//!
//! Owns what is promised of every way in which a log is written, moved, copied, cut, packed and taken away. What is
//! about the agent and not about following stands elsewhere:
//!
//! | case | where |
//! |---|---|
//! | 33: no watches are to be had | `tests/cases.rs` |
//! | 35: the clock jumps | here for following; `src/agent/tests.rs` for counting |
//! | 38: two agents | `tests/cases.rs`; `a_second_agent_on_the_same_state_is_refused` of `tests/commands.rs` |
//!
//! In every test [`World::check`] ends the case: each line once, each loss said and none that was not, and a last
//! line still read. `WATCHPOST_TEST_CASES=10000 cargo test --lib follow::tests::cases` tries so many compositions.

mod content;
mod controls;
mod crash;
mod lab;
mod oracle;
mod places;
mod random;
mod rotation;
mod world;

use world::World;

/// Where the tests of the cases stand.
const TESTS: [&str; 5] = [
    include_str!("content.rs"),
    include_str!("places.rs"),
    include_str!("rotation.rs"),
    include_str!("../../../agent/tests.rs"),
    include_str!("../../../../tests/cases.rs"),
];

#[test]
fn each_of_the_45_cases_has_a_test() {
    let has_test = |case: &u32| TESTS.iter().any(|text| text.contains(&format!("\nfn case_{case:02}_")));
    let without: Vec<u32> = (1..=45).filter(|case| !has_test(case)).collect();
    assert!(without.is_empty(), "{without:?}");
    assert!(!has_test(&46), "the look for one can fail");
}
