//! OpenTelemetry's consistent probability sampling: `th` and `rv` of the `ot` member of `tracestate`.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/>: both are numbers of 56 bits. A trace is
//! sampled when its randomness is not below the threshold.

use opentelemetry::trace::{TraceId, TraceState};

use crate::propagation::without_threshold;

/// One more than the greatest number of 56 bits.
const ALL: u64 = 1 << 56;
const DIGITS: usize = 14;

/// The rejection threshold of a share of all traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold(u64);

impl Threshold {
    /// Every trace.
    pub(crate) const NONE: Self = Self(0);

    /// The threshold of a share from 0 to 1. Nothing is sampled at 0.
    pub(crate) fn of_share(share: f64) -> Self {
        // Exact for the numbers that people write: 2⁵⁶ has more digits than a double has.
        let kept = (share * ALL as f64).round();
        Self(ALL - (kept as u64).min(ALL))
    }

    pub(crate) const fn samples(self, randomness: u64) -> bool {
        randomness >= self.0
    }

    /// The value of `th`: hex digits without trailing zeros. `None` when no trace is sampled, which has none.
    fn value(self) -> Option<String> {
        match self.0 {
            0 => Some("0".to_owned()),
            ALL => None,
            threshold => {
                let digits = format!("{threshold:0DIGITS$x}");
                Some(digits.trim_end_matches('0').to_owned())
            }
        }
    }

    /// The state with this threshold in place of any other. The other fields of the member, among them the
    /// randomness, stay, and so do the members of others.
    pub(crate) fn put_into(self, state: &TraceState) -> TraceState {
        let Some(value) = self.value() else {
            return state.clone();
        };
        let state = without_threshold(state.clone());
        let others = state.get("ot").unwrap_or_default();
        let member = match others.is_empty() {
            true => format!("th:{value}"),
            false => format!("th:{value};{others}"),
        };
        // The member is at most as long as before, or short.
        state.insert("ot", member).unwrap_or(state)
    }
}

/// The randomness of a trace: what its first service has said (`rv`), or else the last 56 bits of its id.
pub(crate) fn randomness(trace_id: TraceId, state: &TraceState) -> u64 {
    let said = state.get("ot").and_then(|member| {
        let mut fields = member.split(';');
        let digits = fields.find_map(|field| field.strip_prefix("rv:"))?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_valid = digits.len() == DIGITS && digits.bytes().all(is_hex);
        u64::from_str_radix(digits, 16).ok().filter(|_| is_valid)
    });
    said.unwrap_or_else(|| u128::from_be_bytes(trace_id.to_bytes()) as u64 & (ALL - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hex digits of 56 bits, as in the specification.
    #[test]
    fn a_share_has_its_threshold() {
        for (share, value) in [
            (1.0, Some("0")),
            (0.5, Some("8")),
            (0.25, Some("c")),
            (0.1, Some("e6666666666666")),
            (0.01, Some("fd70a3d70a3d71")),
            (0.0, None),
        ] {
            assert_eq!(
                Threshold::of_share(share).value().as_deref(),
                value,
                "{share}"
            );
        }
    }

    #[test]
    fn a_threshold_goes_into_the_state_of_others() {
        let half = Threshold::of_share(0.5);
        for (before, after) in [
            ("", "ot=th:8"),
            ("a=1", "ot=th:8,a=1"),
            (
                "ot=rv:6e6d1a75832a2f;th:c;x:1,a=1",
                "ot=th:8;rv:6e6d1a75832a2f;x:1,a=1",
            ),
        ] {
            let state: TraceState = match before {
                "" => TraceState::NONE,
                text => text.parse().unwrap(),
            };
            assert_eq!(half.put_into(&state).header(), after);
            assert_eq!(Threshold::of_share(0.0).put_into(&state), state);
        }
    }

    #[test]
    fn the_randomness_is_what_was_said_or_the_end_of_the_id() {
        let id = TraceId::from(0xffff_ffff_ffff_ffff_ff12_3456_789a_bcde_u128);
        let of = |state: &str| {
            let state: TraceState = state.parse().unwrap_or_default();
            randomness(id, &state)
        };
        assert_eq!(of(""), 0x12_3456_789a_bcde);
        assert_eq!(of("ot=th:c;rv:6e6d1a75832a2f"), 0x6e_6d1a_7583_2a2f);
        for broken in [
            "ot=rv:6e6d",
            "ot=rv:6E6D1A75832A2F",
            "ot=rv:+e6d1a75832a2f",
            "rv=6e6d1a75832a2f",
        ] {
            assert_eq!(of(broken), 0x12_3456_789a_bcde, "{broken}");
        }
    }

    #[test]
    fn the_dice_are_fair() {
        let threshold = Threshold::of_share(0.01);
        let sampled = (0..1_000_000_u64).filter(|number| {
            // Fibonacci hashing spreads the numbers.
            threshold.samples(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8)
        });
        let sampled = sampled.count();
        assert!((9_900..=10_100).contains(&sampled), "{sampled}");
        assert!(Threshold::NONE.samples(0));
        assert!(!Threshold::of_share(0.0).samples(ALL - 1));
    }
}
