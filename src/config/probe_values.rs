//! The values of those settings that say what the probes ask: text in, a typed value or what is wrong with it out.

use std::net::IpAddr;
use std::path::PathBuf;

use rustls::pki_types::DnsName;

use super::values::{Parsed, list};
use super::{Certificates, TlsServer};

/// `WATCHPOST_CERTIFICATES`.
pub(super) fn certificates(text: &str) -> Parsed<Certificates> {
    match text {
        "auto" => return Ok(Certificates::Auto),
        "none" => return Ok(Certificates::None),
        _ => {}
    }
    list(text)?.into_iter().map(tls_server).collect::<Parsed<_>>().map(Certificates::Listed)
}

fn tls_server(text: &str) -> Parsed<TlsServer> {
    if matches!(text, "auto" | "none") {
        return Err(format!("has `{text}` among servers"));
    }
    let (place, file) = match text.split_once('=') {
        Some((place, file)) => (place, Some(PathBuf::from(file))),
        None => (text, None),
    };
    if file.as_ref().is_some_and(|file| !file.is_absolute()) {
        return Err("has a file whose path is not absolute".into());
    }
    let (name, address) = match place.split_once('@') {
        Some((name, address)) => (Some(name), address),
        None => (None, place),
    };
    let (host, port) = address.rsplit_once(':').ok_or("has a server with no port")?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or("has a server with no port")?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("has a server with no host".into());
    }
    let is_name = |name: &str| DnsName::try_from(name).is_ok();
    if host.parse::<IpAddr>().is_err() && !is_name(host) || name.is_some_and(|name| !is_name(name)) {
        return Err("has what is no name of a host".into());
    }
    let own = host.parse::<IpAddr>().is_err().then_some(host);
    let name = name.or(own).map(str::to_owned);
    Ok(TlsServer { host: host.to_owned(), port, name, file })
}
