//! One integration binary: every test that goes through the front door.

mod cases;
mod chaos;
mod commands;
mod docs;
mod nginx;
mod pipeline;
mod shipped_config;
mod support;
mod tidy;
