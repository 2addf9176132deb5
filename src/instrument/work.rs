//! One copy of what every layer and stage does with the futures and bodies of others.

use std::{
    any::Any,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context as TaskContext, Poll},
    thread,
};

use pin_project_lite::pin_project;

/// What must know how a piece of work goes: the end of a request, of an attempt or of a stage.
pub(crate) trait Work {
    /// A guard that restores what was current before.
    type Current;

    /// Makes the context of the work current.
    fn attach(&mut self) -> Self::Current;

    /// Restores what was current before, when the work goes on later.
    fn detach(&mut self, current: Self::Current) {
        drop(current);
    }

    /// The work has panicked; the panic goes on after this.
    fn panicked(&mut self, payload: &(dyn Any + Send));

    /// The future or body that does the work is dropped next.
    fn dropped(&mut self);
}

/// Does a part of the work. A panic in it is how the work ends, and goes on.
pub(crate) fn watch<W: Work, T>(work: &mut W, part: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(part)) {
        Ok(done) => done,
        Err(payload) => {
            work.panicked(&*payload);
            resume_unwind(payload)
        }
    }
}

/// What a closure of the service's returns; `None` when it panics.
pub(crate) fn guarded<T>(closure: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(closure))
        .map_err(mem::forget) // Its drop may panic too.
        .ok()
}

/// Drops what has done its work. A panic in that is how the work ends, but not how its output is lost.
pub(super) fn drop_done<W: Work>(work: &mut W, drop: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(drop)) {
        work.panicked(&*payload);
        mem::forget(payload); // Its drop may panic too.
    }
}

/// Drops work that its consumer drops. A panic in it goes on unless the thread is unwinding already, where
/// a second panic would abort the process.
fn drop_unfinished<W: Work>(work: &mut W, drop: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(drop)) {
        work.panicked(&*payload);
        if thread::panicking() {
            mem::forget(payload);
        } else {
            resume_unwind(payload);
        }
    }
}

pin_project! {
    /// A future or body that is polled and dropped with its work attached.
    #[derive(Debug)]
    pub(crate) struct Guarded<T, W: Work> {
        // `None` once it is over, because it must be dropped before the work is told so.
        #[pin]
        pub(super) inner: Option<T>,
        // `None` when there is nothing to watch.
        pub(super) work: Option<W>,
    }

    impl<T, W: Work> PinnedDrop for Guarded<T, W> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(work) = this.work {
                let _current = work.attach();
                work.dropped();
                drop_unfinished(work, || this.inner.set(None));
            }
        }
    }
}

impl<T, W: Work> Guarded<T, W> {
    pub(crate) fn new(inner: T, work: Option<W>) -> Self {
        Self {
            inner: Some(inner),
            work,
        }
    }
}

impl<F: Future, W: Work> Guarded<F, W> {
    /// Polls the future; `finish` sees its output while the context is still current, after the future
    /// was dropped.
    pub(crate) fn poll_then(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        finish: impl FnOnce(&mut W, &mut F::Output),
    ) -> Poll<F::Output> {
        let mut this = self.project();
        // To poll a finished future is a mistake of the caller's; it never becomes ready again.
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let Some(work) = this.work else {
            return inner.poll(cx);
        };
        let current = work.attach();
        let Poll::Ready(mut output) = watch(work, || inner.poll(cx)) else {
            work.detach(current);
            return Poll::Pending;
        };
        drop_done(work, || this.inner.set(None));
        finish(work, &mut output);
        Poll::Ready(output)
    }
}
