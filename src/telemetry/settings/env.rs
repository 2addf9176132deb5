//! Environment variables as plain data, and the mistakes collected from them.

use std::{collections::HashMap, time::Duration};

use crate::telemetry::error::SettingError;

/// The prefix of imgproxy's own variables.
pub(crate) const PREFIX: &str = "IMGPROXY_";

/// The variables that [`Settings`](super::Settings) are made from; not `Debug`, some are secret.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    values: HashMap<String, String>,
    prefix: String,
    errors: Vec<SettingError>,
}

impl Variables {
    pub(crate) fn new(
        prefix: &str,
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        Self {
            values: vars
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            prefix: format!("{prefix}OPEN_TELEMETRY_"),
            errors: Vec::new(),
        }
    }

    pub(crate) fn from_process(prefix: &str) -> Self {
        // A value that is not UTF-8 must not cause a panic; whoever parses it reports it.
        let vars = std::env::vars_os().map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        });
        Self::new(prefix, vars)
    }

    /// The full name of one of the crate's own variables: `ENDPOINT` is
    /// `IMGPROXY_OPEN_TELEMETRY_ENDPOINT`.
    pub(super) fn own(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The value of a variable; an empty or blank one counts as unset.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// The first of `names` that is set, with its value.
    pub(super) fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &str)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// The first of `names` that is set, read by `parse`; what `parse` refuses is noted as a mistake.
    pub(super) fn parse<T>(
        &mut self,
        names: &[&str],
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let (name, value) = self.first(names)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let error = SettingError::Invalid {
                setting: name.to_owned(),
                value: value.to_owned(),
                expected: expected.to_owned(),
            };
            self.refuse(error);
        }
        parsed
    }

    pub(super) fn parse_bool(&mut self, names: &[&str]) -> Option<bool> {
        self.parse(names, "true or false", |value| {
            match value.to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => Some(true),
                "false" | "f" | "0" => Some(false),
                _ => None,
            }
        })
    }

    pub(super) fn parse_millis(&mut self, names: &[&str]) -> Option<Duration> {
        self.parse(names, "a whole number of milliseconds above 0", |value| {
            positive(value).map(Duration::from_millis)
        })
    }

    pub(super) fn parse_seconds(&mut self, names: &[&str]) -> Option<Duration> {
        self.parse(names, "a whole number of seconds above 0", |value| {
            positive(value).map(Duration::from_secs)
        })
    }

    pub(super) fn parse_count(&mut self, names: &[&str]) -> Option<usize> {
        self.parse(names, "a whole number above 0", |value| {
            positive(value).and_then(|count| usize::try_from(count).ok())
        })
    }

    /// Notes a mistake; one that two signals share is noted once.
    pub(super) fn refuse(&mut self, error: SettingError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// The value of `result`, or `None` and a mistake noted.
    pub(super) fn accept<T>(&mut self, result: Result<T, SettingError>) -> Option<T> {
        result.map_err(|error| self.refuse(error)).ok()
    }

    pub(super) fn into_errors(self) -> Vec<SettingError> {
        self.errors
    }
}

/// A number from 1 to a year of milliseconds, so that `Instant + Duration` cannot overflow.
fn positive(value: &str) -> Option<u64> {
    value
        .parse()
        .ok()
        .filter(|number| (1..=31_536_000_000).contains(number))
}
