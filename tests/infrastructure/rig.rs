//! A lab as a fixture: raised with its stdin on a pipe, asked by `lab exec`, and ended with a proof that nothing is left.
//!
//! Owns: the one place that starts `tests/infrastructure/lab`. A lab of a test has a directory of its own, and the name of
//! that directory is the mark by which everything of the lab is known.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::support::{WATCHPOST, wait_for, wait_within};

/// The hosts with nginx.
pub(crate) const WEB_HOSTS: [&str; 2] = ["web1", "web2"];

/// Longest wait for a lab: it takes seconds, on a loaded machine many.
const UP_PATIENCE: Duration = Duration::from_secs(240);

/// Longest wait until the kernel has ended everything of a lab.
const DOWN_PATIENCE: Duration = Duration::from_secs(20);

/// Tests with labs take turns, two at a time: each is a dozen daemons and more.
static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// Which turn the next test waits for.
static NEXT_TURN: AtomicUsize = AtomicUsize::new(0);

fn take_turn() -> MutexGuard<'static, ()> {
    let turn = NEXT_TURN.fetch_add(1, Ordering::Relaxed) % TURNS.len();
    TURNS[turn].lock().unwrap_or_else(PoisonError::into_inner)
}

/// The form of an infrastructure.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// With the three weaknesses: plaintext behind the load balancer, one writer, everything on one host.
    Diagram,
    /// Without them.
    Mended,
}

/// A lab that stands, until it is dropped.
pub(crate) struct Lab {
    process: Child,
    stdin: Option<ChildStdin>,
    directory: PathBuf,
    /// The namespaces that its processes were seen in.
    namespaces: BTreeSet<String>,
    home: tempfile::TempDir,
    is_over: bool,
    turn: Option<MutexGuard<'static, ()>>,
}

/// Without root no lab can be raised, and that is said; it may be left out only by order.
#[track_caller]
pub(crate) fn has_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let is_known = std::env::var("WATCHPOST_TEST_WITHOUT_ROOT").is_ok_and(|value| value == "1");
    assert!(is_known, "the lab needs root; WATCHPOST_TEST_WITHOUT_ROOT=1 leaves such tests out");
    println!("left out by order: this test needs root");
    false
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/infrastructure/lab"))
}

/// Names for `lab break` and `lab mend`.
pub(crate) fn names() -> Vec<String> {
    let output = script().arg("list").output().expect("bash is there");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

impl Lab {
    /// Raises a lab.
    pub(crate) fn up(form: Form) -> Lab {
        Lab::up_with(form, &[])
    }

    /// Raises a lab whose agents have further settings: pairs of a host, or `all`, and a line for its `watchpost.env`.
    pub(crate) fn up_with(form: Form, settings: &[(&str, &str)]) -> Lab {
        let turn = take_turn();
        let mut lab = Lab::begin(form, settings);
        lab.turn = Some(turn);
        lab.wait_ready();
        lab
    }

    /// Raises two labs at the same time.
    pub(crate) fn up_both(first: Form, second: Form) -> (Lab, Lab) {
        let turn = take_turn();
        let (mut first, mut second) = (Lab::begin(first, &[]), Lab::begin(second, &[]));
        // The second is ended last.
        second.turn = Some(turn);
        first.wait_ready();
        second.wait_ready();
        (first, second)
    }

    fn begin(form: Form, settings: &[(&str, &str)]) -> Lab {
        let home =
            tempfile::Builder::new().prefix("watchpost-lab-").tempdir().expect("a temporary directory");
        let (directory, extra) = (home.path().join("lab"), home.path().join("settings"));
        fs::create_dir(&extra).expect("a directory");
        for (host, line) in settings {
            let file = extra.join(format!("{host}.env"));
            let before = fs::read_to_string(&file).unwrap_or_default();
            fs::write(&file, format!("{before}{line}\n")).expect("settings");
        }
        let output = File::create(home.path().join("lab.out")).expect("a file for the output");
        let form = match form {
            Form::Diagram => "diagram",
            Form::Mended => "mended",
        };
        let mut command = script();
        command.args(["up", "--form", form, "--watchpost", WATCHPOST]);
        command.arg("--dir").arg(&directory).arg("--settings").arg(&extra);
        command.stdin(Stdio::piped()).stdout(output.try_clone().expect("the same file")).stderr(output);
        let mut process = command.spawn().expect("bash is there");
        let stdin = process.stdin.take();
        Lab { process, stdin, directory, namespaces: BTreeSet::new(), home, is_over: false, turn: None }
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        wait_within(UP_PATIENCE, "the lab to be ready", || {
            let said = self.said();
            let ended = self.process.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "the lab ended: {ended:?}\n{said}");
            said.contains("the lab is ready").then_some(())
        });
        for process in marked_processes(&self.mark()) {
            self.namespaces.extend(namespaces_of(&process));
        }
        // The machine's own are everybody's.
        for name in namespaces_of(Path::new("/proc/self")) {
            self.namespaces.remove(&name);
        }
    }

    /// What the lab has printed.
    fn said(&self) -> String {
        fs::read_to_string(self.home.path().join("lab.out")).unwrap_or_default()
    }

    /// The name that stands in the mounts of every process of the lab.
    fn mark(&self) -> String {
        self.home.path().file_name().expect("a name").to_string_lossy().into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = script();
        command.arg(arguments[0]).arg("--dir").arg(&self.directory).args(&arguments[1..]);
        command.stdin(Stdio::null()).output().expect("bash is there")
    }

    /// A command of the lab that must succeed; gives what it printed.
    #[track_caller]
    fn lab(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "lab {arguments:?}: {}\n{text}{complaint}", output.status);
        text
    }

    /// Runs a command in a host.
    pub(crate) fn exec(&self, host: &str, command: &[&str]) -> Output {
        self.command(&[&["exec", host], command].concat())
    }

    /// Switches a weakness or a fault on, or does it once.
    #[track_caller]
    pub(crate) fn break_(&self, name: &str) -> String {
        self.lab(&["break", name])
    }

    /// The same on a host of choice.
    #[track_caller]
    pub(crate) fn break_at(&self, name: &str, host: &str) -> String {
        self.lab(&["break", name, host])
    }

    /// Switches it off.
    #[track_caller]
    pub(crate) fn mend(&self, name: &str) -> String {
        self.lab(&["mend", name])
    }

    /// Gives the agent of a host further settings, with which it starts again.
    #[track_caller]
    pub(crate) fn set(&self, host: &str, lines: &[&str]) {
        self.lab(&[&["set", host], lines].concat());
    }

    /// Sends exactly so many requests from the client; what came of them.
    #[track_caller]
    pub(crate) fn load(&self, requests: u64, concurrency: u64) -> Value {
        let (requests, concurrency) = (requests.to_string(), concurrency.to_string());
        let output = self.command(&["load", "--requests", &requests, "--concurrency", &concurrency]);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The answer of a host's agent, by curl on that host.
    pub(crate) fn agent(&self, host: &str, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:7866{path}");
        let output = self.exec(host, &["curl", "-sS", "-m", "10", &url]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `GET /status` of a host's agent.
    #[track_caller]
    pub(crate) fn status(&self, host: &str) -> Value {
        wait_for("the status", || serde_json::from_str(&self.agent(host, "/status")?).ok())
    }

    /// A number of HAProxy's statistics, from the socket that may only be read.
    #[track_caller]
    pub(crate) fn haproxy(&self, proxy: &str, server: &str, column: &str) -> u64 {
        let ask = ["/usr/bin/python3", "/opt/lab/ask.py", "/run/haproxy/ro.sock", "show stat"];
        let output = self.exec("lb", &ask);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut rows = text.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = rows.next().unwrap_or_default();
        let at = head.iter().position(|name| *name == column);
        let row = rows.find(|row| row.first() == Some(&proxy) && row.get(1) == Some(&server));
        let cell = at.zip(row).and_then(|(at, row)| row.get(at)?.parse().ok());
        cell.unwrap_or_else(|| panic!("no {column} of {proxy} {server}: {output:?}"))
    }

    /// A file of a host, as it is seen from the machine.
    pub(crate) fn file(&self, host: &str, path: &str) -> PathBuf {
        self.directory.join("hosts").join(host).join(path.trim_start_matches('/'))
    }

    /// The records of a category that the collector stored, in the order of arrival.
    pub(crate) fn collected(&self, category: &str) -> Vec<Value> {
        let name = format!("/var/lib/watchpost/received/{}.ndjson", category.replace('/', "_"));
        let text = fs::read_to_string(self.file("collector", &name)).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a JSON record")).collect()
    }

    /// What of the lab is on the machine now: processes, mounts, namespaces.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mark = self.mark();
        let mut traces = Vec::new();
        for process in processes() {
            let text = |name: &str| fs::read(process.join(name)).unwrap_or_default();
            let command = String::from_utf8_lossy(&text("cmdline")).replace('\0', " ");
            if holds(&text("cmdline"), &mark) {
                traces.push(format!("process {}: {command}", process.display()));
            }
            if holds(&text("mountinfo"), &mark) {
                traces.push(format!("mounts of {}: {command}", process.display()));
            }
            let namespaces = namespaces_of(&process);
            let still = namespaces.intersection(&self.namespaces);
            traces.extend(still.map(|name| format!("namespace {name} of {}: {command}", process.display())));
        }
        // `ip netns` would have left its names here.
        let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let ours = names.filter(|entry| WEB_HOSTS.iter().any(|host| entry.file_name() == *host));
        traces.extend(ours.map(|entry| format!("name {}", entry.path().display())));
        traces
    }

    /// Ends the lab as a person does, by the end of its stdin, and makes sure that nothing is left.
    pub(crate) fn end(mut self) {
        self.finish();
    }

    /// SIGKILL on the lab's process, and nothing is left all the same.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.finish();
    }

    fn finish(&mut self) {
        self.is_over = true;
        drop(self.stdin.take());
        wait_within(DOWN_PATIENCE, "the end of the lab", || {
            self.process.try_wait().expect("a child of ours")
        });
        let mut left = Vec::new();
        wait_within(DOWN_PATIENCE, "nothing to be left of the lab", || {
            let now = self.traces();
            if now != left {
                // Seen with the failure, if it comes to that.
                println!("left of the lab: {now:#?}");
                left = now;
            }
            left.is_empty().then_some(())
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if std::thread::panicking() {
            println!("the lab said: {}", self.said());
            let _ = self.process.kill();
            let _ = self.process.wait();
        } else {
            self.finish();
        }
    }
}

/// The directories of all processes in /proc.
fn processes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let is_process = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries.map(|entry| entry.path()).filter(is_process).collect()
}

/// Those that see a mount from the lab's directory.
fn marked_processes(mark: &str) -> Vec<PathBuf> {
    let is_marked =
        |process: &PathBuf| fs::read(process.join("mountinfo")).is_ok_and(|mounts| holds(&mounts, mark));
    processes().into_iter().filter(is_marked).collect()
}

fn holds(text: &[u8], mark: &str) -> bool {
    text.windows(mark.len()).any(|part| part == mark.as_bytes())
}

/// The namespaces of a process, as `net:[4026532001]`.
fn namespaces_of(process: &Path) -> BTreeSet<String> {
    let links = ["mnt", "net", "pid", "uts"].map(|kind| fs::read_link(process.join("ns").join(kind)));
    links.into_iter().flatten().map(|link| link.display().to_string()).collect()
}
