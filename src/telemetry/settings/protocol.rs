//! The transports of OTLP.

use std::{fmt, str::FromStr};

use crate::telemetry::error::SettingError;

/// The transports of OTLP, by the names imgproxy gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf (`http/protobuf`); the endpoint decides about TLS.
    Http,
    /// OTLP over HTTP with protobuf, always with TLS.
    Https,
}

impl Protocol {
    pub(super) const EXPECTED: &'static str = "grpc, http, https or http/protobuf";

    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "grpc" => Some(Self::Grpc),
            "http" | "http/protobuf" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    /// The cargo feature that the protocol needs, when the crate was compiled without it.
    pub(super) const fn missing_feature(self) -> Option<&'static str> {
        match self {
            Self::Grpc if cfg!(not(feature = "otlp-grpc")) => Some("otlp-grpc"),
            Self::Http | Self::Https if cfg!(not(feature = "otlp-http")) => Some("otlp-http"),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl FromStr for Protocol {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::from_name(text).ok_or_else(|| SettingError::Invalid {
            setting: "protocol".to_owned(),
            value: text.to_owned(),
            expected: Self::EXPECTED.to_owned(),
        })
    }
}
