//! S15 and S16: what the binary is made of. Licences, sources, bans and duplicates against `.cargo/deny.toml`, and the bill
//! of materials, all from cargo's own answers and without a network.
//!
//! Advisories are not looked at: they need cargo-deny and RustSec's database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What is shipped runs on Linux; one machine stands for all, so that the answer is the same everywhere.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The bill of materials, in the tree.
const BILL: &str = "docs/sbom.cdx.json";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What cargo says, from what was fetched already.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).args(arguments).args(["--offline", "--locked"]).current_dir(root()).output();
    let output = output.expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {said}\nfetch for {TARGET} first: cargo fetch --target {TARGET}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// A package by name and version.
type Name = (String, String);

/// The packages of a tree, as `cargo tree` lists them with these kinds of edges.
fn tree(edges: &str) -> BTreeSet<Name> {
    let text = cargo(&["tree", "-e", edges, "--target", TARGET, "--prefix", "none", "-f", "{p}"]);
    let name_of = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next().filter(|name| !name.is_empty())?.to_owned();
        Some((name, words.next()?.strip_prefix('v')?.to_owned()))
    };
    text.lines().filter_map(name_of).collect()
}

/// What `cargo metadata` tells of each package.
fn packages() -> BTreeMap<Name, Value> {
    let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", TARGET]);
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let name_of = |package: &Value| (text_of(&package["name"]), text_of(&package["version"]));
    let resolved: BTreeSet<String> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| text_of(&node["id"]))
        .collect();
    let all = metadata["packages"].as_array().expect("packages").iter();
    all.filter(|package| resolved.contains(&text_of(&package["id"])))
        .map(|package| (name_of(package), package.clone()))
        .collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A package of the lock file.
#[derive(Clone, Debug, Default)]
struct Locked {
    source: Option<String>,
    checksum: Option<String>,
    dependencies: Vec<String>,
}

fn lock(text: &str) -> BTreeMap<Name, Locked> {
    let mut packages = BTreeMap::new();
    for block in text.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            block.lines().find_map(|line| Some(line.strip_prefix(&start)?.strip_suffix('"')?.to_owned()))
        };
        let listed = block.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
        let locked = Locked {
            source: value("source"),
            checksum: value("checksum"),
            dependencies: listed.map(str::to_owned).collect(),
        };
        packages.insert((value("name").expect("a name"), value("version").expect("a version")), locked);
    }
    packages
}

/// The strings of a list of deny.toml, such as `allow` of `[licenses]`; of a list of tables, those of one key.
fn listed(text: &str, section: &str, list: &str, key: Option<&str>) -> Vec<String> {
    let part = text.split(&format!("[{section}]\n")).nth(1).expect("the section");
    let part = part.split("\n[").next().expect("its end");
    let rows = part
        .split(&format!("\n{list} = [\n"))
        .nth(1)
        .expect("the list")
        .split("\n]")
        .next()
        .expect("its end");
    let rows = rows.lines().map(str::trim).filter(|row| !row.starts_with('#'));
    let quoted = |row: &str| {
        let behind = match key {
            Some(key) => row.split(&format!("{key} = ")).nth(1)?,
            None => row,
        };
        behind.split('"').nth(1).map(str::to_owned)
    };
    rows.filter_map(quoted).collect()
}

/// Whether a licence expression (SPDX) is one, and can be met with the licences that are allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    alternatives(&mut words, allowed) == Some(true) && words.next().is_none()
}

type Words<'a, 'b> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'b>>;

fn alternatives(words: Words<'_, '_>, allowed: &[String]) -> Option<bool> {
    let mut met = together(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= together(words, allowed)?;
    }
    Some(met)
}

fn together(words: Words<'_, '_>, allowed: &[String]) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: Words<'_, '_>, allowed: &[String]) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let met = alternatives(words, allowed)?;
        return words.next_if_eq(&")").map(|_| met);
    }
    let mut name = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next()?);
    }
    Some(allowed.contains(&name))
}

/// Names in more than one version.
fn duplicates(names: &BTreeSet<Name>) -> Vec<&Name> {
    let mut newest: BTreeMap<&str, &Name> = BTreeMap::new();
    for name in names {
        newest.insert(&name.0, name);
    }
    names.iter().filter(|name| newest.get(name.0.as_str()).is_some_and(|last| last != name)).collect()
}

#[test]
fn s15_licences_bans_and_duplicates_are_those_of_the_policy() {
    let policy = read(".cargo/deny.toml");
    let allowed = listed(&policy, "licenses", "allow", None);
    let packages = packages();
    assert!(packages.len() > 100 && allowed.len() > 3, "{} packages, {allowed:?}", packages.len());
    let wrong: Vec<_> = packages
        .iter()
        .filter(|(_, package)| !is_allowed(package["license"].as_str().unwrap_or_default(), &allowed))
        .map(|(name, package)| (name, &package["license"]))
        .collect();
    assert!(wrong.is_empty(), "not in the list of licences: {wrong:?}");
    // Each is needed: without it some package would be refused.
    for licence in &allowed {
        let others: Vec<String> = allowed.iter().filter(|other| *other != licence).cloned().collect();
        let is_needed = packages.values().any(|package| !is_allowed(&text_of(&package["license"]), &others));
        assert!(is_needed || licence == "MIT", "{licence} is allowed and nothing needs it");
    }
    let banned = listed(&policy, "bans", "deny", Some("name"));
    let names: BTreeSet<&str> = packages.keys().map(|(name, _)| name.as_str()).collect();
    assert!(banned.len() > 3 && banned.iter().all(|name| !names.contains(name.as_str())), "{banned:?}");

    let shipped = tree("normal,build");
    let skipped = listed(&policy, "bans", "skip", Some("crate"));
    let is_skipped = |(name, version): &Name| {
        skipped
            .iter()
            .any(|skip| skip.split_once('@').is_some_and(|(n, v)| n == name && version.starts_with(v)))
    };
    let twice = duplicates(&shipped);
    assert!(twice.iter().all(|name| is_skipped(name)), "in two versions, and no reason is given: {twice:?}");
    assert_eq!(twice.len(), skipped.len(), "a reason for what is there once only: {skipped:?}");

    // The controls.
    for expression in
        ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND SSPL-1.0", "", "MIT OR", "(MIT", "MIT WITH X"]
    {
        assert!(!is_allowed(expression, &allowed), "{expression}");
    }
    for expression in ["GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND ISC"] {
        assert!(is_allowed(expression, &allowed), "{expression}");
    }
    let two = [("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(duplicates(&BTreeSet::from(two)).len(), 1);
}

/// What is wrong with where packages come from.
fn strangers(lock_text: &str) -> Vec<String> {
    let packages = lock(lock_text);
    let sources: BTreeSet<&String> = packages.values().filter_map(|locked| locked.source.as_ref()).collect();
    let mut wrong: Vec<String> = sources
        .iter()
        .filter(|source| !source.starts_with("registry+https://"))
        .map(|s| (*s).clone())
        .collect();
    if sources.len() > 1 {
        wrong.push(format!("{} sources", sources.len()));
    }
    for ((name, _), locked) in &packages {
        let is_ours = ["watchpost", "watchpost-lib", "watchpost-parsers"].contains(&name.as_str());
        let is_sealed = locked.checksum.as_ref().is_some_and(|sum| sum.len() == 64);
        if is_ours == locked.source.is_some() || is_ours == is_sealed {
            wrong.push(format!("{name}: {locked:?}"));
        }
    }
    wrong
}

#[test]
fn s15_every_package_is_of_one_registry_and_sealed_by_a_checksum() {
    let text = read("Cargo.lock");
    assert_eq!(strangers(&text), [""; 0]);
    let first = text.find("source = \"registry+").expect("a source");
    let git = format!("{}source = \"git+{}", &text[..first], &text[first + "source = \"registry+".len()..]);
    assert!(!strangers(&git).is_empty(), "a git source was taken");
    let checksum = text.find("checksum = \"").expect("a checksum");
    let open = format!("{}{}", &text[..checksum], text[checksum..].split_once('\n').expect("more lines").1);
    assert!(!strangers(&open).is_empty(), "a package without a checksum was taken");
    // No patch, no replacement, no build script of ours, and nothing of a path outside the tree.
    for name in ["Cargo.toml", "src/Cargo.toml", "parsers/Cargo.toml"] {
        let manifest = read(name);
        for word in ["[patch", "[replace", "git = ", "build = ", "path = \"..", "registry = "] {
            assert!(!manifest.contains(word), "{name} has {word}");
        }
    }
    assert!(!root().join("build.rs").exists());
}

/// The bill of materials (CycloneDX 1.5): no time and no serial number, so that the same tree gives the same bytes.
fn bill() -> Value {
    let (all, running) = (tree("normal,build"), tree("no-dev,no-build,no-proc-macro"));
    let (packages, locked) = (packages(), lock(&read("Cargo.lock")));
    let reference = |(name, version): &Name| format!("pkg:cargo/{name}@{version}");
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut main = Value::Null;
    for name in &all {
        let package = packages.get(name).unwrap_or_else(|| panic!("cargo metadata does not know {name:?}"));
        let lock = &locked[name];
        let licence = text_of(&package["license"]).replace('/', " OR ");
        let mut component = json!({
            "type": "library", "bom-ref": reference(name), "name": name.0, "version": name.1,
            "purl": reference(name), "licenses": [{"expression": licence}],
            // Excluded: it ran when the binary was built and is not in it.
            "scope": if running.contains(name) { "required" } else { "excluded" },
        });
        if let Some(checksum) = &lock.checksum {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        if name.0 == "watchpost" {
            component["type"] = "application".into();
            main = component;
        } else {
            components.push(component);
        }
        let wanted = lock.dependencies.iter().filter_map(|text| {
            let mut words = text.split(' ');
            let (dependency, version) = (words.next()?, words.next());
            all.iter().find(|(n, v)| n == dependency && version.is_none_or(|version| version == v))
        });
        let on: BTreeSet<String> = wanted.map(reference).collect();
        dependencies.push(json!({"ref": reference(name), "dependsOn": on}));
    }
    json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": main},
           "components": components, "dependencies": dependencies})
}

/// What a bill leaves out or has wrong, by the lock file and cargo's tree.
fn gaps(bill: &Value) -> Vec<String> {
    let locked = lock(&read("Cargo.lock"));
    let empty = Vec::new();
    let listed =
        bill["components"].as_array().unwrap_or(&empty).iter().chain([&bill["metadata"]["component"]]);
    let by_name: BTreeMap<Name, &Value> = listed
        .map(|component| ((text_of(&component["name"]), text_of(&component["version"])), component))
        .collect();
    let mut wrong = Vec::new();
    for name in tree("normal,build") {
        if !by_name.contains_key(&name) {
            wrong.push(format!("{name:?} is missing"));
        }
    }
    for (name, component) in &by_name {
        let told = component["hashes"][0]["content"].as_str();
        match locked.get(name) {
            Some(lock) if lock.checksum.as_deref() == told => {}
            Some(_) => wrong.push(format!("{name:?} has another checksum")),
            None => wrong.push(format!("{name:?} is not in the lock file")),
        }
        if component["licenses"][0]["expression"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{name:?} has no licence"));
        }
    }
    let references: BTreeSet<&str> =
        by_name.values().filter_map(|component| component["bom-ref"].as_str()).collect();
    for dependency in bill["dependencies"].as_array().unwrap_or(&empty) {
        let on = dependency["dependsOn"].as_array().unwrap_or(&empty).iter().chain([&dependency["ref"]]);
        wrong.extend(
            on.filter_map(Value::as_str).filter(|name| !references.contains(name)).map(str::to_owned),
        );
    }
    wrong
}

#[test]
fn s16_the_bill_of_materials_is_complete_and_that_of_the_lock_file() {
    let fresh = serde_json::to_string_pretty(&bill()).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(root().join(BILL), &fresh).expect("docs can be written");
    }
    let kept = read(BILL);
    let kept_bill: Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!(gaps(&kept_bill), [""; 0], "write it anew: UPDATE_GOLDEN=1 cargo test --test suite s16");
    assert_eq!(kept, fresh, "{BILL} is another: write it anew: UPDATE_GOLDEN=1 cargo test --test suite s16");
    let components = kept_bill["components"].as_array().expect("components");
    assert!(components.len() > 100, "{} components", components.len());
    // The controls: one left out, one of another version, one with another content.
    let mut short = kept_bill.clone();
    short["components"].as_array_mut().expect("components").pop();
    assert!(gaps(&short).iter().any(|gap| gap.contains("missing")));
    let mut other = kept_bill.clone();
    other["components"][0]["version"] = "99.0.0".into();
    assert!(gaps(&other).iter().any(|gap| gap.contains("not in the lock file")));
    let mut forged = kept_bill;
    let hashed = forged["components"].as_array_mut().expect("components").iter_mut();
    hashed.take(1).for_each(|component| component["hashes"] = json!([{"alg": "SHA-256", "content": "0"}]));
    assert!(gaps(&forged).iter().any(|gap| gap.contains("checksum")));
}
