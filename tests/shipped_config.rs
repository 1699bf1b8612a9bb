//! What an operator installs, from `config/`: each file is held to what the agent, nginx and systemd
//! make of it, and each way of checking is shown a file that it must refuse.
//!
//! Runs nginx only to test a configuration, and systemd's tools only offline.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use watchpost::config::{
    AccessLogs, ENV_FILE_PATH, HostSources, LogFormat, LogLevel, ReadFrom, Redact, SETTINGS, ShipLines,
    Surroundings, env_file, load, parse_env_file,
};

fn shipped_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn shipped(name: &str) -> String {
    fs::read_to_string(shipped_path(name)).unwrap_or_else(|error| panic!("config/{name}: {error}"))
}

/// Runs a command to its end and answers its output; `None` where there is no such command.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn words_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_env_file_is_the_table() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(shipped_path("watchpost.env"), env_file()).expect("config can be written");
    }
    assert_eq!(
        shipped("watchpost.env"),
        env_file(),
        "config/watchpost.env is not what the table of settings says: run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn the_env_file_with_every_default_taken_in_is_the_documented_config() {
    let mut taken_in = String::new();
    for line in shipped("watchpost.env").lines() {
        taken_in
            .push_str(line.strip_prefix('#').filter(|line| line.starts_with("WATCHPOST_")).unwrap_or(line));
        taken_in.push('\n');
    }
    let variables = parse_env_file(&taken_in).expect("it parses");
    let secrets = SETTINGS.iter().filter(|setting| setting.secret).count();
    assert_eq!(variables.len(), SETTINGS.len() + secrets, "each setting stands there once");

    let surroundings = Surroundings { is_root: true, host_source_names: &[] };
    let config = load(&variables, &surroundings).expect("every default is allowed");
    assert_eq!(config.sumo_url, None);
    assert_eq!(config.access_logs, AccessLogs::Auto);
    assert_eq!(config.access_log_format, LogFormat::Auto);
    assert_eq!(config.nginx_conf, Path::new("/etc/nginx/nginx.conf"));
    assert_eq!(config.read_from, ReadFrom::End);
    assert_eq!(config.ship_lines, ShipLines::All);
    assert_eq!(config.redact, Redact::On { extra: vec![] });
    assert_eq!(config.state_dir, Path::new("/var/lib/watchpost"));
    assert_eq!(config.spool_max_bytes, 1024 * 1024 * 1024);
    assert_eq!(config.batch_max_bytes, 1_000_000);
    assert_eq!(config.flush_interval, Duration::from_secs(5));
    assert_eq!(config.host_interval, Duration::from_secs(10));
    assert_eq!(config.summary_interval, Duration::from_secs(10));
    assert_eq!(config.host_sources, HostSources::All);
    assert_eq!((config.host_name, config.source_category, config.source_name), (None, None, None));
    assert!(config.fields.is_empty());
    assert_eq!(config.status_addr, Some(SocketAddr::from(([127, 0, 0, 1], 7866))));
    assert_eq!(config.status_token, None);
    assert_eq!(config.log, LogLevel::Info);
}

/// Directives by section, as systemd reads a unit: last of a name wins.
type Unit = BTreeMap<(String, String), String>;

/// Every directive that the unit may have, by section; a misspelt one would be ignored with a
/// warning that nobody reads.
const KNOWN_DIRECTIVES: &[(&str, &[&str])] = &[
    ("Unit", &["Description", "After", "StartLimitIntervalSec"]),
    ("Install", &["WantedBy"]),
    (
        "Service",
        &[
            "Type",
            "ExecStart",
            "ExecReload",
            "Restart",
            "RestartSec",
            "RestartPreventExitStatus",
            "RestartForceExitStatus",
            "TimeoutStopSec",
            "EnvironmentFile",
            "LoadCredential",
            "User",
            "Group",
            "SupplementaryGroups",
            "UMask",
            "StateDirectory",
            "StateDirectoryMode",
            "ProtectSystem",
            "ProtectHome",
            "PrivateTmp",
            "PrivateDevices",
            "NoNewPrivileges",
            "CapabilityBoundingSet",
            "AmbientCapabilities",
            "RestrictSUIDSGID",
            "LockPersonality",
            "RestrictRealtime",
            "RestrictNamespaces",
            "RemoveIPC",
            "ProtectKernelTunables",
            "ProtectKernelModules",
            "ProtectKernelLogs",
            "ProtectControlGroups",
            "ProtectClock",
            "ProtectHostname",
            "RestrictAddressFamilies",
            "SystemCallArchitectures",
            "SystemCallFilter",
            "SystemCallErrorNumber",
            "MemoryDenyWriteExecute",
            "MemoryHigh",
            "MemoryMax",
            "TasksMax",
            "CPUWeight",
            "IOWeight",
            "Nice",
            "OOMScoreAdjust",
            "LimitNOFILE",
            "LimitCORE",
        ],
    ),
];

fn parse_unit(text: &str) -> Result<Unit, String> {
    let (mut unit, mut section) = (Unit::new(), String::new());
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number}: no `=`"))?;
        let known = KNOWN_DIRECTIVES.iter().find(|(known, _)| *known == section).map(|(_, names)| *names);
        if !known.unwrap_or_default().contains(&name) {
            return Err(format!("line {number}: [{section}] has no {name}="));
        }
        if unit.insert((section.clone(), name.to_owned()), value.to_owned()).is_some() {
            return Err(format!("line {number}: {name}= stands twice"));
        }
    }
    Ok(unit)
}

#[test]
fn the_unit_has_only_known_directives_and_those_that_promises_rest_on() {
    let text = shipped("watchpost.service");
    let unit = parse_unit(&text).expect("the unit parses");
    let env_file = format!("-{ENV_FILE_PATH}");
    for (name, value) in [
        ("Type", "exec"),
        ("ExecStart", "/usr/bin/watchpost run"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("EnvironmentFile", &env_file),
        ("RestartPreventExitStatus", "78"),
        ("User", "watchpost"),
        ("SupplementaryGroups", "adm"),
        ("StateDirectory", "watchpost"),
        ("StateDirectoryMode", "0700"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "read-only"),
        ("PrivateTmp", "no"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
        ("SystemCallFilter", "@system-service"),
        ("MemoryDenyWriteExecute", "yes"),
    ] {
        let found = unit.get(&("Service".to_owned(), name.to_owned()));
        assert_eq!(found.map(String::as_str), Some(value), "{name}=");
    }
    // What stands commented out must be right too.
    let with_credentials = text.replace("#LoadCredential=sumo_url", "LoadCredential=sumo_url");
    assert_ne!(with_credentials, text);
    let unit = parse_unit(&with_credentials).expect("the unit parses");
    let credential = &unit[&("Service".to_owned(), "LoadCredential".to_owned())];
    let names: Vec<String> = SETTINGS.iter().filter_map(|setting| setting.credential()).collect();
    assert!(names.iter().any(|name| credential.starts_with(&format!("{name}:"))), "{credential}");

    let refused = [
        ("StateDirectory=", "StateDirectroy="),
        ("[Service]", "[Servcie]"),
        ("Type=exec", "Type"),
        ("UMask=0077", "Nice=5"),
    ];
    for (right, wrong) in refused {
        assert!(parse_unit(&text.replace(right, wrong)).is_err(), "{wrong} was taken");
    }
}

/// The most exposure that `systemd-analyze security` may find, in tenths of its scale of 10.
const EXPOSURE_TENTHS_MAX: u32 = 25;

#[test]
fn systemd_takes_the_unit_and_finds_it_hardened() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("watchpost.service");
    // systemd looks whether the binary is there.
    let text = shipped("watchpost.service").replace("/usr/bin/watchpost", env!("CARGO_BIN_EXE_watchpost"));
    let analyze = |text: &str, arguments: &[&str]| {
        fs::write(&path, text).expect("written");
        run(Command::new("systemd-analyze").args(arguments).arg(&path))
    };
    let verify = analyze(&text, &["verify"]).expect("systemd-analyze is missing: ./tests/run installs it");
    assert!(verify.status.success() && verify.stderr.is_empty(), "{}", words_of(&verify));
    let misspelt = analyze(&text.replace("UMask=", "UMaks="), &["verify"]).expect("it ran before");
    assert!(words_of(&misspelt).contains("UMaks"), "a misspelt directive was taken");

    let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
    let security = ["security", "--offline=yes", "--no-pager", &threshold];
    let hardened = analyze(&text, &security).expect("it ran before");
    assert!(hardened.status.success(), "{}", words_of(&hardened));
    let open = analyze("[Service]\nExecStart=/bin/true\n", &security).expect("it ran before");
    assert!(!open.status.success(), "a unit without any protection was found hardened");
}

#[test]
fn the_user_of_the_unit_is_the_one_that_is_made() {
    let text = shipped("watchpost.sysusers");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(lines, [r#"u watchpost - "Watchpost monitoring agent" /var/lib/watchpost"#]);

    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("etc")).expect("made");
    let mut sysusers = Command::new("systemd-sysusers");
    let made = run(sysusers.arg("--root").arg(root.path()).arg(shipped_path("watchpost.sysusers")))
        .expect("systemd-sysusers is missing: ./tests/run installs it");
    assert!(made.status.success(), "{}", words_of(&made));
    let users = fs::read_to_string(root.path().join("etc/passwd")).expect("users were made");
    assert!(users.contains("watchpost:x:") && users.contains(":/var/lib/watchpost:"), "{users}");
}

/// What `nginx -t` says to a snippet inside `http { }`: whether it takes it, and its words.
fn nginx_takes(snippet: &str) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    fs::write(path("watchpost.conf"), snippet).expect("written");
    // Every path of nginx that would lie outside the directory is named, so that it needs no rights.
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {};\n", path(kind).display()))
        .collect();
    let conf = format!(
        "pid {};\nerror_log {};\nevents {{ }}\nhttp {{\naccess_log {};\n{temporary}include {};\n}}\n",
        path("nginx.pid").display(),
        path("error.log").display(),
        path("access.log").display(),
        path("watchpost.conf").display(),
    );
    fs::write(path("nginx.conf"), conf).expect("written");
    let mut nginx = Command::new("nginx");
    nginx.arg("-t").arg("-p").arg(directory.path()).arg("-c").arg(path("nginx.conf"));
    nginx.arg("-e").arg(path("error.log"));
    // Debian keeps nginx where only root's path looks.
    nginx.env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default()));
    let output = run(&mut nginx).expect("nginx must be installed for this test (apt-get install nginx)");
    (output.status.success(), words_of(&output))
}

#[test]
fn nginx_takes_the_log_format_and_the_counter() {
    let text = shipped("nginx-log-format.conf");
    let (taken, said) = nginx_takes(&text);
    assert!(taken, "{said}");

    // What stands commented out must be right too, once it writes into a directory that exists.
    let log = tempfile::NamedTempFile::new().expect("a file");
    let active = text
        .replace("#access_log ", "access_log ")
        .replace("/var/log/nginx/access.log", log.path().to_str().expect("UTF-8"));
    assert!(active.contains("\naccess_log ") && active.contains(" watchpost buffer="));
    let (taken, said) = nginx_takes(&active);
    assert!(taken, "{said}");

    let (taken, said) = nginx_takes(&text.replace("$request_time", "$request_tmie"));
    assert!(!taken && said.contains("request_tmie"), "nginx took an unknown variable: {said}");
}

#[test]
fn the_log_format_begins_with_combined_and_has_what_the_agent_counts() {
    let text = shipped("nginx-log-format.conf");
    let from = text.find("log_format watchpost escape=default").expect("the format");
    let parts: Vec<&str> = text[from..].split(';').next().expect("its end").split('\'').collect();
    // Between the quotes stand the parts of the format, outside them line ends.
    let format: String = parts.iter().skip(1).step_by(2).copied().collect();
    let combined = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                    \"$http_referer\" \"$http_user_agent\" ";
    assert!(format.starts_with(combined), "{format}");
    for variable in [
        "$msec",
        "$host",
        "$scheme",
        "$request_time",
        "$upstream_addr",
        "$upstream_status",
        "$upstream_response_time",
        "$ssl_protocol",
    ] {
        assert!(format.contains(variable), "no {variable} in {format}");
    }
}

#[test]
fn the_licence_is_the_standard_text() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE")).expect("LICENSE");
    // Length and CRC-32 of https://www.apache.org/licenses/LICENSE-2.0.txt
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    assert_eq!((text.len(), crc.sum()), (11_358, LICENSE_CRC), "LICENSE is not the verbatim Apache-2.0 text");
}

const LICENSE_CRC: u32 = 0x86E2_B4B4;
