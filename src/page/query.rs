//! Which traces are asked for.

use opentelemetry::trace::TraceId;
use percent_encoding::percent_decode_str;

use super::{latency::MOST_BANDS, routes::outcome_index, store::Sample};
use crate::telemetry::Outcome;

/// Longer queries are refused.
const LONGEST: usize = 4096;
const USUAL_LIMIT: usize = 100;
const MOST: usize = 500;

/// A list of traces, as its address says.
#[derive(Debug, Default)]
pub(super) struct Query {
    route: Option<String>,
    outcome: Option<Outcome>,
    band: Option<usize>,
    /// All of these are in the trace, in lower case.
    pub(super) words: Vec<String>,
    pub(super) limit: usize,
}

/// The names of the outcomes, in the order of their index.
pub(super) const OUTCOMES: [&str; 3] = ["ok", "failed", "cancelled"];

pub(super) const fn outcome_name(outcome: Outcome) -> &'static str {
    OUTCOMES[outcome_index(outcome)]
}

impl Query {
    /// In one sentence what is wrong with the query.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        if query.len() > LONGEST {
            return Err("the query is longer than 4096 bytes");
        }
        let mut parsed = Self {
            limit: USUAL_LIMIT,
            ..Self::default()
        };
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            if value.is_empty() {
                continue;
            }
            match key {
                "route" => parsed.route = Some(value),
                "outcome" => {
                    parsed.outcome = Some(match value.as_str() {
                        "ok" => Outcome::Ok,
                        "failed" => Outcome::Failed,
                        "cancelled" => Outcome::Cancelled,
                        _ => return Err("outcome is none of ok, failed and cancelled"),
                    });
                }
                "band" => {
                    let band = value.parse().ok().filter(|band| *band < MOST_BANDS);
                    parsed.band = Some(band.ok_or("band is no number from 0 to 8")?);
                }
                "q" => {
                    let text = value.to_lowercase();
                    parsed.words = text.split_whitespace().map(str::to_owned).collect();
                }
                "limit" => {
                    let limit = value.parse::<usize>().ok().filter(|limit| *limit > 0);
                    parsed.limit = limit.ok_or("limit is no number above 0")?.min(MOST);
                }
                // Addresses may have parts that are for the browser.
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Whether the sample is asked for, as far as can be told without decoding it.
    pub(super) fn matches(&self, sample: &Sample) -> bool {
        let route = self.route.as_deref();
        route.is_none_or(|route| *sample.route.name == *route)
            && self.outcome.is_none_or(|outcome| sample.outcome == outcome)
            && self.band.is_none_or(|band| sample.band() == band)
    }
}

/// A value of a query, or a segment of a path.
pub(super) fn decode(text: &str) -> Result<String, &'static str> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    let decoded = decoded.map_err(|_| "the address is not UTF-8 after percent-decoding")?;
    Ok(decoded.into_owned())
}

/// Exactly 32 hexadecimal digits.
pub(super) fn trace_id(text: &str) -> Option<TraceId> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| TraceId::from_hex(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_mistakes_named() {
        let query = Query::parse(
            "route=GET+%2Fa%2F%7Bb%7D&outcome=failed&band=3&q=Cat++DOG&limit=9999&x=y",
        )
        .unwrap();
        assert_eq!(query.route.as_deref(), Some("GET /a/{b}"));
        assert_eq!(query.outcome, Some(Outcome::Failed));
        assert_eq!(query.band, Some(3));
        assert_eq!(query.words, ["cat", "dog"]);
        assert_eq!(query.limit, MOST);
        let empty = Query::parse("route=&outcome=&band=&q=&limit=").unwrap();
        assert_eq!(empty.limit, USUAL_LIMIT);
        assert!(empty.route.is_none() && empty.outcome.is_none() && empty.band.is_none());
        for bad in [
            "outcome=good",
            "band=9",
            "band=-1",
            "limit=0",
            "limit=x",
            "q=%ff",
        ] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert!(Query::parse(&format!("q={}", "x".repeat(5000))).is_err());
    }
}
