//! Watchpost: a monitoring agent for web servers that can prove its numbers.
//!
//! The modules stand in reading order, a group a layer: words first, then the stages that a line passes,
//! then the edges that touch the world, then what puts them together.

pub mod clock;
pub mod facts;
mod mutant;
pub mod record;
pub mod secret;
pub mod sock_diag;

pub mod follow;
pub mod insight;
pub mod window;

pub mod batch;
pub mod spool;

pub mod probes;
pub mod ship;
pub mod sources;
pub mod status;

pub mod config;

pub mod agent;

pub mod cli;
