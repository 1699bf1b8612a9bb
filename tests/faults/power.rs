//! Power cuts: an ext4 that is shut down without writing its journal's end, at random moments while the agent spools and
//! ships. What was synced is there afterwards, and nothing else.
//!
//! `WATCHPOST_TEST_POWER_CUTS` is the number of cuts, `WATCHPOST_TEST_POWER_SEED` repeats a run as far as time lets it.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, RwLock};

use super::mounts::{Volume, has_root};
use super::*;
use crate::support::wait_out;

/// Power cuts by default.
const CUTS_DEFAULT: u64 = 40;

/// Cuts on one state, before everything is compared.
const CUTS_A_SEQUENCE: u64 = 50;

/// Longest life of an agent before its power goes.
const LIFE_MS_MAX: u64 = 250;

/// Stands in for the C library's syncs and does nothing; from Debian's package eatmydata.
const NO_SYNCS: &str = "libeatmydata.so";

/// The network between agent and receiver. After a cut not a byte passes: what the agent would say without power
/// was never said.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    /// Even while the network is up; each cut and each mending counts one.
    generation: Arc<RwLock<u64>>,
}

impl Wire {
    pub(super) fn start(receiver: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let generation = Arc::new(RwLock::new(0));
        let shared = Arc::clone(&generation);
        std::thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                let born: u64 = *shared.read().expect("nobody panics with it");
                if born.is_multiple_of(2)
                    && let Ok(receiver) = TcpStream::connect(receiver)
                {
                    carry(&agent, &receiver, &shared, born);
                    carry(&receiver, &agent, &shared, born);
                }
            }
        });
        Wire { address, generation }
    }

    pub(super) fn set(&self, up: bool) {
        let mut generation = self.generation.write().expect("nobody panics with it");
        *generation += u64::from(generation.is_multiple_of(2) != up);
    }
}

/// Carries bytes one way until the end or the next cut.
fn carry(from: &TcpStream, to: &TcpStream, generation: &Arc<RwLock<u64>>, born: u64) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let generation = Arc::clone(generation);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read) = from.read(&mut bytes) {
            let now = generation.read().expect("nobody panics with it");
            if read == 0 || *now != born || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// An agent whose state is on a volume of its own.
struct Rig {
    agent: Agent,
    running: Option<Group>,
    volume: Volume,
    receiver: Receiver,
    wire: Wire,
    log: NumberedLog,
    random: fastrand::Rng,
    syncs: bool,
    cuts: u64,
    scene: Scene,
}

impl Rig {
    /// `log` is below the volume or beside it.
    fn new(seed: u64, log: &str, syncs: bool) -> Rig {
        let scene = Scene::new();
        let volume = Volume::ext4(scene.path(), 32, &[]);
        let receiver = Receiver::start(scene.path());
        let wire = Wire::start(receiver.address);
        let path = scene.path().join(log);
        let mut agent = Agent::new(scene.path(), &path.display().to_string());
        let url = receiver.url().replace(&receiver.address.to_string(), &wire.address.to_string());
        let state = volume.path.join("state").display().to_string();
        hurry(&mut agent, &url, "20KB");
        agent.set("STATE_DIR", &state);
        let log = NumberedLog::new(path, seed);
        let random = fastrand::Rng::with_seed(seed);
        Rig { agent, running: None, volume, receiver, wire, log, random, syncs, cuts: 0, scene }
    }

    fn start(&mut self) {
        let mut command = self.agent.command(&["run"]);
        if !self.syncs {
            command.env("LD_PRELOAD", NO_SYNCS);
        }
        self.running = Some(Group::start(&mut command, &self.scene.path().join("agent.out")));
    }

    /// The network goes first, so that nothing is heard of what happens without power; then the disk; then the agent.
    fn cut_power(&mut self) {
        let mut agent = self.running.take().expect("it runs");
        let ended = agent.wait_end(Duration::ZERO);
        assert!(ended.is_none(), "the agent ended by itself, {ended:?}: {}", self.agent.output());
        self.wire.set(false);
        self.volume.cut_power();
        agent.kill();
        self.volume.unmount();
        self.volume.mount();
        self.wire.set(true);
        self.cuts += 1;
    }

    /// A life of random length with lines coming in, one in four without a network.
    fn live_and_cut(&mut self) {
        self.wire.set(self.random.u64(0..4) > 0);
        self.start();
        let end = Instant::now() + Duration::from_millis(self.random.u64(1..LIFE_MS_MAX));
        while Instant::now() < end {
            let lines = self.random.u64(1..30);
            self.log.append(lines);
            wait_out(Duration::from_millis(self.random.u64(1..20)));
        }
        self.cut_power();
    }

    /// Lets all that is left come through, and compares.
    fn finish(&mut self) -> Found {
        self.start();
        let status = wait_settled(&self.agent, &self.log.path);
        let mut agent = self.running.take().expect("it runs");
        agent.end();
        let mut found = judge(&self.receiver, &self.log.written, &status, self.cuts);
        found.complaints.extend(panics(&self.agent));
        found
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_durable() {
    if !has_root() {
        return;
    }
    let cuts = setting("WATCHPOST_TEST_POWER_CUTS", CUTS_DEFAULT);
    let seed = setting("WATCHPOST_TEST_POWER_SEED", fastrand::u64(..));
    println!("WATCHPOST_TEST_POWER_SEED={seed}");
    let begun = Instant::now();
    let (mut done, mut lines, mut repeats) = (0, 0, 0);
    while done < cuts {
        let seed = seed.wrapping_add(done);
        let mut rig = Rig::new(seed, "access.log", true);
        while done < cuts && rig.cuts < CUTS_A_SEQUENCE {
            rig.live_and_cut();
            done += 1;
        }
        let found = rig.finish();
        assert!(found.complaints.is_empty(), "seed {seed}: {:#?}", found.complaints);
        lines += rig.log.written.len();
        repeats += found.repeats;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("power: {done} cuts, {lines} lines, {repeats} repeated batches, {seconds:.0} s");
}

/// Lines that are held in the spool and nowhere else any more, since their log was removed, survive a power cut.
fn cut_after_the_log_was_removed(syncs: bool) -> Found {
    let mut rig = Rig::new(1, "access.log", syncs);
    rig.wire.set(false);
    rig.log.append(200);
    rig.start();
    rig.agent.wait_status("all lines to be held", |status| number(status, "/ledger/lines/held") == 200);
    wait_flushed(&rig.agent);
    rig.log.rotate_for_good();
    let removed = rig.log.path.with_extension(format!("log-{:08}", rig.log.written.len()));
    fs::remove_file(removed).expect("removed");
    rig.cut_power();
    rig.finish()
}

#[test]
fn what_was_held_survives_a_power_cut_without_its_log() {
    if !has_root() {
        return;
    }
    let found = cut_after_the_log_was_removed(true);
    assert!(found.complaints.is_empty(), "{:#?}", found.complaints);
}

/// The control: the same without syncs.
#[test]
fn a_power_cut_without_syncs_is_found_out() {
    if !has_root() {
        return;
    }
    let found = cut_after_the_log_was_removed(false);
    let is_lost = found.complaints.iter().any(|complaint| complaint.contains("200 lines lost"));
    assert!(is_lost, "nothing was synced, and nothing lost: {:#?}", found.complaints);
    println!("control of the power cuts: {:?}", found.complaints);

    let mut rig = Rig::new(2, "access.log", false);
    rig.log.append(200);
    rig.start();
    wait_for("the lines", || (arrived(&rig.receiver) == 200).then_some(()));
    rig.cut_power();
    let found = rig.finish();
    let is_doubled = found.complaints.iter().any(|complaint| complaint.contains("200 lines doubled"));
    assert!(is_doubled, "no acknowledgement was synced, and nothing repeated: {:#?}", found.complaints);
    println!("control of the power cuts: {:?}", found.complaints);
}

/// The log lies on the same disk: what of it was not synced is gone after the cut, though it was shipped before. Such a
/// log is shorter than the agent knows it; it is said to be rewritten, and read from its start.
#[test]
fn a_power_cut_that_takes_the_logs_end_too_stops_nothing() {
    const CUTS: u64 = 8;
    if !has_root() {
        return;
    }
    let mut rig = Rig::new(3, "volume/access.log", true);
    File::open(&rig.volume.path).and_then(|directory| directory.sync_all()).expect("the log has its name");
    // Every line that stood in the log after a cut, or came after the last.
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for cut in 0..CUTS {
        rig.start();
        for _ in 0..5 {
            rig.log.append(10);
            wait_out(Duration::from_millis(rig.random.u64(1..60)));
            if rig.random.bool() {
                File::open(&rig.log.path).and_then(|log| log.sync_all()).expect("synced");
            }
        }
        if cut == CUTS - 1 {
            rig.log.append(10);
            let last = format!("/page/{} ", rig.log.written.len() - 1);
            let stored = rig.receiver.store.join("watchpost_nginx_access.ndjson");
            wait_for("the last line", || fs::read_to_string(&stored).ok()?.contains(&last).then_some(()));
        }
        rig.cut_power();
        let text = fs::read_to_string(&rig.log.path).expect("what is left of the log");
        if !text.is_empty() && !text.ends_with('\n') {
            let mut log = OpenOptions::new().append(true).open(&rig.log.path).expect("the log");
            log.write_all(b"\n").expect("written");
        }
        // Where the size of the log reached the disk and the bytes did not, it has a hole. That is no line.
        let lines = text.lines().map(|line| line.trim_start_matches('\0')).filter(|line| !line.is_empty());
        kept.extend(lines.map(str::to_owned));
    }
    let before = rig.log.written.len();
    rig.log.append(20);
    kept.extend(rig.log.written[before..].iter().cloned());
    rig.start();
    wait_settled(&rig.agent, &rig.log.path);
    let received = rig.receiver.lines();
    let mut counts = counted(&received);
    // What ends a hole, above, is an empty line, and each hole has one of its own.
    counts.remove("");
    let missing: Vec<_> = kept.iter().filter(|line| !counts.contains_key(line.as_str())).collect();
    assert!(missing.is_empty(), "{} lines are in the log and never arrived: {:?}", missing.len(), missing[0]);
    // Asked of the agent's own log: an event that is not shipped yet may be lost with the power.
    let rewritten = rig.agent.output().matches("was truncated or rewritten").count() as u64;
    let most = counts.values().max().copied().unwrap_or(0);
    println!(
        "power: {CUTS} cuts took the log's end; read anew {rewritten} times, a line came {most} times at most"
    );
    assert!(
        (1..=1 + rewritten).contains(&most),
        "a line came {most} times, {rewritten} times the log was read anew"
    );
    assert!(rewritten > 0, "the last cut took lines that were shipped, and nobody said so");
}
