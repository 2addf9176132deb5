//! Metrics as Prometheus pulls them.
//!
//! `page` reads them from the SDK, `families` brings those of one name together, `encode` writes them
//! under the names that `names` makes, and `service` answers requests with what `negotiate` finds that
//! they take.

mod encode;
mod families;
mod names;
mod negotiate;
mod page;
mod service;

pub use self::service::{Prometheus, PrometheusBody, PrometheusFuture};
pub(super) use self::{
    names::Naming,
    page::{Page, Pushed, SharedReader, Source},
};
