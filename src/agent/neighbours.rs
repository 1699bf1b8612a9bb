//! Where to ask what stands before and behind the web server: settings to targets of probes.

use crate::config::{Config, Firewall, Haproxy};
use crate::probes::{FirewallTarget, HaproxyTarget};

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
