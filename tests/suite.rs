//! One integration binary: every test that goes through the front door.

mod cases;
mod certificates;
mod chaos;
mod commands;
mod destinations;
mod docs;
mod fault_server;
mod faults;
mod firewall;
mod fleet;
mod infrastructure;
mod memory;
mod nginx;
mod peers;
mod pipeline;
mod probes_haproxy;
mod probes_mysql;
mod probes_scrape;
mod probes_scripts;
mod reconciliation;
mod rotation;
mod security;
mod shipped_config;
mod support;
mod tidy;
