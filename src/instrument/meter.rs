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
    /// The API lets the instruments of any other provider than the SDK's drop what is measured through a bound
    /// one.
    #[cfg(feature = "bound-instruments")]
    is_of_sdk: bool,
    /// Whether instruments can be bound to attributes. They keep their series for ever, which is right only where
    /// all readers are cumulative.
    #[cfg(feature = "bound-instruments")]
    pub(crate) can_bind: bool,
}

impl ScopedMeter {
    pub(crate) fn of<P: MeterProvider + ?Sized + 'static>(provider: &P) -> Self {
        Self {
            meter: provider.meter_with_scope(scope()),
            #[cfg(feature = "bound-instruments")]
            is_of_sdk: TypeId::of::<P>() == TypeId::of::<SdkMeterProvider>(),
            #[cfg(feature = "bound-instruments")]
            can_bind: false,
        }
    }

    /// That of a provider whose readers are all cumulative, if `is_cumulative`.
    #[cfg(feature = "bound-instruments")]
    pub(crate) fn read_cumulatively(mut self, is_cumulative: bool) -> Self {
        self.can_bind |= self.is_of_sdk && is_cumulative;
        self
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
    /// Whether the readers are known to be cumulative.
    #[cfg(feature = "bound-instruments")]
    pub(crate) is_cumulative: bool,
}

impl MeterChoice {
    pub(crate) fn meter(self) -> Option<ScopedMeter> {
        if !self.enabled {
            return None;
        }
        let global = || ScopedMeter::of(&*global::meter_provider());
        let meter = self.meter.unwrap_or_else(global);
        #[cfg(feature = "bound-instruments")]
        let meter = meter.read_cumulatively(self.is_cumulative);
        Some(meter)
    }
}

impl Default for MeterChoice {
    fn default() -> Self {
        Self {
            enabled: true,
            meter: None,
            #[cfg(feature = "bound-instruments")]
            is_cumulative: false,
        }
    }
}
