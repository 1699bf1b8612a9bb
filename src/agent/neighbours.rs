//! Where to ask what stands before and behind the web server: settings to targets of probes.

use crate::config::{Config, Haproxy};
use crate::probes::HaproxyTarget;

/// Where to ask HAProxy; `None` where that is switched off.
pub(super) fn haproxy_target(config: &Config) -> Option<HaproxyTarget> {
    match &config.haproxy {
        Haproxy::None => None,
        Haproxy::Auto => Some(HaproxyTarget::Auto),
        Haproxy::Socket(path) => Some(HaproxyTarget::Socket(path.clone())),
        Haproxy::Url(url) => Some(HaproxyTarget::Page(url.clone())),
    }
}
