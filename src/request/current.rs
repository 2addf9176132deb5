use std::{cell::Cell, sync::Arc};

use opentelemetry::{Context, ContextGuard};

use super::RequestState;

thread_local! {
    /// The request that this thread is working on.
    ///
    /// An entry in the [`Context`] would cost each request three allocations, and the request would own
    /// itself through it.
    static CURRENT: Cell<Option<Arc<RequestState>>> = const { Cell::new(None) };
}

/// A context, and mostly a request, that are current until this is dropped.
#[derive(Debug)]
#[must_use = "what was current before is current again when this is dropped"]
pub(crate) struct Current {
    _context: Option<ContextGuard>,
    /// What was the current request before, if that has changed.
    outer: Option<Option<Arc<RequestState>>>,
}

impl Current {
    /// Makes a request current, and a context of it if it has one.
    pub(crate) fn request(request: Arc<RequestState>, context: Option<Context>) -> Self {
        Self {
            _context: context.map(Context::attach),
            outer: Some(replace(Some(request))),
        }
    }

    /// Makes a context current; the current request stays.
    pub(crate) fn context(context: Context) -> Self {
        Self {
            _context: Some(context.attach()),
            outer: None,
        }
    }
}

/// Looks at the request that this thread is working on.
pub(super) fn with_current<T>(look: impl FnOnce(Option<&Arc<RequestState>>) -> T) -> T {
    let request = replace(None);
    let seen = look(request.as_ref());
    replace(request);
    seen
}

/// While a thread ends there is no current request any more.
fn replace(request: Option<Arc<RequestState>>) -> Option<Arc<RequestState>> {
    CURRENT
        .try_with(|current| current.replace(request))
        .unwrap_or_default()
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(outer) = self.outer.take() {
            replace(outer);
        }
    }
}
