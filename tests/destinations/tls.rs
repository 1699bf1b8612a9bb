//! Certificates and handshakes that are wrong, and good ones that take their place while the agent runs.
//!
//! The agent knows the test's authority as it knows any other: by the list that `SSL_CERT_FILE` names.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Lane, side_by_side};
use crate::fault_server::{Act, FaultServer, Phase, Then, answer};
use crate::support::Agent;

/// A body of certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// What a server needs to speak for a name, with a certificate that `change` may spoil.
    pub(super) fn server(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a valid name");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        config(certificate.der().clone(), &key)
    }

    /// Has the agent trust this authority and no other.
    pub(super) fn is_trusted_by(&self, agent: &mut Agent, directory: &Path) {
        let file = directory.join("roots.pem");
        fs::write(&file, &self.pem).expect("written");
        agent.set_variable("SSL_CERT_FILE", &file.display().to_string());
    }
}

fn self_signed() -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    config(params.self_signed(&key).expect("a certificate").der().clone(), &key)
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    Arc::new(config.expect("the key fits"))
}

fn lane(authority: &Authority, scheme: &str) -> Lane {
    let server = FaultServer::start();
    if scheme == "https" {
        server.set_tls(Some(authority.server("localhost", |_| {})));
    }
    Lane::start_with(server, scheme, |agent| {
        let directory = agent.directory.clone();
        authority.is_trusted_by(agent, &directory);
    })
}

/// Each in turn is met, told, and replaced by a good one while the agent runs.
fn certificates(authority: &Authority, wrong: Vec<(Arc<ServerConfig>, &str)>) {
    let mut lane = lane(authority, "https");
    lane.write(1);
    lane.wait_shipped("a good certificate");
    for (certificate, words) in wrong {
        let good = authority.server("localhost", |_| {});
        let delivery = lane.suffers(
            ("retrying", words),
            |server| server.set_tls(Some(certificate)),
            |server| server.set_tls(Some(good)),
        );
        assert!(delivery["last_status"].is_null(), "{delivery}");
    }
    let audit = lane.finish();
    assert_eq!(audit.repeats, 0, "nothing is sent before the certificate is known to be good");
}

fn certificates_out_of_time_and_place() {
    let authority = Authority::new("trusted");
    let expired = authority.server("localhost", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.server("localhost", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let misnamed = authority.server("other.example", |_| {});
    let wrong = vec![
        (expired, "the certificate has expired"),
        (early, "the certificate is not valid yet"),
        (misnamed, "the certificate is for another name"),
    ];
    certificates(&authority, wrong);
}

fn certificates_of_nobody_and_of_others() {
    let authority = Authority::new("trusted");
    let unknown = "the certificate is not from an authority that this system knows";
    let other = Authority::new("other").server("localhost", |_| {});
    let impostor = Authority::new("trusted").server("localhost", |_| {});
    let wrong = vec![
        (self_signed(), unknown),
        (other, unknown),
        (impostor, "the certificate is not signed by the authority that it names"),
    ];
    certificates(&authority, wrong);
}

/// The other side of the handshake is no TLS of today, or no TLS at all.
fn wrong_handshakes() {
    let authority = Authority::new("trusted");
    let mut lane = lane(&authority, "https");
    // An alert of TLS 1.0: fatal, protocol_version.
    let old = [0x15, 3, 1, 0, 2, 2, 70];
    let no_tls = "connect: tls: what answers there does not speak TLS";
    for (say, words) in [
        (
            old.to_vec(),
            "connect: tls: the destination has no TLS in common with this agent, which needs 1.2 or 1.3",
        ),
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(), no_tls),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), no_tls),
        (vec![0x16, 3, 3, 0, 4, 2, 0, 0, 0], "connect: tls: "),
        (Vec::new(), "connect: "),
    ] {
        let act = Act::new(Phase::Hello, say, Then::Close);
        lane.suffers(
            ("retrying", words),
            |server| {
                server.close_idle();
                server.stand(act);
            },
            FaultServer::mend,
        );
    }
    lane.finish();
}

/// Plain HTTP to a port that speaks TLS, and to one that does no longer.
fn plain_http_on_the_port_of_tls() {
    let authority = Authority::new("trusted");
    let mut lane = lane(&authority, "http");
    let tls = authority.server("localhost", |_| {});
    lane.suffers(
        ("retrying", "send: what answers there does not speak HTTP"),
        |server| server.set_tls(Some(tls)),
        |server| server.set_tls(None),
    );
    lane.finish();
}

/// 10 s for TCP and TLS together.
fn a_handshake_that_hangs() {
    let authority = Authority::new("trusted");
    let mut lane = lane(&authority, "https");
    lane.suffers(
        ("retrying", "connect: timed out"),
        |server| {
            server.close_idle();
            server.stand(Act::new(Phase::Hello, "", Then::Hang));
        },
        FaultServer::mend,
    );
    lane.finish();
}

/// A redirect from https to http would show the data to everyone on the way.
fn a_redirect_to_plain_http() {
    let authority = Authority::new("trusted");
    let mut lane = lane(&authority, "https");
    let elsewhere = FaultServer::at("127.0.0.3:0".parse().expect("an address"));
    let location = format!("Location: {}\r\n", elsewhere.url("http", "127.0.0.3"));
    lane.suffers_from(answer("307 X", &location, ""), "held", "redirects are not followed");
    assert_eq!(elsewhere.connections(), 0, "a redirect was followed");
    lane.finish();
}

#[test]
fn wrong_certificates_are_refused_and_good_ones_found_without_a_restart() {
    side_by_side(vec![
        ("out of time and place", Box::new(certificates_out_of_time_and_place)),
        ("of nobody and of others", Box::new(certificates_of_nobody_and_of_others)),
        ("handshakes", Box::new(wrong_handshakes)),
        ("plain HTTP to TLS", Box::new(plain_http_on_the_port_of_tls)),
        ("a handshake that hangs", Box::new(a_handshake_that_hangs)),
        ("a redirect to plain HTTP", Box::new(a_redirect_to_plain_http)),
    ]);
}
