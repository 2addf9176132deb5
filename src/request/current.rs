use std::{cell::RefCell, sync::Arc};

use opentelemetry::{Context, ContextGuard};

use super::RequestState;

thread_local! {
    /// The requests that this thread is working on, the innermost last.
    ///
    /// An entry in the [`Context`] would cost each request three allocations, and the request would own
    /// itself through it.
    static CURRENT: RefCell<Vec<Arc<RequestState>>> = const { RefCell::new(Vec::new()) };
}

/// A context, and mostly a request, that are current until this is dropped. Never outlives what was
/// current before.
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
        // While a thread ends it has no current request any more.
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
}

impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        if self.has_request {
            // Dropped after the borrow: the last one of a request drops what belongs to it.
            let _request = CURRENT.try_with(|current| current.borrow_mut().pop());
        }
    }
}

/// Looks at the request that this thread is working on.
pub(super) fn with_current<T: Default>(look: impl FnOnce(&Arc<RequestState>) -> T) -> T {
    let look = |current: &RefCell<Vec<_>>| current.borrow().last().map(look);
    CURRENT.try_with(look).ok().flatten().unwrap_or_default()
}
