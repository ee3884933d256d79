//! What a journal has heard of alerts, as the notifications that it was.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::alert::Alert;

/// Repetitions are not spread more densely than this.
const DENSEST: Duration = Duration::from_secs(30);

/// A notification that was accepted, with its repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The alert, with the status that was told.
    pub alert: Arc<Alert>,
    /// When it was accepted first.
    pub first: Timestamp,
    /// When it was accepted last.
    pub last: Timestamp,
    /// How often it was accepted.
    pub deliveries: u64,
}

/// When a notification came: at its first and its last moment, and in equal distances
/// between, because the moments between are not kept.
pub fn deliveries(heard: &Heard) -> impl Iterator<Item = Timestamp> + use<> {
    let span = u64::try_from(heard.last.duration_since(heard.first).as_millis()).unwrap_or(0);
    let densest = u64::try_from(DENSEST.as_millis()).unwrap_or(u64::MAX);
    // The first is always there, and the last when it is another.
    let most = (span / densest).max(u64::from(span > 0));
    let repeats = heard.deliveries.saturating_sub(1).min(most);
    let (first, last) = (heard.first, heard.last);
    (0..=repeats).map(move |number| {
        if number == repeats && repeats > 0 {
            return last;
        }
        let after = span
            .checked_mul(number)
            .map_or(0, |all| all / repeats.max(1));
        let after = SignedDuration::from_millis(i64::try_from(after).unwrap_or(0));
        first.checked_add(after).unwrap_or(last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{AlertStatus, Fingerprint, Labels};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn seconds(last: i64, deliveries: u64) -> Vec<i64> {
        let heard = Heard {
            alert: Arc::new(Alert {
                source: "alertmanager".to_owned(),
                fingerprint: Fingerprint("1".to_owned()),
                status: AlertStatus::Firing,
                labels: Labels::new(),
                annotations: Labels::new(),
                starts_at: at(0),
                ends_at: None,
                generator_url: None,
            }),
            first: at(0),
            last: at(last),
            deliveries,
        };
        super::deliveries(&heard)
            .map(|moment| moment.as_second() - at(0).as_second())
            .collect()
    }

    #[test]
    fn repetitions_are_spread_between_the_first_and_the_last() {
        assert_eq!(seconds(0, 1), [0]);
        assert_eq!(seconds(300, 2), [0, 300]);
        assert_eq!(seconds(300, 4), [0, 100, 200, 300]);
    }

    #[test]
    fn a_flood_of_repetitions_stays_small() {
        assert_eq!(seconds(120, 1_000_000), [0, 30, 60, 90, 120]);
        assert_eq!(seconds(5, 1_000), [0, 5]);
        assert_eq!(seconds(0, 1_000), [0]);
    }
}
