//! Rights, limits and ends of scripts.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::*;

const SHORT: child::Limits = child::Limits { time: Duration::from_millis(700), bytes: 10_000 };
const LONG: child::Limits = child::Limits { time: Duration::from_secs(60), bytes: 10_000 };

struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        Lab { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).expect("a file");
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("its mode is set");
    }

    fn target(&self) -> ScriptsTarget {
        ScriptsTarget { directory: self.directory.path().to_owned(), is_optional: false, as_root: true }
    }

    fn see(&self, target: ScriptsTarget, limits: child::Limits) -> Result<Vec<Part>, ProbeError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let probe = ScriptsProbe { target, limits };
        let seen = runtime.block_on(probe.see())?;
        let Facts::Parts(parts) = seen.facts else { panic!("scripts are parts: {:?}", seen.facts) };
        Ok(parts.to_vec())
    }

    /// Runs one script of this text; its part.
    fn run(&self, text: &str, limits: child::Limits) -> Part {
        self.write("s.sh", text, 0o755);
        // Another test may have begun a process while the file was open for writing.
        loop {
            let part = self.see(self.target(), LONG.min(&limits)).expect("parts").remove(0);
            if !part.error.as_deref().is_some_and(|error| error.contains("Text file busy")) {
                return part;
            }
        }
    }
}

impl child::Limits {
    fn min(&self, other: &child::Limits) -> child::Limits {
        child::Limits { time: self.time.min(other.time), bytes: self.bytes.min(other.bytes) }
    }
}

/// Processes whose command line has this word.
fn running(word: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let has_word = |entry: &fs::DirEntry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    processes.filter(has_word).count()
}

#[test]
fn what_a_script_prints_are_its_metrics() {
    let lab = Lab::new();
    let part = lab.run("#!/bin/sh\nprintf 'a{b=\"c\"} 1\\nd 2'", LONG);
    assert_eq!((part.state, part.error.as_deref(), part.samples.len()), (ProbeState::Ok, None, 2));
    let part = lab.run("#!/bin/sh\necho '{\"a\":{\"b\":1},\"c\":true}'", LONG);
    let names: Vec<_> = part.samples.iter().map(|sample| (sample.name.as_str(), sample.value)).collect();
    assert_eq!(names, [("a_b", 1.0), ("c", 1.0)]);
    let part = lab.run("#!/bin/sh\nexit 0", LONG);
    assert_eq!((part.state, part.error.as_deref()), (ProbeState::Ok, Some("printed nothing")));
    let part = lab.run("#!/bin/sh\necho vars $(env | sed 's/=.*//' | sort | tr '\\n' _); pwd", LONG);
    let error = part.error.unwrap_or_default();
    assert!(error.contains("LANG_PATH_PWD_"), "nothing of the agent's environment: {error}");
    let _open = fs::File::create(lab.path(".own-file")).expect("a file");
    let text =
        "#!/bin/sh\nread line || echo eof 1; ls -l /proc/self/fd | grep -c own-file | sed 's/^/files /'";
    let part = lab.run(text, LONG);
    let values: Vec<_> = part.samples.iter().map(|sample| (sample.name.as_str(), sample.value)).collect();
    assert_eq!(values, [("eof", 1.0), ("files", 0.0)], "no input, and none of the agent's files: {part:?}");
}

#[test]
fn how_a_script_failed_is_told() {
    let lab = Lab::new();
    for (text, said) in [
        (
            "#!/bin/sh\necho; echo a 1; echo ' no such disk ' >&2; echo more >&2; exit 3",
            "exited with 3: no such disk",
        ),
        ("#!/bin/sh\nkill -SEGV $$", "was ended by signal 11"),
        ("#!/bin/sh\necho hello world", "nothing that it says is a metric: line 1"),
        ("#!/bin/sh\necho '{'", "no JSON"),
        ("#!/nowhere/sh\n", "does its first line name an interpreter"),
        ("echo a 1\n", "does its first line name an interpreter"),
        ("#!/bin/sh\nhead -c 20000 /dev/zero; sleep 1000", "printed more than 10000 bytes"),
        ("#!/bin/sh\nhead -c 20000 /dev/zero >&2; sleep 1000", "printed more than 10000 bytes"),
    ] {
        let part = lab.run(text, LONG);
        let error = part.error.unwrap_or_default();
        assert_eq!((part.state, part.samples.len()), (ProbeState::Failing, 0), "{text}: {error}");
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn whatever_way_a_script_ends_nothing_of_it_is_left() {
    let lab = Lab::new();
    // Children, their children, and such that ignore what can be ignored. The number is the mark.
    let pause = format!("1{:06}", fastrand::u32(0..1_000_000));
    let family =
        format!("trap '' TERM HUP INT; (trap '' TERM; sleep {pause} & sleep {pause}) & sleep {pause} &");
    for (end, limits, state, said) in [
        ("wait", SHORT, ProbeState::Failing, "ran for more than 0.7 s"),
        ("exec >&- 2>&-; wait", SHORT, ProbeState::Failing, "ran for more than 0.7 s"),
        ("yes", LONG, ProbeState::Failing, "printed more than"),
        ("echo a 1; exit 0", LONG, ProbeState::Ok, ""),
        ("exit 1", LONG, ProbeState::Failing, "exited with 1"),
    ] {
        let part = lab.run(&format!("#!/bin/sh\n{family}\n{end}\n"), limits);
        let error = part.error.unwrap_or_default();
        assert!(part.state == state && error.contains(said), "{end}: {error}");
        let begun = Instant::now();
        while running(&pause) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "{end}: something is left");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_run_that_is_dropped_leaves_nothing() {
    let lab = Lab::new();
    let pause = format!("2{:06}", fastrand::u32(0..1_000_000));
    lab.write("s.sh", &format!("#!/bin/sh\nsleep {pause} & sleep {pause}\n"), 0o755);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let path = lab.path("s.sh");
    let begun = Instant::now();
    runtime.block_on(async {
        tokio::select! {
            ended = child::run(&path, &[], &LONG) => panic!("it should hang: {ended:?}"),
            () = async { while running(&pause) < 2 { tokio::task::yield_now().await } } => {}
        }
    });
    while running(&pause) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "something is left");
        std::thread::yield_now();
    }
}

#[test]
fn a_daemon_that_leaves_the_group_holds_up_nobody() {
    let lab = Lab::new();
    let part = lab.run("#!/bin/sh\nsetsid sleep 15 &\nsetsid sleep 0\necho a 1", LONG);
    let error = part.error.unwrap_or_default();
    assert!(error.contains("holds its output open"), "{error}");
    assert!(part.took < Duration::from_secs(14), "{:?}", part.took);
}

#[test]
fn what_others_could_have_written_is_not_run() {
    let lab = Lab::new();
    let text = "#!/bin/sh\necho a 1\n";
    for (name, mode) in
        [("a", 0o755), ("b-world", 0o757), ("c-group", 0o775), ("d-plain", 0o644), ("e-suid", 0o4755)]
    {
        lab.write(name, text, mode);
    }
    for (name, mode) in [(".hidden", 0o755), ("a~", 0o755), ("a.dpkg-old", 0o755)] {
        lab.write(name, text, mode);
    }
    fs::create_dir(lab.path("folder")).expect("a directory");
    symlink("a", lab.path("f-inside")).expect("a link");
    symlink("/bin/ls", lab.path("g-outside")).expect("a link");
    symlink("/nowhere", lab.path("h-broken")).expect("a link");
    let parts = lab.see(lab.target(), LONG).expect("parts");
    let told: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.state)).collect();
    use ProbeState::{Absent, Denied, Failing, Ok};
    assert_eq!(
        told,
        [
            ("a", Ok),
            ("b-world", Denied),
            ("c-group", Denied),
            ("d-plain", Absent),
            ("e-suid", Denied),
            ("f-inside", Ok),
            ("g-outside", Denied),
            ("h-broken", Failing),
        ]
    );
    let said: Vec<_> = parts.iter().map(|part| part.error.clone().unwrap_or_default()).collect();
    assert!(
        said[1].contains("(mode 0757); chmod go-w it") && said[6].contains("out of the directory"),
        "{said:?}"
    );
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(lab.path("a"), Some(65534), None).expect("root may");
        let part = lab.see(lab.target(), LONG).expect("parts").remove(0);
        assert!(part.error.is_some_and(|error| error.contains("belongs to user 65534")));
        let refused =
            lab.see(ScriptsTarget { as_root: false, ..lab.target() }, LONG).expect_err("not as root");
        assert!(refused.to_string().contains("set WATCHPOST_SCRIPTS=root:/"), "{refused}");
    }
}

#[test]
fn a_directory_that_others_may_write_has_no_script() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("above/scripts")).expect("directories");
    let target =
        |name: &str, is_optional| ScriptsTarget { directory: lab.path(name), is_optional, ..lab.target() };
    let see = |name: &str, is_optional| {
        lab.see(target(name, is_optional), LONG).expect_err("nothing is run").to_string()
    };
    assert!(see("above/scripts", false).contains("there is no script"));
    assert!(see("none", true).contains("there is no /"));
    assert!(see("none", false).contains("No such file"));
    lab.write("file", "", 0o644);
    assert!(see("file", false).contains("is no directory"));
    lab.write("above/scripts/a", "#!/bin/sh\necho a 1\n", 0o755);
    assert_eq!(lab.see(target("above/scripts", false), LONG).map(|parts| parts.len()), Ok(1));
    for (open, sticky) in [("above", 0o1777), ("above/scripts", 0o755)] {
        fs::set_permissions(lab.path(open), Permissions::from_mode(0o777)).expect("its mode is set");
        let said = see("above/scripts", false);
        assert!(said.contains(&format!("{open}: others may write to it (mode 0777); chmod")), "{said}");
        fs::set_permissions(lab.path(open), Permissions::from_mode(sticky)).expect("its mode is set");
        assert!(lab.see(target("above/scripts", false), LONG).is_ok(), "{open}");
    }
}

#[test]
fn more_scripts_than_the_limit_are_told() {
    let lab = Lab::new();
    for n in 0..SCRIPTS_MAX + 3 {
        lab.write(&format!("{n:02}"), "", 0o644);
    }
    let parts = lab.see(lab.target(), LONG).expect("parts");
    assert_eq!(parts.len(), SCRIPTS_MAX + 1);
    let last = parts.last().expect("there are parts");
    assert_eq!((last.name.as_str(), last.state), ("(3 more)", ProbeState::Failing));
}
