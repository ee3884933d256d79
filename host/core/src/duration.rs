//! Durations as Prometheus writes them: `30s`, `1h30m`, `500ms`.
//!
//! A duration is a run of numbers with units, the larger unit first, each unit at most
//! once, nothing between them: `y` (365 days), `w`, `d`, `h`, `m`, `s`, `ms`. `0` alone
//! needs no unit. Nothing is finer than a millisecond.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DeserializeFromStr, SerializeDisplay};

/// The units, largest first, with their length in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 60 * 60 * 1000),
    ("w", 7 * 24 * 60 * 60 * 1000),
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// The longest duration, in milliseconds: Prometheus counts nanoseconds in 63 bits.
const MAX_MILLIS: u64 = (i64::MAX as u64) / 1_000_000;

/// A [`Duration`] that is read and written as Prometheus writes it.
///
/// What is finer than a millisecond is cut off when it is written.
///
/// ```
/// use sentinel_core::duration::HumanDuration;
/// use std::time::Duration;
///
/// let parsed: HumanDuration = "1h30m".parse()?;
/// assert_eq!(parsed.0, Duration::from_secs(5400));
/// assert_eq!(parsed.to_string(), "1h30m");
/// # Ok::<(), sentinel_core::duration::DurationError>(())
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct HumanDuration(pub Duration);

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is nothing.
    #[error("a duration is empty: expected a number with a unit, such as 30s, 5m or 1h30m")]
    Empty,
    /// Something other than digits stands where a number has to, or there is a space.
    #[error(
        "`{found}` is no duration: expected a number with a unit and no space, such as 30s, 5m or 1h30m"
    )]
    NoNumber {
        /// The whole text.
        found: String,
    },
    /// A number has no unit.
    #[error("`{found}` has no unit: expected one of y, w, d, h, m, s, ms, such as `{number}s`")]
    NoUnit {
        /// The whole text.
        found: String,
        /// The number that wants a unit.
        number: String,
    },
    /// A unit that does not exist.
    #[error("`{found}` has the unknown unit `{unit}`: expected one of y, w, d, h, m, s, ms")]
    UnknownUnit {
        /// The whole text.
        found: String,
        /// The unit.
        unit: String,
    },
    /// A unit stands after a smaller one or after itself.
    #[error(
        "`{found}` has its units out of order: expected each of y, w, d, h, m, s, ms at most once, in that order, such as 1h30m"
    )]
    Order {
        /// The whole text.
        found: String,
    },
    /// More than can be counted.
    #[error("`{found}` is too long: expected at most 292y")]
    TooLong {
        /// The whole text.
        found: String,
    },
}

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Err(DurationError::Empty);
        }
        if s == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let found = || s.to_owned();
        let mut units = UNITS.iter();
        let mut rest = s;
        let mut millis = 0_u64;
        while !rest.is_empty() {
            let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
            if number.is_empty() || s.contains(char::is_whitespace) {
                return Err(DurationError::NoNumber { found: found() });
            }
            let (unit, after) = split_where(after, |c| c.is_ascii_digit());
            if unit.is_empty() {
                return Err(DurationError::NoUnit {
                    found: found(),
                    number: number.to_owned(),
                });
            }
            if !UNITS.iter().any(|(known, _)| *known == unit) {
                return Err(DurationError::UnknownUnit {
                    found: found(),
                    unit: unit.to_owned(),
                });
            }
            // The iterator goes on from where it stopped: a unit that is larger than
            // the one before is no longer in it.
            let (_, length) = units
                .find(|(known, _)| *known == unit)
                .ok_or_else(|| DurationError::Order { found: found() })?;
            millis = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(*length))
                .and_then(|part| millis.checked_add(part))
                .filter(|millis| *millis <= MAX_MILLIS)
                .ok_or_else(|| DurationError::TooLong { found: found() })?;
            rest = after;
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

/// Splits `s` before the first character that `end` holds for.
fn split_where(s: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    s.split_at(s.find(end).unwrap_or(s.len()))
}

impl fmt::Display for HumanDuration {
    /// Years and weeks are written only where nothing is left over, as Prometheus does:
    /// `90d` reads better than `12w6d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in UNITS {
            let length = u128::from(length);
            let whole_only = matches!(unit, "y" | "w");
            if rest < length || (whole_only && !rest.is_multiple_of(length)) {
                continue;
            }
            write!(f, "{}{unit}", rest / length)?;
            rest %= length;
        }
        Ok(())
    }
}

/// For `#[serde(with = "sentinel_core::duration::human")]` on a field of type
/// [`Duration`].
pub mod human {
    use super::{Deserialize, Deserializer, Duration, HumanDuration, Serialize, Serializer};

    /// Writes it as a string.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        HumanDuration(*duration).serialize(serializer)
    }

    /// Reads it from a string.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        HumanDuration::deserialize(deserializer).map(Duration::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(s: &str) -> Result<u128, String> {
        s.parse::<HumanDuration>()
            .map(|parsed| parsed.0.as_millis())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn reads_what_prometheus_reads() {
        // Cases of prometheus/common, model/time_test.go, in our own words.
        for (text, expected) in [
            ("0", 0),
            ("0w", 0),
            ("0s", 0),
            ("324ms", 324),
            ("3s", 3_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("4d", 345_600_000),
            ("4d1h", 349_200_000),
            ("14d", 1_209_600_000),
            ("3w", 1_814_400_000),
            ("3w2d1h", 1_990_800_000),
            ("10y", 315_360_000_000),
            ("1s1ms", 1_001),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        for text in [
            "",
            "1",
            "00",
            "1y1m1d",
            "-1w",
            "1.5d",
            "d",
            "5 m",
            " 5m",
            "5m ",
            "1h1h",
            "5S",
            "1µs",
            "294y",
            "200y10400w",
            "107675d",
            "99999999999999999999s",
        ] {
            assert!(millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn says_what_was_expected() {
        assert_eq!(
            millis("30").unwrap_err(),
            "`30` has no unit: expected one of y, w, d, h, m, s, ms, such as `30s`"
        );
        assert_eq!(
            millis("5 m").unwrap_err(),
            "`5 m` is no duration: expected a number with a unit and no space, such as 30s, 5m or 1h30m"
        );
        assert_eq!(
            millis("5min").unwrap_err(),
            "`5min` has the unknown unit `min`: expected one of y, w, d, h, m, s, ms"
        );
        assert_eq!(
            millis("soon").unwrap_err(),
            "`soon` is no duration: expected a number with a unit and no space, such as 30s, 5m or 1h30m"
        );
    }

    #[test]
    fn writes_whole_years_and_weeks_only() {
        for text in [
            "0s",
            "1ms",
            "90d",
            "2w",
            "1y",
            "366d",
            "1h30m",
            "1m30s500ms",
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap().to_string(), text);
        }
        assert_eq!("90m".parse::<HumanDuration>().unwrap().to_string(), "1h30m");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0..=MAX_MILLIS) {
            let duration = HumanDuration(Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn any_text_is_a_duration_or_an_error(text in ".{0,12}") {
            if let Ok(duration) = text.parse::<HumanDuration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
