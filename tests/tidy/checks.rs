//! The house rules that a machine can hold. Each complaint says what to do instead.

use regex::Regex;

use super::source::{RustFile, Tree, words};

/// A file is read in one sitting.
const FILE_LINES_MAX: usize = 600;
/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 75;
/// Packages in Cargo.lock: ours, and what reqwest (about 70), mysql_async (33), tokio, axum, clap, rustls, jiff, and for
/// the tests proptest, rcgen and criterion bring, on all platforms. It moves with a reason in Cargo.toml only.
pub(super) const LOCKED_PACKAGES: usize = 279;

/// The only readers of the process environment.
const ENVIRONMENT_READERS: &[&str] = &["src/main.rs"];
/// The only readers of a clock: the word itself, who assembles, and the edges that time a peer.
const CLOCK_READERS: &[&str] =
    &["src/clock.rs", "src/main.rs", "src/agent", "src/cli", "src/ship", "src/status"];
/// Edges that measure how long a part of the host took to answer; the wall clock is not theirs.
const DURATION_READERS: &[&str] = &["src/sources", "src/probes"];

/// Whether a path is one of these files, or lies in the module of that name.
fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    })
}

/// Every match of an expression in a view of a file, as `path:line: advice`.
fn matches(file: &RustFile, view: &str, expression: &str, advice: &str) -> Vec<String> {
    let expression = Regex::new(expression).expect("it compiles");
    let complain = |found: regex::Match<'_>| {
        format!("{}: `{}`: {advice}", file.place(found.start()), found.as_str().trim())
    };
    expression.find_iter(view).map(complain).collect()
}

/// The files that are compiled into the agent, not the tests beside them.
fn agent_files(tree: &Tree) -> impl Iterator<Item = &RustFile> {
    tree.rust.iter().filter(|file| file.path.starts_with("src/") || file.path.starts_with("parsers/src/"))
}

pub(super) fn heads(tree: &Tree) -> Vec<String> {
    let headless = tree.rust.iter().filter(|file| !file.text.starts_with("//!"));
    headless
        .map(|file| {
            format!("{}:1: no `//!` at the top: say what the file owns and what it must never do", file.path)
        })
        .collect()
}

pub(super) fn file_lengths(tree: &Tree) -> Vec<String> {
    let complain = |file: &RustFile| {
        let lines = file.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| {
            format!(
                "{}: {lines} lines, at most {FILE_LINES_MAX}: make it a folder with a file for each part",
                file.path
            )
        })
    };
    tree.rust.iter().filter_map(complain).collect()
}

pub(super) fn function_lengths(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in &tree.rust {
        for function in file.functions() {
            let lines = 1 + file.line(function.range.end) - file.line(function.range.start);
            if lines > FUNCTION_LINES_MAX {
                complaints.push(format!(
                    "{}: {} has {lines} lines, at most {FUNCTION_LINES_MAX}: keep the decisions, move the \
                     loops into functions of their own",
                    file.place(function.range.start),
                    function.name
                ));
            }
        }
    }
    complaints
}

pub(super) fn environment(tree: &Tree) -> Vec<String> {
    let advice = "only main.rs reads the environment: take the value as an argument, or make it a setting";
    let expression = r"\bstd\s*::\s*env\b|\benv\s*::\s*(vars?|args|current|temp|home|set|remove)\w*";
    let files = agent_files(tree).filter(|file| !is_in(&file.path, ENVIRONMENT_READERS));
    files.flat_map(|file| matches(file, &file.production, expression, advice)).collect()
}

pub(super) fn clocks(tree: &Tree) -> Vec<String> {
    let advice = "time comes in as an argument: take a `Now`, or the moment itself";
    let wall = r"\b(SystemTime|Timestamp|Zoned)\s*::\s*now\b";
    let monotonic = r"\bInstant\s*::\s*now\b|\bNow\s*::\s*read\b|\.\s*elapsed\s*\(";
    let mut complaints = Vec::new();
    for file in agent_files(tree).filter(|file| !is_in(&file.path, CLOCK_READERS)) {
        complaints.extend(matches(file, &file.production, wall, advice));
        if !is_in(&file.path, DURATION_READERS) {
            complaints.extend(matches(file, &file.production, monotonic, advice));
        }
    }
    complaints
}

pub(super) fn sleeps(tree: &Tree) -> Vec<String> {
    let sleep = Regex::new(r"\bsleep(_ms|_until)?\s*\(").expect("it compiles");
    let mut complaints = Vec::new();
    for file in &tree.rust {
        let functions = file.functions();
        for found in sleep.find_iter(&file.test) {
            let around = functions.iter().filter(|function| function.range.contains(&found.start()));
            let innermost = around.max_by_key(|function| function.range.start);
            if !innermost.is_some_and(|function| function.name.starts_with("wait")) {
                complaints.push(format!(
                    "{}: a test that sleeps: wait for a condition with a deadline, in a helper named wait_..",
                    file.place(found.start())
                ));
            }
        }
    }
    complaints
}

pub(super) fn std_in_parsers(tree: &Tree) -> Vec<String> {
    let advice =
        "the parsers are no_std so that the compiler keeps I/O out: `extern crate std` in tests only";
    let parsers = tree.rust.iter().filter(|file| file.path.starts_with("parsers/src/"));
    let mut complaints = Vec::new();
    for file in parsers {
        complaints.extend(matches(file, &file.production, r"\bextern\s+crate\s+std\b", advice));
        if file.path == "parsers/src/lib.rs" && !file.production.contains("#![no_std]") {
            complaints.push(format!("{}: no `#![no_std]`: {advice}", file.path));
        }
    }
    complaints
}

pub(super) fn leftovers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in &tree.rust {
        let code = r"\b(todo|unimplemented|dbg)\s*!";
        complaints.extend(matches(file, &file.code, code, "build the real thing, or take it out"));
        let marker = r"\b(TODO|FIXME|XXX|HACK)\b";
        complaints.extend(matches(file, &file.comments, marker, "do it now, or say why it is as it is"));
    }
    complaints
}

pub(super) fn orphans(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in &tree.rust {
        let Some((stem, parents)) = parents(&file.path) else { continue };
        let is_named = tree.rust.iter().filter(|other| parents.contains(&other.path)).any(|parent| {
            words(&parent.code, "mod").iter().any(|at| {
                parent.code[at + 3..]
                    .trim_start()
                    .strip_prefix(stem)
                    .is_some_and(|rest| rest.trim_start().starts_with(';'))
            })
        });
        if !is_named {
            complaints.push(format!(
                "{}: the compiler never sees it: write `mod {stem};` in {}, or delete the file",
                file.path,
                parents.join(" or ")
            ));
        }
    }
    complaints
}

/// The name of a module file and the files one of which must name it. `None` for roots of crates.
fn parents(path: &str) -> Option<(&str, Vec<String>)> {
    const ROOTS: [(&str, &[&str]); 3] = [
        ("src", &["src/lib.rs", "src/main.rs"]),
        ("parsers/src", &["parsers/src/lib.rs"]),
        ("tests", &["tests/suite.rs"]),
    ];
    let roots =
        ROOTS.iter().find(|(folder, _)| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    let (folder, roots) = roots?;
    if roots.contains(&path) {
        return None;
    }
    let path = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs"))?;
    let (parent, stem) = path.rsplit_once('/')?;
    if parent == *folder {
        return Some((stem, roots.iter().map(|root| (*root).to_owned()).collect()));
    }
    Some((stem, vec![format!("{parent}.rs"), format!("{parent}/mod.rs")]))
}

pub(super) fn locked_packages(tree: &Tree) -> Vec<String> {
    let locks = tree.cargo.iter().filter(|(path, _)| path == "Cargo.lock");
    let complain = |(path, text): &(String, String)| {
        let packages = text.lines().filter(|line| *line == "[[package]]").count();
        (packages != LOCKED_PACKAGES).then(|| {
            format!(
                "{path}: {packages} packages, {LOCKED_PACKAGES} are pinned: undo it, or write the reason into \
                 Cargo.toml and move LOCKED_PACKAGES in tests/tidy/checks.rs"
            )
        })
    };
    locks.filter_map(complain).collect()
}

pub(super) fn dependency_reasons(tree: &Tree) -> Vec<String> {
    let manifests = tree.cargo.iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    manifests.flat_map(|(path, text)| unexplained(path, text)).collect()
}

/// The dependencies of one manifest that have no comment right above them. What is taken from the workspace has it there.
fn unexplained(path: &str, text: &str) -> Vec<String> {
    let header = Regex::new(r"^\[(.*\.)?(dev-|build-)?dependencies(?:\.([\w-]+))?\]").expect("it compiles");
    let entry = Regex::new(r"^([\w-]+)[\w.-]*\s*=").expect("it compiles");
    let (mut complaints, mut in_section, mut open, mut above) = (Vec::new(), false, 0i32, "");
    for (number, line) in text.lines().enumerate() {
        let mut dependency = None;
        if line.starts_with('[') && open == 0 {
            let found = header.captures(line);
            // A section of one dependency's own is explained above its header.
            dependency = found.as_ref().and_then(|header| header.get(3)).map(|name| name.as_str());
            in_section = found.is_some() && dependency.is_none();
        } else if in_section && open == 0 {
            dependency = entry.captures(line).and_then(|entry| entry.get(1)).map(|name| name.as_str());
        }
        let is_explained = above.starts_with('#') || line.contains("workspace = true");
        if let Some(name) = dependency.filter(|_| !is_explained) {
            complaints.push(format!(
                "{path}:{}: {name} without a reason: say in a comment above it what it is for",
                number + 1
            ));
        }
        let count = |c: char| i32::try_from(line.matches(c).count()).expect("a line is short");
        open += count('[') + count('{') - count(']') - count('}');
        above = line;
    }
    complaints
}
