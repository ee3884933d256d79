//! Settings as people write them: `6/1h`, `25%`, `22:00`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::{self, TimeZone};
use serde::{Deserialize, Deserializer};

use super::{Day, Maintenance, Share, Window};
use crate::duration::{DurationError, HumanDuration};
use crate::policy::nearest;

/// What a window, or a share that is a number, can count up to.
const COUNTS: RangeInclusive<u32> = 1..=10_000;
/// How long a window can be.
const SPANS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(30 * 24);
/// The zone of a maintenance window that names none.
const UTC: &str = "UTC";

/// Why a text is no [`Window`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It is not a number, a slash and something after it.
    #[error("`{found}` is no window: expected how many in how long, such as 6/1h")]
    Form {
        /// The whole text.
        found: String,
    },
    /// It counts nothing, or too much.
    #[error("`{found}` counts to {max}: expected from {} to {}", COUNTS.start(), COUNTS.end())]
    Max {
        /// The whole text.
        found: String,
        /// The number.
        max: u64,
    },
    /// What stands after the slash is no duration.
    #[error("`{found}` is no window: {source}")]
    Duration {
        /// The whole text.
        found: String,
        /// Why.
        source: DurationError,
    },
    /// It is too short or too long.
    #[error(
        "`{found}` looks at {per}: expected from {} to {}",
        HumanDuration(*SPANS.start()),
        HumanDuration(*SPANS.end())
    )]
    Per {
        /// The whole text.
        found: String,
        /// Its length.
        per: HumanDuration,
    },
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let found = || s.to_owned();
        let form = || WindowError::Form { found: found() };
        let (max, per) = s.split_once('/').ok_or_else(form)?;
        let max = digits(max).ok_or_else(form)?;
        let per: HumanDuration = per.parse().map_err(|source| WindowError::Duration {
            found: found(),
            source,
        })?;
        let max = counted(max).ok_or_else(|| WindowError::Max {
            found: found(),
            max,
        })?;
        if !SPANS.contains(&per.0) {
            return Err(WindowError::Per {
                found: found(),
                per,
            });
        }
        Ok(Self { max, per: per.0 })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.max, HumanDuration(self.per))
    }
}

/// Why a text is no [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// It is neither a number nor a percentage.
    #[error("`{found}` is no share: expected a number, such as 2, or a percentage, such as 25%")]
    Form {
        /// The whole text.
        found: String,
    },
    /// It is a number that is nothing or too much.
    #[error("`{found}` is out of range: expected from {} to {}", COUNTS.start(), COUNTS.end())]
    Count {
        /// The whole text.
        found: String,
    },
    /// It is a percentage that is nothing or more than all.
    #[error("`{found}` is out of range: expected from 1% to 100%")]
    Percent {
        /// The whole text.
        found: String,
    },
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let found = || s.to_owned();
        let form = || ShareError::Form { found: found() };
        let Some(percent) = s.strip_suffix('%') else {
            let count = counted(digits(s).ok_or_else(form)?);
            return count
                .map(Self::Count)
                .ok_or_else(|| ShareError::Count { found: found() });
        };
        let percent = digits(percent).ok_or_else(form)?;
        u8::try_from(percent)
            .ok()
            .filter(|percent| (1..=100).contains(percent))
            .map(Self::Percent)
            .ok_or_else(|| ShareError::Percent { found: found() })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A number that is written with digits alone; more than fits counts as the most that
/// does.
fn digits(s: &str) -> Option<u64> {
    let only_digits = !s.is_empty() && s.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| s.parse().unwrap_or(u64::MAX))
}

fn counted(number: u64) -> Option<u32> {
    u32::try_from(number)
        .ok()
        .filter(|count| COUNTS.contains(count))
}

/// One end of a maintenance window, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A time of day, such as `22:00`.
    Clock(Time),
    /// Once, such as `2026-12-24T00:00:00Z`.
    Once(Timestamp),
}

/// Why a text is no [`Moment`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// It is neither a time of day nor a date.
    #[error(
        "`{found}` is no time: expected a time of day, such as 22:00, or a date and time, such as 2026-12-24T00:00:00Z"
    )]
    Form {
        /// The whole text.
        found: String,
    },
    /// It looks like a time of day that no clock shows.
    #[error("`{found}` is no time of day: expected from 00:00 to 23:59; midnight is 00:00")]
    Clock {
        /// The whole text.
        found: String,
    },
    /// It looks like a date and time, and is none with a zone.
    #[error("`{found}` is no date and time with a zone: expected one such as 2026-12-24T00:00:00Z")]
    Once {
        /// The whole text.
        found: String,
    },
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let found = s.to_owned();
        if s.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') && s.contains(':') {
            return Time::strptime("%H:%M", s)
                .or_else(|_| Time::strptime("%H:%M:%S", s))
                .map(Self::Clock)
                .map_err(|_| MomentError::Clock { found });
        }
        if !s.starts_with(|c: char| c.is_ascii_digit()) || !s.contains('-') {
            return Err(MomentError::Form { found });
        }
        s.parse()
            .map(Self::Once)
            .map_err(|_| MomentError::Once { found })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock(time) if time.second() == 0 => write!(f, "{}", time.strftime("%H:%M")),
            Self::Clock(time) => write!(f, "{}", time.strftime("%H:%M:%S")),
            Self::Once(at) => at.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Why two ends, days and a zone are no [`Maintenance`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaintenanceError {
    /// One end is a time of day, the other is not.
    #[error("`from` and `to` have to be two times of day, or two dates and times")]
    Mixed,
    /// It is over before it begins.
    #[error("it ends at {to}, which is not after its begin")]
    Empty {
        /// Its end.
        to: Timestamp,
    },
    /// There are days, and what is written happens once.
    #[error("days are for times of day, and this is once")]
    DaysOnce,
    /// There is a zone, and what is written brings its own.
    #[error("a zone is for times of day, and these dates have their own")]
    ZoneOnce,
    /// There is no such zone.
    #[error("there is no time zone `{zone}`{}", meant(near.as_deref()))]
    Zone {
        /// What was written.
        zone: String,
        /// What was probably meant.
        near: Option<String>,
    },
}

fn meant(near: Option<&str>) -> String {
    near.map(|near| format!(": did you mean `{near}`?"))
        .unwrap_or_default()
}

impl MaintenanceError {
    /// Which key is to be mended.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Mixed | Self::Empty { .. } => "to",
            Self::DaysOnce => "days",
            Self::ZoneOnce | Self::Zone { .. } => "zone",
        }
    }
}

impl Maintenance {
    /// From what is written; without days it is every day, without a zone UTC. A time of
    /// day that is not after the other is on the next day.
    pub fn new(
        days: &[Day],
        from: Moment,
        to: Moment,
        zone: Option<&str>,
    ) -> Result<Self, MaintenanceError> {
        match (from, to) {
            (Moment::Clock(from), Moment::Clock(to)) => Ok(Self::Weekly {
                days: Day::ALL
                    .into_iter()
                    .filter(|day| days.contains(day))
                    .collect(),
                from,
                to,
                zone: known_zone(zone.unwrap_or(UTC))?,
            }),
            (Moment::Once(_), Moment::Once(_)) if !days.is_empty() => {
                Err(MaintenanceError::DaysOnce)
            }
            (Moment::Once(_), Moment::Once(_)) if zone.is_some() => Err(MaintenanceError::ZoneOnce),
            (Moment::Once(from), Moment::Once(to)) if from < to => Ok(Self::Once { from, to }),
            (Moment::Once(_), Moment::Once(to)) => Err(MaintenanceError::Empty { to }),
            _ => Err(MaintenanceError::Mixed),
        }
    }
}

/// The zone's name as the database spells it.
fn known_zone(zone: &str) -> Result<String, MaintenanceError> {
    let found = TimeZone::get(zone).ok();
    if let Some(name) = found.as_ref().and_then(TimeZone::iana_name) {
        return Ok(name.to_owned());
    }
    let known: Vec<_> = tz::db().available().map(|name| name.to_string()).collect();
    let near = nearest(zone, known.iter().map(String::as_str));
    Err(MaintenanceError::Zone {
        zone: zone.to_owned(),
        near: near.map(str::to_owned),
    })
}

impl fmt::Display for Maintenance {
    /// For people: `sat, sun from 22:00 to 06:00 (Europe/Berlin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once { from, to } => write!(f, "from {from} to {to}"),
            Self::Weekly {
                days,
                from,
                to,
                zone,
            } => {
                let days: Vec<_> = days.iter().map(|day| day.as_str()).collect();
                let days = if days.is_empty() {
                    "every day".to_owned()
                } else {
                    days.join(", ")
                };
                let (from, to) = (Moment::Clock(*from), Moment::Clock(*to));
                write!(f, "{days} from {from} to {to} ({zone})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(s: &str) -> Result<Window, String> {
        s.parse().map_err(|error: WindowError| error.to_string())
    }

    fn share(s: &str) -> Result<Share, String> {
        s.parse().map_err(|error: ShareError| error.to_string())
    }

    fn moment(s: &str) -> Result<Moment, String> {
        s.parse().map_err(|error: MomentError| error.to_string())
    }

    #[test]
    fn a_window_says_how_many_in_how_long() {
        let per = |max, per| Ok(Window { max, per });
        assert_eq!(window("6/1h"), per(6, Duration::from_hours(1)));
        assert_eq!(window("10000/30d"), per(10_000, Duration::from_hours(720)));
        assert_eq!(window("1/1h30m"), per(1, Duration::from_mins(90)));
        let says = |s, message: &str| assert_eq!(window(s).unwrap_err(), message, "{s}");
        for form in [
            "",
            "6",
            "6 per hour",
            "/1h",
            "6 /1h",
            "+6/1h",
            "-1/1h",
            "1h/6",
        ] {
            says(
                form,
                &format!("`{form}` is no window: expected how many in how long, such as 6/1h"),
            );
        }
        says("0/1h", "`0/1h` counts to 0: expected from 1 to 10000");
        says(
            "10001/1h",
            "`10001/1h` counts to 10001: expected from 1 to 10000",
        );
        says("6/0", "`6/0` looks at 0s: expected from 1s to 30d");
        says(
            "6/999ms",
            "`6/999ms` looks at 999ms: expected from 1s to 30d",
        );
        says("6/31d", "`6/31d` looks at 31d: expected from 1s to 30d");
        says(
            "6/60",
            "`6/60` is no window: `60` has no unit: expected one of y, w, d, h, m, s, ms, such as `60s`",
        );
        assert!(window("6/h").unwrap_err().contains("`h` is no duration"));
        assert!(window("99999999999999999999/1h").is_err());
    }

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        assert_eq!(share("2"), Ok(Share::Count(2)));
        assert_eq!(share("25%"), Ok(Share::Percent(25)));
        assert_eq!(share("100%"), Ok(Share::Percent(100)));
        for form in ["", "%", "2.5", "a quarter", "25 %", "-1", "25%%"] {
            assert!(share(form).unwrap_err().contains("is no share"), "{form}");
        }
        for percent in ["0%", "101%", "256%", "99999999999999999999%"] {
            assert!(
                share(percent).unwrap_err().contains("1% to 100%"),
                "{percent}"
            );
        }
        for count in ["0", "10001", "99999999999999999999"] {
            assert!(share(count).unwrap_err().contains("1 to 10000"), "{count}");
        }
    }

    #[test]
    fn an_end_is_a_time_of_day_or_a_date_with_a_zone() {
        assert_eq!(
            moment("22:00"),
            Ok(Moment::Clock(Time::constant(22, 0, 0, 0)))
        );
        assert_eq!(
            moment("06:30:15"),
            Ok(Moment::Clock(Time::constant(6, 30, 15, 0)))
        );
        let christmas = "2026-12-24T00:00:00Z".parse().unwrap();
        assert_eq!(moment("2026-12-24T00:00:00Z"), Ok(Moment::Once(christmas)));
        assert_eq!(
            moment("2026-12-24T01:00:00+01:00"),
            Ok(Moment::Once(christmas))
        );
        for form in ["", "noon", "22", "10pm", "T22:00", "-1:00"] {
            assert!(moment(form).unwrap_err().contains("is no time:"), "{form}");
        }
        for clock in ["24:00", "22:60", "22:0:0:0", ":", "1:2:"] {
            assert!(
                moment(clock).unwrap_err().contains("00:00 to 23:59"),
                "{clock}"
            );
        }
        for once in ["2026-12-24", "2026-12-24T00:00:00", "2026-13-24T00:00:00Z"] {
            assert!(moment(once).unwrap_err().contains("with a zone"), "{once}");
        }
    }

    fn maintenance(
        days: &[Day],
        from: &str,
        to: &str,
        zone: Option<&str>,
    ) -> Result<Maintenance, MaintenanceError> {
        Maintenance::new(days, from.parse().unwrap(), to.parse().unwrap(), zone)
    }

    #[test]
    fn a_maintenance_window_says_what_it_is() {
        let weekly = maintenance(
            &[Day::Sun, Day::Sat, Day::Sun],
            "22:00",
            "06:00",
            Some("europe/berlin"),
        );
        assert_eq!(
            weekly.unwrap().to_string(),
            "sat, sun from 22:00 to 06:00 (Europe/Berlin)"
        );
        assert_eq!(
            maintenance(&[], "00:00", "00:00", None)
                .unwrap()
                .to_string(),
            "every day from 00:00 to 00:00 (UTC)"
        );
        let (from, to) = ("2026-12-24T00:00:00Z", "2026-12-27T00:00:00Z");
        assert_eq!(
            maintenance(&[], from, to, None).unwrap().to_string(),
            "from 2026-12-24T00:00:00Z to 2026-12-27T00:00:00Z"
        );
    }

    #[test]
    fn a_maintenance_window_that_contradicts_itself_is_refused() {
        let (from, to) = ("2026-12-24T00:00:00Z", "2026-12-27T00:00:00Z");
        let says = |given: Result<Maintenance, MaintenanceError>, key, message| {
            let error = given.unwrap_err();
            assert_eq!((error.key(), error.to_string().as_str()), (key, message));
        };
        says(
            maintenance(&[], to, from, None),
            "to",
            "it ends at 2026-12-24T00:00:00Z, which is not after its begin",
        );
        says(
            maintenance(&[], from, from, None),
            "to",
            "it ends at 2026-12-24T00:00:00Z, which is not after its begin",
        );
        says(
            maintenance(&[], "22:00", to, None),
            "to",
            "`from` and `to` have to be two times of day, or two dates and times",
        );
        says(
            maintenance(&[Day::Sat], from, to, None),
            "days",
            "days are for times of day, and this is once",
        );
        says(
            maintenance(&[], from, to, Some("UTC")),
            "zone",
            "a zone is for times of day, and these dates have their own",
        );
        says(
            maintenance(&[], "22:00", "06:00", Some("Europe/Berlni")),
            "zone",
            "there is no time zone `Europe/Berlni`: did you mean `Europe/Berlin`?",
        );
        says(
            maintenance(&[], "22:00", "06:00", Some("Mars")),
            "zone",
            "there is no time zone `Mars`",
        );
    }

    proptest! {
        #[test]
        fn a_window_is_read_as_it_was_written(
            max in COUNTS,
            per in 1_000_u64..=30 * 24 * 3_600_000,
        ) {
            let written = Window { max, per: Duration::from_millis(per) };
            prop_assert_eq!(window(&written.to_string()), Ok(written));
        }

        #[test]
        fn a_share_is_read_as_it_was_written(
            written in prop_oneof![
                COUNTS.prop_map(Share::Count),
                (1_u8..=100).prop_map(Share::Percent),
            ],
        ) {
            prop_assert_eq!(share(&written.to_string()), Ok(written));
        }

        #[test]
        fn an_end_is_read_as_it_was_written(
            written in prop_oneof![
                (0_i8..24, 0_i8..60, 0_i8..60)
                    .prop_map(|(h, m, s)| Moment::Clock(Time::new(h, m, s, 0).unwrap())),
                (0_i64..4_102_444_800)
                    .prop_map(|s| Moment::Once(Timestamp::from_second(s).unwrap())),
            ],
        ) {
            prop_assert_eq!(moment(&written.to_string()), Ok(written));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9/:%T+Zhmsd. -]{0,12}") {
            // What is read says of itself what reads as the same.
            if let Ok(read) = window(&text) {
                prop_assert_eq!(window(&read.to_string()), Ok(read));
            }
            if let Ok(read) = share(&text) {
                prop_assert_eq!(share(&read.to_string()), Ok(read));
            }
            if let Ok(read) = moment(&text) {
                prop_assert_eq!(moment(&read.to_string()), Ok(read));
            }
        }
    }
}
