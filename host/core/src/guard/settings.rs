//! What a policy's guards are set to. Plans carry them, so they are journaled; what an
//! older journal does not have counts as not set.

mod text;

use std::time::Duration;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};
use serde::{Deserialize, Serialize};

use crate::alert::Labels;
use crate::event::millis;

pub use text::{MaintenanceError, Moment, MomentError, ShareError, WindowError};

/// How long a policy leaves a target alone when it does not say.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_mins(1);
/// How many incidents on one target are flapping when the policy does not say: what has to
/// be healed a fourth time within half an hour is not healed.
pub const DEFAULT_FLAPPING: Window = Window {
    max: 3,
    per: Duration::from_mins(30),
};
/// How many runs a policy may have at once when it does not say.
pub const DEFAULT_CONCURRENCY: u32 = 8;

/// What can hold a policy back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// How long it leaves a target alone after it acted on it; never zero.
    #[serde(with = "millis", rename = "cooldown_ms")]
    pub cooldown: Duration,
    /// How many runs it may start in a window, over all of its targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many incidents on one target in a window are flapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flapping: Option<Window>,
    /// When it stops trying on a target, and for how long.
    #[serde(default)]
    pub breaker: Breaker,
    /// How many runs it may have at once; at least 1.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How large a share of a fleet may be disturbed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast_radius: Option<BlastRadius>,
    /// When it does nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<Maintenance>,
}

fn default_concurrency() -> u32 {
    DEFAULT_CONCURRENCY
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            cooldown: DEFAULT_COOLDOWN,
            rate: None,
            flapping: Some(DEFAULT_FLAPPING),
            breaker: Breaker::default(),
            concurrency: DEFAULT_CONCURRENCY,
            blast_radius: None,
            maintenance: Vec::new(),
        }
    }
}

/// So many in so long, written `6/1h`: 1 to 10,000 in 1s to 30d.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// How many; at least 1.
    pub max: u32,
    /// In how long.
    #[serde(with = "millis", rename = "per_ms")]
    pub per: Duration,
}

/// How many runs may start in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The window, which slides.
    #[serde(flatten)]
    pub window: Window,
    /// What becomes of the one that is too many.
    #[serde(default)]
    pub then: Excess,
}

/// What becomes of an incident that a rate has no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Excess {
    /// It waits.
    #[default]
    Queue,
    /// It is suppressed.
    Drop,
}

/// When a policy stops trying on a target: a circuit breaker. It opens after so many
/// incidents in a row that were not healed; when its time is over, one incident may try
/// (half-open), whose end closes it or opens it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// After how many failures in a row; at least 1.
    pub failures: u32,
    /// For how long it stays open.
    #[serde(with = "millis", rename = "open_for_ms")]
    pub open_for: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open_for: Duration::from_mins(30),
        }
    }
}

/// How large a share of a fleet may be disturbed at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// The bound.
    pub max: Share,
    /// The fleet.
    pub of: Fleet,
    /// How long it must have been within the bound, once it was not.
    #[serde(with = "millis", rename = "calm_ms")]
    pub calm: Duration,
}

/// A number, or a share of a fleet, written `2` (1 to 10,000) or `25%` (1 to 100).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// So many members.
    Count(u32),
    /// So many of a hundred; rounded down, but at least one member.
    Percent(u8),
}

impl Share {
    /// How many members of a fleet of `size` this is.
    #[must_use]
    pub fn of(self, size: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (size * usize::from(percent) / 100).max(1),
        }
    }
}

/// The containers of one Docker host that carry all of these labels, whether they run or
/// not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fleet {
    /// The host's name in the configuration.
    pub host: String,
    /// The labels; never empty.
    pub labels: Labels,
}

/// A time in which nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Maintenance {
    /// Once.
    Once {
        /// Its begin.
        from: Timestamp,
        /// Its end, which is not part of it.
        to: Timestamp,
    },
    /// Every week.
    Weekly {
        /// The days on which it begins; every day when empty.
        days: Vec<Day>,
        /// When it begins, on the clocks of `zone`.
        from: Time,
        /// When it ends; on the next day when it is not after `from`.
        to: Time,
        /// The zone's name in the IANA database.
        zone: String,
    },
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of days")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    /// The name as policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

impl Maintenance {
    /// When the time that holds at `now` is over; none when none holds. A zone that is
    /// not known counts as UTC: policies are refused that name one.
    #[must_use]
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once { from, to } => (*from <= now && now < *to).then_some(*to),
            Self::Weekly {
                days,
                from,
                to,
                zone,
            } => {
                let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
                let local = now.to_zoned(zone);
                // One that began yesterday may reach into today.
                [local.yesterday().ok(), Some(local)]
                    .into_iter()
                    .flatten()
                    .filter(|day| days.is_empty() || days.contains(&day.weekday().into()))
                    .filter_map(|day| span(&day, *from, *to))
                    .find(|(begin, end)| *begin <= now && now < *end)
                    .map(|(_, end)| end)
            }
        }
    }
}

/// When a window that begins on `day` begins and ends. A time that the change of clocks
/// leaves out is moved as [`jiff`] moves it.
fn span(day: &Zoned, from: Time, to: Time) -> Option<(Timestamp, Timestamp)> {
    let date = day.date();
    let last = if to > from {
        date
    } else {
        date.checked_add(1.day()).ok()?
    };
    let zone = day.time_zone();
    let begin = date.to_datetime(from).to_zoned(zone.clone()).ok()?;
    let end = last.to_datetime(to).to_zoned(zone.clone()).ok()?;
    Some((begin.timestamp(), end.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn nightly(days: &[Day]) -> Maintenance {
        Maintenance::Weekly {
            days: days.to_vec(),
            from: Time::constant(22, 0, 0, 0),
            to: Time::constant(6, 0, 0, 0),
            zone: "Europe/Berlin".to_owned(),
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        // 2026-11-21 is a Saturday; Berlin is an hour ahead of UTC in November.
        let window = nightly(&[Day::Sat]);
        assert_eq!(window.until(at("2026-11-21T20:59:59Z")), None);
        let end = Some(at("2026-11-22T05:00:00Z"));
        assert_eq!(window.until(at("2026-11-21T21:00:00Z")), end);
        assert_eq!(window.until(at("2026-11-22T04:59:59Z")), end);
        assert_eq!(window.until(at("2026-11-22T05:00:00Z")), None);
        // Sunday evening is not Saturday's.
        assert_eq!(window.until(at("2026-11-22T21:30:00Z")), None);
    }

    #[test]
    fn a_window_follows_the_clocks_of_its_zone() {
        // Two hours ahead in July.
        let end = Some(at("2026-07-11T04:00:00Z"));
        assert_eq!(nightly(&[]).until(at("2026-07-10T20:00:00Z")), end);
        assert_eq!(nightly(&[]).until(at("2026-07-10T19:59:59Z")), None);
    }

    #[test]
    fn a_share_is_never_nothing() {
        assert_eq!(Share::Percent(25).of(8), 2);
        assert_eq!(Share::Percent(25).of(3), 1);
        assert_eq!(Share::Count(2).of(100), 2);
    }

    #[test]
    fn guards_of_an_older_journal_are_read() {
        let guards: Guards = serde_json::from_str(r#"{"cooldown_ms":2000}"#).unwrap();
        assert_eq!(guards.cooldown, Duration::from_secs(2));
        assert_eq!(guards.concurrency, DEFAULT_CONCURRENCY);
        assert_eq!(guards.breaker, Breaker::default());
    }
}
