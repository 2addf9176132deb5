//! Names of metrics and labels, and units, as OpenTelemetry's Prometheus rules make them:
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>
//!
//! They are the names that a metric gets when it is pushed to Prometheus over OTLP.

/// What a family of samples is in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A sum and a count without quantiles: the text formats have no place for the buckets of an
    /// exponential histogram.
    Summary,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    /// What the samples of a family are called, after the name of the family.
    pub(super) const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["", "_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
        }
    }
}

/// The name of a family of samples, without the `_total` of counters, and its unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FamilyName {
    pub(super) name: String,
    /// The last words of the name, if they are its unit.
    pub(super) unit: Option<String>,
}

/// How metrics are named.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Naming {
    /// Stands before each name, with an underscore.
    pub(in crate::telemetry) namespace: Option<String>,
    /// Whether imgproxy's metrics have the names of imgproxy's own page.
    pub(in crate::telemetry) imgproxy: bool,
    /// Whether scopes are labels only where several have metrics of one name.
    pub(in crate::telemetry) without_scope: bool,
}

/// The one metric of imgproxy whose unit is not part of its name there.
const IMGPROXY_WITHOUT_UNIT: &str = "workers_utilization";

impl Naming {
    pub(super) fn family(&self, name: &str, unit: &str, kind: Kind) -> FamilyName {
        let (unit, per) = match self.imgproxy && name == IMGPROXY_WITHOUT_UNIT {
            true => ("", ""),
            false => unit.split_once('/').unwrap_or((unit, "")),
        };
        let (unit, per) = (unit.trim(), per.trim());
        let mut words: Vec<&str> = name
            .split(|c: char| !c.is_ascii_alphanumeric() && c != ':')
            .filter(|word| !word.is_empty())
            .collect();
        let main = unit_word(unit, main_unit);
        let per_word = unit_word(per, per_unit);
        let mut added = Vec::new();
        if !main.is_empty() && !words.contains(&main.as_str()) {
            added.push(main.as_str());
        }
        if !per_word.is_empty() && !words.contains(&per_word.as_str()) {
            added.extend(["per", per_word.as_str()]);
        }
        words.extend(added);
        match kind {
            Kind::Counter => words.retain(|word| *word != "total"),
            // Counts have annotations such as `{request}` for their units. A gauge of unit 1 is a ratio.
            Kind::Gauge if unit == "1" => {
                words.retain(|word| *word != "ratio");
                words.push("ratio");
            }
            _ => {}
        }
        let mut joined = words.join("_");
        if let Some(namespace) = &self.namespace {
            joined = format!("{namespace}_{joined}");
        }
        if joined.is_empty() || joined.starts_with(|c: char| c.is_ascii_digit()) {
            joined.insert(0, '_');
        }
        let unit = match (main.is_empty(), per_word.is_empty()) {
            _ if kind == Kind::Gauge && unit == "1" => "ratio".to_owned(),
            (true, true) => String::new(),
            (false, true) => main,
            (true, false) => format!("per_{per_word}"),
            (false, false) => format!("{main}_per_{per_word}"),
        };
        let is_suffix = !unit.is_empty()
            && joined
                .strip_suffix(unit.as_str())
                .is_some_and(|before| before.ends_with('_'));
        FamilyName {
            unit: is_suffix.then_some(unit),
            name: joined,
        }
    }
}

/// The words for a part of a unit; none for annotations such as `{request}`.
fn unit_word(unit: &str, known: fn(&str) -> Option<&'static str>) -> String {
    if unit.contains(['{', '}']) {
        return String::new();
    }
    if let Some(word) = known(unit) {
        return word.to_owned();
    }
    let words = unit.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join("_")
}

fn main_unit(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        "1" => "",
        _ => return None,
    })
}

fn per_unit(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        _ => return None,
    })
}

/// Appends the label that an attribute's key becomes.
pub(super) fn push_label(label: &mut Vec<u8>, key: &str) {
    let start = label.len();
    let bytes = key.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => byte,
        _ => b'_',
    });
    let mut last = None;
    for byte in bytes {
        // A run of other characters becomes one underscore.
        if byte != b'_' || last != Some(b'_') {
            label.push(byte);
        }
        last = Some(byte);
    }
    // Labels that begin with an underscore are Prometheus' own, and none begins with a digit.
    match label.get(start) {
        None => label.extend_from_slice(b"key"),
        Some(b'_') => drop(label.splice(start..start, *b"key")),
        Some(b'0'..=b'9') => drop(label.splice(start..start, *b"key_")),
        Some(_) if is_taken(&label[start..]) => {
            drop(label.splice(start..start, *b"exported_"));
        }
        Some(_) => {}
    }
}

/// Labels that the formats themselves add.
fn is_taken(label: &[u8]) -> bool {
    label == b"le" || label == b"quantile" || label.starts_with(b"otel_scope_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are those that Prometheus gives what it receives over OTLP.
    #[test]
    fn names_end_with_unit_and_type() {
        use Kind::{Counter, Gauge, Histogram};
        for (name, unit, kind, expected, expected_unit) in [
            (
                "http.server.request.duration",
                "s",
                Histogram,
                "http_server_request_duration_seconds",
                "seconds",
            ),
            (
                "http.server.active_requests",
                "{request}",
                Gauge,
                "http_server_active_requests",
                "",
            ),
            (
                "http.server.request.body.size",
                "By",
                Histogram,
                "http_server_request_body_size_bytes",
                "bytes",
            ),
            (
                "request_span_duration_seconds",
                "s",
                Histogram,
                "request_span_duration_seconds",
                "seconds",
            ),
            (
                "buffer_size_bytes",
                "By",
                Histogram,
                "buffer_size_bytes",
                "bytes",
            ),
            (
                "requests_in_progress",
                "{request}",
                Gauge,
                "requests_in_progress",
                "",
            ),
            (
                "requests_in_progress",
                "1",
                Gauge,
                "requests_in_progress_ratio",
                "ratio",
            ),
            ("hit_ratio", "1", Gauge, "hit_ratio", "ratio"),
            ("errors_total", "{error}", Counter, "errors", ""),
            ("errors", "1", Counter, "errors", ""),
            ("total.errors", "1", Counter, "errors", ""),
            (
                "workers_utilization",
                "%",
                Gauge,
                "workers_utilization_percent",
                "percent",
            ),
            (
                "process.cpu.time",
                "s",
                Counter,
                "process_cpu_time_seconds",
                "seconds",
            ),
            (
                "rate",
                "By/s",
                Gauge,
                "rate_bytes_per_second",
                "bytes_per_second",
            ),
            ("rate", "{image}/s", Gauge, "rate_per_second", "per_second"),
            (
                "rate",
                "furlong/fortnight",
                Gauge,
                "rate_furlong_per_fortnight",
                "furlong_per_fortnight",
            ),
            ("seconds.left", "s", Gauge, "seconds_left", ""),
            ("3d.models", "{model}", Gauge, "_3d_models", ""),
            ("a__b..c--ü", "", Gauge, "a_b_c", ""),
            ("_._", "", Gauge, "_", ""),
            ("x", "m^2", Gauge, "x_m_2", "m_2"),
        ] {
            let family = Naming::default().family(name, unit, kind);
            assert_eq!(family.name, expected, "{name} {unit}");
            assert_eq!(
                family.unit.unwrap_or_default(),
                expected_unit,
                "{name} {unit}"
            );
        }
    }

    #[test]
    fn a_namespace_comes_first_and_imgproxys_names_have_no_more_units() {
        let naming = Naming {
            namespace: Some("thumbs".to_owned()),
            imgproxy: true,
            without_scope: false,
        };
        let family = naming.family("workers_utilization", "%", Kind::Gauge);
        assert_eq!(family.name, "thumbs_workers_utilization");
        let family = naming.family("other_utilization", "%", Kind::Gauge);
        assert_eq!(family.name, "thumbs_other_utilization_percent");
        let family = naming.family("3d", "", Kind::Gauge);
        assert_eq!(family.name, "thumbs_3d");
    }

    #[test]
    fn labels_are_letters_digits_and_underscores() {
        for (key, expected) in [
            ("http.request.method", "http_request_method"),
            ("a--b..c", "a_b_c"),
            ("_private", "key_private"),
            ("__name__", "key_name_"),
            ("3d", "key_3d"),
            ("le", "exported_le"),
            ("otel.scope.name", "exported_otel_scope_name"),
            ("otel.metric.overflow", "otel_metric_overflow"),
            ("größe", "gr_e"),
            ("", "key"),
            ("\"}\n", "key_"),
        ] {
            let mut label = b"x".to_vec();
            push_label(&mut label, key);
            assert_eq!(String::from_utf8_lossy(&label[1..]), expected, "{key}");
        }
    }
}
