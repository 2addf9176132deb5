use opentelemetry::{
    global,
    metrics::{Meter, MeterProvider},
};

use super::scope;

/// Where a layer's measurements go.
#[derive(Debug)]
pub(crate) struct MeterChoice {
    pub(crate) enabled: bool,
    /// The global provider's meter when there is none.
    pub(crate) meter: Option<Meter>,
}

impl MeterChoice {
    pub(crate) fn of(&mut self, provider: &impl MeterProvider) {
        self.meter = Some(provider.meter_with_scope(scope()));
    }

    pub(crate) fn meter(self) -> Option<Meter> {
        let meter = || global::meter_with_scope(scope());
        self.enabled.then(|| self.meter.unwrap_or_else(meter))
    }
}

impl Default for MeterChoice {
    fn default() -> Self {
        Self {
            enabled: true,
            meter: None,
        }
    }
}
