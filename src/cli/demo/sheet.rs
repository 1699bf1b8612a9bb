//! The balance sheet: every number of the demo beside the one that it must equal.
//!
//! Pure. What it says is computed from both sides, never asserted.

use std::time::Duration;

use super::ask::Numbers;
use super::cost::Cost;
use super::screen::{Ink, Palette, batches};
use super::writer::Written;
use crate::cli::receiver::Stats;
use crate::cli::{grouped, size};
use crate::record::Stream;

/// Column of the numbers. With it, and notes of at most 30 characters, a row fits into 80 columns.
const LABEL_WIDTH: usize = 36;
/// Width of the numbers.
const NUMBER_WIDTH: usize = 10;

/// The most that waited at one moment of an outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    pub(super) lines: u64,
    pub(super) batches: u64,
    /// Beside what the spool has reserved.
    pub(super) bytes: u64,
}

/// Everything that is known when all has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) elapsed: Duration,
    /// What the writer counted.
    pub(super) written: Written,
    /// What the agent counted.
    pub(super) numbers: Numbers,
    /// What the receiver counted.
    pub(super) stats: Stats,
    /// The sum of the summaries at the receiver.
    pub(super) summarised: u64,
    pub(super) outage: Duration,
    pub(super) peak: Peak,
    pub(super) cost: Cost,
    /// Somebody did not want to wait for the last lines.
    pub(super) left_early: bool,
}

/// How the account ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every equality holds.
    Balanced,
    /// Nothing is wrong, but lines were still on their way.
    LeftEarly {
        /// Lines that waited.
        held: u64,
    },
    /// These do not hold.
    Unbalanced(Vec<String>),
}

/// One equality, said so that its failure is understood.
struct Equality {
    what: &'static str,
    left: u64,
    right: u64,
}

impl Facts {
    /// Access lines at the receiver, each once.
    pub(super) fn received(&self) -> u64 {
        received(&self.stats)
    }

    /// Holds every number against its counterpart.
    pub(super) fn outcome(&self) -> Outcome {
        let numbers = &self.numbers;
        let equalities = [
            Equality { what: "lines written and lines read", left: self.written.lines, right: numbers.read },
            Equality { what: "lines read and lines shipped", left: numbers.read, right: numbers.shipped },
            Equality {
                what: "lines shipped and lines at the receiver",
                left: numbers.shipped,
                right: self.received(),
            },
            Equality { what: "lines held at the end", left: numbers.held, right: 0 },
            Equality { what: "lines filtered", left: numbers.filtered, right: 0 },
            Equality { what: "lines lost", left: numbers.lost, right: 0 },
            Equality {
                what: "lines read and requests counted with lines that are none",
                left: numbers.read,
                right: numbers.requests + numbers.unparsed,
            },
            Equality {
                what: "torn lines and lines not parsed",
                left: self.written.torn,
                right: numbers.unparsed,
            },
            Equality {
                what: "requests counted and the sum of the shipped summaries",
                left: numbers.requests,
                right: self.summarised,
            },
            Equality {
                what: "secrets written and secrets masked",
                left: self.written.secrets,
                right: numbers.redacted,
            },
            Equality { what: "batches with the key of another", left: self.stats.conflicts, right: 0 },
        ];
        let mut wrong: Vec<String> = equalities
            .iter()
            .filter(|equality| equality.left != equality.right)
            .map(|Equality { what, left, right }| {
                format!("{what}: {}, not {}", grouped(*left), grouped(*right))
            })
            .collect();
        if !numbers.balanced {
            wrong.push("the agent's own ledger does not balance".to_owned());
        }
        if wrong.is_empty() {
            Outcome::Balanced
        } else if self.left_early && numbers.balanced {
            Outcome::LeftEarly { held: self.written.lines.saturating_sub(self.received()) }
        } else {
            Outcome::Unbalanced(wrong)
        }
    }

    /// The sheet, with its verdict as the last lines.
    pub(super) fn render(&self, palette: Palette) -> String {
        let mut sheet = Sheet { palette, left_early: self.left_early, text: String::new() };
        let time = format!("the balance sheet after {:.0} s", self.elapsed.as_secs_f64());
        sheet.text.push_str(&format!("\n  {}\n\n", palette.paint(Ink::Strong, &time)));
        self.lines(&mut sheet);
        sheet.text.push('\n');
        self.costs(&mut sheet);
        sheet.text.push('\n');
        let verdict = match self.outcome() {
            Outcome::Balanced => palette.paint(Ink::Good, "balanced: every line is accounted for"),
            Outcome::LeftEarly { held } => {
                let left =
                    format!("left early: {} lines were still on their way, none was lost", grouped(held));
                palette.paint(Ink::Waiting, &left)
            }
            Outcome::Unbalanced(wrong) => {
                let lines: Vec<String> = wrong.iter().map(|wrong| format!("NOT BALANCED: {wrong}")).collect();
                palette.paint(Ink::Bad, &lines.join("\n  "))
            }
        };
        sheet.text.push_str(&format!("  {verdict}"));
        sheet.text
    }

    fn lines(&self, sheet: &mut Sheet) {
        let Facts { written, numbers, stats, .. } = self;
        let files = if written.files == 1 { "file" } else { "files" };
        sheet.row("lines written to the log", written.lines, &format!("in {} {files}", written.files));
        sheet.equal("lines read by the agent", numbers.read, written.lines, "");
        sheet.equal("lines shipped", numbers.shipped, numbers.read, "");
        sheet.equal("lines at the receiver", self.received(), numbers.shipped, "");
        sheet.equal("lines kept back by a setting", numbers.filtered, 0, "");
        sheet.equal("lines lost", numbers.lost, 0, "");
        sheet.row("batches that came twice", stats.duplicates, "known again, counted once");
        let torn = format!("and {} torn lines", written.torn);
        let requests = written.lines.saturating_sub(written.torn);
        sheet.equal("requests counted", numbers.requests, requests, &torn);
        sheet.equal("requests in the shipped summaries", self.summarised, numbers.requests, "");
        let secrets = format!("of {} in the log", grouped(written.secrets));
        sheet.equal("secrets masked before shipping", numbers.redacted, written.secrets, &secrets);
    }

    fn costs(&self, sheet: &mut Sheet) {
        let Facts { stats, peak, cost, .. } = self;
        if self.outage > Duration::ZERO {
            let spool = format!("lines: {}, {}", batches(peak.batches), size(peak.bytes));
            let label = format!("held at the most, in {:.0} s of outage", self.outage.as_secs_f64());
            sheet.row(&label, peak.lines, &spool);
        }
        let ratio = stats.bytes as f64 / stats.compressed_bytes.max(1) as f64;
        let sent = format!("of {}, {ratio:.1} to 1", size(stats.bytes));
        sheet.text_row("sent, compressed", &size(stats.compressed_bytes), &sent);
        let build = if cfg!(debug_assertions) { ", debug build" } else { "" };
        if let Some(cpu) = cost.agent_cpu {
            let share = cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(0.001) * 100.0;
            let of_core = format!("{share:.1} % of a core{build}");
            sheet.text_row("CPU of the agent's threads", &format!("{:.2} s", cpu.as_secs_f64()), &of_core);
        }
        if let Some(bytes) = cost.peak_bytes {
            sheet.text_row("memory at the most", &size(bytes), "agent and demo together");
        }
    }
}

/// Access lines that a receiver has, each once.
pub(super) fn received(stats: &Stats) -> u64 {
    stats.by_category.get(Stream::AccessLines.default_category()).copied().unwrap_or(0)
}

/// The text of the sheet while it grows.
struct Sheet {
    palette: Palette,
    /// Numbers that differ are then no fault.
    left_early: bool,
    text: String,
}

impl Sheet {
    /// A number that stands by itself.
    fn row(&mut self, label: &str, number: u64, note: &str) {
        self.text_row(label, &grouped(number), note);
    }

    /// A number that must equal another.
    fn equal(&mut self, label: &str, number: u64, other: u64, note: &str) {
        let mark = match number == other {
            true => self.palette.paint(Ink::Good, "ok"),
            false if self.left_early => self.palette.paint(Ink::Waiting, &format!("of {}", grouped(other))),
            false => self.palette.paint(Ink::Bad, &format!("NOT {}", grouped(other))),
        };
        let space = if note.is_empty() { "" } else { "  " };
        self.text_row(label, &grouped(number), &format!("{mark}{space}{note}"));
    }

    fn text_row(&mut self, label: &str, number: &str, note: &str) {
        self.text.push_str(&format!("  {label:<LABEL_WIDTH$}{number:>NUMBER_WIDTH$}  {note}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Palette = Palette { colored: false };

    fn facts() -> Facts {
        let mut stats = Stats { bytes: 80_000, compressed_bytes: 10_000, ..Stats::default() };
        stats.by_category.insert("watchpost/nginx/access".to_owned(), 1_000);
        Facts {
            elapsed: Duration::from_secs(20),
            written: Written { lines: 1_000, secrets: 7, torn: 2, files: 2 },
            numbers: Numbers {
                read: 1_000,
                shipped: 1_000,
                balanced: true,
                requests: 998,
                unparsed: 2,
                redacted: 7,
                ..Numbers::default()
            },
            stats,
            summarised: 998,
            outage: Duration::from_secs(5),
            peak: Peak { lines: 612, batches: 5, bytes: 40_960 },
            ..Facts::default()
        }
    }

    #[test]
    fn a_balanced_account_says_so() {
        assert_eq!(facts().outcome(), Outcome::Balanced);
        let text = facts().render(PLAIN);
        assert!(text.ends_with("balanced: every line is accounted for"), "{text}");
        for part in ["612  lines: 5 batches, 40.0 KiB", "8.0 to 1", "1,000  in 2 files"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("NOT") && !text.contains('\x1b'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn each_equality_can_fail() {
        type Change = fn(&mut Facts);
        let changes: [(&str, Change); 11] = [
            ("written", |facts| facts.written.lines += 1),
            ("shipped", |facts| facts.numbers.shipped -= 1),
            ("receiver", |facts| {
                facts.stats.by_category.clear();
            }),
            ("held", |facts| facts.numbers.held = 1),
            ("filtered", |facts| facts.numbers.filtered = 1),
            ("lost", |facts| facts.numbers.lost = 1),
            ("requests", |facts| facts.numbers.requests += 1),
            ("summaries", |facts| facts.summarised -= 1),
            ("torn", |facts| facts.written.torn = 0),
            ("secrets", |facts| facts.numbers.redacted = 0),
            ("ledger", |facts| facts.numbers.balanced = false),
        ];
        for (name, change) in changes {
            let mut facts = facts();
            change(&mut facts);
            let Outcome::Unbalanced(wrong) = facts.outcome() else { panic!("{name} was not noticed") };
            assert!(wrong.iter().any(|wrong| wrong.contains(name)), "{name}: {wrong:?}");
            assert!(facts.render(PLAIN).contains("NOT BALANCED"), "{name}");
        }
    }

    #[test]
    fn leaving_early_is_no_fault() {
        let mut facts = facts();
        facts.left_early = true;
        assert_eq!(facts.outcome(), Outcome::Balanced, "all had arrived");
        (facts.numbers.shipped, facts.numbers.held) = (900, 100);
        facts.stats.by_category.insert("watchpost/nginx/access".to_owned(), 900);
        assert_eq!(facts.outcome(), Outcome::LeftEarly { held: 100 });
        let text = facts.render(PLAIN);
        assert!(text.contains("100 lines were still on their way") && !text.contains("NOT"), "{text}");
        facts.numbers.balanced = false;
        assert!(matches!(facts.outcome(), Outcome::Unbalanced(_)));
    }
}
