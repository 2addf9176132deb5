//! TLS for both transports: who is trusted, who is shown, and what failed.

use std::{
    cell::OnceCell,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use crate::telemetry::{
    error::SettingError,
    settings::{Credentials, OtlpExporter, Roots},
};

/// The roots of the system, which are loaded when the first exporter needs them.
#[derive(Default)]
pub(crate) struct SystemRoots(OnceCell<Result<Arc<Verifier>, SettingError>>);

impl SystemRoots {
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<Verifier>, SettingError> {
        self.0
            .get_or_init(|| Verifier::system(provider).map(Arc::new))
            .clone()
    }
}

/// How one exporter proves who is who.
#[derive(Clone)]
pub(super) struct Tls {
    config: ClientConfig,
    identity: Arc<Identity>,
}

impl Tls {
    /// Reads the certificates and keys of `exporter`.
    pub(super) fn new(exporter: &OtlpExporter, system: &SystemRoots) -> Result<Self, SettingError> {
        let provider = Arc::new(ring::default_provider());
        let credentials = Credentials::read(exporter, &provider)?;
        let verifier = match credentials.roots {
            Some(roots) => Arc::new(Verifier::custom(roots, &provider)?),
            None => system.verifier(&provider)?,
        };
        let identity = Arc::new(Identity {
            key: credentials.client,
            asked: AtomicBool::new(false),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingError::unusable("TLS", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(identity.clone());
        Ok(Self { config, identity })
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
            // The alert that says why is lost when the collector closes the connection at once.
            None if !self.identity.asked.load(Relaxed) => return None,
            None if self.identity.key.is_none() => {
                "the collector asks for a client certificate, and none is set"
            }
            None => "the collector may not accept the client certificate",
        };
        Some(text.to_owned())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
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

/// Verifies as webpki does, and accepts a self-signed certificate that is itself trusted.
///
/// `openssl req -x509` marks such certificates as a CA, which webpki refuses as a server's. They are
/// common for collectors, and imgproxy accepts them.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn custom(roots: Roots, provider: &Arc<CryptoProvider>) -> Result<Self, SettingError> {
        Self::new(roots.store, roots.certificates, provider)
            .map_err(|problem| SettingError::unusable("TLS", problem))
    }

    fn system(provider: &Arc<CryptoProvider>) -> Result<Self, SettingError> {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        Self::new(roots, Vec::new(), provider).map_err(|_| {
            let why: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
            let why = why.join(", ");
            SettingError::unusable(
                "TLS",
                format!("the system has no root certificates ({why}): set a server certificate, or SSL_CERT_FILE"),
            )
        })
    }

    fn new(
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
            // Webpki has checked the dates before it says this.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
                    && self.own.contains(end_entity) =>
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

/// The error of type `E` among the causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    crate::instrument::chain(error).find_map(|error| error.downcast_ref())
}
