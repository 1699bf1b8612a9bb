//! Reading files of `/proc` whole, and finding values in their text.
//!
//! It must never keep a file open: a path that vanishes or comes back (a module is loaded, a
//! container is moved) must show at the next sample. Opening costs about two microseconds a file.

use std::fs::File;
use std::io::{ErrorKind, Read};

use super::SourceError;

/// No file read here is longer on a sane host; `/proc/stat` of 1 024 cores has 200 kB.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Linux answers this where a file is there and its feature is switched off (`psi=0`).
const EOPNOTSUPP: i32 = 95;

/// The whole text of a file, bytes that are not UTF-8 replaced.
///
/// A file that is not there is [`SourceError::NotAvailable`], any other failure is
/// [`SourceError::Read`]. Text past [`TEXT_BYTES_MAX`] is left out.
pub(super) fn read(path: &str) -> Result<String, SourceError> {
    let mut bytes = Vec::with_capacity(4096);
    let outcome = File::open(path).and_then(|file| file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes));
    match outcome {
        Ok(_) => Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(SourceError::NotAvailable(format!("this kernel has no {path}")))
        }
        Err(error) if error.raw_os_error() == Some(EOPNOTSUPP) => {
            Err(SourceError::NotAvailable(format!("{path} is switched off in this kernel")))
        }
        Err(source) => Err(SourceError::Read { path: path.to_owned(), source }),
    }
}

/// The first number after `key` on the line that begins with it: `key` is the whole first word,
/// with its colon if it has one, as in `MemTotal:  1024 kB` or `ctxt 347435`.
pub(super) fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

/// The value of `name` in a group of `/proc/net/snmp` and `/proc/net/netstat`, where a line of names
/// stands above a line of values, both beginning with the group: `Tcp: RtoMin ...`, `Tcp: 200 ...`.
pub(super) fn paired(text: &str, group: &str, name: &str) -> Option<i64> {
    let mut lines = text.lines().filter(|line| line.split_ascii_whitespace().next() == Some(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|word| word == name)?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

/// The number after the word `name` on the line that begins with `group`, as in `/proc/net/sockstat`:
/// `TCP: inuse 1 orphan 0 tw 1`.
pub(super) fn named(text: &str, group: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(group))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

/// A share between 0 and 1 of `part` in `whole`, to four decimals; zero of nothing.
///
/// Four decimals are finer than any counter of the kernel over an interval of a second or more.
pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole <= 0.0 {
        return 0.0;
    }
    round_to_4((part / whole).clamp(0.0, 1.0))
}

/// `value` to four decimals, so that records do not carry digits that mean nothing.
pub(super) fn round_to_4(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_numbers_by_whole_words() {
        let text = "MemTotal:  1024 kB\nMemFree:x\nctxt 7\n";
        assert_eq!(number(text, "MemTotal:"), Some(1024));
        assert_eq!(number(text, "ctxt"), Some(7));
        assert_eq!(number(text, "Mem"), None);
        assert_eq!(number(text, "MemFree:"), None);
        let text = "Tcp: A B\nTcp: 1 -1\nTcpExt: C\nTcpExt: 9\n";
        assert_eq!(paired(text, "Tcp:", "B"), Some(-1));
        assert_eq!(paired(text, "TcpExt:", "C"), Some(9));
        assert_eq!(paired(text, "TcpExt:", "A"), None);
        let text = "sockets: used 16\nTCP: inuse 1 orphan 0 tw 3\n";
        assert_eq!(named(text, "TCP:", "tw"), Some(3));
        assert_eq!(named(text, "TCP:", "mem"), None);
    }

    #[test]
    fn what_is_not_there_is_not_a_failure() {
        let missing = read("/proc/there/is/no/such/file");
        assert!(matches!(missing, Err(SourceError::NotAvailable(_))), "{missing:?}");
        assert!(matches!(read("/proc"), Err(SourceError::Read { .. })));
    }

    #[test]
    fn a_ratio_is_a_share() {
        assert_eq!(ratio(1.0, 3.0), 0.3333);
        assert_eq!(ratio(1.0, 0.0), 0.0);
        assert_eq!(ratio(5.0, 3.0), 1.0);
    }
}
