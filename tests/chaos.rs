//! Random lives of an agent: lines, rotations, truncations, kills, stops, reloads, outages, and a spool that is
//! full most of the time. Whatever the order, every line arrives and every number adds up.
//!
//! `WATCHPOST_TEST_CHAOS_SECONDS` makes it longer, `WATCHPOST_TEST_CHAOS_SEED` repeats a run as far as time lets it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Agent, BalanceWatch, Receiver, counted, log_line, number, wait_for, wait_out};

/// How long the random part runs by default.
const SECONDS_DEFAULT: u64 = 10;

/// A renamed file is found again by its position, and its successor by its name; the agent is given this time
/// to see one before the next. Several rotations between two looks are another promise.
const BETWEEN_ROTATIONS: Duration = Duration::from_millis(2_500);

/// A network between agent and receiver that can go away in the middle of an answer.
struct Network {
    address: SocketAddr,
    up: Arc<AtomicBool>,
}

impl Network {
    fn start(receiver: SocketAddr) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let up = Arc::new(AtomicBool::new(true));
        let is_up = Arc::clone(&up);
        std::thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                let is_up = Arc::clone(&is_up);
                if is_up.load(Ordering::Relaxed)
                    && let Ok(receiver) = TcpStream::connect(receiver)
                {
                    join(&agent, &receiver, &is_up);
                }
            }
        });
        Network { address, up }
    }

    fn set(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
}

/// Carries bytes both ways until the network goes down.
fn join(agent: &TcpStream, receiver: &TcpStream, is_up: &Arc<AtomicBool>) {
    for (from, to) in [(agent, receiver), (receiver, agent)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
        let is_up = Arc::clone(is_up);
        let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
        std::thread::spawn(move || {
            let mut bytes = vec![0; 16 * 1024];
            while is_up.load(Ordering::Relaxed) {
                match from.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(read) if to.write_all(&bytes[..read]).is_ok() => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    _ => break,
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// The world around the agent, and what is known of it.
struct World {
    random: fastrand::Rng,
    agent: Agent,
    running: bool,
    network: Network,
    log: PathBuf,
    /// The log before the last rotation, which nginx may still write to.
    before: Option<File>,
    rotations: u64,
    quiet_since: Instant,
    /// Every line ever written.
    written: Vec<String>,
    /// Those that stand in the current file.
    current: Vec<String>,
    /// Those that may have been cut off before they were read.
    endangered: BTreeSet<String>,
    history: Vec<String>,
}

impl World {
    fn lines(&mut self, count: u64) -> String {
        let mut text = String::new();
        for _ in 0..count {
            let noise: String = (0..self.random.usize(1..300)).map(|_| self.random.alphanumeric()).collect();
            let status = if self.random.u8(..) < 20 { 503 } else { 200 };
            let line = log_line(self.written.len() as u64, status).replace("test/1.0", &noise);
            text += &line;
            text.push('\n');
            self.written.push(line);
        }
        text
    }

    fn append(&mut self, count: u64) {
        let text = self.lines(count);
        self.current.extend(text.lines().map(str::to_owned));
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log");
        // In pieces, so that the agent may see half a line.
        let cut = self.random.usize(0..text.len());
        log.write_all(&text.as_bytes()[..cut]).expect("written");
        if self.random.u8(..) < 60 {
            wait_out(Duration::from_millis(self.random.u64(1..300)));
        }
        log.write_all(&text.as_bytes()[cut..]).expect("written");
    }

    fn rotate(&mut self) {
        if !self.running || self.quiet_since.elapsed() < BETWEEN_ROTATIONS {
            return;
        }
        self.rotations += 1;
        let aside = self.log.with_extension(format!("log.{}", self.rotations));
        let held = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log");
        fs::rename(&self.log, aside).expect("renamed");
        File::create(&self.log).expect("a new log");
        self.before = Some(held);
        self.current.clear();
        self.quiet_since = Instant::now();
        let late = self.random.u64(0..20);
        let text = self.lines(late);
        self.before.as_ref().expect("just set").write_all(text.as_bytes()).expect("written");
    }

    fn truncate(&mut self) {
        self.endangered.extend(self.current.drain(..));
        File::create(&self.log).expect("truncated");
    }

    fn start(&mut self) {
        if !self.running {
            self.agent.start();
            self.running = true;
            self.quiet_since = Instant::now();
        }
    }

    fn step(&mut self) {
        let drawn = self.random.u8(0..100);
        let what = match drawn {
            0..40 => {
                let count = self.random.u64(1..400);
                self.append(count);
                "append"
            }
            40..45 => {
                self.append(6_000);
                "append much"
            }
            45..57 => {
                self.rotate();
                "rotate"
            }
            57..60 => {
                self.truncate();
                "truncate"
            }
            60..70 if self.running => {
                self.agent.kill();
                self.running = false;
                "kill"
            }
            70..74 if self.running => {
                assert_eq!(self.agent.stop(), Some(0), "{}", self.agent.output());
                self.running = false;
                "stop"
            }
            74..78 if self.running => {
                self.agent.signal("HUP");
                self.quiet_since = Instant::now();
                "reload"
            }
            78..86 => {
                self.network.set(false);
                "outage"
            }
            86..94 => {
                self.network.set(true);
                "network"
            }
            _ => {
                self.start();
                "start"
            }
        };
        self.history.push(format!("{what} ({} lines)", self.written.len()));
        wait_out(Duration::from_millis(self.random.u64(0..400)));
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn live(directory: &Path, seed: u64, seconds: u64) {
    let receiver = Receiver::start(directory);
    let network = Network::start(receiver.address);
    let log = directory.join("access.log");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut agent = Agent::new(directory, &log.display().to_string());
    let url = receiver.url().replace(&receiver.address.to_string(), &network.address.to_string());
    agent.set("SUMO_URL", &url);
    agent.set("SPOOL_MAX", "1MiB");
    agent.set("FLUSH_INTERVAL", "300ms");
    agent.set("SUMMARY_INTERVAL", "1s");
    agent.set("BATCH_MAX", if random.bool() { "1MB" } else { "20KB" });
    let balance = BalanceWatch::start(agent.address);
    let mut world = World {
        random,
        agent,
        running: false,
        network,
        log,
        before: None,
        rotations: 0,
        quiet_since: Instant::now(),
        written: Vec::new(),
        current: Vec::new(),
        endangered: BTreeSet::new(),
        history: Vec::new(),
    };
    world.append(10);
    world.start();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        world.step();
    }
    world.network.set(true);
    world.start();
    settle(&world, &receiver);
    balance.finish();
}

/// Everything is up: what is held must drain, and then every sum must hold.
fn settle(world: &World, receiver: &Receiver) {
    let agent = &world.agent;
    let status = agent.wait_status("every line to be shipped", |status| {
        let files = status["files"].as_array().map_or(&[][..], Vec::as_slice);
        let lines = |name: &str| number(status, &format!("/ledger/lines/{name}"));
        files.iter().all(|file| number(file, "/lag_bytes") == 0)
            && lines("held") == 0
            && lines("read") >= (world.written.len() - world.endangered.len()) as u64
            && number(status, "/web/totals/requests") == lines("read")
    });
    let history = world.history.join("\n");
    let received = receiver.lines();
    let arrived = counted(&received);
    let missing: Vec<&String> = world
        .written
        .iter()
        .filter(|line| !arrived.contains_key(line.as_str()) && !world.endangered.contains(*line))
        .collect();
    let numbers =
        |lines: &[&String]| -> Vec<String> { lines.iter().map(|line| line[46..70].to_owned()).collect() };
    assert!(missing.is_empty(), "missing {:?}\n{history}\n{}", numbers(&missing), agent.output());
    let twice: BTreeMap<_, _> = arrived.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{} twice, first {:?}\n{history}", twice.len(), twice.first_key_value());
    let written: BTreeSet<&str> = world.written.iter().map(String::as_str).collect();
    // A truncation may cut a line in two; what is left of it begins in no file.
    let invented: Vec<_> = arrived.keys().filter(|line| !written.contains(**line)).collect();
    assert!(invented.is_empty(), "{invented:?}\n{history}");
    // Lines that were counted while they waited in a file that was cut then are lost, and said to be.
    let (read, lost) = (number(&status, "/ledger/lines/read"), number(&status, "/ledger/lines/lost"));
    assert_eq!(read, received.len() as u64 + lost, "{}\n{history}", status["ledger"]);
    assert!(lost <= world.endangered.len() as u64, "{}\n{history}", status["ledger"]);
    assert_eq!(number(&receiver.stats(), "/conflicts"), 0, "a repeated batch is the same");
    wait_for("the last summaries", || (receiver.summary_sum("/requests") >= read).then_some(()));
    assert_eq!(receiver.summary_sum("/requests"), read, "{history}");
    assert!(!agent.output().contains("panicked"), "{}", agent.output());
}

#[test]
fn whatever_happens_every_line_arrives_and_every_number_adds_up() {
    let seed = setting("WATCHPOST_TEST_CHAOS_SEED", fastrand::u64(..));
    let seconds = setting("WATCHPOST_TEST_CHAOS_SECONDS", SECONDS_DEFAULT);
    let begun = Instant::now();
    let mut life = 0;
    while life == 0 || begun.elapsed() < Duration::from_secs(seconds) {
        let seed = seed.wrapping_add(life);
        eprintln!("life {life}, WATCHPOST_TEST_CHAOS_SEED={seed}");
        let directory = tempfile::tempdir().expect("a temporary directory");
        live(directory.path(), seed, seconds.min(30));
        life += 1;
    }
}
