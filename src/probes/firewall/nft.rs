//! Asks nftables for its rules: the one command that the agent runs, and only where it has the right that it needs.
//!
//! `nft` gets no terminal, no environment and no shell. It has a deadline and a limit of output, and is killed with all that
//! it started when either is passed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::super::ProbeError;

/// Where packages have it. No search: what stands in PATH is not asked.
const PLACES: &[&str] = &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];
/// Rules of thousands of lines take less.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of JSON; sets with a hundred thousand addresses have as much.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Of complaints.
const ERROR_BYTES_MAX: usize = 4 << 10;
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
    let failed = |what: String| ProbeError::Failed(format!("{shown}: {what}"));
    let child = Command::new(path)
        .args(["-j", "list", "ruleset"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut group = Group(child);
    let finished = timeout(TIMEOUT, group.finish()).await;
    let finished = finished.map_err(|_| failed(format!("no end within {} s", TIMEOUT.as_secs())))?;
    let (is_well, output, complaint) = finished.map_err(|error| failed(error.to_string()))?;
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    if output.len() > OUTPUT_BYTES_MAX {
        return Err(failed(format!("it printed more than {OUTPUT_BYTES_MAX} bytes")));
    }
    match is_well {
        true => Ok(output),
        false if complaint.contains("not permitted") => Err(denied(format!("{shown}: {complaint}"))),
        false => Err(failed(format!("it failed: {complaint}"))),
    }
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

/// A process, and those that it may have started: they go together.
struct Group(Child);

impl Group {
    /// Whether it ended well, what it printed, and what it complained of; one byte over a limit where that was passed.
    async fn finish(&mut self) -> std::io::Result<(bool, Vec<u8>, Vec<u8>)> {
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let (output, complaint) =
            tokio::try_join!(bounded(stdout, OUTPUT_BYTES_MAX), bounded(stderr, ERROR_BYTES_MAX))?;
        if output.len() > OUTPUT_BYTES_MAX {
            return Ok((false, output, complaint));
        }
        Ok((self.0.wait().await?.success(), output, complaint))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No number where it was waited for.
        if let Some(leader) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn bounded(stream: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(bytes_max as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
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
        assert_eq!(run("echo '{}'; test $# = 3 && test -z \"$HOME\"").expect("it ends well"), b"{}\n");
        let said = |script: &str| run(script).expect_err("it does not").to_string();
        assert!(said("echo odd >&2; exit 1").ends_with("it failed: odd"), "{}", said("echo odd >&2; exit 1"));
        let refused = run("echo 'Operation not permitted (you must be root)' >&2; exit 1");
        assert!(matches!(refused, Err(ProbeError::Denied { .. })), "{refused:?}");
        assert!(said("exec yes").contains("printed more than"), "{}", said("exec yes"));
    }
}
