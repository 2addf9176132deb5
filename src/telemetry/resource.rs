//! The resource that all signals share.

use std::sync::OnceLock;

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    resource::TelemetryResourceDetector,
    trace::{IdGenerator, RandomIdGenerator},
};

#[cfg(feature = "aws")]
use super::aws;
use super::settings::Settings;

/// What the settings say about the service, and what is known of its process and of the SDK.
///
/// The SDK's other detectors are left out, because they read the process environment.
pub(super) fn build(settings: &Settings) -> Resource {
    let attributes = settings
        .resource_attributes
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector));
    #[cfg(all(feature = "process", target_os = "linux"))]
    let resource = resource.with_attributes(process::attributes());
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
    let version = settings.service_version.clone();
    resource
        .with_attribute(KeyValue::new("service.instance.id", instance_id()))
        .with_attributes(attributes)
        .with_attributes(version.map(|version| KeyValue::new("service.version", version)))
        .with_attribute(KeyValue::new("service.name", settings.service_name.clone()))
        .build()
}

/// A random UUID of version 4 (RFC 9562 §5.4), the same for the life of the process (semconv service:
/// `service.instance.id`). Without it two processes of a service report the same series.
fn instance_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let mut bytes = RandomIdGenerator::default().new_trace_id().to_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = format!("{:032x}", u128::from_be_bytes(bytes));
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        parts.join("-")
    })
}

/// Semconv process: the process in which the service runs.
#[cfg(all(feature = "process", target_os = "linux"))]
mod process {
    use opentelemetry::KeyValue;
    use procfs::{CurrentSI, KernelStats, process::Process, ticks_per_second};

    pub(super) fn attributes() -> impl Iterator<Item = KeyValue> {
        let pid = KeyValue::new("process.pid", i64::from(std::process::id()));
        let created = created().map(|time| KeyValue::new("process.creation.time", time));
        std::iter::once(pid).chain(created)
    }

    fn created() -> Option<String> {
        let started = Process::myself().ok()?.stat().ok()?.starttime;
        let booted = KernelStats::current().ok()?.btime;
        Some(iso_8601(booted + started / ticks_per_second()))
    }

    /// Seconds since 1970 as `2023-11-21T09:25:34Z`.
    fn iso_8601(seconds: u64) -> String {
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years that begin in March have the leap day at their end.
        let day = days + 719_468;
        let (era, day_of_era) = (day / 146_097, day % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }

    #[test]
    fn times_are_iso_8601() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_558_734, "2023-11-21T09:25:34Z"),
        ] {
            assert_eq!(iso_8601(seconds), expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;
    use crate::telemetry::Telemetry;

    fn resource(vars: &[(&str, &str)], version: Option<&str>) -> Resource {
        let builder = Telemetry::builder().vars(vars.iter().copied());
        let builder = match version {
            Some(version) => builder.service_version(version),
            None => builder,
        };
        build(&builder.settings().unwrap())
    }

    // faults A17
    #[test]
    fn an_instance_has_an_id_of_its_own_and_a_version_when_it_is_set() {
        let get = |resource: &Resource, key: &'static str| {
            resource.get(&Key::new(key)).map(|value| value.to_string())
        };
        let plain = resource(&[], None);
        let id = get(&plain, "service.instance.id").unwrap();
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        assert!(
            id[14..].starts_with('4') && "89ab".contains(&id[19..20]),
            "{id}"
        );
        let again = resource(&[], None);
        assert_eq!(get(&again, "service.instance.id"), Some(id));
        assert_eq!(get(&plain, "service.version"), None);

        let vars = [(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.instance.id=own,service.version=1",
        )];
        let set = resource(&vars, None);
        assert_eq!(get(&set, "service.instance.id").as_deref(), Some("own"));
        assert_eq!(get(&set, "service.version").as_deref(), Some("1"));
        let set = resource(&vars, Some("2"));
        assert_eq!(get(&set, "service.version").as_deref(), Some("2"));
    }
}
