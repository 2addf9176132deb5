//! Certificates and keys as plain data.

use std::{fmt, sync::Arc};

/// Certificates or a key as PEM text, of which `Debug` shows nothing. Cheap to clone.
///
/// The text is read when telemetry starts.
#[derive(Clone)]
pub struct Pem(Arc<Source>);

struct Source {
    text: String,
    /// The variable that the text comes from.
    variable: Option<String>,
}

impl Pem {
    /// PEM text as it stands in a file.
    pub fn new(text: impl Into<String>) -> Self {
        let (text, variable) = (text.into(), None);
        Self(Arc::new(Source { text, variable }))
    }

    /// PEM text from a variable, or from the file that it names.
    pub(super) fn from_variable(variable: &str, text: impl Into<String>) -> Self {
        let (text, variable) = (text.into(), Some(variable.to_owned()));
        Self(Arc::new(Source { text, variable }))
    }

    #[cfg(feature = "_otlp")]
    pub(super) fn text(&self) -> &str {
        &self.0.text
    }

    /// What errors call the text: its variable, or else the `field` of the settings that it is in.
    pub(super) fn name<'a>(&'a self, field: &'a str) -> &'a str {
        self.0.variable.as_deref().unwrap_or(field)
    }
}

/// Equal texts are equal, wherever they come from.
impl PartialEq for Pem {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Pem {}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem")
    }
}
