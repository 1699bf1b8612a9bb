//! The env file: written from the table as the manual, read as systemd reads it.
//!
//! Reading is pure, text in and a map out. It never shows a value in a problem: a line that does
//! not parse may hold a secret all the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use super::table::SETTINGS;
use super::{Problem, STARS};

/// Where the shipped unit looks for the env file, and where a reload re-reads it.
pub const ENV_FILE_PATH: &str = "/etc/watchpost/watchpost.env";

/// The head of the manual.
const HEAD: &str = "\
# Settings of watchpost. This file is the manual: every setting stands here at its default.
#
# Install it as /etc/watchpost/watchpost.env, take away the # before what you change, then run
# `systemctl reload watchpost`; `watchpost check` says beforehand what would happen.
#
# The form is systemd's EnvironmentFile=: NAME=VALUE, a # only at the beginning of a line, quotes
# around values with blanks or quotes in them, no $expansion. An empty value is an unset one.
# Every setting is also a flag: WATCHPOST_STATUS_ADDR is --status-addr.
#
# A secret may stand here (then: chown root:adm, chmod 0640), in a file of its own that NAME_FILE
# names, or in a systemd credential (see LoadCredential= in the unit). In one of them only.
";

/// Renders the manual, `config/watchpost.env`, from the table.
pub fn env_file() -> String {
    let mut text = HEAD.to_owned();
    for setting in SETTINGS {
        text.push('\n');
        for line in setting.meaning.lines() {
            push_line(&mut text, &format!("# {line}"));
        }
        push_line(&mut text, &format!("# Allowed: {}.", setting.form));
        push_line(&mut text, &format!("#{}={}", setting.name, setting.default));
        if let Some(variable) = setting.file_variable() {
            push_line(&mut text, &format!("#{variable}="));
        }
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("writing to a string cannot fail");
}

/// What the environment would be if the agent were started anew: `process` is the environment of
/// the start, `file_then` what the env file said then, `file_now` what it says now.
///
/// A variable of the process that equals the file's came from the file, so it goes when the file
/// no longer has it. What was set elsewhere stays, below the file, as systemd layers it.
pub fn environment_after_reload(
    process: &BTreeMap<String, String>,
    file_then: &BTreeMap<String, String>,
    file_now: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let set_elsewhere = process.iter().filter(|(name, value)| file_then.get(*name) != Some(*value));
    set_elsewhere.chain(file_now).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Reads an env file as systemd reads `EnvironmentFile=` (systemd.exec(5), since release 254):
/// `#` and `;` begin comments at the beginning of a line only; single quotes keep everything,
/// double quotes know `\"`, `\\`, `` \` `` and `\$`; a backslash before a line's end joins lines.
///
/// Stricter than systemd in one thing: what it would skip in silence is the first [`Problem`].
pub fn parse_env_file(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut variables = BTreeMap::new();
    while let Some(first) = reader.skip_blanks_and_comments() {
        let line = reader.line;
        let name = reader.name(first)?;
        if !is_name(&name) {
            let shown =
                if name.starts_with("export ") { "export is not needed" } else { "is not NAME=VALUE" };
            return Err(problem(line, "", shown));
        }
        let value = reader.value().map_err(|wrong| problem(line, STARS, &format!("{name} {wrong}")))?;
        variables.insert(name, value);
    }
    Ok(variables)
}

fn problem(line: usize, value: &str, message: &str) -> Problem {
    Problem {
        variable: format!("line {line} of the env file"),
        value: value.to_owned(),
        message: message.to_owned(),
        allowed: "NAME=VALUE, a comment, or an empty line".to_owned(),
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Reads one character after the other and knows the line it is in.
struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    /// The first character of the next name.
    fn skip_blanks_and_comments(&mut self) -> Option<char> {
        loop {
            match self.next()? {
                '#' | ';' => while self.next()? != '\n' {},
                c if is_blank(c) => {}
                c => return Some(c),
            }
        }
    }

    /// Everything up to the `=`.
    fn name(&mut self, first: char) -> Result<String, Problem> {
        let line = self.line;
        let mut name = first.to_string();
        loop {
            match self.next() {
                Some('=') => return Ok(name.trim_end().to_owned()),
                Some('\n') | None => return Err(problem(line, "", "has no `=`")),
                Some(c) => name.push(c),
            }
        }
    }

    /// Everything behind the `=`, quoted and unquoted parts in turn, up to the end of the line.
    fn value(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        loop {
            match self.next() {
                Some('\n') | None => return Ok(value),
                Some('\'') => self.single_quoted(&mut value)?,
                Some('"') => self.double_quoted(&mut value)?,
                Some(c) if is_blank(c) => {}
                Some(c) => {
                    self.unquoted(c, &mut value);
                    return Ok(value);
                }
            }
        }
    }

    /// The rest of the line; quotes are nothing special any more, blanks at its end are dropped.
    fn unquoted(&mut self, first: char, value: &mut String) {
        let mut next = Some(first);
        let mut blanks_from = None;
        while let Some(c) = next {
            match c {
                '\n' => break,
                '\\' => {
                    blanks_from = None;
                    // A backslash before the end of the line joins the next one.
                    value.extend(self.next().filter(|c| *c != '\n'));
                }
                c => {
                    if is_blank(c) {
                        blanks_from.get_or_insert(value.len());
                    } else {
                        blanks_from = None;
                    }
                    value.push(c);
                }
            }
            next = self.next();
        }
        if let Some(length) = blanks_from {
            value.truncate(length);
        }
    }

    fn single_quoted(&mut self, value: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next().ok_or("has a quote that is not closed")? {
                '\'' => return Ok(()),
                c => value.push(c),
            }
        }
    }

    fn double_quoted(&mut self, value: &mut String) -> Result<(), &'static str> {
        const OPEN: &str = "has a quote that is not closed";
        loop {
            match self.next().ok_or(OPEN)? {
                '"' => return Ok(()),
                '\\' => match self.next().ok_or(OPEN)? {
                    '\n' => {}
                    c if "\"\\`$".contains(c) => value.push(c),
                    c => value.extend(['\\', c]),
                },
                c => value.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_what_systemd_reads() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            assert_eq!(parse_env_file(text).as_ref(), Ok(&map(expected)), "{text:?}");
        };
        check("", &[]);
        check("# a\n; b\n\n  \t\nA=1\n", &[("A", "1")]);
        check("A=1", &[("A", "1")]);
        check("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]);
        check("  A =  1 2  \n", &[("A", "1 2")]);
        check("A=\nB=''\nC=\"\"\n", &[("A", ""), ("B", ""), ("C", "")]);
        check("A=1 # not a comment\n", &[("A", "1 # not a comment")]);
        check("A='$x \"y\" \\n'\n", &[("A", "$x \"y\" \\n")]);
        check("A=\"a \\\" \\\\ \\$ \\n\"\n", &[("A", "a \" \\ $ \\n")]);
        check("A=\"one \\\ntwo\"\nB='three\nfour'\n", &[("A", "one two"), ("B", "three\nfour")]);
        check("A=one\\\ntwo\nB=a\\ \n", &[("A", "onetwo"), ("B", "a ")]);
        check("A='one' \"two\"three 'four'\n", &[("A", "onetwothree 'four'")]);
        check("A=it's\n", &[("A", "it's")]);
        check("A=1\nA=2\n", &[("A", "2")]);
        check("A=k=v,k2=v2\n", &[("A", "k=v,k2=v2")]);
        check("# comments do not go on \\\nA=1\n", &[("A", "1")]);
        check("A=1\n# no line end", &[("A", "1")]);
        check("A=ends\\", &[("A", "ends")]);
    }

    #[test]
    fn names_the_line_and_never_the_value() {
        let check = |text: &str, expected: &str| {
            let problem = parse_env_file(text).expect_err(text).to_string();
            assert!(problem.contains(expected), "{text:?}: {problem}");
            assert!(!problem.contains("hidden"), "{text:?}: {problem}");
        };
        check("A=1\nhidden\n", "line 2 of the env file: has no `=`");
        check("A=\"x\ny\"\n\nhidden", "line 4");
        check("export A=hidden", "export is not needed");
        check("1A=hidden", "is not NAME=VALUE");
        check("hidden name=1", "is not NAME=VALUE");
        check("=hidden", "has no `=`");
        check("A='hidden\nB=2\n", "line 1 of the env file=\"***\": A has a quote that is not closed");
        check("B=1\nA=\"hidden\\\"\n", "line 2");
    }

    #[test]
    fn a_reload_forgets_what_the_file_no_longer_says() {
        let process = map(&[("HOME", "/"), ("A", "file"), ("B", "file"), ("C", "unit")]);
        let file_then = map(&[("A", "file"), ("B", "file"), ("D", "shadowed")]);
        let file_now = map(&[("B", "new"), ("E", "new")]);
        let expected = map(&[("HOME", "/"), ("B", "new"), ("C", "unit"), ("E", "new")]);
        assert_eq!(environment_after_reload(&process, &file_then, &file_now), expected);
    }

    #[test]
    fn the_manual_holds_every_setting_commented() {
        let manual = env_file();
        assert_eq!(parse_env_file(&manual), Ok(BTreeMap::new()), "nothing is set in the manual");
        for setting in SETTINGS {
            assert!(
                manual.contains(&format!("\n#{}={}\n", setting.name, setting.default)),
                "{}",
                setting.name
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_value_survives_quoting(value in "[ -~\n\té$`'\"\\\\]{0,40}") {
            let escaped: String =
                value.chars().flat_map(|c| "\"\\`$".contains(c).then_some('\\').into_iter().chain([c])).collect();
            let read = parse_env_file(&format!("A=\"{escaped}\"\nB=2\n"));
            proptest::prop_assert_eq!(read, Ok(map(&[("A", &value), ("B", "2")])));
        }

        #[test]
        fn no_text_is_a_reason_to_panic(text in "[A-B= '\"\\\\#;\n$]{0,60}") {
            let _ = parse_env_file(&text);
        }
    }
}
