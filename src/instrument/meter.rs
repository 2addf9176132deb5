#[cfg(feature = "bound-instruments")]
use std::any::TypeId;
use std::ops::Deref;

use opentelemetry::{
    global,
    metrics::{Meter, MeterProvider},
};
#[cfg(feature = "bound-instruments")]
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::scope;

/// The crate's meter, and what is known of its provider.
#[derive(Clone, Debug)]
pub(crate) struct ScopedMeter {
    meter: Meter,
    /// Whether instruments can be bound to attributes. The API lets those of any other provider than the
    /// SDK's drop what is measured through a bound instrument.
    #[cfg(feature = "bound-instruments")]
    pub(crate) can_bind: bool,
}

impl ScopedMeter {
    pub(crate) fn of<P: MeterProvider + ?Sized + 'static>(provider: &P) -> Self {
        Self {
            meter: provider.meter_with_scope(scope()),
            #[cfg(feature = "bound-instruments")]
            can_bind: TypeId::of::<P>() == TypeId::of::<SdkMeterProvider>(),
        }
    }
}

impl Deref for ScopedMeter {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.meter
    }
}

/// Where a layer's measurements go.
#[derive(Debug)]
pub(crate) struct MeterChoice {
    pub(crate) enabled: bool,
    /// The global provider's meter when there is none.
    pub(crate) meter: Option<ScopedMeter>,
}

impl MeterChoice {
    pub(crate) fn meter(self) -> Option<ScopedMeter> {
        let global = || ScopedMeter::of(&*global::meter_provider());
        self.enabled.then(|| self.meter.unwrap_or_else(global))
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
