//! Words as directives and blocks, with includes put in their place.
//!
//! What it owns: the bounds on depth and size. What it must never do: know what a directive means, but for `include` and Lua.

use super::tokens::{Token, Tokens};
use super::{PROBLEMS_MAX, Problem};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Blocks within blocks; nginx's own directives nest less.
const BLOCK_DEPTH_MAX: usize = 32;
/// Includes within includes; one that includes itself ends here.
const INCLUDE_DEPTH_MAX: usize = 16;
/// Files in one configuration.
const FILES_MAX: usize = 10_000;
/// Directives in one configuration.
const DIRECTIVES_MAX: usize = 1_000_000;

/// One directive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directive {
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    /// Empty for a directive that ends with `;`.
    pub(crate) block: Vec<Directive>,
    /// The index of its file in [`Tree::files`], and its line from 1.
    pub(crate) file: usize,
    pub(crate) line: u32,
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) directives: Vec<Directive>,
    pub(crate) files: Vec<String>,
    pub(crate) problems: Vec<Problem>,
}

struct Reading<'r> {
    include: &'r mut dyn FnMut(&str) -> Vec<(String, String)>,
    /// With a `/` at its end.
    directory: &'r str,
    files: Vec<String>,
    problems: Vec<Problem>,
    directives: usize,
}

/// Reads a main file and everything that it includes.
pub(crate) fn read(
    text: &str,
    main_file: &str,
    include: &mut dyn FnMut(&str) -> Vec<(String, String)>,
) -> Tree {
    let directory = main_file.rfind('/').and_then(|slash| main_file.get(..=slash)).unwrap_or("");
    let files = Vec::from([main_file.to_string()]);
    let mut reading = Reading { include, directory, files, problems: Vec::new(), directives: 0 };
    let mut directives = Vec::new();
    reading.file(text, 0, Depth { blocks: 0, includes: 0 }, &mut directives);
    Tree { directives, files: reading.files, problems: reading.problems }
}

#[derive(Clone, Copy)]
struct Depth {
    blocks: usize,
    includes: usize,
}

/// How a block ended.
#[derive(PartialEq)]
enum Ended {
    AtBrace,
    AtEnd,
    /// A bound was met; nothing more of this file is read.
    Stopped,
}

impl Reading<'_> {
    fn problem(&mut self, file: usize, line: u32, message: String) {
        if self.problems.len() < PROBLEMS_MAX {
            let file = self.files.get(file).cloned().unwrap_or_default();
            self.problems.push(Problem { file, line, message });
        }
    }

    fn file(&mut self, text: &str, file: usize, depth: Depth, out: &mut Vec<Directive>) {
        let mut tokens = Tokens::new(text);
        while self.block(&mut tokens, file, depth, out) == Ended::AtBrace {
            self.problem(file, tokens.line, "a `}` without its `{`".into());
        }
    }

    /// Reads directives up to the brace that closes the block, or to the end of the file.
    fn block(
        &mut self,
        tokens: &mut Tokens<'_>,
        file: usize,
        depth: Depth,
        out: &mut Vec<Directive>,
    ) -> Ended {
        let mut words: Vec<String> = Vec::new();
        let mut line = 1;
        loop {
            let token = tokens.next();
            if words.is_empty() {
                line = tokens.line;
            }
            match token {
                Err(_) => self.problem(file, tokens.line, "quotes that do not close as they should".into()),
                Ok(Some(Token::Word { text, .. })) => words.push(text),
                Ok(Some(Token::End)) => self.end(core::mem::take(&mut words), file, line, depth, out),
                Ok(Some(Token::Open)) => {
                    let words = core::mem::take(&mut words);
                    if self.open(words, tokens, file, line, depth, out) == Ended::Stopped {
                        return Ended::Stopped;
                    }
                }
                Ok(end @ (Some(Token::Close) | None)) => {
                    if let Some(name) = words.first() {
                        self.problem(file, line, format!("`{name}` is not ended by `;`"));
                    }
                    return if end.is_some() { Ended::AtBrace } else { Ended::AtEnd };
                }
            }
        }
    }

    /// Takes a directive in, or what it includes.
    fn end(
        &mut self,
        mut words: Vec<String>,
        file: usize,
        line: u32,
        depth: Depth,
        out: &mut Vec<Directive>,
    ) {
        if words.is_empty() || !self.admits(file, line) {
            return;
        }
        let name = words.remove(0);
        match words.as_slice() {
            [pattern] if name == "include" => {
                let pattern = pattern.clone();
                self.included(&pattern, file, line, depth, out);
            }
            _ => out.push(Directive { name, arguments: words, block: Vec::new(), file, line }),
        }
    }

    fn admits(&mut self, file: usize, line: u32) -> bool {
        self.directives += 1;
        if self.directives == DIRECTIVES_MAX + 1 {
            self.problem(file, line, format!("more than {DIRECTIVES_MAX} directives; the rest is not read"));
        }
        self.directives <= DIRECTIVES_MAX
    }

    fn open(
        &mut self,
        mut words: Vec<String>,
        tokens: &mut Tokens<'_>,
        file: usize,
        line: u32,
        depth: Depth,
        out: &mut Vec<Directive>,
    ) -> Ended {
        let name = if words.is_empty() { String::new() } else { words.remove(0) };
        if name.ends_with("_by_lua_block") {
            tokens.skip_lua();
            return Ended::AtBrace;
        }
        if depth.blocks == BLOCK_DEPTH_MAX {
            self.problem(
                file,
                line,
                format!("blocks more than {BLOCK_DEPTH_MAX} deep; the rest of the file is not read"),
            );
            return Ended::Stopped;
        }
        let mut block = Vec::new();
        let ended = self.block(tokens, file, Depth { blocks: depth.blocks + 1, ..depth }, &mut block);
        if ended == Ended::AtEnd {
            self.problem(file, line, format!("the block of `{name}` is not closed"));
        }
        if self.admits(file, line) {
            out.push(Directive { name, arguments: words, block, file, line });
        }
        ended
    }

    fn included(&mut self, pattern: &str, file: usize, line: u32, depth: Depth, out: &mut Vec<Directive>) {
        if depth.includes == INCLUDE_DEPTH_MAX {
            return self.problem(
                file,
                line,
                format!("includes more than {INCLUDE_DEPTH_MAX} deep: `{pattern}` is not read"),
            );
        }
        let absolute = if pattern.starts_with('/') {
            pattern.to_string()
        } else {
            format!("{}{pattern}", self.directory)
        };
        let found = (self.include)(&absolute);
        if found.is_empty() && !absolute.contains(['*', '?', '[']) {
            self.problem(file, line, format!("the included file `{absolute}` cannot be read"));
        }
        for (name, text) in found {
            if self.files.len() == FILES_MAX {
                return self.problem(
                    file,
                    line,
                    format!("more than {FILES_MAX} files; `{name}` and what follows is not read"),
                );
            }
            self.files.push(name);
            let index = self.files.len() - 1;
            self.file(&text, index, Depth { includes: depth.includes + 1, ..depth }, out);
        }
    }
}
