//! The live page of traces, as plain data.

use std::fmt;

/// The live page of traces: [`Telemetry::trace_page`](crate::Telemetry::trace_page).
///
/// ```
/// use tower_image_trace::telemetry::{Settings, TracePageSettings};
///
/// let mut page = TracePageSettings::default();
/// page.listen = Some("127.0.0.1:9411".to_owned());
/// let mut settings = Settings::default();
/// settings.trace_page = Some(page);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracePageSettings {
    /// Where a listener of its own serves the page: `host:port`, or `:port` for all addresses of the
    /// machine. `None`: only the service serves it.
    pub listen: Option<String>,
    /// The most bytes of memory that the page holds; at least 262,144.
    pub max_bytes: usize,
    /// The variable that `listen` comes from, for errors.
    pub(super) variable: Option<String>,
}

impl Default for TracePageSettings {
    fn default() -> Self {
        Self {
            listen: None,
            max_bytes: 8 << 20,
            variable: None,
        }
    }
}

impl TracePageSettings {
    /// What errors call the address of the listener.
    #[cfg(feature = "page")]
    pub(crate) fn listen_setting(&self) -> &str {
        self.variable.as_deref().unwrap_or("trace_page.listen")
    }
}

impl fmt::Display for TracePageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listen {
            Some(listen) => write!(f, "on a page at {listen}"),
            None => f.write_str("on a page"),
        }
    }
}
