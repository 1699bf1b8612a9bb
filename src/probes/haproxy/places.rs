//! Where HAProxy can be asked, and where TLS ends, from its configuration.
//!
//! What it owns: the two lines of haproxy.cfg that matter here, `stats socket` and `bind ... ssl`. It keeps nothing else of a
//! file that may hold passwords.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::facts::TlsBinds;

/// Where Debian's and HAProxy's own packages have the configuration. Another one is found through the process that answers;
/// a socket that stands only in another is named in `WATCHPOST_HAPROXY`.
const CONFIGURATION: &str = "/etc/haproxy/haproxy.cfg";
/// Sockets that packages and guides name: first what may only read.
const SOCKETS: [&str; 5] = [
    "/run/haproxy/ro.sock",
    "/run/haproxy/admin.sock",
    "/run/haproxy.sock",
    "/var/lib/haproxy/stats",
    "/run/haproxy/haproxy.sock",
];
/// Where Debian's package notes the master's process id.
const PID_FILE: &str = "/run/haproxy.pid";
/// Of a configuration; what stands behind is not looked at.
const CONFIGURATION_BYTES_MAX: u64 = 1 << 20;
/// Lines with `bind ... ssl` that are kept as evidence.
const BINDS_MAX: usize = 10;
/// Characters that are kept of one.
const BIND_CHARS_MAX: usize = 120;

/// What a socket allows; the less the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    User,
    Operator,
    Admin,
}

/// Sockets to try, the ones that allow the least first: those of the configuration, then the well-known ones.
pub(super) fn sockets() -> Vec<PathBuf> {
    let text = read(Path::new(CONFIGURATION)).unwrap_or_default();
    let mut found = sockets_of(&text);
    found.sort_by_key(|(level, _)| *level);
    let mut paths: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
    let well_known = SOCKETS.iter().map(PathBuf::from).filter(|path| !paths.contains(path));
    let well_known: Vec<PathBuf> = well_known.collect();
    paths.extend(well_known);
    paths.retain(|path| path.symlink_metadata().is_ok());
    paths
}

/// Whether HAProxy runs here although it has no socket.
pub(super) fn runs() -> bool {
    let pid = std::fs::read_to_string(PID_FILE).unwrap_or_default();
    let pid = pid.lines().next().and_then(|pid| pid.trim().parse().ok());
    pid.is_some_and(|pid| arguments(pid).is_some())
}

/// The lines with `bind ... ssl`, from the files that the process was started with; `None` where they cannot be read.
pub(super) fn tls_binds(pid: Option<u64>) -> Option<TlsBinds> {
    let files = pid.and_then(arguments).map(|arguments| configurations(&arguments));
    let files = files.filter(|files| !files.is_empty()).unwrap_or_else(|| vec![PathBuf::from(CONFIGURATION)]);
    let mut binds = TlsBinds::default();
    for file in files {
        let text = read(&file)?;
        let name = file.display().to_string();
        binds.lines.extend(tls_binds_of(&name, &text));
        binds.files.push(name);
    }
    binds.lines.truncate(BINDS_MAX);
    Some(binds)
}

/// How HAProxy was started; `None` where the process is another, or is not shown.
fn arguments(pid: u64) -> Option<Vec<String>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let program = Path::new(arguments.first()?).file_name()?;
    (program == "haproxy").then_some(arguments)
}

/// The files behind `-f`, in their order; of a directory its `.cfg` files, sorted as HAProxy does. Relative ones are of a
/// directory that is not known.
fn configurations(arguments: &[String]) -> Vec<PathBuf> {
    let named = arguments.windows(2).filter(|pair| pair[0] == "-f").map(|pair| PathBuf::from(&pair[1]));
    let mut files = Vec::new();
    for path in named.filter(|path| path.is_absolute()) {
        let Ok(entries) = path.read_dir() else {
            files.push(path);
            continue;
        };
        let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        inside.retain(|path| path.extension().is_some_and(|extension| extension == "cfg"));
        inside.sort();
        files.extend(inside);
    }
    files
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(CONFIGURATION_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of a line, without its comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().take_while(|word| !word.starts_with('#')).map(|word| word.trim_matches('"'))
}

fn sockets_of(text: &str) -> Vec<(Level, PathBuf)> {
    let socket = |line: &str| {
        let words: Vec<&str> = words(line).collect();
        let ["stats", "socket", address, parameters @ ..] = words.as_slice() else { return None };
        let path = address.strip_prefix("unix@").unwrap_or(address);
        // An address of the network, a name without a file, or a variable of HAProxy's environment.
        if !path.starts_with('/') || path.contains('$') {
            return None;
        }
        let level = parameters.windows(2).find(|pair| pair[0] == "level").map_or("operator", |pair| pair[1]);
        let level = match level {
            "user" => Level::User,
            "admin" => Level::Admin,
            _ => Level::Operator,
        };
        Some((level, PathBuf::from(path)))
    };
    text.lines().filter_map(socket).collect()
}

fn tls_binds_of(file: &str, text: &str) -> Vec<(String, String)> {
    let is_tls = |line: &str| {
        let mut words = words(line);
        words.next() == Some("bind") && words.any(|word| word == "ssl")
    };
    let lines = text.lines().enumerate().filter(|(_, line)| is_tls(line)).take(BINDS_MAX);
    let kept = |line: &str| words(line).collect::<Vec<_>>().join(" ").chars().take(BIND_CHARS_MAX).collect();
    lines.map(|(index, line)| (format!("{file}:{}", index + 1), kept(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "global\n  stats socket /run/haproxy/admin.sock mode 660 level admin\n\
        #  stats socket /run/no.sock\n  stats socket ipv4@127.0.0.1:9999 level admin\n\
        stats socket unix@/run/haproxy/ro.sock mode 666 level user # for the agent\n\
        stats socket \"/run/plain.sock\"\n stats socket $HOME/x\n stats timeout 30s\n\
        frontend www\n\tbind :80\n  bind :443 ssl crt /etc/ssl/site.pem alpn h2 # bind\n bind :444 # ssl\n\
        backend b\n server web1 10.0.0.2:443 ssl verify none\n";

    #[test]
    fn sockets_and_tls_are_found_in_the_configuration() {
        let found = sockets_of(TEXT);
        let expected = [
            (Level::Admin, "/run/haproxy/admin.sock"),
            (Level::User, "/run/haproxy/ro.sock"),
            (Level::Operator, "/run/plain.sock"),
        ];
        assert_eq!(found, expected.map(|(level, path)| (level, PathBuf::from(path))));
        let binds = tls_binds_of("h.cfg", TEXT);
        let line = "bind :443 ssl crt /etc/ssl/site.pem alpn h2";
        assert_eq!(binds, [("h.cfg:11".to_owned(), line.to_owned())]);
    }

    #[test]
    fn the_files_of_a_process_are_those_behind_f() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["20-b.cfg", "10-a.cfg", "30-c.cfg~"] {
            std::fs::write(directory.path().join(name), "").expect("a file");
        }
        let here = directory.path().display().to_string();
        let arguments = ["haproxy", "-Ws", "-f", "/etc/h.cfg", "-f", &here, "-f", "relative.cfg", "-p"];
        let files = configurations(&arguments.map(str::to_owned));
        assert_eq!(
            files,
            [
                PathBuf::from("/etc/h.cfg"),
                directory.path().join("10-a.cfg"),
                directory.path().join("20-b.cfg")
            ]
        );
    }
}
