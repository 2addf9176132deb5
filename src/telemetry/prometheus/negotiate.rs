//! What a scraper takes: RFC 9110 §12.5.

use http::{HeaderMap, header::ACCEPT};

use super::encode::Format;
use crate::telemetry::accept::{Item, items};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::accept::tests::headers;

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
}
