//! S6 to S8: what others may have put into the state directory and where logs are sought, and what the agent itself makes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::{below, directory, is_root, said};
use crate::support::{Agent, Process, Receiver, WATCHPOST, get, log_line, number, wait_for};

/// A user that owns nothing here: nobody, on every Linux.
const STRANGER: u32 = 65_534;

/// What a directory holds, to be compared: names, modes, contents.
fn picture(directory: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let of = |path: &Path| {
        let mode = path.symlink_metadata().expect("it is there").permissions().mode();
        (path.display().to_string(), mode, fs::read(path).unwrap_or_default())
    };
    below(directory).iter().map(|path| of(path)).collect()
}

#[test]
fn s6_planted_links_are_refused_and_their_targets_untouched() {
    for name in
        ["spool", "spool/lock", "spool/seg-0000000000000001.log", "spool/quarantine", "spool/anything"]
    {
        let directory = directory();
        let victim = directory.path().join("victim");
        fs::create_dir_all(victim.join("inside")).expect("a directory");
        fs::write(victim.join("file"), "precious").expect("a file");
        let state = directory.path().join("state");
        let planted = state.join(name);
        fs::create_dir_all(planted.parent().expect("it lies below state")).expect("a directory");
        let is_file = name.contains("lock") || name.contains("seg-");
        symlink(if is_file { victim.join("file") } else { victim.clone() }, &planted).expect("a link");
        let before = picture(&victim);
        let mut agent = Agent::new(directory.path(), "none");
        let output = agent.run(&["run"]);
        let text = said(&output);
        assert!(!output.status.success() && text.contains("link"), "{name}: {text}");
        assert_eq!(picture(&victim), before, "{name}: the target was changed");
        // The control: without the link the same directory serves.
        fs::remove_file(&planted).expect("the link goes");
        agent.start();
        assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    }
}

#[test]
fn s6_a_state_that_others_can_change_is_refused_or_said() {
    if !is_root("a directory of another user") {
        return;
    }
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode is set");
    };
    let directory = directory();
    let state = directory.path().join("state");
    let mut agent = Agent::new(directory.path(), "none");
    agent.start();
    assert!(!agent.output().contains("the state directory"), "the control: {}", agent.output());
    agent.stop();
    // In a directory that others may write to, or that is theirs, the spool could be swapped: that is said.
    for (owner, bits, part) in
        [(0, 0o777, "mode 0777"), (0, 0o770, "mode 0770"), (STRANGER, 0o755, "user 65534")]
    {
        chown(&state, Some(owner), None).expect("root may");
        mode(&state, bits);
        fs::remove_file(directory.path().join("agent.out")).expect("a new log");
        agent.start();
        let log = agent.output();
        assert!(
            log.contains("WARN") && log.contains("the state directory") && log.contains(part),
            "{part}: {log}"
        );
        let check = said(&agent.run(&["check"]));
        assert!(check.contains(part), "{part}: {check}");
        agent.stop();
    }
    // With the sticky bit, as /tmp has it, everybody's entries are his own.
    chown(&state, Some(0), None).expect("root may");
    mode(&state, 0o1777);
    fs::remove_file(directory.path().join("agent.out")).expect("a new log");
    agent.start();
    assert!(!agent.output().contains("the state directory"), "{}", agent.output());
    agent.stop();
    // A folder of the spool itself that is another user's is refused, and left as it is.
    for name in ["spool", "spool/quarantine"] {
        let folder = state.join(name);
        chown(&folder, Some(STRANGER), None).expect("root may");
        mode(&folder, 0o755);
        let output = agent.run(&["run"]);
        assert!(
            !output.status.success() && said(&output).contains("user 65534"),
            "{name}: {}",
            said(&output)
        );
        assert_eq!(folder.metadata().expect("it is there").permissions().mode() & 0o777, 0o755, "{name}");
        chown(&folder, Some(0), None).expect("root may");
    }
    agent.start();
}

#[test]
fn s7_what_the_agent_makes_is_private_whatever_the_umask_says() {
    // Side by side, since each waits for the same answer to come three times.
    std::thread::scope(|scope| {
        for umask in ["000", "0777", "022"] {
            scope.spawn(move || assert_private_under(umask));
        }
    });
}

/// One agent, made to leave everything that it can leave.
fn assert_private_under(umask: &str) {
    let directory = directory();
    let log = directory.path().join("access.log");
    fs::write(&log, log_line(1, 200) + "\n").expect("a log");
    // Refuses for good, so that there is something in quarantine.
    let receiver = Receiver::start_with(directory.path(), &["--status", "400"]);
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    let state = directory.path().join("parent/state");
    agent.set("STATE_DIR", &state.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    agent.set("FLUSH_INTERVAL", "100ms");
    let settings = agent.command(&["run"]);
    let mut shell = Command::new("sh");
    let run = format!("umask {umask}; : >\"$0\"; exec {WATCHPOST} run");
    let witness = directory.path().join("witness");
    shell.arg("-c").arg(run).arg(&witness).env_clear();
    shell.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut process = Process::start(&mut shell, &directory.path().join("agent.out"));
    wait_for("the port", || get(agent.address, "/readyz").filter(|(status, _)| *status == 200));
    let quarantine = state.join("spool/quarantine");
    wait_for("a refused batch", || fs::read_dir(&quarantine).ok()?.flatten().next());
    process.stop();
    let mut files = 0;
    for path in below(&state) {
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o7777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "umask {umask}: {} has {mode:04o}", path.display());
        files += u32::from(path.is_file());
    }
    assert!(files >= 3, "lock, segment, quarantine: {files} files");
    // The control: that umask was in force for who made a file before.
    let expected = 0o666 & !u32::from_str_radix(umask, 8).expect("octal");
    let mode = witness.metadata().expect("the shell's file").permissions().mode() & 0o7777;
    assert_eq!(mode, expected, "umask {umask}");
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

/// Names that a pattern for logs finds, and that are no logs.
fn plant_what_is_no_log(logs: &Path) {
    let at = |name: &str| logs.join(format!("{name}.access.log"));
    fifo(&at("fifo"));
    for device in ["zero", "tty", "random", "full", "null", "stdin"] {
        symlink(Path::new("/dev").join(device), at(device)).expect("a link");
    }
    // Called regular by the kernel, of no size, and never the same twice.
    for file in ["/proc/kmsg", "/proc/cpuinfo", "/proc/self/environ", "/sys/kernel/uevent_seqnum"] {
        symlink(file, at(&file.replace('/', "-"))).expect("a link");
    }
    symlink(at("loop"), at("loop")).expect("a link to itself");
    symlink(at("pong"), at("ping")).expect("a link");
    symlink(at("ping"), at("pong")).expect("a link");
    symlink(logs.join("nothing"), at("dangling")).expect("a link");
    fs::create_dir(at("directory")).expect("a directory");
}

#[test]
fn s8_what_is_no_log_is_refused_without_hanging() {
    let directory = directory();
    let logs = directory.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let at = |name: &str| logs.join(format!("{name}.access.log"));
    plant_what_is_no_log(&logs);
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    fs::write(at("good"), log_line(0, 200) + "\n").expect("a log");
    fs::write(at("swapped"), log_line(1, 200) + "\n").expect("a log");

    let mut agent = Agent::new(directory.path(), &logs.join("*.log").display().to_string());
    agent.start();
    let requests =
        |count: u64| move |status: &serde_json::Value| number(status, "/web/totals/requests") == count;
    let status = agent.wait_status("the good logs", requests(2));
    let state_of = |status: &serde_json::Value, name: &str| {
        let path = at(name).display().to_string();
        let files = status["files"].as_array().expect("files");
        let file = files.iter().find(|file| file["path"] == path.as_str())?;
        Some(file["state"].as_str().unwrap_or_default().to_owned())
    };
    for name in [
        "fifo",
        "zero",
        "tty",
        "random",
        "full",
        "null",
        "directory",
        "socket",
        "-proc-cpuinfo",
        "-proc-kmsg",
    ] {
        let state = state_of(&status, name).unwrap_or_default();
        assert!(
            ["not_a_file", "unreadable", "missing"].contains(&state.as_str()),
            "{name} is {state:?}: {}",
            status["files"]
        );
    }
    for name in ["loop", "ping", "pong", "dangling"] {
        assert!(state_of(&status, name).is_none_or(|state| state != "following"), "{name}");
    }
    assert_eq!(state_of(&status, "good").as_deref(), Some("following"), "the control: {}", status["files"]);
    // A name that was a log a moment ago and is a FIFO now.
    let other = directory.path().join("other");
    fifo(&other);
    fs::rename(&other, at("swapped")).expect("swapped");
    let mut good = fs::File::options().append(true).open(at("good")).expect("the log");
    for number in 2..100 {
        writeln!(good, "{}", log_line(number, 200)).expect("written");
    }
    agent.wait_status("the good log to go on", requests(100));
    // Who is told to look again need not wait for the end of the file that was there before.
    agent.signal("HUP");
    let status = agent.wait_status("the FIFO to be seen", |status| {
        state_of(status, "swapped").is_some_and(|state| state == "not_a_file") && requests(100)(status)
    });
    assert_eq!(status["ledger"]["balanced"], true);
    assert_eq!(number(&status, "/web/totals/unparsed"), 0, "nothing of a device was read");
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    assert_eq!(agent.run(&["check"]).status.code(), Some(74), "it says so, and does not hang either");
}

/// The files that tell which logs there are can be anything too.
#[test]
fn s8_a_configuration_that_is_no_file_does_not_hang_or_fill_the_memory() {
    let directory = directory();
    let conf = directory.path().join("nginx.conf");
    let log = directory.path().join("access.log");
    fs::write(&log, log_line(1, 200) + "\n").expect("a log");
    let mut agent = Agent::new(directory.path(), "auto");
    agent.set("NGINX_CONF", &conf.display().to_string());
    let made = Command::new("mkfifo").arg(directory.path().join("fifo.conf")).status().expect("mkfifo");
    assert!(made.success());
    symlink("/dev/zero", directory.path().join("zero.conf")).expect("a link");
    let limited = |agent: &Agent| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -v 1000000; exec {WATCHPOST} check")).env_clear();
        let settings = agent.command(&["check"]);
        shell.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
        said(&shell.output().expect("sh"))
    };
    for name in ["fifo.conf", "zero.conf"] {
        agent.set("NGINX_CONF", &directory.path().join(name).display().to_string());
        let text = limited(&agent);
        assert!(text.contains("cannot be read"), "{name}: {text}");
    }
    let here = directory.path().display();
    fs::write(&conf, format!("http {{ access_log {log}; include {here}/*.conf; }}\n", log = log.display()))
        .expect("written");
    agent.set("NGINX_CONF", &conf.display().to_string());
    let text = limited(&agent);
    assert!(
        text.contains(&log.display().to_string()) && text.contains("format combined"),
        "the control: {text}"
    );
}
