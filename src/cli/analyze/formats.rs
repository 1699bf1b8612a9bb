//! Which format the lines of a file are read with: the stated one, the one nginx.conf has for the file or the
//! file it was rotated from, else by the line.
//!
//! What it must never do: guess a format from what lines look like beyond the brace that tells JSON.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use watchpost_parsers::{AccessLine, Format, Parser, Unparsed};

use crate::agent::plan::{LogPlan, Plan, PlanError, Reading};
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

/// Reads the lines of one file.
pub(in crate::cli) struct LineReader {
    parsers: Parsers,
    format_name: String,
    vhost: Option<Vec<u8>>,
}

enum Parsers {
    One(Box<Parser>),
    /// Lines that begin with a brace are JSON, others combined.
    Detect {
        combined: Box<Parser>,
        json: Box<Parser>,
    },
}

impl LineReader {
    /// A reader for lines of a plan.
    pub(in crate::cli) fn new(log: &LogPlan) -> LineReader {
        let parser = |format: Format| Box::new(Parser::new(format));
        let parsers = match &log.reading {
            Reading::Format(format) => Parsers::One(parser(format.clone())),
            Reading::Detect => {
                Parsers::Detect { combined: parser(Format::combined()), json: parser(Format::json()) }
            }
        };
        LineReader { parsers, format_name: log.format_name.clone(), vhost: log.vhost.clone() }
    }

    /// For people: which format it is.
    pub(in crate::cli) fn format_name(&self) -> &str {
        &self.format_name
    }

    /// The parser of a line, and the vhost of lines that name none.
    pub(in crate::cli) fn parser(&mut self, line: &[u8]) -> (&mut Parser, Option<&[u8]>) {
        let parser = match &mut self.parsers {
            Parsers::One(parser) => parser,
            Parsers::Detect { combined, json } => match line.trim_ascii_start().first() {
                Some(b'{') => json,
                _ => combined,
            },
        };
        (parser, self.vhost.as_deref())
    }

    /// Reads a line. The vhost is that of the line, else that of the file.
    ///
    /// # Errors
    /// Why it is no line of the format.
    pub(in crate::cli) fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<AccessLine<'a>, Unparsed> {
        let (parser, vhost) = self.parser(line);
        let mut parsed = parser.parse(line)?;
        parsed.vhost = parsed.vhost.or(vhost);
        Ok(parsed)
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
