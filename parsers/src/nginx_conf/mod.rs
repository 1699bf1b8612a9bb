//! nginx.conf: which access logs a server writes, in which format, for which names.
//!
//! What it owns: the syntax of nginx's configuration and the inheritance of `access_log` from http to server to location. What it
//! must never do: open a file. What `include` names is handed in by the caller, and what cannot be understood is a problem with its
//! place, never a reason to give up on the rest.
//!
//! `tokens` makes words of text, `tree` makes directives of words; `discover` reads the logs out of the directives, `servers` where
//! they listen.

mod discover;
mod servers;
pub(crate) mod tokens;
mod tree;

use alloc::string::String;
use alloc::vec::Vec;

pub use servers::{Listen, Server, StubLocation};

/// What the text alone does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The path of the main file; relative includes are looked up in its directory.
    pub main_file: &'a str,
    /// The directory that relative log paths start from (`nginx -V`, `--prefix`).
    pub prefix: &'a str,
    /// The log of a server for which nothing is stated (`--http-log-path`); nginx's own default is `logs/access.log`.
    pub default_access_log: &'a str,
}

/// What a log path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// A file that can be followed.
    File,
    /// A file whose path holds variables, such as `/var/log/$host.log`: one directive, many files.
    FilesByVariable,
    /// `syslog:...`
    Syslog,
    /// `/dev/stdout`, `/dev/stderr`, `/dev/null`, `/proc/self/fd/1`, `stderr`, `memory:...`
    Device,
}

/// One access log, with everything that writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogDirective {
    /// Absolute for files; as written for anything else.
    pub path: String,
    /// What the path names.
    pub target: LogTarget,
    /// The name of the format, `combined` when none is stated.
    pub format_name: String,
    /// The arguments of its `log_format`, as [`crate::Format::from_log_format`] takes them; None for nginx's own `combined`.
    pub format: Option<String>,
    /// `buffer=` in bytes; lines wait until so many are together. `gzip` implies 64 KiB.
    pub buffer_bytes: Option<u64>,
    /// `flush=` in milliseconds; with a buffer and without this, lines wait without limit.
    pub flush_ms: Option<u64>,
    /// Whether nginx compresses what it writes.
    pub gzip: bool,
    /// Whether `if=` keeps some requests out.
    pub conditional: bool,
    /// The names of all servers whose requests go here, sorted.
    pub server_names: Vec<String>,
}

/// One error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLogDirective {
    /// Absolute for files; as written for anything else.
    pub path: String,
    /// What the path names.
    pub target: LogTarget,
    /// The lowest level that is logged, `error` when none is stated.
    pub level: String,
}

/// Something in the configuration that could not be understood or followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file that it stands in.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong, for people.
    pub message: String,
}

/// What a configuration says about logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Every access log that at least one server or location writes to.
    pub logs: Vec<AccessLogDirective>,
    /// Every error log that is stated.
    pub error_logs: Vec<ErrorLogDirective>,
    /// Servers with `access_log off`, stated or inherited.
    pub off_servers: usize,
    /// Locations with `access_log off` of their own. Their requests are in stub_status and in no log.
    pub off_locations: usize,
    /// The servers, in the order of the file.
    pub servers: Vec<Server>,
    /// The file with the master's process id, as `pid` states it.
    pub pid_file: Option<String>,
    /// What went wrong on the way, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

/// Problems that are kept.
pub const PROBLEMS_MAX: usize = 64;

/// Reads the logs out of the main file's `text`. `include` gets an absolute pattern, in which `*`, `?` and `[..]` may stand, and
/// gives the name and text of each file, in order.
pub fn access_logs(
    text: &str,
    place: &Place<'_>,
    include: &mut dyn FnMut(&str) -> Vec<(String, String)>,
) -> Discovery {
    let tree = tree::read(text, place.main_file, include);
    discover::discover(&tree, place)
}

/// A word in single quotes, as nginx.conf and [`crate::Format::from_log_format`] take it.
pub(crate) fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for character in value.chars() {
        match character {
            '\'' | '\\' => out.extend(['\\', character]),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests;
