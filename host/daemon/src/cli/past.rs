//! What the commands share that look back: moments, policies, and text.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sentinel_core::duration::HumanDuration;
use sentinel_core::engine::{PluginVersion, World};
use sentinel_core::id::{Digest, PluginRef};
use sentinel_core::policy::PolicySet;
use sentinel_core::record::{History, earlier};
use sentinel_journal::Reader;

use super::output::{Failure, remark};
use crate::app;
use crate::config::Config;
use crate::serving::{self, Problem};

/// A moment as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// That one.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl Moment {
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => earlier(now, ago),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        if let Ok(ago) = s.parse::<HumanDuration>() {
            return Ok(Self::Ago(ago.0));
        }
        if let Ok(at) = s.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        // A date with a time reads as a date as well: without a zone it says no moment.
        let date = s
            .parse::<Date>()
            .ok()
            .filter(|_| !s.contains(['T', 't', ' ']));
        date.and_then(|date| date.to_zoned(TimeZone::UTC).ok())
            .map(|midnight| Self::At(midnight.timestamp()))
            .ok_or_else(|| {
                format!(
                    "`{s}` is no moment: expected a date (2026-11-23), a date and time with a zone (2026-11-23T04:00:00Z), a duration for so long ago (2h, 7d), or now"
                )
            })
    }
}

/// The policies of a folder or of a file. In the daemon's own folder, what cannot be used is
/// told on stderr, and counts as it does in a daemon: what served of that file before is used.
pub(super) fn policies(
    config: &Config,
    path: &Path,
    journal: Option<&Reader>,
) -> Result<PolicySet, Failure> {
    let served = journal.and_then(|journal| journal.serving().ok().flatten());
    let served = served.map(|served| served.policies).unwrap_or_default();
    let rendered = |problems: &[Problem]| {
        let each = problems.iter().map(|problem| problem.rendered.trim_end());
        each.collect::<Vec<_>>().join("\n")
    };
    let read = serving::policies_in(path, &app::environment(config), &served);
    let (set, problems) = read.map_err(|problems| {
        Failure::given(format!(
            "the policies cannot be used\n\n{}",
            rendered(&problems)
        ))
    })?;
    if !problems.is_empty() && path != config.policies_dir {
        return Err(Failure::given(format!(
            "the policies cannot be used\n\n{}",
            rendered(&problems)
        )));
    }
    if !problems.is_empty() {
        remark(&format!(
            "{}\nnote: of what cannot be used, what served before counts\n",
            rendered(&problems)
        ));
    }
    Ok(set)
}

/// What the engine looks at when it is only asked.
pub(super) struct Asked<'a> {
    pub(super) policies: &'a PolicySet,
    pub(super) history: &'a dyn History,
}

impl World for Asked<'_> {
    fn policies(&self) -> &PolicySet {
        self.policies
    }

    /// Whether a plugin serves is no question of policies and guards.
    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion> {
        Some(PluginVersion {
            version: "any".to_owned(),
            digest: Digest::of(plugin.name.as_str().as_bytes()),
        })
    }

    fn history(&self) -> &dyn History {
        self.history
    }
}

/// How far a moment is away, in words: `in 34s`, `2h ago`.
pub(super) fn distance(now: Timestamp, at: Timestamp) -> String {
    let span = at.duration_since(now);
    let whole = |span: jiff::SignedDuration| {
        // Whole seconds, and of what is long only the two largest units.
        let seconds = u64::try_from(span.as_secs()).unwrap_or(0);
        let grain = match seconds {
            0..3_600 => 1,
            3_600..86_400 => 60,
            _ => 3_600,
        };
        HumanDuration(Duration::from_secs(seconds / grain * grain))
    };
    if span.as_secs() == 0 {
        "now".to_owned()
    } else if span.is_negative() {
        format!("{} ago", whole(-span))
    } else {
        format!("in {}", whole(span))
    }
}

/// A number with its word.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    let word = if count == 1 { one } else { many };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let at = |text: &str| Moment::At(text.parse().unwrap());
        assert_eq!("2026-11-23".parse(), Ok(at("2026-11-23T00:00:00Z")));
        assert_eq!(
            "2026-11-23T04:00:00+01:00".parse(),
            Ok(at("2026-11-23T03:00:00Z"))
        );
        assert_eq!("1h30m".parse(), Ok(Moment::Ago(Duration::from_secs(5_400))));
        assert_eq!("now".parse(), Ok(Moment::Ago(Duration::ZERO)));
        for bad in ["yesterday", "2026-13-01", "5", "2026-11-23T04:00:00", ""] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn distances_are_short() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        assert_eq!(distance(at(0), at(34)), "in 34s");
        assert_eq!(distance(at(0), at(0)), "now");
        assert_eq!(distance(at(0), at(-7_265)), "2h1m ago");
        assert_eq!(distance(at(0), at(-100_000)), "1d3h ago");
    }
}
