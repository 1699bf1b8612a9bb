//! Documents as parts: code spans, fenced blocks, rows of tables, and the command lines in all of them.

use std::fs;
use std::path::Path;

/// What stands between backquotes in running text, in order. Fenced blocks are left out.
pub(super) fn code_spans(text: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let mut in_fence = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// The fenced blocks of a language.
pub(super) fn fenced(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut block) {
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(of), None) => block = Some(if of == language { String::new() } else { "\0".to_owned() }),
            (None, Some(block)) => *block = format!("{block}{line}\n"),
            (None, None) => {}
        }
    }
    // A block of another language is marked by its first character.
    blocks.into_iter().filter(|block| !block.starts_with('\0')).collect()
}

/// Rows of tables, each as its trimmed cells; heads and rules are rows too.
pub(super) fn rows(text: &str) -> Vec<Vec<&str>> {
    let insides = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    insides.map(|inside| inside.split('|').map(str::trim).collect()).collect()
}

/// The command lines of the binary, in code spans and in shell blocks, as words from `watchpost` on.
pub(super) fn commands(text: &str) -> Vec<Vec<String>> {
    let shell = fenced(text, "sh");
    let lines = shell.iter().flat_map(|block| block.lines());
    let spans = code_spans(text).into_iter().filter(|span| span.starts_with("watchpost"));
    lines.chain(spans).flat_map(simple_commands).filter_map(of_binary).collect()
}

/// The commands of one shell line as words: parted by `&`, `|` and `;`, without quotes and comments.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![String::new()]];
    let mut quote = None;
    for character in line.chars() {
        let words = commands.last_mut().expect("there is always one");
        let word = words.last_mut().expect("there is always one");
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), character) => word.push(character),
            (None, '\'' | '"') => quote = Some(character),
            (None, '#') if word.is_empty() => break,
            (None, '&' | '|' | ';') => commands.push(vec![String::new()]),
            (None, blank) if blank.is_whitespace() => words.push(String::new()),
            (None, character) => word.push(character),
        }
    }
    for words in &mut commands {
        words.retain(|word| !word.is_empty());
    }
    commands
}

/// The words from the name of the binary on, where a command runs it: by itself, under settings, or by cargo.
fn of_binary(words: Vec<String>) -> Option<Vec<String>> {
    let from = words.iter().position(|word| !word.contains('='))?;
    let command: Vec<String> = words.into_iter().skip(from).collect();
    let is_binary = |word: &String| word == "watchpost" || word.ends_with("/watchpost");
    if command.first().is_some_and(is_binary) {
        return Some(command);
    }
    let cargo = command.first().is_some_and(|word| word == "cargo") && command.get(1)? == "run";
    let behind = command.iter().position(|word| word == "--").filter(|_| cargo)?;
    let binary = std::iter::once("watchpost".to_owned());
    Some(binary.chain(command.into_iter().skip(behind + 1)).collect())
}

/// Rust files below a directory: path and text. Build output is left out.
pub(super) fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for path in entries.map(|entry| entry.expect("the tree can be read").path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(sources(&path));
        } else if name.ends_with(".rs") {
            files.push((name, fs::read_to_string(&path).expect("sources are UTF-8")));
        }
    }
    files
}

#[test]
fn documents_come_apart_as_they_should() {
    let text = "Use `a b` and `c`.\n```sh\nA=1 ./x/watchpost run & sleep 1 # `d`\n```\n```json\n{}\n```\n\
                `watchpost explain 'a b'`\n| `e` | f |\n|---|---|\n";
    assert_eq!(code_spans(text), ["a b", "c", "watchpost explain 'a b'", "e"]);
    assert_eq!(fenced(text, "json"), ["{}\n"]);
    assert_eq!(rows(text), [["`e`", "f"], ["---", "---"]]);
    let commands = commands(text);
    assert_eq!(commands, [vec!["./x/watchpost", "run"], vec!["watchpost", "explain", "a b"]]);
}
