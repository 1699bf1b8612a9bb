//! Where settings come from, as strings by name: the process environment, flags over it, or a map.
//!
//! Nothing here reads the environment itself; `main.rs` hands it to [`environment`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// Where the value of a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was given.
    Default,
    /// An environment variable.
    Environment,
    /// A flag of the command line.
    Flag,
    /// The file that `X_FILE` names.
    File,
    /// A file in `$CREDENTIALS_DIRECTORY`, where systemd puts credentials.
    Credential,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Origin::Default => "default",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
            Origin::File => "file",
            Origin::Credential => "credential",
        })
    }
}

/// Strings by name. An argument of [`super::load`], so that no test touches the environment.
pub trait Strings {
    /// The string of this name, if there is one.
    fn get(&self, name: &str) -> Option<String>;

    /// Every name there is, once each.
    fn names(&self) -> Vec<String>;

    /// Where the string of this name came from: [`Origin::Environment`] or [`Origin::Flag`].
    fn origin(&self, _name: &str) -> Origin {
        Origin::Environment
    }
}

impl Strings for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Flags over the environment. A flag hides the variable of its setting, and for a secret also
/// the file and the credential; an empty flag brings the default back.
#[derive(Clone, Copy, Debug)]
pub struct Layered<'a> {
    /// Flags by the name of their variable (`WATCHPOST_STATUS_ADDR` for `--status-addr`).
    pub flags: &'a BTreeMap<String, String>,
    /// The environment.
    pub environment: &'a BTreeMap<String, String>,
}

impl Strings for Layered<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.flags.get(name).or_else(|| self.environment.get(name)).cloned()
    }

    fn names(&self) -> Vec<String> {
        let environment = self.environment.keys().filter(|name| !self.flags.contains_key(*name));
        self.flags.keys().chain(environment).cloned().collect()
    }

    fn origin(&self, name: &str) -> Origin {
        if self.flags.contains_key(name) { Origin::Flag } else { Origin::Environment }
    }
}

/// The environment as a map. Bytes that are not UTF-8 become U+FFFD, which [`super::load`]
/// reports when they stand in a setting and ignores when they stand in a foreign variable.
pub fn environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let text = |string: OsString| string.to_string_lossy().into_owned();
    variables.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
