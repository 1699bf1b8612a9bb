//! Which format the lines of a file are read with: the stated one, the one nginx.conf has for the file or the
//! file it was rotated from, else by the line.
//!
//! Never decides how a line is read: that is the agent's `LineReader`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::agent::line_reader::LineReader;
use crate::agent::plan::{Plan, PlanError};
use crate::config::{Config, LogFormat};

/// The formats of all files.
pub(super) struct Formats {
    plan: Plan,
    is_stated: bool,
}

impl Formats {
    /// Reads the settings and, where they leave it open, nginx.conf.
    ///
    /// # Errors
    /// A stated format that does not compile.
    pub(super) fn new(config: &Config) -> Result<Formats, PlanError> {
        Ok(Formats { plan: Plan::new(config)?, is_stated: config.access_log_format != LogFormat::Auto })
    }

    /// A reader for the lines of a file.
    pub(super) fn reader(&self, path: &Path) -> LineReader {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = absolute.as_os_str().as_bytes();
        let known = self.plan.logs.iter().find(|log| is_log_of(path, log.pattern.as_bytes()));
        match known {
            Some(log) => LineReader::new(log),
            None if self.is_stated => LineReader::new(self.plan.for_any_line()),
            // No pattern is empty, so this is what holds where nothing is known.
            None => LineReader::new(self.plan.of("")),
        }
    }
}

/// Whether a path is that of a log, or has the name that rotation makes of it: `access.log.1`, `access.log-20251124.gz`.
fn is_log_of(path: &[u8], log: &[u8]) -> bool {
    let Some(suffix) = path.strip_prefix(log) else { return false };
    match suffix {
        [] => true,
        [b'.' | b'-', rest @ ..] => !rest.is_empty() && !rest.contains(&b'/'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_read_as_the_log_they_were() {
        let check = |path: &str, expected: bool| {
            assert_eq!(is_log_of(path.as_bytes(), b"/var/log/nginx/access.log"), expected, "{path}");
        };
        check("/var/log/nginx/access.log", true);
        check("/var/log/nginx/access.log.1", true);
        check("/var/log/nginx/access.log.12.gz", true);
        check("/var/log/nginx/access.log-20251124.gz", true);
        check("/var/log/nginx/access.log2", false);
        check("/var/log/nginx/access.log.d/other", false);
        check("/var/log/nginx/access.log.", false);
        check("/var/log/nginx/access", false);
    }
}
