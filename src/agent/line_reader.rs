//! Reads lines by the format that a plan gives them; where it gives none, by the formats that need no telling.
//!
//! The agent, `analyze` and `explain` read through here, so that they agree on every line.

use std::sync::{Arc, LazyLock};

use watchpost_parsers::{AccessLine, Format, Parser, Unparsed};

use super::plan::{LogPlan, Reading};

/// The format named `main` in the nginx.conf that nginx.org packages: combined and one field more.
const NGINX_MAIN: &str = r#"'$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_x_forwarded_for"'"#;

/// Reads the lines of one file.
#[derive(Debug)]
pub struct LineReader {
    parsers: Parsers,
    format_name: String,
    vhost: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Parsers {
    /// The format is known.
    One(Box<Parser>),
    /// A line that begins with a brace is JSON; others are combined or `main`, as the line before.
    Detect { combined: OnDemand, main: OnDemand, json: OnDemand, main_first: bool },
}

/// A parser that is made for the first line that asks for it. There may be thousands of files, and few of them have
/// lines of more than one format.
#[derive(Debug)]
struct OnDemand {
    format: &'static LazyLock<Arc<Format>>,
    parser: Option<Box<Parser>>,
}

impl OnDemand {
    fn new(format: &'static LazyLock<Arc<Format>>) -> OnDemand {
        OnDemand { format, parser: None }
    }

    fn get(&mut self) -> &mut Parser {
        let format = self.format;
        self.parser.get_or_insert_with(|| Box::new(Parser::new(Arc::clone(format))))
    }
}

static COMBINED: LazyLock<Arc<Format>> = LazyLock::new(|| Format::combined().into());
static JSON: LazyLock<Arc<Format>> = LazyLock::new(|| Format::json().into());
static MAIN: LazyLock<Arc<Format>> =
    LazyLock::new(|| Format::from_log_format(NGINX_MAIN).expect("a constant that a test compiles").into());

#[inline]
fn is_json(line: &[u8]) -> bool {
    let first = |line: &[u8]| line.first().copied().unwrap_or_default();
    match first(line) {
        blank if blank.is_ascii_whitespace() => first(line.trim_ascii_start()) == b'{',
        byte => byte == b'{',
    }
}

impl LineReader {
    /// A reader for lines of a plan.
    pub fn new(log: &LogPlan) -> LineReader {
        let parsers = match &log.reading {
            Reading::Format(format) => Parsers::One(Box::new(Parser::new(format.clone()))),
            Reading::Detect => Parsers::Detect {
                combined: OnDemand::new(&COMBINED),
                main: OnDemand::new(&MAIN),
                json: OnDemand::new(&JSON),
                main_first: false,
            },
        };
        LineReader { parsers, format_name: log.format_name.clone(), vhost: log.vhost.clone() }
    }

    /// For people: which format it is.
    pub fn format_name(&self) -> &str {
        &self.format_name
    }

    /// Reads a line into `parsed`, of which no field stays as it was. The virtual host is that of the line, else that of the
    /// file.
    ///
    /// # Errors
    /// Why it is no line of the format.
    #[inline(always)] // so that of the caller's empty line and this one only one is written
    pub fn parse<'a>(&'a mut self, line: &'a [u8], parsed: &mut AccessLine<'a>) -> Result<(), Unparsed> {
        *parsed = AccessLine::default();
        if self.parsers.likely(line).parse_straight(line, parsed).is_none() {
            *parsed = self.parsers.parse(line)?;
        }
        parsed.vhost = parsed.vhost.or(self.vhost.as_deref());
        Ok(())
    }

    /// The parser that suits a line best, and the virtual host of lines that name none.
    pub fn parser(&mut self, line: &[u8]) -> (&mut Parser, Option<&[u8]>) {
        let parser = match &mut self.parsers {
            Parsers::One(parser) => parser,
            Parsers::Detect { json, .. } if is_json(line) => json.get(),
            Parsers::Detect { combined, main, .. } => {
                if main.get().parse(line).is_ok() {
                    main.get()
                } else {
                    combined.get()
                }
            }
        };
        (parser, self.vhost.as_deref())
    }
}

impl Parsers {
    /// The parser of the format that a line most likely has.
    #[inline]
    fn likely(&mut self, line: &[u8]) -> &mut Parser {
        match self {
            Parsers::One(parser) => parser,
            Parsers::Detect { json, .. } if is_json(line) => json.get(),
            Parsers::Detect { main, main_first: true, .. } => main.get(),
            Parsers::Detect { combined, .. } => combined.get(),
        }
    }

    /// Reads a line that was not read straight by the likely format.
    fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<AccessLine<'a>, Unparsed> {
        let (combined, main, json, main_first) = match self {
            Parsers::One(parser) => return parser.parse_plainly(line),
            Parsers::Detect { combined, main, json, main_first } => (combined, main, json, main_first),
        };
        if is_json(line) {
            return json.get().parse(line);
        }
        let (first, second) = if *main_first { (main, combined) } else { (combined, main) };
        match first.get().parse(line) {
            Ok(parsed) => Ok(parsed),
            Err(reason) => {
                let parsed = second.get().parse(line).map_err(|_| reason)?;
                *main_first = !*main_first;
                Ok(parsed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detecting() -> LineReader {
        LineReader::new(&LogPlan {
            pattern: String::new(),
            reading: Reading::Detect,
            format_name: String::new(),
            vhost: Some(b"shop.example".to_vec()),
            flush_ms: None,
        })
    }

    #[test]
    fn the_formats_of_every_packaged_nginx_need_no_telling() {
        let combined = r#"::1 - - [24/Nov/2025:10:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "curl/8""#;
        let main = format!("{combined} \"-\"");
        let json = r#"{"status":201,"host":"api.example"}"#;
        let mut reader = detecting();
        let mut status = |line: &str| {
            let mut parsed = AccessLine::default();
            reader.parse(line.as_bytes(), &mut parsed).map_err(|reason| reason.name())?;
            Ok((parsed.status, parsed.vhost.map(|vhost| vhost.len())))
        };
        for _ in 0..2 {
            assert_eq!(status(combined), Ok((Some(200), Some(12))));
            assert_eq!(status(&main), Ok((Some(200), Some(12))));
            assert_eq!(status(json), Ok((Some(201), Some(11))));
            assert_eq!(status("rubbish of no format"), Err("no_match"));
        }
    }
}
