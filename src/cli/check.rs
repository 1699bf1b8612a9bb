//! `watchpost check`: what would be collected and shipped, whether each part works, and what to do where not.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::analyze::write_out;
use super::{Failure, exit, grouped, printable, runtime, size};
use crate::agent::plan::Plan;
use crate::agent::{others_may_change, wanted};
use crate::config::Config;
use crate::facts::ProbeState;
use crate::follow::{Follower, HostFiles, Options};
use crate::probes::once;
use crate::ship::check_destination;
use crate::sources::SOURCES;

/// Collects what is said, and whether something must be done.
#[derive(Debug, Default)]
struct Report {
    text: String,
    problems: u64,
}

impl Report {
    fn heading(&mut self, name: &str) {
        let _ = writeln!(self.text, "{name}");
    }

    fn good(&mut self, what: impl AsRef<str>) {
        let _ = writeln!(self.text, "  ok    {}", printable(what.as_ref().as_bytes()));
    }

    fn note(&mut self, what: impl AsRef<str>) {
        let _ = writeln!(self.text, "  note  {}", printable(what.as_ref().as_bytes()));
    }

    fn problem(&mut self, what: impl AsRef<str>, cure: impl AsRef<str>) {
        self.problems += 1;
        let (what, cure) = (printable(what.as_ref().as_bytes()), printable(cure.as_ref().as_bytes()));
        let _ = writeln!(self.text, "  FAIL  {what}\n        {cure}");
    }
}

/// Checks everything and prints the report; `exposed` is what to say of files with secrets.
///
/// # Errors
/// 74 when something would not work, 78 when a format of the settings does not compile.
pub fn run(config: &Config, exposed: &[String]) -> Result<(), Failure> {
    let plan = Plan::new(config).map_err(|error| Failure::new(exit::SETTINGS, error.to_string()))?;
    let mut report = Report::default();
    check_settings(&mut report, config);
    for warning in exposed {
        report.note(warning);
    }
    check_logs(&mut report, &plan);
    check_sources(&mut report, config);
    check_probes(&mut report, config)?;
    check_state(&mut report, config);
    check_port(&mut report, config);
    check_delivery(&mut report, config)?;
    write_out(report.text.as_bytes())?;
    match report.problems {
        0 => Ok(()),
        1 => Err(Failure::new(exit::IO, "1 thing needs to be mended, see above")),
        count => Err(Failure::new(exit::IO, format!("{count} things need to be mended, see above"))),
    }
}

fn check_settings(report: &mut Report, config: &Config) {
    report.heading("settings");
    for line in config.describe().lines().filter(|line| !line.ends_with("(default)")) {
        report.good(line);
    }
    if config.effective.iter().all(|effective| effective.to_string().ends_with("(default)")) {
        report.good("every setting is at its default");
    }
}

fn check_logs(report: &mut Report, plan: &Plan) {
    report.heading("access logs");
    for note in &plan.notes {
        report.note(note);
    }
    let patterns = plan.logs.iter().map(|log| log.pattern.clone()).collect();
    let options = Options { patterns, first_start_at_end: true };
    let mut follower = Follower::new(Arc::new(HostFiles), options, std::iter::empty(), true);
    follower.scan(Instant::now());
    for file in follower.files() {
        let log = plan.of(&file.pattern);
        report.good(format!("{}: {}, format {}", file.path.display(), size(file.size()), log.format_name));
    }
    for (path, blocked) in follower.blocked() {
        report.problem(format!("{}: {}", path.display(), blocked.message), cure_for(blocked.state, path));
    }
    if plan.logs.is_empty() {
        report.note("none is followed (WATCHPOST_ACCESS_LOGS)");
    } else if follower.files().next().is_none() && follower.blocked().is_empty() {
        let patterns: Vec<&str> = plan.logs.iter().map(|log| log.pattern.as_str()).collect();
        report.problem(
            format!("no file matches {}", patterns.join(", ")),
            "set WATCHPOST_ACCESS_LOGS to the logs of this server; files born later are picked up by themselves",
        );
    }
}

/// What to do about a path that is not read.
fn cure_for(state: &str, path: &Path) -> String {
    match state {
        "missing" => {
            "it is read from its start as soon as it appears; if the name is wrong, set WATCHPOST_ACCESS_LOGS"
                .to_owned()
        }
        "unreadable" => match group_that_may_read(path) {
            Some(group) => format!(
                "let the agent join the group that may read it: SupplementaryGroups={group} in watchpost.service, or usermod -aG {group} watchpost"
            ),
            None => format!(
                "give the agent's user the right to read it: setfacl -m u:watchpost:r {}",
                path.display()
            ),
        },
        "compressed" => "follow the plain log; compressed ones are for `watchpost analyze`".to_owned(),
        _ => "name a regular file in WATCHPOST_ACCESS_LOGS".to_owned(),
    }
}

/// The group of a file whose mode lets it read, by number where it has no name.
fn group_that_may_read(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.permissions().mode() & 0o040 == 0 {
        return None;
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(metadata.gid())).then(|| name.to_owned())
    });
    Some(name.unwrap_or_else(|| metadata.gid().to_string()))
}

fn check_sources(report: &mut Report, config: &Config) {
    let on: Vec<&str> =
        SOURCES.iter().map(|source| source.name).filter(|name| config.host_sources.includes(name)).collect();
    report.heading("host");
    match on.as_slice() {
        [] => report.note("no host source is on (WATCHPOST_HOST_SOURCES)"),
        on => report.good(format!(
            "{} every {} s; `watchpost once` shows them",
            on.join(", "),
            config.host_interval.as_secs_f64()
        )),
    }
}

fn check_probes(report: &mut Report, config: &Config) -> Result<(), Failure> {
    report.heading("probes");
    for (spec, status, seen) in runtime()?.block_on(once(&wanted(config))) {
        let said = status.last_error.unwrap_or_default();
        let (name, setting) = (spec.name, spec.setting);
        match status.state {
            ProbeState::Ok | ProbeState::Starting => {
                report.good(format!("{name}: {}, every {} s", spec.help, spec.interval.as_secs_f64()));
            }
            ProbeState::Absent => report.note(format!("{name}: {said} ({setting})")),
            // A right that is not granted is a choice, where the rest is seen without it.
            ProbeState::Denied if seen.is_some() => report.note(format!("{name}: {said} ({setting})")),
            ProbeState::Denied | ProbeState::Failing | ProbeState::Partial => {
                report.problem(format!("{name}: {said}"), format!("mend it, or set {setting}"));
            }
        }
        for part in &status.parts {
            let error = part.error.as_deref().unwrap_or_default();
            match part.state {
                ProbeState::Ok if part.error.is_none() => report.good(format!(
                    "{name} {}: {} samples in {} ms",
                    part.name,
                    part.samples,
                    part.duration_ms.round()
                )),
                ProbeState::Ok | ProbeState::Absent => report.note(format!("{name} {}: {error}", part.name)),
                // Said above, as the probe's.
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_state(report: &mut Report, config: &Config) {
    report.heading("state");
    let path = config.state_dir.as_path();
    if let Some(danger) = others_may_change(path) {
        report.note(format!("{}: {danger}", path.display()));
    }
    match try_to_write(nearest_existing(path)) {
        Ok(()) => report.good(format!(
            "{}: can be written; the spool may take {}",
            path.display(),
            size(config.spool_max_bytes)
        )),
        Err(error) => report.problem(
            format!("{}: {error}", path.display()),
            "create it for the agent's user, or set WATCHPOST_STATE_DIR to a directory that it may write",
        ),
    }
}

/// Makes a directory in another and removes it: rights alone do not tell of a read-only or a special filesystem.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".watchpost-check-{}", std::process::id()));
    fs::create_dir(&probe)?;
    fs::remove_dir(&probe)
}

fn nearest_existing(path: &Path) -> &Path {
    let existing = path.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    existing.unwrap_or(Path::new("."))
}

fn check_port(report: &mut Report, config: &Config) {
    report.heading("status port");
    match config.status_addr {
        None => report.note("off"),
        Some(address) => match TcpListener::bind(address) {
            Ok(_) => report.good(format!("{address} is free")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                report.note(format!(
                    "{address} is in use; that is well if the agent runs: `watchpost status` tells"
                ));
            }
            Err(error) => report.problem(
                format!("{address}: {error}"),
                "set WATCHPOST_STATUS_ADDR to an address of this host, or to off",
            ),
        },
    }
}

fn check_delivery(report: &mut Report, config: &Config) -> Result<(), Failure> {
    report.heading("delivery");
    let Some(url) = &config.sumo_url else {
        report.note("WATCHPOST_SUMO_URL is unset: everything is counted and shown, nothing is shipped");
        return Ok(());
    };
    match runtime()?.block_on(check_destination(url)) {
        Ok(answer) if answer.usable => report.good(format!(
            "HTTP {} after {} ms: {}",
            answer.status,
            grouped(u64::try_from(answer.elapsed.as_millis()).unwrap_or(u64::MAX)),
            answer.explanation
        )),
        Ok(answer) => report.problem(
            format!("HTTP {}: {}", answer.status, answer.explanation),
            "copy the URL of the HTTP source again into WATCHPOST_SUMO_URL; until it works, the spool keeps everything",
        ),
        Err(error) => report.problem(
            format!("the destination does not answer: {error}"),
            "check WATCHPOST_SUMO_URL, name resolution and outgoing firewalls; the agent starts all the same and retries",
        ),
    }
    Ok(())
}
