//! The cases of following a file that are about the agent as a whole; the others are in `src/follow/tests/cases`.
//!
//! Nothing here looks inside: a log, a process, its status.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::support::{Agent, Process, get_json, number, wait_for};

fn write(log: &Path, lines: u64) {
    let file = OpenOptions::new().create(true).append(true).open(log);
    let line = "192.0.2.1 - - [23/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"\n";
    file.and_then(|mut file| file.write_all(line.repeat(lines as usize).as_bytes())).expect("a log");
}

fn wait_until_read(agent: &Agent, lines: u64) {
    wait_for("the lines to be read", || {
        let status = get_json(agent.address, "/status")?;
        (number(&status, "/ledger/lines/read") >= lines).then_some(())
    });
}

/// The same command where the kernel gives nobody a watch on a directory.
fn without_watches(limit: &str, command: &Command) -> Command {
    let script = format!("echo 0 > /proc/sys/user/{limit} && exec \"$0\" \"$@\"");
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--user", "--map-root-user", "sh", "-c", &script]);
    wrapped.arg(command.get_program()).args(command.get_args()).env_clear();
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// No instance of inotify, or no watch, is to be had: one notice, and polling reads and finds everything.
#[test]
fn case_33_no_directory_can_be_watched() {
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let agent = Agent::new(directory.path(), &directory.path().join("*.log").display().to_string());
        let output = directory.path().join("agent.out");
        File::create(&output).expect("a file");
        let log = directory.path().join("a.log");
        write(&log, 3);
        let _process = Process::start(&mut without_watches(limit, &agent.command(&["run"])), &output);
        wait_until_read(&agent, 3);
        std::fs::rename(&log, directory.path().join("a.log.1")).expect("rotated");
        write(&log, 4);
        write(&directory.path().join("b.log"), 5);
        wait_until_read(&agent, 12);
        let said = agent.output();
        assert_eq!(number(&agent.status(), "/ledger/lines/read"), 12, "{said}");
        assert_eq!(said.matches("polling").count(), 1, "{limit}: said once: {said}");
    }
}

/// Two agents with a state of their own each read the same log whole, and one id tells what either sent.
#[test]
fn case_38_two_agents_with_states_of_their_own() {
    let directories = [0, 1].map(|_| tempfile::tempdir().expect("a temporary directory"));
    let log = directories[0].path().join("a.log");
    write(&log, 7);
    let mut agents =
        directories.each_ref().map(|directory| Agent::new(directory.path(), &log.display().to_string()));
    for agent in &mut agents {
        agent.start();
    }
    let ids = agents.each_ref().map(|agent| {
        wait_until_read(agent, 7);
        agent.status().pointer("/agent/id").and_then(|id| id.as_str()).map(str::to_owned).expect("an id")
    });
    assert_ne!(ids[0], ids[1]);
}
