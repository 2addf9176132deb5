//! What a request's span begins below.

use std::borrow::Cow;

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt},
};

use super::{
    random::{self, RANDOM},
    sampling::Sampling,
    tracestate::Unabridged,
    undecided::Undecided,
};

/// The caller's span and what is around it. A context of both costs an allocation, which not everybody needs.
#[derive(Debug)]
pub(crate) enum Parent {
    /// Of the caller nothing is known but the span.
    Caller {
        around: Context,
        span: SpanContext,
    },
    Context(Context),
}

impl Parent {
    /// The caller's `span` in `around`, if the two can stay apart: nothing in `around` changes what the span
    /// means, and the span has no random flag, which a context keeps for all spans below.
    #[inline]
    pub(super) fn apart(around: &Context, span: SpanContext) -> Option<Self> {
        let is_bare = span.trace_flags() & RANDOM != RANDOM
            && !around.has_active_span()
            && around.get::<Undecided>().is_none()
            && around.get::<Sampling>().is_none()
            && around.get::<Unabridged>().is_none()
            && !random::is_stored(around);
        is_bare.then(|| Self::Caller {
            around: around.clone(),
            span,
        })
    }

    /// Both in one context.
    pub(crate) fn context(&self) -> Cow<'_, Context> {
        match self {
            Self::Context(context) => Cow::Borrowed(context),
            Self::Caller { around, span } => {
                Cow::Owned(around.with_remote_span_context(span.clone()))
            }
        }
    }

    /// [`context`](Self::context), for who needs nothing else.
    pub(crate) fn into_context(self) -> Context {
        match self {
            Self::Context(context) => context,
            Self::Caller { around, span } => around.with_remote_span_context(span),
        }
    }

    /// What is known beside the span, if anything is.
    pub(crate) fn beside(&self) -> Option<&Context> {
        match self {
            Self::Caller { .. } => None,
            Self::Context(context) => Some(context),
        }
    }
}
