use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY},
};
use http_body::{Body, Frame, SizeHint};
use tokio::{runtime::Handle, sync::Semaphore};
use tower_service::Service;

use super::{
    negotiate::{MediaType, media_type},
    page::Page,
};
use crate::telemetry::accept::takes_gzip;

/// A service that answers GET and HEAD requests with a page of metrics for Prometheus, from
/// [`Telemetry::prometheus`](crate::Telemetry::prometheus).
///
/// The page is text format 0.0.4, or OpenMetrics 1.0 for those whose `Accept` prefers it, compressed with
/// gzip for those who take that. Requests have any body; it is not read. The path is not looked at.
///
/// Metrics are collected for one request at a time, on tokio's blocking pool where there is one.
#[derive(Clone, Debug)]
pub struct Prometheus {
    /// `None`: nothing is pulled.
    page: Option<Arc<Page>>,
    one_at_a_time: Arc<Semaphore>,
}

impl Prometheus {
    pub(in crate::telemetry) fn new(page: Option<Arc<Page>>) -> Self {
        Self {
            page,
            one_at_a_time: Arc::new(Semaphore::new(1)),
        }
    }
}

impl<B> Service<Request<B>> for Prometheus {
    type Response = Response<PrometheusBody>;
    type Error = Infallible;
    type Future = PrometheusFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> PrometheusFuture {
        let is_head = request.method() == Method::HEAD;
        if !is_head && request.method() != Method::GET {
            return PrometheusFuture::ready(refused());
        }
        let Some(page) = self.page.clone() else {
            let sentence = "metrics are not pulled: ask for it with TelemetryBuilder::prometheus, \
                            or OTEL_METRICS_EXPORTER=prometheus\n";
            return PrometheusFuture::ready(failed(sentence.to_owned(), is_head));
        };
        let media_type = media_type(request.headers());
        let gzip = takes_gzip(request.headers());
        let one_at_a_time = Arc::clone(&self.one_at_a_time);
        PrometheusFuture(Box::pin(async move {
            // Never closed.
            let permit = one_at_a_time.acquire_owned().await;
            let render = move || {
                let _permit = permit;
                page.render(media_type.format, gzip)
            };
            let rendered = match Handle::try_current() {
                Ok(runtime) => match runtime.spawn_blocking(render).await {
                    Ok(rendered) => rendered,
                    Err(error) => Err(format!("metrics cannot be read: {error}\n")),
                },
                Err(_) => render(),
            };
            match rendered {
                Ok(page) => found(page, media_type, gzip, is_head),
                Err(sentence) => failed(sentence, is_head),
            }
        }))
    }
}

fn found(
    page: Bytes,
    media_type: MediaType,
    gzip: bool,
    is_head: bool,
) -> Response<PrometheusBody> {
    let mut response = response(page, is_head);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type.text));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn refused() -> Response<PrometheusBody> {
    let mut refused = failed("only GET and HEAD are answered\n".to_owned(), false);
    *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let allowed = HeaderValue::from_static("GET, HEAD");
    refused.headers_mut().insert(ALLOW, allowed);
    refused
}

fn failed(sentence: String, is_head: bool) -> Response<PrometheusBody> {
    let mut response = response(sentence.into(), is_head);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

/// A response to HEAD has the length that the one to GET would have.
fn response(body: Bytes, is_head: bool) -> Response<PrometheusBody> {
    let length = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(body.len()))]);
    let body = (!is_head && !body.is_empty()).then_some(body);
    let mut response = Response::new(PrometheusBody(body));
    *response.headers_mut() = length;
    response
}

/// The response future of [`Prometheus`].
#[must_use = "futures do nothing unless polled"]
pub struct PrometheusFuture(Pin<Box<dyn Future<Output = Response<PrometheusBody>> + Send>>);

impl PrometheusFuture {
    fn ready(response: Response<PrometheusBody>) -> Self {
        Self(Box::pin(std::future::ready(response)))
    }
}

impl Future for PrometheusFuture {
    type Output = Result<Response<PrometheusBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for PrometheusFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrometheusFuture")
    }
}

/// The response body of [`Prometheus`]: one frame.
#[derive(Debug, Default)]
pub struct PrometheusBody(Option<Bytes>);

impl Body for PrometheusBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|page| Ok(Frame::data(page))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |page| page.len() as u64))
    }
}
