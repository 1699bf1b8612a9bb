//! S13 and S14: settings that turn hostile while the agent runs, and what it may do on a host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{directory, is_root, said};
use crate::support::{Agent, Process, WATCHPOST, get, log_line, number, wait_for};

/// A user that may nothing: nobody, on every Linux.
const NOBODY: &str = "65534";

/// What may stand in an env file after somebody's mistake, or on purpose, each by a name.
fn hostile_env_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("bytes that are no text", vec![0xff, 0xfe, 0, 1, 2, 3]),
        ("a quote that is not closed", b"WATCHPOST_LOG=\"debug\nWATCHPOST_SPOOL_MAX=1".to_vec()),
        ("no settings at all", b"\x1b[31m rm -rf / \x07\n$(reboot)\n`reboot`\n".to_vec()),
        ("an unknown setting", b"WATCHPOST_EVIL=1\n".to_vec()),
        ("wrong values", b"WATCHPOST_SPOOL_MAX=-1\nWATCHPOST_STATUS_ADDR=0.0.0.0:1\n".to_vec()),
        (
            "an expression that is too large",
            b"WATCHPOST_ACCESS_LOG_FORMAT='regex:(?<ip>((\\w{99}){99}){99})'\n".to_vec(),
        ),
        ("more than can be meant", vec![b'#'; 4 << 20]),
    ]
}

#[test]
fn s13_a_hostile_env_file_changes_nothing() {
    if !is_root("a mount namespace with another /etc") {
        return;
    }
    let directory = directory();
    let etc = directory.path().join("etc");
    fs::create_dir_all(etc.join("watchpost")).expect("a directory");
    let env_file = etc.join("watchpost/watchpost.env");
    let log = directory.path().join("access.log");
    fs::write(&log, log_line(1, 200) + "\n").expect("a log");
    let agent = Agent::new(directory.path(), &log.display().to_string());
    let mode = |mode: u32| {
        fs::set_permissions(&env_file, fs::Permissions::from_mode(mode)).expect("its mode is set")
    };
    let url = format!("http://{}/ZaVnC4dhaV2cAnArY", crate::support::free_address());
    let right = format!("WATCHPOST_SUMO_URL={url}\nWATCHPOST_LOG=debug\n");
    fs::write(&env_file, &right).expect("the env file");
    mode(0o644);
    // The mount is seen by this process alone, and goes with it.
    let settings = agent.command(&["run"]);
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation=slave",
        "sh",
        "-c",
        "mount --bind \"$1\" /etc && exec \"$0\" run",
    ]);
    command.arg(WATCHPOST).arg(&etc);
    command.env_clear().envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("WATCHPOST_SUMO_URL", &url).env("WATCHPOST_LOG", "debug");
    let out = directory.path().join("agent.out");
    let mut process = Process::start(&mut command, &out);
    let output = || fs::read_to_string(&out).unwrap_or_default();
    wait_for("the agent", || get(agent.address, "/readyz").filter(|(status, _)| *status == 200));
    let open = "everybody on this machine can read WATCHPOST_SUMO_URL";
    assert!(output().contains(open), "a secret for everybody to read is said: {}", output());
    let reload = |what: &str, word: &str| {
        let before = output().matches(word).count();
        process.signal("HUP");
        wait_for(what, || (output().matches(word).count() > before).then_some(()));
        agent.wait_status(what, |status| {
            number(status, "/web/totals/requests") == 1 && status["delivery"]["state"] != "off"
        });
    };
    mode(0o640);
    let warned = output().matches(open).count();
    reload("a closed env file", "the settings were read again");
    assert_eq!(output().matches(open).count(), warned, "the control: closed, it is not said again");
    let kept = "the settings stay";
    for (what, bytes) in hostile_env_files() {
        fs::write(&env_file, bytes).expect("the env file");
        reload(
            what,
            if what.starts_with("bytes") || what.starts_with("more") { "cannot be read" } else { kept },
        );
    }
    fs::remove_file(&env_file).expect("it goes");
    let made = Command::new("mkfifo").arg(&env_file).status().expect("mkfifo");
    assert!(made.success());
    reload("a FIFO", "cannot be read");
    fs::remove_file(&env_file).expect("it goes");
    std::os::unix::fs::symlink("/dev/zero", &env_file).expect("a link");
    reload("a device without end", "cannot be read");
    assert_eq!(super::acting(output().as_bytes()), [""; 0], "{}", output());
    assert!(!output().contains("ZaVnC4dhaV2cAnArY"), "{}", output());
    // The control: a right one is taken.
    fs::remove_file(&env_file).expect("it goes");
    fs::write(&env_file, right.replace("debug", "info")).expect("the env file");
    mode(0o640);
    reload("a right env file", "the settings were read again");
    assert_eq!(process.stop(), Some(0), "{}", output());
}

#[test]
fn s13_the_file_of_a_secret_that_everybody_may_read_is_said() {
    let directory = directory();
    let file = directory.path().join("token");
    fs::write(&file, "s3cret").expect("a secret");
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("STATUS_TOKEN_FILE", &file.display().to_string());
    for (mode, is_said) in [(0o644, true), (0o604, true), (0o640, false), (0o600, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode is set");
        let output = agent.run(&["check"]);
        let text = said(&output);
        assert_eq!(
            text.contains("the file that WATCHPOST_STATUS_TOKEN_FILE names"),
            is_said,
            "{mode:o}: {text}"
        );
        assert_eq!(output.status.code(), Some(0), "it is a note: {text}");
    }
}

#[test]
fn s14_the_agent_works_for_a_user_without_any_right() {
    if !is_root("becoming another user") {
        return;
    }
    let directory = directory();
    let here = directory.path();
    fs::set_permissions(here, fs::Permissions::from_mode(0o755)).expect("its mode is set");
    // The build directory may lie where nobody may go.
    let binary = here.join("watchpost");
    crate::support::copy_program(WATCHPOST, &binary);
    let mode = binary.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o6000, 0, "neither setuid nor setgid: {mode:o}");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("its mode is set");
    let log = here.join("access.log");
    fs::write(&log, log_line(1, 200) + "\n").expect("a log");
    let secret = here.join("secret.log");
    fs::write(&secret, log_line(2, 200) + "\n").expect("a log");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its mode is set");
    let state = here.join("own");
    fs::create_dir(&state).expect("a directory");
    let nobody = NOBODY.parse().expect("a number");
    std::os::unix::fs::chown(&state, Some(nobody), Some(nobody)).expect("root may");
    let mut agent = Agent::new(here, &format!("{},{}", log.display(), secret.display()));
    agent.set("STATE_DIR", &state.join("state").display().to_string());
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]);
    command.arg("--no-new-privs").arg(&binary).arg("run").env_clear();
    let settings = agent.command(&["run"]);
    command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let out = here.join("agent.out");
    let mut process = Process::start(&mut command, &out);
    let status = agent.wait_status("the count", |status| number(status, "/web/totals/requests") == 1);
    let rights = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(rights.contains(line), "{line} in {rights}");
    }
    // The control: it has no right to more than everybody has.
    let files = status["files"].as_array().expect("files");
    let unreadable = files.iter().find(|file| file["path"] == secret.display().to_string().as_str());
    assert_eq!(unreadable.map(|file| file["state"] == "unreadable"), Some(true), "{files:?}");
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    assert_eq!(fs::read_to_string(children).unwrap_or_default().trim(), "", "it starts no process");
    assert_eq!(process.stop(), Some(0), "{}", fs::read_to_string(&out).unwrap_or_default());
}

/// Words by which a program is run, or the compiler's guard lowered, in a source that is compiled into the agent.
fn powers(source: &str) -> Vec<&'static str> {
    let production = source.split("#[cfg(test)]").next().unwrap_or_default();
    let words = [
        "process::Command",
        "Command::new(\"",
        "unsafe ",
        "allow(unsafe",
        "extern \"C\"",
        "libc::",
        "process::{Child, Command}",
        "setuid(",
    ];
    words.into_iter().filter(|word| production.contains(word)).collect()
}

#[test]
fn s14_no_command_is_run_and_no_code_is_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for path in super::below(&root.join("src")).into_iter().chain(super::below(&root.join("parsers/src"))) {
        let name = path.display().to_string();
        if !name.ends_with(".rs") || name.contains("/tests/") || name.ends_with("/tests.rs") {
            continue;
        }
        files += 1;
        let source = fs::read_to_string(&path).expect("sources are UTF-8");
        // clap has a type of that name, which runs nothing.
        let found = powers(&source.replace("Command::new(\"watchpost\")", "").replace("clap::", ""));
        if name.ends_with("src/probes/child.rs") {
            // The one place that starts a process: a script of the operator, which `rights.rs` has looked at, or nft.
            assert!(found.iter().all(|word| *word == "process::{Child, Command}"), "{name}: {found:?}");
            continue;
        }
        let is_command_line = name.ends_with("src/cli/args.rs");
        let found: Vec<_> =
            found.into_iter().filter(|word| !(is_command_line && *word == "Command::new(\"")).collect();
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    assert!(files > 80, "{files} files");
    assert_eq!(
        powers("std::process::Command::new(\"sh\")"),
        ["process::Command", "Command::new(\""],
        "the control"
    );
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    assert!(
        manifest.contains("[workspace.lints.rust]\nunsafe_code = \"forbid\""),
        "the compiler holds it to that"
    );
    for name in ["Cargo.toml", "parsers/Cargo.toml"] {
        let manifest = fs::read_to_string(root.join(name)).expect("the manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}");
    }
}
