//! Text to values: nginx formats, access lines, routes and nginx.conf; the counters of nginx, HAProxy and exporters.
//!
//! What it owns: the meaning of the text that web servers and their neighbours write. What it must never do: input or output,
//! read a clock or the environment, or panic: a bad line is a value with a reason. The crate has no std, so the compiler holds it
//! to the first two.
//!
//! Read in this order: [`AccessLine`] (what a line gives), [`Format`] (how lines look), [`Parser`] (bytes to lines), then
//! [`route`] (and [`routes`], which remembers them), [`upstream`], [`time`], [`mod@escape`] and [`nginx_conf`]; and apart from
//! lines [`mod@stub_status`], [`haproxy`] and [`prometheus`].
#![no_std]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::unreachable))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod access;
mod bytes;
pub mod escape;
pub mod haproxy;
pub mod nginx_conf;
pub mod prometheus;
pub mod route;
pub mod routes;
pub mod stub_status;
pub mod time;
pub mod upstream;

pub use access::{
    AccessLine, Expected, Field, FieldSet, Format, FormatError, LINE_BYTES_MAX, Parser, Snippet, Unparsed,
};
