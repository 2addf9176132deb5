//! The spans that telemetry writes itself are those that the SDK makes. Each scenario is run with both; a
//! provider that was changed, be it by nothing, is the SDK's.

use std::{any::Any, cell::RefCell, convert::Infallible, time::SystemTime};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use opentelemetry::{
    Array, Context, KeyValue, Value,
    trace::{
        SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    },
};
use tower::{ServiceExt, layer::Layer, service_fn};
use tower_image_trace::{
    ErrorKind, ImageTraceLayer, RequestTrace, Telemetry, TelemetryBuilder,
    propagation::Propagators, telemetry::Keep, trace::HeaderAllowList,
    trace::ImageTraceLayerBuilder,
};

use crate::support::otlp::{OtlpServer, PATIENCE, ReceivedSpan};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Settings = fn(TelemetryBuilder) -> TelemetryBuilder;

/// What a handler does.
type Handler = fn(RequestTrace, &Telemetry) -> String;

#[derive(Clone)]
struct Scenario {
    name: &'static str,
    settings: Settings,
    layer: fn(ImageTraceLayerBuilder) -> ImageTraceLayerBuilder,
    headers: &'static [(&'static str, &'static str)],
    handler: Handler,
}

impl Scenario {
    fn new(name: &'static str, handler: Handler) -> Self {
        Self {
            name,
            settings: |settings| settings,
            layer: |layer| layer,
            headers: &[],
            handler,
        }
    }
}

/// What a span says, without what differs from run to run: ids are numbered by their first appearance,
/// and times are left out.
fn shown(spans: &[ReceivedSpan]) -> Vec<String> {
    let mut spans: Vec<_> = spans.iter().collect();
    // Spans of other libraries come as they end, in a scope of their own.
    spans.sort_by_key(|span| (span.scope.clone(), span.end_time_unix_nano));
    let mut ids = Vec::new();
    let mut number = |id: &[u8]| {
        let caller = id == [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
        if id.is_empty() || caller {
            return format!("{id:x?}");
        }
        let known = ids.iter().position(|known| known == id);
        let known = known.unwrap_or_else(|| {
            ids.push(id.to_vec());
            ids.len() - 1
        });
        format!("#{known}")
    };
    let mut shown = Vec::new();
    for span in spans {
        let attributes = span.span.attributes.iter();
        let attributes = attributes.map(|attribute| format!("{attribute:?}"));
        let attributes = attributes.collect::<std::collections::BTreeSet<_>>();
        let events = span.events.iter().map(|event| {
            let (attributes, dropped) = (&event.attributes, event.dropped_attributes_count);
            format!("{} {attributes:?} {dropped}", event.name)
        });
        let links = span.links.iter().map(|link| {
            let (state, flags) = (&link.trace_state, link.flags);
            let (attributes, dropped) = (&link.attributes, link.dropped_attributes_count);
            format!(
                "{:x?} {state} {flags} {attributes:?} {dropped}",
                link.span_id
            )
        });
        let ordered = span.start_time_unix_nano <= span.end_time_unix_nano;
        shown.push(format!(
            "{} {} of {} in {} state {:?} flags {:x} kind {} status {:?}\nattributes {attributes:#?} \
             dropped {}\nevents {:#?} dropped {}\nlinks {:#?} dropped {}\nordered {ordered}",
            span.name,
            number(&span.span_id),
            number(&span.parent_span_id),
            number(&span.span.trace_id),
            span.trace_state,
            // The SDK exports spans without the random flag of their trace.
            span.flags & !2,
            span.kind,
            span.status,
            span.dropped_attributes_count,
            events.collect::<Vec<_>>(),
            span.dropped_events_count,
            links.collect::<Vec<_>>(),
            span.dropped_links_count,
        ));
    }
    shown
}

/// The spans of a scenario, and what its handler returned.
async fn run(scenario: &Scenario, by_sdk: bool) -> (Vec<String>, String) {
    let server = OtlpServer::start();
    let settings = Telemetry::builder()
        .endpoint(server.endpoint())
        .service_name("both")
        .propagate_external(true);
    let settings = (scenario.settings)(settings);
    let telemetry = match by_sdk {
        true => settings.tracer_provider_with(|provider| provider),
        false => settings,
    };
    let telemetry = telemetry.build().expect("telemetry");
    let layer: ImageTraceLayer = (scenario.layer)(telemetry.trace_layer_builder()).build();
    let handler = scenario.handler;
    let said = {
        let telemetry = &telemetry;
        let service = layer.layer(service_fn(move |request: Request<()>| async move {
            let trace = RequestTrace::from_extensions(request.extensions());
            Ok::<_, Infallible>(Response::new(handler(trace, telemetry)))
        }));
        let mut request = Request::get("http://thumbs.example:8080/cat.jpg?w=7&sig=S");
        for (name, value) in scenario.headers {
            request = request.header(*name, *value);
        }
        let response = service.oneshot(request.body(()).expect("a request")).await;
        let body = response.expect("an answer").into_body().collect().await;
        body.expect("a body").to_bytes()
    };
    telemetry.force_flush(PATIENCE).await.expect("all is sent");
    let spans = server.spans();
    telemetry.shutdown(PATIENCE).await.expect("the end");
    (shown(&spans), String::from_utf8_lossy(&said).into_owned())
}

fn linked() -> SpanContext {
    let (trace, span) = (TraceId::from(7_u128), SpanId::from(9_u64));
    let state = TraceState::from_key_value([("vendor", "1")]).expect("valid");
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, state)
}

fn many(count: i64) -> Vec<KeyValue> {
    let keys = (0..count).map(|number| (format!("key {number}"), number));
    keys.map(|(key, number)| KeyValue::new(key, number))
        .collect()
}

fn scenarios() -> Vec<Scenario> {
    let nothing: Handler = |_, _| String::new();
    let by_others: Handler = |_, _| {
        let context = Context::current();
        let span = context.span();
        span.set_attribute(KeyValue::new("text", "once"));
        span.set_attribute(KeyValue::new("text", "twice"));
        span.set_attribute(KeyValue::new("url.path", "/another"));
        span.set_attribute(KeyValue::new("http.response.status_code", 999));
        span.set_attributes([
            KeyValue::new("bool", true),
            KeyValue::new("double", 0.5),
            KeyValue::new("negative", -1),
            KeyValue::new("long", "x".repeat(300)),
            KeyValue::new("array", Value::Array(Array::I64(vec![1, 2]))),
        ]);
        span.add_event("event", vec![KeyValue::new("of", "others")]);
        span.add_event_with_timestamp("earlier", SystemTime::UNIX_EPOCH, many(3));
        span.add_link(linked(), many(3));
        span.set_status(Status::error("first"));
        span.set_status(Status::Ok);
        span.set_status(Status::error("too late"));
        let sampled = span.span_context().is_sampled();
        format!("{} {sampled}", span.is_recording())
    };
    let mut all = vec![
        Scenario::new("nothing", nothing),
        Scenario::new("attributes, events, links and status by others", by_others),
        Scenario::new("a handle", |trace, _| {
            trace.set_route("/{source}");
            trace.set_attribute(KeyValue::new("thumbs.preset", "avatar"));
            trace.error(ErrorKind::Processing, &std::io::Error::other("no picture"));
            String::new()
        }),
        Scenario::new("a name by others", |_, _| {
            Context::current().span().update_name("another name");
            String::new()
        }),
        Scenario::new("an early end, and what comes after it", |_, _| {
            let context = Context::current();
            let span = context.span();
            span.set_attribute(KeyValue::new("before", 1));
            span.end_with_timestamp(SystemTime::now());
            span.set_attribute(KeyValue::new("after", 1));
            span.add_event("after", Vec::new());
            span.end();
            span.is_recording().to_string()
        }),
        Scenario::new("stages, with children and an error", |trace, telemetry| {
            let noted = trace.stage("noted");
            noted.set_attribute(KeyValue::new("set", "once"));
            noted.set_attribute(KeyValue::new("set", "twice"));
            noted.end();
            let begun = trace.download("https://cdn.example/cat.jpg?sig=S");
            let sent = begun.in_scope(|| {
                let tracer = telemetry.tracer_provider().tracer("another");
                tracer.in_span("child", |child| {
                    child
                        .span()
                        .set_attribute(KeyValue::new("of", "the provider"));
                });
                begun.set_attribute(KeyValue::new("set", 7));
                Context::current()
                    .span()
                    .set_attribute(KeyValue::new("by", "others"));
                begun.record_error(&std::io::Error::other("broken"));
                let mut headers = HeaderMap::new();
                begun.inject(&mut headers);
                headers.len()
            });
            begun.end();
            sent.to_string()
        }),
        Scenario::new("nothing is recorded in a suppressed context", |trace, _| {
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            let stage = trace.stage("in vain");
            stage.in_scope(|| {
                Context::current()
                    .span()
                    .span_context()
                    .is_valid()
                    .to_string()
            })
        }),
        Scenario::new("a context that outlives its request", |_, _| {
            let context = Context::current();
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                context.span().set_attribute(KeyValue::new("too", "late"));
                drop(context);
            });
            String::new()
        }),
    ];
    let mut add = |scenario: Scenario| all.push(scenario);
    let called: &[_] = &[
        ("traceparent", CALLER),
        ("tracestate", "a=1,b=2"),
        ("user-agent", "test"),
    ];
    add(Scenario {
        headers: called,
        ..Scenario::new("a sampled caller", by_others)
    });
    add(Scenario {
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02",
        )],
        ..Scenario::new("a caller who has not sampled", by_others)
    });
    let sent_below: Handler = |_, telemetry| {
        let tracer = telemetry.tracer_provider().tracer("another");
        tracer.in_span("child", |child| {
            let mut headers = HeaderMap::new();
            Propagators::default().inject_headers(&child, &mut headers);
            let flags = &headers["traceparent"].as_bytes()[52..];
            String::from_utf8_lossy(flags).into_owned()
        })
    };
    add(Scenario {
        headers: &[("traceparent", CALLER)],
        ..Scenario::new("a caller without more, and what is sent below", sent_below)
    });
    add(Scenario {
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
        )],
        ..Scenario::new("a random trace, and what is sent below", sent_below)
    });
    add(Scenario {
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02",
        )],
        ..Scenario::new(
            "a random trace that is not sampled, and what is sent below",
            sent_below,
        )
    });
    add(Scenario {
        headers: &[(
            "x-amzn-trace-id",
            "Root=1-5759e988-bd862e3fe1be46a994272793",
        )],
        settings: |settings| settings.propagators("xray,tracecontext".parse().expect("formats")),
        ..Scenario::new("a load balancer", nothing)
    });
    add(Scenario {
        settings: |settings| settings.sampler("always_off".parse().expect("a sampler")),
        headers: called,
        ..Scenario::new("always off", by_others)
    });
    add(Scenario {
        settings: |settings| settings.sampler("traceidratio=0.5".parse().expect("a sampler")),
        headers: called,
        ..Scenario::new("by ratio, below", nothing)
    });
    add(Scenario {
        settings: |settings| settings.sampler("traceidratio=0.5".parse().expect("a sampler")),
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6f3ce929d0e0e4736-00f067aa0ba902b7-00",
        )],
        ..Scenario::new("by ratio, above", nothing)
    });
    add(Scenario {
        settings: |settings| settings.sampler("parentbased_always_off".parse().expect("one")),
        headers: called,
        ..Scenario::new("as the caller does", nothing)
    });
    add(Scenario {
        settings: |settings| {
            settings.vars([
                ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "2"),
                ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "2"),
                ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"),
                ("OTEL_SPAN_LINK_COUNT_LIMIT", "1"),
                ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10"),
            ])
        },
        headers: called,
        layer: |layer| layer.request_headers(HeaderAllowList::new(["user-agent"]).expect("valid")),
        ..Scenario::new("limits", |trace, telemetry| {
            let context = Context::current();
            context.span().add_link(linked(), many(3));
            context.span().add_link(linked(), Vec::new());
            context.span().add_event("second", many(3));
            trace
                .stage("a stage")
                .record_error(&std::io::Error::other("x".repeat(99)));
            let _ = telemetry;
            String::new()
        })
    });
    add(Scenario {
        settings: |settings| settings.vars([("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "4")]),
        ..Scenario::new("few attributes", nothing)
    });
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_span_behave_alike() {
    for scenario in scenarios() {
        let (ours, said) = run(&scenario, false).await;
        let (of_sdk, said_by_sdk) = run(&scenario, true).await;
        assert_eq!(said, said_by_sdk, "{}", scenario.name);
        assert_eq!(ours.len(), of_sdk.len(), "{}: {ours:#?}", scenario.name);
        for (ours, of_sdk) in ours.iter().zip(&of_sdk) {
            let pairs = ours.lines().zip(of_sdk.lines());
            let differing: Vec<_> = pairs.filter(|(ours, of_sdk)| ours != of_sdk).collect();
            assert_eq!(ours, of_sdk, "{}: {differing:#?}", scenario.name);
        }
    }
}

/// What is dropped when its thread ends has neither a current context nor the memory of its thread.
#[tokio::test]
async fn a_request_may_end_when_its_thread_ends() {
    thread_local! {
        static LAST: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    let kinds: [(&str, Settings); 4] = [
        ("written", |settings| settings),
        ("of the SDK", |settings| {
            settings.tracer_provider_with(|provider| provider)
        }),
        ("kept at their end", |settings| {
            settings.keep(Keep::ratio(0.0).cancelled())
        }),
        ("kept at their end, of the SDK", |settings| {
            let settings = settings.keep(Keep::ratio(0.0).cancelled());
            settings.tracer_provider_with(|provider| provider)
        }),
    ];
    for (kind, settings) in kinds {
        let server = OtlpServer::start();
        let telemetry = settings(Telemetry::builder().endpoint(server.endpoint()));
        let telemetry = telemetry.build().expect("telemetry");
        let layer = telemetry.trace_layer();
        std::thread::spawn(move || {
            // The first to come is the last to go.
            LAST.set(None);
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.build().expect("a runtime");
            let service = layer.layer(service_fn(async |_: Request<()>| {
                Ok::<_, Infallible>(Response::new("a picture".to_owned()))
            }));
            let [whole, dropped] = [0, 1].map(|_| {
                let request = Request::new(());
                let response = runtime.block_on(service.clone().oneshot(request));
                response.expect("an answer").into_body()
            });
            runtime.block_on(whole.collect()).expect("a body");
            LAST.set(Some(Box::new(dropped)));
        })
        .join()
        .expect("the thread ends well");
        telemetry.shutdown(PATIENCE).await.expect("the end");
        let spans = server.spans();
        let cancelled = spans.iter().filter(|span| {
            let mut attributes = span.span.attributes.iter();
            attributes.any(|attribute| attribute.key == "image.request.cancelled")
        });
        let whole = usize::from(!kind.starts_with("kept"));
        assert_eq!((cancelled.count(), spans.len()), (1, 1 + whole), "{kind}");
    }
}
