//! What nginx's configuration says beside the logs to follow: where its counters are, and which requests leave no line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use watchpost_parsers::nginx_conf::{AccessLogDirective, Discovery, Listen, Server};
use watchpost_parsers::{Field, Format};

use super::plan::{discover, is_host_name, pattern_of};
use crate::config::{Config, StubStatus};
use crate::insight::reconcile::Circumstances;
use crate::probes::StubTarget;

/// Where Debian's and nginx.org's packages have the master's process id.
const PID_FILE: &str = "/run/nginx.pid";

/// What explains a difference between requests and lines; `None` where the configuration cannot be read.
pub(super) fn circumstances(config: &Config) -> Option<Circumstances> {
    let discovery = discover(&config.nginx_conf)?;
    let path = |log: &AccessLogDirective| log.path.clone();
    let is_unlimited = |log: &&AccessLogDirective| log.buffer_bytes.is_some() && log.flush_ms.is_none();
    Some(Circumstances {
        configuration: config.nginx_conf.display().to_string(),
        unlogged_places: discovery.off_servers + discovery.off_locations,
        buffered_logs: discovery.logs.iter().filter(is_unlimited).map(path).collect(),
        unfollowed_logs: discovery.logs.iter().filter(|log| pattern_of(log).is_none()).map(path).collect(),
        untimed_logs: discovery.logs.iter().filter(|log| !is_timed(log)).map(path).collect(),
        open_counters: open_counters(&discovery.servers),
    })
}

/// Where the counters stand without a `deny all`, on an address that others reach.
fn open_counters(servers: &[Server]) -> Vec<String> {
    let reaches_others = |listen: &&Listen| !is_loopback(&listen.host);
    let mut found = Vec::new();
    for server in servers {
        for stub in server.stub_status.iter().filter(|stub| !stub.is_restricted) {
            for listen in server.listens.iter().filter(reaches_others) {
                found.push(format!("{}:{} {}", listen.host, listen.port, stub.path));
            }
        }
    }
    found
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Whether a log says how long a request took. A format that is not understood is not held against it.
fn is_timed(log: &AccessLogDirective) -> bool {
    let Some(text) = &log.format else { return false };
    Format::from_log_format(text).map_or(true, |format| format.gives(Field::RequestTime))
}

/// Where to ask nginx for its counters; `None` where that is switched off.
pub fn stub_target(config: &Config) -> Option<StubTarget> {
    let discovery = discover(&config.nginx_conf).unwrap_or_default();
    let (url, host) = match &config.stub_status {
        StubStatus::None => return None,
        StubStatus::Url(url) => (Some(url.clone()), None),
        StubStatus::Auto => discovered_url(&discovery).unzip(),
    };
    let flush_ms =
        discovery.logs.iter().filter(|log| log.buffer_bytes.is_some()).filter_map(|log| log.flush_ms);
    Some(StubTarget {
        url,
        host: host.flatten(),
        pid_file: discovery.pid_file.map_or_else(|| PathBuf::from(PID_FILE), PathBuf::from),
        flush: Duration::from_millis(flush_ms.max().unwrap_or(0)),
    })
}

/// The first location with the counters that answers without TLS on this host, and the name to ask for there.
fn discovered_url(discovery: &Discovery) -> Option<(String, Option<String>)> {
    let mut found: Vec<(&Server, SocketAddr, &str)> = Vec::new();
    for server in &discovery.servers {
        for stub in &server.stub_status {
            let addresses = server.listens.iter().filter(|listen| !listen.tls).filter_map(local_address);
            found.extend(addresses.map(|address| (server, address, stub.path.as_str())));
        }
    }
    // One that only this host reaches is meant for this.
    let is_meant = |(server, address, _): &(&Server, SocketAddr, &str)| {
        server.listens.iter().any(|listen| listen.host == address.ip().to_string())
    };
    let (server, address, path) = found.iter().find(|one| is_meant(one)).or(found.first()).copied()?;
    let name = server.names.iter().find(|name| is_host_name(name)).cloned();
    Some((format!("http://{address}{path}"), name))
}

/// How this host reaches what listens so.
fn local_address(listen: &Listen) -> Option<SocketAddr> {
    Some(SocketAddr::new(local_ip(&listen.host)?, listen.port))
}

/// The same of an address as a configuration has it.
pub(super) fn local_ip(host: &str) -> Option<IpAddr> {
    Some(match host {
        "*" | "0.0.0.0" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        "::" => IpAddr::V6(Ipv6Addr::LOCALHOST),
        stated => stated.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use watchpost_parsers::nginx_conf::{Place, access_logs};

    use super::*;

    fn url(text: &str) -> Option<(String, Option<String>)> {
        let place = Place { main_file: "/n.conf", prefix: "/", default_access_log: "a.log" };
        discovered_url(&access_logs(text, &place, &mut |_| Vec::new()))
    }

    #[test]
    fn counters_for_everybody_are_told_from_those_for_this_host() {
        let open = |text: &str| {
            let place = Place { main_file: "/n.conf", prefix: "/", default_access_log: "a.log" };
            let text = format!("http {{ {text} }}");
            open_counters(&access_logs(&text, &place, &mut |_| Vec::new()).servers)
        };
        assert_eq!(open("server { listen 443 ssl; location /s { stub_status; } }"), ["*:443 /s"]);
        assert!(
            open("server { listen 80; location /s { stub_status; allow 10.0.0.1; deny all; } }").is_empty()
        );
        assert!(
            open("server { listen 127.0.0.1:80; listen [::1]:80; location /s { stub_status; } }").is_empty()
        );
    }

    #[test]
    fn the_counters_are_asked_where_this_host_reaches_them() {
        let some = |url: &str, host: Option<&str>| Some((url.to_owned(), host.map(str::to_owned)));
        let open = "server { listen 80; server_name a.example; location /s { stub_status; } }";
        let meant = "server { listen 127.0.0.1:8081; location = /own { stub_status; } }";
        let tls = "server { listen 443 ssl; location /s { stub_status; } }";
        assert_eq!(url(&format!("http {{ {open} }}")), some("http://127.0.0.1:80/s", Some("a.example")));
        assert_eq!(url(&format!("http {{ {open} {meant} }}")), some("http://127.0.0.1:8081/own", None));
        assert_eq!(
            url("http { server { listen [::]:82; location /s { stub_status; } } }"),
            some("http://[::1]:82/s", None)
        );
        assert_eq!(url(&format!("http {{ {tls} }}")), None);
    }
}
