//! Settings from any env file: read, checked, told, and no secret in what is told.

use std::collections::BTreeMap;

use watchpost::config::{Surroundings, load, parse_env_file};

/// Stands in every secret.
const CANARY: &str = "Zq7Canary9x";
const SECRETS: [&str; 2] = ["WATCHPOST_SUMO_URL", "WATCHPOST_STATUS_TOKEN"];

/// An env file.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(CANARY) {
        return;
    }
    let mut variables = match parse_env_file(text) {
        Ok(variables) => variables,
        Err(problem) => {
            assert!(!problem.to_string().is_empty());
            return;
        }
    };
    assert_eq!(parse_env_file(&written(&variables)).as_ref(), Ok(&variables), "{text:?}");
    // Files and credentials of this machine are nobody's to read here.
    variables.retain(|name, _| !name.ends_with("_FILE") && name != "CREDENTIALS_DIRECTORY");
    for name in SECRETS {
        if let Some(value) = variables.get_mut(name) {
            value.push_str(CANARY);
        }
    }
    let names = ["host.cpu", "host.memory"];
    let told = match load(&variables, &Surroundings { is_root: false, host_source_names: &names }) {
        Ok(config) => format!("{config:?}\n{}", config.describe()),
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = problems.iter().map(|problem| format!("{problem}\n{problem:?}\n"));
            lines.collect()
        }
    };
    assert!(!told.contains(CANARY), "{told}");
}

/// The variables as an env file, each value in double quotes.
fn written(variables: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str("\"\n");
    }
    text
}
