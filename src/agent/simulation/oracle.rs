//! The independent judge. It knows what was written to the logs, what the destination took, and what the agent says
//! of itself at every tick; it knows nothing of how the agent works.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::record::LossReason;
use crate::status::{Ledger, Snapshot};

use super::destination::{Destination, Received};
use super::server::{Line, Server};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The name of the check.
    pub(super) check: &'static str,
    pub(super) detail: String,
}

pub(super) type Checked = Result<(), Broken>;

pub(super) fn broken(check: &'static str, detail: impl Into<String>) -> Checked {
    Err(Broken { check, detail: detail.into() })
}

fn ensure(check: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { broken(check, detail()) }
}

/// What faults may excuse.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excuses {
    /// Ends of lives after which the batch under way may be sent once more.
    pub(super) ends: u64,
    /// Batches that were taken while the disk refused, or as it began to, so that nobody could note it.
    pub(super) unnoted: u64,
}

/// Lines, by number.
type Numbers = BTreeSet<usize>;

/// What a set of batches holds.
#[derive(Debug, Default)]
struct Contents {
    lines: Numbers,
    /// Requests and unparsed lines of the summaries of all hosts.
    requests: u64,
    unparsed: u64,
}

/// At every tick: the account balances, claims nothing that did not happen, and agrees with the windows.
pub(super) fn check_tick(snapshot: &Snapshot, server: &Server, destination_lines: u64) -> Checked {
    let lines = snapshot.ledger.lines;
    let accounted = lines.shipped + lines.held + lines.filtered + lines.lost;
    ensure("ledger", lines.read == accounted && snapshot.ledger.balanced, || format!("{lines:?}"))?;
    let readable = server.readable_lines();
    ensure("read", lines.read <= readable, || format!("{} lines read of {readable}", lines.read))?;
    ensure("shipped", lines.shipped <= destination_lines, || {
        format!("{} lines shipped, {destination_lines} were taken", lines.shipped)
    })?;
    let spool = &snapshot.spool;
    ensure("cap", spool.bytes <= spool.bytes_max, || format!("{} of {}", spool.bytes, spool.bytes_max))?;
    let counted = snapshot.counted_lines;
    ensure("counts", counted == lines.read, || format!("{counted} lines counted, {} read", lines.read))
}

/// The answer to who asks counts as many lines as the balance. Not at every tick: most of a run would go into JSON.
fn check_answer(snapshot: &Snapshot) -> Checked {
    let totals = &snapshot.web["totals"];
    let counted = number(totals, "requests") + number(totals, "unparsed");
    ensure("answer", counted == snapshot.counted_lines, || format!("{counted} lines in {totals}"))
}

/// A new life knows what the last one had said was shipped.
pub(super) fn check_start(snapshot: &Snapshot, shipped_before: u64) -> Checked {
    check_answer(snapshot)?;
    let shipped = snapshot.ledger.lines.shipped;
    ensure("forgotten", shipped >= shipped_before, || {
        format!("{shipped} lines shipped after the start, {shipped_before} before it")
    })
}

/// Whether nothing waits by what the agent says. The end can be judged where nothing is [`missing`] either.
pub(super) fn is_idle(snapshot: &Snapshot) -> bool {
    snapshot.ledger.lines.held == 0 && snapshot.spool.batches == 0
}

/// The lines that may be asked for and have not come, by their numbers alone: whether the others came as they were
/// written [`check_end`] says.
pub(super) fn missing(server: &Server, destination: &Destination) -> Vec<usize> {
    let mut came = vec![false; server.lines().len()];
    let Destination { received, refused, too_large, .. } = destination;
    let batches = received.values().chain(refused.values()).chain(too_large.values());
    for record in batches.filter(|batch| batch.is_lines).flat_map(|batch| batch.text.lines()) {
        if let Some(came) = number_in(record).and_then(|number| came.get_mut(number)) {
            *came = true;
        }
    }
    let required = server.lines().iter().zip(came).enumerate();
    required.filter(|(_, (line, came))| is_required(line) && !came).map(|(number, _)| number).collect()
}

fn is_required(line: &Line) -> bool {
    !line.optional && (line.complete || line.abandoned)
}

/// At the end: exactly once, and every number is the same number.
pub(super) fn check_end(
    snapshot: &Snapshot,
    server: &Server,
    destination: &Destination,
    excuses: Excuses,
) -> Checked {
    check_answer(snapshot)?;
    check_repeats(destination, excuses)?;
    let taken = contents(destination.received.iter(), server, true)?;
    let not_taken = |batches: &BTreeMap<String, Received>| -> Result<Contents, Broken> {
        let rest = batches.iter().filter(|(key, _)| !destination.received.contains_key(*key));
        let mut contents = contents(rest, server, false)?;
        contents.lines.retain(|line| !taken.lines.contains(line));
        Ok(contents)
    };
    let refused = not_taken(&destination.refused)?;
    let mut too_large = not_taken(&destination.too_large)?;
    too_large.lines.retain(|line| !refused.lines.contains(line));
    let settled = |number: &usize| {
        taken.lines.contains(number) || refused.lines.contains(number) || too_large.lines.contains(number)
    };
    for (number, line) in server.lines().iter().enumerate() {
        ensure("lost line", !is_required(line) || settled(&number), || format!("line {number}: {line:?}"))?;
    }
    let ledger = &snapshot.ledger;
    let gone = lost(ledger, LossReason::Truncated) + lost(ledger, LossReason::Removed);
    let untold = |(number, line): &(usize, &Line)| line.optional && !settled(number);
    let losable = server.lines().iter().enumerate().filter(untold).count() as u64;
    ensure("gone", gone <= losable, || format!("{gone} lines lost in files, {losable} may be"))?;
    let all = (taken.lines.len() + refused.lines.len() + too_large.lines.len()) as u64 + gone;
    ensure("held", ledger.lines.held == 0, || format!("{:?}", ledger.lines))?;
    ensure("read at the end", ledger.lines.read == all, || {
        format!("{:?}, but {all} lines came or were refused", ledger.lines)
    })?;
    check_losses(ledger, &taken, &refused, &too_large)?;
    let given_up = contents(given_up(destination), server, false)?;
    check_requests(snapshot, server, [&taken, &refused, &too_large], gone)?;
    check_summaries(snapshot, &taken, &given_up)
}

/// The batches that nobody sends again in any form: one that is too large is split, unless it holds one record only.
fn given_up(destination: &Destination) -> impl Iterator<Item = (&String, &Received)> {
    let Destination { received, refused, too_large, .. } = destination;
    let single = too_large.iter().filter(|(_, batch)| batch.text.lines().count() == 1);
    refused.iter().chain(single).filter(|(key, _)| !received.contains_key(*key))
}

/// A batch comes once, or with the same bytes again where an answer or a process was lost.
fn check_repeats(destination: &Destination, excuses: Excuses) -> Checked {
    let mut repeats = 0;
    for (key, received) in &destination.received {
        ensure("key", !received.conflict, || format!("{key} came with other bytes"))?;
        repeats += received.times - 1;
    }
    let excused = destination.repeats_excused + excuses.ends + excuses.unnoted;
    ensure("repeats", repeats <= excused, || format!("{repeats} repeats, {excused} excused"))
}

fn check_losses(ledger: &Ledger, taken: &Contents, refused: &Contents, too_large: &Contents) -> Checked {
    // No bit of this disk turns over: not when it is full, and not when it does not read for a while.
    let damaged = lost(ledger, LossReason::Corrupted);
    ensure("damage", damaged == 0, || format!("{:?}", ledger.lost))?;
    ensure("shipped at the end", ledger.lines.shipped == taken.lines.len() as u64, || {
        format!("{:?}, but {} lines came", ledger.lines, taken.lines.len())
    })?;
    for (reason, expected) in [
        (LossReason::Refused, refused.lines.len() as u64),
        (LossReason::TooLarge, too_large.lines.len() as u64),
        (LossReason::SpoolFull, 0),
    ] {
        let counted = lost(ledger, reason);
        ensure("losses", counted == expected, || {
            format!("{counted} lines {}, expected {expected}", reason.name())
        })?;
    }
    Ok(())
}

/// What is counted of requests is what the lines that came and those that were given up say.
fn check_requests(snapshot: &Snapshot, server: &Server, all: [&Contents; 3], gone: u64) -> Checked {
    let totals = &snapshot.web["totals"];
    let (requests, unparsed) = (number(totals, "requests"), number(totals, "unparsed"));
    let all = || all.iter().flat_map(|contents| contents.lines.iter());
    let expected = all().filter(|number| server.lines()[**number].is_request).count() as u64;
    // What was counted and then lost with its file may have been either.
    let others = all().count() as u64 - expected;
    let in_sum = requests + unparsed == expected + others + gone;
    ensure("totals", in_sum && requests >= expected && unparsed >= others, || {
        format!(
            "{requests} requests and {unparsed} unparsed counted, {expected} requests of {}",
            all().count()
        )
    })
}

/// The summaries that came, and those that were given up, add up to what is counted. They are told apart by their batches: two
/// corrections of one interval may be the same word for word.
fn check_summaries(snapshot: &Snapshot, taken: &Contents, given_up: &Contents) -> Checked {
    let totals = &snapshot.web["totals"];
    let counted = (number(totals, "requests"), number(totals, "unparsed"));
    let told = (taken.requests + given_up.requests, taken.unparsed + given_up.unparsed);
    ensure("summaries", told == counted, || {
        format!("{told:?} requests and unparsed lines in summaries, {counted:?} counted")
    })
}

/// Reads batches; every line must stand there as it was written, and in one batch only.
fn contents<'a>(
    batches: impl Iterator<Item = (&'a String, &'a Received)>,
    server: &Server,
    once: bool,
) -> Result<Contents, Broken> {
    let mut contents = Contents::default();
    for (key, received) in batches {
        if received.is_lines {
            for record in received.text.lines() {
                let number = line_number(record, server)?;
                let is_new = contents.lines.insert(number);
                ensure("twice", is_new || !once, || format!("line {number} came again under {key}"))?;
            }
        } else if received.is_summaries {
            for record in received.text.lines() {
                let (requests, unparsed) = summary(record)?;
                contents.requests += requests;
                contents.unparsed += unparsed;
            }
        }
    }
    Ok(contents)
}

/// The number that every line has between two tildes.
fn number_in(record: &str) -> Option<usize> {
    record.split('~').nth(1)?.parse().ok()
}

/// Which line a record is, if it is one, word for word.
fn line_number(record: &str, server: &Server) -> Result<usize, Broken> {
    let strange = || Broken { check: "line", detail: format!("no line that was written: {record}") };
    let number = number_in(record).ok_or_else(strange)?;
    let line = server.lines().get(number).ok_or_else(strange)?;
    let rest = record.split_once("\"log\":\"").map(|(_, rest)| rest).ok_or_else(strange)?;
    let marks = strip_quoted(rest, &line.text).ok_or_else(strange)?;
    let expected = if line.abandoned { marks == "\",\"partial\":true}" } else { marks == "\"}" };
    if expected { Ok(number) } else { Err(strange()) }
}

/// What follows a text as JSON has it.
fn strip_quoted<'a>(record: &'a str, text: &str) -> Option<&'a str> {
    let mut pieces = text.split('"');
    let rest = record.strip_prefix(pieces.next()?)?;
    pieces.try_fold(rest, |rest, piece| rest.strip_prefix("\\\"")?.strip_prefix(piece))
}

/// What counts of a summary; the rest of it must be JSON, and is passed over.
#[derive(Deserialize)]
struct SummaryRecord<'a> {
    #[serde(borrow)]
    vhost: Option<Cow<'a, str>>,
    requests: Option<u64>,
    unparsed: Option<u64>,
}

/// Requests and unparsed lines of all hosts together; those of one host count for nothing.
fn summary(record: &str) -> Result<(u64, u64), Broken> {
    let unread = |error| Broken { check: "summary", detail: format!("{error}: {record}") };
    let record: SummaryRecord<'_> = serde_json::from_str(record).map_err(unread)?;
    let is_all = record.vhost.as_deref() == Some("_all");
    let number = |number: Option<u64>| number.filter(|_| is_all).unwrap_or(0);
    Ok((number(record.requests), number(record.unparsed)))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn lost(ledger: &Ledger, reason: LossReason) -> u64 {
    ledger.lost.iter().filter(|loss| loss.reason == reason).map(|loss| loss.lines).sum()
}
