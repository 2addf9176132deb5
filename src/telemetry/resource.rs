use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use percent_encoding::percent_decode_str;

use super::settings::Settings;

/// `k=v,k=v` with percent-encoded values, the form of `OTEL_RESOURCE_ATTRIBUTES` and
/// `OTEL_EXPORTER_OTLP_HEADERS`; `None` when it is not of that form.
pub(super) fn parse_pairs(text: &str) -> Option<Vec<(String, String)>> {
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

/// The resource of all signals; the SDK's other detectors are left out because they read the environment.
pub(super) fn build(settings: &Settings) -> Resource {
    let attributes = settings
        .resource_attributes
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector));
    #[cfg(feature = "aws")]
    let resource = match settings.aws_resource {
        true => super::aws::detect(AWS_TIMEOUT)
            .iter()
            .fold(resource, |resource, found| {
                let found = found
                    .iter()
                    .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
                resource.with_attributes(found)
            }),
        false => resource,
    };
    resource
        .with_attributes(attributes)
        .with_attribute(KeyValue::new("service.name", settings.service_name.clone()))
        .build()
}

/// How long the start of the service may be held up by the detectors, all in all.
#[cfg(feature = "aws")]
const AWS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_percent_decoded() {
        let pairs = parse_pairs(" a=1 ,b=x%3Dy%2Cz,c=,").unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x=y,z"), ("c", "")]);
        for text in ["a", "=1", "a=%ff", "a=1,b"] {
            assert_eq!(parse_pairs(text), None, "{text}");
        }
    }
}
