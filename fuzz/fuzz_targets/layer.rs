//! One request through a layer, and the root span that comes of it.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use opentelemetry::Value;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::{Layer, ServiceExt, service_fn};
use tower_image_trace::{
    ImageTraceLayer,
    trace::{ImageTraceLayerBuilder, PeerAddr},
};

/// A proxy that is trusted, and the peer of all requests.
pub const PROXY: &str = "10.0.0.1";

pub struct Recorded {
    layer: ImageTraceLayer,
    spans: InMemorySpanExporter,
}

impl Recorded {
    pub fn new(configure: impl FnOnce(ImageTraceLayerBuilder) -> ImageTraceLayerBuilder) -> Self {
        let spans = InMemorySpanExporter::default();
        let tracers = SdkTracerProvider::builder()
            .with_simple_exporter(spans.clone())
            .build();
        let builder = ImageTraceLayer::builder().tracer_provider(tracers);
        Self {
            layer: configure(builder).build(),
            spans,
        }
    }

    /// Serves the request with the response, reads all of it, and returns the one span.
    pub fn serve<B>(&self, mut request: Request<()>, response: Response<B>) -> SpanData
    where
        B: Body<Data = Bytes, Error = Infallible>,
    {
        let peer = SocketAddr::new(PROXY.parse().expect("an address"), 4000);
        request.extensions_mut().insert(PeerAddr::from(peer));
        let mut response = Some(response);
        let service = self.layer.layer(service_fn(|_| {
            let response = response.take().expect("one request");
            async { Ok::<_, Infallible>(response) }
        }));
        let served = service.oneshot(request).now_or_never();
        let response = served.expect("nothing waits").expect("nothing fails");
        let read = response.into_body().collect().now_or_never();
        read.expect("nothing waits").expect("nothing fails");
        let mut spans = self.spans.get_finished_spans().expect("a memory");
        self.spans.reset();
        assert_eq!(spans.len(), 1);
        spans.remove(0)
    }
}

/// A body of these frames.
pub fn body(frames: Vec<Frame<Bytes>>) -> impl Body<Data = Bytes, Error = Infallible> {
    StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok)))
}

pub fn value<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    let attributes = span.attributes.iter();
    let mut found = attributes.filter(|attribute| attribute.key.as_str() == key);
    let value = found.next().map(|attribute| &attribute.value);
    assert!(found.next().is_none(), "{key} twice");
    value
}

pub fn text(span: &SpanData, key: &str) -> Option<String> {
    value(span, key).map(|value| value.as_str().into_owned())
}
