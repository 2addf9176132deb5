//! A response body that a test feeds frame by frame, and a check of what all layers do with bodies.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::mpsc;
use tower::{
    Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn, util::BoxCloneService,
};

pub type Fed = Result<Frame<Bytes>, std::io::Error>;

pub struct ChannelBody {
    frames: mpsc::UnboundedReceiver<Fed>,
    exact: Option<u64>,
}

impl ChannelBody {
    pub fn new() -> (mpsc::UnboundedSender<Fed>, Self) {
        let (sender, frames) = mpsc::unbounded_channel();
        (
            sender,
            Self {
                frames,
                exact: None,
            },
        )
    }

    /// Makes the body announce its length.
    pub fn with_exact_size(mut self, bytes: u64) -> Self {
        self.exact = Some(bytes);
        self
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Fed>> {
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.exact
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub fn data(bytes: &'static str) -> Fed {
    Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
}

/// Checks that a layer's service is ready exactly when the inner service is, and that its bodies report
/// the size and end of the inner bodies.
pub async fn assert_passes_through<L, S, B>(layer: &L)
where
    L: Layer<Echo, Service = S>,
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: Body,
{
    let echo = service_fn(async |request: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    for text in ["", "picture"] {
        let request = Request::new(Full::new(Bytes::from(text)));
        let service = layer.layer(Echo::new(echo));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.body().is_end_stream(), text.is_empty());
        assert_eq!(response.body().size_hint().exact(), Some(text.len() as u64));
    }
    let mut busy = layer.layer(Echo::new(ConcurrencyLimit::new(echo, 0)));
    assert!(busy.ready().now_or_never().is_none());
}

/// A service that answers with the request's body.
pub type Echo = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;
