//! Settings come from code, the crate's own variables, the standard ones, and the defaults, in this
//! order; every wrong one is named.

use std::time::Duration;

use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::metrics::Temporality;
use tower_image_trace::{
    Protocol, Settings, Telemetry, TelemetryError, TraceIdGenerator,
    telemetry::{Exporter, OtlpExporter, Pem, Sampler, TelemetryEvent, XrayRules},
};

use crate::support::otlp::{OtlpServer, PATIENCE};

type Vars<'a> = &'a [(&'a str, &'a str)];

fn settings(vars: Vars<'_>) -> Settings {
    Settings::from_vars(vars.iter().copied()).unwrap_or_else(|error| panic!("{vars:?}: {error}"))
}

fn refused(vars: Vars<'_>) -> String {
    match Settings::from_vars(vars.iter().copied()) {
        Err(error) => error.to_string(),
        Ok(settings) => panic!("{vars:?}: {settings:?}"),
    }
}

fn otlp(exporter: &Exporter) -> &OtlpExporter {
    match exporter {
        Exporter::Otlp(otlp) => otlp,
        other => panic!("{other:?}"),
    }
}

fn traces(vars: Vars<'_>) -> OtlpExporter {
    otlp(&settings(vars).traces).clone()
}

const ENDPOINT: (&str, &str) = ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "collector:4317");
const STANDARD: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

#[test]
fn nothing_set_means_disabled() {
    assert!(!settings(&[]).is_enabled());
    assert!(!settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")]).is_enabled());
    assert!(!settings(&[("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "true")]).is_enabled());
    let telemetry = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .build()
        .unwrap();
    assert!(!telemetry.is_enabled());
    telemetry.shutdown_blocking(Duration::ZERO).unwrap();
}

#[test]
fn the_defaults_are_those_of_imgproxy() {
    let settings = settings(&[ENDPOINT]);
    let traces = otlp(&settings.traces);
    assert_eq!(traces.endpoint, "http://collector:4317/");
    assert_eq!(traces.protocol, Protocol::Grpc);
    assert_eq!(traces.timeout, Duration::from_secs(5));
    assert!(!traces.gzip);
    assert!(traces.headers.is_empty());
    assert!(matches!(settings.metrics, Exporter::None));
    assert_eq!(settings.service_name, "imgproxy");
    assert_eq!(settings.propagators.to_string(), "tracecontext,baggage");
    assert_eq!(settings.trace_id_generator, TraceIdGenerator::Xray);
    assert_eq!(settings.sampler, Sampler::ParentBasedAlwaysOn);
    assert!(!settings.propagate_external);
}

#[test]
fn code_comes_before_the_environment() {
    let settings = Telemetry::builder()
        .vars([
            ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "imgproxy:4317"),
            ("IMGPROXY_OPEN_TELEMETRY_PROTOCOL", "grpc"),
            ("IMGPROXY_OPEN_TELEMETRY_SERVICE_NAME", "imgproxy-name"),
            ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "false"),
            ("IMGPROXY_OPEN_TELEMETRY_TRACE_ID_GENERATOR", "xray"),
            ("IMGPROXY_OPEN_TELEMETRY_CONNECTION_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=env,other=env"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
        ])
        .endpoint("code:4318")
        .protocol(Protocol::Http)
        .service_name("code-name")
        .propagators("b3".parse().unwrap())
        .metrics(true)
        .trace_id_generator(TraceIdGenerator::Random)
        .sampler(Sampler::AlwaysOn)
        .timeout(Duration::from_millis(300))
        .header("authorization".parse().unwrap(), "code".parse().unwrap())
        .settings()
        .unwrap();
    let traces = otlp(&settings.traces);
    assert_eq!(traces.endpoint, "http://code:4318/v1/traces");
    assert_eq!(
        otlp(&settings.metrics).endpoint,
        "http://code:4318/v1/metrics"
    );
    assert_eq!(traces.protocol, Protocol::Http);
    assert_eq!(traces.timeout, Duration::from_millis(300));
    let headers: Vec<_> = traces
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(headers, [("other", "env"), ("authorization", "code")]);
    assert_eq!(settings.service_name, "code-name");
    assert_eq!(settings.propagators.to_string(), "b3");
    assert_eq!(settings.trace_id_generator, TraceIdGenerator::Random);
    assert_eq!(settings.sampler, Sampler::AlwaysOn);
}

#[test]
fn own_variables_come_before_standard_ones_and_signals_before_all() {
    let both = traces(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4317"),
    ]);
    assert_eq!(both.endpoint, "http://collector:4317/");

    let settings = settings(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318/base"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://traces:4318/as/it/is",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "b=x%20y"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
    ]);
    let (traces, metrics) = (otlp(&settings.traces), otlp(&settings.metrics));
    assert_eq!(traces.endpoint, "http://traces:4318/as/it/is");
    assert_eq!(metrics.endpoint, "http://general:4318/base/v1/metrics");
    assert_eq!(traces.timeout, Duration::from_millis(1500));
    assert_eq!(metrics.timeout, Duration::from_millis(2500));
    assert!(!traces.gzip && metrics.gzip);
    assert_eq!(traces.headers[0].0, "a");
    assert_eq!(metrics.headers[0].1, "x y");
}

#[test]
fn the_protocol_can_differ_between_signals() {
    let settings = settings(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:4317"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://b:4318/v1/metrics",
        ),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "HTTP/protobuf"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
    ]);
    assert_eq!(otlp(&settings.traces).protocol, Protocol::Grpc);
    assert_eq!(otlp(&settings.metrics).protocol, Protocol::Http);
}

#[test]
fn only_the_crates_own_variables_have_the_prefix() {
    let vars = [
        ("THUMBS_OPEN_TELEMETRY_ENDPOINT", "thumbs:4317"),
        ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "imgproxy:4317"),
    ];
    let settings = Telemetry::builder()
        .vars(vars)
        .env_prefix("THUMBS_")
        .settings()
        .unwrap();
    assert_eq!(otlp(&settings.traces).endpoint, "http://thumbs:4317/");
    assert!(
        settings.service_name.starts_with("unknown_service:"),
        "{}",
        settings.service_name
    );
}

#[test]
fn the_service_name_has_an_order_of_its_own() {
    let names = [
        ("IMGPROXY_OPEN_TELEMETRY_SERVICE_NAME", "own"),
        ("OTEL_SERVICE_NAME", "standard"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=in%20attributes,a=b%2Cc",
        ),
    ];
    for (skip, expected) in ["own", "standard", "in attributes"].iter().enumerate() {
        let vars: Vec<_> = [ENDPOINT]
            .into_iter()
            .chain(names.into_iter().skip(skip))
            .collect();
        let settings = settings(&vars);
        assert_eq!(settings.service_name, *expected);
        let attribute = ("a".to_owned(), "b,c".to_owned());
        assert_eq!(settings.resource_attributes, [attribute]);
    }
    assert!(
        settings(&[STANDARD])
            .service_name
            .starts_with("unknown_service:behaviour")
    );
}

#[test]
fn exporters_and_the_kill_switch() {
    let metrics = ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "true");
    let on = settings(&[ENDPOINT, metrics]);
    assert!(matches!(on.metrics, Exporter::Otlp(_)));
    let off = settings(&[ENDPOINT, metrics, ("OTEL_METRICS_EXPORTER", "none")]);
    assert!(matches!(off.metrics, Exporter::None));
    let off = settings(&[
        ENDPOINT,
        ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "false"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
    ]);
    assert!(matches!(off.metrics, Exporter::None));

    let off = settings(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]);
    assert!(!off.is_enabled());
    let console = settings(&[("OTEL_TRACES_EXPORTER", "console")]);
    assert!(matches!(console.traces, Exporter::Console));
    let console = settings(&[("OTEL_METRICS_EXPORTER", "console")]);
    assert!(matches!(console.metrics, Exporter::Console));
    assert!(console.is_enabled());

    let disabled = settings(&[
        ENDPOINT,
        metrics,
        ("OTEL_SDK_DISABLED", "TRUE"),
        ("OTEL_PROPAGATORS", "b3"),
    ]);
    assert!(!disabled.is_enabled());
    assert_eq!(disabled.propagators.to_string(), "b3");
}

#[test]
fn samplers_queues_and_intervals() {
    let settings = settings(&[
        STANDARD,
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "20000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "10000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "32"),
    ]);
    assert_eq!(settings.sampler, Sampler::ParentBasedTraceIdRatio(0.25));
    let queue = settings.span_batching;
    assert_eq!(
        (queue.max_queue_size, queue.max_export_batch_size),
        (100, 100)
    );
    assert_eq!(queue.schedule_delay, Duration::from_secs(1));
    assert_eq!(queue.export_timeout, Duration::from_secs(20));
    assert_eq!(settings.metric_export_interval, Duration::from_secs(15));
    assert_eq!(settings.metric_export_timeout, Duration::from_secs(10));
    assert_eq!(settings.metric_temporality, Temporality::Delta);
    assert_eq!(settings.span_limits.attributes, 32);
    assert_eq!(settings.span_limits.events, 128);
}

/// One of the crate's own variables, a wrong value, and what the message must say besides both.
#[rustfmt::skip]
const WRONG: &[(&str, &str, &str)] = &[
    ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "ftp://collector", "host:port or a URL"),
    ("IMGPROXY_OPEN_TELEMETRY_PROTOCOL", "thrift", "grpc, http, https or http/protobuf"),
    ("IMGPROXY_OPEN_TELEMETRY_PROPAGATORS", "tracecontext,b4", "b3multi"),
    ("IMGPROXY_OPEN_TELEMETRY_GRPC_INSECURE", "maybe", "true or false"),
    ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "on", "true or false"),
    ("IMGPROXY_OPEN_TELEMETRY_TRACE_ID_GENERATOR", "uuid", "xray or random"),
    ("IMGPROXY_OPEN_TELEMETRY_CONNECTION_TIMEOUT", "5s", "whole number of seconds"),
    ("IMGPROXY_OPEN_TELEMETRY_CONNECTION_TIMEOUT", "0", "whole number of seconds"),
    ("IMGPROXY_OPEN_TELEMETRY_PROPAGATE_EXTERNAL", "yes please", "true or false"),
];

/// A standard variable, a wrong value, and what the warning must say besides both.
#[rustfmt::skip]
const IGNORED: &[(&str, &str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc, http, https or http/protobuf"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp", "grpc, http, https or http/protobuf"),
    ("OTEL_PROPAGATORS", "w3c", "tracecontext"),
    ("OTEL_PROPAGATORS", " ; ", "tracecontext"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "milliseconds"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1.5", "milliseconds"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
    ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, console or none"),
    ("OTEL_TRACES_EXPORTER", "otlp,console", "otlp, console or none"),
    ("OTEL_METRICS_EXPORTER", "statsd", "otlp, console, prometheus"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
    ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote", "parentbased_traceidratio"),
    ("OTEL_TRACES_SAMPLER_ARG", "1.5", "from 0 to 1"),
    ("OTEL_TRACES_SAMPLER_ARG", "NaN", "from 0 to 1"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "whole number"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999", "whole number"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999", "queue size, 16384"),
    ("OTEL_BSP_SCHEDULE_DELAY", "1s", "milliseconds"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "-1", "milliseconds"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "soon", "milliseconds"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "60s", "milliseconds"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "0", "milliseconds above 0"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "never", "milliseconds"),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many", "whole number"),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1", "whole number"),
    ("OTEL_RESOURCE_ATTRIBUTES", "just text", "key=value"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both", "cumulative, delta or lowmemory"),
];

#[test]
fn each_wrong_value_is_named_with_what_is_accepted() {
    for &(name, value, expected) in WRONG {
        let message = refused(&[STANDARD, (name, value)]);
        for part in [name, value, expected] {
            assert!(message.contains(part), "{name}={value}: {message}");
        }
    }
    let unset = [STANDARD, ("OTEL_BSP_EXPORT_TIMEOUT", "")];
    assert_eq!(settings(&unset), settings(&[STANDARD]));
}

/// The one warning, and the settings without it.
fn warned(vars: Vars<'_>) -> (String, Settings) {
    let mut settings = settings(vars);
    let warnings = std::mem::take(&mut settings.warnings);
    match &*warnings {
        [warning] => (warning.to_string(), settings),
        _ => panic!("{vars:?}: {warnings:?}"),
    }
}

/// What the specification calls a warning in each of the standard variables, faults D1 and D2.
#[test]
fn a_wrong_value_of_a_standard_variable_is_warned_about_and_ignored() {
    for &(name, value, expected) in IGNORED {
        let (message, ignoring) = warned(&[STANDARD, (name, value)]);
        for part in [name, value.trim(), expected, "; it is ignored"] {
            assert!(message.contains(part), "{name}={value}: {message}");
        }
        assert_eq!(ignoring, settings(&[STANDARD]), "{name}={value}");
    }
}

/// The general variable counts when the signal's own holds a mistake.
#[test]
fn what_is_ignored_is_looked_for_elsewhere() {
    let with = |name: &str, per_signal: &str, general: &str| {
        let names = [
            format!("OTEL_EXPORTER_OTLP_TRACES_{name}"),
            format!("OTEL_EXPORTER_OTLP_{name}"),
        ];
        let (_, settings) = warned(&[STANDARD, (&names[0], per_signal), (&names[1], general)]);
        otlp(&settings.traces).clone()
    };
    assert_eq!(
        with("TIMEOUT", "soon", "1500").timeout,
        Duration::from_millis(1500)
    );
    assert_eq!(
        with("PROTOCOL", "udp", "http/protobuf").protocol,
        Protocol::Http
    );
    assert!(with("COMPRESSION", "br", "gzip").gzip);
    let (message, settings) = warned(&[
        STANDARD,
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://collector"),
    ]);
    assert!(
        message.contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=\"ftp://collector\""),
        "{message}"
    );
    assert_eq!(otlp(&settings.traces).endpoint, "http://collector:4317/");
    let (_, settings) = warned(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:pw@collector")]);
    assert!(!settings.is_enabled());
}

#[test]
fn a_mistake_that_signals_share_is_one_warning() {
    let metrics = ("OTEL_METRICS_EXPORTER", "otlp");
    let wrong = ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon");
    let (message, settings) = warned(&[STANDARD, metrics, wrong]);
    assert!(message.contains("OTEL_EXPORTER_OTLP_TIMEOUT"), "{message}");
    assert_eq!(
        otlp(&settings.metrics).timeout,
        otlp(&settings.traces).timeout
    );
}

/// It may be meant for a sampler of another name, which takes other arguments.
#[test]
fn the_argument_of_a_sampler_without_a_ratio_is_not_looked_at() {
    for sampler in ["always_on", "parentbased_always_off"] {
        let argument = ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://localhost:2000");
        let settings = settings(&[STANDARD, ("OTEL_TRACES_SAMPLER", sampler), argument]);
        assert_eq!(settings.warnings, [], "{sampler}");
        assert_eq!(settings.sampler.to_string(), sampler);
    }
}

#[cfg(feature = "xray")]
#[test]
fn xray_has_an_endpoint_and_an_interval_as_its_argument() {
    let xray = |argument| {
        let sampler = ("OTEL_TRACES_SAMPLER", "XRay");
        settings(&[STANDARD, sampler, ("OTEL_TRACES_SAMPLER_ARG", argument)])
    };
    let default = "xray=endpoint=http://127.0.0.1:2000/,polling_interval=300";
    for (argument, expected) in [
        ("", default),
        (
            "endpoint=http://agent:2000,polling_interval=60",
            "xray=endpoint=http://agent:2000/,polling_interval=60",
        ),
    ] {
        let settings = xray(argument);
        assert_eq!(settings.warnings, [], "{argument}");
        assert_eq!(settings.sampler.to_string(), expected);
    }
    for argument in ["0.25", "endpoint=https://agent:2000", "polling_interval=1m"] {
        let settings = xray(argument);
        assert_eq!(settings.sampler.to_string(), default, "{argument}");
        let warning = settings.warnings[0].to_string();
        for part in [
            argument,
            "endpoint=http://host:port,polling_interval=seconds",
            "ignored",
        ] {
            assert!(warning.contains(part), "{warning}");
        }
    }
    let settings = xray("endpoint=http://user:secret@agent:2000");
    assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
}

/// Such a URL may have been meant for another variable.
#[test]
fn a_url_in_a_value_that_is_not_accepted_shows_no_secret() {
    // faults C16, F13
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    for url in [
        "http://proxy:2000/?token=s3cret",
        "http://user:s3cret@proxy:2000",
        "https://proxy:2000/s3cret",
    ] {
        let argument = format!("endpoint={url}");
        let sampler = format!("xray={argument}");
        for vars in [
            [(SAMPLER, "xray"), (ARGUMENT, argument.as_str())],
            [(SAMPLER, "traceidratio"), (ARGUMENT, &argument)],
            [(SAMPLER, &sampler), (ARGUMENT, "1")],
            [
                ("OTEL_PROPAGATORS", url),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", url),
            ],
            [("OTEL_TRACES_EXPORTER", url), ("OTEL_SDK_DISABLED", url)],
        ] {
            let vars = [&[STANDARD], &vars[..]].concat();
            let settings = settings(&vars);
            assert!(!settings.warnings.is_empty(), "{vars:?}");
            assert!(!format!("{settings:?}").contains("s3cret"), "{settings:?}");
        }
        let error = sampler.parse::<Sampler>().unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        let error = refused(&[STANDARD, ("IMGPROXY_OPEN_TELEMETRY_PROTOCOL", url)]);
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[cfg(feature = "xray")]
#[test]
fn a_sampler_in_code_is_checked() {
    let rules = |endpoint: &'static str, seconds| {
        let mut rules = XrayRules::new(http::Uri::from_static(endpoint));
        rules.polling_interval = Duration::from_secs(seconds);
        Sampler::Xray(rules)
    };
    for (sampler, expected) in [
        (rules("https://agent:2000", 10), "sampler.endpoint"),
        (rules("/", 10), "a URL that starts with http://"),
        (rules("http://agent:2000", 0), "a time above 0"),
        (Sampler::TraceIdRatio(1.5), "a ratio from 0 to 1"),
    ] {
        let builder = Telemetry::builder()
            .vars([STANDARD])
            .sampler(sampler.clone());
        let error = builder.settings().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let mut settings = Settings::default();
        settings.sampler = sampler;
        let error = Telemetry::from_settings(settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let builder = Telemetry::builder().vars([STANDARD]);
    let settings = builder
        .sampler(rules("http://agent:2000", 10))
        .settings()
        .unwrap();
    assert_eq!(settings.sampler, rules("http://agent:2000", 10));
}

// faults D1
#[test]
fn of_a_standard_switch_only_true_is_true() {
    for (value, disabled) in [("true", true), ("TRUE", true), ("False", false)] {
        let settings = settings(&[STANDARD, ("OTEL_SDK_DISABLED", value)]);
        assert_eq!(!settings.is_enabled(), disabled, "{value}");
        assert_eq!(settings.warnings, [], "{value}");
    }
    for value in ["1", "t", "yes", "on", "maybe"] {
        let (message, settings) = warned(&[STANDARD, ("OTEL_SDK_DISABLED", value)]);
        assert!(settings.is_enabled(), "{value}");
        let expected = format!(
            "OTEL_SDK_DISABLED={value:?} is not accepted: expected true or false; it counts as false"
        );
        assert_eq!(message, expected);
    }
    let host = ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "collector:4317");
    let (_, settings) = warned(&[host, ("OTEL_EXPORTER_OTLP_INSECURE", "1")]);
    assert_eq!(otlp(&settings.traces).endpoint, "https://collector:4317/");
}

// faults D2
#[test]
fn known_propagators_are_used_beside_unknown_ones() {
    let (message, settings) = warned(&[("OTEL_PROPAGATORS", "tracecontext, datadog ,b3,foo")]);
    assert_eq!(settings.propagators.to_string(), "tracecontext,b3");
    assert!(
        message.starts_with("OTEL_PROPAGATORS=\"datadog,foo\" "),
        "{message}"
    );
    assert!(message.ends_with("; the others are used"), "{message}");
    refused(&[(
        "IMGPROXY_OPEN_TELEMETRY_PROPAGATORS",
        "tracecontext,datadog",
    )]);
}

// faults D3
#[test]
fn a_certificate_for_all_signals_is_for_those_that_use_tls() {
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/rsa.pem");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:4317");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4317");
    let on = ("OTEL_METRICS_EXPORTER", "otlp");
    let pem = std::fs::read_to_string(certificate).unwrap();
    for general in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate),
        ("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT", &pem),
    ] {
        let settings = settings(&[traces, metrics, on, general]);
        assert_eq!(settings.warnings, []);
        assert!(otlp(&settings.traces).server_certificate.is_some());
        assert!(otlp(&settings.metrics).server_certificate.is_none());
        assert_eq!(otlp(&settings.metrics).endpoint, "http://metrics:4317/");
    }
    // A certificate that was meant for this signal is missed.
    let own = ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", certificate);
    let (message, settings) = warned(&[traces, metrics, on, own]);
    assert!(
        message.starts_with("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE: "),
        "{message}"
    );
    assert!(otlp(&settings.metrics).server_certificate.is_none());
    let own = ("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT", &*pem);
    let (message, _) = warned(&[STANDARD, own]);
    assert!(
        message.starts_with("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT: "),
        "{message}"
    );
    let own_endpoint = ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "http://collector:4317");
    let message = refused(&[own_endpoint, own]);
    assert!(message.contains("certificate is set"), "{message}");
}

// faults D4
#[test]
fn an_exporter_that_is_named_has_the_specifications_endpoint() {
    let on = |vars: Vars<'_>| settings(&[vars, &[("OTEL_TRACES_EXPORTER", "otlp")]].concat());
    let endpoint = |vars: Vars<'_>| otlp(&on(vars).traces).endpoint.to_string();
    assert_eq!(endpoint(&[]), "http://localhost:4317/");
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    assert_eq!(endpoint(&[http]), "http://localhost:4318/v1/traces");
    // The standard default has a scheme, so the standard switch says nothing about it.
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "false");
    assert_eq!(endpoint(&[insecure]), "http://localhost:4317/");
    let insecure = ("IMGPROXY_OPEN_TELEMETRY_GRPC_INSECURE", "false");
    assert_eq!(endpoint(&[insecure]), "https://localhost:4317/");
    assert_eq!(endpoint(&[STANDARD]), "http://collector:4317/");
    assert!(matches!(on(&[]).metrics, Exporter::None));

    let metrics = settings(&[("OTEL_METRICS_EXPORTER", "OTLP"), http]);
    assert_eq!(
        otlp(&metrics.metrics).endpoint,
        "http://localhost:4318/v1/metrics"
    );
    assert!(matches!(metrics.traces, Exporter::None));
    let off = ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "false");
    assert!(!settings(&[("OTEL_METRICS_EXPORTER", "otlp"), off]).is_enabled());
    assert!(!settings(&[("OTEL_TRACES_EXPORTER", "zipkin")]).is_enabled());
}

#[test]
fn a_timeout_of_zero_is_no_limit_and_a_delay_of_zero_is_none() {
    let settings = settings(&[
        STANDARD,
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ]);
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(otlp(&settings.traces).timeout > day);
    assert!(settings.span_batching.export_timeout > day);
    assert!(settings.metric_export_timeout > day);
    assert_eq!(settings.span_batching.schedule_delay, Duration::ZERO);
}

#[test]
fn without_a_delay_each_span_is_sent_at_once() {
    let server = OtlpServer::start();
    let huge = "2147483647";
    let telemetry = Telemetry::builder()
        .vars([
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", huge),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", huge),
        ])
        .endpoint(server.endpoint())
        .build()
        .unwrap();
    for number in 1..=3 {
        drop(telemetry.tracer_provider().tracer("test").start("span"));
        server.wait_for_spans(number);
    }
    telemetry.shutdown_blocking(PATIENCE).unwrap();
}

#[test]
fn attribute_limits_have_a_general_and_special_variables() {
    let limits = settings(&[
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "5"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "0"),
    ])
    .span_limits;
    assert_eq!(limits.attributes, 10);
    assert_eq!(
        (limits.attributes_per_event, limits.attributes_per_link),
        (5, 0)
    );
    let special = ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "20");
    let limits = settings(&[("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"), special]).span_limits;
    assert_eq!(limits.attributes, 20);
}

/// One event for each, before telemetry says that it has started, and also when it is off.
#[test]
fn warnings_are_events_at_the_start() {
    let server = OtlpServer::start();
    for endpoint in [Some(server.endpoint()), None] {
        let (said, events) = std::sync::mpsc::channel();
        let builder = Telemetry::builder()
            .vars([
                ("OTEL_TRACES_SAMPLER", "sometimes"),
                ("OTEL_PROPAGATORS", "w3c"),
            ])
            .on_event(move |event| said.send(event.clone()).unwrap());
        let builder = match &endpoint {
            Some(endpoint) => builder.endpoint(endpoint),
            None => builder,
        };
        let telemetry = builder.build().unwrap();
        assert_eq!(telemetry.is_enabled(), endpoint.is_some());
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        drop(telemetry);
        let events: Vec<TelemetryEvent> = events.iter().collect();
        for (event, variable) in events
            .iter()
            .zip(["OTEL_PROPAGATORS", "OTEL_TRACES_SAMPLER"])
        {
            let TelemetryEvent::InvalidSetting { warning } = event else {
                panic!("{event:?}");
            };
            assert_eq!(warning.error.setting(), variable);
            assert!(event.to_string().starts_with(variable), "{event}");
        }
        assert_eq!(events.len(), 3, "{events:?}");
        match endpoint {
            Some(_) => assert!(matches!(events[2], TelemetryEvent::Started { .. })),
            None => assert_eq!(events[2], TelemetryEvent::Off),
        }
    }
}

#[test]
fn several_mistakes_are_reported_together() {
    let error = Settings::from_vars([
        STANDARD,
        ("IMGPROXY_OPEN_TELEMETRY_PROPAGATORS", "w3c"),
        ("IMGPROXY_OPEN_TELEMETRY_TRACE_ID_GENERATOR", "uuid"),
        ("IMGPROXY_OPEN_TELEMETRY_CONNECTION_TIMEOUT", "soon"),
    ]);
    match error {
        Err(TelemetryError::Settings(errors)) => assert_eq!(errors.len(), 3, "{errors:?}"),
        other => panic!("{other:?}"),
    }
}

// faults F13, C16
#[test]
fn secrets_are_never_shown() {
    let secret = "s3cr3t";
    let key = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----");
    let urls = [
        format!("https://user:{secret}@collector"),
        format!("https://{secret}:4317@collector/?a=b@c"),
        format!("http://collector:4318/#key={secret}"),
        format!("http://collector:4318?key={secret}"),
        format!("http://collector:4318/{secret}/v1/traces?key={secret}"),
        format!("http://collector:4318/{secret}"),
        format!("Bearer {secret}"),
        format!("user:{secret}@collector:4317"),
        format!("ftp://collector/{secret}"),
    ];
    let headers = [
        format!("authorization={secret}"),
        format!("authorization={secret}\u{7f}"),
        format!("authorization: Bearer {secret}="),
        format!("authorization=Bearer a, {secret}"),
        format!("authorization=Bearer {secret}%ff,other=1"),
        format!("{secret}{secret}"),
    ];
    let pem = [
        key.clone(),
        key.replace('\n', ""),
        format!("MHcC/{secret}=="),
        secret.to_owned(),
    ];
    let rows = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &urls[..]),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &urls),
        ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", &urls),
        ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &headers),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &pem),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &pem),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &pem),
        ("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT", &pem),
        ("IMGPROXY_OPEN_TELEMETRY_CLIENT_CERT", &pem),
        ("IMGPROXY_OPEN_TELEMETRY_CLIENT_KEY", &pem),
    ];
    for (name, values) in rows {
        for value in values {
            let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
            let tls = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:9");
            let shown = all_that_is_shown(&[tls, http, (name, value)]);
            assert!(!shown.contains(secret), "{name}={value}: {shown}");
        }
    }
    for url in &urls {
        let builder = Telemetry::builder()
            .vars([("OTEL_EXPORTER_OTLP_HEADERS", secret)])
            .endpoint(url)
            .header("authorization".parse().unwrap(), secret.parse().unwrap())
            .client_certificate(secret, secret);
        let shown = format!("{builder:?} {:?}", builder.settings());
        assert!(!shown.contains(secret), "{url}: {shown}");
    }
}

/// Settings, errors, events and telemetry as text.
fn all_that_is_shown(vars: Vars<'_>) -> String {
    let (said, events) = std::sync::mpsc::channel();
    let builder = Telemetry::builder()
        .vars(vars.iter().copied())
        .on_event(move |event| said.send(format!("{event} {event:?}")).unwrap());
    let mut shown = format!("{builder:?}");
    match builder.build() {
        Ok(telemetry) => {
            shown += &format!(" {telemetry:?} {:?}", telemetry.settings());
            telemetry.shutdown_blocking(Duration::ZERO).unwrap();
        }
        Err(error) => shown += &format!(" {error} {error:?}"),
    }
    shown + &events.iter().collect::<String>()
}

/// A path is shown, because it helps, and what may be a key is not.
#[test]
fn a_file_that_cannot_be_read_is_named() {
    let name = "OTEL_EXPORTER_OTLP_CERTIFICATE";
    let tls = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector");
    for (path, shown) in [
        (
            "/no/such/ca.pem",
            "the file \"/no/such/ca.pem\" cannot be read",
        ),
        (
            "./no-such-ca.pem",
            "the file \"./no-such-ca.pem\" cannot be read",
        ),
        ("no-such-ca.pem", "the file that it names cannot be read"),
        (
            "-----BEGIN CERTIFICATE-----",
            "it is PEM text: expected the path of a file",
        ),
    ] {
        let (message, settings) = warned(&[tls, (name, path)]);
        assert!(
            message.starts_with(&format!("{name}: {shown}")),
            "{message}"
        );
        // Without the certificate the system's roots decide; it is never sent in the clear.
        assert_eq!(otlp(&settings.traces).endpoint, "https://collector/");
    }
    let host = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317");
    let (_, settings) = warned(&[host, (name, "/no/such/ca.pem")]);
    assert_eq!(otlp(&settings.traces).endpoint, "https://collector:4317/");
}

#[test]
fn headers_beside_a_wrong_one_are_used() {
    let variable = "OTEL_EXPORTER_OTLP_HEADERS";
    let (message, settings) = warned(&[STANDARD, (variable, "a=1, b c=2 ,d=%ff,=3,e,f=4")]);
    let headers: Vec<_> = otlp(&settings.traces)
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(headers, ["a", "f"]);
    let problems = "header 2 has an invalid name, header 3 is not UTF-8 after percent-decoding, \
                    header 4 has nothing before the \"=\", header 5 has no \"=\": expected key=value";
    assert!(
        message.starts_with(&format!("{variable}: {problems}")),
        "{message}"
    );
}

fn otlp_in_code(endpoint: &str, protocol: Protocol) -> Exporter {
    Exporter::Otlp(OtlpExporter::new(endpoint.parse().unwrap(), protocol))
}

#[test]
fn settings_in_code_equal_those_from_variables() {
    let mut in_code = Settings::default();
    assert_eq!(in_code, settings(&[]));
    in_code.traces = otlp_in_code("http://collector:4317/", Protocol::Grpc);
    in_code.service_name = "imgproxy".to_owned();
    assert_eq!(in_code, settings(&[ENDPOINT]));
    in_code.sampler = Sampler::AlwaysOff;
    assert_ne!(in_code, settings(&[ENDPOINT]));
}

#[test]
fn settings_in_code_are_started() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let server = OtlpServer::start();
        let path = match protocol {
            Protocol::Grpc => "/",
            _ => "/v1/traces",
        };
        let mut settings = Settings::default();
        let endpoint = format!("http://{}{path}", server.endpoint());
        settings.traces = otlp_in_code(&endpoint, protocol);
        settings.service_name = "thumbs".to_owned();
        let telemetry = Telemetry::from_settings(settings.clone()).unwrap();
        assert_eq!(telemetry.settings(), &settings);
        drop(telemetry.tracer_provider().tracer("test").start("span"));
        telemetry.shutdown_blocking(PATIENCE).unwrap();
        assert_eq!(server.spans()[0].resource["service.name"], "thumbs");
    }
    let telemetry = Telemetry::from_settings(Settings::default()).unwrap();
    assert!(!telemetry.is_enabled());
}

#[test]
fn wrong_settings_in_code_are_named_together_and_show_no_secret() {
    let secret = "s3cr3t";
    let mut otlp = OtlpExporter::new("https://collector".parse().unwrap(), Protocol::Grpc);
    otlp.server_certificate = Some(Pem::new(secret));
    otlp.timeout = Duration::ZERO;
    let mut settings = Settings::default();
    settings.traces = Exporter::Otlp(otlp.clone());
    otlp.client_key = Some(Pem::new(secret));
    otlp.endpoint = "http://collector/".parse().unwrap();
    settings.metrics = Exporter::Otlp(otlp);
    settings.span_batching.max_export_batch_size = 0;
    settings.log_batching.max_queue_size = 0;
    settings.sampler = Sampler::TraceIdRatio(f64::NAN);
    settings.metric_export_interval = Duration::ZERO;
    assert!(!format!("{settings:?}").contains(secret));
    let error = Telemetry::from_settings(settings).unwrap_err().to_string();
    for part in [
        "server_certificate: it is not PEM",
        "traces.timeout",
        "metrics.endpoint=\"http://collector/\"",
        "client_key: a client key needs its certificate",
        "span_batching.max_export_batch_size",
        "log_batching.max_queue_size",
        "sampler=\"NaN\"",
        "metric_export_interval",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains(secret), "{error}");

    for (endpoint, protocol) in [
        ("collector:4317", Protocol::Grpc),
        ("/v1/traces", Protocol::Http),
        ("ftp://collector/", Protocol::Http),
        ("http://collector/v1/traces", Protocol::Grpc),
        ("http://collector/v1/traces", Protocol::Https),
    ] {
        let mut settings = Settings::default();
        settings.traces = otlp_in_code(endpoint, protocol);
        let error = Telemetry::from_settings(settings).unwrap_err().to_string();
        assert!(error.contains("traces.endpoint="), "{endpoint}: {error}");
    }
}

/// Without a subscriber and a callback, what telemetry says is on standard error.
// faults G1, G12
#[test]
fn what_nobody_listens_to_is_on_standard_error() {
    let test = std::env::current_exe().unwrap();
    let part = "telemetry_settings::nobody_listens";
    let output = std::process::Command::new(test)
        .args(["--exact", part, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("tower_image_trace: "))
        .collect();
    assert_eq!(lines.len(), 2, "{said}");
    let off = "telemetry is off: OTEL_EXPORTER_OTLP_ENDPOINT names a collector, ";
    assert!(lines[0].starts_with(off), "{said}");
    assert!(lines[1].starts_with("telemetry started: "), "{said}");
}

#[test]
#[ignore = "a part of another test"]
fn nobody_listens() {
    let telemetry = || Telemetry::builder().vars([("", ""); 0]);
    assert!(!telemetry().build().unwrap().is_enabled());
    let server = OtlpServer::start();
    let on = telemetry().endpoint(server.endpoint()).build().unwrap();
    on.shutdown_blocking(PATIENCE).unwrap();
    // A callback listens.
    let (said, heard) = std::sync::mpsc::channel();
    let off = telemetry().on_event(move |event| said.send(event.clone()).unwrap());
    off.build().unwrap();
    assert_eq!(heard.recv().unwrap(), TelemetryEvent::Off);
}

// faults G21
#[test]
fn the_terminal_sums_up_when_it_is_told_to() {
    let set = |value| {
        let vars = [("IMGPROXY_OPEN_TELEMETRY_CONSOLE", value)];
        Settings::from_vars(vars).map(|settings| settings.console_summary)
    };
    for (value, slow) in [
        ("", None),
        ("full", None),
        ("summary", Some(1_000)),
        ("summary:500ms", Some(500)),
        ("summary:2s", Some(2_000)),
    ] {
        assert_eq!(
            set(value).unwrap(),
            slow.map(Duration::from_millis),
            "{value}"
        );
    }
    for value in [
        "yes",
        "summary:",
        "summary:2",
        "summary:-1s",
        "summary:1.5s",
    ] {
        assert_eq!(
            set(value).unwrap_err().to_string(),
            format!(
                "IMGPROXY_OPEN_TELEMETRY_CONSOLE={value:?} is not accepted: expected full, summary, \
                 or summary with what is slow, such as summary:500ms or summary:2s"
            )
        );
    }
}
