//! What the numbers mean: whether counts agree, and what is weak about the infrastructure. Pure.
//!
//! Owns the conclusions; what they are drawn from is in `facts`. No clock is read here, and nothing is asked.

pub mod findings;
pub mod reconcile;
