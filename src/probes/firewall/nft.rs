//! Asks nftables for its rules: a command of the system, and only where the agent has the right that it needs.

use std::path::PathBuf;
use std::time::Duration;

use super::super::ProbeError;
use super::super::child::{self, Limits};

/// Where packages have it. No search: what stands in PATH is not asked.
const PLACES: &[&str] = &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];
/// Rules of thousands of lines take less; sets with a hundred thousand addresses have as much.
const LIMITS: Limits = Limits { time: Duration::from_secs(10), bytes: 16 << 20 };
/// The capability's number (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

const CURE: &str = "systemctl edit watchpost, and below [Service]: AmbientCapabilities=CAP_NET_ADMIN and \
                    CapabilityBoundingSet=CAP_NET_ADMIN (with it the agent could also change the network)";

/// The command's path, where there is one.
pub(super) fn find() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The rules, as `nft -j list ruleset` prints them.
///
/// # Errors
/// No right, no such command, a command that fails, hangs or prints too much.
pub(super) async fn ruleset(command: Option<&PathBuf>) -> Result<Vec<u8>, ProbeError> {
    if !may_ask() {
        return Err(denied("the rules of the firewall need CAP_NET_ADMIN".to_owned()));
    }
    let Some(path) = command else {
        return Err(ProbeError::Denied {
            what: "the rules of the firewall cannot be read: there is no /usr/sbin/nft".to_owned(),
            cure: "apt install nftables".to_owned(),
        });
    };
    let shown = path.display();
    child::run(path, &["-j", "list", "ruleset"], &LIMITS).await.map_err(|error| {
        if error.contains("not permitted") {
            denied(format!("{shown}: {error}"))
        } else {
            ProbeError::Failed(format!("{shown} {error}"))
        }
    })
}

fn denied(what: String) -> ProbeError {
    ProbeError::Denied { what, cure: CURE.to_owned() }
}

/// Whether this process has the right: without it no command need be run to hear of it.
fn may_ask() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    rights
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_NET_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What a command of this text comes to.
    fn run(script: &str) -> Result<Vec<u8>, ProbeError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("nft");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode is set");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(ruleset(Some(&path)))
    }

    #[test]
    fn a_command_that_fails_or_floods_is_said() {
        if !may_ask() {
            println!("left out: needs CAP_NET_ADMIN");
            return;
        }
        assert_eq!(run("echo '{}'; test \"$*\" = '-j list ruleset'").expect("it ends well"), b"{}\n");
        let said = |script: &str| run(script).expect_err("it does not").to_string();
        assert!(said("echo odd >&2; exit 1").ends_with("nft exited with 1: odd"));
        let refused = run("echo 'Operation not permitted (you must be root)' >&2; exit 1");
        assert!(matches!(refused, Err(ProbeError::Denied { .. })), "{refused:?}");
        assert!(said("exec yes").contains("printed more than"), "{}", said("exec yes"));
    }
}
