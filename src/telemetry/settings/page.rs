//! The live page of traces, as plain data.

use std::fmt;

use super::{
    code::Code,
    env::{Variables, count},
    prometheus::is_listen,
};
use crate::telemetry::error::SettingError;

const LISTEN: &str = "host:port, or :port for all addresses, such as 127.0.0.1:9411";
const MAX_BYTES: &str = "at least 262144 bytes";
/// With less memory the page could hold hardly any trace.
const LEAST_BYTES: usize = 256 << 10;

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
    variable: Option<String>,
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

    /// Adds what is wrong in settings that code has built.
    pub(super) fn check(&self, errors: &mut Vec<SettingError>) {
        if cfg!(not(feature = "page")) {
            errors.push(SettingError::feature("trace_page", "Some", "page"));
        }
        if let Some(listen) = self.listen.as_ref().filter(|text| !is_listen(text)) {
            errors.push(SettingError::invalid("trace_page.listen", listen, LISTEN));
        }
        if self.max_bytes < LEAST_BYTES {
            let given = self.max_bytes.to_string();
            let error = SettingError::invalid("trace_page.max_bytes", &given, MAX_BYTES);
            errors.push(error);
        }
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

/// What the variables and the code say of the page.
pub(super) fn page(vars: &mut Variables, code: &Code) -> Option<TracePageSettings> {
    let (bind_variable, bytes_variable) = (vars.own("PAGE_BIND"), vars.own("PAGE_MAX_BYTES"));
    let is_bound = vars.get(&bind_variable).is_some();
    let bind = vars.parse(&[bind_variable.as_str()], LISTEN, |value| {
        is_listen(value).then(|| value.to_owned())
    });
    let max_bytes = count(vars, code.page_max_bytes, "PAGE_MAX_BYTES");
    if let Some(bytes) = max_bytes.filter(|bytes| *bytes < LEAST_BYTES) {
        let setting = match code.page_max_bytes {
            Some(_) => "trace_page_max_bytes".to_owned(),
            None => bytes_variable,
        };
        vars.refuse(SettingError::invalid(
            setting,
            &bytes.to_string(),
            MAX_BYTES,
        ));
    }
    if let Some(listen) = code.page_listen.as_ref().filter(|text| !is_listen(text)) {
        vars.refuse(SettingError::invalid("trace_page_listen", listen, LISTEN));
    }
    if !code.page.unwrap_or(code.page_listen.is_some() || is_bound) {
        return None;
    }
    if cfg!(not(feature = "page")) {
        let value = bind.unwrap_or_default();
        vars.refuse(SettingError::feature(bind_variable, value, "page"));
        return None;
    }
    let default = TracePageSettings::default();
    let variable = (code.page_listen.is_none() && is_bound).then_some(bind_variable);
    Some(TracePageSettings {
        listen: code.page_listen.clone().or(bind),
        max_bytes: max_bytes.unwrap_or(default.max_bytes),
        variable,
    })
}
