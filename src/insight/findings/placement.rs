//! Whether one host does everything: then what takes it down takes down everything, and who breaks into one part is in all.

use super::{Confidence, Draw, Evidence, Rule, Severity, Weakness};
use crate::facts::{FirewallFacts, Listener, Program};

/// The processes of each part, by the beginnings of their names.
const WEB: &[&str] = &["nginx", "apache2", "httpd", "caddy", "lighttpd"];
const APPLICATION: &[&str] = &[
    "gunicorn",
    "uwsgi",
    "node",
    "MainThread",
    "python",
    "java",
    "php-fpm",
    "ruby",
    "puma",
    "unicorn",
    "beam.smp",
    "dotnet",
];
const DATABASE: &[&str] = &["mariadbd", "mysqld", "postgres"];

const WEB_PORTS: &[u16] = &[80, 443, 8080, 8443];
const DATABASE_PORTS: &[u16] = &[3306, 5432];
/// Parts of the paths of their unix sockets.
const DATABASE_SOCKETS: &[&str] = &["mysqld.sock", "mysql.sock", ".s.PGSQL."];
const APPLICATION_SOCKETS: &[&str] = &["php", "gunicorn", "uwsgi", "puma", "unicorn"];
/// Below are the ports of the system's own services.
const OWN_PORTS_FROM: u16 = 1024;

/// Web server, application and database on one host.
pub(super) static ALL_IN_ONE: Rule = Rule {
    id: "host.all-in-one",
    severity: Severity::Medium,
    title: "one host carries web server, application and database",
    draw: |known| {
        let Some(firewall) = known.firewall else { return Draw::Nothing };
        let Some(programs) = &firewall.facts.programs else {
            return Draw::Unknown {
                why: "/proc is mounted so that the processes of others are hidden".to_owned(),
                cure: "mount /proc without hidepid, or let the agent join the group of its gid=".to_owned(),
            };
        };
        let parts = [
            ("web server", WEB, web as Place),
            ("application", APPLICATION, application as Place),
            ("database", DATABASE, database as Place),
        ];
        let seen = parts.map(|(part, names, place)| {
            let mut of_part =
                programs.iter().filter(|one| names.iter().any(|name| one.name.starts_with(name)));
            of_part.find_map(|program| {
                let place = place(firewall.facts, program)?;
                Some(format!("{part}: {} of user {}, {place}", program.name, program.uid))
            })
        });
        let [Some(web), Some(application), Some(database)] = seen else { return Draw::Clear };
        let place = "the sockets that listen, joined to processes by their users";
        let evidence = [web, application, database].into_iter().map(|what| Evidence {
            what,
            place: place.to_owned(),
            at: firewall.at,
        });
        Draw::Found(vec![Weakness {
            subject: String::new(),
            // A container in this network, or a proxy before a database elsewhere, looks the same.
            confidence: Confidence::Likely,
            evidence: evidence.collect(),
            advice: "move the database to a host of its own first: it holds what cannot be made again; then put a second web host \
                     beside this one"
                .to_owned(),
        }])
    },
};

/// Where a program listens, in words; `None` where nothing says that it does.
type Place = fn(&FirewallFacts, &Program) -> Option<String>;

/// nginx and its like open their ports as root, and go on as another user.
fn web(facts: &FirewallFacts, program: &Program) -> Option<String> {
    listener(facts, |one| (one.uid == program.uid || one.uid == 0) && WEB_PORTS.contains(&one.port))
}

fn database(facts: &FirewallFacts, program: &Program) -> Option<String> {
    let is_alone = program.uid != 0
        && facts
            .programs
            .iter()
            .flatten()
            .filter(|other| other.uid == program.uid)
            .all(|other| DATABASE.iter().any(|name| other.name.starts_with(name)));
    listener(facts, |one| one.uid == program.uid && (is_alone || DATABASE_PORTS.contains(&one.port)))
        .or_else(|| unix_socket(facts, DATABASE_SOCKETS))
}

fn application(facts: &FirewallFacts, program: &Program) -> Option<String> {
    let is_web = |port: u16| program.uid == 0 && WEB_PORTS.contains(&port);
    let is_own = |port: u16| port >= OWN_PORTS_FROM && !DATABASE_PORTS.contains(&port) && !is_web(port);
    listener(facts, |one| one.uid == program.uid && is_own(one.port)).or_else(|| {
        let name = APPLICATION_SOCKETS.iter().find(|name| program.name.starts_with(**name))?;
        unix_socket(facts, &[name])
    })
}

fn listener(facts: &FirewallFacts, is_meant: impl Fn(&Listener) -> bool) -> Option<String> {
    let found = facts.listeners.iter().find(|one| is_meant(one))?;
    Some(format!("{} of user {}", std::net::SocketAddr::new(found.address, found.port), found.uid))
}

fn unix_socket(facts: &FirewallFacts, parts: &[&str]) -> Option<String> {
    facts.unix_sockets.iter().find(|path| parts.iter().any(|part| path.contains(part))).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::{Dated, Knowledge};
    use super::*;
    use crate::facts::Rules;

    /// What is drawn of these listeners (address, port, uid), unix sockets and programs (name, uid).
    fn drawn(listeners: &[(&str, u16, u32)], unix: &[&str], programs: Option<&[(&str, u32)]>) -> Draw {
        let listener = |(address, port, uid): &(&str, u16, u32)| Listener {
            address: address.parse().expect("an address"),
            port: *port,
            uid: *uid,
            passage: None,
        };
        let program = |(name, uid): &(&str, u32)| Program { name: (*name).to_owned(), uid: *uid };
        let facts = FirewallFacts {
            allowed: None,
            rules: Rules::Unread { why: String::new(), cure: String::new() },
            listeners: listeners.iter().map(listener).collect(),
            unix_sockets: unix.iter().map(|path| (*path).to_owned()).collect(),
            programs: programs.map(|programs| programs.iter().map(program).collect()),
        };
        let known = Knowledge { firewall: Some(Dated { facts: &facts, at: 1 }), ..Knowledge::default() };
        (ALL_IN_ONE.draw)(&known)
    }

    const WEB_SERVER: (&str, u16, u32) = ("0.0.0.0", 443, 0);
    const PROGRAMS: &[(&str, u32)] =
        &[("nginx", 0), ("nginx", 33), ("gunicorn", 998), ("mariadbd", 103), ("sshd", 0), ("python3", 0)];

    #[test]
    fn all_three_parts_are_named_with_process_and_place() {
        let listeners = [WEB_SERVER, ("127.0.0.1", 8000, 998), ("127.0.0.1", 3306, 103), ("0.0.0.0", 22, 0)];
        let Draw::Found(found) = drawn(&listeners, &[], Some(PROGRAMS)) else { panic!("found") };
        let what: Vec<&str> = found[0].evidence.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "web server: nginx of user 0, 0.0.0.0:443 of user 0",
                "application: gunicorn of user 998, 127.0.0.1:8000 of user 998",
                "database: mariadbd of user 103, 127.0.0.1:3306 of user 103",
            ]
        );
        assert_eq!(found[0].confidence, Confidence::Likely);
        let sockets = ["/run/php/php8.2-fpm.sock", "/run/mysqld/mysqld.sock"];
        let php: &[(&str, u32)] = &[("nginx", 33), ("php-fpm8.2", 0), ("mariadbd", 103)];
        assert!(matches!(drawn(&[WEB_SERVER], &sockets, Some(php)), Draw::Found(_)));
    }

    #[test]
    fn a_part_that_is_missing_or_does_not_listen_is_no_finding() {
        let app = ("127.0.0.1", 8000, 998);
        assert_eq!(drawn(&[WEB_SERVER, app], &[], Some(PROGRAMS)), Draw::Clear);
        // A proxy of another user before a database elsewhere.
        assert_eq!(drawn(&[WEB_SERVER, app, ("127.0.0.1", 3306, 99)], &[], Some(PROGRAMS)), Draw::Clear);
        assert_eq!(drawn(&[WEB_SERVER, ("127.0.0.1", 3306, 103)], &[], Some(PROGRAMS)), Draw::Clear);
        let no_web: &[(&str, u32)] = &[("gunicorn", 998), ("mariadbd", 103)];
        assert_eq!(drawn(&[WEB_SERVER, app, ("::", 3306, 103)], &[], Some(no_web)), Draw::Clear);
        assert!(matches!(drawn(&[], &[], None), Draw::Unknown { .. }));
    }
}
