//! What the variables and the code say of the live page, and what is wrong with it.

use super::{
    code::Code,
    env::{Variables, count},
    prometheus::is_listen,
    trace_page::TracePageSettings,
};
use crate::telemetry::error::SettingError;

const LISTEN: &str = "host:port, or :port for all addresses, such as 127.0.0.1:9411";
const MAX_BYTES: &str = "at least 262144 bytes";
/// With less memory the page could hold hardly any trace.
const LEAST_BYTES: usize = 256 << 10;

impl TracePageSettings {
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
