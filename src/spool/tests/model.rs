//! The spool against a plain model: a list of facts, of which a crash may forget only the newest, and
//! none that a call has called durable.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::record::LossReason;

use super::super::{PendingBatch, SettleError, StateChange};
use super::*;

#[derive(Clone, Debug)]
enum Op {
    Append {
        lines: u8,
        bytes: u16,
        key: u8,
    },
    State {
        key: u8,
        removed: bool,
    },
    Commit,
    Ack,
    Lose,
    Split {
        parts: u8,
    },
    /// The process dies; what the system has in memory stays.
    Kill,
    /// The power goes.
    Crash {
        seed: u64,
    },
    /// One call on the disk fails.
    Fail {
        after: u8,
    },
    FailSyncs(bool),
    /// Nobody gets a byte more of the disk.
    Full(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..20u8, 0..3000u16, 0..6u8).prop_map(|(lines, bytes, key)| Op::Append { lines, bytes, key }),
        2 => (0..6u8, any::<bool>()).prop_map(|(key, removed)| Op::State { key, removed }),
        5 => Just(Op::Commit),
        4 => Just(Op::Ack),
        1 => Just(Op::Lose),
        1 => (0..4u8).prop_map(|parts| Op::Split { parts }),
        1 => Just(Op::Kill),
        2 => any::<u64>().prop_map(|seed| Op::Crash { seed }),
        1 => (0..8u8).prop_map(|after| Op::Fail { after }),
        1 => any::<bool>().prop_map(Op::FailSyncs),
        1 => any::<bool>().prop_map(Op::Full),
    ]
}

#[derive(Clone, Debug)]
enum Fact {
    Append(Option<(String, NewBatch)>, Vec<StateChange>),
    Ack,
    Lose,
    Split(Vec<(String, NewBatch)>),
}

/// What a list of facts amounts to.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    pending: VecDeque<(String, NewBatch)>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    delivered: u64,
    dropped: u64,
}

fn fold(facts: &[Fact]) -> World {
    let mut world = World::default();
    for fact in facts.iter().cloned() {
        match fact {
            Fact::Append(batch, changes) => {
                world.pending.extend(batch);
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(world.state.insert(key, value)),
                        None => drop(world.state.remove(&key)),
                    }
                }
            }
            Fact::Ack => world.delivered += world.pending.pop_front().unwrap().1.lines,
            Fact::Lose => world.dropped += world.pending.pop_front().unwrap().1.lines,
            Fact::Split(parts) => {
                let parent = world.pending.pop_front().unwrap().1;
                world.dropped += parent.lines - parts.iter().map(|part| part.1.lines).sum::<u64>();
                world.pending.extend(parts);
            }
        }
    }
    world
}

/// Small segments, so that many are written and removed.
fn open(disk: &SimDisk) -> Spool<SimDisk> {
    let options = Options { segment_bytes: 8 << 10, ..small() };
    Spool::open(disk.clone(), options, at(0), FRESH).expect("a spool can be opened")
}

struct Run {
    disk: SimDisk,
    spool: Option<Spool<SimDisk>>,
    facts: Vec<Fact>,
    durable: usize,
    seconds: u64,
    bytes: u8,
}

impl Run {
    fn new(disk: SimDisk) -> Run {
        let spool = Some(open(&disk));
        Run { disk, spool, facts: Vec::new(), durable: 0, seconds: 0, bytes: 0 }
    }

    /// Time enough passes that any retry is due.
    fn now(&mut self) -> Now {
        self.seconds += 61;
        at(self.seconds)
    }

    fn spool(&mut self) -> &mut Spool<SimDisk> {
        self.spool.as_mut().unwrap()
    }

    fn body(&mut self, bytes: usize) -> Vec<u8> {
        self.bytes = self.bytes.wrapping_add(1);
        (0..bytes).map(|i| self.bytes.wrapping_mul(31).wrapping_add((i * i / 7) as u8)).collect()
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        let now = self.now();
        match *op {
            Op::Append { lines, bytes, key } => {
                let new = batch(u64::from(lines), &self.body(usize::from(bytes)));
                let changes = vec![(vec![key], Some(bytes.to_le_bytes().to_vec()))];
                if let Ok(id) = self.spool().append(Some(new.clone()), changes.clone()) {
                    self.facts.push(Fact::Append(Some((id.unwrap().to_string(), new)), changes));
                }
            }
            Op::State { key, removed } => {
                let changes = vec![(vec![key], (!removed).then(|| self.seconds.to_le_bytes().to_vec()))];
                if self.spool().append(None, changes.clone()).is_ok() {
                    self.facts.push(Fact::Append(None, changes));
                }
            }
            Op::Commit => {
                if self.spool().commit(now).is_ok() {
                    self.durable = self.facts.len();
                }
            }
            Op::Ack => self.settle(Fact::Ack, |spool, front| spool.ack(front.id.seq, now)),
            Op::Lose => {
                self.settle(Fact::Lose, |spool, front| spool.lose(front.id.seq, LossReason::Refused, now));
            }
            Op::Split { parts } => self.split(parts, now),
            Op::Kill => self.reopen()?,
            Op::Crash { seed } => {
                self.spool = None;
                self.disk.crash(&mut fastrand::Rng::with_seed(seed));
                self.reopen()?;
            }
            Op::Fail { after } => self.disk.fail_in(u64::from(after)),
            Op::FailSyncs(fail) => self.disk.fail_syncs(fail),
            Op::Full(full) => self.disk.set_capacity(full.then_some(0)),
        }
        self.check_live()
    }

    fn mend(&self) {
        self.disk.fail_none();
        self.disk.fail_syncs(false);
        self.disk.set_capacity(None);
    }

    fn settle(
        &mut self,
        fact: Fact,
        act: impl FnOnce(&mut Spool<SimDisk>, &PendingBatch) -> Result<(), SettleError>,
    ) {
        let Some(front) = self.spool().oldest() else { return };
        let outcome = act(self.spool(), &front);
        self.facts.push(fact);
        if outcome.is_ok() {
            self.durable = self.facts.len();
        }
    }

    fn split(&mut self, parts: u8, now: Now) {
        let Some(front) = self.spool().oldest() else { return };
        let each = front.lines / u64::from(parts.max(1));
        let parts: Vec<NewBatch> = (0..parts)
            .map(|part| batch(each, &front.body[..usize::from(part).min(front.body.len())]))
            .collect();
        let before = self.spool().status();
        match self.spool().split(front.id.seq, parts.clone(), now) {
            Ok(ids) => {
                let ids = ids.into_iter().map(|id| id.to_string());
                self.facts.push(Fact::Split(ids.zip(parts).collect()));
                self.durable = self.facts.len();
            }
            Err(SettleError::Degraded(_)) => {
                // The ids are not told; they follow the last one.
                let agent = self.spool().agent_id();
                let epoch = self.spool().epoch();
                let first = self.spool().next.seq + 1 - parts.len() as u64;
                let ids = (first..).map(|seq| format!("{agent}/{epoch}/{seq}"));
                self.facts.push(Fact::Split(ids.zip(parts).collect()));
            }
            Err(_) => assert_eq!(before, self.spool().status()),
        }
    }

    /// After a crash the spool is what it was after some fact, and none that was durable is forgotten.
    fn reopen(&mut self) -> Result<(), String> {
        self.spool = None;
        self.spool = Some(open(&self.disk));
        let found = pending(&self.disk);
        let counts = (self.durable..=self.facts.len()).rev();
        let pasts: Vec<Vec<Fact>> = counts.flat_map(|count| self.pasts(count)).collect();
        let spool = self.spool.as_mut().unwrap();
        let status = spool.status();
        let matches = |facts: &Vec<Fact>| {
            let world = fold(facts);
            let same = world.pending.len() == found.len()
                && world.pending.iter().zip(&found).all(|(a, b)| a.0 == b.0 && a.1.body == b.1);
            same && world.state == *spool.state()
                && (status.delivered.lines, status.dropped_lines) == (world.delivered, world.dropped)
        };
        let kept = pasts.into_iter().find(matches);
        check!(kept.is_some(), "{status:?} after {found:?}, durable {} of {:?}", self.durable, self.facts);
        check!(status.batches == found.len() as u64, "{status:?}, but {} pending", found.len());
        self.facts = kept.unwrap();
        // What the start could not make durable a power cut may take yet.
        if !self.spool().is_salvaging() {
            self.durable = self.facts.len();
        }
        Ok(())
    }

    /// What may be durable besides so many facts: on a full disk verdicts overtake what waits for room, but a split.
    fn pasts(&self, count: usize) -> Vec<Vec<Fact>> {
        let mut pasts = vec![self.facts[..count].to_vec()];
        let pending = fold(&pasts[0]).pending.len();
        for fact in self.facts[count..].iter().take_while(|fact| !matches!(fact, Fact::Split(_))) {
            if matches!(fact, Fact::Ack | Fact::Lose) && pasts.len() <= pending {
                let mut past = pasts.last().unwrap().clone();
                past.push(fact.clone());
                pasts.push(past);
            }
        }
        pasts
    }

    fn check_live(&mut self) -> Result<(), String> {
        let world = fold(&self.facts);
        let durable = fold(&self.facts[..self.durable]);
        let spool = self.spool.as_mut().unwrap();
        let status = spool.status();
        let held: u64 = world.pending.iter().map(|(_, batch)| batch.lines).sum();
        check!(
            (status.lines, status.delivered.lines, status.dropped_lines)
                == (held, world.delivered, world.dropped),
            "{status:?} is not {world:?}"
        );
        check!(status.appended_lines == held + world.delivered + world.dropped, "{status:?}");
        check!(status.bytes <= status.bytes_max, "{status:?}");
        let offered = spool.oldest().map(|batch| (batch.id.to_string(), batch.body));
        let front = world.pending.front().filter(|(id, _)| durable.pending.iter().any(|(d, _)| d == id));
        let front = front.map(|(id, batch)| (id.clone(), batch.body.clone()));
        // What a start could not make durable is offered once it is written anew.
        let waits = offered.is_none() && spool.is_salvaging();
        check!(offered == front || waits, "offered {offered:?}, not {front:?}");
        Ok(())
    }
}

fn run(disk: SimDisk, ops: &[Op]) -> Result<(), String> {
    let mut run = Run::new(disk);
    for op in ops {
        run.step(op)?;
    }
    run.mend();
    run.step(&Op::Crash { seed: 1 })?;
    check!(run.disk.peak_bytes() <= 1 << 20, "took {} bytes", run.disk.peak_bytes());
    Ok(())
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(400) })]
    #[test]
    fn a_crash_forgets_nothing_that_was_durable(ops in prop::collection::vec(op(), 1..80)) {
        if let Err(text) = run(SimDisk::default(), &ops) {
            prop_assert!(false, "{text}");
        }
    }
}

/// The negative control: where a sync does nothing, the property above must notice.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(op(), 40..80);
    let found = (0..20).any(|_| {
        let ops = strategy.new_tree(&mut runner).unwrap().current();
        let disk = SimDisk::default();
        disk.lie_about_syncs();
        run(disk, &ops).is_err()
    });
    assert!(found);
}
