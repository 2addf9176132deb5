use std::{
    any::Any,
    future::Future,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use opentelemetry::Context;
use pin_project_lite::pin_project;

use super::{AsError, ErrorReport, Stage};

/// A stage that counts as cancelled unless it is finished.
#[derive(Debug)]
struct Unfinished(Option<Stage>);

impl Unfinished {
    fn new(stage: Stage) -> Self {
        Self(Some(stage))
    }

    fn finish<T, E, Form>(&mut self, result: &Result<T, E>)
    where
        E: AsError<Form>,
    {
        if let Some(stage) = self.0.take()
            && let Err(error) = result
        {
            stage.record_error(error);
        }
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        if let Some(stage) = self.0.take() {
            stage.fail(|| ErrorReport::panic(payload));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stage) = self.0.take() {
            stage.cancel();
        }
    }
}

pin_project! {
    /// A future whose polls and drop see a given [`Context`] as the current one, from [`Stage::attach`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Attached<F> {
        #[pin]
        future: Option<F>,
        context: Option<Context>,
    }

    impl<F> PinnedDrop for Attached<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _current = this.context.clone().map(Context::attach);
            this.future.set(None);
        }
    }
}

impl<F> Attached<F> {
    pub(crate) fn new(context: Option<Context>, future: F) -> Self {
        Self {
            future: Some(future),
            context,
        }
    }
}

impl<F: Future> Future for Attached<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let _current = this.context.clone().map(Context::attach);
        // Polling a finished future is a mistake of the caller's; it never becomes ready again.
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let output = ready!(future.poll(cx));
        this.future.set(None);
        Poll::Ready(output)
    }
}

pin_project! {
    /// The future of [`Stage::run`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<F, Form> {
        // Before the stage: what the future drops still belongs to the stage.
        #[pin]
        future: Attached<F>,
        stage: Unfinished,
        form: PhantomData<fn() -> Form>,
    }
}

impl<F: Future, Form> Run<F, Form> {
    pub(super) fn new(stage: Stage, future: F) -> Self {
        Self {
            future: stage.attach(future),
            stage: Unfinished::new(stage),
            form: PhantomData,
        }
    }
}

impl<F, T, E, Form> Future for Run<F, Form>
where
    F: Future<Output = Result<T, E>>,
    E: AsError<Form>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match catch_unwind(AssertUnwindSafe(|| this.future.poll(cx))) {
            Ok(poll) => {
                let result = ready!(poll);
                this.stage.finish(&result);
                Poll::Ready(result)
            }
            Err(payload) => {
                this.stage.panicked(&*payload);
                resume_unwind(payload)
            }
        }
    }
}

#[cfg(feature = "tokio")]
pub use self::blocking::RunBlocking;

#[cfg(feature = "tokio")]
mod blocking {
    use tokio::{runtime::Handle, task::JoinHandle};

    use super::*;

    type Outcome<T, E> = std::thread::Result<Result<T, E>>;

    /// The future of [`Stage::run_blocking`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct RunBlocking<T, E>(Work<T, E>);

    #[derive(Debug)]
    enum Work<T, E> {
        Spawned(JoinHandle<Outcome<T, E>>),
        Done(Option<Outcome<T, E>>),
    }

    // Nothing in here is ever pinned.
    impl<T, E> Unpin for RunBlocking<T, E> {}

    impl<T: Send + 'static, E: Send + 'static> RunBlocking<T, E> {
        pub(in crate::request) fn new<F, Form>(stage: Stage, work: F) -> Self
        where
            F: FnOnce() -> Result<T, E> + Send + 'static,
            E: AsError<Form>,
        {
            let context = stage.context();
            let mut stage = Unfinished::new(stage);
            let work = move || {
                let _current = context.attach();
                let outcome = catch_unwind(AssertUnwindSafe(work));
                match &outcome {
                    Ok(result) => stage.finish(result),
                    Err(payload) => stage.panicked(&**payload),
                }
                outcome
            };
            Self(match Handle::try_current() {
                Ok(runtime) => Work::Spawned(runtime.spawn_blocking(work)),
                Err(_) => Work::Done(Some(work())),
            })
        }
    }

    impl<T, E> Future for RunBlocking<T, E> {
        type Output = Result<T, E>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
            let outcome = match &mut self.0 {
                Work::Spawned(handle) => match ready!(Pin::new(handle).poll(cx)) {
                    Ok(outcome) => outcome,
                    Err(error) => match error.try_into_panic() {
                        Ok(payload) => Err(payload),
                        // The runtime is shutting down and did not take the work; whoever awaits
                        // it there is about to be dropped too.
                        Err(_) => return Poll::Pending,
                    },
                },
                Work::Done(outcome) => match outcome.take() {
                    Some(outcome) => outcome,
                    None => return Poll::Pending,
                },
            };
            Poll::Ready(outcome.unwrap_or_else(|payload| resume_unwind(payload)))
        }
    }

    impl<T, E> Drop for RunBlocking<T, E> {
        fn drop(&mut self) {
            if let Work::Spawned(handle) = &self.0 {
                // Takes back what no thread has begun; the rest runs to its end.
                handle.abort();
            }
        }
    }
}
