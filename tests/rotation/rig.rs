//! What rotates and who writes meanwhile: logrotate with rules of one kind, workers that open their log anew as nginx's do,
//! and load for a real nginx.
//!
//! Nothing here looks at the agent.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::nginx::send;
use crate::peers::rig::{line, time_of_log};
use crate::support::wait_out;

/// logrotate with rules for one log.
pub(crate) struct Logrotate {
    rules: PathBuf,
    state: PathBuf,
}

impl Logrotate {
    /// Rules are logrotate's directives, one a line; they may name the log's directory as `HERE`.
    pub(crate) fn new(log: &Path, rules: &str) -> Logrotate {
        let here = log.parent().expect("a directory");
        let path = here.join("logrotate.conf");
        let rules = rules.replace("HERE", &here.display().to_string());
        fs::write(&path, format!("{} {{\n missingok\n{rules}\n}}\n", log.display())).expect("rules");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("permissions");
        Logrotate { rules: path, state: here.join("logrotate.state") }
    }

    /// Rotates now.
    pub(crate) fn rotate(&self) {
        let mut command = Command::new("logrotate");
        command.arg("-f").arg("-s").arg(&self.state).arg(&self.rules);
        let output = command.output().expect("logrotate is installed");
        assert!(output.status.success(), "{output:?}");
    }
}

/// Two threads that write numbered lines, each into the file that it opened last.
pub(crate) struct Workers {
    stop: Arc<AtomicBool>,
    openings: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    /// Held by each worker while it writes.
    writing: Arc<RwLock<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(log: &Path) -> Workers {
        let stop = Arc::new(AtomicBool::new(false));
        let openings = Arc::new(AtomicU64::new(0));
        let written = Arc::new(AtomicU64::new(0));
        let writing = Arc::new(RwLock::new(()));
        let threads = (0..2)
            .map(|_| {
                let (log, stop, openings) = (log.to_owned(), Arc::clone(&stop), Arc::clone(&openings));
                let (written, writing) = (Arc::clone(&written), Arc::clone(&writing));
                std::thread::spawn(move || {
                    let open = || OpenOptions::new().create(true).append(true).open(&log).expect("a log");
                    let mut opening = openings.load(Ordering::Relaxed);
                    let mut file = open();
                    while !stop.load(Ordering::Relaxed) {
                        let held = writing.read().expect("nobody panics with it");
                        let now = openings.load(Ordering::Relaxed);
                        if now != opening {
                            (opening, file) = (now, open());
                        }
                        write_four(&mut file, &written);
                        drop(held);
                        wait_out(Duration::from_millis(4));
                    }
                })
            })
            .collect();
        Workers { stop, openings, written, writing, threads }
    }

    /// What USR1 is to nginx's workers: each opens the log anew before its next line.
    pub(crate) fn reopen(&self) {
        self.openings.fetch_add(1, Ordering::Relaxed);
    }

    /// Does something while no worker writes.
    pub(crate) fn pause(&self, something: impl FnOnce()) {
        let _nobody = self.writing.write().expect("nobody panics with it");
        something();
    }

    /// Gives the number of lines written.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the worker ends");
        }
        self.written.load(Ordering::Relaxed)
    }
}

fn write_four(file: &mut File, written: &AtomicU64) {
    let time = time_of_log();
    for _ in 0..4 {
        let number = written.fetch_add(1, Ordering::Relaxed);
        file.write_all(line(number, &time, "").as_bytes()).expect("written");
    }
}

/// The numbers of the lines that stand in the log, its rotated files and its copies, compressed or not.
pub(crate) fn numbers_in_files(directory: &Path) -> BTreeSet<u64> {
    let number = |line: &String| line.rsplit_once(" peer/")?.1.strip_suffix('"')?.parse().ok();
    lines_in_files(directory).iter().filter_map(number).collect()
}

/// A file, decompressed where its name says that it must be.
fn plain(path: &Path) -> Box<dyn Read> {
    let file = File::open(path).expect("a log");
    if path.extension().is_some_and(|ending| ending == "gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    }
}

/// Every line of the log, its rotated files and its copies, compressed or not.
pub(crate) fn lines_in_files(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("access.log") {
            lines.extend(BufReader::new(plain(&entry.path())).lines().map(|line| line.expect("text")));
        }
    }
    lines
}

/// Requests over four connections until it is told to finish.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let threads = (0..4)
            .map(|connection| {
                let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        send(address, 50, |_| {
                            format!("/ok/{connection}/{}", sent.fetch_add(1, Ordering::Relaxed))
                        });
                        wait_out(Duration::from_millis(25));
                    }
                })
            })
            .collect();
        Load { stop, sent, threads }
    }

    /// Requests sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Gives the number of requests sent, each of which was answered.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("all sent");
        }
        self.sent.load(Ordering::Relaxed)
    }
}
