//! Who may import whom: the diagram of the tree as a table, and the check that holds the tree to it.

use regex::Regex;

use super::source::{RustFile, Tree, block_end, words};

/// Import nothing of the project but one another, upwards in this list.
const WORDS: &[&str] = &["record", "facts", "secret", "clock", "mutant"];
/// What several edges ask of the kernel; imports nothing.
const KERNEL: &[&str] = &["sock_diag"];
/// Pure steps of the pipeline.
const STAGES: &[&str] = &["follow", "window", "insight", "batch", "spool"];
/// What touches the host, the network or a reader.
const EDGES: &[&str] = &["sources", "probes", "ship", "status"];

/// Every module of `src`, a row each for those with the same rights, and what the row may import.
const LAYERS: &[(&[&str], &[&[&str]])] = &[
    (&["record", "secret", "mutant"], &[]),
    (&["clock", "facts"], &[&["record"]]),
    (KERNEL, &[]),
    (STAGES, &[WORDS]),
    (&["config"], &[WORDS]),
    (EDGES, &[WORDS, KERNEL, STAGES]),
    (&["agent"], &[WORDS, STAGES, EDGES, &["config"]]),
    (&["cli"], &[WORDS, STAGES, EDGES, &["config", "agent"]]),
];

/// What a module may import; `None` for one that the table does not know.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let (_, layers) = LAYERS.iter().find(|(modules, _)| modules.contains(&module))?;
    Some(layers.iter().copied().flatten().copied().collect())
}

/// The module of a file under `src`: its first folder or its stem.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    // These assemble; they may name everything.
    (!matches!(module, "lib" | "main")).then_some(module)
}

/// Values flow one way: each module imports only what its row of the table names.
pub(super) fn layering(tree: &Tree) -> Vec<String> {
    let known: Vec<&str> = tree.rust.iter().filter_map(|file| module(&file.path)).collect();
    let mut complaints = Vec::new();
    for file in &tree.rust {
        let Some(module) = module(&file.path) else { continue };
        let Some(allowed) = allowed(module) else {
            complaints.push(format!(
                "{}: no layer is known for {module}: give it a row in LAYERS of tests/tidy/layers.rs, \
                 and draw it in ARCHITECTURE.md",
                file.path
            ));
            continue;
        };
        for (offset, name) in imports(file) {
            if name != module && known.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                complaints.push(format!(
                    "{}: {module} may not import {name}, only {allowed:?}: let the module above both hand \
                     the value in, or move what they share into a word",
                    file.place(offset)
                ));
            }
        }
        if WORDS.contains(&module) {
            complaints.extend(words(&file.code, "watchpost_parsers").into_iter().map(|offset| {
                format!("{}: {module} is a word and may not import the parsers", file.place(offset))
            }));
        }
    }
    complaints
}

/// Every name that a file takes from the root of the crate, and where.
fn imports(file: &RustFile) -> Vec<(usize, String)> {
    let root = Regex::new(r"\b(crate|super(\s*::\s*super)*)\s*::\s*").expect("it compiles");
    let mut found = Vec::new();
    for path in root.find_iter(&file.code) {
        let supers = path.as_str().matches("super").count();
        if supers == 0 || supers == depth(file, path.start()) {
            let names = first_names(&file.code[path.end()..]);
            found.extend(names.into_iter().map(|name| (path.start(), name)));
        }
    }
    found
}

/// How many modules a place is below the root of the crate.
fn depth(file: &RustFile, offset: usize) -> usize {
    let inside = file.path.strip_prefix("src/").unwrap_or(&file.path);
    let folders = inside.split('/').filter(|part| !matches!(*part, "mod.rs" | "lib.rs" | "main.rs")).count();
    let is_around = |at: &usize| {
        let end_of_head = file.code[*at..].find(['{', ';']).map(|head| at + head);
        end_of_head.is_some_and(|open| {
            file.code[open..].starts_with('{') && (open..block_end(&file.code, open)).contains(&offset)
        })
    };
    folders + words(&file.code, "mod").iter().filter(|at| is_around(at)).count()
}

/// The first name of a path, or of each path in braces: `{a::b, c}` has `a` and `c`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    if !rest.starts_with('{') {
        return vec![name(rest)];
    }
    let inside = &rest[1..block_end(rest, 0).saturating_sub(1).max(1)];
    let (mut depth, mut start, mut names) = (0usize, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                names.push(name(&inside[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.push(name(&inside[start..]));
    names
}

#[test]
fn imports_are_found_however_they_are_written() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let tree = Tree::of_samples(&[(path, text)]);
        let names: Vec<String> = imports(&tree.rust[0]).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, expected, "{path}: {text}");
    };
    check("src/a.rs", "use crate::b::C; fn f() { crate::d::e() }", &["b", "d"]);
    check("src/a.rs", "use crate::{b::{C, D}, d};", &["b", "d"]);
    check("src/a.rs", "// crate::b\nlet x = \"crate::c\"; pub(crate) fn f() {}", &[]);
    check("src/a.rs", "use super::b; mod tests { use super::c; use super::super::d; }", &["b", "d"]);
    check("src/a/mod.rs", "use super::b;", &["b"]);
    check("src/a/x.rs", "use super::y; use super::super::b;", &["b"]);
}
