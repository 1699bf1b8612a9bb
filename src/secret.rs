//! A value that must never be seen: it prints as stars and lends itself only on request.

use std::fmt;

/// A credential, such as the URL of a Sumo HTTP source or the token of the status port.
///
/// Invariant: neither `Debug` nor `Display` shows any part of it, so it cannot reach a log, an
/// error, a panic or a status answer by being formatted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself. Call it only where it is used, never where something is said.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn prints_as_stars() {
        let secret = Secret::new("https://collectors.example/receiver/v1/http/ZaVn");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(secret.expose().ends_with("ZaVn"));
    }
}
