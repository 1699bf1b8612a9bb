//! What the probe of certificates saw: how each TLS server answers, and what its certificate says.

use std::time::Duration;

use crate::record::EpochMs;

/// Every TLS server that was seen since the agent started, each as it was seen last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CertificateFacts {
    /// One entry an address and name.
    pub endpoints: Vec<TlsEndpoint>,
}

/// One address, asked under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsEndpoint {
    /// `host:port`.
    pub address: String,
    /// The name that was asked for (SNI).
    pub name: Option<String>,
    /// When.
    pub at: EpochMs,
    /// The version that was agreed on, such as `TLSv1.3`.
    pub protocol: String,
    /// From the connection to the end of the handshake.
    pub took: Duration,
    /// The certificates that were sent, the server's own first.
    pub chain: Vec<CertificateSeen>,
    /// Whether they lead to an authority of this system.
    pub trust: Trust,
    /// Whether the certificate is for the name; `None` where the name was not given but taken from a file.
    pub fits_name: Option<bool>,
    /// The certificate in the file that the server should serve.
    pub file: FileVerdict,
    /// The old versions that were offered alone, and what came of it.
    pub old_protocols: Vec<(&'static str, OldProtocol)>,
    /// What HTTPS answered, on its own port.
    pub https: Option<HttpsAnswer>,
    /// What plain HTTP answered on the same host, beside HTTPS's own port.
    pub plain: Option<PlainAnswer>,
}

impl TlsEndpoint {
    /// Name and address, as a finding is about them.
    pub fn subject(&self) -> String {
        match &self.name {
            Some(name) if !self.address.starts_with(name.as_str()) => format!("{name} at {}", self.address),
            _ => self.address.clone(),
        }
    }
}

/// What one certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateSeen {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// The first second in which it holds, since the Unix epoch.
    pub not_before_s: i64,
    /// The last.
    pub not_after_s: i64,
}

/// Whether a chain leads to an authority of this system, leaving the dates of the server's own certificate aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It does.
    Trusted,
    /// It does not, and why.
    Untrusted(String),
    /// This system knows no authority.
    NoRoots,
}

/// The certificate that is served, held to the file that it should come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileVerdict {
    /// No file is known.
    Unnamed,
    /// It is the one in the file.
    Same,
    /// The file has another.
    Differs {
        /// The file.
        path: String,
        /// What stands there.
        holds: CertificateSeen,
        /// When the file was written last.
        written_at: Option<EpochMs>,
    },
    /// The file cannot be read.
    Unreadable {
        /// What was refused.
        why: String,
        /// How to grant it.
        cure: String,
    },
}

/// What came of an old version of TLS that was offered alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldProtocol {
    /// The server went through with its part of the handshake.
    Accepted,
    /// It did not.
    Refused,
    /// No answer tells.
    Unknown(String),
}

/// The head of an answer to `HEAD /` over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Strict-Transport-Security` header.
    pub hsts: Option<String>,
}

/// What came of `GET /` over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainAnswer {
    /// Nobody listens, or the connection is closed without an answer.
    Closed,
    /// An answer.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The `Location` header.
        location: Option<String>,
    },
    /// It cannot be told.
    Unknown(String),
}
