//! x
use super::Failure;
use crate::config::Config;
use std::path::PathBuf;
/// x
pub fn run(_: &[PathBuf], _: bool, _: &Config) -> Result<(), Failure> {
    Ok(())
}
