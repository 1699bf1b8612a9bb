//! kill -9 at the N-th system call of a kind, for every kind on the way of a line and for ever other N: life after life
//! on the same state, each killed where the sweep says, and at the end nothing lost and at most a batch repeated a kill.
//!
//! `WATCHPOST_TEST_KILL_POINTS` is the number of points, `WATCHPOST_TEST_KILL_SEED` repeats a run as far as time lets it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::support::{free_address, wait_out};

/// Kill points by default; ten thousand take a quarter of an hour on two cores.
const POINTS_DEFAULT: u64 = 500;

/// Kill points on one state, before everything is compared.
const POINTS_A_SEQUENCE: u64 = 250;

/// Sequences at the same time.
const WORKERS: u64 = 2;

/// A life whose point was not reached by then is killed as it is.
const LIFE_MAX: Duration = Duration::from_millis(300);

/// Of so many lives the last quarter has no destination, so that a backlog builds up and is recovered.
const OUTAGE_PERIOD: u64 = 16;

/// One life in so many follows a rotation, and as many see one.
const ROTATION_PERIOD: u64 = 24;

/// New lines of a life: enough to be killed in the middle of them.
const LINES_A_LIFE: u64 = 10;

/// New lines of one life in [`FLOOD_PERIOD`]: more than a segment of the spool holds, so that it rolls.
const LINES_A_FLOOD: u64 = 150;
const FLOOD_PERIOD: u64 = 12;

/// With so many lines on the way nothing is added, and the full spool is another life's matter.
const LINES_WAITING_MAX: u64 = 300;

/// The system calls between a log and the destination. `write` is the spool and the wake-ups, `pread64` the logs and
/// the spool, `writev` the requests. A name that a machine does not know is left out.
const KINDS: [&str; 20] = [
    "openat",
    "read",
    "pread64",
    "write",
    "writev",
    "fdatasync",
    "fsync",
    "ftruncate",
    "fallocate",
    "unlinkat",
    "newfstatat",
    "statx",
    "getdents64",
    "fchmod",
    "close",
    "connect",
    "recvfrom",
    "futex",
    "epoll_wait",
    "mkdirat",
];

/// How far into a life a kind was killed so far.
#[derive(Clone, Copy, Default)]
struct Sweep {
    /// Calls of this kind that a life makes, as far as is known.
    reach: u64,
    fired: u64,
    missed: u64,
    deepest: u64,
}

impl Sweep {
    fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        // One life in four looks a call further than any came before.
        let further = u64::from(random.u8(..) < 64);
        random.u64(1..=self.reach.max(1) + further)
    }

    /// Looks further while points are reached, and less far where they are not: one life makes more calls than another.
    fn learn(&mut self, at: u64, fired: bool) {
        if fired {
            self.fired += 1;
            self.reach = self.reach.max(at + at / 2 + u64::from(at > 1));
            self.deepest = self.deepest.max(at);
        } else {
            self.missed += 1;
            self.reach = at * 3 / 4;
        }
    }
}

/// Lives on one state.
struct Sequence {
    scene: Scene,
    receiver: Receiver,
    agent: Agent,
    log: NumberedLog,
    random: fastrand::Rng,
    lives: u64,
}

impl Sequence {
    fn new(seed: u64) -> Sequence {
        let scene = Scene::new();
        let path = scene.path().join("access.log");
        let mut agent = Agent::new(scene.path(), &path.display().to_string());
        let receiver = Receiver::start(scene.path());
        hurry(&mut agent, &receiver.url(), "30KB");
        let mut random = fastrand::Rng::with_seed(seed);
        if random.bool() {
            agent.set("STATUS_ADDR", "off");
        }
        let mut log = NumberedLog::new(path, seed);
        log.noise_bytes_max = 12_000;
        log.append(LINES_A_LIFE);
        let mut sequence = Sequence { scene, receiver, agent, log, random, lives: 0 };
        sequence.first_life();
        sequence
    }

    /// A log that is renamed before the agent has ever seen it is none that the agent knows of.
    fn first_life(&mut self) {
        self.run_until_drained();
        assert_eq!(self.agent.stop(), Some(0), "{}", self.agent.output());
    }

    /// A life that ships all there is, and is killed then.
    fn drain(&mut self) {
        self.run_until_drained();
        self.agent.kill();
        self.lives += 1;
    }

    fn run_until_drained(&mut self) {
        self.agent.set("SUMO_URL", &self.receiver.url());
        self.agent.start_without_waiting();
        let written = self.log.written.len() as u64;
        wait_for("all lines so far", || (arrived(&self.receiver) >= written).then_some(()));
    }

    /// One life, killed at the N-th call of a kind; whether it came so far.
    fn life(&mut self, kind: &str, at: u64) -> bool {
        // Only a segment that is full is cut, and only once its first batch was accepted.
        let floods = kind == "ftruncate" || self.random.u64(0..FLOOD_PERIOD) == 0;
        if kind == "ftruncate" {
            self.drain();
        }
        let waiting = self.log.written.len() as u64 - arrived(&self.receiver);
        if waiting < LINES_WAITING_MAX {
            self.log.append(if floods { LINES_A_FLOOD } else { LINES_A_LIFE });
        }
        let is_outage = self.lives % OUTAGE_PERIOD >= OUTAGE_PERIOD * 3 / 4;
        let url = if is_outage { format!("http://{}/gone", free_address()) } else { self.receiver.url() };
        self.agent.set("SUMO_URL", &url);
        let rotation = self.random.u64(0..ROTATION_PERIOD);
        if rotation == 0 {
            self.log.rotate();
            self.log.append(3);
        }
        let expression = format!("?{kind}:signal=SIGKILL:when={at}");
        let mut command = traced(&self.agent, &format!("?{kind}"), &[expression]);
        let mut group = Group::start(&mut command, &self.scene.path().join("agent.out"));
        self.lives += 1;
        if rotation == 1 {
            wait_out(Duration::from_millis(self.random.u64(0..60)));
            self.log.rotate_for_good();
            self.log.append(3);
        }
        match group.wait_end(LIFE_MAX) {
            None => {
                group.kill_members();
                false
            }
            Some(status) => {
                assert_eq!(status.signal(), Some(9), "the agent ended by itself: {}", self.agent.output());
                true
            }
        }
    }

    /// A last life without a kill, and the comparison.
    fn finish(&mut self) -> Found {
        self.agent.set("SUMO_URL", &self.receiver.url());
        self.agent.set("STATUS_ADDR", &self.agent.address.to_string());
        self.agent.start();
        finish_and_judge(&mut self.agent, &self.receiver, &self.log, self.lives)
    }
}

/// What all sequences of a worker came to.
#[derive(Default)]
struct Figures {
    sweeps: [Sweep; KINDS.len()],
    lives: u64,
    lines: u64,
    repeats: u64,
}

/// Sequences until all points were taken.
fn work(seed: u64, taken: &AtomicU64, points: u64) -> Figures {
    let mut figures = Figures::default();
    figures.sweeps.iter_mut().for_each(|sweep| sweep.reach = 8);
    let mut random = fastrand::Rng::with_seed(seed);
    while taken.load(Ordering::Relaxed) < points {
        let seed = random.u64(..);
        let mut sequence = Sequence::new(seed);
        let mut fired = 0;
        while fired < POINTS_A_SEQUENCE && taken.load(Ordering::Relaxed) < points {
            let turn = usize::try_from(figures.lives).expect("few") % KINDS.len();
            let at = figures.sweeps[turn].draw(&mut random);
            let hit = sequence.life(KINDS[turn], at);
            figures.sweeps[turn].learn(at, hit);
            figures.lives += 1;
            fired += u64::from(hit);
            taken.fetch_add(u64::from(hit), Ordering::Relaxed);
        }
        let found = sequence.finish();
        assert!(found.complaints.is_empty(), "seed {seed}: {:#?}", found.complaints);
        figures.lines += sequence.log.written.len() as u64;
        figures.repeats += found.repeats;
    }
    figures
}

#[test]
fn kill_at_any_system_call_loses_nothing_and_repeats_at_most_a_batch() {
    let points = setting("WATCHPOST_TEST_KILL_POINTS", POINTS_DEFAULT);
    let seed = setting("WATCHPOST_TEST_KILL_SEED", fastrand::u64(..));
    println!("WATCHPOST_TEST_KILL_SEED={seed}");
    let begun = Instant::now();
    let taken = AtomicU64::new(0);
    let all: Vec<Figures> = std::thread::scope(|scope| {
        let taken = &taken;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(seed.wrapping_add(worker), taken, points)))
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("nothing lost, nothing repeated")).collect()
    });
    let sum = |figure: fn(&Figures) -> u64| all.iter().map(figure).sum::<u64>();
    for (index, kind) in KINDS.iter().enumerate() {
        let sweeps = || all.iter().map(|figures| figures.sweeps[index]);
        let fired: u64 = sweeps().map(|sweep| sweep.fired).sum();
        let missed: u64 = sweeps().map(|sweep| sweep.missed).sum();
        let deepest = sweeps().map(|sweep| sweep.deepest).max().unwrap_or(0);
        println!("kill at {kind}: {fired} points, the deepest at call {deepest}; {missed} not reached");
        assert!(fired > 0 || points < POINTS_DEFAULT, "no life was killed at {kind}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "kill: {} points in {} lives, {} lines, {} repeated batches, {seconds:.0} s, {:.1} points/s",
        taken.load(Ordering::Relaxed),
        sum(|figures| figures.lives),
        sum(|figures| figures.lines),
        sum(|figures| figures.repeats),
        taken.load(Ordering::Relaxed) as f64 / seconds
    );
}

/// The controls: a state that goes back in time, and a segment that loses what was synced.
#[test]
fn a_state_that_forgets_what_was_durable_is_found_out() {
    for forget in [restore_an_older_copy, cut_the_newest_segment] {
        let mut sequence = Sequence::new(1);
        let (state, older) = (sequence.scene.path().join("state"), sequence.scene.path().join("older"));
        copy(&state, &older);
        sequence.log.append(LINES_A_LIFE * 4);
        sequence.drain();
        forget(&state, &older);
        let found = sequence.finish();
        let seen = ["lines doubled", "repeated beyond the promise"];
        let is_seen =
            found.complaints.iter().any(|complaint| seen.iter().any(|seen| complaint.contains(seen)));
        assert!(is_seen, "batches were shipped twice, and nobody saw it: {:#?}", found.complaints);
        println!("control of the kills: {:?}", found.complaints);
    }
}

fn restore_an_older_copy(state: &Path, older: &Path) {
    fs::remove_dir_all(state).expect("removed");
    copy(older, state);
}

fn cut_the_newest_segment(state: &Path, _older: &Path) {
    let segments = fs::read_dir(state.join("spool")).expect("the spool").flatten().map(|entry| entry.path());
    let length = |path: &Path| fs::metadata(path).expect("a file").len();
    let newest =
        segments.filter(|path| path.extension().is_some() && length(path) > 0).max().expect("a segment");
    let file = OpenOptions::new().write(true).open(&newest).expect("a segment");
    file.set_len(length(&newest) / 2).expect("cut");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp -a {} {}", from.display(), to.display());
}
