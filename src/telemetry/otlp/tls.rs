//! TLS for both transports: who is trusted, who is shown, and what failed.

use std::{
    cell::OnceCell,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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

use super::validity::{Validity, system_time};
use crate::telemetry::{
    error::SettingError,
    settings::{Credentials, OtlpExporter, Protocol, Roots},
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
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
}

/// The certificates in use.
struct Loaded {
    /// Where they come from.
    exporter: OtlpExporter,
    verifier: Arc<Verifier>,
    key: Option<Arc<CertifiedKey>>,
    /// Whether the collector has asked for a client certificate on the latest connection, and has not
    /// answered a request since.
    asked: Arc<AtomicBool>,
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
        let loaded = Loaded {
            exporter: exporter.clone(),
            verifier,
            key: credentials.client,
            asked: Arc::default(),
        };
        let tls = Self {
            provider,
            loaded: Mutex::new(loaded),
        };
        tls.build()
            .map_err(|error| SettingError::unusable("TLS", error.to_string()))?;
        Ok(tls)
    }

    /// What a new connection needs; certificates from files are read again when the files have changed.
    pub(super) fn config(&self) -> Result<ClientConfig, rustls::Error> {
        self.reload();
        self.build()
    }

    fn build(&self) -> Result<ClientConfig, rustls::Error> {
        let mut loaded = self.loaded();
        loaded.asked = Arc::default();
        let identity = Identity {
            key: loaded.key.clone(),
            asked: Arc::clone(&loaded.asked),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(loaded.verifier.clone())
            .with_client_cert_resolver(Arc::new(identity));
        if loaded.exporter.protocol == Protocol::Grpc {
            // Without it servers such as nginx speak HTTP/1.1 (RFC 7301, RFC 9113 §3.2).
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(config)
    }

    /// Takes over changed files. While they do not fit together, as between the writing of a certificate
    /// and of its key, the old ones stay in use.
    fn reload(&self) {
        let Some(exporter) = self.loaded().exporter.with_changed_files() else {
            return;
        };
        let Ok(credentials) = Credentials::read(&exporter, &self.provider) else {
            return;
        };
        let verifier = credentials
            .roots
            .map(|roots| Verifier::custom(roots, &self.provider));
        let mut loaded = self.loaded();
        match verifier {
            Some(Ok(verifier)) => loaded.verifier = Arc::new(verifier),
            Some(Err(_)) => return,
            // The roots of the system.
            None => {}
        }
        loaded.key = credentials.client;
        loaded.exporter = exporter;
    }

    /// The collector has answered a request: it accepts the client certificate, if it wants one.
    pub(super) fn answered(&self) {
        self.loaded().asked.store(false, Relaxed);
    }

    /// What the failure of a connection has to do with certificates, in plain words.
    pub(super) fn explain(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let reason = match find(error) {
            Some(rustls::Error::InvalidCertificate(reason)) => Some(reason),
            _ => None,
        };
        let loaded = self.loaded();
        let text = match reason {
            // A self-signed certificate that is marked as a CA, and is not the given one.
            Some(CertificateError::Other(other))
                if other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
            {
                UNKNOWN_ISSUER
            }
            Some(CertificateError::UnknownIssuer) => UNKNOWN_ISSUER,
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
            None if !loaded.asked.load(Relaxed) => return None,
            None if loaded.key.is_none() => {
                "the collector asks for a client certificate, and none is set"
            }
            None => "the collector may not accept the client certificate",
        };
        Some(text.to_owned())
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

const UNKNOWN_ISSUER: &str = "the collector's certificate is not signed by a CA that is trusted";

/// The client certificate, if any, and whether the collector has asked for it.
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    asked: Arc<AtomicBool>,
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

/// Verifies as webpki does, and accepts a certificate that is itself trusted, whoever signed it.
///
/// Go accepts such certificates, and so imgproxy does: a collector's own certificate is often what is
/// given. Its host name and its dates are checked all the same.
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

/// Checks a certificate whose origin is certain.
fn verify_own(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    let now = system_time(now);
    match Validity::of(certificate) {
        None => Err(CertificateError::BadEncoding.into()),
        Some(validity) if now < validity.not_before => Err(CertificateError::NotValidYet.into()),
        Some(validity) if now > validity.not_after => Err(CertificateError::Expired.into()),
        Some(_) => Ok(ServerCertVerified::assertion()),
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
        if self.own.contains(end_entity) {
            return verify_own(end_entity, server_name, now);
        }
        self.webpki
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
