//! The resource that all signals share.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};

#[cfg(feature = "aws")]
use super::aws;
use super::settings::Settings;

/// What the settings say about the service, and the SDK's name and version.
///
/// The SDK's other detectors are left out, because they read the process environment.
pub(super) fn build(settings: &Settings) -> Resource {
    let attributes = settings
        .resource_attributes
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector));
    #[cfg(feature = "aws")]
    let resource = match settings.aws_resource {
        true => aws::detect().iter().fold(resource, |resource, found| {
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
