//! The tree as the checks see it: files, and what in them is code, comment or test.
//!
//! Views are as long as the text they come from, with blanks in place of what they leave out, so
//! that an offset in one is the same place in all. Nothing here judges.

use std::fs;
use std::iter;
use std::ops::Range;
use std::path::Path;

/// The files of a tree that the checks look at.
pub(super) struct Tree {
    pub(super) rust: Vec<RustFile>,
    /// Cargo.toml files and Cargo.lock: path and text.
    pub(super) cargo: Vec<(String, String)>,
}

impl Tree {
    /// Everything under the root but build output and hidden directories.
    pub(super) fn read(root: &Path) -> Tree {
        let mut files = Vec::new();
        collect(root, root, &mut files);
        files.sort();
        Tree::of(files)
    }

    /// A tree of files that exist only here.
    pub(super) fn of_samples(samples: &[(&str, &str)]) -> Tree {
        Tree::of(samples.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    fn of(files: Vec<(String, String)>) -> Tree {
        let (rust, cargo) = files.into_iter().partition::<Vec<_>, _>(|(path, _)| path.ends_with(".rs"));
        Tree { rust: rust.into_iter().map(|(path, text)| RustFile::new(path, text)).collect(), cargo }
    }
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("the tree can be read") {
        let path = entry.expect("the tree can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8");
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, files);
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" || name == "Cargo.lock" {
            let relative = path.strip_prefix(root).expect("it is under the root");
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            files.push((relative.to_str().expect("names are UTF-8").to_owned(), text));
        }
    }
}

/// One Rust file and its views.
pub(super) struct RustFile {
    /// Relative to the root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
    /// Without comments and without what stands in quotes.
    pub(super) code: String,
    /// Comments alone.
    pub(super) comments: String,
    /// The part of `code` that is compiled into the agent.
    pub(super) production: String,
    /// The part of `code` that is compiled for tests only.
    pub(super) test: String,
}

impl RustFile {
    fn new(path: String, text: String) -> RustFile {
        let (code, comments) = split(&text);
        let is_test_file = path.starts_with("tests/")
            || path.contains("/tests/")
            || path.ends_with("/tests.rs")
            || path.starts_with("benches/")
            || path.starts_with("fuzz/");
        let ranges = if is_test_file { iter::once(0..code.len()).collect() } else { test_ranges(&code) };
        let production = blank(&code, |at| ranges.iter().any(|range| range.contains(&at)));
        let test = blank(&code, |at| !ranges.iter().any(|range| range.contains(&at)));
        RustFile { path, text, code, comments, production, test }
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.text[..offset].matches('\n').count()
    }

    /// `path:line`.
    pub(super) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.line(offset))
    }

    /// Every function with a body, outer ones before those inside them.
    pub(super) fn functions(&self) -> Vec<Function> {
        words(&self.code, "fn").into_iter().filter_map(|at| function(&self.code, at)).collect()
    }
}

/// A function with a body: its name, and its place from `fn` to the closing brace.
pub(super) struct Function {
    pub(super) name: String,
    pub(super) range: Range<usize>,
}

fn function(code: &str, at: usize) -> Option<Function> {
    let rest = code[at + 2..].trim_start();
    let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
    // Without a name it is the type of a pointer.
    let end = (!name.is_empty()).then(|| item_end(code, at)).flatten()?;
    code[..end].ends_with('}').then_some(Function { name, range: at..end })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a word stands, not as a part of a longer one.
pub(super) fn words(code: &str, word: &str) -> Vec<usize> {
    let is_whole =
        |at: usize| !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word);
    code.match_indices(word).map(|(at, _)| at).filter(|at| is_whole(*at)).collect()
}

/// The end of the item that begins at an offset: behind its `;` or its closing brace.
fn item_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return Some(from + offset + 1),
            '{' if depth == 0 => return Some(block_end(code, from + offset)),
            _ => {}
        }
    }
    None
}

/// Behind the brace that closes the one at `open`.
pub(super) fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + offset + 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    code.len()
}

/// Items under `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
fn test_ranges(code: &str) -> Vec<Range<usize>> {
    let attributes = code.match_indices("#[cfg(test").chain(code.match_indices("#[cfg(all(test"));
    let item = |(at, _): (usize, &str)| {
        // The search starts at the `[`, whose depth keeps further attributes from ending the item.
        item_end(code, at + 1).map(|end| at..end)
    };
    attributes.filter_map(item).collect()
}

/// The text with blanks at the offsets that are to go; line ends stay.
fn blank(text: &str, goes: impl Fn(usize) -> bool) -> String {
    let keep = |(at, byte): (usize, u8)| if byte != b'\n' && goes(at) { b' ' } else { byte };
    String::from_utf8(text.bytes().enumerate().map(keep).collect()).expect("ranges end between characters")
}

/// The text as code alone and as comments alone. What stands in quotes is in neither.
fn split(text: &str) -> (String, String) {
    let mut comments: Vec<Range<usize>> = Vec::new();
    let mut quotes: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let after_word = text[..at].ends_with(is_word);
        let (kind, length) = if rest.starts_with("//") {
            (Some(&mut comments), rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (Some(&mut comments), block_comment(rest))
        } else if let Some(length) = (!after_word).then(|| raw_string(rest)).flatten() {
            (Some(&mut quotes), length)
        } else if c == '"' {
            (Some(&mut quotes), string(rest))
        } else if let Some(length) = (c == '\'').then(|| character(rest)).flatten() {
            (Some(&mut quotes), length)
        } else {
            (None, c.len_utf8())
        };
        if let Some(ranges) = kind {
            ranges.push(at..at + length);
        }
        at += length;
    }
    let within = |ranges: &[Range<usize>], at: usize| {
        let next = ranges.partition_point(|range| range.end <= at);
        ranges.get(next).is_some_and(|range| range.contains(&at))
    };
    let code = blank(text, |at| within(&comments, at) || within(&quotes, at));
    (code, blank(text, |at| !within(&comments, at)))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        let Some(next) = rest[at..].find(['/', '*']) else { return rest.len() };
        at += next;
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
}

/// The length of `r"..."`, `r#"..."#`, also behind `b` or `c`.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let open = rest.len() - body.len() + hashes;
    let inside = rest[open..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(inside.find(&close).map_or(rest.len(), |end| open + 1 + end + close.len()))
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            c => escaped = c == '\\' && !escaped,
        }
    }
    rest.len()
}

/// The length of a character in quotes; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inside = &rest[1..];
    let first = inside.chars().next()?;
    if first == '\\' {
        let behind = inside.char_indices().nth(2)?.0;
        return inside[behind..].find('\'').map(|end| 1 + behind + end + 1);
    }
    inside[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

#[test]
fn views_tell_code_comments_and_quotes_apart() {
    let check = |text: &str, code: &str, comments: &str| {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let views = split(text);
        assert_eq!((views.0.len(), views.1.len()), (text.len(), text.len()), "{text}");
        assert_eq!((squeeze(&views.0), squeeze(&views.1)), (code.to_owned(), comments.to_owned()), "{text}");
    };
    check("a // b\nc", "a c", "// b");
    check("a /* b /* c */ d */ e", "a e", "/* b /* c */ d */");
    check("a \"// { \\\" b\" c", "a c", "");
    check("a r#\"\" // \"# b br\"\\\" c", "a b c", "");
    check("for 'a in 'b' '\\'' '\"' '\\u{e9}' 'é' x", "for 'a in x", "");
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}", "");
    check("number\"text\" // \"x", "number", "// \"x");
}

#[test]
fn functions_and_tests_are_found_with_their_ends() {
    let text = "fn a(x: [u8; 2]) -> fn() { { } }\ntrait T { fn b(); }\n#[cfg(test)]\n#[path = \"x;\"]\nmod t {\n\
                fn c() {}\n}\n#[cfg(test)]\nmod u;\nfn d() {}\n";
    let tree = Tree::of_samples(&[("src/a.rs", text)]);
    let file = &tree.rust[0];
    let found: Vec<(String, usize)> =
        file.functions().iter().map(|f| (f.name.clone(), file.line(f.range.end))).collect();
    assert_eq!(found, [("a".to_owned(), 1), ("c".to_owned(), 6), ("d".to_owned(), 10)]);
    assert_eq!(words(&file.production, "mod").len() + words(&file.production, "c").len(), 0);
    assert_eq!(words(&file.production, "fn").len(), 4, "a and the type it answers, b, d");
    assert_eq!(words(&file.test, "mod").len(), 2);
}
