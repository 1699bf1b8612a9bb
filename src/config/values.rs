//! What the value of a setting may be: text in, a typed value or what is wrong with it out.
//!
//! Pure: no file, no environment. A message never repeats the value; the caller shows it, or stars.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use watchpost_parsers::{Format, FormatError};

use super::{
    AccessLogs, Haproxy, HostSources, LogFormat, LogLevel, Mysql, ReadFrom, Redact, ShipLines, StubStatus,
};
use super::{Scrape, Scripts};
use crate::secret::Secret;

/// The value, or what is wrong as the end of a sentence.
pub(super) type Parsed<T> = Result<T, String>;

const MILLISECOND: u64 = 1;
const SECOND: u64 = 1000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A batch is a write to the disk and a request; ten a second are plenty.
const FLUSH_MIN_MS: u64 = 100 * MILLISECOND;
/// A record that waits longer is history, not monitoring.
const FLUSH_MAX_MS: u64 = 5 * MINUTE;
/// The kernel's own counters move no faster in a way that a rate could use.
const HOST_INTERVAL_MIN_MS: u64 = SECOND;
/// A sample an hour is the least that a forecast of a full disk can use.
const HOST_INTERVAL_MAX_MS: u64 = HOUR;
/// Requests are counted in buckets of a second, which a summary cannot divide.
const SUMMARY_MIN_MS: u64 = SECOND;
/// The open summary is kept in memory; five minutes bound it.
const SUMMARY_MAX_MS: u64 = 5 * MINUTE;
/// Less would not hold one batch of the largest size with its headers.
const SPOOL_MIN_BYTES: u64 = 1 << 20;
/// Less would ship a request for a few dozen lines.
const BATCH_MIN_BYTES: u32 = 10_000;
/// Sumo's documented limit of the uncompressed bytes of a request.
const BATCH_MAX_BYTES: u32 = 1_000_000;

/// Sumo's limit of a source category.
const CATEGORY_CHARS_MAX: usize = 1024;
/// Sumo's limit of a source host and of a source name.
const NAME_CHARS_MAX: usize = 128;
/// Sumo's limit of fields in one request; it drops those beyond.
const FIELDS_MAX: usize = 30;
/// Sumo's limit of a field's key.
const FIELD_KEY_CHARS_MAX: usize = 255;
/// Sumo's limit of a field's value.
const FIELD_VALUE_CHARS_MAX: usize = 200;

/// Endpoints that are scraped: a server has a handful.
const SCRAPE_MAX: usize = 16;
/// Of an endpoint's name, which stands in every record of it.
const SCRAPE_NAME_BYTES_MAX: usize = 64;

/// The parts of a list, without the blanks around them.
pub(super) fn list(text: &str) -> Parsed<Vec<&str>> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) { Err("has an empty part".into()) } else { Ok(parts) }
}

/// A count and the unit behind it: `10s` is 10 and `s`.
fn count_and_unit(text: &str) -> Parsed<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    if count.is_empty() {
        return Err("does not begin with a whole number".into());
    }
    let count = count.parse().map_err(|_| "is too large a number".to_owned())?;
    Ok((count, unit))
}

/// A duration from `min_ms` to `max_ms`.
fn duration(text: &str, min_ms: u64, max_ms: u64) -> Parsed<Duration> {
    let (count, unit) = count_and_unit(text)?;
    let unit_ms = match unit {
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "" => return Err("has no unit (ms, s, m or h)".into()),
        _ => return Err("has a unit that is not ms, s, m or h".into()),
    };
    match count.checked_mul(unit_ms) {
        Some(ms) if ms < min_ms => Err("is too short".into()),
        Some(ms) if ms <= max_ms => Ok(Duration::from_millis(ms)),
        _ => Err("is too long".into()),
    }
}

/// A size in bytes from `min_bytes` on. Units: powers of 1024 (KiB) and of 1000 (KB).
fn size(text: &str, min_bytes: u64, max_bytes: u64) -> Parsed<u64> {
    let (count, unit) = count_and_unit(text)?;
    let unit_bytes: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("has a unit that is not B, KB, MB, GB, KiB, MiB or GiB".into()),
    };
    match count.checked_mul(unit_bytes) {
        Some(bytes) if bytes < min_bytes => Err("is too small".into()),
        Some(bytes) if bytes <= max_bytes => Ok(bytes),
        _ => Err("is too large".into()),
    }
}

/// `WATCHPOST_FLUSH_INTERVAL`.
pub(super) fn flush_interval(text: &str) -> Parsed<Duration> {
    duration(text, FLUSH_MIN_MS, FLUSH_MAX_MS)
}

/// `WATCHPOST_HOST_INTERVAL`.
pub(super) fn host_interval(text: &str) -> Parsed<Duration> {
    duration(text, HOST_INTERVAL_MIN_MS, HOST_INTERVAL_MAX_MS)
}

/// `WATCHPOST_SUMMARY_INTERVAL`.
pub(super) fn summary_interval(text: &str) -> Parsed<Duration> {
    let interval = duration(text, SUMMARY_MIN_MS, SUMMARY_MAX_MS)?;
    if interval.subsec_millis() == 0 { Ok(interval) } else { Err("is not a number of whole seconds".into()) }
}

/// `WATCHPOST_SPOOL_MAX`. The largest is what a file offset can say.
pub(super) fn spool_max(text: &str) -> Parsed<u64> {
    size(text, SPOOL_MIN_BYTES, i64::MAX.unsigned_abs())
}

/// `WATCHPOST_BATCH_MAX`.
pub(super) fn batch_max(text: &str) -> Parsed<u32> {
    let bytes = size(text, BATCH_MIN_BYTES.into(), BATCH_MAX_BYTES.into())?;
    Ok(u32::try_from(bytes).expect("the largest batch fits in 32 bits"))
}

/// The parts of a URL. What is wrong is said without any of them.
fn parsed_url(text: &str) -> Parsed<reqwest::Url> {
    // The parser of URLs would drop these silently, and with them the end of the wrong line.
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("has a blank or a line break in it".into());
    }
    let cure =
        if text.is_ascii() { "" } else { "; a host in another script is given as its punycode, xn--..." };
    reqwest::Url::parse(text).map_err(|error| format!("is not a URL ({error}){cure}"))
}

/// `WATCHPOST_SUMO_URL`. What is wrong is said without any part of the URL.
pub(super) fn url(text: &str) -> Parsed<Secret> {
    let url = parsed_url(text)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https".into());
    }
    // The parser of URLs skips slashes until a host comes, and would make one of the first part of the path.
    let has_no_host = text.split_once("://").is_none_or(|(_, rest)| rest.starts_with(['/', '\\']));
    if has_no_host || url.host_str().is_none_or(str::is_empty) {
        return Err("has no host".into());
    }
    Ok(Secret::new(text))
}

/// `WATCHPOST_STUB_STATUS`.
pub(super) fn stub_status(text: &str) -> Parsed<StubStatus> {
    match text {
        "auto" => Ok(StubStatus::Auto),
        "none" => Ok(StubStatus::None),
        _ if text.starts_with("https:") => {
            Err("is an https URL; the counters are asked on this host, in the clear".into())
        }
        _ => {
            url(text)?;
            Ok(StubStatus::Url(text.to_owned()))
        }
    }
}

/// `WATCHPOST_HAPROXY`.
pub(super) fn haproxy(text: &str) -> Parsed<Haproxy> {
    match text {
        "auto" => Ok(Haproxy::Auto),
        "none" => Ok(Haproxy::None),
        _ if text.starts_with('/') => Ok(Haproxy::Socket(path(text)?)),
        _ if text.starts_with("http:") => {
            url(text)?;
            if text.contains('@') {
                return Err(
                    "has a name or a password in it, which would be shown; name a stats socket".into()
                );
            }
            Ok(Haproxy::Url(text.to_owned()))
        }
        _ => Err("is neither a path that begins with / nor an http URL".into()),
    }
}

/// `WATCHPOST_MYSQL`.
pub(super) fn mysql(text: &str) -> Parsed<Mysql> {
    /// Where MySQL listens by default.
    const PORT: u16 = 3306;
    match text {
        "auto" => return Ok(Mysql::Auto),
        "none" => return Ok(Mysql::None),
        _ if text.starts_with('/') => return Ok(Mysql::Socket(path(text)?, None)),
        _ => {}
    }
    let url = parsed_url(text)?;
    if url.scheme() != "mysql" {
        return Err("is neither a path that begins with / nor a mysql URL".into());
    }
    if url.password().is_some() {
        return Err("has a password in it; that belongs into WATCHPOST_MYSQL_PASSWORD_FILE".into());
    }
    let user = Some(url.username()).filter(|user| !user.is_empty());
    let mut parameters = url.query_pairs();
    match (parameters.next(), parameters.next()) {
        (None, _) => {}
        (Some((name, socket)), None) if name == "socket" && socket.starts_with('/') => {
            return Ok(Mysql::Socket(path(&socket)?, user.map(str::to_owned)));
        }
        _ => return Err("has parameters other than ?socket=/PATH".into()),
    }
    if !matches!(url.path(), "" | "/") {
        return Err("names a database; none is read".into());
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or("has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let user = user.ok_or("has no user before the host")?.to_owned();
    Ok(Mysql::Port { user, host, port: url.port().unwrap_or(PORT) })
}

/// `WATCHPOST_MYSQL_PASSWORD`.
pub(super) fn password(text: &str) -> Parsed<Secret> {
    if text.contains('\0') { Err("has a NUL byte in it".into()) } else { Ok(Secret::new(text)) }
}

/// `WATCHPOST_SCRAPE`.
pub(super) fn scrape(text: &str) -> Parsed<Vec<Scrape>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let mut targets: Vec<Scrape> = Vec::new();
    for part in list(text)? {
        let (name, rest) =
            part.split_once('=').ok_or_else(|| format!("has {part:?}, which is no NAME=URL"))?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > SCRAPE_NAME_BYTES_MAX || !name.chars().all(is_name) {
            return Err(format!("has a name that is not 1 to {SCRAPE_NAME_BYTES_MAX} of A-Z a-z 0-9 _ - ."));
        }
        if targets.iter().any(|known| known.name == name) {
            return Err(format!("names {name:?} twice"));
        }
        let (address, filter) = rest.split_once('#').map_or((rest, None), |(url, only)| (url, Some(only)));
        url(address).map_err(|wrong| format!("has a URL for {name} that {wrong}"))?;
        let parsed = reqwest::Url::parse(address).map_err(|error| error.to_string())?;
        if parsed.scheme() != "http" {
            return Err(format!("has a URL for {name} that is not http; exporters are asked in the clear"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(format!(
                "has a user or a password in the URL for {name}, which is shown in many places"
            ));
        }
        let only = filter.map(|filter| metrics(filter, name)).transpose()?.unwrap_or_default();
        targets.push(Scrape { name: name.to_owned(), url: address.to_owned(), only });
    }
    if targets.len() > SCRAPE_MAX { Err(format!("has more than {SCRAPE_MAX} parts")) } else { Ok(targets) }
}

/// Names of metrics parted by `|`, each with or without a `*` at its end.
fn metrics(filter: &str, target: &str) -> Parsed<Vec<String>> {
    let names: Vec<&str> = filter.split('|').map(str::trim).collect();
    for name in &names {
        let plain = name.strip_suffix('*').unwrap_or(name);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        if name.is_empty() || !plain.chars().all(fits) {
            return Err(format!("has {name:?} behind # for {target}, which is no metric and no PREFIX*"));
        }
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// `WATCHPOST_SCRIPTS`.
pub(super) fn scripts(text: &str) -> Parsed<Scripts> {
    match text {
        "auto" => return Ok(Scripts::Auto),
        "none" => return Ok(Scripts::None),
        _ => {}
    }
    let (as_root, directory) = text.strip_prefix("root:").map_or((false, text), |rest| (true, rest));
    let path = path(directory)?;
    if path.is_absolute() {
        Ok(Scripts::Directory { path, as_root })
    } else {
        Err("is not an absolute path".into())
    }
}

/// `WATCHPOST_STATUS_TOKEN`: what an Authorization header can carry.
pub(super) fn token(text: &str) -> Parsed<Secret> {
    if text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(Secret::new(text))
    } else {
        Err("has a character that a header cannot carry".into())
    }
}

/// `WATCHPOST_ACCESS_LOGS`.
pub(super) fn access_logs(text: &str) -> Parsed<AccessLogs> {
    match text {
        "auto" => return Ok(AccessLogs::Auto),
        "none" => return Ok(AccessLogs::None),
        _ => {}
    }
    let globs = list(text)?;
    for pattern in &globs {
        if matches!(*pattern, "auto" | "none") {
            return Err(format!("has `{pattern}` among patterns"));
        }
        glob::Pattern::new(pattern).map_err(|error| format!("is not a pattern ({})", error.msg))?;
    }
    Ok(AccessLogs::Globs(globs.into_iter().map(str::to_owned).collect()))
}

/// `WATCHPOST_ACCESS_LOG_FORMAT`. A format is compiled here only to see that it can be.
pub(super) fn access_log_format(text: &str) -> Parsed<LogFormat> {
    let cannot_be_read = |error: FormatError| match &error {
        // The parser of expressions draws the place over several lines; a problem is one line.
        FormatError::Pattern(drawing) => {
            let what = drawing.rsplit_once("\nerror: ").map_or(drawing.as_str(), |(_, what)| what);
            format!("is no regular expression: {}", what.replace('\n', " "))
        }
        _ => format!("cannot be read: {error}"),
    };
    match text {
        "auto" => Ok(LogFormat::Auto),
        "combined" => Ok(LogFormat::Combined),
        "json" => Ok(LogFormat::Json),
        "regex:" => Err("has no expression behind regex:".into()),
        _ => match text.strip_prefix("regex:") {
            Some(expression) => {
                Format::from_regex(expression).map_err(cannot_be_read)?;
                Ok(LogFormat::Regex(expression.to_owned()))
            }
            None if text.contains('$') => {
                Format::from_log_format(text).map_err(cannot_be_read)?;
                Ok(LogFormat::LogFormat(text.to_owned()))
            }
            // Most likely the name of a format in nginx.conf.
            None => Err("has no $variable in it (formats named in nginx.conf are found by auto)".into()),
        },
    }
}

/// A path that is not checked further: whether it can be read is said where it is read.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.contains('\0') { Err("has a NUL byte in it".into()) } else { Ok(PathBuf::from(text)) }
}

/// `WATCHPOST_READ_FROM`.
pub(super) fn read_from(text: &str) -> Parsed<ReadFrom> {
    match text {
        "end" => Ok(ReadFrom::End),
        "beginning" => Ok(ReadFrom::Beginning),
        _ => Err("is neither end nor beginning".into()),
    }
}

/// `WATCHPOST_SHIP_LINES`.
pub(super) fn ship_lines(text: &str) -> Parsed<ShipLines> {
    match text {
        "all" => return Ok(ShipLines::All),
        "errors" => return Ok(ShipLines::Errors),
        "none" => return Ok(ShipLines::None),
        _ => {}
    }
    let share = text.strip_prefix("sample:").ok_or("is not one of the choices")?;
    match share.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(ShipLines::Sample(share)),
        Ok(_) => Err("has a share that is not between 0 and 1 (all and none say those)".into()),
        Err(_) => Err("has a share that is not a number".into()),
    }
}

/// `WATCHPOST_REDACT`. `default` in a list adds nothing: a list adds to the default anyway.
pub(super) fn redact(text: &str) -> Parsed<Redact> {
    if text == "off" {
        return Ok(Redact::Off);
    }
    let mut extra = Vec::new();
    for name in list(text)? {
        if name == "off" {
            return Err("has `off` among names".into());
        }
        if name.contains(|c: char| c.is_control() || c.is_whitespace() || "=&?#".contains(c)) {
            return Err("has a name that no query parameter can have".into());
        }
        if name != "default" {
            extra.push(name.to_owned());
        }
    }
    Ok(Redact::On { extra })
}

/// `WATCHPOST_HOST_SOURCES`; `known` are the names of all sources.
pub(super) fn host_sources(text: &str, known: &[&str]) -> Parsed<HostSources> {
    match text {
        "all" => return Ok(HostSources::All),
        "none" => return Ok(HostSources::None),
        _ => {}
    }
    let names = list(text)?;
    match names.iter().find(|name| !known.contains(name)) {
        Some(unknown) => {
            Err(format!("names {unknown:?}, which is no source; there are {}", known.join(", ")))
        }
        None => Ok(HostSources::Named(names.into_iter().map(str::to_owned).collect())),
    }
}

/// Text that a header can carry, of at most `chars_max` characters.
fn header(text: &str, chars_max: usize) -> Parsed<String> {
    if text.chars().any(char::is_control) {
        return Err("has a control character in it".into());
    }
    if text.chars().count() > chars_max {
        return Err(format!("is longer than {chars_max} characters"));
    }
    Ok(text.to_owned())
}

/// `WATCHPOST_HOST_NAME` and `WATCHPOST_SOURCE_NAME`.
pub(super) fn name(text: &str) -> Parsed<String> {
    header(text, NAME_CHARS_MAX)
}

/// `WATCHPOST_SOURCE_CATEGORY`.
pub(super) fn category(text: &str) -> Parsed<String> {
    header(text, CATEGORY_CHARS_MAX)
}

/// `WATCHPOST_FIELDS`. Sumo knows no escaping, so neither `,` nor `=` can stand in a value.
pub(super) fn fields(text: &str) -> Parsed<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for pair in list(text)? {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("has {pair:?}, which is no k=v"))?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(format!("has {pair:?}, of which one side is empty"));
        }
        let key = header(key, FIELD_KEY_CHARS_MAX).map_err(|wrong| format!("has a key that {wrong}"))?;
        let value =
            header(value, FIELD_VALUE_CHARS_MAX).map_err(|wrong| format!("has a value that {wrong}"))?;
        if value.contains('=') {
            return Err(format!("has {pair:?}, with a second `=`"));
        }
        if fields.iter().any(|(known, _)| *known == key) {
            return Err(format!("names {key:?} twice"));
        }
        fields.push((key, value));
    }
    if fields.len() > FIELDS_MAX { Err(format!("has more than {FIELDS_MAX} pairs")) } else { Ok(fields) }
}

/// `WATCHPOST_STATUS_ADDR`; `None` is `off`.
pub(super) fn status_addr(text: &str) -> Parsed<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    // The one name that needs no lookup; any other could lead anywhere by the time it is asked for.
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    address.parse().map(Some).map_err(|_| "is not an IP address and a port".to_owned())
}

/// `WATCHPOST_LOG`.
pub(super) fn log_level(text: &str) -> Parsed<LogLevel> {
    match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err("is not a level".into()),
    }
}
