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
//! line still read. `WATCHPOST_TEST_CASES=10000 cargo test --lib follow::cases` tries so many compositions.

mod content;
mod controls;
mod lab;
mod oracle;
mod places;
mod random;
mod rotation;
mod world;

use world::World;
