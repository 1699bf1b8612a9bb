//! The servers of a tree of directives: where they listen, with which certificates, and where stub_status stands.
//!
//! What it owns: `listen`, `server_name`, `ssl_certificate`, `stub_status` and the `allow` and `deny` around it, with nginx's rules
//! of inheritance. What it must never do: take a location that is a regular expression for a path.

use super::tree::{Directive, Tree};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The port of a `listen` that states none.
const HTTP_PORT: u16 = 80;
/// Servers that are kept; a farm of virtual hosts has thousands.
const SERVERS_MAX: usize = 10_000;

/// One `server` block of `http`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its `server_name`s, as written.
    pub names: Vec<String>,
    /// Where it listens; `*:80` where nothing is stated.
    pub listens: Vec<Listen>,
    /// The files of its `ssl_certificate`s, its own or those of `http`.
    pub certificates: Vec<String>,
    /// Where it answers with its counters.
    pub stub_status: Vec<StubLocation>,
}

/// One `listen` directive with a port; those on a unix socket are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address or name as written, without brackets; `*` for every address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// A location in which `stub_status` stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubLocation {
    /// The path to ask for.
    pub path: String,
    /// Whether its requests are written to an access log.
    pub is_logged: bool,
    /// Whether a `deny all` keeps out those who are not allowed by name.
    pub is_restricted: bool,
}

/// The servers of every `http` block, in the order of the file.
pub(crate) fn servers(tree: &Tree) -> Vec<Server> {
    let mut found = Vec::new();
    for http in named(&tree.directives, "http") {
        let outer = Inherited::default().within(&http.block);
        for server in named(&http.block, "server").take(SERVERS_MAX.saturating_sub(found.len())) {
            found.push(read_server(server, &outer));
        }
    }
    found
}

/// What a block takes from those around it.
#[derive(Clone, Debug)]
struct Inherited {
    certificates: Vec<String>,
    is_logged: bool,
    is_restricted: bool,
}

impl Default for Inherited {
    fn default() -> Inherited {
        Inherited { certificates: Vec::new(), is_logged: true, is_restricted: false }
    }
}

impl Inherited {
    /// The same, with what a block states in place of it.
    fn within(&self, block: &[Directive]) -> Inherited {
        let certificates: Vec<String> = arguments(block, "ssl_certificate").map(str::to_string).collect();
        let mut logs = arguments(block, "access_log").peekable();
        let states_access = block.iter().any(|directive| matches!(directive.name.as_str(), "allow" | "deny"));
        Inherited {
            certificates: if certificates.is_empty() { self.certificates.clone() } else { certificates },
            is_logged: if logs.peek().is_some() { !logs.any(|path| path == "off") } else { self.is_logged },
            is_restricted: if states_access {
                arguments(block, "deny").any(|whom| whom == "all")
            } else {
                self.is_restricted
            },
        }
    }
}

fn read_server(server: &Directive, outer: &Inherited) -> Server {
    let inherited = outer.within(&server.block);
    let mut listens: Vec<Listen> = named(&server.block, "listen").filter_map(read_listen).collect();
    if named(&server.block, "listen").next().is_none() {
        listens.push(Listen { host: "*".to_string(), port: HTTP_PORT, tls: false });
    }
    let mut stub_status = Vec::new();
    find_stub_status(&server.block, "/", &inherited, &mut stub_status);
    let names = named(&server.block, "server_name").flat_map(|directive| directive.arguments.iter().cloned());
    Server { names: names.collect(), listens, certificates: inherited.certificates, stub_status }
}

/// Looks into locations and what nests in them; the tree bounds the depth.
fn find_stub_status(block: &[Directive], path: &str, inherited: &Inherited, found: &mut Vec<StubLocation>) {
    let is_on = |directive: &Directive| directive.arguments.first().is_none_or(|word| word != "off");
    if named(block, "stub_status").any(is_on) {
        let Inherited { is_logged, is_restricted, .. } = *inherited;
        found.push(StubLocation { path: path.to_string(), is_logged, is_restricted });
    }
    for location in named(block, "location") {
        if let Some(inner) = path_of(location) {
            find_stub_status(&location.block, inner, &inherited.within(&location.block), found);
        }
    }
}

/// A path that leads into a location; `None` for one that is a regular expression or has a name.
fn path_of(location: &Directive) -> Option<&str> {
    match location.arguments.as_slice() {
        [path] if path.starts_with('/') => Some(path),
        [modifier, path] if matches!(modifier.as_str(), "=" | "^~") => Some(path),
        _ => None,
    }
}

/// `listen 80`, `listen 127.0.0.1:8080 ssl`, `listen [::]:443 ssl`, `listen example.org`.
fn read_listen(directive: &Directive) -> Option<Listen> {
    let [address, options @ ..] = directive.arguments.as_slice() else { return None };
    if address.starts_with("unix:") {
        return None;
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None if address.bytes().all(|byte| byte.is_ascii_digit()) => ("*", Some(address.as_str())),
            None => (address.as_str(), None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => HTTP_PORT,
    };
    let tls = options.iter().any(|option| option == "ssl" || option == "quic");
    Some(Listen { host: host.to_string(), port, tls })
}

fn named<'t>(block: &'t [Directive], name: &'t str) -> impl Iterator<Item = &'t Directive> {
    block.iter().filter(move |directive| directive.name == name)
}

/// The first argument of each directive of this name.
fn arguments<'t>(block: &'t [Directive], name: &'t str) -> impl Iterator<Item = &'t str> {
    named(block, name).filter_map(|directive| directive.arguments.first().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::super::{Place, access_logs};
    use super::*;

    fn found(text: &str) -> Vec<Server> {
        let place = Place { main_file: "/n.conf", prefix: "/", default_access_log: "a.log" };
        access_logs(text, &place, &mut |_| Vec::new()).servers
    }

    fn listen(host: &str, port: u16, tls: bool) -> Listen {
        Listen { host: host.to_string(), port, tls }
    }

    #[test]
    fn every_form_of_listen() {
        let servers = found(
            "http { server { listen 80; listen [::]:443 ssl http2; listen 127.0.0.1:8080 default_server; listen *:81;
                listen localhost; listen unix:/run/x.sock; listen [::1]; listen 99999; } server { } }",
        );
        assert_eq!(
            servers[0].listens,
            [
                listen("*", 80, false),
                listen("::", 443, true),
                listen("127.0.0.1", 8080, false),
                listen("*", 81, false),
                listen("localhost", 80, false),
                listen("::1", 80, false),
            ]
        );
        assert_eq!(servers[1].listens, [listen("*", 80, false)]);
    }

    #[test]
    fn the_counters_are_found_with_who_may_ask_and_whether_it_is_logged() {
        let servers = found(
            "http { access_log off; ssl_certificate /all.pem;
              server { server_name a b; location = /one { stub_status; allow 127.0.0.1; deny all; } }
              server { access_log /x.log; ssl_certificate /own.pem; deny all;
                location /two { stub_status on; allow all; location ^~ /two/three { access_log off; stub_status; } }
                location ~ ^/x { stub_status; } location /off { stub_status off; } } }",
        );
        let stub = |path: &str, is_logged, is_restricted| StubLocation {
            path: path.to_string(),
            is_logged,
            is_restricted,
        };
        assert_eq!(servers[0].names, ["a", "b"]);
        assert_eq!(servers[0].certificates, ["/all.pem"]);
        assert_eq!(servers[0].stub_status, [stub("/one", false, true)]);
        assert_eq!(servers[1].certificates, ["/own.pem"]);
        assert_eq!(servers[1].stub_status, [stub("/two", true, false), stub("/two/three", false, false)]);
    }
}
