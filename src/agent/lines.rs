//! What becomes of one line: parsed, counted, filtered, masked, and put into the batch.
//!
//! Invariant: a line is counted in the same step in which it goes into the batch (or is filtered), so the two
//! never disagree, whatever the batch does next.

use watchpost_parsers::routes::Routes;
use watchpost_parsers::{AccessLine, Unparsed};

use super::ledger::Account;
use super::line_reader::LineReader;
use super::plan::LogPlan;
use crate::batch::redact::Redactor;
use crate::batch::{Added, Builder, line};
use crate::config::{Redact, ShipLines};
use crate::follow::{Flow, Line, identity};
use crate::mutant::{Mutant, is_on};
use crate::record::EpochMs;
use crate::window::{Request, Windows};

/// First status that counts as an error for `WATCHPOST_SHIP_LINES=errors`.
const FIRST_ERROR_STATUS: u16 = 400;

/// Times of 13 digits, which is what a record must begin with; a line that tells another is shipped with the time
/// at which it was read.
const TIMESTAMPS_MS: std::ops::Range<EpochMs> = 1_000_000_000_000..10_000_000_000_000;

/// Parses the lines of one file.
#[derive(Debug)]
pub(super) struct Reader {
    lines: LineReader,
    /// Lines of this file that did not parse, since this start.
    pub(super) unparsed: u64,
    /// Whether the file was read to its end at the last turn.
    pub(super) caught_up: bool,
}

impl Reader {
    /// A reader for the files of a plan.
    pub(super) fn new(plan: &LogPlan) -> Reader {
        Reader { lines: LineReader::new(plan), unparsed: 0, caught_up: false }
    }
}

/// Which lines are shipped, and how they are made presentable.
#[derive(Debug)]
pub(super) struct Shipping {
    which: ShipLines,
    redactor: Option<Redactor>,
    record_bytes_max: usize,
    masked: Vec<u8>,
}

impl Shipping {
    /// Ships `which` lines in records of at most `record_bytes_max` bytes.
    pub(super) fn new(which: ShipLines, redact: &Redact, record_bytes_max: u32) -> Shipping {
        let redactor = match redact {
            Redact::Off => None,
            Redact::On { extra } => Some(Redactor::new(extra)),
        };
        // One byte of the limit is the newline behind the record.
        Shipping { which, redactor, record_bytes_max: record_bytes_max as usize - 1, masked: Vec::new() }
    }

    /// Whether a line goes out. Lines that did not parse are as interesting as errors. A sample is drawn
    /// by a hash of the line and its place, so that reading it again after a crash decides the same.
    fn wants(&self, parsed: Option<&AccessLine<'_>>, line: &Line<'_>) -> bool {
        let error =
            || parsed.is_none_or(|parsed| parsed.status.is_some_and(|status| status >= FIRST_ERROR_STATUS));
        match self.which {
            ShipLines::All => true,
            ShipLines::None => false,
            ShipLines::Errors => error(),
            ShipLines::Sample(share) => {
                let drawn = identity::hash(line.bytes) ^ line.offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let unit = (drawn.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 11) as f64 / (1u64 << 53) as f64;
                error() || unit < share
            }
        }
    }
}

/// Where lines go.
pub(super) struct Sink<'a> {
    /// The account of lines.
    pub(super) account: &'a mut Account,
    /// The counts of requests.
    pub(super) windows: &'a mut Windows,
    /// The routes of the paths that come again and again.
    pub(super) routes: &'a mut Routes,
    /// The open batch of lines.
    pub(super) builder: &'a mut Builder,
    /// What is shipped.
    pub(super) shipping: &'a mut Shipping,
    /// Number of the file in the windows.
    pub(super) file: u32,
    /// When the lines are read, by the wall clock.
    pub(super) read_at: EpochMs,
}

impl Sink<'_> {
    /// Takes one line, or refuses it because the batch is full; a refused line was not counted. One that was counted
    /// before is not counted again.
    pub(super) fn take(&mut self, reader: &mut Reader, line: Line<'_>) -> Flow {
        let mut parsed = AccessLine::default();
        let result = reader.lines.parse(line.bytes, &mut parsed).map(|()| &parsed);
        let parsed = result.ok();
        let wanted = self.shipping.wants(parsed, &line);
        let time_ms = parsed.and_then(|parsed| parsed.time_ms);
        let timestamp = time_ms.filter(|time| TIMESTAMPS_MS.contains(time)).unwrap_or(self.read_at);
        if wanted && self.add(&line, timestamp) != Added::Yes {
            if is_on(Mutant::CountsRefusedLine) {
                self.account.read_line();
            }
            return Flow::Refuse;
        }
        self.account.taken_line(!wanted);
        if !line.counted || is_on(Mutant::CountsTwice) {
            self.observe(result, &mut reader.unparsed);
        }
        Flow::Continue
    }

    /// Counts a line that waits in its file to be taken.
    pub(super) fn count(&mut self, reader: &mut Reader, line: Line<'_>) -> Flow {
        let mut parsed = AccessLine::default();
        let result = reader.lines.parse(line.bytes, &mut parsed).map(|()| &parsed);
        self.observe(result, &mut reader.unparsed);
        Flow::Continue
    }

    fn observe(&mut self, result: Result<&AccessLine<'_>, Unparsed>, unparsed: &mut u64) {
        self.account.read_line();
        match result {
            Ok(parsed) => {
                let known = self.routes.of(parsed.method, parsed.target);
                let request = Request {
                    time_ms: parsed.time_ms,
                    status: parsed.status.unwrap_or(0),
                    bytes_sent: parsed.bytes_sent.unwrap_or(0),
                    request_time_ms: parsed.request_time_ms,
                    vhost: parsed.vhost,
                    route: known.route,
                    route_row: *known.note,
                };
                *known.note = self.windows.observe(self.file, self.read_at, &request);
            }
            Err(reason) => {
                *unparsed += 1;
                self.account.unparsed_line(reason.name());
                self.windows.observe_unparsed(self.read_at);
            }
        }
    }

    /// Puts the line into the batch, masked where it must be.
    fn add(&mut self, line: &Line<'_>, timestamp: EpochMs) -> Added {
        let shipping = &mut *self.shipping;
        let masked =
            shipping.redactor.as_ref().and_then(|redactor| redactor.mask(line.bytes, &mut shipping.masked));
        let redacted = masked.is_some();
        let text = masked.unwrap_or(line.bytes);
        let original_bytes = line.cut.then_some(line.length);
        let marks = line::Marks { original_bytes, partial: line.partial };
        let record_bytes_max = shipping.record_bytes_max;
        let mut cut = false;
        let added = self.builder.add(1, |out| {
            cut = line::write(out, timestamp, text, marks, record_bytes_max);
        });
        assert!(added != Added::TooLarge, "a record is cut to fit a batch of its own");
        if added == Added::Yes {
            self.account.redacted += u64::from(redacted);
            self.account.cut += u64::from(cut);
        }
        added
    }
}
