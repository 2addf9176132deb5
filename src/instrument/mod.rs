//! What every layer is built from: the tracer, the meter, propagation, errors of unknown type, and
//! work that is polled and dropped with its context current.

mod attributes;
mod delivery;
mod error_view;
mod errors;
mod exceptions;
mod exchange;
mod meter;
mod propagation;
mod scope;
mod texts;
mod tracer;
mod work;

#[cfg(feature = "page")]
pub(crate) use self::errors::beginning;
#[cfg(feature = "_otlp")]
pub(crate) use self::{attributes::WrittenSpans, tracer::Begun};
pub(crate) use self::{
    attributes::{AddAttributes, ROUTE, SpanAttributes, SpanEnd, set},
    delivery::{Delivery, Side},
    error_view::{ErrorView, view_as},
    errors::{DynError, chain, message, text},
    exceptions::{Exception, Exceptions, Level},
    exchange::{Exchange, Said, guarded_body},
    meter::{MeterChoice, ScopedMeter},
    propagation::Propagation,
    scope::scope,
    texts::TextRules,
    tracer::{First, StartSpan},
    work::{Guarded, Work, guarded, watch},
};
