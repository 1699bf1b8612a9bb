//! The command line: commands by hand, one flag for each setting from the table of settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::receiver::ReceiverOptions;
use crate::config::SETTINGS;

/// Where the development receiver listens unless it is told.
const RECEIVER_ADDRESS: &str = "127.0.0.1:7867";

/// What was asked for.
#[derive(Debug)]
pub enum Action {
    /// Run the agent.
    Run,
    /// Say what would be collected and whether it works.
    Check,
    /// One sample of every source.
    Once,
    /// A report over log files.
    Analyze {
        /// Files; `-` is stdin.
        files: Vec<PathBuf>,
        /// One JSON object instead of text.
        json: bool,
    },
    /// How one line parses.
    Explain {
        /// The line.
        line: OsString,
    },
    /// Ask the running agent.
    Status {
        /// The answer as it stands.
        json: bool,
    },
    /// List the spool.
    SpoolList,
    /// Print records of the spool.
    SpoolCat {
        /// Only this batch.
        seq: Option<u64>,
    },
    /// Show everything on this machine.
    Demo {
        /// End after this time.
        seconds: Option<u64>,
    },
    /// The development receiver.
    Receiver(Box<ReceiverOptions>),
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub action: Action,
    /// Flags by the name of their variable.
    pub flags: BTreeMap<String, String>,
}

/// Reads the command line.
///
/// # Errors
/// clap's error, which prints itself; help and version are errors too, with exit code 0.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let mut flags = settings_in(&matches);
    let action = match matches.subcommand() {
        None => Action::Run,
        Some((name, inner)) => {
            flags.extend(settings_in(inner));
            let action = action(name, inner);
            if let Some((_, innermost)) = inner.subcommand() {
                flags.extend(settings_in(innermost));
            }
            action
        }
    };
    Ok(Invocation { action, flags })
}

fn action(name: &str, matches: &ArgMatches) -> Action {
    match (name, matches.subcommand()) {
        ("check", _) => Action::Check,
        ("once", _) => Action::Once,
        ("analyze", _) => Action::Analyze {
            files: matches.get_many::<PathBuf>("files").into_iter().flatten().cloned().collect(),
            json: matches.get_flag("json"),
        },
        ("explain", _) => {
            Action::Explain { line: matches.get_one::<OsString>("line").cloned().unwrap_or_default() }
        }
        ("status", _) => Action::Status { json: matches.get_flag("json") },
        ("spool", Some(("cat", inner))) => Action::SpoolCat { seq: inner.get_one::<u64>("seq").copied() },
        ("spool", _) => Action::SpoolList,
        ("demo", _) => Action::Demo { seconds: matches.get_one::<u64>("seconds").copied() },
        ("receiver", _) => Action::Receiver(Box::new(receiver_options(matches))),
        _ => Action::Run,
    }
}

fn receiver_options(matches: &ArgMatches) -> ReceiverOptions {
    let listen = matches.get_one::<SocketAddr>("listen").expect("it has a default");
    ReceiverOptions {
        store: matches.get_one::<PathBuf>("store").cloned(),
        status: matches.get_one::<u16>("status").copied(),
        fail_rate: matches.get_one::<f64>("fail-rate").copied().unwrap_or(0.0),
        lose_answers: matches.get_flag("lose-answers"),
        delay: matches.get_one::<Duration>("delay").copied().unwrap_or_default(),
        stop_after: matches.get_one::<u64>("stop-after").copied(),
        allow_remote: matches.get_flag("allow-remote"),
        seed: matches.get_one::<u64>("seed").copied().unwrap_or(0),
        ..ReceiverOptions::new(*listen)
    }
}

/// The settings that were given as flags. A secret's `--x-file` stands for the variable `X_FILE`.
fn settings_in(matches: &ArgMatches) -> BTreeMap<String, String> {
    let given = |id: &str| matches.try_get_one::<String>(id).ok().flatten().cloned();
    let mut flags = BTreeMap::new();
    for setting in SETTINGS {
        if let Some(value) = given(setting.flag) {
            flags.insert(setting.name.to_owned(), value);
        }
        if let Some(variable) = setting.file_variable()
            && let Some(path) = given(&format!("{}-file", setting.flag))
        {
            flags.insert(variable, path);
        }
    }
    flags
}

fn setting_flags() -> Vec<Arg> {
    let mut flags = Vec::new();
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "unset".to_owned(),
            default => format!("default {default}"),
        };
        let help = format!("{} ({default}) [{}]", setting.form, setting.name);
        flags.push(flag(setting.flag, help));
        if let Some(variable) = setting.file_variable() {
            let help = format!("a file that holds it, so that no process list shows it [{variable}]");
            flags.push(flag(format!("{}-file", setting.flag), help));
        }
    }
    flags
}

fn flag(name: impl Into<String>, help: impl Into<StyledStr>) -> Arg {
    let name: String = name.into();
    Arg::new(name.clone()).long(name).value_name("VALUE").help(help).help_heading("Settings")
}

fn with_settings(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).args(setting_flags())
}

fn command() -> Command {
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("one JSON object");
    Command::new("watchpost")
        .about("A monitoring agent for web servers that can prove its numbers")
        .long_about(
            "A monitoring agent for web servers that can prove its numbers.\n\nWithout a command it runs the agent. \
             Settings come from WATCHPOST_* variables; config/watchpost.env explains each.",
        )
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_negates_reqs(true)
        .args(setting_flags())
        .subcommand(with_settings("run", "Run the agent in the foreground"))
        .subcommand(with_settings("check", "Say what would be collected and shipped, and whether each part works"))
        .subcommand(with_settings("once", "One sample of every source, as JSON"))
        .subcommand(
            with_settings("analyze", "A report over log files: requests, errors, latency, top hosts and routes").arg(json()).arg(
                Arg::new("files")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .num_args(1..)
                    .required(true)
                    .help("log files, plain or .gz; - is stdin"),
            ),
        )
        .subcommand(with_settings("explain", "How one log line parses, and what would be shipped").arg(
            Arg::new("line").value_name("LINE").value_parser(value_parser!(OsString)).required(true).help("the line"),
        ))
        .subcommand(with_settings("status", "Ask the running agent").arg(json()))
        .subcommand(spool_command())
        .subcommand(demo_command())
        .subcommand(receiver_command())
}

fn spool_command() -> Command {
    Command::new("spool")
        .about("Look into the disk buffer, read-only, while the agent runs or not")
        .subcommand_required(true)
        .subcommand(with_settings("ls", "List segments and batches"))
        .subcommand(
            with_settings("cat", "Print the records that wait, as they would be sent").arg(
                Arg::new("seq")
                    .value_name("SEQ")
                    .value_parser(value_parser!(u64))
                    .help("only this batch, also when it was acknowledged"),
            ),
        )
}

fn demo_command() -> Command {
    Command::new("demo")
        .about("Everything on this machine with nothing to configure: traffic, agent, page, receiver")
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("N")
                .value_parser(value_parser!(u64).range(5..))
                .help("end after N seconds with a balance sheet (from 5)"),
        )
}

fn receiver_command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("receiver")
        .about("A Sumo-compatible receiver for development and tests")
        .arg(
            option("listen", "ADDR", "where to listen; port 0 takes a free one")
                .value_parser(value_parser!(SocketAddr))
                .default_value(RECEIVER_ADDRESS),
        )
        .arg(
            option("store", "DIR", "keep the decoded records, one NDJSON file a category")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(option("status", "CODE", "answer every POST with this status").value_parser(value_parser!(u16)))
        .arg(
            option("fail-rate", "P", "answer this share of POSTs with 503 (0 to 1)")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            Arg::new("lose-answers")
                .long("lose-answers")
                .action(ArgAction::SetTrue)
                .help("half of those failures come after the batch was taken"),
        )
        .arg(option("delay", "TIME", "wait before each answer: 250ms, 2s").value_parser(duration))
        .arg(option("stop-after", "N", "end after N accepted requests").value_parser(value_parser!(u64)))
        .arg(option("seed", "N", "for the failures drawn at random").value_parser(value_parser!(u64)))
        .arg(
            Arg::new("allow-remote")
                .long("allow-remote")
                .action(ArgAction::SetTrue)
                .help("listen on an address that is not loopback"),
        )
}

fn duration(text: &str) -> Result<Duration, String> {
    let form = || format!("{text:?} is no time: write 250ms or 2s");
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let value: f64 = digits.parse().map_err(|_| form())?;
    Duration::try_from_secs_f64(value * unit).map_err(|_| form())
}

/// Names of all commands, for the documentation to be held against.
pub fn command_names() -> Vec<String> {
    command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Invocation, clap::Error> {
        parse(words.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_reach_the_settings_before_and_behind_the_command() {
        for words in [
            "watchpost --spool-max 2MiB",
            "watchpost run --spool-max 2MiB",
            "watchpost spool ls --spool-max 2MiB",
        ] {
            let invocation = parse_words(words).expect("it parses");
            assert_eq!(
                invocation.flags.get("WATCHPOST_SPOOL_MAX").map(String::as_str),
                Some("2MiB"),
                "{words}"
            );
        }
        let invocation = parse_words("watchpost run --sumo-url-file /x").expect("it parses");
        assert_eq!(invocation.flags.get("WATCHPOST_SUMO_URL_FILE").map(String::as_str), Some("/x"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert!(duration("soon").is_err() && duration("-1s").is_err());
    }
}
