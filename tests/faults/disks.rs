//! Disks without room, without inodes, read-only, and a spool that is taken away: the agent lives, answers, says what is
//! wrong, ships what it has, and heals by itself.

use super::mounts::{Volume, has_root, run};
use super::power::Wire;
use super::*;
use crate::support::{Process, get, wait_within};

/// Until the agent uses what it has got back. It is less on an idle machine; the figure is printed.
const HEALED_MAX: Duration = Duration::from_secs(20);

/// Lines of one step.
const LINES: u64 = 50;

/// An agent whose state is on a volume of its own; its log is not.
struct Case {
    agent: Agent,
    /// Set where the agent is started by another command than its own.
    process: Option<Process>,
    receiver: Receiver,
    wire: Wire,
    log: NumberedLog,
    volume: Volume,
    scene: Scene,
}

impl Case {
    fn new(volume: impl FnOnce(&Path) -> Volume) -> Case {
        let scene = Scene::new();
        let volume = volume(scene.path());
        let path = scene.path().join("access.log");
        let receiver = Receiver::start(scene.path());
        let wire = Wire::start(receiver.address);
        let mut agent = Agent::new(scene.path(), &path.display().to_string());
        let url = receiver.url().replace(&receiver.address.to_string(), &wire.address.to_string());
        hurry(&mut agent, &url, "20KB");
        agent.set("STATE_DIR", &volume.path.join("state").display().to_string());
        let log = NumberedLog::new(path, 1);
        Case { agent, process: None, receiver, wire, log, volume, scene }
    }

    /// Lines that wait in the spool, since the network is down.
    fn build_backlog(&mut self) {
        self.wire.set(false);
        self.log.append(LINES);
        let written = self.log.written.len() as u64;
        self.agent.wait_status("a backlog", |status| number(status, "/ledger/lines/read") == written);
        wait_flushed(&self.agent);
    }

    fn wait_backlog_shipped(&self) {
        let shipped = |status: &Value| number(status, "/ledger/lines/shipped") >= LINES;
        self.agent.wait_status("the backlog to be shipped", shipped);
    }

    /// Takes every byte that is left; removing the file gives them back.
    fn fill(&self) -> PathBuf {
        let filler = self.volume.path.join("filler");
        let mut file = File::create(&filler).expect("a file");
        for size in [1 << 20, 4096, 512, 1] {
            let bytes = vec![0; size];
            while file.write_all(&bytes).is_ok() {}
        }
        let _ = file.sync_all();
        filler
    }

    /// What is wrong is said, and the port answers.
    fn wait_said(&mut self, states: &[&str]) {
        let log = &mut self.log;
        let agent = &self.agent;
        wait_for("the spool's trouble to be said", || {
            log.append(1);
            let status = agent.status();
            let state = status["spool"]["state"].as_str().expect("a state");
            let (code, health) = get(agent.address, "/healthz")?;
            (states.contains(&state) && code == 503 && health.contains("spool")).then_some(())
        });
        assert_rates_stay_live(&self.agent);
    }

    /// Everything that was written so far is shipped; how long that took.
    fn wait_healed(&mut self) -> Duration {
        let begun = Instant::now();
        self.log.append(LINES);
        let written = self.log.written.len() as u64;
        wait_within(HEALED_MAX, "the agent to heal", || {
            let status = self.agent.status();
            (number(&status, "/ledger/lines/shipped") == written && status["spool"]["state"] == "ok")
                .then_some(())
        });
        begun.elapsed()
    }

    fn finish(mut self) {
        let found = finish_and_judge(&mut self.agent, &self.receiver, &self.log, 0);
        assert!(found.complaints.is_empty(), "{:#?}\n{}", found.complaints, self.agent.output());
    }
}

/// While the spool refuses lines the port answers. What it says of the rates is asserted here, and nowhere else.
fn assert_rates_stay_live(agent: &Agent) {
    assert!(agent.status()["web"]["windows"].is_object());
}

fn small_ext4(directory: &Path) -> Volume {
    Volume::ext4(directory, 16, &[])
}

#[test]
fn a_full_disk_stops_neither_the_port_nor_the_shipping() {
    if !has_root() {
        return;
    }
    let mut case = Case::new(small_ext4);
    case.agent.start();
    case.build_backlog();
    let filler = case.fill();
    case.wait_said(&["full", "degraded"]);
    // What is on the disk is shipped, full as it is.
    case.wire.set(true);
    case.wait_backlog_shipped();
    case.wait_said(&["full", "degraded"]);
    fs::remove_file(filler).expect("removed");
    println!("disk: full, healed in {:.1?}", case.wait_healed());
    case.finish();
}

#[test]
fn a_start_on_a_full_disk_ships_what_is_there() {
    if !has_root() {
        return;
    }
    let mut case = Case::new(small_ext4);
    case.agent.start();
    case.build_backlog();
    case.agent.kill();
    let filler = case.fill();
    case.agent.start();
    case.wait_said(&["full", "degraded"]);
    case.wire.set(true);
    case.wait_backlog_shipped();
    fs::remove_file(filler).expect("removed");
    println!("disk: full at the start, healed in {:.1?}", case.wait_healed());
    case.finish();
}

#[test]
fn a_first_start_on_a_full_disk_names_the_setting() {
    if !has_root() {
        return;
    }
    let case = Case::new(small_ext4);
    case.fill();
    let output = case.agent.run(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("WATCHPOST_STATE_DIR"), "{said}");
}

#[test]
fn a_file_system_without_inodes_stops_nothing() {
    if !has_root() {
        return;
    }
    let mut case = Case::new(|directory| Volume::tmpfs(directory, "size=16M,nr_inodes=64"));
    case.agent.start();
    case.log.append(LINES);
    case.wait_healed();
    let fillers = case.volume.path.join("fillers");
    fs::create_dir(&fillers).expect("a directory");
    let mut filled = 0;
    while File::create(fillers.join(filled.to_string())).is_ok() {
        filled += 1;
    }
    assert!(filled > 10, "the inodes are taken");
    // Many times what a segment holds: the one at hand must serve.
    case.log.noise_bytes_max = 8_000;
    for _ in 0..5 {
        case.log.append(LINES);
        case.wait_healed();
    }
    // A backlog is no segment that could make way for a new one.
    case.build_backlog();
    case.agent.kill();
    case.agent.start();
    case.wait_said(&["degraded", "full"]);
    case.wire.set(true);
    fs::remove_dir_all(fillers).expect("removed");
    println!("disk: no inodes at the start, healed in {:.1?}", case.wait_healed());
    let found = finish_and_judge(&mut case.agent, &case.receiver, &case.log, 1);
    assert!(found.complaints.is_empty(), "{:#?}", found.complaints);
}

#[test]
fn a_file_system_that_goes_read_only_is_said_and_loses_nothing() {
    if !has_root() {
        return;
    }
    let mut case = Case::new(small_ext4);
    case.volume.remount("errors=remount-ro");
    case.agent.start();
    case.build_backlog();
    let mounts = fs::read_to_string("/proc/mounts").expect("the mounts");
    let path = case.volume.path.display().to_string();
    let device = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&path)).expect("it is mounted");
    let device = device.split(' ').next().and_then(|device| device.rsplit('/').next()).expect("a device");
    fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").expect("an error of the file system");
    case.wait_said(&["degraded"]);
    case.wire.set(true);
    case.agent
        .wait_status("the backlog to be shipped", |status| number(status, "/ledger/lines/shipped") >= LINES);
    // Such a file system is good again only once it was unmounted, and then nothing on it knows what was shipped
    // meanwhile: all of that comes again, batch by batch under the same keys, and the one that was under way.
    case.agent.kill();
    let delivered = number(&case.receiver.stats(), "/requests") + 1;
    // Such tests run beside this one, with copies of all that is mounted.
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", "--propagation=slave", "sh", "-c", "echo has its mounts; exec sleep 600"]);
    let output = case.scene.path().join("elsewhere.out");
    let _elsewhere = Process::start(&mut elsewhere, &output);
    wait_for("a namespace", || fs::read(&output).ok().filter(|said| !said.is_empty()));
    case.volume.unmount();
    case.volume.mount();
    case.agent.start();
    println!("disk: read-only, healed in {:.1?} after the start", case.wait_healed());
    let found = finish_and_judge(&mut case.agent, &case.receiver, &case.log, delivered);
    assert!(found.complaints.is_empty(), "{:#?}", found.complaints);
}

/// The agent as another user, for whom permissions mean something.
#[test]
fn a_state_directory_that_may_not_be_used_for_a_while_is_waited_for() {
    if !has_root() {
        return;
    }
    let mut case = Case::new(|directory| Volume::tmpfs(directory, "size=16M,mode=777"));
    // The directory of the scene would be in the way of other users, and perhaps the one of the binary.
    run("chmod", &["755", &case.scene.path().display().to_string()]);
    let mut command = Command::new("sh");
    let program =
        "exec 3<\"$0\"; exec setpriv --reuid=65534 --regid=65534 --clear-groups /proc/self/fd/3 run";
    command.args(["-c", program, WATCHPOST]).env_clear();
    for (name, value) in case.agent.command(&["run"]).get_envs() {
        command.env(name, value.expect("only settings are set"));
    }
    case.process = Some(Process::start(&mut command, &case.scene.path().join("agent.out")));
    wait_for("the agent", || get(case.agent.address, "/readyz").filter(|(code, _)| *code == 200));
    case.wait_healed();
    let state = case.volume.path.join("state");
    for path in [state.join("spool"), state.clone()] {
        run("chmod", &["000", &path.display().to_string()]);
        // Many segments, none of which can be made.
        case.log.noise_bytes_max = 8_000;
        for _ in 0..5 {
            case.log.append(LINES);
            wait_for("the port", || get(case.agent.address, "/healthz"));
        }
        run("chmod", &["700", &path.display().to_string()]);
        println!("disk: {} without permissions, healed in {:.1?}", path.display(), case.wait_healed());
    }
    let mut process = case.process.take().expect("it runs");
    let status = wait_settled(&case.agent, &case.log.path);
    assert_eq!(process.stop(), Some(0), "{}", case.agent.output());
    let found = judge(&case.receiver, &case.log.written, &status, 0);
    assert!(found.complaints.is_empty(), "{:#?}", found.complaints);
}

/// Somebody removes the spool under a running agent: what was known is gone, and nothing is claimed to be durable.
#[test]
fn a_spool_that_is_removed_is_said() {
    if !has_root() {
        return;
    }
    let mut case = Case::new(small_ext4);
    case.agent.start();
    case.log.append(LINES);
    case.wait_healed();
    fs::remove_dir_all(case.volume.path.join("state/spool")).expect("removed");
    case.wait_said(&["degraded"]);
    case.agent.kill();
    case.agent.start();
    let status = wait_settled(&case.agent, &case.log.path);
    let found = judge(&case.receiver, &case.log.written, &status, 0);
    let lost: Vec<_> = found.complaints.iter().filter(|complaint| complaint.contains("lost")).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
