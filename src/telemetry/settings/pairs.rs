//! Lists of `key=value` in one variable.

use percent_encoding::percent_decode_str;

/// `k=v,k=v` with percent-encoded values, the form of `OTEL_RESOURCE_ATTRIBUTES` and
/// `OTEL_EXPORTER_OTLP_HEADERS`; `None` for anything else.
pub(super) fn parse(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let decode = |text: &str| {
                percent_decode_str(text.trim())
                    .decode_utf8()
                    .ok()
                    .map(|text| text.into_owned())
            };
            Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_percent_decoded() {
        let pairs = parse(" a=1 ,b=x%3Dy%2Cz,c=,").unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x=y,z"), ("c", "")]);
        for text in ["a", "=1", "a=%ff", "a=1,b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
