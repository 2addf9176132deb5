//! Certificates and keys as plain data.

#[cfg(feature = "_otlp")]
use std::path::PathBuf;
use std::{fmt, path::Path, sync::Arc};

/// Certificates or a key as PEM text, of which `Debug` shows nothing. Cheap to clone.
///
/// The text is read when telemetry starts. One that came from a file is read again for each new
/// connection, in case the file has changed.
#[derive(Clone)]
pub struct Pem(Arc<Source>);

struct Source {
    text: String,
    /// The variable that the text comes from.
    variable: Option<String>,
    /// The file that the variable names.
    #[cfg(feature = "_otlp")]
    path: Option<PathBuf>,
}

impl Pem {
    /// PEM text as it stands in a file.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Source {
            text: text.into(),
            variable: None,
            #[cfg(feature = "_otlp")]
            path: None,
        }))
    }

    /// PEM text from a variable, or from the file at `path` that it names.
    pub(super) fn from_variable(variable: &str, text: String, path: Option<&Path>) -> Self {
        #[cfg(not(feature = "_otlp"))]
        let _ = path;
        Self(Arc::new(Source {
            text,
            variable: Some(variable.to_owned()),
            #[cfg(feature = "_otlp")]
            path: path.map(Path::to_owned),
        }))
    }

    /// The text that is in the file now; `None` when it is the same, and when there is no file.
    #[cfg(feature = "_otlp")]
    pub(super) fn changed(&self) -> Option<Self> {
        let Source { variable, path, .. } = &*self.0;
        let text = std::fs::read_to_string(path.as_deref()?).ok()?;
        (text != self.0.text).then(|| {
            Self(Arc::new(Source {
                text,
                variable: variable.clone(),
                path: path.clone(),
            }))
        })
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
