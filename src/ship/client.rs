//! The HTTP client, and its errors in words.
//!
//! TLS is always verified, by rustls with the platform's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by
//! rustls-native-certs). Nothing here may offer to switch that off. HTTP/1.1 only, one connection.

use std::error::Error;
use std::io;
use std::net::IpAddr;

use reqwest::{Certificate, Client, Url};
use rustls::{AlertDescription, CertificateError};

use super::sender::SenderOptions;

/// A client for one destination.
///
/// # Errors
/// In words and without the address: no usable roots on this system, for example.
pub(super) fn build(options: &SenderOptions, url: &Url) -> Result<Client, String> {
    // Fails only if the process has a provider already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = options
        .extra_roots_der
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<Vec<Certificate>, reqwest::Error>>()
        .map_err(condense)?;
    let mut builder = Client::builder()
        .user_agent(options.client.as_str())
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(options.limits.connect_timeout)
        .pool_idle_timeout(options.limits.pool_idle)
        .pool_max_idle_per_host(1);
    builder = match (url.scheme(), roots.is_empty()) {
        // Plain HTTP needs no roots; a host without any must still be able to use it.
        ("http", _) => builder.tls_certs_only([]),
        (_, true) => builder,
        (_, false) => builder.tls_certs_merge(roots),
    };
    if !may_use_proxy(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(condense)
}

/// Whether the proxy that the environment names may be used. Through a tunnel it learns host and port; of plain HTTP it
/// would see the whole address, which is a credential. And for loopback it would look on its own machine.
fn may_use_proxy(url: &Url) -> bool {
    url.scheme() == "https" && !is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// An error and its causes as one line such as `connect: connection refused`. The address is not in it.
pub(super) fn condense(error: reqwest::Error) -> String {
    let error = error.without_url();
    let stage = match &error {
        error if error.is_builder() => "prepare the client",
        error if error.is_connect() => "connect",
        error if error.is_body() || error.is_decode() => "read the answer",
        _ => "send",
    };
    if error.is_timeout() {
        return format!("{stage}: timed out");
    }
    let mut said = Vec::new();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut deepest = None;
    while let Some(error) = cause {
        if let Some(tls) = tls_words(error) {
            return format!("{stage}: tls: {tls}");
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>().filter(|error| error.is_parse()) {
            return format!(
                "{stage}: what answers there does not speak HTTP: {}",
                lower_first(&error.to_string())
            );
        }
        if error.to_string() == "dns error" {
            said.push("dns".to_owned());
        }
        if error.to_string().ends_with("proxy authorization required") {
            return format!("{stage}: the proxy asks for credentials; correct HTTPS_PROXY");
        }
        deepest = Some(error);
        cause = error.source();
    }
    said.insert(0, stage.to_owned());
    said.push(deepest.map_or_else(|| lower_first(&error.to_string()), words));
    said.join(": ")
}

/// What a TLS error means to an operator; `None` for another kind of error.
fn tls_words(error: &(dyn Error + 'static)) -> Option<String> {
    let tls = tls_within(error)?;
    Some(match tls {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is not from an authority that this system knows (SSL_CERT_FILE names another list)".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the certificate has expired".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the certificate is not valid yet; check this system's clock".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is for another name".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the certificate is not signed by the authority that it names".to_owned()
        }
        rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity,
        )
        | rustls::Error::PeerIncompatible(_) => {
            "the destination has no TLS in common with this agent, which needs 1.2 or 1.3".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS".to_owned(),
        other => lower_first(&other.to_string()),
    })
}

/// The TLS error in an error. An io::Error does not give what it wraps as its source, but that one's source, and
/// hyper wraps one io::Error in another.
fn tls_within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = || error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref::<rustls::Error>().or_else(|| tls_within(inner()?))
}

/// The words of the last cause: for an operating system's error its kind, without the number.
fn words(cause: &(dyn Error + 'static)) -> String {
    match cause.downcast_ref::<io::Error>() {
        Some(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => lower_first(&cause.to_string()),
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_used_where_it_learns_no_path_and_can_find_the_destination() {
        for (url, expected) in [
            ("https://collectors.sumologic.com/x", true),
            ("https://10.0.0.1/x", true),
            ("http://collectors.sumologic.com/x", false),
            ("https://localhost/x", false),
            ("https://[::1]/x", false),
        ] {
            assert_eq!(may_use_proxy(&url.parse().expect("a valid address")), expected, "{url}");
        }
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for (url, expected) in [
            ("http://127.0.0.1:80/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:80/", true),
            ("http://localhost/", true),
            ("http://10.0.0.1/", false),
            ("https://collectors.sumologic.com/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().expect("a valid address")), expected, "{url}");
        }
    }
}
