//! Files with secrets that everybody on this machine may read.
//!
//! Looks at modes only. Must never say what stands in a file, nor where a secret's file is: the path may be the secret
//! itself, written into the wrong variable.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::{SETTINGS, Strings};

/// The right of everybody to read, by chmod(2).
const OTHERS_READ: u32 = 0o004;

/// A sentence for each file that should be closed: the env file where it holds a secret, and the file of each secret.
pub fn of_files(
    strings: &dyn Strings,
    env_file_path: &Path,
    env_file: Option<&BTreeMap<String, String>>,
) -> Vec<String> {
    let secrets = SETTINGS.iter().filter(|setting| setting.secret);
    let mut warnings = Vec::new();
    for setting in secrets {
        let holds =
            |file: &BTreeMap<String, String>| file.get(setting.name).is_some_and(|value| !value.is_empty());
        if env_file.is_some_and(holds) && is_open(env_file_path) {
            let path = env_file_path.display();
            warnings.push(format!(
                "everybody on this machine can read {} in {path}; chmod 0640 {path}, and chgrp it to the agent's group",
                setting.name
            ));
        }
        let Some(variable) = setting.file_variable() else { continue };
        if strings.get(&variable).is_some_and(|path| !path.is_empty() && is_open(Path::new(&path))) {
            warnings.push(format!(
                "everybody on this machine can read the file that {variable} names; chmod 0640 it, and chgrp it to the agent's group"
            ));
        }
    }
    warnings
}

fn is_open(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & OTHERS_READ != 0)
}
