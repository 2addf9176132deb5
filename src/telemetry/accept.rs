//! What a client takes: RFC 9110 §12.5.

use http::{HeaderMap, HeaderName, header::ACCEPT_ENCODING};

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for item in items(headers, &ACCEPT_ENCODING) {
        if ["gzip", "x-gzip"]
            .iter()
            .any(|name| item.name.eq_ignore_ascii_case(name))
        {
            return item.weight > 0;
        }
        any |= item.name == "*" && item.weight > 0;
    }
    any
}

/// One item of a list in a header.
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    parameters: &'a str,
    /// In thousandths.
    pub(super) weight: u16,
}

impl<'a> Item<'a> {
    fn new(text: &'a str) -> Self {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        let mut item = Self {
            name: name.trim(),
            parameters,
            weight: 1000,
        };
        if let Some(weight) = item.parameter("q") {
            item.weight = match weight.parse::<f32>() {
                Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u16,
                _ => 0,
            };
        }
        item
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            let is_it = key.trim().eq_ignore_ascii_case(name);
            is_it.then(|| value.trim().trim_matches('"'))
        })
    }
}

pub(super) fn items<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Item<'a>> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Item::new)
        .filter(|item| !item.name.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;

    use super::*;

    pub(in crate::telemetry) fn headers(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| HeaderValue::from_static(line));
        lines.map(|line| (name.clone(), line)).collect()
    }

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        let rows: [(&[&str], bool); 9] = [
            (&[], false),
            (&["gzip"], true),
            (&["deflate, GZIP;q=0.5"], true),
            (&["br", "x-gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["*"], true),
            (&["identity"], false),
            (&["gzip;q=x"], false),
        ];
        for (lines, expected) in rows {
            assert_eq!(
                takes_gzip(&headers(ACCEPT_ENCODING, lines)),
                expected,
                "{lines:?}"
            );
        }
    }
}
