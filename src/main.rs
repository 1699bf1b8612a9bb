//! The binary: commands and exit codes.

fn main() {}
