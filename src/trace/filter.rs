/// What is recorded of a request, decided by
/// [`ImageTraceLayerBuilder::filter`](super::ImageTraceLayerBuilder::filter).
///
/// A filter may also answer with a `bool`: `true` records [`All`](Self::All), `false` records
/// [`Nothing`](Self::Nothing). The three cases are exhaustive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Record {
    /// The request and its stages have spans and are measured.
    #[default]
    All,
    /// The request and its stages are measured, and have no spans.
    Metrics,
    /// Nothing. The caller's context is current for what the request calls itself, and the
    /// request's handle records nothing.
    Nothing,
}

impl From<bool> for Record {
    fn from(record: bool) -> Self {
        if record { Self::All } else { Self::Nothing }
    }
}
