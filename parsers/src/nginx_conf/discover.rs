//! The logs that a tree of directives states, level by level.
//!
//! What it owns: ngx_http_log_module's rules. A level that states `access_log` replaces the outer level's logs; `off` empties the
//! level. What it must never do: report a log that no server writes to, for no line of it will ever come.

use super::servers::servers;
use super::tree::{Directive, Tree};
use super::{
    AccessLogDirective, Discovery, ErrorLogDirective, LogTarget, PROBLEMS_MAX, Place, Problem, quoted,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// nginx's predefined format.
const COMBINED: &str = "combined";
/// The buffer that `gzip` implies, in bytes (ngx_http_log_module.c).
const GZIP_BUFFER_BYTES: u64 = 64 * 1024;

/// What the requests of a level are logged to: indexes into [`Walk::logs`]; none for `off`.
type Level = Vec<usize>;

struct Walk<'t> {
    tree: &'t Tree,
    place: &'t Place<'t>,
    formats: BTreeMap<&'t str, String>,
    logs: Vec<(AccessLogDirective, BTreeSet<String>, bool)>,
    known: BTreeMap<(String, String, Vec<String>), usize>,
    discovery: Discovery,
}

pub(crate) fn discover(tree: &Tree, place: &Place<'_>) -> Discovery {
    let pid = tree.directives.iter().find(|directive| directive.name == "pid");
    let discovery = Discovery {
        problems: tree.problems.clone(),
        servers: servers(tree),
        pid_file: pid.and_then(|pid| pid.arguments.first().cloned()),
        ..Discovery::default()
    };
    let mut walk =
        Walk { tree, place, formats: BTreeMap::new(), logs: Vec::new(), known: BTreeMap::new(), discovery };
    let blocks: Vec<&Directive> =
        tree.directives.iter().filter(|directive| directive.name == "http").collect();
    for http in &blocks {
        walk.collect_formats(http);
    }
    for http in &blocks {
        walk.http(http);
    }
    walk.error_logs(&tree.directives);
    walk.finish()
}

impl<'t> Walk<'t> {
    fn problem(&mut self, at: &Directive, message: String) {
        if self.discovery.problems.len() < PROBLEMS_MAX {
            let file = self.tree.files.get(at.file).cloned().unwrap_or_default();
            self.discovery.problems.push(Problem { file, line: at.line, message });
        }
    }

    fn collect_formats(&mut self, http: &'t Directive) {
        for directive in http.block.iter().filter(|directive| directive.name == "log_format") {
            let [name, arguments @ ..] = directive.arguments.as_slice() else { continue };
            let (escape, strings) = match arguments {
                [first, strings @ ..] if first.starts_with("escape=") => (Some(first), strings),
                strings => (None, strings),
            };
            let joined = quoted(&strings.concat());
            let text = escape.map_or_else(|| joined.clone(), |escape| format!("{escape} {joined}"));
            if self.formats.insert(name, text).is_some() {
                self.problem(directive, format!("log_format `{name}` is stated twice"));
            }
        }
    }

    fn http(&mut self, http: &'t Directive) {
        let level = self.level(&http.block, None);
        let mut servers = 0;
        for server in http.block.iter().filter(|directive| directive.name == "server") {
            servers += 1;
            self.server(server, &level);
        }
        if servers == 0 {
            self.writes(&level, &[]);
        }
    }

    fn server(&mut self, server: &'t Directive, outer: &Level) {
        let level = self.level(&server.block, Some(outer));
        let names: Vec<&'t str> = server
            .block
            .iter()
            .filter(|directive| directive.name == "server_name")
            .flat_map(|directive| directive.arguments.iter().map(String::as_str))
            .filter(|name| !name.is_empty())
            .collect();
        self.discovery.off_servers += usize::from(level.is_empty());
        self.writes(&level, &names);
        self.inner(&server.block, &names);
    }

    /// Locations, and the `if` and `limit_except` in them, wherever they nest. The tree bounds the depth.
    fn inner(&mut self, block: &'t [Directive], names: &[&'t str]) {
        for directive in block.iter().filter(|directive| !directive.block.is_empty()) {
            if let Some(level) = self.stated(&directive.block) {
                self.discovery.off_locations += usize::from(level.is_empty());
                self.writes(&level, names);
            }
            self.inner(&directive.block, names);
        }
    }

    fn writes(&mut self, level: &Level, names: &[&str]) {
        for index in level {
            if let Some((_, server_names, used)) = self.logs.get_mut(*index) {
                server_names.extend(names.iter().map(|name| (*name).to_string()));
                *used = true;
            }
        }
    }

    /// The logs of a level: its own, else the outer level's, else nginx's default.
    fn level(&mut self, block: &'t [Directive], outer: Option<&Level>) -> Level {
        if let Some(level) = self.stated(block) {
            return level;
        }
        match outer {
            Some(outer) => outer.clone(),
            None => {
                let path = self.place.default_access_log;
                let log = self.log(path, COMBINED, &[]);
                Vec::from([self.number_of(log, &[])])
            }
        }
    }

    fn stated(&mut self, block: &'t [Directive]) -> Option<Level> {
        let directives: Vec<&Directive> =
            block.iter().filter(|directive| directive.name == "access_log").collect();
        if directives.is_empty() {
            return None;
        }
        if directives.iter().any(|directive| directive.arguments.first().is_some_and(|path| path == "off")) {
            return Some(Level::new());
        }
        Some(directives.into_iter().filter_map(|directive| self.access_log(directive)).collect())
    }

    /// Reads one directive: `access_log path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]]`.
    fn access_log(&mut self, directive: &Directive) -> Option<usize> {
        let [path, arguments @ ..] = directive.arguments.as_slice() else {
            self.problem(directive, "access_log without a path".into());
            return None;
        };
        let is_option = |text: &String| text.contains('=') || text == "gzip";
        let (name, options) = match arguments {
            [name, options @ ..] if !is_option(name) => (name.as_str(), options),
            options => (COMBINED, options),
        };
        if name != COMBINED && !self.formats.contains_key(name) {
            self.problem(
                directive,
                format!("access_log `{path}` names the format `{name}`, which is not defined"),
            );
        }
        let log = self.log(path, name, options);
        if options.iter().any(|option| option.starts_with("buffer=")) && log.buffer_bytes.is_none() {
            self.problem(directive, format!("access_log `{path}` has a buffer whose size cannot be read"));
        }
        Some(self.number_of(log, options))
    }

    fn log(&self, path: &str, format_name: &str, options: &[String]) -> AccessLogDirective {
        let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
        let gzip = options.iter().any(|option| option == "gzip" || option.starts_with("gzip="));
        let (path, target) = self.resolve(path);
        AccessLogDirective {
            path,
            target,
            format_name: format_name.to_string(),
            format: self.formats.get(format_name).cloned(),
            buffer_bytes: value("buffer=").and_then(size_bytes).or(gzip.then_some(GZIP_BUFFER_BYTES)),
            flush_ms: value("flush=").and_then(time_ms),
            gzip,
            conditional: value("if=").is_some(),
            server_names: Vec::new(),
        }
    }

    /// One entry for each path, format and set of options, however often it is stated.
    fn number_of(&mut self, log: AccessLogDirective, options: &[String]) -> usize {
        let key = (log.path.clone(), log.format_name.clone(), options.to_vec());
        let next = self.logs.len();
        let index = *self.known.entry(key).or_insert(next);
        if index == next {
            self.logs.push((log, BTreeSet::new(), false));
        }
        index
    }

    fn resolve(&self, path: &str) -> (String, LogTarget) {
        let target = match path {
            _ if path.starts_with("syslog:") => LogTarget::Syslog,
            _ if path.starts_with("memory:") || path == "stderr" => LogTarget::Device,
            _ if path.starts_with("/dev/") || path.starts_with("/proc/self/") => LogTarget::Device,
            _ if path.contains('$') => LogTarget::FilesByVariable,
            _ => LogTarget::File,
        };
        let is_file = matches!(target, LogTarget::File | LogTarget::FilesByVariable);
        if is_file && !path.starts_with('/') {
            return (format!("{}/{path}", self.place.prefix.trim_end_matches('/')), target);
        }
        (path.to_string(), target)
    }

    fn error_logs(&mut self, block: &[Directive]) {
        for directive in block {
            match directive.arguments.as_slice() {
                [path, arguments @ ..] if directive.name == "error_log" => {
                    let (path, target) = self.resolve(path);
                    if self.discovery.error_logs.iter().all(|known| known.path != path) {
                        let level = arguments.first().map_or("error", String::as_str).to_string();
                        self.discovery.error_logs.push(ErrorLogDirective { path, target, level });
                    }
                }
                _ => self.error_logs(&directive.block),
            }
        }
    }

    fn finish(mut self) -> Discovery {
        let used = self.logs.into_iter().filter(|(_, _, used)| *used);
        self.discovery.logs = used
            .map(|(log, server_names, _)| AccessLogDirective {
                server_names: server_names.into_iter().collect(),
                ..log
            })
            .collect();
        self.discovery
    }
}

/// `32k`, `1m`, `4096` (`ngx_parse_size`).
fn size_bytes(text: &str) -> Option<u64> {
    let unit = match text.as_bytes().last()? {
        b'k' | b'K' => 1 << 10,
        b'm' | b'M' => 1 << 20,
        b'g' | b'G' => 1 << 30,
        _ => return text.parse().ok(),
    };
    text.get(..text.len() - 1)?.parse::<u64>().ok()?.checked_mul(unit)
}

/// `5s`, `500ms`, `1h30m`, `10` (`ngx_parse_time`).
fn time_ms(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut left = text;
    while !left.is_empty() {
        let digits = left.find(|character: char| !character.is_ascii_digit()).unwrap_or(left.len());
        let value: u64 = left.get(..digits)?.parse().ok()?;
        let after = left.get(digits..)?;
        let unit_bytes = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let unit_ms = match after.get(..unit_bytes)?.trim() {
            "ms" => 1,
            "s" | "" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        total = total.checked_add(value.checked_mul(unit_ms)?)?;
        left = after.get(unit_bytes..)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_of_nginx() {
        assert_eq!(size_bytes("32k"), Some(32_768));
        assert_eq!(size_bytes("1M"), Some(1_048_576));
        assert_eq!(size_bytes("4096"), Some(4096));
        assert_eq!(size_bytes("k"), None);
        assert_eq!(time_ms("1h30m"), Some(5_400_000));
        assert_eq!(time_ms("500ms"), Some(500));
        assert_eq!(time_ms("10"), Some(10_000));
        assert_eq!(time_ms(""), None);
        assert_eq!(time_ms("5x"), None);
    }
}
