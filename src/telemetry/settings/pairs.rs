//! Lists of `key=value` in one variable.

use percent_encoding::percent_decode_str;

pub(super) const EXPECTED: &str = "key=value,key=value with percent-encoded values";

/// The pairs of `k=v,k=v` with percent-encoded values, the form of `OTEL_RESOURCE_ATTRIBUTES` and
/// `OTEL_EXPORTER_OTLP_HEADERS`; in place of any other pair what is wrong with it.
pub(super) fn parse(text: &str) -> impl Iterator<Item = Result<(String, String), &'static str>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or("has no \"=\"")?;
            let key = decode(key)?;
            match key.is_empty() {
                true => Err("has nothing before the \"=\""),
                false => Ok((key, decode(value)?)),
            }
        })
}

fn decode(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text.trim()).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| "is not UTF-8 after percent-decoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_percent_decoded() {
        let pairs: Result<Vec<_>, _> = parse(" a=1 ,b=x%3Dy%2Cz,c=,").collect();
        let pairs = pairs.unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x=y,z"), ("c", "")]);
        for text in ["a", "=1", "a=%ff", "a=1,b"] {
            assert!(parse(text).any(|pair| pair.is_err()), "{text}");
        }
    }
}
