/// What a queue holds.
pub(super) trait Item: Sized + Send + 'static {
    /// Spans, data points or log records in it.
    fn count(&self) -> u64 {
        1
    }

    /// What makes the OTLP export requests of the signal.
    #[cfg(feature = "_otlp")]
    type Encoder: Send + Sync + 'static;

    /// The OTLP export request for a batch.
    #[cfg(feature = "_otlp")]
    fn encode(
        encoder: &Self::Encoder,
        batch: Vec<Self>,
    ) -> impl Future<Output = super::encode::Encoded> + Send;
}

/// The reason for the loss of what was neither sent nor refused before the end.
pub(super) const UNSENT: &str = "not sent before the timeout of the shutdown";

pub(super) fn count<T: Item>(batch: &[T]) -> u64 {
    batch.iter().map(Item::count).sum()
}
