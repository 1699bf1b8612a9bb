//! Where to ask what stands before and behind the web server: settings to targets of probes.

use crate::config::{Config, Firewall, Haproxy, Mysql};
use crate::probes::{FirewallTarget, HaproxyTarget, MysqlTarget, Place};

/// Who the user of the agent is called where nobody says: by the shipped unit.
const USER: &str = "watchpost";

/// Where to ask HAProxy; `None` where that is switched off.
pub(super) fn haproxy_target(config: &Config) -> Option<HaproxyTarget> {
    match &config.haproxy {
        Haproxy::None => None,
        Haproxy::Auto => Some(HaproxyTarget::Auto),
        Haproxy::Socket(path) => Some(HaproxyTarget::Socket(path.clone())),
        Haproxy::Url(url) => Some(HaproxyTarget::Page(url.clone())),
    }
}

/// What the firewall is held to; `None` where it is not looked at.
pub(super) fn firewall_target(config: &Config) -> Option<FirewallTarget> {
    match &config.firewall {
        Firewall::None => None,
        Firewall::Auto => Some(FirewallTarget::new(None)),
        Firewall::Allowed(ports) => Some(FirewallTarget::new(Some(ports.clone()))),
    }
}

/// Where to ask MySQL, and as whom; `None` where that is switched off. On a socket that names no user it is the one that the
/// agent runs as, whom the server knows from the socket.
pub(super) fn mysql_target(config: &Config) -> Option<MysqlTarget> {
    let (place, user) = match &config.mysql {
        Mysql::None => return None,
        Mysql::Auto => (None, None),
        Mysql::Socket(path, user) => (Some(Place::Socket(path.clone())), user.clone()),
        Mysql::Port { user, host, port } => (Some(Place::Port(host.clone(), *port)), Some(user.clone())),
    };
    let user = user.unwrap_or_else(own_user);
    Some(MysqlTarget { place, user, password: config.mysql_password.clone() })
}

/// The name of the user that the process runs as.
fn own_user() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| USER.to_owned())
}
