//! What the tests share: waiting for a condition, a small HTTP client, and the processes under test.
//!
//! Every process is ended when its handle is dropped; nothing waits without a deadline.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub(crate) const WATCHPOST: &str = env!("CARGO_BIN_EXE_watchpost");

/// A command of the binary under test without the settings of whoever runs the tests: theirs have the same prefix.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(WATCHPOST);
    without_settings(&mut command);
    command
}

/// Takes away what a binary below this command would take for a setting.
pub(crate) fn without_settings(command: &mut Command) -> &mut Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("WATCHPOST_")) {
        command.env_remove(name);
    }
    command
}

/// Longest wait for anything; a loaded machine is slow, a hung one must fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for a process that is asked to end where nobody looks at how it ends.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` gives something; fails with `what` after [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// Waits until `look` gives something; fails with `what` after `limit`.
#[track_caller]
pub(crate) fn wait_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        wait_out(LOOK_INTERVAL);
    }
}

/// Lets time pass where the passing itself is what is tested: an outage of so many seconds.
pub(crate) fn wait_out(duration: Duration) {
    std::thread::sleep(duration);
}

/// Copies a program. Another process does it: what a thread of ours has open to write is open in whatever another thread starts
/// meanwhile, and such a file cannot be executed.
#[track_caller]
pub(crate) fn copy_program(from: &str, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "cp {from} {}: {status}", to.display());
}

/// An address on loopback that nobody listens on, below the ports that the kernel gives to outgoing connections: one
/// of those may be taken again before it is listened on.
pub(crate) fn free_address() -> SocketAddr {
    let listener =
        wait_for("a free port", || TcpListener::bind(("127.0.0.1", fastrand::u16(15_000..32_000))).ok());
    listener.local_addr().expect("its address")
}

/// A GET over plain HTTP; `None` when nobody answers properly.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body)? } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

/// A GET whose answer is JSON.
pub(crate) fn get_json(address: SocketAddr, path: &str) -> Option<Value> {
    let (status, body) = get(address, path)?;
    (status == 200).then(|| serde_json::from_str(&body).ok()).flatten()
}

/// The number at a JSON pointer, 0 where there is none.
pub(crate) fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A process that is killed when its handle goes.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it, with its output in a file.
    pub(crate) fn start(command: &mut Command, output: &Path) -> Process {
        let file = File::options().create(true).append(true).open(output).expect("a file for the output");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child }
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Kills it as a power cut would, as far as a process can be.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, so that it can end the processes that it started itself, and kills it if it does not.
    pub(crate) fn end(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + END_PATIENCE;
        while self.ended().is_none() && Instant::now() < deadline {
            wait_out(LOOK_INTERVAL);
        }
        self.kill();
    }

    /// Asks it to stop and gives the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        let status = wait_for("the process to stop", || self.child.try_wait().ok().flatten());
        status.code()
    }

    /// The exit code, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by name to a process that a test started.
pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {process}");
}

/// The receiver of the binary under test.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) store: PathBuf,
    directory: PathBuf,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Receiver {
    /// Starts a receiver that stores what it gets below `directory`.
    pub(crate) fn start(directory: &Path) -> Receiver {
        Receiver::start_with(directory, &[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(directory: &Path, flags: &[&str]) -> Receiver {
        let mut receiver = Receiver {
            address: free_address(),
            store: directory.join("received"),
            directory: directory.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            process: None,
        };
        receiver.resume();
        receiver
    }

    /// Goes away, connections and all; what it has taken it has answered.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// Comes back on the same address.
    pub(crate) fn resume(&mut self) {
        let mut command = binary();
        command
            .args(["receiver", "--listen", &self.address.to_string()])
            .arg("--store")
            .arg(&self.store)
            .args(&self.flags);
        self.process = Some(Process::start(&mut command, &self.directory.join("receiver.out")));
        wait_for("the receiver", || get(self.address, "/stats"));
    }

    /// The URL to send to; its path is a canary that must be seen nowhere.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/receiver/v1/http/ZaVnC4dhaV2cAnArY", self.address)
    }

    /// What `GET /stats` answers.
    pub(crate) fn stats(&self) -> Value {
        wait_for("the receiver's counts", || get_json(self.address, "/stats"))
    }

    /// The stored records of a category, in the order of arrival.
    pub(crate) fn records(&self, category: &str) -> Vec<Value> {
        let path = self.store.join(format!("{}.ndjson", category.replace('/', "_")));
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON record")).collect()
    }

    /// The log lines received, in the order of arrival.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = |record: Value| record["log"].as_str().map(str::to_owned);
        self.records("watchpost/nginx/access").into_iter().filter_map(text).collect()
    }

    /// Sum of a field over the shipped summaries of all virtual hosts together.
    pub(crate) fn summary_sum(&self, pointer: &str) -> u64 {
        let records = self.records("watchpost/web");
        records.iter().filter(|record| record["vhost"] == "_all").map(|record| number(record, pointer)).sum()
    }
}

/// The agent under test, with a directory of its own.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    pub(crate) directory: PathBuf,
    settings: BTreeMap<String, String>,
    /// The soft limit of open files that it is started with.
    open_files_max: Option<u64>,
    process: Option<Process>,
}

impl Agent {
    /// Settings for an agent that reads `logs` from their beginning; nothing is started yet.
    pub(crate) fn new(directory: &Path, logs: &str) -> Agent {
        let address = free_address();
        let mut agent = Agent {
            address,
            directory: directory.to_owned(),
            settings: BTreeMap::new(),
            open_files_max: None,
            process: None,
        };
        agent.set("ACCESS_LOGS", logs);
        agent.set("READ_FROM", "beginning");
        agent.set("STATE_DIR", &directory.join("state").display().to_string());
        agent.set("STATUS_ADDR", &address.to_string());
        agent.set("NGINX_CONF", &directory.join("no-nginx.conf").display().to_string());
        // What else runs on this machine is no part of a test.
        agent.set("HAPROXY", "none");
        agent.set("MYSQL", "none");
        agent.set("CERTIFICATES", "none");
        agent.set("FIREWALL", "none");
        agent.set("FLUSH_INTERVAL", "1s");
        agent.set("HOST_INTERVAL", "2s");
        agent.set("SUMMARY_INTERVAL", "2s");
        agent
    }

    /// Sets `WATCHPOST_<name>` for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(format!("WATCHPOST_{name}"), value.to_owned());
    }

    /// Sets a variable that is no setting of the agent's, for the next start.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// Sets the soft limit of open files for the next start, as a login shell or a service manager would.
    pub(crate) fn limit_open_files(&mut self, files: u64) {
        self.open_files_max = Some(files);
    }

    /// A command of the binary with the agent's settings and no others.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(WATCHPOST);
        command.args(arguments).env_clear().envs(&self.settings);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Starts the agent and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.start_without_waiting();
        wait_for("the agent to be ready", || {
            let process = self.process.as_mut().expect("it was started");
            assert_eq!(process.ended(), None, "the agent ended: {}", self.output());
            get(self.address, "/readyz").filter(|(status, _)| *status == 200)
        });
    }

    /// Starts the agent.
    pub(crate) fn start_without_waiting(&mut self) {
        let mut command = self.command(&["run"]);
        if let Some(files) = self.open_files_max {
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -S -n {files} && exec \"$0\" run"), WATCHPOST]);
            command = with_environment_of(limited, &command);
        }
        self.start_as(&mut command);
    }

    /// Starts the agent by a command of the test's own, which becomes the agent.
    pub(crate) fn start_as(&mut self, command: &mut Command) {
        self.process = Some(Process::start(command, &self.directory.join("agent.out")));
    }

    /// Everything the agent has printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.join("agent.out")).unwrap_or_default()
    }

    /// The process number.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// The exit code, if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.process.as_mut().expect("it was started").ended()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
        self.process = None;
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("it runs");
        process.stop()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.as_ref().expect("it runs").signal(name);
    }

    /// `GET /status`.
    pub(crate) fn status(&self) -> Value {
        wait_for("the status", || get_json(self.address, "/status"))
    }

    /// Waits until the status satisfies a condition, and gives it.
    #[track_caller]
    pub(crate) fn wait_status(&self, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = get_json(self.address, "/status") {
                if condition(&status) {
                    return status;
                }
                last = status;
            }
            wait_out(LOOK_INTERVAL);
        }
        panic!("waited {PATIENCE:?} in vain for {what}; last status: {last:#}\n{}", self.output());
    }

    /// Waits until `lines` were read and every one of them was accepted.
    #[track_caller]
    pub(crate) fn wait_shipped(&self, lines: u64) -> Value {
        self.wait_status(&format!("{lines} lines shipped"), |status| {
            let ledger = |name: &str| number(status, &format!("/ledger/lines/{name}"));
            ledger("read") == lines && ledger("shipped") == lines && ledger("held") == 0
        })
    }

    /// Runs a command of the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }
}

/// The command with the environment of another one and nothing else.
pub(crate) fn with_environment_of(mut command: Command, other: &Command) -> Command {
    command.env_clear().envs(other.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Asks for `/status` ten times a second and remembers whether the ledger ever failed to balance.
pub(crate) struct BalanceWatch {
    stop: Arc<AtomicBool>,
    polls: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<Value>>>,
}

impl BalanceWatch {
    /// Begins to ask; an agent that is down is no failure.
    pub(crate) fn start(address: SocketAddr) -> BalanceWatch {
        let stop = Arc::new(AtomicBool::new(false));
        let polls = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, polls) = (Arc::clone(&stop), Arc::clone(&polls));
            move || {
                let mut wrong = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if let Some(status) = get_json(address, "/status") {
                        polls.fetch_add(1, Ordering::Relaxed);
                        if !is_balanced(&status["ledger"]) {
                            wrong.push(status["ledger"].clone());
                        }
                    }
                    wait_out(Duration::from_millis(100));
                }
                wrong
            }
        });
        BalanceWatch { stop, polls, thread: Some(thread) }
    }

    /// Ends and gives the number of answers; fails if any was out of balance, or if there was none at all.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.thread.take().expect("it runs").join().expect("the watch ends");
        assert_eq!(wrong, [Value::Null; 0], "answers out of balance");
        let polls = self.polls.load(Ordering::Relaxed);
        assert!(polls > 0, "the status was never asked");
        polls
    }
}

/// Whether the agent says so, and whether it is so.
pub(crate) fn is_balanced(ledger: &Value) -> bool {
    let lines = |name: &str| number(ledger, &format!("/lines/{name}"));
    ledger["balanced"] == true
        && lines("read") == lines("shipped") + lines("held") + lines("filtered") + lines("lost")
}

/// One combined log line of now, unlike every other by its number.
pub(crate) fn log_line(number: u64, status: u16) -> String {
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let time = now.strftime("%d/%b/%Y:%H:%M:%S %z");
    format!("127.0.0.1 - - [{time}] \"GET /page/{number} HTTP/1.1\" {status} 612 \"-\" \"test/1.0\"")
}

/// How often each line stands in a list.
pub(crate) fn counted<'a>(lines: impl IntoIterator<Item = &'a String>) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.as_str()).or_default() += 1;
    }
    counts
}
