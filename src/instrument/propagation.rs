use std::{any::Any, sync::Arc};

use http::HeaderMap;
use opentelemetry::{Context, global, propagation::TextMapPropagator};
use opentelemetry_http::HeaderInjector;

use crate::propagation::{ContextLines, Parent, Propagators};

/// Reads and writes the propagated context of HTTP headers.
#[derive(Clone, Debug)]
pub(crate) enum Propagation {
    /// The global propagator at the time of each request.
    Global,
    /// The crate's own propagators read the header map directly.
    Own(Propagators),
    Custom(Arc<dyn TextMapPropagator + Send + Sync>),
}

impl Propagation {
    pub(crate) fn new(propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        match (&propagator as &dyn Any).downcast_ref::<Propagators>() {
            Some(own) => Self::Own(own.clone()),
            None => Self::Custom(Arc::new(propagator)),
        }
    }

    /// Whether the headers may contain a propagated context.
    pub(crate) fn may_find(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Own(_) => Propagators::may_find(headers),
            Self::Global | Self::Custom(_) => true,
        }
    }

    /// The current context, extended by the headers.
    #[inline]
    pub(crate) fn extract(&self, headers: &HeaderMap, lines: &ContextLines<'_>) -> Parent {
        match self {
            Self::Own(propagators) => {
                Context::map_current(|context| propagators.parent(context, headers, lines))
            }
            Self::Global => global::get_text_map_propagator(|propagator| {
                Parent::Context(propagator.extract(&lines.extractor(headers)))
            }),
            Self::Custom(propagator) => {
                Parent::Context(propagator.extract(&lines.extractor(headers)))
            }
        }
    }

    pub(crate) fn inject(&self, context: &Context, headers: &mut HeaderMap) {
        match self {
            Self::Own(propagators) => propagators.inject_headers(context, headers),
            Self::Global => global::get_text_map_propagator(|propagator| {
                propagator.inject_context(context, &mut HeaderInjector(headers));
            }),
            Self::Custom(propagator) => {
                propagator.inject_context(context, &mut HeaderInjector(headers));
            }
        }
    }
}
