//! The commands of the binary. Each one owns what it prints and its exit code; none is used by a stage.

pub mod receiver;
