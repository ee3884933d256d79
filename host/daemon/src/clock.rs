//! The daemon's clock: what timers, guards and incidents go by.
//!
//! Inside one process it is steady, whatever is done to the machine's clock: a cooldown
//! does not get an hour longer because somebody set the clock back. A start takes the
//! machine's time, or that of the last event in the journal where the machine's is
//! behind it: what was timed before goes on from there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sentinel_core::incident::later;

/// How far the machine's clock may be off before it is worth a word.
const OFF: Duration = Duration::from_secs(5);
/// How far the journal may be ahead of the machine at a start. Beyond that the machine's
/// clock was wrong when it was written, and is believed now.
const AHEAD: Duration = Duration::from_hours(24);

/// A steady clock.
#[derive(Debug)]
pub(crate) struct Clock {
    began_at: Timestamp,
    began: Instant,
    told: AtomicBool,
}

impl Clock {
    /// A clock that goes on after `last`, the time of the last event in the journal.
    pub(crate) fn after(last: Option<Timestamp>) -> Self {
        let wall = Timestamp::now();
        let began_at = match last {
            Some(last) if last > later(wall, AHEAD) => {
                tracing::warn!(%last, now = %wall, "the journal is from the future, so its clock was wrong: timers go by the machine's");
                wall
            }
            Some(last) if last > wall => {
                tracing::warn!(%last, now = %wall, "the machine's clock was set back: timers go on from the journal's last event");
                last
            }
            _ => wall,
        };
        Self {
            began_at,
            began: Instant::now(),
            told: AtomicBool::new(began_at != wall),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        later(self.began_at, self.began.elapsed())
    }

    /// How long it is until `at`; nothing when it has passed.
    pub(crate) fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.now())).unwrap_or(Duration::ZERO)
    }

    /// Says once when the machine's clock was set.
    pub(crate) fn compare(&self) {
        let off: SignedDuration = Timestamp::now().duration_since(self.now());
        if off.unsigned_abs() > OFF && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                seconds = off.as_secs(),
                "the machine's clock was set: timers go on as if it had not been, until the next start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_after_the_last_event_if_that_can_be_believed() {
        let wall = Timestamp::now();
        let soon = later(wall, Duration::from_hours(1));
        assert!(Clock::after(Some(soon)).now() >= soon);
        let never = later(wall, Duration::from_hours(48));
        assert!(Clock::after(Some(never)).now() < soon);
        assert!(Clock::after(None).now() >= wall);
    }

    #[test]
    fn what_has_passed_is_no_time_away() {
        let clock = Clock::after(None);
        assert_eq!(clock.until(Timestamp::UNIX_EPOCH), Duration::ZERO);
        let soon = later(clock.now(), Duration::from_mins(1));
        let left = clock.until(soon);
        assert!(left > Duration::from_secs(59) && left <= Duration::from_mins(1));
    }
}
