//! A day without a destination, with a clock that the test moves: the pipeline, the spool and the mailbox as they are,
//! and the sender's own decisions. Only the network is left out.

use std::time::Duration;

use super::*;
use crate::ship::{Answer, Backoff, BackoffLimits, Decision, Outgoing, Verdict, decide};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Between two looks of the pipeline, which asks for the sender's next attempt as often.
const STEP_MS: u64 = 30_000;
const LINES_PER_STEP: u64 = 15;

/// The sender without its requests: what it holds, and when it asks again.
struct Sender {
    backoff: Backoff,
    holds: Option<(Outgoing, Instant)>,
    attempts: u64,
    /// What was accepted, in order.
    accepted: Vec<Outgoing>,
}

impl Sender {
    fn new() -> Sender {
        let backoff = Backoff::new(BackoffLimits::default(), 24);
        Sender { backoff, holds: None, attempts: 0, accepted: Vec::new() }
    }

    /// Asks if it is time to; how long it waits then, if it does.
    fn step(&mut self, mailbox: &Mailbox, now: Now, is_up: bool) -> Option<Duration> {
        let (outgoing, due) = match self.holds.take() {
            Some(held) => held,
            None => (mailbox.begin()?, now.monotonic),
        };
        if now.monotonic < due {
            self.holds = Some((outgoing, due));
            return None;
        }
        self.attempts += 1;
        let answer = if is_up {
            Answer::Accepted { warning: None }
        } else {
            Answer::Retry { message: "connect: connection refused".to_owned(), retry_after: None }
        };
        match decide(&answer, 0, &mut self.backoff) {
            Decision::Done(verdict) => {
                assert_eq!(verdict, Verdict::Accepted { warning: None });
                mailbox.judge(outgoing.seq, verdict);
                self.accepted.push(outgoing);
                None
            }
            Decision::Again { wait, .. } => {
                self.holds = Some((outgoing, now.monotonic + wait));
                Some(wait)
            }
        }
    }
}

/// The log lines of a batch.
fn lines_of(batch: &Outgoing) -> Vec<String> {
    let text = decompress(&batch.body, batch.raw_bytes as usize).expect("gzip");
    let records = String::from_utf8(text).expect("text");
    let records = records.lines().map(|record| serde_json::from_str::<Value>(record).expect("a JSON record"));
    records.filter_map(|record| record["log"].as_str().map(str::to_owned)).collect()
}

fn requests_of(batch: &Outgoing) -> u64 {
    let text = decompress(&batch.body, batch.raw_bytes as usize).expect("gzip");
    String::from_utf8_lossy(&text).lines().map(requests_of_all).sum()
}

#[test]
fn a_day_of_outage_is_kept_under_the_cap_and_drained_oldest_first() {
    const CAP_BYTES: u64 = 16 << 20;
    let settings = [("SPOOL_MAX", "16MiB"), ("FLUSH_INTERVAL", "60s"), ("SUMMARY_INTERVAL", "60s")];
    // In memory where there is a place for that: a day has thousands of syncs.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let mut bench = Bench::in_directory(directory.expect("a temporary directory"), &settings);
    let mailbox = Arc::clone(&bench.pipeline.mailbox);
    let mut sender = Sender::new();
    let mut longest_wait = Duration::ZERO;
    for step in 0..DAY_MS / STEP_MS {
        bench.write("a.log", LINES_PER_STEP);
        bench.tick(STEP_MS);
        let wait = sender.step(&mailbox, bench.now(), false);
        longest_wait = longest_wait.max(wait.unwrap_or_default());
        let ledger = bench.ledger();
        assert_eq!(ledger["balanced"], true, "step {step}: {ledger}");
        assert_eq!(
            (&ledger["lines"]["shipped"], &ledger["lines"]["lost"]),
            (&0.into(), &0.into()),
            "{ledger}"
        );
        let spool = bench.pipeline.spool.status();
        assert!(spool.bytes <= CAP_BYTES, "step {step}: {spool:?}");
        assert!(!bench.pipeline.is_blocked(), "step {step}: the cap was reached: {spool:?}");
    }
    let (written, attempts) = (bench.written, sender.attempts);
    let held = bench.pipeline.spool.status();
    // One batch is tried again and again: on average after half a minute, at the latest after one.
    assert!((DAY_MS / 90_000..=DAY_MS / STEP_MS).contains(&attempts), "{attempts} attempts");
    assert!(
        longest_wait > Duration::from_secs(50) && longest_wait <= Duration::from_secs(60),
        "{longest_wait:?}"
    );
    assert!(held.batches > 2 * 1_400, "lines and summaries of each minute: {held:?}");

    bench.restart();
    // A kill at the end of the day: the sender begins anew, and everything waits as it did.
    let mailbox = Arc::clone(&bench.pipeline.mailbox);
    sender = Sender::new();
    let mut shipped_before = 0;
    while bench.pipeline.spool.status().batches > 0 {
        sender.step(&mailbox, bench.now(), true);
        bench.tick(100);
        let ledger = bench.ledger();
        assert_eq!(ledger["balanced"], true, "{ledger}");
        let shipped = ledger["lines"]["shipped"].as_u64().expect("a count");
        assert!(shipped >= shipped_before, "{ledger}");
        shipped_before = shipped;
    }
    assert_eq!(shipped_before, written);
    println!(
        "a day of outage: {written} lines in {} batches of {} bytes, {attempts} attempts meanwhile",
        held.batches, held.bytes
    );
    check_drained(&mut bench, &sender);
}

/// In order, each once, and the summaries count the same requests.
fn check_drained(bench: &mut Bench, sender: &Sender) {
    let seqs: Vec<u64> = sender.accepted.iter().map(|batch| batch.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "oldest first, each once");
    let arrived: Vec<String> = sender.accepted.iter().flat_map(lines_of).collect();
    let log = fs::read_to_string(bench.path("a.log")).expect("the log");
    assert!(arrived.iter().map(String::as_str).eq(log.lines()), "{} lines arrived", arrived.len());
    let shipped: u64 = sender.accepted.iter().map(requests_of).sum();
    let open = bench.pipeline.windows.close_summaries(true);
    let open: u64 = open.iter().map(|summary| requests_of_all(&summary.to_json())).sum();
    assert_eq!(shipped + open, bench.written, "requests in shipped summaries and in those that are open");
}
