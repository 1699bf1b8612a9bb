//! Strings in, a [`Config`] or every problem at once out.
//!
//! The only part of the settings that touches the disk: it reads the files of secrets. It decides
//! which of several sources of a value counts; what a value may be is decided in `values.rs`.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::probe_values;
use super::strings::{Origin, Strings};
use super::table::{FILE_SUFFIX, PREFIX, SETTINGS, Setting, setting};
use super::values::{self, Parsed};
use super::{Config, Effective, Problem, STARS};
use crate::secret::Secret;

/// The most bytes read of a secret's file: a device or a log named by mistake must not fill the memory.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the settings depend on beside the strings.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Whether the agent runs as root, which decides where state lives by default.
    pub is_root: bool,
    /// The names of all host sources, to check `WATCHPOST_HOST_SOURCES` against.
    pub host_source_names: &'a [&'a str],
}

/// Reads every setting. Beside `WATCHPOST_*` the strings `STATE_DIRECTORY`, `XDG_STATE_HOME`,
/// `HOME` and `CREDENTIALS_DIRECTORY` are looked at.
///
/// On failure the problems are all there are, in the order of the table, unknown variables last.
pub fn load(strings: &dyn Strings, surroundings: &Surroundings<'_>) -> Result<Config, Vec<Problem>> {
    let mut loader = Loader { strings, problems: Vec::new(), effective: Vec::new() };
    let sources = |text: &str| values::host_sources(text, surroundings.host_source_names);
    let config = Config {
        sumo_url: loader.secret("WATCHPOST_SUMO_URL", values::url),
        access_logs: loader.value("WATCHPOST_ACCESS_LOGS", values::access_logs),
        access_log_format: loader.value("WATCHPOST_ACCESS_LOG_FORMAT", values::access_log_format),
        nginx_conf: loader.value("WATCHPOST_NGINX_CONF", values::path),
        read_from: loader.value("WATCHPOST_READ_FROM", values::read_from),
        ship_lines: loader.value("WATCHPOST_SHIP_LINES", values::ship_lines),
        redact: loader.value("WATCHPOST_REDACT", values::redact),
        state_dir: loader.state_dir(surroundings.is_root),
        spool_max_bytes: loader.value("WATCHPOST_SPOOL_MAX", values::spool_max),
        batch_max_bytes: loader.value("WATCHPOST_BATCH_MAX", values::batch_max),
        flush_interval: loader.value("WATCHPOST_FLUSH_INTERVAL", values::flush_interval),
        host_interval: loader.value("WATCHPOST_HOST_INTERVAL", values::host_interval),
        host_sources: loader.value("WATCHPOST_HOST_SOURCES", sources),
        summary_interval: loader.value("WATCHPOST_SUMMARY_INTERVAL", values::summary_interval),
        stub_status: loader.value("WATCHPOST_STUB_STATUS", values::stub_status),
        haproxy: loader.value("WATCHPOST_HAPROXY", values::haproxy),
        mysql: loader.value("WATCHPOST_MYSQL", values::mysql),
        mysql_password: loader.secret("WATCHPOST_MYSQL_PASSWORD", values::password),
        scrape: loader.value("WATCHPOST_SCRAPE", values::scrape),
        scripts: loader.value("WATCHPOST_SCRIPTS", values::scripts),
        certificates: loader.value("WATCHPOST_CERTIFICATES", probe_values::certificates),
        firewall: loader.value("WATCHPOST_FIREWALL", probe_values::firewall),
        host_name: loader.optional("WATCHPOST_HOST_NAME", values::name),
        source_category: loader.optional("WATCHPOST_SOURCE_CATEGORY", values::category),
        source_name: loader.optional("WATCHPOST_SOURCE_NAME", values::name),
        fields: loader.optional("WATCHPOST_FIELDS", values::fields).unwrap_or_default(),
        status_addr: loader.value("WATCHPOST_STATUS_ADDR", values::status_addr),
        status_token: loader.secret("WATCHPOST_STATUS_TOKEN", values::token),
        log: loader.value("WATCHPOST_LOG", values::log_level),
        effective: Vec::new(),
    };
    loader.check_status_port(config.status_addr, config.status_token.as_ref());
    loader.find_unknown();
    if loader.problems.is_empty() {
        Ok(Config { effective: loader.effective, ..config })
    } else {
        Err(loader.problems)
    }
}

/// Collects values and problems, setting by setting.
struct Loader<'a> {
    strings: &'a dyn Strings,
    problems: Vec<Problem>,
    effective: Vec<Effective>,
}

impl Loader<'_> {
    /// The string of this name unless it is empty, which is the same as unset.
    fn string(&self, name: &str) -> Option<String> {
        self.strings.get(name).filter(|value| !value.is_empty())
    }

    /// A setting with a default. After a problem the default stands in, so that loading goes on.
    fn value<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> T {
        let default = setting(name).default;
        if let Some(value) = self.optional(name, &parse) {
            return value;
        }
        self.put_default(name, default);
        parse(default).expect("the defaults of the table are checked by a test")
    }

    /// A setting that may be unset.
    fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let Some(text) = self.string(name) else {
            self.put_default(name, "");
            return None;
        };
        match utf8(&text).and_then(|()| parse(&text)) {
            Ok(value) => {
                self.put(name, &text, self.strings.origin(name));
                Some(value)
            }
            Err(message) => {
                self.problem(setting(name), &text, message);
                None
            }
        }
    }

    /// Notes the value in force; a later note on the same setting replaces the earlier one.
    fn put(&mut self, name: &'static str, value: &str, origin: Origin) {
        self.effective.retain(|known| known.name != name);
        self.effective.push(Effective { name, value: value.to_owned(), origin });
    }

    fn put_default(&mut self, name: &'static str, value: &str) {
        self.put(name, value, Origin::Default);
    }

    fn problem(&mut self, setting: &Setting, value: &str, message: String) {
        let value = if setting.secret || may_hold_password(value) { STARS } else { value };
        self.problems.push(Problem {
            variable: setting.name.to_owned(),
            value: value.to_owned(),
            message,
            allowed: setting.form.to_owned(),
        });
    }

    /// A secret: from its variable, the file that its `_FILE` names, or a systemd credential.
    fn secret(&mut self, name: &'static str, parse: fn(&str) -> Parsed<Secret>) -> Option<Secret> {
        let setting = setting(name);
        let given = match self.secret_sources(setting).as_slice() {
            [] => {
                self.put_default(name, "");
                return None;
            }
            [one] => one.read(),
            several => {
                let names: Vec<String> = several.iter().map(|source| source.name.clone()).collect();
                self.problem(setting, "", format!("is set more than once: {}", names.join(" and ")));
                self.problems.last_mut().expect("it was pushed").allowed = "one of them".to_owned();
                return None;
            }
        };
        match given.and_then(|(text, origin)| Ok((parse(&text)?, origin))) {
            Ok((secret, origin)) => {
                self.put(name, STARS, origin);
                Some(secret)
            }
            Err(message) => {
                self.problem(setting, "", message);
                None
            }
        }
    }

    /// Every place that has a value for this secret. A flag hides all other places.
    fn secret_sources(&self, setting: &Setting) -> Vec<SecretSource> {
        let file_variable = format!("{}{FILE_SUFFIX}", setting.name);
        let mut sources = Vec::new();
        if let Some(text) = self.string(setting.name) {
            let origin = self.strings.origin(setting.name);
            sources.push(SecretSource { name: setting.name.to_owned(), place: Place::Text(text, origin) });
        }
        if let Some(path) = self.string(&file_variable) {
            let place = Place::File(PathBuf::from(path), Origin::File);
            sources.push(SecretSource { name: file_variable.clone(), place });
        }
        let is_flag = |name: &str| self.strings.origin(name) == Origin::Flag;
        if is_flag(setting.name) || is_flag(&file_variable) {
            sources.retain(|source| is_flag(&source.name));
            return sources;
        }
        if let (Some(directory), Some(credential)) =
            (self.string("CREDENTIALS_DIRECTORY"), setting.credential())
        {
            let path = Path::new(&directory).join(&credential);
            if path.symlink_metadata().is_ok() {
                let place = Place::File(path, Origin::Credential);
                sources.push(SecretSource { name: format!("the credential {credential}"), place });
            }
        }
        sources
    }

    /// `WATCHPOST_STATE_DIR`, whose default depends on who runs the agent and how.
    fn state_dir(&mut self, is_root: bool) -> PathBuf {
        const NAME: &str = "WATCHPOST_STATE_DIR";
        if self.string(NAME).is_some() {
            return self.optional(NAME, values::path).unwrap_or_default();
        }
        // The base directory specification has relative paths ignored.
        let absolute = |name: &str| self.string(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let default = self
            .string("STATE_DIRECTORY")
            // systemd lists several directories with colons; the first is the agent's.
            .and_then(|list| list.split(':').next().map(PathBuf::from))
            .or_else(|| is_root.then(|| PathBuf::from("/var/lib/watchpost")))
            .or_else(|| absolute("XDG_STATE_HOME").map(|path| path.join("watchpost")))
            .or_else(|| absolute("HOME").map(|path| path.join(".local/state/watchpost")));
        if default.is_none() {
            let message = "has no default here: STATE_DIRECTORY, XDG_STATE_HOME and HOME are unset";
            self.problem(setting(NAME), "", message.to_owned());
        }
        let state_dir = default.unwrap_or_default();
        self.put_default(NAME, &state_dir.to_string_lossy());
        state_dir
    }

    /// The port tells what the host serves, so only this host may read it without showing a token.
    fn check_status_port(&mut self, address: Option<SocketAddr>, token: Option<&Secret>) {
        const TOKEN: &str = "WATCHPOST_STATUS_TOKEN";
        let is_open = address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
        let token_has_problem = self.problems.iter().any(|problem| problem.variable == TOKEN);
        if is_open && token.is_none() && !token_has_problem {
            let text = self.string("WATCHPOST_STATUS_ADDR").unwrap_or_default();
            let message = format!("is not loopback, and {TOKEN} is not set");
            self.problem(setting("WATCHPOST_STATUS_ADDR"), &text, message);
            self.problems.last_mut().expect("it was pushed").allowed =
                format!("a loopback address, any address with {TOKEN} set, or off");
        }
    }

    /// A misspelt variable would be a setting that silently does not hold.
    fn find_unknown(&mut self) {
        let known: Vec<String> = SETTINGS
            .iter()
            .flat_map(|setting| [Some(setting.name.to_owned()), setting.file_variable()])
            .flatten()
            .collect();
        let mut unknown = self.strings.names();
        unknown.retain(|name| name.starts_with(PREFIX) && !known.contains(name));
        unknown.sort();
        for name in unknown {
            let nearest = known.iter().min_by_key(|known| distance(known, &name));
            let nearest = nearest.expect("the table has settings").clone();
            self.problems.push(Problem {
                variable: name,
                // It may be a misspelt secret.
                value: STARS.to_owned(),
                message: format!("is no setting; the nearest is {nearest}"),
                allowed: "the names in config/watchpost.env".to_owned(),
            });
        }
    }
}

/// A place that has a value for a secret.
struct SecretSource {
    name: String,
    place: Place,
}

enum Place {
    Text(String, Origin),
    File(PathBuf, Origin),
}

impl SecretSource {
    fn read(&self) -> Parsed<(String, Origin)> {
        match &self.place {
            Place::Text(text, origin) => utf8(text).map(|()| (text.clone(), *origin)),
            Place::File(path, origin) => {
                // The path is not said: it may be the secret itself, written into the wrong variable.
                let text = read_secret(path)
                    .map_err(|wrong| format!("comes from {}, a file that {wrong}", self.name))?;
                Ok((text, *origin))
            }
        }
    }
}

/// What a file holds, without the one line end that editors put at its end.
fn read_secret(path: &Path) -> Parsed<String> {
    let mut bytes = Vec::new();
    let cannot = |error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    file.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err(format!("is larger than {SECRET_FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}

/// Whether a value is a URL with something before the host, where a password would stand.
fn may_hold_password(value: &str) -> bool {
    value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// The environment of the process is bytes; those that are no text arrive as U+FFFD.
fn utf8(text: &str) -> Parsed<()> {
    if text.contains(char::REPLACEMENT_CHARACTER) { Err("is not UTF-8".into()) } else { Ok(()) }
}

/// The least number of characters to insert, delete or replace that turns one text into the other
/// (Levenshtein 1966, with the rows of the matrix kept one at a time).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests;
