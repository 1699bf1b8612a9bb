//! The house rules as tests: the tree must pass each check, and each check must be able to fail.
//!
//! Checks look at text only and never run anything. `source` reads the tree, `checks` and `layers`
//! judge, the table below names each check with a sample that it must complain about.

mod checks;
mod layers;
mod source;

use std::path::Path;

use source::Tree;

/// One rule: how it is checked, and samples of what breaks it and of what does not.
struct Check {
    name: &'static str,
    run: fn(&Tree) -> Vec<String>,
    /// Files, each of which alone the check must complain about; and a part of the complaint.
    bad: &'static [(&'static str, &'static str, &'static str)],
    /// Files that together are well.
    good: &'static [(&'static str, &'static str)],
}

const CHECKS: &[Check] = &[
    Check {
        name: "heads",
        run: checks::heads,
        bad: &[("src/a.rs", "// a\n", "src/a.rs:1"), ("benches/b.rs", "\n//! b\n", "what the file owns")],
        good: &[("src/a.rs", "//! a\n")],
    },
    Check {
        name: "file lengths",
        run: checks::file_lengths,
        bad: &[("src/a.rs", LONG, "701 lines")],
        good: &[("src/a.rs", "\n\n\n")],
    },
    Check {
        name: "function lengths",
        run: checks::function_lengths,
        bad: &[("src/a.rs", LONG, "src/a.rs:1: long has 701 lines")],
        good: &[("src/a.rs", "fn a() {}\nfn b();\nimpl C { fn d(&self) { '{' } }\n")],
    },
    Check {
        name: "layering",
        run: layers::layering,
        bad: &[
            ("src/new.rs", "", "give it a row"),
            (
                "src/record.rs",
                "use crate::record::A; use watchpost_parsers::B;",
                "may not import the parsers",
            ),
        ],
        good: &[
            ("src/spool/mod.rs", "use crate::record::Stream; use watchpost_parsers::Line;"),
            ("src/record.rs", ""),
            ("src/clock.rs", "use crate::record::EpochMs;"),
            ("src/ship.rs", "use crate::{spool, clock::Now};"),
            ("src/status/page.rs", "use super::json; mod tests { use super::*; use crate::window::Window; }"),
            ("src/status/mod.rs", ""),
            ("src/window/mod.rs", ""),
            ("src/main.rs", "use crate::status;"),
        ],
    },
    Check {
        name: "environment",
        run: checks::environment,
        bad: &[
            ("src/config/load.rs", "fn f() { std::env::var(\"A\") }", "src/config/load.rs:1: `std::env`"),
            ("src/a.rs", "use std::{env, fs};\nfn f() { env::var_os(\"A\") }", "src/a.rs:2"),
        ],
        good: &[
            ("src/main.rs", "fn f() { std::env::vars_os() }"),
            (
                "src/a.rs",
                "// std::env::var\nconst A: &str = env!(\"B\");\n#[cfg(test)]\nmod t { use std::env; }",
            ),
            ("tests/a.rs", "fn f() { std::env::var(\"A\") }"),
        ],
    },
    Check {
        name: "clocks",
        run: checks::clocks,
        bad: &[
            ("src/window/mod.rs", "fn f() { Instant::now() }", "take a `Now`"),
            ("src/sources/cpu.rs", "\nfn f() { std::time::SystemTime::now() }", "src/sources/cpu.rs:2"),
            ("src/shipping.rs", "fn f() { started.elapsed() }", "time comes in"),
            ("src/batch.rs", "fn f() { crate::clock::Now::read() }", "time comes in"),
        ],
        good: &[
            ("src/clock.rs", "fn f() { Instant::now() }"),
            ("src/ship/sender.rs", "fn f() { Instant::now() }"),
            ("src/sources/mod.rs", "fn f() { Now::read(); Instant::now().elapsed() }"),
            ("src/batch.rs", "#[cfg(test)]\nmod tests { fn f() { Instant::now() } }"),
        ],
    },
    Check {
        name: "sleeps",
        run: checks::sleeps,
        bad: &[
            ("tests/a.rs", "fn f() { std::thread::sleep(TICK); }", "wait for a condition"),
            ("src/a.rs", "#[cfg(test)]\nmod t { fn f() { tokio::time::sleep(TICK).await; } }", "src/a.rs:2"),
            ("tests/a.rs", "fn wait_for() { fn inner() { sleep(TICK) } }", "wait for a condition"),
        ],
        good: &[
            ("tests/a.rs", "fn wait_until(done: fn() -> bool) { while !done() { sleep(TICK) } }"),
            ("src/a.rs", "fn f() { std::thread::sleep(TICK) }"),
        ],
    },
    Check {
        name: "std in parsers",
        run: checks::std_in_parsers,
        bad: &[
            ("parsers/src/line.rs", "extern crate std;", "parsers/src/line.rs:1"),
            ("parsers/src/lib.rs", "//! No attribute.\n#[cfg(test)]\nextern crate std;", "no `#![no_std]`"),
        ],
        good: &[("parsers/src/lib.rs", "#![no_std]\nextern crate alloc;\n#[cfg(test)]\nextern crate std;\n")],
    },
    Check {
        name: "leftovers",
        run: checks::leftovers,
        bad: &[
            ("src/a.rs", "fn f() { todo!() }", "`todo!`"),
            ("src/a.rs", "fn f() { dbg!(1) }", "`dbg!`"),
            ("src/a.rs", "\n// TODO: more", "src/a.rs:2"),
            ("src/a.rs", "/* FIXME */", "do it now"),
        ],
        good: &[("src/a.rs", "const A: &str = \"TODO dbg!(1)\"; // METHODOLOGY")],
    },
    Check {
        name: "orphans",
        run: checks::orphans,
        bad: &[
            ("src/a.rs", "", "write `mod a;` in src/lib.rs or src/main.rs"),
            ("src/a/b.rs", "", "write `mod b;` in src/a.rs or src/a/mod.rs"),
            ("parsers/src/a.rs", "", "parsers/src/lib.rs"),
            ("tests/a.rs", "", "tests/suite.rs"),
        ],
        good: &[
            ("src/lib.rs", "pub mod a; mod inline { }"),
            ("src/a/mod.rs", "mod b;"),
            ("src/a/b.rs", "#[cfg(test)] mod tests;"),
            ("src/a/b/tests.rs", ""),
            ("tests/suite.rs", "mod c;"),
            ("tests/c.rs", ""),
            ("benches/d.rs", ""),
        ],
    },
    Check {
        name: "locked packages",
        run: checks::locked_packages,
        bad: &[("Cargo.lock", "[[package]]\nname = \"a\"\n", "1 packages")],
        good: &[],
    },
    Check {
        name: "dependency reasons",
        run: checks::dependency_reasons,
        bad: &[
            ("Cargo.toml", "[dependencies]\n# For a.\na = \"1\"\nb = \"1\"\n", "Cargo.toml:4: b without"),
            ("parsers/Cargo.toml", "[dev-dependencies]\na = { version = \"1\" }\n", "parsers/Cargo.toml:2"),
            ("Cargo.toml", "[dependencies.a]\nversion = \"1\"\n", "Cargo.toml:1: a without"),
        ],
        good: &[(
            "Cargo.toml",
            "[dependencies]\n# For a.\na = { features = [\n  \"b\",\n] }\nd.workspace = true\n[features]\nc = []\n",
        )],
    },
];

/// One function, and with it a file, beyond every limit: 701 lines.
const LONG: &str = match std::str::from_utf8(&LONG_BYTES) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

const LONG_BYTES: [u8; 712] = {
    let mut bytes = [b'\n'; 712];
    let (head, _) = bytes.split_at_mut(11);
    head.copy_from_slice(b"fn long() {");
    bytes[711] = b'}';
    bytes
};

#[test]
fn the_tree_keeps_the_rules() {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(tree.rust.iter().any(|file| file.path == "src/lib.rs"), "the tree was not found");
    let complaints: Vec<String> = CHECKS.iter().flat_map(|check| (check.run)(&tree)).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_check_can_fail_and_says_where() {
    for check in CHECKS {
        assert!(!check.bad.is_empty(), "{}: no sample", check.name);
        for (path, text, expected) in check.bad {
            let complaints = (check.run)(&Tree::of_samples(&[(path, text)]));
            assert_eq!(complaints.len(), 1, "{}: {path}: {text:?}: {complaints:?}", check.name);
            assert!(complaints[0].contains(expected), "{}: no {expected:?} in {complaints:?}", check.name);
        }
        let complaints = (check.run)(&Tree::of_samples(check.good));
        assert!(complaints.is_empty(), "{}: {complaints:?}", check.name);
    }
}

#[test]
fn a_module_may_not_import_from_above() {
    for (importer, text, imported) in [
        ("src/spool/log.rs", "use crate::sources::Cpu;", "src/sources/mod.rs"),
        ("src/window.rs", "use crate::{record, batch};", "src/batch.rs"),
        ("src/window.rs", "mod tests { use super::super::batch; }", "src/batch.rs"),
        ("src/ship/mod.rs", "use super::status;", "src/status.rs"),
        ("src/agent.rs", "fn f() { crate::cli::g() }", "src/cli/mod.rs"),
        ("src/clock.rs", "use crate::secret::Secret;", "src/secret.rs"),
        ("src/config/mod.rs", "use crate::spool;", "src/spool/mod.rs"),
    ] {
        let files = [(importer, text), (imported, ""), ("src/record.rs", "")];
        let complaints = layers::layering(&Tree::of_samples(&files));
        assert_eq!(complaints.len(), 1, "{importer}: {text}: {complaints:?}");
        assert!(complaints[0].contains("may not import"), "{complaints:?}");
    }
}
