//! One run: faults, then silence, then the judge.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::agent::pipeline::Activity;
use crate::spool::sim::SimDisk;
use crate::status::Snapshot;

use super::destination::Destination;
use super::files::SimFiles;
use super::life::{DRAIN_STEP, DRAIN_STEPS, Life, Setup, config, plan};
use super::oracle::{self, Broken, Checked, Excuses};
use super::swarm::Swarm;
use super::trace::Trace;
use super::world::World;

/// Without faults so many steps must bring the destination something new, and everything must have drained after this time.
const IDLE_STEPS_MAX: u32 = 400;
const SETTLE_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// Longer than a file without a name is kept open.
const GRACE: Duration = Duration::from_secs(31);
/// Disk calls until an agent dies that was told to.
const DIE_IN_MAX: u64 = 12;
/// Reads that the device refuses in a row: far fewer than a start and a running agent put up with.
const REFUSED_READS_MAX: u64 = 9;
/// The clock may be set by this much.
const JUMP_MS_MAX: i64 = 180_000;

/// What a run was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) digest: (u64, u64),
    pub(super) ticks: u64,
    pub(super) lives: u64,
    pub(super) lines: u64,
    pub(super) batches: u64,
}

/// How a life ends that does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    PowerCut,
}

struct Run {
    swarm: Swarm,
    random: fastrand::Rng,
    trace: Trace,
    setup: Setup,
    destination: Destination,
    life: Option<Life>,
    excuses: Excuses,
    /// Lines that the last life had said were shipped, while its disk was well.
    shipped_before: u64,
    /// The next snapshot is the first of its life.
    first_tick: bool,
    /// The spool was degraded at the last tick, so that verdicts may not be on disk.
    degraded: bool,
    ticks: u64,
    lives: u64,
}

/// Runs a seed to its end.
pub(super) fn run(seed: u64, printed: bool) -> Result<Summary, Broken> {
    let trace = Trace::new(printed);
    let mut random = fastrand::Rng::with_seed(seed);
    let swarm = Swarm::draw(&mut random);
    trace.say(|| format!("{swarm:#?}"));
    let world = World::new(&swarm, random.fork(), trace.clone());
    let config = config(&swarm);
    let setup = Setup {
        plan: plan(&config),
        config,
        files: SimFiles(Arc::new(Mutex::new(world))),
        disk: SimDisk::default(),
        free_bytes_min: swarm.free_bytes_min,
    };
    let destination = Destination::new(&swarm, random.fork(), trace.clone());
    let mut run = Run {
        swarm,
        random,
        trace,
        setup,
        destination,
        life: None,
        excuses: Excuses::default(),
        shipped_before: 0,
        first_tick: false,
        degraded: false,
        ticks: 0,
        lives: 0,
    };
    run.with_faults()?;
    run.settle()?;
    run.judge()?;
    let lines = run.setup.files.world().server.lines().len() as u64;
    Ok(Summary {
        digest: run.trace.digest(),
        ticks: run.ticks,
        lives: run.lives,
        lines,
        batches: run.destination.received.len() as u64,
    })
}

impl Run {
    /// The part in which everything may go wrong.
    fn with_faults(&mut self) -> Checked {
        for _ in 0..self.swarm.steps {
            self.pass();
            self.outside();
            self.arm();
            self.agent()?;
            self.deliver();
        }
        Ok(())
    }

    fn pass(&mut self) {
        let most = self.swarm.pause_max.as_millis() as u64;
        let milliseconds = match self.random.u8(0..4) {
            0 => self.random.u64(0..50),
            1 => 200,
            2 => self.random.u64(0..1_500.min(most)),
            _ => self.random.u64(0..most),
        };
        self.advance(Duration::from_millis(milliseconds));
    }

    fn advance(&mut self, time: Duration) {
        let mut world = self.setup.files.world();
        world.clock.pass(time);
        self.trace.set_time(world.clock.passed());
    }

    /// What the world does between two ticks.
    fn outside(&mut self) {
        let mut world = self.setup.files.world();
        world.serve_due();
        for _ in 0..self.random.u32(0..4) {
            world.serve();
        }
        if self.swarm.wall_jumps && self.random.u8(0..16) == 0 {
            let milliseconds = self.random.i64(-JUMP_MS_MAX..JUMP_MS_MAX);
            self.trace.note("the clock is set", &[milliseconds.unsigned_abs()]);
            world.clock.jump(milliseconds);
        }
        if !self.swarm.answers.is_empty() && self.random.u8(0..40) == 0 {
            let seconds = self.random.u64(1..400);
            self.trace.note("outage", &[seconds]);
            self.destination.outage_until = world.clock.passed() + Duration::from_secs(seconds);
        }
    }

    /// Sets the traps for the next tick.
    fn arm(&mut self) {
        let (swarm, random, disk) = (&self.swarm, &mut self.random, &self.setup.disk);
        if swarm.interleaved && random.u8(0..3) == 0 {
            self.setup.files.world().act_in = Some(random.u32(0..25));
        }
        if swarm.disk_errors && random.u8(0..6) == 0 {
            let calls = random.u64(0..8);
            self.trace.note("a disk call will fail", &[calls]);
            disk.fail_in(calls);
        }
        if swarm.disk_errors && random.u8(0..6) == 0 {
            let (reads, count) = (random.u64(0..20), random.u64(1..=REFUSED_READS_MAX));
            self.trace.note("the device will refuse reads", &[reads, count]);
            disk.refuse_reads(reads, count);
        }
        if swarm.sync_failures && random.u8(0..8) == 0 {
            let fails = random.bool();
            self.trace.note("syncs fail", &[u64::from(fails)]);
            disk.fail_syncs(fails);
        }
        if let Some(bytes) = swarm.disk_bytes
            && random.u8(0..10) == 0
        {
            let capacity = random.bool().then_some(bytes);
            self.trace.note("capacity", &[capacity.unwrap_or(0)]);
            disk.set_capacity(capacity);
        }
        if swarm.kills && random.u8(0..12) == 0 {
            let calls = random.u64(0..DIE_IN_MAX);
            self.trace.note("dies at a disk call", &[calls]);
            disk.die_in(calls, random.u64(..));
        }
    }

    /// The agent's part of a step.
    fn agent(&mut self) -> Checked {
        if self.life.is_none() {
            if self.random.u8(0..3) > 0 {
                self.start()?;
            }
            return Ok(());
        }
        match self.random.u8(0..48) {
            0..=1 if self.swarm.kills => self.end(End::Killed),
            2..=4 if self.swarm.power_cuts => self.end(End::PowerCut),
            5..=6 if self.swarm.stops => return self.stop(true),
            7..=8 if self.swarm.reloads => {
                self.stop(false)?;
                return self.start();
            }
            _ => return self.tick(),
        }
        Ok(())
    }

    fn start(&mut self) -> Checked {
        let now = self.setup.files.world().clock.now();
        self.trace.note("start", &[self.lives]);
        let nonce = self.random.u64(..);
        self.setup.files.world().reads_spared = true;
        let started = Life::start(&self.setup, now, nonce);
        self.lives += 1;
        match started {
            Ok(life) => {
                self.life = Some(life);
                self.first_tick = true;
                if self.setup.disk.is_dead() {
                    self.end(self.sudden());
                    return Ok(());
                }
                self.tick()
            }
            Err(error) => {
                self.trace.say(|| format!("    no start: {error}"));
                if self.setup.disk.is_dead() {
                    self.end(self.sudden());
                }
                Ok(())
            }
        }
    }

    fn sudden(&self) -> End {
        let power = self.swarm.power_cuts && self.trace.digest().0 & 1 == 1;
        if power { End::PowerCut } else { End::Killed }
    }

    fn tick(&mut self) -> Checked {
        let scan = self.random.u8(0..4) == 0;
        let (now, named) = {
            let world = self.setup.files.world();
            (world.clock.now(), world.server.named(&world.files))
        };
        let Some(life) = &mut self.life else { return Ok(()) };
        self.trace.say(|| format!("    there: {}", self.setup.files.world().files.listing()));
        let mut activity = Activity::Busy;
        while activity == Activity::Busy {
            activity = life.pipeline.tick(now, scan);
            self.ticks += 1;
        }
        let follower = &life.pipeline.follower;
        self.trace.say(|| format!("    known: {}", follower.describe()));
        if self.setup.disk.is_dead() {
            self.end(self.sudden());
            return Ok(());
        }
        self.look(&named)
    }

    /// Judges what the agent says of itself.
    fn look(&mut self, named: &[u32]) -> Checked {
        let Some(snapshot) = self.life.as_ref().and_then(Life::snapshot) else { return Ok(()) };
        let lines = snapshot.ledger.lines;
        self.trace.note("tick", &[lines.read, lines.shipped, lines.held, lines.lost, snapshot.spool.batches]);
        self.trace.say(|| format!("    {:?} {:?}", snapshot.spool, snapshot.problems));
        let mut world = self.setup.files.world();
        if snapshot.spool.state == "ok" {
            let World { server, files, .. } = &mut *world;
            server.note_known(named, files);
        }
        let was_degraded = std::mem::replace(&mut self.degraded, snapshot.spool.state == "degraded");
        // The answer that came as the disk began to refuse is in memory only, though its batch was taken before.
        self.excuses.unnoted += u64::from(self.degraded && !was_degraded);
        oracle::check_tick(&snapshot, &world.server, self.destination.lines_taken)?;
        world.reads_spared = false;
        if std::mem::take(&mut self.first_tick) {
            oracle::check_start(&snapshot, self.shipped_before)?;
        }
        if !self.degraded {
            self.shipped_before = lines.shipped;
        }
        Ok(())
    }

    /// The network's part of a step.
    fn deliver(&mut self) {
        let Some(life) = &self.life else { return };
        let clock = self.setup.files.world().clock;
        let before = self.destination.batches_taken;
        self.destination.act(&life.mailbox, &clock);
        if self.degraded {
            self.excuses.unnoted += self.destination.batches_taken - before;
        }
    }

    fn end(&mut self, how: End) {
        self.trace.note("end", &[how as u64]);
        self.life = None;
        self.after_life();
        self.excuses.ends += 1;
        self.setup.disk.revive();
        if how == End::PowerCut {
            self.setup.disk.crash(&mut self.random);
        }
    }

    fn after_life(&mut self) {
        let seed = self.random.u64(..);
        self.destination.agent_ended(seed);
        self.setup.files.world().server.agent_ended();
    }

    /// A stop in good order, or a reload: as the agent's own, but for the network.
    fn stop(&mut self, stopping: bool) -> Checked {
        self.trace.note("stop", &[u64::from(stopping)]);
        let Some(life) = &mut self.life else { return Ok(()) };
        let now = self.setup.files.world().clock.now();
        life.pipeline.finish_reading(|| now, stopping);
        if self.setup.disk.is_dead() {
            self.end(self.sudden());
            return Ok(());
        }
        self.look(&[])?;
        for _ in 0..if stopping { DRAIN_STEPS } else { 0 } {
            self.deliver();
            self.advance(DRAIN_STEP);
            let now = self.setup.files.world().clock.now();
            let Some(life) = &mut self.life else { return Ok(()) };
            let more = life.pipeline.deliver(now);
            if self.setup.disk.is_dead() {
                self.end(self.sudden());
                return Ok(());
            }
            self.look(&[])?;
            if !more {
                break;
            }
        }
        let board = self.life.as_ref().map(|life| Arc::clone(&life.board));
        let now = self.setup.files.world().clock.now();
        if let Some(life) = self.life.take() {
            life.pipeline.close(now);
        }
        self.excuses.ends += u64::from(self.destination.is_answering());
        self.after_life();
        if self.setup.disk.is_dead() {
            self.setup.disk.revive();
            self.excuses.ends += 1;
        } else if let Some(snapshot) = board.and_then(|board| board.latest()) {
            if snapshot.spool.state == "degraded" {
                // The last answer came as the disk began to refuse, and there was no later tick that could note it.
                self.excuses.unnoted += u64::from(!self.degraded);
            } else {
                self.shipped_before = snapshot.ledger.lines.shipped;
            }
        }
        Ok(())
    }

    /// No faults any more: everything drains, in bounded time.
    fn settle(&mut self) -> Checked {
        self.trace.note("no more faults", &[]);
        self.setup.disk.heal();
        self.destination.heal();
        self.setup.files.world().settle_server();
        let begun = self.setup.files.world().clock.passed();
        let mut looked_at = None;
        let (mut step, mut idle_steps, mut seen) = (0u32, 0, 0);
        while idle_steps < IDLE_STEPS_MAX {
            let now = self.setup.files.world().clock.passed();
            let due = self.destination.due().map(|due| due.saturating_sub(now));
            let time = match (due, step % 8) {
                (Some(due), _) => due,
                (None, 7) => GRACE,
                (None, _) => Duration::from_millis(1_100),
            };
            self.advance(time);
            self.deliver();
            if self.life.is_none() {
                self.start()?;
            } else {
                self.tick()?;
            }
            self.deliver();
            let before = std::mem::replace(&mut seen, self.destination.batches_seen());
            idle_steps = if seen > before { 0 } else { idle_steps + 1 };
            step += 1;
            let snapshot = self.life.as_ref().and_then(Life::snapshot);
            let world = self.setup.files.world();
            // What is missing still is until another batch comes, or a life ends and excuses it.
            let look = (seen, self.excuses.ends);
            let is_idle =
                self.destination.due().is_none() && snapshot.is_some_and(|last| oracle::is_idle(&last));
            if is_idle
                && looked_at.replace(look) != Some(look)
                && oracle::missing(&world.server, &self.destination).is_empty()
            {
                return Ok(());
            }
            if world.clock.passed() - begun > SETTLE_TIME_MAX {
                break;
            }
        }
        self.stuck()
    }

    fn stuck(&self) -> Checked {
        let snapshot = self.life.as_ref().and_then(Life::snapshot);
        let detail = match &snapshot {
            Some(snapshot) => {
                format!("{:?} {:?} {:?}", snapshot.ledger.lines, snapshot.spool, snapshot.files)
            }
            None => "the agent does not start".to_owned(),
        };
        let missing = oracle::missing(&self.setup.files.world().server, &self.destination);
        oracle::broken("drains", format!("{detail}; lines that did not come: {missing:?}"))
    }

    /// A last stop in good order; then the judge has everything.
    fn judge(&mut self) -> Checked {
        let snapshot = self.stop_for_good()?;
        let world = self.setup.files.world();
        oracle::check_end(&snapshot, &world.server, &self.destination, self.excuses)
    }

    fn stop_for_good(&mut self) -> Result<Arc<Snapshot>, Broken> {
        for _ in 0..3 {
            if self.life.is_none() {
                self.start()?;
            }
            let board = self.life.as_ref().map(|life| Arc::clone(&life.board));
            self.stop(true)?;
            let last = board.and_then(|board| board.latest());
            if let Some(last) = last.filter(|last| last.spool.batches == 0) {
                return Ok(last);
            }
        }
        Err(Broken { check: "stops", detail: "a stop leaves batches behind".to_owned() })
    }
}
