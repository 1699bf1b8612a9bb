//! One handshake as a visitor's browser makes it, with the judgement of the chain aside: a certificate that is wrong in any
//! way is still seen whole.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Target;
use crate::facts::{CertificateSeen, Trust};

/// Names of one certificate that are kept.
const NAMES_MAX: usize = 100;
/// Characters of a name, a subject, an issuer that are kept.
const TEXT_CHARS_MAX: usize = 256;

/// What one handshake gave.
pub(super) struct Handshake {
    /// The connection, for a question over it.
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) protocol: &'static str,
    pub(super) took: Duration,
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Why the server did not show that it has the key, where it did not.
    pub(super) key_doubt: Option<String>,
}

/// Connects and shakes hands, offering TLS 1.2 and 1.3.
///
/// # Errors
/// In words.
pub(super) async fn shake(target: &Target, name: Option<&str>) -> Result<Handshake, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let witness = Arc::new(Witness { provider: Arc::clone(&provider), doubt: Mutex::new(None) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Without a name there is no SNI, and an address takes its place.
    let asked = match name {
        Some(name) => name.to_owned(),
        None => {
            config.enable_sni = false;
            "name.invalid".to_owned()
        }
    };
    let asked = ServerName::try_from(asked).map_err(|error| error.to_string())?;
    let began = Instant::now();
    let stream = target.connect(target.port).await.map_err(|error| format!("connect: {error}"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(asked, stream);
    let stream = connecting.await.map_err(|error| format!("TLS handshake: {error}"))?;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let protocol = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "another",
    };
    let took = began.elapsed();
    let key_doubt = witness.doubt.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Handshake { stream, protocol, took, chain, key_doubt })
}

/// Takes any chain. Only whether the server has the key is looked at here, and that too ends no handshake: an old key that
/// rustls does not take is still to be seen.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    doubt: Mutex<Option<String>>,
}

impl Witness {
    fn noted(
        &self,
        verified: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if let Err(error) = verified {
            let doubt = format!("the server's signature is not taken: {error}");
            *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = Some(doubt);
        }
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.noted(verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.noted(verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a chain leads to one of the roots, at this time or, where the first certificate does not hold then, at the nearest
/// time at which it does: dates are judged apart.
pub(super) fn trust(chain: &[CertificateDer<'_>], roots: &RootCertStore, now_s: i64) -> Trust {
    let [leaf, intermediates @ ..] = chain else {
        return Trust::Untrusted("no certificate was sent".to_owned());
    };
    if roots.is_empty() {
        return Trust::NoRoots;
    }
    let seen = read(leaf);
    let at_s = now_s.clamp(seen.not_before_s, seen.not_after_s.max(seen.not_before_s));
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at_s).unwrap_or(0)));
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let verified = ParsedCertificate::try_from(leaf).and_then(|leaf| {
        verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, at, algorithms)
    });
    let Err(error) = verified else { return Trust::Trusted };
    Trust::Untrusted(match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            let last = chain.last().map(|last| read(last)).unwrap_or_default();
            let sent = chain.len();
            if last.subject == last.issuer {
                format!(
                    "{sent} sent, and the last is self-signed by no authority of this system: {}",
                    last.issuer
                )
            } else {
                format!(
                    "{sent} sent, and the issuer of the last is no authority of this system: {}",
                    last.issuer
                )
            }
        }
        other => other.to_string(),
    })
}

/// Whether a certificate is for a name.
pub(super) fn fits(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
}

/// What a certificate says; what it does not say, or what cannot be read, is empty.
pub(super) fn read(certificate: &CertificateDer<'_>) -> CertificateSeen {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return CertificateSeen::default() };
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(bounded(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    CertificateSeen {
        subject: bounded(&parsed.subject().to_string()),
        issuer: bounded(&parsed.issuer().to_string()),
        names: names.take(NAMES_MAX).collect(),
        serial: bounded(&parsed.raw_serial_as_string()),
        not_before_s: parsed.validity().not_before.timestamp(),
        not_after_s: parsed.validity().not_after.timestamp(),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(address.to_string())
}

fn bounded(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
