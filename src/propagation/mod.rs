//! The seven propagation formats, usable on their own.
//!
//! ```
//! use opentelemetry::Context;
//! use opentelemetry::trace::TraceContextExt;
//! use tower_image_trace::propagation::Propagators;
//!
//! let propagators: Propagators = "tracecontext,baggage,xray".parse()?;
//! let mut headers = http::HeaderMap::new();
//! headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?);
//!
//! let cx = propagators.extract_headers(&Context::new(), &headers);
//! assert!(cx.span().span_context().is_sampled());
//!
//! let mut outgoing = http::HeaderMap::new();
//! propagators.inject_headers(&cx, &mut outgoing);
//! assert_eq!(outgoing["x-amzn-trace-id"], "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | name | headers | follows |
//! |---|---|---|
//! | `tracecontext` | `traceparent`, `tracestate` | [W3C Trace Context level 2](https://www.w3.org/TR/trace-context-2/) |
//! | `baggage` | `baggage` | [W3C Baggage](https://www.w3.org/TR/baggage/) |
//! | `b3` | `b3` | [B3 propagation](https://github.com/openzipkin/b3-propagation), single header |
//! | `b3multi` | `x-b3-traceid`, `x-b3-spanid`, `x-b3-sampled`, `x-b3-flags` | the same, one header for each field |
//! | `jaeger` | `uber-trace-id` | [Jaeger propagation format](https://www.jaegertracing.io/docs/1.21/client-libraries/#propagation-format) |
//! | `xray` | `x-amzn-trace-id` | [AWS X-Ray tracing header](https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader) |
//! | `ottrace` | `ot-tracer-traceid`, `ot-tracer-spanid`, `ot-tracer-sampled`, `ot-baggage-*` | the basic tracers of OpenTracing |
//!
//! Where the document of a format leaves a choice, this crate does what the Go propagators do, which
//! imgproxy uses.
//!
//! # A trace that a load balancer began
//!
//! An AWS load balancer sends `X-Amzn-Trace-Id: Root=1-…` without a `Parent`. `Sampled=?`, or no
//! `Sampled`, leaves the decision to the receiver. Such a header names a trace, but is not a parent:
//! [`continued_trace_id`] returns the trace id, the new root span takes that id, and the sampler
//! decides. A valid parent from any other format comes first.
//!
//! [`ImageTraceLayer`](crate::ImageTraceLayer) does this with the providers of `Telemetry`. Any other
//! tracer provider needs an id generator that calls [`take_next_trace_id`] first, such as
//! `telemetry::ContinuingIdGenerator` around its own. Without one the trace gets a new id.
//!
//! # Denials and the random flag
//!
//! A header may deny sampling without naming a parent: `b3: 0`, `x-b3-sampled: 0`, or `Root=…;Sampled=0`
//! of X-Ray. [`is_denied`] says so, and the layer begins the trace as that of a caller who did not
//! sample.
//!
//! The random flag of W3C Trace Context level 2 goes on with the trace, whatever the sampler decides. A
//! new trace has it if its tracer's ids are known to be random
//! ([`random_trace_ids`](crate::trace::ImageTraceLayerBuilder::random_trace_ids)).

mod b3;
mod baggage;
mod carrier;
mod continued;
mod extraction;
mod hex;
mod jaeger;
mod list;
mod ottrace;
mod parent;
mod percent;
mod random;
mod sampling;
mod tracecontext;
mod tracestate;
mod undecided;
mod xray;

pub use b3::B3Propagator;
pub use baggage::BaggagePropagator;
pub(crate) use continued::denied_parent;
pub use continued::{take_next_trace_id, with_next_trace_id};
pub(crate) use jaeger::DEBUG_ID;
pub use jaeger::JaegerPropagator;
pub(crate) use list::ContextLines;
pub use list::{Propagator, PropagatorError, Propagators};
pub use opentelemetry_http::{HeaderExtractor, HeaderInjector};
pub use ottrace::OtTracePropagator;
pub(crate) use parent::Parent;
pub(crate) use random::{RANDOM, RandomRoot, trace_flags, with_flags};
pub use sampling::is_denied;
pub(crate) use sampling::{is_debug, with_forced_sampling};
#[cfg(feature = "_export")]
pub(crate) use sampling::{is_forced, without_threshold};
pub use tracecontext::TraceContextPropagator;
pub use undecided::continued_trace_id;
pub use xray::XRayPropagator;
