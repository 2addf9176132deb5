//! Sampling by the rules of AWS X-Ray, which a service on a local address has: `GetSamplingRules` and
//! `GetSamplingTargets` of the [X-Ray API].
//!
//! `rule` is one of them, with its `pattern`s, its `reservoir` and the `attributes` it looks at; `rules` are
//! all of them, which the `sampler` asks. `poll` gets them from the service, by way of `client`, on the I/O
//! thread, so that no request ever waits for it.
//!
//! Where the SDKs of OpenTelemetry for Go and Java differ, this is what holds here:
//! - A pattern is for the whole text (Java; in Go for any part of it), and the case of letters never counts (Go;
//!   in Java it counts where there are wildcards).
//! - Attributes that are no texts are looked at as texts, and each one that a rule names has to fit (Java).
//! - A process without a quota, or whose quota has expired, borrows one trace a second (Go; Java does so only
//!   until the first quota).
//! - Borrowed traces are among the sampled ones that are reported (Java), as the API says.
//! - Statistics that could not be reported are reported the next time (neither).
//!
//! [X-Ray API]: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sampling.html

mod attributes;
mod client;
mod pattern;
mod poll;
mod reservoir;
mod rule;
mod rules;
mod sampler;
#[cfg(test)]
mod tests;

pub(super) use self::{poll::Poller, sampler::XraySampler};
