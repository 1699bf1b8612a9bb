//! Everything that happens to a log, in any order: compositions of actions from a seed, each run against the oracle.
//!
//! A composition that fails is made as short as it can be, and printed with the command that runs it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::World;
use crate::follow::ROTATE_GRACE;

/// Compositions in an ordinary run of the tests.
const COMPOSITIONS: u64 = 500;

/// Actions of the longest composition.
const ACTIONS_MAX: usize = 40;

/// Rotated logs that are kept.
const KEPT: u32 = 4;

/// How rotation names what it moves away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// All stay plain.
    Never,
    /// At once.
    Now,
    /// One rotation later, as with `delaycompress`.
    Later,
}

/// Something that happens. What cannot happen as things stand is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Write(u64),
    WritePiece,
    /// A process opens the log, and keeps it.
    Hold,
    WriteHeld(u64),
    /// logrotate by renaming; whether the new log is made at once.
    Rotate(Packing, bool),
    RotateToDate,
    /// logrotate by copying; lines that are written between the copy and the cut.
    Copytruncate(u64),
    Truncate,
    /// Cut, and lines behind a hole.
    TruncateUnderWriter,
    Unlink,
    UnlinkOldest,
    ReplaceByCopy,
    Backup,
    HardLink,
    SameInode,
    Poll,
    Commit,
    Crash,
    Restart,
    Down,
    Up,
    Pass(u64),
    Full(bool),
    Failing(bool),
    Denied(bool),
}

/// What is wrong with the world on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The oracle asks for a line that nobody wrote.
    OneLineMore,
    /// Each line is handed out twice.
    Twice,
    /// No file is seen to grow after its open.
    ClosedAtFirstEnd,
    /// Positions are forgotten at each start.
    Forgetful,
    /// The inode alone tells files apart.
    InodeOnly,
    /// Nobody says what was lost.
    Silent,
    /// More is said to be lost than was.
    Overstated,
}

/// The actions of a seed.
pub(super) fn actions(seed: u64) -> Vec<Action> {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = random.usize(5..ACTIONS_MAX);
    (0..count).map(|_| action(&mut random)).collect()
}

fn action(random: &mut fastrand::Rng) -> Action {
    let packing = [Packing::Never, Packing::Now, Packing::Later][random.usize(..3)];
    match random.u32(..100) {
        0..22 => Action::Write(random.u64(1..4)),
        22..25 => Action::WritePiece,
        25..27 => Action::Hold,
        27..32 => Action::WriteHeld(random.u64(1..3)),
        32..42 => Action::Rotate(packing, random.bool()),
        42..44 => Action::RotateToDate,
        44..49 => Action::Copytruncate(random.u64(..2)),
        49..51 => Action::Truncate,
        51..52 => Action::TruncateUnderWriter,
        52..54 => Action::Unlink,
        54..55 => Action::UnlinkOldest,
        55..57 => Action::ReplaceByCopy,
        57..58 => Action::Backup,
        58..59 => Action::HardLink,
        59..60 => Action::SameInode,
        60..78 => Action::Poll,
        78..83 => Action::Commit,
        83..86 => Action::Crash,
        86..88 => Action::Restart,
        88..91 => Action::Down,
        91..93 => Action::Up,
        93..96 => Action::Pass([5, 10, 40, 4_000][random.usize(..4)]),
        96..98 => Action::Full(random.bool()),
        98..99 => Action::Failing(random.bool()),
        _ => Action::Denied(random.bool()),
    }
}

fn pattern(seed: u64) -> &'static str {
    ["a.log", "*.log", "a.log*"][(seed % 3) as usize]
}

/// Carries out actions and says what is wrong then.
pub(super) fn run(seed: u64, actions: &[Action], fault: Fault) -> Vec<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(&[pattern(seed)]);
        // The log is known before anything happens to it: rotated ones of a log that nobody knew are not ours.
        world.write("a.log", 1);
        world.poll();
        world.commit();
        let mut rules = world.lab.rules();
        rules.is_frozen = fault == Fault::ClosedAtFirstEnd;
        rules.is_birthless = fault == Fault::InodeOnly;
        drop(rules);
        world.repeats = if fault == Fault::Twice { 2 } else { 1 };
        world.is_silent = fault == Fault::Silent;
        world.is_forgetful = fault == Fault::Forgetful;
        for action in actions {
            world.act(*action);
        }
        world.end(fault)
    }));
    outcome.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        vec![message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()]
    })
}

impl World {
    fn act(&mut self, action: Action) {
        let exists = self.path("a.log").exists();
        match action {
            Action::Write(lines) => drop(self.write("a.log", lines)),
            Action::WritePiece if !self.has_begun() => drop(self.write_piece("a.log")),
            Action::Hold => self.hold("a.log"),
            Action::WriteHeld(lines) if self.is_held() && !self.has_begun() => self.write_held(lines),
            Action::Rotate(packing, creates) if exists => self.rotate(packing, creates),
            Action::RotateToDate if exists => {
                let name =
                    (1..).map(|day| format!("a.log-202611{day:02}")).find(|name| !self.path(name).exists());
                self.rename("a.log", &name.expect("days enough"));
            }
            Action::Copytruncate(lines) if exists => {
                self.shift();
                self.copytruncate("a.log", "a.log.1", lines);
            }
            Action::Truncate if exists => self.truncate("a.log"),
            Action::TruncateUnderWriter if exists => {
                self.truncate("a.log");
                self.write_behind_hole("a.log", 700);
            }
            Action::Unlink if exists => self.unlink("a.log"),
            Action::UnlinkOldest => self.unlink_oldest(),
            Action::ReplaceByCopy if exists && !self.has_begun() => self.replace_by_copy("a.log"),
            Action::Backup if exists => self.copy("a.log", "a.log.bak"),
            Action::HardLink if self.can_link("a.log", "a.log.link") => {
                std::fs::hard_link(self.path("a.log"), self.path("a.log.link")).expect("a link");
                // Between two looks a link that stays and a name that goes look like a rename.
                self.poll();
                self.commit();
            }
            Action::SameInode if exists => drop(self.recreate_on_same_inode("a.log")),
            Action::Poll => self.poll(),
            Action::Commit => self.commit(),
            Action::Crash => {
                self.crash();
                self.start();
            }
            Action::Restart => self.restart(),
            Action::Down => self.stop(),
            Action::Up if self.follower.is_none() => self.start(),
            Action::Pass(seconds) => {
                // A look before and after: who writes to a rotated log has the grace for it, and no more.
                self.poll();
                self.pass(Duration::from_secs(seconds));
                if Duration::from_secs(seconds) >= ROTATE_GRACE {
                    self.let_go();
                }
                self.poll();
            }
            Action::Full(is_full) => self.is_full = is_full,
            Action::Failing(is_failing) => {
                let path = self.path("a.log");
                let failing = &mut self.lab.rules().failing;
                failing.clear();
                failing.extend(is_failing.then(|| (path, rustix::io::Errno::IO.raw_os_error())));
            }
            Action::Denied(is_denied) => {
                let path = self.path("a.log");
                let denied = &mut self.lab.rules().denied;
                denied.clear();
                denied.extend(is_denied.then_some(path));
            }
            _ => {}
        }
    }

    /// Whether there is a log to link, and an agent that can see it.
    fn can_link(&self, name: &str, link: &str) -> bool {
        let is_seen = self.follower.is_some() && self.refused().is_empty();
        is_seen && self.path(name).exists() && !self.path(link).exists()
    }

    /// Makes room for `a.log.1`, as logrotate does.
    fn shift(&mut self) {
        for number in (1..=KEPT).rev() {
            for ending in ["", ".gz"] {
                let from = format!("a.log.{number}{ending}");
                if !self.path(&from).exists() {
                    continue;
                }
                if number == KEPT {
                    self.unlink(&from);
                } else {
                    self.rename(&from, &format!("a.log.{}{ending}", number + 1));
                }
            }
        }
    }

    fn rotate(&mut self, packing: Packing, creates: bool) {
        self.shift();
        self.rename("a.log", "a.log.1");
        if creates {
            self.create("a.log");
        }
        let packed = match packing {
            Packing::Never => return,
            Packing::Now => "a.log.1",
            Packing::Later => "a.log.2",
        };
        // A process that holds the log writes to a file that is no more once it is packed: nobody could read that.
        if self.path(packed).exists() && !self.path(&format!("{packed}.gz")).exists() {
            self.let_go();
            self.compress(packed);
        }
    }

    fn unlink_oldest(&mut self) {
        let names =
            (1..=KEPT).rev().flat_map(|number| [format!("a.log.{number}.gz"), format!("a.log.{number}")]);
        let oldest = names.into_iter().find(|name| self.path(name).exists());
        if let Some(name) = oldest {
            self.unlink(&name);
        }
    }

    /// Nothing fails any more, and a last line is written.
    fn end(&mut self, fault: Fault) -> Vec<String> {
        self.lab.rules().failing.clear();
        self.lab.rules().denied.clear();
        self.is_full = false;
        // What came between two looks may be asked for only when a log has the name again, and in a directory that is
        // empty nothing is said: both come with the last line.
        self.settle();
        let last = self.write("a.log", 1);
        self.poll();
        match fault {
            Fault::OneLineMore => self.oracle.demand(1_000_000),
            Fault::Overstated => self.oracle.lost_bytes_said += 100_000,
            _ => {}
        }
        let mut complaints = self.settle();
        if !complaints.is_empty() {
            complaints.push(format!("last line {last:?}; said: {:?}", self.notices));
        }
        complaints
    }
}

/// The same failure with as few actions as can be.
fn shortest(seed: u64, mut actions: Vec<Action>) -> Vec<Action> {
    loop {
        let shorter = (0..actions.len()).find_map(|left_out| {
            let mut fewer = actions.clone();
            fewer.remove(left_out);
            (!run(seed, &fewer, Fault::None).is_empty()).then_some(fewer)
        });
        match shorter {
            Some(fewer) => actions = fewer,
            None => return actions,
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Any order of actions loses nothing but what nobody could have read, hands nothing out twice, says every loss and
/// no other, and leaves a follower that reads on.
#[test]
fn any_composition_of_actions_hands_out_each_line_once() {
    let seeds = match variable("WATCHPOST_TEST_CASES_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("WATCHPOST_TEST_CASES").unwrap_or(COMPOSITIONS),
    };
    let count = seeds.end - seeds.start;
    let mut failures = Vec::new();
    let mut ran_for = Duration::ZERO;
    for seed in seeds {
        let actions = actions(seed);
        let began = Instant::now();
        let complaints = run(seed, &actions, Fault::None);
        ran_for += began.elapsed();
        if complaints.is_empty() {
            continue;
        }
        let actions = if failures.len() < 15 { shortest(seed, actions) } else { actions };
        let complaints = run(seed, &actions, Fault::None);
        failures.push(format!(
            "pattern {}, {actions:?}\n{complaints:#?}\nagain: WATCHPOST_TEST_CASES_SEED={seed} cargo test --lib \
             any_composition",
            pattern(seed)
        ));
    }
    println!("{count} compositions in {:.1} s", ran_for.as_secs_f64());
    println!("{} of {count}:\n{}", failures.len(), failures[..failures.len().min(15)].join("\n\n"));
    assert!(failures.is_empty(), "{} of {count}", failures.len());
}
