//! Which certificates and keys count for an exporter.

use std::{fs, path::Path};

use http::{Uri, uri::Scheme};
#[cfg(feature = "_otlp")]
use rustls::crypto::ring;

use super::{
    code::Code,
    env::{Variables, standard},
    pem::Pem,
    values::{CLIENT_CERTIFICATE, CLIENT_KEY, SERVER_CERTIFICATE},
};
#[cfg(feature = "_otlp")]
use super::{credentials::Credentials, values::OtlpExporter};
use crate::telemetry::{
    error::{Consequence, SettingError},
    signal::Signal,
};

/// Where an endpoint was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In code, or in the crate's own variable.
    Own,
    /// In the signal's own standard variable.
    Signal,
    /// In the standard variable of all signals, or nowhere.
    General,
}

/// What was set for one signal.
pub(super) struct Certificates {
    pub(super) server_certificate: Option<Pem>,
    pub(super) client_certificate: Option<Pem>,
    pub(super) client_key: Option<Pem>,
    /// Something was set, even if it could not be read.
    pub(super) any: bool,
    /// Something was set in code or in the crate's own variables.
    pub(super) any_own: bool,
}

impl Certificates {
    pub(super) fn read(vars: &mut Variables, code: &Code, signal: Signal) -> Self {
        let mut certificates = Self {
            server_certificate: None,
            client_certificate: None,
            client_key: None,
            any: false,
            any_own: false,
        };
        for (pem, code, own, standard_name) in [
            (
                &mut certificates.server_certificate,
                &code.server_certificate,
                "SERVER_CERT",
                "CERTIFICATE",
            ),
            (
                &mut certificates.client_certificate,
                &code.client_certificate,
                "CLIENT_CERT",
                "CLIENT_CERTIFICATE",
            ),
            (
                &mut certificates.client_key,
                &code.client_key,
                "CLIENT_KEY",
                "CLIENT_KEY",
            ),
        ] {
            *pem = code.clone().or_else(|| own_text(vars, own));
            certificates.any_own |= pem.is_some();
            if pem.is_none() {
                let files = standard(signal, standard_name);
                let files = files.each_ref().map(String::as_str);
                certificates.any |= vars.first(&files).is_some();
                *pem = vars.read(&files, file);
            }
        }
        certificates.any |= certificates.any_own;
        certificates
    }

    /// Leaves out the certificates when the connection to `endpoint` is not encrypted.
    ///
    /// # Errors
    /// What is expected of the endpoint, when code and the crate's own variables contradict each
    /// other.
    pub(super) fn only_with_tls(
        &mut self,
        vars: &mut Variables,
        endpoint: &Uri,
        origin: Origin,
        signal: Signal,
    ) -> Result<(), &'static str> {
        if endpoint.scheme() == Some(&Scheme::HTTPS) {
            return Ok(());
        }
        if self.any_own && origin == Origin::Own {
            return Err("a URL that starts with https://, because a certificate is set");
        }
        for (pem, field) in [
            (self.server_certificate.take(), SERVER_CERTIFICATE),
            (self.client_certificate.take(), CLIENT_CERTIFICATE),
            (self.client_key.take(), CLIENT_KEY),
        ] {
            let Some(pem) = pem else { continue };
            let name = pem.name(field);
            let meant = match vars.is_standard(name) {
                // What is set for all signals counts for those of them that use TLS.
                true => name.contains(&format!("_{}_", signal.name())),
                false => origin == Origin::General,
            };
            if meant {
                let problem = "it is for a URL that starts with https://, and the endpoint starts \
                               with http://";
                vars.warn(SettingError::unusable(name, problem), Consequence::Ignored);
            }
        }
        Ok(())
    }
}

/// Certificates and keys are text in the crate's own variables.
fn own_text(vars: &Variables, name: &str) -> Option<Pem> {
    let variable = vars.own(name);
    let text = vars.get(&variable)?.replace("\\n", "\n");
    Some(Pem::from_variable(&variable, text, None))
}

/// Certificates and keys are files in the standard variables.
fn file(variable: &str, path: &str) -> Result<Pem, SettingError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Pem::from_variable(variable, text, Some(Path::new(path)))),
        Err(error) => {
            // A key in the place of a path must not be shown.
            let problem = if path.contains("-----BEGIN") {
                "it is PEM text: expected the path of a file with such text".to_owned()
            } else if is_shown(path) {
                format!("the file {path:?} cannot be read: {error}")
            } else {
                format!("the file that it names cannot be read: {error}")
            };
            Err(SettingError::unusable(variable, problem))
        }
    }
}

/// Whether a value is surely a path: base64, hexadecimal digits and PEM do not begin like one.
fn is_shown(path: &str) -> bool {
    let begins_like_one = path.starts_with(['.', '~']) || Path::new(path).is_absolute();
    begins_like_one && path.len() < 256 && !path.contains(['\n', '='])
}

/// Leaves out standard files that hold nothing usable. `false` means that something of the crate's own
/// variables or of code is not usable.
///
/// The transport reads the texts again, when it needs what is in them.
#[cfg(feature = "_otlp")]
pub(super) fn check(vars: &mut Variables, exporter: &mut OtlpExporter) -> bool {
    let provider = ring::default_provider();
    while let Err(error) = Credentials::read(exporter, &provider) {
        let server = &mut exporter.server_certificate;
        let is_server = |pem: &Pem| pem.name(SERVER_CERTIFICATE) == error.setting();
        let wrong = match server.as_ref().is_some_and(is_server) {
            true => [server.take(), None],
            false => [
                exporter.client_certificate.take(),
                exporter.client_key.take(),
            ],
        };
        let standard = |pem: &Pem| vars.is_standard(pem.name(""));
        if !wrong.iter().flatten().all(standard) {
            vars.refuse(error);
            return false;
        }
        vars.warn(error, Consequence::Ignored);
    }
    true
}
