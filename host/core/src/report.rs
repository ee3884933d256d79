//! What a policy did, or would have done, over some time: the evidence for letting a
//! shadow act, or for taking that back.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::duration::{HumanDuration, human};
use crate::event::{Event, EventBody, FailureClass, Guard, RunMode, RunResult};
use crate::id::{IncidentId, PolicyName, Target};
use crate::incident::{End, Incident, Phase};
use crate::policy::Mode;

/// How many incidents of a shadow are evidence.
pub const ENOUGH: u32 = 5;
/// At which share of alerts that cleared by themselves acting would mostly be in vain, in
/// percent.
pub const MOSTLY: u32 = 80;

/// What a policy came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyReport {
    /// The policy.
    pub policy: PolicyName,
    /// Its incidents in mode `shadow`; none when there were none.
    pub shadow: Option<Shadow>,
    /// Its incidents in the modes that act; none when there were none.
    pub acting: Option<Acting>,
}

/// What a shadow would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// How many incidents there were.
    pub incidents: u32,
    /// How many of them are open.
    pub open: u32,
    /// What it would have changed, the most frequent first.
    pub planned: Vec<Planned>,
    /// In how many incidents a dry run came to its end and planned nothing.
    pub nothing_to_do: u32,
    /// How often the alert cleared by itself, and how long after the incident opened.
    pub cleared: Spans,
    /// How many of these had cleared before a plan was made.
    pub before_plan: u32,
    /// How many alerts cleared after another policy had acted on the target.
    pub helped: u32,
    /// How many dry runs there were.
    pub dry_runs: u32,
    /// Why dry runs failed, the most frequent first.
    pub failures: Vec<Counted>,
    /// In how many incidents each guard held.
    pub held: BTreeMap<Guard, u32>,
    /// What others did on a target while the shadow had an incident there.
    pub conflicts: Vec<Conflict>,
    /// How many incidents an operator cancelled.
    pub cancelled: u32,
    /// What this says for letting it act.
    pub verdict: Verdict,
}

/// An effect that would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The call's name.
    pub effect: String,
    /// The target of the incident.
    pub target: Target,
    /// How often.
    pub count: u32,
}

/// A text and how often it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// The text.
    pub text: String,
    /// How often.
    pub count: u32,
}

/// Something that another policy did on a target of the shadow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The shadow's incident.
    pub incident: IncidentId,
    /// The target.
    pub target: Target,
    /// When.
    pub at: Timestamp,
    /// The other incident.
    pub other: IncidentId,
    /// The other policy.
    pub policy: String,
    /// What it did.
    pub effect: String,
}

/// How long something took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Spans {
    /// How often it was.
    pub count: u32,
    /// Half of them took no longer; none when there are none.
    #[serde(with = "maybe")]
    pub p50: Option<Duration>,
    /// Nine of ten took no longer.
    #[serde(with = "maybe")]
    pub p90: Option<Duration>,
}

/// Spans of time in reports: as policies write them.
mod maybe {
    use super::{Duration, human};
    use serde::Serializer;

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => human::serialize(span, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// What the evidence says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it can be let act.
    pub ready: bool,
    /// Why, in sentences.
    pub because: Vec<String>,
}

/// What a policy that acts has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Acting {
    /// How many incidents there were.
    pub incidents: u32,
    /// How many of them are open.
    pub open: u32,
    /// How the others ended.
    pub ends: BTreeMap<End, u32>,
    /// How long it took from an incident's opening until it was healed.
    pub healed: Spans,
    /// How many runs there were that were to change something.
    pub runs: u32,
    /// What they changed.
    pub effects: BTreeMap<String, u32>,
    /// Why runs failed, the most frequent first.
    pub failures: Vec<Counted>,
    /// In how many incidents each guard held or dropped.
    pub held: BTreeMap<Guard, u32>,
    /// How many plans waited for people, and what became of them.
    pub approvals: Approvals,
    /// Why a person had to look, the most frequent first.
    pub escalations: Vec<Counted>,
}

/// What became of plans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Approvals {
    /// Plans that people approved; each person counts.
    pub approved: u32,
    /// Plans that were denied.
    pub denied: u32,
    /// Plans that nobody approved in time.
    pub expired: u32,
}

/// What another policy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherEffect {
    /// When.
    pub at: Timestamp,
    /// In which incident.
    pub incident: IncidentId,
    /// Whose.
    pub policy: String,
    /// On what.
    pub target: Target,
    /// The call's name.
    pub effect: String,
}

/// Reports on a policy: from the events of each of its incidents, and from what other
/// policies did meanwhile.
#[must_use]
pub fn report<'a>(
    policy: PolicyName,
    incidents: impl IntoIterator<Item = &'a [Event]>,
    others: &[OtherEffect],
) -> PolicyReport {
    let mut shadow = ShadowTally::default();
    let mut acting = ActingTally::default();
    for events in incidents {
        let Ok(incident) = Incident::fold(events) else {
            continue;
        };
        if incident.plan.mode == Mode::Shadow {
            shadow.add(&incident, events, others);
        } else {
            acting.add(&incident, events);
        }
    }
    PolicyReport {
        policy,
        shadow: shadow.finish(),
        acting: acting.finish(),
    }
}

/// How an incident ended: how, when, why.
fn ended(incident: &Incident) -> Option<(End, Timestamp, &str)> {
    match &incident.phase {
        Phase::Ended { end, reason, at } => Some((*end, *at, reason)),
        _ => None,
    }
}

fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The guards that held it, each once.
fn count_guards(held: &mut BTreeMap<Guard, u32>, events: &[Event]) {
    let mut guards: Vec<Guard> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::GuardHeld { guard, .. } | EventBody::Suppressed { guard, .. } => {
                Some(*guard)
            }
            _ => None,
        })
        .collect();
    guards.sort_unstable();
    guards.dedup();
    for guard in guards {
        *held.entry(guard).or_default() += 1;
    }
}

#[derive(Default)]
struct ShadowTally {
    shadow: Shadow,
    cleared: Vec<Duration>,
    planned: BTreeMap<(String, Target), u32>,
    failures: BTreeMap<String, u32>,
    // The longest time that a verification may take: what clears sooner would have been
    // taken for healed.
    within: Duration,
}

impl ShadowTally {
    fn add(&mut self, incident: &Incident, events: &[Event], others: &[OtherEffect]) {
        let shadow = &mut self.shadow;
        shadow.incidents += 1;
        self.within = self.within.max(incident.plan.verify.within);
        let end = ended(incident);
        let mut planned = false;
        let mut made = false;
        for event in events {
            match &event.body {
                EventBody::RunStarted { step, .. } if *step > 0 => shadow.dry_runs += 1,
                EventBody::Planned { effect, .. } => {
                    planned = true;
                    let key = (effect.request.name().to_owned(), incident.target.clone());
                    *self.planned.entry(key).or_default() += 1;
                }
                EventBody::RunEnded { result, .. } => match result {
                    RunResult::Changed { .. } | RunResult::Unchanged { .. } => made = true,
                    RunResult::Failed { class, message } => {
                        let text = failure(*class, message);
                        *self.failures.entry(text).or_default() += 1;
                    }
                    RunResult::Stopped { .. } => {}
                },
                EventBody::Cancelled { .. } => shadow.cancelled += 1,
                _ => {}
            }
        }
        shadow.nothing_to_do += u32::from(made && !planned);
        count_guards(&mut shadow.held, events);
        let until = end.map_or(Timestamp::MAX, |(_, at, _)| at);
        let conflicts: Vec<_> = others
            .iter()
            .filter(|other| {
                other.incident != incident.id
                    && other.target == incident.target
                    && (incident.opened_at..=until).contains(&other.at)
            })
            .map(|other| Conflict {
                incident: incident.id,
                target: other.target.clone(),
                at: other.at,
                other: other.incident,
                policy: other.policy.clone(),
                effect: other.effect.clone(),
            })
            .collect();
        match end {
            None => shadow.open += 1,
            Some((End::Cleared, at, _)) if conflicts.is_empty() => {
                self.cleared.push(span(incident.opened_at, at));
                shadow.before_plan += u32::from(!made);
            }
            Some((End::Cleared, _, _)) => shadow.helped += 1,
            Some(_) => {}
        }
        shadow.conflicts.extend(conflicts);
    }

    fn finish(self) -> Option<Shadow> {
        let mut shadow = self.shadow;
        if shadow.incidents == 0 {
            return None;
        }
        shadow.cleared = spans(self.cleared);
        shadow.planned = self
            .planned
            .into_iter()
            .map(|((effect, target), count)| Planned {
                effect,
                target,
                count,
            })
            .collect();
        shadow
            .planned
            .sort_by_key(|planned| std::cmp::Reverse(planned.count));
        shadow.failures = counted(self.failures);
        shadow.verdict = judge(&shadow, self.within);
        Some(shadow)
    }
}

/// What speaks for letting a shadow act, and what against it.
fn judge(shadow: &Shadow, within: Duration) -> Verdict {
    let mut against = Vec::new();
    let incidents = shadow.incidents;
    if incidents < ENOUGH {
        against.push(format!(
            "{} is too little evidence, {ENOUGH} are the least",
            plural(incidents, "incident")
        ));
    }
    let failed: u32 = shadow.failures.iter().map(|failure| failure.count).sum();
    if failed > 0 {
        against.push(format!(
            "{failed} of {} failed",
            plural(shadow.dry_runs, "dry run")
        ));
    }
    if shadow.dry_runs > 0 && shadow.planned.is_empty() && failed < shadow.dry_runs {
        against.push("no dry run planned anything: acting would change nothing".to_owned());
    }
    if shadow.dry_runs == 0 {
        against.push("there was no dry run, so there is no plan to judge".to_owned());
    }
    let cleared = &shadow.cleared;
    let quickly = cleared.p50.is_some_and(|half| half <= within);
    if quickly && u64::from(cleared.count) * 100 >= u64::from(incidents) * u64::from(MOSTLY) {
        let half = HumanDuration(cleared.p50.unwrap_or_default());
        let most = HumanDuration(cleared.p90.unwrap_or_default());
        against.push(format!(
            "{} of {incidents} alerts cleared by themselves, half of them within {half}: give the first step `when: {{ after: {most} }}`, or the rule a longer `for`",
            cleared.count
        ));
    }
    if !shadow.conflicts.is_empty() {
        against.push(format!(
            "other policies acted {} on its targets meanwhile: only one of them should",
            plural(
                u32::try_from(shadow.conflicts.len()).unwrap_or(u32::MAX),
                "time"
            )
        ));
    }
    if shadow.cancelled > 0 {
        against.push(format!(
            "operators cancelled {}",
            plural(shadow.cancelled, "incident")
        ));
    }
    if against.is_empty() {
        let effects: u32 = shadow.planned.iter().map(|planned| planned.count).sum();
        Verdict {
            ready: true,
            because: vec![format!(
                "{} in {} without a failure or a conflict, and {} did not clear by themselves",
                plural(effects, "planned effect"),
                plural(incidents, "incident"),
                incidents - cleared.count
            )],
        }
    } else {
        Verdict {
            ready: false,
            because: against,
        }
    }
}

#[derive(Default)]
struct ActingTally {
    acting: Acting,
    healed: Vec<Duration>,
    failures: BTreeMap<String, u32>,
    escalations: BTreeMap<String, u32>,
}

impl ActingTally {
    fn add(&mut self, incident: &Incident, events: &[Event]) {
        let acting = &mut self.acting;
        acting.incidents += 1;
        for event in events {
            match &event.body {
                EventBody::RunStarted { step, mode, .. } if *step > 0 && *mode != RunMode::Dry => {
                    acting.runs += 1;
                }
                EventBody::EffectBegan { request, .. } => {
                    let name = request.name().to_owned();
                    *acting.effects.entry(name).or_default() += 1;
                }
                EventBody::RunEnded {
                    result: RunResult::Failed { class, message },
                    ..
                } => {
                    let text = failure(*class, message);
                    *self.failures.entry(text).or_default() += 1;
                }
                EventBody::Approved { .. } => acting.approvals.approved += 1,
                EventBody::ApprovalDenied { .. } => acting.approvals.denied += 1,
                EventBody::ApprovalExpired { .. } => acting.approvals.expired += 1,
                _ => {}
            }
        }
        count_guards(&mut acting.held, events);
        match ended(incident) {
            None => acting.open += 1,
            Some((end, at, reason)) => {
                *acting.ends.entry(end).or_default() += 1;
                if end == End::Healed {
                    self.healed.push(span(incident.opened_at, at));
                }
                if end == End::Escalated {
                    *self.escalations.entry(reason.to_owned()).or_default() += 1;
                }
            }
        }
    }

    fn finish(self) -> Option<Acting> {
        let mut acting = self.acting;
        if acting.incidents == 0 {
            return None;
        }
        acting.healed = spans(self.healed);
        acting.failures = counted(self.failures);
        acting.escalations = counted(self.escalations);
        Some(acting)
    }
}

fn failure(class: FailureClass, message: &str) -> String {
    format!("{}: {message}", class.as_str())
}

fn counted(texts: BTreeMap<String, u32>) -> Vec<Counted> {
    let mut counted: Vec<_> = texts
        .into_iter()
        .map(|(text, count)| Counted { text, count })
        .collect();
    counted.sort_by_key(|one| std::cmp::Reverse(one.count));
    counted
}

/// By nearest rank.
fn spans(mut spans: Vec<Duration>) -> Spans {
    spans.sort_unstable();
    let rank = |percent: usize| {
        let rank = (spans.len() * percent).div_ceil(100);
        spans.get(rank.saturating_sub(1)).copied()
    };
    Spans {
        count: u32::try_from(spans.len()).unwrap_or(u32::MAX),
        p50: rank(50),
        p90: rank(90),
    }
}

fn plural(count: u32, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_by_nearest_rank() {
        let seconds = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect();
        assert_eq!(spans(Vec::new()), Spans::default());
        let one = spans(seconds(&[7]));
        assert_eq!((one.p50, one.p90), (Some(Duration::from_secs(7)), one.p50));
        let ten = spans(seconds(&[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]));
        assert_eq!(ten.p50, Some(Duration::from_secs(5)));
        assert_eq!(ten.p90, Some(Duration::from_secs(9)));
    }

    fn shadow() -> Shadow {
        Shadow {
            incidents: 10,
            dry_runs: 10,
            planned: vec![Planned {
                effect: "docker.restart".to_owned(),
                target: "docker://local/web".parse().unwrap(),
                count: 10,
            }],
            cleared: Spans {
                count: 4,
                p50: Some(Duration::from_secs(300)),
                p90: Some(Duration::from_secs(900)),
            },
            ..Shadow::default()
        }
    }

    fn verdict(change: impl FnOnce(&mut Shadow)) -> Verdict {
        let mut shadow = shadow();
        change(&mut shadow);
        judge(&shadow, Duration::from_secs(60))
    }

    #[test]
    fn a_shadow_with_good_evidence_is_ready() {
        let verdict = verdict(|_| ());
        assert!(verdict.ready);
        assert!(verdict.because[0].contains("6 did not clear by themselves"));
    }

    #[test]
    fn whatever_speaks_against_it_is_said() {
        type Change = fn(&mut Shadow);
        let against: [(Change, &str); 6] = [
            (|shadow| shadow.incidents = 4, "too little evidence"),
            (
                |shadow| {
                    shadow.failures = vec![Counted {
                        text: "denied".to_owned(),
                        count: 2,
                    }];
                },
                "2 of 10 dry runs failed",
            ),
            (|shadow| shadow.planned.clear(), "planned anything"),
            (
                |shadow| {
                    shadow.cleared.count = 8;
                    shadow.cleared.p50 = Some(Duration::from_secs(20));
                },
                "8 of 10 alerts cleared by themselves, half of them within 20s: give the first step `when: { after: 15m }`",
            ),
            (|shadow| shadow.cancelled = 1, "cancelled 1 incident"),
            (
                |shadow| {
                    shadow.conflicts.push(Conflict {
                        incident: IncidentId(1),
                        target: "docker://local/web".parse().unwrap(),
                        at: Timestamp::UNIX_EPOCH,
                        other: IncidentId(2),
                        policy: "other".to_owned(),
                        effect: "docker.stop".to_owned(),
                    });
                },
                "acted 1 time on its targets",
            ),
        ];
        for (change, says) in against {
            let verdict = verdict(change);
            assert!(!verdict.ready, "{says}");
            assert!(
                verdict.because.iter().any(|why| why.contains(says)),
                "{says}: {:?}",
                verdict.because
            );
        }
    }

    #[test]
    fn what_clears_slowly_is_worth_acting_on() {
        let verdict = verdict(|shadow| {
            shadow.cleared.count = 10;
            shadow.cleared.p50 = Some(Duration::from_secs(600));
        });
        assert!(verdict.ready, "{:?}", verdict.because);
    }
}
