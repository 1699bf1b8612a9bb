//! What `load` makes of strings: defaults, values, problems, secrets and their sources.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::*;
use crate::config::{
    AccessLogs, Certificates, HostSources, Layered, LogFormat, LogLevel, ReadFrom, Redact, ShipLines,
    StubStatus, environment,
};
use crate::config::{Firewall, Haproxy, Mysql};
use crate::config::{Scrape, Scripts};

const SURROUNDINGS: Surroundings<'_> = Surroundings { is_root: true, host_source_names: &["cpu", "load"] };
const URL: &str = "https://collectors.example/receiver/v1/http/ZaVn";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn loaded(pairs: &[(&str, &str)]) -> Config {
    load(&map(pairs), &SURROUNDINGS).unwrap_or_else(|problems| panic!("{pairs:?}: {problems:?}"))
}

/// One setting at one value.
fn with(name: &str, value: &str) -> Config {
    loaded(&[(name, value)])
}

/// Every problem, a line each.
fn problems(pairs: &[(&str, &str)]) -> String {
    let problems = load(&map(pairs), &SURROUNDINGS).expect_err("there should be problems");
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// One setting at one value that it must not take; the message says why.
fn refused(name: &str, value: &str, why: &str) {
    let found = problems(&[(name, value)]);
    assert_eq!(found.lines().count(), 1, "{name}={value}: {found}");
    for part in [name, why, setting(name).form] {
        assert!(found.contains(part), "{name}={value}: no {part:?} in {found}");
    }
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let config = loaded(&[]);
    let expected = Config {
        sumo_url: None,
        access_logs: AccessLogs::Auto,
        access_log_format: LogFormat::Auto,
        nginx_conf: "/etc/nginx/nginx.conf".into(),
        read_from: ReadFrom::End,
        ship_lines: ShipLines::All,
        redact: Redact::On { extra: vec![] },
        state_dir: "/var/lib/watchpost".into(),
        spool_max_bytes: 1 << 30,
        batch_max_bytes: 1_000_000,
        flush_interval: Duration::from_secs(5),
        host_interval: Duration::from_secs(10),
        summary_interval: Duration::from_secs(10),
        host_sources: HostSources::All,
        stub_status: StubStatus::Auto,
        haproxy: Haproxy::Auto,
        mysql: Mysql::Auto,
        mysql_password: None,
        scrape: vec![],
        scripts: Scripts::Auto,
        certificates: Certificates::Auto,
        firewall: Firewall::Auto,
        host_name: None,
        source_category: None,
        source_name: None,
        fields: vec![],
        status_addr: Some(([127, 0, 0, 1], 7866).into()),
        status_token: None,
        log: LogLevel::Info,
        effective: config.effective.clone(),
    };
    assert_eq!(config, expected);
    assert_eq!(loaded(&SETTINGS.iter().map(|setting| (setting.name, "")).collect::<Vec<_>>()), expected);
}

#[test]
fn values_in_their_forms() {
    let globs = |globs: &[&str]| AccessLogs::Globs(globs.iter().map(|glob| (*glob).to_owned()).collect());
    let logs = |value| with("WATCHPOST_ACCESS_LOGS", value).access_logs;
    assert_eq!(logs("none"), AccessLogs::None);
    assert_eq!(logs("/a/*.log, /b.log"), globs(&["/a/*.log", "/b.log"]));
    let format = |value| with("WATCHPOST_ACCESS_LOG_FORMAT", value).access_log_format;
    assert_eq!(format("combined"), LogFormat::Combined);
    assert_eq!(format("json"), LogFormat::Json);
    assert_eq!(format("$status, $host"), LogFormat::LogFormat("$status, $host".into()));
    assert_eq!(format("regex:^(?<status>.)$"), LogFormat::Regex("^(?<status>.)$".into()));
    let redact = |value| with("WATCHPOST_REDACT", value).redact;
    assert_eq!(redact("off"), Redact::Off);
    assert_eq!(redact("session, iban"), Redact::On { extra: vec!["session".into(), "iban".into()] });
    assert_eq!(redact("default,iban"), Redact::On { extra: vec!["iban".into()] });
    let lines = |value| with("WATCHPOST_SHIP_LINES", value).ship_lines;
    assert_eq!(lines("sample:0.05"), ShipLines::Sample(0.05));
    assert_eq!((lines("errors"), lines("none")), (ShipLines::Errors, ShipLines::None));
    assert_eq!(with("WATCHPOST_READ_FROM", "beginning").read_from, ReadFrom::Beginning);
    let sources = with("WATCHPOST_HOST_SOURCES", "cpu").host_sources;
    assert!(sources.includes("cpu") && !sources.includes("load"));
    assert_eq!(with("WATCHPOST_HOST_SOURCES", "none").host_sources, HostSources::None);
    assert_eq!(with("WATCHPOST_STATUS_ADDR", "off").status_addr, None);
    assert!(with("WATCHPOST_STATUS_ADDR", "[::1]:0").status_addr.is_some());
    assert_eq!(with("WATCHPOST_LOG", "trace").log, LogLevel::Trace);
    let ports = |value| with("WATCHPOST_FIREWALL", value).firewall;
    assert_eq!(
        (ports("none"), ports("22, 8000-8010")),
        (Firewall::None, Firewall::Allowed(vec![22..=22, 8000..=8010]))
    );
    assert_eq!(with("WATCHPOST_CERTIFICATES", "none").certificates, Certificates::None);
    let Certificates::Listed(servers) =
        with("WATCHPOST_CERTIFICATES", "a.example:443, b@[::1]:8443=/c.pem").certificates
    else {
        panic!("a list")
    };
    let shown: Vec<_> =
        servers.iter().map(|s| (s.host.as_str(), s.port, s.name.as_deref(), s.file.is_some())).collect();
    assert_eq!(shown, [("a.example", 443, Some("a.example"), false), ("::1", 8443, Some("b"), true)]);
    let fields = with("WATCHPOST_FIELDS", "environment=production, farm=eu 1").fields;
    assert_eq!(fields, [("environment".into(), "production".into()), ("farm".into(), "eu 1".into())]);
}

#[test]
fn units_and_bounds() {
    let flush = |value| with("WATCHPOST_FLUSH_INTERVAL", value).flush_interval;
    assert_eq!(flush("100ms"), Duration::from_millis(100));
    assert_eq!(flush("5m"), Duration::from_secs(300));
    assert_eq!(with("WATCHPOST_HOST_INTERVAL", "1h").host_interval, Duration::from_secs(3600));
    assert_eq!(with("WATCHPOST_SUMMARY_INTERVAL", "2000ms").summary_interval, Duration::from_secs(2));
    let batch = |value| with("WATCHPOST_BATCH_MAX", value).batch_max_bytes;
    assert_eq!((batch("10KB"), batch("64KiB"), batch("1000000")), (10_000, 65_536, 1_000_000));
    let spool = |value| with("WATCHPOST_SPOOL_MAX", value).spool_max_bytes;
    assert_eq!((spool("1MiB"), spool("2GB"), spool("1048576B")), (1 << 20, 2_000_000_000, 1 << 20));
    refused("WATCHPOST_FLUSH_INTERVAL", "99ms", "too short");
    refused("WATCHPOST_FLUSH_INTERVAL", "301s", "too long");
    refused("WATCHPOST_FLUSH_INTERVAL", "5", "no unit");
    refused("WATCHPOST_FLUSH_INTERVAL", "5 s", "a unit that is not");
    refused("WATCHPOST_FLUSH_INTERVAL", "s", "whole number");
    refused("WATCHPOST_FLUSH_INTERVAL", "-5s", "whole number");
    refused("WATCHPOST_FLUSH_INTERVAL", "99999999999999999999s", "too large a number");
    refused("WATCHPOST_HOST_INTERVAL", "999ms", "too short");
    refused("WATCHPOST_HOST_INTERVAL", "2h", "too long");
    refused("WATCHPOST_SUMMARY_INTERVAL", "1500ms", "whole seconds");
    refused("WATCHPOST_SUMMARY_INTERVAL", "6m", "too long");
    refused("WATCHPOST_BATCH_MAX", "9999", "too small");
    refused("WATCHPOST_BATCH_MAX", "1MiB", "too large");
    refused("WATCHPOST_SPOOL_MAX", "1MB", "too small");
    refused("WATCHPOST_SPOOL_MAX", "1Gib", "a unit that is not");
    refused("WATCHPOST_SPOOL_MAX", "18446744073709551615GiB", "too large");
}

#[test]
fn endpoints_and_scripts_in_their_forms() {
    let target = |name: &str, url: &str, only: &[&str]| Scrape {
        name: name.to_owned(),
        url: url.to_owned(),
        only: only.iter().map(|name| (*name).to_owned()).collect(),
    };
    let scrape = |value| with("WATCHPOST_SCRAPE", value).scrape;
    assert_eq!(scrape("none"), []);
    assert_eq!(
        scrape("a-1=http://127.0.0.1:9100/metrics#node_load1|node_disk_*|up*, b.c=http://[::1]:80/m?x=1"),
        [
            target("a-1", "http://127.0.0.1:9100/metrics", &["node_load1", "node_disk_*", "up*"]),
            target("b.c", "http://[::1]:80/m?x=1", &[]),
        ]
    );
    let scripts = |value| with("WATCHPOST_SCRIPTS", value).scripts;
    let directory = |path: &str, as_root| Scripts::Directory { path: path.into(), as_root };
    assert_eq!(scripts("auto"), Scripts::Auto);
    assert_eq!(scripts("none"), Scripts::None);
    assert_eq!(scripts("/opt/checks"), directory("/opt/checks", false));
    assert_eq!(scripts("root:/opt/checks"), directory("/opt/checks", true));
}

#[test]
fn values_that_are_refused() {
    refused("WATCHPOST_ACCESS_LOGS", "/a.log,", "empty part");
    refused("WATCHPOST_FIREWALL", "22,ssh", "no port");
    refused("WATCHPOST_FIREWALL", "90-80", "no range");
    refused("WATCHPOST_FIREWALL", "0", "no port");
    refused("WATCHPOST_CERTIFICATES", "a.example", "no port");
    refused("WATCHPOST_CERTIFICATES", "a.example:0", "no port");
    refused("WATCHPOST_CERTIFICATES", "a b@a.example:443", "no name of a host");
    refused("WATCHPOST_CERTIFICATES", ":443", "no host");
    refused("WATCHPOST_CERTIFICATES", "a:443=c.pem", "not absolute");
    refused("WATCHPOST_CERTIFICATES", "a:443,auto", "`auto` among");
    refused("WATCHPOST_ACCESS_LOGS", "/a.log,auto", "`auto` among");
    refused("WATCHPOST_ACCESS_LOGS", "/a/***.log", "not a pattern");
    refused("WATCHPOST_ACCESS_LOG_FORMAT", "main", "no $variable");
    refused("WATCHPOST_ACCESS_LOG_FORMAT", "regex:", "no expression");
    refused("WATCHPOST_ACCESS_LOG_FORMAT", "regex:(", "is no regular expression: unclosed group");
    refused("WATCHPOST_ACCESS_LOG_FORMAT", "regex:^(.*)$", "no named group");
    refused("WATCHPOST_ACCESS_LOG_FORMAT", "'$status", "quotes of the format do not close");
    for (value, why) in [
        ("http://a/m", "no NAME=URL"),
        ("=http://a/m", "has a name that is not"),
        ("a b=http://a/m", "has a name that is not"),
        ("a=http://a/m,a=http://b/m", "names \"a\" twice"),
        ("a=https://a/m", "URL for a that is not http"),
        ("a=/metrics", "URL for a that is not a URL"),
        ("a=http://me:secret@a/m", "a user or a password"),
        ("a=http://a/m#", "which is no metric"),
        ("a=http://a/m#b*c", "which is no metric"),
        ("a=http://a/m#b|c d", "which is no metric"),
        ("a=http://a/m,,", "empty part"),
    ] {
        refused("WATCHPOST_SCRAPE", value, why);
    }
    let many: Vec<String> = (0..17).map(|n| format!("t{n}=http://a/{n}")).collect();
    refused("WATCHPOST_SCRAPE", &many.join(","), "more than 16");
    refused("WATCHPOST_SCRIPTS", "scripts.d", "not an absolute path");
    refused("WATCHPOST_SCRIPTS", "root:", "not an absolute path");
    refused("WATCHPOST_READ_FROM", "start", "neither");
    refused("WATCHPOST_SHIP_LINES", "some", "not one of");
    refused("WATCHPOST_SHIP_LINES", "sample:x", "not a number");
    for share in ["sample:0", "sample:1", "sample:NaN", "sample:-0.5", "sample:inf"] {
        refused("WATCHPOST_SHIP_LINES", share, "between 0 and 1");
    }
    refused("WATCHPOST_REDACT", "off,token", "`off` among");
    refused("WATCHPOST_REDACT", "a=b", "no query parameter");
    refused("WATCHPOST_HOST_SOURCES", "cpu,cpus", "\"cpus\", which is no source; there are cpu, load");
    refused("WATCHPOST_HOST_NAME", &"é".repeat(129), "longer than 128");
    let long = problems(&[("WATCHPOST_HOST_NAME", &"é".repeat(129))]);
    assert!(long.contains(&format!("=\"{}...\": ", "é".repeat(120))), "long values are cut: {long}");
    refused("WATCHPOST_HOST_NAME", "a\nb", "control character");
    refused("WATCHPOST_SOURCE_CATEGORY", &"c".repeat(1025), "longer than 1024");
    refused("WATCHPOST_SOURCE_NAME", &"n".repeat(129), "longer than 128");
    refused("WATCHPOST_FIELDS", "a", "no k=v");
    refused("WATCHPOST_FIELDS", "a=", "one side is empty");
    refused("WATCHPOST_FIELDS", "a=b=c", "second `=`");
    refused("WATCHPOST_FIELDS", "a=1,a=2", "twice");
    refused("WATCHPOST_FIELDS", &format!("{}=v", "k".repeat(256)), "key that is longer than 255");
    refused("WATCHPOST_FIELDS", &format!("k={}", "v".repeat(201)), "value that is longer than 200");
    let pairs = |count: usize| (0..count).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
    assert_eq!(with("WATCHPOST_FIELDS", &pairs(30)).fields.len(), 30);
    refused("WATCHPOST_FIELDS", &pairs(31), "more than 30");
    refused("WATCHPOST_STATUS_ADDR", "localhost", "not an IP address");
    refused("WATCHPOST_LOG", "INFO", "not a level");
    refused("WATCHPOST_NGINX_CONF", "/\u{fffd}", "not UTF-8");
}

#[test]
fn secrets_that_are_refused_are_not_shown() {
    let check = |name: &str, value: &str, why: &str| {
        let found = problems(&[(name, value)]);
        assert!(found.contains(why) && !found.contains("ZaVn"), "{value}: {found}");
    };
    check("WATCHPOST_SUMO_URL", "ftp://host/ZaVn", "neither http nor https");
    check("WATCHPOST_SUMO_URL", "ZaVn", "not a URL");
    check("WATCHPOST_SUMO_URL", "https://", "not a URL");
    for url in ["https:///ZaVn", "https:ZaVn", "https:\\\\ZaVn/x", "https:////ZaVn"] {
        check("WATCHPOST_SUMO_URL", url, "no host");
    }
    check("WATCHPOST_SUMO_URL", "https://host/ZaVn\nmore", "line break");
    check("WATCHPOST_SUMO_URL", "https://ZaVn:port/", "not a URL");
    check("WATCHPOST_SUMO_URL", "https://ZaVn.bücher.example/", "given as its punycode");
    check("WATCHPOST_STATUS_TOKEN", "ZaVn ZaVn", "header cannot carry");
    check(
        "WATCHPOST_SUMO_URL_FILE",
        "https://host/ZaVn",
        "WATCHPOST_SUMO_URL_FILE, a file that cannot be read",
    );
    check("WATCHPOST_SUMO_ULR", "https://host/ZaVn", "the nearest is WATCHPOST_SUMO_URL;");
}

#[test]
fn all_problems_at_once_and_each_on_one_line() {
    let found = problems(&[
        ("WATCHPOST_LOG", "loud\nand more"),
        ("WATCHPOST_BATCH_MAX", "5MB"),
        ("WATCHPOST_STATUS_ADR", "off"),
        ("WATCHPOST_STATE_DIR_FILE", "/x"),
        ("WATCHPOSTER", "a foreign variable"),
        ("STATUS_ADDR", "another"),
    ]);
    let expected = [
        "WATCHPOST_BATCH_MAX=\"5MB\": is too large; allowed: a size from 10KB to 1MB",
        "WATCHPOST_LOG=\"loud\\nand more\": is not a level; allowed: error, warn, info, debug or trace",
        "WATCHPOST_STATE_DIR_FILE=\"***\": is no setting; the nearest is WATCHPOST_STATE_DIR; allowed: \
         the names in config/watchpost.env",
        "WATCHPOST_STATUS_ADR=\"***\": is no setting; the nearest is WATCHPOST_STATUS_ADDR; allowed: \
         the names in config/watchpost.env",
    ];
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn an_open_status_port_needs_a_token() {
    refused_open("0.0.0.0:7866");
    refused_open("[::]:7866");
    refused_open("192.0.2.1:7866");
    for address in ["127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        with("WATCHPOST_STATUS_ADDR", address);
    }
    let config = loaded(&[("WATCHPOST_STATUS_ADDR", "0.0.0.0:7866"), ("WATCHPOST_STATUS_TOKEN", "ZaVn")]);
    assert_eq!(config.status_token, Some(Secret::new("ZaVn")));
    let found = problems(&[("WATCHPOST_STATUS_ADDR", "0.0.0.0:1"), ("WATCHPOST_STATUS_TOKEN", "a b")]);
    assert_eq!(found.lines().count(), 1, "the token's own problem is enough: {found}");

    fn refused_open(address: &str) {
        let found = problems(&[("WATCHPOST_STATUS_ADDR", address)]);
        assert!(found.contains(address) && found.contains("WATCHPOST_STATUS_TOKEN"), "{found}");
    }
}

#[test]
fn a_secret_comes_from_one_of_three_places() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sumo_url");
    let (file, credentials) = (path.to_str().expect("UTF-8"), directory.path().to_str().expect("UTF-8"));
    let from_file: &[_] = &[("WATCHPOST_SUMO_URL_FILE", file)];
    let from_credential: &[_] = &[("CREDENTIALS_DIRECTORY", credentials)];
    assert_eq!(loaded(from_credential).sumo_url, None, "a directory without the credential is no problem");
    assert!(problems(from_file).contains("cannot be read"));

    for content in [URL.to_owned(), format!("{URL}\n"), format!("{URL}\r\n")] {
        fs::write(&path, content).expect("written");
        for (pairs, origin) in [(from_file, Origin::File), (from_credential, Origin::Credential)] {
            let config = loaded(pairs);
            assert_eq!(config.sumo_url, Some(Secret::new(URL)));
            assert_eq!(config.effective[0].origin, origin);
        }
    }
    for (content, why) in [
        (String::new(), "is empty"),
        ("\n".into(), "is empty"),
        (format!("{URL}\n\n"), "line break"),
        ("x".repeat(70_000), "larger than"),
    ] {
        fs::write(&path, content).expect("written");
        for pairs in [from_file, from_credential] {
            assert!(problems(pairs).contains(why), "{why}: {}", problems(pairs));
        }
    }
    fs::write(&path, URL).expect("written");
    let twice = problems(&[("WATCHPOST_SUMO_URL", URL), from_file[0]]);
    assert!(twice.contains("WATCHPOST_SUMO_URL and WATCHPOST_SUMO_URL_FILE"), "{twice}");
    let twice = problems(&[from_credential[0], from_file[0]]);
    assert!(twice.contains("WATCHPOST_SUMO_URL_FILE and the credential sumo_url"), "{twice}");
    assert!(!twice.contains("ZaVn"));
}

#[test]
fn flags_hide_the_environment() {
    let environment =
        map(&[("WATCHPOST_LOG", "warn"), ("WATCHPOST_SUMO_URL_FILE", "/none"), ("WATCHPOST_REDACT", "x")]);
    let flags = map(&[("WATCHPOST_LOG", "debug"), ("WATCHPOST_SUMO_URL", URL), ("WATCHPOST_REDACT", "")]);
    let strings = Layered { flags: &flags, environment: &environment };
    let config = load(&strings, &SURROUNDINGS).expect("flags win");
    assert_eq!(config.log, LogLevel::Debug);
    assert_eq!(config.sumo_url, Some(Secret::new(URL)));
    assert_eq!(config.redact, Redact::On { extra: vec![] }, "an empty flag brings the default back");
    let describe = config.describe();
    for line in
        ["WATCHPOST_LOG=debug (flag)", "WATCHPOST_SUMO_URL=*** (flag)", "WATCHPOST_REDACT=default (default)"]
    {
        assert!(describe.contains(&format!("{line}\n")), "no {line:?} in {describe}");
    }
}

#[test]
fn the_description_has_every_setting_in_order_and_no_secret() {
    let config = loaded(&[("WATCHPOST_SUMO_URL", URL), ("WATCHPOST_STATUS_TOKEN", "ZaVn")]);
    let describe = config.describe();
    let names: Vec<&str> = describe.lines().filter_map(|line| line.split('=').next()).collect();
    let expected: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(names, expected);
    assert!(describe.contains("WATCHPOST_STATE_DIR=/var/lib/watchpost (default)"), "{describe}");
    assert!(describe.contains("WATCHPOST_SUMO_URL=*** (environment)"), "{describe}");
    assert!(!format!("{describe}{config:?}").contains("ZaVn"));
}

#[test]
fn the_state_directory_follows_who_runs_the_agent() {
    let check = |is_root: bool, pairs: &[(&str, &str)], expected: &str| {
        let surroundings = Surroundings { is_root, ..SURROUNDINGS };
        let config = load(&map(pairs), &surroundings).expect("a state directory");
        assert_eq!(config.state_dir, Path::new(expected), "{pairs:?}");
    };
    let all = [("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
    check(true, &[("WATCHPOST_STATE_DIR", "/w"), all[0]], "/w");
    check(true, &all, "/s");
    check(true, &all[1..], "/var/lib/watchpost");
    check(false, &all[1..], "/x/watchpost");
    check(false, &[("XDG_STATE_HOME", "relative"), all[2]], "/h/.local/state/watchpost");
    let none = load(&map(&[]), &Surroundings { is_root: false, ..SURROUNDINGS }).expect_err("nowhere to go");
    assert!(none[0].to_string().starts_with("WATCHPOST_STATE_DIR: has no default here"), "{}", none[0]);
}

#[test]
fn an_environment_that_is_no_text_matters_only_in_settings() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec());
    let foreign = environment([(bytes(b"LESS"), bytes(b"\xff"))]);
    assert!(load(&foreign, &SURROUNDINGS).is_ok());
    let ours = environment([(bytes(b"WATCHPOST_STATE_DIR"), bytes(b"/\xff"))]);
    let problems = load(&ours, &SURROUNDINGS).expect_err("not UTF-8");
    assert!(problems[0].message.contains("not UTF-8"));
}

#[test]
fn distances_are_those_of_the_definition() {
    for (one, other, expected) in
        [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
    {
        assert_eq!(distance(one, other), expected, "{one} {other}");
    }
}

#[test]
fn haproxy_and_mysql_are_asked_where_the_settings_say() {
    let haproxy = |value: &str| with("WATCHPOST_HAPROXY", value).haproxy;
    assert_eq!(haproxy("none"), Haproxy::None);
    assert_eq!(haproxy("/run/h.sock"), Haproxy::Socket(PathBuf::from("/run/h.sock")));
    assert_eq!(
        haproxy("http://127.0.0.1:8404/stats"),
        Haproxy::Url("http://127.0.0.1:8404/stats".to_owned())
    );
    let mysql = |value: &str| with("WATCHPOST_MYSQL", value).mysql;
    let port =
        |user: &str, host: &str, port| Mysql::Port { user: user.to_owned(), host: host.to_owned(), port };
    let socket = |user: Option<&str>| Mysql::Socket(PathBuf::from("/run/m.sock"), user.map(str::to_owned));
    assert_eq!(mysql("none"), Mysql::None);
    assert_eq!(mysql("/run/m.sock"), socket(None));
    assert_eq!(mysql("mysql://watch@localhost/?socket=/run/m.sock"), socket(Some("watch")));
    assert_eq!(mysql("mysql://watch@db1"), port("watch", "db1", 3306));
    assert_eq!(mysql("mysql://watch@[::1]:3307/"), port("watch", "::1", 3307));
    for (name, value, said) in [
        ("WATCHPOST_HAPROXY", "run/h.sock", "neither a path"),
        ("WATCHPOST_HAPROXY", "https://lb/stats", "neither a path"),
        ("WATCHPOST_HAPROXY", "http://u:CANARY@lb/stats", "name a stats socket"),
        ("WATCHPOST_MYSQL", "mysql://watch:CANARY@db1/", "WATCHPOST_MYSQL_PASSWORD_FILE"),
        ("WATCHPOST_MYSQL", "mysql://db1/", "has no user"),
        ("WATCHPOST_MYSQL", "mysql://watch@db1/shop", "names a database"),
        ("WATCHPOST_MYSQL", "mysql://watch@db1/?ssl=off", "parameters other than"),
        ("WATCHPOST_MYSQL", "http://watch@db1/", "nor a mysql URL"),
        ("WATCHPOST_MYSQL", "db1", "is not a URL"),
    ] {
        let problems = load(&map(&[(name, value)]), &SURROUNDINGS).expect_err(value);
        let text = problems.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains(said) && !text.contains("CANARY"), "{value}: {text}");
    }
}
