//! The security checks, S1 to S16: each a promise of `docs/security.md`, tested through the front door with a control.
//!
//! The number stands first in a test's name. What the parts share is here: a raw client, what acts on a terminal, and
//! how much memory a process took. Nothing here is a penetration test of other programs.

mod bombs;
mod content;
mod files;
mod load;
mod operator;
mod port;
mod secrets;
mod supply;
mod terminal;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::support::get;

/// Set by who runs the tests without root and accepts that what needs it is left out.
const WITHOUT_ROOT: &str = "WATCHPOST_TEST_WITHOUT_ROOT";

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Whether this is root. Without it the test fails with a clear word, unless it was said that root is not there.
fn is_root(what: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os(WITHOUT_ROOT).is_some(), "{what} needs root; {WITHOUT_ROOT}=1 leaves it out");
    println!("left out without root: {what}");
    false
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An answer of the status port.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

/// Sends bytes as they are, and reads until the port closes; status 0 where it says nothing.
fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    // The port may cut a request that is too long before it has all of it.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// A GET with further header lines, each with its line end.
fn ask(address: SocketAddr, path: &str, lines: &str) -> Answer {
    send(address, format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n").as_bytes())
}

/// A GET that must be answered, as a browser on this host sends it.
fn body_of(address: SocketAddr, path: &str) -> String {
    get(address, path).unwrap_or_else(|| panic!("{path} is not answered")).1
}

/// What of a text acts on a terminal: control characters but the newline, what reorders or hides, bytes that are no text.
fn acting(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for chunk in bytes.utf8_chunks() {
        let acts = |c: &char| {
            (c.is_control() && *c != '\n')
                || matches!(*c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        };
        found.extend(chunk.valid().chars().filter(acts).map(|c| format!("U+{:04X}", u32::from(c))));
        found.extend(chunk.invalid().iter().map(|byte| format!("byte {byte:02X}")));
    }
    found
}

/// A number of `/proc/PID/status` in KiB, such as `VmHWM`, the most memory that a process ever took.
fn memory_kib(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).expect("a number of KiB")
}

/// Every file and directory below a directory, itself included.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut paths = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).expect("it can be listed").flatten() {
        if entry.file_type().expect("a type").is_dir() {
            paths.extend(below(&entry.path()));
        } else {
            paths.push(entry.path());
        }
    }
    paths
}

#[test]
fn what_acts_on_a_terminal_is_seen() {
    assert_eq!(acting("Grüße\n\\u{1b}".as_bytes()), [""; 0]);
    let seen = acting(b"\x1b\r\x7f\xc2\x9b\x9b\xe2\x80\xae");
    assert_eq!(seen, ["U+001B", "U+000D", "U+007F", "U+009B", "byte 9B", "U+202E"]);
}
