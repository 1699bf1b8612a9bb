//! Where haproxy.cfg has HAProxy listen with TLS, and the files of the certificates (its configuration manual, 4.2 `bind`, 5.1).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Binds that are kept.
const BINDS_MAX: usize = 1_000;

/// One address of a `bind` line with `ssl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsBind {
    /// The address as written, without brackets; `*` for every address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The files or folders of its `crt`s, behind the `crt-base` that holds for them.
    pub certificates: Vec<String>,
    /// Whether every connection must begin with a header of the PROXY protocol.
    pub takes_proxy: bool,
}

/// Every TCP address with TLS, in the order of the file. Ranges of ports and unix sockets are left out.
pub fn tls_binds(text: &str) -> Vec<TlsBind> {
    let mut base = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("crt-base") => base = words.next().unwrap_or_default().to_string(),
            Some("bind") => {
                let addresses = words.next().unwrap_or_default();
                let options: Vec<&str> = words.collect();
                if options.contains(&"ssl") {
                    found.extend(addresses.split(',').filter_map(|one| read_bind(one, &options, &base)));
                }
            }
            _ => {}
        }
    }
    found.truncate(BINDS_MAX);
    found
}

fn read_bind(address: &str, options: &[&str], base: &str) -> Option<TlsBind> {
    let plain = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"];
    let address = plain.iter().find_map(|prefix| address.strip_prefix(prefix)).unwrap_or(address);
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let absolute = |path: &&str| {
        if path.starts_with('/') || base.is_empty() {
            path.to_string()
        } else {
            alloc::format!("{base}/{path}")
        }
    };
    let pairs = options.iter().zip(options.iter().skip(1));
    let certificates = pairs.filter(|(option, _)| **option == "crt").map(|(_, path)| absolute(path));
    Some(TlsBind {
        host: if host.is_empty() { "*".to_string() } else { host.to_string() },
        port: port.parse().ok()?,
        certificates: certificates.collect(),
        takes_proxy: options.contains(&"accept-proxy"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_with_tls_are_found_with_their_files() {
        let text = "global\n  crt-base /etc/ssl/private\nfrontend a\n  bind *:80\n\
            \tbind :443,[::]:8443 ssl crt site.pem crt /etc/haproxy/certs/ alpn h2 # bind :1 ssl crt x\n\
            bind 10.0.0.1:444 accept-proxy ssl\n  bind /run/x.sock ssl crt y\n bind :9000-9010 ssl crt z\n";
        let certificates =
            ["/etc/ssl/private/site.pem", "/etc/haproxy/certs/"].map(ToString::to_string).to_vec();
        let bind = |host: &str, port, certificates: &[String], takes_proxy| TlsBind {
            host: host.to_string(),
            port,
            certificates: certificates.to_vec(),
            takes_proxy,
        };
        assert_eq!(
            tls_binds(text),
            [
                bind("*", 443, &certificates, false),
                bind("::", 8443, &certificates, false),
                bind("10.0.0.1", 444, &[], true),
            ]
        );
        for garbage in ["bind", "bind ssl", "crt-base", "bind :x ssl crt", "bind :443 ssl crt"] {
            assert!(tls_binds(garbage).iter().all(|bind| bind.certificates.is_empty()), "{garbage}");
        }
    }
}
