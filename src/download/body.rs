use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::finish::Finish;

pin_project! {
    /// The response body of [`Download`](super::Download): passes frames on untouched, and ends
    /// the attempt's span with the last one.
    #[derive(Debug)]
    pub struct DownloadBody<B> {
        // `None` only while it is dropped, which happens with its context current.
        #[pin]
        inner: Option<B>,
        finish: Option<Finish>,
    }

    impl<B> PinnedDrop for DownloadBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _current = this.finish.as_ref().map(Finish::attach);
            this.inner.set(None);
        }
    }
}

impl<B> DownloadBody<B> {
    pub(super) fn new(inner: B, finish: Option<Finish>) -> Self {
        Self {
            inner: Some(inner),
            finish,
        }
    }
}

impl<B: Default> Default for DownloadBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B> Body for DownloadBody<B>
where
    B: Body,
    B::Error: fmt::Display + 'static,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let Some(mut inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(finish) = this.finish else {
            return inner.poll_frame(cx);
        };

        let _current = finish.attach();
        let polled = match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll_frame(cx))) {
            Ok(polled) => polled,
            Err(payload) => {
                finish.panicked(&*payload);
                resume_unwind(payload)
            }
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => finish.completed(),
            Poll::Ready(Some(Err(error))) => finish.failed(error),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    finish.data(data.remaining());
                }
                // Nothing follows trailers, and nobody polls a body that says it is at its end.
                if frame.is_trailers() || inner.is_end_stream() {
                    finish.completed();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}
