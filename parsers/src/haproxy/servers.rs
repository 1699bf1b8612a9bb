//! `show servers state`: where each server is, what it does, and whether HAProxy speaks TLS to it.
//!
//! What it owns: version 1 of the format (management guide, section 9.3, `show servers state`; include/haproxy/server-t.h for
//! the numbers). What it must never do: part a row by position when the header names other columns.

use super::{BadRow, COLUMNS_MAX, NotAnswer, RowReason};
use crate::Snippet;
use crate::bytes::{part, rest, whole_number};
use alloc::vec::Vec;

/// The version of the format and the start of the header.
const START: &str = "1\n# ";

/// The columns that are read; without the first two a row has no meaning.
const COLUMNS: [&str; 7] =
    ["be_name", "srv_name", "srv_addr", "srv_port", "srv_op_state", "srv_admin_state", "srv_use_ssl"];
const COLUMNS_NEEDED: usize = 2;

/// `srv_use_ssl` of a server with `no-ssl`, which takes back the `ssl` of a `default-server` line.
const NO_SSL: &[u8] = b"-1";

/// What a server does: `srv_op_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// 0: down.
    Stopped,
    /// 1: up, and taking load little by little (`slowstart`).
    Starting,
    /// 2: up.
    Running,
    /// 3: up, but only for sessions that are bound to it.
    Stopping,
    /// A state of a later version.
    Other(u64),
}

/// What was ordered of a server: `srv_admin_state`, a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin(pub u64);

impl Admin {
    /// Forced, inherited, or for want of an address: 0x01, 0x02, 0x20. A server that the configuration disables has 0x01 and
    /// 0x04; the latter stays when it is enabled.
    const MAINTENANCE: u64 = 0x23;
    /// Forced or inherited: 0x08, 0x10.
    const DRAIN: u64 = 0x18;

    /// Taken out of service: no traffic and no checks.
    pub fn is_maintenance(self) -> bool {
        self.0 & Admin::MAINTENANCE != 0
    }

    /// Takes no new sessions but those bound to it.
    pub fn is_drain(self) -> bool {
        self.0 & Admin::DRAIN != 0
    }
}

/// One server. None: this version has no such column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// `be_name`: the backend or `listen` section.
    pub backend: &'a str,
    /// `srv_name`: the name of the server in it.
    pub server: &'a str,
    /// `srv_addr`, IPv4 or IPv6; None also for what has none: a Unix socket, or a name that is not resolved.
    pub address: Option<&'a str>,
    /// `srv_port`, 0 for a Unix socket. A server may be configured with an offset to the port of the client: `+100` prints as
    /// 100, and `-10` as 2^32 less 10, which is None here.
    pub port: Option<u16>,
    /// `srv_op_state`.
    pub operation: Option<Operation>,
    /// `srv_admin_state`.
    pub admin: Option<Admin>,
    /// `srv_use_ssl`: 1 with `ssl` for traffic, 0 without. TLS for checks alone (`check-ssl`) is 0, and so is `no-ssl`, which prints
    /// as -1. HAProxy 2.3 and later.
    pub use_ssl: Option<u8>,
}

/// The servers of an answer, in its order; a bad row is an item with its reason, and the rows after it follow.
#[derive(Clone, Debug)]
pub struct Servers<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
    /// For each column of the header the place in [`COLUMNS`].
    columns: Vec<Option<usize>>,
}

/// Reads an answer to `show servers state`, or a `server-state-file`.
pub fn servers_state(answer: &[u8]) -> Result<Servers<'_>, NotAnswer> {
    if !answer.starts_with(START.as_bytes()) {
        return Err(NotAnswer::at_start(START, answer));
    }
    let header = rest(answer, START.len());
    let length = memchr::memchr(b'\n', header).ok_or(NotAnswer::CutShort)?;
    let columns = columns(part(header, 0, length))?;
    Ok(Servers { text: answer, at: START.len() + length + 1, line: 3, columns })
}

/// What stands between blanks.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn columns(header: &[u8]) -> Result<Vec<Option<usize>>, NotAnswer> {
    let mut columns = Vec::new();
    let mut seen = [false; COLUMNS.len()];
    for name in words(header) {
        if columns.len() == COLUMNS_MAX {
            return Err(NotAnswer::TooManyColumns);
        }
        let index = COLUMNS.iter().position(|known| known.as_bytes() == name);
        columns.push(index);
        let known = index.and_then(|index| Some((COLUMNS.get(index)?, seen.get_mut(index)?)));
        if let Some((column, seen)) = known
            && core::mem::replace(seen, true)
        {
            return Err(NotAnswer::Twice { column });
        }
    }
    match COLUMNS.iter().zip(seen).take(COLUMNS_NEEDED).find(|(_, seen)| !seen) {
        Some((column, _)) => Err(NotAnswer::Missing { column }),
        None => Ok(columns),
    }
}

impl<'a> Iterator for Servers<'a> {
    type Item = Result<Server<'a>, BadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let left = rest(self.text, self.at);
            if left.is_empty() {
                return None;
            }
            let end = memchr::memchr(b'\n', left);
            let (row, line) = (part(left, 0, end.unwrap_or(left.len())), self.line);
            self.at += row.len() + 1;
            self.line += 1;
            if row.is_empty() {
                continue;
            }
            // A number that is cut is another number.
            let server = if end.is_some() { server(&self.columns, row) } else { Err(RowReason::CutShort) };
            return Some(server.map_err(|reason| BadRow { line, reason }));
        }
    }
}

fn server<'a>(columns: &[Option<usize>], row: &'a [u8]) -> Result<Server<'a>, RowReason> {
    let mut fields = [None; COLUMNS.len()];
    let mut found = 0;
    for word in words(row) {
        let column =
            columns.get(found).ok_or(RowReason::Fields { expected: columns.len(), found: found + 1 })?;
        found += 1;
        if let Some(field) = column.and_then(|index| fields.get_mut(index)) {
            *field = Some(word);
        }
    }
    if found != columns.len() {
        return Err(RowReason::Fields { expected: columns.len(), found });
    }
    let [backend, server, address, port, operation, admin, use_ssl] = fields;
    let port = number("srv_port", port)?;
    if let (Some(port), Some(field)) = (port, fields.get(3).copied().flatten())
        && u32::try_from(port).is_err()
    {
        return Err(RowReason::BadNumber { column: "srv_port", found: Snippet::new(field) });
    }
    let operation = number("srv_op_state", operation)?.map(|state| match state {
        0 => Operation::Stopped,
        1 => Operation::Starting,
        2 => Operation::Running,
        3 => Operation::Stopping,
        other => Operation::Other(other),
    });
    let use_ssl = match use_ssl {
        Some(NO_SSL) => Some(0),
        Some(field) => {
            let value = whole_number(field).and_then(|value| u8::try_from(value).ok());
            Some(value.ok_or(RowReason::BadNumber { column: "srv_use_ssl", found: Snippet::new(field) })?)
        }
        None => None,
    };
    Ok(Server {
        backend: text("be_name", backend)?.ok_or(RowReason::Missing { column: "be_name" })?,
        server: text("srv_name", server)?.ok_or(RowReason::Missing { column: "srv_name" })?,
        address: text("srv_addr", address)?.filter(|address| *address != "-"),
        port: port.and_then(|port| u16::try_from(port).ok()),
        operation,
        admin: number("srv_admin_state", admin)?.map(Admin),
        use_ssl,
    })
}

fn number(column: &'static str, field: Option<&[u8]>) -> Result<Option<u64>, RowReason> {
    let Some(field) = field else { return Ok(None) };
    let number = whole_number(field);
    number.map(Some).ok_or_else(|| RowReason::BadNumber { column, found: Snippet::new(field) })
}

fn text<'a>(column: &'static str, field: Option<&'a [u8]>) -> Result<Option<&'a str>, RowReason> {
    let Some(field) = field else { return Ok(None) };
    core::str::from_utf8(field).map(Some).map_err(|_| RowReason::NotText { column })
}
