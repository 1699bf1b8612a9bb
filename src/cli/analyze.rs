//! x
use std::path::PathBuf; use super::Failure; use crate::config::Config;
/// x
pub fn run(_: &[PathBuf], _: bool, _: &Config) -> Result<(), Failure> { Ok(()) }
