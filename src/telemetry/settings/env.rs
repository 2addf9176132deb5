//! Environment variables as plain data, and the mistakes collected from them.
//!
//! Mistakes in the crate's own variables are errors. `OTEL_*` belong to whoever runs the platform:
//! there the specification holds, and a mistake is a warning, after which the variable counts as unset:
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::{collections::HashMap, time::Duration};

use crate::telemetry::{
    error::{Consequence, SettingError, SettingWarning},
    signal::Signal,
};

/// The prefix of imgproxy's own variables.
pub(crate) const PREFIX: &str = "IMGPROXY_";

/// The specification's "no limit" of a timeout, as the longest time that it lets stand for it.
const NO_LIMIT: Duration = Duration::from_millis(i32::MAX as u64);

/// The variables that [`Settings`](super::Settings) are made from; not `Debug`, some are secret.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    values: HashMap<String, String>,
    /// `IMGPROXY_`
    service_prefix: String,
    /// `IMGPROXY_OPEN_TELEMETRY_`
    prefix: String,
    errors: Vec<SettingError>,
    warnings: Vec<SettingWarning>,
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
            service_prefix: prefix.to_owned(),
            prefix: format!("{prefix}OPEN_TELEMETRY_"),
            errors: Vec::new(),
            warnings: Vec::new(),
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

    /// The full name of a variable that imgproxy has beside those of OpenTelemetry: `PROMETHEUS_BIND` is
    /// `IMGPROXY_PROMETHEUS_BIND`.
    pub(super) fn of_service(&self, name: &str) -> String {
        format!("{}{name}", self.service_prefix)
    }

    /// Whether a mistake in this setting is a warning. What is not a variable was set in code.
    pub(super) fn is_standard(&self, setting: &str) -> bool {
        let own = [&self.prefix, &self.of_service("PROMETHEUS_")];
        setting.starts_with("OTEL_") && !own.iter().any(|own| setting.starts_with(own.as_str()))
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

    /// The first of `names` that is set and that `read` takes, given its name and its value.
    ///
    /// After a mistake in one of the crate's own variables, no other one is looked at.
    pub(super) fn read<T>(
        &mut self,
        names: &[&str],
        read: impl Fn(&str, &str) -> Result<T, SettingError>,
    ) -> Option<T> {
        for name in names {
            match self.get(name).map(|value| read(name, value)) {
                None => {}
                Some(Ok(value)) => return Some(value),
                Some(Err(error)) => {
                    self.mistake(name, error);
                    if !self.is_standard(name) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// [`read`](Self::read) for values that may be shown.
    pub(super) fn parse<T>(
        &mut self,
        names: &[&str],
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.read(names, |name, value| {
            parse(value).ok_or_else(|| SettingError::invalid(name, value, expected))
        })
    }

    /// One of the crate's own switches, or a standard one.
    ///
    /// The crate's own take what Go takes, as imgproxy's do. Of a standard one only `true` is true,
    /// and everything else is false.
    pub(super) fn parse_bool(&mut self, own: Option<&str>, standard: &[&str]) -> Option<bool> {
        let own = own.map(|own| self.own(own));
        if let Some(own) = own.filter(|own| self.get(own).is_some()) {
            return self.parse(&[&own], "true or false", |value| {
                match value.to_ascii_lowercase().as_str() {
                    "true" | "t" | "1" => Some(true),
                    "false" | "f" | "0" => Some(false),
                    _ => None,
                }
            });
        }
        let (name, value) = self.first(standard)?;
        let is_true = value.eq_ignore_ascii_case("true");
        if !is_true && !value.eq_ignore_ascii_case("false") {
            let error = SettingError::invalid(name, value, "true or false");
            self.warn(error, Consequence::CountsAsFalse);
        }
        Some(is_true)
    }

    /// How long to wait, in milliseconds.
    pub(super) fn parse_delay(&mut self, name: &str) -> Option<Duration> {
        self.parse(&[name], "a whole number of milliseconds", |value| {
            number(value).map(Duration::from_millis)
        })
    }

    /// How long to wait at most, in milliseconds; 0 means without limit.
    pub(super) fn parse_timeout(&mut self, names: &[&str]) -> Option<Duration> {
        let expected = "a whole number of milliseconds, or 0 for no limit";
        self.parse(names, expected, |value| {
            Some(match number(value)? {
                0 => NO_LIMIT,
                millis => Duration::from_millis(millis),
            })
        })
    }

    /// How long to wait at least between two exports, in milliseconds.
    pub(super) fn parse_interval(&mut self, name: &str) -> Option<Duration> {
        self.parse(&[name], "a whole number of milliseconds above 0", |value| {
            positive(value).map(Duration::from_millis)
        })
    }

    pub(super) fn parse_seconds(&mut self, name: &str) -> Option<Duration> {
        self.parse(&[name], "a whole number of seconds above 0", |value| {
            positive(value).map(Duration::from_secs)
        })
    }

    pub(super) fn parse_count(&mut self, name: &str) -> Option<usize> {
        self.parse(&[name], "a whole number above 0", |value| {
            positive(value).and_then(|count| usize::try_from(count).ok())
        })
    }

    /// Notes a mistake in `setting`: a warning if it is a standard variable, an error if it is not.
    pub(super) fn mistake(&mut self, setting: &str, error: SettingError) {
        if self.is_standard(setting) {
            self.warn(error, Consequence::Ignored);
        } else {
            self.refuse(error);
        }
    }

    /// Notes an error; one that two signals share is noted once.
    pub(super) fn refuse(&mut self, error: SettingError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Notes a warning; one that two signals share is noted once.
    pub(super) fn warn(&mut self, error: SettingError, consequence: Consequence) {
        let warning = SettingWarning { error, consequence };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn into_mistakes(self) -> (Vec<SettingError>, Vec<SettingWarning>) {
        (self.errors, self.warnings)
    }
}

/// A number above 0 from code or from one of the crate's own variables.
pub(super) fn count(vars: &mut Variables, code: Option<usize>, name: &str) -> Option<usize> {
    let variable = vars.own(name);
    let parsed = vars.parse_count(&variable);
    match code {
        Some(0) => {
            let setting = name.to_ascii_lowercase();
            vars.refuse(SettingError::invalid(setting, "0", "a number above 0"));
            None
        }
        code => code.or(parsed),
    }
}

/// `OTEL_EXPORTER_OTLP_TRACES_x`, which comes before `OTEL_EXPORTER_OTLP_x`.
pub(super) fn standard(signal: Signal, name: &str) -> [String; 2] {
    [
        format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.name()),
        format!("OTEL_EXPORTER_OTLP_{name}"),
    ]
}

/// A number up to 2³¹ − 1, the range that the specification asks for.
fn number(value: &str) -> Option<u64> {
    let number: u64 = value.parse().ok()?;
    (number <= i32::MAX as u64).then_some(number)
}

fn positive(value: &str) -> Option<u64> {
    number(value).filter(|number| *number > 0)
}
