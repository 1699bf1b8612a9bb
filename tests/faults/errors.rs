//! Errors of system calls, injected by strace into the running agent: into those of its spool, or of one log, once, for a
//! stretch, or for as long as it takes until the agent says so. Then they end, and it must heal by itself.

use super::mounts::has_root;
use super::*;
use crate::support::{get, wait_within};

/// What must be said within this time, while the error lasts.
const SAID_MAX: Duration = Duration::from_secs(15);

/// Lines that come in during a fault, and after it.
const LINES: u64 = 20;

/// Segments of the spool that a fault may meet, from the one at hand on.
const SEGMENTS: u64 = 100;

/// Agents at the same time: they mostly wait.
const WORKERS: usize = 6;

/// Where the calls go that fail.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Spool,
    Log,
    /// The log that comes after a rotation.
    NewLog,
}

/// What the agent must say of it while it lasts.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    /// `/status` and `/healthz` name the spool.
    Spool,
    /// They name the file.
    File,
    /// It is over before anybody could see it.
    Nothing,
}

/// Calls that fail, as strace is told: `call:error=NAME` and, for some calls only, `:when=FIRST..LAST`.
type Fault = (At, Sign, &'static [&'static str]);

/// Reading the spool fails with ENOMEM and not with EIO: bytes that cannot be had are damage, which is counted as lost.
const FAULTS: &[Fault] = &[
    (At::Spool, Sign::Spool, &["fdatasync:error=EIO"]),
    (At::Log, Sign::File, &["pread64:error=EIO"]),
    (At::Spool, Sign::Spool, &["write:error=ENOSPC"]),
    (At::Spool, Sign::Spool, &["write:error=EDQUOT"]),
    (At::Spool, Sign::Spool, &["pread64:error=ENOMEM"]),
    (At::Log, Sign::File, &["statx:error=ESTALE"]),
    (At::Spool, Sign::Spool, &["write:error=EIO"]),
    (At::Spool, Sign::Spool, &["fdatasync:error=ENOSPC"]),
    (At::NewLog, Sign::File, &["openat:error=EACCES"]),
    // A file system that became read-only.
    (
        At::Spool,
        Sign::Spool,
        &["write,openat,unlinkat,ftruncate,fallocate,fchmod:error=EROFS", "fdatasync:error=EIO"],
    ),
    (At::Spool, Sign::Spool, &["fdatasync:error=EIO:when=1..2", "openat:error=EMFILE"]),
    (At::NewLog, Sign::File, &["openat:error=EMFILE"]),
    (At::Spool, Sign::Spool, &["fdatasync:error=EIO:when=1", "fsync:error=EIO"]),
    (At::Spool, Sign::Spool, &["fdatasync:error=EIO:when=1..6"]),
    (At::Spool, Sign::Spool, &["write:error=ENOSPC:when=2..9"]),
    (At::Spool, Sign::Nothing, &["fdatasync:error=EIO:when=1"]),
    (At::Spool, Sign::Nothing, &["fdatasync:error=EIO:when=2"]),
    (At::Spool, Sign::Nothing, &["write:error=ENOSPC:when=1"]),
    (At::Spool, Sign::Nothing, &["write:error=EINTR:when=1..3"]),
    (At::Spool, Sign::Nothing, &["fdatasync:error=EIO:when=1", "ftruncate:error=EIO"]),
    (At::Spool, Sign::Nothing, &["fdatasync:error=EIO:when=1", "unlinkat:error=EIO"]),
    (At::Spool, Sign::Nothing, &["fdatasync:error=EIO:when=1", "fallocate:error=ENOSPC"]),
    (At::Spool, Sign::Nothing, &["fdatasync:error=EIO:when=1", "fallocate:error=EOPNOTSUPP"]),
    (At::Spool, Sign::Nothing, &["pread64:error=EIO:when=1"]),
    (At::Spool, Sign::Nothing, &["pread64:error=EINTR:when=1..3"]),
    (At::Log, Sign::Nothing, &["pread64:error=EIO:when=1..2"]),
    (At::Log, Sign::Nothing, &["pread64:error=EINTR:when=1..4"]),
    (At::Log, Sign::Nothing, &["statx:error=EIO:when=1..2"]),
];

/// An agent to which everything happens, one thing after the other.
struct Patient {
    agent: Agent,
    receiver: Receiver,
    log: NumberedLog,
    scene: Scene,
}

impl Patient {
    fn start(seed: u64) -> Patient {
        let scene = Scene::new();
        let path = scene.path().join("access.log");
        let mut agent = Agent::new(scene.path(), &path.display().to_string());
        let receiver = Receiver::start(scene.path());
        hurry(&mut agent, &receiver.url(), "20KB");
        let mut log = NumberedLog::new(path, seed);
        log.append(LINES);
        agent.start();
        wait_settled(&agent, &log.path);
        Patient { agent, receiver, log, scene }
    }

    /// The paths whose calls fail.
    fn paths(&self, at: At) -> Vec<String> {
        if at != At::Spool {
            return vec![self.log.path.display().to_string()];
        }
        let spool = self.scene.path().join("state/spool");
        let newest = fs::read_dir(&spool).expect("the spool").flatten().filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            u64::from_str_radix(name.strip_prefix("seg-")?.strip_suffix(".log")?, 16).ok()
        });
        let newest = newest.max().expect("a segment");
        let segments = newest.saturating_sub(5)..newest + SEGMENTS;
        let mut paths: Vec<String> = segments
            .map(|number| spool.join(format!("seg-{number:016x}.log")).display().to_string())
            .collect();
        paths.push(spool.display().to_string());
        paths
    }

    /// Lets the calls fail from now on, until the handle is dropped or stopped.
    fn inject(&self, at: At, calls: &[&str]) -> Injection {
        let trace = self.scene.path().join("trace");
        let said = self.scene.path().join("strace.out");
        fs::write(&said, "").expect("a file");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &self.agent.id().to_string(), "-o"]).arg(&trace);
        let names: Vec<&str> = calls.iter().filter_map(|call| call.split(':').next()).collect();
        command.args(["-e", &format!("trace={}", names.join(",")), "-e", "signal=none"]);
        for call in calls {
            command.args(["-e", &format!("inject={call}")]);
        }
        for path in self.paths(at) {
            command.args(["-P", &path]);
        }
        let strace = Group::start(&mut command, &said);
        wait_for("strace to attach", || {
            fs::read_to_string(&said).is_ok_and(|text| text.contains("attached")).then_some(())
        });
        Injection { strace, trace }
    }

    /// Whether status and health say it.
    fn says(&self, sign: Sign) -> bool {
        let status = self.agent.status();
        let (named, word) = match sign {
            Sign::Spool => (status["spool"]["state"] == "degraded", "spool"),
            Sign::File => {
                let files = status["files"].as_array().map_or(&[][..], Vec::as_slice);
                (files.iter().any(|file| file["last_error"].is_string()), "access.log")
            }
            Sign::Nothing => return true,
        };
        named
            && get(self.agent.address, "/healthz")
                .is_some_and(|(code, text)| code == 503 && text.contains(word))
    }

    /// One fault from its beginning to the agent's recovery; how often a call failed, and how long healing took.
    fn suffer(&mut self, (at, sign, calls): &Fault) -> (usize, Duration) {
        let mut injection = self.inject(*at, calls);
        if *at == At::NewLog {
            self.log.rotate();
        }
        wait_within(SAID_MAX, &format!("{calls:?} to happen and to be said"), || {
            self.log.append(1);
            (injection.count() > 0 && self.says(*sign)).then_some(())
        });
        self.log.append(LINES);
        let count = injection.stop();
        let ended = Instant::now();
        self.log.append(LINES);
        let written = self.log.written.len() as u64;
        self.agent.wait_status(&format!("recovery from {calls:?}"), |status| {
            number(status, "/ledger/lines/shipped") >= written && status["spool"]["state"] == "ok"
        });
        (count, ended.elapsed())
    }
}

/// Calls that fail now.
struct Injection {
    strace: Group,
    trace: PathBuf,
}

impl Injection {
    /// How many did so far.
    fn count(&self) -> usize {
        let trace = fs::read(&self.trace).unwrap_or_default();
        String::from_utf8_lossy(&trace).matches("(INJECTED)").count()
    }

    fn stop(&mut self) -> usize {
        self.strace.end();
        self.count()
    }
}

#[test]
fn errors_of_system_calls_are_said_and_heal_and_lose_nothing() {
    if !has_root() {
        return;
    }
    std::thread::scope(|scope| {
        let work = |worker: usize| {
            let mut patient = Patient::start(worker as u64);
            for fault in FAULTS.iter().skip(worker).step_by(WORKERS) {
                let (count, healing) = patient.suffer(fault);
                println!("error: {:?}: {count} calls, healed in {healing:.1?}", fault.2);
            }
            let found = finish_and_judge(&mut patient.agent, &patient.receiver, &patient.log, 0);
            assert!(found.complaints.is_empty(), "{:#?}", found.complaints);
        };
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        for worker in workers {
            worker.join().expect("errors are said, heal, and lose nothing");
        }
    });
}

/// The control: writes that claim to be done and are not. Nobody can survive that, but it is seen and counted.
#[test]
fn writes_that_lie_are_found_out_and_counted() {
    if !has_root() {
        return;
    }
    let mut patient = Patient::start(1);
    // Every second one, so that a record with lines is among them and not only the account of an answer.
    let mut injection = patient.inject(At::Spool, &["write:retval=8:when=2+2"]);
    wait_within(SAID_MAX, "a lie that costs lines", || {
        patient.log.append(LINES);
        (number(&patient.agent.status(), "/ledger/lines/lost") > 0).then_some(())
    });
    injection.stop();
    patient.log.append(LINES);
    let found = finish_and_judge(&mut patient.agent, &patient.receiver, &patient.log, 0);
    println!("control of the errors: {:?}", found.complaints);
    let seen = ["lines lost, the first", "lines lost by the agent's own account"];
    assert!(seen.iter().all(|seen| found.complaints.iter().any(|complaint| complaint.contains(seen))));
    assert!(
        !found.complaints.iter().any(|complaint| complaint.contains("balance")),
        "{:?}",
        found.complaints
    );
}
