//! The TLS servers of this host, as nginx.conf and haproxy.cfg name them: addresses, names, and the files of certificates.

use std::path::{Path, PathBuf};

use rustls::pki_types::DnsName;
use watchpost_parsers::haproxy::tls_binds;
use watchpost_parsers::nginx_conf::{Discovery, Listen, Server};

use super::plan::{discover, read_regular};
use super::web_server::local_ip;
use crate::config::{Certificates, Config};
use crate::probes::CertificateTarget;

/// Where Debian's package has HAProxy's configuration.
const HAPROXY_CFG: &str = "/etc/haproxy/haproxy.cfg";
/// A longer one is no configuration.
const HAPROXY_CFG_BYTES_MAX: u64 = 16 << 20;
/// Files of one folder of certificates that are looked at.
const FOLDER_FILES_MAX: usize = 1_000;
/// What stands beside certificates in such a folder (HAProxy's manual, `crt`).
const NO_CERTIFICATE: &[&str] = &["key", "ocsp", "issuer", "sctl", "txt"];
/// A label that no server has a name of its own for: what a pattern of names is asked by.
const ANY_LABEL: &str = "watchpost";

/// What the probe of certificates is to meet; `None` where it is switched off.
pub(super) fn targets(config: &Config) -> Option<Vec<CertificateTarget>> {
    match &config.certificates {
        Certificates::None => None,
        Certificates::Listed(servers) => {
            let target = |server: &crate::config::TlsServer| CertificateTarget {
                host: server.host.clone(),
                port: server.port,
                name: server.name.clone(),
                files: server.file.iter().cloned().collect(),
            };
            Some(servers.iter().map(target).collect())
        }
        Certificates::Auto => {
            let mut found = discover(&config.nginx_conf)
                .map(|discovery| of_nginx(&discovery, &config.nginx_conf))
                .unwrap_or_default();
            found.extend(of_haproxy(Path::new(HAPROXY_CFG)));
            Some(without_repeats(found))
        }
    }
}

/// The first of those with one address, port and name: so nginx decides, too.
fn without_repeats(targets: Vec<CertificateTarget>) -> Vec<CertificateTarget> {
    let mut kept: Vec<CertificateTarget> = Vec::new();
    for target in targets {
        let is_same = |other: &&CertificateTarget| {
            (&other.host, other.port, &other.name) == (&target.host, target.port, &target.name)
                && (target.name.is_some() || other.files == target.files)
        };
        if !kept.iter().any(|other| is_same(&other)) {
            kept.push(target);
        }
    }
    kept
}

fn of_nginx(discovery: &Discovery, nginx_conf: &Path) -> Vec<CertificateTarget> {
    let folder = nginx_conf.parent().unwrap_or(Path::new("/"));
    let mut targets = Vec::new();
    for server in &discovery.servers {
        let files: Vec<PathBuf> = server
            .certificates
            .iter()
            .filter(|path| !path.contains('$') && !path.starts_with("data:"))
            .map(|path| folder.join(path))
            .collect();
        let names: Vec<String> = server.names.iter().filter_map(|name| asked_name(name)).collect();
        let mut ports = Vec::new();
        for listen in server.listens.iter().filter(|listen| listen.tls) {
            let Some(ip) = local_ip(&listen.host) else { continue };
            // The same server on IPv4 and IPv6 is one.
            if ports.contains(&listen.port) {
                continue;
            }
            ports.push(listen.port);
            let target = |name: Option<String>| CertificateTarget {
                host: ip.to_string(),
                port: listen.port,
                name,
                files: files.clone(),
            };
            targets.extend(names.iter().cloned().map(|name| target(Some(name))));
            // Without a name it can only be asked for where no other server can answer in its place.
            if names.is_empty() && is_alone(discovery, server, listen) {
                targets.push(target(None));
            }
        }
    }
    targets
}

/// What to ask for, to be led to the server of this `server_name`.
fn asked_name(name: &str) -> Option<String> {
    let name = match name.strip_prefix("*.").or(name.strip_prefix('.')) {
        Some(domain) => format!("{ANY_LABEL}.{domain}"),
        None => name.to_owned(),
    };
    let is_name = name != "_" && DnsName::try_from(name.as_str()).is_ok();
    is_name.then_some(name)
}

fn is_alone(discovery: &Discovery, server: &Server, listen: &Listen) -> bool {
    discovery.servers.iter().all(|other| {
        std::ptr::eq(other, server)
            || !other.listens.iter().any(|theirs| theirs.tls && theirs.port == listen.port)
    })
}

fn of_haproxy(path: &Path) -> Vec<CertificateTarget> {
    let Some(text) = read_regular(path, HAPROXY_CFG_BYTES_MAX) else { return Vec::new() };
    let mut targets = Vec::new();
    // A connection without the header of the PROXY protocol would only be refused.
    for bind in tls_binds(&String::from_utf8_lossy(&text)).into_iter().filter(|bind| !bind.takes_proxy) {
        let Some(ip) = local_ip(&bind.host) else { continue };
        let target = |files: Vec<PathBuf>| CertificateTarget {
            host: ip.to_string(),
            port: bind.port,
            name: None,
            files,
        };
        let files: Vec<PathBuf> = bind.certificates.iter().flat_map(|path| certificates_in(path)).collect();
        if files.is_empty() {
            targets.push(target(Vec::new()));
        }
        targets.extend(files.into_iter().map(|file| target(vec![file])));
    }
    targets
}

/// The file itself, or those of a folder.
fn certificates_in(path: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![PathBuf::from(path)] };
    let is_other = |path: &PathBuf| {
        path.extension().is_some_and(|end| NO_CERTIFICATE.iter().any(|other| end == *other))
            || !path.is_file()
    };
    let mut files: Vec<PathBuf> = entries
        .take(FOLDER_FILES_MAX)
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !is_other(path))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use watchpost_parsers::nginx_conf::{Place, access_logs};

    use super::*;

    fn shown(targets: Vec<CertificateTarget>) -> Vec<String> {
        let show = |target: CertificateTarget| {
            let files: Vec<String> = target.files.iter().map(|file| file.display().to_string()).collect();
            let name = target.name.unwrap_or_default();
            format!("{name}@{}:{} {}", target.host, target.port, files.join(","))
        };
        without_repeats(targets).into_iter().map(show).collect()
    }

    fn nginx(servers: &str) -> Vec<String> {
        let place = Place { main_file: "/etc/nginx/n.conf", prefix: "/", default_access_log: "a.log" };
        let text = format!("http {{ {servers} }}");
        shown(of_nginx(&access_logs(&text, &place, &mut |_| Vec::new()), Path::new("/etc/nginx/n.conf")))
    }

    #[test]
    fn servers_of_nginx_are_asked_by_each_name_with_the_file_that_they_should_serve() {
        let shop = "server { listen 443 ssl; listen [::]:443 ssl; listen 80; server_name shop.example *.shop.example;
            ssl_certificate /c/shop.pem; ssl_certificate own/ecdsa.pem; }";
        assert_eq!(
            nginx(shop),
            [
                "shop.example@127.0.0.1:443 /c/shop.pem,/etc/nginx/own/ecdsa.pem",
                "watchpost.shop.example@127.0.0.1:443 /c/shop.pem,/etc/nginx/own/ecdsa.pem",
            ]
        );
        let nameless =
            "server { listen [::1]:8443 ssl; server_name _ ~^x; ssl_certificate /c/$ssl_server_name.pem; }";
        assert_eq!(nginx(nameless), ["@::1:8443 "]);
        // Beside another server of the port it may not be the one that answers.
        let beside = "server { listen 443 ssl; server_name _; ssl_certificate /c/a.pem; }";
        assert_eq!(nginx(&format!("{shop} {beside} {shop}")).len(), 2);
    }

    #[test]
    fn binds_of_haproxy_are_asked_by_each_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let here = directory.path();
        let folder = here.join("certs");
        std::fs::create_dir(&folder).expect("a folder");
        for name in ["a.pem", "b.pem", "b.pem.key", "b.pem.ocsp"] {
            std::fs::write(folder.join(name), "").expect("a file");
        }
        let cfg = here.join("haproxy.cfg");
        let text = format!(
            "frontend f\n bind :443 ssl crt {}\n bind :444 ssl\n bind :445 accept-proxy ssl crt x\n bind :80\n",
            folder.display()
        );
        std::fs::write(&cfg, text).expect("a configuration");
        let at = folder.display();
        assert_eq!(
            shown(of_haproxy(&cfg)),
            [
                format!("@127.0.0.1:443 {at}/a.pem"),
                format!("@127.0.0.1:443 {at}/b.pem"),
                "@127.0.0.1:444 ".to_owned(),
            ]
        );
        assert!(of_haproxy(&here.join("none")).is_empty());
    }
}
