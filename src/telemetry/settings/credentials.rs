//! What PEM texts hold.

use std::sync::Arc;

use rustls::{
    CertificateError, OtherError, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::{
    pem::Pem,
    values::{CLIENT_CERTIFICATE, CLIENT_KEY, OtlpExporter, SERVER_CERTIFICATE},
};
use crate::telemetry::error::SettingError;

/// What the PEM texts of one exporter hold, read and checked.
pub(crate) struct Credentials {
    /// `None` means the roots of the system.
    pub(crate) roots: Option<Roots>,
    /// The client certificate with its key.
    pub(crate) client: Option<Arc<CertifiedKey>>,
}

/// The certificates that the collector's certificate may be, or may be signed by.
pub(crate) struct Roots {
    pub(crate) store: RootCertStore,
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

impl Credentials {
    pub(crate) fn read(
        exporter: &OtlpExporter,
        provider: &CryptoProvider,
    ) -> Result<Self, SettingError> {
        let client = match (&exporter.client_certificate, &exporter.client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Arc::new(client(certificate, key, provider)?)),
            (Some(certificate), None) => {
                return Err(SettingError::unusable(
                    certificate.name(CLIENT_CERTIFICATE),
                    "a client certificate needs its key, and none is set",
                ));
            }
            (None, Some(key)) => {
                return Err(SettingError::unusable(
                    key.name(CLIENT_KEY),
                    "a client key needs its certificate, and none is set",
                ));
            }
        };
        let roots = exporter
            .server_certificate
            .as_ref()
            .map(roots)
            .transpose()?;
        Ok(Self { roots, client })
    }
}

fn roots(pem: &Pem) -> Result<Roots, SettingError> {
    let name = pem.name(SERVER_CERTIFICATE);
    let certificates = certificates(pem, name)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| SettingError::unusable(name, error.to_string()))?;
    }
    Ok(Roots {
        store,
        certificates,
    })
}

fn client(
    certificate: &Pem,
    key: &Pem,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, SettingError> {
    let (certificate_name, key_name) = (certificate.name(CLIENT_CERTIFICATE), key.name(CLIENT_KEY));
    let chain = certificates(certificate, certificate_name)?;
    let private = provider
        .key_provider
        .load_private_key(private_key(key, key_name)?)
        .map_err(|error| {
            SettingError::unusable(key_name, format!("the key cannot be used: {error}"))
        })?;
    // A certificate holds the public key as it is, whatever the certificate's version.
    let belongs = |public: &[u8]| chain[0].windows(public.len()).any(|part| part == public);
    if !private.public_key().is_none_or(|public| belongs(&public)) {
        let problem = format!("the key does not belong to the certificate in {certificate_name}");
        return Err(SettingError::unusable(key_name, problem));
    }
    Ok(CertifiedKey::new(chain, private))
}

fn certificates(pem: &Pem, name: &str) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let refused = |problem: &str| SettingError::unusable(name, problem);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.text().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| refused(NOT_PEM))?;
    if certificates.is_empty() {
        return Err(refused(if pem.text().contains("-----BEGIN") {
            "there is no certificate in it"
        } else {
            NOT_PEM
        }));
    }
    for certificate in &certificates {
        match ParsedCertificate::try_from(certificate) {
            Ok(_) => {}
            // `openssl x509 -req` makes certificates of version 1, which do as a root or as our own.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))))
                if other.downcast_ref() == Some(&webpki::Error::UnsupportedCertVersion) => {}
            Err(_) => return Err(refused("what is in it is not an X.509 certificate")),
        }
    }
    Ok(certificates)
}

fn private_key(pem: &Pem, name: &str) -> Result<PrivateKeyDer<'static>, SettingError> {
    PrivateKeyDer::from_pem_slice(pem.text().as_bytes()).map_err(|_| {
        let problem = if pem.text().contains("ENCRYPTED") {
            "the key is encrypted: store it without a passphrase"
        } else if pem.text().contains("-----BEGIN") {
            "there is no private key in it"
        } else {
            NOT_PEM
        };
        SettingError::unusable(name, problem)
    })
}

const NOT_PEM: &str =
    "it is not PEM: expected -----BEGIN …----- with base64 below, line breaks may be written \\n";
