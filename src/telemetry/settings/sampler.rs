//! Which traces are recorded.

use std::{fmt, str::FromStr};

use opentelemetry_sdk::trace::Sampler as SdkSampler;

use super::xray::{self, XrayRules};
use crate::telemetry::{error::SettingError, shown::without_secrets};

/// Which traces are recorded: the values of `OTEL_TRACES_SAMPLER`.
///
/// [`Display`](fmt::Display) and [`FromStr`] use the specification's names; a ratio is given as
/// `traceidratio=0.1` there, and as `OTEL_TRACES_SAMPLER_ARG` in the environment. The argument of `xray` is
/// written in the same way: `xray=endpoint=http://127.0.0.1:2000,polling_interval=300`.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// `xray`: what the caller decided; what the sampling rules of X-Ray say of the traces that start here
    /// (feature `xray`).
    ///
    /// A service on a local address has the rules, and the quota that this process has of each. While no rules
    /// are known, or none that applies, one trace a second is recorded and 5 % of the others. Requests never
    /// wait for the service.
    ///
    /// Rules see the attributes that root spans begin with, where sources in `url.path` are redacted. So the
    /// spans of the layers are those of the SDK, which cost more.
    Xray(XrayRules),
}

pub(super) const NAMES: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
     parentbased_always_off, parentbased_traceidratio or xray";

impl Sampler {
    /// The sampler of that name; a ratio left out is 1, as the specification says, and X-Ray's rules come from
    /// the default address.
    pub(super) fn named(name: &str, ratio: Option<f64>) -> Option<Self> {
        let ratio = ratio.unwrap_or(1.0);
        Some(match name.to_ascii_lowercase().as_str() {
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => Self::TraceIdRatio(ratio),
            "parentbased_always_on" => Self::ParentBasedAlwaysOn,
            "parentbased_always_off" => Self::ParentBasedAlwaysOff,
            "parentbased_traceidratio" => Self::ParentBasedTraceIdRatio(ratio),
            "xray" => Self::Xray(XrayRules::default()),
            _ => return None,
        })
    }

    /// Whether rules that look at attributes decide.
    pub(crate) const fn sees_attributes(&self) -> bool {
        matches!(self, Self::Xray(_))
    }

    /// Whether the caller's decision counts.
    #[cfg(feature = "_export")]
    pub(crate) const fn follows_callers(&self) -> bool {
        !matches!(
            self,
            Self::AlwaysOn | Self::AlwaysOff | Self::TraceIdRatio(_)
        )
    }

    /// What is wrong with a sampler from code.
    pub(super) fn check(&self) -> Option<SettingError> {
        let (setting, value, expected) = match self {
            Self::TraceIdRatio(ratio) | Self::ParentBasedTraceIdRatio(ratio)
                if !(0.0..=1.0).contains(ratio) =>
            {
                ("sampler", ratio.to_string(), "a ratio from 0 to 1")
            }
            Self::Xray(_) if cfg!(not(feature = "xray")) => {
                return Some(SettingError::feature("sampler", "xray", "xray"));
            }
            Self::Xray(rules) if !rules.has_valid_endpoint() => {
                let shown = without_secrets(&rules.endpoint.to_string());
                ("sampler.endpoint", shown, xray::ENDPOINT)
            }
            Self::Xray(rules) if rules.polling_interval.is_zero() => {
                ("sampler.polling_interval", "0".to_owned(), "a time above 0")
            }
            _ => return None,
        };
        Some(SettingError::invalid(setting, &value, expected))
    }

    pub(super) fn parse_ratio(value: &str) -> Option<f64> {
        value
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
    }
}

impl From<&Sampler> for SdkSampler {
    fn from(sampler: &Sampler) -> Self {
        let parent_based = |root| SdkSampler::ParentBased(Box::new(root));
        match *sampler {
            Sampler::AlwaysOn => SdkSampler::AlwaysOn,
            Sampler::AlwaysOff => SdkSampler::AlwaysOff,
            Sampler::TraceIdRatio(ratio) => SdkSampler::TraceIdRatioBased(ratio),
            Sampler::ParentBasedAlwaysOn => parent_based(SdkSampler::AlwaysOn),
            Sampler::ParentBasedAlwaysOff => parent_based(SdkSampler::AlwaysOff),
            Sampler::ParentBasedTraceIdRatio(ratio) => {
                parent_based(SdkSampler::TraceIdRatioBased(ratio))
            }
            // The rules take this place where anything is sampled.
            Sampler::Xray(_) => parent_based(SdkSampler::AlwaysOff),
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
            Self::Xray(rules) => write!(f, "xray={rules}"),
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
            Some((name, argument)) if name.eq_ignore_ascii_case("xray") => {
                XrayRules::parse(argument).map(Self::Xray)
            }
            Some(_) => None,
        };
        parsed.ok_or_else(|| {
            let expected = format!(
                "{NAMES}, with a ratio from 0 to 1 as in traceidratio=0.1, or with {} after xray=",
                xray::ARGUMENT
            );
            SettingError::invalid("sampler", text, expected)
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
            "xray=endpoint=http://127.0.0.1:2000/,polling_interval=300",
        ] {
            assert_eq!(text.parse::<Sampler>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "xray=0.5",
            "xray=endpoint=https://localhost:2000",
            "traceidratio=1.1",
            "traceidratio=NaN",
            "always_on=1",
        ] {
            assert!(text.parse::<Sampler>().is_err(), "{text}");
        }
        let by_name = "xray".parse::<Sampler>().unwrap();
        assert_eq!(by_name, Sampler::Xray(XrayRules::default()));
    }
}
