//! Whether a firing notification is news.

use crate::id::IncidentId;
use crate::incident::{End, Plan, is_late, later};
use crate::record::{Again, IncidentRow};
use jiff::Timestamp;

/// What a firing notification without an open incident is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The beginning of something.
    Episode,
    /// A repetition that changes nothing.
    Repeat,
    /// It is over, nothing was done, and the policy is another one since: of which incident,
    /// and why.
    Again(IncidentId, String),
    /// What was healed fires on: a person has to look, and why.
    StillFiring(String),
}

/// Whether the end of its own episode, or of a later one of the same alert, has overtaken
/// a firing notification that was accepted at `received_at`.
pub(super) fn overtaken(ends: [Option<Timestamp>; 2], received_at: Timestamp) -> bool {
    ends.into_iter()
        .flatten()
        .any(|end| is_late(end, received_at))
}

/// Tells them apart, of notifications that nothing has overtaken: `resolved_at` is when the
/// end of the episode was told, `known` the last incident that the episode led to. `now` is
/// when the notification was accepted: what it says is no newer than that.
pub(super) fn news(
    plan: &Plan,
    resolved_at: Option<Timestamp>,
    known: Option<&IncidentRow>,
    now: Timestamp,
) -> News {
    let Some(known) = known else {
        return News::Episode;
    };
    // It fires again with the start that it had before it was told to have resolved.
    if resolved_at.is_some_and(|end| known.opened_at < end) {
        return News::Episode;
    }
    match known.again {
        Some(Again::Served) => {
            let reason = format!(
                "policy {} had nothing to do with incident {}, and has now",
                plan.policy, known.id
            );
            return News::Again(known.id, reason);
        }
        Some(Again::But(digest)) if digest != plan.digest => {
            let reason = format!(
                "policy {} was changed after incident {} had been escalated with nothing done",
                plan.policy, known.id
            );
            return News::Again(known.id, reason);
        }
        _ => {}
    }
    let healed_at = known
        .ended_at
        .filter(|_| known.state == End::Healed.as_str());
    let patience = plan.guards.cooldown.saturating_add(plan.verify.within);
    match healed_at {
        Some(at) if now > later(at, patience) => News::StillFiring(format!(
            "the alert still fires, although incident {} was verified at {at}",
            known.id
        )),
        _ => News::Repeat,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grant::Grants;
    use crate::guard::settings::Guards;
    use crate::id::Digest;
    use crate::incident::{Approval, PlannedVerify, VerifyCheck};
    use crate::policy::Mode;

    fn moment(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A cooldown and a verification of a minute each.
    fn plan() -> Plan {
        Plan {
            policy: "web".parse().unwrap(),
            digest: Digest::of(b"web"),
            steps: Vec::new(),
            verify: PlannedVerify {
                check: VerifyCheck::DockerRunning,
                steady: None,
                within: Duration::from_secs(60),
                every: Duration::from_secs(1),
            },
            guards: Guards::default(),
            grants: Grants::default(),
            mode: Mode::Auto,
            approval: Approval::default(),
            ttl: Duration::from_secs(86_400),
            evidence: 0,
            escalate: None,
        }
    }

    /// An incident that opened at 0 and ended at 10.
    fn ended(state: &str) -> IncidentRow {
        IncidentRow {
            id: IncidentId(1),
            policy: "web".to_owned(),
            target: "docker://local/web".to_owned(),
            alert: "WebDown".to_owned(),
            state: state.to_owned(),
            opened_at: moment(0),
            ended_at: Some(moment(10)),
            reason: None,
            last_run_at: Some(moment(9)),
            again: None,
            owes: false,
        }
    }

    fn judge(resolved: Option<i64>, known: Option<&str>, now: i64) -> News {
        let known = known.map(ended);
        news(&plan(), resolved.map(moment), known.as_ref(), moment(now))
    }

    #[test]
    fn an_episode_that_nobody_knows_is_news() {
        assert_eq!(judge(None, None, 0), News::Episode);
        assert_eq!(judge(Some(0), None, 121), News::Episode);
    }

    #[test]
    fn an_end_overtakes_for_two_minutes_whichever_episode_it_ends() {
        let (none, end) = (None, Some(moment(0)));
        assert!(!overtaken([none, none], moment(0)));
        for ends in [[end, none], [none, end]] {
            // One that was accepted before the end, and had to wait, is no newer than that.
            assert!(overtaken(ends, moment(-1000)));
            assert!(overtaken(ends, moment(119)));
            assert!(!overtaken(ends, moment(121)));
        }
    }

    #[test]
    fn a_repetition_is_none_whatever_its_incident_came_to() {
        for state in ["healed", "escalated", "cleared", "cancelled", "suppressed"] {
            assert_eq!(judge(None, Some(state), 100), News::Repeat, "{state}");
        }
        assert_eq!(judge(None, Some("escalated"), 100_000), News::Repeat);
    }

    #[test]
    fn a_policy_that_is_another_one_since_is_believed_once() {
        let of = |again| {
            let known = IncidentRow {
                again,
                ..ended("escalated")
            };
            news(&plan(), None, Some(&known), moment(100))
        };
        let other = Again::But(Digest::of(b"as it was"));
        assert!(matches!(of(Some(other)), News::Again(id, _) if id == IncidentId(1)));
        assert!(matches!(of(Some(Again::Served)), News::Again(..)));
        // The same version, or something was done.
        assert_eq!(of(Some(Again::But(plan().digest))), News::Repeat);
        assert_eq!(of(None), News::Repeat);
    }

    #[test]
    fn what_was_healed_and_fires_on_goes_to_a_person() {
        assert!(matches!(
            judge(None, Some("healed"), 131),
            News::StillFiring(reason) if reason.contains("incident 1")
        ));
    }

    #[test]
    fn what_resolved_and_fires_again_with_its_old_start_is_news_once() {
        // Told to have resolved at 20, after its incident had opened.
        assert_eq!(judge(Some(20), Some("healed"), 200), News::Episode);
        // The incident that this opened is younger than that end.
        assert_eq!(judge(Some(-200), Some("escalated"), 200), News::Repeat);
    }
}
