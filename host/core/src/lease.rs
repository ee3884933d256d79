//! How alerts live that are posted as to an Alertmanager: by lease.
//!
//! A sender of `/api/v2/alerts` says again and again that an alert fires, and until when
//! that holds. Posts of the same labels whose times overlap are one alert, with the
//! earliest start; each post renews the lease, and an alert whose lease is over has resolved, even
//! if nobody says so. These are Alertmanager's rules (its `Alert.Merge`, its provider's
//! `Put` and its API's defaults). What Alertmanager does not need and this does is an
//! identity for the episode: it is the start under which the alert was first heard of, and
//! stays while the lease holds, whatever start a sender makes up.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::incident::later;

/// How long an alert holds whose sender does not say until when.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_mins(5);

/// How much longer a lease holds after a start at the most, because nobody could renew it
/// while no daemon listened.
const GRACE: Duration = Duration::from_mins(2);

/// From when until when an alert is said to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// When it began.
    pub starts_at: Timestamp,
    /// When it ended, or will have ended if nobody says it again.
    pub ends_at: Timestamp,
    /// Whether the end is the resolve timeout's and not the sender's.
    pub timeout: bool,
}

/// An alert is said to end before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it ends ({ends_at}) before it starts ({starts_at})")]
pub struct EndsFirst {
    starts_at: Timestamp,
    ends_at: Timestamp,
}

impl Span {
    /// What a post says that is heard at `now`; times that it does not have are filled in.
    pub fn posted(
        starts_at: Option<Timestamp>,
        ends_at: Option<Timestamp>,
        now: Timestamp,
        resolve_timeout: Duration,
    ) -> Result<Self, EndsFirst> {
        let span = Self {
            starts_at: starts_at.or(ends_at).unwrap_or(now),
            ends_at: ends_at.unwrap_or_else(|| later(now, resolve_timeout)),
            timeout: ends_at.is_none(),
        };
        if span.ends_at < span.starts_at {
            return Err(EndsFirst {
                starts_at: span.starts_at,
                ends_at: span.ends_at,
            });
        }
        Ok(span)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn resolved(&self, now: Timestamp) -> bool {
        self.ends_at <= now
    }

    /// Whether `newer` speaks of a time that this one speaks of, too.
    fn overlaps(&self, newer: &Self) -> bool {
        let within = |at: Timestamp| at > self.starts_at && at < self.ends_at;
        let begins_before_the_end =
            newer.starts_at > self.starts_at && newer.starts_at < self.ends_at;
        within(newer.ends_at) || begins_before_the_end
    }

    /// This and what was said after it, as one.
    fn merged(&self, newer: &Self, now: Timestamp) -> Self {
        let ends_at = if newer.resolved(now) {
            // Of two ends that were told the later one holds.
            if self.resolved(now) {
                self.ends_at.max(newer.ends_at)
            } else {
                newer.ends_at
            }
        } else if self.timeout {
            newer.ends_at
        } else {
            // What a sender said itself is not shortened by a timeout.
            self.ends_at.max(newer.ends_at)
        };
        Self {
            starts_at: self.starts_at.min(newer.starts_at),
            ends_at,
            timeout: newer.timeout,
        }
    }
}

/// How a lease came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// A sender said so.
    Told,
    /// Nobody renewed it.
    Lapsed,
}

/// What is known of one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The start that its episode is known by.
    pub episode: Timestamp,
    /// From when until when it holds, by all that was said.
    pub span: Span,
    /// When it was last said to fire.
    pub renewed_at: Timestamp,
    /// When it lapses if nobody renews it: the span's end, or a little later after a
    /// restart.
    pub until: Timestamp,
    /// How it ended; none while it holds.
    pub over: Option<Over>,
}

impl Lease {
    /// What is known after a post that is heard at `now`. A lease that has run out must have
    /// been [`Self::lapse`]d before.
    #[must_use]
    pub fn heard(before: Option<&Self>, posted: Span, now: Timestamp) -> Self {
        let Some(before) = before else {
            return Self::of(posted.starts_at, posted, now);
        };
        let span = if before.span.overlaps(&posted) {
            before.span.merged(&posted, now)
        } else {
            posted
        };
        let same = match before.over {
            None => true,
            // A word about the time before the end, which replicas and retries have late.
            Some(Over::Told) => posted.starts_at < before.span.ends_at || posted.resolved(now),
            Some(Over::Lapsed) => posted.resolved(now),
        };
        let episode = if same {
            before.episode
        } else if posted.starts_at >= before.span.ends_at {
            posted.starts_at
        } else {
            // It began again, and its sender does not say when.
            now
        };
        let mut lease = Self::of(episode, span, now);
        if lease.over.is_some() {
            lease.renewed_at = before.renewed_at;
            // It may have lapsed before somebody said so.
            lease.over = before.over.or(lease.over);
        }
        lease
    }

    fn of(episode: Timestamp, span: Span, now: Timestamp) -> Self {
        Self {
            episode,
            span,
            renewed_at: now,
            until: span.ends_at,
            over: span.resolved(now).then_some(Over::Told),
        }
    }

    /// Whether it holds no more, and nobody said so.
    #[must_use]
    pub fn ran_out(&self, now: Timestamp) -> bool {
        self.over.is_none() && self.until <= now
    }

    /// The lease once it has run out.
    #[must_use]
    pub fn lapse(self) -> Self {
        Self {
            over: Some(Over::Lapsed),
            ..self
        }
    }

    /// The lease as a daemon finds it that starts at `now`: until senders have had the time
    /// to renew it.
    #[must_use]
    pub fn found(self, now: Timestamp) -> Self {
        let length = self.span.ends_at.duration_since(self.renewed_at);
        let half = Duration::try_from(length).unwrap_or_default() / 2;
        Self {
            until: self.until.max(later(now, half.min(GRACE))),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment, in milliseconds since some other.
    fn moment(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    const TIMEOUT: Duration = Duration::from_mins(5);

    /// Alertmanager, as far as it takes posts of one alert in.
    struct Held(Option<Lease>);

    impl Held {
        fn post(&mut self, at: i64, starts: Option<i64>, ends: Option<i64>, timeout: Duration) {
            let now = moment(at);
            self.lapse(at);
            let posted = Span::posted(starts.map(moment), ends.map(moment), now, timeout).unwrap();
            self.0 = Some(Lease::heard(self.0.as_ref(), posted, now));
        }

        fn lapse(&mut self, at: i64) {
            self.0 = self.0.map(|lease| {
                if lease.ran_out(moment(at)) {
                    lease.lapse()
                } else {
                    lease
                }
            });
        }

        /// Its start, its end if it has one, and its episode.
        fn at(&mut self, at: i64) -> (i64, Option<i64>, i64) {
            self.lapse(at);
            let lease = self.0.unwrap();
            let millis = |at: Timestamp| at.as_millisecond() - 1_800_000_000_000;
            let ended = lease.span.resolved(moment(at));
            assert_eq!(ended, lease.over.is_some(), "{lease:?}");
            (
                millis(lease.span.starts_at),
                ended.then(|| millis(lease.span.ends_at)),
                millis(lease.episode),
            )
        }
    }

    // The cases of Alertmanager's acceptance tests that are about what it takes in. Times,
    // as there, but in milliseconds; what it notifies of then is what is held then.

    /// `TestMergeAlerts` and `TestMergeAlertsWithEndsAt`.
    #[test]
    fn posts_of_one_alert_are_merged() {
        for lasts in [None, Some(3000)] {
            let mut held = Held(None);
            let active = |held: &mut Held, at, starts: i64| {
                held.post(at, Some(starts), lasts.map(|lasts| starts + lasts), TIMEOUT);
            };
            active(&mut held, 1000, 1100);
            // Another Prometheus that sends later, with an earlier start.
            active(&mut held, 1200, 1000);
            assert_eq!(held.at(2000), (1000, None, 1100));
            active(&mut held, 2100, 2000);
            assert_eq!(held.at(3000), (1000, None, 1100));
            active(&mut held, 3600, 1500);
            assert_eq!(held.at(4000), (1000, None, 1100));
            // Marked resolved several times: the latest end holds.
            held.post(4600, Some(3000), Some(4500), TIMEOUT);
            held.post(4800, Some(2900), Some(4800), TIMEOUT);
            held.post(4800, Some(2900), Some(4100), TIMEOUT);
            assert_eq!(held.at(5000), (1000, Some(4800), 1100));
            // No overlap, no merge: another episode.
            active(&mut held, 5300, 5000);
            assert_eq!(held.at(6000), (5000, None, 5000));
        }
    }

    /// `TestRepeat`.
    #[test]
    fn a_resolved_post_ends_what_fires() {
        let mut held = Held(None);
        held.post(1000, Some(1000), None, TIMEOUT);
        assert_eq!(held.at(3000), (1000, None, 1000));
        held.post(3500, Some(1000), Some(3000), TIMEOUT);
        assert_eq!(held.at(4000), (1000, Some(3000), 1000));
    }

    /// `TestResolved`.
    #[test]
    fn what_nobody_repeats_has_resolved_after_the_resolve_timeout() {
        let mut held = Held(None);
        let timeout = Duration::from_secs(10);
        held.post(1000, None, None, timeout);
        assert_eq!(held.at(10_900), (1000, None, 1000));
        assert_eq!(held.at(11_000), (1000, Some(11_000), 1000));
        assert_eq!(held.0.unwrap().over, Some(Over::Lapsed));
    }

    /// `TestResolvedFilter`: one alert is told to end in the future, one runs out, one is
    /// renewed.
    #[test]
    fn ends_come_by_word_and_by_time() {
        let timeout = Duration::from_secs(10);
        let [mut v1, mut v2, mut v3] = [Held(None), Held(None), Held(None)];
        v1.post(1000, None, None, timeout);
        v2.post(1000, None, None, timeout);
        v1.post(3000, Some(1000), Some(4000), timeout);
        v3.post(3000, None, None, timeout);
        v3.post(8000, Some(3000), None, timeout);
        assert_eq!(v1.at(7000), (1000, Some(4000), 1000));
        assert_eq!(v2.at(7000), (1000, None, 1000));
        assert_eq!(v2.at(12_000), (1000, Some(11_000), 1000));
        assert_eq!(v3.at(12_000), (3000, None, 3000));
    }

    #[test]
    fn whatever_start_a_sender_makes_up_it_is_one_episode_while_the_lease_holds() {
        let starts: [fn(u32) -> Option<i64>; 4] = [
            // A script that says nothing, one that says now, one that says the same, and
            // two that evaluate the same rule at different moments.
            |_: u32| None,
            |n: u32| Some(2000 * i64::from(n)),
            |_: u32| Some(0),
            |n: u32| Some(if n.is_multiple_of(2) { 0 } else { -7000 }),
        ];
        for start in starts {
            let mut held = Held(None);
            let mut first = None;
            for n in 0..200 {
                let at = 2000 * i64::from(n);
                held.post(at, start(n), None, TIMEOUT);
                let (_, ended, episode) = held.at(at);
                assert_eq!(ended, None);
                assert_eq!(*first.get_or_insert(episode), episode);
            }
        }
    }

    #[test]
    fn prometheus_renews_by_its_own_end_and_a_deleted_rule_runs_out() {
        let mut held = Held(None);
        for n in 0..10 {
            let at = 60_000 * i64::from(n);
            held.post(at, Some(0), Some(at + 240_000), TIMEOUT);
        }
        assert_eq!(held.at(779_900), (0, None, 0));
        assert_eq!(held.at(780_000), (0, Some(780_000), 0));
    }

    #[test]
    fn an_end_that_a_sender_said_is_not_shortened_by_a_timeout() {
        let mut held = Held(None);
        held.post(0, Some(0), Some(3_600_000), TIMEOUT);
        held.post(10_000, None, None, TIMEOUT);
        assert_eq!(held.at(3_599_000), (0, None, 0));
        // One that only timed out is, by a sender that says when.
        let mut held = Held(None);
        held.post(0, None, None, Duration::from_hours(1));
        held.post(10_000, Some(5000), Some(20_000), TIMEOUT);
        assert_eq!(held.at(20_000), (0, Some(20_000), 0));
    }

    #[test]
    fn what_begins_again_is_another_episode_and_a_late_word_is_not() {
        // Told to have ended; a replica that looks later still says that it fires.
        let mut held = Held(None);
        held.post(0, Some(0), Some(240_000), TIMEOUT);
        held.post(60_000, Some(0), Some(60_000), TIMEOUT);
        held.post(65_000, Some(5000), Some(305_000), TIMEOUT);
        assert_eq!(held.at(65_000), (0, None, 0));
        held.post(75_000, Some(5000), Some(75_000), TIMEOUT);
        assert_eq!(held.at(75_000), (0, Some(75_000), 0));
        // It fires anew, also when its sender gives no start.
        held.post(76_000, None, None, TIMEOUT);
        assert_eq!(held.at(76_000), (76_000, None, 76_000));
        // Run out, and then told of again with its old start: it began again.
        let mut held = Held(None);
        held.post(0, Some(0), None, TIMEOUT);
        held.post(310_000, Some(0), None, TIMEOUT);
        assert_eq!(held.at(310_000), (0, None, 310_000));
        // The end of what had run out ends nothing new.
        let mut held = Held(None);
        held.post(0, Some(0), None, TIMEOUT);
        held.post(310_000, Some(0), Some(290_000), TIMEOUT);
        assert_eq!(held.at(310_000).2, 0);
    }

    #[test]
    fn times_that_are_missing_are_filled_in_as_alertmanager_does() {
        let now = moment(100_000);
        let posted = |starts: Option<i64>, ends: Option<i64>| {
            Span::posted(starts.map(moment), ends.map(moment), now, TIMEOUT)
        };
        let span = posted(None, None).unwrap();
        assert_eq!(
            (span.starts_at, span.ends_at, span.timeout),
            (now, moment(400_000), true)
        );
        let span = posted(None, Some(90_000)).unwrap();
        assert_eq!(
            (span.starts_at, span.ends_at, span.timeout),
            (moment(90_000), moment(90_000), false)
        );
        assert!(posted(Some(90_000), Some(89_000)).is_err());
        assert!(posted(Some(401_000), None).is_err());
    }

    #[test]
    fn a_start_gives_senders_time_to_renew_what_ran_out_meanwhile() {
        let lease = |length: i64| {
            let span = Span {
                starts_at: moment(0),
                ends_at: moment(length),
                timeout: false,
            };
            Lease::heard(None, span, moment(0))
        };
        // Prometheus: two minutes, in which it posts twice.
        assert_eq!(
            lease(240_000).found(moment(1_000_000)).until,
            moment(1_120_000)
        );
        assert_eq!(
            lease(10_000).found(moment(1_000_000)).until,
            moment(1_005_000)
        );
        // What has not run out is as it was.
        assert_eq!(lease(240_000).found(moment(10_000)).until, moment(240_000));
    }
}
