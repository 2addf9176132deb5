use std::{
    fmt,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::future::Active;

pin_project! {
    /// The response body of [`ImageTrace`](super::ImageTrace): passes frames on untouched, and
    /// ends the request's span with the last one.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` after the last frame, so that it is dropped with its context current.
        #[pin]
        inner: Option<B>,
        active: Option<Active>,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(active) = this.active {
                let _current = active.attach();
                active.abandoned();
                this.inner.set(None);
            }
        }
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(inner: B, active: Option<Active>) -> Self {
        Self {
            inner: Some(inner),
            active,
        }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: fmt::Display + 'static,
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
        let Some(active) = this.active else {
            return inner.poll_frame(cx);
        };

        let _current = active.attach();
        let polled = active.watch(|| inner.as_mut().poll_frame(cx));
        let Active::Traced(finish) = active else {
            return polled;
        };
        let is_last = match &polled {
            Poll::Pending => false,
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(error))) => {
                finish.failed(error);
                false
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    finish.data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    finish.trailers(trailers);
                }
                // Nothing follows trailers, and nobody polls a body that says it is at its end.
                frame.is_trailers() || inner.is_end_stream()
            }
        };
        if is_last {
            finish.completed();
            this.inner.set(None);
            *this.active = None;
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
