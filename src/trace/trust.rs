/// What a request's propagated context is worth, decided by
/// [`ImageTraceLayerBuilder::trust`](super::ImageTraceLayerBuilder::trust).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The caller's span is the parent, its sampling decision and baggage are taken over.
    #[default]
    Parent,
    /// A new trace begins, its root span links to the caller's span; baggage is dropped. For
    /// callers whose trace ids and sampling decisions should not decide ours.
    Link,
    /// The headers are not even read.
    Ignore,
}
