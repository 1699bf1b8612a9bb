//! One integration binary: every test that goes through the front door.

mod cases;
mod chaos;
mod commands;
mod destinations;
mod docs;
mod fault_server;
mod faults;
mod memory;
mod nginx;
mod peers;
mod pipeline;
mod probes_haproxy;
mod probes_mysql;
mod reconciliation;
mod rotation;
mod security;
mod shipped_config;
mod support;
mod tidy;
