//! One run of one script: a process group of its own, with limits, of which nothing is left.
//!
//! It gets no input, none of the agent's environment and none of its files. Whatever way the run ends, the whole group is
//! killed before its leader is reaped: until then its number belongs to nobody else.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// Where commands are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// For what was printed to arrive, once nobody of the group is left.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// For a killed process to be gone. One that sleeps in the kernel is reaped later.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);
/// Of the first line on stderr.
const COMPLAINT_CHARS_MAX: usize = 200;

/// What one run may take.
pub(super) struct Limits {
    pub(super) time: Duration,
    /// Of each of its two outputs.
    pub(super) bytes: usize,
}

/// What a script prints.
///
/// # Errors
/// In words: it cannot be started, it fails, or it goes beyond a limit.
pub(super) async fn run(script: &Path, limits: &Limits) -> Result<Vec<u8>, String> {
    let mut child = Command::new(script)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot_start)?;
    let mut group = Group::led_by(&child);
    let attended = timeout(limits.time, attend(&mut child, &mut group, limits.bytes)).await;
    let outcome = attended.unwrap_or_else(|_| {
        let seconds = limits.time.as_secs_f64();
        Err(format!("ran for more than {seconds} s, and was killed with all that it had started"))
    });
    group.kill();
    if timeout(REAP_TIMEOUT, child.wait()).await.is_ok() {
        group.is_gone();
    }
    let (status, output, complaint) = outcome?;
    if status.success() {
        return Ok(output);
    }
    Err(format!("{}{}", ended(status), first_line(&complaint)))
}

fn cannot_start(error: io::Error) -> String {
    const ENOEXEC: i32 = rustix::io::Errno::NOEXEC.raw_os_error();
    let hint = match (error.kind(), error.raw_os_error()) {
        (_, Some(ENOEXEC)) | (io::ErrorKind::NotFound, _) => {
            "; does its first line name an interpreter that is there (#!/bin/sh)?"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "; may the agent's user run it, and is its file system mounted noexec?"
        }
        _ => "",
    };
    format!("cannot be started: {error}{hint}")
}

/// How it ended, and what it printed on stdout and on stderr.
async fn attend(
    child: &mut Child,
    group: &mut Group,
    bytes_max: usize,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), String> {
    let unwatched = |error: io::Error| format!("cannot be watched: {error}");
    let outputs = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::try_join!(read(outputs.0, bytes_max), read(outputs.1, bytes_max)) };
    let (mut reading, mut exited) = (pin!(reading), pin!(exited(pid_of(child))));
    let early = tokio::select! {
        read = &mut reading => Some(read?),
        exited = &mut exited => {
            exited.map_err(unwatched)?;
            None
        }
    };
    if early.is_some() {
        // Both outputs are closed. It may still run.
        exited.await.map_err(unwatched)?;
    }
    // What it left in the background goes with it, and closes what it holds open.
    group.kill();
    let (output, complaint) = match early {
        Some(read) => read,
        None => timeout(DRAIN_TIMEOUT, reading).await.map_err(|_| {
            "ended, and something that it started outside of its process group holds its output open"
                .to_owned()
        })??,
    };
    let status = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
    group.is_gone();
    Ok((status, output, complaint))
}

/// Waits for the end of a process, and leaves it unreaped.
async fn exited(pid: Option<Pid>) -> io::Result<()> {
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    // Before the look: an end between the look and the wait must not be missed.
    let mut ends = signal(SignalKind::child())?;
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(pid), look)?.is_none() {
        ends.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
    }
    Ok(())
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()?.cast_signed())
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let Some(pipe) = pipe else { return Ok(bytes) };
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let read = pipe.take(limit.saturating_add(1)).read_to_end(&mut bytes).await;
    read.map_err(|error| format!("what it prints cannot be read: {error}"))?;
    if bytes.len() > bytes_max {
        return Err(format!("printed more than {bytes_max} bytes, and was killed"));
    }
    Ok(bytes)
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// The first line that says something, behind a colon.
fn first_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let Some(line) = text.lines().map(str::trim).find(|line| !line.is_empty()) else { return String::new() };
    let cut: String = line.chars().take(COMPLAINT_CHARS_MAX).collect();
    format!(": {cut}")
}

/// The process group of a script, killed when this goes.
struct Group(Option<Pid>);

impl Group {
    fn led_by(child: &Child) -> Group {
        Group(pid_of(child))
    }

    /// Only while the leader is not reaped.
    fn kill(&self) {
        if let Some(pid) = self.0 {
            // None of it may be left; then there is nothing to kill.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The leader is reaped: its number may be another's from here on.
    fn is_gone(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
