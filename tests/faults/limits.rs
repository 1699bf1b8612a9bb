//! Limits that the system sets to the agent's process: too little memory, files that may not grow.
//!
//! Memory is limited by a control group; RLIMIT_AS would count what is only mapped, RLIMIT_DATA not what is read.

use super::mounts::has_root;
use super::*;
use crate::support::Process;

/// The limit under which the agent must live.
const MEMORY_BYTES: u64 = 64 << 20;

/// Far below what it needs, for the control.
const MEMORY_BYTES_TOO_FEW: u64 = 1 << 20;

/// Very long lines, and how long each is.
const LONG_LINES: u64 = 5;
const LONG_LINE_BYTES: usize = 10 << 20;

/// Lines between them.
const LINES: u64 = 20_000;

/// A control group with a limit of its memory, page cache included.
struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    /// Version 1 where it is mounted, version 2 otherwise.
    fn new(bytes: u64) -> MemoryGroup {
        let name = format!("watchpost-test-{}-{bytes}", std::process::id());
        let (root, file) = match Path::new("/sys/fs/cgroup/memory/tasks").exists() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        if file == "memory.max" {
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").expect("memory may be limited");
        }
        let path = Path::new(root).join(name);
        fs::create_dir(&path).expect("this test needs a control group for memory, of either version");
        fs::write(path.join(file), bytes.to_string()).expect("memory can be limited");
        MemoryGroup { path }
    }

    /// The agent inside it.
    fn start(&self, agent: &Agent) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$1/cgroup.procs\" && exec \"$0\" run", WATCHPOST]).arg(&self.path);
        command.env_clear();
        for (name, value) in agent.command(&["run"]).get_envs() {
            command.env(name, value.expect("only settings are set"));
        }
        Process::start(&mut command, &agent.directory.join("agent.out"))
    }

    /// How often the limit was met, and the most that was used.
    fn figures(&self) -> (String, String) {
        let read = |names: [&str; 2]| {
            let texts = names.iter().filter_map(|name| fs::read_to_string(self.path.join(name)).ok());
            texts.map(|text| text.trim().replace('\n', ", ")).next().unwrap_or_default()
        };
        (read(["memory.failcnt", "memory.events"]), read(["memory.max_usage_in_bytes", "memory.peak"]))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes end a moment before their group is empty.
        let _ = (0..200).find(|_| fs::remove_dir(&self.path).is_ok() || wait_moment());
    }
}

fn wait_moment() -> bool {
    std::thread::sleep(Duration::from_millis(10));
    false
}

/// A log with a backlog and some very long lines.
fn write_backlog(log: &mut NumberedLog) {
    for _ in 0..LONG_LINES {
        log.append(LINES / LONG_LINES);
        let mut file = OpenOptions::new().append(true).open(&log.path).expect("the log");
        let mut line = vec![b'x'; LONG_LINE_BYTES];
        line.push(b'\n');
        file.write_all(&line).expect("written");
    }
}

#[test]
fn a_backlog_and_very_long_lines_fit_into_little_memory() {
    if !has_root() {
        return;
    }
    let scene = Scene::new();
    let path = scene.path().join("access.log");
    let receiver = Receiver::start(scene.path());
    let mut agent = Agent::new(scene.path(), &path.display().to_string());
    hurry(&mut agent, &receiver.url(), "1MB");
    agent.set("SPOOL_MAX", "64MiB");
    let mut log = NumberedLog::new(path, 1);
    write_backlog(&mut log);

    let group = MemoryGroup::new(MEMORY_BYTES);
    let mut process = group.start(&agent);
    let status = wait_settled(&agent, &log.path);
    let lines = LINES + LONG_LINES;
    assert_eq!(number(&status, "/ledger/lines/shipped"), lines, "{}", status["ledger"]);
    assert_eq!(number(&status, "/web/totals/cut"), LONG_LINES);
    assert_eq!(process.stop(), Some(0), "{}", agent.output());
    let (met, most) = group.figures();
    let bytes = fs::metadata(&log.path).expect("the log").len() >> 20;
    println!(
        "memory: {lines} lines, {bytes} MiB, in {} MiB: used {most}, limit met: {met}",
        MEMORY_BYTES >> 20
    );
}

/// The control: the group does limit.
#[test]
fn too_little_memory_ends_the_agent() {
    if !has_root() {
        return;
    }
    let scene = Scene::new();
    let path = scene.path().join("access.log");
    let agent = Agent::new(scene.path(), &path.display().to_string());
    write_backlog(&mut NumberedLog::new(path, 1));
    let group = MemoryGroup::new(MEMORY_BYTES_TOO_FEW);
    let mut process = group.start(&agent);
    let code = wait_for("the agent to be killed for want of memory", || process.ended());
    assert_ne!(code, 0);
}

/// A limit of the size of files, as of `LimitFSIZE=` in a unit: the system sends SIGXFSZ, which ends a process that does
/// not care for it.
#[test]
fn files_that_may_not_grow_are_survived() {
    if !has_root() {
        return;
    }
    let scene = Scene::new();
    let path = scene.path().join("access.log");
    let receiver = Receiver::start(scene.path());
    let mut agent = Agent::new(scene.path(), &path.display().to_string());
    hurry(&mut agent, &receiver.url(), "20KB");
    let mut log = NumberedLog::new(path, 1);
    log.append(20);
    agent.start();
    wait_settled(&agent, &log.path);
    let limit = |bytes: &str| {
        let process = agent.id().to_string();
        super::mounts::run("prlimit", &["--pid", &process, &format!("--fsize={bytes}")]);
    };
    limit("20000:unlimited");
    for _ in 0..10 {
        log.append(20);
        wait_for("the port", || crate::support::get(agent.address, "/healthz"));
    }
    wait_flushed(&agent);
    limit("unlimited");
    let found = finish_and_judge(&mut agent, &receiver, &log, 0);
    assert!(found.complaints.is_empty(), "{:#?}", found.complaints);
}
