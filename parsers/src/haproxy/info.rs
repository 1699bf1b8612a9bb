//! `show info`: a line for each fact about the process.
//!
//! What it owns: the lines that are read and what they mean (management guide, section 9.3, `show info`). What it must never do:
//! give a part of the facts; what belongs together is read together or not at all.

use super::NotAnswer;
use crate::Snippet;
use crate::bytes::{part, rest, whole_number};
use alloc::vec::Vec;

/// The most lines that are kept for [`Info::get`]. HAProxy 2.6 has 66, 3.x about 80.
pub const INFO_LINES_MAX: usize = 256;

/// Each answer begins with it.
const FIRST_LINE: &str = "Name: ";

/// The facts about one HAProxy process. None: this version has no such line.
///
/// A reload starts a process anew: `pid` changes, `uptime_sec` and all counters begin at zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info<'a> {
    /// `Name`: `HAProxy`, as long as nobody renamed it.
    pub name: &'a str,
    /// `Version`, such as `2.6.12-1+deb12u4`.
    pub version: Option<&'a str>,
    /// `Pid` of the worker that answers.
    pub pid: Option<u64>,
    /// `Uptime_sec`: seconds since this process was started.
    pub uptime_sec: Option<u64>,
    /// `CumReq`: counter of requests. TCP sessions and commands on the sockets count too: `req_tot` is the number of a frontend.
    pub cum_req: Option<u64>,
    /// `CumConns`: counter of connections, more than those of clients.
    pub cum_conns: Option<u64>,
    /// `CurrConns`: connections of clients now.
    pub curr_conns: Option<u64>,
    /// `Maxconn`: the limit of these.
    pub maxconn: Option<u64>,
    /// `SslRate`: TLS sessions in the last second.
    pub ssl_rate: Option<u64>,
    /// `DroppedLogs`: counter of log lines that could not be sent.
    pub dropped_logs: Option<u64>,
    /// `Idle_pct`: share of the last second that was spent waiting, in per cent.
    pub idle_pct: Option<u64>,
    /// Lines that [`Info::get`] does not know: without `: `, not UTF-8, or past [`INFO_LINES_MAX`].
    pub unread: u64,
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Info<'a> {
    /// The value of the first line of this name, as printed. Linear in the lines, which are few.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.lines.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

/// Reads an answer to `show info`.
pub fn info(answer: &[u8]) -> Result<Info<'_>, NotAnswer> {
    if !answer.starts_with(FIRST_LINE.as_bytes()) {
        return Err(NotAnswer::at_start(FIRST_LINE, answer));
    }
    let mut info = Info::default();
    let mut at = 0;
    while at < answer.len() {
        // A number that is cut is another number.
        let end = at + memchr::memchr(b'\n', rest(answer, at)).ok_or(NotAnswer::CutShort)?;
        info.line(part(answer, at, end))?;
        at = end + 1;
    }
    if info.name.is_empty() {
        return Err(NotAnswer::Missing { column: "Name" });
    }
    Ok(info)
}

impl<'a> Info<'a> {
    fn line(&mut self, line: &'a [u8]) -> Result<(), NotAnswer> {
        if line.is_empty() {
            return Ok(());
        }
        let parted = core::str::from_utf8(line).ok().and_then(|line| line.split_once(": "));
        let Some((name, value)) = parted else {
            self.unread += 1;
            return Ok(());
        };
        match name {
            "Name" if self.name.is_empty() => self.name = value,
            "Name" => return Err(NotAnswer::Twice { column: "Name" }),
            "Version" if self.version.is_none() => self.version = Some(value),
            "Version" => return Err(NotAnswer::Twice { column: "Version" }),
            _ => self.number(name, value)?,
        }
        if self.lines.len() < INFO_LINES_MAX {
            self.lines.push((name, value));
        } else {
            self.unread += 1;
        }
        Ok(())
    }

    fn number(&mut self, name: &str, value: &str) -> Result<(), NotAnswer> {
        let (column, slot) = match name {
            "Pid" => ("Pid", &mut self.pid),
            "Uptime_sec" => ("Uptime_sec", &mut self.uptime_sec),
            "CumReq" => ("CumReq", &mut self.cum_req),
            "CumConns" => ("CumConns", &mut self.cum_conns),
            "CurrConns" => ("CurrConns", &mut self.curr_conns),
            "Maxconn" => ("Maxconn", &mut self.maxconn),
            "SslRate" => ("SslRate", &mut self.ssl_rate),
            "DroppedLogs" => ("DroppedLogs", &mut self.dropped_logs),
            "Idle_pct" => ("Idle_pct", &mut self.idle_pct),
            _ => return Ok(()),
        };
        let found = || NotAnswer::BadNumber { column, found: Snippet::new(value.as_bytes()) };
        let number = whole_number(value.as_bytes()).ok_or_else(found)?;
        match slot.replace(number) {
            None => Ok(()),
            Some(_) => Err(NotAnswer::Twice { column }),
        }
    }
}
