//! Which traces are recorded.

use std::{fmt, str::FromStr};

use opentelemetry_sdk::trace::Sampler as SdkSampler;

use crate::telemetry::error::SettingError;

/// Which traces are recorded: the values of `OTEL_TRACES_SAMPLER`.
///
/// [`Display`](fmt::Display) and [`FromStr`] use the specification's names; a ratio is given as
/// `traceidratio=0.1` there, and as `OTEL_TRACES_SAMPLER_ARG` in the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Sampler {
    /// Every trace, whatever the caller decided.
    AlwaysOn,
    /// No trace.
    AlwaysOff,
    /// This share of the traces, from 0 to 1, decided by the trace id.
    TraceIdRatio(f64),
    /// What the caller decided; every trace that starts here.
    #[default]
    ParentBasedAlwaysOn,
    /// What the caller decided; no trace that starts here.
    ParentBasedAlwaysOff,
    /// What the caller decided; this share of the traces that start here.
    ParentBasedTraceIdRatio(f64),
}

pub(super) const NAMES: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
     parentbased_always_off or parentbased_traceidratio";
pub(super) const NO_XRAY: &str = "a sampler that needs nothing from outside, such as \
     parentbased_traceidratio; X-Ray's centralized sampling rules are not supported";

impl Sampler {
    /// The sampler of that name; a ratio left out is 1, as the specification says.
    pub(super) fn named(name: &str, ratio: Option<f64>) -> Option<Self> {
        let ratio = ratio.unwrap_or(1.0);
        Some(match name.to_ascii_lowercase().as_str() {
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => Self::TraceIdRatio(ratio),
            "parentbased_always_on" => Self::ParentBasedAlwaysOn,
            "parentbased_always_off" => Self::ParentBasedAlwaysOff,
            "parentbased_traceidratio" => Self::ParentBasedTraceIdRatio(ratio),
            _ => return None,
        })
    }

    pub(super) fn parse_ratio(value: &str) -> Option<f64> {
        value
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
    }
}

impl From<Sampler> for SdkSampler {
    fn from(sampler: Sampler) -> Self {
        let parent_based = |root| SdkSampler::ParentBased(Box::new(root));
        match sampler {
            Sampler::AlwaysOn => SdkSampler::AlwaysOn,
            Sampler::AlwaysOff => SdkSampler::AlwaysOff,
            Sampler::TraceIdRatio(ratio) => SdkSampler::TraceIdRatioBased(ratio),
            Sampler::ParentBasedAlwaysOn => parent_based(SdkSampler::AlwaysOn),
            Sampler::ParentBasedAlwaysOff => parent_based(SdkSampler::AlwaysOff),
            Sampler::ParentBasedTraceIdRatio(ratio) => {
                parent_based(SdkSampler::TraceIdRatioBased(ratio))
            }
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlwaysOn => f.write_str("always_on"),
            Self::AlwaysOff => f.write_str("always_off"),
            Self::TraceIdRatio(ratio) => write!(f, "traceidratio={ratio}"),
            Self::ParentBasedAlwaysOn => f.write_str("parentbased_always_on"),
            Self::ParentBasedAlwaysOff => f.write_str("parentbased_always_off"),
            Self::ParentBasedTraceIdRatio(ratio) => write!(f, "parentbased_traceidratio={ratio}"),
        }
    }
}

impl FromStr for Sampler {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let parsed = match text.split_once('=') {
            None => Self::named(text, None),
            Some((name, ratio)) if name.to_ascii_lowercase().ends_with("ratio") => {
                Self::parse_ratio(ratio).and_then(|ratio| Self::named(name, Some(ratio)))
            }
            Some(_) => None,
        };
        parsed.ok_or_else(|| SettingError::Invalid {
            setting: "sampler".to_owned(),
            value: text.to_owned(),
            expected: format!("{NAMES}, with a ratio from 0 to 1 as in traceidratio=0.1"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for text in [
            "always_on",
            "always_off",
            "traceidratio=0.25",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio=0",
        ] {
            assert_eq!(text.parse::<Sampler>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "xray",
            "traceidratio=1.1",
            "traceidratio=NaN",
            "always_on=1",
        ] {
            assert!(text.parse::<Sampler>().is_err(), "{text}");
        }
    }
}
