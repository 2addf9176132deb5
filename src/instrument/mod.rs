//! What every layer is built from: the tracer, the meter, propagation, errors of unknown type, and
//! work that is polled and dropped with its context current.

mod attributes;
mod error_view;
mod exchange;
mod meter;
mod propagation;
mod scope;
mod tracer;
mod work;

pub(crate) use self::{
    attributes::add,
    error_view::{ErrorView, view_as},
    exchange::Exchange,
    meter::MeterChoice,
    propagation::Propagation,
    scope::scope,
    tracer::{Attributes, StartSpan},
    work::{Guarded, Work, attach, watch},
};
