//! Settings come from code, the crate's own variables, the standard ones, and the defaults, in this
//! order; every wrong one is named.

use std::time::Duration;

use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::metrics::Temporality;
use tower_image_trace::{
    Protocol, Settings, Telemetry, TelemetryError, TraceIdGenerator,
    telemetry::{Exporter, OtlpExporter, Pem, Sampler},
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

/// The variable, a wrong value, and what the message must say besides both.
#[rustfmt::skip]
const WRONG: &[(&str, &str, &str)] = &[
    ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", "ftp://collector", "host:port or a URL"),
    ("IMGPROXY_OPEN_TELEMETRY_PROTOCOL", "thrift", "grpc, http, https or http/protobuf"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc, http, https or http/protobuf"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp", "grpc, http, https or http/protobuf"),
    ("IMGPROXY_OPEN_TELEMETRY_PROPAGATORS", "tracecontext,b4", "b3multi"),
    ("OTEL_PROPAGATORS", "w3c", "tracecontext"),
    ("IMGPROXY_OPEN_TELEMETRY_GRPC_INSECURE", "maybe", "true or false"),
    ("OTEL_EXPORTER_OTLP_INSECURE", "2", "true or false"),
    ("IMGPROXY_OPEN_TELEMETRY_ENABLE_METRICS", "on", "true or false"),
    ("IMGPROXY_OPEN_TELEMETRY_TRACE_ID_GENERATOR", "uuid", "xray or random"),
    ("IMGPROXY_OPEN_TELEMETRY_CONNECTION_TIMEOUT", "5s", "whole number of seconds"),
    ("IMGPROXY_OPEN_TELEMETRY_CONNECTION_TIMEOUT", "0", "whole number of seconds"),
    ("IMGPROXY_OPEN_TELEMETRY_PROPAGATE_EXTERNAL", "yes please", "true or false"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "milliseconds"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
    ("OTEL_SDK_DISABLED", "maybe", "true or false"),
    ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, console or none"),
    ("OTEL_TRACES_EXPORTER", "otlp,console", "otlp, console or none"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
    ("OTEL_TRACES_SAMPLER", "xray", "parentbased_traceidratio"),
    ("OTEL_TRACES_SAMPLER_ARG", "1.5", "from 0 to 1"),
    ("OTEL_TRACES_SAMPLER_ARG", "NaN", "from 0 to 1"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "whole number"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999", "queue size, 16384"),
    ("OTEL_BSP_SCHEDULE_DELAY", "1s", "milliseconds"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "", ""),
    ("OTEL_METRIC_EXPORT_INTERVAL", "60s", "milliseconds"),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many", "whole number"),
    ("OTEL_RESOURCE_ATTRIBUTES", "just text", "key=value"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both", "cumulative, delta or lowmemory"),
];

#[test]
fn each_wrong_value_is_named_with_what_is_accepted() {
    for &(name, value, expected) in WRONG {
        if value.is_empty() {
            settings(&[STANDARD, (name, value)]);
            continue;
        }
        let message = refused(&[STANDARD, (name, value)]);
        for part in [name, value, expected] {
            assert!(message.contains(part), "{name}={value}: {message}");
        }
    }
}

#[test]
fn several_mistakes_are_reported_together() {
    let error = Settings::from_vars([
        STANDARD,
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_PROPAGATORS", "w3c"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ]);
    match error {
        Err(TelemetryError::Settings(errors)) => assert_eq!(errors.len(), 3, "{errors:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_are_never_shown() {
    let secret = "s3cr3t";
    let with_secret = |name, value: String| {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let vars = [STANDARD, http, (name, value.as_str())];
        match Settings::from_vars(vars) {
            Ok(settings) => format!("{settings:?}"),
            Err(error) => format!("{error} {error:?}"),
        }
    };
    for (name, value) in [
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization={secret}"),
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization={secret}\u{7f}"),
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", secret.to_owned()),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("https://user:{secret}@collector"),
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            format!("http://collector:4318/v1/traces?key={secret}"),
        ),
        (
            "IMGPROXY_OPEN_TELEMETRY_CLIENT_KEY",
            format!("-----BEGIN PRIVATE KEY-----\\n{secret}"),
        ),
        ("IMGPROXY_OPEN_TELEMETRY_SERVER_CERT", secret.to_owned()),
    ] {
        let shown = with_secret(name, value);
        assert!(!shown.contains(secret), "{name}: {shown}");
    }
    let builder = Telemetry::builder()
        .vars([("OTEL_EXPORTER_OTLP_HEADERS", secret)])
        .header("authorization".parse().unwrap(), secret.parse().unwrap())
        .client_certificate(secret, secret);
    assert!(!format!("{builder:?}").contains(secret));
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
