//! The binary: reads the command line and the environment, runs one command, turns its failure into an exit code.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use watchpost::agent::doorbell::Doorbell;
use watchpost::agent::plan::read_regular;
use watchpost::agent::{Agent, Ended, StartError, edges};
use watchpost::cli::args::{self, Action, Invocation};
use watchpost::cli::{self, Failure, exit};
use watchpost::config::{self, Config, ENV_FILE_PATH, Layered, Surroundings};
use watchpost::sources::SOURCES;

/// The most bytes of the env file; the manual has 8 KiB.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let invocation = match args::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            // What was typed, or pasted, is quoted in it.
            eprint!("{}", cli::printable_lines(&error.render().to_string()));
            return ExitCode::from(exit::USAGE);
        }
    };
    match dispatch(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("watchpost: {}", cli::printable_lines(&failure.to_string()));
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(invocation: Invocation) -> Result<(), Failure> {
    let Invocation { action, flags } = invocation;
    let environment = config::environment(std::env::vars_os());
    let load = || load(&flags, &environment);
    match action {
        Action::Run => run(&flags, &environment),
        Action::Check => {
            cli::check::run(&load()?, &exposed_secrets(&flags, &environment, env_file().as_ref()))
        }
        Action::Once => cli::once::run(&load()?),
        Action::Analyze { files, json } => cli::analyze::run(&files, json, &load()?),
        Action::Explain { line } => cli::explain::run(&line, &load()?),
        Action::Status { json } => cli::status_of_agent(&load()?, json),
        Action::SpoolList => cli::spool::list(&load()?),
        Action::SpoolCat { seq } => cli::spool::cat(&load()?, seq),
        Action::Demo { seconds } => cli::demo::run(seconds, &environment),
        Action::Receiver(options) => cli::run_receiver(*options),
    }
}

/// Runs the agent until it is asked to stop; a reload begins it anew in the same process.
fn run(flags: &BTreeMap<String, String>, environment: &BTreeMap<String, String>) -> Result<(), Failure> {
    // First of all: a SIGHUP that nobody handles ends the process.
    let doorbell = Arc::new(Doorbell::default());
    edges::watch_signals(Arc::clone(&doorbell))
        .map_err(|error| Failure::io("signals cannot be handled", &error))?;
    let mut config = load(flags, environment)?;
    cli::own_log::start(config.log, environment);
    if flags.contains_key("WATCHPOST_SUMO_URL") {
        tracing::warn!("--sumo-url shows the URL to everybody who can list processes; use --sumo-url-file");
    }
    raise_file_limit();
    // Whatever the agent makes is its own, and its own to use, whoever starts it and how.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let at_start = env_file();
    for warning in exposed_secrets(flags, environment, at_start.as_ref()) {
        tracing::warn!("{warning}");
    }
    let mut in_force: Option<Config> = None;
    loop {
        let agent = match Agent::start(config.clone(), Arc::clone(&doorbell)) {
            Ok(agent) => agent,
            // Settings that read well may still not do, such as a port in use.
            Err(error) => match in_force.take().filter(|before| *before != config) {
                Some(before) => {
                    tracing::error!("the settings stay as they were: {}", in_one_line(&cannot_start(&error)));
                    config = before;
                    continue;
                }
                None => return Err(cannot_start(&error)),
            },
        };
        in_force = Some(config.clone());
        if let Some(address) = agent.status_address() {
            tracing::info!("the status page is at http://{address}/");
        }
        if agent.run() == Ended::Stopped {
            return Ok(());
        }
        config = reload(flags, environment, at_start.as_ref(), config);
    }
}

/// Every followed file is kept open, and the usual soft limit of 1024 is for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed the files beyond the limit are shown as unreadable.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The settings as the env file has them now; those in force where it cannot be read or is wrong.
fn reload(
    flags: &BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
    at_start: Option<&BTreeMap<String, String>>,
    in_force: Config,
) -> Config {
    let Some(file_now) = env_file() else {
        tracing::info!("{ENV_FILE_PATH} cannot be read; the settings stay, the logs are looked up again");
        return in_force;
    };
    let nothing = BTreeMap::new();
    let environment = config::environment_after_reload(environment, at_start.unwrap_or(&nothing), &file_now);
    match load(flags, &environment) {
        Ok(config) => {
            tracing::info!("the settings were read again");
            for warning in exposed_secrets(flags, &environment, Some(&file_now)) {
                tracing::warn!("{warning}");
            }
            config
        }
        Err(failure) => {
            tracing::error!("the settings stay as they were: {}", in_one_line(&failure));
            in_force
        }
    }
}

/// A failure for the log, where one event is one line.
fn in_one_line(failure: &Failure) -> String {
    failure.message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// What to say of files with secrets that everybody may read.
fn exposed_secrets(
    flags: &BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
    env_file: Option<&BTreeMap<String, String>>,
) -> Vec<String> {
    cli::exposure::of_files(&Layered { flags, environment }, Path::new(ENV_FILE_PATH), env_file)
}

fn env_file() -> Option<BTreeMap<String, String>> {
    let bytes = read_regular(Path::new(ENV_FILE_PATH), ENV_FILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).ok()?;
    match config::parse_env_file(&text) {
        Ok(variables) => Some(variables),
        Err(problem) => {
            tracing::error!("{ENV_FILE_PATH}: {problem}");
            None
        }
    }
}

fn load(flags: &BTreeMap<String, String>, environment: &BTreeMap<String, String>) -> Result<Config, Failure> {
    let names: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
    let surroundings =
        Surroundings { is_root: rustix::process::geteuid().is_root(), host_source_names: &names };
    config::load(&Layered { flags, environment }, &surroundings).map_err(|problems| {
        let count = problems.len();
        let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
        let settings = if count == 1 { "1 setting is" } else { &format!("{count} settings are") };
        Failure::new(exit::SETTINGS, format!("{settings} wrong:\n{}", lines.join("\n")))
    })
}

fn cannot_start(error: &StartError) -> Failure {
    let code = match error {
        StartError::Plan(_) => exit::SETTINGS,
        StartError::InUse { .. } | StartError::StatusPort { .. } => exit::UNAVAILABLE,
        StartError::StateDirectory { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            exit::PERMISSION
        }
        StartError::StateDirectory { .. } | StartError::Spool { .. } | StartError::Edges(_) => exit::IO,
    };
    Failure::new(code, cli::chain(error))
}
