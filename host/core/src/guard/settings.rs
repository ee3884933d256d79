//! What a policy's guards are set to. Plans carry them, so they are journaled; what an
//! older journal does not have counts as not set.

mod text;

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::TimeZone;
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
        /// When it ends, on the same clocks; on the next day when it is not after `from`.
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
    /// When the time that holds at `now` is over; none when none holds. Of a weekly one the
    /// clocks of its zone decide, and nothing else: it holds whenever they show a time of it,
    /// also where a change of clocks shows that twice or leaves a part of it out. A zone that
    /// is not known counts as UTC: policies are refused that name one.
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
                let mut until = now;
                // What the clocks show decides, so a change of them counts on its own: a time
                // that they leave out is not waited for, and one that they show twice holds twice.
                for _ in 0..CHANGES {
                    let local = zone.to_datetime(until);
                    let Some(end) = local_end(local, days, *from, *to) else {
                        break;
                    };
                    let end = zone.to_offset(until).to_timestamp(end).ok()?;
                    match zone.following(until).next() {
                        Some(change) if change.timestamp() <= end => until = change.timestamp(),
                        _ => return Some(end),
                    }
                }
                (until > now).then_some(until)
            }
        }
    }
}

/// How many changes of clocks one window may reach over: no zone has as many in two days.
const CHANGES: u32 = 8;

/// When the window is over in which `local` is, by the clocks; none when it is in none.
fn local_end(local: DateTime, days: &[Day], from: Time, to: Time) -> Option<DateTime> {
    let over_midnight = to <= from;
    // One that began yesterday may reach into today.
    let yesterday = local.date().yesterday().ok().filter(|_| over_midnight);
    [yesterday, Some(local.date())]
        .into_iter()
        .flatten()
        .filter(|day| days.is_empty() || days.contains(&day.weekday().into()))
        .filter_map(|day| {
            let last = if over_midnight {
                day.tomorrow().ok()?
            } else {
                day
            };
            Some((day.to_datetime(from), last.to_datetime(to)))
        })
        .find(|(begin, end)| *begin <= local && local < *end)
        .map(|(_, end)| end)
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

    fn window(days: &[Day], from: &str, to: &str, zone: &str) -> Maintenance {
        Maintenance::Weekly {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            zone: zone.to_owned(),
        }
    }

    /// From when to when it holds between two moments, to the minute.
    fn spans(window: &Maintenance, from: &str, to: &str) -> Vec<String> {
        let mut now = at(from);
        let mut spans: Vec<String> = Vec::new();
        while now < at(to) {
            match window.until(now) {
                Some(until) => {
                    assert!(until > now);
                    spans.push(format!("{} to {until}", now.strftime("%d %H:%M")));
                    now = until;
                }
                None => now += Duration::from_mins(1),
            }
        }
        let short = |span: String| {
            span.replace("2026-", "")
                .replace(":00Z", "")
                .replace('T', " ")
        };
        spans.into_iter().map(short).collect()
    }

    /// Berlin sets its clocks back from 3:00 to 2:00 on 25 October 2026, a Sunday, at 1:00 UTC.
    #[test]
    fn what_the_clocks_show_twice_holds_twice() {
        let night = |from, to| {
            let window = window(&[Day::Sun], from, to, "Europe/Berlin");
            spans(&window, "2026-10-24T20:00:00Z", "2026-10-25T12:00:00Z")
        };
        // All of the doubled hour, without a break.
        assert_eq!(night("02:00", "03:00"), ["25 00:00 to 10-25 02:00"]);
        assert_eq!(night("01:00", "04:00"), ["24 23:00 to 10-25 03:00"]);
        // The end and the begin are within it: the clocks are past it, and then before it again.
        let end = ["24 23:00 to 10-25 00:30", "25 01:00 to 10-25 01:30"];
        assert_eq!(night("01:00", "02:30"), end);
        let begin = ["25 00:30 to 10-25 01:00", "25 01:30 to 10-25 03:00"];
        assert_eq!(night("02:30", "04:00"), begin);
        let both = ["25 00:15 to 10-25 00:45", "25 01:15 to 10-25 01:45"];
        assert_eq!(night("02:15", "02:45"), both);
        // Before and after, nothing is other than on any day.
        assert_eq!(night("00:00", "01:00"), ["24 22:00 to 10-24 23:00"]);
        assert_eq!(night("03:00", "04:00"), ["25 02:00 to 10-25 03:00"]);
    }

    /// Berlin sets its clocks forward from 2:00 to 3:00 on 29 March 2026, a Sunday, at 1:00 UTC.
    #[test]
    fn what_the_clocks_leave_out_is_not_waited_for() {
        let night = |from, to| {
            let window = window(&[Day::Sun], from, to, "Europe/Berlin");
            spans(&window, "2026-03-28T20:00:00Z", "2026-03-29T12:00:00Z")
        };
        assert_eq!(night("01:00", "02:30"), ["29 00:00 to 03-29 01:00"]);
        assert_eq!(night("02:30", "03:30"), ["29 01:00 to 03-29 01:30"]);
        assert_eq!(night("02:30", "04:00"), ["29 01:00 to 03-29 02:00"]);
        assert_eq!(night("01:30", "03:30"), ["29 00:30 to 03-29 01:30"]);
        assert_eq!(night("02:00", "03:00"), [""; 0]);
        assert_eq!(night("02:15", "02:45"), [""; 0]);
    }

    #[test]
    fn a_window_over_midnight_goes_by_the_clocks_of_both_days() {
        let saturdays = |from, to| window(&[Day::Sat], from, to, "Europe/Berlin");
        let autumn = ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        let spring = ("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        for (from, to, (begin, end), expected) in [
            ("22:00", "06:00", autumn, &["24 20:00 to 10-25 05:00"][..]),
            ("22:00", "06:00", spring, &["28 21:00 to 03-29 04:00"]),
            (
                "22:00",
                "02:30",
                autumn,
                &["24 20:00 to 10-25 00:30", "25 01:00 to 10-25 01:30"],
            ),
            ("22:00", "02:30", spring, &["28 21:00 to 03-29 01:00"]),
        ] {
            assert_eq!(spans(&saturdays(from, to), begin, end), expected);
        }
        // Days of 25 and of 23 hours are whole days, and one follows the other.
        let sundays = window(&[Day::Sun], "00:00", "00:00", "Europe/Berlin");
        let autumn = spans(&sundays, autumn.0, autumn.1);
        assert_eq!(autumn, ["24 22:00 to 10-25 23:00"]);
        let spring = spans(&sundays, spring.0, spring.1);
        assert_eq!(spring, ["28 23:00 to 03-29 22:00"]);
    }

    #[test]
    fn clocks_of_the_south_of_half_hours_and_at_midnight_count_too() {
        // Sydney goes back from 3:00 to 2:00 on 5 April, and forward on 4 October, both at 16:00
        // UTC of the day before.
        let sydney = window(&[Day::Sun], "01:30", "02:30", "Australia/Sydney");
        assert_eq!(
            spans(&sydney, "2026-04-04T12:00:00Z", "2026-04-05T12:00:00Z"),
            ["04 14:30 to 04-04 15:30", "04 16:00 to 04-04 16:30"]
        );
        assert_eq!(
            spans(&sydney, "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z"),
            ["03 15:30 to 10-03 16:00"]
        );
        // Lord Howe goes back from 2:00 to 1:30 at 15:00 UTC, and forward from 2:00 to 2:30 at 15:30.
        let howe = |from, to| window(&[Day::Sun], from, to, "Australia/Lord_Howe");
        let (april, october) = (
            ("2026-04-04T12:00:00Z", "2026-04-05T12:00:00Z"),
            ("2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z"),
        );
        for (from, to, (begin, end), expected) in [
            ("01:00", "02:00", april, &["04 14:00 to 04-04 15:30"][..]),
            (
                "01:00",
                "01:45",
                april,
                &["04 14:00 to 04-04 14:45", "04 15:00 to 04-04 15:15"],
            ),
            ("01:45", "02:15", october, &["03 15:15 to 10-03 15:30"]),
            ("02:15", "03:00", october, &["03 15:30 to 10-03 16:00"]),
            ("02:00", "02:30", october, &[]),
        ] {
            assert_eq!(spans(&howe(from, to), begin, end), expected, "{from} {to}");
        }
        // Cairo leaves out the first hour of 24 April, a Friday, and shows the last one of
        // 29 October, a Thursday, twice.
        let cairo = |days: &[Day], from, to| window(days, from, to, "Africa/Cairo");
        let april = ("2026-04-23T12:00:00Z", "2026-04-24T12:00:00Z");
        let friday = cairo(&[Day::Fri], "00:00", "02:00");
        assert_eq!(
            spans(&friday, april.0, april.1),
            ["23 22:00 to 04-23 23:00"]
        );
        let thursday = cairo(&[Day::Thu], "23:30", "00:30");
        assert_eq!(
            spans(&thursday, april.0, april.1),
            ["23 21:30 to 04-23 22:00"]
        );
        let october = ("2026-10-29T12:00:00Z", "2026-10-30T12:00:00Z");
        assert_eq!(
            spans(&thursday, october.0, october.1),
            ["29 20:30 to 10-29 21:00", "29 21:30 to 10-29 22:30"]
        );
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
