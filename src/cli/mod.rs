//! The commands. Each prints for people on stdout, fails with one [`Failure`], and assembles what it needs.

pub mod analyze;
pub mod args;
pub mod check;
pub mod demo;
pub mod explain;
pub mod exposure;
pub mod once;
pub mod own_log;
pub mod receiver;
pub mod spool;
pub mod status;

use std::error::Error;
use std::fmt;
use std::io;

use crate::config::Config;
use receiver::{ReceiverError, ReceiverOptions};
use status::StatusError;

/// Exit codes of sysexits.h, as far as they are used.
pub mod exit {
    /// The command line was wrong.
    pub const USAGE: u8 = 64;
    /// Something that is needed is not there: no agent answers, the port is taken.
    pub const UNAVAILABLE: u8 = 69;
    /// The numbers do not add up: a fault of this program.
    pub const SOFTWARE: u8 = 70;
    /// Reading or writing failed.
    pub const IO: u8 = 74;
    /// The rights do not suffice.
    pub const PERMISSION: u8 = 77;
    /// The settings are wrong.
    pub const SETTINGS: u8 = 78;
}

/// Why a command ends early: what to say, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Exit code, of [`exit`].
    pub code: u8,
    /// What was being done, to what, why it failed, and the cure. May have several lines.
    pub message: String,
}

impl Failure {
    /// A failure with a code of [`exit`].
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// A failed read or write: 77 where rights are missing, else 74.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Failure {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let code = if denied { exit::PERMISSION } else { exit::IO };
        Failure::new(code, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// An error with all its causes, once, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A runtime for a command that asks or serves over the network.
///
/// # Errors
/// When the system gives no event queue.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("the network cannot be used", &error))
}

/// `watchpost status`: asks the agent of these settings.
///
/// # Errors
/// 69 when no agent answers, 77 when it wants another token, 74 when stdout cannot be written.
pub fn status_of_agent(config: &Config, json: bool) -> Result<(), Failure> {
    let Some(address) = config.status_addr else {
        return Err(Failure::new(exit::UNAVAILABLE, "the status port is off (WATCHPOST_STATUS_ADDR=off)"));
    };
    let token = config.status_token.clone();
    let asked = runtime()?.block_on(status::run(address, token, json, &mut io::stdout()));
    asked.map_err(|error| {
        let code = match error {
            StatusError::Unauthorized(_) => exit::PERMISSION,
            StatusError::Output(_) => exit::IO,
            _ => exit::UNAVAILABLE,
        };
        Failure::new(code, chain(&error))
    })
}

/// `watchpost receiver`: serves until SIGINT, SIGTERM or its own end.
///
/// # Errors
/// 64 for options that make no sense, 69 for an address and 74 for a directory that cannot be used.
pub fn run_receiver(options: ReceiverOptions) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let served = runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).ok();
        let stop = async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                Some(()) = async { terminate.as_mut()?.recv().await } => {}
            }
        };
        let announce =
            |address| println!("receiving at http://{address}/ (counts at http://{address}/stats)");
        receiver::serve(options, announce, stop).await
    });
    let stats = served.map_err(|error| {
        let code = match error {
            ReceiverError::FailRate(_) | ReceiverError::Status(_) | ReceiverError::NotLoopback(_) => {
                exit::USAGE
            }
            ReceiverError::Listen { .. } => exit::UNAVAILABLE,
            _ => exit::IO,
        };
        Failure::new(code, chain(&error))
    })?;
    println!(
        "{} records in {} requests, {} of them repeated",
        grouped(stats.records),
        grouped(stats.requests),
        grouped(stats.duplicates)
    );
    Ok(())
}

/// Text of strangers for a terminal: control characters, escapes and direction marks become visible.
pub fn printable(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if acts_on_terminal(character) {
                out.extend(character.escape_unicode());
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    out
}

/// The same for a message of several lines: its newlines stay.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(|line| printable(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// The same JSON, of any number of lines, with what a terminal may act upon as JSON's own escapes.
pub fn printable_json(json: &[u8]) -> String {
    let mut out = String::with_capacity(json.len());
    for character in String::from_utf8_lossy(json).chars() {
        if character == '\n' || !acts_on_terminal(character) {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// Whether a character does something else than show itself: C0, DEL and C1, what reorders or hides what stands
/// around it (Unicode's bidirectional controls, joiners, tags), and the separators that some viewers take for a newline.
pub(crate) fn acts_on_terminal(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A number with separators between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest binary unit that keeps the number at one or more.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printable_moves_the_cursor() {
        assert_eq!(printable(b"a\x1b[31mb\xff\r\xe2\x80\xae"), "a\\u{1b}[31mb\\xFF\\u{d}\\u{202e}");
        assert_eq!(printable("Grüße".as_bytes()), "Grüße");
        assert_eq!(printable(b"\xc2\x9b2J\x9b\x7f"), "\\u{9b}2J\\x9B\\u{7f}");
        assert_eq!(printable_lines("a\nb\r\x1b"), "a\nb\\u{d}\\u{1b}");
    }

    #[test]
    fn json_for_a_terminal_is_the_same_json() {
        let value = serde_json::json!({"a\u{202e}": "\u{7f}\u{9b}\u{e0041}\u{61c}ü\"\\\n"});
        let shown = printable_json(value.to_string().as_bytes());
        assert!(!shown.chars().any(acts_on_terminal), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
        assert_eq!(printable_json(b"{}\n{\"a\":1}\n"), "{}\n{\"a\":1}\n");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_024, 3 << 30].map(size), ["0 B", "1023 B", "1.0 KiB", "3.0 GiB"]);
    }
}
