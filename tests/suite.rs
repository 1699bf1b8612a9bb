//! One integration binary: every test that goes through the front door.

mod chaos;
mod commands;
mod destinations;
mod docs;
mod fault_server;
mod nginx;
mod pipeline;
mod security;
mod shipped_config;
mod support;
mod tidy;
