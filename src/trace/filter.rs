/// What is not recorded of a request, decided by
/// [`ImageTraceLayerBuilder::filter`](super::ImageTraceLayerBuilder::filter).
///
/// A filter may also answer with a `bool`: `true` skips [`Nothing`](Self::Nothing), `false` skips
/// [`All`](Self::All).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Skip {
    /// The request is traced and measured.
    #[default]
    Nothing,
    /// The request and its stages are measured, and have no spans.
    Span,
    /// Nothing is recorded. The caller's context is the current one for what the request calls
    /// itself, and its handle records nothing.
    All,
}

impl From<bool> for Skip {
    fn from(record: bool) -> Self {
        if record { Self::Nothing } else { Self::All }
    }
}
