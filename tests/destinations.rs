//! Destinations that misbehave, seen from the front door: whatever one does, no line is lost, a batch is repeated only
//! with the same bytes under the same key, the account balances at every look, `/status` says in words what is
//! wrong, the URL shows nowhere, and delivery goes on by itself once the fault has ended.
//!
//! Many agents run side by side, since most of what they do is wait.

mod answers;
pub(crate) mod network;
mod tls;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fault_server::{Audit, CANARY, FaultServer, answer};
use crate::support::{Agent, get, get_json, is_balanced, log_line, number, wait_for, wait_out};

/// Lines written for each fault.
const LINES: usize = 20;
/// Between two looks at a status.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for an agent: a request may take 30 s, the wait behind it up to 15 s, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(100);
/// Most memory that an agent of these tests may ever have held, in a debug build.
const MEMORY_KIB_MAX: u64 = 64 * 1024;

/// An agent and the destination that it has.
struct Lane {
    agent: Agent,
    server: FaultServer,
    log: PathBuf,
    written: Vec<String>,
    looks: u64,
    directory: tempfile::TempDir,
}

impl Lane {
    fn start() -> Lane {
        Lane::start_with(FaultServer::start(), "http", |_| {})
    }

    /// With a server that may misbehave already, and further settings.
    fn start_with(server: FaultServer, scheme: &str, set: impl FnOnce(&mut Agent)) -> Lane {
        let mut lane = Lane::prepare(server, scheme, set);
        lane.agent.start();
        lane
    }

    fn prepare(server: FaultServer, scheme: &str, set: impl FnOnce(&mut Agent)) -> Lane {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("access.log");
        let mut agent = Agent::new(directory.path(), &log.display().to_string());
        agent.set("SUMO_URL", &server.url(scheme, "localhost"));
        agent.set("FLUSH_INTERVAL", "200ms");
        agent.set("HOST_SOURCES", "none");
        set(&mut agent);
        Lane { agent, server, log, written: Vec::new(), looks: 0, directory }
    }

    fn write(&mut self, count: usize) {
        self.write_lines(count, |line| line);
    }

    fn write_lines(&mut self, count: usize, mut change: impl FnMut(String) -> String) {
        let numbers = self.written.len()..self.written.len() + count;
        let lines: Vec<String> = numbers.map(|number| change(log_line(number as u64, 200))).collect();
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        log.and_then(|mut log| log.write_all((lines.join("\n") + "\n").as_bytes())).expect("written");
        self.written.extend(lines);
    }

    /// One look at the status, in which the account must balance and the address must not be.
    fn look(&mut self) -> Option<Value> {
        let status = get_json(self.agent.address, "/status")?;
        assert!(is_balanced(&status["ledger"]), "out of balance: {}", status["ledger"]);
        assert!(!status.to_string().contains(CANARY), "the address shows: {}", status["delivery"]);
        self.looks += 1;
        Some(status)
    }

    #[track_caller]
    fn wait(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Value::Null;
        while Instant::now() < deadline {
            if let Some(status) = self.look() {
                if condition(&status) {
                    return status;
                }
                last = status;
            }
            wait_out(LOOK_INTERVAL);
        }
        let (delivery, ledger) = (&last["delivery"], &last["ledger"]);
        panic!("waited {PATIENCE:?} in vain for {what}: {delivery:#} {ledger:#}\n{}", self.agent.output());
    }

    /// Waits until every line that was written is shipped.
    #[track_caller]
    fn wait_shipped(&mut self, after: &str) -> Value {
        let lines = self.written.len() as u64;
        self.wait(&format!("{lines} lines to be shipped after {after}"), |status| {
            number(status, "/ledger/lines/shipped") == lines && number(status, "/ledger/lines/held") == 0
        })
    }

    /// Lets the destination fail, writes lines, waits until the status says so, mends the destination, and waits until
    /// the lines have arrived. Gives what the status said of delivery meanwhile.
    #[track_caller]
    fn suffers(
        &mut self,
        (state, words): (&str, &str),
        fail: impl FnOnce(&FaultServer),
        mend: impl FnOnce(&FaultServer),
    ) -> Value {
        let before = self.wait("the first answers", |status| status["delivery"]["state"] != "off");
        let failures = number(&before, "/delivery/failures");
        fail(&self.server);
        self.write(LINES);
        let told = self.wait(words, |status| {
            let delivery = &status["delivery"];
            number(status, "/delivery/failures") > failures
                && delivery["last_error"].as_str().is_some_and(|error| error.contains(words))
                && delivery["next_try_in_s"].is_number()
                && number(status, "/ledger/lines/held") >= LINES as u64
        });
        assert_eq!(told["delivery"]["state"], state, "{words}: {}", told["delivery"]);
        mend(&self.server);
        self.wait_shipped(words);
        told["delivery"].clone()
    }

    /// [`Lane::suffers`] from one act that goes on until it is mended.
    #[track_caller]
    fn suffers_from(&mut self, act: crate::fault_server::Act, state: &str, words: &str) -> Value {
        self.suffers((state, words), |server| server.stand(act), FaultServer::mend)
    }

    /// The same from an act that comes once and takes so long that nobody should wait for it twice.
    #[track_caller]
    fn outlasts(&mut self, act: crate::fault_server::Act, words: &str) {
        self.server.play([act]);
        self.write(LINES);
        let told = self.wait(words, |status| number(status, "/delivery/failures") > 0);
        let delivery = &told["delivery"];
        assert!(delivery["last_error"].as_str().is_some_and(|error| error.contains(words)), "{delivery}");
        self.wait_shipped(words);
    }

    /// Stops the agent. Every line has arrived once and in order, nothing was repeated without need or with a change,
    /// and the address is nowhere.
    #[track_caller]
    fn finish(self) -> Audit {
        let written = self.written.clone();
        let audit = self.finish_without(&[]);
        assert_eq!(audit.lines.len(), written.len(), "lines that arrived");
        audit
    }

    /// The same where the destination has refused these lines for good.
    #[track_caller]
    fn finish_without(mut self, refused: &[String]) -> Audit {
        assert!(self.looks > 0, "the status was never asked");
        let peak_kib = peak_memory_kib(self.agent.id());
        assert!(peak_kib < MEMORY_KIB_MAX, "{peak_kib} KiB");
        let pages = ["/metrics", "/healthz", "/"].map(|path| get(self.agent.address, path));
        assert_eq!(self.agent.stop(), Some(0), "{}", self.agent.output());
        let said = format!("{pages:?} {}", self.agent.output());
        assert!(!said.contains(CANARY), "the address shows: {said}");
        assert!(!said.contains("panicked"), "{said}");
        for entry in fs::read_dir(self.directory.path().join("state/spool")).expect("the spool").flatten() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "{:?}", entry.path());
        }
        let audit = self.server.audit();
        assert_eq!((audit.conflicts, audit.needless), (0, 0), "repeats: {}", audit.repeats);
        let mut expected: Vec<&String> = self.written.iter().filter(|line| !refused.contains(line)).collect();
        let mut arrived: Vec<&String> = audit.lines.iter().collect();
        if !refused.is_empty() {
            // Refused beside others that were halved, and halves go to the end of the queue.
            expected.sort();
            arrived.sort();
        }
        assert!(arrived == expected, "not every line once and in order: {arrived:#?} for {expected:#?}");
        audit
    }
}

/// The most memory that a process ever held.
fn peak_memory_kib(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("the process");
    let peak = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    peak.expect("its peak memory")
}

/// A test among others that run at the same time, and its name.
type Story = (&'static str, Box<dyn FnOnce() + Send>);

/// Runs stories side by side; the first that fails fails the test, once all have ended.
fn side_by_side(stories: Vec<Story>) {
    let threads: Vec<_> =
        stories.into_iter().map(|(name, story)| (name, std::thread::spawn(story))).collect();
    let failed: Vec<&str> =
        threads.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect();
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

/// The control of every check here: the server tells another body under the same key, and a batch that is sent again
/// though it had been accepted, from a repeat that is allowed.
#[test]
fn the_fault_server_tells_a_changed_repeat_from_a_true_one() {
    let server = FaultServer::start();
    let post = |key: &str, line: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(format!("{{\"log\":\"{line}\"}}\n").as_bytes()).expect("memory takes it");
        let body = gzip.finish().expect("memory takes it");
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nX-Sumo-Category: watchpost/nginx/access\r\nIdempotency-Key: {key}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        stream.write_all(&[head.as_bytes(), &body].concat()).expect("it reads");
        let _ = stream.read(&mut [0; 1000]);
    };
    let audit = |lines: &[&str], repeats, conflicts, needless| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let expected = Audit { lines, events: Vec::new(), repeats, conflicts, needless };
        wait_for("the request", || (server.audit() == expected).then_some(()));
    };
    server.play([answer("503 Busy", "", "")]);
    post("a/1/1", "one");
    post("a/1/1", "one");
    audit(&["one"], 1, 0, 0);
    post("a/1/1", "one");
    audit(&["one"], 2, 0, 1);
    post("a/1/1", "two");
    audit(&["one"], 3, 1, 2);
    post("a/1/2", "two");
    audit(&["one", "two"], 3, 1, 2);
}
