//! The table of settings: the one place where a name, a default, a form and a meaning are written.
//!
//! Flags, help, the env file and the problems derive from it. It holds text only; what a value may
//! be is checked in `values.rs`, and a test there holds both to each other.

/// What the name of every variable of the agent begins with.
pub const PREFIX: &str = "WATCHPOST_";

/// What a secret's variable may end in to name a file instead.
pub(super) const FILE_SUFFIX: &str = "_FILE";

/// The definition of one setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the environment variable, `WATCHPOST_X`.
    pub name: &'static str,
    /// Name of the flag without its dashes: `x` for `--x`.
    pub flag: &'static str,
    /// The default as the env file shows it; empty where nothing is set by default.
    pub default: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// What a value may be, for problems and help.
    pub form: &'static str,
    /// What the setting does, in some lines, for the manual.
    pub meaning: &'static str,
}

impl Setting {
    /// The variable that names a file with the value, for a secret.
    pub fn file_variable(&self) -> Option<String> {
        self.secret.then(|| format!("{}{FILE_SUFFIX}", self.name))
    }

    /// The name of the systemd credential with the value, for a secret: `sumo_url`.
    pub fn credential(&self) -> Option<String> {
        let name = self.name.strip_prefix(PREFIX).unwrap_or(self.name);
        self.secret.then(|| name.to_ascii_lowercase())
    }
}

/// Every setting, in the order of the manual: the destination, logs, the disk buffer, the host, the
/// probes, metadata, the status port, the agent itself.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "WATCHPOST_SUMO_URL",
        flag: "sumo-url",
        default: "",
        secret: true,
        form: "an http:// or https:// URL with a host",
        meaning: "\
Where batches are posted: the URL of a Sumo Logic HTTP source, or of anything that speaks like one.
Unset: nothing is shipped and nothing is buffered on disk; the status port works all the same.
Whoever knows the URL can write to the collector, so treat it as a password.",
    },
    Setting {
        name: "WATCHPOST_ACCESS_LOGS",
        flag: "access-logs",
        default: "auto",
        secret: false,
        form: "auto, none, or a comma-separated list of paths and patterns (*, ?, [...])",
        meaning: "\
The access logs to follow. auto takes those that nginx.conf names, each with its format; where it
names none, or cannot be read, /var/log/nginx/*access*.log.",
    },
    Setting {
        name: "WATCHPOST_ACCESS_LOG_FORMAT",
        flag: "access-log-format",
        default: "auto",
        secret: false,
        form: "auto, combined, json, a log_format string with $variables, or regex: with an expression",
        meaning: "\
How access lines are written. auto takes what nginx.conf says for each file. A log_format string
stands here as it does in nginx.conf, in single quotes so that this file leaves it alone:
'$remote_addr [$time_iso8601] \"$request\" $status'. An expression behind regex: has named groups.",
    },
    Setting {
        name: "WATCHPOST_NGINX_CONF",
        flag: "nginx-conf",
        default: "/etc/nginx/nginx.conf",
        secret: false,
        form: "a path",
        meaning: "The file from which nginx's logs and formats are discovered; its includes are read too.",
    },
    Setting {
        name: "WATCHPOST_READ_FROM",
        flag: "read-from",
        default: "end",
        secret: false,
        form: "end or beginning",
        meaning: "\
Where reading begins in files that exist at the very first start. Later starts go on where the
last one stopped, and files born later are always read whole.",
    },
    Setting {
        name: "WATCHPOST_SHIP_LINES",
        flag: "ship-lines",
        default: "all",
        secret: false,
        form: "all, errors, sample:SHARE with a share between 0 and 1, or none",
        meaning: "\
Which access lines are shipped. errors are those with a status of 400 or more; sample:0.05 ships the
errors and 5 % of the rest. Every line is counted whatever stands here: rates and summaries stay exact.",
    },
    Setting {
        name: "WATCHPOST_REDACT",
        flag: "redact",
        default: "default",
        secret: false,
        form: "default, off, or a comma-separated list of parameter names to add to the default",
        meaning: "\
Masks the values of query parameters whose names look secret (token, password, ...) in shipped lines.
A list adds names to the built-in ones; off ships lines as they stand.",
    },
    Setting {
        name: "WATCHPOST_STATE_DIR",
        flag: "state-dir",
        default: "",
        secret: false,
        form: "a path to a directory that only the agent writes",
        meaning: "\
The directory of the disk buffer and the agent's id. Unset: $STATE_DIRECTORY (systemd sets it), else
/var/lib/watchpost as root, else $XDG_STATE_HOME/watchpost, else ~/.local/state/watchpost.",
    },
    Setting {
        name: "WATCHPOST_SPOOL_MAX",
        flag: "spool-max",
        default: "1GiB",
        secret: false,
        form: "a size from 1MiB, in B, KB, MB, GB, KiB, MiB or GiB",
        meaning: "\
The most that the disk buffer takes. When it is full, lines wait in their log files until there is
room again: they are counted meanwhile, rates stay live, and nothing is lost unless the files go. An
hour without the destination costs what an hour of log costs compressed.",
    },
    Setting {
        name: "WATCHPOST_BATCH_MAX",
        flag: "batch-max",
        default: "1MB",
        secret: false,
        form: "a size from 10KB to 1MB",
        meaning: "The most bytes of one request before compression. 1MB is what Sumo Logic asks for.",
    },
    Setting {
        name: "WATCHPOST_FLUSH_INTERVAL",
        flag: "flush-interval",
        default: "5s",
        secret: false,
        form: "a duration from 100ms to 5m, in ms, s, m or h",
        meaning: "\
The longest wait of a record before its batch is closed, full or not. Longer: fewer and larger
requests. Shorter: records arrive sooner.",
    },
    Setting {
        name: "WATCHPOST_HOST_INTERVAL",
        flag: "host-interval",
        default: "10s",
        secret: false,
        form: "a duration from 1s to 1h, in ms, s, m or h",
        meaning: "Time between two samples of the host's metrics.",
    },
    Setting {
        name: "WATCHPOST_HOST_SOURCES",
        flag: "host-sources",
        default: "all",
        secret: false,
        form: "all, none, or a comma-separated list of sources",
        meaning: "\
Which host metrics are sampled: cpu, load, memory, swap, filesystem, disk, network, pressure, tcp,
conntrack, fds, processes, uptime, agent.",
    },
    Setting {
        name: "WATCHPOST_SUMMARY_INTERVAL",
        flag: "summary-interval",
        default: "10s",
        secret: false,
        form: "a duration from 1s to 5m of whole seconds, in ms, s, m or h",
        meaning: "The length of a shipped web summary: the requests, errors and latencies of that time.",
    },
    Setting {
        name: "WATCHPOST_STUB_STATUS",
        flag: "stub-status",
        default: "auto",
        secret: false,
        form: "auto, none, or an http:// URL",
        meaning: "\
Where nginx tells its own count of requests, with which the counted lines are compared all the time.
auto: the location of nginx.conf in which stub_status stands.",
    },
    Setting {
        name: "WATCHPOST_HAPROXY",
        flag: "haproxy",
        default: "auto",
        secret: false,
        form: "auto, none, the path of a stats socket, or the http:// URL of a stats page",
        meaning: "\
Where HAProxy is asked for its counters and its servers. auto: the stats sockets that haproxy.cfg
names, else well-known ones. Best is one that can only read, in the global section of haproxy.cfg:
stats socket /run/haproxy/ro.sock mode 666 level user. A stats page tells less: not its servers.",
    },
    Setting {
        name: "WATCHPOST_MYSQL",
        flag: "mysql",
        default: "auto",
        secret: false,
        form: "auto, none, the path of a socket, mysql://USER@HOST:PORT/, or mysql://USER@localhost/?socket=/PATH",
        meaning: "\
Where MySQL or MariaDB is asked for its state. auto: its socket, as the user that the agent runs as,
without a password: CREATE USER watchpost@localhost IDENTIFIED VIA unix_socket;
GRANT REPLICA MONITOR ON *.* TO watchpost@localhost; (MySQL: auth_socket, REPLICATION CLIENT). On a
replica SET SESSION sql_log_bin = 0 first. A HOST is asked in the clear.",
    },
    Setting {
        name: "WATCHPOST_MYSQL_PASSWORD",
        flag: "mysql-password",
        default: "",
        secret: true,
        form: "a password",
        meaning: "The password of the user of WATCHPOST_MYSQL. Unset: none, as on a socket that tells who asks.",
    },
    Setting {
        name: "WATCHPOST_SCRAPE",
        flag: "scrape",
        default: "none",
        secret: false,
        form: "none, or up to 16 of NAME=URL or NAME=URL#METRIC|PREFIX*, comma-separated, with http:// URLs",
        meaning: "\
Endpoints that answer in Prometheus's text format; each is asked every 15 s. Behind # stand the metrics to
keep, others are left: 'node=http://127.0.0.1:9100/metrics#node_load1|node_systemd_*'. Each gives at
most 2000 samples; what is left out is counted. In single quotes this file leaves # and | alone.",
    },
    Setting {
        name: "WATCHPOST_SCRIPTS",
        flag: "scripts",
        default: "auto",
        secret: false,
        form: "auto, none, an absolute path to a directory, or root: and such a path",
        meaning: "\
Programs of yours that print metrics, as Prometheus text or as a JSON object of numbers: each executable file
in the directory is run every 30 s, for at most 10 s, one after the other. auto: /etc/watchpost/scripts.d.
None runs that anybody but root and the agent's user may write, and none as root unless root: stands here.",
    },
    Setting {
        name: "WATCHPOST_CERTIFICATES",
        flag: "certificates",
        default: "auto",
        secret: false,
        form: "auto, none, or a comma-separated list of [NAME@]HOST:PORT[=/CERTIFICATE.PEM]",
        meaning: "\
Which TLS servers are met every 5 minutes: certificate, chain, old versions, and HTTP beside HTTPS. auto:
the ports with TLS of nginx.conf and /etc/haproxy/haproxy.cfg. Behind = stands the file that should be served.",
    },
    Setting {
        name: "WATCHPOST_FIREWALL",
        flag: "firewall",
        default: "auto",
        secret: false,
        form: "auto, none, or a comma-separated list of ports and ranges such as 22,80,443,8000-8010",
        meaning: "\
The ports that may be reached from outside; what listens on another, and passes the firewall, is a finding.
auto: the firewall's policy alone is judged. Its rules need CAP_NET_ADMIN (see watchpost.service); without,
what it drops, what listens and who shares the host are still told. none: nothing of it.",
    },
    Setting {
        name: "WATCHPOST_HOST_NAME",
        flag: "host-name",
        default: "",
        secret: false,
        form: "up to 128 characters",
        meaning: "The host that records are filed under (X-Sumo-Host). Unset: the hostname.",
    },
    Setting {
        name: "WATCHPOST_SOURCE_CATEGORY",
        flag: "source-category",
        default: "",
        secret: false,
        form: "up to 1024 characters",
        meaning: "\
The category of all records (X-Sumo-Category). Unset: each kind has its own: watchpost/nginx/access,
watchpost/web, watchpost/host, watchpost/events.",
    },
    Setting {
        name: "WATCHPOST_SOURCE_NAME",
        flag: "source-name",
        default: "",
        secret: false,
        form: "up to 128 characters",
        meaning: "The source name of all records (X-Sumo-Name). Unset: each kind has its own.",
    },
    Setting {
        name: "WATCHPOST_FIELDS",
        flag: "fields",
        default: "",
        secret: false,
        form: "up to 30 pairs k=v, comma-separated; keys up to 255 characters, values up to 200",
        meaning: "\
Fields for all records (X-Sumo-Fields): environment=production,farm=eu1. Sumo Logic drops fields
that its schema does not know.",
    },
    Setting {
        name: "WATCHPOST_STATUS_ADDR",
        flag: "status-addr",
        default: "127.0.0.1:7866",
        secret: false,
        form: "ADDRESS:PORT with an IP address ([::1]:7866 for IPv6) or localhost, or off",
        meaning: "\
Where the status port listens. Any address that is not loopback needs WATCHPOST_STATUS_TOKEN, since
the port tells what this host serves.",
    },
    Setting {
        name: "WATCHPOST_STATUS_TOKEN",
        flag: "status-token",
        default: "",
        secret: true,
        form: "printable ASCII without blanks",
        meaning: "\
What readers of the status port must show: Authorization: Bearer TOKEN. Unset: nothing. Who shows it
may ask under any name that leads here; without a token, Host must be the address or this host's name.",
    },
    Setting {
        name: "WATCHPOST_LOG",
        flag: "log",
        default: "info",
        secret: false,
        form: "error, warn, info, debug or trace",
        meaning: "\
How much the agent says of itself on stderr. error: data was lost or a person must act. warn:
surprising, nothing lost. info: once for each change of state.",
    },
];

/// The setting of this name.
pub(super) fn setting(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).expect("load.rs asks for settings of the table")
}

#[cfg(test)]
mod tests {
    use super::{PREFIX, SETTINGS};

    /// Width of the manual, so that it can be read in a terminal.
    const MANUAL_WIDTH_CHARS: usize = 110;

    #[test]
    fn names_are_unique_and_flags_derive_from_them() {
        let mut seen = std::collections::BTreeSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.name), "{} stands twice", setting.name);
            let rest = setting.name.strip_prefix(PREFIX).expect("every name has the prefix");
            assert_eq!(setting.flag, rest.to_lowercase().replace('_', "-"));
        }
    }

    #[test]
    fn every_setting_says_what_it_means_in_lines_that_fit() {
        for setting in SETTINGS {
            assert!(!setting.form.is_empty() && setting.meaning.ends_with('.'), "{}", setting.name);
            for line in setting.meaning.lines() {
                assert!(line.len() <= MANUAL_WIDTH_CHARS, "{}: {line}", setting.name);
            }
        }
    }
}
