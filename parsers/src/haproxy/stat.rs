//! `show stat`: a row of counters for each frontend, backend, server and listener.
//!
//! What it owns: the columns that are read and what they mean (management guide, section 9.1). What it must never do: give a row
//! in which one of them could not be read.

use super::csv::{Fields, RawField};
use super::{BadRow, NotAnswer, RowReason};
use crate::Snippet;
use crate::bytes::{part, rest, whole_number};
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// The most columns that a header can have. HAProxy 2.6 has 119, 3.x about 150.
pub const COLUMNS_MAX: usize = 512;

/// The first column; HAProxy promises that new ones come at the end, but they are found by name all the same.
const HEADER_START: &str = "# pxname,";

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What clients connect to, all listeners together.
    Frontend,
    /// A group of servers, and what its queue holds.
    Backend,
    /// One server of a backend.
    Server,
    /// One `bind` of a frontend that has `option socket-stats`.
    Listener,
}

/// Takes the name of each number from its field, so that the two cannot part.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The numbers of a row. None: this version has no such column, or it has no meaning for this kind or mode.
        ///
        /// Counters start at zero with the process (see [`super::Info::pid`]); `clear counters` on the socket clears some.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Numbers {
            $($(#[$doc])* pub $name: Option<u64>,)*
        }

        /// Where the number of a column goes.
        type Slot = fn(&mut Numbers) -> &mut Option<u64>;

        /// Each column that holds a number, by the name in the header.
        const NUMBERS: &[(&str, Slot)] = &[$((stringify!($name), |numbers| &mut numbers.$name),)*];
    };
}

numbers! {
    /// Counter of HTTP requests.
    req_tot,
    /// Counter of sessions; of a server or a backend, of the sessions assigned to it.
    stot,
    /// Sessions now.
    scur,
    /// The most sessions at once.
    smax,
    /// The limit of sessions: `maxconn`, of a backend `fullconn`. None where a server has no limit.
    slim,
    /// Requests in the queue now; of a backend, those without a server yet.
    qcur,
    /// The most requests in the queue at once.
    qmax,
    /// Time in the queue in milliseconds, average over the last 1024 requests.
    qtime,
    /// Time to connect to the server in milliseconds, average over the last 1024 requests.
    ctime,
    /// Time to the server's response in milliseconds, average over the last 1024 requests; zero for TCP.
    rtime,
    /// Counter of HTTP responses with 1xx.
    hrsp_1xx,
    /// Counter of HTTP responses with 2xx.
    hrsp_2xx,
    /// Counter of HTTP responses with 3xx.
    hrsp_3xx,
    /// Counter of HTTP responses with 4xx.
    hrsp_4xx,
    /// Counter of HTTP responses with 5xx.
    hrsp_5xx,
    /// Counter of HTTP responses with another status, or none.
    hrsp_other,
    /// Counter of transfers that the client aborted.
    cli_abrt,
    /// Counter of transfers that the server aborted.
    srv_abrt,
    /// Counter of requests that were no good.
    ereq,
    /// Counter of connections to a server that failed.
    econ,
    /// Counter of responses that were no good, aborts of the server included.
    eresp,
    /// Counter of connections to a server that were tried again.
    wretr,
    /// Counter of requests that were sent to another server.
    wredis,
    /// Counter of requests that a rule denied.
    dreq,
    /// Counter of responses that a rule denied.
    dresp,
    /// Counter of bytes from clients.
    bin,
    /// Counter of bytes to clients.
    bout,
    /// Sessions in the last second.
    rate,
    /// HTTP requests in the last second.
    req_rate,
    /// Counter of checks that failed while the server was up.
    chkfail,
    /// Counter of changes from up to down.
    chkdown,
    /// Seconds since the last change between up and down.
    lastchg,
    /// Counter of TLS handshakes that failed. HAProxy 2.3 and later, in the columns after `-`.
    ssl_failed_handshake,
    /// Counter of TLS handshakes that succeeded; of a frontend, those of clients. HAProxy 2.3 and later, like all that follow.
    ssl_sess,
    /// HTTP/1 connections now.
    h1_open_connections,
    /// HTTP/1 requests under way now; none of a connection that waits for its next one.
    h1_open_streams,
    /// HTTP/2 connections now.
    h2_open_connections,
    /// HTTP/2 requests under way now; of a frontend those of clients, whatever the name says.
    h2_backend_open_streams,
}

/// The columns that hold text. Their order is that of [`Texts`].
const TEXTS: [&str; 6] = ["pxname", "svname", "type", "status", "mode", "addr"];
/// The first of them, without which a row has no meaning.
const TEXTS_NEEDED: usize = 3;

/// One row of `show stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatRow<'a> {
    /// `pxname`: the name of the frontend, backend or `listen` section.
    pub proxy: Cow<'a, str>,
    /// `svname`: `FRONTEND`, `BACKEND`, or the name of the server or listener.
    pub server: Cow<'a, str>,
    /// `type`.
    pub kind: Kind,
    /// `status`, such as `UP`, `DOWN 1/2`, `MAINT`, `no check`; of a frontend `OPEN`, `FULL` or `STOP`.
    pub status: Option<Cow<'a, str>>,
    /// `mode`: `http` or `tcp`, among others.
    pub mode: Option<Cow<'a, str>>,
    /// `addr`, address and port. Told to the level `operator` and above only.
    pub addr: Option<Cow<'a, str>>,
    /// All the numbers.
    pub numbers: Numbers,
}

/// What is done with the field of a column.
#[derive(Clone, Copy, Debug)]
enum Column {
    /// Into this place of [`Texts`].
    Text(usize),
    /// Into this place of [`NUMBERS`].
    Number(usize),
    Unread,
}

/// The fields of a row that hold text, until all of them are known.
type Texts<'a> = [Option<Cow<'a, str>>; TEXTS.len()];

/// The rows of an answer, in its order; a bad one is an item with its reason, and the rows after it follow.
#[derive(Clone, Debug)]
pub struct Stat<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
    columns: Vec<Column>,
}

/// Reads an answer to `show stat`, or `;csv` over HTTP.
pub fn stat(answer: &[u8]) -> Result<Stat<'_>, NotAnswer> {
    if !answer.starts_with(HEADER_START.as_bytes()) {
        return Err(NotAnswer::at_start(HEADER_START, answer));
    }
    let end = memchr::memchr(b'\n', answer).ok_or(NotAnswer::CutShort)?;
    let columns = columns(part(answer, 2, end))?;
    Ok(Stat { text: answer, at: end + 1, line: 2, columns })
}

fn columns(header: &[u8]) -> Result<Vec<Column>, NotAnswer> {
    let mut columns = Vec::new();
    let (mut texts, mut numbers) = ([false; TEXTS.len()], [false; NUMBERS.len()]);
    for name in header.split(|byte| *byte == b',') {
        if columns.len() == COLUMNS_MAX {
            return Err(NotAnswer::TooManyColumns);
        }
        let text = TEXTS.iter().position(|known| known.as_bytes() == name);
        let number = NUMBERS.iter().position(|(known, _)| known.as_bytes() == name);
        let (column, seen, known) = match (text, number) {
            (Some(index), _) => (Column::Text(index), texts.get_mut(index), TEXTS.get(index).copied()),
            (_, Some(index)) => {
                (Column::Number(index), numbers.get_mut(index), NUMBERS.get(index).map(|(name, _)| *name))
            }
            _ => (Column::Unread, None, None),
        };
        if let (Some(seen), Some(column)) = (seen, known)
            && core::mem::replace(seen, true)
        {
            return Err(NotAnswer::Twice { column });
        }
        columns.push(column);
    }
    let missing = TEXTS.iter().zip(texts).take(TEXTS_NEEDED).find(|(_, seen)| !seen);
    if let Some((column, _)) = missing {
        return Err(NotAnswer::Missing { column });
    }
    Ok(columns)
}

impl<'a> Iterator for Stat<'a> {
    type Item = Result<StatRow<'a>, BadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.text.get(self.at) == Some(&b'\n') {
            self.at += 1;
            self.line += 1;
        }
        if self.at >= self.text.len() {
            return None;
        }
        let (start, line) = (self.at, self.line);
        let mut fields = Fields::new(self.text, start);
        let row = row(&self.columns, &mut fields);
        // A row may hold line ends in quotes. One whose end was not found is broken, its quotes cannot be trusted, and the next
        // line is tried. A line is read twice at most all the same: to go on over its end it takes an odd number of quotes, and
        // then the next such line ends the row before it.
        self.at = fields.row_end().unwrap_or_else(|| {
            let left = rest(self.text, start);
            start + memchr::memchr(b'\n', left).map_or(left.len(), |length| length + 1)
        });
        self.line += memchr::memchr_iter(b'\n', part(self.text, start, self.at)).count() as u64;
        Some(row.map_err(|reason| BadRow { line, reason }))
    }
}

/// One row. All its fields are parted before the value of one can be the reason, so that the next row is found.
fn row<'a>(columns: &[Column], fields: &mut Fields<'a>) -> Result<StatRow<'a>, RowReason> {
    let (mut texts, mut numbers) = (Texts::default(), Numbers::default());
    let (mut bad, mut found) = (None, 0);
    while let Some(field) = fields.next() {
        let field = field?;
        let column =
            columns.get(found).ok_or(RowReason::Fields { expected: columns.len(), found: found + 1 })?;
        found += 1;
        if let Err(reason) = fill(*column, field, &mut texts, &mut numbers) {
            bad = bad.or(Some(reason));
        }
    }
    if found != columns.len() {
        return Err(RowReason::Fields { expected: columns.len(), found });
    }
    match bad {
        Some(reason) => Err(reason),
        None => named(texts, numbers),
    }
}

fn fill<'a>(
    column: Column,
    field: RawField<'a>,
    texts: &mut Texts<'a>,
    numbers: &mut Numbers,
) -> Result<(), RowReason> {
    match column {
        Column::Text(index) => {
            if let (Some(text), Some(column)) = (texts.get_mut(index), TEXTS.get(index)) {
                let found = field.text().ok_or(RowReason::NotText { column })?;
                *text = Some(found).filter(|found| !found.is_empty());
            }
        }
        Column::Number(index) => {
            if let Some((column, slot)) = NUMBERS.get(index) {
                *slot(numbers) = number(column, field)?;
            }
        }
        Column::Unread => {}
    }
    Ok(())
}

fn number(column: &'static str, field: RawField<'_>) -> Result<Option<u64>, RowReason> {
    let bytes = field.bytes();
    if bytes.is_empty() {
        return Ok(None);
    }
    let number = whole_number(&bytes);
    number.map(Some).ok_or_else(|| RowReason::BadNumber { column, found: Snippet::new(&bytes) })
}

fn named<'a>(texts: Texts<'a>, numbers: Numbers) -> Result<StatRow<'a>, RowReason> {
    let [proxy, server, kind, status, mode, addr] = texts;
    let proxy = proxy.ok_or(RowReason::Missing { column: "pxname" })?;
    let server = server.ok_or(RowReason::Missing { column: "svname" })?;
    let kind = match kind.ok_or(RowReason::Missing { column: "type" })?.as_ref() {
        "0" => Kind::Frontend,
        "1" => Kind::Backend,
        "2" => Kind::Server,
        "3" => Kind::Listener,
        other => return Err(RowReason::BadNumber { column: "type", found: Snippet::new(other.as_bytes()) }),
    };
    Ok(StatRow { proxy, server, kind, status, mode, addr, numbers })
}
