//! What the world did, from a journal, where it is known.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::assumed::{Answer, Assumed, Outcomes, ScriptedLook, ScriptedRun, Verdict};
use crate::alert::Episode;
use crate::engine::{Member, Order, VerifyOrder};
use crate::event::{Event, EventBody, PlannedEffect, RunMode, RunResult};
use crate::guard::settings::Fleet;
use crate::id::{IncidentId, PluginName, PolicyName, RunId, Target};
use crate::incident::{Incident, Phase};

/// Outcomes as they were: a run of the same plugin on the same target about the same
/// episode of an alert goes as it went, and people answer as they answered. What is not
/// known is assumed.
#[derive(Debug, Default)]
pub struct Recorded {
    assumed: Assumed,
    runs: HashMap<(Target, Episode), VecDeque<Record>>,
    people: HashMap<(PolicyName, Target, Episode), VecDeque<People>>,
    // Of the incidents that are rehearsed: what people say, and the verification that
    // follows.
    open: HashMap<IncidentId, People>,
    looks: HashMap<IncidentId, Option<ScriptedLook>>,
}

/// A run that was.
#[derive(Debug, Clone)]
struct Record {
    run: RunId,
    plugin: PluginName,
    dry: bool,
    // Moves on with every stop, so that what the run waited does not count.
    began: Timestamp,
    stopped: Option<Timestamp>,
    ended: Option<Timestamp>,
    effects: Vec<(Duration, PlannedEffect)>,
    result: Option<RunResult>,
    look: Option<ScriptedLook>,
}

/// What people said of an incident.
#[derive(Debug, Default)]
struct People {
    // One list for each plan that waited.
    answers: VecDeque<Vec<Answer>>,
    cancelled: Option<(Timestamp, String, String)>,
}

impl Recorded {
    /// What the events of these incidents say, and `assumed` for the rest.
    #[must_use]
    pub fn new<'a>(incidents: impl IntoIterator<Item = &'a [Event]>, assumed: Assumed) -> Self {
        let mut recorded = Self {
            assumed,
            ..Self::default()
        };
        for events in incidents {
            recorded.learn(events);
        }
        recorded
    }

    fn learn(&mut self, events: &[Event]) {
        let Some(first) = events.first() else {
            return;
        };
        let EventBody::Opened {
            plan,
            target,
            alert,
            ..
        } = &first.body
        else {
            return;
        };
        let episode = alert.episode();
        let mut runs: Vec<Record> = Vec::new();
        let mut people = People::default();
        let Ok((mut incident, _)) = Incident::open(first) else {
            return;
        };
        let mut waits_since = None;
        for event in events {
            let at = event.at;
            let waited = waits(&incident);
            incident.apply(event);
            if waits(&incident) && !waited {
                waits_since = Some(at);
                people.answers.push_back(Vec::new());
            }
            match &event.body {
                EventBody::RunStarted {
                    run, plugin, mode, ..
                } => runs.push(Record {
                    run: *run,
                    plugin: plugin.clone(),
                    dry: *mode == RunMode::Dry,
                    began: at,
                    stopped: None,
                    ended: None,
                    effects: Vec::new(),
                    result: None,
                    look: None,
                }),
                EventBody::EffectBegan {
                    run, request, on, ..
                } => {
                    let effect = PlannedEffect {
                        request: request.clone(),
                        on: on.clone(),
                    };
                    if let Some(record) = of(&mut runs, *run) {
                        record.effects.push((span(record.began, at), effect));
                    }
                }
                EventBody::Planned { run, effect, .. } => {
                    if let Some(record) = of(&mut runs, *run) {
                        let after = span(record.began, at);
                        record.effects.push((after, effect.clone()));
                    }
                }
                EventBody::RunResumed { run } => {
                    if let Some(record) = of(&mut runs, *run)
                        && let Some(stopped) = record.stopped.take()
                    {
                        let waited = at.duration_since(stopped);
                        record.began = record.began.checked_add(waited).unwrap_or(record.began);
                    }
                }
                EventBody::RunEnded { run, result } => {
                    if let Some(record) = of(&mut runs, *run) {
                        record.ended = Some(at);
                        match result {
                            // What stopped it is part of the rehearsal.
                            RunResult::Stopped { .. } => record.stopped = Some(at),
                            _ => record.result = Some(result.clone()),
                        }
                    }
                }
                EventBody::VerificationPassed { detail } => {
                    note_look(&mut runs, at, Ok(detail.clone()));
                }
                EventBody::VerificationFailed { detail, .. } => {
                    note_look(&mut runs, at, Err(detail.clone()));
                }
                EventBody::Approved { by, .. } => {
                    people.say(waits_since, at, by, Verdict::Approve);
                }
                EventBody::ApprovalDenied { by, reason, .. } => {
                    people.say(waits_since, at, by, Verdict::Deny(reason.clone()));
                }
                EventBody::Cancelled { by, reason } => {
                    people.cancelled = Some((at, by.clone(), reason.clone()));
                }
                _ => {}
            }
        }
        let key = (target.clone(), episode.clone());
        self.runs.entry(key).or_default().extend(runs);
        let key = (plan.policy.clone(), target.clone(), episode);
        self.people.entry(key).or_default().push_back(people);
    }
}

impl People {
    fn say(&mut self, since: Option<Timestamp>, at: Timestamp, by: &str, verdict: Verdict) {
        if let (Some(since), Some(answers)) = (since, self.answers.back_mut()) {
            answers.push(Answer {
                after: span(since, at),
                by: by.to_owned(),
                verdict,
            });
        }
    }
}

fn waits(incident: &Incident) -> bool {
    matches!(incident.phase, Phase::AwaitingApproval { .. })
}

fn of(runs: &mut [Record], run: RunId) -> Option<&mut Record> {
    runs.iter_mut().find(|record| record.run == run)
}

fn note_look(runs: &mut [Record], at: Timestamp, result: Result<String, String>) {
    if let Some(record) = runs.last_mut() {
        record.look = Some(ScriptedLook {
            after: span(record.ended.unwrap_or(record.began), at),
            result,
        });
    }
}

fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

impl Outcomes for Recorded {
    fn run(&mut self, order: &Order) -> ScriptedRun {
        let dry = order.mode == RunMode::Dry;
        let key = (order.target.clone(), order.alert.episode());
        let records = self.runs.get_mut(&key);
        let found = records.and_then(|records| {
            let place = |same: bool| {
                records
                    .iter()
                    .position(|record| record.plugin == order.plugin && (record.dry == dry) == same)
            };
            // What a dry run planned is the best guess at what a run does, and the other
            // way round.
            let same = place(true);
            let at = same.or_else(|| place(false))?;
            // A plan that is known is good for more than one guess.
            if same.is_some() {
                records.remove(at).map(|record| (record, true))
            } else {
                records.get(at).cloned().map(|record| (record, false))
            }
        });
        let Some((record, same)) = found else {
            self.looks.remove(&order.run.incident);
            return self.assumed.success(order);
        };
        let assumed = self.assumed.success(order);
        self.looks
            .insert(order.run.incident, record.look.filter(|_| same));
        let lasted = record.ended.map(|ended| span(record.began, ended));
        let (takes, result) = match (lasted, record.result) {
            (Some(lasted), Some(result)) => (lasted, result),
            // It was stopped, and would have gone on.
            (lasted, _) => (
                lasted.unwrap_or_default().saturating_add(assumed.takes),
                assumed.result,
            ),
        };
        ScriptedRun {
            takes,
            effects: record.effects,
            result,
        }
    }

    fn verify(&mut self, order: &VerifyOrder) -> ScriptedLook {
        match self.looks.remove(&order.incident).flatten() {
            // On record is when it was verified, which is when it had held.
            Some(look) if look.result.is_ok() => ScriptedLook {
                after: look.after.saturating_sub(order.steady),
                ..look
            },
            Some(look) => look,
            None => self.assumed.verify(order),
        }
    }

    fn answers(&mut self, incident: &Incident) -> Vec<Answer> {
        let known = self.open.get_mut(&incident.id);
        match known.and_then(|people| people.answers.pop_front()) {
            Some(answers) => answers,
            None => self.assumed.answers(incident),
        }
    }

    fn cancelled(&mut self, incident: &Incident) -> Option<(Timestamp, String, String)> {
        let key = (
            incident.plan.policy.clone(),
            incident.target.clone(),
            incident.alert.episode(),
        );
        // An episode can lead to several incidents, one after the other.
        let mut people = self.people.get_mut(&key)?.pop_front()?;
        let cancelled = people.cancelled.take();
        self.open.insert(incident.id, people);
        cancelled
    }

    fn fleet(&mut self, fleet: &Fleet, now: Timestamp) -> Result<Vec<Member>, String> {
        self.assumed.fleet(fleet, now)
    }
}
