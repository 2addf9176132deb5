use std::{
    any::Any,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use pin_project_lite::pin_project;

use super::{AsError, Current, ErrorReport, Stage, stage::Scope};
use crate::instrument::{Guarded, Work, watch};

/// A stage that counts as cancelled unless it is finished.
#[derive(Debug)]
struct Unfinished {
    stage: Option<Stage>,
    scope: Option<Scope>,
}

impl Unfinished {
    fn new(stage: Stage) -> Self {
        Self {
            scope: stage.scope(),
            stage: Some(stage),
        }
    }

    fn finish<T, E, Form>(&mut self, result: &Result<T, E>)
    where
        E: AsError<Form>,
    {
        if let Some(stage) = self.stage.take() {
            if let Err(error) = result {
                stage.record_error(error);
            }
            stage.end();
        }
    }
}

impl Work for Unfinished {
    type Current = Option<Current>;

    fn attach(&mut self) -> Self::Current {
        self.scope.as_ref().map(Scope::attach)
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        if let Some(stage) = self.stage.take() {
            stage.fail(|texts| ErrorReport::panic(payload, texts));
        }
    }

    /// The stage is cancelled when this is dropped, after the future: what that drops still belongs
    /// to the stage.
    fn dropped(&mut self) {}
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            stage.cancel();
        }
    }
}

/// Work in a stage that goes on after it.
impl Work for Scope {
    type Current = Current;

    fn attach(&mut self) -> Current {
        Scope::attach(self)
    }

    fn panicked(&mut self, _: &(dyn Any + Send)) {}

    fn dropped(&mut self) {}
}

impl Stage {
    /// Runs a fallible closure as this stage on the calling thread, such as one of rayon's or of a pool of
    /// your own: the stage ends with the closure, an `Err` is recorded, and the stage's context is current
    /// in it. A panic is recorded, and goes on.
    ///
    /// ```
    /// use std::{io, thread};
    /// use tower_image_trace::RequestTrace;
    ///
    /// # fn resize() -> io::Result<Vec<u8>> { Ok(Vec::new()) }
    /// # let trace = RequestTrace::default();
    /// let stage = trace.process("rs:fit:300:200");
    /// let worker = thread::spawn(move || stage.run_sync(resize));
    /// # worker.join().unwrap().unwrap();
    /// ```
    ///
    /// # Errors
    /// Those of the closure.
    pub fn run_sync<T, E, Form>(self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        E: AsError<Form>,
    {
        let mut stage = Unfinished::new(self);
        let _current = stage.attach();
        let result = watch(&mut stage, work);
        stage.finish(&result);
        result
    }
}

pin_project! {
    /// The future of [`Stage::run_infallible`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct RunInfallible<F> {
        #[pin]
        future: Guarded<F, Unfinished>,
    }
}

impl<F: Future> RunInfallible<F> {
    pub(super) fn new(stage: Stage, future: F) -> Self {
        Self {
            future: Guarded::new(future, Some(Unfinished::new(stage))),
        }
    }
}

impl<F: Future> Future for RunInfallible<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let future = self.project().future;
        future.poll_then(cx, |stage, _| {
            if let Some(stage) = stage.stage.take() {
                stage.end();
            }
        })
    }
}

pin_project! {
    /// A future whose polls and drop see a stage as the current one, from [`Stage::attach`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Attached<F> {
        #[pin]
        future: Guarded<F, Scope>,
    }
}

impl<F> Attached<F> {
    pub(super) fn new(scope: Option<Scope>, future: F) -> Self {
        Self {
            future: Guarded::new(future, scope),
        }
    }
}

impl<F: Future> Future for Attached<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        self.project().future.poll_then(cx, |_, _| {})
    }
}

pin_project! {
    /// The future of [`Stage::run`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<F, Form> {
        #[pin]
        future: Guarded<F, Unfinished>,
        form: PhantomData<fn() -> Form>,
    }
}

impl<F: Future, Form> Run<F, Form> {
    pub(super) fn new(stage: Stage, future: F) -> Self {
        Self {
            future: Guarded::new(future, Some(Unfinished::new(stage))),
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
        let future = self.project().future;
        future.poll_then(cx, |stage, result| stage.finish(result))
    }
}

#[cfg(feature = "tokio")]
pub use self::blocking::RunBlocking;

#[cfg(feature = "tokio")]
mod blocking {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
        sync::{Arc, Mutex, PoisonError},
        task::ready,
        time::Duration,
    };

    use tokio::{runtime::Handle, task::JoinHandle};

    use super::*;

    /// Does the work on this thread, and says how much CPU time that took (Linux).
    fn measured<T>(work: impl FnOnce() -> T) -> (T, Option<Duration>) {
        #[cfg(target_os = "linux")]
        {
            let before = cpu_time();
            let done = work();
            (done, cpu_time().checked_sub(before))
        }
        #[cfg(not(target_os = "linux"))]
        (work(), None)
    }

    /// The CPU time that this thread has taken so far.
    #[cfg(target_os = "linux")]
    fn cpu_time() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
    }

    type Outcome<T, E> = std::thread::Result<Result<T, E>>;

    /// The future of [`Stage::run_blocking`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct RunBlocking<T, E>(Task<T, E>);

    #[derive(Debug)]
    enum Task<T, E> {
        Spawned {
            /// `None`: the work was taken back before a thread has begun it.
            handle: JoinHandle<Option<Outcome<T, E>>>,
            stage: Waiting,
        },
        Done(Option<Outcome<T, E>>),
    }

    /// The stage of work that no thread has begun.
    #[derive(Clone, Debug)]
    struct Waiting(Arc<Mutex<Option<Unfinished>>>);

    impl Waiting {
        fn take(&self) -> Option<Unfinished> {
            let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            stage.take()
        }
    }

    // Nothing in here is ever pinned.
    impl<T, E> Unpin for RunBlocking<T, E> {}

    impl<T: Send + 'static, E: Send + 'static> RunBlocking<T, E> {
        pub(in crate::request) fn new<F, Form>(stage: Stage, work: F) -> Self
        where
            F: FnOnce(&Stage) -> Result<T, E> + Send + 'static,
            E: AsError<Form>,
        {
            let stage = Waiting(Arc::new(Mutex::new(Some(Unfinished::new(stage)))));
            let waiting = stage.clone();
            let work = move || {
                let mut stage = waiting.take()?;
                let _current = stage.attach();
                // The panic goes on where the result is awaited.
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let running = stage.stage.take().unwrap_or_default();
                    let done = catch_unwind(AssertUnwindSafe(|| measured(|| work(&running))));
                    stage.stage = Some(running);
                    let (result, time) = watch(&mut stage, || {
                        done.unwrap_or_else(|panic| resume_unwind(panic))
                    });
                    if let (Some(stage), Some(time)) = (&stage.stage, time) {
                        stage.cpu_time(time);
                    }
                    stage.finish(&result);
                    result
                }));
                Some(outcome)
            };
            Self(match Handle::try_current() {
                Ok(runtime) => Task::Spawned {
                    handle: runtime.spawn_blocking(work),
                    stage,
                },
                Err(_) => Task::Done(work()),
            })
        }
    }

    impl<T, E> Future for RunBlocking<T, E> {
        type Output = Result<T, E>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
            let outcome = match &mut self.0 {
                Task::Spawned { handle, .. } => match ready!(Pin::new(handle).poll(cx)) {
                    Ok(outcome) => outcome,
                    Err(error) => error.try_into_panic().ok().map(Err),
                },
                Task::Done(outcome) => outcome.take(),
            };
            self.0 = Task::Done(None);
            match outcome {
                Some(outcome) => Poll::Ready(outcome.unwrap_or_else(|panic| resume_unwind(panic))),
                // Either the runtime is shutting down and did not take the work, or the future was ready
                // before and should not be polled.
                None => Poll::Pending,
            }
        }
    }

    impl<T, E> Drop for RunBlocking<T, E> {
        fn drop(&mut self) {
            if let Task::Spawned { handle, stage } = &self.0 {
                // Takes back what no thread has begun; the rest runs to its end. The pool drops it only when a thread
                // is free.
                handle.abort();
                drop(stage.take());
            }
        }
    }
}
