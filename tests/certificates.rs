//! TLS servers of every kind, met by the agent: what it says of their certificates, versions and plain ports is what they
//! are, and what cannot be met is said and hides nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;

use crate::destinations::network::{in_namespace, ip};
use crate::support::{Agent, Process, free_address, get, wait_for};

const DAY: i64 = 24 * 60 * 60;

/// An authority of the test's own, and what it issued last.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM and for a server.
struct Issued {
    pem: String,
    key_pem: String,
    config: Arc<ServerConfig>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// For a name, from a year ago until so many days from now.
    fn issue(&self, name: &str, days: i64) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a valid name");
        let now_s = jiff::Timestamp::now().as_second();
        let at = |second: i64| {
            date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(second).expect("after 1970"))
        };
        (params.not_before, params.not_after) = (at(now_s - 365 * DAY), at(now_s + days * DAY + 3600));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        issued(certificate.pem(), certificate.der().clone(), &key)
    }
}

fn issued(pem: String, der: CertificateDer<'static>, key: &KeyPair) -> Issued {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![der], private);
    Issued { pem, key_pem: key.serialize_pem(), config: Arc::new(config.expect("the key fits")) }
}

/// A TLS server that shakes hands and closes, until the test ends.
fn serve(config: Arc<ServerConfig>) -> SocketAddr {
    peer(move |stream| {
        let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
        while connection.is_handshaking() {
            if connection.complete_io(stream).is_err() {
                let _ = connection.write_tls(stream);
                return;
            }
        }
    })
}

/// Does this with every connection, one after the other.
fn peer(act: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            act(&mut stream);
        }
    });
    address
}

fn agent(directory: &Path, authority: &Authority, certificates: &str) -> Agent {
    let roots = directory.join("roots.pem");
    fs::write(&roots, &authority.pem).expect("written");
    let mut agent = Agent::new(directory, "none");
    agent.set_variable("SSL_CERT_FILE", &roots.display().to_string());
    agent.set("CERTIFICATES", certificates);
    agent
}

fn probe(status: &Value) -> &Value {
    let probes = status["probes"].as_array().expect("probes");
    probes.iter().find(|probe| probe["name"] == "certificates").unwrap_or(&Value::Null)
}

/// Waits for the first run, and for what was drawn from it.
fn first_run(agent: &Agent) -> Value {
    agent.wait_status("a run and its findings", |status| {
        let probe = probe(status);
        probe["runs"].as_u64() > Some(0)
            && (probe["state"] == "failing" || status["probe_metrics"]["certificates"].is_object())
    })
}

/// The findings of certificates and HTTP, as `id subject`, sorted.
fn found(status: &Value) -> Vec<String> {
    let findings = status["findings"].as_array().expect("findings");
    let mut found: Vec<String> = findings
        .iter()
        .filter(|finding| {
            finding["id"].as_str().is_some_and(|id| id.starts_with("tls.") || id.starts_with("http."))
        })
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default();
            format!("{} {} {}", text("id"), text("confidence"), text("subject"))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn certificates_are_judged_as_they_are_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let here = directory.path();
    let authority = Authority::new();
    let good = authority.issue("good.example", 100);
    let file = here.join("good.pem");
    fs::write(&file, format!("{}{}", good.key_pem, good.pem)).expect("written");
    let renewed = here.join("renewed.pem");
    fs::write(&renewed, authority.issue("old.example", 200).pem).expect("written");
    let alone = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["self.example".to_owned()]).expect("a name");
    let own = params.self_signed(&alone).expect("a certificate");
    let servers = [
        ("good.example", serve(good.config), Some(file)),
        ("soon.example", serve(authority.issue("soon.example", 20).config), None),
        ("today.example", serve(authority.issue("today.example", 6).config), None),
        ("past.example", serve(authority.issue("past.example", -3).config), None),
        ("other.example", serve(authority.issue("good.example", 100).config), None),
        ("self.example", serve(issued(own.pem(), own.der().clone(), &alone).config), None),
        ("old.example", serve(authority.issue("old.example", 100).config), Some(renewed)),
        ("gone.example", serve(authority.issue("gone.example", 100).config), Some(here.join("none.pem"))),
    ];
    let listed: Vec<String> = servers
        .iter()
        .map(|(name, address, file): &(&str, SocketAddr, Option<PathBuf>)| {
            let file = file.as_ref().map(|file| format!("={}", file.display())).unwrap_or_default();
            format!("{name}@{address}{file}")
        })
        .collect();
    let at = |name: &str| {
        let (_, address, _) = servers.iter().find(|(of, ..)| *of == name).expect("a server");
        format!("{name} at {address}")
    };
    let mut agent = agent(here, &authority, &listed.join(","));
    agent.start();
    let status = first_run(&agent);
    assert_eq!(probe(&status)["state"], "ok", "{status:#}");
    let mut expected = [
        format!("tls.certificate-expiring certain {}", at("soon.example")),
        format!("tls.certificate-expires-at-once certain {}", at("today.example")),
        format!("tls.certificate-expires-at-once certain {}", at("past.example")),
        format!("tls.certificate-wrong-name certain {}", at("other.example")),
        format!("tls.certificate-untrusted likely {}", at("self.example")),
        format!("tls.certificate-differs-from-file certain {}", at("old.example")),
    ];
    expected.sort();
    assert_eq!(found(&status), expected, "{:#}", status["findings"]);
    let (_, metrics) = get(agent.address, "/metrics").expect("metrics");
    let address = servers[0].1;
    for line in [
        format!("watchpost_certificate_trusted{{address=\"{address}\",name=\"good.example\"}} 1"),
        format!("watchpost_tls_reachable{{address=\"{address}\",name=\"good.example\"}} 1"),
        format!(
            "watchpost_tls_protocol_accepted{{address=\"{address}\",name=\"good.example\",protocol=\"TLSv1.3\"}} 1"
        ),
        format!(
            "watchpost_tls_protocol_accepted{{address=\"{address}\",name=\"good.example\",protocol=\"TLSv1.0\"}} 0"
        ),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    assert!(metrics.contains("watchpost_certificate_expiry_timestamp_seconds{"), "{metrics}");
    agent.stop();

    // Where nothing differs, a file that cannot be read is said.
    agent.set("CERTIFICATES", &listed[7]);
    agent.start();
    assert_eq!(found(&first_run(&agent)), ["tls.certificate-differs-from-file unknown "]);
}

#[test]
fn servers_that_refuse_hang_or_speak_garbage_are_said_and_hide_no_other() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new();
    let soon = serve(authority.issue("soon.example", 20).config);
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hangs = hung.local_addr().expect("its address");
    let garbage = peer(|stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let closes = peer(|_| {});
    let nobody = free_address();
    let listed = format!("{hangs},{garbage},{closes},{nobody},soon.example@{soon}");
    let mut agent = agent(directory.path(), &authority, &listed);
    agent.start();
    let status = first_run(&agent);
    assert_eq!(found(&status), [format!("tls.certificate-expiring certain soon.example at {soon}")]);
    let probe = probe(&status);
    assert_eq!(probe["state"], "failing", "{probe}");
    let said = probe["last_error"].as_str().expect("an error");
    for part in [
        format!("{hangs}: no handshake within 5 s"),
        format!("{garbage}: TLS handshake: "),
        format!("{closes}: TLS handshake: "),
        format!("{nobody}: connect: Connection refused"),
    ] {
        assert!(said.contains(&part), "no {part:?} in {said}");
    }
    assert!(probe["duration_ms"].as_f64().is_some_and(|took| took < 15_000.0), "side by side: {probe}");
}

/// OpenSSL's own server, with these flags.
fn openssl(directory: &Path, issued: &Issued, flags: &[&str]) -> (SocketAddr, Process) {
    let address = free_address();
    let (certificate, key) = (directory.join("c.pem"), directory.join("k.pem"));
    fs::write(&certificate, &issued.pem).expect("written");
    fs::write(&key, &issued.key_pem).expect("written");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-accept", &address.to_string()]);
    command.arg("-cert").arg(&certificate).arg("-key").arg(&key).args(flags);
    let process = Process::start(&mut command, &directory.join(format!("{}.out", address.port())));
    wait_for("openssl s_server", || std::net::TcpStream::connect(address).ok());
    (address, process)
}

#[test]
fn an_old_version_is_found_where_the_handshake_goes_through_and_only_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let here = directory.path();
    let authority = Authority::new();
    let issued = authority.issue("old.example", 100);
    let weak = ["-min_protocol", "TLSv1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let (speaks, _one) = openssl(here, &issued, &weak);
    // The same is configured, and the library does not go along.
    let (listed_only, _two) = openssl(here, &issued, &weak[..2]);
    let (new, _three) = openssl(here, &issued, &["-min_protocol", "TLSv1.2"]);
    let listed = format!("old.example@{speaks},old.example@{listed_only},old.example@{new}");
    let mut agent = agent(here, &authority, &listed);
    agent.start();
    let status = first_run(&agent);
    assert_eq!(found(&status), [format!("tls.weak-protocol certain {speaks}")], "{status:#}");
    let findings = status["findings"].as_array().expect("findings");
    let what = findings[0]["evidence"][0]["what"].as_str().expect("evidence");
    assert!(what.contains("TLSv1.0 and TLSv1.1"), "{what}");
}

/// nginx with HTTPS on 443, in a network of the test's own.
struct Shop {
    directory: PathBuf,
    process: Option<Process>,
}

impl Shop {
    /// Writes the configuration; with `plain` for the server of port 80, and `more` for that of 443.
    fn configure(&self, plain: &str, more: &str) {
        let here = self.directory.display();
        let text = format!(
            "user root;\npid {here}/nginx.pid;\nerror_log {here}/error.log;\nevents {{ }}\nhttp {{\n\
             access_log {here}/access.log;\nclient_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen 80; server_name shop.example; {plain} }}\n\
             server {{ listen 443 ssl; server_name shop.example; ssl_certificate {here}/shop.pem;\n\
             ssl_certificate_key {here}/shop.key; location / {{ {more} return 200 'fine'; }} }}\n}}\n"
        );
        fs::write(self.directory.join("nginx.conf"), text).expect("a configuration");
    }

    fn issue(&self, authority: &Authority) {
        let issued = authority.issue("shop.example", 100);
        fs::write(self.directory.join("shop.pem"), issued.pem).expect("written");
        fs::write(self.directory.join("shop.key"), issued.key_pem).expect("written");
    }

    fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
        let mut command = Command::new("nginx");
        command.args(["-g", "daemon off;", "-p"]).arg(&self.directory).arg("-c");
        command.arg(self.directory.join("nginx.conf"));
        self.process = Some(Process::start(&mut command, &self.directory.join("nginx.out")));
        wait_for("nginx", || std::net::TcpStream::connect("127.0.0.1:443").ok());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.end();
        }
    }
}

#[test]
fn a_real_nginx_is_found_by_its_configuration_with_what_http_says_beside() {
    in_namespace(|| {
        ip(&["link", "set", "lo", "up"]);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let here = directory.path();
        let authority = Authority::new();
        let mut shop = Shop { directory: here.to_owned(), process: None };
        shop.issue(&authority);
        shop.configure("location / { return 200 'in the clear'; }", "");
        shop.restart();
        let mut agent = agent(here, &authority, "auto");
        agent.set("NGINX_CONF", &here.join("nginx.conf").display().to_string());
        agent.start();
        let subject = "shop.example at 127.0.0.1:443";
        assert_eq!(
            found(&first_run(&agent)),
            [format!("http.hsts-missing certain {subject}"), format!("http.no-redirect certain {subject}")]
        );
        agent.stop();
        let log = fs::read_to_string(here.join("access.log")).expect("a log");
        let own = format!("\"watchpost/{}\"", env!("CARGO_PKG_VERSION"));
        assert!(log.lines().filter(|line| line.ends_with(&own)).count() >= 2, "{log}");

        // Mended; then renewed without a reload.
        shop.configure(
            "return 301 https://$host$request_uri;",
            "add_header Strict-Transport-Security max-age=31536000;",
        );
        shop.restart();
        agent.start();
        assert_eq!(found(&first_run(&agent)), [""; 0]);
        agent.stop();
        shop.issue(&authority);
        agent.start();
        assert_eq!(
            found(&first_run(&agent)),
            [format!("tls.certificate-differs-from-file certain {subject}")]
        );
    });
}
