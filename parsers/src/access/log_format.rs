//! The text of a `log_format` directive as pieces: text and variables.
//!
//! What it owns: everything that people write as "the format": the whole directive, its arguments, or the bare string. What it
//! must never do: know what a variable means.

use super::FormatError;
use crate::bytes::{part, run_length};
use crate::escape::Escape;
use crate::nginx_conf::tokens::{Token, Tokens, unescaped};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The longest format accepted, in bytes.
pub(crate) const FORMAT_BYTES_MAX: usize = 64 * 1024;

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(Vec<u8>),
    Variable(String),
}

/// A format taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) escape: Escape,
    pub(crate) pieces: Vec<Piece>,
}

/// Reads a format written in any of the ways.
pub(crate) fn read(text: &str) -> Result<Pieces, FormatError> {
    if text.len() > FORMAT_BYTES_MAX {
        return Err(FormatError::TooLong { bytes: text.len() });
    }
    let (escape, body) = body_of(text.trim())?;
    let pieces = pieces_of(&body)?;
    if !pieces.iter().any(|piece| matches!(piece, Piece::Variable(_))) {
        return Err(FormatError::NoVariable);
    }
    Ok(Pieces { escape, pieces })
}

/// The escape mode and the one string that the format is.
fn body_of(text: &str) -> Result<(Escape, String), FormatError> {
    let (directive, arguments) = match text.strip_prefix("log_format") {
        Some(after) if after.starts_with([' ', '\t', '\r', '\n']) => {
            let after = after.trim_start();
            let name = after.find([' ', '\t', '\r', '\n']).unwrap_or(after.len());
            (true, after.get(name..).unwrap_or("").trim_start())
        }
        _ => behind_name(text).map_or((false, text), |arguments| (true, arguments)),
    };
    let (escape, body) = escape_of(arguments)?;
    let strings = quoted_strings(body);
    match strings {
        Some(words) if directive || words.iter().all(|(_, quoted)| *quoted) && !is_bare(&words) => {
            Ok((escape, words.into_iter().map(|(word, _)| word).collect()))
        }
        None if directive => Err(FormatError::Quotes),
        None if body.starts_with('\'') => Err(FormatError::Quotes),
        _ => Ok((escape, unescaped(body.strip_suffix(';').unwrap_or(body).as_bytes()))),
    }
}

/// What stands behind the name of a format, where only the word `log_format` was left out: `main '$remote_addr ..'`.
fn behind_name(text: &str) -> Option<&str> {
    let (name, arguments) = text.split_once([' ', '\t', '\r', '\n'])?;
    let arguments = arguments.trim_start();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    (is_name && (arguments.starts_with('\'') || arguments.starts_with("escape="))).then_some(arguments)
}

fn escape_of(text: &str) -> Result<(Escape, &str), FormatError> {
    let Some(after) = text.strip_prefix("escape=") else { return Ok((Escape::Default, text)) };
    let end = after.find([' ', '\t', '\r', '\n']).unwrap_or(after.len());
    let escape = match after.get(..end).unwrap_or("") {
        "default" => Escape::Default,
        "json" => Escape::Json,
        "none" => Escape::None,
        _ => return Err(FormatError::Escape),
    };
    Ok((escape, after.get(end..).unwrap_or("").trim_start()))
}

/// The words up to `;` or the end, each with whether it was quoted; None when they are no list of words.
fn quoted_strings(body: &str) -> Option<Vec<(String, bool)>> {
    let mut tokens = Tokens::new(body);
    let mut words = Vec::new();
    loop {
        match tokens.next() {
            Ok(Some(Token::Word { text, quote })) => words.push((text, quote.is_some())),
            Ok(Some(Token::End)) => {
                return (tokens.offset() == body.len() && !words.is_empty()).then_some(words);
            }
            Ok(None) => return (!words.is_empty()).then_some(words),
            Ok(Some(Token::Open | Token::Close)) | Err(_) => return None,
        }
    }
}

/// `"$request" "$http_user_agent"` could be two strings of a directive or one bare format. As strings they would join two
/// variables with nothing between, which nobody means.
fn is_bare(words: &[(String, bool)]) -> bool {
    words.windows(2).any(|pair| match pair {
        [(left, _), (right, _)] => {
            let name =
                left.trim_end_matches('}').trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
            right.starts_with('$') && name.len() < left.len() && name.trim_end_matches('{').ends_with('$')
        }
        _ => false,
    })
}

/// Parts a format at its variables: `$name` and `${name}` (`ngx_http_log_compile_format`).
fn pieces_of(format: &str) -> Result<Vec<Piece>, FormatError> {
    let text = format.as_bytes();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let literal = run_length(text, at, |byte| byte != b'$');
        if literal > 0 {
            pieces.push(Piece::Literal(part(text, at, at + literal).to_vec()));
            at += literal;
            continue;
        }
        let braced = text.get(at + 1) == Some(&b'{');
        let start = at + 1 + usize::from(braced);
        let end = start + run_length(text, start, is_name);
        if end == start || (braced && text.get(end) != Some(&b'}')) {
            return Err(FormatError::Variable { column: at + 1 });
        }
        pieces.push(Piece::Variable(format.get(start..end).unwrap_or("").to_string()));
        at = end + usize::from(braced);
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    /// The pieces as one string, variables in braces.
    fn joined(text: &str) -> Result<(Escape, String), FormatError> {
        let found = read(text)?;
        let mut out = String::new();
        for piece in &found.pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(&String::from_utf8_lossy(literal)),
                Piece::Variable(name) => out.push_str(&format!("<{name}>")),
            }
        }
        Ok((found.escape, out))
    }

    #[test]
    fn formats_are_read_however_they_are_written() {
        let check = |text: &str, escape: Escape, expected: &str| {
            assert_eq!(joined(text), Ok((escape, expected.into())), "{text}");
        };
        let main = "<remote_addr> - [<time_local>] \"<request>\" <status>";
        check(r#"$remote_addr - [$time_local] "$request" $status"#, Escape::Default, main);
        check(r#"'$remote_addr - [$time_local] "$request" $status'"#, Escape::Default, main);
        check("'$remote_addr - [$time_local] '\n    '\"$request\" $status';", Escape::Default, main);
        check(
            r#"log_format main '$remote_addr - ' "[$time_local] \"$request\" $status" ;"#,
            Escape::Default,
            main,
        );
        check("log_format j escape=json '{\"s\":$status}';", Escape::Json, "{\"s\":<status>}");
        check("escape=none ${status}x;", Escape::None, "<status>x");
        check("log_format t '$status\\t$host';", Escape::Default, "<status>\t<host>");
        check("$status\\t$host", Escape::Default, "<status>\t<host>");
        check(r#"{"s":$status,"h":"$host"}"#, Escape::Default, r#"{"s":<status>,"h":"<host>"}"#);
        check(r#""$request" "$http_user_agent""#, Escape::Default, r#""<request>" "<http_user_agent>""#);
        check(r#""$request" $status"#, Escape::Default, r#""<request>" <status>"#);
        check(r#""$request " "$status""#, Escape::Default, "<request> <status>");
        check("$host's $status;", Escape::Default, "<host>'s <status>");
        check("log_format x $status;", Escape::Default, "<status>");
        check("main '$remote_addr - ' '$status'", Escape::Default, "<remote_addr> - <status>");
        check("main escape=json '$status';", Escape::Json, "<status>");
    }

    #[test]
    fn what_is_no_format_is_refused() {
        let check = |text: &str, expected: FormatError| assert_eq!(joined(text), Err(expected), "{text}");
        check("", FormatError::NoVariable);
        check("log_format main", FormatError::Quotes);
        check("plain text", FormatError::NoVariable);
        check("a $ b", FormatError::Variable { column: 3 });
        check("${status", FormatError::Variable { column: 1 });
        check("escape=xml $status", FormatError::Escape);
        check("'$status", FormatError::Quotes);
        check("log_format main '$status' 'x", FormatError::Quotes);
        check(&"$a ".repeat(FORMAT_BYTES_MAX), FormatError::TooLong { bytes: 3 * FORMAT_BYTES_MAX });
    }
}
