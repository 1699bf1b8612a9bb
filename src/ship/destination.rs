//! The address of the destination, taken apart so that no library can show its credentials.
//!
//! User and password are taken out of the address and sent as a header: the HTTP client names its connections
//! by everything before the path, and logs these names.

use reqwest::{Client, Request, RequestBuilder, Url};

use super::redact::{Redactor, percent_decoded};
use crate::secret::Secret;

/// Why a sender cannot even begin. Everything else is retried.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The destination is no http or https address. The address is not told: it is a secret.
    #[error("the destination is not a valid http or https address: {0}")]
    Url(String),
}

/// Where to send. Must never be formatted, hence no `Debug`.
pub(super) struct Destination {
    /// Without user and password.
    pub(super) url: Url,
    pub(super) redactor: Redactor,
    user: String,
    password: Option<String>,
}

impl Destination {
    /// Reads an address without ever showing it.
    pub(super) fn parse(secret: &Secret) -> Result<Destination, SenderError> {
        let wrong = |reason: &str| SenderError::Url(reason.to_owned());
        let mut url = Url::parse(secret.expose()).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("its scheme is neither http nor https"));
        }
        let redactor = Redactor::new(&url);
        let user = percent_decoded(url.username());
        let password = url.password().map(percent_decoded);
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| wrong("it names no host"))?;
        Ok(Destination { url, redactor, user, password })
    }

    /// Adds what the address said of user and password, as HTTP Basic authentication.
    pub(super) fn authorized(&self, client: &Client, request: Request) -> reqwest::Result<Request> {
        let builder = RequestBuilder::from_parts(client.clone(), request);
        if self.user.is_empty() && self.password.is_none() {
            return builder.build();
        }
        builder.basic_auth(&self.user, self.password.as_ref()).build()
    }
}
