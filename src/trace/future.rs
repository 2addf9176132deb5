use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use http::Response;
use http_body::Body;
use opentelemetry::{Context, ContextGuard};
use pin_project_lite::pin_project;

use super::{ResponseBody, finish::Finish};

/// What is active while a request is worked on.
#[derive(Debug)]
pub(super) enum Active {
    Traced(Finish),
    /// The caller's context, for what is called.
    Skipped(Context),
}

impl Active {
    pub(super) fn attach(&self) -> Option<ContextGuard> {
        let context = match self {
            Self::Traced(finish) => finish.context(),
            Self::Skipped(context) => Some(context),
        };
        context.map(|context| context.clone().attach())
    }

    /// Does a part of the work on the request; if it panics, that is how the request ends.
    pub(super) fn watch<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let Self::Traced(finish) = self else {
            return work();
        };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => done,
            Err(payload) => {
                finish.panicked(&*payload);
                resume_unwind(payload)
            }
        }
    }

    /// What is dropped next, the future or the body, has not been finished.
    pub(super) fn abandoned(&mut self) {
        if let Self::Traced(finish) = self {
            finish.abandoned();
        }
    }
}

pin_project! {
    /// The response future of [`ImageTrace`](super::ImageTrace).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // `None` once it is ready, so that it is dropped with its context current.
        #[pin]
        inner: Option<F>,
        active: Option<Active>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
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

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, active: Option<Active>) -> Self {
        Self {
            inner: Some(inner),
            active,
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: fmt::Display + 'static,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // Polling a finished future is a mistake of the caller's; it never becomes ready again.
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let Some(active) = this.active else {
            return inner
                .poll(cx)
                .map_ok(|response| response.map(|body| ResponseBody::new(body, None)));
        };

        let _current = active.attach();
        let Poll::Ready(mut result) = active.watch(|| inner.poll(cx)) else {
            return Poll::Pending;
        };

        if let Active::Traced(finish) = active {
            match &mut result {
                Ok(response) => finish.head(response),
                Err(error) => finish.failed(error),
            }
        }
        this.inner.set(None);
        let active = this.active.take();
        Poll::Ready(result.map(|response| {
            response.map(|body| {
                // Nobody polls a body that says it is at its end.
                let active = active.filter(|_| !body.is_end_stream());
                ResponseBody::new(body, active)
            })
        }))
    }
}
