//! Watchpost: a monitoring agent for web servers that can prove its numbers.
//!
//! The modules stand in reading order: words first, then the stages, then the edges.

pub mod clock;
pub mod record;
pub mod secret;
pub mod window;
