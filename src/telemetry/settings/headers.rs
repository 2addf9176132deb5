//! Headers, or gRPC metadata, of each export request.

use http::{HeaderName, HeaderValue};

use super::{
    code::Code,
    env::{Variables, standard},
    pairs,
};
use crate::telemetry::{
    error::{Consequence, SettingError},
    signal::Signal,
};

/// The headers from the variables, replaced by those of the same name from code.
pub(super) fn headers(
    vars: &mut Variables,
    code: &Code,
    signal: Signal,
) -> Vec<(HeaderName, HeaderValue)> {
    let [own, general] = standard(signal, "HEADERS");
    let mut headers = Vec::new();
    if let Some((variable, text)) = vars.first(&[own.as_str(), &general]) {
        let (parsed, problems) = parse(text);
        headers = parsed;
        if !problems.is_empty() {
            let problem = format!("{}: expected {}", problems.join(", "), pairs::EXPECTED);
            let error = SettingError::unusable(variable, problem);
            vars.warn(error, Consequence::OthersUsed);
        }
    }
    headers.retain(|(name, _)| code.headers.iter().all(|(own, _)| own != name));
    headers.extend(code.headers.iter().cloned());
    headers
}

/// The headers, and what is wrong with the others, which are only counted: any part of them may be
/// secret.
fn parse(text: &str) -> (Vec<(HeaderName, HeaderValue)>, Vec<String>) {
    let (mut headers, mut problems) = (Vec::new(), Vec::new());
    for (number, pair) in (1..).zip(pairs::parse(text)) {
        match pair.and_then(header) {
            Ok(header) => headers.push(header),
            Err(problem) => problems.push(format!("header {number} {problem}")),
        }
    }
    (headers, problems)
}

fn header((name, value): (String, String)) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = name.parse().map_err(|_| "has an invalid name")?;
    let mut value = HeaderValue::from_str(&value).map_err(|_| "has an invalid value")?;
    value.set_sensitive(true);
    Ok((name, value))
}
