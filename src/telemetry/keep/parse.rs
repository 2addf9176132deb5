use std::{fmt, str::FromStr, time::Duration};

use super::Keep;
use crate::telemetry::error::SettingError;

/// What `…_KEEP` takes.
pub(crate) const EXPECTED: &str = "a list of errors, cancelled, slow:DURATION, slow:ROUTE:DURATION, \
     unsampled_errors and ratio:SHARE, as in errors,cancelled,slow:500ms,ratio:0.01";

/// The units of durations, the longest first.
const UNITS: [(&str, f64); 5] = [
    ("min", 60.0),
    ("ms", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("s", 1.0),
];

impl FromStr for Keep {
    type Err = SettingError;

    /// A list with commas, such as `errors,cancelled,slow:500ms,slow:/resize/{options}/{source}:2s,ratio:0.01`.
    /// Without `ratio` nothing is kept by the dice.
    fn from_str(list: &str) -> Result<Self, SettingError> {
        let mut keep = Self::ratio(0.0);
        let mut is_empty = true;
        for item in list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            is_empty = false;
            keep = add(keep, item).ok_or_else(|| SettingError::invalid("keep", item, EXPECTED))?;
        }
        match is_empty {
            true => Err(SettingError::invalid("keep", list, EXPECTED)),
            false => Ok(keep),
        }
    }
}

fn add(mut keep: Keep, item: &str) -> Option<Keep> {
    let (name, argument) = match item.split_once(':') {
        Some((name, argument)) => (name.trim(), Some(argument.trim())),
        None => (item, None),
    };
    match (name.to_ascii_lowercase().as_str(), argument) {
        ("errors", None) => Some(keep.errors()),
        ("cancelled", None) => Some(keep.cancelled()),
        ("unsampled_errors", None) => Some(keep.errors().errors_of_unsampled_callers(true)),
        ("ratio", Some(share)) => {
            keep.ratio = share
                .parse()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share))?;
            Some(keep)
        }
        ("slow", Some(argument)) => match argument.rsplit_once(':') {
            None => Some(keep.slower_than(duration(argument)?)),
            Some((route, limit)) if route.starts_with('/') => {
                Some(keep.route_slower_than(route, duration(limit)?))
            }
            Some(_) => None,
        },
        _ => None,
    }
}

/// A number with a unit: `500ms`, `2s`, `1.5s`, `200us`, `1min`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, seconds) = UNITS
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    // A sign or an exponent is no way to write a duration.
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(is_digit) {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

impl fmt::Display for Keep {
    /// As [`FromStr`] reads it; a closure is shown as `rule`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors && !self.of_unsampled {
            f.write_str("errors,")?;
        }
        if self.of_unsampled {
            f.write_str("unsampled_errors,")?;
        }
        if self.cancelled {
            f.write_str("cancelled,")?;
        }
        if let Some(limit) = self.slow {
            write!(f, "slow:{},", Shown(limit))?;
        }
        for (route, limit) in &self.slow_routes {
            write!(f, "slow:{route}:{},", Shown(*limit))?;
        }
        if self.rule.is_some() {
            f.write_str("rule,")?;
        }
        write!(f, "ratio:{}", self.ratio)
    }
}

/// In the largest unit that needs no fraction.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            micros if micros % 1_000_000 == 0 => write!(f, "{}s", micros / 1_000_000),
            micros if micros % 1_000 == 0 => write!(f, "{}ms", micros / 1_000),
            micros => write!(f, "{micros}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_there_and_back() {
        for list in [
            "ratio:1",
            "errors,ratio:0",
            "errors,cancelled,slow:500ms,ratio:0.01",
            "unsampled_errors,slow:2s,slow:/resize/{options}/{source}:1500ms,slow:/a:b:20us,ratio:0.5",
        ] {
            let keep: Keep = list.parse().unwrap();
            assert_eq!(keep.to_string(), list);
        }
        let spaced: Keep = " Errors , SLOW: 0.5 s ,, ratio: 1e-2 ".parse().unwrap();
        assert_eq!(spaced.to_string(), "errors,slow:500ms,ratio:0.01");
    }

    #[test]
    fn what_is_no_list_is_refused_with_what_is_accepted() {
        for list in [
            "",
            ",",
            "error",
            "errors:1",
            "ratio",
            "ratio:",
            "ratio:1.1",
            "ratio:-0",
            "ratio:NaN",
            "slow",
            "slow:",
            "slow:5",
            "slow:-5s",
            "slow:5 parsecs",
            "slow:1e9s",
            "slow:resize:5s",
            "slow:/a:",
            "slow:99999999999999999999999s",
        ] {
            let refused = list.parse::<Keep>();
            if list == "ratio:-0" {
                // Negative zero is zero.
                assert!(refused.is_ok());
                continue;
            }
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("slow:500ms"), "{list}: {error}");
        }
    }
}
