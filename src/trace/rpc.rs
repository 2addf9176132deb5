//! gRPC calls (semconv rpc-spans, rpc-metrics and grpc).

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    io::IoSlice,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Buf;
use http::{HeaderMap, Request, Response, StatusCode, header};
use opentelemetry::{KeyValue, StringValue};

use super::web::WebFrames;
use crate::{
    instrument::AddAttributes,
    intern,
    semconv::{GrpcCode, OTHER},
};

const STATUS: &str = "grpc-status";

/// The pieces in memory that one frame of a body may have; nearly all have one.
const MOST_CHUNKS: usize = 16;

/// More methods than any server has, and few enough for one series each.
const MOST_METHODS: usize = 512;

/// In bytes. A client may invent a longer name for a server that answers calls of any method.
const LONGEST_METHOD: usize = 256;

/// The methods of the server. A client can invent others, which must not become series.
#[derive(Debug)]
pub(super) struct Methods {
    known: RwLock<HashSet<Arc<str>>>,
    /// Whether a method becomes known when a handler answers a call of it; `false` when the methods
    /// were listed.
    learned: bool,
}

impl Methods {
    pub(super) fn learned() -> Self {
        Self {
            known: RwLock::default(),
            learned: true,
        }
    }

    pub(super) fn listed(methods: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let listed = methods.into_iter();
        Self {
            known: RwLock::new(
                listed
                    .map(|method| Arc::from(method.as_ref().trim_start_matches('/')))
                    .collect(),
            ),
            learned: false,
        }
    }

    fn get(&self, method: &str) -> Option<Arc<str>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(method).cloned()
    }

    /// A handler has answered a call of this method, so the server has it.
    fn learn(&self, method: &str) -> Option<Arc<str>> {
        if !self.learned || method.len() > LONGEST_METHOD {
            return None;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(method) && known.len() >= MOST_METHODS {
            return None;
        }
        let method = Arc::<str>::from(method);
        known.insert(Arc::clone(&method));
        Some(method)
    }
}

/// One gRPC call.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    code: Option<GrpcCode>,
    answered: bool,
    /// A handler has answered, so the server has the method.
    handled: bool,
    /// gRPC-Web writes the trailers into the body.
    web: Option<Box<WebFrames>>,
}

enum Method {
    Known(Arc<str>),
    /// The client's word, not confirmed by an answer.
    Claimed(Box<str>),
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(method) => f.write_str(method),
            // What clients write may have credentials in it.
            Self::Claimed(_) => f.write_str("Claimed"),
        }
    }
}

impl Call {
    /// The gRPC call in a request: a POST with a content type of gRPC or gRPC-Web (gRPC over HTTP/2:
    /// Requests).
    pub(super) fn of<B>(methods: &Methods, request: &Request<B>) -> Option<Self> {
        if request.method() != http::Method::POST {
            return None;
        }
        let web = match content_type(request.headers())? {
            "" => None,
            "-web" | "-web-text" => Some(Box::default()),
            _ => return None,
        };
        let path = request.uri().path();
        let name = path.strip_prefix('/').unwrap_or(path);
        Some(Self {
            method: match methods.get(name) {
                Some(method) => Method::Known(method),
                None => Method::Claimed(name.into()),
            },
            code: None,
            answered: false,
            handled: false,
            web,
        })
    }

    /// `{rpc.method}`, or `{rpc.system.name}` when the method is not known (semconv rpc-spans: Name).
    pub(super) fn span_name(&self) -> Cow<'static, str> {
        match &self.method {
            Method::Known(method) => intern::name(method),
            Method::Claimed(_) => "grpc".into(),
        }
    }

    /// The attributes that are known when the call arrives.
    pub(super) fn add_attributes<A: AddAttributes + ?Sized>(&self, attributes: &mut A) {
        attributes.fixed("rpc.system.name", "grpc");
        if let Method::Known(method) = &self.method {
            attributes.shared("rpc.method", &Arc::clone(method).into());
        }
    }

    pub(super) fn head<B>(&mut self, response: &Response<B>) {
        let headers = response.headers();
        self.answered = true;
        if let Some(web) = &mut self.web {
            web.is_text = content_type(headers) == Some("-web-text");
        }
        if content_type(headers).is_some() && response.status() == StatusCode::OK {
            self.code = code(headers);
            // Either messages follow, or the head is the whole answer, with a code that routers and
            // middleware don't use.
            self.handled = self.code.is_none_or(is_of_a_handler);
        } else {
            self.code = Some(code(headers).unwrap_or_else(|| GrpcCode::of_http(response.status())));
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.code = code(trailers).or(self.code);
    }

    /// Looks for the trailers of gRPC-Web, which are written into the body.
    pub(super) fn data(&mut self, data: &impl Buf) {
        let Some(web) = &mut self.web else { return };
        let mut chunks = [IoSlice::new(&[]); MOST_CHUNKS];
        let filled = data.chunks_vectored(&mut chunks);
        let mut unseen = data.remaining();
        for chunk in &chunks[..filled] {
            web.read(chunk);
            unseen -= chunk.len();
        }
        if unseen > 0 {
            // The frames cannot be followed any further.
            self.web = None;
        }
    }

    /// Ends the call and says which method it was.
    ///
    /// `worked`: a handler has begun a stage. That alone proves no method, because plain HTTP services
    /// have handlers for any path.
    pub(super) fn end(self, methods: &Methods, worked: bool) -> Named {
        let claimed = match self.method {
            Method::Known(method) => return Named::AtStart(method),
            Method::Claimed(claimed) => claimed,
        };
        let learned = if self.handled && is_method(&claimed) {
            methods.learn(&claimed)
        } else {
            None
        };
        match learned {
            Some(method) => Named::Learned(method),
            None if worked && !self.answered && is_method(&claimed) => Named::Reached(claimed),
            None => Named::Other(claimed),
        }
    }

    /// Whether the trailers of gRPC-Web were in the body; nothing follows them.
    pub(super) fn has_trailers(&self) -> bool {
        self.web.as_ref().is_some_and(|web| web.code().is_some())
    }

    pub(super) fn code(&self) -> Option<GrpcCode> {
        let trailers = self.web.as_ref().and_then(|web| web.code());
        trailers.or(self.code)
    }
}

/// The method that a call turned out to be of.
#[derive(Debug)]
pub(super) enum Named {
    AtStart(Arc<str>),
    Learned(Arc<str>),
    /// A handler was working on the call when the client left. The method is likely, not proven.
    Reached(Box<str>),
    /// Not a known method of the server.
    Other(Box<str>),
}

impl Named {
    /// `rpc.method`, of bounded cardinality.
    pub(super) fn attribute(&self) -> KeyValue {
        let method = match self {
            Self::AtStart(method) | Self::Learned(method) => StringValue::from(Arc::clone(method)),
            Self::Reached(_) | Self::Other(_) => StringValue::from(OTHER),
        };
        KeyValue::new("rpc.method", method)
    }
}

/// `package.Service/Method`, with names as Protocol Buffers allows them.
fn is_method(name: &str) -> bool {
    let letters = |part: &str, more: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    name.split_once('/')
        .is_some_and(|(service, method)| letters(service, b"_.") && letters(method, b"_"))
}

/// The rest of the content type after `application/grpc`, without message format and parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (prefix, rest) = value.split_at_checked("application/grpc".len())?;
    let end = rest.find(['+', ';', ' ']).unwrap_or(rest.len());
    prefix
        .eq_ignore_ascii_case("application/grpc")
        .then_some(&rest[..end])
}

fn code(headers: &HeaderMap) -> Option<GrpcCode> {
    let status = headers.get(STATUS)?;
    Some(GrpcCode::parse(status.as_bytes()))
}

/// Whether a handler answers with this code. With the others, routers and the middleware around them
/// refuse calls of any method.
fn is_of_a_handler(code: GrpcCode) -> bool {
    !matches!(
        code,
        GrpcCode::Cancelled
            | GrpcCode::DeadlineExceeded
            | GrpcCode::PermissionDenied
            | GrpcCode::ResourceExhausted
            | GrpcCode::Unimplemented
            | GrpcCode::Unavailable
            | GrpcCode::Unauthenticated
    )
}
