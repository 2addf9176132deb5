//! What a scraper takes: RFC 9110 §12.5.

use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT, ACCEPT_ENCODING},
};

use super::encode::Format;

/// The media type of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    pub(super) format: Format,
    pub(super) text: &'static str,
}

const TEXT: MediaType = MediaType {
    format: Format::Text,
    text: "text/plain; version=0.0.4; charset=utf-8",
};

const OPEN_METRICS: MediaType = MediaType {
    format: Format::OpenMetrics,
    text: "application/openmetrics-text; version=1.0.0; charset=utf-8",
};

/// The draft that older versions of Prometheus ask for; nothing on these pages differs from 1.0.
const OPEN_METRICS_DRAFT: MediaType = MediaType {
    format: Format::OpenMetrics,
    text: "application/openmetrics-text; version=0.0.1; charset=utf-8",
};

/// What the scraper likes best; the older format if it takes none of them.
pub(super) fn media_type(headers: &HeaderMap) -> MediaType {
    let mut best = (0, TEXT);
    for item in items(headers, &ACCEPT) {
        let Some((media_type, specific)) = known(&item) else {
            continue;
        };
        // Of two with the same weight, the more specific and then the first one counts.
        let weight = item.weight * 2 + u16::from(specific && item.weight > 0);
        if weight > best.0 {
            best = (weight, media_type);
        }
    }
    best.1
}

/// The media type that an item asks for, and whether it names it.
fn known(item: &Item<'_>) -> Option<(MediaType, bool)> {
    let is = |name: &str| item.name.eq_ignore_ascii_case(name);
    let version = item.parameter("version");
    if is("application/openmetrics-text") {
        let media_type = match version {
            None | Some("1.0.0") => OPEN_METRICS,
            Some("0.0.1") => OPEN_METRICS_DRAFT,
            Some(_) => return None,
        };
        Some((media_type, true))
    } else if is("text/plain") {
        matches!(version, None | Some("0.0.4")).then_some((TEXT, true))
    } else {
        (is("*/*") || is("text/*")).then_some((TEXT, false))
    }
}

/// Whether the scraper takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
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
struct Item<'a> {
    name: &'a str,
    parameters: &'a str,
    /// In thousandths.
    weight: u16,
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

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            let is_it = key.trim().eq_ignore_ascii_case(name);
            is_it.then(|| value.trim().trim_matches('"'))
        })
    }
}

fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Item<'a>> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Item::new)
        .filter(|item| !item.name.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| HeaderValue::from_static(line));
        lines.map(|line| (name.clone(), line)).collect()
    }

    #[test]
    fn the_scraper_chooses_the_format() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let rows: [(&[&str], MediaType); 15] = [
            (&[], TEXT),
            (&[prometheus_2], OPEN_METRICS),
            (&[prometheus_3], OPEN_METRICS),
            (&["text/plain"], TEXT),
            (&["*/*"], TEXT),
            (&["text/html, application/xml"], TEXT),
            (&["application/openmetrics-text"], OPEN_METRICS),
            (
                &["Application/OpenMetrics-Text; Version=\"0.0.1\""],
                OPEN_METRICS_DRAFT,
            ),
            (
                &["application/openmetrics-text;version=2.0.0,text/plain;q=0.1"],
                TEXT,
            ),
            (
                &["application/openmetrics-text;q=0.3,text/plain;q=0.4"],
                TEXT,
            ),
            (
                &["text/plain;q=0.4", "application/openmetrics-text;q=0.5"],
                OPEN_METRICS,
            ),
            (&["application/openmetrics-text;q=0"], TEXT),
            (&["*/*, application/openmetrics-text"], OPEN_METRICS),
            (&["application/openmetrics-text;q=2"], TEXT),
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8",
                ],
                OPEN_METRICS,
            ),
        ];
        for (lines, expected) in rows {
            assert_eq!(media_type(&headers(ACCEPT, lines)), expected, "{lines:?}");
        }
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
