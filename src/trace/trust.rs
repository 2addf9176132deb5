/// How far a request's propagated context is trusted, decided by
/// [`ImageTraceLayerBuilder::trust`](super::ImageTraceLayerBuilder::trust). The three cases are
/// exhaustive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The caller's span is the parent; its sampling decision and baggage are adopted.
    #[default]
    Parent,
    /// A new trace begins, whose root span links to the caller's span; baggage is dropped. For callers
    /// that should not decide this service's trace ids and sampling.
    Link,
    /// The headers are not read.
    Ignore,
}
