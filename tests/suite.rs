//! One integration binary: every test that goes through the front door.

mod chaos;
mod commands;
mod docs;
mod memory;
mod nginx;
mod peers;
mod pipeline;
mod rotation;
mod shipped_config;
mod support;
mod tidy;
