//! Certificates: only a valid one of a known authority is trusted.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::fault_server::FaultServer;
use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pem: String,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    Authority { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
}

/// A server whose certificate is made by `sign` from parameters for `localhost` and a key.
async fn server(sign: impl FnOnce(CertificateParams, &KeyPair) -> CertificateDer<'static>) -> FaultServer {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    let certificate = sign(params, &key);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key fits");
    FaultServer::serve(vec![], Some(TlsAcceptor::from(Arc::new(config)))).await
}

fn signed(authority: &Authority) -> impl FnOnce(CertificateParams, &KeyPair) -> CertificateDer<'static> + '_ {
    |params, key| params.signed_by(key, &authority.issuer).expect("a certificate").der().clone()
}

async fn is_refused(server: FaultServer, trusted: Option<&Authority>, words: &str) {
    let mut options = options(&server.url());
    options.extra_roots_der = trusted.iter().map(|authority| authority.der.clone()).collect();
    let rig = Rig::start(options);
    rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
    until(|| rig.status().failures >= 2).await;
    let status = rig.status();
    assert_eq!((status.state, status.last_status), (DeliveryState::Retrying, None));
    let error = status.last_error.unwrap_or_default();
    assert!(error.starts_with(&format!("connect: tls: the certificate {words}")), "{error}");
    rig.finish().await;
    assert!(server.seen().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let authority = authority("trusted");
    let server = server(signed(&authority)).await;
    let mut options = options(&server.url());
    options.extra_roots_der = vec![authority.der.clone()];
    let rig = Rig::start(options);
    assert_eq!(rig.send(1).await, Verdict::Accepted { warning: None });
    assert_eq!(rig.send(2).await, Verdict::Accepted { warning: None });
    assert_eq!(rig.finish().await.failures, 0);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn self_signed_and_unknown_certificates_are_refused() {
    let alone = server(|params, key| params.self_signed(key).expect("a certificate").der().clone()).await;
    is_refused(alone, None, "is not from an authority").await;
    let (trusted, other) = (authority("trusted"), authority("other"));
    is_refused(server(signed(&other)).await, Some(&trusted), "is not from an authority").await;
}

#[tokio::test]
async fn expired_early_and_misnamed_certificates_are_refused() {
    let authority = authority("trusted");
    let with = |change: fn(&mut CertificateParams)| {
        let sign = signed(&authority);
        server(move |mut params, key| {
            change(&mut params);
            sign(params, key)
        })
    };
    let expired = with(|params| params.not_after = date_time_ymd(2020, 1, 1)).await;
    is_refused(expired, Some(&authority), "has expired").await;
    let early = with(|params| params.not_before = date_time_ymd(4000, 1, 1)).await;
    is_refused(early, Some(&authority), "is not valid yet").await;
    let misnamed = with(|params| {
        *params = CertificateParams::new(vec!["other.example".to_owned()]).expect("a valid name");
    })
    .await;
    is_refused(misnamed, Some(&authority), "is for another name").await;
}

/// The environment belongs to the whole process, so the sender runs in one of its own.
#[tokio::test]
async fn authorities_of_ssl_cert_file_are_trusted() {
    if let Ok(url) = std::env::var(CHILD_URL) {
        let rig = Rig::start(options(&url));
        assert_eq!(rig.send(1).await, Verdict::Accepted { warning: None });
        return;
    }
    let authority = authority("trusted");
    let server = server(signed(&authority)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roots.pem");
    std::fs::write(&file, &authority.pem).expect("it can be written");
    let url = server.url();
    let name = "tls::authorities_of_ssl_cert_file_are_trusted";
    alone(name, &url, &[("SSL_CERT_FILE", &file.to_string_lossy()), ("SSL_CERT_DIR", "")]).await;
    assert_eq!(server.seen().len(), 1, "the child sent its batch");
}

/// A system without any authority: told as something that a person must mend, and found mended without a restart.
#[tokio::test]
async fn a_system_without_authorities_is_held() {
    if let Ok(url) = std::env::var(CHILD_URL) {
        let rig = Rig::start(options(&url));
        rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
        until(|| rig.status().failures >= 2).await;
        let status = rig.finish().await;
        let error = status.last_error.unwrap_or_default();
        assert!(error.starts_with("prepare the client: "), "{error}");
        let plain = FaultServer::start(vec![]).await;
        let rig = Rig::start(super::options(&plain.url()));
        assert_eq!(rig.send(1).await, Verdict::Accepted { warning: None }, "plain http needs no authority");
        return;
    }
    let name = "tls::a_system_without_authorities_is_held";
    let url = "https://localhost:1/ZaVnCanaryC4dhaV2";
    alone(name, url, &[("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "")]).await;
}
