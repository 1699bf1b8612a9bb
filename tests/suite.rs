//! One integration binary: every test that goes through the front door.

mod shipped_config;
mod tidy;
