//! The page as a service.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::IF_NONE_MATCH, request::Parts};
use tokio::runtime::Handle;
use tower_service::Service;

use super::{
    Page,
    access::Access,
    answer::{self, Answer},
    body::TracePageBody,
    files::file,
    query::{Query, trace_id},
    trace_json::{Decoded, list, otlp},
    zpages,
};
use crate::{telemetry::takes_gzip, trace::Networks};

/// The live page of traces as a service for GET and HEAD requests with any body, from
/// [`Telemetry::trace_page`](crate::Telemetry::trace_page). See [`page`](crate::page) for who is answered.
#[derive(Clone, Debug)]
pub struct TracePage {
    /// `None`: the page is off.
    page: Option<Arc<Page>>,
    rules: Arc<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    access: Access,
    /// Without a slash at its end.
    path: Option<String>,
}

/// Builds a [`TracePage`] that answers others than clients on this machine, or under a path of its own.
#[derive(Debug)]
#[must_use]
pub struct TracePageBuilder {
    page: Option<Arc<Page>>,
    rules: Rules,
}

impl TracePageBuilder {
    pub(crate) fn new(page: Option<Arc<Page>>) -> Self {
        Self {
            page,
            rules: Rules::default(),
        }
    }

    /// Answers clients in these networks too, under an IP address or a loopback name. A host name of your own
    /// needs [`authorize`](Self::authorize), because any website can let its name point to your service.
    ///
    /// ```
    /// # let telemetry = tower_image_trace::Telemetry::builder().vars([("", ""); 0]).build()?;
    /// let networks = "10.0.0.0/8, fd00::/8".parse()?;
    /// let page = telemetry.trace_page_builder().allow(networks).build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allow(mut self, networks: Networks) -> Self {
        self.rules.access.networks = Some(networks);
        self
    }

    /// Lets a closure decide which requests are answered, in place of all other rules.
    ///
    /// ```
    /// # let telemetry = tower_image_trace::Telemetry::builder().vars([("", ""); 0]).build()?;
    /// let page = telemetry
    ///     .trace_page_builder()
    ///     .authorize(|parts| parts.headers.get("x-forwarded-user").is_some_and(|user| user == "admin"))
    ///     .build();
    /// # Ok::<(), tower_image_trace::TelemetryError>(())
    /// ```
    pub fn authorize(mut self, authorize: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.rules.access.authorize = Some(Box::new(authorize));
        self
    }

    /// The path of the page, such as `/debug/traces`, where nothing else takes it from the requests' paths.
    /// Routers that nest the page do.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        let path: String = path.into();
        let path = path.trim_end_matches('/').to_owned();
        self.rules.path = (!path.is_empty()).then_some(path);
        self
    }

    /// Builds the service.
    #[must_use]
    pub fn build(self) -> TracePage {
        TracePage {
            page: self.page,
            rules: Arc::new(self.rules),
        }
    }
}

/// What is asked for.
enum Asked {
    /// A path without the slash at its beginning.
    Path(String),
    Redirect(String),
    Nothing,
}

impl Rules {
    fn asked(&self, parts: &Parts) -> Asked {
        let path = parts.uri.path();
        let (rest, whole) = match &self.path {
            Some(prefix) => match path.strip_prefix(prefix.as_str()) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => (rest, path),
                _ => return Asked::Nothing,
            },
            None => (path, original_path(parts)),
        };
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        if !rest.is_empty() || whole.ends_with('/') {
            return Asked::Path(rest.to_owned());
        }
        // "./" so that a name with a colon is no scheme.
        let name = whole.rsplit('/').next().unwrap_or_default();
        let query = parts.uri.query().map(|query| format!("?{query}"));
        Asked::Redirect(format!("./{name}/{}", query.unwrap_or_default()))
    }
}

/// The path that the browser has sent, which an axum router shortens for what is nested in it.
#[cfg(feature = "axum")]
fn original_path(parts: &Parts) -> &str {
    let original = parts.extensions.get::<axum::extract::OriginalUri>();
    original.map_or(&parts.uri, |original| &original.0).path()
}

#[cfg(not(feature = "axum"))]
fn original_path(parts: &Parts) -> &str {
    parts.uri.path()
}

impl<B> Service<Request<B>> for TracePage {
    type Response = Answer;
    type Error = Infallible;
    type Future = TracePageFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> TracePageFuture {
        let (parts, _) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        if !is_head && parts.method != Method::GET {
            return TracePageFuture::ready(answer::wrong_method(), is_head);
        }
        let Some(page) = self.page.clone() else {
            let sentence = "the live page is off: switch it on with TelemetryBuilder::trace_page, or with \
                            IMGPROXY_OPEN_TELEMETRY_PAGE_BIND";
            let off = answer::refusal(StatusCode::SERVICE_UNAVAILABLE, sentence);
            return TracePageFuture::ready(off, is_head);
        };
        // A panic in a closure of the service's answers as a refusal does.
        let access = AssertUnwindSafe(|| self.rules.access.check(&parts));
        if let Err(sentence) = catch_unwind(access).unwrap_or(Err("the page cannot be shown")) {
            let refused = answer::refusal(StatusCode::FORBIDDEN, sentence);
            return TracePageFuture::ready(refused, is_head);
        }
        match self.rules.asked(&parts) {
            Asked::Path(path) => TracePageFuture::answering(page, path, parts),
            Asked::Redirect(to) => TracePageFuture::ready(answer::redirect(&to), is_head),
            Asked::Nothing => TracePageFuture::ready(nothing(), is_head),
        }
    }
}

fn nothing() -> Answer {
    answer::refusal(StatusCode::NOT_FOUND, "there is no such page")
}

/// The answer to a request that is allowed.
fn respond(page: &Page, path: &str, parts: &Parts) -> Answer {
    let gzip = takes_gzip(&parts.headers);
    if let Some(file) = file(path) {
        let known = parts.headers.get(IF_NONE_MATCH);
        let known = known.and_then(|known| known.to_str().ok());
        return answer::file(file, known, gzip);
    }
    match path {
        "api/state" => return answer::json(&page.state(), gzip),
        "api/events" => {
            return match page.listen() {
                Some(stream) => answer::events(stream),
                None => answer::refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many browsers listen already: close one of them",
                ),
            };
        }
        "api/traces" => {
            return match Query::parse(parts.uri.query().unwrap_or_default()) {
                Ok(query) => answer::json(&list(page, &query), gzip),
                Err(sentence) => answer::error(StatusCode::BAD_REQUEST, sentence),
            };
        }
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("api/traces/") {
        return trace(page, rest, gzip);
    }
    let zpages = path.strip_prefix("tracez/api/");
    match zpages.and_then(|path| zpages::answer(page, path)) {
        Some(found) => answer::json(&found, gzip),
        None => nothing(),
    }
}

/// `{id}` or `{id}/otlp.json`
fn trace(page: &Page, path: &str, gzip: bool) -> Answer {
    let (id, as_otlp) = match path.strip_suffix("/otlp.json") {
        Some(id) => (id, true),
        None => (path, false),
    };
    let Some(id) = trace_id(id) else {
        let sentence = "a trace id has 32 hexadecimal digits";
        return answer::error(StatusCode::BAD_REQUEST, sentence);
    };
    let Some(sample) = page.store.find(id) else {
        let sentence = "this trace is not held: it is still running, was never here, or had to give way to others";
        return answer::error(StatusCode::NOT_FOUND, sentence);
    };
    if !as_otlp {
        return answer::json(&Decoded::of(page, &sample).whole(page), gzip);
    }
    match otlp(page, &sample) {
        Some(json) => answer::download(json.into(), &format!("{id}.otlp.json"), gzip),
        None => answer::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this trace cannot be decoded",
        ),
    }
}

/// The response future of [`TracePage`].
#[must_use = "futures do nothing unless polled"]
pub struct TracePageFuture(Pin<Box<dyn Future<Output = Answer> + Send>>);

impl TracePageFuture {
    fn ready(answer: Answer, is_head: bool) -> Self {
        Self(Box::pin(ready(without_body(answer, is_head))))
    }

    /// Reads traces on the blocking pool where there is one, so that no request waits for it.
    fn answering(page: Arc<Page>, path: String, parts: Parts) -> Self {
        let is_head = parts.method == Method::HEAD;
        let respond = move || respond(&page, &path, &parts);
        Self(Box::pin(async move {
            let answer = match Handle::try_current() {
                Ok(runtime) => runtime.spawn_blocking(respond).await.unwrap_or_else(|_| {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    answer::refusal(status, "the page cannot be shown")
                }),
                Err(_) => respond(),
            };
            without_body(answer, is_head)
        }))
    }
}

/// A response to HEAD has the headers that the one to GET would have.
fn without_body(mut answer: Answer, is_head: bool) -> Answer {
    if is_head {
        *answer.body_mut() = TracePageBody::whole(Bytes::new());
    }
    answer
}

impl Future for TracePageFuture {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for TracePageFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TracePageFuture")
    }
}
