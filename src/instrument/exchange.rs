//! What the layers of both sides do with a response: its head, its body, its end.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bytes::Buf;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};

use super::work::{Guarded, Work, drop_done, guarded, watch};

/// What a body says of itself before it is polled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    pub(crate) exact_size: Option<u64>,
    /// No consumer polls a body that says it is at its end.
    pub(crate) is_end: bool,
}

/// The work on one request and its response, which goes on until the last frame of the body.
pub(crate) trait Exchange: Work {
    /// The response is there, and its body has said so much of itself.
    fn head<B>(&mut self, response: &mut Response<B>, body: Said);

    fn data(&mut self, data: &impl Buf);

    fn trailers(&mut self, trailers: &HeaderMap);

    fn completed(&mut self);

    fn failed<E: fmt::Display + 'static>(&mut self, error: &E);
}

/// Shows the response to the exchange. Its consumer may never ask what a body says of itself, so a panic
/// there must not become one of ours.
fn head<W: Exchange, B: Body>(exchange: &mut W, response: &mut Response<B>) {
    let body = response.body();
    let said = guarded(|| Said {
        exact_size: body.size_hint().exact(),
        is_end: body.is_end_stream(),
    });
    exchange.head(response, said.unwrap_or_default());
}

impl<F, W, B, E> Guarded<F, W>
where
    F: Future<Output = Result<Response<B>, E>>,
    W: Exchange,
    B: Body,
    E: fmt::Display + 'static,
{
    /// Polls for the response; its body, made by `new_body`, goes on with the work.
    pub(crate) fn poll_response<N>(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        new_body: impl FnOnce(Guarded<B, W>) -> N,
    ) -> Poll<Result<Response<N>, E>> {
        let mut this = self.project();
        // To poll a finished future is a mistake of the caller's; it never becomes ready again.
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let Some(exchange) = this.work else {
            let body = |body| new_body(Guarded::new(body, None));
            return inner.poll(cx).map_ok(|response| response.map(body));
        };

        let current = exchange.attach();
        let Poll::Ready(mut result) = watch(exchange, || inner.poll(cx)) else {
            exchange.detach(current);
            return Poll::Pending;
        };
        drop_done(exchange, || this.inner.set(None));
        match &mut result {
            Ok(response) => head(exchange, response),
            Err(error) => exchange.failed(error),
        }
        exchange.detach(current);
        let exchange = this.work.take();
        Poll::Ready(
            result.map(|response| response.map(|body| new_body(Guarded::new(body, exchange)))),
        )
    }
}

impl<B, W> Body for Guarded<B, W>
where
    B: Body,
    B::Error: fmt::Display + 'static,
    W: Exchange,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(exchange) = this.work else {
            return inner.poll_frame(cx);
        };

        let current = exchange.attach();
        let polled = watch(exchange, || inner.as_mut().poll_frame(cx));
        let is_last = match &polled {
            Poll::Pending => false,
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(error))) => {
                exchange.failed(error);
                false
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    exchange.data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    exchange.trailers(trailers);
                }
                // Nothing follows trailers, and no consumer polls a body that says it is at its end.
                frame.is_trailers() || guarded(|| inner.is_end_stream()) == Some(true)
            }
        };
        if is_last {
            drop_done(exchange, || this.inner.set(None));
            exchange.completed();
            *this.work = None;
        } else {
            exchange.detach(current);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Makes a type a body as the guarded one in its field is.
macro_rules! guarded_body {
    ($name:ident, $field:ident) => {
        impl<B> http_body::Body for $name<B>
        where
            B: http_body::Body,
            B::Error: std::fmt::Display + 'static,
        {
            type Data = B::Data;
            type Error = B::Error;

            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
                self.project().$field.poll_frame(cx)
            }

            fn is_end_stream(&self) -> bool {
                self.$field.is_end_stream()
            }

            fn size_hint(&self) -> http_body::SizeHint {
                self.$field.size_hint()
            }
        }
    };
}

pub(crate) use guarded_body;
