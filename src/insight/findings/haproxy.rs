//! Where TLS ends at HAProxy, and what it says of its servers and its log.

use std::net::IpAddr;

use super::{Confidence, Dated, Draw, Evidence, Rule, Severity, Weakness};
use crate::facts::{HaproxyFacts, HaproxyServer};

/// What clients send encrypted goes on to a server in the clear.
pub(super) static BACKEND_PLAINTEXT: Rule = Rule {
    id: "haproxy.backend-plaintext",
    severity: Severity::High,
    title: "TLS ends at the load balancer and the next hop is plaintext",
    draw: |known| {
        let Some(haproxy) = known.haproxy else { return Draw::Nothing };
        let servers = &haproxy.facts.servers;
        if !servers.is_empty() && servers.iter().all(|server| server.use_tls.is_none()) {
            return Draw::Unknown {
                why: format!("{} does not tell whether HAProxy speaks TLS to its servers", haproxy.facts.source),
                cure: "ask HAProxy 2.3 or later on a stats socket: stats socket /run/haproxy/ro.sock mode 666 level user"
                    .to_owned(),
            };
        }
        let plain: Vec<&HaproxyServer> = servers.iter().filter(|server| is_plain_on_a_wire(server)).collect();
        if plain.is_empty() {
            return Draw::Clear;
        }
        match tls_at_the_front(haproxy) {
            Tls::Ends(evidence) => {
                Draw::Found(plain.into_iter().map(|server| plaintext(haproxy, server, &evidence)).collect())
            }
            Tls::None => Draw::Clear,
            Tls::Unknown => Draw::Unknown {
                why: "no client has spoken TLS to HAProxy since it started, and its configuration cannot be read"
                    .to_owned(),
                cure: "let the agent read haproxy.cfg, which is public by default: chmod o+r /etc/haproxy/haproxy.cfg"
                    .to_owned(),
            },
        }
    },
};

/// A server that gets no requests.
pub(super) static SERVER_DOWN: Rule = Rule {
    id: "haproxy.server-down",
    severity: Severity::High,
    title: "a server of the load balancer is down",
    draw: |known| {
        let Some(haproxy) = known.haproxy else { return Draw::Nothing };
        let is_down = |server: &&HaproxyServer| server.status.starts_with("DOWN");
        let down: Vec<Weakness> = haproxy
            .facts
            .servers
            .iter()
            .filter(is_down)
            .map(|server| {
                let of_backend = |backend: &&crate::facts::HaproxyBackend| backend.name == server.backend;
                let backend = haproxy.facts.backends.iter().find(of_backend);
                let is_last = backend.is_some_and(|backend| backend.status.starts_with("DOWN"));
                let rest = if is_last { "; its backend has no server left and answers 503" } else { "" };
                let since =
                    server.since_s.map_or(String::new(), |seconds| format!(" since {seconds} s"));
                Weakness {
                    subject: subject(server),
                    confidence: Confidence::Certain,
                    evidence: vec![evidence(
                        haproxy,
                        format!("status {}{since}{rest}", server.status),
                        "show stat",
                    )],
                    advice: format!(
                        "look why its checks fail (`show stat` has last_chk), or take it out: set server {} state maint",
                        subject(server)
                    ),
                }
            })
            .collect();
        if down.is_empty() { Draw::Clear } else { Draw::Found(down) }
    },
};

/// A log that is not whole proves nothing.
pub(super) static LOGS_DROPPED: Rule = Rule {
    id: "haproxy.logs-dropped",
    severity: Severity::Medium,
    title: "HAProxy drops lines of its log",
    draw: |known| {
        let Some(haproxy) = known.haproxy else { return Draw::Nothing };
        match haproxy.facts.process {
            None => Draw::Nothing,
            Some(process) if process.dropped_logs == 0 => Draw::Clear,
            Some(process) => Draw::Found(vec![Weakness {
                subject: String::new(),
                confidence: Confidence::Certain,
                evidence: vec![evidence(
                    haproxy,
                    format!("DroppedLogs {} in the {} s of process {}", process.dropped_logs, process.uptime_s, process.pid),
                    "show info",
                )],
                advice: "let the syslog that takes them read faster, or log to it over UDP on loopback: log 127.0.0.1:514 local0"
                    .to_owned(),
            }]),
        }
    },
};

/// Whether TLS of clients ends here.
enum Tls {
    Ends(Evidence),
    None,
    Unknown,
}

fn tls_at_the_front(haproxy: Dated<'_, HaproxyFacts>) -> Tls {
    let served = haproxy.facts.frontends.iter().find(|frontend| frontend.tls_handshakes > Some(0));
    let configured = haproxy.facts.tls_binds.as_ref();
    if let Some((place, line)) = configured.and_then(|binds| binds.lines.first()) {
        return Tls::Ends(Evidence { what: line.clone(), place: place.clone(), at: haproxy.at });
    }
    match (served, configured) {
        (Some(frontend), _) => {
            let handshakes = frontend.tls_handshakes.unwrap_or_default();
            let what = format!("{handshakes} TLS handshakes with clients of {}", frontend.name);
            Tls::Ends(evidence(haproxy, what, "show stat"))
        }
        (None, Some(_)) => Tls::None,
        (None, None) => Tls::Unknown,
    }
}

/// In mode tcp what passes may be TLS between others. On loopback and on a Unix socket nothing is on a wire.
fn is_plain_on_a_wire(server: &HaproxyServer) -> bool {
    let address = server.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
    let is_on_a_wire = address.is_some_and(|address| {
        let address = address.to_canonical();
        !address.is_loopback() && !address.is_unspecified()
    });
    server.use_tls == Some(false) && server.mode == "http" && is_on_a_wire
}

fn plaintext(haproxy: Dated<'_, HaproxyFacts>, server: &HaproxyServer, tls: &Evidence) -> Weakness {
    let address = address(server);
    Weakness {
        subject: subject(server),
        confidence: Confidence::Likely,
        evidence: vec![
            evidence(
                haproxy,
                format!(
                    "srv_use_ssl 0 for {} at {address}; a tunnel below (WireGuard, IPsec) cannot be seen",
                    subject(server)
                ),
                "show servers state",
            ),
            tls.clone(),
        ],
        advice: format!(
            "let the server speak TLS, and in backend {}: server {} {} ssl verify required ca-file /etc/ssl/certs/ca-certificates.crt",
            server.backend,
            server.name,
            tls_address(server),
        ),
    }
}

fn subject(server: &HaproxyServer) -> String {
    format!("{}/{}", server.backend, server.name)
}

fn address(server: &HaproxyServer) -> String {
    with_port(server, server.port.filter(|port| *port > 0))
}

/// Where the same server would speak TLS.
fn tls_address(server: &HaproxyServer) -> String {
    const HTTP: u16 = 80;
    const HTTPS: u16 = 443;
    with_port(
        server,
        server.port.filter(|port| *port > 0).map(|port| if port == HTTP { HTTPS } else { port }),
    )
}

fn with_port(server: &HaproxyServer, port: Option<u16>) -> String {
    let address = server.address.as_deref().unwrap_or("?");
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    port.map_or(address.clone(), |port| format!("{address}:{port}"))
}

fn evidence(haproxy: Dated<'_, HaproxyFacts>, what: String, question: &str) -> Evidence {
    Evidence { what, place: format!("{question} on {}", haproxy.facts.source), at: haproxy.at }
}

#[cfg(test)]
mod tests {
    use super::super::Knowledge;
    use super::*;
    use crate::facts::{HaproxyBackend, HaproxyFrontend, HaproxyProcess, TlsBinds};

    fn server(name: &str, address: &str, use_tls: Option<bool>) -> HaproxyServer {
        HaproxyServer {
            backend: "app".to_owned(),
            name: name.to_owned(),
            mode: "http".to_owned(),
            status: "UP".to_owned(),
            address: Some(address.to_owned()),
            port: Some(80),
            use_tls,
            ..HaproxyServer::default()
        }
    }

    fn draw(rule: &Rule, facts: &HaproxyFacts) -> Draw {
        (rule.draw)(&Knowledge { haproxy: Some(Dated { facts, at: 5 }), ..Knowledge::default() })
    }

    fn subjects(draw: Draw) -> Vec<String> {
        let Draw::Found(found) = draw else { panic!("{draw:?}") };
        found.into_iter().map(|weakness| weakness.subject).collect()
    }

    fn binds(lines: &[&str]) -> Option<TlsBinds> {
        let lines = lines.iter().map(|line| ("h.cfg:3".to_owned(), (*line).to_owned())).collect();
        Some(TlsBinds { files: vec!["h.cfg".to_owned()], lines })
    }

    #[test]
    fn plaintext_is_found_where_tls_ends_and_the_next_hop_is_on_a_wire() {
        let mut facts = HaproxyFacts {
            source: "/run/haproxy/ro.sock".to_owned(),
            servers: vec![
                server("web1", "10.0.0.2", Some(false)),
                server("web2", "10.0.0.3", Some(true)),
                server("local", "127.0.0.1", Some(false)),
                server("local6", "::1", Some(false)),
                server("six", "fd00::2", Some(false)),
                HaproxyServer { mode: "tcp".to_owned(), ..server("db", "10.0.0.4", Some(false)) },
                HaproxyServer { address: None, ..server("sock", "", Some(false)) },
            ],
            tls_binds: binds(&["bind :443 ssl crt /a.pem"]),
            ..HaproxyFacts::default()
        };
        let Draw::Found(found) = draw(&BACKEND_PLAINTEXT, &facts) else { panic!("nothing was found") };
        let [first, second] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((first.subject.as_str(), second.subject.as_str()), ("app/web1", "app/six"));
        assert_eq!(first.confidence, Confidence::Likely);
        assert!(first.advice.contains("server web1 10.0.0.2:443 ssl verify required"), "{}", first.advice);
        assert!(second.evidence[0].what.contains("[fd00::2]:80"), "{second:?}");
        assert_eq!(first.evidence[1].place, "h.cfg:3");
        // Without TLS at the front there is none that could end here.
        facts.tls_binds = binds(&[]);
        assert_eq!(draw(&BACKEND_PLAINTEXT, &facts), Draw::Clear);
        // A handshake proves it without the configuration; with neither it is not known.
        facts.tls_binds = None;
        assert!(matches!(draw(&BACKEND_PLAINTEXT, &facts), Draw::Unknown { .. }));
        facts.frontends = vec![HaproxyFrontend { tls_handshakes: Some(2), ..HaproxyFrontend::default() }];
        assert_eq!(subjects(draw(&BACKEND_PLAINTEXT, &facts)).len(), 2);
        for server in &mut facts.servers {
            server.use_tls = None;
        }
        assert!(matches!(draw(&BACKEND_PLAINTEXT, &facts), Draw::Unknown { .. }));
        facts.servers.clear();
        assert_eq!(draw(&BACKEND_PLAINTEXT, &facts), Draw::Clear);
    }

    #[test]
    fn servers_that_are_down_are_found_and_those_in_maintenance_are_not() {
        let with = |name: &str, status: &str| HaproxyServer {
            status: status.to_owned(),
            since_s: Some(9),
            ..server(name, "10.0.0.2", Some(true))
        };
        let mut facts = HaproxyFacts {
            servers: vec![
                with("a", "UP 1/3"),
                with("b", "DOWN 1/2"),
                with("c", "MAINT"),
                with("d", "no check"),
                with("e", "DOWN (agent)"),
                with("f", "DRAIN"),
            ],
            backends: vec![HaproxyBackend { name: "app".to_owned(), status: "DOWN".to_owned() }],
            ..HaproxyFacts::default()
        };
        let Draw::Found(found) = draw(&SERVER_DOWN, &facts) else { panic!("nothing was found") };
        assert_eq!(found.iter().map(|weak| weak.subject.as_str()).collect::<Vec<_>>(), ["app/b", "app/e"]);
        assert!(found[0].evidence[0].what.contains("DOWN 1/2 since 9 s; its backend has no server left"));
        facts.servers.truncate(1);
        assert_eq!(draw(&SERVER_DOWN, &facts), Draw::Clear);
    }

    #[test]
    fn dropped_lines_are_said_with_their_number() {
        let mut facts = HaproxyFacts::default();
        assert_eq!(draw(&LOGS_DROPPED, &facts), Draw::Nothing);
        facts.process = Some(HaproxyProcess { pid: 4, uptime_s: 60, dropped_logs: 0 });
        assert_eq!(draw(&LOGS_DROPPED, &facts), Draw::Clear);
        facts.process = Some(HaproxyProcess { pid: 4, uptime_s: 60, dropped_logs: 31 });
        let Draw::Found(found) = draw(&LOGS_DROPPED, &facts) else { panic!("nothing was found") };
        assert!(found[0].evidence[0].what.contains("DroppedLogs 31"), "{found:?}");
    }
}
