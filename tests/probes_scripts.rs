//! Scripts of the operator through the binary: what they print arrives everywhere, what they do wrong costs only them, and
//! nothing of them is left.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::reconciliation::probe;
use crate::support::{Agent, Receiver, WATCHPOST, get, number, wait_for, with_environment_of};

/// A user without any right.
const NOBODY: &str = "65534";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory with scripts: name, text, mode.
fn scripts(below: &Path, scripts: &[(&str, &str, u32)]) -> PathBuf {
    let directory = below.join("scripts.d");
    fs::create_dir_all(&directory).expect("a directory");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("its mode is set");
    for (name, text, mode) in scripts {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, Permissions::from_mode(*mode)).expect("its mode is set");
    }
    directory
}

/// The setting that has them run by whoever runs this test.
fn setting(directory: &Path) -> String {
    format!("{}{}", if is_root() { "root:" } else { "" }, directory.display())
}

/// Processes whose command line has this word.
fn running(word: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    processes.map(line).filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

fn part<'a>(status: &'a Value, name: &str) -> &'a Value {
    let parts = probe(status, "scripts")["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    parts.iter().find(|part| part["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn each_script_costs_only_itself_and_nothing_of_it_is_left() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pause = format!("3{:06}", fastrand::u32(0..1_000_000));
    let hang = format!("trap '' TERM; (sleep {pause} & sleep {pause}) &\nsleep {pause}");
    let at = scripts(
        directory.path(),
        &[
            (
                "backup.sh",
                "echo '# TYPE age_seconds gauge'; echo 'age_seconds{of=\"a \\\"b\\\"\"} 12'",
                0o755,
            ),
            ("endless.sh", "yes", 0o755),
            ("exit1.sh", "echo a 1; echo 'disk is gone' >&2; exit 1", 0o755),
            ("garbage.sh", "head -c 5000 /dev/urandom", 0o755),
            ("hang.sh", &hang, 0o755),
            ("json.py", "echo '{\"queue\":{\"mail\":3},\"state\":1}'", 0o755),
            ("plain.sh", "echo a 1", 0o644),
            ("world.sh", "echo a 1", 0o777),
        ],
    );
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("SCRIPTS", &setting(&at));
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    let status = agent.wait_status("what they gave", |status| !status["probe_metrics"]["scripts"].is_null());
    let found = probe(&status, "scripts");
    assert_eq!((&found["state"], &found["failures"]), (&json!("partial"), &json!(1)), "{found:#}");
    assert_eq!(running(&pause), 0, "something is left");
    for (name, state, said) in [
        ("backup.sh", "ok", ""),
        ("endless.sh", "failing", "printed more than 1048576 bytes"),
        ("exit1.sh", "failing", "exited with 1: disk is gone"),
        ("garbage.sh", "failing", "nothing that it says is a metric"),
        ("hang.sh", "failing", "ran for more than 10 s"),
        ("json.py", "ok", ""),
        ("plain.sh", "absent", "chmod +x"),
        ("world.sh", "denied", "others may write to it (mode 0777)"),
    ] {
        let part = part(&status, name);
        assert_eq!(part["state"], state, "{part}");
        assert!(part["error"].as_str().unwrap_or_default().contains(said), "{part}");
        let is_named = found["last_error"].as_str().is_some_and(|error| error.contains(name));
        assert!(is_named || matches!(state, "ok" | "absent") || name == "world.sh", "{found:#}");
    }
    let metrics = &status["probe_metrics"]["scripts"];
    assert_eq!(metrics["backup.sh"], json!({"age_seconds": [{"labels": {"of": "a \"b\""}, "value": 12}]}));
    assert_eq!(metrics["json.py"], json!({"queue_mail": 3, "_state": 1}));
    let (_, text) = get(agent.address, "/metrics").expect("metrics");
    for line in [
        "# TYPE script_age_seconds gauge",
        "script_age_seconds{script=\"backup.sh\",of=\"a \\\"b\\\"\"} 12",
        "script_queue_mail{script=\"json.py\"} 3",
        "watchpost_probe_part_up{probe=\"scripts\",part=\"hang.sh\"} 0",
        "watchpost_probe_up{probe=\"scripts\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
    let shipped = |name: &str| {
        let records = receiver.records("watchpost/host");
        records.into_iter().find(|record| record["script"] == name)
    };
    let record = wait_for("the record", || shipped("json.py"));
    assert_eq!((&record["queue_mail"], &record["state"]), (&json!(3), &json!("ok")), "{record}");
    let record = wait_for("the record", || shipped("exit1.sh"));
    assert_eq!((&record["state"], &record["a"]), (&json!("failing"), &Value::Null), "{record}");
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn a_stop_in_the_middle_of_a_script_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pause = format!("4{:06}", fastrand::u32(0..1_000_000));
    let text = format!("trap '' TERM; sleep {pause} &\nsleep {pause}");
    let at = scripts(directory.path(), &[("hang", &text, 0o755)]);
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("SCRIPTS", &setting(&at));
    agent.start();
    for reload in [true, false] {
        wait_for("the script", || (running(&pause) == 2).then_some(()));
        if reload {
            fs::write(at.join("hang"), "#!/bin/sh\necho a 1\n").expect("a script");
            agent.signal("HUP");
            agent.wait_status("the run of the new one", |status| part(status, "hang")["state"] == "ok");
            assert_eq!(running(&pause), 0, "something is left by the reload");
            fs::write(at.join("hang"), format!("#!/bin/sh\n{text}\n")).expect("a script");
            agent.signal("HUP");
        } else {
            assert_eq!(agent.stop(), Some(0));
            assert_eq!(running(&pause), 0, "something is left by the stop");
        }
    }
}

#[test]
fn root_runs_no_script_unless_told_and_another_user_does() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("its mode is set");
    let at = scripts(directory.path(), &[("who", "echo user_id $(id -u)", 0o755)]);
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("SCRIPTS", &at.display().to_string());
    agent.start();
    let status = agent.wait_status("the first run", |status| number(probe(status, "scripts"), "/runs") > 0);
    let found = probe(&status, "scripts");
    assert_eq!(found["state"], "denied", "{found}");
    let told = format!("WATCHPOST_SCRIPTS=root:{}", at.display());
    assert!(found["last_error"].as_str().is_some_and(|error| error.contains(&told)), "{found}");
    assert!(status["probe_metrics"].get("scripts").is_none(), "{status}");
    assert_eq!(agent.stop(), Some(0));
    let output = agent.command(&["check"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("scripts: this is root") && text.contains(&told), "{text}");
    let output = agent.command(&["once", "--scripts", &setting(&at)]).output().expect("it runs");
    let once: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(once["probes"]["scripts"]["metrics"]["who"]["user_id"], 0, "{once:#}");
    assert_eq!(once["probes"]["scripts"]["parts"][0]["state"], "ok", "{once:#}");

    // The build directory may lie where nobody may go.
    let binary = directory.path().join("watchpost");
    crate::support::copy_program(WATCHPOST, &binary);
    fs::set_permissions(&binary, Permissions::from_mode(0o755)).expect("its mode is set");
    let state = directory.path().join("own");
    fs::create_dir(&state).expect("a directory");
    let nobody = NOBODY.parse().expect("a number");
    std::os::unix::fs::chown(&state, Some(nobody), Some(nobody)).expect("root may");
    agent.set("STATE_DIR", &state.display().to_string());
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
    ]);
    command.arg(&binary).arg("run");
    let mut command = with_environment_of(command, &agent.command(&["run"]));
    agent.start_as(&mut command);
    let status = agent.wait_status("what it gave", |status| !status["probe_metrics"]["scripts"].is_null());
    assert_eq!(part(&status, "who")["state"], "ok", "{status:#}");
    assert_eq!(status["probe_metrics"]["scripts"]["who"]["user_id"], nobody, "{status:#}");
}
