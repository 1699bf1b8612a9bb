//! x
use super::Failure;
/// x
pub fn run(_: Option<u64>) -> Result<(), Failure> {
    Ok(())
}
