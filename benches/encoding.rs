//! Encoding for OTLP, beside `opentelemetry-proto`'s way: structs of its own, then `prost`.
//!
//! `cargo bench --bench encoding`. In each group the first line is what the other is compared with.
//! A span is consumed, as span processors get it, so freeing its memory is measured too, where a line
//! does not say otherwise.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, SystemTime},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_proto::{
    tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ScopeSpans, Span},
    },
    transform::trace::tonic::group_spans_by_resource_and_scope,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanLinks},
};
use prost::Message;

/// The module is private, and uses nothing of the crate.
#[path = "../src/telemetry/otlp/encode/mod.rs"]
#[allow(dead_code, unused_imports)]
mod encode;

/// As many as `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` has by default.
const BATCH: usize = 512;

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("tower-image-trace")
        .with_version("0.1.0")
        .build()
}

/// The server span of a request, 406 bytes, with the types of text that the layer records.
fn server_span() -> SpanData {
    let (trace_id, span_id) = (
        0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128,
        0xf0_67aa_0ba9_02b7,
    );
    let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
    let (flags, state) = (TraceFlags::SAMPLED, TraceState::NONE);
    let start_time = SystemTime::now();
    let text = |key: &'static str, value: &str| KeyValue::new(key, value.to_owned());
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, flags, false, state),
        parent_span_id: SpanId::from(0x53ce_929d_0e0e_4736),
        parent_span_is_remote: true,
        span_kind: SpanKind::Server,
        name: "GET /{options}".into(),
        start_time,
        end_time: start_time + Duration::from_millis(37),
        attributes: vec![
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("url.scheme", "https"),
            text("url.path", "/300x200/cat.jpg"),
            text("server.address", "img.example.com"),
            text("client.address", "192.0.2.7"),
            KeyValue::new("network.protocol.version", "1.1"),
            text("user_agent.original", "curl/8.14.1"),
            KeyValue::new("http.route", Arc::<str>::from("/{options}")),
            KeyValue::new("http.response.status_code", 200),
            KeyValue::new("http.response.body.size", 18_734),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope(),
    }
}

fn one_span(criterion: &mut Criterion) {
    let span = server_span();
    let message = ScopeSpans {
        spans: vec![span.clone().into()],
        ..ScopeSpans::default()
    };
    encode::span(&(&span).into(), None, |entry| {
        assert_eq!(entry, message.encode_to_vec());
    });

    let mut group = criterion.benchmark_group("a server span with ten attributes");
    group.throughput(Throughput::Bytes(message.encoded_len() as u64));
    group.bench_function("opentelemetry-proto", |bencher| {
        let mut bytes = Vec::with_capacity(1024);
        bencher.iter_batched(
            || span.clone(),
            |span| {
                bytes.clear();
                let span = Span::from(span);
                span.encode_length_delimited(&mut bytes)
                    .expect("a Vec grows");
                black_box(&bytes);
            },
            BatchSize::NumIterations(BATCH as u64),
        );
    });
    group.bench_function("this crate", |bencher| {
        let mut bytes = Vec::with_capacity(1024);
        bencher.iter_batched(
            || span.clone(),
            |span| {
                bytes.clear();
                encode::span(&(&span).into(), black_box(None), |entry| {
                    bytes.extend_from_slice(entry)
                });
                black_box(&bytes);
            },
            BatchSize::NumIterations(BATCH as u64),
        );
    });
    group.bench_function("this crate, without freeing the span", |bencher| {
        bencher.iter(|| {
            encode::span(black_box(&(&span).into()), black_box(None), |entry| {
                black_box(entry);
            });
        });
    });
}

fn one_request(criterion: &mut Criterion) {
    let resource = Resource::builder().with_service_name("thumbs").build();
    let span = server_span();

    let mut group = criterion.benchmark_group("a request of 512 such spans");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("opentelemetry-proto", |bencher| {
        let resource = (&resource).into();
        bencher.iter_batched(
            || vec![span.clone(); BATCH],
            |spans| {
                let resource_spans = group_spans_by_resource_and_scope(spans, &resource);
                ExportTraceServiceRequest { resource_spans }.encode_to_vec()
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("this crate", |bencher| {
        let resource = encode::Header::resource(&resource);
        bencher.iter_batched(
            || vec![span.clone(); BATCH],
            |spans| {
                let mut batch = encode::Batch::default();
                for span in spans {
                    let scope = &span.instrumentation_scope;
                    encode::span(&(&span).into(), None, |entry| {
                        batch.push(scope, None, entry)
                    });
                }
                batch.request(&resource, 0)
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, one_span, one_request);
criterion_main!(benches);
