//! Measures extraction and injection, and compares them with the SDK's propagators.
//!
//! Run it with `cargo bench --bench propagation`. The first line of each group is the reference: the
//! SDK's propagator, or W3C Trace Context.

use std::hint::black_box;

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::{
    BaggagePropagator as SdkBaggage, TraceContextPropagator as SdkTraceContext,
};
use tower_image_trace::propagation::{HeaderExtractor, HeaderInjector, Propagator, Propagators};

const TRACEPARENT: (&str, &str) = (
    "traceparent",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
);
const TRACESTATE: (&str, &str) = ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
const BAGGAGE: (&str, &str) = (
    "baggage",
    "userId=alice,serverNode=DF%2028,isProduction=false",
);

/// The headers of a browser behind a load balancer, and `lines`.
fn request(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let usual = [
        ("host", "images.example.com"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        ("accept", "image/avif,image/webp,*/*;q=0.8"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://www.example.com/gallery"),
        ("connection", "keep-alive"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("sec-fetch-dest", "image"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in usual.iter().chain(lines) {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

fn extract(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    formats: &[Propagator],
    headers: &HeaderMap,
) {
    let propagators = Propagators::new(formats.iter().copied());
    let cx = Context::new();
    group.bench_function(name, |bencher| {
        bencher.iter(|| propagators.extract_headers(black_box(&cx), black_box(headers)));
    });
}

/// Uses the API's trait, as the SDK's propagators are used.
fn extract_by_trait(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    propagator: &dyn TextMapPropagator,
    headers: &HeaderMap,
) {
    let cx = Context::new();
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            propagator.extract_with_context(black_box(&cx), &HeaderExtractor(black_box(headers)))
        });
    });
}

fn beside_the_sdk(criterion: &mut Criterion) {
    let trace_context = Propagators::new([Propagator::TraceContext]);
    for (name, headers) in [
        ("extract without tracestate", request(&[TRACEPARENT])),
        (
            "extract with tracestate",
            request(&[TRACEPARENT, TRACESTATE]),
        ),
    ] {
        let mut group = criterion.benchmark_group(name);
        extract_by_trait(&mut group, "SDK", &SdkTraceContext::new(), &headers);
        extract(&mut group, "headers", &[Propagator::TraceContext], &headers);
        extract_by_trait(&mut group, "trait", &trace_context, &headers);
    }

    let headers = request(&[BAGGAGE]);
    let mut group = criterion.benchmark_group("extract baggage");
    extract_by_trait(&mut group, "SDK", &SdkBaggage::new(), &headers);
    extract(&mut group, "headers", &[Propagator::Baggage], &headers);
    drop(group);

    let mut group = criterion.benchmark_group("inject with tracestate");
    let cx = trace_context.extract_headers(&Context::new(), &request(&[TRACEPARENT, TRACESTATE]));
    let sdk = SdkTraceContext::new();
    group.bench_function("SDK", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut headers = HeaderMap::new();
            sdk.inject_context(black_box(&cx), &mut HeaderInjector(&mut headers));
            headers
        });
    });
    group.bench_function("headers", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut headers = HeaderMap::new();
            trace_context.inject_headers(black_box(&cx), &mut headers);
            headers
        });
    });
}

fn formats(criterion: &mut Criterion) {
    let lines: [(Propagator, &[(&str, &str)]); 6] = [
        (Propagator::TraceContext, &[TRACEPARENT]),
        (
            Propagator::B3,
            &[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1")],
        ),
        (
            Propagator::B3Multi,
            &[
                ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
                ("x-b3-spanid", "00f067aa0ba902b7"),
                ("x-b3-sampled", "1"),
            ],
        ),
        (
            Propagator::Jaeger,
            &[(
                "uber-trace-id",
                "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1",
            )],
        ),
        (
            Propagator::XRay,
            &[(
                "x-amzn-trace-id",
                "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1",
            )],
        ),
        (
            Propagator::OtTrace,
            &[
                ("ot-tracer-traceid", "a3ce929d0e0e4736"),
                ("ot-tracer-spanid", "00f067aa0ba902b7"),
                ("ot-tracer-sampled", "true"),
            ],
        ),
    ];
    let mut group = criterion.benchmark_group("extract");
    for (format, lines) in lines {
        extract(&mut group, format.name(), &[format], &request(lines));
    }
    drop(group);

    let headers = request(&[]);
    let mut group = criterion.benchmark_group("extract from a request without any");
    extract(
        &mut group,
        "tracecontext,baggage",
        &[Propagator::TraceContext, Propagator::Baggage],
        &headers,
    );
    extract(&mut group, "all seven", Propagator::ALL, &headers);
}

criterion_group!(benches, beside_the_sdk, formats);
criterion_main!(benches);
