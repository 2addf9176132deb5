use std::{cell::RefCell, sync::Arc};

use opentelemetry::{Context, ContextGuard};

use super::RequestState;

thread_local! {
    /// The request that this thread is working on. Those around it wait in the [`Current`]s.
    ///
    /// An entry in the [`Context`] would cost three allocations a request, and a reference cycle.
    static CURRENT: RefCell<Option<Arc<RequestState>>> = {
        // When a thread ends, what was made last goes first, and the API panics where its own is gone. So this
        // is made after it: as long as this is there, so is the current context.
        Context::map_current(|_| ());
        RefCell::new(None)
    };
}

/// Keeps a context, and mostly a request, current until it is dropped. Guards must be dropped in the
/// reverse order of their making.
#[derive(Debug)]
#[must_use = "what was current before is current again when this is dropped"]
pub(crate) struct Current {
    _context: Option<ContextGuard>,
    has_request: bool,
    /// The request around this one.
    outer: Option<Arc<RequestState>>,
}

impl Current {
    /// Makes a request current, and a context of it if it has one; nothing while the thread ends.
    #[inline]
    pub(crate) fn request(request: Arc<RequestState>, context: Option<&Context>) -> Self {
        match CURRENT.try_with(|current| current.replace(Some(request))) {
            Ok(outer) => Self {
                _context: context.map(|context| context.clone().attach()),
                has_request: true,
                outer,
            },
            Err(_) => Self::only(None),
        }
    }

    /// Makes a context current; the current request stays.
    pub(crate) fn context(context: &Context) -> Self {
        Self::only(current_exists().then(|| context.clone().attach()))
    }

    fn only(context: Option<ContextGuard>) -> Self {
        Self {
            _context: context,
            has_request: false,
            outer: None,
        }
    }

    /// Gives back the request, which counts it only once for all the times that it is current.
    #[inline]
    pub(crate) fn end(mut self) -> Option<Arc<RequestState>> {
        self.leave()
    }

    /// Takes the request out. It is dropped after the borrow ends: its drop may run foreign code.
    #[inline]
    fn leave(&mut self) -> Option<Arc<RequestState>> {
        if !std::mem::take(&mut self.has_request) {
            return None;
        }
        let outer = self.outer.take();
        let request = CURRENT.try_with(|current| current.replace(outer));
        request.ok().flatten()
    }
}

impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whether there are current requests and contexts: not while the thread ends.
pub(crate) fn current_exists() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

/// Runs `work` where no request and no span is current.
#[cfg(feature = "_otlp")]
pub(crate) fn without_current<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<RequestState>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = CURRENT.try_with(|current| current.replace(self.0.take()));
        }
    }
    let hidden = CURRENT.try_with(RefCell::take).unwrap_or_default();
    let _restore = Restore(hidden);
    let _context = Current::context(&Context::new());
    work()
}

/// Looks at the request that this thread is working on.
pub(super) fn with_current<T: Default>(look: impl FnOnce(&Arc<RequestState>) -> T) -> T {
    let look = |current: &RefCell<Option<_>>| current.borrow().as_ref().map(look);
    CURRENT.try_with(look).ok().flatten().unwrap_or_default()
}
