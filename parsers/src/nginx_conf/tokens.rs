//! nginx.conf as words: blanks, quotes, comments, escapes, and where a statement ends.
//!
//! What it owns: the rules of `ngx_conf_read_token` (ngx_conf_file.c). What it must never do: know a directive, but for blocks of
//! Lua code, whose braces and quotes are not nginx's.

use crate::bytes::{part, rest, run_length};
use alloc::string::String;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A word; `quote` is the quotation mark that it stood in.
    Word { text: String, quote: Option<u8> },
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Why no token could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// A quoted word does not end.
    OpenQuote,
    /// After a closing quote something else than a blank, `;`, `{` or `)` stands.
    AfterQuote,
}

/// The tokens of one text, in order.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    /// The line of the last token, from 1.
    pub(crate) line: u32,
    counted: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Tokens<'a> {
        let bytes = text.as_bytes();
        // Editors on Windows put a byte order mark first; nginx refuses it, but no information is in it.
        let at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Tokens { text: bytes, at, line: 1, counted: 0 }
    }

    /// The next token; None at the end of the text. After an error reading goes on behind what was wrong.
    pub(crate) fn next(&mut self) -> Result<Option<Token>, TokenError> {
        self.skip_blanks();
        self.count_lines();
        let Some(byte) = self.text.get(self.at) else { return Ok(None) };
        let token = match byte {
            b';' => Token::End,
            b'{' => Token::Open,
            b'}' => Token::Close,
            quote @ (b'"' | b'\'') => return self.quoted(*quote).map(Some),
            _ => return Ok(Some(self.bare())),
        };
        self.at += 1;
        Ok(Some(token))
    }

    /// Where the next token would begin, as bytes from the start of the text.
    pub(crate) fn offset(&mut self) -> usize {
        self.skip_blanks();
        self.at
    }

    fn skip_blanks(&mut self) {
        loop {
            self.at += run_length(self.text, self.at, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
            if self.text.get(self.at) != Some(&b'#') {
                return;
            }
            self.at += run_length(self.text, self.at, |byte| byte != b'\n');
        }
    }

    fn count_lines(&mut self) {
        let passed = part(self.text, self.counted, self.at);
        let lines = memchr::memchr_iter(b'\n', passed).count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.counted = self.at;
    }

    fn quoted(&mut self, quote: u8) -> Result<Token, TokenError> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            at += memchr::memchr2(quote, b'\\', rest(self.text, at)).unwrap_or(self.text.len());
            match self.text.get(at) {
                Some(b'\\') => at += 2,
                Some(_) => break,
                None => {
                    self.at = self.text.len();
                    return Err(TokenError::OpenQuote);
                }
            }
        }
        self.at = at + 1;
        match self.text.get(self.at) {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => {
                Ok(Token::Word { text: unescaped(part(self.text, start, at)), quote: Some(quote) })
            }
            Some(_) => Err(TokenError::AfterQuote),
        }
    }

    fn bare(&mut self) -> Token {
        let start = self.at;
        let mut at = start;
        let mut after_dollar = false;
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'{' if after_dollar => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => at += 1,
                _ => {}
            }
            after_dollar = *byte == b'$';
            at += 1;
        }
        self.at = at.min(self.text.len());
        Token::Word { text: unescaped(part(self.text, start, self.at)), quote: None }
    }

    /// Skips a block of Lua code whose `{` was just read, up to and with its `}`: strings, long brackets and comments may hold braces.
    pub(crate) fn skip_lua(&mut self) {
        let mut depth = 1usize;
        while depth > 0 {
            let Some(byte) = self.text.get(self.at) else { break };
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'"' | b'\'' => self.skip_lua_string(*byte),
                b'-' if self.text.get(self.at + 1) == Some(&b'-') => {
                    self.at += 2;
                    if !self.skip_long_bracket() {
                        self.at += run_length(self.text, self.at, |byte| byte != b'\n');
                    }
                    continue;
                }
                b'[' if self.skip_long_bracket() => continue,
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.text.len());
    }

    /// Leaves the position at the closing quote, or at the end of the line, where a Lua string ends at the latest.
    fn skip_lua_string(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\\' => self.at += 1,
                b'\n' => return,
                other if *other == quote => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// `[[ ... ]]`, `[=[ ... ]=]` and so on; false when none begins here.
    fn skip_long_bracket(&mut self) -> bool {
        let level = run_length(self.text, self.at + 1, |byte| byte == b'=');
        if self.text.get(self.at) != Some(&b'[') || self.text.get(self.at + 1 + level) != Some(&b'[') {
            return false;
        }
        let mut at = self.at + 2 + level;
        while let Some(found) = memchr::memchr(b']', rest(self.text, at)) {
            at += found + 1;
            let equals = run_length(self.text, at, |byte| byte == b'=');
            if equals == level && self.text.get(at + level) == Some(&b']') {
                self.at = at + level + 1;
                return true;
            }
            at += equals;
        }
        self.at = self.text.len();
        true
    }
}

/// A word without its escapes: `\"`, `\'`, `\\`, `\t`, `\r`, `\n`; before any other byte a backslash stands for itself.
pub(crate) fn unescaped(raw: &[u8]) -> String {
    let mut out = alloc::vec::Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        let plain = match (byte, bytes.as_slice().first()) {
            (b'\\', Some(next @ (b'"' | b'\'' | b'\\'))) => *next,
            (b'\\', Some(b't')) => b'\t',
            (b'\\', Some(b'r')) => b'\r',
            (b'\\', Some(b'n')) => b'\n',
            _ => {
                out.push(*byte);
                continue;
            }
        };
        out.push(plain);
        bytes.next();
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn words(text: &str) -> Vec<String> {
        let mut tokens = Tokens::new(text);
        let mut out = Vec::new();
        loop {
            match tokens.next() {
                Ok(Some(Token::Word { text, .. })) => out.push(text),
                Ok(Some(Token::End)) => out.push(";".into()),
                Ok(Some(Token::Open)) => out.push("{".into()),
                Ok(Some(Token::Close)) => out.push("}".into()),
                Ok(None) => return out,
                Err(error) => out.push(std::format!("{error:?}")),
            }
        }
    }

    #[test]
    fn words_follow_nginx() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text), expected, "{text}");
        check("a b;# c\nd{e;}", &["a", "b", ";", "d", "{", "e", ";", "}"]);
        check(r#"a 'b "c' "d'e" "f\"g" h\ti;"#, &["a", "b \"c", "d'e", "f\"g", "h\ti", ";"]);
        check(r"location ~ \.php$ { }", &["location", "~", r"\.php$", "{", "}"]);
        check("set $a ${b}c;", &["set", "$a", "${b}c", ";"]);
        check("a#b;", &["a#b", ";"]);
        check("a 'open", &["a", "OpenQuote"]);
        check("a 'b'c;", &["a", "AfterQuote", "c", ";"]);
        check("a\\", &["a\\"]);
        check("", &[]);
    }

    #[test]
    fn lua_blocks_are_skipped_whole() {
        let lua = r#" local a = "}" .. '{' -- } it's
            local b = [==[ } ]] ]==] --[[ } ]] t = { {1}, 2 } } after;"#;
        let mut tokens = Tokens::new(lua);
        tokens.skip_lua();
        assert_eq!(tokens.next(), Ok(Some(Token::Word { text: "after".into(), quote: None })));
        assert_eq!(tokens.line, 2);
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[ab\"'{};#\\\\\n$\\[\\]=-]{0,80}") {
            words(&text);
            let mut tokens = Tokens::new(&text);
            tokens.skip_lua();
            prop_assert!(tokens.at <= text.len());
        }

        #[test]
        fn a_quoted_word_comes_back(value in "[ -~\t\r\n]{0,40}") {
            let quoted = super::super::quoted(&value);
            prop_assert_eq!(words(&quoted), Vec::from([value]));
        }
    }
}
