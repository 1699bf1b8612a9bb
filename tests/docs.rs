//! The documents are held true: what they name exists, what they show works, what they say of limits is so.
//!
//! Checks look at text and ask the binary's own tables; nothing is run. Each is also shown a text that it must
//! complain about. Plans have no place in the documents: what is named must be there.

mod limits;
mod words;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use watchpost::cli::{args, exit};
use watchpost::config::SETTINGS;

use words::{code_spans, commands, fenced, rows};

/// Longer than this, nobody reads it.
const ARCHITECTURE_LINES_MAX: usize = 300;

/// The documents.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/fleet.md",
    "docs/lab.md",
    "docs/security.md",
    PEERS,
];

/// The failures of other agents, each with the test that plays it.
const PEERS: &str = "docs/peers.md";

/// Fewer would be no survey.
const PEERS_ROWS_MIN: usize = 30;

/// A document by the name of its file.
struct Document<'a> {
    name: &'a str,
    text: &'a str,
}

/// One rule: a part of every document is held to the tree or the binary.
struct Check {
    name: &'static str,
    run: fn(&Document<'_>) -> Vec<String>,
    /// A document, each text of which the check must complain about, and a part of the complaint.
    bad: &'static [(&'static str, &'static str, &'static str)],
}

const CHECKS: &[Check] = &[
    Check {
        name: "settings",
        run: settings,
        bad: &[
            ("README.md", "Set `WATCHPOST_SPOOL_MAXIMUM`.", "WATCHPOST_SPOOL_MAXIMUM"),
            ("CHANGELOG.md", "WATCHPOST_SPOOL_MAX_FILE", "WATCHPOST_SPOOL_MAX_FILE"),
            ("docs/peers.md", "WATCHPOST_TEST_NOTHING=1", "no setting WATCHPOST_TEST_NO"),
        ],
    },
    Check {
        name: "defaults",
        run: defaults,
        bad: &[
            ("README.md", "| `WATCHPOST_SPOOL_MAX` | `2GiB` | cap |", "the default of WATCHPOST_SPOOL_MAX"),
            ("README.md", "| `WATCHPOST_SUMO_URL` | `auto` | where |", "unset"),
        ],
    },
    Check {
        name: "commands",
        run: command_lines,
        bad: &[
            ("README.md", "Run `watchpost fly`.", "watchpost fly"),
            ("README.md", "```sh\nA=1 watchpost receiver --stored x & sleep 1\n```", "--stored"),
            ("README.md", "```sh\ncargo run --release -- demo --minutes 1\n```", "--minutes"),
            ("README.md", "```sh\ncargo build && watchpost check --spool 1\n```", "--spool"),
        ],
    },
    Check {
        name: "paths",
        run: paths,
        bad: &[
            ("ARCHITECTURE.md", "It is in `src/nothing.rs`.", "src/nothing.rs"),
            ("README.md", "```sh\nsudo install -D -m 0644 config/nothing /etc/x\n```", "config/nothing"),
            ("README.md", "Run `./tests/walk`.", "tests/walk"),
            ("README.md", "See `NOTICE.md`.", "NOTICE.md"),
        ],
    },
    Check {
        name: "test names",
        run: test_names,
        bad: &[(
            "ARCHITECTURE.md",
            "| all is well | `all_is_well_and_stays_so` | |",
            "all_is_well_and_stays_so",
        )],
    },
    Check {
        name: "metric names",
        run: metric_names,
        bad: &[("README.md", "`watchpost_http_requests`", "watchpost_http_requests")],
    },
    Check {
        name: "records",
        run: records,
        bad: &[
            ("README.md", "```json\n{\"timestamp\":1,}\n```", "is no JSON"),
            ("README.md", "```json\n{\"record\":\"x\",\"timestamp\":1}\n```", "begins with its time"),
        ],
    },
    Check {
        name: "paths of the port",
        run: port_paths,
        bad: &[("README.md", "| `/statuses` | more of it |", "/statuses")],
    },
    Check {
        name: "exit codes",
        run: exit_codes,
        bad: &[("README.md", "| code | meaning |\n|---|---|\n| 0 | well |\n| 65 | other |", "65")],
    },
    Check {
        name: "promises of later",
        run: leftovers,
        bad: &[("README.md", "TODO: more", "TODO"), ("README.md", "@@MEASURED@@", "@@")],
    },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_documents_are_true() {
    let mut complaints = Vec::new();
    for name in DOCUMENTS {
        let text = read(name);
        let document = Document { name, text: &text };
        complaints.extend(CHECKS.iter().flat_map(|check| (check.run)(&document)));
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_check_of_the_documents_can_fail() {
    for check in CHECKS {
        for (name, text, expected) in check.bad {
            let complaints = (check.run)(&Document { name, text });
            assert_eq!(complaints.len(), 1, "{}: {text:?}: {complaints:?}", check.name);
            assert!(complaints[0].contains(expected), "{}: no {expected:?} in {complaints:?}", check.name);
        }
    }
}

#[test]
fn the_readme_has_the_two_commands_and_the_commands_that_there_are() {
    let readme = read("README.md");
    let lines = fenced(&readme, "sh").join("\n");
    let starts = |command: &str| lines.lines().any(|line| line.starts_with(command));
    assert!(starts("cargo run --release -- demo") && starts("./tests/run"), "{lines}");
    assert!(!starts("cargo run --release -- fly"));
    let shown: Vec<String> = commands(&readme).into_iter().map(|words| words.join(" ")).collect();
    let is_shown = |name: &str| shown.iter().any(|line| line.starts_with(&format!("watchpost {name}")));
    for name in args::command_names() {
        assert!(is_shown(&name), "README.md does not show `watchpost {name}`");
    }
    assert!(!is_shown("fly"));
}

#[test]
fn the_architecture_is_short_and_names_every_module() {
    let text = read("ARCHITECTURE.md");
    let too_long = |text: &str| text.lines().count() > ARCHITECTURE_LINES_MAX;
    assert!(!too_long(&text), "{} lines, at most {ARCHITECTURE_LINES_MAX}", text.lines().count());
    assert!(too_long(&"\n".repeat(ARCHITECTURE_LINES_MAX + 1)));
    let library = read("src/lib.rs");
    let modules: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 8, "the modules were not found: {modules:?}");
    let is_mapped = |module: &str| {
        text.contains(&format!("`src/{module}/`")) || text.contains(&format!("`src/{module}.rs`"))
    };
    for module in modules {
        assert!(is_mapped(module), "ARCHITECTURE.md does not map src/{module}");
    }
    assert!(!is_mapped("nothing"));
}

/// Rows of a table of cases whose last cell does not name one test.
fn cases_without_a_test(text: &str) -> Vec<String> {
    let is_case = |row: &Vec<&str>| row[0] != "case" && !row[0].starts_with("---");
    let names_a_test = |row: &Vec<&str>| {
        let name = row.last().and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`'));
        row.len() == 4 && name.is_some_and(|name| name.matches('_').count() >= 3)
    };
    let cases = rows(text).into_iter().filter(is_case);
    cases.filter(|row| !names_a_test(row)).map(|row| row.join(" | ")).collect()
}

#[test]
fn each_failure_of_a_peer_has_a_test_that_exists() {
    let text = read(PEERS);
    assert_eq!(cases_without_a_test(&text), [""; 0]);
    let sources = words::sources(root());
    let missing = |text: &str| {
        let tests: BTreeSet<String> = rows(text)
            .iter()
            .filter_map(|row| Some(row.last()?.strip_prefix('`')?.trim_end_matches('`').to_owned()))
            .collect();
        let is_there =
            |name: &String| sources.iter().any(|(_, source)| source.contains(&format!("fn {name}(")));
        let missing = tests.iter().filter(|name| !is_there(name)).cloned().collect::<Vec<_>>();
        (tests.len(), missing)
    };
    let (tests, gone) = missing(&text);
    assert_eq!(gone, [""; 0]);
    assert!(tests >= PEERS_ROWS_MIN, "{tests} tests");
    // And each of these can fail.
    assert_eq!(
        cases_without_a_test("| case | peer | here | test |\n|---|---|---|---|\n| a | b | c | none |").len(),
        1
    );
    assert_eq!(missing("| a | b | c | `a_test_that_is_not_there` |").1.len(), 1);
}

/// Whole words that begin like this, each once.
fn names<'a>(text: &'a str, expression: &str) -> BTreeSet<&'a str> {
    let expression = regex::Regex::new(expression).expect("it compiles");
    expression.find_iter(text).map(|found| found.as_str()).collect()
}

/// Every variable of the agent that a document names is in the table.
fn settings(document: &Document<'_>) -> Vec<String> {
    let is_known = |name: &&str| {
        SETTINGS
            .iter()
            .any(|setting| setting.name == *name || setting.file_variable().as_deref() == Some(*name))
            || is_of_tests(name)
    };
    let unknown = names(document.text, r"\bWATCHPOST_[A-Z_]+\b").into_iter().filter(|name| !is_known(name));
    unknown.map(|name| format!("{}: there is no setting {name}", document.name)).collect()
}

/// A variable that makes a test longer is read by one.
fn is_of_tests(name: &str) -> bool {
    let is_read = || {
        let sources = words::sources(&root().join("tests"));
        sources.iter().any(|(_, text)| text.contains(&format!("\"{name}\"")))
    };
    name.starts_with("WATCHPOST_TEST_") && is_read()
}

/// A row that begins with a setting has its default in the second column.
fn defaults(document: &Document<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in rows(document.text) {
        let Some(setting) = SETTINGS.iter().find(|setting| row[0] == format!("`{}`", setting.name)) else {
            continue;
        };
        let default =
            if setting.default.is_empty() { "unset".to_owned() } else { format!("`{}`", setting.default) };
        if row.get(1) != Some(&default.as_str()) {
            complaints.push(format!("{}: the default of {} is {default}", document.name, setting.name));
        }
    }
    complaints
}

/// Every command line of the binary is one that it understands.
fn command_lines(document: &Document<'_>) -> Vec<String> {
    let complain = |words: Vec<String>| {
        let error = args::parse(words.iter().map(OsString::from)).err()?;
        Some(format!("{}: `{}`: {error}", document.name, words.join(" ")))
    };
    commands(document.text).into_iter().filter_map(complain).collect()
}

/// Every file that a document names is in the tree.
fn paths(document: &Document<'_>) -> Vec<String> {
    let in_tree = r"(^|[\s`(])(\./)?((src|parsers|config|tests|benches|docs|fuzz|\.cargo)/[\w./-]*|[A-Z]+(\.md)?)($|[\s`),])";
    let expression = regex::Regex::new(in_tree).expect("it compiles");
    let mut complaints = BTreeSet::new();
    let shell = fenced(document.text, "sh");
    for text in code_spans(document.text).into_iter().chain(shell.iter().map(String::as_str)) {
        // Words share the blank between them, so each is looked at by itself.
        for word in text.split_whitespace() {
            let Some(found) = expression.captures(word) else { continue };
            let path = found[3].trim_end_matches(['.', '/']);
            let is_file = path.contains(['/', '.']) || path == "LICENSE";
            if is_file && !root().join(path).exists() {
                complaints.insert(format!("{}: there is no {path}", document.name));
            }
        }
    }
    complaints.into_iter().collect()
}

/// A code span of five words or more joined by underscores is the name of a test.
fn test_names(document: &Document<'_>) -> Vec<String> {
    let is_test = |span: &&str| {
        span.matches('_').count() >= 4
            && span.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            && !span.starts_with("watchpost_")
            && !span.starts_with("node_")
            && !span.starts_with("http_")
    };
    let wanted: Vec<&str> = code_spans(document.text).into_iter().filter(is_test).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let sources = words::sources(root());
    let is_there = |name: &str| sources.iter().any(|(_, text)| text.contains(&format!("fn {name}(")));
    let missing = wanted.into_iter().filter(|name| !is_there(name));
    missing.map(|name| format!("{}: there is no test {name}", document.name)).collect()
}

/// Every metric that a document names is one that the code writes.
fn metric_names(document: &Document<'_>) -> Vec<String> {
    let spans = code_spans(document.text).join("\n");
    let wanted = names(&spans, r"(?m)^(watchpost|node|http)_[a-z0-9_]+$");
    if wanted.is_empty() {
        return Vec::new();
    }
    let sources = words::sources(&root().join("src"));
    let is_written = |name: &str| sources.iter().any(|(_, text)| text.contains(&format!("\"{name}\"")));
    let missing = wanted.into_iter().filter(|name| !is_written(name));
    missing.map(|name| format!("{}: nothing writes the metric {name}", document.name)).collect()
}

/// Every record that is shown is one, and begins with its time as Sumo Logic wants it.
fn records(document: &Document<'_>) -> Vec<String> {
    let judge = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Err(error) => Some(format!("{}: {line} is no JSON: {error}", document.name)),
        Ok(_) if !line.starts_with("{\"timestamp\":") => {
            Some(format!("{}: a record begins with its time: {line}", document.name))
        }
        Ok(_) => None,
    };
    fenced(document.text, "json").iter().flat_map(|block| block.lines()).filter_map(judge).collect()
}

/// A row that begins with a path of the port names one that the port answers.
fn port_paths(document: &Document<'_>) -> Vec<String> {
    let server = read("src/status/server.rs");
    let told = rows(document.text);
    let paths = told.iter().filter_map(|row| row[0].strip_prefix("`/")?.strip_suffix('`'));
    let missing = paths.filter(|path| !server.contains(&format!(".route(\"/{path}\"")));
    missing.map(|path| format!("{}: the port has no /{path}", document.name)).collect()
}

/// The table of exit codes is that of the commands.
fn exit_codes(document: &Document<'_>) -> Vec<String> {
    let told: BTreeSet<u8> = rows(document.text).iter().filter_map(|row| row[0].parse().ok()).collect();
    let codes =
        [0, exit::USAGE, exit::UNAVAILABLE, exit::SOFTWARE, exit::IO, exit::PERMISSION, exit::SETTINGS];
    let known = BTreeSet::from(codes);
    if told.is_empty() || told == known {
        return Vec::new();
    }
    vec![format!("{}: exit codes {told:?} are not {known:?}", document.name)]
}

/// A document says what is, or says nothing.
fn leftovers(document: &Document<'_>) -> Vec<String> {
    let found = names(document.text, r"\b(TODO|FIXME|XXX|TBD)\b|@@");
    found.into_iter().map(|word| format!("{}: {word} is left over", document.name)).collect()
}
