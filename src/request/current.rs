use std::{cell::RefCell, sync::Arc};

use opentelemetry::{Context, ContextGuard};

use super::RequestState;

thread_local! {
    /// The requests that this thread is working on, the innermost last.
    ///
    /// An entry in the [`Context`] would cost three allocations a request, and a reference cycle.
    static CURRENT: RefCell<Vec<Arc<RequestState>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a context, and mostly a request, current until it is dropped. Guards must be dropped in the
/// reverse order of their making.
#[derive(Debug)]
#[must_use = "what was current before is current again when this is dropped"]
pub(crate) struct Current {
    _context: Option<ContextGuard>,
    has_request: bool,
}

impl Current {
    /// Makes a request current, and a context of it if it has one.
    #[inline]
    pub(crate) fn request(request: Arc<RequestState>, context: Option<Context>) -> Self {
        // This fails only while the thread ends.
        let pushed = CURRENT.try_with(|current| current.borrow_mut().push(request));
        Self {
            _context: context.map(Context::attach),
            has_request: pushed.is_ok(),
        }
    }

    /// Makes a context current; the current request stays.
    pub(crate) fn context(context: Context) -> Self {
        Self {
            _context: Some(context.attach()),
            has_request: false,
        }
    }

    /// Gives back the request, which counts it only once for all the times that it is current.
    #[inline]
    pub(crate) fn end(mut self) -> Option<Arc<RequestState>> {
        std::mem::take(&mut self.has_request).then(pop).flatten()
    }
}

impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        if self.has_request {
            pop();
        }
    }
}

/// Takes the innermost request out. It is dropped after the borrow ends: its drop may run foreign code.
#[inline]
fn pop() -> Option<Arc<RequestState>> {
    let request = CURRENT.try_with(|current| current.borrow_mut().pop());
    request.ok().flatten()
}

/// Runs `work` where no request and no span is current.
#[cfg(feature = "_otlp")]
pub(crate) fn without_current<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(Vec<Arc<RequestState>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = CURRENT.try_with(|current| current.replace(std::mem::take(&mut self.0)));
        }
    }
    let hidden = CURRENT.try_with(RefCell::take).unwrap_or_default();
    let _restore = Restore(hidden);
    let _context = Context::new().attach();
    work()
}

/// Looks at the request that this thread is working on.
pub(super) fn with_current<T: Default>(look: impl FnOnce(&Arc<RequestState>) -> T) -> T {
    let look = |current: &RefCell<Vec<_>>| current.borrow().last().map(look);
    CURRENT.try_with(look).ok().flatten().unwrap_or_default()
}
