//! TLS for both transports: what is read is checked at once, and failures say what failed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use super::error::SettingError;
use super::resolve::Pem;

/// How to prove who is who: checked certificates, ready for use.
#[derive(Clone)]
pub(super) struct Tls {
    config: ClientConfig,
    custom_roots: bool,
    identity: Arc<Identity>,
}

impl Tls {
    /// Checks what was given; without `roots` those of the system are taken.
    pub(super) fn new(
        roots: Option<Pem>,
        certificate: Option<Pem>,
        key: Option<Pem>,
    ) -> Result<Self, SettingError> {
        let provider = Arc::new(ring::default_provider());
        let custom_roots = roots.is_some();
        let identity = Arc::new(Identity {
            key: identity(certificate, key, &provider)?,
            asked: AtomicBool::new(false),
        });
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS", error.to_string()))?;
        let verifier = match roots {
            Some(pem) => Verifier::custom(&pem, &provider)?,
            None => Verifier::system(&provider)?,
        };
        let config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(identity.clone());
        Ok(Self {
            config,
            custom_roots,
            identity,
        })
    }

    pub(super) fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// What the failure of a connection has to do with certificates, in plain words.
    pub(super) fn explain(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let reason = match find(error) {
            Some(rustls::Error::InvalidCertificate(reason)) => Some(reason),
            _ => None,
        };
        let text = match reason {
            Some(CertificateError::UnknownIssuer) => {
                "the collector's certificate is not signed by a CA that is trusted"
            }
            Some(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "the collector's certificate is for another host name",
            Some(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                "the collector's certificate has expired"
            }
            Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                "the collector's certificate is not valid yet"
            }
            Some(_) => "the collector's certificate is not accepted",
            // the alert that says why may be lost when the collector closes the connection at once
            None if !self.identity.asked.load(Relaxed) => return None,
            None if self.identity.key.is_none() => {
                "the collector asks for a client certificate, and none is set"
            }
            None => "the collector may not accept the client certificate",
        };
        Some(text.to_owned())
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.custom_roots {
            "TLS with a CA of its own"
        } else {
            "TLS with the system's roots"
        })?;
        f.write_str(match self.identity.key {
            Some(_) => " and a client certificate",
            None => "",
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({self})")
    }
}

/// The client certificate, if any, and whether the collector has asked for it.
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity")
            .field(&self.key.is_some())
            .finish()
    }
}

/// Verifies as webpki does, and accepts a self-signed certificate that is itself the trusted one.
///
/// `openssl req -x509` marks such certificates as a CA, which webpki does not let a server use; they
/// are common for collectors, and imgproxy accepts them.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn custom(pem: &Pem, provider: &Arc<CryptoProvider>) -> Result<Self, SettingError> {
        let own = certificates(pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &own {
            roots
                .add(certificate.clone())
                .map_err(|error| unusable(&pem.setting, error.to_string()))?;
        }
        Self::with(roots, own, provider).map_err(|problem| unusable(&pem.setting, problem))
    }

    fn system(provider: &Arc<CryptoProvider>) -> Result<Self, SettingError> {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        Self::with(roots, Vec::new(), provider).map_err(|_| {
            let why: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
            unusable(
                "TLS",
                format!(
                    "the system has no root certificates ({}): set a server certificate, or SSL_CERT_FILE",
                    why.join(", ")
                ),
            )
        })
    }

    fn with(
        roots: RootCertStore,
        own: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let webpki = webpki.build().map_err(|error| error.to_string())?;
        Ok(Self { webpki, own })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match &verified {
            // webpki has checked the dates before it comes to this
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if is(other, webpki::Error::CaUsedAsEndEntity) && self.own.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn identity(
    certificate: Option<Pem>,
    key: Option<Pem>,
    provider: &CryptoProvider,
) -> Result<Option<Arc<CertifiedKey>>, SettingError> {
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(Pem { setting, .. }), None) => {
            return Err(unusable(
                &setting,
                "a client certificate needs its key, and none is set",
            ));
        }
        (None, Some(Pem { setting, .. })) => {
            return Err(unusable(
                &setting,
                "a client key needs its certificate, and none is set",
            ));
        }
    };
    let chain = certificates(&certificate)?;
    let private = provider
        .key_provider
        .load_private_key(private_key(&key)?)
        .map_err(|error| unusable(&key.setting, format!("the key cannot be used: {error}")))?;
    // a certificate holds the public key as it is, whatever its version
    let belongs = |public: &[u8]| chain[0].windows(public.len()).any(|part| part == public);
    if !private.public_key().is_none_or(|public| belongs(&public)) {
        let problem = format!(
            "the key does not belong to the certificate in {}",
            certificate.setting
        );
        return Err(unusable(&key.setting, problem));
    }
    Ok(Some(Arc::new(CertifiedKey::new(chain, private))))
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(&pem.setting, NOT_PEM))?;
    if certificates.is_empty() {
        let problem = if pem.text.contains("-----BEGIN") {
            "there is no certificate in it"
        } else {
            NOT_PEM
        };
        return Err(unusable(&pem.setting, problem));
    }
    for certificate in &certificates {
        match ParsedCertificate::try_from(certificate) {
            Ok(_) => {}
            // version 1, which `openssl x509 -req` makes; as a root or our own it is good enough
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if is(&other, webpki::Error::UnsupportedCertVersion) => {}
            Err(_) => {
                let problem = "what is in it is not an X.509 certificate";
                return Err(unusable(&pem.setting, problem));
            }
        }
    }
    Ok(certificates)
}

fn is(error: &OtherError, expected: webpki::Error) -> bool {
    error.0.downcast_ref() == Some(&expected)
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, SettingError> {
    PrivateKeyDer::from_pem_slice(pem.text.as_bytes()).map_err(|_| {
        let problem = if pem.text.contains("ENCRYPTED") {
            "the key is encrypted: store it without a passphrase"
        } else if pem.text.contains("-----BEGIN") {
            "there is no private key in it"
        } else {
            NOT_PEM
        };
        unusable(&pem.setting, problem)
    })
}

const NOT_PEM: &str =
    "it is not PEM: expected -----BEGIN …----- with base64 below, line breaks may be written \\n";

fn unusable(setting: &str, problem: impl Into<String>) -> SettingError {
    SettingError::Unusable {
        setting: setting.to_owned(),
        problem: problem.into(),
    }
}

/// The error of that type among the causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    crate::instrument::chain(error).find_map(|error| error.downcast_ref())
}
