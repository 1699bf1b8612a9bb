//! x
use super::Failure;
use crate::config::Config;
use std::ffi::OsStr;
/// x
pub fn run(_: &OsStr, _: &Config) -> Result<(), Failure> {
    Ok(())
}
