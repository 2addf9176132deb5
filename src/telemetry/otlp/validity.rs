//! The dates of an X.509 certificate (RFC 5280 §4.1.2.5), which the libraries underneath check but do not
//! tell.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version.
const VERSION: u8 = 0xa0;

/// From when and until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// Reads the DER of a certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = value(certificate, SEQUENCE)?;
        let (mut tbs, _) = value(certificate, SEQUENCE)?;
        if let Some((_, rest)) = value(tbs, VERSION) {
            tbs = rest;
        }
        // Serial number, signature algorithm, issuer.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            tbs = value(tbs, tag)?.1;
        }
        let (validity, _) = value(tbs, SEQUENCE)?;
        let (not_before, rest) = time(validity)?;
        let (not_after, _) = time(rest)?;
        Some(Self {
            not_before,
            not_after,
        })
    }
}

pub(super) fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// The value of the element with that tag, and what follows the element.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, len], rest) = der.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (len, rest) = match len {
        0..=0x7f => (usize::from(len), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(len & 0x7f))?;
            let len = bytes
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte));
            (len, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// A time, and what follows it.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (year_digits, (text, rest)) = match *der.first()? {
        UTC_TIME => (2, value(der, UTC_TIME)?),
        GENERALIZED_TIME => (4, value(der, GENERALIZED_TIME)?),
        _ => return None,
    };
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, text) = text.split_at_checked(year_digits)?;
    let year = match (year_digits, year.parse::<i64>().ok()?) {
        // RFC 5280 §4.1.2.5.1.
        (2, year @ 50..) => 1900 + year,
        (2, year) => 2000 + year,
        (_, year) => year,
    };
    let mut pairs = [0_i64; 5];
    for (index, pair) in pairs.iter_mut().enumerate() {
        *pair = text.get(2 * index..2 * index + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = pairs;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(offset)?,
        false => UNIX_EPOCH.checked_add(offset)?,
    };
    Some((time, rest))
}

/// The days since 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let (year, month) = match month > 2 {
        true => (year, month - 3),
        false => (year - 1, month + 9),
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn dates_are_days() {
        for (date, expected) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 26), 20_783),
        ] {
            let (year, month, day) = date;
            assert_eq!(days(year, month, day), expected, "{date:?}");
        }
    }

    #[test]
    fn the_dates_of_a_certificate_are_read_in_both_forms() {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1999, 12, 31);
        params.not_after = date_time_ymd(2150, 2, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 24 * 60 * 60);
        assert_eq!(
            Validity::of(certificate.der()),
            Some(Validity {
                not_before: at(10_956),
                not_after: at(65_775),
            })
        );
        for end in 0..40 {
            assert_eq!(Validity::of(&certificate.der()[..end]), None);
        }
    }
}
