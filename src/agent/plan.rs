//! Which logs are followed and how their lines read: the settings, joined with what nginx.conf says.
//!
//! Reads nginx.conf and what it includes; never a log. `check`, `once`, `explain` and the agent all ask here, so
//! that they agree.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use watchpost_parsers::nginx_conf::{AccessLogDirective, Discovery, LogTarget, Place};
use watchpost_parsers::{Format, FormatError, nginx_conf};

use crate::config::{AccessLogs, Config, LogFormat};
use crate::record::Stream;
use crate::spool::Labels;

/// Where packaged nginx logs when its configuration cannot be read.
pub const FALLBACK_PATTERN: &str = "/var/log/nginx/*access*.log";

/// What nginx logs to when no access_log is stated.
const NGINX_DEFAULT_LOG: &str = "/var/log/nginx/access.log";

/// The directory that relative paths in nginx.conf start from, as Debian and nginx.org build it.
const NGINX_PREFIX: &str = "/usr/share/nginx";

/// Files that one include may name; more are a mistake or an attack.
const INCLUDED_FILES_MAX: usize = 1_000;

/// Bytes of one file of nginx's configuration; a longer one is no configuration, and is not read.
const CONFIGURATION_BYTES_MAX: u64 = 16 << 20;

/// How the lines of a log read.
#[derive(Clone, Debug)]
pub enum Reading {
    /// A known format.
    Format(Arc<Format>),
    /// JSON where a line begins with a brace, else combined or the `main` of nginx.org's packages.
    Detect,
}

/// One pattern of files whose lines read alike.
#[derive(Clone, Debug)]
pub struct LogPlan {
    /// A path or a shell pattern.
    pub pattern: String,
    /// How the lines read.
    pub reading: Reading,
    /// For people: where the format comes from.
    pub format_name: String,
    /// The virtual host of all its lines, where nginx.conf gives the log to one server alone.
    pub vhost: Option<Vec<u8>>,
    /// How long nginx may hold lines back, in milliseconds.
    pub flush_ms: Option<u64>,
}

/// All logs to follow.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One entry a pattern.
    pub logs: Vec<LogPlan>,
    /// What should be said about them: logs that cannot be followed, lines that may come late.
    pub notes: Vec<String>,
    /// Whether nginx's configuration had a say in it.
    pub is_discovered: bool,
    fallback: LogPlan,
}

/// A format that the operator wrote and that does not compile.
#[derive(Debug, thiserror::Error)]
#[error(
    "WATCHPOST_ACCESS_LOG_FORMAT: {0}; write auto, combined, json, a log_format string as in nginx.conf, or regex: with named groups"
)]
pub struct PlanError(String);

impl From<FormatError> for PlanError {
    fn from(error: FormatError) -> PlanError {
        PlanError(error.to_string())
    }
}

impl Plan {
    /// Joins the settings with nginx.conf.
    ///
    /// # Errors
    /// A format of the settings that does not compile.
    pub fn new(config: &Config) -> Result<Plan, PlanError> {
        let stated = stated_format(&config.access_log_format)?;
        let discovery = match (&config.access_logs, &stated) {
            (AccessLogs::None, _) => None,
            (AccessLogs::Globs(_), Some(_)) => None,
            _ => discover(&config.nginx_conf),
        };
        let (format_name, reading) = match &stated {
            Some((name, format)) => (name.clone(), Reading::Format(format.clone().into())),
            None => ("combined, main or JSON, by the line".to_owned(), Reading::Detect),
        };
        let fallback = LogPlan { pattern: String::new(), reading, format_name, vhost: None, flush_ms: None };
        let mut plan =
            Plan { logs: Vec::new(), notes: Vec::new(), is_discovered: discovery.is_some(), fallback };
        match &config.access_logs {
            AccessLogs::None => {}
            AccessLogs::Globs(patterns) => {
                for pattern in patterns {
                    plan.add_pattern(pattern, discovery.as_ref(), stated.is_some());
                }
            }
            AccessLogs::Auto => match &discovery {
                Some(discovery) => plan.add_discovered(discovery, stated.is_some()),
                None => {
                    let path = config.nginx_conf.display();
                    plan.notes.push(format!("{path} cannot be read; following {FALLBACK_PATTERN}"));
                    plan.add_pattern(FALLBACK_PATTERN, None, false);
                }
            },
        }
        Ok(plan)
    }

    /// The plan of the pattern that found a file.
    pub fn of(&self, pattern: &str) -> &LogPlan {
        self.logs.iter().find(|log| log.pattern == pattern).unwrap_or(&self.fallback)
    }

    /// The reading of a line that comes from nowhere in particular: that of the only log, or by the line.
    pub fn for_any_line(&self) -> &LogPlan {
        match self.logs.as_slice() {
            [only] => only,
            _ => &self.fallback,
        }
    }

    /// The labels of a stream's batches.
    pub fn labels(&self, config: &Config, stream: Stream, host: &str) -> Labels {
        let or =
            |setting: &Option<String>, default: &str| setting.clone().unwrap_or_else(|| default.to_owned());
        let fields: Vec<String> =
            config.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Labels {
            category: or(&config.source_category, stream.default_category()),
            name: or(&config.source_name, stream.default_source_name()),
            host: host.to_owned(),
            fields: fields.join(","),
        }
    }

    /// A pattern of the settings. A plain path that nginx.conf knows takes its format from there.
    fn add_pattern(&mut self, pattern: &str, discovery: Option<&Discovery>, format_is_stated: bool) {
        let known = discovery.and_then(|discovery| {
            discovery.logs.iter().find(|log| pattern_of(log).as_deref() == Some(pattern))
        });
        let mut log = LogPlan { pattern: pattern.to_owned(), ..self.fallback.clone() };
        if let Some(directive) = known {
            self.apply(&mut log, directive, format_is_stated);
        }
        if self.logs.iter().all(|known| known.pattern != log.pattern) {
            self.logs.push(log);
        }
    }

    fn add_discovered(&mut self, discovery: &Discovery, format_is_stated: bool) {
        for problem in &discovery.problems {
            self.notes.push(format!("{}:{}: {}", problem.file, problem.line, problem.message));
        }
        for directive in &discovery.logs {
            match pattern_of(directive) {
                Some(pattern) => self.add_pattern(&pattern, Some(discovery), format_is_stated),
                None => {
                    self.notes.push(format!("nginx logs to {}, which is no file to follow", directive.path))
                }
            }
        }
    }

    fn apply(&mut self, log: &mut LogPlan, directive: &AccessLogDirective, format_is_stated: bool) {
        log.flush_ms = directive.flush_ms;
        if directive.buffer_bytes.is_some() && directive.flush_ms.is_none() {
            self.notes.push(format!(
                "{}: buffer= without flush= holds lines back for as long as it likes; add flush=1s",
                log.pattern
            ));
        }
        if let [name] = directive.server_names.as_slice()
            && is_host_name(name)
        {
            log.vhost = Some(name.as_bytes().to_vec());
        }
        if format_is_stated {
            return;
        }
        let Some(text) = &directive.format else {
            log.format_name = "combined".to_owned();
            log.reading = Reading::Format(Format::combined().into());
            return;
        };
        match Format::from_log_format(text) {
            Ok(format) => {
                log.format_name = directive.format_name.clone();
                log.reading = Reading::Format(format.into());
            }
            Err(error) => {
                let name = &directive.format_name;
                self.notes.push(format!("log_format {name} of nginx.conf is not understood: {error}"));
            }
        }
    }
}

/// Whether a server_name names one host: neither a pattern nor nginx's name for everything else.
pub(super) fn is_host_name(name: &str) -> bool {
    name != "_" && !name.is_empty() && !name.starts_with('~') && !name.contains('*')
}

/// The format that the settings state; `None` for `auto`.
fn stated_format(setting: &LogFormat) -> Result<Option<(String, Format)>, PlanError> {
    Ok(match setting {
        LogFormat::Auto => None,
        LogFormat::Combined => Some(("combined".to_owned(), Format::combined())),
        LogFormat::Json => Some(("JSON".to_owned(), Format::json())),
        LogFormat::LogFormat(text) => {
            Some(("the log_format of the settings".to_owned(), Format::from_log_format(text)?))
        }
        LogFormat::Regex(pattern) => {
            Some(("the regex of the settings".to_owned(), Format::from_regex(pattern)?))
        }
    })
}

/// The path or shell pattern of a directive's files: a variable in it may be anything. `None` for what is no file.
pub(super) fn pattern_of(directive: &AccessLogDirective) -> Option<String> {
    match directive.target {
        LogTarget::File => Some(directive.path.clone()),
        LogTarget::FilesByVariable => {
            let variable = regex::Regex::new(r"\$(\w+|\{\w+\})").expect("the pattern is a constant");
            Some(variable.replace_all(&directive.path, "*").into_owned())
        }
        LogTarget::Syslog | LogTarget::Device => None,
    }
}

/// What nginx.conf says; `None` when it cannot be read.
pub(super) fn discover(path: &Path) -> Option<Discovery> {
    let text = read_regular(path, CONFIGURATION_BYTES_MAX)?;
    let mut include = |pattern: &str| -> Vec<(String, String)> {
        let Ok(paths) = glob::glob(pattern) else { return Vec::new() };
        paths
            .flatten()
            .take(INCLUDED_FILES_MAX)
            .filter_map(|path| {
                let text = read_regular(&path, CONFIGURATION_BYTES_MAX)?;
                Some((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()))
            })
            .collect()
    };
    let text = String::from_utf8_lossy(&text);
    let main_file = path.to_string_lossy();
    let place = Place { main_file: &main_file, prefix: NGINX_PREFIX, default_access_log: NGINX_DEFAULT_LOG };
    Some(nginx_conf::access_logs(&text, &place, &mut include))
}

/// What a regular file of at most so many bytes holds; anything else could hang the agent or fill its memory.
pub fn read_regular(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= bytes_max).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Surroundings, load};

    /// The plan for an nginx.conf of this text, with these settings beside.
    fn plan(nginx_conf: &str, settings: &[(&str, &str)]) -> Plan {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, nginx_conf).expect("a configuration");
        let mut strings: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        strings.insert("WATCHPOST_NGINX_CONF".to_owned(), path.display().to_string());
        strings.insert("WATCHPOST_STATE_DIR".to_owned(), "/nowhere".to_owned());
        let surroundings = Surroundings { is_root: false, host_source_names: &[] };
        Plan::new(&load(&strings, &surroundings).expect("the settings are right")).expect("a plan")
    }

    const SERVERS: &str = r#"http {
        log_format timed '$remote_addr [$time_local] "$request" $status $request_time';
        server { server_name shop.example; access_log /var/log/shop.log timed buffer=64k flush=2s; }
        server { server_name _; access_log /var/log/rest.log; }
        server { server_name a.example b.example; access_log /var/log/$host.log timed buffer=8k; }
        server { server_name c.example; access_log syslog:server=10.0.0.1; }
    }"#;

    #[test]
    fn nginx_conf_says_which_logs_there_are_and_how_they_read() {
        let plan = plan(SERVERS, &[]);
        let logs: Vec<_> = plan
            .logs
            .iter()
            .map(|log| {
                let vhost = log.vhost.as_deref().map(String::from_utf8_lossy);
                format!("{} {} {:?} {:?}", log.pattern, log.format_name, vhost, log.flush_ms)
            })
            .collect();
        assert_eq!(
            logs,
            [
                "/var/log/shop.log timed Some(\"shop.example\") Some(2000)",
                "/var/log/rest.log combined None None",
                "/var/log/*.log timed None None",
            ]
        );
        let notes = plan.notes.join("\n");
        assert!(notes.contains("/var/log/*.log: buffer= without flush="), "{notes}");
        assert!(notes.contains("syslog:server=10.0.0.1"), "{notes}");
    }

    #[test]
    fn settings_win_over_nginx_conf() {
        let stated = plan(SERVERS, &[("WATCHPOST_ACCESS_LOGS", "/var/log/shop.log,/srv/*.log")]);
        let logs: Vec<_> =
            stated.logs.iter().map(|log| (log.pattern.as_str(), log.format_name.as_str())).collect();
        assert_eq!(
            logs,
            [("/var/log/shop.log", "timed"), ("/srv/*.log", "combined, main or JSON, by the line")]
        );
        let json = plan(SERVERS, &[("WATCHPOST_ACCESS_LOG_FORMAT", "json")]);
        assert!(json.logs.iter().all(|log| log.format_name == "JSON"), "{:?}", json.logs);
        assert!(plan(SERVERS, &[("WATCHPOST_ACCESS_LOGS", "none")]).logs.is_empty());
    }
}
