//! What every layer is built from: the tracer, the meter, propagation, errors of unknown type, and
//! work that is polled and dropped with its context current.

mod attributes;
mod clock;
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

#[cfg(feature = "_otlp")]
pub(crate) use self::attributes::WrittenSpans;
#[cfg(test)]
pub(crate) use self::clock::set_forward;
#[cfg(feature = "page")]
pub(crate) use self::errors::beginning;
pub(crate) use self::{
    attributes::{AddAttributes, ROUTE, SpanAttributes, SpanEnd, set},
    clock::Clock,
    delivery::{Delivery, Side},
    error_view::{ErrorView, view_as},
    errors::{DynError, chain, message, text},
    exceptions::{Exception, Exceptions, Level},
    exchange::{Exchange, Said, guarded_body},
    meter::{MeterChoice, ScopedMeter},
    propagation::Propagation,
    scope::scope,
    texts::TextRules,
    tracer::{Begun, First, StartSpan},
    work::{Guarded, Work, guarded, watch},
};
